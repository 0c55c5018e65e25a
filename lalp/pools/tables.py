"""Parquet files and data frames; errors name row and column."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError, reason
from lalp.files import check_file, check_regular, memory_limit, not_found
from lalp.pools.lines import PACKED, open_packed, parse_json, read_errors
from lalp.pools.pool import show
from lalp.pools.records import is_missing

# Parquet rows held as Python values at once: tens of MB for long traces.
ROWS_PER_BATCH = 1024


def parquet_records(
    path: Path, check: Callable[[str, Sequence[Any]], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row number, the row without its null cells), one batch in memory at a time.

    ``check`` is called with the file's name and its columns. JSON cells are parsed. A file or a
    cell that cannot be read is an `InputError` with row and field.
    """
    number = 0
    check_regular(path)
    # Without a buffer, a whole row group is read at once.
    options = {"page_checksum_verification": True, "buffer_size": 1 << 20}
    try:
        with pq.ParquetFile(_whole(path), **options) as file:
            (check or check_columns)(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                for cells in zip(*batch.columns, strict=True):
                    number += 1
                    yield number, _row(batch.schema, cells, f"{path}, row {number}")
            # A damaged page can end a column early without any error from Arrow.
            if number != file.metadata.num_rows:
                raise OSError(f"{number} of {file.metadata.num_rows} rows can be read")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: broken or not a Parquet file: {reason(error)!r}") from error


def _whole(path: Path) -> Path | pa.BufferReader:
    """The file, or all its content if it is packed, because Parquet is not read from its start."""
    if path.suffix.lower() not in PACKED:
        return path
    most = memory_limit() // 4
    with read_errors(path), open_packed(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        size = f"holds more than {most / 2**30:,.1f} GiB"
        raise InputError(f"{path}: {size}, and a table is unpacked in memory: unpack it first")
    return pa.BufferReader(data)


def read_frame(path: str | os.PathLike, what: str, advice: str) -> pd.DataFrame:
    """A whole Parquet file as a data frame; InputError if it cannot be read as one.

    ``what`` names the file in messages ("score table"); ``advice`` ends them.
    """
    check_file(path)
    if not Path(path).exists():
        raise InputError(f"{path}: {not_found(path, advice=advice)}")
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, not a readable {what}: {advice}")
    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
        for name, column in frame.items():
            if isinstance(column.dtype, pd.StringDtype):  # pandas would notice late
                pa.array(column.array).validate(full=True)
            if isinstance(column.dtype, pd.CategoricalDtype):  # it counts and joins in its own way
                frame[name] = column.astype(object)  # shares its values
        return frame
    # Arrow's errors, and any that pandas raises on its own metadata in the file.
    except (*_TABLE_ERRORS, pa.ArrowException, MemoryError) as error:
        why = "it is no Parquet file" if "magic bytes" in str(error) else reason(error)
        raise InputError(f"{path}: not a readable {what} ({why}): {advice}") from error


_TABLE_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


def check_cells(
    frame: pd.DataFrame, where: str, *, texts: Iterable[str] = (), numbers: Iterable[str] = ()
) -> None:
    """Refuse a table whose columns hold anything other than texts, or numbers.

    A number may be missing, a text may not. InputError with ``where``, the column and the row.
    """
    for name in texts:
        is_text = frame[name].map(lambda value: isinstance(value, str))
        if not is_text.all():
            row = int(is_text.to_numpy().argmin())
            found = f"row {row + 1} of column {name!r} holds {show(frame[name].tolist()[row])}"
            raise InputError(f"{where}: {found}: it must be a text")
    for name in numbers:
        kind = frame[name].dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise InputError(f"{where}: column {name!r} holds {kind}: it must hold numbers")


def _row(schema: pa.Schema, cells: Iterable[pa.Scalar], place: str) -> dict[str, Any]:
    row = {}
    for column, cell in zip(schema, cells, strict=True):
        try:
            value = cell.as_py()
            if is_missing(value):
                continue
            is_json = isinstance(column.type, pa.JsonType)
            row[column.name] = parse_json(value, "the column's type is JSON") if is_json else value
        except (ValueError, OverflowError) as error:  # not UTF-8, dates beyond Python's, not JSON
            raise InputError(f"{place}: field {show(column.name)}: {error}") from None
    return row


def check_columns(source: str, names: Sequence[Any]) -> None:
    """Refuse a table with a repeated column name, or a name that is not text."""
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise InputError(f"{source}: column name {show(name)} is not text; rename the column")
        if count > 1:
            named = f"{count} columns are named {show(name)}"
            raise InputError(f"{source}: {named}; rename or drop them")
