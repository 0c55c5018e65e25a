"""The store of scores: one Parquet file per prompt, named after all that decides it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lalp.errors import reason
from lalp.files import atomic_path, check_file, digest, fingerprint
from lalp.scoring.candidates import ResponseScores
from lalp.scoring.columns import COUNTS, GALP, STATISTICS, lalp_column, token_column
from lalp.scoring.groups import PromptGroup, Task

log = logging.getLogger("lalp")

# Whose code decides a score: it is part of the key.
CODE_PARTS = ("steps", "scoring", "students")


@dataclass(frozen=True)
class ScoreKey:
    """Everything that decides a score, but the texts and their steps."""

    student: str
    tokenizer: str
    chat_template: str
    windows: tuple[str, ...]
    with_tokens: bool
    dtype: str
    device: str  # its kind; of a GPU the name of the card
    attention: str  # the kernel that transformers takes
    versions: str  # of the libraries that compute
    code: str

    @property
    def digest(self) -> str:
        """Short hash that names the store's folder."""
        return digest(self)


def code_version() -> str:
    """Hash of the code that decides a score; comments, docstrings and layout do not count."""
    return fingerprint(*CODE_PARTS)


def shard_table(tasks: Sequence[Task], scores: Sequence[ResponseScores], key: ScoreKey) -> pa.Table:
    """One row per response: counts, statistics, scores, reasons, and values per token if wanted."""
    rows = []
    for task, result in zip(tasks, scores, strict=True):
        row = {name: getattr(result, name) for name in (*COUNTS, *STATISTICS, GALP)}
        row |= result.lalp
        row["reason"] = "; ".join(f"{name}: {why}" for name, why in result.reasons.items()) or None
        if key.with_tokens:
            lengths = [task.is_own[start:end].sum() for start, end in task.step_spans]
            offsets = zip(task.encoded.offsets, task.is_own, strict=True)
            row["token_spans"] = [list(span) for span, is_own in offsets if is_own]
            row["token_steps"] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
            row |= {token_column(name): v for name, v in result.token_log_probs.items()}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_shard_schema(key))


def _shard_schema(key: ScoreKey) -> pa.Schema:
    names = [GALP, *map(lalp_column, key.windows)]
    fields = [(name, pa.int64()) for name in COUNTS]
    fields += [(name, pa.float64()) for name in (*STATISTICS, *names)]
    fields.append(("reason", pa.string()))
    if key.with_tokens:
        spans, steps = pa.list_(pa.list_(pa.int32(), 2)), pa.list_(pa.int32())
        fields += [("token_spans", spans), ("token_steps", steps)]
        fields += [(token_column(name), pa.list_(pa.float32())) for name in names]
    return pa.schema(fields)


def write_shard(path: Path, table: pa.Table, key: ScoreKey, group: PromptGroup) -> None:
    """Write a shard; its mark says what it was computed for, and its pages have checksums.

    ValueError, and nothing written, if `read_shard` would not take it.
    """
    _check_table(table, key, group)
    table = table.replace_schema_metadata({"lalp": f"{key.digest}/{group.digest}"})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_shard(folder: Path, key: ScoreKey, group: PromptGroup) -> pa.Table | None:
    """The finished shard of a group; one that is damaged or not ours is reported and is none."""
    path = folder / f"{group.digest}.parquet"
    if not path.exists():
        return None
    try:
        check_file(path)
        return _read_shard(path, key, group)
    except (pa.ArrowException, OSError, ValueError) as error:
        log.warning("scoring again: shard %s cannot be used (%s)", path.name, reason(error))
        return None


def _read_shard(path: Path, key: ScoreKey, group: PromptGroup) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        mark = (file.schema_arrow.metadata or {}).get(b"lalp", b"").decode()
        if mark != f"{key.digest}/{group.digest}":
            raise ValueError("it was written for other texts or settings")
        table = file.read()
        table.validate(full=True)  # or a text that is not UTF-8 would be found out late
        # A damaged page header can make Arrow return fewer values without an error.
        if table.num_rows != file.metadata.num_rows:
            raise ValueError("it holds the wrong number of rows")
    _check_table(table, key, group)
    return table


def _check_table(table: pa.Table, key: ScoreKey, group: PromptGroup) -> None:
    """What is written and what is read have the same form; ValueError says what is wrong."""
    if table.num_rows != len(group.responses):
        raise ValueError("it holds the wrong number of rows")
    if not table.schema.equals(_shard_schema(key)):
        raise ValueError("it holds other columns")
    lists = [name for name in table.schema.names if pa.types.is_list(table.schema.field(name).type)]
    lengths = table["num_tokens"].to_pylist()
    if any(pc.list_value_length(table[name]).to_pylist() != lengths for name in lists):
        raise ValueError("it holds the wrong number of tokens")


# Read on import: an edit on disk changes nothing of what this process runs.
CODE = code_version()
