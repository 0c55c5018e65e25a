"""Merge score tables: the shards of one pool in the pool's order, or tables of several pools."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError, reason
from lalp.files import atomic_path
from lalp.origins import ORIGIN
from lalp.pools.parts import Part, parse_part
from lalp.pools.pool import show
from lalp.pools.tables import ROWS_PER_BATCH
from lalp.scoring.columns import GALP, score_columns
from lalp.scoring.table import POOL_ROW

log = logging.getLogger("lalp")

_ATTRIBUTES = b"PANDAS_ATTRS"
_READ_ROWS = 64  # per read of a table, because many tables are open at once
_ADVICE = "merge tables that one command has made"
# Another machine or version changes scores only by rounding. Any other setting changes them.
_ROUNDING = ("device", "attention", "versions", "code")


def is_score_table(path: str | Path) -> bool:
    """Whether a file is a score table, by its columns."""
    if Path(path).suffix != ".parquet" or not Path(path).is_file():
        return False
    try:
        return {"response_id", "num_tokens", GALP} <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def merge_scores(paths: Sequence[str | Path], out: str | Path, facts: dict[str, Any]) -> int:
    """Merge several score tables into one, and return its number of rows.

    Tables scored with ``--shard`` give the table of the whole pool, in the pool's order. Other
    tables follow one after another. The texts are never all in memory at once. ``facts`` describe
    the origin of the new table.

    Raises:
        InputError: If tables were scored in different ways, a shard is missing, or a response
            has several rows.
    """
    tables = [_open(path) for path in dict.fromkeys(map(str, paths))]
    _check_alike(tables)
    _check_ids(tables)
    is_parted = _check_parts(tables)
    schema = _schema(tables, facts)
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for rows in _in_pool_order(tables) if is_parted else _one_by_one(tables):
            columns = [
                rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows))
                for field in schema
            ]
            writer.write_table(pa.table(columns, schema.names).cast(schema))
    return sum(table.num_rows for table in tables)


@dataclass(frozen=True)
class _Table:
    path: str
    schema: pa.Schema
    num_rows: int
    attributes: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the table was scored with, except its shard."""
        made = self.attributes.get("scored_with", {})
        return {name: value for name, value in made.items() if name != "shard"}

    @property
    def part(self) -> Part | None:
        text = self.attributes.get("scored_with", {}).get("shard")
        return parse_part(text) if text else None

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        try:
            with pq.ParquetFile(self.path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(_READ_ROWS, columns=columns):
                    yield pa.table(batch).replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            why = f"cannot be read ({reason(error)}): make it again"
            raise InputError(f"{self.path}: {why}") from error


def _open(path: str) -> _Table:
    try:
        with pq.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
        attributes = json.loads((schema.metadata or {}).get(_ATTRIBUTES, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable score table ({reason(error)})") from error
    if not isinstance(attributes, dict) or not isinstance(attributes.get("scored_with", {}), dict):
        raise InputError(f"{path}: what it says of its settings is damaged: make it again")
    return _Table(path, schema, num_rows, attributes)


def _schema(tables: Sequence[_Table], facts: dict[str, Any]) -> pa.Schema:
    """The new table's columns (those of all tables, except the pool row) and its metadata."""
    try:
        schema = pa.unify_schemas([table.schema for table in tables])
    except pa.ArrowException as error:
        raise InputError(f"the tables hold different types: {reason(error)}: {_ADVICE}") from error
    fields = [field for field in schema if field.name != POOL_ROW]
    attributes = tables[0].attributes | {ORIGIN: facts}
    if tables[0].settings:
        attributes["scored_with"] = tables[0].settings
    metadata = (tables[0].schema.metadata or {}) | {_ATTRIBUTES: json.dumps(attributes)}
    return pa.schema(fields, metadata)


def _check_alike(tables: Sequence[_Table]) -> None:
    first = tables[0]
    for table in tables[1:]:
        where = f"{first.path} and {table.path}"
        held = [set(score_columns(t.schema.names)) for t in (first, table)]
        if unlike := sorted(held[0] ^ held[1]):
            raise InputError(f"{where}: only one has the column {unlike[0]!r}: {_ADVICE}")
        names = ["splitter", *sorted(first.settings.keys() | table.settings.keys())]
        for name in names:
            ours, theirs = (t.settings.get(name, t.attributes.get(name)) for t in (first, table))
            if ours == theirs:
                continue
            if name not in _ROUNDING:
                told = f"{name} is {show(ours)} and {show(theirs)}"
                raise InputError(f"{where}: were scored in different ways, {told}: {_ADVICE}")
            log.warning("%s: %s is %s and %s", where, name, show(ours), show(theirs))


def _check_ids(tables: Sequence[_Table]) -> None:
    ids = [
        pd.Series(batch["response_id"].to_pandas().array, [table.path] * batch.num_rows)
        for table in tables
        for batch in table.batches(["response_id"])
    ]
    every = pd.concat(ids) if ids else pd.Series(dtype=object)
    if (twice := every.duplicated()).any():
        name = every[twice].iloc[0]
        where = " and ".join(dict.fromkeys(every.index[every == name]))
        raise InputError(f"{where}: response {show(name)} stands in several rows: give it once")


def _check_parts(tables: Sequence[_Table]) -> bool:
    """Whether the tables are shards; InputError if one is missing or the pools differ."""
    parts = {table.path: table.part for table in tables}
    if not any(parts.values()):
        return False
    for table in tables:
        if table.part is None or POOL_ROW not in table.schema.names:
            raise InputError(f"{table.path}: is no shard, others are: merge the shards first")
    first, *others = parts.values()
    if unlike := [path for path, part in parts.items() if part.total != first.total]:
        told = f"{unlike[0]}: is shard {parts[unlike[0]]}, {tables[0].path} is {first}"
        raise InputError(f"{told}: {_ADVICE}")
    counts = Counter(part.number for part in (first, *others))
    if missing := [n for n in range(1, first.total + 1) if not counts[n]]:
        named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        what = f"shard {named} of {first.total} is missing: score it"
        if len(missing) > 1:
            what = f"shards {named} of {first.total} are missing: score them"
        raise InputError(f"{what}, then merge")
    sums = {json.dumps(table.attributes.get(ORIGIN, {}).get("inputs")) for table in tables}
    if len(sums) > 1:
        raise InputError(f"the shards are of different inputs: {_ADVICE}")
    return True


def _one_by_one(tables: Sequence[_Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield from table.batches()


def _in_pool_order(tables: Sequence[_Table]) -> Iterator[pa.Table]:
    """Yield the rows of all shards in the pool's order, with one batch of each in memory."""
    cursors, total = [_Cursor(table) for table in tables], sum(t.num_rows for t in tables)
    with ExitStack() as stack:
        for cursor in cursors:
            stack.callback(cursor.close)
        for start in range(0, total, ROWS_PER_BATCH):
            end = min(start + ROWS_PER_BATCH, total)
            rows = pa.concat_tables(
                [part for cursor in cursors for part in cursor.until(end)],
                promote_options="default",
            ).sort_by(POOL_ROW)
            if rows[POOL_ROW].to_pylist() != list(range(start, end)):
                raise InputError(f"the shards do not make up a pool, at row {start}: {_ADVICE}")
            yield rows


class _Cursor:
    """A position in a shard, whose rows are in the pool's order."""

    def __init__(self, table: _Table) -> None:
        self._batches = table.batches()
        self._held = next(self._batches, None)

    def until(self, row: int) -> Iterator[pa.Table]:
        """Yield the next rows, up to but excluding ``row`` of the pool."""
        while self._held is not None:
            count = sum(place < row for place in self._held[POOL_ROW].to_pylist())
            if count:
                yield self._held.slice(0, count)
            if count < self._held.num_rows:
                self._held = self._held.slice(count)
                return
            self._held = next(self._batches, None)

    def close(self) -> None:
        self._batches.close()
