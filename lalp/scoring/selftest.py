"""Measure how much scores depend on order, other responses, batches, kernels and dtypes.

None of these should change a score. But floating-point sums depend on their order, so they depend
on what a machine reads together. In float32 this changes about the sixth digit. In bfloat16 it can
change the choice between two responses. `selftest` measures the changes for one student on one
device and keeps the result. Later score tables of the same student, device, dtype and code have it
in their metadata.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lalp.errors import InputError
from lalp.files import cache_dir, digest, write_json
from lalp.pools.pool import Pool
from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import GALP, lalp_column, score_columns
from lalp.scoring.equations import score_per_step
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.run import score
from lalp.scoring.windows import Window, parse_window, parse_windows
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import DTYPES, Student, find_student, parse_dtype

# The limit for exact scores, in nats. If only the pool's order changes, scores keep every bit.
SAME_NATS = 1e-4
_FEW_TOKENS = 256  # in a small batch
_MORE_WINDOWS = ("0", "1", "2", "4", "all")
# Facts of a score table that decide what a selftest finds.
_DECIDING = ("student", "dtype", "device", "attention", "versions", "code")


@dataclass(frozen=True)
class SelfTest:
    """The result of `selftest`: a row per change, and the settings that it holds for."""

    table: pd.DataFrame
    facts: Mapping[str, str]  # student, dtype, device, attention kernel, versions, code

    @property
    def holds(self) -> bool:
        """Whether every change stays within its limit, where it has one."""
        return bool(
            (self.table["limit"].isna() | (self.table["largest"] <= self.table["limit"])).all()
        )


def selftest(
    pool: Pool,
    student: str = PACKAGED_STUDENT,
    windows: Sequence[str] = ("1", "4"),
    *,
    splitter: str = "sentences",
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> SelfTest:
    """Score a pool again after changes that should not matter, and compare the scores.

    Args:
        pool: A few prompts with several responses each; their texts are scored many times.
        student: As in `lalp.score`; so are the arguments below.
        windows: Windows at which LALP is compared, in addition to GALP.
        splitter: How responses are cut into steps.
        device: The device that runs the student.
        dtype: The dtype whose scores are compared with those of the other two.
        trust_remote_code: Run Python code that comes with the model.

    Returns:
        A row per change: ``largest`` and ``mean`` difference of a score (absolute, nats); ``same``,
        the share of scores that are equal bit for bit; ``choices``, the number of ``prompts``
        (summed over all scores) in which another response has the highest score; ``places``, the
        number of teachers with another rank; ``limit``, which ``largest`` must not exceed in
        float32: 0 for the pool's order, else `SAME_NATS`. Changes that are only measured have no
        limit.

    Raises:
        InputError: As in `lalp.score`, or if no response has a score.
    """
    options = {"device": device, "trust_remote_code": trust_remote_code}
    found = find_student(student, dtype=parse_dtype(dtype) if dtype else None, **options)
    own = found.load()
    run = partial(_score, windows=windows, splitter=splitter)
    base = run(pool, own)
    if base[score_columns(base)].isna().all(axis=None):
        why = "no response of the pool has a score that could be compared"
        raise InputError(f"{why}: give others, or look why with lalp score")
    is_exact = own.model.dtype == torch.float32
    rows = []
    for name, limit, frame in _changes(pool, own, windows, splitter):
        rows.append(_compare(name, base, frame, limit if is_exact else np.nan))
    name = str(own.model.dtype).removeprefix("torch.")
    facts = {key: str(base.attrs["scored_with"][key]) for key in _DECIDING}
    del own
    for other in DTYPES:
        if other != name:
            near = run(pool, find_student(student, dtype=parse_dtype(other), **options).load())
            rows.append(_compare(f"{other} instead of {name}", base, near, np.nan))
    result = SelfTest(pd.DataFrame(rows), facts)
    # JSON has no NaN, so a missing number becomes null.
    changes = result.table.astype({"limit": object}).where(result.table.notna(), None)
    write_json(_path(facts), {"facts": facts, "changes": changes.to_dict("records")})
    return result


def first_prompts(pool: Pool, number: int) -> Pool:
    """The first prompts of a pool, with their responses."""
    names = list(pool.prompts)[:number]
    kept = tuple(r for r in pool.responses if r.prompt_id in names)
    return Pool({name: pool.prompts[name] for name in names}, kept)


def known_selftest(facts: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of the selftest for a score table's facts; None if there is none.

    A file that cannot be read counts as none, because it is only a note on the scores.
    """
    path = _path({key: str(facts[key]) for key in _DECIDING})
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(path.read_text(encoding="utf-8"))["changes"]
    return None


def _path(facts: Mapping[str, Any]) -> Path:
    return cache_dir() / "selftests" / f"{digest(facts)}.json"


def _score(pool: Pool, student: Student, windows: Sequence[str], splitter: str) -> pd.DataFrame:
    """Score a pool anew, without any stored scores."""
    with tempfile.TemporaryDirectory() as store:
        return score(pool, student, windows, splitter=splitter, store=store, progress=False)


def _changes(
    pool: Pool, student: Student, windows: Sequence[str], splitter: str
) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Yield each change's name and limit, and the scores after it."""
    run = partial(_score, windows=windows, splitter=splitter)
    prompts = dict(reversed(pool.prompts.items()))
    yield "pool in another order", 0.0, run(Pool(prompts, pool.responses[::-1]), student)
    alone = (Pool({r.prompt_id: pool.prompts[r.prompt_id]}, (r,)) for r in pool.responses)
    yield "each response alone", SAME_NATS, pd.concat([run(one, student) for one in alone])
    more = [*dict.fromkeys([*windows, *_MORE_WINDOWS])]
    yield f"more windows: {', '.join(more)}", SAME_NATS, _score(pool, student, more, splitter)
    read = partial(_read_apart, pool, student, parse_windows(windows), splitter)
    yield f"batches of {_FEW_TOKENS} tokens", SAME_NATS, read(_in_small_batches)
    with _plain_kernel(student) as plain:
        yield "plain attention, padded rows", SAME_NATS, run(pool, plain)
    yield "one pass per step", SAME_NATS, read(_by_step)


@contextmanager
def _plain_kernel(student: Student) -> Iterator[Student]:
    """Yield the student without packed rows and with attention by plain matrix products."""
    model, before = student.model, student.model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield replace(student, laid_out={"packed": None, "packing": None})
    finally:
        model.set_attn_implementation(before)


def _read_apart(
    pool: Pool,
    student: Student,
    windows: Sequence[Window],
    splitter: str,
    read: Callable[[Student, Task, Sequence[Window]], dict[str, float]],
) -> pd.DataFrame:
    """Score a pool response by response."""
    rows = []
    for group in group_responses(pool, student.tokenizer, splitter):
        tasks = make_tasks(group, student.tokenizer, student.max_positions)
        for response, task in zip(group.responses, tasks, strict=True):
            rows.append({"response_id": response.response_id} | read(student, task, windows))
    return pd.DataFrame(rows)


def _in_small_batches(student: Student, task: Task, windows: Sequence[Window]) -> dict[str, float]:
    (scores,) = score_candidates(student, [task], windows, max_batch_tokens=_FEW_TOKENS)
    return {GALP: scores.galp} | scores.lalp


def _by_step(student: Student, task: Task, windows: Sequence[Window]) -> dict[str, float]:
    """Score with the paper's loop; for GALP the whole response is one step."""
    whole = replace(task, step_spans=((0, task.num_tokens),))
    scores = {GALP: score_per_step(student, whole, parse_window("0"))}
    return scores | {lalp_column(w): score_per_step(student, task, w) for w in windows}


def _compare(
    change: str, base: pd.DataFrame, other: pd.DataFrame, limit: float
) -> dict[str, float | str]:
    """The row of one change; a score missing on just one side counts as an infinite difference."""
    columns = score_columns(base)
    again = other.set_index("response_id").loc[base["response_id"], columns].set_axis(base.index)
    moved = (base[columns] - again).abs()
    moved = moved.mask(base[columns].isna() != again.isna(), np.inf).stack().dropna()
    flips = places = 0
    for column in columns:
        both = base[["prompt_id", "teacher"]].assign(one=base[column], other=again[column])
        best = both.dropna().groupby("prompt_id")[["one", "other"]].idxmax()
        flips += int((best["one"] != best["other"]).sum())
        ranks = both.groupby("teacher")[["one", "other"]].mean().rank()
        places += int((ranks["one"] != ranks["other"]).sum())
    return {
        "change": change,
        "largest": float(moved.max()),
        "mean": float(moved.mean()),
        "same": float((moved == 0).mean()),
        "choices": flips,
        "prompts": base["prompt_id"].nunique() * len(columns),
        "places": places,
        "limit": limit,
    }
