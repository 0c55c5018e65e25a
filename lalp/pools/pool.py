"""Prompts, responses and the pool that holds them.

A pool is a set of prompts, each with several responses by several teachers (paper, Sec. 3.1).
On disk it is JSONL or Parquet, one response a record:

========================  ========================================================================
``prompt_id``             text; names the prompt
``prompt``                text (one user message), or a list of ``{"role", "content"}`` messages
                          that ends with the user's; roles ``system``, ``user``, ``assistant``
``teacher``               text; who wrote the response
``response``              text
``response_id``           optional text; default ``prompt_id/teacher/n``, n counting from 0
``answer``                optional text or number: the reference answer, one for each prompt
``correct``               optional true, false or null
any other field           kept in ``Response.extra``
========================  ========================================================================

Hugging Face ``messages`` records are read too: the last message is the assistant's and is the
response, what precedes it is the prompt. Such a record may lack ``prompt_id`` (default: a hash of
the prompt's messages) and ``teacher`` (default: ``unknown``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from lalp.errors import InputError

REQUIRED_FIELDS = ("prompt_id", "prompt", "teacher", "response")
POOL_FIELDS = (*REQUIRED_FIELDS, "response_id", "answer", "correct")
RESERVED_FIELDS = (*POOL_FIELDS, "messages")


@dataclass(frozen=True)
class Message:
    """One turn of a chat: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A question: the chat that precedes the response, and its reference answer if known."""

    prompt_id: str
    messages: tuple[Message, ...]
    answer: str | None = None


@dataclass(frozen=True)
class Response:
    """One reasoning trace by one teacher; ``correct`` is None where nobody verified it."""

    response_id: str
    prompt_id: str
    teacher: str
    text: str
    correct: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Prompts by id, responses in file order, and how many records were left out, by reason.

    Example:
        >>> prompt = Prompt("p", (Message("user", "What is 2 + 2?"),), answer="4")
        >>> pool = Pool({"p": prompt}, (Response("r", "p", "Ada", "It is 4.", correct=True),))
        >>> [response.text for response in pool.responses]
        ['It is 4.']
    """

    prompts: Mapping[str, Prompt]
    responses: tuple[Response, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


# Column types that keep their values' type where some are missing.
_DTYPES = {pa.string(): "str", pa.bool_(): "boolean", pa.int64(): "Int64", pa.float64(): "float64"}


def pool_frame(pool: Pool) -> pd.DataFrame:
    """One row per response, for tables and plots.

    Returns:
        Columns ``prompt_id, response_id, teacher, prompt`` (the last user message's text),
        ``response, answer, correct`` (nullable boolean), then the extra fields by name.

    Raises:
        InputError: If an extra field has the name of a record's own field.
    """
    rows = []
    for response in pool.responses:
        prompt = pool.prompts[response.prompt_id]
        row = {name: getattr(response, name) for name in ("prompt_id", "response_id", "teacher")}
        row |= {"prompt": prompt.messages[-1].content, "response": response.text}
        row |= {"answer": prompt.answer, "correct": response.correct}
        rows.append(row | checked_extra(response))
    texts = ("prompt_id", "response_id", "teacher", "prompt", "response", "answer")
    kinds = dict.fromkeys(texts, pa.string()) | {"correct": pa.bool_()} | extra_types(pool)
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=_DTYPES.get(kind, object))
            for name, kind in kinds.items()
        }
    )


def pool_summary(pool: Pool) -> dict[str, Any]:
    """Counts that tell what a pool holds, as plain values for JSON.

    Returns:
        ``num_duplicate_texts`` counts responses whose exact text another response to the same
        prompt already has; the keys of ``prompts_by_num_teachers`` are numbers as text.
    """
    teachers: dict[str, set[str]] = {prompt_id: set() for prompt_id in pool.prompts}
    for response in pool.responses:
        teachers[response.prompt_id].add(response.teacher)
    by_number = Counter(len(names) for names in teachers.values())
    marks = Counter(response.correct for response in pool.responses)
    texts = {(response.prompt_id, response.text) for response in pool.responses}
    return {
        "num_prompts": len(pool.prompts),
        "num_responses": len(pool.responses),
        "responses_by_teacher": dict(sorted(Counter(r.teacher for r in pool.responses).items())),
        "prompts_by_num_teachers": {str(n): by_number[n] for n in sorted(by_number)},
        "num_correct": marks[True],
        "num_incorrect": marks[False],
        "num_unverified": marks[None],
        "num_prompts_with_answer": sum(p.answer is not None for p in pool.prompts.values()),
        "num_duplicate_texts": len(pool.responses) - len(texts),
        "left_out": dict(pool.left_out),
    }


def checked_extra(response: Response) -> dict[str, Any]:
    """The extra fields, none of which has the name of a record's own field."""
    taken = [name for name in response.extra if name in RESERVED_FIELDS]
    if taken:
        raise InputError(
            f"response {show(response.response_id)}: the extra field {show(taken[0])} has the "
            "name of a record's own field; rename it"
        )
    return dict(response.extra)


def extra_types(pool: Pool) -> dict[str, pa.DataType]:
    """The Arrow type of each extra field, in order of first use: JSON where no plain type fits."""
    kinds: dict[str, set[type]] = {}
    for response in pool.responses:
        for name, value in response.extra.items():
            fits = not isinstance(value, int) or -(2**63) <= value < 2**63
            kinds.setdefault(name, set()).add(type(value) if fits else object)
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return {
        name: plain.get(types.pop(), pa.json_()) if len(types) == 1 else pa.json_()
        for name, types in kinds.items()
    }


def show(value: Any, width: int = 60) -> str:
    """A value for a message: its repr, cut at ``width``, and its type unless it is text.

    Example:
        >>> show([1, 2])
        '[1, 2] (list)'
    """
    text = repr(value)
    text = text if len(text) <= width else f"{text[: width - 3]}..."
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"
