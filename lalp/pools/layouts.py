"""Layouts: how people's data become a pool's records. `layouts.yaml` lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lalp.errors import InputError, close_names, likeliest
from lalp.files import read_data
from lalp.pools.pool import POOL_FIELDS

TARGETS = tuple(
    dict.fromkeys(("prompt", "response", "messages", "thought", "system", *POOL_FIELDS))
)
"""Names that a field can be mapped to by hand (``--map``)."""

DATA = read_data("pools/layouts.yaml")
_HOLDERS = frozenset(name for names in DATA["holders"] for name in names)


@dataclass(frozen=True)
class Layout:
    """Where a record's prompt, response and the rest are; `layouts.yaml` says what each means."""

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
        """Fields that become a record's own fields, so they are not extra ones."""
        one = (self.prompt, self.append, self.history, self.system, self.messages, self.response)
        own = (self.teacher, self.answer, self.prompt_id, self.response_id, *self.thought)
        parts = (path for part in self.responses for path in (part.response, *part.thought))
        # An object with its own reader holds more than that reads.
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


LAYOUTS = {name: _layout(name, record) for name, record in DATA["layouts"].items()}
PLAIN, MESSAGES = LAYOUTS["prompt and response"], LAYOUTS["messages"]


# --- Which layout ------------------------------------------------------------------------------


def find_layout(record: Mapping[str, Any]) -> Layout | None:
    """The only layout whose fields a record has; None for a pool's own, which needs no conversion.

    InputError if none fits, or more than one: its message lists the fields, the needs of a pool and
    the likeliest mapping.

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
        beside = held.intersection(DATA["beside_messages"])
        if not beside and held & {"prompt", "response"}:
            return None  # and refused, because both are given
    fitting = [layout for layout in LAYOUTS.values() if _fits(layout, record, held)]
    # Prefer the more special one: messages with a teacher's name in meta are also messages.
    best = [one for one in fitting if not any(set(one.needs) < set(o.needs) for o in fitting)]
    if len(best) == 1:
        return None if best[0] is MESSAGES else best[0]
    if not best and is_named and record.keys() & {"prompt", "response"}:
        return None  # and refused for its missing field
    raise InputError(_unclear(record, held, best))


def _fits(layout: Layout, record: Mapping[str, Any], held: frozenset[str]) -> bool:
    if not all(_holds(record, path) for path in layout.needs):
        return False
    if layout is MESSAGES:
        return not held.intersection(DATA["beside_messages"])
    return not (held & _HOLDERS) - layout.holders


def _holds(record: Mapping[str, Any], path: str) -> bool:
    try:
        return value_at(record, path) is not None
    except InputError:
        return False


def fits_columns(names: Sequence[str]) -> bool:
    """Whether a table with these columns may have a known layout."""
    return any({path.split(".")[0] for path in one.needs} <= set(names) for one in LAYOUTS.values())


def _unclear(record: Mapping[str, Any], held: frozenset[str], best: Sequence[Layout]) -> str:
    found = f"the fields are {show_names(record)}"
    holders = sorted(held & _HOLDERS)
    if best:
        both = " and ".join(layout.name for layout in best)
        return f"{found}: they fit the layouts {both}; say which: {suggest(record)}"
    if len(holders) > 1:
        several = f"{', '.join(holders)} may each hold responses or thoughts"
        return f"{several}: say which: {suggest(record)}"
    return f"{found}; a pool needs prompt and response, or messages: {suggest(record)}"


def show_names(names: Iterable[str], width: int = 120) -> str:
    """Names of fields as errors list them, cut at ``width``."""
    text = ", ".join(names) or "none"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def name_fields(name: str, names: Iterable[str]) -> str:
    """The fields of a record; possible misspellings of a missing field come first.

    Example:
        >>> name_fields("response", ["prompt", "respnse"])
        "did you mean 'respnse'? The fields are prompt, respnse"
    """
    names = list(names)
    listed, close = f"fields are {show_names(names)}", likeliest(name, names)
    return f"{close} The {listed}" if close else f"the {listed}"


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
        for target, known in DATA["likely"].items():
            rest = [name for name in record if name not in chosen.values()]
            close = close_names(target, rest, 1, 0.75)
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
            close = likeliest(target, TARGETS) if path else ""
            advice = f"did you mean {path}={target}?" if path in TARGETS else close
            known = f"{advice} Targets are" if advice else "targets are"
            raise InputError(f"--map {text}: give TARGET=FIELD; {known} {', '.join(TARGETS)}")
        if target in mapping:
            raise InputError(f"--map {text}: {target} is given twice; a target has one field")
        mapping[target] = path
    if "messages" in mapping and {"prompt", "response", "thought"} & mapping.keys():
        raise InputError("--map messages=... stands for prompt and response; give one or the other")
    return mapping


def map_layout(mapping: Mapping[str, str], record: Mapping[str, Any]) -> Layout:
    """The layout that a manual mapping makes: alone, or on top of the recognised one.

    It stands alone if it names prompt and response, or the messages.

    Example:
        >>> map_layout({"prompt": "task", "response": "trace"}, {"task": "2 + 2?"}).response
        'trace'
    """
    changes = {t: (p,) if t in ("thought", "correct") else p for t, p in mapping.items()}
    # A field that is mapped by hand no longer has the meaning of its name.
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
    """The layout of a record; a pool's own form counts as a layout too."""
    try:
        found = find_layout(record)
    except InputError:
        if is_needed:
            raise
        return None
    return found or (MESSAGES if record.get("messages") is not None else PLAIN)


def read_chat_json(text: str) -> Any:
    """A chat that a text holds as JSON, or the text if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if _is_chat(value) else text


# --- Paths -------------------------------------------------------------------------------------


def value_at(record: Any, path: str | None) -> Any:
    """The value of a field; a dot leads into an object, or into each object of a list.

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
    """A record without the values at some paths, and without objects left empty.

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
