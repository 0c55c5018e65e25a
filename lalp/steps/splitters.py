"""Splitters by name for a whole pool, and the files that hold given steps.

A splitter is one of: ``sentences``, ``paragraphs`` and ``semantic``; ``turns``, if the assistant
has several; ``32t``, chunks of that many student tokens; a steps file, as `lalp segment` writes it;
or the steps themselves, as a mapping of response ids to spans.
"""

from __future__ import annotations

import json
import operator
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalp.errors import InputError, did_you_mean
from lalp.extras import require
from lalp.files import atomic_path
from lalp.pools.lines import numbered_records
from lalp.pools.pool import Pool, Response, show
from lalp.pools.spool import is_spooled, response_facts
from lalp.steps.sentences import SPLITTERS, Span, cut_at

# Imported when needed: torch and transformers take seconds, sentences do not.
if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

Steps = Mapping[str, Sequence[Span]]

# Splitters that need only a text; a single turn is one step.
BY_TEXT: Mapping[str, Callable[[str], list[Span]]] = {
    **SPLITTERS,
    "turns": lambda text: [(0, len(text))] if text else [],
}

_CHUNKS = re.compile(r"([1-9]\d{0,6})t", re.ASCII)
_FILE_SUFFIX = ".jsonl"


def check_splitter(splitter: str | Steps) -> None:
    """Refuse an unknown splitter before anything is computed."""
    if isinstance(splitter, Mapping):
        return
    if splitter == "llm":
        raise InputError(
            "splitter 'llm' asks a server: run `lalp segment --splitter llm --llm-url URL "
            "--llm-model NAME --out steps.jsonl` first, then give steps.jsonl as the splitter"
        )
    if splitter == "semantic":
        require("semantic", "splitter semantic")
    known = {*SPLITTERS, "semantic", "turns"}
    if not (splitter in known or chunk_size(splitter) or is_steps_file(splitter)):
        listed = did_you_mean(splitter, sorted(known))
        more = "numbers of tokens such as 32t, and steps files (.jsonl) written by lalp segment"
        raise InputError(f"unknown step splitter {splitter!r}: {listed}, {more}")


def is_steps_file(splitter: str) -> bool:
    """Whether a splitter names a file of given steps."""
    return splitter.endswith(_FILE_SUFFIX)


def chunk_size(splitter: str) -> int | None:
    """Tokens per step of a splitter such as ``32t``; None for any other."""
    match = _CHUNKS.fullmatch(splitter)
    return int(match[1]) if match else None


def split_pool(
    pool: Pool,
    splitter: str | Steps = "sentences",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    embedder: str = "all-minilm-l6-v2",
) -> Mapping[str, list[Span]]:
    """Cut every response of a pool into steps: character spans by response id.

    Only ``32t`` needs the student's tokenizer, only ``semantic`` an embedder (see `load_embedder`).

    Raises:
        InputError: If the splitter is not understood, or given steps do not fit the pool.
    """
    check_splitter(splitter)
    if isinstance(splitter, Mapping):
        return _check_steps(pool, splitter)
    if splitter in BY_TEXT:
        return _split_each(pool, lambda response: split_response(response, splitter))
    if splitter == "semantic":
        from lalp.steps.semantic import split_semantic

        steps = split_semantic(pool, embedder)
        by_id = ((r.response_id, part_turns(r, steps[r.response_id])) for r in pool.responses)
        return dict(by_id)
    size = chunk_size(splitter)
    if size is None:
        return load_steps(splitter, pool)
    if tokenizer is None:
        raise InputError(f"splitter '{size}t' counts tokens: give the student's tokenizer")
    from lalp.students.encoding import encode, given_tokens, render_prompt

    @lru_cache(maxsize=256)  # responses to one prompt are near each other
    def render(prompt_id: str) -> str:
        return render_prompt(tokenizer, pool.prompts[prompt_id])

    def split_tokens(response: Response) -> list[Span]:
        encoded = encode(tokenizer, render(response.prompt_id), response.text)
        if not response.given:
            return chunk_tokens(response.text, encoded.offsets, size)
        given, starts = set(given_tokens(encoded, response).tolist()), list[int]()
        ends = [end for _, end in response.given]
        own = [span for place, span in enumerate(encoded.offsets) if place not in given]
        for _, part in groupby(own, key=lambda span: bisect_right(ends, span[0])):
            starts += [start for start, _ in part][::size]
        return part_turns(response, cut_at(response.text, starts))

    return _split_each(pool, split_tokens)


def split_response(response: Response, splitter: str) -> list[Span]:
    r"""Steps of a response by ``sentences``, ``paragraphs`` or ``turns``.

    Each of the assistant's turns is cut alone. The text before a turn belongs to its first step, so
    with any window this step sees what it answers.

    Example:
        >>> text = "Go. On.\n\nWhy?\n\nSo. It is."
        >>> response = Response("r", "p", "Ada", text, given=((7, 15),))
        >>> [text[a:b] for a, b in split_response(response, "turns")]
        ['Go. On.', '\n\nWhy?\n\nSo. It is.']
    """
    spans: list[Span] = []
    for begin, end in response.parts:
        cut = BY_TEXT[splitter](response.text[begin:end])
        for number, (first, last) in enumerate(cut):
            place = begin + first if number else spans[-1][1] if spans else 0
            spans.append((place, begin + last))
    return spans


def part_turns(response: Response, spans: Sequence[Span]) -> list[Span]:
    """Steps that never cross the assistant's turns, as in `split_response`."""
    if not response.given:
        return list(spans)
    begins, ends = zip(*response.given, strict=True)
    # The last conditioning span that begins before a step.
    before = ((start, bisect_left(begins, start) - 1) for start, _ in spans)
    starts = {start for start, number in before if number < 0 or start > ends[number]}
    return cut_at(response.text, starts | set(begins))


def _split_each(pool: Pool, split: Callable[[Response], list[Span]]) -> Mapping[str, list[Span]]:
    if is_spooled(pool.responses):
        return _SpooledSteps(pool, split)
    return {response.response_id: split(response) for response in pool.responses}


class _SpooledSteps(Mapping[str, list[Span]]):
    """The steps of a pool that is larger than memory; each response's steps are made on request."""

    def __init__(self, pool: Pool, split: Callable[[Response], list[Span]]) -> None:
        self._responses, self._split = pool.responses, split
        self._places = _places(pool)

    def __getitem__(self, response_id: str) -> list[Span]:
        return self._split(self._responses[self._places[response_id]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _places(pool: Pool) -> dict[str, int]:
    """The place of each response in the pool."""
    return {facts[0]: place for place, facts in enumerate(response_facts(pool.responses))}


def chunk_tokens(text: str, offsets: Sequence[Span], size: int) -> list[Span]:
    """Cut a text before every ``size``-th token, by the tokens' character spans.

    A character made of several tokens stays whole; its step is then longer.
    """
    return cut_at(text, [start for start, _ in offsets[size::size]])


def load_steps(path: str | Path, pool: Pool) -> dict[str, list[Span]]:
    """Read the steps of a pool's responses from a file that `lalp segment` or `write_steps` wrote.

    Raises:
        InputError: If it does not hold the steps of each response once, as a partition of its text.
    """
    places = _places(pool)
    steps: dict[str, list[Span]] = {}
    for number, record in numbered_records(Path(path), "a steps file"):
        where = f"{path}, line {number}"
        if not isinstance(record, dict):
            raise InputError(f"{where}: must be a JSON object with response_id and steps")
        name, spans = record.get("response_id"), record.get("steps")
        if not isinstance(name, str):
            raise InputError(f"{where}: field 'response_id' must be a text")
        if not isinstance(spans, list):
            raise InputError(f"{where}: field 'steps' must be a list of [start, end]")
        if name not in places:
            raise InputError(f"{where}: response {show(name)} is not in the pool: cut this pool")
        if name in steps:
            raise InputError(f"{where}: response {show(name)} has steps in an earlier line already")
        steps[name] = _checked_spans(spans, pool.responses[places[name]].text, where)
    missing = [name for name in places if name not in steps]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(places)} responses have no steps, for example "
            f"{show(missing[0])}: cut this pool with lalp segment"
        )
    return steps


def write_steps(
    path: str | Path, pool: Pool, steps: Steps, fallbacks: Mapping[str, str] | None = None
) -> int:
    """Write steps as JSONL: ``prompt_id``, ``response_id``, ``teacher``, ``steps``; count them.

    ``fallbacks`` gives by response id why its steps are sentences, for the field ``fallback``.
    """
    num_steps = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for response in pool.responses:
            spans = steps[response.response_id]
            num_steps += len(spans)
            record = {
                "prompt_id": response.prompt_id,
                "response_id": response.response_id,
                "teacher": response.teacher,
                "steps": [list(span) for span in spans],
            }
            if fallbacks and response.response_id in fallbacks:
                record["fallback"] = fallbacks[response.response_id]
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return num_steps


def count_reasons(fallbacks: Mapping[str, str]) -> dict[str, int]:
    """Reasons why steps had to be sentences, with counts, most frequent first."""
    # Shares in brackets differ from response to response.
    kinds = Counter(reason.partition(" (")[0] for reason in fallbacks.values())
    return dict(kinds.most_common())


def _check_steps(pool: Pool, steps: Steps) -> dict[str, list[Span]]:
    """Given steps as plain lists, if they match the pool's responses exactly."""
    places = _places(pool)
    if unmatched := places.keys() ^ steps.keys():
        name = min(unmatched, key=str)
        problem = "has no steps" if name in places else "has steps but is not in the pool"
        raise InputError(f"the given steps do not fit the pool: response {show(name)} {problem}")
    return {
        response.response_id: _checked_spans(
            steps[response.response_id],
            response.text,
            f"given steps of response {show(response.response_id)}",
        )
        for response in pool.responses
    }


def _checked_spans(values: Sequence[Any], text: str, where: str) -> list[Span]:
    """Steps as plain spans, if they partition the text: no gap, no overlap, no empty one."""
    spans, place = [], 0
    for k, value in enumerate(values, 1):
        try:
            # `index` takes NumPy's integers, but neither floats nor texts.
            start, end = map(operator.index, value)
        except (TypeError, ValueError):
            raise InputError(f"{where}: step {k} must be [start, end] in characters") from None
        if start != place or end <= start:
            raise InputError(
                f"{where}: step {k} is [{start}, {end}) where one from {place} on is due: steps "
                "must follow each other without gap or overlap, and none be empty"
            )
        spans.append((start, end))
        place = end
    if place != len(text):
        raise InputError(
            f"{where}: the steps end at {place}, the response has {len(text)} characters: cut this "
            "pool"
        )
    return spans
