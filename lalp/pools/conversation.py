"""Responses of several turns: the assistant's turns (scored) and those between them.

An agent's trace is such a response: its tool calls are its own, the tools' output is context.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lalp.errors import InputError
from lalp.pools.pool import Response, Turn


def first_answer(turns: Sequence[Turn]) -> int:
    """The place of a chat's first assistant's turn."""
    roles = [turn["role"] for turn in turns]
    return roles.index("assistant") if "assistant" in roles else len(roles)


def has_tools(turns: Sequence[Turn]) -> bool:
    """Whether a chat has a tool call or a tool's turn."""
    return any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns)


def check_response_turns(turns: Sequence[Turn]) -> None:
    """InputError unless there are turns that begin and end with the assistant's."""
    for turn, end, advice in (
        (turns[-1], "end", "leave out what follows it"),
        (turns[0], "begin", "what precedes it belongs to the prompt"),
    ):
        if turn["role"] != "assistant":
            found = f"must {end} with the assistant's turn, not that of {turn['role']}"
            raise InputError(f"{found}: {advice}")


def turns_text(response: Response) -> str | None:
    """The turns of a response as JSON for a score table; None for a single turn."""
    return json.dumps(response.turns, ensure_ascii=False) if response.turns else None


def spoken_text(turn: Turn) -> str:
    r"""An assistant's turn as text: its content, and each call of a tool as JSON in tags.

    Example:
        >>> call = {"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}
        >>> spoken_text({"role": "assistant", "content": "We add.", "tool_calls": [call]})
        'We add.\n<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>'
    """
    return turn["content"] + calls_text(turn)


def calls_text(turn: Turn) -> str:
    """The calls of a turn as text, with the line break before the first."""
    calls = [
        json.dumps(call["function"], ensure_ascii=False) for call in turn.get("tool_calls", ())
    ]
    text = "".join(f"\n<tool_call>\n{call}\n</tool_call>" for call in calls)
    return text if turn["content"].strip() else text.lstrip()


def heard_text(turn: Turn) -> str:
    """The text of a turn between two of the assistant's; a tool's is in tags."""
    if turn["role"] != "tool":
        return turn["content"]
    return f"<tool_response>\n{turn['content']}\n</tool_response>"


def join_turns(turns: Sequence[Turn]) -> tuple[str, tuple[tuple[int, int], ...]]:
    r"""A response of several turns as one text, and its spans that are context only.

    Pools and students without a chat template use this form; other students get their own
    (`lalp.students.turns`).

    Example:
        >>> said = [{"role": "assistant", "content": text} for text in ("Hm.", "7")]
        >>> join_turns([said[0], {"role": "user", "content": "Go on."}, said[1]])
        ('Hm.\n\nGo on.\n\n7', ((3, 13),))
    """
    text, given, waiting = "", list[tuple[int, int]](), list[Turn]()
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            waiting.append(turn)
            continue
        between = "".join(f"{heard_text(each)}\n\n" for each in waiting)
        between = f"\n\n{between}" if number else ""
        if between:
            given.append((len(text), len(text) + len(between)))
        text += between + spoken_text(turn)
        waiting = []
    return text, tuple(given)
