"""Convert records of other layouts to a pool's own: nothing is lost, and nothing guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lalp.errors import InputError
from lalp.pools.conversation import check_response_turns, first_answer, has_tools
from lalp.pools.layouts import DATA, Layout, name_fields, read_chat_json, value_at, without
from lalp.pools.pool import RESERVED_FIELDS, Message, Turn, located, show
from lalp.pools.turns import (
    as_message,
    has_thought,
    join_marked,
    join_thought,
    read_any_turn,
    read_turn,
)

_SPEAKERS = {name: role for role, names in DATA["speakers"].items() for name in names}
_VERDICTS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# What chat templates of common models write around a turn.
_RENDERED = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<\|begin_of_text\|>|\[INST\]|<｜User｜>|<start_of_turn>"
)


# --- Reading a record --------------------------------------------------------------------------


def read_record(
    layout: Layout, record: Mapping[str, Any], *, all_turns: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """A pool's own records from a record in another layout, and its number of thoughts.

    One record for each response; the thoughts are joined to their answers. With ``all_turns``, all
    assistant turns of a chat are its response, as always if a tool takes part.

    InputError if something would be lost or guessed: a list that differs in length from that of the
    responses, a chat with a different text, a tool's turn in a prompt.

    Example:
        >>> from lalp.pools.layouts import LAYOUTS
        >>> record = {"problem": "2 + 2?", "generations": ["4", "It is 4."], "uuid": "u"}
        >>> records, _ = read_record(LAYOUTS["OpenR1-Math"], record)
        >>> [one["response"] for one in records]
        ['4', 'It is 4.']
    """
    for path in layout.needs:
        if value_at(record, path) is None:
            known = name_fields(path, record)
            raise InputError(f"field '{path}' is missing or null; {layout.name} needs it; {known}")
    if layout.messages:
        prompt, said, is_joined = _chat_parts(layout, record, all_turns)
        (verdict,) = _verdicts(layout, record, 1)
        answers = [Answer(said, "", is_joined, correct=verdict)]
    else:
        prompt = _prompt(layout, record)
        parts, optional = layout.responses or (layout,), bool(layout.responses)
        answers = [one for part in parts for one in _answers(part, record, optional)]
        if not answers:
            raise InputError(f"no response; {layout.name} has one or more")
    prompt = [*_system(layout, record, prompt), *prompt]
    _check_repeats(layout, record, prompt, answers)
    return _records(layout, record, prompt, answers), sum(one.is_joined for one in answers)


def _chat_parts(
    layout: Layout, record: Mapping[str, Any], all_turns: bool
) -> tuple[list[Message], str | list[Turn], bool]:
    """Prompt and response of a chat, and whether a thought of the response was joined.

    The response is the last turn, or all turns from the assistant's first.
    """
    name = layout.messages
    given = _listed(value_at(record, name), name)
    turns, joined = _read_turns(given, name)
    begin = first_answer(turns)
    if not all_turns and not has_tools(turns[begin:]):
        begin = len(turns) - 1
    with located(f"field '{name}'"):
        check_response_turns(turns[begin:] or turns[-1:])
        prompt, said = [as_message(turn) for turn in turns[:begin]], turns[begin:]
    is_joined = any(joined[begin:]) or any(map(has_thought, given[begin:]))
    is_text = len(said) == 1 and not has_tools(said)
    return prompt, said[0]["content"] if is_text else said, is_joined


@dataclass(frozen=True)
class Answer:
    """One response as read: with its thought, and its own items of lists."""

    text: str | Sequence[Turn]  # or several turns
    raw: str  # unchanged, without the thought
    is_joined: bool = False
    teacher: str | None = None
    correct: bool | None = None


def _records(
    layout: Layout, record: Mapping[str, Any], prompt: Sequence[Message], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    answer, own = _reference(layout, record)
    rest = without(record, (path for path in layout.paths if path != layout.answer or own))
    teachers = _aligned(record, layout.teacher, len(answers))
    extras = [_own_items(layout, rest, number, len(answers)) for number in range(len(answers))]
    chat = [{"role": turn.role, "content": turn.content} for turn in prompt]
    records = []
    for number, one in enumerate(answers):
        values = {
            "prompt_id": _id(layout, record, layout.prompt_id),
            "response_id": _response_id(layout, record, len(answers)),
            "prompt": chat,
            "response": one.text,
            "teacher": one.teacher if teachers[number] is None else teachers[number],
            "answer": answer,
            "correct": one.correct,
        }
        given = {name: value for name, value in values.items() if value is not None}
        records.append(given | _renamed(extras[number]))
    return records


def _prompt(layout: Layout, record: Mapping[str, Any]) -> list[Message]:
    if layout.prompt_as:
        value = _READERS[layout.prompt_as](record)
    else:
        value = value_at(record, layout.prompt)
    if isinstance(value, list):
        return read_chat(value, layout.prompt)
    text = _text(value, layout.prompt)
    more = value_at(record, layout.append) if layout.append else None
    if more is not None and _text(more, layout.append, blank=True).strip():
        text = f"{text}\n{more}"
    turns = [Message("user", text)]
    for pair in (value_at(record, layout.history) if layout.history else None) or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"field '{layout.history}' must hold pairs of question and answer")
        said = [_text(text, layout.history) for text in pair]
        turns[-1:-1] = [Message("user", said[0]), Message("assistant", said[1])]
    return turns


def read_chat(value: Any, name: str) -> list[Message]:
    """The turns of a chat: a list of objects, or such a list as JSON in a text."""
    turns, _ = _read_turns(_listed(value, name), name)
    with located(f"field '{name}'"):
        return [as_message(turn) for turn in turns]


def _read_turns(given: Sequence[Any], name: str) -> tuple[list[Turn], list[bool]]:
    """The turns of a chat with those of tools, and which had marks of a thought replaced."""
    turns, joined = [], []
    for number, item in enumerate(given, 1):
        with located(f"field '{name}', message {number}"):
            turn = read_any_turn(item, _SPEAKERS)
            said = turn["content"]
            text = join_marked(said) if turn["role"] == "assistant" else said
            turns.append(turn | {"content": text})
            joined.append(text != said)
    return turns, joined


def _listed(value: Any, name: str) -> list[Any]:
    """The turns of a chat as given, perhaps as JSON in a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"field '{name}' is not JSON: {error}") from None
    if not isinstance(value, list) or not value:
        raise InputError(f"field '{name}' must be a list of messages, not {show(value)}")
    return value


def _system(layout: Layout, record: Mapping[str, Any], prompt: Sequence[Message]) -> list[Message]:
    """The message of the layout's field ``system``, unless the prompt begins with it."""
    value = value_at(record, layout.system) if layout.system else None
    if value is None or not _text(value, layout.system, blank=True).strip():
        return []
    if not prompt or prompt[0].role != "system":
        return [Message("system", value)]
    if prompt[0].content != value:
        raise InputError(f"field '{layout.system}' differs from the chat's system turn; keep one")
    return []


def _answers(part: Layout, record: Mapping[str, Any], optional: bool) -> list[Answer]:
    """The responses of one field, each with its thought; none if they are optional and missing."""
    value = value_at(record, part.response)
    thoughts = {
        path: list(_flat(value_at(record, path), path, missing=True)) for path in part.thought
    }
    thoughts = {path: texts for path, texts in thoughts.items() if any(texts)}
    if value is None and not thoughts and optional:
        return []
    if len(thoughts) > 1:
        raise InputError(f"fields {' and '.join(thoughts)} each hold a thought; keep one")
    if part.many and not isinstance(value, list):
        raise InputError(f"field '{part.response}' must be a list of texts, not {show(value)}")
    texts = list(_flat(value, part.response))
    if not texts:
        raise InputError(f"field '{part.response}' holds no response")
    for path, given in thoughts.items():
        if len(given) != len(texts):
            counts = f"{len(given)} thoughts, but there are {len(texts)} responses"
            raise InputError(f"field '{path}' holds {counts}")
    pairs = next(iter(thoughts.values()), [None] * len(texts))
    verdicts = _verdicts(part, record, len(texts))
    turns = value if isinstance(value, list) else [value]  # if they are a server's messages
    answers = []
    for number, (text, thought) in enumerate(zip(texts, pairs, strict=True)):
        where = f"field '{part.response}'" + (f", item {number + 1}" if len(texts) > 1 else "")
        with located(where):
            joined = join_thought(thought, join_marked(text))
        is_joined = joined != text or (len(turns) == len(texts) and has_thought(turns[number]))
        answers.append(Answer(joined, text, is_joined, part.teacher_name, verdicts[number]))
    return answers


def _flat(value: Any, name: str, *, missing: bool = False) -> Iterable[Any]:
    """The texts of a field: one, a list, or lists of lists; messages give their texts."""
    if isinstance(value, list):
        for number, item in enumerate(value, 1):
            with located(f"item {number}"):
                texts = list(_flat(item, name, missing=missing))
            yield from texts
    elif isinstance(value, Mapping):
        with located(f"field '{name}'"):
            yield _spoken(value)
    elif value is None and missing:
        yield None
    else:
        yield _text(value, name, blank=missing)


def _spoken(turn: Mapping[str, Any]) -> str:
    """The assistant's text in a turn as servers send it; empty lists of calls are no calls."""
    told = {key: value for key, value in turn.items() if value not in (None, [], {})}
    message = read_turn({"role": "assistant"} | told)
    if message.role != "assistant":
        raise InputError(f"is no assistant's turn, but of {message.role}")
    return message.content


def _verdicts(layout: Layout, record: Mapping[str, Any], count: int) -> list[bool | None]:
    """For each response: true if a verdict is true, false if all known ones are false, or None."""
    columns = []
    for path in layout.correct:
        value = value_at(record, path)
        if count > 1 and isinstance(value, bool | str):
            raise InputError(f"field '{path}' is one verdict, but there are {count} responses")
        # A number for all of them is the share of right ones, not a verdict on each.
        if count == 1 or isinstance(value, list):
            columns.append(_aligned(record, path, count))
    rows = []
    for number in range(count):
        known = [_verdict(column[number], layout) for column in columns]
        told = [verdict for verdict in known if verdict is not None]
        rows.append(any(told) if told else None)
    return rows


def _verdict(value: Any, layout: Layout) -> bool | None:
    if isinstance(value, Mapping):  # by filter
        told = [_verdict(one, layout) for one in value.values()]
        told = [verdict for verdict in told if verdict is not None]
        return any(told) if told else None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None  # a share is not a verdict
    if isinstance(value, str) and value.strip().lower() in _VERDICTS:
        return _VERDICTS[value.strip().lower()]
    where = " or ".join(f"'{path}'" for path in layout.correct)
    raise InputError(f"field {where} must be a verdict (true or false), not {show(value)}")


def _aligned(record: Mapping[str, Any], path: str, count: int) -> list[Any]:
    """A field's value for each response: the items of a list, or the same one for all."""
    value = value_at(record, path)
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        counts = f"{len(value)} items, but there are {count} responses"
        raise InputError(f"field '{path}' holds {counts}: each must have its own")
    return value


def _own_items(layout: Layout, rest: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
    """A record's other fields, with the response's own item of lists with one per response."""
    own = dict(rest)
    for path in (*layout.correct, *layout.each):
        value = value_at(rest, path)
        if isinstance(value, list):
            own = _put(own, path, _aligned(rest, path, count)[number], number)
    if isinstance(own.get("correct"), bool):
        del own["correct"]  # it belongs to the record
    return own


def _put(record: dict[str, Any], path: str, value: Any, number: int) -> dict[str, Any]:
    """The record with a value at a path; a list on the way is replaced by its own item."""
    name, _, deeper = path.partition(".")
    if not deeper:
        return record | {name: value}
    inner = record.get(name)
    if isinstance(inner, list):
        inner = inner[number]
    if not isinstance(inner, Mapping):  # a list of names, for example: nothing is deeper in it
        return record
    return record | {name: _put(dict(inner), deeper, value, number)}


def _reference(layout: Layout, record: Mapping[str, Any]) -> tuple[Any, bool]:
    """The reference answer, and whether its field says nothing else."""
    if layout.answer_as:
        return _READERS[layout.answer_as](record), False
    value = value_at(record, layout.answer)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    is_plain = value is None or isinstance(value, str | int | float)
    return (value, True) if is_plain else (None, False)


def _id(layout: Layout, record: Mapping[str, Any], path: str) -> str | None:
    value = value_at(record, path)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value is None else _text(value, path)


def _response_id(layout: Layout, record: Mapping[str, Any], count: int) -> str | None:
    value = _id(layout, record, layout.response_id)
    if value is not None and count > 1:
        raise InputError(f"field '{layout.response_id}' is one id for {count} responses; remove it")
    return value


def _check_repeats(
    layout: Layout, record: Mapping[str, Any], prompt: Sequence[Message], answers: Sequence[Answer]
) -> None:
    """Refuse a chat that differs from the prompt and responses beside it."""
    for path in layout.repeats:
        value = value_at(record, path)
        if value is None:
            continue
        *asked, last = read_chat(value, path)
        texts = {text.strip() for one in answers for text in (one.text, one.raw)}
        same = [turn.content.strip() for turn in asked] == [t.content.strip() for t in prompt]
        if not same or last.content.strip() not in texts:
            which = f"{layout.prompt} and {layout.response}"
            one, other = (
                f"messages={path}",
                f"prompt={layout.prompt} --map response={layout.response}",
            )
            advice = f"lalp import FILE --map {one}, or --map {other}"
            raise InputError(
                f"field '{path}' says something else than {which}; say which: {advice}"
            )


def _renamed(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Extra fields; one with the name of a record's own field becomes ``original_NAME``."""
    renamed: dict[str, Any] = {}
    for name, value in extra.items():
        free = name
        while free in RESERVED_FIELDS or (free != name and free in extra):
            free = f"original_{free}"
        renamed[free] = value
    return renamed


def _text(value: Any, name: str | None, *, blank: bool = False) -> str:
    if value is None:
        raise InputError(f"field '{name}' is missing or null")
    if not isinstance(value, str):
        raise InputError(f"field '{name}' must be text, not {show(value)}")
    if not (blank or value.strip()):
        raise InputError(f"field '{name}' is empty" + (" (only whitespace)" if value else ""))
    return value


# --- Readers of their own ----------------------------------------------------------------------


def _lm_eval_prompt(record: Mapping[str, Any]) -> Any:
    """The first argument of a sample's one request: a text, or a chat as JSON."""
    arguments, responses = record["arguments"], record["resps"]
    requests = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    if not isinstance(requests, list) or len(requests) != 1 or len(responses) != 1:
        needed = "only samples of generated text can be read"
        raise InputError(f"field 'arguments' does not hold one request: {needed}")
    (first,) = requests
    asked = first.get("arg_0") if isinstance(first, Mapping) else first and first[0]
    if isinstance(asked, list) and len(asked) == 1:
        (asked,) = asked  # how lm-evaluation-harness logs a chat
    if isinstance(asked, str) and re.match(r'\s*\[\s*\{\s*"', asked):
        return read_chat_json(asked)
    if isinstance(asked, str) and _RENDERED.search(asked):
        fields = record.get("doc")
        names = dict(fields) if isinstance(fields, Mapping) else {}
        likely = next((name for name in DATA["likely"]["prompt"] if name in names), "FIELD")
        advice = f"lalp import FILE --map prompt=doc.{likely} --map response=resps"
        raise InputError(f"the prompt is rendered by a chat template; give the question: {advice}")
    return asked


def _lighteval_prompt(record: Mapping[str, Any]) -> str:
    doc = record["doc"]
    if doc.get("fewshot_samples"):
        advice = "lalp import FILE --map prompt=doc.query --map response=model_response.text"
        found = "the prompt has examples (doc.fewshot_samples)"
        raise InputError(f"{found}; to leave them out: {advice}")
    return _instructed(doc.get("instruction"), doc["query"], "doc.query")


def _old_lighteval_prompt(record: Mapping[str, Any]) -> str:
    if record.get("num_effective_few_shots"):
        advice = "lalp import FILE --map prompt=example --map response=predictions"
        found = "the prompt has examples (num_effective_few_shots)"
        raise InputError(f"{found}; to leave them out: {advice}")
    return _instructed(record.get("instruction"), record["example"], "example")


def _instructed(instruction: Any, query: Any, name: str) -> str:
    """A query after its instruction, unless it begins with it, as in lighteval."""
    text, before = _text(query, name), instruction or ""
    return text if text.startswith(before) else before + text


def _batch_prompt(record: Mapping[str, Any]) -> Any:
    """The chat of the request that an output answers; `lalp import` puts it into ``request``."""
    response = record.get("response") or {}
    if record.get("error") or response.get("status_code") not in (None, 200):
        failed = record.get("error") or (response.get("body") or {}).get("error")
        raise InputError(f"the request failed: {show(failed, 120)}")
    if "request" not in record:
        advice = "lalp import OUTPUT REQUESTS --out POOL"
        raise InputError(f"a batch's output holds no prompts; give its requests too: {advice}")
    return value_at(record, "request.body.messages")


def _lighteval_answer(record: Mapping[str, Any]) -> Any:
    """The only right choice; None if there are several or none."""
    choices, gold = record["doc"].get("choices") or [], record["doc"].get("gold_index")
    places = gold if isinstance(gold, list) else [gold]
    if len(places) == 1 and isinstance(places[0], int) and 0 <= places[0] < len(choices):
        return choices[places[0]]
    return None


_READERS = {
    "lm_eval": _lm_eval_prompt,
    "lighteval": _lighteval_prompt,
    "lighteval_old": _old_lighteval_prompt,
    "lighteval_gold": _lighteval_answer,
    "batch": _batch_prompt,
}
