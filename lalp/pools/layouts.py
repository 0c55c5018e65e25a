"""Layouts: how what people hold becomes a pool's records. `layouts.yaml` lists them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lalp.errors import InputError
from lalp.files import read_data
from lalp.pools.pool import POOL_FIELDS, RESERVED_FIELDS, Message, located, show
from lalp.pools.turns import has_thought, join_marked, join_thought, read_turn

TARGETS = tuple(
    dict.fromkeys(("prompt", "response", "messages", "thought", "system", *POOL_FIELDS))
)
"""What a field can be mapped to, by hand (``--map``)."""

_DATA = read_data("pools/layouts.yaml")
_HOLDERS = frozenset(name for names in _DATA["holders"] for name in names)
_SPEAKERS = {name: role for role, names in _DATA["speakers"].items() for name in names}
_VERDICTS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# What chat templates of common models write around a turn.
_RENDERED = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<\|begin_of_text\|>|\[INST\]|<｜User｜>|<start_of_turn>"
)


@dataclass(frozen=True)
class Layout:
    """Where a record's prompt, response and the rest stand; `layouts.yaml` says what each means."""

    name: str
    needs: tuple[str, ...] = ()
    prompt: str | None = None
    prompt_as: str | None = None
    append: str | None = None
    history: str | None = None
    system: str | None = None
    messages: str | None = None
    response: str | None = None
    many: bool = False
    thought: tuple[str, ...] = ()
    teacher: str | None = "teacher"
    teacher_name: str | None = None
    answer: str | None = "answer"
    answer_as: str | None = None
    correct: tuple[str, ...] = ("correct",)
    prompt_id: str | None = "prompt_id"
    response_id: str | None = "response_id"
    each: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()
    responses: tuple[Layout, ...] = ()
    group: tuple[str, ...] = ()
    by: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Fields that are read into a record's own, so that they are no extra ones."""
        one = (self.prompt, self.append, self.history, self.system, self.messages, self.response)
        own = (self.teacher, self.answer, self.prompt_id, self.response_id, *self.thought)
        parts = (path for part in self.responses for path in (part.response, *part.thought))
        # An object that a reader of its own looks into holds more than it reads.
        whole = {self.prompt if self.prompt_as and "." not in self.prompt else None}
        whole |= {self.answer if self.answer_as else None}
        named = dict.fromkeys((*one, *own, *self.repeats, *parts))
        return tuple(path for path in named if path and path not in whole)

    @property
    def holders(self) -> frozenset[str]:
        """Fields of this layout that may hold responses, by their first names."""
        named = (*self.paths, *self.needs, *self.each, *self.correct, *self.group)
        return frozenset(path.split(".")[0] for path in named)


def _layout(name: str, record: Mapping[str, Any]) -> Layout:
    def value(key: str, given: Any) -> Any:
        if key == "responses":
            return tuple(_layout(name, part) for part in given)
        if key == "correct":
            return (*given, "correct")
        return tuple(given) if isinstance(given, list) else given

    return Layout(name, **{key: value(key, given) for key, given in record.items()})


LAYOUTS = {name: _layout(name, record) for name, record in _DATA["layouts"].items()}
PLAIN, MESSAGES = LAYOUTS["prompt and response"], LAYOUTS["messages"]


# --- Which layout ------------------------------------------------------------------------------


def find_layout(record: Mapping[str, Any]) -> Layout | None:
    """The one layout whose fields a record has; None for a pool's own, which needs no reading.

    InputError where none fits, or more than one: its message lists the fields, what a pool needs
    and the likeliest mapping.

    Example:
        >>> find_layout({"problem": "2 + 2?", "generations": ["4", "It is 4."]}).name
        'OpenR1-Math'
        >>> find_layout({"messages": []})
    """
    held = frozenset(name for name, value in record.items() if value is not None)
    is_named = bool({"prompt_id", "teacher"} & record.keys())
    if is_named and record.keys() >= {"prompt", "response"}:
        return None
    if "messages" in held:
        beside = held.intersection(_DATA["beside_messages"])
        if not beside and held & {"prompt", "response"}:
            return None  # and refused, for both are given
    fitting = [layout for layout in LAYOUTS.values() if _fits(layout, record, held)]
    # The more special one: messages with a teacher's name in meta are messages as well.
    best = [one for one in fitting if not any(set(one.needs) < set(o.needs) for o in fitting)]
    if len(best) == 1:
        return None if best[0] is MESSAGES else best[0]
    if not best and is_named and record.keys() & {"prompt", "response"}:
        return None  # and refused, for what it lacks
    raise InputError(_unclear(record, held, best))


def _fits(layout: Layout, record: Mapping[str, Any], held: frozenset[str]) -> bool:
    if not all(_holds(record, path) for path in layout.needs):
        return False
    if layout is MESSAGES:
        return not held.intersection(_DATA["beside_messages"])
    return not (held & _HOLDERS) - layout.holders


def _holds(record: Mapping[str, Any], path: str) -> bool:
    try:
        return value_at(record, path) is not None
    except InputError:
        return False


def fits_columns(names: Sequence[str]) -> bool:
    """Whether a table with these columns may be laid out in a known way."""
    return any({path.split(".")[0] for path in one.needs} <= set(names) for one in LAYOUTS.values())


def _unclear(record: Mapping[str, Any], held: frozenset[str], best: Sequence[Layout]) -> str:
    found = f"the fields are {show_names(record)}"
    holders = sorted(held & _HOLDERS)
    if best:
        both = " and ".join(layout.name for layout in best)
        return f"{found}: they fit the layouts {both}; say which: {suggest(record)}"
    if len(holders) > 1:
        several = f"{', '.join(holders)} may each hold responses or thoughts"
        return f"{found}; {several}: say which: {suggest(record)}"
    return f"{found}; a pool needs prompt and response, or messages: {suggest(record)}"


def show_names(names: Iterable[str], width: int = 120) -> str:
    """Names of fields as errors list them, cut at ``width``."""
    text = ", ".join(names) or "none"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def suggest(record: Mapping[str, Any]) -> str:
    """The likeliest mapping for a record, as options of `lalp import`.

    Example:
        >>> suggest({"question": "2 + 2?", "model_output": "4", "gold": 4})
        'lalp import FILE --map prompt=question --map response=model_output --map answer=gold'
    """
    chat = next((name for name, value in record.items() if _is_chat(value)), None)
    if chat and chat != "prompt":
        chosen = {"messages": chat}
    else:
        chosen = {}
        for target, known in _DATA["likely"].items():
            rest = [name for name in record if name not in chosen.values()]
            close = difflib.get_close_matches(target, rest, 1, 0.75)
            likely = [name for name in known if name in rest] or close
            if likely or target != "answer":
                chosen[target] = likely[0] if likely else "FIELD"
    options = (f"--map {target}={name}" for target, name in chosen.items())
    return " ".join(["lalp import FILE", *options])


def _is_chat(value: Any) -> bool:
    is_list = isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)
    return bool(is_list and {"role", "from"} & value[0].keys())


# --- A mapping by hand -------------------------------------------------------------------------


def parse_mapping(given: Sequence[str]) -> dict[str, str]:
    """Targets and fields of ``--map`` options.

    Example:
        >>> parse_mapping(["prompt=problem", "answer=doc.gold"])
        {'prompt': 'problem', 'answer': 'doc.gold'}
    """
    mapping: dict[str, str] = {}
    for text in given:
        target, sign, path = text.partition("=")
        if not (sign and path and target in TARGETS):
            known = ", ".join(TARGETS)
            raise InputError(f"--map {text}: give TARGET=FIELD; targets are {known}")
        if target in mapping:
            raise InputError(f"--map {text}: {target} is given twice; a target has one field")
        mapping[target] = path
    if "messages" in mapping and {"prompt", "response", "thought"} & mapping.keys():
        raise InputError("--map messages=... stands for prompt and response; give one or the other")
    return mapping


def map_layout(mapping: Mapping[str, str], record: Mapping[str, Any]) -> Layout:
    """The layout that a mapping by hand makes: alone, or on top of the one that is recognised.

    It stands alone if it names prompt and response, or the messages.

    Example:
        >>> map_layout({"prompt": "task", "response": "trace"}, {"task": "2 + 2?"}).response
        'trace'
    """
    changes = {t: (p,) if t in ("thought", "correct") else p for t, p in mapping.items()}
    # A field that is mapped by hand is no longer what its name says.
    for target in ("teacher", "answer", "prompt_id", "response_id"):
        if target not in mapping and target in mapping.values():
            changes[target] = None
    if "correct" not in mapping and "correct" in mapping.values():
        changes["correct"] = ()
    if "messages" in mapping:
        return Layout("the given mapping", needs=(mapping["messages"],), **changes)
    asked = {"prompt", "response"} & mapping.keys()
    if len(asked) < 2:
        found = _found(record, is_needed=not asked)
        if found and not (asked and found.messages):
            changes |= {"prompt_as": None} if "prompt" in mapping else {}
            changes |= {"answer_as": None} if "answer" in mapping else {}
            return replace(found, name=f"{found.name} with the given mapping", **changes)
    changes = {"prompt": "prompt", "response": "response"} | changes
    needs = (changes["prompt"], changes["response"])
    return Layout("the given mapping", needs=needs, **changes)


def _found(record: Mapping[str, Any], is_needed: bool) -> Layout | None:
    """The layout of a record; a pool's own one as a layout, too."""
    try:
        found = find_layout(record)
    except InputError:
        if is_needed:
            raise
        return None
    return found or (MESSAGES if record.get("messages") is not None else PLAIN)


# --- Reading a record --------------------------------------------------------------------------


def read_record(layout: Layout, record: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """A pool's own records of one that is laid out in another way, and how many thoughts it has.

    One record for each response; the thoughts are joined to their answers.

    InputError where something would be lost or guessed: a list that is not as long as that of the
    responses, a chat that says something else, a turn of a tool.

    Example:
        >>> record = {"problem": "2 + 2?", "generations": ["4", "It is 4."], "uuid": "u"}
        >>> records, _ = read_record(LAYOUTS["OpenR1-Math"], record)
        >>> [one["response"] for one in records]
        ['4', 'It is 4.']
    """
    for path in layout.needs:
        if value_at(record, path) is None:
            known = f"the fields are {show_names(record)}"
            raise InputError(f"field '{path}' is missing or null; {layout.name} needs it; {known}")
    if layout.messages:
        *prompt, last = read_chat(value_at(record, layout.messages), layout.messages)
        if last.role != "assistant":
            raise InputError(f"field '{layout.messages}' must end with the assistant's turn")
        (verdict,) = _verdicts(layout, record, 1)
        text = join_marked(last.content)
        is_joined = text != last.content or has_thought(value_at(record, layout.messages)[-1])
        answers = [Answer(text, last.content, is_joined, correct=verdict)]
    else:
        prompt = _prompt(layout, record)
        parts, optional = layout.responses or (layout,), bool(layout.responses)
        answers = [one for part in parts for one in _answers(part, record, optional)]
        if not answers:
            raise InputError(f"no response; {layout.name} has one or more")
    prompt = [*_system(layout, record, prompt), *prompt]
    _check_repeats(layout, record, prompt, answers)
    return _records(layout, record, prompt, answers), sum(one.is_joined for one in answers)


@dataclass(frozen=True)
class Answer:
    """One response as it is read: with its thought, and what is its own among a list's."""

    text: str
    raw: str  # as it stands, without the thought
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
    """The turns of a chat: a list of objects, or one that stands as JSON in a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"field '{name}' is not JSON: {error}") from None
    if not isinstance(value, list) or not value:
        raise InputError(f"field '{name}' must be a list of messages, not {show(value)}")
    turns = []
    for number, item in enumerate(value, 1):
        with located(f"field '{name}', message {number}"):
            turn = read_turn(item, _SPEAKERS)
            is_answer = turn.role == "assistant" and number < len(value)
            turns.append(replace(turn, content=join_marked(turn.content)) if is_answer else turn)
    return turns


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
    """The responses of one field, each with its thought; none if they are optional, and missing."""
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
    turns = value if isinstance(value, list) else [value]  # where they are a server's messages
    answers = []
    for number, (text, thought) in enumerate(zip(texts, pairs, strict=True)):
        where = f"field '{part.response}'" + (f", item {number + 1}" if len(texts) > 1 else "")
        with located(where):
            joined = join_thought(thought, join_marked(text))
        is_joined = joined != text or (len(turns) == len(texts) and has_thought(turns[number]))
        answers.append(Answer(joined, text, is_joined, part.teacher_name, verdicts[number]))
    return answers


def _flat(value: Any, name: str, *, missing: bool = False) -> Iterable[Any]:
    """The texts of a field: one, a list of them, or lists of lists; messages become their texts."""
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
    """What the assistant said, of a turn as servers send it: empty lists of calls are no calls."""
    told = {key: value for key, value in turn.items() if value not in (None, [], {})}
    message = read_turn({"role": "assistant"} | told)
    if message.role != "assistant":
        raise InputError(f"is no assistant's turn, but of {message.role}")
    return message.content


def _verdicts(layout: Layout, record: Mapping[str, Any], count: int) -> list[bool | None]:
    """For each response: true if a verdict says so, false if those that speak say so, or None."""
    columns = []
    for path in layout.correct:
        value = value_at(record, path)
        if count > 1 and isinstance(value, bool | str):
            raise InputError(f"field '{path}' is one verdict, but there are {count} responses")
        # A number for all of them is the share that is right: no verdict on each.
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
        return bool(value) if value in (0, 1) else None  # a share is no verdict
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
    """What a record holds besides, with the response's own item of lists that go with them."""
    own = dict(rest)
    for path in (*layout.correct, *layout.each):
        value = value_at(rest, path)
        if isinstance(value, list):
            own = _put(own, path, _aligned(rest, path, count)[number], number)
    if isinstance(own.get("correct"), bool):
        del own["correct"]  # it is the record's own
    return own


def _put(record: dict[str, Any], path: str, value: Any, number: int) -> dict[str, Any]:
    """The record with a value at a path; a list on the way gives way to its own item."""
    name, _, deeper = path.partition(".")
    if not deeper:
        return record | {name: value}
    inner = record.get(name)
    if isinstance(inner, list):
        inner = inner[number]
    return record | {name: _put(dict(inner), deeper, value, number)}


def _reference(layout: Layout, record: Mapping[str, Any]) -> tuple[Any, bool]:
    """The reference answer, and whether its field says no more than that."""
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
    """Refuse a chat beside prompt and responses that says something else."""
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
    """Extra fields, those with the name of a record's own one as ``original_NAME``."""
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


# --- Paths -------------------------------------------------------------------------------------


def value_at(record: Any, path: str | None) -> Any:
    """The value of a field; a dot goes into an object, or into each object of a list.

    A field whose own name has dots comes first. No path has no value.

    Example:
        >>> value_at({"a": {"b": [{"c": 1}, {"c": 2}]}}, "a.b.c")
        [1, 2]
    """
    if path is None:
        return None
    if isinstance(record, Mapping):
        if path in record:
            return record[path]
        name, _, deeper = path.partition(".")
        return value_at(record.get(name), deeper) if deeper else None
    if isinstance(record, list):
        return [value_at(item, path) for item in record]
    return None


def without(record: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A record without the values at some paths, and without objects that are empty then.

    Example:
        >>> without({"a": {"b": 1, "c": 2}, "d": 3}, ["a.b", "d"])
        {'a': {'c': 2}}
    """
    rest = dict(record)
    for path in paths:
        name, _, deeper = path.partition(".")
        if path in rest:
            del rest[path]
        elif deeper and name in rest:
            rest[name] = _pruned(rest[name], deeper)
            if rest[name] in ({}, []):
                del rest[name]
    return rest


def _pruned(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return without(value, [path])
    return [_pruned(item, path) for item in value] if isinstance(value, list) else value


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
        likely = next((name for name in _DATA["likely"]["prompt"] if name in names), "FIELD")
        advice = f"lalp import FILE --map prompt=doc.{likely} --map response=resps"
        raise InputError(f"the prompt is rendered by a chat template; give the question: {advice}")
    return asked


def read_chat_json(text: str) -> Any:
    """A chat that stands as JSON in a text, or the text where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if _is_chat(value) else text


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
    """A query after its instruction, unless it begins with it: as lighteval asks it."""
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
    """The one right choice; None where there are several or none."""
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
