"""Score a pool into a crash-safe, content-addressed store of Parquet shards.

A shard holds the scores of one prompt's responses. Its folder is named by everything that decides
the numbers but the texts (student, tokenizer, chat template, splitter, windows, code), its file by
the texts, and by the steps where no code of a known version made them. So a killed run goes on
where it stopped, and no setting is ever mixed with another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from tqdm import tqdm

from lalp.files import build_dir, digest, write_text
from lalp.pools.pool import Pool
from lalp.scoring.candidates import ResponseScores, score_candidates
from lalp.scoring.groups import Group, follows_from_text, group_responses, make_tasks
from lalp.scoring.plan import Task, plan_response
from lalp.scoring.shards import CODE, ScoreKey, read_shards, shard_table, write_shard
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import (
    Student,
    default_dtype,
    load_config,
    load_student,
    load_tokenizer,
    locate_student,
    max_positions,
    revision,
    usable_device,
)

# The splitter's name in the key where the steps themselves are part of the group's hash.
_GIVEN_STEPS = "given steps"


def score(
    pool: Pool,
    student: str | Student = PACKAGED_STUDENT,
    windows: Sequence[str | int | Window] = ("4",),
    *,
    splitter: str | Steps = "sentences",
    with_tokens: bool = False,
    store: str | Path | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every response of a pool by GALP (Eq. 1) and by LALP at every window (Eq. 3).

    Args:
        pool: From `load_pool`.
        student: ``smollm2-135m``, a folder, a GGUF file, a hub id, or a loaded student.
        windows: For example ``["0", "4", "25%", "256t", "all"]``.
        splitter: How responses are cut into steps: ``sentences``, ``paragraphs``, ``semantic``,
            ``32t`` (chunks of that many tokens), a steps file, or a mapping of response ids to
            character spans.
        with_tokens: Also keep per-token log-probabilities, character spans and steps.
        store: Folder of the shards; ``build/scores`` if not given.
        device: As in `load_student`.
        trust_remote_code: As in `load_student`.
        progress: Show tokens per second and the time left.

    Returns:
        One row per response in the pool's order: ids, ``num_tokens``, ``num_steps``,
        ``mean_rank``, ``mean_rank_100``, ``mean_entropy``, ``galp``, ``lalp@W`` for each window
        (nats, higher is more natural) and ``reason``, which says why a score is NaN.

    Raises:
        InputError: If the student, a window or the splitter is not understood, or given steps do
            not fit the pool.
    """
    parsed = parse_windows(windows)
    check_splitter(splitter)
    scorer = _Scorer(student, device, trust_remote_code)
    key = ScoreKey(
        student=scorer.revision,
        tokenizer=digest(scorer.tokenizer.backend_tokenizer.to_str()),
        chat_template=digest(scorer.tokenizer.chat_template or ""),
        splitter=splitter if follows_from_text(splitter) else _GIVEN_STEPS,
        windows=tuple(str(window) for window in parsed),
        with_tokens=with_tokens,
        dtype=scorer.dtype,
        device=scorer.device,
        code=CODE,
    )
    folder = Path(store or build_dir() / "scores") / key.digest
    groups = group_responses(pool, scorer.tokenizer, splitter)
    done = read_shards(folder, key, groups)
    missing = [group for group in groups if group.digest not in done]
    if missing:
        write_text(folder / "key.json", json.dumps(asdict(key), indent=1))
        _score_missing(missing, scorer, parsed, key, folder, done, progress)
    frame = _join(pool, groups, done)
    name = splitter if isinstance(splitter, str) else _GIVEN_STEPS
    frame.attrs = {"student": scorer.name, "splitter": name, "key": key.digest}
    return frame


class _Scorer:
    """A student whose weights are loaded only when something is left to score."""

    def __init__(self, student: str | Student, device: str | None, trust_remote_code: bool) -> None:
        if isinstance(student, Student):
            self.name, self.revision, self.tokenizer = (
                student.name,
                student.revision,
                student.tokenizer,
            )
            self.limit = student.max_positions
            self.device, self.dtype = student.device.type, str(student.model.dtype)
            self.load: Callable[[], Student] = lambda: student
            return
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        source = locate_student(student)
        config = load_config(student, **options)
        self.name, self.revision = student, revision(source, config)
        self.tokenizer = load_tokenizer(student, source, **options)
        self.limit = max_positions(config)
        self.device = torch.device(usable_device(device)).type
        self.dtype = str(default_dtype(self.device))
        self.load = lambda: load_student(student, device=device, **options)


def _score_missing(
    groups: Sequence[Group],
    scorer: _Scorer,
    windows: Sequence[Window],
    key: ScoreKey,
    folder: Path,
    done: dict[str, pa.Table],
    progress: bool,
) -> None:
    """Score prompts one after another; each is on disk before the next begins."""
    total = sum(
        _tokens_to_feed(make_tasks(group, scorer.tokenizer, key.splitter, scorer.limit), windows)
        for group in groups
    )
    student = scorer.load()
    # Where not silenced here, tqdm still heeds TQDM_DISABLE.
    options = {} if progress else {"disable": True}
    with tqdm(total=total, unit="tok", unit_scale=True, **options) as bar:
        for group in groups:
            if group.digest not in done:
                tasks = make_tasks(group, scorer.tokenizer, key.splitter, scorer.limit)
                scores = _score_group(student, tasks, windows, bar.update)
                table = shard_table(tasks, scores, key)
                write_shard(folder / f"{group.digest}.parquet", table, key, group)
                done[group.digest] = table


def _tokens_to_feed(tasks: Sequence[Task], windows: Sequence[Window]) -> int:
    return len(tasks[0].encoded.prompt_ids) + sum(
        row.num_inputs for task in tasks for row in plan_response(task, windows)
    )


def _score_group(
    student: Student,
    tasks: Sequence[Task],
    windows: Sequence[Window],
    on_tokens: Callable[[int], Any],
) -> list[ResponseScores]:
    """Score one prompt's responses, together where their prompt tokens agree.

    They differ only where the tokenizer merges the prompt's end with a response's beginning.
    """
    results: list[ResponseScores | None] = [None] * len(tasks)
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, task in enumerate(tasks):
        by_prompt.setdefault(task.encoded.prompt_ids, []).append(i)
    for members in by_prompt.values():
        scores = score_candidates(
            student, [tasks[i] for i in members], windows, on_tokens=on_tokens
        )
        for i, score_ in zip(members, scores, strict=True):
            results[i] = score_
    return results


def _join(pool: Pool, groups: Sequence[Group], done: Mapping[str, pa.Table]) -> pd.DataFrame:
    """Put ids next to scores, in the pool's order."""
    responses = [response for group in groups for response in group.responses]
    ids = pd.DataFrame(
        {
            "prompt_id": [response.prompt_id for response in responses],
            "response_id": [response.response_id for response in responses],
            "teacher": [response.teacher for response in responses],
            "correct": pd.array([response.correct for response in responses], dtype="boolean"),
        }
    )
    scores = pa.concat_tables(done[group.digest] for group in groups).to_pandas()
    frame = pd.concat([ids, scores], axis=1).set_index("response_id", drop=False)
    order = [response.response_id for response in pool.responses]
    return frame.loc[order].reset_index(drop=True)
