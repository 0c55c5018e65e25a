"""Score a pool into a crash-safe, content-addressed store of Parquet shards.

A shard holds the scores of one prompt's responses. Its folder is named by all else that decides the
numbers (student, tokenizer, template, windows, device, attention kernel, libraries, code), its file
by the texts and their steps. So a killed run goes on where it stopped, and no setting is ever mixed
with another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from lalp.files import cache_dir, digest, in_use, write_text
from lalp.pools.pool import Pool
from lalp.scoring.candidates import score_candidates
from lalp.scoring.groups import PromptGroup, group_responses, make_tasks
from lalp.scoring.shards import CODE, ScoreKey, read_shards, shard_table, write_shard
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import FoundStudent, Student, find_student

# What computes the numbers, besides this project.
_LIBRARIES = ("torch", "transformers", "tokenizers")


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
        store: Folder of the shards; ``scores`` of `cache_dir` if not given.
        device: As in `load_student`.
        trust_remote_code: As in `load_student`.
        progress: Show tokens per second and an estimate of the time left.

    Returns:
        One row per response in the pool's order: ids, ``num_tokens``, ``num_steps``,
        ``mean_rank``, ``mean_rank_100``, ``mean_entropy``, ``galp``, ``lalp@W`` for each window
        (nats, higher is more natural) and ``reason``, which says why a score is NaN.

    Raises:
        InputError: If the student, a window or the splitter is not understood, or given steps do
            not fit the pool.

    Example:
        >>> scores = score(load_pool("pool.jsonl"), windows=["4"])  # doctest: +SKIP
    """
    parsed = parse_windows(windows)
    check_splitter(splitter)
    found = find_student(student, device=device, trust_remote_code=trust_remote_code)
    key = ScoreKey(
        student=found.revision,
        tokenizer=digest(found.tokenizer.backend_tokenizer.to_str()),
        chat_template=digest(found.tokenizer.chat_template or ""),
        windows=tuple(str(window) for window in parsed),
        with_tokens=with_tokens,
        dtype=str(found.dtype),
        device=found.device_name,
        attention=found.attention,
        versions=", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        code=CODE,
    )
    folder = Path(store or cache_dir() / "scores") / key.digest
    groups = group_responses(pool, found.tokenizer, splitter)
    done = read_shards(folder, key, groups)
    # By digest, for two prompts may hold the same texts: they are scored once.
    missing = {group.digest: group for group in groups if group.digest not in done}
    if missing:
        with in_use(folder):
            write_text(folder / "key.json", json.dumps(asdict(key), indent=1))
            done |= _score_missing(list(missing.values()), found, parsed, key, folder, progress)
    frame = _join(pool, groups, done)
    name = splitter if isinstance(splitter, str) else "given steps"
    frame.attrs = {"student": found.name, "splitter": name, "key": key.digest}
    frame.attrs["scored_with"] = asdict(key) | {"windows": list(key.windows)}
    return frame


def _score_missing(
    groups: Sequence[PromptGroup],
    found: FoundStudent,
    windows: Sequence[Window],
    key: ScoreKey,
    folder: Path,
    progress: bool,
) -> dict[str, pa.Table]:
    """Score prompts one after another; each is on disk before the next begins."""
    student, tables = found.load(), {}
    read, left = 0, sum(_num_characters(group) for group in groups)
    # Where not silenced here, tqdm still heeds TQDM_DISABLE.
    options = {} if progress else {"disable": True}
    with tqdm(unit="tok", unit_scale=True, **options) as bar:
        for group in groups:
            tasks = make_tasks(group, found.tokenizer, found.max_positions)
            scores = score_candidates(student, tasks, windows, on_tokens=bar.update)
            table = shard_table(tasks, scores, key)
            write_shard(folder / f"{group.digest}.parquet", table, key, group)
            tables[group.digest] = table
            # Tokenizing all prompts before the first would take as long again, and hold them all:
            # the tokens to come are estimated by what the characters so far have cost.
            read, left = read + _num_characters(group), left - _num_characters(group)
            bar.total = bar.n + round(bar.n * left / read)
    return tables


def _num_characters(group: PromptGroup) -> int:
    return len(group.prompt_text) + sum(len(response.text) for response in group.responses)


def _join(pool: Pool, groups: Sequence[PromptGroup], done: Mapping[str, pa.Table]) -> pd.DataFrame:
    """Put ids next to scores, in the pool's order."""
    responses = [response for group in groups for response in group.responses]
    names = ["prompt_id", "response_id", "teacher", "correct"]
    ids = pd.DataFrame([[getattr(r, name) for name in names] for r in responses], columns=names)
    ids["correct"] = ids["correct"].astype("boolean")
    scores = pa.concat_tables(done[group.digest] for group in groups).to_pandas()
    frame = pd.concat([ids, scores], axis=1).set_index("response_id", drop=False)
    order = [response.response_id for response in pool.responses]
    return frame.loc[order].reset_index(drop=True)
