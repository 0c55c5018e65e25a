"""What a record may hold: check records one by one, and join them to a pool."""

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
from lalp.pools.pool import RESERVED_FIELDS, Message, Pool, Prompt, Response, show

_ROLES = ("system", "user", "assistant")


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
    """Check numbered records and join them; errors name ``source``, ``unit`` and the number.

    Raises:
        InputError: At the first record that does not fit, by itself or with those before it.
    """
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
    needed = record.get("messages") is None
    prompt_id = _text(record, "prompt_id", needed=needed)
    teacher = _text(record, "teacher", needed=needed) or "unknown"
    messages, text = _prompt_and_response(record)
    if prompt_id is None:
        # 64 bits of SHA-256 over the messages: the same prompt has the same id in every file.
        content = json.dumps([[message.role, message.content] for message in messages])
        prompt_id = hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]
    correct = record.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise InputError(f"field 'correct' must be true, false or null, not {show(correct)}")
    _add_prompt(draft, number, prompt_id, messages, _answer_text(record.get("answer")))
    response_id = _new_response_id(draft, number, record, prompt_id, teacher)
    extra = {name: value for name, value in record.items() if name not in RESERVED_FIELDS}
    draft.responses.append(Response(response_id, prompt_id, teacher, text, correct, extra))


def _add_prompt(
    draft: _Draft, number: int, prompt_id: str, messages: tuple[Message, ...], answer: str | None
) -> None:
    first, row = draft.prompts.setdefault(prompt_id, (messages, number))
    if messages != first:
        raise InputError(
            f"the prompt differs from that of {draft.unit} {row}, which has the same prompt_id "
            f"{show(prompt_id)}; give different prompts different ids"
        )
    if answer is None:
        return
    known, row = draft.answers.setdefault(prompt_id, (answer, number))
    if answer.strip() != known.strip():
        raise InputError(
            f"field 'answer' is {show(answer)}, but {show(known)} on {draft.unit} {row} for the "
            f"same prompt_id {show(prompt_id)}; a prompt has one reference answer"
        )


def _new_response_id(
    draft: _Draft, number: int, record: Mapping[str, Any], prompt_id: str, teacher: str
) -> str:
    given = _text(record, "response_id", needed=False)
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


# --- Fields ------------------------------------------------------------------------------------


def _text(
    record: Mapping[str, Any],
    name: str,
    place: str = "field ",
    *,
    needed: bool = True,
    blank: bool = False,
) -> str | None:
    """A field that is text; None where it is neither there nor needed."""
    value = record.get(name)
    if value is None:
        if needed:
            raise InputError(f"{place}'{name}' is {'null' if name in record else 'missing'}")
        return None
    if not isinstance(value, str):
        raise InputError(f"{place}'{name}' must be text, not {show(value)}")
    if not (blank or value.strip()):
        raise InputError(f"{place}'{name}' is empty" + (" (only whitespace)" if value else ""))
    return value


def _prompt_and_response(record: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """The messages before the response, and the response: of either kind of record."""
    if record.get("messages") is None:
        if isinstance(record.get("prompt"), list):
            prompt = _messages(record, "prompt")
        else:
            prompt = (Message("user", _text(record, "prompt")),)
        text, place = _text(record, "response"), "field 'prompt'"
    else:
        for name in ("prompt", "response"):
            if record.get(name) is not None:
                raise InputError(
                    f"field 'messages' and field '{name}' are both given; keep only one"
                )
        *prompt, last = _messages(record, "messages") or [Message("", "")]
        if last.role != "assistant":
            raise InputError(
                "field 'messages' must end with the assistant's message (the response)"
            )
        text, place = last.content, "field 'messages': what precedes the response"
    if not prompt or prompt[-1].role != "user":
        raise InputError(f"{place} must end with a user message")
    return tuple(prompt), text


def _messages(record: Mapping[str, Any], name: str) -> list[Message]:
    value = record[name]
    if not isinstance(value, list):
        raise InputError(f"field '{name}' must be a list of messages, not {show(value)}")
    return [_message(item, f"field '{name}', message {n}") for n, item in enumerate(value, 1)]


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"{place} must be an object with role and content, not {show(value)}")
    role = _text(value, "role", f"{place}: ")
    if role not in _ROLES:
        raise InputError(f"{place}: role must be {', '.join(_ROLES)}, not {show(role)}")
    # An empty system message is meant: some chat templates add a default one where there is none.
    content = _text(value, "content", f"{place}: ", blank=role == "system")
    for key, item in value.items():
        if key not in ("role", "content") and item is not None:
            raise InputError(f"{place}: '{key}' is not supported; remove it or set it to null")
    return Message(role, content)


def _answer_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int, float)):
        value = str(value)
    elif value is not None:
        raise InputError(f"field 'answer' must be text, a number or a boolean, not {show(value)}")
    return value if value and value.strip() else None


# --- Values ------------------------------------------------------------------------------------


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
        except (InputError, RecursionError) as error:
            reason = error if isinstance(error, InputError) else "nested too deeply"
            raise InputError(f"field {show(name)}: {reason}") from None
    return plain


def _plain(value: Any) -> Any:
    """Convert numpy, Arrow and date values to what JSON reads back as equal, or refuse."""
    match value:
        case str():
            return _encodable(value)
        case pa.Scalar():  # before Mapping: Arrow's struct scalar is both
            return _plain(value.as_py())
        case None | bool():
            return value
        case np.bool_():
            return bool(value)
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


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"key {show(name)} is not text; JSON objects have text keys")
    return _encodable(name)


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start + 1}, "
            "which UTF-8 cannot hold; replace it"
        ) from None
    return str(text)  # str subclasses (np.str_) become str


def is_missing(value: Any) -> bool:
    """True for None, NaN, pandas' NA and NaT."""
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return value is None or value is pd.NA or value is pd.NaT
