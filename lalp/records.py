"""Prompts, responses and the pool that holds them: reading, checking and writing.

A pool is a set of prompts, each with several responses by several teachers (paper, Sec. 3.1).
On disk it is JSONL or Parquet, one response a record:

========================  ========================================================================
``prompt_id``             text; names the prompt
``prompt``                text (one user message), or a list of ``{"role", "content"}`` messages
                          that ends with the user's; roles ``system``, ``user``, ``assistant``
``teacher``               text; who wrote the response
``response``              text
``response_id``           optional text; default ``prompt_id/teacher/n``, n counting from 0
``answer``                optional text or number: the reference answer, one for each prompt
``correct``               optional true, false or null
any other field           kept in ``Response.extra``
========================  ========================================================================

Hugging Face ``messages`` records are read too: the last message is the assistant's and is the
response, what precedes it is the prompt. Such a record may lack ``prompt_id`` (default: a hash of
the prompt's messages) and ``teacher`` (default: ``unknown``).
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROLES = ("system", "user", "assistant")
TRAINING_FORMATS = ("messages", "prompt-completion", "llamafactory")

_REQUIRED_FIELDS = ("prompt_id", "prompt", "teacher", "response")
_POOL_FIELDS = (*_REQUIRED_FIELDS, "response_id", "answer", "correct")
_RESERVED_FIELDS = (*_POOL_FIELDS, "messages")
_JSONL_SUFFIXES = (".jsonl", ".json-lines")
_ROWS_PER_BATCH = 1024  # Parquet rows held as Python values at once: tens of MB for long traces


class InputError(ValueError):
    """Bad input from outside: the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A question: the chat that precedes the response, and its reference answer if known."""

    prompt_id: str
    messages: tuple[Message, ...]
    answer: str | None = None


@dataclass(frozen=True)
class Response:
    """One reasoning trace by one teacher; ``correct`` is None where nobody verified it."""

    response_id: str
    prompt_id: str
    teacher: str
    text: str
    correct: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Prompts by id, responses in file order, and how many records were left out, by reason."""

    prompts: Mapping[str, Prompt]
    responses: tuple[Response, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


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
                    yield number, _parse_json(text, "a pool has one JSON object on each line")
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


def _parse_json(text: str, advice: str) -> Any:
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
        raise ValueError(f"field {_show(name)} is given twice")
    return fields


def _parquet_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row number, the row without its null cells), one batch in memory at a time."""
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH):
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
        _column_values(column, f"field {_show(name)}", place, rows_before)
        for name, column in zip(names, batch.columns, strict=True)
    ]
    for number, cells in enumerate(zip(*columns, strict=True), rows_before + 1):
        row = _without_missing(names, cells)
        for name in json_names:
            if name in row:
                try:
                    row[name] = _parse_json(row[name], "the column's type is JSON")
                except InputError as error:
                    raise InputError(f"{place} {number}: field {_show(name)}: {error}") from None
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
    return {name: cell for name, cell in zip(names, cells, strict=True) if not _is_missing(cell)}


def _check_columns(source: str, names: Sequence[Any]) -> None:
    """Check a table's columns once, before its rows."""
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise InputError(f"{source}: column name {_show(name)} is not text; rename the column")
        if count > 1:
            raise InputError(
                f"{source}: {count} columns are named {_show(name)}; rename or drop them"
            )
    lacking = [name for name in _REQUIRED_FIELDS if name not in names]
    if lacking and "messages" not in names:
        raise InputError(
            f"{source}: no column {', '.join(map(repr, lacking))} among {_show(list(names), 200)}; "
            f"a pool needs {', '.join(_REQUIRED_FIELDS)}, or messages"
        )


# --- One record --------------------------------------------------------------------------------


def _plain_record(record: Any) -> dict[str, Any]:
    """Turn a record into plain Python values that JSON and UTF-8 can hold."""
    if not isinstance(record, Mapping):
        raise InputError(f"must be an object with fields, not {_show(record)}")
    plain = {}
    for name, value in record.items():
        try:
            # None is a value like any other here (JSON null), NaN only ever marks a missing one.
            if value is None or not _is_missing(value):
                plain[_key(name)] = _plain(value)
        except InputError as error:
            raise InputError(f"field {_show(name)}: {error}") from None
        except RecursionError:
            raise InputError(f"field {_show(name)}: nested too deeply") from None
    return plain


def _plain(value: Any) -> Any:
    """Convert numpy, Arrow and date values to what JSON reads back as equal, or refuse."""
    match value:
        case str():
            return _encodable(value)
        case pa.Scalar():  # before Mapping: Arrow's struct scalar is both
            return _plain(value.as_py())
        case None | bool() | np.bool_():
            return None if value is None else bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            if not math.isfinite(value):
                raise InputError(f"{value} is not a JSON number; use null or drop the field")
            return float(value)
        case Mapping():
            return {_key(name): _plain(item) for name, item in value.items()}
        case np.ndarray() if value.ndim == 0:
            return _plain(value.item())
        case list() | tuple() | np.ndarray() | pa.Array():
            return [_plain(item) for item in value]
        case date() | time():
            return value.isoformat()
    raise InputError(
        f"{type(value).__name__} values cannot be written as JSON; convert or drop them"
    )


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start + 1}, "
                "which UTF-8 cannot hold; replace it"
            ) from None
    return str(text)  # str subclasses (np.str_) become str


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"key {_show(name)} is not text; JSON objects have text keys")
    return _encodable(name)


def _is_missing(value: Any) -> bool:
    """True for None, NaN, pandas' NA and NaT."""
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return value is None or value is pd.NA or value is pd.NaT


def _required_text(record: Mapping[str, Any], name: str) -> str:
    text = _optional_text(record, name)
    if text is None:
        raise InputError(f"field '{name}' is {'null' if name in record else 'missing'}")
    return text


def _optional_text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return None if value is None else _nonblank_text(value, f"field '{name}'")


def _nonblank_text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place} must be text, not {_show(value)}")
    if not value.strip():
        raise InputError(f"{place} is empty" + (" (only whitespace)" if value else ""))
    return value


def _prompt_and_response(record: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    if record.get("messages") is not None:
        return _split_messages(record)
    if isinstance(record.get("prompt"), list):
        prompt = _messages(record["prompt"], "prompt")
    else:
        prompt = (Message("user", _required_text(record, "prompt")),)
    _check_ends_with_user(prompt, "field 'prompt'")
    return prompt, _required_text(record, "response")


def _split_messages(record: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Split a Hugging Face ``messages`` record before the assistant's last message."""
    for name in ("prompt", "response"):
        if record.get(name) is not None:
            raise InputError(f"field 'messages' and field '{name}' are both given; keep only one")
    messages = _messages(record["messages"], "messages")
    if not messages or messages[-1].role != "assistant":
        raise InputError("field 'messages' must end with the assistant's message (the response)")
    _check_ends_with_user(messages[:-1], "field 'messages': what precedes the response")
    return messages[:-1], messages[-1].content


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise InputError(f"field '{name}' must be a list of messages, not {_show(value)}")
    return tuple(_message(item, f"field '{name}', message {n}") for n, item in enumerate(value, 1))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"{place} must be an object with role and content, not {_show(value)}")
    for key in ("role", "content"):
        if value.get(key) is None:
            raise InputError(f"{place}: '{key}' is {'null' if key in value else 'missing'}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise InputError(f"{place}: role must be {', '.join(ROLES)}, not {_show(role)}")
    # An empty system message is meant: some chat templates add a default one where there is none.
    if role != "system" or not isinstance(content, str):
        _nonblank_text(content, f"{place}: 'content'")
    for key, item in value.items():
        if key not in ("role", "content") and item is not None:
            raise InputError(f"{place}: '{key}' is not supported; remove it or set it to null")
    return Message(role, content)


def _check_ends_with_user(prompt: tuple[Message, ...], place: str) -> None:
    if not prompt or prompt[-1].role != "user":
        raise InputError(f"{place} must end with a user message")


def _content_id(prompt: tuple[Message, ...]) -> str:
    """64 bits of SHA-256 over the messages: the same prompt has the same id in every file."""
    content = json.dumps([[message.role, message.content] for message in prompt])
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]


def _answer_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int, float)):
        value = str(value)
    elif value is not None:
        raise InputError(f"field 'answer' must be text, a number or a boolean, not {_show(value)}")
    return value if value and value.strip() else None


def _show(value: Any, width: int = 60) -> str:
    """A value for a message: its repr, cut at ``width``, and its type unless it is text."""
    text = repr(value)
    text = text if len(text) <= width else f"{text[: width - 3]}..."
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"


# --- The pool ----------------------------------------------------------------------------------


@dataclass
class _Draft:
    """A pool while it is read; rows are kept so that a conflict can name both."""

    unit: str
    prompts: dict[str, tuple[tuple[Message, ...], int]] = field(default_factory=dict)
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)
    response_rows: dict[str, int] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    responses: list[Response] = field(default_factory=list)


def build_pool(
    records: Iterable[tuple[int, Any]],
    source: str,
    unit: str,
    left_out: Mapping[str, int] | None = None,
) -> Pool:
    """Check numbered records and join them; errors name ``source``, ``unit`` and the number."""
    draft = _Draft(unit)
    for number, record in records:
        try:
            _add_record(draft, number, _plain_record(record))
        except InputError as error:
            raise InputError(f"{source}, {unit} {number}: {error}") from None
    if not draft.responses:
        raise InputError(f"{source}: no records; a pool needs at least one response")
    prompts = {
        prompt_id: Prompt(prompt_id, messages, draft.answers.get(prompt_id, (None, 0))[0])
        for prompt_id, (messages, _) in draft.prompts.items()
    }
    return Pool(prompts, tuple(draft.responses), dict(left_out or {}))


def _add_record(draft: _Draft, number: int, record: dict[str, Any]) -> None:
    is_chat = record.get("messages") is not None
    read_id = _optional_text if is_chat else _required_text
    prompt_id, teacher = read_id(record, "prompt_id"), read_id(record, "teacher") or "unknown"
    messages, text = _prompt_and_response(record)
    prompt_id = prompt_id or _content_id(messages)
    correct = record.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise InputError(f"field 'correct' must be true, false or null, not {_show(correct)}")
    _add_prompt(draft, number, prompt_id, messages)
    _add_answer(draft, number, prompt_id, _answer_text(record.get("answer")))
    response_id = _new_response_id(draft, number, record, prompt_id, teacher)
    extra = {name: value for name, value in record.items() if name not in _RESERVED_FIELDS}
    draft.responses.append(Response(response_id, prompt_id, teacher, text, correct, extra))


def _add_prompt(draft: _Draft, number: int, prompt_id: str, messages: tuple[Message, ...]) -> None:
    first, row = draft.prompts.setdefault(prompt_id, (messages, number))
    if messages != first:
        raise InputError(
            f"the prompt differs from that of {draft.unit} {row}, which has the same prompt_id "
            f"{_show(prompt_id)}; give different prompts different ids"
        )


def _add_answer(draft: _Draft, number: int, prompt_id: str, answer: str | None) -> None:
    if answer is None:
        return
    first, row = draft.answers.setdefault(prompt_id, (answer, number))
    if answer.strip() != first.strip():
        raise InputError(
            f"field 'answer' is {_show(answer)}, but {_show(first)} on {draft.unit} {row} for the "
            f"same prompt_id {_show(prompt_id)}; a prompt has one reference answer"
        )


def _new_response_id(
    draft: _Draft, number: int, record: Mapping[str, Any], prompt_id: str, teacher: str
) -> str:
    given = _optional_text(record, "response_id")
    response_id = given or f"{prompt_id}/{teacher}/{draft.counts[prompt_id, teacher]}"
    draft.counts[prompt_id, teacher] += 1
    row = draft.response_rows.setdefault(response_id, number)
    if row != number:
        advice = "make it unique" if given else "it was made up here: give every response its own"
        raise InputError(
            f"field 'response_id': {_show(response_id)} is already taken by {draft.unit} {row}; "
            + advice
        )
    return response_id


def pool_frame(pool: Pool) -> pd.DataFrame:
    """One row per response, for tables and plots.

    Returns:
        Columns ``prompt_id, response_id, teacher, prompt`` (the last user message's text),
        ``response, answer, correct`` (nullable boolean), then the extra fields by name.
    """
    prompts = [pool.prompts[response.prompt_id] for response in pool.responses]
    columns = {
        "prompt_id": _series([r.prompt_id for r in pool.responses], pa.string()),
        "response_id": _series([r.response_id for r in pool.responses], pa.string()),
        "teacher": _series([r.teacher for r in pool.responses], pa.string()),
        "prompt": _series([prompt.messages[-1].content for prompt in prompts], pa.string()),
        "response": _series([r.text for r in pool.responses], pa.string()),
        "answer": _series([prompt.answer for prompt in prompts], pa.string()),
        "correct": _series([r.correct for r in pool.responses], pa.bool_()),
    }
    for response in pool.responses:
        _check_extra(response)
    for name, kind in _extra_types(pool).items():
        columns[name] = _series([response.extra.get(name) for response in pool.responses], kind)
    return pd.DataFrame(columns)


def _series(values: list[Any], kind: pa.DataType) -> pd.Series:
    """A column that keeps its values' type where some are missing."""
    dtypes = {pa.string(): "str", pa.bool_(): "boolean", pa.int64(): "Int64"}
    dtypes[pa.float64()] = "float64"
    return pd.Series(values, dtype=dtypes.get(kind, object))


def pool_summary(pool: Pool) -> dict[str, Any]:
    """Counts that tell what a pool holds, as plain values for JSON.

    Returns:
        ``num_duplicate_texts`` counts responses whose exact text another response to the same
        prompt already has; the keys of ``prompts_by_num_teachers`` are numbers as text.
    """
    teachers: dict[str, set[str]] = {prompt_id: set() for prompt_id in pool.prompts}
    for response in pool.responses:
        teachers[response.prompt_id].add(response.teacher)
    by_number = Counter(len(names) for names in teachers.values())
    marks = Counter(response.correct for response in pool.responses)
    texts = {(response.prompt_id, response.text) for response in pool.responses}
    return {
        "num_prompts": len(pool.prompts),
        "num_responses": len(pool.responses),
        "responses_by_teacher": dict(sorted(Counter(r.teacher for r in pool.responses).items())),
        "prompts_by_num_teachers": {str(n): by_number[n] for n in sorted(by_number)},
        "num_correct": marks[True],
        "num_incorrect": marks[False],
        "num_unverified": marks[None],
        "num_prompts_with_answer": sum(p.answer is not None for p in pool.prompts.values()),
        "num_duplicate_texts": len(pool.responses) - len(texts),
        "left_out": dict(pool.left_out),
    }


# --- Writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds.

    On any exception the temporary file is removed and ``path`` stays as it was, so a reader never
    sees half a file. The parent folder is made if missing; symbolic links are followed.

    Raises:
        InputError: If ``path`` is a folder or a device, or its folder cannot be made.
    """
    given, path = path, Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{given}: exists and is not a regular file; give another path")
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{given}: cannot make its folder: {error.strerror}") from error
    # The name is cut, for the longest file names; .tmp keeps leftovers out of "*.parquet" globs.
    temporary = path.with_name(f"{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_pool(pool: Pool, path: str | os.PathLike) -> None:
    """Write a pool as JSONL or Parquet (by suffix); ``load_pool`` reads back an equal pool.

    ``left_out`` is not written. In Parquet, extra fields of one plain type become columns of that
    type, all others columns of Parquet's JSON type.

    Raises:
        InputError: If the pool could not be read back; nothing is written then.
    """
    path = Path(path)
    write = _write_parquet if _is_parquet(path) else _write_jsonl
    unused = pool.prompts.keys() - {response.prompt_id for response in pool.responses}
    if unused:
        raise InputError(
            f"{len(unused)} prompts have no response ({_show(min(unused))}); a pool file holds one "
            "response a record: drop such prompts first"
        )
    # Whatever load_pool would refuse is refused here, before there is a file.
    records = enumerate((_record(pool, response) for response in pool.responses), 1)
    checked = build_pool(records, "pool to save", "response")
    with atomic_path(path) as temporary:
        write(checked, temporary)


def _record(pool: Pool, response: Response) -> dict[str, Any]:
    """The response as ``load_pool`` reads it."""
    prompt = pool.prompts.get(response.prompt_id)
    if prompt is None:
        raise InputError(
            f"response {_show(response.response_id)} names prompt_id {_show(response.prompt_id)}, "
            "which the pool does not hold"
        )
    record = {
        "prompt_id": response.prompt_id,
        "prompt": prompt.messages[0].content if _is_text(prompt) else _chat(prompt.messages),
        "teacher": response.teacher,
        "response": response.text,
        "response_id": response.response_id,
        "answer": prompt.answer,
        "correct": response.correct,
    }
    known = {name: value for name, value in record.items() if value is not None}
    _check_extra(response)
    return known | dict(response.extra)


def _check_extra(response: Response) -> None:
    taken = [name for name in response.extra if name in _RESERVED_FIELDS]
    if taken:
        raise InputError(
            f"response {_show(response.response_id)}: the extra field {_show(taken[0])} has the "
            "name of a record's own field; rename it"
        )


def _is_text(prompt: Prompt) -> bool:
    """Whether the prompt can be written as text: a single user message."""
    return [message.role for message in prompt.messages] == ["user"]


def _chat(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_lines(lines: Iterable[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _write_jsonl(pool: Pool, path: Path) -> None:
    _write_lines((_json_line(_record(pool, response)) for response in pool.responses), path)


def _write_parquet(pool: Pool, path: Path) -> None:
    types = dict.fromkeys(_POOL_FIELDS, pa.string()) | {"correct": pa.bool_()}
    if not all(map(_is_text, pool.prompts.values())):
        types["prompt"] = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    schema = pa.schema(types | _extra_types(pool))
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, len(pool.responses), _ROWS_PER_BATCH):
            responses = pool.responses[start : start + _ROWS_PER_BATCH]
            rows = [_parquet_row(pool, response, schema) for response in responses]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def _parquet_row(pool: Pool, response: Response, schema: pa.Schema) -> dict[str, Any]:
    row = _record(pool, response)
    if schema.field("prompt").type != pa.string():
        row["prompt"] = _chat(pool.prompts[response.prompt_id].messages)
    for name, value in response.extra.items():
        if schema.field(name).type == pa.json_():
            row[name] = _json_line(value)
    return row


def _extra_types(pool: Pool) -> dict[str, pa.DataType]:
    """The Arrow type of each extra field, in order of first use: JSON where no plain type fits."""
    kinds: dict[str, set[type]] = {}
    for response in pool.responses:
        for name, value in response.extra.items():
            fits = not isinstance(value, int) or -(2**63) <= value < 2**63
            kinds.setdefault(name, set()).add(type(value) if fits else object)
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return {
        name: plain.get(types.pop(), pa.json_()) if len(types) == 1 else pa.json_()
        for name, types in kinds.items()
    }


def write_training(
    pool: Pool, response_ids: Sequence[str], path: str | os.PathLike, fmt: str
) -> None:
    """Write the given responses, in the given order, as data to fine-tune on.

    Every record also holds ``prompt_id``, ``response_id`` and ``teacher``.

    Args:
        pool: Holds the responses.
        response_ids: What to train on; each id once.
        path: The JSONL file to write; for ``llamafactory`` the folder.
        fmt: ``messages``: TRL's conversational language-modelling format (``load_pool`` reads it
            too). ``prompt-completion``: TRL's conversational prompt-completion format.
            ``llamafactory``: LLaMA-Factory's ``train.json`` and its entry ``train`` in
            ``dataset_info.json``; other entries in that file stay.

    Raises:
        InputError: If the format or an id is unknown, an id is given twice or none at all, or the
            folder's ``dataset_info.json`` cannot be extended; nothing is written then.
    """
    if fmt not in TRAINING_FORMATS:
        raise InputError(f"unknown training format {_show(fmt)}: use {', '.join(TRAINING_FORMATS)}")
    chosen = _chosen_responses(pool, response_ids)
    if fmt == "llamafactory":
        _write_llamafactory(pool, chosen, Path(path))
        return
    record = _messages_record if fmt == "messages" else _completion_record
    with atomic_path(path) as temporary:
        _write_lines((_json_line(record(pool, response)) for response in chosen), temporary)


def _chosen_responses(pool: Pool, response_ids: Sequence[str]) -> list[Response]:
    by_id = {response.response_id: response for response in pool.responses}
    counts = Counter(response_ids)
    if not counts:
        raise InputError("no responses to write: the list of response ids is empty")
    for response_id, count in counts.items():
        if response_id not in by_id:
            raise InputError(f"response id {_show(response_id)} is not in the pool")
        if count > 1:
            raise InputError(
                f"response id {_show(response_id)} is given {count} times; give it once"
            )
    return [by_id[response_id] for response_id in counts]


def _messages_record(pool: Pool, response: Response) -> dict[str, Any]:
    prompt = pool.prompts[response.prompt_id].messages
    return {"messages": _chat((*prompt, Message("assistant", response.text)))} | _ids(response)


def _completion_record(pool: Pool, response: Response) -> dict[str, Any]:
    prompt = pool.prompts[response.prompt_id].messages
    completion = [Message("assistant", response.text)]
    return {"prompt": _chat(prompt), "completion": _chat(completion)} | _ids(response)


def _ids(response: Response) -> dict[str, str]:
    names = ("prompt_id", "response_id", "teacher")
    return {name: getattr(response, name) for name in names}


_LLAMAFACTORY_ENTRY = {
    "file_name": "train.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def _write_llamafactory(pool: Pool, responses: Sequence[Response], folder: Path) -> None:
    for response in responses:
        _check_turns(pool.prompts[response.prompt_id])
    info = _dataset_info(folder)
    records = [_messages_record(pool, response) for response in responses]
    # Both are written before either takes its place, the data first.
    with (
        atomic_path(folder / "dataset_info.json") as info_path,
        atomic_path(folder / "train.json") as data_path,
    ):
        _write_lines([json.dumps(info, ensure_ascii=False, indent=2)], info_path)
        _write_lines(["[", ",\n".join(map(_json_line, records)), "]"], data_path)


def _check_turns(prompt: Prompt) -> None:
    """LLaMA-Factory skips other chats with no more than a warning, so they are refused here."""
    roles = [message.role for message in prompt.messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise InputError(
            f"prompt {_show(prompt.prompt_id)} has the turns {', '.join(roles)}; LLaMA-Factory "
            "needs user and assistant in turn after at most one system message: use another "
            "format or leave the prompt out"
        )


def _dataset_info(folder: Path) -> dict[str, Any]:
    """The folder's ``dataset_info.json`` with this project's entry added."""
    path = folder / "dataset_info.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the llamafactory format writes a folder")
    if not path.exists():
        return {"train": _LLAMAFACTORY_ENTRY}
    try:
        info = _parse_json(path.read_text(encoding="utf-8"), "fix it or give another folder")
    except (InputError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(info, dict):
        raise InputError(f"{path}: must be a JSON object; fix it or give another folder")
    if info.get("train", _LLAMAFACTORY_ENTRY) != _LLAMAFACTORY_ENTRY:
        raise InputError(f"{path}: has another entry 'train'; rename it or give another folder")
    return info | {"train": _LLAMAFACTORY_ENTRY}
