"""Score a pool into a crash-safe, content-addressed store of Parquet shards.

A shard holds the scores of one prompt's responses. Its folder is named by everything that decides
the numbers but the texts (student, tokenizer, chat template, splitter, windows, code), its file by
the texts, and by the steps where no code of a known version made them. So a killed run goes on
where it stopped, and no setting is ever mixed with another.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from tqdm import tqdm
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.assets import build_dir, code_of
from lalp.records import InputError, Pool, Prompt, Response, atomic_path, load_pool
from lalp.scoring import ResponseScores, Task, plan_response, score_candidates
from lalp.segmentation import SPLITTERS, Span, split_steps
from lalp.steps import Steps, check_splitter, split_pool
from lalp.students import (
    PACKAGED_STUDENT,
    Student,
    assign_steps,
    default_dtype,
    encode,
    load_config,
    load_student,
    load_tokenizer,
    locate_student,
    max_positions,
    render_prompt,
    revision,
    usable_device,
)
from lalp.windows import Window, parse_windows

log = logging.getLogger("lalp")

# A change in one of these modules may change a score, so their code is part of the key.
_SCORING_MODULES = ("segmentation", "packed", "students", "windows", "scoring")
# The splitter's name in the key where the steps themselves are part of the group's hash.
_GIVEN_STEPS = "given steps"


@dataclass(frozen=True)
class ScoreKey:
    """Everything but the texts that decides a score."""

    student: str
    tokenizer: str
    chat_template: str
    splitter: str
    windows: tuple[str, ...]
    with_tokens: bool
    dtype: str
    device: str
    code: str

    @property
    def digest(self) -> str:
        """Short hash that names the store's folder."""
        return _digest(asdict(self))


@dataclass(frozen=True)
class Group:
    """One prompt with its responses: what is scored, stored and resumed as a whole.

    ``prompt_text`` is the prompt as the student's chat template renders it; some templates write
    today's date into it. ``steps`` are each response's, or None where they follow from the text by
    a splitter of `segmentation`, whose code is part of the key.
    """

    prompt: Prompt
    prompt_text: str
    responses: tuple[Response, ...]
    steps: tuple[tuple[Span, ...], ...] | None = None

    @cached_property
    def digest(self) -> str:
        """Short hash of the prompt, the responses' texts, and their steps if they are given."""
        parts = [self.prompt_text, [response.text for response in self.responses]]
        return _digest(parts if self.steps is None else [*parts, self.steps])


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
        tokenizer=_digest(scorer.tokenizer.backend_tokenizer.to_str()),
        chat_template=_digest(scorer.tokenizer.chat_template or ""),
        splitter=splitter if _follows_from_text(splitter) else _GIVEN_STEPS,
        windows=tuple(str(window) for window in parsed),
        with_tokens=with_tokens,
        dtype=scorer.dtype,
        device=scorer.device,
        code=_CODE,
    )
    folder = Path(store or build_dir() / "scores") / key.digest
    groups = group_responses(pool, scorer.tokenizer, splitter)
    done = _read_shards(folder, key, groups)
    missing = [group for group in groups if group.digest not in done]
    if missing:
        _write_text(folder / "key.json", json.dumps(asdict(key), indent=1))
        _score_missing(missing, scorer, parsed, key, folder, done, progress)
    frame = _join(pool, groups, done)
    name = splitter if isinstance(splitter, str) else _GIVEN_STEPS
    frame.attrs = {"student": scorer.name, "splitter": name, "key": key.digest}
    return frame


def _follows_from_text(splitter: str | Steps) -> bool:
    return isinstance(splitter, str) and splitter in SPLITTERS


def group_responses(
    pool: Pool, tokenizer: PreTrainedTokenizerBase, splitter: str | Steps = "sentences"
) -> list[Group]:
    """Responses by prompt, both in the pool's order, with the prompt as the student sees it.

    Args:
        pool: From `load_pool`.
        tokenizer: The student's.
        splitter: As in `score`; unless it is a splitter of `segmentation`, groups hold the steps.

    Raises:
        InputError: If given steps do not fit the pool.
    """
    steps = None
    if not _follows_from_text(splitter):
        steps = split_pool(pool, splitter, tokenizer=tokenizer)
    by_prompt: dict[str, list[Response]] = {}
    for response in pool.responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    groups = []
    for prompt_id, responses in by_prompt.items():
        prompt = pool.prompts[prompt_id]
        given = steps and tuple(tuple(steps[r.response_id]) for r in responses)
        groups.append(Group(prompt, render_prompt(tokenizer, prompt), tuple(responses), given))
    return groups


def make_tasks(
    group: Group, tokenizer: PreTrainedTokenizerBase, splitter: str, limit: int
) -> list[Task]:
    """Tokenize the responses of one prompt and cut them: by the splitter, or as the group says."""
    given = group.steps or (split_steps(response.text, splitter) for response in group.responses)
    tasks = []
    for response, steps in zip(group.responses, given, strict=True):
        encoded = encode(tokenizer, group.prompt_text, response.text)
        spans = assign_steps(response.text, encoded.offsets, steps)
        tasks.append(Task(encoded, tuple(spans), limit))
    return tasks


def code_version() -> str:
    """Hash of the code that decides a score; comments, docstrings and layout do not count."""
    return _digest([code_of(module) for module in _SCORING_MODULES])


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
                table = _shard_table(tasks, scores, key)
                _write_shard(folder / f"{group.digest}.parquet", table, key, group)
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


# --- shards ---------------------------------------------------------------------------------


def _shard_table(
    tasks: Sequence[Task], scores: Sequence[ResponseScores], key: ScoreKey
) -> pa.Table:
    rows = []
    for task, result in zip(tasks, scores, strict=True):
        row = {
            "num_tokens": result.num_tokens,
            "num_steps": result.num_steps,
            "mean_rank": result.mean_rank,
            "mean_rank_100": result.mean_rank_100,
            "mean_entropy": result.mean_entropy,
            "galp": result.galp,
            **result.lalp,
            "reason": "; ".join(f"{name}: {why}" for name, why in result.reasons.items()) or None,
        }
        if key.with_tokens:
            row |= _token_columns(task, result)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_shard_schema(key))


def _token_columns(task: Task, result: ResponseScores) -> dict[str, Any]:
    step_of_token = [k for k, (start, end) in enumerate(task.step_spans) for _ in range(start, end)]
    return {
        "token_spans": [list(span) for span in task.encoded.offsets],
        "token_steps": step_of_token,
        **{f"{name}:tokens": values for name, values in result.token_log_probs.items()},
    }


def _shard_schema(key: ScoreKey) -> pa.Schema:
    names = ["galp", *(f"lalp@{window}" for window in key.windows)]
    fields = [("num_tokens", pa.int64()), ("num_steps", pa.int64())]
    statistics = ("mean_rank", "mean_rank_100", "mean_entropy")
    fields += [(name, pa.float64()) for name in (*statistics, *names)]
    fields.append(("reason", pa.string()))
    if key.with_tokens:
        fields += [
            ("token_spans", pa.list_(pa.list_(pa.int32(), 2))),
            ("token_steps", pa.list_(pa.int32())),
        ]
        fields += [(f"{name}:tokens", pa.list_(pa.float32())) for name in names]
    return pa.schema(fields)


def _write_shard(path: Path, table: pa.Table, key: ScoreKey, group: Group) -> None:
    table = table.replace_schema_metadata({"lalp": f"{key.digest}/{group.digest}"})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _read_shards(folder: Path, key: ScoreKey, groups: Sequence[Group]) -> dict[str, pa.Table]:
    """Finished shards by group digest; one that is damaged or not ours is reported and left out."""
    done = {}
    for group in groups:
        path = folder / f"{group.digest}.parquet"
        if path.exists():
            try:
                done[group.digest] = _read_shard(path, key, group)
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                log.warning("scoring again: shard %s cannot be used (%s)", path.name, reason)
    return done


def _read_shard(path: Path, key: ScoreKey, group: Group) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        mark = (file.schema_arrow.metadata or {}).get(b"lalp", b"").decode()
        if mark != f"{key.digest}/{group.digest}":
            raise ValueError("it was written for other texts or settings")
        table = file.read()
        # A damaged page header can make Arrow return fewer values without an error.
        if not table.num_rows == file.metadata.num_rows == len(group.responses):
            raise ValueError("it holds the wrong number of rows")
    if not table.schema.equals(_shard_schema(key)):
        raise ValueError("it holds other columns")
    lists = [name for name in table.schema.names if pa.types.is_list(table.schema.field(name).type)]
    lengths = table["num_tokens"].to_pylist()
    if any(pc.list_value_length(table[name]).to_pylist() != lengths for name in lists):
        raise ValueError("it holds the wrong number of tokens")
    return table


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


def write_scores(scores: pd.DataFrame, pool: Pool, path: str | Path) -> None:
    """Write a score table as Parquet, with the texts, so that a selection needs nothing else."""
    texts = {response.response_id: response for response in pool.responses}
    responses = [texts[response_id] for response_id in scores["response_id"]]
    prompts = [[asdict(m) for m in pool.prompts[r.prompt_id].messages] for r in responses]
    frame = scores.assign(prompt=prompts, response=[response.text for response in responses])
    frame.attrs = scores.attrs
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def load_scores(path: str | Path) -> pd.DataFrame:
    """Read a score table.

    Raises:
        InputError: If the file is missing, damaged, or not a score table.
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not a readable score table ({reason}): make one with lalp score"
        ) from error
    missing = {"prompt_id", "response_id", "teacher", "galp"} - set(frame.columns)
    if missing:
        raise InputError(
            f"{path}: not a score table, column {sorted(missing)[0]!r} is missing: make one with "
            "lalp score"
        )
    return frame


def scored_pool(scores: pd.DataFrame, where: str | Path) -> Pool:
    """The pool that a score table written by `write_scores` carries.

    Raises:
        InputError: If the table holds no texts; ``where`` begins the message.
    """
    if not {"prompt", "response"} <= set(scores.columns):
        raise InputError(f"{where}: the table holds no texts: write it with lalp score")
    columns = ["prompt_id", "prompt", "teacher", "response", "response_id", "correct"]
    return load_pool(scores[columns])


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


# Read on import: an edit on disk changes nothing of what this process runs.
_CODE = code_version()
