"""Fine-tuned students: training loss, held-out NLL, accuracy (paper, Fig. 6, Tables 1 and 3).

An arm is one training set; ``group`` names its comparison. All arms of a group and seed see the
same prompts in the same order, so optimizer steps can be paired between them. All measures are
taken on the same held-out responses and problems, so these can be paired too.

Tables begin with ``group``, ``arm`` and ``seed``; ``low`` and ``high`` are the ends of intervals
over units. For nats the units are prompts: Student's t below 50 of them, else a bootstrap with the
same draws for every arm (``draws``: the ``num_resamples`` and ``seed`` of
`lalp.stats.mean_interval`). For accuracies they are problems, and the interval is Wilson's.
Differences are between each arm of a group and the arm ``against``; an InputError says if the group
lacks it. NLL is in nats per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.paper.arms.grid import ArmResults
from lalp.paper.rechecks import describe_made
from lalp.scoring.columns import lalp_column
from lalp.stats import (
    Estimate,
    holm,
    mean_interval,
    p_value,
    paired_shares_interval,
    wilson_interval,
)

MEASURES = {"galp": "global NLL", "lalp": "local NLL"}
_ARM = ["group", "arm", "seed"]


def describe_scale(results: ArmResults) -> str:
    """The run, its prompts and seeds, in words."""
    prompts, seeds = results.arms["num_examples"].max(), results.arms["seed"].nunique()
    return f"{describe_made(results.provenance)}: {prompts} prompts, {seeds} seeds"


def baselines(arms: pd.DataFrame) -> dict[str, str]:
    """The arm to subtract in each comparison: random, lowest third, full prefix, or the first.

    ``arms`` comes from `lalp.paper.arms.plan.arm_table`.
    """
    names = {group: list(rows["arm"].unique()) for group, rows in arms.groupby("group", sort=False)}
    return {
        group: next(name for name in ("random", "lowest", "all", *found) if name in found)
        for group, found in names.items()
    }


def name_windows(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose arms in the comparison of windows have the name of their score.

    Example:
        >>> arms = {"group": ["windows", "rules"], "arm": ["0", "galp"], "base": ["all", "random"]}
        >>> name_windows(pd.DataFrame(arms))[["arm", "base"]].values.tolist()
        [['lalp@0', 'lalp@all'], ['galp', 'random']]
    """
    of_windows = table["group"].str.startswith("windows")
    named = {
        name: [
            lalp_column(arm) if mine else arm
            for arm, mine in zip(table[name], of_windows, strict=True)
        ]
        for name in ("arm", "base")
        if name in table
    }
    return table.assign(**named)


def _beside(
    table: pd.DataFrame, group: str, against: str, unit: str | Sequence[str], values: str
) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Name of each other arm of a group, and its values beside those of one arm, unit by unit."""
    rows = table[table["group"] == group]
    if against not in set(rows["arm"]):
        raise InputError(f"comparison {group!r} has no arm {against!r} to compare with")
    wide = rows.pivot_table(index=unit, columns="arm", values=values, sort=False)
    for arm in wide.columns.drop(against):
        yield arm, wide[arm], wide[against]


def _mean_of_units(values: pd.Series, draws: Mapping[str, int]) -> tuple[float, float, float, int]:
    """Mean of one value per unit, the ends of its interval, and the number of units."""
    return values.mean(), *mean_interval(values.to_numpy(), **draws), len(values)


# --- training loss -----------------------------------------------------------------------------


def loss_table(log: pd.DataFrame) -> pd.DataFrame:
    """Mean training loss of every run in its first and last epoch, and the fall between (Fig. 6).

    ``log`` has one row per optimizer step. The fall is NaN if there is only one epoch.
    """
    steps = _numbered_epochs(log)
    by_epoch = steps.groupby([*_ARM, "epoch"], sort=False)["loss"].mean().reset_index("epoch")
    ends = by_epoch.groupby(_ARM, sort=False)
    table = pd.DataFrame({"first epoch": ends["loss"].first(), "last epoch": ends["loss"].last()})
    fall = table["first epoch"] - table["last epoch"]
    table["fall"] = fall.where(ends["epoch"].max() > 1)
    return table


def _numbered_epochs(log: pd.DataFrame) -> pd.DataFrame:
    """Steps that have a loss, each with the number of its epoch, from 1."""
    steps = log[log["loss"].notna()]
    # Rounded, because three times a third of an epoch may be a little more than one.
    return steps.assign(epoch=np.ceil(steps["epoch"].round(6)).clip(lower=1).astype(int))


def loss_differences(log: pd.DataFrame, group: str, against: str, **draws: int) -> pd.DataFrame:
    """Differences in the first epoch's training loss, step by step.

    Steps of one seed hold different prompts, but steps of several seeds hold the same ones. So each
    seed has its own interval.
    """
    steps = _numbered_epochs(log).query("epoch == 1")
    rows = [
        (arm, seed, *_mean_of_units(values, draws))
        for arm, own, other in _beside(steps, group, against, ["seed", "step"], "loss")
        for seed, values in (own - other).groupby("seed")
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "difference", "low", "high", "num_steps"])


# --- held-out responses ------------------------------------------------------------------------


def held_out_nll(held_out: pd.DataFrame) -> pd.DataFrame:
    """NLL of every held-out response before and after training, as means over seeds.

    Takes the scores of `lalp.paper.arms.grid.train_arms`. Columns are the values of `MEASURES`, and
    the same names with `` before``.
    """
    keys, columns = ["group", "arm", "prompt_id", "response_id"], list(MEASURES.values())
    table = held_out.rename(columns=MEASURES)
    table[columns] = -table[columns]
    is_last = table["step"] == table.groupby(_ARM)["step"].transform("max")
    after = table[is_last].groupby(keys, sort=False)[columns].mean()
    before = table[table["step"] == 0].groupby(keys, sort=False)[columns].mean()
    return after.join(before.add_suffix(" before")).reset_index()


def held_out_changes(nll: pd.DataFrame, **draws: int) -> pd.DataFrame:
    """How far training moved held-out NLL (`held_out_nll`); a change below 0 is learning."""
    rows = []
    for (group, arm), frame in nll.groupby(["group", "arm"], sort=False):
        # Responses to one prompt are not independent, so their mean is one unit.
        by_prompt = frame.groupby("prompt_id").mean(numeric_only=True)
        for measure in MEASURES.values():
            before, after = by_prompt[f"{measure} before"], by_prompt[measure]
            change = _mean_of_units(after - before, draws)
            rows.append((group, arm, measure, before.mean(), after.mean(), *change))
    columns = ["group", "arm", "measure", "before", "after", "change", "low", "high", "num_prompts"]
    return pd.DataFrame(rows, columns=columns)


def held_out_differences(nll: pd.DataFrame, group: str, against: str, **draws: int) -> pd.DataFrame:
    """Differences in NLL on the same held-out responses (`held_out_nll`).

    Below 0, the arm's student finds them more natural. ``p_holm`` holds for all arms of one measure
    together.
    """
    rows = []
    for measure in MEASURES.values():
        pairs = _beside(nll, group, against, "prompt_id", measure)
        means = {arm: _mean_of_units(own - other, draws) for arm, own, other in pairs}
        p_values = holm([p_value(Estimate(*mean)) for mean in means.values()])
        rows += [
            (arm, measure, *mean[:3], p, mean[3])
            for (arm, mean), p in zip(means.items(), p_values, strict=True)
        ]
    columns = ["arm", "measure", "difference", "low", "high", "p_holm", "num_prompts"]
    return pd.DataFrame(rows, columns=columns)


# --- accuracy ----------------------------------------------------------------------------------


def accuracy_by_arm(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of correct answers per arm: one greedy answer, and the mean over samples (Table 3).

    Problems are the unit: a problem's answers by all seeds and samples are averaged first. Every
    interval is Wilson's, with problems as trials. It is as wide as if each problem were solved
    always or never, so it is too wide where samples differ. But it has a width where nothing is
    solved, and one kind of interval keeps arms comparable. ``answers`` are those of
    `lalp.paper.arms.grid.evaluate_arms`; ``truncated`` is the share of cut-off ones.
    """
    kinds = np.where(answers["temperature"] == 0, "greedy", "sampled")
    answers = answers.assign(answers=kinds, correct=answers["correct"].astype(float))
    rows = []
    for keys, frame in answers.groupby(["group", "arm", "answers"], sort=False):
        shares = frame.groupby("prompt_id")["correct"].mean().to_numpy()
        ends = wilson_interval(float(shares.mean()), len(shares))
        means = frame["truncated"].mean(), frame["num_tokens"].mean()
        rows.append((*keys, shares.mean(), *ends, *means, len(shares), len(frame)))
    columns = ["group", "arm", "answers", "accuracy", "low", "high", "truncated", "mean_tokens"]
    return pd.DataFrame(rows, columns=[*columns, "num_problems", "num_answers"])


def accuracy_differences(answers: pd.DataFrame, group: str, against: str) -> pd.DataFrame:
    """Differences in accuracy on the same problems, over all answers (as in `accuracy_by_arm`).

    Intervals are those of `paired_shares_interval`, which go with Wilson's. ``num_differ`` counts
    problems on which the two differ in their share of correct answers.
    """
    rows = []
    answers = answers.assign(correct=answers["correct"].astype(float))
    for arm, own, other in _beside(answers, group, against, "prompt_id", "correct"):
        ends = paired_shares_interval(own.to_numpy(), other.to_numpy())
        rows.append((arm, (own - other).mean(), *ends, int((own != other).sum()), len(own)))
    columns = ["arm", "difference", "low", "high", "num_differ", "num_problems"]
    return pd.DataFrame(rows, columns=columns)


def arm_gap(
    results: ArmResults, measure: str, group: str, arm: str, against: str, **draws: int
) -> Estimate:
    """Difference of two arms in ``accuracy`` (over problems) or a measure of NLL (over prompts)."""
    if measure == "accuracy":
        table = accuracy_differences(results.answers, group, against)
    else:
        table = held_out_differences(held_out_nll(results.held_out), group, against, **draws)
        table = table[table["measure"] == measure]
    rows = table[table["arm"] == arm]
    if rows.empty:
        raise InputError(f"comparison {group!r} has no arm {arm!r}")
    # The last column counts the units.
    return Estimate(*rows.iloc[0][["difference", "low", "high", table.columns[-1]]])
