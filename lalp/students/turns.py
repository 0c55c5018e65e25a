"""Responses of several turns as a student's chat template writes them.

The assistant's text stays as it is, and its tool calls take the template's form. The template's own
text goes between two of its turns: the end of the turn, a user's or a tool's text, the start of the
next. So each turn follows the text that the student would read before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.pools.conversation import calls_text, heard_text, join_turns
from lalp.pools.pool import Turn
from lalp.students.encoding import own_span, without_end
from lalp.students.templates import apply_template

_SAID = "what-the-assistant-said"
_ASKED = {"role": "user", "content": "Hello"}


def write_turns(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of a response's turns, and its character spans that are only context.

    A student without a chat template gets the pool's form. If a template drops a call or knows no
    tool turns, its student gets it in part: the call is text, and the tool's turn a user's.

    Raises:
        InputError: If the template refuses such turns in every form, or a turn is left empty.
    """
    if not tokenizer.chat_template:
        return join_turns(turns)
    text, between, given = "", "", list[tuple[int, int]]()
    for number, (turn, heard) in enumerate(_exchanges(turns), 1):
        begin, end = own_span(tokenizer, between, turn["content"])
        calls, between = _behind(tokenizer, turn, heard)
        said = turn["content"][begin:end] + calls
        if not said.strip():
            raise InputError(f"the assistant's turn {number} of the response is empty")
        text += said
        if between:
            given.append((len(text), len(text) + len(between)))
            text += between
    return text, tuple(given)


def _exchanges(turns: Sequence[Turn]) -> Iterator[tuple[Turn, list[Turn] | None]]:
    """Each of the assistant's turns, and the turns up to its next one; None after the last."""
    places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    for place, following in zip(places, [*places[1:], None], strict=True):
        yield turns[place], None if following is None else list(turns[place + 1 : following])


def _behind(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, heard: list[Turn] | None
) -> tuple[str, str]:
    """The text after an assistant's words: its calls, and all up to its next turn, if any."""
    why = "it leaves something out"
    for said, follows in _forms(turn, heard or []):
        try:
            found = _read_behind(tokenizer, turn, said, None if heard is None else follows)
        except ValueError as error:
            why = str(error)
            continue
        if found is not None:
            return found
    refused = f"the student's chat template refuses a response of several turns ({why})"
    raise InputError(f"{refused}: leave it out, or take another student")


def _forms(turn: Turn, heard: list[Turn]) -> Iterator[tuple[Turn, list[Turn]]]:
    """The ways to give a template a turn and the turns after it, the template's own way first."""
    said = {"role": "assistant", "content": _SAID}
    if calls := turn.get("tool_calls"):
        yield said | {"tool_calls": calls}, heard
        if not turn["content"].strip():  # some write either words or calls
            yield said | {"content": "", "tool_calls": calls}, heard
    said["content"] += calls_text(turn)
    yield said, heard
    merged: list[Turn] = []
    for each in heard:
        role = "user" if each["role"] == "tool" else each["role"]
        before = merged.pop()["content"] + "\n\n" if merged and merged[-1]["role"] == role else ""
        merged.append({"role": role, "content": before + heard_text(each)})
    yield said, merged


def _read_behind(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, said: Turn, follows: list[Turn] | None
) -> tuple[str, str] | None:
    """Like `_behind`, in one of its forms; None if the template does not write all of it."""
    alone = _after_words(tokenizer, said, [])
    calls = calls_text(turn)
    if "tool_calls" in said and alone is not None:
        calls = without_end(tokenizer, alone)
        if not all(call["function"]["name"] in calls for call in turn["tool_calls"]):
            return None
    if alone is None or not alone.startswith(calls):
        return None
    behind = calls if follows is None else _after_words(tokenizer, said, follows)
    if behind is None or not behind.startswith(calls):
        return None
    between = behind[len(calls) :]
    if not all(_is_written(each["content"], between) for each in follows or ()):
        return None
    ends_line = not turn["content"].strip() or turn["content"].endswith("\n")
    return calls.lstrip("\n") if ends_line else calls, between


def _after_words(tokenizer: PreTrainedTokenizerBase, said: Turn, follows: list[Turn]) -> str | None:
    """The template's text after an assistant's words; None if these are missing."""
    text = apply_template(tokenizer, [_ASKED, said, *follows], add_generation_prompt=bool(follows))
    if said["content"]:
        _, words, behind = text.partition(_SAID)
        return behind if words else None
    asked = apply_template(tokenizer, [_ASKED], add_generation_prompt=True)
    return text.removeprefix(asked) if text.startswith(asked) else None


def _is_written(content: str, text: str) -> bool:
    """Whether a text holds a tool's or user's words, unchanged or as JSON."""
    said = content.strip()
    return said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text
