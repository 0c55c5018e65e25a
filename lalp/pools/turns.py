"""One turn of a chat as a message: its parts, and what was thought before it was said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lalp.errors import InputError
from lalp.pools.pool import Message, show

THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
ROLES = {role: role for role in ("system", "user", "assistant")}

_MARKS = re.compile(r"<\|(?:begin|end)_of_(?:thought|solution)\|>")
_MARKED = re.compile(
    r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>"
    r"\s*<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>\s*",
    re.DOTALL,
)


def join_thought(thought: str | None, answer: str) -> str:
    r"""A response of what was thought and what was answered; the answer alone without a thought.

    White space around the thought and before the answer gives way to the form's own.

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
    if not answer.strip():
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
    """Whether a turn holds a thought beside its content, or marks of one in it."""
    if not isinstance(turn, Mapping):
        return False
    if any(turn.get(key) for key in THOUGHT_KEYS):
        return True
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        return any(isinstance(part, Mapping) and _thought_part(part) for part in content)
    return False


def read_turn(turn: Any, speakers: Mapping[str, str] = ROLES) -> Message:
    """A message of an object with role and content, or from and value; its thought is joined.

    ``speakers`` gives the role of each name. InputError for what a message cannot hold: a tool's
    turn or call, an image, any other key.
    """
    if not isinstance(turn, Mapping):
        raise InputError(f"must be an object with role and content, not {show(turn)}")
    keys = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    name = _text(turn, keys[0])
    if name not in speakers:
        known = ", ".join(speakers)
        raise InputError(f"{keys[0]} must be {known}, not {show(name)}")
    role = speakers[name]
    thoughts = _thoughts(turn)
    if isinstance(turn.get(keys[1]), list):
        content, more = _parts(turn[keys[1]])
        turn, thoughts = turn | {keys[1]: content}, thoughts + more
    for key, value in turn.items():
        if key not in (*keys, *THOUGHT_KEYS) and value is not None:
            raise InputError(f"'{key}' is not supported; remove it or set it to null")
    # An empty system message is meant: some templates add a default one without it.
    text = _text(turn, keys[1], blank=role == "system")
    if not thoughts:
        return Message(role, text)
    if role != "assistant":
        raise InputError(f"a {role} turn holds a thought; remove it")
    if len(set(thoughts)) > 1:
        raise InputError("two fields hold different thoughts; keep one")
    return Message(role, join_thought(thoughts[0], text))


def _thoughts(turn: Mapping[str, Any]) -> list[str]:
    return [_text(turn, key) for key in THOUGHT_KEYS if turn.get(key) not in (None, "")]


def _parts(content: Sequence[Any]) -> tuple[str, list[str]]:
    """The text of a content's parts, a line break between two, and the thoughts among them."""
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
