"""Show how a student reads a pool, before hours are spent on the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lalp.pools.pool import Pool
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.students.encoding import end_of_turn, own_span
from lalp.students.student import find_student
from lalp.students.thinking import thought_form

_SHOWN = 160  # characters shown of each end
_QUANTILES = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Preview:
    """How a student reads a pool: one rendered response, and counts over all responses."""

    student: str
    has_template: bool
    positions: int  # the longest sequence that the student can read
    system: str  # the text before the first message that is no system message
    response_id: str  # the response that is shown
    prompt_end: str  # the text right before the response's first token
    response_start: str
    response_end: str
    end_of_turn: str  # the text after the response that is trained on too
    thought: tuple[str, str]  # the text before a thought, and between it and the answer
    prompt_tokens: dict[str, int]  # min, median, p95, max
    response_tokens: dict[str, int]  # only those of the assistant's turns
    too_long: tuple[str, ...]  # responses that, with their prompt, exceed the positions
    unreadable: dict[str, str]  # responses that lose text in the tokenizer, and what is lost


def preview_pool(
    pool: Pool, student: str, *, thinking: str = "join", trust_remote_code: bool = False
) -> Preview:
    """Render and count a pool's texts as the student would read them, without its weights.

    Raises:
        InputError: If the student cannot be read, or its template refuses a prompt.

    Example:
        >>> preview_pool(load_pool("pool.jsonl"), "smollm2-135m").too_long  # doctest: +SKIP
        ()
    """
    found = find_student(student, trust_remote_code=trust_remote_code)
    tokenizer = found.tokenizer
    groups = group_responses(pool, tokenizer, thinking=thinking)
    tasks = {
        response.response_id: task
        for group in groups
        for response, task in zip(
            group.responses, make_tasks(group, tokenizer, found.max_positions), strict=True
        )
    }
    group = groups[0]
    response = group.responses[0]
    begin, end = own_span(tokenizer, group.prompt_text, response.text)
    text, form = response.text[begin:end], thought_form(tokenizer)
    first = next(m for m in group.prompt.messages if m.role != "system")
    return Preview(
        student=found.name,
        has_template=bool(tokenizer.chat_template),
        positions=found.max_positions,
        system=group.prompt_text.partition(first.content)[0],
        response_id=response.response_id,
        prompt_end=group.prompt_text[-_SHOWN:],
        response_start=text[:_SHOWN],
        response_end=text[-_SHOWN:],
        end_of_turn=tokenizer.decode(end_of_turn(tokenizer)),
        thought=(form.before, form.between),
        prompt_tokens=_spread([len(task.encoded.prompt_ids) for task in tasks.values()]),
        response_tokens=_spread([task.num_scored for task in tasks.values()]),
        too_long=tuple(name for name, task in tasks.items() if _is_too_long(task)),
        unreadable={name: t.encoded.lost for name, t in tasks.items() if t.encoded.lost},
    )


def _is_too_long(task: Task) -> bool:
    return not task.fits(0, task.num_tokens)


def _spread(counts: Sequence[int]) -> dict[str, int]:
    values = np.quantile(counts, list(_QUANTILES.values()), method="higher")
    return dict(zip(_QUANTILES, map(int, values), strict=True))
