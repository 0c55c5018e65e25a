"""Read a pool from JSONL, Parquet or a data frame, with errors that name line and field."""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError
from lalp.pools.pool import REQUIRED_FIELDS, ROWS_PER_BATCH, Pool, build_pool, is_missing, show

_JSONL_SUFFIXES = (".jsonl", ".json-lines")


# --- Reading -----------------------------------------------------------------------------------


def load_pool(source: str | os.PathLike | pd.DataFrame | Iterable[Mapping[str, Any]]) -> Pool:
    """Read a pool and check every record; the module's docstring lists the fields.

    In a table (Parquet, DataFrame) a null cell means that the record lacks the field. Numbers and
    booleans given as ``answer`` are taken as text (whole floats without ``.0``, since a table
    turns whole numbers into floats where some are missing); a blank answer counts as absent.

    Args:
        source: A ``.jsonl``, ``.json-lines`` or ``.parquet`` file, a DataFrame, or records.

    Returns:
        The pool. Blank lines of a JSONL file are counted in ``left_out``.

    Raises:
        InputError: At the first record that cannot be used, with its file, line and field.
    """
    if isinstance(source, str | os.PathLike):
        return _load_file(Path(source))
    if isinstance(source, pd.DataFrame):
        return build_pool(_frame_records(source), "DataFrame", "row")
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return build_pool(enumerate(source, 1), "records", "row")
    raise InputError(
        f"cannot read a pool from {type(source).__name__}: "
        "give a path, a DataFrame, or a sequence of records"
    )


def _load_file(path: Path) -> Pool:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give one .jsonl or .parquet file")
        if not path.exists():
            raise InputError(f"{path}: no such file")
        is_parquet = _is_parquet(path)
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        if is_parquet:
            return build_pool(_parquet_records(path), str(path), "row")
        blank: Counter[str] = Counter()
        return build_pool(jsonl_records(path, blank), str(path), "line", blank)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (*_JSONL_SUFFIXES, ".parquet"):
        raise InputError(
            f"{path}: a pool is {', '.join(_JSONL_SUFFIXES)} or .parquet, not '{suffix}'; "
            "convert or rename the file"
        )
    return suffix == ".parquet"


def jsonl_records(path: Path, left_out: Counter[str]) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, parsed value), counting blank lines in ``left_out``."""
    offset = 0
    with path.open("rb") as file:
        # Bytes split at line feeds only: text mode would also have to guess an encoding.
        for number, raw in enumerate(file, 1):
            try:
                text = _decode_line(raw.rstrip(b"\r\n"), offset)
                if text.strip():
                    yield number, parse_json(text, "a pool has one JSON object on each line")
                else:
                    left_out["blank line"] += 1
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            offset += len(raw)


def numbered_records(path: Path, what: str) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, parsed value) of a JSONL file that is no pool.

    Args:
        path: Blank lines of it are passed over.
        what: For the message: "a steps file", "a benchmark".

    Raises:
        InputError: If the file cannot be read, or a line is no JSON; named by its number.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parse_line(line, f"{path}, line {number}", what)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse_line(line: bytes, where: str, what: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "invalid JSON"
        raise InputError(f"{where}: {reason}; {what} has one JSON object a line") from error


def _decode_line(raw: bytes, offset: int) -> str:
    """Decode one line as UTF-8; ``offset`` is its first byte's position in the file."""
    is_first = offset == 0
    if is_first and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise InputError("the file is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in raw:
        raise InputError("holds NUL bytes, so it is not UTF-8 text (UTF-16?); save it as UTF-8")
    try:
        text = raw.decode("utf-8")
        return text.removeprefix("\ufeff") if is_first else text  # a byte order mark is allowed
    except UnicodeDecodeError as error:
        raise InputError(
            f"not valid UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start} "
            "of the file; save the file as UTF-8"
        ) from None


def parse_json(text: str, advice: str) -> Any:
    """Parse strict JSON: no NaN or Infinity, no field given twice."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_fields)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        reason = reason.replace(" at line 1, column", " at column")  # most texts are one line
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"invalid JSON: {reason}; {advice}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON (write null for a missing number)")


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common()
        raise ValueError(f"field {show(name)} is given twice")
    return fields


def _parquet_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row number, the row without its null cells), one batch in memory at a time."""
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                for row in _batch_rows(batch, f"{path}, row", number):
                    number += 1
                    yield number, row
            # A damaged page can end a column early without any error from Arrow.
            if number != file.metadata.num_rows:
                raise OSError(f"{number} of {file.metadata.num_rows} rows can be read")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = repr(str(error).partition("\n")[0])  # of a damaged file: may hold control codes
        raise InputError(f"{path}: broken or not a Parquet file: {reason}") from error


def _batch_rows(batch: pa.RecordBatch, place: str, rows_before: int) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    json_names = [column.name for column in batch.schema if isinstance(column.type, pa.JsonType)]
    columns = [
        _column_values(column, f"field {show(name)}", place, rows_before)
        for name, column in zip(names, batch.columns, strict=True)
    ]
    for number, cells in enumerate(zip(*columns, strict=True), rows_before + 1):
        row = _without_missing(names, cells)
        for name in json_names:
            if name in row:
                try:
                    row[name] = parse_json(row[name], "the column's type is JSON")
                except InputError as error:
                    raise InputError(f"{place} {number}: field {show(name)}: {error}") from None
        yield row


def _column_values(column: pa.Array, field_name: str, place: str, rows_before: int) -> list[Any]:
    """One column of a batch as Python values; the error for a bad cell names its row."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, dates beyond Python's
        for number, cell in enumerate(column, rows_before + 1):
            try:
                cell.as_py()
            except (ValueError, OverflowError) as error:
                raise InputError(f"{place} {number}: {field_name}: {error}") from None
        raise


def _frame_records(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    names = list(frame.columns)
    _check_columns("DataFrame", names)
    rows = zip(*(frame[name] for name in names), strict=True)
    for number, cells in enumerate(rows, 1):
        yield number, _without_missing(names, cells)


def _without_missing(names: Sequence[str], cells: Iterable[Any]) -> dict[str, Any]:
    return {name: cell for name, cell in zip(names, cells, strict=True) if not is_missing(cell)}


def _check_columns(source: str, names: Sequence[Any]) -> None:
    """Check a table's columns once, before its rows."""
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise InputError(f"{source}: column name {show(name)} is not text; rename the column")
        if count > 1:
            raise InputError(
                f"{source}: {count} columns are named {show(name)}; rename or drop them"
            )
    lacking = [name for name in REQUIRED_FIELDS if name not in names]
    if lacking and "messages" not in names:
        raise InputError(
            f"{source}: no column {', '.join(map(repr, lacking))} among {show(list(names), 200)}; "
            f"a pool needs {', '.join(REQUIRED_FIELDS)}, or messages"
        )
