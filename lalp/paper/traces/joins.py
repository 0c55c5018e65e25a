"""Join each teacher's responses to the right problems, and refuse a wrong join.

GSM8K is joined by question, because the order of rows differs between files. In MATH most files
have no question, so they are joined by row. Then three things must agree: the number of rows, the
reference answers row by row, and the topics of problem and response in nearly all rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from lalp.errors import InputError
from lalp.paper.traces.files import FACTS, Records

_WORD = re.compile(r"[a-z]{3,}|\d+")


@dataclass(frozen=True)
class Problem:
    """A problem of one of the data sets, with its reference answer as written there."""

    prompt_id: str
    data_set: str
    question: str
    answer: str


def gsm8k_problems(records: Records) -> list[Problem]:
    """Problems of GSM8K in the order of their file; the answer is the text behind ``####``."""
    return [
        Problem(f"gsm8k/{row}", "gsm8k", record["question"], record["answer"].split("####")[-1])
        for row, record in enumerate(records)
    ]


def math_problems(answered: Records) -> list[Problem]:
    """Problems of MATH in the order of a file of responses that holds them: DeepSeek-R1's.

    InputError if a problem occurs there twice.
    """
    problems = [
        Problem(
            f"math/{record['unique_id'].removesuffix('.json')}",
            "math",
            record["question"],
            record["answer"],
        )
        for record in answered
    ]
    if len({problem.prompt_id for problem in problems}) < len(problems):
        raise InputError("MATH: a problem stands in several rows: they cannot be told apart")
    return problems


def join_responses(
    problems: Sequence[Problem], records: Records, field: str, where: str
) -> list[str | None]:
    """One teacher's responses in the problems' order; None if it gave none.

    Args:
        problems: All of one data set.
        records: Those of the teacher's file for this data set.
        field: The field that holds the response.
        where: The file's name in messages.

    Raises:
        InputError: If the records are not answers to these problems, each once.
    """
    if problems and problems[0].data_set == "gsm8k":
        records = _by_question(problems, records, where)
    if len(records) != len(problems):
        raise InputError(f"{where}: {len(records)} rows for {len(problems)} problems")
    for row, (problem, record) in enumerate(zip(problems, records, strict=True), 1):
        if record.get("question", problem.question) != problem.question:
            raise InputError(f"{where}, row {row}: another question than that of the problem")
        if _reference(problem, record.get("answer", "")) != problem.answer:
            raise InputError(f"{where}, row {row}: the answer to another problem")
        if field not in record:
            raise InputError(f"{where}, row {row}: field {field!r} is missing")
    texts = [record[field] for record in records]
    if records and "question" not in records[0]:
        _check_topics(problems, texts, where)
    return texts


def _by_question(problems: Sequence[Problem], records: Records, where: str) -> Records:
    """Records in the problems' order; each question must be asked once, here and there."""
    found = {record["question"]: record for record in records}
    asked = [problem.question for problem in problems]
    twice = [each for each in (asked, [*found]) if len(set(each)) < len(each)]
    if twice or len(found) < len(records):
        raise InputError(f"{where}: a question stands in several rows: they cannot be told apart")
    missing = [problem.prompt_id for problem in problems if problem.question not in found]
    if missing or len(found) > len(asked):
        named = f"no row asks {missing[0]}" if missing else "a row asks what no problem does"
        raise InputError(f"{where}: {named}: the file belongs to other problems")
    return [found[question] for question in asked]


def _reference(problem: Problem, answer: str) -> str:
    """A record's reference answer in the form of the problem's."""
    return answer.split("####")[-1] if problem.data_set == "gsm8k" else answer


def _check_topics(problems: Sequence[Problem], texts: Sequence[str | None], where: str) -> None:
    """Refuse responses that are about problems other than their own."""
    own = topic_shares([problem.question for problem in problems], [text or "" for text in texts])
    if own < FACTS["least_alike"]:
        found = f"only {own:.0%} of the responses talk of the problem that they stand beside"
        raise InputError(f"{where}: {found}: the rows are in another order")


def topic_shares(questions: Sequence[str], texts: Sequence[str]) -> float:
    """Share of texts that hold more of their own question's words than of any other question's.

    A word counts more if fewer questions hold it (the logarithm of their inverse share).

    Example:
        >>> topic_shares(["How many apples?", "How many pears?"], ["Pears: 3.", "Apples: 2."])
        0.0
        >>> topic_shares(["How many apples?", "How many pears?"], ["Apples: 2.", "Pears: 3."])
        1.0
    """
    words = [set(_WORD.findall(question.lower())) for question in questions]
    counts = Counter(word for each in words for word in each)
    weight = {word: log((1 + len(questions)) / count) for word, count in counts.items()}
    hits = 0
    for place, text in enumerate(texts):
        said = set(_WORD.findall(text.lower()))
        alike = [
            sum(weight[word] for word in each & said) / max(sum(weight[word] for word in each), 1)
            for each in words
        ]
        hits += alike[place] >= max(alike)
    return hits / max(len(texts), 1)
