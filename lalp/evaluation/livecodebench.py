"""LiveCodeBench (v2, paper's Table 16): its problems, prompts, and the verdict on a program.

A program passes if it passes every test; the first failed test ends it. The prompts, the extraction
of answers and the verdicts are LiveCodeBench's, with these differences:

- a program runs in `sandbox`, and each test in its own process with real standard streams;
- the last code block after the reasoning counts (LiveCodeBench's own choice depends on the model);
- the time limit is CPU time, so a busy machine changes no verdict; wall time is twice as much.

Expected outputs never enter the sandbox and all verdicts are computed outside, so a program can
pass only by printing the right answer. It shares a process with the few lines that call its
function, so it may take over the report of its value. That gains no more than returning it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import pickletools
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from lalp.errors import InputError, reason
from lalp.evaluation.sandbox import MIB, Limits, check_sandbox, run_program
from lalp.evaluation.seccomp import SYSTEM_CALLS
from lalp.files import digest, fingerprint, read_data
from lalp.grading.answers import final_part
from lalp.pools.pool import Message, Prompt, located
from lalp.stats import wilson_interval

if TYPE_CHECKING:
    from lalp.sampling.samples import Completion


HUB_ID = "livecodebench/code_generation_lite"
# The commit that added the second file, which made it release v2.
HUB_REVISION = "356356a5c3a6baf7748838d82c5c36c62235ca50"
RELEASE_FILES = ("test.jsonl", "test2.jsonl")
DIFFICULTIES = ("easy", "medium", "hard")

SECONDS_PER_TEST = 6  # LiveCodeBench's
_TEXT_FIELDS = (
    *("question_title", "question_content", "platform", "question_id", "contest_date"),
    *("difficulty", "metadata", "public_test_cases", "private_test_cases"),
)
_WORDS = read_data("evaluation/livecodebench.yaml")
_COLUMNS = ["prompt_id", "sample", "difficulty", "outcome", "correct", "truncated", "num_tokens"]


@dataclass(frozen=True)
class Problem:
    """A problem without its tests; these are large, and `load_tests` reads them."""

    prompt_id: str  # livecodebench/ and the question's id
    content: str  # the question
    starter_code: str  # the beginning of the requested function; else empty
    difficulty: str  # one of `DIFFICULTIES`
    func_name: str | None  # the function that is called; None if a program reads and prints
    path: Path
    offset: int  # of its line's first byte in the file
    digest: str  # of that line


# A test's input and output; for a function its arguments, one JSON value per line, and its result.
_Test = tuple[str, str]
_Job = tuple[Problem, str]  # a program to be run on a problem's tests


def load_problems(path: str | Path | None = None) -> list[Problem]:
    """Read problems in LiveCodeBench's own format; private tests may also be plain JSON.

    ``path`` is a JSON Lines file; ``test.jsonl`` is read together with a ``test2.jsonl`` beside it.
    Without a path release v2 is taken from the hub (2 GB). InputError if a file cannot be used.
    """
    problems = [problem for file in _files(path) for problem in _read_problems(file)]
    if not problems:
        raise InputError(f"{path}: holds no problem")
    (name, count), *_ = Counter(problem.prompt_id for problem in problems).most_common()
    if count > 1:
        raise InputError(f"{path or HUB_ID}: problem {name!r} is there twice; keep one")
    return problems


def _files(path: str | Path | None) -> list[Path]:
    if path is not None:
        path = Path(path)
        if path.suffix not in (".jsonl", ".json-lines"):
            raise InputError(f"{path}: LiveCodeBench is read from its own .jsonl files")
        second = path.with_name(RELEASE_FILES[1])
        return [path, second] if path.name == RELEASE_FILES[0] and second.exists() else [path]
    from huggingface_hub import hf_hub_download

    options = {"repo_type": "dataset", "revision": HUB_REVISION}
    advice = (
        f"Without a network, get {' and '.join(RELEASE_FILES)} elsewhere "
        f"(https://huggingface.co/datasets/{HUB_ID}) and give their folder"
    )
    with from_hub(f"{HUB_ID}: cannot be loaded from the hub", advice):
        return [Path(hf_hub_download(HUB_ID, name, **options)) for name in RELEASE_FILES]


@contextlib.contextmanager
def from_hub(failure: str, advice: str) -> Iterator[None]:
    """Report in one line what the block cannot fetch, why, and what to do instead."""
    try:
        yield
    # Hub, cache, network and file formats each raise their own errors.
    except Exception as error:
        raise InputError(f"{failure} ({reason(error)}). {advice}") from error


def _read_problems(path: Path) -> Iterator[Problem]:
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    with located(f"{path}, line {number}"):
                        problem = _problem(line, path, offset)
                    yield problem
                offset += len(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _problem(line: bytes, path: Path, offset: int) -> Problem:
    record = _parse(line, dict)
    for name in _TEXT_FIELDS:
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"field {name!r} must be text; is this a LiveCodeBench file?")
    if (difficulty := record["difficulty"]) not in DIFFICULTIES:
        raise InputError(f"difficulty {difficulty!r} is none of {', '.join(DIFFICULTIES)}")
    with located("field 'metadata'"):
        func_name = _parse(record["metadata"], dict).get("func_name")
    if func_name is not None and not str(func_name).isidentifier():
        raise InputError(f"func_name {func_name!r} is no name of a function")
    return Problem(
        prompt_id=f"livecodebench/{record['question_id']}",
        content=record["question_content"],
        starter_code=str(record.get("starter_code") or ""),
        difficulty=difficulty,
        func_name=func_name,
        path=path,
        offset=offset,
        digest=hashlib.sha256(line).hexdigest()[:32],
    )


def _parse(text: bytes | str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"invalid JSON: {error}") from None
    if not isinstance(value, kind):
        raise InputError(f"must be a JSON {'list' if kind is list else 'object'}")
    return value


# A problem's tests take up to 100 MB, and completions of one problem follow each other.
@lru_cache(maxsize=8)
def load_tests(problem: Problem) -> tuple[_Test, ...]:
    """Inputs and outputs of a problem's public tests, then of its private ones.

    InputError if they cannot be read, or the file has changed since `load_problems`.
    """
    with located(f"{problem.path}: {problem.prompt_id}"):
        try:
            with problem.path.open("rb") as file:
                file.seek(problem.offset)
                line = file.readline()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(line).hexdigest()[:32] != problem.digest:
            raise InputError("the file has changed since it was loaded; load it again")
        tests = tuple(_tests(json.loads(line), problem.func_name is not None))
        if not tests:
            raise InputError("has no test")
    return tests


def _tests(record: Mapping[str, Any], is_function: bool) -> Iterator[_Test]:
    found = []
    for name in ("public_test_cases", "private_test_cases"):
        with located(f"field {name!r}"):
            text = record[name]
            found += _parse(text if text.lstrip().startswith("[") else _unpack(text), list)
    for number, case in enumerate(found, 1):
        match case:
            case {"input": str(given), "output": str(expected)}:
                yield given, expected
            case _:
                raise InputError(f"test {number} has no texts 'input' and 'output'")
        if is_function:
            with located(f"test {number}"):
                _arguments(given)
            with located(f"output of test {number}"):
                _parse(expected, object)


def _arguments(given: str) -> list[Any]:
    return [_parse(line, object) for line in given.split("\n") if line.strip()]


# The parts of a pickled text; none of these calls or imports anything.
_TEXT_OPCODES = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_OTHER_OPCODES = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})
_MAX_TEST_BYTES = 1024 * MIB


def _unpack(packed: str) -> str:
    """The text in base64 of zlib of pickle, as LiveCodeBench packs it.

    Nothing is unpickled, because that would run any code that the file names.
    """
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(packed, validate=True), _MAX_TEST_BYTES)
    except (ValueError, zlib.error) as error:
        raise InputError(f"neither JSON nor base64 of zlib: {error}") from None
    if not unpacker.eof:
        limit = f"more than {_MAX_TEST_BYTES // MIB} MB"
        raise InputError(f"unpack to {limit}, or cut off; get the file anew")
    texts = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _TEXT_OPCODES:
                texts.append(argument)
            elif opcode.name not in _OTHER_OPCODES:
                what = f"a pickle of more than a text ({opcode.name})"
                raise InputError(f"{what}, which may run code when it is loaded; not read")
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"a damaged pickle: {error}") from None
    if len(texts) != 1:
        raise InputError(f"a pickle of {len(texts)} texts, not of one")
    return texts[0]


def prompt_of(problem: Problem) -> Prompt:
    """The question, the task, and the form of the answer, as LiveCodeBench asks for it."""
    form = problem.starter_code.rstrip() or "# your program"
    task = _WORDS["function" if problem.starter_code else "program"]
    text = _WORDS["prompt"].format(question=problem.content.strip(), task=task, form=form)
    return Prompt(problem.prompt_id, (Message("user", text),))


def extract_code(text: str) -> str | None:
    """The last complete code block after the reasoning (``</think>``); None if there is none.

    A line that ends in three backticks or more, perhaps with a language, begins a block. A line
    with only as many backticks, or more, ends it.
    """
    code, fence, indent, lines = None, 0, 0, []
    for line in (final_part(text) or "").split("\n"):
        spaces = len(line) - len(line.lstrip())
        if not fence:
            # The line's last backticks; no regular expression, as models may repeat them for ever.
            before = line[: line.rfind("`") + 1]
            count = len(before) - len(before.rstrip("`"))
            fence, indent, lines = count if count >= 3 else 0, spaces, []
        elif len(line.strip()) >= fence and not line.strip().strip("`"):
            code, fence = "\n".join(lines), 0
        else:
            lines.append(line[min(indent, spaces) :])
    return code if code and code.strip() else None


def grade_programs(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    *,
    num_workers: int = 2,
    cache: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run every completion's program on the tests of its problem.

    Each of the ``num_workers`` sandboxes may use a core and 2 GB. The file ``cache`` keeps verdicts
    by program and tests. Each is added as soon as it is known, so a killed run continues where it
    stopped. InputError if a completion belongs to no given problem, or there can be no sandbox.

    Returns:
        One row per completion, in the same order: ``prompt_id``, ``sample``, ``difficulty``,
        ``outcome`` (``passed``, ``wrong answer``, ``runtime error``, ``time limit``, ``memory
        limit``, ``output limit``, ``no code`` or ``truncated``), ``correct``, ``truncated`` and
        ``num_tokens``. A truncated completion is not run.
    """
    by_id = {problem.prompt_id: problem for problem in problems}
    jobs: dict[str, _Job] = {}
    found = []  # an outcome, or the key of its pending job
    for completion in completions:
        if completion.prompt_id not in by_id:
            raise InputError(f"no problem {completion.prompt_id!r}, which a completion answers")
        problem, code = by_id[completion.prompt_id], extract_code(completion.text)
        if completion.truncated or code is None:
            found.append("truncated" if completion.truncated else "no code")
            continue
        key = digest([_code_digest(), problem.digest, problem.func_name, code], 32)
        jobs[key] = problem, code
        found.append(key)
    verdicts = _run_jobs(jobs, num_workers, cache, progress)
    outcomes = [verdicts.get(key, key) for key in found]
    frame = pd.DataFrame([asdict(completion) for completion in completions], columns=_COLUMNS)
    return frame.assign(
        difficulty=[by_id[name].difficulty for name in frame["prompt_id"]],
        outcome=outcomes,
        correct=[outcome == "passed" for outcome in outcomes],
    )


def _run_jobs(
    jobs: Mapping[str, _Job], num_workers: int, path: Path | None, progress: bool
) -> dict[str, str]:
    """The outcome of each job by its key, from the cache where it is known."""
    known = _read_cache(path) if path else {}
    missing = [key for key in jobs if key not in known]
    if not missing:
        return known
    check_sandbox()
    stop = threading.Event()
    shown = {} if progress else {"disable": True}
    with (
        ThreadPoolExecutor(num_workers) as executor,
        tqdm(total=len(missing), unit="program", **shown) as bar,
    ):
        futures = {executor.submit(_verdict, *jobs[key], stop): key for key in missing}
        try:
            for future in as_completed(futures):
                key = futures[future]
                known[key] = future.result()
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("ab") as file:
                        # It begins its own line even after an unfinished one.
                        file.write(f"\n{json.dumps([key, known[key]])}\n".encode())
                bar.update()
        except BaseException:
            # The running programs end within a test, and no others start.
            stop.set()
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return known


def _read_cache(path: Path) -> dict[str, str]:
    """Outcomes by key; a line that a killed run left unfinished does not count."""
    found = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError):
            key, outcome = json.loads(line)
            found[key] = outcome
    return found


def _verdict(problem: Problem, code: str, stop: threading.Event) -> str:
    """Run a program on one test after another."""
    tests, name = load_tests(problem), problem.func_name
    template = _PROGRAM if name is None else _FUNCTION
    source = template.format(header=_HEADER, code=ascii(code), name=ascii(name))
    deadline = time.monotonic() + (SECONDS_PER_TEST + 1) * len(tests) + 5  # as LiveCodeBench
    for given, expected in tests:
        left = deadline - time.monotonic()
        if left <= 0 or stop.is_set():
            return "time limit"
        limits = Limits(min(2 * SECONDS_PER_TEST, left), cpu_seconds=SECONDS_PER_TEST)
        stdin = given if name is None else json.dumps(_arguments(given))
        run = run_program(source, stdin.encode("utf-8", "surrogatepass"), limits)
        outcome = run.outcome if run.outcome != "ok" else _judge(run.stdout, expected, name)
        if outcome != "passed":
            return outcome
    return "passed"


def _judge(stdout: bytes, expected: str, func_name: str | None) -> str:
    if func_name is None:
        is_right = _same_output(stdout.decode("utf-8", "replace"), expected)
    else:
        try:
            kind, value = json.loads(stdout)
            is_right = kind == "value" and value == json.loads(expected)
        except (ValueError, TypeError, RecursionError):
            return "runtime error"  # it ended without a result
    return "passed" if is_right else "wrong answer"


def _same_output(printed: str, expected: str) -> bool:
    """Compare line by line, without surrounding whitespace; numbers by exact value."""
    lines, expected_lines = (text.strip().split("\n") for text in (printed, expected))
    if len(lines) != len(expected_lines):
        return False
    for line, other in zip(lines, expected_lines, strict=True):
        if line.strip() == other.strip():
            continue
        try:
            # Decimal, because floats would treat neighbouring large numbers as equal.
            numbers, others = ([Decimal(word) for word in x.split()] for x in (line, other))
            if numbers != others:
                return False
        except (InvalidOperation, ValueError):
            return False
    return True


# Names that LiveCodeBench puts before every program, in its order.
_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins"),
    "typing",
)
_HEADER = ascii(
    "\n".join(
        [
            *(f"from {name} import *" for name in _MODULES),
            *(f"import {name}" for name in _MODULES[:-2]),
            "sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits(50000)",
        ]
    )
)
_PROGRAM = """
exec({header})
try:
    exec(compile({code}, "<program>", "exec", dont_inherit=True))
except SystemExit:
    pass
"""
# The program's output goes to stderr: stdout is only for the value. LiveCodeBench compares values
# with ==, so a tuple is a list only at the top.
_FUNCTION = """
import json, os, sys, types
output = os.dup(1)
os.dup2(2, 1)
arguments = json.load(sys.stdin)
solution = sys.modules["solution"] = types.ModuleType("solution")
exec({header}, solution.__dict__)
exec(compile({code}, "<program>", "exec", dont_inherit=True), solution.__dict__)
owner = solution.Solution() if hasattr(solution, "Solution") else solution
value = getattr(owner, {name})(*arguments)

def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {{key: plain(item) for key, item in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value).__module__ == "numpy" and not getattr(value, "shape", True):
        return value.item()
    raise TypeError

try:
    answer = ["value", plain(list(value) if isinstance(value, tuple) else value)]
except TypeError:
    answer = ["other", type(value).__name__]
with os.fdopen(output, "w") as file:
    file.write(json.dumps(answer))
os._exit(0)
"""


@cache
def _code_digest() -> str:
    """What decides a verdict besides the program and its tests."""
    code = fingerprint("evaluation.livecodebench", "evaluation.sandbox", "evaluation.seccomp")
    return digest([code, SYSTEM_CALLS, version("numpy")])


def accuracy_by_difficulty(results: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on easy, medium and hard problems (Table 16's columns), with 95 % intervals.

    ``results`` are rows of LiveCodeBench. Intervals are Wilson's over problems. With several
    samples per problem they are valid, but too wide.

    Returns:
        One row per difficulty: ``num_problems``, ``num_samples``, ``accuracy``, ``low``, ``high``.
    """
    rows = []
    for name in DIFFICULTIES:
        chosen = results[results["difficulty"] == name]
        means = chosen.groupby("prompt_id")["correct"].mean()
        accuracy = float(means.mean())  # NaN if there is none
        interval = wilson_interval(accuracy, len(means))
        rows.append((name, len(means), len(chosen), accuracy, *interval))
    columns = ["difficulty", "num_problems", "num_samples", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns).set_index("difficulty")
