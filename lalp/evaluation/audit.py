"""Does the grader judge a benchmark's answers correctly? Respellings, and wrong answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.evaluation.evaluate import asks_percent
from lalp.files import read_data
from lalp.grading.workers import Answer, grade_answers
from lalp.pools.pool import Prompt

_DUE_WRONG = ("other", "altered")
_TABLES = read_data("evaluation/audit.yaml")
STATED_FORMS = _TABLES["stated_forms"]
"""Ways to state an answer."""


def audit_grader(
    prompts: Sequence[Prompt],
    solutions: Mapping[str, str] | None = None,
    *,
    num_wrong: int = 4,
    num_workers: int = 2,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Try the grader on a benchmark's own answers, some due to be correct and some due to be wrong.

    Five kinds of texts are graded. These are due to be correct: each worked ``solution``; each
    reference ``stated`` in the ways of `STATED_FORMS`; each reference ``respelled`` as others would
    write it. These are due to be wrong: ``other``, the most similar references of other problems,
    ``num_wrong`` for each problem (pairs that differ only in spelling are skipped); and
    ``altered``, the reference with its last digit or its sign changed. `load_solutions` gives the
    ``solutions``, by prompt id. InputError if there is no prompt, or one without a reference.

    Returns:
        One row per text: ``kind``, ``prompt_id``, ``answer`` (the reference), ``text``,
        ``extracted``, ``outcome``, ``miss``, and for misses the ``reason``.
    """
    if not prompts:
        raise InputError("there are no prompts: nothing to audit the grader with")
    for prompt in prompts:
        if prompt.answer is None:
            raise InputError(f"prompt {prompt.prompt_id!r} has no reference answer to audit with")
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    cases = [("solution", by_id[key], text) for key, text in (solutions or {}).items()]
    cases += [("stated", p, form % p.answer) for p in prompts for form in STATED_FORMS]
    boxed = [("other", *pair) for pair in _wrong_answers(prompts, num_wrong)]
    for prompt in prompts:
        boxed += [("respelled", prompt, text) for text in respellings(prompt.answer)]
        boxed += [("altered", prompt, text) for text in _alterations(prompt.answer)]
    cases += [(kind, prompt, rf"\boxed{{{text}}}") for kind, prompt, text in boxed]
    answers = [Answer(p.answer, text, asks_percent(p)) for _, p, text in cases]
    grades = grade_answers(answers, num_workers=num_workers, cache=cache)
    rows = [
        (kind, prompt.prompt_id, prompt.answer, text, grade.extracted, grade.outcome)
        for (kind, prompt, text), grade in zip(cases, grades, strict=True)
    ]
    columns = ["kind", "prompt_id", "answer", "text", "extracted", "outcome"]
    table = pd.DataFrame(rows, columns=columns)
    table["miss"] = (table["outcome"] == "correct") == table["kind"].isin(_DUE_WRONG)
    table["reason"] = [_why_missed(row) if row.miss else None for row in table.itertuples()]
    return table


def _wrong_answers(prompts: Sequence[Prompt], count: int) -> list[tuple[Prompt, str]]:
    """For each problem, the references next to its own in order of length and text."""
    references = sorted({prompt.answer for prompt in prompts}, key=lambda text: (len(text), text))
    place = {reference: i for i, reference in enumerate(references)}
    pairs = []
    for prompt in prompts:
        at, own = place[prompt.answer], _spelled(prompt.answer)
        others = sorted(range(len(references)), key=lambda i: abs(i - at))[1 : 2 * count + 1]
        unlike = [references[i] for i in others if _spelled(references[i]) != own]
        pairs += [(prompt, reference) for reference in unlike[:count]]
    return pairs


def respellings(reference: str) -> list[str]:
    """The same answer as others would write it: other LaTeX, other spacing, another order."""
    plain_text = re.sub(r"\\(?:text|mbox|mathrm)\s*\{([^{}]*)\}", r"\1", reference)
    is_list = "," in reference and not re.search(r"[()\[\]{}]|,\\!|\d,\d{3}", reference)
    written = [re.sub(pattern, new, reference) for pattern, new in _TABLES["respellings"]]
    written.append(plain_text.strip("()") if plain_text != reference else reference)
    written.append(", ".join(reversed(reference.split(","))) if is_list else reference)
    return [text for text in dict.fromkeys(written) if text != reference]


def _alterations(reference: str) -> list[str]:
    """Other answers that look like this one."""
    last = re.search(r"\d(?=\D*$)", reference)
    is_value = re.fullmatch(r"-?\d*\.?\d+|-?\\frac\{\d+\}\{\d+\}", reference)
    texts = [f"-({reference})"] if is_value and reference != "0" else []
    if last:
        digit = str((int(last[0]) + 1) % 10)
        texts.append(reference[: last.start()] + digit + reference[last.end() :])
    return texts


def _spelled(reference: str) -> tuple[str, ...]:
    """A reference in one spelling: without spaces and braces, a list in alphabetical order."""
    text = re.sub(r"\\[dt]frac", r"\\frac", reference)
    text = re.sub(r"\\(?:left|right)(?![a-z])|\\[!,; ]|[\s{}]", "", text)
    return tuple(sorted(text.split(","))) if not re.search(r"[()\[\]]", text) else (text,)


def _why_missed(row: Any) -> str:
    if row.kind in _DUE_WRONG:
        return f"{row.text} is taken for the reference: see whether the two are equal"
    if pd.isna(row.extracted):
        return "no final answer is marked in the text"
    return f"{_TABLES['reasons'][row.outcome]}: {row.extracted}"
