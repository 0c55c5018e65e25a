"""Prepare responses for scoring: group them by prompt, cut them into steps, encode them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.files import digest
from lalp.pools.pool import Pool, Prompt, Response
from lalp.pools.spool import is_spooled, response_facts
from lalp.scoring.windows import TokenSpan
from lalp.steps.sentences import Span
from lalp.steps.splitters import Steps, split_pool
from lalp.students.encoding import (
    Encoded,
    assign_steps,
    control_token_note,
    encode,
    given_tokens,
    own_span,
    render_prompt,
)
from lalp.students.thinking import shape_thinking

log = logging.getLogger("lalp")


@dataclass(frozen=True)
class PromptGroup:
    """One prompt with its responses; it is scored, stored and resumed as a whole."""

    prompt: Prompt
    prompt_text: str  # as the chat template renders it; some templates write today's date
    responses: tuple[Response, ...]
    steps: tuple[tuple[Span, ...], ...]  # character spans of each response's steps

    @cached_property
    def digest(self) -> str:
        """Short hash of the prompt, the responses' texts, their unscored spans and their steps."""
        parts = [self.prompt_text, [r.text for r in self.responses], self.steps]
        given = [response.given for response in self.responses]
        return digest([*parts, given] if any(given) else parts)


@dataclass(frozen=True)
class Task:
    """One response to score."""

    encoded: Encoded
    step_spans: tuple[TokenSpan, ...]  # empty for a step in which no token begins
    limit: int  # longest sequence, prompt included, that the student can read
    # Places of the tokens that are read but not scored: the text between the assistant's turns.
    given: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """The number of all tokens after the prompt."""
        return len(self.encoded.response_ids)

    @cached_property
    def is_own(self) -> Bool[np.ndarray, " tokens"]:
        """A mask of the scored tokens: the assistant's."""
        is_own = np.ones(self.num_tokens, dtype=bool)
        is_own[list(self.given)] = False
        return is_own

    @property
    def num_scored(self) -> int:
        """The number of scored tokens: ``T`` in the paper."""
        return self.num_tokens - len(self.given)

    def own_span(self, span: TokenSpan) -> TokenSpan:
        """The span without given tokens at its ends; if all are given, an empty one at its end."""
        places = np.flatnonzero(self.is_own[slice(*span)]) + span[0]
        return (int(places[0]), int(places[-1]) + 1) if len(places) else (span[1], span[1])

    def fits(self, start: int, end: int) -> bool:
        """Whether prompt and response tokens ``[start, end)`` fit the student's positions."""
        return len(self.encoded.prompt_ids) + end - start <= self.limit

    def is_readable(self, start: int, span: TokenSpan) -> bool:
        """Whether ``span`` has tokens, and the student can read all from ``start`` to its end."""
        return span[0] < span[1] and self.fits(start, span[1])


def group_responses(
    pool: Pool,
    tokenizer: PreTrainedTokenizerBase,
    splitter: str | Steps = "sentences",
    thinking: str = "join",
) -> Sequence[PromptGroup]:
    """Group responses by prompt and cut them into steps, as `lalp.score` does.

    Prompts are in the pool's order. The responses to a prompt are sorted by text, so the same
    candidates have the same scores whatever their order in the pool. Before that,
    `shape_thinking` joins thoughts, keeps only them, or drops them. Given steps must fit the
    resulting texts.

    Raises:
        InputError: If given steps do not fit the pool.
    """
    pool = shape_thinking(pool, thinking, tokenizer)
    steps = split_pool(pool, splitter, tokenizer=tokenizer)
    if note := control_token_note(tokenizer, pool.responses):
        log.warning("%s", note)
    groups = _Groups(pool, steps, tokenizer)
    return groups if is_spooled(pool.responses) else list(groups)


class _Groups(Sequence[PromptGroup]):
    """The groups of a pool; each is made on request."""

    def __init__(self, pool: Pool, steps: Steps, tokenizer: PreTrainedTokenizerBase) -> None:
        self._pool, self._steps, self._tokenizer = pool, steps, tokenizer
        members: dict[str, list[int]] = {}
        for place, (_, prompt_id, *_) in enumerate(response_facts(pool.responses)):
            members.setdefault(prompt_id, []).append(place)
        self._members = list(members.items())

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, number: int) -> PromptGroup:
        prompt_id, places = self._members[number]
        responses = (self._pool.responses[place] for place in places)
        cut = [(response, tuple(self._steps[response.response_id])) for response in responses]
        cut.sort(key=lambda pair: (pair[0].text, pair[1]))
        prompt = self._pool.prompts[prompt_id]
        return PromptGroup(
            prompt=prompt,
            prompt_text=render_prompt(self._tokenizer, prompt),
            responses=tuple(response for response, _ in cut),
            steps=tuple(steps for _, steps in cut),
        )


def make_tasks(group: PromptGroup, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Task]:
    """Tokenize the responses of one prompt; ``limit`` is as in `Task`.

    A step without any of the response's own text is left out. The text that the chat template
    writes itself (see `own_span`), the text between the assistant's turns, and white space beside
    either do not count as the response's own.
    """
    tasks = []
    for response, steps in zip(group.responses, group.steps, strict=True):
        encoded = encode(tokenizer, group.prompt_text, response.text)
        own = _own_steps(response, steps, own_span(tokenizer, group.prompt_text, response.text))
        spans = assign_steps(response.text, encoded.offsets, own)
        given = tuple(given_tokens(encoded, response).tolist())
        tasks.append(Task(encoded, tuple(spans), limit, given))
    return tasks


def _own_steps(response: Response, steps: Sequence[Span], own_span: Span) -> list[Span]:
    """The steps that hold some of the response's own text."""
    text, (begin, end) = response.text, own_span
    if not response.given:
        return [
            (start, stop)
            for start, stop in steps
            if (begin <= start and stop <= end) or text[max(start, begin) : min(stop, end)].strip()
        ]
    is_own = np.zeros(len(text) + 1, dtype=np.int64)
    for first, last in response.parts:
        is_own[first + 1 : last + 1] = [not character.isspace() for character in text[first:last]]
    is_own[: begin + 1] = is_own[end + 1 :] = 0
    before = is_own.cumsum()  # number of own characters before each place
    return [(start, stop) for start, stop in steps if before[stop] > before[start]]
