"""Fine-tuned students: training loss, held-out NLL, accuracy (paper, Fig. 6, Tables 1 and 3).

An arm is one training set; ``group`` names the comparison that it belongs to. All arms of a group
and seed see the same prompts in the same order, so optimizer steps can be paired between them. All
measures are taken on the same held-out responses and problems, so these can be paired too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.paper.arms.grid import ArmResults
from lalp.stats import Estimate, mean_interval, wilson_interval

MEASURES = {"galp": "global NLL", "lalp": "local NLL"}
_ARM = ["group", "arm", "seed"]


def describe_scale(results: ArmResults) -> str:
    """Prompts, seeds and profile of a longer run, in words."""
    prompts, seeds = results.arms["num_examples"].max(), results.arms["seed"].nunique()
    return f"longer run: {prompts} prompts, {seeds} seeds, {results.provenance['profile']} profile"


def baselines(arms: pd.DataFrame) -> dict[str, str]:
    """Per comparison the arm to subtract: random, the lowest third, the full prefix, or the first.

    Args:
        arms: From `lalp.paper.arms.plan.arm_table`.
    """
    names = {group: rows["arm"].unique() for group, rows in arms.groupby("group", sort=False)}
    preferred = ("random", "lowest", "all")
    return {
        group: next((name for name in preferred if name in found), found[0])
        for group, found in names.items()
    }


def _minus(
    table: pd.DataFrame, group: str, against: str, unit: str | Sequence[str], values: str
) -> Iterator[tuple[str, pd.Series]]:
    """Name of each other arm of a group, and its values minus those of one arm, unit by unit."""
    rows = table[table["group"] == group]
    if against not in set(rows["arm"]):
        raise InputError(f"comparison {group!r} has no arm {against!r} to compare with")
    wide = rows.pivot_table(index=unit, columns="arm", values=values, sort=False)
    for arm in wide.columns.drop(against):
        yield arm, wide[arm] - wide[against]


# --- training loss -----------------------------------------------------------------------------


def loss_table(log: pd.DataFrame) -> pd.DataFrame:
    """Mean training loss of every run in its first and last epoch, in nats per token (Fig. 6).

    Args:
        log: One row per arm and optimizer step: ``group``, ``arm``, ``seed``, ``epoch`` (at the
            step's end), ``loss``.

    Returns:
        One row per group, arm and seed: ``first epoch``, ``last epoch``, and ``fall`` between them,
        which is NaN where there is one epoch only.
    """
    steps = log[log["loss"].notna()].assign(epoch=_epoch)
    by_epoch = steps.groupby([*_ARM, "epoch"], sort=False)["loss"].mean().reset_index("epoch")
    ends = by_epoch.groupby(_ARM, sort=False)
    table = pd.DataFrame({"first epoch": ends["loss"].first(), "last epoch": ends["loss"].last()})
    fall = table["first epoch"] - table["last epoch"]
    table["fall"] = fall.where(ends["epoch"].max() > 1)
    return table


def _epoch(steps: pd.DataFrame) -> pd.Series:
    """Number of the epoch that a step belongs to, from 1: ``epoch`` is how far it got."""
    return np.ceil(steps["epoch"].round(6)).clip(lower=1).astype(int)


def loss_differences(
    log: pd.DataFrame, group: str, against: str, *, num_resamples: int, seed: int
) -> pd.DataFrame:
    """Training loss of each arm minus that of another, step by step, for every seed.

    Steps of one seed hold different prompts, those of several seeds the same ones: there is one
    interval per seed, not one over all.

    Args:
        log: As in `loss_table`.
        group: The comparison.
        against: The arm to subtract.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        Columns ``arm``, ``seed``, ``difference``, ``low``, ``high``, ``num_steps``; of the
        first epoch.

    Raises:
        InputError: If the group lacks the arm.
    """
    steps = log[log["loss"].notna()]
    steps = steps[_epoch(steps) == 1]
    rows = [
        (arm, run, values.mean(), *mean_interval(values.to_numpy(), num_resamples, seed),
         len(values))
        for arm, gaps in _minus(steps, group, against, ["seed", "step"], "loss")
        for run, values in gaps.groupby("seed")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "seed", "difference", "low", "high", "num_steps"])


# --- held-out responses ------------------------------------------------------------------------


def held_out_nll(held_out: pd.DataFrame) -> pd.DataFrame:
    """NLL of every held-out response before training and after it, means over seeds.

    Args:
        held_out: One row per arm, measured step and response: ``group``, ``arm``, ``seed``,
            ``step``, ``prompt_id``, ``response_id``, ``galp``, ``lalp``.

    Returns:
        One row per group, arm, prompt and response: ``global NLL``, ``local NLL`` at the end, and
        the same before training as ``global NLL before``, ``local NLL before``.
    """
    at_end = held_out["step"] == held_out.groupby(_ARM)["step"].transform("max")
    keys = ["group", "arm", "prompt_id", "response_id"]
    renamed = held_out.rename(columns=MEASURES)
    columns = list(MEASURES.values())
    renamed[columns] = -renamed[columns]
    after = renamed[at_end].groupby(keys, sort=False)[columns].mean()
    before = renamed[held_out["step"] == 0].groupby(keys, sort=False)[columns].mean()
    return after.join(before.add_suffix(" before")).reset_index()


def held_out_changes(nll: pd.DataFrame, *, num_resamples: int, seed: int) -> pd.DataFrame:
    """How far training moved the held-out NLL of each arm, with intervals over prompts.

    Args:
        nll: From `held_out_nll`.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap; the same prompts are drawn for every arm.

    Returns:
        One row per group, arm and measure: ``before``, ``after``, ``change``, ``low``, ``high`` in
        nats per token (below 0 = learned), ``num_prompts``.
    """
    rows = []
    for (group, arm), frame in nll.groupby(["group", "arm"], sort=False):
        by_prompt = frame.groupby("prompt_id").mean(numeric_only=True)
        for measure in MEASURES.values():
            before, after = by_prompt[f"{measure} before"], by_prompt[measure]
            change = (after - before).to_numpy()
            low, high = mean_interval(change, num_resamples, seed)
            means = before.mean(), after.mean(), change.mean()
            rows.append((group, arm, measure, *means, low, high, len(change)))
    columns = ["group", "arm", "measure", "before", "after", "change", "low", "high", "num_prompts"]
    return pd.DataFrame(rows, columns=columns)


def held_out_differences(
    nll: pd.DataFrame, group: str, against: str, *, num_resamples: int, seed: int
) -> pd.DataFrame:
    """Held-out NLL of each arm minus that of another, on the same responses.

    Args:
        nll: From `held_out_nll`.
        group: The comparison.
        against: The arm to subtract.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per arm and measure: ``difference``, ``low``, ``high`` in nats per token (below 0:
        the arm's student finds the held-out responses more natural), ``num_prompts``.

    Raises:
        InputError: If the group lacks the arm.
    """
    rows = [
        (arm, measure, gaps.mean(), *mean_interval(gaps.to_numpy(), num_resamples, seed), len(gaps))
        for measure in MEASURES.values()
        for arm, gaps in _minus(nll, group, against, "prompt_id", measure)
    ]
    columns = ["arm", "measure", "difference", "low", "high", "num_prompts"]
    return pd.DataFrame(rows, columns=columns)


def local_nll_gap(
    results: ArmResults, group: str, arm: str, against: str, *, num_resamples: int, seed: int
) -> Estimate:
    """Local NLL of one arm minus that of another (nats per token), with its interval over prompts.

    Raises:
        InputError: If the group lacks an arm.
    """
    nll = held_out_nll(results.held_out)
    table = held_out_differences(nll, group, against, num_resamples=num_resamples, seed=seed)
    return _estimate(table[table["measure"] == MEASURES["lalp"]], group, arm, "num_prompts")


def _estimate(differences: pd.DataFrame, group: str, arm: str, units: str) -> Estimate:
    rows = differences[differences["arm"] == arm]
    if rows.empty:
        raise InputError(f"comparison {group!r} has no arm {arm!r}")
    return Estimate(*rows.iloc[0][["difference", "low", "high", units]])


# --- accuracy ----------------------------------------------------------------------------------


def accuracy_by_arm(answers: pd.DataFrame, *, num_resamples: int, seed: int) -> pd.DataFrame:
    """Share of correct answers per arm: one greedy answer, and the mean over samples (Table 3).

    Problems are the unit: a problem's answers by all seeds and samples are averaged first. Where
    that leaves nothing to resample (all right, or all wrong), the interval is Wilson's.

    Args:
        answers: One row per arm, problem, temperature and sample: ``group``, ``arm``, ``seed``,
            ``prompt_id``, ``temperature``, ``correct``, ``truncated``, ``num_tokens``.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per group, arm and ``answers`` (greedy or sampled): ``accuracy``, ``low``, ``high``,
        ``truncated`` (share), ``mean_tokens``, ``num_problems``, ``num_answers``.
    """
    kinds = np.where(answers["temperature"] == 0, "greedy", "sampled")
    answers = answers.assign(answers=kinds, correct=answers["correct"].astype(float))
    rows = []
    for keys, frame in answers.groupby(["group", "arm", "answers"], sort=False):
        shares = frame.groupby("prompt_id")["correct"].mean().to_numpy()
        if set(shares) <= {0.0, 1.0}:
            low, high = wilson_interval(float(shares.mean()), len(shares))
        else:
            low, high = mean_interval(shares, num_resamples, seed)
        rows.append((*keys, shares.mean(), low, high, frame["truncated"].mean(),
                     frame["num_tokens"].mean(), len(shares), len(frame)))  # fmt: skip
    columns = ["group", "arm", "answers", "accuracy", "low", "high", "truncated", "mean_tokens",
               "num_problems", "num_answers"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def accuracy_differences(
    answers: pd.DataFrame, group: str, against: str, *, num_resamples: int, seed: int
) -> pd.DataFrame:
    """Accuracy of each arm minus that of another on the same problems, all answers averaged.

    Where all problems differ alike, the interval reaches as far as Wilson's of no success does.

    Args:
        answers: As in `accuracy_by_arm`.
        group: The comparison.
        against: The arm to subtract.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per arm: ``difference``, ``low``, ``high``, ``num_differ`` (problems on which the
        two have another share of correct answers), ``num_problems``.

    Raises:
        InputError: If the group lacks the arm.
    """
    rows = []
    answers = answers.assign(correct=answers["correct"].astype(float))
    for arm, gaps in _minus(answers, group, against, "prompt_id", "correct"):
        if np.ptp(gaps) > 0:
            low, high = mean_interval(gaps.to_numpy(), num_resamples, seed)
        else:
            _, reach = wilson_interval(0.0, len(gaps))
            low, high = max(-1.0, gaps.iloc[0] - reach), min(1.0, gaps.iloc[0] + reach)
        rows.append((arm, gaps.mean(), low, high, int((gaps != 0).sum()), len(gaps)))
    columns = ["arm", "difference", "low", "high", "num_differ", "num_problems"]
    return pd.DataFrame(rows, columns=columns)


def accuracy_gap(
    results: ArmResults, group: str, arm: str, against: str, *, num_resamples: int, seed: int
) -> Estimate:
    """Accuracy of one arm minus that of another, with its interval over problems.

    Raises:
        InputError: If the group lacks an arm.
    """
    options = {"num_resamples": num_resamples, "seed": seed}
    table = accuracy_differences(results.answers, group, against, **options)
    return _estimate(table, group, arm, "num_problems")
