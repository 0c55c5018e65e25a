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

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lalp.errors import InputError

ROLES = ("system", "user", "assistant")

REQUIRED_FIELDS = ("prompt_id", "prompt", "teacher", "response")
POOL_FIELDS = (*REQUIRED_FIELDS, "response_id", "answer", "correct")
_RESERVED_FIELDS = (*POOL_FIELDS, "messages")
ROWS_PER_BATCH = 1024  # Parquet rows held as Python values at once: tens of MB for long traces


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


# --- One record --------------------------------------------------------------------------------


def _plain_record(record: Any) -> dict[str, Any]:
    """Turn a record into plain Python values that JSON and UTF-8 can hold."""
    if not isinstance(record, Mapping):
        raise InputError(f"must be an object with fields, not {show(record)}")
    plain = {}
    for name, value in record.items():
        try:
            # None is a value like any other here (JSON null), NaN only ever marks a missing one.
            if value is None or not is_missing(value):
                plain[_key(name)] = _plain(value)
        except InputError as error:
            raise InputError(f"field {show(name)}: {error}") from None
        except RecursionError:
            raise InputError(f"field {show(name)}: nested too deeply") from None
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
        raise InputError(f"key {show(name)} is not text; JSON objects have text keys")
    return _encodable(name)


def is_missing(value: Any) -> bool:
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
        raise InputError(f"{place} must be text, not {show(value)}")
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
        raise InputError(f"field '{name}' must be a list of messages, not {show(value)}")
    return tuple(_message(item, f"field '{name}', message {n}") for n, item in enumerate(value, 1))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"{place} must be an object with role and content, not {show(value)}")
    for key in ("role", "content"):
        if value.get(key) is None:
            raise InputError(f"{place}: '{key}' is {'null' if key in value else 'missing'}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise InputError(f"{place}: role must be {', '.join(ROLES)}, not {show(role)}")
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
        raise InputError(f"field 'answer' must be text, a number or a boolean, not {show(value)}")
    return value if value and value.strip() else None


def show(value: Any, width: int = 60) -> str:
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
        raise InputError(f"field 'correct' must be true, false or null, not {show(correct)}")
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
            f"{show(prompt_id)}; give different prompts different ids"
        )


def _add_answer(draft: _Draft, number: int, prompt_id: str, answer: str | None) -> None:
    if answer is None:
        return
    first, row = draft.answers.setdefault(prompt_id, (answer, number))
    if answer.strip() != first.strip():
        raise InputError(
            f"field 'answer' is {show(answer)}, but {show(first)} on {draft.unit} {row} for the "
            f"same prompt_id {show(prompt_id)}; a prompt has one reference answer"
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
            f"field 'response_id': {show(response_id)} is already taken by {draft.unit} {row}; "
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
        check_extra(response)
    for name, kind in extra_types(pool).items():
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


def check_extra(response: Response) -> None:
    taken = [name for name in response.extra if name in _RESERVED_FIELDS]
    if taken:
        raise InputError(
            f"response {show(response.response_id)}: the extra field {show(taken[0])} has the "
            "name of a record's own field; rename it"
        )


def extra_types(pool: Pool) -> dict[str, pa.DataType]:
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
