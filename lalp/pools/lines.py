"""Text files, packed or not, and JSON lines; errors name the line."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from lalp.errors import InputError, reason
from lalp.files import check_regular, not_found
from lalp.pools.pool import show


@contextmanager
def fits_memory(name: Any) -> Iterator[None]:
    """Name the file whose records fill the memory: a small one may hold very many."""
    try:
        yield
    except MemoryError:
        raise InputError(f"{name}: not enough memory to read it: cut it into several") from None


# --- Packed files ------------------------------------------------------------------------------

ROW_LIMIT = 1 << 28  # bytes of a record; a longer one is no trace, but a small file may hold it
JSON_LINES = (".jsonl", ".json-lines", ".ndjson")
_CHUNK = 1 << 20  # bytes of a packed file unpacked at once
PACKED = (".gz", ".zst")


def kind_of(path: Path) -> str:
    """A file's suffix, in lower case and without the suffix of its packing.

    Example:
        >>> kind_of(Path("pool.jsonl.gz")), kind_of(Path("POOL.CSV"))
        ('.jsonl', '.csv')
    """
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def open_packed(path: Path) -> IO[bytes]:
    """Open a file to read its bytes, unpacked if its name says that it is packed."""
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")
        case ".zst":
            return io.BufferedReader(pa.input_stream(path, compression="zstd"), _CHUNK)
    return path.open("rb")


def limited_lines(file: IO[Any], path: Path) -> Iterator[Any]:
    """Yield the lines of an open file; a line that cannot be a record is an `InputError`."""
    number = 0
    while line := file.readline(ROW_LIMIT):
        number += 1
        if len(line) == ROW_LIMIT and line[-1:] not in (b"\n", "\n", "\r"):
            raise InputError(f"{path}, line {number}: {too_long()}")
        yield line


def too_long() -> InputError:
    """The message for a line that is not a record."""
    return InputError(f"is longer than {ROW_LIMIT >> 20} MiB, which no record is; mend the file")


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading or unpacking a file into an `InputError`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: {not_found(path)}") from None
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise InputError(f"{path}: cannot be read: {why}") from error


# --- JSON lines --------------------------------------------------------------------------------

OnBad = Callable[[str, InputError, Any], None]
"""Gets the place of a record that cannot be read, the reason, and the record's text."""


def numbered_records(
    path: Path,
    what: str,
    left_out: Counter[str] | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, parsed value) of a JSONL file, one line in memory at a time.

    ``what`` names the file in messages ("a pool"); ``left_out`` counts blank lines. A file that
    cannot be read, or a line that is not strict JSON, is an `InputError` with its number; with
    ``on_bad``, such a line is reported and skipped.
    """
    offset = 0
    check_regular(path)
    with read_errors(path), open_packed(path) as file:
        # Bytes are split only at line feeds: text mode would also have to guess an encoding.
        for number, raw in enumerate(limited_lines(file, path), 1):
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
