r"""The evaluation sets of the paper (B.2): their sources, and how their files are read.

A set is read from a file in a local folder or from the hub; it is fetched only on request. For any
source, its problems become `Prompt`s named ``math500/0001``, ... in file order, with the reference
answer as text. Their number must be the paper's.

LIMO's library ships most of these sets as ``NAME/test.jsonl``; its names are read too. Its
``math.jsonl`` has 500 problems: the last line has no line feed, so line counters say 499.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalp.errors import InputError, likeliest
from lalp.evaluation import livecodebench
from lalp.extras import require
from lalp.files import digest, read_data
from lalp.grading.answers import extract_answer
from lalp.pools.lines import numbered_records
from lalp.pools.pool import Message, Prompt, located
from lalp.pools.reading import load_prompts
from lalp.pools.records import plain_record
from lalp.pools.tables import parquet_records

SUFFIXES = (".jsonl", ".parquet")
LETTERS = ("A", "B", "C", "D")

# Names of the same fields in local copies.
_PROBLEM_FIELDS = ("problem", "question", "Question")
_ANSWER_FIELDS = ("answer", "final_answer")
_ID_FIELDS = ("unique_id", "id", "Record ID")
_OPTIONS = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))


@dataclass(frozen=True)
class Benchmark:
    """One evaluation set."""

    name: str  # as ``lalp eval --benchmark`` takes it
    title: str  # its column in the paper's tables
    file_names: Sequence[str]  # names of local files without their suffix, including LIMO's
    size: int | None = None  # number of problems (B.2); None for a set of the user's own
    hub_id: str | None = None  # on the Hugging Face hub; None if the paper names a plain file
    config: Sequence[str] = ()  # configurations on the hub, joined in this order
    split: str = "train"
    problem_field: str = "problem"
    # If it holds a solution, the answer is the content of the solution's last box.
    answer_field: str = "answer"
    solution_field: str | None = None
    # math (equivalent expressions), choice (the letter of an option) or code (tests are run).
    grader: str = "math"
    url: str = ""  # page that describes the data, if not the hub's; without hub_id, the file itself
    note: str = ""  # differences from the paper's source, and conditions of use


BENCHMARKS = {
    name: Benchmark(name, **fields)
    for name, fields in read_data("evaluation/benchmarks.yaml").items()
}
"""All sets, in the order of the paper's columns."""

AVERAGED = tuple(BENCHMARKS)[:7]
"""The seven sets whose unweighted mean is the paper's AVG."""


def load_benchmark(
    name: str, folder: str | Path | None = None, *, allow_count: bool = False
) -> list[Prompt]:
    """Read the problems of one benchmark: a key of `BENCHMARKS`, or your own file.

    Your own file is JSONL or Parquet with ``prompt_id``, ``prompt`` and ``answer`` (a pool is read
    too), or with ``problem`` (or ``question``) and ``answer``. A benchmark's file is
    ``FOLDER/math500.jsonl`` (or ``.parquet``), for example, or LIMO's ``FOLDER/math/test.jsonl``,
    whichever exists first. Without a folder it comes from the hub. ``allow_count`` accepts a number
    of problems that differs from the paper's. InputError says what is missing, or which record
    cannot be used.

    Returns:
        Prompts in file order. The prompt includes the options of multiple-choice problems, in an
        order that their texts decide, and the answer is a letter.
    """
    benchmark = find_benchmark(name)
    if benchmark.size is None:
        return _load_own(benchmark, Path(name))
    if benchmark.grader == "code":
        return [*map(livecodebench.prompt_of, load_programs(name, folder, allow_count))]
    source, unit, records = _source(benchmark, folder)
    prompts = read_problems(records, benchmark, source, unit)
    _check_count(benchmark, len(prompts), source, allow_count)
    return prompts


def load_programs(
    name: str, folder: str | Path | None = None, allow_count: bool = False
) -> list[livecodebench.Problem]:
    """The problems of LiveCodeBench, whose tests grade an answer; arguments as `load_benchmark`."""
    benchmark = find_benchmark(name)
    path = None if folder is None else _find_file(benchmark, folder)
    problems = livecodebench.load_problems(path)
    _check_count(benchmark, len(problems), str(path or benchmark.hub_id), allow_count)
    return problems


def load_solutions(name: str, folder: str | Path | None = None) -> dict[str, str]:
    """Worked solutions of a benchmark by prompt id, for the problems that have one."""
    benchmark = find_benchmark(name)
    if benchmark.solution_field is None or benchmark.grader == "code":
        return {}
    found = {}
    for place, (_, record) in enumerate(_source(benchmark, folder)[2], 1):
        solution = record.get(benchmark.solution_field) if isinstance(record, Mapping) else None
        solution = "\n".join(map(str, solution)) if isinstance(solution, list) else solution
        if isinstance(solution, str) and solution.strip():
            found[f"{benchmark.name}/{place:04d}"] = solution
    return found


def find_benchmark(name: str) -> Benchmark:
    """The registered benchmark of that name, or a description of your own file of prompts."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        known, kinds = ", ".join(BENCHMARKS), " or ".join(SUFFIXES)
        files = sorted(str(one) for kind in SUFFIXES for one in path.parent.glob(f"*{kind}"))
        advice = likeliest(name, [*BENCHMARKS, *files]) or "give one of them"
        wrong = f"is neither a known name ({known}) nor a {kinds} file"
        raise InputError(f"benchmark {name!r} {wrong}: {advice}")
    if path.stem in BENCHMARKS:
        wrong = f"a file of your own cannot be called like the benchmark {path.stem!r}"
        advice = f"rename it, or give --benchmark {path.stem} --data {path.parent}"
        raise InputError(f"{path}: {wrong}: {advice}")
    return Benchmark(path.stem, path.stem, (path.stem,), problem_field="prompt", url=str(path))


def _load_own(benchmark: Benchmark, path: Path) -> list[Prompt]:
    unit, records = _file_records(path)
    first = next(iter(records), (0, {}))[1]
    if isinstance(first, Mapping) and any(field in first for field in _PROBLEM_FIELDS):
        return read_problems(_file_records(path)[1], benchmark, str(path), unit)
    prompts = load_prompts(path)
    if unanswered := [prompt.prompt_id for prompt in prompts if prompt.answer is None]:
        needed = "evaluation needs one for every prompt"
        raise InputError(f"{path}: prompt {unanswered[0]!r} has no answer: {needed}")
    return prompts


def benchmark_digest(prompts: Sequence[Prompt]) -> str:
    """Short hash of a benchmark's problems and answers, in their order."""
    return digest([problem_digest(prompt) for prompt in prompts], 16)


def problem_digest(prompt: Prompt) -> str:
    """Short hash of one problem: its id, its text and its reference answer."""
    messages = [[message.role, message.content] for message in prompt.messages]
    return digest([prompt.prompt_id, messages, prompt.answer], 16)


_Records = Iterator[tuple[int, Any]]


def _source(benchmark: Benchmark, folder: str | Path | None) -> tuple[str, str, _Records]:
    """Names for the source and its records, and the numbered records."""
    if folder is None:
        place = benchmark.hub_id or benchmark.url
        return place, "record", enumerate(_hub_records(benchmark), 1)
    path = _find_file(benchmark, folder)
    return str(path), *_file_records(path)


def _find_file(benchmark: Benchmark, folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the benchmarks' files")
    names = [f"{name}{suffix}" for name in benchmark.file_names for suffix in SUFFIXES]
    names += [f"{name}/test.jsonl" for name in benchmark.file_names]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: holds no {benchmark.name}; looked for {', '.join(names)}")


def _file_records(path: Path) -> tuple[str, _Records]:
    if path.suffix.lower() == ".parquet":
        return "row", parquet_records(path)
    return "line", numbered_records(path, "a benchmark")


def _hub_records(benchmark: Benchmark) -> Iterator[Mapping[str, Any]]:
    """Download the records, or take them from the hub's cache on this machine."""
    require("datasets", benchmark.name)
    from datasets import load_dataset

    place = benchmark.hub_id or benchmark.url
    address = benchmark.url or f"https://huggingface.co/datasets/{benchmark.hub_id}"
    gated = f"{benchmark.note} " if benchmark.note.startswith("Gated") else ""
    advice = (
        f"{gated}Without a network, get its file elsewhere ({address}), put it into a folder as "
        f"{benchmark.name}.jsonl or .parquet, and give that folder (--data)"
    )
    with livecodebench.from_hub(f"{benchmark.name}: cannot be loaded from {place}", advice):
        if benchmark.hub_id is None:
            yield from load_dataset("json", data_files=benchmark.url, split=benchmark.split)
        for config in benchmark.config or ((None,) if benchmark.hub_id else ()):
            yield from load_dataset(benchmark.hub_id, config, split=benchmark.split)


def _check_count(benchmark: Benchmark, count: int, source: str, allow_count: bool) -> None:
    if count != benchmark.size and not allow_count:
        expected = f"{benchmark.title} has {benchmark.size} (paper, B.2)"
        advice = "complete the file, or allow another number (--allow-count)"
        raise InputError(f"{source}: {count} problems, but {expected}: {advice}")


def read_problems(
    records: Iterable[tuple[int, Any]], benchmark: Benchmark, source: str, unit: str
) -> list[Prompt]:
    """Prompts of numbered records; errors name the source, the record and its field."""
    prompts: list[Prompt] = []
    seen: dict[Any, int] = {}
    for number, raw in records:
        with located(f"{source}, {unit} {number}"):
            record = plain_record(raw)
            _check_id(record, seen, number, unit)
            content, answer = _problem(record, benchmark)
        prompt_id = f"{benchmark.name}/{len(prompts) + 1:04d}"
        prompts.append(Prompt(prompt_id, (Message("user", content),), answer))
    if not prompts:
        raise InputError(f"{source}: holds no problems")
    return prompts


def _check_id(record: Mapping[str, Any], seen: dict[Any, int], number: int, unit: str) -> None:
    for field in _ID_FIELDS:
        value = record.get(field)
        if isinstance(value, str | int):
            first = seen.setdefault((field, value), number)
            if first != number:
                advice = "drop one of the two, or give each its own"
                taken = f"{value!r} is already taken by {unit} {first}"
                raise InputError(f"field {field!r}: {taken}: {advice}")


def _problem(record: Mapping[str, Any], benchmark: Benchmark) -> tuple[str, str]:
    """The text to answer, and its reference."""
    problem = _text(record, _present(record, (benchmark.problem_field, *_PROBLEM_FIELDS)))
    if _OPTIONS[0] in record:
        return _with_options(problem, record)
    if benchmark.answer_field == benchmark.solution_field:
        answer = extract_answer(solution := _text(record, benchmark.solution_field))
        if answer is None or "boxed" not in solution:
            raise InputError(rf"field {benchmark.solution_field!r} puts no answer into \boxed{{}}")
        return problem, answer
    answer = _answer(record, _present(record, (benchmark.answer_field, *_ANSWER_FIELDS)))
    if benchmark.grader != "choice":
        return problem, answer
    if (letter := answer.strip("()")) not in LETTERS:
        raise InputError(f"the answer is {answer!r}: it must be one of {', '.join(LETTERS)}")
    return problem, letter


def _present(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these fields that the record has, else the first."""
    return next((name for name in names if record.get(name) is not None), names[0])


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if isinstance(value, str) and value.strip():
        return value.strip()
    state = "missing" if value is None else "empty" if isinstance(value, str) else "no text"
    raise InputError(f"field {name!r} is {state}")


def _answer(record: Mapping[str, Any], name: str) -> str:
    """A reference as text; several are joined by commas."""
    value = record.get(name)
    texts = [_answer_text(item) for item in (value if isinstance(value, list) else [value])]
    if not texts or not all(texts):
        raise InputError(f"field {name!r} holds no answer, but {value!r}")
    return ", ".join(texts)


def _answer_text(value: Any) -> str:
    """27.0 as 27, without dollar signs; empty if it is not an answer."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # Not math.isfinite, which fails on integers beyond any float.
    is_number = isinstance(value, int | float) and abs(value) < math.inf
    is_answer = isinstance(value, str) or (is_number and not isinstance(value, bool))
    text = str(value).strip() if is_answer else ""
    dollars = re.fullmatch(r"\$([^$]*[^\\$])\$", text)
    return dollars[1].strip() if dollars else text


def _with_options(question: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """The question with its options, and the letter of the right one.

    Their order follows from a hash of question and option. It is the same in every run and on every
    machine, and the right one is not always first.
    """
    options = [_text(record, name) for name in _OPTIONS]
    if options[0] in options[1:]:
        raise InputError("a wrong option is the same text as the right one")
    ordered = sorted(options, key=lambda option: digest([question, option], 16))
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, ordered, strict=True)]
    text = "\n".join([question, "", *lines, "", "Give the letter of the right option."])
    return text, LETTERS[ordered.index(options[0])]
