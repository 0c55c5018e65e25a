r"""Accuracy of a model on benchmarks, with intervals, and two models against each other.

A results table has one row per sample. Its accuracy is pass@1: with one sample a problem the share
of correct answers, with k samples the mean over samples (paper, Table 18). Intervals are 95 %:
Wilson's for one sample a problem, else a bootstrap over problems, since samples of one problem go
together. AVG is the unweighted mean over benchmarks, as in the paper; its bootstrap draws problems
anew within each benchmark.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from scipy import stats

from lalp.benchmarks import (
    AVERAGED,
    BENCHMARKS,
    Benchmark,
    benchmark_digest,
    find_benchmark,
    load_benchmark,
    load_programs,
    problem_digest,
)
from lalp.grading import extract_answer, extract_choice, grade_answers, is_choice
from lalp.intervals import mean_interval
from lalp.records import InputError, Prompt, atomic_path

if TYPE_CHECKING:
    from lalp.generation import Completion, Sampling
    from lalp.students import Student

COLUMNS = (
    *("benchmark", "prompt_id", "sample", "problem", "outcome", "correct", "truncated"),
    *("num_tokens", "answer", "extracted", "difficulty"),
)
AVG = "AVG"

_NUM_RESAMPLES = 2000
_UNREAD = ("no answer", "no code")
_Z = stats.norm.ppf(0.975)
_POWER_Z = _Z + stats.norm.ppf(0.8)
# A question that asks for a percentage takes "50" and "50 %" for the same answer.
_ASKS_PERCENT = re.compile(
    r"(?i)\b(?:what|which|how many|find|express|as an?|by how)\b[^.?!]*\bpercent"
)


# ---------------------------------------------------------------------------------------------
# Grading
# ---------------------------------------------------------------------------------------------


def grade(
    benchmark: str | Benchmark,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    *,
    num_workers: int = 2,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Grade completions against their problems' references.

    Only what follows the last ``</think>`` counts. A truncated completion is never correct. A
    reference that is the letter of an option is compared with the letter that is given, all others
    as expressions. Where a problem asks for a percentage, a percent sign is optional.

    Args:
        benchmark: Its name goes into the table; programs (``code``) are not graded here.
        prompts: Hold the references.
        completions: Of these prompts.
        num_workers: As in `grade_answers`.
        cache: As in `grade_answers`.

    Returns:
        One row per completion, in the same order: ``benchmark``, ``prompt_id``, ``sample``,
        ``problem`` (hash of text and reference), ``outcome`` (``correct``, ``wrong``, ``no
        answer``, ``truncated``, ``timeout``, ``error``), ``correct``, ``truncated``,
        ``num_tokens``, ``answer`` (the reference), ``extracted``, and ``difficulty``, which only
        LiveCodeBench has.

    Raises:
        InputError: If a completion's prompt is not given, or has no reference.
    """
    from lalp.generation import final_part

    name = benchmark if isinstance(benchmark, str) else benchmark.name
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    for completion in completions:
        if (prompt := by_id.get(completion.prompt_id)) is None or prompt.answer is None:
            state = "is not among the prompts" if prompt is None else "has no reference answer"
            raise InputError(f"{name}: prompt {completion.prompt_id!r} of a completion {state}")
    asked = [by_id[completion.prompt_id] for completion in completions]
    # What was cut off is wrong, whatever it says: nothing to compare.
    texts = ["" if c.truncated else final_part(c.text) or "" for c in completions]
    graded = grade_texts(asked, texts, num_workers=num_workers, cache=cache)
    outcomes = [
        "truncated" if completion.truncated else outcome
        for completion, outcome in zip(completions, graded["outcome"], strict=True)
    ]
    columns = {
        "benchmark": name,
        "prompt_id": [prompt.prompt_id for prompt in asked],
        "sample": [completion.sample for completion in completions],
        "problem": [problem_digest(prompt) for prompt in asked],
        "outcome": outcomes,
        "correct": [outcome == "correct" for outcome in outcomes],
        "truncated": [completion.truncated for completion in completions],
        "num_tokens": [completion.num_tokens for completion in completions],
        "answer": [prompt.answer for prompt in asked],
        "extracted": list(graded["extracted"]),
        "difficulty": None,
    }
    return _typed(pd.DataFrame(columns, columns=list(COLUMNS)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with one type for each column, also where it is empty or all is missing."""
    types = dict.fromkeys(COLUMNS, "str") | {"sample": "int64", "num_tokens": "int64"}
    return frame.astype(types | {"correct": "bool", "truncated": "bool"})


def grade_texts(
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    *,
    num_workers: int = 2,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Grade one text for each of the given prompts, which may repeat.

    Returns:
        Columns ``extracted`` (missing if no answer is read) and ``outcome``, one row per text.
    """
    pairs = [_pair(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    grades = grade_answers(pairs, num_workers=num_workers, cache=cache)
    rows = [(grade.extracted, grade.outcome) for grade in grades]
    return pd.DataFrame(rows, columns=["extracted", "outcome"])


def _pair(prompt: Prompt, text: str) -> tuple[str, str]:
    """Reference and text as `grade_answers` compares them."""
    reference = prompt.answer or ""
    if is_choice(reference):
        letter = extract_choice(text)
        return reference, text if letter is None else rf"\boxed{{{letter}}}"
    if _ASKS_PERCENT.search(prompt.messages[-1].content):
        answer = extract_answer(text)
        plain = _without_percent(answer) if answer else None
        return _without_percent(reference), text if plain == answer else rf"\boxed{{{plain}}}"
    return reference, text


def _without_percent(answer: str) -> str:
    return re.sub(r"(?<=\d)[\s$}]*(?:\\?%|(?:\\text\s*\{)?\s*percent\}?)[\s$]*$", "", answer)


# ---------------------------------------------------------------------------------------------
# From a model to a results table
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Set:
    """A benchmark with its problems; ``programs`` are LiveCodeBench's."""

    benchmark: Benchmark
    prompts: tuple[Prompt, ...]
    programs: tuple[Any, ...] = ()


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
    """Have a model answer benchmarks and grade it; a killed run goes on where it stopped.

    Args:
        names: Of benchmarks, or files of one's own, as in `load_benchmark`.
        model: As in `generate`.
        sampling: As in `generate`.
        folder: As in `load_benchmark`.
        allow_count: As in `load_benchmark`.
        system_prompt: None for the paper's, where a prompt has no system message; empty for none.
            Programs are asked for in LiveCodeBench's own words alone.
        store: Folder of finished samples; ``build/samples`` if not given.
        num_workers: Processes that grade.
        **options: Other keywords of `generate`: ``backend``, ``batch_size``, ``device``, ...

    Returns:
        As `grade`, by benchmark, problem and sample; ``attrs["run"]`` says what was run.

    Raises:
        InputError: If a benchmark or the model cannot be loaded, or one is named twice.
    """
    from lalp.assets import build_dir
    from lalp.generation import generate, paper_prompts

    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise InputError(
            f"benchmark {twice[0]!r} is named twice" if twice else "no benchmark named"
        )
    store = Path(store or build_dir() / "samples")
    sets = [_load_set(name, folder, allow_count) for name in names]
    completions: dict[str, list[Completion]] = {}
    for is_code in (False, True):
        prompts = [prompt for s in sets if bool(s.programs) == is_code for prompt in s.prompts]
        system = None if is_code else system_prompt or None
        if not is_code and system_prompt is None:
            prompts = paper_prompts(prompts)
        if prompts:
            found = generate(prompts, model, sampling, system_prompt=system, store=store, **options)
            for completion in found:
                completions.setdefault(completion.prompt_id, []).append(completion)
    frames = []
    for each in sets:
        given = [found for prompt in each.prompts for found in completions[prompt.prompt_id]]
        progress = options.get("progress", True)
        frames.append(_grade_set(each, given, num_workers, store, progress))
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = {"run": _run_record(sets, model, sampling, system_prompt, options)}
    return frame


def _load_set(name: str, folder: str | Path | None, allow_count: bool) -> _Set:
    benchmark = find_benchmark(name)
    if benchmark.grader != "code":
        return _Set(benchmark, tuple(load_benchmark(name, folder, allow_count=allow_count)))
    from lalp import livecodebench, sandbox

    sandbox.check_sandbox()  # before hours of sampling whose programs could not be run
    programs = load_programs(name, folder, allow_count)
    return _Set(benchmark, tuple(map(livecodebench.prompt_of, programs)), tuple(programs))


def _grade_set(
    each: _Set, completions: Sequence[Completion], num_workers: int, store: Path, progress: bool
) -> pd.DataFrame:
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "cache": store / f"grades-{each.benchmark.name}.jsonl",
    }
    if not each.programs:
        return grade(each.benchmark, each.prompts, completions, **options)
    from lalp.livecodebench import grade_programs

    frame = grade_programs(each.programs, completions, progress=progress, **options)
    digests = {prompt.prompt_id: problem_digest(prompt) for prompt in each.prompts}
    frame = frame.assign(benchmark=each.benchmark.name, problem=frame["prompt_id"].map(digests))
    return _typed(frame.reindex(columns=list(COLUMNS)))


def _run_record(
    sets: Sequence[_Set],
    model: str | Student,
    sampling: Sampling,
    system_prompt: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What decides the results, as plain values."""
    from lalp.generation import SYSTEM_PROMPT
    from lalp.grading import grading_key
    from lalp.students import Student, load_config, locate_student, revision

    if isinstance(model, Student):
        name, mark = model.name, model.revision
    else:
        trust = bool(options.get("trust_remote_code"))
        config = load_config(model, trust_remote_code=trust)
        name, mark = model, revision(locate_student(model), config)
    packages = ("lalp", "torch", "transformers", "vllm", "datasets")
    backend = options.get("backend", "transformers")
    return {
        "model": name,
        "revision": mark,
        "sampling": asdict(sampling),
        "system_prompt": SYSTEM_PROMPT if system_prompt is None else system_prompt,
        "backend": backend,
        "benchmarks": {
            each.benchmark.name: {
                "num_problems": len(each.prompts),
                "digest": benchmark_digest(each.prompts),
            }
            for each in sets
        },
        "grader": grading_key(),
        "versions": {p: version(p) for p in packages if p != "vllm" or backend == "vllm"},
    }


def write_results(results: pd.DataFrame, path: str | Path) -> None:
    """Write a results table as Parquet, with what was run."""
    table = pa.Table.from_pandas(_typed(results[list(COLUMNS)]), preserve_index=False)
    record = json.dumps(results.attrs.get("run", {}), ensure_ascii=False)
    table = table.replace_schema_metadata((table.schema.metadata or {}) | {b"lalp_run": record})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def load_results(path: str | Path) -> pd.DataFrame:
    """Read a results table written by `write_results`; ``attrs["run"]`` says what was run.

    Raises:
        InputError: If the file is missing, damaged, or not a results table.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file: make one with lalp eval")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
            run = json.loads((table.schema.metadata or {}).get(b"lalp_run", b"{}"))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: not a readable results table ({reason}): make one with lalp eval"
        ) from error
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise InputError(
            f"{path}: not a results table, column {missing[0]!r} is missing: make one with "
            "lalp eval"
        )
    frame = table.select(list(COLUMNS)).to_pandas()
    frame.attrs = {"run": run}
    return frame


# ---------------------------------------------------------------------------------------------
# Accuracy
# ---------------------------------------------------------------------------------------------


def accuracy_table(
    results: pd.DataFrame, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """Accuracy per benchmark with a 95 % interval, and AVG.

    AVG is the unweighted mean over all benchmarks of the table but GPQA and LiveCodeBench, which
    the paper leaves out of it; there is none with fewer than two. It is the paper's AVG if all of
    `AVERAGED` are there.

    Args:
        results: From `evaluate`, `grade` or `load_results`; every problem of a benchmark needs the
            same number of samples.
        seed: Of the bootstrap.
        num_resamples: Bootstrap resamples.

    Returns:
        One row per benchmark, in the paper's order: ``benchmark``, ``title``, ``num_problems``,
        ``num_samples`` of each problem (0 where they differ), ``accuracy``, ``low``, ``high``,
        ``interval`` (``wilson`` or ``bootstrap``), and as shares of all samples ``no_answer`` and
        ``truncated``, then ``mean_tokens``. Where a bootstrap would have no width, because all
        problems have the same result, it is ``wilson`` over problems instead.

    Raises:
        InputError: If the table is empty or problems have different numbers of samples.
    """
    scores = _scores(results)
    rows = []
    for name, values in scores.items():
        mine = results[results["benchmark"] == name]
        num_samples = len(mine) // len(values)
        low, high, kind = _accuracy_interval(values, num_samples, num_resamples, seed)
        rows.append(
            {
                "benchmark": name,
                "title": _title(name),
                "num_problems": len(values),
                "num_samples": num_samples,
                "accuracy": float(values.mean()),
                "low": low,
                "high": high,
                "interval": kind,
                "no_answer": float(mine["outcome"].isin(_UNREAD).mean()),
                "truncated": float(mine["truncated"].mean()),
                "mean_tokens": float(mine["num_tokens"].mean()),
            }
        )
    table = pd.DataFrame(rows)
    averaged = [name for name in scores if _is_averaged(name)]
    if len(averaged) < 2:
        return table
    row = _average_row(table[table["benchmark"].isin(averaged)])
    vectors = [scores[name] for name in averaged]
    low, high = _average_interval(vectors, (0.0, 1.0), num_resamples, seed)
    return pd.concat([table, pd.DataFrame([row | {"low": low, "high": high}])], ignore_index=True)


def _average_row(table: pd.DataFrame) -> dict[str, Any]:
    samples = table["num_samples"].unique()
    means = ("accuracy", "no_answer", "truncated", "mean_tokens")
    return {
        "benchmark": AVG,
        "title": AVG,
        "num_problems": int(table["num_problems"].sum()),
        "num_samples": int(samples[0]) if len(samples) == 1 else 0,
        "interval": "bootstrap",
    } | {name: float(table[name].mean()) for name in means}


def _scores(results: pd.DataFrame) -> dict[str, Float[np.ndarray, "problems"]]:
    """Share of correct samples of each problem, by benchmark in the paper's order."""
    if results.empty:
        raise InputError("the results hold no samples: evaluate a benchmark first")
    known = list(BENCHMARKS)
    names = sorted(
        results["benchmark"].unique(),
        key=lambda name: known.index(name) if name in known else len(known),
    )
    scores = {}
    for name in names:
        mine = results[results["benchmark"] == name]
        if mine.duplicated(["prompt_id", "sample"]).any():
            twice = mine.loc[mine.duplicated(["prompt_id", "sample"]), "prompt_id"].iloc[0]
            raise InputError(f"{name}: the same sample of {twice!r} is there twice")
        grouped = mine.groupby("prompt_id", sort=True)["correct"]
        counts = grouped.size()
        if counts.nunique() > 1:
            raise InputError(
                f"{name}: {counts.idxmin()!r} has {counts.min()} samples and {counts.idxmax()!r} "
                f"{counts.max()}: evaluate all problems with the same number"
            )
        scores[name] = grouped.mean().to_numpy(float)
    return scores


def _title(name: str) -> str:
    return BENCHMARKS[name].title if name in BENCHMARKS else name


def _is_averaged(name: str) -> bool:
    return name in AVERAGED or name not in BENCHMARKS


def _accuracy_interval(
    values: Float[np.ndarray, "problems"], num_samples: int, num_resamples: int, seed: int
) -> tuple[float, float, str]:
    if num_samples > 1 and np.ptp(values) > 0:
        return *mean_interval(values, num_resamples, seed), "bootstrap"
    if num_samples > 1:
        return *_same_everywhere(values, (0.0, 1.0)), "wilson"
    test = stats.binomtest(round(values.sum()), len(values))
    interval = test.proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high), "wilson"


def _same_everywhere(
    values: Float[np.ndarray, "problems"], bounds: tuple[float, float]
) -> tuple[float, float]:
    """Interval of a mean where all problems have the same value, so a bootstrap has no width.

    Wilson's bound on the share of problems that may be otherwise, ``z^2 / (n + z^2)``: of 0 correct
    answers to n problems it is Wilson's interval itself.
    """
    slack = _Z**2 / (len(values) + _Z**2)
    return max(bounds[0], values[0] - slack), min(bounds[1], values[0] + slack)


def _average_interval(
    vectors: Sequence[Float[np.ndarray, "problems"]],
    bounds: tuple[float, float],
    num_resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Interval of the unweighted mean of means; problems are drawn within each benchmark."""
    if all(np.ptp(values) == 0 for values in vectors):
        # Where no benchmark's bootstrap has a width: the squares of their half-widths add up.
        ends = [_same_everywhere(values, bounds) for values in vectors]
        center = float(np.mean([values[0] for values in vectors]))
        below, above = (
            math.hypot(*(end[k] - v[0] for end, v in zip(ends, vectors, strict=True)))
            for k in (0, 1)
        )
        return center - below / len(vectors), center + above / len(vectors)
    if any(len(values) < 2 for values in vectors):
        return math.nan, math.nan
    interval = stats.bootstrap(
        tuple(vectors),
        lambda *samples, axis: np.mean([sample.mean(axis=axis) for sample in samples], axis=0),
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, 2**22 // max(map(len, vectors))),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paper_table(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Runs in the layout of the paper's tables of results (9, 10 and 19).

    Args:
        runs: Results by the run's name.

    Returns:
        One row per run: MATH, AIME25, AMC, MINERVA, KAOYAN, OLYMPIAD, CN_MATH24, AVG (of these
        seven, missing if one of them is) and GPQA, as shares, and beside them ``truncated`` (share
        of samples) and ``mean_tokens``, both as unweighted means over the run's benchmarks.
    """
    columns = [
        *(BENCHMARKS[name].title for name in AVERAGED),
        AVG,
        BENCHMARKS["gpqa_diamond"].title,
    ]
    rows = {}
    for name, results in runs.items():
        scores = _scores(results)
        row = {_title(key): float(values.mean()) for key, values in scores.items()}
        row[AVG] = float(
            np.mean([row.get(column, math.nan) for column in columns[: len(AVERAGED)]])
        )
        by_benchmark = results.groupby("benchmark")
        row["truncated"] = float(by_benchmark["truncated"].mean().mean())
        row["mean_tokens"] = float(by_benchmark["num_tokens"].mean().mean())
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.reindex(columns=[*columns, "truncated", "mean_tokens"]).rename_axis("run")


# ---------------------------------------------------------------------------------------------
# Two runs on the same problems
# ---------------------------------------------------------------------------------------------


def compare_runs(
    a: pd.DataFrame, b: pd.DataFrame, *, seed: int = 0, num_resamples: int = _NUM_RESAMPLES
) -> pd.DataFrame:
    """How much more accurate run B is than run A, paired by problem.

    Args:
        a: Results of run A.
        b: Results of run B, on the same problems; the number of samples may differ.
        seed: Of the bootstrap, which draws problems (within each benchmark for AVG).
        num_resamples: Bootstrap resamples.

    Returns:
        One row per benchmark and AVG: ``accuracy_a``, ``accuracy_b``, ``difference`` (B - A) with
        its 95 % interval ``low``, ``high``; with one sample a problem ``only_a`` and ``only_b``,
        the problems that one run alone solves, and ``p_value`` of McNemar's exact test; and
        ``problems_needed``: how many such problems would show a difference of this size at 5 %
        with a chance of 80 %.

    Raises:
        InputError: If the runs were not evaluated on the same problems.
    """
    _check_same_problems(a, b)
    scores_a, scores_b = _scores(a), _scores(b)
    single = {
        name: all((frame.loc[frame["benchmark"] == name, "sample"] == 0).all() for frame in (a, b))
        for name in scores_a
    }
    differences = {name: scores_b[name] - scores_a[name] for name in scores_a}
    rows = [
        _comparison(name, scores_a[name], scores_b[name], single[name], num_resamples, seed)
        for name in scores_a
    ]
    averaged = [name for name in scores_a if _is_averaged(name)]
    if len(averaged) > 1:
        means = [np.mean([s[name].mean() for name in averaged]) for s in (scores_a, scores_b)]
        vectors = [differences[name] for name in averaged]
        low, high = _average_interval(vectors, (-1.0, 1.0), num_resamples, seed)
        row = _difference_row(AVG, sum(map(len, vectors)), *map(float, means))
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _check_same_problems(a: pd.DataFrame, b: pd.DataFrame) -> None:
    keys = ["benchmark", "prompt_id", "problem"]
    sides = [set(frame[keys].itertuples(index=False, name=None)) for frame in (a, b)]
    if sides[0] == sides[1]:
        return
    names = [{name for name, _, _ in side} for side in sides]
    for run, only in (("A", names[0] - names[1]), ("B", names[1] - names[0])):
        if only:
            raise InputError(
                f"only run {run} was evaluated on {min(only)}: compare runs on the same benchmarks"
            )
    name, prompt_id, _ = min(sides[0] ^ sides[1])
    shared = all((name, prompt_id) in {key[:2] for key in side} for side in sides)
    state = "has another text or answer in the other" if shared else "is in one run only"
    raise InputError(
        f"the runs differ in their problems: {prompt_id!r} of {name} {state}: evaluate both runs "
        "on the same file"
    )


def _difference_row(name: str, count: int, mean_a: float, mean_b: float) -> dict[str, Any]:
    return {
        "benchmark": name,
        "title": _title(name),
        "num_problems": count,
        "accuracy_a": mean_a,
        "accuracy_b": mean_b,
        "difference": mean_b - mean_a,
        "low": math.nan,
        "high": math.nan,
        "only_a": math.nan,
        "only_b": math.nan,
        "p_value": math.nan,
        "problems_needed": math.nan,
    }


def _comparison(
    name: str,
    scores_a: Float[np.ndarray, "problems"],
    scores_b: Float[np.ndarray, "problems"],
    single: bool,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    difference = scores_b - scores_a
    row = _difference_row(name, len(difference), float(scores_a.mean()), float(scores_b.mean()))
    if np.ptp(difference) > 0:
        row["low"], row["high"] = mean_interval(difference, num_resamples, seed)
    else:
        row["low"], row["high"] = _same_everywhere(difference, (-1.0, 1.0))
    row["problems_needed"] = problems_needed(difference)
    if single:
        only_a, only_b = int((difference < 0).sum()), int((difference > 0).sum())
        row |= {"only_a": only_a, "only_b": only_b, "p_value": mcnemar(only_a, only_b)}
    return row


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test: a fair coin for each problem that one solves."""
    discordant = only_a + only_b
    return float(stats.binomtest(only_b, discordant).pvalue) if discordant else 1.0


def problems_needed(difference: Float[np.ndarray, "problems"]) -> float:
    """Problems like these that show their mean difference at 5 %, two-sided, with 80 % power.

    ``(1.96 + 0.84)^2 var / mean^2``; NaN if the mean is 0 or nothing varies.
    """
    mean = float(difference.mean())
    if mean == 0 or np.ptp(difference) == 0:
        return math.nan
    return float(math.ceil(_POWER_Z**2 * difference.var(ddof=1) / mean**2))


# ---------------------------------------------------------------------------------------------
# Auditing the grader
# ---------------------------------------------------------------------------------------------

STATED_FORMS = (
    r"We compute. Hence $x = 1$ first, and the result is $\boxed{%s}$.",
    "We compute, and check that 3 of 4 cases hold. The answer is $%s$.",
    "We compute.\n\n**Final answer:** $%s$",
    "We compute 2 + 2.\n#### %s",
)
"""Ways to state an answer."""

_DUE_WRONG = ("other", "altered")
_WHY = {
    "wrong": "what is read is not taken for the reference",
    "no answer": "what is read is not one expression",
    "timeout": "comparing took too long",
    "error": "the reference cannot be read, or comparing failed",
}


def audit_grader(
    prompts: Sequence[Prompt],
    solutions: Mapping[str, str] | None = None,
    *,
    num_wrong: int = 4,
    num_workers: int = 2,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Try the grader on a benchmark's own answers: what should be correct, and what should not.

    Five kinds of texts are graded. Due to be correct: each worked ``solution``; each reference
    ``stated`` in the ways of `STATED_FORMS`; each reference ``respelled``, as others would write
    it. Due to be wrong: ``other``, the references of other problems, those that look most alike
    (pairs that differ in spelling only are skipped); and ``altered``, the reference with its last
    digit changed, or its sign.

    Args:
        prompts: With references.
        solutions: Worked solutions by prompt id, as `load_solutions` gives them.
        num_wrong: Other problems' references tried on each problem.
        num_workers: As in `grade_answers`.
        cache: As in `grade_answers`.

    Returns:
        One row per text: ``kind``, ``prompt_id``, ``answer`` (the reference), ``text``,
        ``extracted``, ``outcome``, ``miss``, and for misses the ``reason``.

    Raises:
        InputError: If there is no prompt, or one has no reference.
    """
    unknown = [prompt.prompt_id for prompt in prompts if prompt.answer is None]
    if unknown or not prompts:
        what = (
            f"prompt {unknown[0]!r} has no reference answer" if unknown else "there are no prompts"
        )
        raise InputError(f"{what}: nothing to audit the grader with")
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    cases = [("solution", by_id[key], text) for key, text in (solutions or {}).items()]
    cases += [
        ("stated", prompt, form % prompt.answer) for prompt in prompts for form in STATED_FORMS
    ]
    boxed = [("other", *pair) for pair in _wrong_answers(prompts, num_wrong)]
    for prompt in prompts:
        boxed += [("respelled", prompt, text) for text in respellings(prompt.answer)]
        boxed += [("altered", prompt, text) for text in _alterations(prompt.answer)]
    cases += [(kind, prompt, rf"\boxed{{{text}}}") for kind, prompt, text in boxed]
    kinds, asked, texts = (list(column) for column in zip(*cases, strict=True))
    graded = grade_texts(asked, texts, num_workers=num_workers, cache=cache)
    table = pd.DataFrame(
        {
            "kind": kinds,
            "prompt_id": [prompt.prompt_id for prompt in asked],
            "answer": [prompt.answer for prompt in asked],
            "text": texts,
        }
    ).join(graded)
    table["miss"] = (table["outcome"] == "correct") == table["kind"].isin(_DUE_WRONG)
    table["reason"] = [_why_missed(row) if row.miss else None for row in table.itertuples()]
    return table


def audit_shares(audit: pd.DataFrame) -> pd.DataFrame:
    """How often each kind of text of an audit is graded ``correct``: 1 is due, or 0.

    Returns:
        One row per ``kind`` with ``num_texts``, ``num_misses`` and ``correct``, a share.
    """
    grouped = audit.assign(is_correct=audit["outcome"] == "correct").groupby("kind", sort=False)
    return grouped.agg(
        num_texts=("miss", "size"), num_misses=("miss", "sum"), correct=("is_correct", "mean")
    ).reset_index()


def _wrong_answers(prompts: Sequence[Prompt], count: int) -> list[tuple[Prompt, str]]:
    """For each problem the references next to its own in order of length and text."""
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
    written = [
        re.sub(r"\\[dt]?frac(?![a-z])", r"\\dfrac", reference),
        re.sub(r"(?<![\d ])\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", reference),
        re.sub(r"\s*([-+=])\s*", r" \1 ", reference),
        re.sub(r"\\left\s*|\\right\s*", "", reference),
        re.sub(r"^(\d{1,3})(\d{3})$", r"\1,\2", reference),
        re.sub(r"^(-?\d+)$", r"\1.0", reference),
        re.sub(r"^(\d+)$", r"x = \1", reference),
        re.sub(r"pmatrix", "bmatrix", reference),
        re.sub(r"\^\{?\\circ\}?", "", reference),
        re.sub(r"^[a-z]\s*(?:=|\\in)\s*", "", reference),
        plain_text.strip("()") if plain_text != reference else reference,
        ", ".join(reversed(reference.split(","))) if is_list else reference,
    ]
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
    if row.extracted is None or pd.isna(row.extracted):
        return "no final answer is marked in the text"
    return f"{_WHY[row.outcome]}: {row.extracted}"
