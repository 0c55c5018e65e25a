"""Step world: what its tables of students and arms say on the paper's claims.

The tables come from `lalp.paper.world.study.run_world`. A kind is one set of teachers (``pool``),
family of problems and share of repetitive pre-training documents (``copying``); within a kind,
seeds are the units: one student, its problems and all its arms. An interval is Student's t over
seeds (95 %). With two seeds it is about nine times as wide as the two seeds lie apart, and says
little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.paper.tables import TABLES
from lalp.paper.world.settings import (
    KIND,
    RULES,
    TEACHERS,
    TEACHERS_BY_NAME,
    THIRDS,
    UNIT,
    WINDOWS,
)
from lalp.paper.world.study import WorldResults
from lalp.stats import t_interval

# Scores that lie closer than this order nothing (nats per token).
TIE = 0.01
# Which LALP rule belongs to each way of splitting a solution.
SPLIT_RULES = {"true steps": "lalp", "sentences": "lalp sentences", "paragraphs": "lalp paragraphs"}
CONTROL = "random like "
ALL_TEACHERS = "all teachers"
# Teachers who restate: of the study, and the second one of the map.
RESTATING = (*(t.name for t in TEACHERS_BY_NAME.values() if t.restating), "fluent")
_RESAMPLES, _SEED = 2000, 0


# --- means over seeds ------------------------------------------------------------------------


def over_seeds(
    table: pd.DataFrame,
    by: Sequence[str],
    column: str,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> pd.DataFrame:
    """Mean of a column over seeds, with its interval.

    Args:
        table: One row per seed and combination of ``by``.
        by: Columns to keep.
        column: What is averaged; NaN does not count.
        bounds: Least and greatest value that it can take: intervals end there.

    Returns:
        ``by``, the column's mean, ``low``, ``high``, ``num_seeds``.
    """
    rows = []
    for keys, values in table.groupby(list(by), sort=False)[column]:
        mean = t_interval(values)
        rows.append((*keys, mean.value, *np.clip((mean.low, mean.high), *bounds), mean.num_units))
    return _frame(rows, [*by, column, "low", "high", "num_seeds"], table[list(by)])


def _frame(rows: Sequence[tuple], columns: Sequence[str], like: pd.DataFrame) -> pd.DataFrame:
    """Rows as a table; shared columns keep their types, also where there are no rows."""
    types = {name: kind for name, kind in like.dtypes.items() if name in columns}
    return pd.DataFrame(rows, columns=list(columns)).astype(types)


def with_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Arms with ``accuracy``, the share of the unit's held-out problems that are solved."""
    num_problems = arms.groupby(UNIT)["num_problems"].transform("max")
    return arms.assign(num_problems=num_problems, accuracy=arms["num_solved"] / num_problems)


def accuracy_by_arm(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds of every arm, by kind and comparison (Tables 1 to 3)."""
    return over_seeds(with_accuracy(arms), [*KIND, "group", "arm"], "accuracy", (0, 1))


def _of(arms: pd.DataFrame, group: str) -> pd.DataFrame:
    return arms[arms["group"] == group]


# --- differences between arms ----------------------------------------------------------------


def arm_differences(
    arms: pd.DataFrame, pairs: Iterable[tuple[str, str, str]], column: str = "accuracy"
) -> pd.DataFrame:
    """One arm minus another of the same seeds.

    Args:
        arms: From `run_world`.
        pairs: Comparison, arm, and the arm to subtract; what was not run is left out.
        column: What differs: ``accuracy``, or a column of ``arms``.

    Returns:
        By kind: ``group``, ``arm``, ``against``, ``difference``, ``low``, ``high`` (over seeds),
        ``num_seeds``, ``num_above`` (seeds with a difference above 0), and for accuracy
        ``problems_low``, ``problems_high``: a bootstrap over the problems of these seeds, which
        says how sure it is for these very students.
    """
    rows = []
    for kind, frame in with_accuracy(arms).groupby(KIND, sort=False):
        for group, arm, against in pairs:
            both = _paired(frame[frame["group"] == group], arm, against)
            if both.empty:
                continue
            values = both[column] - both[f"{column} of the other"]
            mean, num_above = t_interval(values), int((values > 0).sum())
            inner = _problem_interval(both) if column == "accuracy" else (np.nan, np.nan)
            rows.append((*kind, group, arm, against, mean.value, mean.low, mean.high,
                         len(values), num_above, *inner))  # fmt: skip
    columns = [*KIND, "group", "arm", "against", "difference", "low", "high", "num_seeds",
               "num_above", "problems_low", "problems_high"]  # fmt: skip
    return _frame(rows, columns, arms)


def _paired(rows: pd.DataFrame, arm: str, against: str) -> pd.DataFrame:
    """One row per seed that has both arms."""
    one, other = (rows[rows["arm"] == name].set_index("seed") for name in (arm, against))
    return one.join(other.add_suffix(" of the other"), how="inner")


def _problem_interval(both: pd.DataFrame) -> tuple[float, float]:
    """Percentile bootstrap of the mean over seeds; problems are drawn again within each seed.

    A problem's difference is -1, 0 or 1, so a draw of problems is a draw of these three's counts.
    """
    rng = np.random.default_rng(_SEED)
    draws = np.zeros(_RESAMPLES)
    for one, other in zip(both["solved"], both["solved of the other"], strict=True):
        if not (isinstance(one, str) and isinstance(other, str) and len(one) == len(other) > 0):
            return np.nan, np.nan
        gaps = np.subtract(*(np.array(list(digits), dtype=float) for digits in (one, other)))
        shares = [np.mean(gaps == value) for value in (-1, 0, 1)]
        counts = rng.multinomial(len(gaps), shares, size=_RESAMPLES)
        draws += (counts[:, 2] - counts[:, 0]) / len(gaps)
    low, high = np.quantile(draws / len(both), [0.025, 0.975])
    return float(low), float(high)


def seed_differences(arms: pd.DataFrame, group: str, arm: str, against: str) -> pd.DataFrame:
    """Accuracy of one arm minus another, seed by seed: ``difference``, by unit."""
    rows = []
    for kind, frame in with_accuracy(_of(arms, group)).groupby(KIND, sort=False):
        both = _paired(frame, arm, against)
        values = both["accuracy"] - both["accuracy of the other"]
        rows += [(*kind, seed, value) for seed, value in values.items()]
    return _frame(rows, [*UNIT, "difference"], arms)


def rule_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Each rule minus random, minus its control of the same teacher mix, and minus GALP (Table 3).

    Returns:
        As `arm_differences`.
    """
    names = list(dict.fromkeys(arms.loc[arms["group"] == RULES, "arm"]))
    rules = [name for name in names if not name.startswith(CONTROL)]
    pairs = [(RULES, name, "random") for name in rules if name != "random"]
    pairs += [(RULES, name, CONTROL + name) for name in rules]
    pairs += [(RULES, name, "galp") for name in rules if name.startswith("lalp")]
    return arm_differences(arms, pairs)


# --- thirds of one teacher -------------------------------------------------------------------


def third_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds by teacher and third of its samples by GALP (Table 1)."""
    rows = arms[arms["group"].str.startswith(THIRDS)]
    table = accuracy_by_arm(rows).rename(columns={"arm": "third"})
    return table.assign(teacher=table.pop("group").str.removeprefix(f"{THIRDS}: "))


def third_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Highest minus lowest third of each teacher, and the mean over its teachers (Table 1).

    Returns:
        By kind: ``teacher``, ``difference``, ``low``, ``high``, ``num_seeds``.
    """
    groups = [g for g in dict.fromkeys(arms["group"]) if g.startswith(THIRDS)]
    if not groups:
        return pd.DataFrame(columns=[*KIND, "teacher", "difference", "low", "high", "num_seeds"])
    values = pd.concat(
        seed_differences(arms, group, "highest", "lowest").assign(
            teacher=group.removeprefix(f"{THIRDS}: ")
        )
        for group in groups
    )
    mean = values.groupby(UNIT, as_index=False)["difference"].mean().assign(teacher=ALL_TEACHERS)
    return over_seeds(pd.concat([values, mean]), [*KIND, "teacher"], "difference")


# --- ranking of teachers ---------------------------------------------------------------------


def kendall_tau(
    scores: Float[np.ndarray, "teachers"],
    accuracies: Float[np.ndarray, "teachers"],
    tie: float = TIE,
) -> float:
    """Kendall's tau-b, where scores that differ by less than ``tie`` nats count as equal.

    NaN where either side orders nothing.
    """
    first, second = np.triu_indices(len(scores), 1)
    gaps = np.subtract(scores[first], scores[second])
    one = np.where(np.abs(gaps) < tie, 0, np.sign(gaps))
    other = np.sign(accuracies[first] - accuracies[second])
    pairs = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / pairs) if pairs else np.nan


def teacher_table(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean score of every teacher and the accuracy of the student trained on it, by unit.

    Returns:
        ``split``, ``score``, ``teacher``, ``mean`` (nats per token), ``accuracy``, by unit.
    """
    trained = _of(with_accuracy(arms), TEACHERS).rename(columns={"arm": "teacher"})
    return means.merge(trained[[*UNIT, "teacher", "accuracy"]], on=[*UNIT, "teacher"])


def teacher_ranking(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """How far every score orders a student's teachers as their students' accuracy does (Table 2).

    Returns:
        By unit, ``split`` and ``score``: ``tau`` (`kendall_tau`), and ``right``: whether the
        teacher ranked first gives the most accurate student, a share where several are tied. Both
        are NaN where all students are equally accurate.
    """
    rows = []
    table = teacher_table(arms, means)
    for keys, frame in table.groupby([*UNIT, "split", "score"], sort=False):
        scores, accuracies = frame["mean"].to_numpy(), frame["accuracy"].to_numpy()
        first = scores > scores.max() - TIE
        differ = np.ptp(accuracies) > 0
        right = float((accuracies[first] == accuracies.max()).mean()) if differ else np.nan
        rows.append((*keys, kendall_tau(scores, accuracies), right))
    return _frame(rows, [*UNIT, "split", "score", "tau", "right"], table).astype(
        {"tau": float, "right": float}
    )


def ranking_means(ranking: pd.DataFrame) -> pd.DataFrame:
    """Mean tau over seeds by ``split`` and ``score``, and in how many seeds the pick is right."""
    by = [*KIND, "split", "score"]
    right = ranking.groupby(by, sort=False, as_index=False)["right"].mean()
    return over_seeds(ranking, by, "tau", (-1, 1)).merge(right, on=by)


def tau_differences(
    arms: pd.DataFrame, means: pd.DataFrame, score: str, against: str
) -> pd.DataFrame:
    """Tau of one score on true steps minus that of another: ``difference`` over seeds, by kind."""
    ranking = teacher_ranking(arms, means)
    true = ranking[ranking["split"] == "true"].set_index([*UNIT, "score"])["tau"]
    wide = true.unstack("score").reindex(columns=[score, against])
    values = (wide[score] - wide[against]).dropna().rename("difference").reset_index()
    return over_seeds(values, KIND, "difference")


def teacher_points(arms: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of score and accuracy of every teacher (Fig. 1).

    Returns:
        By kind, ``split``, ``score``, ``teacher``: ``mean``, ``mean_low``, ``mean_high`` (nats per
        token), ``accuracy``, ``low``, ``high``, ``num_seeds``.
    """
    by = [*KIND, "split", "score", "teacher"]
    return _beside_accuracy(teacher_table(arms, means), by, "mean", "mean")


def _beside_accuracy(
    table: pd.DataFrame, by: Sequence[str], column: str, prefix: str
) -> pd.DataFrame:
    """Means over seeds of a column, its interval's ends named by a prefix, and of the accuracy."""
    ends = {"low": f"{prefix}_low", "high": f"{prefix}_high"}
    means = over_seeds(table, by, column).drop(columns="num_seeds").rename(columns=ends)
    return means.merge(over_seeds(table, by, "accuracy", (0, 1)), on=by)


# --- windows ---------------------------------------------------------------------------------


def window_taus(ranking: pd.DataFrame) -> pd.DataFrame:
    """Mean tau over seeds by window of LALP on true steps, and of GALP (Fig. 3).

    Returns:
        By kind and ``window`` (``galp`` for GALP): ``tau``, ``low``, ``high``, ``num_seeds``.
    """
    means = ranking_means(ranking[ranking["split"] == "true"]).drop(columns=["split", "right"])
    return means.assign(window=means.pop("score").str.removeprefix("lalp@"))


def window_accuracy(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds of LALP's selection by window, and of GALP's (Fig. 9)."""
    galp = (arms["group"] == RULES) & (arms["arm"] == "galp")
    table = accuracy_by_arm(arms[(arms["group"] == WINDOWS) | galp])
    return table.rename(columns={"arm": "window"}).drop(columns="group")


# --- the gap by position ---------------------------------------------------------------------


def gap_curves(gaps: pd.DataFrame) -> pd.DataFrame:
    """Self-conditioning gap by teacher and tenth of the response, means over seeds (Fig. 5).

    Returns:
        By kind, ``teacher`` and ``bin``: ``gap`` (nats per token), ``low``, ``high``.
    """
    return over_seeds(gaps, [*KIND, "teacher", "bin"], "gap")


GAP_MEASURES = ("rise", "rise_before_end", "late_slope_before_end")


def gap_rises(gaps: pd.DataFrame) -> pd.DataFrame:
    """How much the gap grows, by unit and teacher, in nats per token.

    Near the start the window holds everything there is, and the gap is 0 by construction. So that
    a trend can be told from this, there is also a slope over the second half. The last tenth holds
    the answer's sentence, so there are measures without it.

    Returns:
        ``rise`` (last tenth minus first), ``rise_before_end`` (ninth tenth minus first) and
        ``late_slope_before_end`` (least squares over the sixth to ninth tenth, per response).
    """
    rows = []
    for keys, frame in gaps.groupby([*UNIT, "teacher"], sort=False):
        curve = frame.set_index("bin")["gap"].sort_index()
        late = curve[curve.index >= (curve.index.max() + 1) / 2].iloc[:-1]
        rises = (curve.iloc[i] - curve.iloc[0] for i in (-1, -2))
        rows.append((*keys, *rises, _slope(late)))
    return _frame(rows, [*UNIT, "teacher", *GAP_MEASURES], gaps)


def _slope(curve: pd.Series) -> float:
    """Per whole response; its positions are ten bins."""
    known = curve.dropna()
    return float(np.polyfit(known.index / 10, known, 1)[0]) if len(known) > 1 else np.nan


def gap_trends(gaps: pd.DataFrame) -> pd.DataFrame:
    """`gap_rises` over seeds, by teacher and over all teachers.

    Returns:
        By kind, ``teacher`` and ``measure``: ``value``, ``low``, ``high``, ``num_seeds``.
    """
    measures = list(GAP_MEASURES)
    rises = gap_rises(gaps)
    mean = rises.groupby(UNIT, as_index=False)[measures].mean().assign(teacher=ALL_TEACHERS)
    long = pd.concat([rises, mean]).melt([*UNIT, "teacher"], measures, "measure", "value")
    return over_seeds(long, [*KIND, "teacher", "measure"], "value")


def restating_differences(gaps: pd.DataFrame, measure: str = "rise") -> pd.DataFrame:
    """Rise of the gap of teachers who restate minus others': ``difference`` over seeds, by kind."""
    rises = gap_rises(gaps)
    does = rises["teacher"].isin(RESTATING)
    one, other = (rises[rows].groupby(UNIT)[measure].mean() for rows in (does, ~does))
    values = (one - other).dropna().rename("difference").reset_index()
    return over_seeds(values, KIND, "difference")


# --- training loss ---------------------------------------------------------------------------


def loss_points(arms: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of the loss at the end of training and of the accuracy, by rule (Fig. 6).

    Returns:
        By kind and ``arm``: ``last_loss``, ``loss_low``, ``loss_high`` (nats per token),
        ``accuracy``, ``low``, ``high``, ``num_seeds``.
    """
    return _beside_accuracy(_of(with_accuracy(arms), RULES), [*KIND, "arm"], "last_loss", "loss")


def loss_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Final training loss and accuracy of LALP's and of random data, minus those of GALP's.

    Returns:
        As `arm_differences`, with ``measure``.
    """
    pairs = [(RULES, name, "galp") for name in ("lalp", "random")]
    measures = {"final loss (nats)": "last_loss", "accuracy": "accuracy"}
    tables = [arm_differences(arms, pairs, c).assign(measure=m) for m, c in measures.items()]
    return pd.concat(tables, ignore_index=True)


def loss_agreement(arms: pd.DataFrame) -> pd.DataFrame:
    """Whether a low training loss goes with an accurate student, over the rules' arms, by unit.

    Returns:
        ``spearman`` of loss and accuracy (-1: the lower the loss, the better), ``lowest_loss`` and
        ``most_accurate`` (arms), and whether they are the ``same``.
    """
    rows = []
    table = _of(with_accuracy(arms), RULES)
    for keys, frame in table.groupby(UNIT, sort=False):
        frame = frame.set_index("arm")[["last_loss", "accuracy"]]
        varies = len(frame) > 2 and (frame.max() > frame.min()).all()
        rho = stats.spearmanr(frame["last_loss"], frame["accuracy"]).statistic if varies else np.nan
        lowest = frame["last_loss"].idxmin()
        same = frame.at[lowest, "accuracy"] == frame["accuracy"].max()
        rows.append((*keys, float(rho), lowest, frame["accuracy"].idxmax(), bool(same)))
    columns = [*UNIT, "spearman", "lowest_loss", "most_accurate", "same"]
    return _frame(rows, columns, table[UNIT])


# --- copying ---------------------------------------------------------------------------------

_STUDENT = ["family", "copying", "seed"]
COPYING_EFFECTS = ("accuracy", "share")


def copying_table(arms: pd.DataFrame, students: pd.DataFrame) -> pd.DataFrame:
    """How well a student copies, and how far GALP's selection differs from LALP's, by student.

    Args:
        arms: From `run_world`; all pools of a student are averaged, but for cells of the map
            without scaffolding, where nobody restates.
        students: From `run_world`.

    Returns:
        ``copying_near``, ``copying_far`` (mean probability of restated values before fine-tuning),
        ``accuracy`` and ``share`` (of the restating teachers' responses): GALP minus LALP.
    """
    shares = [name for name in (f"share of {t}" for t in RESTATING) if name in arms]
    table = _of(with_accuracy(arms), RULES)
    table = table[[_cell(pool)[1] != 0 for pool in table["pool"]]]
    table = table.assign(share=table[shares].fillna(0).sum(axis=1))
    effects = {}
    for effect in COPYING_EFFECTS:
        wide = table.pivot_table(index=UNIT, columns="arm", values=effect)
        effects[effect] = wide["galp"] - wide["lalp"]
    by_student = pd.DataFrame(effects).groupby(_STUDENT).mean().reset_index()
    measured = students[[*_STUDENT, "copying_near", "copying_far"]]
    return measured.merge(by_student, on=_STUDENT)


def copying_slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Least-squares slope of each effect on ``copying_far`` of the students, by family.

    Args:
        table: From `copying_table`.

    Returns:
        By ``family`` and ``effect``: ``slope`` (GALP minus LALP, per 1 of probability), ``low``,
        ``high`` (t, students are the units), ``spearman``, ``num_students``, and the least and
        greatest strength among them. NaN with fewer than three students or no spread.
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


# --- the map ---------------------------------------------------------------------------------


def map_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of LALP's selection minus GALP's in every cell of the map.

    Args:
        arms: From a run with a map, whose pools are named ``leap L, scaffolding S``.

    Returns:
        ``family``, ``copying``, ``leap``, ``scaffolding``, ``split``, ``difference``, ``low``,
        ``high``, ``num_seeds``, ``num_above``.
    """
    split_of = {rule: split for split, rule in SPLIT_RULES.items()}
    table = arm_differences(arms, [(RULES, rule, "galp") for rule in split_of])
    knobs = table["pool"].map(_cell)
    table = table.assign(
        leap=knobs.str[0], scaffolding=knobs.str[1], split=table["arm"].map(split_of)
    )
    columns = ["family", "copying", "leap", "scaffolding", "split", "difference", "low", "high",
               "num_seeds", "num_above", "problems_low", "problems_high"]  # fmt: skip
    return table[columns].sort_values(columns[:4], kind="stable", ignore_index=True)


def _cell(pool: str) -> tuple[float, float]:
    found = re.fullmatch(r"leap (\S+), scaffolding (\S+)", pool)
    return (float(found[1]), float(found[2])) if found else (np.nan, np.nan)


def map_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Cells of the map by outcome: LALP above GALP, below, or an interval that covers 0.

    Args:
        table: From `map_differences`.
    """
    above, below = table["low"] > 0, table["high"] < 0
    outcomes = {"above": above, "below": below, "not resolved": ~(above | below)}
    counted = table[["family", "copying", "split"]].assign(**outcomes)
    return counted.groupby(["family", "copying", "split"], sort=False).sum().reset_index()


def map_means(arms: pd.DataFrame, by: Sequence[str] = ("family", "copying")) -> pd.DataFrame:
    """LALP minus GALP over cells of the map: means by student first, then over students.

    Args:
        arms: From a run with a map.
        by: What to keep apart, of ``family``, ``copying``, ``leap`` and ``scaffolding``.

    Returns:
        By ``by`` and ``split``: ``difference``, ``low``, ``high``, ``num_seeds`` (students).
    """
    frames = []
    for split, rule in SPLIT_RULES.items():
        cells = seed_differences(arms, RULES, rule, "galp").assign(split=split)
        knobs = cells["pool"].map(_cell).str
        frames.append(cells.assign(leap=knobs[0], scaffolding=knobs[1]))
    by = [*by, "split"]
    keys = list(dict.fromkeys([*_STUDENT, *by]))
    by_student = pd.concat(frames).groupby(keys, as_index=False, sort=False)["difference"].mean()
    return over_seeds(by_student, by, "difference")


# --- several runs, and their numbers in words -------------------------------------------------


def by_run(
    results: Mapping[str, WorldResults], analysis: Callable[[WorldResults], pd.DataFrame]
) -> pd.DataFrame:
    """One analysis of several runs below each other, with a column ``run``; empty ones drop out."""
    tables = {name: analysis(run) for name, run in results.items() if not run.arms.empty}
    found = [table.assign(run=name) for name, table in tables.items() if not table.empty]
    return pd.concat(found, ignore_index=True) if found else next(iter(tables.values()))


def student_table(students: pd.DataFrame) -> pd.DataFrame:
    """Students tried and accepted by family and strength of copying, and what they can do."""
    columns = ["short", "whole", "copying_near", "copying_far"]
    groups = students.groupby(["family", "copying"], sort=False)
    table = groups["accepted"].agg(tried="size", accepted="sum").astype(int)
    table["rejected"] = table["tried"] - table["accepted"]
    return table.join(groups[columns].agg("mean")).reset_index()


def study_values(results: Mapping[str, WorldResults]) -> pd.DataFrame:
    """Every value of the studies that committed runs were made with, a column per run."""
    values = {}
    for name, run in results.items():
        made = run.provenance
        facts = {key: made[key] for key in ("commit", "hours_since_last_start", "cores")}
        values[name] = {k: str(v).strip("[]") for k, v in (facts | made["values"]).items()}
    return pd.DataFrame(values)


def describe_scale(results: WorldResults) -> str:
    """Seeds, problems and study of a longer run, in words."""
    seeds, problems = results.arms["seed"].nunique(), results.arms["num_problems"].max()
    name = results.provenance["profile"]
    return f"longer run: {seeds} seeds, {problems:.0f} held-out problems, {name} profile"


def describe(table: pd.DataFrame, label: Sequence[str] = (), digits: int = 3) -> str:
    """Differences with their intervals in words, each named by some columns of its row."""
    texts = []
    for _, row in table.iterrows():
        name = " minus ".join(str(row[column]) for column in label)
        if table["family"].nunique() > 1:
            name += f" ({row['family']})"
        value, low, high = (f"{row[c]:+.{digits}f}" for c in ("difference", "low", "high"))
        interval = "(no interval)" if pd.isna(row["low"]) else f"[{low}, {high}]"
        texts.append(f"{name} {value} {interval}".strip())
    return "; ".join(texts)


def describe_both(
    longer: pd.DataFrame, live: pd.DataFrame, label: Sequence[str] = (), digits: int = 3
) -> str:
    """The longer run's differences in words, and this run's if it has them."""
    text = f"longer run: {describe(longer, label, digits)}"
    return text + (f"; this run: {describe(live, label, digits)}" if not live.empty else "")


def describe_signs(differences: pd.DataFrame) -> str:
    """In how many seeds each difference lies above 0, in words."""
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
