"""Read pools and prompts, JSON lines and Parquet; errors name line and field."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError, reason
from lalp.files import check_file, memory_limit
from lalp.pools.pool import Pool, Prompt, show
from lalp.pools.records import build_pool, is_missing

# Parquet rows that are Python values at once: tens of MB for long traces.
ROWS_PER_BATCH = 1024


def load_pool(source: str | os.PathLike | pd.DataFrame | Iterable[Mapping[str, Any]]) -> Pool:
    """Read a pool and check every record; `lalp.pools.pool` lists the fields.

    What is laid out in another known way (`layouts.yaml`) is read as well, and the layout's name is
    logged; `lalp.pools.importing.import_pool` takes a mapping, a teacher's name, and bad rows.

    In a table (Parquet, DataFrame) a null cell means that the record lacks the field. Numbers and
    booleans given as ``answer`` are taken as text; a blank answer counts as absent. ``left_out``
    counts a file's blank lines. InputError at the first record that cannot be used, with its file,
    line and field.

    Args:
        source: A file (JSON lines, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, each also ``.gz``
            or ``.zst``), a folder, a data set of the hub as ``OWNER/NAME:SPLIT``, a DataFrame, or
            records.

    Example:
        >>> record = {"prompt_id": "p", "prompt": "2 + 2?", "teacher": "Ada", "response": "4."}
        >>> load_pool([record, record | {"teacher": "Bob"}]).responses[1].response_id
        'p/Bob/0'
    """
    from lalp.pools.importing import import_pool  # it is made of what stands below

    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    is_known = isinstance(source, str | pd.DataFrame | Iterable)
    if not is_known or isinstance(source, Mapping | bytes):
        kind = type(source).__name__
        readable = "a path, a DataFrame, or a sequence of records"
        raise InputError(f"cannot read a pool from {kind}: give {readable}")
    return import_pool([source])


def is_parquet(path: Path) -> bool:
    """Whether a pool to write is a Parquet file, by its name, and not JSONL; others are refused."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json-lines", ".parquet"):
        known = ".jsonl, .json-lines or .parquet"
        raise InputError(f"{path}: a pool is {known}, not '{suffix}'; convert or rename the file")
    return suffix == ".parquet"


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts: JSONL or Parquet with ``prompt_id``, ``prompt`` and optionally ``answer``.

    The prompts of a pool file are read too, each once. Errors are those of `load_pool`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    is_table = path.suffix.lower() == ".parquet"
    unit = "row" if is_table else "line"
    rows = list(parquet_records(path) if is_table else numbered_records(path, "a file of prompts"))
    if not rows:
        raise InputError(f"{path}: no prompts")
    first: dict[str, int] = {}
    for place, (number, row) in enumerate(rows):
        if isinstance(row, dict) and not {"response", "messages"} & row.keys():
            prompt_id = row.get("prompt_id")
            if isinstance(prompt_id, str) and first.setdefault(prompt_id, number) != number:
                taken = f"prompt_id {prompt_id!r} is already taken by {unit} {first[prompt_id]}"
                raise InputError(f"{path}, {unit} {number}: {taken}; give each prompt its own")
            # A prompt alone is given what a pool's record has besides: one check serves both.
            rows[place] = number, {"teacher": "none", "response": "none"} | row
    return list(build_pool(rows, str(path), unit).prompts.values())


# --- Packed files ------------------------------------------------------------------------------

JSON_LINES = (".jsonl", ".json-lines", ".ndjson")
_PACKED = (".gz", ".zst")


def kind_of(path: Path) -> str:
    """A file's suffix, in small letters and without that of how it is packed.

    Example:
        >>> kind_of(Path("pool.jsonl.gz")), kind_of(Path("POOL.CSV"))
        ('.jsonl', '.csv')
    """
    name = path.name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def open_packed(path: Path) -> IO[bytes]:
    """Open a file to read its bytes, unpacked where its name says that it is packed."""
    match path.suffix.lower():
        case ".gz":
            return io.BufferedReader(_Limited(gzip.open(path, "rb"), path))
        case ".zst":
            return io.BufferedReader(_Limited(pa.input_stream(path, compression="zstd"), path))
    return path.open("rb")


class _Limited(io.RawIOBase):
    """An unpacked file that ends in an error where it is larger than memory."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._size, self._limit = file, path, 0, memory_limit()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._size += count
        if self._size > self._limit:
            raise InputError(f"{self._path}: holds more than the memory: cut it into several files")
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read, or unpacked, into an `InputError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise InputError(f"{path}: cannot be read: {why}") from error


# --- JSON lines --------------------------------------------------------------------------------

OnBad = Callable[[str, InputError, Any], None]
"""Is told the place of what cannot be read, what is wrong with it, and what stands there."""


def numbered_records(
    path: Path,
    what: str,
    left_out: Counter[str] | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, parsed value) of a JSONL file, one line in memory at a time.

    ``what`` says in messages what the file is ("a pool"); ``left_out`` counts blank lines. A file
    that cannot be read, or a line that is not strict JSON, is an `InputError` with its number; with
    ``on_bad`` such a line is told and passed over.
    """
    offset = 0
    check_file(path)
    with read_errors(path), open_packed(path) as file:
        # Bytes split at line feeds only: text mode would also have to guess an encoding.
        for number, raw in enumerate(file, 1):
            place, value = f"line {number}", None
            try:
                text = _decode_line(raw.rstrip(b"\r\n"), offset)
                is_blank = not text.strip()
                advice = f"{what} has one JSON object on each line"
                value = None if is_blank else parse_json(text, advice)
            except InputError as error:
                if on_bad is None:
                    raise InputError(f"{path}, {place}: {error}") from None
                on_bad(place, error, raw.decode("utf-8", "backslashreplace").strip())
                continue
            finally:
                offset += len(raw)
            if not is_blank:
                yield number, value
            elif left_out is not None:
                left_out["blank line"] += 1


def _decode_line(raw: bytes, offset: int) -> str:
    """Decode one line as UTF-8; ``offset`` is its first byte's position in the file."""
    if b"\0" in raw or (not offset and raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        marks = "NUL bytes, or another mark of UTF-16 or UTF-32"
        raise InputError(f"not UTF-8 text: {marks}; save it as UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start} of the file"
        raise InputError(f"not UTF-8 text: {place}; save the file as UTF-8") from None
    return text if offset else text.removeprefix("\ufeff")  # a byte order mark is allowed


def parse_json(text: str, advice: str) -> Any:
    """Parse strict JSON: no NaN or Infinity, no field given twice; ``advice`` ends a refusal.

    Example:
        >>> parse_json('{"x": NaN}', "mend it")
        Traceback (most recent call last):
        lalp.errors.InputError: invalid JSON: NaN is not JSON (write null for a missing...
    """
    try:
        return json.loads(text, **_STRICT)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        reason = reason.replace(" at line 1, column", " at column")  # most texts are one line
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"invalid JSON: {reason}; {advice}")


def json_decoder() -> json.JSONDecoder:
    """A decoder of strict JSON, as in `parse_json`."""
    return json.JSONDecoder(**_STRICT)


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"field {show(name)} is given twice")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON (write null for a missing number)")


_STRICT = {"parse_constant": _refuse_constant, "object_pairs_hook": _unique_fields}


# --- Tables ------------------------------------------------------------------------------------


def parquet_records(
    path: Path, check: Callable[[str, Sequence[Any]], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row number, the row without its null cells), one batch in memory at a time.

    ``check`` is called with the file's name and its columns. JSON cells are parsed. A file or a
    cell that cannot be read is an `InputError` with row and field.
    """
    number = 0
    check_file(path)
    try:
        with pq.ParquetFile(_whole(path), page_checksum_verification=True) as file:
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
    """The file, or all that it holds where it is packed: Parquet is not read from its start."""
    if path.suffix.lower() not in _PACKED:
        return path
    with read_errors(path), open_packed(path) as file:
        return pa.BufferReader(file.read())


def read_frame(path: str | os.PathLike, what: str, advice: str) -> pd.DataFrame:
    """A whole Parquet file as a data frame; what cannot be read as one is an `InputError`.

    ``what`` says in messages what the file is ("score table"); ``advice`` ends them.
    """
    check_file(path)
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, not a readable {what}: {advice}")
    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
        for name, column in frame.items():
            if isinstance(column.dtype, pd.StringDtype):  # pandas would find out late
                pa.array(column.array).validate(full=True)
            if isinstance(column.dtype, pd.CategoricalDtype):  # it counts and joins in its own way
                frame[name] = column.astype(object)  # shares its values
        return frame
    # Arrow's errors, and whatever pandas stumbles over in the file's own notes for it.
    except (*_TABLE_ERRORS, pa.ArrowException, MemoryError) as error:
        raise InputError(f"{path}: not a readable {what} ({reason(error)}): {advice}") from error


_TABLE_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


def check_cells(
    frame: pd.DataFrame, where: str, *, texts: Iterable[str] = (), numbers: Iterable[str] = ()
) -> None:
    """Refuse a table whose columns hold something else than texts, or than numbers.

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
    """Refuse a table that names a column twice, or with something else than text."""
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise InputError(f"{source}: column name {show(name)} is not text; rename the column")
        if count > 1:
            named = f"{count} columns are named {show(name)}"
            raise InputError(f"{source}: {named}; rename or drop them")
