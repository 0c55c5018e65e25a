"""Long reasoning traces of six teachers to the same problems, as a graded pool.

The repository tianyi-lab/MiP-Overthinking (MIT, arXiv 2504.06514) holds answers to 582 problems of
GSM8K and 52 of MATH-500 by DeepSeek-R1, QwQ-32B, s1.1-32B and R1-Distill-Qwen-32B, by LIMO-32B
(MATH only), and by Qwen2.5-32B-Instruct, which does not think first: a short control. Its problems
that lack a premise are not used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lalp.files import cache_dir
from lalp.paper.traces.files import FACTS, Records, read_files
from lalp.paper.traces.grades import grade_texts
from lalp.paper.traces.joins import Problem, gsm8k_problems, join_responses, math_problems
from lalp.paper.traces.marks import Marks, unify_marks
from lalp.pools.pool import Message, Pool, Prompt, Response, located

DATA_SETS = ("gsm8k", "math")
TEACHERS: tuple[str, ...] = tuple(FACTS["teachers"])
MAIN_TEACHERS: tuple[str, ...] = tuple(FACTS["main_teachers"])
"""The teachers of the primary comparison: all think first, and answered every problem."""
SIMILAR_LENGTH: tuple[str, ...] = tuple(FACTS["similar_length"])
"""Those of them whose traces are of similar length on both data sets."""

_NO_RESPONSE = re.compile(FACTS["no_response"])


def load_traces(folder: str | Path | None = None) -> Pool:
    """The graded pool: problems in the order of their data sets, teachers in that of `TEACHERS`.

    A prompt is the problem's text alone. Thoughts are joined to their answers in the pool's form
    (`lalp.paper.traces.marks` explains what happens to responses without a mark). ``correct`` is
    None if no answer could be read; ``extra`` holds the ``data_set``. Responses with CJK text stay:
    `accuracy_table` counts them. ``left_out`` counts records that are not responses, by reason.

    Args:
        folder: The folder with the repository's files. The default is the folder in TRACES; without
            it they are fetched once and kept in the cache folder.

    Raises:
        InputError: If a file is missing, is not the expected one, or cannot be fetched.

    Example:
        >>> load_traces()  # doctest: +SKIP
        <Pool: 634 prompts, 3,221 responses, 6 teachers: DeepSeek-R1, LIMO-32B, ...>
    """
    return build_pool(read_files(folder), cache_dir() / "traces" / "grades.jsonl")


def build_pool(files: Mapping[str, Records], cache: Path | None = None) -> Pool:
    """The pool of the records of all files, by path; ``cache`` keeps the grades."""
    prompts: dict[str, Prompt] = {}
    drafts: list[Response] = []
    left_out = Counter[str]()
    for data_set in DATA_SETS:
        problems = _problems(files, data_set)
        given = _responses(files, data_set, problems)
        for place, problem in enumerate(problems):
            message = Message("user", problem.question)
            prompts[problem.prompt_id] = Prompt(
                problem.prompt_id, (message,), problem.answer.strip()
            )
            for teacher, texts in given.items():
                drafted = _draft(problem, teacher, texts[place])
                if isinstance(drafted, str):
                    left_out[drafted] += 1
                else:
                    drafts.append(drafted)
    told = [(r.extra["data_set"], prompts[r.prompt_id].answer or "", r.text) for r in drafts]
    grades = grade_texts(told, cache)
    responses = (
        Response(r.response_id, r.prompt_id, r.teacher, r.text, correct, r.extra)
        for r, correct in zip(drafts, grades, strict=True)
    )
    return Pool(prompts, tuple(responses), dict(left_out))


def _problems(files: Mapping[str, Records], data_set: str) -> list[Problem]:
    if data_set == "gsm8k":
        return gsm8k_problems(files["data/gsm8k.json"])
    return math_problems(files[_path(data_set, MAIN_TEACHERS[0])])


def _path(data_set: str, teacher: str) -> str:
    return FACTS["path"].format(data_set=data_set, folder=FACTS["teachers"][teacher]["folder"])


def _responses(
    files: Mapping[str, Records], data_set: str, problems: Sequence[Problem]
) -> dict[str, list[str | None]]:
    """Every teacher's texts as in the files, in the problems' order."""
    given = {}
    for teacher, facts in FACTS["teachers"].items():
        if data_set in facts["data_sets"]:
            path = _path(data_set, teacher)
            given[teacher] = join_responses(problems, files[path], facts["field"], path)
    return given


def _draft(problem: Problem, teacher: str, text: str | None) -> Response | str:
    """A response that is not graded yet, or the reason why there is none."""
    facts, name = FACTS["teachers"][teacher], f"{problem.prompt_id}/{teacher}"
    if text is None or not text.strip():
        return "the response is missing"
    if _NO_RESPONSE.match(text):
        return "a server's error stands in place of the response"
    with located(name):
        joined = unify_marks(text, Marks(facts.get("begin", ""), facts.get("end", "")))
    if joined is None:
        return "the thought has no end"
    extra = {"data_set": problem.data_set}
    return Response(name, problem.prompt_id, teacher, joined, None, extra)


def solved_by(pool: Pool, teachers: Sequence[str], data_set: str) -> list[str]:
    """Problems of a data set that each of some teachers solved, in the pool's order."""
    solved = {(r.prompt_id, r.teacher) for r in pool.responses if r.correct}
    return [
        name
        for name in pool.prompts
        if name.startswith(f"{data_set}/")
        and all((name, teacher) in solved for teacher in teachers)
    ]
