"""Fine-tuned students: training loss, held-out NLL, accuracy (paper, Fig. 6, Tables 1 and 3).

An arm is one training set; ``group`` names the comparison that it belongs to. All arms of a group
and seed see the same prompts in the same order, so optimizer steps can be paired between them, and
all measures are taken on the same held-out responses and problems, so these can be paired too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.errors import InputError
from lalp.stats import mean_interval

MEASURES = {"galp": "global NLL", "lalp": "local NLL"}
_ARM = ["group", "arm", "seed"]


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
    steps = log[(log["group"] == group) & log["loss"].notna()]
    steps = steps[_epoch(steps) == 1]
    if against not in set(steps["arm"]):
        raise InputError(f"comparison {group!r} has no arm {against!r} to compare with")
    loss = steps.pivot_table(index=["seed", "step"], columns="arm", values="loss", sort=False)
    rows = []
    for arm in loss.columns.drop(against):
        for run, values in (loss[arm] - loss[against]).groupby("seed"):
            low, high = mean_interval(values.to_numpy(), num_resamples, seed)
            rows.append((arm, run, values.mean(), low, high, len(values)))
    return pd.DataFrame(rows, columns=["arm", "seed", "difference", "low", "high", "num_steps"])


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
            rows.append(
                (group, arm, measure, before.mean(), after.mean(), change.mean(), low, high,
                 len(change))
            )  # fmt: skip
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
    frame = nll[nll["group"] == group]
    if against not in set(frame["arm"]):
        raise InputError(f"comparison {group!r} has no arm {against!r} to compare with")
    rows = []
    for measure in MEASURES.values():
        table = frame.pivot_table(index="prompt_id", columns="arm", values=measure, sort=False)
        for arm in table.columns.drop(against):
            values = (table[arm] - table[against]).to_numpy()
            low, high = mean_interval(values, num_resamples, seed)
            rows.append((arm, measure, values.mean(), low, high, len(values)))
    columns = ["arm", "measure", "difference", "low", "high", "num_prompts"]
    return pd.DataFrame(rows, columns=columns)


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
        by_problem = frame.groupby("prompt_id")["correct"].mean().to_numpy()
        low, high = _share_interval(by_problem, num_resamples, seed)
        rows.append(
            (*keys, by_problem.mean(), low, high, frame["truncated"].mean(),
             frame["num_tokens"].mean(), len(by_problem), len(frame))
        )  # fmt: skip
    columns = ["group", "arm", "answers", "accuracy", "low", "high", "truncated", "mean_tokens",
               "num_problems", "num_answers"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _share_interval(
    values: Float[np.ndarray, "problems"], num_resamples: int, seed: int
) -> tuple[float, float]:
    if set(values) <= {0.0, 1.0}:
        share = stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        return float(share.low), float(share.high)
    return mean_interval(values, num_resamples, seed)


def _share_difference_interval(
    values: Float[np.ndarray, "problems"], num_resamples: int, seed: int
) -> tuple[float, float]:
    """Bootstrap; where all problems differ alike, so far as Wilson's interval of none reaches."""
    if np.ptp(values) > 0:
        return mean_interval(values, num_resamples, seed)
    reach = stats.binomtest(0, len(values)).proportion_ci(method="wilson").high
    return max(-1.0, float(values[0] - reach)), min(1.0, float(values[0] + reach))


def accuracy_differences(
    answers: pd.DataFrame, group: str, against: str, *, num_resamples: int, seed: int
) -> pd.DataFrame:
    """Accuracy of each arm minus that of another on the same problems, all answers averaged.

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
    frame = answers[answers["group"] == group].assign(correct=lambda f: f["correct"].astype(float))
    if against not in set(frame["arm"]):
        raise InputError(f"comparison {group!r} has no arm {against!r} to compare with")
    table = frame.pivot_table(index="prompt_id", columns="arm", values="correct", sort=False)
    rows = []
    for arm in table.columns.drop(against):
        values = (table[arm] - table[against]).to_numpy()
        low, high = _share_difference_interval(values, num_resamples, seed)
        rows.append((arm, values.mean(), low, high, int((values != 0).sum()), len(values)))
    columns = ["arm", "difference", "low", "high", "num_differ", "num_problems"]
    return pd.DataFrame(rows, columns=columns)
