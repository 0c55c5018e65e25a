"""One turn of a chat: its parts, its thought, and its tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lalp.errors import InputError
from lalp.pools.pool import Message, Turn, located, show

THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
ROLES = {role: role for role in ("system", "user", "assistant", "tool")}
# Fields that only turns of tools have, or turns that call one.
_CALL_KEYS, _TOOL_KEYS = ("tool_calls", "function_call"), ("name", "tool_call_id")

_MARKS = re.compile(r"<\|(?:begin|end)_of_(?:thought|solution)\|>")
_MARKED = re.compile(
    r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>"
    r"\s*<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>\s*",
    re.DOTALL,
)


def join_thought(thought: str | None, answer: str, *, alone: bool = False) -> str:
    r"""A response from a thought and an answer; only the answer if there is no thought.

    The form's own white space replaces that around the thought and before the answer. ``alone``
    allows a missing answer, as before a tool call.

    Example:
        >>> join_thought("2 + 2 is 4.", "It is 4.")
        '<think>\n2 + 2 is 4.\n</think>\n\nIt is 4.'
    """
    if thought is None or not thought.strip():
        return answer
    for text, what in ((thought, "the thought"), (answer, "the answer")):
        if "<think>" in text or "</think>" in text:
            advice = "is in the answer already; leave the field of the thought out"
            raise InputError(f"{what} holds <think> marks: the thought {advice}")
    if not (alone or answer.strip()):
        raise InputError("a thought without an answer: the response is empty")
    return f"<think>\n{thought.strip()}\n</think>\n\n{answer.lstrip()}"


def join_marked(text: str) -> str:
    r"""A response with begin and end marks of thought and solution, joined by `join_thought`.

    Text without such marks stays as it is. InputError if they are not one thought, one solution.

    Example:
        >>> marks = "<|begin_of_{0}|>{1}<|end_of_{0}|>"
        >>> join_marked(marks.format("thought", "2 + 2.") + marks.format("solution", "4"))
        '<think>\n2 + 2.\n</think>\n\n4'
    """
    if not _MARKS.search(text):
        return text
    parts = _MARKED.fullmatch(text)
    if parts is None or any(_MARKS.search(part) for part in parts.groups()):
        found = " ".join(_MARKS.findall(text)[:6])
        raise InputError(f"marks are not those of one thought and one solution, but {found}")
    thought, solution = parts.groups()
    return join_thought(thought, solution.strip())


def has_thought(turn: Any) -> bool:
    """Whether a turn holds a thought beside its content, or thought marks in it."""
    if not isinstance(turn, Mapping):
        return False
    if any(turn.get(key) for key in THOUGHT_KEYS):
        return True
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        return any(isinstance(part, Mapping) and _thought_part(part) for part in content)
    return False


def read_turn(turn: Any, speakers: Mapping[str, str] = ROLES) -> Message:
    """A message from an object with role and content, or from and value; its thought is joined.

    ``speakers`` gives the role of each name. InputError for things that a message cannot hold: a
    tool's turn or call, an image, any other key.
    """
    return as_message(read_any_turn(turn, speakers))


def as_message(turn: Turn) -> Message:
    """A turn as a message; InputError if it is a tool's, or calls one."""
    if turn["role"] == "tool" or "tool_calls" in turn:
        what = "is a tool's" if turn["role"] == "tool" else "calls a tool"
        advice = "only behind the first assistant's turn of 'messages' it can be read"
        raise InputError(f"the turn {what}: {advice}")
    return Message(turn["role"], turn["content"])


def read_any_turn(turn: Any, speakers: Mapping[str, str] = ROLES) -> dict[str, Any]:
    """A turn as chat templates take it: role, content, and its tool calls.

    Like `read_turn`, but a tool's turn and calls are read too: ``tool_calls`` have their arguments
    as an object, and a tool's turn may have ``name`` and ``tool_call_id``.
    """
    if not isinstance(turn, Mapping):
        raise InputError(f"must be an object with role and content, not {show(turn)}")
    keys = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    name = _text(turn, keys[0])
    if name not in speakers:
        known = ", ".join(speakers)
        raise InputError(f"{keys[0]} must be {known}, not {show(name)}")
    role = speakers[name]
    if name == "function_call":  # ShareGPT's: the turn is nothing but the call
        rest = {key: value for key, value in turn.items() if key != keys[1]}
        turn = rest | {"tool_calls": turn.get(keys[1])}
    more = _tool_parts(turn, role)
    thoughts = _thoughts(turn)
    content = turn.get(keys[1])
    if isinstance(content, list):
        text, found = _parts(content)
        turn, thoughts = turn | {keys[1]: text}, thoughts + found
    elif role == "tool" and isinstance(content, Mapping):
        turn = turn | {keys[1]: json.dumps(content, ensure_ascii=False)}
    elif content is None and "tool_calls" in more:
        turn = turn | {keys[1]: ""}
    for key, value in turn.items():
        known = (*keys, *THOUGHT_KEYS, *_CALL_KEYS, *(_TOOL_KEYS if role == "tool" else ()))
        if key not in known and value is not None:
            raise InputError(f"'{key}' is not supported; remove it or set it to null")
    # An empty system message has a purpose: some templates add a default one without it. Tools may
    # find nothing, and a turn that calls one may have no text.
    calls = "tool_calls" in more
    text = _text(turn, keys[1], blank=role in ("system", "tool") or calls)
    if thoughts and role != "assistant":
        raise InputError(f"a {role} turn holds a thought; remove it")
    if len(set(thoughts)) > 1:
        raise InputError("two fields hold different thoughts; keep one")
    if thoughts:
        text = join_thought(thoughts[0], text, alone=calls)
    return {"role": role, "content": text} | more


def _tool_parts(turn: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The tool parts of a turn: an assistant's calls, or the call that a tool's turn answers."""
    given = [turn[key] for key in _CALL_KEYS if turn.get(key) not in (None, [], {}, "")]
    if given and role != "assistant":
        raise InputError(f"a {role} turn calls a tool; only the assistant can")
    if len(given) > 1:
        raise InputError("'tool_calls' and 'function_call' are both given; keep one")
    if given:
        return {"tool_calls": read_calls(given[0])}
    if role != "tool":
        return {}
    return {key: _text(turn, key) for key in _TOOL_KEYS if turn.get(key) not in (None, "")}


def read_calls(value: Any) -> list[dict[str, Any]]:
    r"""Tool calls as chat templates take them, from OpenAI's form, their short form or JSON.

    Example:
        >>> read_calls('{"name": "add", "arguments": "{\\"a\\": 3}"}')
        [{'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 3}}}]
    """
    if isinstance(value, str):
        value = _json(value, "a tool's call")
    calls = []
    for number, call in enumerate(value if isinstance(value, list) else [value], 1):
        with located(f"tool call {number}"):
            function = call.get("function", call) if isinstance(call, Mapping) else call
            if not isinstance(function, Mapping):
                raise InputError(f"must be an object with name and arguments, not {show(function)}")
            asked = function.get("arguments", function.get("parameters"))
            if isinstance(asked, str) and asked.strip():
                asked = _json(asked, "field 'arguments'")
            taken = ("name", "arguments", "parameters")
            read = {"name": _text(function, "name"), "arguments": asked or {}}
            read |= {k: v for k, v in function.items() if k not in taken and v is not None}
            rest = call if function is not call else {}
            more = {k: v for k, v in rest.items() if k != "type" and v is not None}
            calls.append(more | {"type": "function", "function": read})
    return calls


def read_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tools that a prompt offers, from JSON schemas or a JSON text of them; else none.

    Example:
        >>> [tool["name"] for tool in read_tools('[{"name": "add", "parameters": {}}]')]
        ['add']
        >>> read_tools("a calculator")
        ()
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    if not isinstance(value, list):
        return ()
    named = (isinstance(one, Mapping) and ("function" in one or "name" in one) for one in value)
    return tuple(value) if all(named) else ()


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from None


def _thoughts(turn: Mapping[str, Any]) -> list[str]:
    return [_text(turn, key) for key in THOUGHT_KEYS if turn.get(key) not in (None, "")]


def _parts(content: Sequence[Any]) -> tuple[str, list[str]]:
    """The text of a content's parts, joined by line breaks, and the thoughts among them."""
    texts, thoughts = [], []
    for number, part in enumerate(content, 1):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and _thought_part(part):
            thoughts.append(_thought_part(part))
        elif _is_text(part):
            texts.append(part["text"])
        else:
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise InputError(f"part {number} of the content is no text but {show(kind)}")
    return "\n".join(texts), ["\n".join(thoughts)] if thoughts else []


def _is_text(part: Any) -> bool:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        return False
    return part.get("type") in (None, "text", "input_text", "output_text")


def _thought_part(part: Mapping[str, Any]) -> str | None:
    if part.get("type") not in ("thinking", "reasoning"):
        return None
    texts = [part[key] for key in ("thinking", "reasoning", "text") if part.get(key)]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None


def _text(turn: Mapping[str, Any], name: str, *, blank: bool = False) -> str:
    value = turn.get(name)
    if value is None:
        raise InputError(f"field '{name}' is {'null' if name in turn else 'missing'}")
    if not isinstance(value, str):
        raise InputError(f"field '{name}' must be text, not {show(value)}")
    if not (blank or value.strip()):
        raise InputError(f"field '{name}' is empty" + (" (only whitespace)" if value else ""))
    return value
