"""From a training file to the tokens of examples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.pools.lines import numbered_records
from lalp.pools.pool import Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.records import build_pool
from lalp.scoring.columns import GALP
from lalp.students.encoding import Encoded, encode, given_tokens, render_prompt
from lalp.students.thinking import shape_response

IGNORED = -100  # the label of a token outside the loss

# A training file, or its content.
TrainingData = str | os.PathLike | Sequence[tuple[Prompt, Response]]


@dataclass(frozen=True)
class HeldOut:
    """Responses that are never trained on, and the settings that measure their likelihood.

    ``splitter`` cuts them into steps, as in `lalp.scoring.run.score`; the local likelihood (Eq. 3)
    has the ``window``, for example ``4``. Responses to one prompt are scored together.
    """

    pool: Pool
    splitter: str
    window: str


@dataclass(frozen=True)
class Example:
    """One sequence to train on."""

    input_ids: tuple[int, ...]  # prompt, response and end of turn, cut to the recipe's length
    num_prompt: int  # number of tokens in the prompt; the others are in the loss
    cut: bool  # whether tokens were left out
    # Places among them outside the loss: users' and tools' text between the assistant's turns.
    given: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens in the loss: a token without one before it cannot be predicted."""
        return len(self.input_ids) - max(1, self.num_prompt) - len(self.given)

    @property
    def labels(self) -> list[int]:
        """The ids in the loss, with -100 in place of all others."""
        labels = [IGNORED] * self.num_prompt + list(self.input_ids[self.num_prompt :])
        for place in self.given:
            labels[place] = IGNORED
        return labels


def load_examples(data: TrainingData) -> list[tuple[Prompt, Response]]:
    """Read a training file in the format ``messages`` or ``prompt-completion``, or a pool."""
    if not isinstance(data, str | os.PathLike):
        return list(data)
    path = Path(data)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the .jsonl file that lalp select wrote")
    if path.suffix == ".jsonl" and path.is_file() and path.stat().st_size:
        pool = build_pool(_pool_records(path), str(path), "line")
    else:
        _refuse_scores(path)
        pool = load_pool(path)  # otherwise it reports the file's error
    return [(pool.prompts[response.prompt_id], response) for response in pool.responses]


def _refuse_scores(path: Path) -> None:
    """InputError if the file is a table of scores, which holds all candidates."""
    with suppress(pa.ArrowException, OSError):
        if path.suffix == ".parquet" and GALP in pq.read_schema(path).names:
            what = "is a score table with every candidate, not a training file"
            raise InputError(f"{path}: {what}: choose among them with lalp select first")


def _pool_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbered records; those with a prompt and a completion become ``messages`` records."""
    for number, record in numbered_records(path, "a training file"):
        # In a pool, ``completion`` is a user's own field.
        is_pair = isinstance(record, dict) and not {"messages", "response"} & set(record)
        if is_pair and (completion := record.pop("completion", None)) is not None:
            prompt = record.pop("prompt", None)
            if not (isinstance(prompt, list) and isinstance(completion, list)):
                wrong = "'prompt' and 'completion' must be lists of messages"
                raise InputError(f"{path}, line {number}: {wrong}")
            record |= {"messages": [*prompt, *completion], "num_prompt_turns": len(prompt)}
        yield number, record


def cut_lengths(prompt: int, completion: int, limit: int) -> tuple[int, int]:
    """Numbers of prompt and completion tokens to keep, by LLaMA-Factory's rule, as in the paper.

    A part shorter than half the limit stays whole, and the other gets the rest. Two long parts
    share the limit in proportion. Both lose their ends.

    Example:
        >>> cut_lengths(100, 20, 50), cut_lengths(100, 300, 40)
        ((30, 20), (10, 30))
    """
    if prompt + completion <= limit:
        return prompt, completion
    if 2 * completion < limit:
        kept = completion
    elif 2 * prompt < limit:
        kept = limit - prompt
    else:
        # In floating point, like there: an exact quotient may differ by one token.
        kept = int(limit * (completion / (prompt + completion)))
    return min(prompt, limit - kept), kept


def make_example(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    response: Response,
    limit: int,
    end: tuple[int, ...],
) -> Example:
    """Tokenize one response like LALP's scores, and end it; all of its tokens are in the loss.

    With several turns, only the assistant's are in the loss, each with its end. The sequence has at
    most ``limit`` tokens and ends in those of `lalp.students.encoding.end_of_turn`. InputError if
    cutting leaves no token in the loss, or the tokens differ from the response.
    """
    response = shape_response(response, "join", tokenizer)
    encoded = encode(tokenizer, render_prompt(tokenizer, prompt), response.text)
    if encoded.lost:
        advice = "leave the response out, or take another student"
        raise InputError(f"response {response.response_id!r}: {encoded.lost}: {advice}")
    asked, completion = encoded.prompt_ids, (*encoded.response_ids, *end)
    kept_prompt, kept = cut_lengths(len(asked), len(completion), limit)
    is_cut = kept_prompt + kept < len(asked) + len(completion)
    given = (place for place in _given_places(tokenizer, encoded, response, end) if place < kept)
    given = tuple(kept_prompt + place for place in given)
    example = Example((*asked[:kept_prompt], *completion[:kept]), kept_prompt, is_cut, given)
    if kept < 1 or example.num_tokens < 1:
        lost = f"its prompt has {len(asked)} tokens, so that nothing of the response is left"
        advice = "raise max_length or leave the response out"
        raise InputError(f"response {response.response_id!r}: {lost} within {limit}: {advice}")
    return example


def _given_places(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    response: Response,
    end: tuple[int, ...],
) -> list[int]:
    """Places of response tokens that are only context; the end of each turn is learned too."""
    ids, given = encoded.response_ids, given_tokens(encoded, response)
    runs = np.split(given, np.flatnonzero(np.diff(given) > 1) + 1)
    places = []
    for run in runs if len(given) else ():
        token = tokenizer.added_tokens_decoder.get(ids[run[0]])
        same = [a == b for a, b in zip(ids[run[0] : run[-1] + 1], end, strict=False)]
        # A turn that calls a tool may end in a different control token than an answer.
        learned = max(sum(accumulate(same, min)), int(token is not None and token.special))
        places += run[learned:].tolist()
    return places


def order_examples(
    lengths: Sequence[int], epochs: int, per_step: int, seed: int
) -> list[list[int | None]]:
    """The examples of each optimizer step, drawn beforehand.

    Every epoch is a new permutation. Within a step, long examples come first, so forward passes
    hold examples of similar length. That changes no step's loss or gradient. An epoch's last step
    is filled up with None, so all processes have the same number of batches.

    ``lengths`` are in tokens; ``per_step`` counts the examples of all processes.

    Example:
        >>> order_examples([5, 9, 7], epochs=1, per_step=2, seed=0)
        [[2, 0], [1, None]]
    """
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(epochs):
        order = rng.permutation(len(lengths)).tolist()
        for start in range(0, len(order), per_step):
            step = sorted(order[start : start + per_step], key=lambda i: -lengths[i])
            steps.append(step + [None] * (per_step - len(step)))
    return steps
