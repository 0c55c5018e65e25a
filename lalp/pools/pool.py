"""Prompts, responses and the pool that holds them.

A pool is a set of prompts, each with several responses by several teachers (paper, Sec. 3.1). On
disk it is JSONL, Parquet, ``.json``, CSV or TSV, with one response per record:

========================  ========================================================================
``prompt_id``             text; names the prompt
``prompt``                text (one user message), or a list of ``{"role", "content"}`` messages
                          that ends with the user's; roles ``system``, ``user``, ``assistant``
``teacher``               text; who wrote the response
``response``              text, or a list of turns that begins and ends with the assistant's: these
                          are scored and trained on, and a user's or tool's between them condition
``response_id``           optional text; default ``prompt_id/teacher/n``, n counting from 0
``answer``                optional text or number: the reference answer, one for each prompt
``correct``               optional true, false or null
``tools``                 optional list of JSON schemas: what the prompt offers the assistant
any other field           kept in ``Response.extra``
========================  ========================================================================

Hugging Face ``messages`` records are read too: the last message is the assistant's and is the
response, what precedes it is the prompt. If a tool is called or speaks, the response is everything
from the assistant's first turn on; ``num_prompt_turns`` gives a different start. Such a record may
lack ``prompt_id`` (default: a hash of the prompt's messages) and ``teacher`` (default:
``unknown``).

A thought in ``reasoning_content``, ``reasoning``, ``thinking`` or a part of that type goes before a
message's content: ``<think>``, the thought, ``</think>``, an empty line, the content. Only
`lalp.pools.turns.join_thought` does this. Other parts must be texts; a line break separates them.

Records of other layouts become such records: `layouts.yaml` lists them, `lalp.pools.converting`
reads them. ``Response.extra`` keeps fields without a use; one with a name from above is
``original_NAME`` there. A record is refused if something would be lost or would have to be guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from typing import Any

import pandas as pd

from lalp.errors import InputError

REQUIRED_FIELDS = ("prompt_id", "prompt", "teacher", "response")
POOL_FIELDS = (*REQUIRED_FIELDS, "response_id", "answer", "correct")
RESERVED_FIELDS = (*POOL_FIELDS, "messages", "num_prompt_turns")
_MARKS = {"correct": True, "incorrect": False, "unverified": None}
_MOST_NAMES = 8


# A turn as chat templates take it: role, content, and perhaps tool_calls, name, tool_call_id.
Turn = Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of a chat: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A question: the chat that precedes the response, and its reference answer if known.

    ``tools`` are JSON schemas of the tools that the assistant may call.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Response:
    """One reasoning trace by one teacher; ``correct`` is None if nobody verified it.

    For an agent's trace or a chat, ``turns`` holds several turns: the assistant's, which are scored
    and trained on, and those between, which are context only. ``text`` is then all of them, and
    ``given`` has the character spans of the context, with the marks around it.
    """

    response_id: str
    prompt_id: str
    teacher: str
    text: str
    correct: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    given: tuple[tuple[int, int], ...] = ()

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Character spans of the text that the assistant wrote: one, or one for each turn."""
        bounds = [0, *(place for span in self.given for place in span), len(self.text)]
        return list(zip(bounds[::2], bounds[1::2], strict=True))


@dataclass(frozen=True)
class Pool:
    """Prompts by id, responses in file order, and how many records were left out, by reason.

    Example:
        >>> prompt = Prompt("p", (Message("user", "What is 2 + 2?"),), answer="4")
        >>> pool = Pool({"p": prompt}, (Response("r", "p", "Ada", "It is 4.", correct=True),))
        >>> [response.text for response in pool.responses]
        ['It is 4.']
        >>> pool
        <Pool: 1 prompt, 1 response, 1 teacher: Ada>
    """

    prompts: Mapping[str, Prompt]
    responses: Sequence[Response]  # a tuple, or read on request if the pool is larger than memory
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        # A pool may hold a million texts, which a notebook should not print.
        teachers = sorted({response.teacher for response in self.responses})
        sizes = {"prompt": self.prompts, "response": self.responses, "teacher": teachers}
        counts = [f"{len(all_):,} {name}{'s' * (len(all_) != 1)}" for name, all_ in sizes.items()]
        names = ", ".join([*teachers[:_MOST_NAMES], *["..."] * (len(teachers) > _MOST_NAMES)])
        return f"<Pool: {', '.join(counts)}{names and ': '}{names}>"

    def _repr_html_(self) -> str:
        """The display in a notebook: the line above, and a row for each teacher."""
        table = teacher_counts(self).rename_axis(index=None, columns="teacher")
        shown = table.to_html(border=0, float_format="{:,.0f}".format)
        return f"<p>{escape(repr(self)[1:-1])}</p>\n{shown}"


def teacher_counts(pool: Pool) -> pd.DataFrame:
    """A row for each teacher: prompts, responses, verdicts, and the mean length of a response.

    Example:
        >>> prompt = Prompt("p", (Message("user", "What is 2 + 2?"),))
        >>> pool = Pool({"p": prompt}, (Response("r", "p", "Ada", "It is 4.", correct=True),))
        >>> teacher_counts(pool).loc["Ada", ["responses", "correct", "mean characters"]].tolist()
        [1.0, 1.0, 8.0]
    """
    rows = [(r.teacher, r.prompt_id, r.correct, len(r.text)) for r in pool.responses]
    frame = pd.DataFrame(rows, columns=["teacher", "prompt", "correct", "length"])
    by_teacher = frame.groupby("teacher")
    marks = {name: frame["correct"].isin([mark]) for name, mark in _MARKS.items()}
    return pd.DataFrame(
        {
            "prompts": by_teacher["prompt"].nunique(),
            "responses": by_teacher.size(),
            **{name: is_so.groupby(frame["teacher"]).sum() for name, is_so in marks.items()},
            "mean characters": by_teacher["length"].mean(),
        }
    )


def pool_summary(pool: Pool) -> dict[str, Any]:
    """Counts that describe a pool, as plain values for JSON.

    ``num_duplicate_texts`` counts responses whose exact text another response to the same prompt
    already has. ``num_multi_turn`` counts those with several assistant turns; the keys of
    ``prompts_by_num_teachers`` are numbers as text.
    """
    pairs, texts = set[tuple[str, str]](), set[bytes]()
    teachers, marks = Counter[str](), Counter[bool | None]()
    num_several = 0
    for response in pool.responses:  # one at a time: the pool may be larger than memory
        pairs.add((response.prompt_id, response.teacher))
        texts.add(_mark(response))
        teachers[response.teacher] += 1
        marks[response.correct] += 1
        num_several += bool(response.given)
    num_teachers = Counter(prompt_id for prompt_id, _ in pairs)
    by_number = Counter(num_teachers[prompt_id] for prompt_id in pool.prompts)
    return {
        "num_prompts": len(pool.prompts),
        "num_responses": len(pool.responses),
        "responses_by_teacher": dict(sorted(teachers.items())),
        "prompts_by_num_teachers": {str(n): by_number[n] for n in sorted(by_number)},
        "num_correct": marks[True],
        "num_incorrect": marks[False],
        "num_unverified": marks[None],
        "num_prompts_with_answer": sum(p.answer is not None for p in pool.prompts.values()),
        "num_duplicate_texts": len(pool.responses) - len(texts),
        "num_multi_turn": num_several,
        "left_out": dict(pool.left_out),
    }


def _mark(response: Response) -> bytes:
    """The key that two responses share if they are the same text for the same prompt."""
    asked, text = (part.encode() for part in (response.prompt_id, response.text))
    return sha256(sha256(asked).digest() + text).digest()


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put the place before the message of any input refused within the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def show(value: Any, width: int = 60) -> str:
    """A value as shown in errors: its repr, cut at ``width``, and its type unless it is text."""
    text = repr(value)
    text = text if len(text) <= width else f"{text[: width - 3]}..."
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"
