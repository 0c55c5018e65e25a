r"""Thoughts in responses: joined as the student's own template joins them, kept alone, or dropped.

A pool holds a thought and an answer in one text, in the form of `lalp.pools.turns.join_thought`. If
a student's template joins them differently, with other tags or white space, the student gets that
form: it was trained on it, and its trainers will write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.pools.conversation import join_turns
from lalp.pools.pool import Message, Pool, Prompt, Response, located
from lalp.pools.spool import change_responses
from lalp.pools.turns import THOUGHT_KEYS, join_thought
from lalp.students.encoding import CLOSING_TAG, TAG, opened_thought, render_prompt
from lalp.students.templates import apply_template
from lalp.students.turns import write_turns

THINKING = ("join", "only", "drop")

_THOUGHT, _ANSWER = "what-was-thought", "what-was-answered"
_ENDED = re.compile(rf"\s*(?:{TAG})?.*{CLOSING_TAG}", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class ThoughtForm:
    r"""A template's text before a thought, and between it and the answer."""

    before: str
    between: str

    def join(self, thought: str, answer: str) -> str:
        r"""A response from a thought and an answer.

        Example:
            >>> ThoughtForm("[THINK]", "[/THINK]").join("2 + 2 is 4.", "It is 4.")
            '[THINK]2 + 2 is 4.[/THINK]It is 4.'
        """
        return f"{self.before}{thought}{self.between}{answer}"


# The form of a pool, and of students whose template knows no thoughts.
PLAIN = ThoughtForm(*join_thought(_THOUGHT, _ANSWER).removesuffix(_ANSWER).split(_THOUGHT))
_JOINED = re.compile(f"{re.escape(PLAIN.before)}(.*){re.escape(PLAIN.between)}(.*)", re.DOTALL)


def thought_form(tokenizer: PreTrainedTokenizerBase) -> ThoughtForm:
    """How the student's chat template joins thought and answer; `PLAIN` if it joins none."""
    if not tokenizer.chat_template:
        return PLAIN
    return _read_form(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _read_form(tokenizer: PreTrainedTokenizerBase, template: str) -> ThoughtForm:
    try:
        asked = render_prompt(tokenizer, Prompt("probe", (Message("user", "Hello"),)))
    except InputError:
        return PLAIN  # code that renders a prompt reports it
    # The tag at the end of a prompt is the start of the form, so the response has it too.
    asked = asked.removesuffix(opened_thought(asked))
    for text in _tries(tokenizer):
        pattern = rf"{re.escape(asked)}(.*){_THOUGHT}(.*){_ANSWER}.*"
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return ThoughtForm(*found.groups())
    return PLAIN


def _answered(tokenizer: PreTrainedTokenizerBase, content: Any, **fields: str) -> str:
    answer = {"role": "assistant", "content": content, **fields}
    return apply_template(tokenizer, [{"role": "user", "content": "Hello"}, answer])


def _tries(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """A chat with a thought, in each form that templates read."""
    for name in THOUGHT_KEYS:
        with suppress(ValueError):
            yield _answered(tokenizer, _ANSWER, **{name: _THOUGHT})
    parts = [{"type": "thinking", "thinking": _THOUGHT}, {"type": "text", "text": _ANSWER}]
    with suppress(ValueError):
        # A template without support for parts may write their Python or JSON.
        if _answered(tokenizer, parts[1:]) == _answered(tokenizer, _ANSWER):
            yield _answered(tokenizer, parts)


def join_as_student(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A response with its thought in the student's form instead of the pool's; else unchanged."""
    form = thought_form(tokenizer)
    found = None if form == PLAIN else _JOINED.fullmatch(text)
    return form.join(*found.groups()) if found else text


def shape_thinking(
    pool: Pool, thinking: str = "join", tokenizer: PreTrainedTokenizerBase | None = None
) -> Pool:
    """The pool with its thoughts joined as the student's template joins them, alone, or dropped.

    Args:
        pool: Its responses hold a thought before ``</think>`` or a tag like it, or none.
        thinking: ``join``; ``only``: the thought with its tags; ``drop``: the text after it.
        tokenizer: The student's; needed for ``join``.

    Raises:
        InputError: If ``thinking`` is another word, or if nothing is left of a response.

    Example:
        >>> prompt = Prompt("p", (Message("user", "2 + 2?"),))
        >>> response = Response("r", "p", "Ada", "<think>Two more.</think> 4")
        >>> shape_thinking(Pool({"p": prompt}, (response,)), "drop").responses[0].text
        '4'
    """
    if thinking not in THINKING:
        raise InputError(f"thinking is {', '.join(THINKING)}, not {thinking!r}")
    if thinking == "join" and tokenizer is None:
        return pool

    def change(response: Response) -> Response:
        return shape_response(response, thinking, tokenizer)

    return replace(pool, responses=change_responses(pool.responses, change))


def shape_response(
    response: Response, thinking: str = "join", tokenizer: PreTrainedTokenizerBase | None = None
) -> Response:
    """One response as `shape_thinking` makes it, for scoring and training the student."""

    def change(text: str) -> str:
        if thinking == "join":
            return join_as_student(tokenizer, text) if tokenizer else text
        return _thought_of(text) if thinking == "only" else _answer_of(text)

    which = f"response {response.response_id!r}"
    if response.turns and thinking == "only":
        why = "has several turns, whose thoughts alone are no text"
        raise InputError(f"{which} {why}: leave it out, or take another --thinking")
    turns = [
        turn | {"content": change(turn["content"])} if turn["role"] == "assistant" else turn
        for turn in response.turns or [{"role": "assistant", "content": response.text}]
    ]
    if not all(
        turn["content"].strip() or turn["role"] == "tool" or "tool_calls" in turn for turn in turns
    ):
        lacks = "thought" if thinking == "only" else "answer behind its thought"
        raise InputError(f"{which} has no {lacks}: leave it out, or take another --thinking")
    if not response.turns:
        text = turns[0]["content"]
        return response if text == response.text else replace(response, text=text)
    with located(which):
        text, given = write_turns(tokenizer, turns) if tokenizer else join_turns(turns)
    # The turns are kept without the student's form, because another student has its own.
    kept = response.turns if thinking == "join" else tuple(turns)
    return replace(response, text=text, given=given, turns=kept)


def _thought_of(text: str) -> str:
    found = _ENDED.match(text)
    return found[0] if found else ""


def _answer_of(text: str) -> str:
    found = _ENDED.match(text)
    return text[found.end() :].lstrip() if found else text
