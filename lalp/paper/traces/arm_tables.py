"""Results of the students fine-tuned on long traces: tables of `lalp.paper.traces.arms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lalp.files import cache_dir
from lalp.paper.arms.grid import Run, labelled
from lalp.paper.arms.measure import accuracy_differences, loss_table
from lalp.paper.arms.plan import Arm, Grid, arm_table
from lalp.paper.traces.grades import grade_texts
from lalp.stats import wilson_interval
from lalp.training.log import load_log

AGAINST = "random"
_ARM = ["arm", "seed"]
_GROUP = "traces"  # All arms are compared with each other


@dataclass(frozen=True)
class TraceArms:
    """Results of the finished arms; ``provenance`` is their origin.

    ``arms`` has a row per arm and seed (the student before training has seed -1): ``solved`` of
    ``n`` held-out problems, its share ``accuracy`` with Wilson's interval (``low``, ``high``);
    ``difference`` to the arm ``random`` of the same seed in that share, paired by problem, with its
    interval (``difference_low``, ``difference_high``) and ``num_differ``, the problems that only
    one of the two solves; ``truncated`` answers and ``answer_tokens`` on average; ``num_examples``,
    ``num_tokens`` of all chosen responses, ``trained_tokens`` in the loss over all epochs; ``loss``
    in the last epoch and ``first_loss`` in the first (nats per token); mean scores; number of
    responses by each teacher.

    ``answers``: a row per arm, seed and problem; ``log``: one per arm, seed and optimizer step.
    """

    arms: pd.DataFrame
    answers: pd.DataFrame
    log: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    def brief(self) -> str:
        """The summary to read first, as text."""
        columns = [*_ARM, "solved", "n", "low", "high", "difference", "loss"]
        return self.arms.reindex(columns=columns).round(3).to_string(index=False)


def collect(grid: Grid, done: Mapping[Arm, Run]) -> TraceArms:
    """The tables of the arms that have answered."""
    answers = graded_answers(grid, done)
    shares = solved_table(answers)
    trained = {arm: run for arm, run in done.items() if run.examples}
    if not trained:
        return TraceArms(shares, answers, pd.DataFrame())
    logs = [labelled(arm, load_log(run.model)) for arm, run in trained.items()]
    log = pd.concat(logs, ignore_index=True)
    tokens = log.groupby(_ARM)["num_tokens"].sum().rename("trained_tokens")
    ends = {"first epoch": "first_loss", "last epoch": "loss"}
    losses = loss_table(log).rename(columns=ends).droplevel("group")[list(ends.values())]
    chosen = arm_table(list(trained), grid.scores).set_index(_ARM).drop(columns="group")
    table = shares.join(chosen, on=_ARM).join(tokens, on=_ARM).join(losses, on=_ARM)
    columns = [*_ARM, "step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens"]
    return TraceArms(table, answers, log[columns])


def graded_answers(grid: Grid, done: Mapping[Arm, Run]) -> pd.DataFrame:
    """Every arm's answers, graded like the traces themselves; cut-off answers are wrong.

    A row per arm, seed and problem: ``correct``, ``truncated``, ``num_tokens``; no text.
    """
    gold = {problem.prompt_id: problem.answer or "" for problem in grid.setup.problems}
    names = ["arm", "seed", "prompt_id", "correct", "truncated", "num_tokens"]
    frames = []
    for arm, run in done.items():
        frame = labelled(arm, pd.read_parquet(run.answers))
        whole = frame[~frame["truncated"]]
        pairs = zip(whole["prompt_id"], whole["text"], strict=True)
        told = [("gsm8k", gold[name], text) for name, text in pairs]
        # Kept, because this is repeated after each arm.
        grades = grade_texts(told, cache_dir() / "traces" / "arm_grades.jsonl")
        right = whole.index[[grade is True for grade in grades]]
        frames.append(frame.assign(correct=frame.index.isin(right))[names])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=names)


def solved_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Shares of problems solved with Wilson's interval, and paired differences to random ones.

    A row per arm and seed, as in `TraceArms`. The student before training is compared with the
    first seed's random arm. Without a random arm there are no differences.
    """
    rows = []
    for (arm, seed), own in answers.groupby(_ARM, sort=False):
        share = own["correct"].mean()
        low, high = wilson_interval(float(share), len(own))
        row = {"arm": arm, "seed": seed, "solved": int(own["correct"].sum()), "n": len(own)}
        row |= {"accuracy": share, "low": low, "high": high}
        row |= {"truncated": own["truncated"].mean(), "answer_tokens": own["num_tokens"].mean()}
        base = answers[(answers["arm"] == AGAINST) & (answers["seed"] == max(seed, 0))]
        if arm != AGAINST and len(base):
            row |= _difference(own, base)
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    """An arm's accuracy minus that of the random arm, on the same problems."""
    both = pd.concat([own, base]).assign(group=_GROUP)
    (row,) = accuracy_differences(both, _GROUP, AGAINST).to_dict("records")
    names = {"low": "difference_low", "high": "difference_high"}
    kept = ("difference", "low", "high", "num_differ")
    return {names.get(name, name): row[name] for name in kept}
