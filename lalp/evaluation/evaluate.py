"""Have a model answer benchmarks, and grade it; the result table has one row per sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lalp.errors import InputError
from lalp.evaluation import livecodebench, sandbox
from lalp.evaluation.benchmarks import (
    benchmark_digest,
    find_benchmark,
    load_benchmark,
    load_programs,
    problem_digest,
)
from lalp.extras import is_installed, require
from lalp.files import atomic_path, cache_dir
from lalp.grading.workers import grading_key
from lalp.pools.pool import Prompt
from lalp.pools.tables import check_cells, read_frame
from lalp.sampling.settings import SYSTEM_PROMPT, Sampling

if TYPE_CHECKING:
    from lalp.sampling.samples import Completion
    from lalp.students.student import Student


COLUMNS = (
    *("benchmark", "prompt_id", "sample", "problem", "outcome", "correct", "truncated"),
    *("num_tokens", "answer", "extracted", "difficulty"),
)
# A question that asks for a percentage treats "50" and "50 %" as the same answer.
_ASKS_PERCENT = re.compile(
    r"(?i)\b(?:what|which|how many|find|express|as an?|by how)\b[^.?!]*\bpercent"
)


def grade(
    name: str,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    *,
    num_workers: int = 2,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Grade completions of the benchmark ``name`` against the references that ``prompts`` hold.

    Only what follows the last ``</think>`` counts. A truncated completion is never correct. A
    reference that is an option's letter is compared with the given letter; all others are compared
    as expressions. If a problem asks for a percentage, the percent sign is optional. Programs are
    not graded here. InputError if a completion's prompt is missing or has no reference.

    Returns:
        One row per completion, in the same order: ``benchmark``, ``prompt_id``, ``sample``,
        ``problem`` (hash of text and reference), ``outcome`` (``correct``, ``wrong``, ``no
        answer``, ``truncated``, ``timeout``, ``error``), ``correct``, ``truncated``,
        ``num_tokens``, ``answer`` (the reference), ``extracted``, and ``difficulty``, which only
        LiveCodeBench has.
    """
    from lalp.sampling.pool import grade_completions

    unanswered = {prompt.prompt_id for prompt in prompts if prompt.answer is None}
    for completion in completions:
        if completion.prompt_id in unanswered:
            which = f"prompt {completion.prompt_id!r} of a completion"
            raise InputError(f"{which} has no reference answer")
    frame = grade_completions(
        prompts, completions, num_workers, cache=cache, asks_percent=asks_percent
    )
    frame["extracted"] = frame["extracted"].mask(frame["truncated"].astype(bool))
    return _results(frame, name, prompts)


def _results(frame: pd.DataFrame, name: str, prompts: Sequence[Prompt]) -> pd.DataFrame:
    """The results table of graded completions of one benchmark."""
    digests = {prompt.prompt_id: problem_digest(prompt) for prompt in prompts}
    answers = {prompt.prompt_id: prompt.answer for prompt in prompts}
    asked = frame["prompt_id"]
    return _typed(
        frame.assign(benchmark=name, problem=asked.map(digests), answer=asked.map(answers))
    )


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with one type for each column, even if it is empty or all values are missing."""
    types = dict.fromkeys(COLUMNS, "str") | {"sample": "int64", "num_tokens": "int64"}
    types |= {"correct": "bool", "truncated": "bool"}
    return frame.reindex(columns=COLUMNS).astype(types)


def asks_percent(prompt: Prompt) -> bool:
    """Whether a problem asks for a percentage."""
    return _ASKS_PERCENT.search(prompt.messages[-1].content) is not None


def evaluate(
    names: Sequence[str],
    model: str | Student,
    sampling: Sampling,
    *,
    folder: str | Path | None = None,
    allow_count: bool = False,
    system_prompt: str | None = None,
    store: str | Path | None = None,
    num_workers: int = 2,
    **options: Any,
) -> pd.DataFrame:
    """Have a model answer benchmarks, and grade it; a killed run continues where it stopped.

    ``names``, ``folder`` and ``allow_count`` are as in `load_benchmark`; ``model``, ``sampling``
    and the other ``options`` as in `generate`. The default ``system_prompt`` is the paper's, for
    prompts without a system message; an empty one means none. Programs are requested only in
    LiveCodeBench's words. ``store`` holds finished samples (default: ``samples`` of `cache_dir`).
    InputError if a benchmark or the model cannot be loaded, or a benchmark is named twice.

    Returns:
        As `grade`, by benchmark, problem and sample; ``attrs["run"]`` describes the run.
    """
    from lalp.sampling.samples import generate, paper_prompts

    if not names:
        raise InputError("no benchmark named")
    require("eval", "grading answers")  # before they are drawn
    (name, count), *_ = Counter(names).most_common()
    if count > 1:
        raise InputError(f"benchmark {name!r} is named twice")
    store = Path(store or cache_dir() / "samples")
    sets = [_load_set(name, folder, allow_count) for name in names]
    completions: dict[str, list[Completion]] = {}
    # One call of the model for all sets of a kind, so it is loaded once and its batches are full.
    for is_code in (False, True):
        prompts = [prompt for s in sets if bool(s.programs) == is_code for prompt in s.prompts]
        system = None if is_code else system_prompt or None
        if not is_code and system_prompt is None:
            prompts = paper_prompts(prompts)
        if prompts:
            found = generate(prompts, model, sampling, system_prompt=system, store=store, **options)
            for completion in found:
                completions.setdefault(completion.prompt_id, []).append(completion)
    progress = options.get("progress", True)
    frames = []
    for each in sets:
        given = [found for prompt in each.prompts for found in completions[prompt.prompt_id]]
        frames.append(_grade_set(each, given, num_workers, store, progress))
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = {"run": _run_record(sets, model, sampling, system_prompt, options)}
    return frame


@dataclass(frozen=True)
class _Set:
    """A benchmark's name and problems; ``programs`` are LiveCodeBench's."""

    name: str
    prompts: Sequence[Prompt]
    programs: Sequence[livecodebench.Problem] = ()


def _load_set(name: str, folder: str | Path | None, allow_count: bool) -> _Set:
    benchmark = find_benchmark(name)
    if benchmark.grader != "code":
        return _Set(benchmark.name, load_benchmark(name, folder, allow_count=allow_count))
    sandbox.check_sandbox()  # before hours of sampling programs that could not be run
    programs = load_programs(name, folder, allow_count)
    return _Set(benchmark.name, [*map(livecodebench.prompt_of, programs)], programs)


def _grade_set(
    each: _Set, completions: Sequence[Completion], num_workers: int, store: Path, progress: bool
) -> pd.DataFrame:
    cache = store / f"grades-{each.name}.jsonl"
    if not each.programs:
        return grade(each.name, each.prompts, completions, num_workers=num_workers, cache=cache)
    frame = livecodebench.grade_programs(
        each.programs, completions, num_workers=num_workers, cache=cache, progress=progress
    )
    return _results(frame, each.name, each.prompts)


def _run_record(
    sets: Sequence[_Set],
    model: str | Student,
    sampling: Sampling,
    system_prompt: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What decides the results, as plain values."""
    from lalp.students.student import find_student

    found = find_student(model, trust_remote_code=bool(options.get("trust_remote_code")))
    backend = options.get("backend", "transformers")
    optional = ("datasets", "vllm") if backend == "vllm" else ("datasets",)
    packages = ("lalp", "torch", "transformers", *filter(is_installed, optional))
    return {
        "model": found.name,
        "revision": found.revision,
        "sampling": asdict(sampling),
        "system_prompt": SYSTEM_PROMPT if system_prompt is None else system_prompt,
        "backend": backend,
        "benchmarks": {
            each.name: {"num_problems": len(each.prompts), "digest": benchmark_digest(each.prompts)}
            for each in sets
        },
        "grader": grading_key(),
        "versions": {package: version(package) for package in packages},
    }


def write_results(results: pd.DataFrame, path: str | Path) -> None:
    """Write a results table as Parquet, with a description of its run."""
    options = {"index": False, "compression": "zstd", "write_page_checksum": True}
    with atomic_path(path) as temporary:
        _typed(results).to_parquet(temporary, **options)


def load_results(path: str | Path) -> pd.DataFrame:
    """Read a results table written by `write_results`; ``attrs`` hold ``run`` and ``path``.

    InputError if the file is missing, damaged, or not a results table.
    """
    frame = read_frame(path, "results table", "make one with lalp eval")
    if missing := [column for column in COLUMNS if column not in frame]:
        what = f"not a results table, column {missing[0]!r} is missing"
        raise InputError(f"{path}: {what}: make one with lalp eval")
    frame = frame[list(COLUMNS)]
    if frame.empty:
        raise InputError(f"{path}: the table has no rows: make one with lalp eval")
    texts = ("benchmark", "prompt_id", "problem", "outcome")
    check_cells(frame, str(path), texts=texts, numbers=("sample", "num_tokens"))
    for name in ("correct", "truncated"):
        if not pd.api.types.is_bool_dtype(frame[name].dtype):
            raise InputError(f"{path}: column {name!r} must hold true and false, nothing else")
    frame.attrs["path"] = str(path)
    return frame
