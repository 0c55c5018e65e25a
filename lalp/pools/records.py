"""Check records one by one, and join them to a pool."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lalp.errors import InputError, likeliest
from lalp.pools import spool
from lalp.pools.conversation import check_response_turns, first_answer, has_tools, join_turns
from lalp.pools.pool import RESERVED_FIELDS, Message, Pool, Prompt, Response, Turn, located, show
from lalp.pools.turns import as_message, read_any_turn, read_tools


@dataclass
class Draft:
    """A pool while it is put together.

    It keeps the place (line or file) where each item first appeared, so a conflict names both.
    """

    prompts: MutableMapping[str, Prompt] = field(default_factory=dict)
    responses: Any = field(default_factory=list)  # or anything else with `append`
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def check(self, prompt: Prompt, response: Response, place: str) -> None:
        """Refuse what `add_prompt` or `add_response` would refuse, but add nothing."""
        if prompt.prompt_id in self.prompts:
            self._check_prompt(prompt)
        self._check_response(response, place)

    def add_prompt(self, prompt: Prompt, place: str) -> None:
        """Add a prompt, or the answer to one added without it; refuse a different one."""
        known = self.prompts.setdefault(prompt.prompt_id, prompt)
        self.places.setdefault(("prompt", prompt.prompt_id), place)
        self._check_prompt(prompt)
        # Records without the answer may come before the one that knows it.
        if prompt.answer is not None:
            self.places.setdefault(("answer", prompt.prompt_id), place)
            if known.answer is None:
                self.prompts[prompt.prompt_id] = prompt

    def _check_prompt(self, prompt: Prompt) -> None:
        prompt_id, known = prompt.prompt_id, self.prompts[prompt.prompt_id]
        first = self.places["prompt", prompt_id]
        if (prompt.messages, prompt.tools) != (known.messages, known.tools):
            same = f"that of {first}, which has the same prompt_id {show(prompt_id)}"
            advice = "give different prompts different ids"
            what = "the prompt differs" if prompt.messages != known.messages else "tools differ"
            raise InputError(f"{what} from {same}; {advice}")
        if prompt.answer is None or known.answer is None:
            return
        if prompt.answer.strip() != known.answer.strip():
            first = self.places["answer", prompt_id]
            both = f"is {show(prompt.answer)}, but {show(known.answer)} in {first}"
            place = f"for the same prompt_id {show(prompt_id)}"
            raise InputError(f"field 'answer' {both} {place}; a prompt has one reference answer")

    def add_response(self, response: Response, place: str) -> None:
        """Add a response; refuse an id that another place has taken."""
        self._check_response(response, place)
        self.places.setdefault(("response", response.response_id), place)
        self.responses.append(response)

    def _check_response(self, response: Response, place: str) -> None:
        first = self.places.get(("response", response.response_id), place)
        if first != place:
            taken = f"{show(response.response_id)} is already taken by {first}"
            advice = "give every response its own (where none is given, it is prompt_id/teacher/n)"
            raise InputError(f"field 'response_id': {taken}; {advice}")


class PoolBuilder:
    """Puts a pool together from the records of one place of a source after another.

    Anything beyond `lalp.pools.spool.LIMIT` goes to a temporary file.
    """

    def __init__(self) -> None:
        self.draft = Draft()
        self.size = 0  # bytes added so far
        self._counts = Counter[tuple[str, str]]()

    def add(
        self, records: Sequence[dict[str, Any]], place: str, teacher: str | None = None
    ) -> list[tuple[Prompt, Response]]:
        """Add some records of one place: all of them, or none if one is refused.

        ``teacher`` fills in for a record that names none. Without it, such a record is refused, as
        is one without ``prompt_id``, unless it has ``messages``; with it, the id is a hash of the
        prompt.
        """
        pairs: list[tuple[Prompt, Response]] = []
        try:
            for number, record in enumerate(records, 1):
                with located(f"response {number}") if len(records) > 1 else nullcontext():
                    pairs.append(_parse_record(record, self._counts, teacher))
            for prompt, response in pairs:
                self.draft.check(prompt, response, place)
        except InputError:
            self._counts.subtract((r.prompt_id, r.teacher) for _, r in pairs)
            raise
        for prompt, response in pairs:
            self.draft.add_prompt(prompt, place)
            self.draft.add_response(response, place)
            self.size += len(pickle.dumps((prompt, response)))
        if self.size > spool.LIMIT and isinstance(self.draft.responses, list):
            self.draft.responses = spool.SpooledResponses(self.draft.responses)
            self.draft.prompts = spool.SpooledPrompts(self.draft.prompts.values())
        return pairs

    def finish(self, source: str, left_out: Mapping[str, int] | None = None) -> Pool:
        """The pool; InputError with ``source`` if it is empty."""
        if not len(self.draft.responses):
            raise InputError(f"{source}: no records; a pool needs at least one response")
        found = self.draft.responses
        responses = tuple(found) if isinstance(found, list) else found
        return Pool(self.draft.prompts, responses, dict(left_out or {}))


def build_pool(
    records: Iterable[tuple[int, Any]],
    source: str,
    unit: str,
    left_out: Mapping[str, int] | None = None,
) -> Pool:
    """Check numbered records and join them; errors name ``source``, ``unit`` and the number."""
    builder = PoolBuilder()
    # One record at a time, from a generator, so a pool of long traces is in memory only once.
    for number, record in records:
        place = f"{unit} {number}"
        with located(f"{source}, {place}"):
            builder.add([plain_record(record)], place)
    return builder.finish(source, left_out)


def _parse_record(
    record: dict[str, Any], counts: Counter[tuple[str, str]], default_teacher: str | None
) -> tuple[Prompt, Response]:
    """Prompt and response of a record; ``counts`` numbers each teacher's responses to a prompt."""
    needed = record.get("messages") is None and default_teacher is None
    for name in ("prompt_id", "teacher") if needed else ():
        if record.get(name) is None:
            advice = "lalp import FILE --out POOL fills it in"
            raise InputError(f"{_lacks(record, name)}; {advice}")
    prompt_id = _text(record, "prompt_id", needed=False)
    teacher = _text(record, "teacher", needed=False) or default_teacher or "unknown"
    messages, turns = _prompt_and_response(record)
    tools = read_tools(record.get("tools"))
    if prompt_id is None:
        # 64 bits of SHA-256 over the messages: the same prompt has the same id in every file.
        said = [[message.role, message.content] for message in messages]
        content = json.dumps([*said, *tools])
        prompt_id = hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]
    correct = record.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise InputError(f"field 'correct' must be true, false or null, not {show(correct)}")
    made_up = f"{prompt_id}/{teacher}/{counts[prompt_id, teacher]}"
    response_id = _text(record, "response_id", needed=False) or made_up
    own = {*RESERVED_FIELDS, "tools"} if tools else RESERVED_FIELDS
    extra = {name: value for name, value in record.items() if name not in own}
    prompt = Prompt(prompt_id, messages, _answer_text(record.get("answer")), tools)
    # Records with their own id count too: a made-up id gives the response's place among all.
    counts[prompt_id, teacher] += 1
    text, given = join_turns(turns)
    several = () if len(turns) == 1 and not has_tools(turns) else tuple(turns)
    return prompt, Response(response_id, prompt_id, teacher, text, correct, extra, several, given)


# --- Fields ------------------------------------------------------------------------------------


def _text(record: Mapping[str, Any], name: str, *, needed: bool = True) -> str | None:
    """A field that is text; None if it is neither there nor needed."""
    value = record.get(name)
    if value is None and needed:
        raise InputError(_lacks(record, name))
    if not isinstance(value, str | None):
        raise InputError(f"field '{name}' must be text, not {show(value)}")
    if not (value is None or value.strip()):
        what = f"field '{name}' is empty" + (" (only whitespace)" if value else "")
        raise InputError(f"{what}; lalp import --bad-rows skip leaves such rows out")
    return value


def _lacks(record: Mapping[str, Any], name: str) -> str:
    """A message that a field is missing or null, and which other one may be meant."""
    if name in record:
        return f"field '{name}' is null"
    others = [other for other in record if other not in RESERVED_FIELDS]
    meant = f": {close} Rename it" if (close := likeliest(name, others)) else ""
    return f"field '{name}' is missing{meant}"


def _prompt_and_response(record: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[Turn]]:
    """The messages before the response, and its turns, for either kind of record."""
    if record.get("messages") is None:
        if isinstance(record.get("prompt"), list):
            prompt = _turns(record, "prompt")
        else:
            prompt = [_turn("user", _text(record, "prompt"))]
        if isinstance(record.get("response"), list):
            response = _turns(record, "response")
        else:
            response = [_turn("assistant", _text(record, "response"))]
        place = "prompt"
    else:
        twice = [name for name in ("prompt", "response") if record.get(name) is not None]
        if twice:
            raise InputError(f"fields 'messages' and '{twice[0]}' are both given; keep only one")
        turns = _turns(record, "messages")
        if not turns or turns[-1]["role"] != "assistant":
            raise InputError("field 'messages' must end with the assistant's (the response)")
        begin = _num_prompt_turns(record, turns)
        prompt, response, place = turns[:begin], turns[begin:], "messages"
    with located(f"field '{'response' if place == 'prompt' else place}'"):
        check_response_turns(response)
    messages = []
    for number, turn in enumerate(prompt, 1):
        with located(f"field '{place}', message {number}"):
            messages.append(as_message(turn))
    if not messages or messages[-1].role != "user":
        what = f"field '{place}'" + ("" if place == "prompt" else ": what precedes the response")
        raise InputError(f"{what} must end with a user message")
    return tuple(messages), response


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _num_prompt_turns(record: Mapping[str, Any], turns: Sequence[Turn]) -> int:
    """Number of a chat's turns in the prompt: all but the last, unless tools take part in it."""
    given = record.get("num_prompt_turns")
    if given is None:
        begin = first_answer(turns)
        return begin if has_tools(turns[begin:]) else len(turns) - 1
    if isinstance(given, float) and given.is_integer():
        given = int(given)  # tables turn whole numbers into floats if some are missing
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given < len(turns):
        known = f"must be a number of turns from 1 to {len(turns) - 1}, not {show(given)}"
        raise InputError(f"field 'num_prompt_turns' {known}")
    return given


def _turns(record: Mapping[str, Any], name: str) -> list[Turn]:
    if not isinstance(record[name], list):
        raise InputError(f"field '{name}' must be a list of messages, not {show(record[name])}")
    turns = []
    for number, item in enumerate(record[name], 1):
        with located(f"field '{name}', message {number}"):
            turns.append(read_any_turn(item))
    if not turns and name == "response":
        raise InputError("field 'response' is empty: it must hold the assistant's turn")
    return turns


def _answer_text(value: Any) -> str | None:
    # Tables turn whole numbers into floats if some are missing: 4.0 was 4.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int, float)):
        value = str(value)
    elif value is not None:
        raise InputError(f"field 'answer' must be text, a number or a boolean, not {show(value)}")
    return value if value and value.strip() else None


# --- Values ------------------------------------------------------------------------------------


def plain_record(record: Any) -> dict[str, Any]:
    """Turn a record into plain Python values that JSON and UTF-8 can hold."""
    if not isinstance(record, Mapping):
        raise InputError(f"must be an object with fields, not {show(record)}")
    plain = {}
    for name, value in record.items():
        with located(f"field {show(name)}"):
            try:
                # Here None is a normal value (JSON null); NaN only marks a missing one.
                if value is None or not is_missing(value):
                    plain[_key(name)] = _plain(value)
            except RecursionError:
                raise InputError("nested too deeply") from None
    return plain


def _plain(value: Any) -> Any:
    """Convert numpy, Arrow and date values to what JSON reads back as equal, or refuse."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                which = f"U+{ord(value[error.start]):04X} at character {error.start + 1}"
                why = f"lone surrogate {which}, which UTF-8 cannot hold; replace it"
                raise InputError(why) from None
            return str(value)  # subclasses (np.str_) become str
        case pa.Scalar():  # before Mapping: Arrow's struct scalar is both
            return _plain(value.as_py())
        case None | bool() | np.bool_() | int() | np.integer():
            return value.item() if isinstance(value, np.generic) else value
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
    kind = type(value).__name__
    raise InputError(f"{kind} values cannot be written as JSON; convert or drop them")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"key {show(name)} is not text; JSON objects have text keys")
    return _plain(name)


def is_missing(value: Any) -> bool:
    """True for None, NaN, pandas' NA and NaT."""
    return value is None or (pd.api.types.is_scalar(value) and pd.isna(value))
