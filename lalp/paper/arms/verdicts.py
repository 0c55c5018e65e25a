"""What the fine-tuned students of `05_sft` and `06_eval` say on the paper's claims."""

from __future__ import annotations

import pandas as pd

from lalp.paper.arms import measure
from lalp.paper.arms.grid import EQUAL_TOKENS, RULES, TEACHERS, THIRDS, WINDOWS
from lalp.paper.arms.run import ArmResults
from lalp.paper.profiles import Profile
from lalp.paper.tables import STUDENT_32B, TABLES
from lalp.paper.verdicts import Verdict
from lalp.scoring.columns import lalp_column

# With fewer problems solved than this by all students together, accuracy orders nothing.
_LEAST_SOLVED = 5
_LOCAL = measure.MEASURES["lalp"]


def arm_baselines(table: pd.DataFrame) -> dict[str, str]:
    """Per comparison the arm to subtract: random, the lowest third, the full prefix, or the first.

    Args:
        table: From `lalp.paper.arms.grid.arm_table`.
    """
    names = {
        group: list(dict.fromkeys(rows["arm"]))
        for group, rows in table.groupby("group", sort=False)
    }
    preferred = ("random", "lowest", "all")
    return {
        group: next((name for name in preferred if name in found), found[0])
        for group, found in names.items()
    }


# --- training loss and held-out NLL ------------------------------------------------------------


def sft_verdicts(run: ArmResults, longer: ArmResults, profile: Profile, seed: int) -> list[Verdict]:
    """Verdicts on Fig. 6, C.1 and Sec. 7.4.3, by the longer run, with this run's numbers beside.

    Args:
        run: This run's results.
        longer: The committed ones.
        profile: The run's profile.
        seed: Of the bootstrap.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return [
        _lowest_loss_verdict(run, longer, options),
        _fastest_verdict(run, longer),
        _local_nll_verdict(run, longer, options),
    ]


def _scale(longer: ArmResults) -> str:
    table = longer.arms
    return (
        f"longer run: {table['num_examples'].max()} prompts, {table['seed'].nunique()} seeds, "
        f"{longer.provenance['profile']} profile"
    )


def _lowest_loss_verdict(run: ArmResults, longer: ArmResults, options: dict[str, int]) -> Verdict:
    table = measure.loss_differences(longer.log, RULES, "galp", **options)
    table = table[table["arm"].isin(["random", "lalp"])]
    if (table["low"] > 0).all():
        verdict = "holds"
    elif any((rows["high"] < 0).all() for _, rows in table.groupby("arm")):
        verdict = "does not hold"
    else:
        verdict = "not resolved"
    return Verdict(
        "Data of the highest GALP has the lowest training loss",
        "lowest of random, GALP and LALP (Fig. 6; values are not printed)",
        f"first epoch, longer run: {_losses(longer)}; this run: {_losses(run)}",
        verdict,
        f"{_scale(longer)}; minus GALP's, per seed: {_spread(table, 'difference')}; holds if every "
        "seed's interval over steps lies above 0; at the first step it is so by construction",
        where="Fig. 6",
    )


def _of(table: pd.DataFrame, group: str) -> pd.DataFrame:
    return table[table["group"] == group]


def _losses(results: ArmResults) -> str:
    means = _loss_means(results)["first epoch"]
    return ", ".join(
        f"{name} {means[name]:.2f}" for name in ("random", "galp", "lalp") if name in means
    )


def _loss_means(results: ArmResults) -> pd.DataFrame:
    table = measure.loss_table(results.log)
    return table[table.index.get_level_values("group") == RULES].groupby("arm").mean()


def _spread(table: pd.DataFrame, column: str) -> str:
    return "; ".join(
        f"{arm} {rows[column].min():+.2f} to {rows[column].max():+.2f}"
        for arm, rows in table.groupby("arm", sort=False)
    )


def _fastest_verdict(run: ArmResults, longer: ArmResults) -> Verdict:
    table = _of(measure.loss_table(longer.log).reset_index(), RULES)
    falls = table.pivot_table(index="seed", columns="arm", values="fall")
    gaps = falls[["random", "lalp"]].rsub(falls["galp"], axis=0)
    if (gaps > 0).to_numpy().all():
        verdict = "holds"
    else:
        verdict = "does not hold" if (gaps < 0).all().any() else "not resolved"
    return Verdict(
        "Data of the highest GALP converges fastest",
        "fastest of random, GALP and LALP (C.1)",
        "fall from the first to the last epoch, longer run: "
        + ", ".join(f"{name} {falls[name].mean():.3f}" for name in ("random", "galp", "lalp")),
        verdict,
        f"{_scale(longer)}; holds if GALP's fall is the largest with every seed, does not if it is "
        "smaller than another's with every seed",
        where="Fig. 6",
    )


def _local_nll_verdict(run: ArmResults, longer: ArmResults, options: dict[str, int]) -> Verdict:
    found = _local_difference(longer, RULES, options)
    equal = _local_difference(longer, EQUAL_TOKENS, options)
    here = _local_difference(run, RULES, options)
    return Verdict(
        "LALP-selected data gives a lower local NLL on held-out steps than GALP-selected data",
        "lower (Sec. 7.4.3; values are not printed)",
        f"LALP minus GALP, longer run: {_nats(found)} nats, with equal tokens {_nats(equal)}; "
        f"this run: {_nats(here)}",
        _settled(found["low"], found["high"], below=True),
        f"{_scale(longer)}, {found['num_prompts']} held-out responses, mean over seeds; interval "
        "over prompts",
        where="Fig. 6",
    )


def _local_difference(
    results: ArmResults, group: str, options: dict[str, int], arm: str = "lalp", base: str = "galp"
) -> pd.Series:
    nll = measure.held_out_nll(results.held_out)
    table = measure.held_out_differences(nll, group, base, **options)
    return table[(table["arm"] == arm) & (table["measure"] == _LOCAL)].iloc[0]


def _nats(row: pd.Series) -> str:
    return f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def _settled(low: float, high: float, *, below: bool = False) -> str:
    """A verdict on a difference that should lie above 0, or below it."""
    if below:
        low, high = -high, -low
    if low > 0:
        return "holds"
    return "does not hold" if high < 0 else "not resolved"


# --- accuracy ----------------------------------------------------------------------------------


def accuracy_verdicts(
    run: ArmResults, longer: ArmResults, profile: Profile, seed: int
) -> list[Verdict]:
    """Verdicts on Tables 1 to 3 and Fig. 9 by the longer run's accuracies.

    Comparisons that the longer run left out have none.

    Args:
        run: This run's results.
        longer: The committed ones.
        profile: The run's profile.
        seed: Of the bootstrap.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    table = TABLES["3"].frame["AVG"]
    gains = {s: table[s, "lalp"] - table[s, "galp"] for s in table.index.unique("student")}
    thirds_gain = TABLES["1"].frame["highest"] - TABLES["1"].frame["lowest"]
    groups = list(dict.fromkeys(longer.arms["group"]))
    thirds = [group for group in groups if group.startswith(THIRDS)]
    verdicts = [
        _accuracy_verdict(
            "Data selected by LALP gives a more accurate student than data selected by GALP",
            ", ".join(f"{value:+.3f} ({student})" for student, value in gains.items()),
            longer, RULES, "lalp", "galp", "Table 3", options,
        ),
        *(
            _accuracy_verdict(
                "Within a teacher, the third of highest GALP gives the most accurate student",
                f"highest minus lowest {thirds_gain.min():+.3f} to {thirds_gain.max():+.3f}",
                longer, group, "highest", "lowest", "Table 1, Tables 13-14, Fig. 10", options,
            )
            for group in thirds
        ),
    ]  # fmt: skip
    if WINDOWS in groups:
        verdicts.append(
            _accuracy_verdict(
                "LALP with a small window selects better data than with the full prefix",
                "best at a small window (C.7; values are not printed)",
                longer, WINDOWS, profile.main_window, "all", "Fig. 9", options,
            )
        )  # fmt: skip
    if TEACHERS in groups:
        verdicts.append(_teacher_verdict(longer, profile, options))
    return verdicts


def _solved(results: ArmResults) -> int:
    """Problems that any student ever answered correctly."""
    correct = results.answers["correct"].astype(bool)
    return results.answers.loc[correct, "prompt_id"].nunique()


def _accuracy_verdict(
    claim: str,
    paper: str,
    results: ArmResults,
    group: str,
    arm: str,
    base: str,
    where: str,
    options: dict[str, int],
) -> Verdict:
    table = measure.accuracy_differences(results.answers, group, base, **options)
    row = table.set_index("arm").loc[arm]
    nats = _local_difference(results, group, options, arm, base)
    solved, problems = _solved(results), int(row["num_problems"])
    if solved < _LEAST_SOLVED:
        verdict = "not testable at this scale"
    else:
        verdict = _settled(row["low"], row["high"])
    return Verdict(
        claim,
        paper,
        f"longer run, {arm} minus {base}: accuracy {row['difference']:+.3f} [{row['low']:+.3f}, "
        f"{row['high']:+.3f}], local NLL {_nats(nats)} nats",
        verdict,
        f"{solved} of {problems} problems are solved by any student; {_scale(results)}",
        where=where,
    )


def _teacher_verdict(results: ArmResults, profile: Profile, options: dict[str, int]) -> Verdict:
    accuracy = _of(measure.accuracy_by_arm(results.answers, **options), TEACHERS)
    mean = accuracy.groupby("arm")["accuracy"].mean()
    scores = _of(results.arms, TEACHERS).groupby("arm")[lalp_column(profile.main_window)].mean()
    solved = _solved(results)
    return Verdict(
        "The teacher ranked first by LALP gives the most accurate student",
        f"QwQ-32B first in both for {STUDENT_32B} and the 7B student",
        f"longer run, by LALP: {_order(scores)}; by accuracy: {_order(mean)} "
        f"({', '.join(f'{value:.3f}' for value in mean.sort_values(ascending=False))})",
        "not testable at this scale" if solved < _LEAST_SOLVED else "not resolved",
        f"one order of {len(scores)} teachers settles nothing; {solved} problems are solved by any "
        f"student; {_scale(results)}",
        where="Table 2, Fig. 1",
    )


def _order(values: pd.Series) -> str:
    return " > ".join(values.sort_values(ascending=False).index)
