"""Make a verified pool from sampled answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.extras import require
from lalp.files import cache_dir
from lalp.grading.answers import final_part
from lalp.grading.workers import Answer, grade_answers
from lalp.pools.pool import Pool, Prompt, Response
from lalp.sampling.samples import Completion, generate, paper_prompts
from lalp.sampling.settings import Sampling
from lalp.students.student import Student


def grade_completions(
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    num_workers: int = 2,
    *,
    cache: Path | None = None,
    asks_percent: Callable[[Prompt], bool] = lambda prompt: False,
) -> pd.DataFrame:
    """Compare the final answer of every completion with its prompt's reference.

    ``num_workers`` and ``cache`` are as in `grade_answers`. If ``asks_percent`` says that a prompt
    asks for a percentage, a percent sign is optional. If the reference is the letter of an option,
    it is compared with the letter that the answer gives.

    Returns:
        One row per completion: its fields; ``extracted``, the answer as written; ``outcome``, as in
        `grading.Grade`, or ``truncated`` or ``no reference``; and ``correct``, which is missing
        without a reference and False for every truncated completion.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    answers = []
    for completion in completions:
        if completion.prompt_id not in by_id:
            raise InputError(f"prompt {completion.prompt_id!r} of a completion is not given")
        prompt, text = by_id[completion.prompt_id], final_part(completion.text) or ""
        reference = None if completion.truncated else prompt.answer
        answers.append(Answer(reference, text, asks_percent(prompt)))
    columns = [field.name for field in fields(Completion)]
    frame = pd.DataFrame([asdict(completion) for completion in completions], columns=columns)
    grades = grade_answers(answers, num_workers=num_workers, cache=cache)
    outcomes = pd.Series([grade.outcome for grade in grades], dtype="str")
    # A truncated response counts as wrong, whatever it says.
    outcomes = outcomes.mask(frame["truncated"].astype(bool), "truncated")
    return frame.assign(
        extracted=pd.Series([grade.extracted for grade in grades], dtype="str"),
        outcome=outcomes,
        correct=(outcomes == "correct").astype("boolean").mask(outcomes == "no reference"),
    )


def sampled_pool(prompts: Sequence[Prompt], graded: pd.DataFrame, teacher: str) -> Pool:
    """The pool of graded completions, written by one teacher.

    Responses keep ``sample``, ``num_tokens`` and ``truncated`` as extra fields. A pool cannot hold
    empty responses, so ``left_out`` counts them.
    """
    responses = []
    for row in graded.to_dict("records"):
        if not row["text"].strip():
            continue
        extra = {name: row[name] for name in ("sample", "num_tokens", "truncated")}
        response_id = f"{row['prompt_id']}/{teacher}/{row['sample']}"
        correct = None if pd.isna(row["correct"]) else bool(row["correct"])
        responses.append(
            Response(response_id, row["prompt_id"], teacher, row["text"], correct, extra)
        )
    answered = {response.prompt_id for response in responses}
    empty = len(graded) - len(responses)
    return Pool(
        {p.prompt_id: p for p in prompts if p.prompt_id in answered},
        tuple(responses),
        {"empty response": empty} if empty else {},
    )


def sampling_summary(prompts: Sequence[Prompt], graded: pd.DataFrame, pool: Pool) -> dict[str, Any]:
    """Counts and shares of one run, as plain values for JSON.

    Shares are over all completions. Only ``accuracy`` is over the completions whose prompt has a
    reference; it is None if no prompt has one. ``solved`` counts prompts with a correct completion.
    """
    verifiable = [prompt.prompt_id for prompt in prompts if prompt.answer is not None]
    verified = graded.loc[graded["prompt_id"].isin(verifiable), "correct"]
    return {
        "num_prompts": int(graded["prompt_id"].nunique()),
        "num_samples": len(graded),
        "num_tokens": int(graded["num_tokens"].sum()),
        "mean_tokens": float(graded["num_tokens"].mean()),
        "truncated": float(graded["truncated"].mean()),
        "accuracy": float(verified.mean()) if len(verified) else None,
        "solved": int(graded.loc[graded["correct"].fillna(False), "prompt_id"].nunique()),
        "outcomes": {str(k): int(n) for k, n in graded["outcome"].value_counts().items()},
        "num_responses": len(pool.responses),
        "left_out": dict(pool.left_out),
    }


def sample_pool(
    prompts: Sequence[Prompt],
    model: str | Student,
    sampling: Sampling,
    teacher: str,
    *,
    system_prompt: str | None = None,
    store: str | Path | None = None,
    num_workers: int = 2,
    **options: Any,
) -> tuple[Pool, dict[str, Any]]:
    """Sample responses of one teacher, verify them, and make a pool with the prompts as given.

    Arguments are as in `generate` and `grade_answers`. ``store`` also keeps the verdicts. If
    ``system_prompt`` is None, a prompt without a system message gets the paper's system prompt. If
    it is empty, no system prompt is added.

    Returns:
        The pool, and counts and shares as in `sampling_summary`.
    """
    require("eval", "grading samples")  # before anything is sampled
    store = Path(store or cache_dir() / "samples")
    asked = paper_prompts(prompts) if system_prompt is None else prompts
    completions = generate(
        asked, model, sampling, system_prompt=system_prompt or None, store=store, **options
    )
    graded = grade_completions(prompts, completions, num_workers, cache=store / "grades.jsonl")
    pool = sampled_pool(prompts, graded, teacher)
    if not pool.responses:
        raise InputError(
            f"{teacher}: all {len(graded)} responses are empty: there is nothing to write"
        )
    return pool, sampling_summary(prompts, graded, pool)
