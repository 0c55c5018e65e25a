"""Whether a trace's final answer is right, and how often each teacher is right.

Only the text after the thought is read. For MATH it is the last box, or what `extract_answer` of
`lalp.grading` finds, or the only number behind a heading "Final Answer". GSM8K's answers are
numbers: the number in the last box, or else the last number near the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lalp.grading.answers import boxes, extract_answer, final_part
from lalp.grading.workers import Answer, grade_answers
from lalp.paper.traces.files import FACTS
from lalp.paper.traces.marks import has_cjk
from lalp.pools.pool import Pool
from lalp.stats import wilson_interval

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_HEADING = re.compile(r"(?i)\*\*final answer:?\*\*:?")
# Marks in numbers that change nothing: 1{,}000, 1\,000, \$5, 5 \%.
_SPACED = re.compile(r"\{,\}|\\[,!]\s*|(?<=\d),\s(?=\d{3}\b)")


def answer_text(text: str, data_set: str) -> str | None:
    r"""The part of a response that the grader reads; None if its thought is not closed.

    For GSM8K it is one number in a box, if there is any.

    Example:
        >>> answer_text("<think>\nIs it 8?\n</think>\n\nIt is 7 dollars, not 8.00.", "gsm8k")
        '\\boxed{8.00}'
        >>> answer_text(r"So we get \boxed{7 \text{ dollars}} in 2 days.", "gsm8k")
        '\\boxed{7}'
        >>> answer_text("Is it 8? The answer is 8.\n\n**Final Answer**\n7", "math")
        '7'
    """
    final = final_part(text)
    if final is None:
        return None
    boxed = [content for content, _, _ in boxes(final)]
    if data_set == "gsm8k":
        in_box, at_end = _numbers(boxed[-1] if boxed else ""), _numbers(final[-FACTS["tail"] :])
        found = in_box if len(in_box) == 1 else at_end
        return rf"\boxed{{{found[-1]}}}" if found else final
    if boxed:
        return final
    *before, stated = _HEADING.split(final)
    numbers = _numbers(stated)
    # "Rosa is 49 years old." behind the heading states one number, and so an answer.
    if before and len(numbers) == 1 and extract_answer(stated.strip()) is None:
        return rf"\boxed{{{numbers[0]}}}"
    return stated.strip()


def _numbers(text: str) -> list[str]:
    plain = _SPACED.sub(lambda found: "," if "," in found[0].strip("\\") else "", text)
    return [number.replace(",", "") for number in _NUMBER.findall(plain)]


def grade_texts(
    answers: Sequence[tuple[str, str, str]], cache: Path | None = None
) -> list[bool | None]:
    """Grade responses; None if a text states no readable answer or the comparison failed.

    Args:
        answers: Data set, reference answer and response of each.
        cache: A file that keeps the grades.
    """
    read = [
        Answer(gold.strip().replace(",", "") if name == "gsm8k" else gold, part or "")
        for name, gold, text in answers
        for part in [answer_text(text, name)]
    ]
    grades = grade_answers(read, cache=cache)
    return [{"correct": True, "wrong": False}.get(grade.outcome) for grade in grades]


def accuracy_table(pool: Pool) -> pd.DataFrame:
    """How often each teacher is right on each data set, and properties of its responses.

    A row per data set and teacher: ``responses``; of these ``correct``, ``wrong`` and ``ungraded``;
    ``accuracy`` of all with its 95 % Wilson interval (``low``, ``high``); ``with thought``; ``with
    CJK`` (Chinese, Japanese or Korean characters); ``characters`` on average.
    """
    rows = [
        {
            "data set": response.extra["data_set"],
            "teacher": response.teacher,
            "responses": 1,
            "correct": response.correct is True,
            "wrong": response.correct is False,
            "ungraded": response.correct is None,
            "with thought": response.text.startswith("<think>"),
            "with CJK": has_cjk(response.text),
            "characters": len(response.text),
        }
        for response in pool.responses
    ]
    by_teacher = pd.DataFrame(rows).groupby(["data set", "teacher"], sort=False)
    table = by_teacher.sum().reset_index()
    table["characters"] = table["characters"] / table["responses"]
    table["accuracy"] = table["correct"] / table["responses"]
    trials = zip(table["accuracy"], table["responses"], strict=True)
    table[["low", "high"]] = [wilson_interval(*trial) for trial in trials]
    return table
