"""Group the responses of a pool by prompt, and encode them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.files import digest
from lalp.pools.pool import Pool, Prompt, Response
from lalp.scoring.plan import Task
from lalp.steps.sentences import SPLITTERS, Span, split_steps
from lalp.steps.splitters import Steps, split_pool
from lalp.students.encoding import assign_steps, encode, render_prompt


@dataclass(frozen=True)
class Group:
    """One prompt with its responses: what is scored, stored and resumed as a whole.

    ``prompt_text`` is the prompt as the student's chat template renders it; some templates write
    today's date into it. ``steps`` are each response's, or None where they follow from the text by
    a splitter of `segmentation`, whose code is part of the key.
    """

    prompt: Prompt
    prompt_text: str
    responses: tuple[Response, ...]
    steps: tuple[tuple[Span, ...], ...] | None = None

    @cached_property
    def digest(self) -> str:
        """Short hash of the prompt, the responses' texts, and their steps if they are given."""
        parts = [self.prompt_text, [response.text for response in self.responses]]
        return digest(parts if self.steps is None else [*parts, self.steps])


def follows_from_text(splitter: str | Steps) -> bool:
    return isinstance(splitter, str) and splitter in SPLITTERS


def group_responses(
    pool: Pool, tokenizer: PreTrainedTokenizerBase, splitter: str | Steps = "sentences"
) -> list[Group]:
    """Responses by prompt, both in the pool's order, with the prompt as the student sees it.

    Args:
        pool: From `load_pool`.
        tokenizer: The student's.
        splitter: As in `score`; unless it is a splitter of `segmentation`, groups hold the steps.

    Raises:
        InputError: If given steps do not fit the pool.
    """
    steps = None
    if not follows_from_text(splitter):
        steps = split_pool(pool, splitter, tokenizer=tokenizer)
    by_prompt: dict[str, list[Response]] = {}
    for response in pool.responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    groups = []
    for prompt_id, responses in by_prompt.items():
        prompt = pool.prompts[prompt_id]
        given = steps and tuple(tuple(steps[r.response_id]) for r in responses)
        groups.append(Group(prompt, render_prompt(tokenizer, prompt), tuple(responses), given))
    return groups


def make_tasks(
    group: Group, tokenizer: PreTrainedTokenizerBase, splitter: str, limit: int
) -> list[Task]:
    """Tokenize the responses of one prompt and cut them: by the splitter, or as the group says."""
    given = group.steps or (split_steps(response.text, splitter) for response in group.responses)
    tasks = []
    for response, steps in zip(group.responses, given, strict=True):
        encoded = encode(tokenizer, group.prompt_text, response.text)
        spans = assign_steps(response.text, encoded.offsets, steps)
        tasks.append(Task(encoded, tuple(spans), limit))
    return tasks
