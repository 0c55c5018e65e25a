"""From drawn answers to a verified pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import build_dir
from lalp.grading.answers import extract_answer, final_part, letter_or_text
from lalp.grading.workers import grade_answers
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
    compared: Callable[[Prompt, str], tuple[str | None, str]] | None = None,
) -> pd.DataFrame:
    """Compare the final answer of every completion with its prompt's reference.

    ``num_workers`` and ``cache`` are as in `grade_answers`. ``compared`` makes reference and answer
    of a prompt and what follows the reasoning; without it they are compared as they are, or their
    letters where the reference is one.

    Returns:
        One row per completion: its fields; ``extracted``, the answer as written; ``outcome``, as in
        `grading.Grade`, or ``truncated`` or ``no reference``; and ``correct``, which is missing
        without a reference and False for whatever is truncated.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    pairs = []
    for completion in completions:
        if completion.prompt_id not in by_id:
            raise InputError(f"prompt {completion.prompt_id!r} of a completion is not given")
        prompt, text = by_id[completion.prompt_id], final_part(completion.text) or ""
        pair = compared(prompt, text) if compared else None
        pairs.append(pair or (prompt.answer, letter_or_text(text, prompt.answer)))
    columns = [field.name for field in fields(Completion)]
    frame = pd.DataFrame([asdict(completion) for completion in completions], columns=columns)
    # A response that was cut off is wrong, whatever it says, so there is nothing to compare.
    whole = zip(pairs, completions, strict=True)
    known = [pair for pair, said in whole if pair[0] is not None and not said.truncated]
    grades = grade_answers(known, num_workers=num_workers, cache=cache)
    outcome_of = {pair: grade.outcome for pair, grade in zip(known, grades, strict=True)}
    outcomes = pd.Series([outcome_of.get(pair, "no reference") for pair in pairs], dtype="str")
    outcomes = outcomes.mask(frame["truncated"].astype(bool), "truncated")
    return frame.assign(
        extracted=pd.Series([extract_answer(text) for _, text in pairs], dtype="str"),
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

    Shares are of all completions, but ``accuracy`` is of those whose prompt has a reference (None
    if there is none); ``solved`` counts prompts with a correct completion.
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
    """Sample, verify, and make a pool of responses by one teacher, with the prompts as given.

    Arguments are as in `generate` and `grade_answers`; verdicts are kept in ``store`` too. If
    ``system_prompt`` is None, it is the paper's where a prompt has no system message. If it is
    empty, there is none.

    Returns:
        The pool, and counts and shares as in `sampling_summary`.
    """
    store = Path(store or build_dir() / "samples")
    asked = paper_prompts(prompts) if system_prompt is None else prompts
    completions = generate(
        asked, model, sampling, system_prompt=system_prompt or None, store=store, **options
    )
    graded = grade_completions(prompts, completions, num_workers, cache=store / "grades.jsonl")
    pool = sampled_pool(prompts, graded, teacher)
    if not pool.responses:
        raise InputError(f"all {len(graded)} responses are empty: there is nothing to write")
    return pool, sampling_summary(prompts, graded, pool)
