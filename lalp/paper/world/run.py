"""Step world in `08_step_world`: its tables, kept and read again, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.paper.committed import load_tables, save_tables
from lalp.paper.tables import TABLES
from lalp.paper.verdicts import Verdict
from lalp.paper.world import measure as world_measure
from lalp.paper.world.profiles import (
    RULES,
    TEACHERS_BY_NAME,
    WINDOWS,
    WORLD_PROFILES,
    load_world_profile,
)
from lalp.paper.world.study import run_world

# Teachers who restate: of the study, and the second one of the map.
RESTATING = (*(t.name for t in TEACHERS_BY_NAME.values() if t.restating), "fluent")
# The window that holds what a true step needs; set beforehand.
_SMALL = "1"
# Fewer seeds than this decide nothing; students who solve less than this on average, neither.
_LEAST_SEEDS, _LEAST_ACCURACY = 3, 0.02
# Columns that must be there also if no student was accepted, and those that stay text in a file.
_EMPTY = {
    "arms": [
        *world_measure.UNIT,
        "group",
        "arm",
        "num_solved",
        "num_problems",
        "solved",
        "last_loss",
    ],
    "means": [*world_measure.UNIT, "teacher", "split", "score", "mean"],
    "gaps": [*world_measure.UNIT, "teacher", "bin", "gap"],
}
_TEXTS = ("pool", "family", "group", "arm", "solved", "teacher", "split", "score")


@dataclass(frozen=True)
class WorldResults:
    """What a run of step world gives.

    Attributes:
        students: One row per student tried.
        arms: One row per unit, comparison and arm.
        means: Mean scores by unit and teacher.
        gaps: Self-conditioning gap by unit, teacher and position.
        provenance: Profile, commit, hours, versions of a committed run; empty for a live one.
    """

    students: pd.DataFrame
    arms: pd.DataFrame
    means: pd.DataFrame
    gaps: pd.DataFrame
    provenance: dict[str, Any]


_TABLES = tuple(field.name for field in fields(WorldResults) if field.name != "provenance")


def world_profile_name(profile: str) -> str:
    """Step world's profile for a notebook's: its own one, or the CPU's."""
    return profile if profile in WORLD_PROFILES else "cpu"


def world_results(profile_name: str) -> WorldResults:
    """Run a profile of step world, or read what of it was run before.

    If no student passes the gate, there are no arms.
    """
    empty = {name: pd.DataFrame(columns=columns) for name, columns in _EMPTY.items()}
    return WorldResults(**empty | run_world(load_world_profile(profile_name)), provenance={})


def save_world_results(results: WorldResults, folder: Path) -> None:
    """Write a run's tables and provenance."""
    save_tables({t: getattr(results, t) for t in _TABLES}, results.provenance, folder)


def load_world_results(name: str) -> WorldResults:
    """The committed results of a longer run, by its profile's name.

    Raises:
        InputError: If there are none, or a file of them is missing.
    """
    command = f"make world PROFILE={name}"
    tables, provenance = load_tables(f"world_{name}", _TABLES, command, _TEXTS)
    return WorldResults(**tables, provenance=provenance)


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


def teacher_knobs() -> pd.DataFrame:
    """The knobs of the study's teachers."""
    return pd.DataFrame([asdict(teacher) for teacher in TEACHERS_BY_NAME.values()])


def profile_values(results: Mapping[str, WorldResults]) -> pd.DataFrame:
    """Every value of the profiles that committed runs were made with, a column per run."""
    values = {}
    for name, run in results.items():
        made = run.provenance
        facts = {key: made[key] for key in ("commit", "hours_since_last_start", "cores")}
        values[name] = {k: str(v).strip("[]") for k, v in (facts | made["values"]).items()}
    return pd.DataFrame(values)


# --- verdicts --------------------------------------------------------------------------------


def world_verdicts(
    live: WorldResults, long_run: WorldResults, map_run: WorldResults
) -> list[Verdict]:
    """Verdicts on the paper's claims in step world, by the intervals over the longer run's seeds.

    Args:
        live: This run's results, whose numbers stand beside.
        long_run: The committed study.
        map_run: The committed map; without it the claims that need it are not run.
    """
    return [
        _third_verdict(live, long_run),
        *_ranking_verdicts(live, long_run),
        *_rule_verdicts(live, long_run),
        *_window_verdicts(live, long_run),
        *_gap_verdicts(live, long_run),
        _loss_verdict(live, long_run),
        *_copying_verdicts(map_run),
        _map_verdict(map_run),
    ]


def _decide(claim: str, paper: str, run: str, rows: pd.DataFrame, why: str, where: str) -> Verdict:
    """Verdict on differences that should all lie above 0: ``low``, ``high``, ``num_seeds``."""
    if rows.empty:
        return Verdict(claim, paper, "not run", "not run", why, where=where)
    if rows["num_seeds"].min() < _LEAST_SEEDS:
        verdict = "not resolved"
        why = f"fewer than {_LEAST_SEEDS} seeds; {why}"
    elif (rows["low"] > 0).all():
        verdict = "holds"
    else:
        # Also where every seed gives 0 or less.
        verdict = "does not hold" if (rows["high"] <= 0).any() else "not resolved"
    return Verdict(claim, paper, run, verdict, why, where=where)


def _decide_accuracy(
    results: WorldResults,
    claim: str,
    paper: str,
    run: str,
    rows: pd.DataFrame,
    why: str,
    where: str,
) -> Verdict:
    """As `_decide`, but differences of accuracy mean nothing where hardly anything is solved."""
    best = world_measure.with_accuracy(results.arms)["accuracy"].max()
    if not rows.empty and not best >= _LEAST_ACCURACY:
        why = f"no student solves {_LEAST_ACCURACY:.0%} of the problems; {why}"
        return Verdict(claim, paper, run, "not testable at this scale", why, where=where)
    return _decide(claim, paper, run, rows, why, where)


def _scale(results: WorldResults) -> str:
    arms = results.arms
    return (
        f"longer run: {arms['seed'].nunique()} seeds, {_count(arms['num_problems'])} held-out "
        f"problems, {results.provenance.get('profile', 'live')} profile"
    )


def _count(values: pd.Series) -> str:
    return f"{values.max():.0f}" if values.notna().any() else "no"


def _row(row: pd.Series, digits: int = 3) -> str:
    value = f"{row['difference']:+.{digits}f}"
    if pd.isna(row["low"]):
        return f"{value} (no interval)"
    return f"{value} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"


def _rows(table: pd.DataFrame, label: Sequence[str], digits: int = 3) -> str:
    """Differences with their intervals, each named by some columns."""
    families = table["family"].nunique() > 1
    texts = []
    for _, row in table.iterrows():
        name = " minus ".join(str(row[column]) for column in label)
        if families:
            name += f" ({row['family']})"
        texts.append(f"{name} {_row(row, digits)}".strip())
    return "; ".join(texts)


def _both(
    live: pd.DataFrame, longer: pd.DataFrame, label: Sequence[str] = (), digits: int = 3
) -> str:
    """The longer run's differences, and this run's if it has them."""
    text = f"longer run: {_rows(longer, label, digits)}"
    return text + (f"; this run: {_rows(live, label, digits)}" if not live.empty else "")


def _third_verdict(live: WorldResults, longer: WorldResults) -> Verdict:
    found, here = (world_measure.third_differences(run.arms) for run in (longer, live))
    gain = TABLES["1"].frame["highest"] - TABLES["1"].frame["lowest"]
    # Over all teachers it must be above 0, and below 0 for none.
    everyone = found["teacher"] == world_measure.ALL_TEACHERS
    against = ~everyone & (found["high"] < 0)
    return _decide_accuracy(
        longer,
        "Step world: within a teacher, its samples of highest GALP give a more accurate student "
        "than those of lowest GALP",
        f"highest minus lowest {gain.min():+.3f} to {gain.max():+.3f}",
        f"highest minus lowest, {_both(here, found, ['teacher'])}",
        found[everyone | against],
        f"{_scale(longer)}; intervals over seeds; holds if the mean over teachers is above 0 and "
        "no teacher below",
        "Table 1, Tables 13-14, Fig. 10",
    )


# --- teachers --------------------------------------------------------------------------------


def _ranking_verdicts(live: WorldResults, longer: WorldResults) -> list[Verdict]:
    ranking, here = (world_measure.teacher_ranking(run.arms, run.means) for run in (longer, live))
    small = f"lalp@{_SMALL}"
    paper = _paper_taus()
    means = world_measure.ranking_means(ranking[ranking["split"] == "true"])
    shown = means[means["score"].isin([small, "galp"])].rename(columns={"tau": "difference"})
    tau = "; ".join(
        f"{row['score']} {_row(row, 2)}, first teacher right in {row['right']:.0%} of seeds"
        for _, row in shown.iterrows()
    )
    gaps, gaps_here = (
        world_measure.over_seeds(
            world_measure.tau_differences(t, small, "galp"), world_measure.KIND, "difference"
        )
        for t in (ranking, here)
    )
    tie = world_measure.TIE
    why = f"{_scale(longer)}, four teachers; Kendall tau-b, gaps below {tie} nats are ties"
    return [
        _decide_accuracy(
            longer,
            "Step world: LALP orders teachers as the accuracy of their students does",
            f"Kendall tau with accuracy {paper['LALP']}",
            f"longer run: {tau}",
            shown[shown["score"] == small],
            f"{why}; holds if the interval of LALP's tau lies above 0",
            "Table 2, Fig. 1",
        ),
        _decide_accuracy(
            longer,
            "Step world: LALP orders teachers better than GALP does",
            f"Kendall tau with accuracy: LALP {paper['LALP']}, GALP {paper['GALP']}",
            f"tau of LALP minus tau of GALP, {_both(gaps_here, gaps, digits=2)}",
            gaps,
            why,
            "Table 2, Fig. 1",
        ),
    ]


def _paper_taus() -> dict[str, str]:
    """Kendall tau of each score with accuracy in Table 2, by student."""
    frame = TABLES["2"].frame.dropna()
    texts = {}
    for score in ("GALP", "LALP"):
        taus = [
            world_measure.kendall_tau(rows[score].to_numpy(), rows["AVG"].to_numpy(), tie=0.0)
            for _, rows in frame.groupby("student")
        ]
        texts[score] = " and ".join(f"{tau:.2f}" for tau in dict.fromkeys(taus))
    return texts


# --- rules -----------------------------------------------------------------------------------


def _paper_gain(arm: str, against: str) -> str:
    table = TABLES["3"].frame["AVG"]
    return ", ".join(
        f"{table[s, arm] - table[s, against]:+.3f} ({s})" for s in table.index.unique("student")
    )


def _rule_verdicts(live: WorldResults, longer: WorldResults) -> list[Verdict]:
    text = "Step world: data selected by LALP gives a more accurate student than "
    others = ("random", "galp", "lalp")
    pairs = {
        text + "data selected by GALP": (_paper_gain("lalp", "galp"), [("lalp", "galp")]),
        text + "data drawn at random": (_paper_gain("lalp", "random"), [("lalp", "random")]),
        text + "random data of the same teacher mix": (
            "not tested",
            [("lalp", f"{world_measure.CONTROL}lalp")],
        ),
        "Step world: data of the lowest LALP gives the least accurate student of random, GALP, "
        "LALP and lowest LALP": (
            f"lowest LALP minus random {_paper_gain('lalp-lowest', 'random')}",
            [(name, "lalp-lowest") for name in others],
        ),
    }
    verdicts = []
    for claim, (paper, wanted) in pairs.items():
        rules = [(RULES, *pair) for pair in wanted]
        found, here = (world_measure.arm_differences(run.arms, rules) for run in (longer, live))
        why = f"{_scale(longer)}; true steps, window {_SMALL}; {_seeds_above(found)}"
        run = _both(here, found, ["arm", "against"])
        verdicts.append(_decide_accuracy(longer, claim, paper, run, found, why, "Table 3"))
    return verdicts


def _seeds_above(table: pd.DataFrame) -> str:
    return "above 0 in " + ", ".join(
        f"{row.num_above} of {row.num_seeds} seeds" for row in table.itertuples()
    )


# --- windows ---------------------------------------------------------------------------------


def _window_verdicts(live: WorldResults, longer: WorldResults) -> list[Verdict]:
    ranking, here = (world_measure.teacher_ranking(run.arms, run.means) for run in (longer, live))
    gaps, gaps_here = (
        world_measure.over_seeds(
            world_measure.tau_differences(t, f"lalp@{_SMALL}", "lalp@all"),
            world_measure.KIND,
            "difference",
        )
        for t in (ranking, here)
    )
    pair = [(WINDOWS, _SMALL, "all")]
    found, found_here = (world_measure.arm_differences(run.arms, pair) for run in (longer, live))
    taus = world_measure.window_taus(ranking)
    order = ", ".join(f"{row.window} {row.tau:.2f}" for row in taus.itertuples())
    return [
        _decide_accuracy(
            longer,
            "Step world: LALP with a small window orders teachers better than with the full prefix",
            "small windows keep one order, the full prefix gives GALP's (values are not printed)",
            f"tau with window {_SMALL} minus tau with the full prefix, "
            f"{_both(gaps_here, gaps, digits=2)}; tau by window: {order}",
            gaps,
            f"{_scale(longer)}, four teachers; true steps",
            "Fig. 3",
        ),
        _decide_accuracy(
            longer,
            "Step world: LALP with a small window selects better data than with the full prefix",
            "best at a small window (C.7; values are not printed)",
            f"window {_SMALL} minus full prefix, {_both(found_here, found)}",
            found,
            f"{_scale(longer)}; true steps; {_seeds_above(found)}",
            "Fig. 9",
        ),
    ]


# --- gap, loss -------------------------------------------------------------------------------


# How far the gap has grown: measure, how it is named, what is to be said of it.
_GAP_RISES = (
    ("rise", "", "last tenth minus first", "set beforehand"),
    (
        "rise_before_end",
        ", the last tenth left out",
        "ninth tenth minus first",
        "set after a first look, since the last tenth holds the answer's sentence",
    ),
)


def _gap_verdicts(live: WorldResults, longer: WorldResults) -> list[Verdict]:
    trends, here = (
        world_measure.gap_trends(run.gaps).rename(columns={"value": "difference"})
        for run in (longer, live)
    )
    everyone = trends["teacher"] == world_measure.ALL_TEACHERS
    late = trends[everyone & (trends["measure"] == "late_slope_before_end")]
    grows, restated = [], []
    for measure, part, name, when in _GAP_RISES:
        rises, rises_here = (t[t["measure"] == measure] for t in (trends, here))
        grows.append(
            _decide(
                f"Step world: the self-conditioning gap grows with position{part}",
                "it grows (Fig. 5; values are not printed)",
                f"{name} in nats per token, {_both(rises_here, rises, ['teacher'])}; "
                f"slope from 50 to 90 % {_rows(late, [])}",
                rises[rises["teacher"] == world_measure.ALL_TEACHERS],
                f"{_scale(longer)}; decided by the mean over teachers; the first tenth is 0 by "
                f"construction, for the window holds all of it; measure {when}",
                "Fig. 5",
            )
        )
        differences = (
            world_measure.restating_differences(run.gaps, RESTATING, measure)
            for run in (longer, live)
        )
        more, more_here = (
            world_measure.over_seeds(table, world_measure.KIND, "difference")
            for table in differences
        )
        restated.append(
            _decide(
                "Step world: the gap grows more in the solutions of teachers who restate" + part,
                "self-conditioning comes from repeated content (Sec. 7.4.2)",
                f"{name}, restating minus other teachers in nats per token, "
                f"{_both(more_here, more)}",
                more,
                f"{_scale(longer)}; they also re-check more; measure {when}",
                "Fig. 5",
            )
        )
    return [*grows, *restated]


def _loss_verdict(live: WorldResults, longer: WorldResults) -> Verdict:
    pair = [(RULES, "lalp", "galp")]
    tables = {}
    for column in ("last_loss", "accuracy"):
        tables[column] = [
            world_measure.arm_differences(r.arms, pair, column) for r in (live, longer)
        ]
    agreement = world_measure.loss_agreement(longer.arms)
    rho, low, high = world_measure.seed_interval(agreement["spearman"])
    same = f"{int(agreement['same'].sum())} of {len(agreement)}"
    return _decide_accuracy(
        longer,
        "Step world: GALP-selected data has a lower training loss than LALP-selected data, and yet "
        "a less accurate student",
        f"lowest loss (Fig. 6), accuracy LALP minus GALP {_paper_gain('lalp', 'galp')}",
        f"LALP minus GALP: final loss, {_both(*tables['last_loss'])}; "
        f"accuracy, {_both(*tables['accuracy'])}",
        pd.concat([tables["last_loss"][1], tables["accuracy"][1]]),
        f"{_scale(longer)}; holds if both lie above 0; over all rules, Spearman of loss and "
        f"accuracy {rho:+.2f} [{low:+.2f}, {high:+.2f}], the lowest loss is the most accurate "
        f"student in {same} seeds",
        "Fig. 6, Table 3",
    )


# --- copying, the map ------------------------------------------------------------------------


def _copying_verdicts(map_run: WorldResults) -> list[Verdict]:
    claims = {
        "share": "Step world: the better a student copies, the more of GALP's selection is by the "
        "teacher who restates, compared with LALP's",
        "accuracy": "Step world: the better a student copies, the more accuracy GALP's selection "
        "loses against LALP's",
    }
    paper = "self-conditioning and the fluency trap (Sec. 7.4.2, Theorem A.3); not tested"
    table = world_measure.copying_table(map_run.arms, map_run.students, RESTATING)
    # The loss of accuracy as a gain of LALP, so that both should lie above 0.
    slopes = world_measure.copying_slopes(table.assign(accuracy=-table["accuracy"]))
    slopes = slopes.rename(columns={"slope": "difference", "num_students": "num_seeds"})
    verdicts = []
    for effect, claim in claims.items():
        rows = slopes[slopes["effect"] == effect]
        found = "; ".join(f"{row['family']} {_row(row)}" for _, row in rows.iterrows())
        why = "; ".join(
            f"{row.family}: {row.num_seeds} students, probability of restated values "
            f"{row.least:.2f} to {row.greatest:.2f}, Spearman {row.spearman:+.2f}"
            for row in rows.itertuples()
        )
        why += "; who read more repetitive documents may differ in more than copying"
        unit = "GALP minus LALP" if effect == "share" else "accuracy LALP minus GALP"
        run = f"map: slope of {unit} per 1 of copying probability: {found}"
        verdicts.append(_decide(claim, paper, run, rows, why, ""))
    return verdicts


def _map_verdict(map_run: WorldResults) -> Verdict:
    claim = (
        "Step world: over all leaps, scaffolding, copying and families of the map, data selected "
        "by LALP on true steps beats data selected by GALP"
    )
    paper = _paper_gain("lalp", "galp")
    means = world_measure.map_means(map_run.arms)
    counts = world_measure.map_counts(world_measure.map_differences(map_run.arms))
    cells = counts.groupby("split")[["above", "below", "not resolved"]].sum()
    by_split = "; ".join(
        f"{split}: {row['above']} cells above, {row['below']} below, {row['not resolved']} not "
        "resolved"
        for split, row in cells.iterrows()
    )
    true = means[means["split"] == next(iter(world_measure.SPLIT_RULES))]
    found = "; ".join(
        f"{row['family']}, copying {row['copying']:g}: {_row(row)}" for _, row in true.iterrows()
    )
    return _decide_accuracy(
        map_run,
        claim,
        paper,
        f"map, means over its cells: {found}",
        true,
        f"{by_split}; by chance alone one cell in twenty would not cover 0",
        "Table 3",
    )
