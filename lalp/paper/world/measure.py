"""Step world: the evidence of its tables of students and arms on the paper's claims.

The tables come from `lalp.paper.world.study.run_world`. A kind is one set of teachers (``pool``),
family of problems and share of repetitive pre-training documents (``copying``). Within a kind, the
units are the seeds: one student, its problems and all its arms. Unless stated otherwise, results
are by kind. They have ``num_seeds`` and the ends ``low`` and ``high`` of Student's t interval over
seeds (95 %). With two seeds, that is about nine times their distance and says little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.paper.estimates import row_estimates
from lalp.paper.rechecks import describe_made
from lalp.paper.show import in_words
from lalp.paper.tables import TABLES
from lalp.paper.world.settings import (
    CONTROL,
    KIND,
    RULES,
    TEACHERS,
    TEACHERS_BY_NAME,
    THIRDS,
    UNIT,
    WINDOWS,
)
from lalp.paper.world.study import WorldResults
from lalp.scoring.columns import GALP, column_window
from lalp.stats import holm, p_value, t_interval

# Scores closer than this do not order teachers (nats per token).
TIE = 0.01
# The splitter of solutions for each rule of LALP on the map.
SPLITS = {"lalp": "true steps", "lalp sentences": "sentences", "lalp paragraphs": "paragraphs"}
ALL_TEACHERS = "all teachers"
# Teachers who restate: those of the study, and the second teacher of the map.
RESTATING = (*(t.name for t in TEACHERS_BY_NAME.values() if t.restating), "fluent")
PICKED = ["galp", "lalp"]
_RESAMPLES, _SEED = 2000, 0


def over_seeds(
    table: pd.DataFrame,
    by: Sequence[str],
    column: str,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> pd.DataFrame:
    """Mean of a column over seeds without NaN, with its interval cut at ``bounds``.

    ``table`` has one row per seed and combination of ``by``. Its columns ``by`` keep their types,
    even without rows.
    """
    rows = []
    for keys, values in table.groupby(list(by), sort=False)[column]:
        mean = t_interval(values)
        rows.append((*keys, mean.value, *np.clip((mean.low, mean.high), *bounds), mean.num_units))
    found = pd.DataFrame(rows, columns=[*by, column, "low", "high", "num_seeds"])
    return found.astype(table.dtypes[list(by)].to_dict())


def corrected(differences: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Differences over seeds with ``p_holm``, Holm's correction over each family of rows.

    A family is all rows, or the rows with the same values ``by``.
    """
    p_values = pd.Series(
        [p_value(one) for one in row_estimates(differences, "difference", "num_seeds")],
        index=differences.index,
        dtype=float,
    )
    keys = [differences[name] for name in by] or [pd.Series(0, index=differences.index)]
    return differences.assign(p_holm=p_values.groupby(keys).transform(holm))


def with_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Arms with ``accuracy``, the share of the unit's held-out problems that are solved."""
    num_problems = arms.groupby(UNIT)["num_problems"].transform("max")
    return arms.assign(num_problems=num_problems, accuracy=arms["num_solved"] / num_problems)


def accuracy_by_arm(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds by ``group`` and ``arm`` (Tables 1 to 3)."""
    return over_seeds(with_accuracy(arms), [*KIND, "group", "arm"], "accuracy", (0, 1))


def _beside_accuracy(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Means over seeds of a column, with interval ends named after it, and of the accuracy."""
    prefix = column.removeprefix("last_")
    ends = {"low": f"{prefix}_low", "high": f"{prefix}_high"}
    means = over_seeds(table, by, column).drop(columns="num_seeds").rename(columns=ends)
    return means.merge(over_seeds(table, by, "accuracy", (0, 1)), on=by)


# --- differences between arms ----------------------------------------------------------------


def seed_differences(
    arms: pd.DataFrame, pairs: Iterable[tuple[str, str, str]], column: str = "accuracy"
) -> pd.DataFrame:
    """One arm minus another of the same seed; a row for each pair and unit that has both.

    ``pairs`` are a comparison, an arm, and the arm to subtract. They become ``group``, ``arm`` and
    ``against`` in the result, beside ``difference`` and the digits of both arms.
    """
    wanted = pd.DataFrame(pairs, columns=["group", "arm", "against"]).rename_axis("pair")
    table = with_accuracy(arms)
    other = table[[*UNIT, "group", "arm", "solved", column]].rename(columns={"arm": "against"})
    both = table.merge(wanted.reset_index(), on=["group", "arm"])
    both = both.merge(other, on=[*UNIT, "group", "against"], suffixes=("", " of the other"))
    both["difference"] = both[column] - both[f"{column} of the other"]
    # The order of the pairs is the order of the notebook's tables.
    return both.sort_values("pair", kind="stable", ignore_index=True)


def arm_differences(
    arms: pd.DataFrame, pairs: Iterable[tuple[str, str, str]], column: str = "accuracy"
) -> pd.DataFrame:
    """`seed_differences` over seeds: ``group``, ``arm``, ``against``, ``difference``.

    It also has ``num_above``, the seeds with a difference above 0, and for accuracy
    ``problems_low`` and ``problems_high``: a bootstrap over the problems of these seeds. That says
    how sure the difference is for these particular students.
    """
    by = [*KIND, "group", "arm", "against"]
    units = seed_differences(arms, pairs, column)
    table = over_seeds(units, by, "difference")
    groups = [rows for _, rows in units.groupby(by, sort=False)]
    table["num_above"] = [int((rows["difference"] > 0).sum()) for rows in groups]
    table[["problems_low", "problems_high"]] = np.nan
    if column == "accuracy" and groups:
        table[["problems_low", "problems_high"]] = [_problem_interval(rows) for rows in groups]
    return table


def _problem_interval(both: pd.DataFrame) -> tuple[float, float]:
    """Percentile bootstrap of the mean over seeds; problems are resampled within each seed."""
    rng = np.random.default_rng(_SEED)
    draws = np.zeros(_RESAMPLES)
    digits = both[["solved", "solved of the other"]]
    if digits.isna().any(axis=None):
        return np.nan, np.nan
    for one, other in digits.itertuples(index=False):
        gaps = np.subtract(*(np.array(list(text), dtype=float) for text in (one, other)))
        # A problem's difference is -1, 0 or 1, so a draw of problems is a draw of their counts.
        shares = [np.mean(gaps == value) for value in (-1, 0, 1)]
        counts = rng.multinomial(len(gaps), shares, size=_RESAMPLES)
        draws += (counts[:, 2] - counts[:, 0]) / len(gaps)
    low, high = np.quantile(draws / len(both), [0.025, 0.975])
    return float(low), float(high)


def rule_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """`arm_differences` of each rule to random, to its control of the same mix, and to GALP.

    Each of the three is its own family for ``p_holm``.
    """
    names = arms.loc[arms["group"] == RULES, "arm"].unique()
    rules = [name for name in names if not name.startswith(CONTROL)]
    families = (
        [(RULES, name, "random") for name in rules if name != "random"],
        [(RULES, name, CONTROL + name) for name in rules],
        [(RULES, name, "galp") for name in rules if name.startswith("lalp")],
    )
    tables = [corrected(arm_differences(arms, pairs)) for pairs in families]
    return pd.concat(tables, ignore_index=True)


def teacher_picks(arms: pd.DataFrame) -> pd.DataFrame:
    """Share of each ``teacher`` in the selections of GALP and LALP, over seeds.

    Beside ``galp`` and ``lalp``: the ``accuracy`` of the student trained on that teacher alone.
    """
    taught = with_accuracy(arms[arms["group"] == TEACHERS])
    alone = taught.groupby("arm", sort=False)["accuracy"].mean()
    rules = arms[arms["group"] == RULES].set_index("arm")
    shares = {
        teacher: [rules.loc[[rule], f"share of {teacher}"].fillna(0).mean() for rule in PICKED]
        for teacher in alone.index
    }
    table = pd.DataFrame.from_dict(shares, orient="index", columns=PICKED)
    return table.join(alone).rename_axis("teacher").reset_index()


def third_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds by ``teacher`` and ``third`` of its samples by GALP (Table 1)."""
    rows = arms[arms["group"].str.startswith(THIRDS)]
    table = accuracy_by_arm(rows).rename(columns={"arm": "third"})
    return table.assign(teacher=table.pop("group").str.removeprefix(f"{THIRDS}: "))


def third_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Highest minus lowest third by ``teacher``, and the mean over its teachers (Table 1)."""
    groups = [group for group in arms["group"].unique() if group.startswith(THIRDS)]
    units = seed_differences(arms, [(group, "highest", "lowest") for group in groups])
    units["teacher"] = units["group"].str.removeprefix(f"{THIRDS}: ")
    return over_seeds(_and_mean(units, ["difference"]), [*KIND, "teacher"], "difference")


def _and_mean(units: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows by unit and teacher, and below them each unit's mean over its teachers."""
    mean = units.groupby(UNIT, as_index=False)[list(columns)].mean().assign(teacher=ALL_TEACHERS)
    return pd.concat([units[[*UNIT, "teacher", *columns]], mean])


# --- ranking of teachers ---------------------------------------------------------------------


def kendall_tau(
    scores: Float[np.ndarray, "teachers"],
    accuracies: Float[np.ndarray, "teachers"],
    tie: float = TIE,
) -> float:
    """Kendall's tau-b; scores that differ by less than ``tie`` nats count as equal.

    NaN if either side orders nothing.
    """
    # Not scipy's: closeness within `tie` is not transitive, so ranks cannot express it.
    first, second = np.triu_indices(len(scores), 1)
    gaps = np.subtract(scores[first], scores[second])
    one = np.where(np.abs(gaps) < tie, 0, np.sign(gaps))
    other = np.sign(accuracies[first] - accuracies[second])
    pairs = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / pairs) if pairs else np.nan


def _teacher_table(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean scores with the ``accuracy`` of the student trained on the teacher, by unit."""
    trained = with_accuracy(arms[arms["group"] == TEACHERS]).rename(columns={"arm": "teacher"})
    return means.merge(trained[[*UNIT, "teacher", "accuracy"]], on=[*UNIT, "teacher"])


def teacher_ranking(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Agreement of every score's order of teachers with their students' accuracy (Table 2).

    By unit, ``split`` and ``score``: ``tau`` (`kendall_tau`), and ``right``, whether the teacher
    ranked first gives the most accurate student (a share if several are tied). Both are NaN if all
    students are equally accurate.
    """
    rows, by = [], [*UNIT, "split", "score"]
    table = _teacher_table(arms, means)
    for keys, frame in table.groupby(by, sort=False):
        scores, accuracies = frame["mean"].to_numpy(), frame["accuracy"].to_numpy()
        right = (accuracies[scores > scores.max() - TIE] == accuracies.max()).mean()
        right = float(right) if np.ptp(accuracies) > 0 else np.nan
        rows.append((*keys, kendall_tau(scores, accuracies), right))
    types = table.dtypes[by].to_dict() | {"tau": float, "right": float}
    return pd.DataFrame(rows, columns=[*by, "tau", "right"]).astype(types)


def ranking_means(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """`teacher_ranking` over seeds by ``split`` and ``score``: mean ``tau`` and ``right``."""
    ranking, by = teacher_ranking(arms, means), [*KIND, "split", "score"]
    right = ranking.groupby(by, sort=False, as_index=False)["right"].mean()
    return over_seeds(ranking, by, "tau", (-1, 1)).merge(right, on=by)


def tau_differences(
    arms: pd.DataFrame, means: pd.DataFrame, score: str, against: str
) -> pd.DataFrame:
    """Tau of one score on true steps minus that of another: ``difference`` over seeds."""
    true = teacher_ranking(arms, means).query("split == 'true'").set_index([*UNIT, "score"])
    wide = true["tau"].unstack("score").reindex(columns=[score, against])
    return _over_seeds(wide[score] - wide[against])


def _over_seeds(differences: pd.Series) -> pd.DataFrame:
    """Differences by unit over seeds."""
    return over_seeds(differences.dropna().rename("difference").reset_index(), KIND, "difference")


def teacher_points(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean score and accuracy by ``split``, ``score`` and ``teacher`` (Fig. 1).

    The ends of the score's interval are ``mean_low`` and ``mean_high`` (nats per token).
    """
    by = [*KIND, "split", "score", "teacher"]
    return _beside_accuracy(_teacher_table(arms, means), by, "mean")


def window_taus(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean ``tau`` over seeds by ``window`` of LALP on true steps, ``galp`` for GALP (Fig. 3)."""
    table = ranking_means(arms, means).query("split == 'true'").drop(columns=["split", "right"])
    return table.assign(window=[column_window(score) or GALP for score in table.pop("score")])


def window_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds of LALP's selection by ``window``, and of GALP's (Fig. 9)."""
    galp = (arms["group"] == RULES) & (arms["arm"] == "galp")
    table = accuracy_by_arm(arms[(arms["group"] == WINDOWS) | galp])
    return table.rename(columns={"arm": "window"}).drop(columns="group")


def gap_curves(gaps: pd.DataFrame) -> pd.DataFrame:
    """Mean ``gap`` over seeds by ``teacher`` and ``bin``, a tenth of the response (Fig. 5)."""
    return over_seeds(gaps, [*KIND, "teacher", "bin"], "gap")


# --- the gap by position ---------------------------------------------------------------------

GAP_MEASURES = ("rise", "rise_before_end", "late_slope_before_end")


def gap_rises(gaps: pd.DataFrame) -> pd.DataFrame:
    """Growth of the gap, by unit and ``teacher``, in nats per token.

    ``rise`` is the last tenth minus the first. ``rise_before_end`` is the ninth minus the first,
    because the last one holds the answer's sentence. Near the start, the window holds all earlier
    text, so the gap is 0 by construction. ``late_slope_before_end`` separates a trend from this:
    least squares over the sixth to ninth tenth, per response.
    """
    rows, by = [], [*UNIT, "teacher"]
    for keys, frame in gaps.groupby(by, sort=False):
        curve = frame.set_index("bin")["gap"].sort_index()
        late = curve[curve.index >= (curve.index.max() + 1) / 2].iloc[:-1].dropna()
        slope = np.polyfit(late.index / 10, late, 1)[0] if len(late) > 1 else np.nan
        rises = (curve.iloc[i] - curve.iloc[0] for i in (-1, -2))
        rows.append((*keys, *rises, float(slope)))
    return pd.DataFrame(rows, columns=[*by, *GAP_MEASURES]).astype(gaps.dtypes[by].to_dict())


def gap_trends(gaps: pd.DataFrame) -> pd.DataFrame:
    """`gap_rises` over seeds: ``value`` by ``teacher`` and ``measure``, also over all teachers."""
    units = _and_mean(gap_rises(gaps), GAP_MEASURES)
    long = units.melt([*UNIT, "teacher"], GAP_MEASURES, "measure", "value")
    return over_seeds(long, [*KIND, "teacher", "measure"], "value")


def restating_differences(gaps: pd.DataFrame, measure: str = "rise") -> pd.DataFrame:
    """Rise of the gap for teachers who restate minus the others': ``difference`` over seeds."""
    rises = gap_rises(gaps)
    does = rises["teacher"].isin(RESTATING)
    one, other = (rises[rows].groupby(UNIT)[measure].mean() for rows in (does, ~does))
    return _over_seeds(one - other)


def loss_points(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean ``last_loss`` (end of training) and ``accuracy`` by ``arm``, the rules (Fig. 6).

    The ends of the loss's interval are ``loss_low`` and ``loss_high`` (nats per token).
    """
    rules = with_accuracy(arms[arms["group"] == RULES])
    return _beside_accuracy(rules, [*KIND, "arm"], "last_loss")


def loss_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """`arm_differences` of LALP and random to GALP by ``measure``: final loss and accuracy."""
    pairs = [(RULES, name, "galp") for name in ("lalp", "random")]
    measures = {"final loss (nats)": "last_loss", "accuracy": "accuracy"}
    tables = [arm_differences(arms, pairs, c).assign(measure=m) for m, c in measures.items()]
    return pd.concat(tables, ignore_index=True)


def loss_agreement(arms: pd.DataFrame) -> pd.DataFrame:
    """Whether low training loss goes with an accurate student, over the rules' arms, by unit.

    ``spearman`` is of loss and accuracy (-1: the lower the loss, the better); ``lowest_loss`` and
    ``most_accurate`` are arms; ``same`` says if they are one arm.
    """
    rows = []
    table = with_accuracy(arms[arms["group"] == RULES])
    for keys, frame in table.groupby(UNIT, sort=False):
        frame = frame.set_index("arm")[["last_loss", "accuracy"]]
        varies = len(frame) > 2 and (frame.max() > frame.min()).all()
        rho = stats.spearmanr(frame["last_loss"], frame["accuracy"]).statistic if varies else np.nan
        lowest = frame["last_loss"].idxmin()
        same = frame.at[lowest, "accuracy"] == frame["accuracy"].max()
        rows.append((*keys, float(rho), lowest, frame["accuracy"].idxmax(), bool(same)))
    columns = [*UNIT, "spearman", "lowest_loss", "most_accurate", "same"]
    return pd.DataFrame(rows, columns=columns).astype(table.dtypes[UNIT].to_dict())


_STUDENT = ["family", "copying", "seed"]
COPYING_EFFECTS = ["accuracy", "share"]


def copying_table(arms: pd.DataFrame, students: pd.DataFrame) -> pd.DataFrame:
    """A student's skill at copying, and the difference of GALP's selection from LALP's, by student.

    ``copying_near`` and ``copying_far`` are mean probabilities of restated values before
    fine-tuning; ``accuracy`` and ``share`` (of the restating teachers' responses) are GALP minus
    LALP. Pools are averaged, without the map's cells of no scaffolding: nobody restates there.
    """
    shares = [name for name in (f"share of {t}" for t in RESTATING) if name in arms]
    table = _with_cell(with_accuracy(arms[arms["group"] == RULES])).query("scaffolding != 0")
    table = table.assign(share=table[shares].fillna(0).sum(axis=1))
    wide = table.pivot_table(index=UNIT, columns="arm", values=COPYING_EFFECTS).swaplevel(axis=1)
    by_student = (wide["galp"] - wide["lalp"]).groupby(_STUDENT).mean().reset_index()
    measured = students[[*_STUDENT, "copying_near", "copying_far"]]
    return measured.merge(by_student, on=_STUDENT)


def copying_slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Least-squares slope of each effect in a `copying_table` on ``copying_far``.

    By ``family`` and ``effect``: ``slope`` (GALP minus LALP, per 1 of probability), its t interval
    with students as units, ``spearman``, ``num_students``, and the ``least`` and ``greatest``
    strength among them. NaN with fewer than three students or no spread.
    """
    rows = []
    for family, frame in table.dropna(subset="copying_far").groupby("family", sort=False):
        x = frame["copying_far"]
        for effect in COPYING_EFFECTS:
            slope, reach, rho = np.nan, np.nan, np.nan
            if len(frame) > 2 and np.ptp(x) > 0:
                fit = stats.linregress(x, frame[effect])
                slope, reach = fit.slope, fit.stderr * stats.t.ppf(0.975, len(frame) - 2)
                rho = stats.spearmanr(x, frame[effect]).statistic if np.ptp(frame[effect]) else 0.0
            rows.append((family, effect, slope, slope - reach, slope + reach, rho, len(frame),
                         x.min(), x.max()))  # fmt: skip
    columns = ["family", "effect", "slope", "low", "high", "spearman", "num_students",
               "least", "greatest"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


_CELL = r"^leap (?P<leap>\S+), scaffolding (?P<scaffolding>\S+)$"


def _with_cell(table: pd.DataFrame) -> pd.DataFrame:
    """With ``leap`` and ``scaffolding`` by the pool's name, NaN outside the map, and ``split``."""
    cell = table["pool"].str.extract(_CELL).astype(float)
    return pd.concat([table, cell, table["arm"].map(SPLITS).rename("split")], axis=1)


def map_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """`arm_differences` of LALP to GALP in every cell of the map, by ``split``.

    ``p_holm`` covers all cells of one split together.
    """
    table = _with_cell(arm_differences(arms, [(RULES, rule, "galp") for rule in SPLITS]))
    table = corrected(table, ["split"])
    columns = ["family", "copying", "leap", "scaffolding", "split", "difference", "low", "high",
               "p_holm", "num_seeds", "num_above", "problems_low", "problems_high"]  # fmt: skip
    return table[columns].sort_values(columns[:4], kind="stable", ignore_index=True)


def map_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Cells of `map_differences` with LALP above GALP, below it, or an interval that covers 0."""
    above, below = table["low"] > 0, table["high"] < 0
    outcomes = {"above": above, "below": below, "not resolved": ~(above | below)}
    counted = table[["family", "copying", "split"]].assign(**outcomes)
    return counted.groupby(["family", "copying", "split"], sort=False).sum().reset_index()


def map_means(arms: pd.DataFrame, by: Sequence[str] = ("family", "copying")) -> pd.DataFrame:
    """LALP minus GALP over cells of the map: means by student first, then over students.

    ``split`` and ``by`` are kept apart, of ``family``, ``copying``, ``leap`` and ``scaffolding``.
    """
    cells = _with_cell(seed_differences(arms, [(RULES, rule, "galp") for rule in SPLITS]))
    by = [*by, "split"]
    keys = list(dict.fromkeys([*_STUDENT, *by]))
    by_student = cells.groupby(keys, as_index=False, sort=False)["difference"].mean()
    return over_seeds(by_student, by, "difference")


COMPOSITION = ("LALP minus GALP", "composition", "sample choice")


def composition_effects(
    arms: pd.DataFrame, by: Sequence[str] = ("family", "copying")
) -> pd.DataFrame:
    """LALP minus GALP, and its parts due to the teacher mix and to the choice of samples.

    The composition is the difference of their random controls, which have their teacher mixes. The
    sample choice is the rest: LALP's gain over its control minus GALP's gain over its own. Means
    over pools by student first, then over students, by ``by`` and ``contrast``, with ``p_holm``
    over the three contrasts.
    """
    rules = _with_cell(with_accuracy(arms[arms["group"] == RULES]))
    keys = list(dict.fromkeys([*_STUDENT, *by]))
    wide = rules.pivot_table(index=[*keys, "pool"], columns="arm", values="accuracy")
    total = wide["lalp"] - wide["galp"]
    mix = wide[f"{CONTROL}lalp"] - wide[f"{CONTROL}galp"]
    parts = pd.DataFrame(dict(zip(COMPOSITION, (total, mix, total - mix), strict=True)))
    students = parts.groupby(keys, sort=False).mean().reset_index()
    long = students.melt(keys, list(COMPOSITION), "contrast", "difference")
    return corrected(over_seeds(long, [*by, "contrast"], "difference"), list(by))


# --- runs, and their numbers in words ---------------------------------------------------------


def student_table(students: pd.DataFrame) -> pd.DataFrame:
    """Students tried and accepted by family and strength of copying, and their skills."""
    columns = ["short", "whole", "copying_near", "copying_far"]
    groups = students.groupby(["family", "copying"], sort=False)
    table = groups["accepted"].agg(tried="size", accepted="sum").astype(int)
    table["rejected"] = table["tried"] - table["accepted"]
    return table.join(groups[columns].agg("mean")).reset_index()


def study_values(results: Mapping[str, WorldResults]) -> pd.DataFrame:
    """Every setting of the studies behind committed runs, a column per run."""
    facts = ("date", "commit", "hours_since_last_start", "cores")
    made = {name: run.provenance for name, run in results.items()}
    values = {name: {key: run[key] for key in facts} | run["values"] for name, run in made.items()}
    return pd.DataFrame(values).map(
        lambda value: (
            ", ".join(in_words(str(one)) for one in value)
            if isinstance(value, list)
            else str(value)
        )
    )


def describe_scale(results: WorldResults) -> str:
    """The run, its seeds and problems, in words."""
    seeds, problems = results.arms["seed"].nunique(), results.arms["num_problems"].max()
    return f"{describe_made(results.provenance)}: {seeds} seeds, {problems:.0f} held-out problems"


def describe(table: pd.DataFrame, label: Sequence[str] = (), digits: int = 3) -> str:
    """Differences with their intervals in words, each named after some columns of its row."""
    texts = []
    for _, row in table.iterrows():
        name = " minus ".join(str(row[column]) for column in label)
        if table["family"].nunique() > 1:
            name += f" ({row['family']})"
        value, low, high = (f"{row[c]:+.{digits}f}" for c in ("difference", "low", "high"))
        interval = "(no interval)" if pd.isna(row["low"]) else f"[{low}, {high}]"
        texts.append(f"{name} {value} {interval}".strip())
    return "; ".join(texts)


def describe_signs(differences: pd.DataFrame) -> str:
    """Number of seeds in which each difference is above 0, in words."""
    counts = [f"{row.num_above} of {row.num_seeds} seeds" for row in differences.itertuples()]
    return f"above 0 in {', '.join(counts)}"


def paper_gain(arm: str, against: str) -> str:
    """The paper's average accuracy with one rule minus that with another, by student (Table 3)."""
    table = TABLES["3"].frame["AVG"]
    gains = {s: table[s, arm] - table[s, against] for s in table.index.unique("student")}
    return ", ".join(f"{gain:+.3f} ({student})" for student, gain in gains.items())


def paper_tau(score: str) -> str:
    """Kendall's tau of the paper's mean scores with its accuracies, by student (Table 2)."""
    students = TABLES["2"].frame.dropna().groupby("student")
    taus = [kendall_tau(t[score].to_numpy(), t["AVG"].to_numpy(), tie=0.0) for _, t in students]
    return " and ".join(f"{tau:.2f}" for tau in dict.fromkeys(taus))
