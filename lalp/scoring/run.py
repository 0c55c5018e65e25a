"""Score a pool into a crash-safe, content-addressed store of Parquet shards.

A shard holds the scores of one prompt's responses. Its folder is named by all else that decides the
numbers (student, tokenizer, template, windows, device, attention kernel, libraries, code), its file
by the texts and their steps. So a killed run goes on where it stopped, and no setting is ever mixed
with another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from lalp.files import cache_dir, digest, in_use, write_text
from lalp.pools.conversation import turns_text
from lalp.pools.pool import Pool
from lalp.pools.spool import is_spooled, response_facts
from lalp.scoring.candidates import score_candidates
from lalp.scoring.engine.sequences import find_packing
from lalp.scoring.groups import PromptGroup, Task, group_responses, make_tasks
from lalp.scoring.shards import CODE, ScoreKey, read_shard, shard_table, write_shard
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import FoundStudent, Student, find_student, parse_dtype

# What computes the numbers, besides this project.
_LIBRARIES = ("torch", "transformers", "tokenizers")
# Response tokens of the prompts that a GPU reads together.
_TOKENS_TOGETHER = 1 << 16
_TABLES = 100  # that are held one by one


def score(
    pool: Pool,
    student: str | Student | FoundStudent = PACKAGED_STUDENT,
    windows: Sequence[str | int | Window] = ("4",),
    *,
    splitter: str | Steps = "sentences",
    thinking: str = "join",
    with_tokens: bool = False,
    store: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every response of a pool by GALP (Eq. 1) and by LALP at every window (Eq. 3).

    Args:
        pool: From `load_pool`.
        student: ``smollm2-135m``, a folder, a GGUF file, a hub id, or a loaded student.
        windows: For example ``["0", "4", "25%", "256t", "all"]``.
        splitter: How responses are cut into steps: ``sentences``, ``paragraphs``, ``semantic``,
            ``turns``, ``32t`` (chunks of that many tokens), a steps file, or a mapping of response
            ids to character spans.
        thinking: ``join``: a thought and an answer are joined as the student's chat template joins
            them; ``only``: the thought alone, with its tags; ``drop``: the answer alone.
        with_tokens: Also keep per-token log-probabilities, character spans and steps.
        store: Folder of the shards; ``scores`` of `cache_dir` if not given.
        device: As in `load_student`.
        dtype: ``float32``, ``bfloat16`` or ``float16``; the first on a CPU and the second on a GPU
            if not given.
        trust_remote_code: As in `load_student`.
        progress: Show tokens per second and an estimate of the time left.

    Returns:
        One row per response in the pool's order: ids, ``num_tokens``, ``num_steps``,
        ``mean_rank``, ``mean_rank_100``, ``mean_entropy``, ``galp``, ``lalp@W`` for each window
        (nats, higher is more natural) and ``reason``, which says why a score is NaN; and
        ``response``, the texts that were scored, where they are not the pool's own, with ``turns``
        in JSON. (Of a pool that is larger than memory they are left out: use `shape_thinking`
        first.) Of several turns the assistant's alone are scored and counted.

    Raises:
        InputError: If the student, a window or the splitter is not understood, or given steps do
            not fit the pool.

    Example:
        >>> scores = score(load_pool("pool.jsonl"), windows=["4"])  # doctest: +SKIP
    """
    parsed = parse_windows(windows)
    check_splitter(splitter)
    options = {"device": device, "dtype": parse_dtype(dtype) if dtype else None}
    found = find_student(student, trust_remote_code=trust_remote_code, **options)
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
    groups = group_responses(pool, found.tokenizer, splitter, thinking)
    done = _Done([], {}, [])
    # By digest, for two prompts may hold the same texts: they are scored once.
    missing: dict[str, int] = {}
    left = 0
    for number, group in enumerate(groups):
        done.members.append((group.digest, [r.response_id for r in group.responses]))
        if group.digest in done.starts or group.digest in missing:
            continue
        if (table := read_shard(folder, key, group)) is not None:
            done.add(group.digest, table)
        else:
            missing[group.digest] = number
            left += _num_characters(group)
    if missing:
        with in_use(folder):
            write_text(folder / "key.json", json.dumps(asdict(key), indent=1))
            order = list(missing.values())
            if found.device.type == "cuda":
                # It reads many prompts together: the same ones, whatever the pool's order.
                order = [missing[name] for name in sorted(missing)]
            work = (groups[number] for number in order)
            for group, table in _score_missing(work, left, found, parsed, key, folder, progress):
                done.add(group.digest, table)
    frame = done.join(pool)
    if not is_spooled(pool.responses):
        frame = _with_texts(frame, pool, groups)
    name = splitter if isinstance(splitter, str) else "given steps"
    frame.attrs = {"student": found.name, "splitter": name, "key": key.digest}
    facts = {"windows": list(key.windows), "thinking": thinking}
    frame.attrs["scored_with"] = asdict(key) | facts
    return frame


@dataclass
class _Done:
    """Scores so far: tables, where each group's rows begin in them, and who is in a group."""

    tables: list[pa.Table]
    starts: dict[str, int]
    members: list[tuple[str, list[str]]]
    num_rows: int = 0

    def add(self, group_digest: str, table: pa.Table) -> None:
        """Keep the rows of a group."""
        self.starts[group_digest] = self.num_rows
        self.num_rows += table.num_rows
        self.tables.append(table)
        if len(self.tables) >= _TABLES:  # a small table takes as much memory as a hundred rows
            self.tables = [pa.concat_tables(self.tables).combine_chunks()]

    def join(self, pool: Pool) -> pd.DataFrame:
        """Ids next to scores, in the pool's order."""
        rows = {
            response_id: self.starts[group_digest] + place
            for group_digest, ids in self.members
            for place, response_id in enumerate(ids)
        }
        names = ["response_id", "prompt_id", "teacher", "correct"]
        ids = pd.DataFrame(response_facts(pool.responses), columns=names)
        ids["correct"] = ids["correct"].astype("boolean")
        taken = pa.concat_tables(self.tables).take(pa.array(rows[i] for i in ids["response_id"]))
        order = ["prompt_id", "response_id", "teacher", "correct"]
        return pd.concat([ids[order], taken.to_pandas()], axis=1)


def _with_texts(frame: pd.DataFrame, pool: Pool, groups: Sequence[PromptGroup]) -> pd.DataFrame:
    """The frame with the texts that were scored, where they are not the pool's own."""
    scored = {r.response_id: r for group in groups for r in group.responses}
    texts = [scored[response_id].text for response_id in frame["response_id"]]
    if texts == [response.text for response in pool.responses]:
        return frame
    turns = [turns_text(scored[response_id]) for response_id in frame["response_id"]]
    return frame.assign(response=texts, **({"turns": turns} if any(turns) else {}))


def _score_missing(
    groups: Iterable[PromptGroup],
    left: int,
    found: FoundStudent,
    windows: Sequence[Window],
    key: ScoreKey,
    folder: Path,
    progress: bool,
) -> Iterator[tuple[PromptGroup, pa.Table]]:
    """Score prompts of ``left`` characters one after another; each is on disk before the next."""
    student, read = found.load(), 0
    # Where not silenced here, tqdm still heeds TQDM_DISABLE.
    options = {} if progress else {"disable": True}
    with tqdm(unit="tok", unit_scale=True, **options) as bar:
        for together in _read_together(groups, student, found):
            tasks = [task for _, members in together for task in members]
            scores = iter(score_candidates(student, tasks, windows, on_tokens=bar.update))
            for group, members in together:
                table = shard_table(members, [next(scores) for _ in members], key)
                write_shard(folder / f"{group.digest}.parquet", table, key, group)
                yield group, table
            # Tokenizing all prompts before the first would take as long again, and hold them all:
            # the tokens to come are estimated by what the characters so far have cost.
            characters = sum(_num_characters(group) for group, _ in together)
            read, left = read + characters, left - characters
            bar.total = bar.n + round(bar.n * left / read)


def _read_together(
    groups: Iterable[PromptGroup], student: Student, found: FoundStudent
) -> Iterator[list[tuple[PromptGroup, list[Task]]]]:
    """Prompts with their tasks: many at once on a GPU, which small ones would leave idle."""
    most = _TOKENS_TOGETHER if find_packing(student) else 0
    together, tokens = [], 0
    for group in groups:
        tasks = make_tasks(group, found.tokenizer, found.max_positions)
        together.append((group, tasks))
        tokens += sum(task.num_tokens for task in tasks)
        if tokens >= most:
            yield together
            together, tokens = [], 0
    if together:
        yield together


def _num_characters(group: PromptGroup) -> int:
    return len(group.prompt_text) + sum(len(response.text) for response in group.responses)
