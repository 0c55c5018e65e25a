"""A shard: scores of many prompts' responses in one Parquet file; its name proves that it is whole.

The rows of one prompt are adjacent. GALP and each window are *parts* of a row. A shard holds some
of the parts, so a window that is requested later does not need the other parts again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lalp.files import digest, fingerprint
from lalp.scoring.candidates import ResponseScores
from lalp.scoring.columns import COUNTS, GALP, STATISTICS, token_column
from lalp.scoring.groups import PromptGroup, Task

# Code of these packages decides a score, so it is part of the key.
CODE_PARTS = ("steps", "scoring", "students")
GROUP = "group"  # the column of a prompt group's digest
_GROUP_BYTES = 10
_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 8 << 20, 8192
_SMALL_TABLES = 100


@dataclass(frozen=True)
class ScoreKey:
    """Everything that decides a score, except the texts, their steps and the window."""

    student: str
    tokenizer: str
    chat_template: str
    dtype: str
    device: str  # its kind; for a GPU, the name of the card
    attention: str  # the kernel that transformers uses
    versions: str  # of the libraries that compute scores
    code: str

    @property
    def digest(self) -> str:
        """Short hash that names the store's folder."""
        return digest(self)


def code_version() -> str:
    """Hash of the code that decides a score; comments, docstrings and layout do not count."""
    return fingerprint(*CODE_PARTS)


# --- Rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """The parts that a shard's rows hold: score columns, with or without values per token."""

    parts: tuple[str, ...]
    with_tokens: bool

    @property
    def schema(self) -> pa.Schema:
        """The columns; counts are always included, because the lengths of lists must match them."""
        fields = {GROUP: pa.binary(_GROUP_BYTES)} | dict.fromkeys(COUNTS, pa.int64())
        for part in self.parts:
            fields |= {name: _TYPES.get(name, pa.float64()) for name in self.columns(part)}
            fields[reason_column(part)] = pa.string()
            if self.with_tokens:
                fields[token_column(part)] = pa.list_(pa.float32())
        return pa.schema(list(fields.items()))

    def columns(self, part: str) -> list[str]:
        """The columns of a part: its score, the reason if it is NaN, and what is read with it."""
        own = [*COUNTS, *STATISTICS, GALP] if part == GALP else [part]
        own.append(reason_column(part))
        if self.with_tokens:
            own += ["token_spans", "token_steps"] if part == GALP else []
            own.append(token_column(part))
        return own


_TYPES = dict.fromkeys(COUNTS, pa.int64()) | {
    "token_spans": pa.list_(pa.list_(pa.int32(), 2)),
    "token_steps": pa.list_(pa.int32()),
}


def reason_column(part: str) -> str:
    """The column that says why a score is NaN."""
    return f"{part}:reason"


def score_table(
    group: PromptGroup, tasks: Sequence[Task], scores: Sequence[ResponseScores], form: Form
) -> pa.Table:
    """One row per response of a prompt, in the group's order."""
    rows = []
    for task, result in zip(tasks, scores, strict=True):
        row = {GROUP: bytes.fromhex(group.digest)} | result.lalp
        row |= {name: getattr(result, name) for name in (*COUNTS, *STATISTICS, GALP)}
        row |= {reason_column(part): result.reasons.get(part) for part in form.parts}
        if form.with_tokens:
            lengths = [task.is_own[start:end].sum() for start, end in task.step_spans]
            offsets = zip(task.encoded.offsets, task.is_own, strict=True)
            row["token_spans"] = [list(span) for span, is_own in offsets if is_own]
            row["token_steps"] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
            row |= {token_column(name): v for name, v in result.token_log_probs.items()}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=form.schema)


def group_runs(table: pa.Table) -> Iterator[tuple[bytes, int, int]]:
    """Yield each prompt group of a table: its digest, its first row and its number of rows."""
    groups, begin = table[GROUP].to_pylist(), 0
    for place in range(1, len(groups) + 1):
        if place == len(groups) or groups[place] != groups[begin]:
            yield groups[begin], begin, place - begin
            begin = place


class Pile:
    """Tables one after another; small ones are combined to save memory.

    A small table itself takes as much memory as its rows. Rows are counted from the first table's
    first row.
    """

    def __init__(self) -> None:
        self._large: list[pa.Table] = []
        self._small: list[pa.Table] = []
        self.num_rows = self.num_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Append a table."""
        self._small.append(table)
        self.num_rows += table.num_rows
        self.num_bytes += table.nbytes
        if len(self._small) == _SMALL_TABLES:
            self._large.append(pa.concat_tables(self._small).combine_chunks())
            self._small = []

    def table(self) -> pa.Table:
        """All rows; at least one table must have been added."""
        return pa.concat_tables([*self._large, *self._small])


# --- Files -------------------------------------------------------------------------------------


def pack_shard(table: pa.Table, form: Form, key: ScoreKey) -> tuple[str, bytes]:
    """A shard's name and bytes; pages have checksums, and the name is a hash of all the rest.

    Raises:
        ValueError: If `Shard` would refuse the table.
    """
    _check_table(table, form)
    groups = sha256(b"".join(table[GROUP].to_pylist())).hexdigest()
    mark = {"key": key.digest, "parts": form.parts, "tokens": form.with_tokens, "groups": groups}
    table = table.replace_schema_metadata({"lalp": json.dumps(mark)})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, write_page_checksum=True) as writer:
        for part in _row_groups(table):
            writer.write_table(part, row_group_size=part.num_rows)
    return f"{_footer_digest(buffer)}.parquet", buffer.getvalue()


def _row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """Yield parts of bounded size; none of them ends within a prompt's rows."""
    most = max(1, _ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))
    start = 0
    for _, begin, length in group_runs(table):
        end = begin + length
        if end - start >= min(most, _ROW_GROUP_ROWS) or end == table.num_rows:
            yield table.slice(start, end - start)
            start = end


def _footer_digest(file: BinaryIO) -> str:
    """Short hash of a Parquet file's footer, which describes the file's pages.

    Pages have checksums of their own, so a file with that name is whole if its pages are.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 8 > size:
        raise ValueError("it is no whole Parquet file")
    file.seek(size - 8 - length)
    return sha256(file.read(length)).hexdigest()[:20]


class Shard:
    """A shard open for reading; ValueError or Arrow's error if it is damaged or has another key."""

    def __init__(self, file: BinaryIO, name: str, key: ScoreKey) -> None:
        if f"{_footer_digest(file)}.parquet" != name:
            raise ValueError("it is not as it was written")
        file.seek(0)
        self._file = pq.ParquetFile(file, page_checksum_verification=True)
        mark = json.loads((self._file.schema_arrow.metadata or {}).get(b"lalp", b"{}"))
        if mark.get("key") != key.digest:
            raise ValueError("it was written for other settings")
        self.form = Form(tuple(mark["parts"]), mark["tokens"])
        if not self._file.schema_arrow.equals(self.form.schema):
            raise ValueError("it holds other columns")
        self.num_row_groups = self._file.num_row_groups

    def groups(self, number: int) -> list[bytes]:
        """The digests of the prompt groups that a row group holds."""
        return [group for group, _, _ in group_runs(self._read(number, [GROUP]))]

    def read(self, number: int, form: Form | None = None) -> pa.Table:
        """The rows of a row group, with the columns of a form that the shard holds, or all."""
        form = form or self.form
        parts = [part for part in form.parts if part in self.form.parts]
        form = Form(tuple(parts), form.with_tokens)
        table = self._read(number, form.schema.names)
        _check_table(table, form)
        return table

    def _read(self, number: int, columns: Sequence[str]) -> pa.Table:
        # In this thread: others would read so little no faster, and each takes address space.
        table = self._file.read_row_group(number, list(columns), use_threads=False)
        table.validate(full=True)  # otherwise, invalid UTF-8 would be found late
        # A damaged page header can make Arrow return fewer values without an error.
        if table.num_rows != self._file.metadata.row_group(number).num_rows:
            raise ValueError("it holds the wrong number of rows")
        return table.select(list(columns)).replace_schema_metadata(None)


def _check_table(table: pa.Table, form: Form) -> None:
    """Check a table that is written or read against its form; ValueError says what is wrong."""
    if not table.schema.equals(form.schema):
        raise ValueError("it holds other columns")
    lists = [name for name in table.schema.names if pa.types.is_list(table.schema.field(name).type)]
    lengths = table["num_tokens"].to_pylist()
    if any(pc.list_value_length(table[name]).to_pylist() != lengths for name in lists):
        raise ValueError("it holds the wrong number of tokens")


# Computed on import, because a later edit on disk does not change the code of this process.
CODE = code_version()
