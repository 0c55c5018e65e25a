"""LiveCodeBench: reading its files without trusting them, and verdicts that cannot be forged."""

from __future__ import annotations

import base64
import json
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lalp.errors import InputError
from lalp.evaluation import livecodebench
from lalp.evaluation.livecodebench import (
    HUB_ID,
    HUB_REVISION,
    RELEASE_FILES,
    Problem,
    accuracy_by_difficulty,
    extract_code,
    grade_programs,
    load_problems,
    load_tests,
    prompt_of,
)
from lalp.sampling.samples import Completion

CASES = yaml.safe_load(Path(__file__).with_name("livecodebench.yaml").read_text(encoding="utf-8"))
needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed"
)


def pack(value: object, protocol: int = 4) -> str:
    """As LiveCodeBench packs its private tests."""
    return pack_bytes(pickle.dumps(value, protocol))


def pack_bytes(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def cases(*tests: tuple[str, str]) -> str:
    return json.dumps([{"input": given, "output": wanted} for given, wanted in tests])


def record(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A problem: print the sum of two numbers."""
    return {
        "question_title": f"Sum {number}",
        "question_content": "Two numbers are given on a line. Print their sum.",
        "platform": "atcoder",
        "question_id": f"abc{number}",
        "contest_date": "2024-01-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": cases(("1 2\n", "3\n")),
        "private_test_cases": pack(cases(("10 -4\n", "6\n"))),
        "metadata": "{}",
    } | changes


STARTER = "class Solution:\n    def add(self, xs: List[int], y: int) -> List[int]:\n        "


def function_record(number: int = 1, *tests: tuple[str, str]) -> dict[str, Any]:
    """A problem: add a number to every element."""
    first, *others = tests or (("[1, 2]\n3", "[4, 5]"),)
    texts = {"public_test_cases": cases(first), "private_test_cases": pack(cases(*others))}
    metadata = json.dumps({"func_name": "add"})
    return record(number, starter_code=STARTER, difficulty="hard", metadata=metadata, **texts)


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def load(folder: Path, *records: dict[str, Any]) -> list[Problem]:
    return load_problems(write(folder / "problems.jsonl", *records))


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return load(tmp_path, record())[0]


# --- files ----------------------------------------------------------------------------------


def test_problems_and_their_tests(tmp_path: Path):
    first, second = load(tmp_path, record(1), function_record(2))
    assert (first.prompt_id, first.difficulty) == ("livecodebench/abc1", "easy")
    assert (first.func_name, second.func_name) == (None, "add")
    assert load_tests(first) == (("1 2\n", "3\n"), ("10 -4\n", "6\n"))
    assert load_tests(second) == (("[1, 2]\n3", "[4, 5]"),)


@pytest.mark.parametrize("protocol", [None, *range(pickle.HIGHEST_PROTOCOL + 1)])
@pytest.mark.parametrize(
    "text", ["x", "é🙂\n\\u0041\0", "long " * 50_000], ids=["1", "odd", "long"]
)
def test_packed_tests_of_every_protocol_or_in_plain_json(
    tmp_path: Path, protocol: int | None, text: str
):
    plain = json.dumps([{"input": text, "output": ""}], ensure_ascii=False)
    packed = plain if protocol is None else pack(plain, protocol)
    (problem,) = load(tmp_path, record(private_test_cases=packed))
    assert load_tests(problem)[1] == (text, "")


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_an_evil_pickle_is_not_loaded(tmp_path: Path):
    trap = tmp_path / "trap"
    for content in (Evil(trap), ["a", Evil(trap)], ["text"], 1, None, b"bytes"):
        (problem,) = load(tmp_path, record(private_test_cases=pack(content)))
        with pytest.raises(InputError, match="pickle of"):
            load_tests(problem)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Evil(trap)))
    assert trap.exists()


# Private tests as they stand in the file, and what is wrong with them.
DAMAGED = [
    ("%%%", "neither JSON nor base64"),
    (base64.b64encode(b"not zlib").decode(), "neither JSON nor base64"),
    (base64.b64encode(zlib.compress(b"x" * 100)[:-6]).decode(), "cut off"),
    *((pack_bytes(b"not a pickle"), "pickle"), (pack_bytes(b""), "pickle")),
    (pack_bytes(pickle.dumps("abc" * 9)[:-9]), "pickle"),
    (pack_bytes(b"."), "pickle of 0 texts"),
    *((pack("no json"), "invalid JSON"), (pack("[" * 100_000), "invalid JSON")),
    *((pack("{}"), "must be a JSON list"), (pack("[1]"), "test 2 has no texts")),
    (pack('[{"input": 1, "output": "2"}]'), "test 2 has no texts"),
    (pack_bytes(bytes(100_000_000)), "more than 9 MB"),  # a bomb
]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        *((record(private_test_cases=packed), message) for packed, message in DAMAGED),
        (function_record(1, ("[1, 2", "[3]")), "test 1: invalid JSON"),
        (function_record(1, ("[1]\n2", "yes")), "output of test 1: invalid JSON"),
        (record(public_test_cases="[]", private_test_cases="[]"), "has no test"),
    ],
)
def test_damaged_tests(tmp_path: Path, monkeypatch, bad: dict[str, Any], message: str):
    monkeypatch.setattr(livecodebench, "_MAX_TEST_BYTES", 10_000_000)
    (problem,) = load(tmp_path, bad)
    with pytest.raises(InputError, match=rf"livecodebench/abc1.*{message}"):
        load_tests(problem)


@pytest.mark.parametrize(("changes", "message"), CASES["bad_problems"])
def test_bad_problems(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        load(tmp_path, record(**changes))


def test_bad_files(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"own \.jsonl files"):
        load_problems(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="holds no problem"):
        load(tmp_path)
    with pytest.raises(InputError, match="'livecodebench/abc1' is there twice"):
        load(tmp_path, record(1), record(2), record(1))
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="line 1: invalid JSON"):
        load_problems(tmp_path / "x.jsonl")


def test_a_file_that_changes_is_noticed(tmp_path: Path):
    problems = load(tmp_path, record(1), record(2))
    write(tmp_path / "problems.jsonl", record(1, question_title="Longer title"), record(2))
    with pytest.raises(InputError, match="the file has changed"):
        load_tests(problems[1])


def test_a_release_has_two_files(tmp_path: Path):
    first, second = (
        write(tmp_path / name, record(number)) for number, name in enumerate(RELEASE_FILES)
    )
    ids = ["livecodebench/abc0", "livecodebench/abc1"]
    assert [problem.prompt_id for problem in load_problems(first)] == ids
    assert [problem.prompt_id for problem in load_problems(second)] == ids[1:]


def test_the_release_comes_from_the_hub_or_its_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", tmp_path)
    message = rf"{HUB_ID}: cannot be loaded .*test\.jsonl and test2\.jsonl elsewhere"
    with pytest.raises(InputError, match=message):
        load_problems()
    # As the hub's library keeps what it has fetched.
    folder = tmp_path / f"datasets--{HUB_ID.replace('/', '--')}" / "snapshots" / HUB_REVISION
    folder.mkdir(parents=True)
    for number, name in enumerate(RELEASE_FILES):
        write(folder / name, record(number))
    problems = load_problems()
    assert (len(problems), load_tests(problems[-1])[1]) == (2, ("10 -4\n", "6\n"))


# --- prompts and answers --------------------------------------------------------------------


def test_prompts_ask_for_a_program_or_a_function(tmp_path: Path):
    program, function = map(prompt_of, load(tmp_path, record(1), function_record(2)))
    assert (program.prompt_id, program.answer) == ("livecodebench/abc1", None)
    (message,) = program.messages
    assert message.role == "user"
    for part in ("Print their sum.", "standard input", "```python\n# your program\n```"):
        assert part in message.content
    text = function.messages[0].content
    assert "starter code" in text and "standard input" not in text
    assert "```python\nclass Solution:\n    def add(self, xs: List[int], y: int)" in text


@pytest.mark.parametrize(("text", "code"), CASES["code_blocks"])
def test_the_last_code_block_counts(text: str, code: str | None):
    assert extract_code(text) == code


def test_endless_backticks_take_no_time():
    for text in ("`" * 300_000 + "x`", "``` " * 100_000, "```\n" * 100_001, "`" * 300_000):
        start = time.perf_counter()
        assert extract_code(text) is None
        assert time.perf_counter() - start < 1


lines = st.text(st.characters(exclude_characters="`\n", exclude_categories=["Cs"]), max_size=9)


@given(st.lists(lines, min_size=1), st.lists(lines), st.sampled_from(["python", "", "py"]))
def test_a_block_comes_out_as_it_went_in(code: list[str], prose: list[str], language: str):
    body, around = "\n".join(code), "\n".join(prose).replace("<", "")
    text = f"{around}\n```{language}\n{body}\n```\n{around}"
    if "</think>" not in body and "<think>" not in body:
        assert extract_code(text) == (body if body.strip() else None)


# --- comparing ------------------------------------------------------------------------------


SAME = [*CASES["same_output"], ("9" * 500_000, "9" * 500_000 + ".0")]


@pytest.mark.parametrize(
    ("pair", "is_same"),
    [*((pair, True) for pair in SAME), *((pair, False) for pair in CASES["other_output"])],
)
def test_outputs_are_compared_as_lines_and_numbers(pair: tuple[str, str], is_same: bool):
    start = time.perf_counter()
    assert livecodebench._same_output(*pair) == is_same
    assert time.perf_counter() - start < 1


@given(st.lists(st.lists(st.decimals(allow_nan=False), min_size=1), min_size=1))
def test_equal_numbers_are_equal_in_any_form(rows: list[list[Decimal]]):
    printed = "\n".join("  ".join(f"{number:e}" for number in row) for row in rows)
    expected = "\n".join(" ".join(str(number) for number in row) for row in rows)
    assert livecodebench._same_output(printed, expected)


# --- verdicts -------------------------------------------------------------------------------

SUM = "a, b = map(int, input().split())\nprint(a + b)"
ADD = "class Solution:\n    def add(self, xs, y):\n        return [x + y for x in xs]"


def fenced(code: str) -> str:
    return f"<think>Let me see.</think>\nThe answer:\n```python\n{code}\n```\n"


def complete(problem: Problem, text: str, sample: int = 0, truncated: bool = False) -> Completion:
    return Completion(problem.prompt_id, sample, text, 7, truncated)


def outcomes(problem: Problem, *codes: str, **options: Any) -> list[str]:
    completions = [complete(problem, fenced(code), n) for n, code in enumerate(codes)]
    return list(grade_programs([problem], completions, progress=False, **options)["outcome"])


@pytest.mark.slow
@needs_bwrap
class TestVerdicts:
    def test_one_row_for_each_completion(self, tmp_path: Path):
        easy, hard = load(tmp_path, record(1), function_record(2))
        completions = [
            complete(hard, fenced(ADD), 1),
            complete(easy, fenced(SUM), 0),
            complete(easy, fenced("print(3)"), 1),  # passes the first test only
            complete(easy, fenced(SUM), 2, truncated=True),
            complete(easy, "I cannot.", 3),
        ]
        frame = grade_programs([easy, hard], completions, progress=False)
        assert list(frame.itertuples(index=False, name=None)) == [
            ("livecodebench/abc2", 1, "hard", "passed", True, False, 7),
            ("livecodebench/abc1", 0, "easy", "passed", True, False, 7),
            ("livecodebench/abc1", 1, "easy", "wrong answer", False, False, 7),
            ("livecodebench/abc1", 2, "easy", "truncated", False, True, 7),
            ("livecodebench/abc1", 3, "easy", "no code", False, False, 7),
        ]
        assert list(frame) == livecodebench._COLUMNS
        assert frame["correct"].dtype == bool
        with pytest.raises(InputError, match="no problem 'livecodebench/abc2'"):
            grade_programs([easy], completions)

    def test_programs_of_all_kinds(self, problem: Problem, monkeypatch):
        monkeypatch.setattr(livecodebench, "SECONDS_PER_TEST", 1)
        expected = {SUM: "passed", **dict(CASES["other_programs"])}
        expected |= dict.fromkeys(CASES["right_programs"], "passed")
        assert dict(zip(expected, outcomes(problem, *expected), strict=True)) == expected

    def test_functions_of_all_kinds(self, tmp_path: Path):
        (problem,) = load(tmp_path, function_record(1, ("[1, 2]\n3", "[4, 5]"), ("[]\n1", "[]")))
        expected = {ADD: "passed", **dict.fromkeys(CASES["right_functions"], "passed")}
        expected |= dict.fromkeys(CASES["wrong_functions"], "wrong answer")
        expected |= dict.fromkeys(CASES["broken_functions"], "runtime error")
        assert dict(zip(expected, outcomes(problem, *expected), strict=True)) == expected

    @pytest.mark.parametrize(("value", "expected", "outcome"), CASES["values"])
    def test_values_are_compared_as_python_does(
        self, tmp_path: Path, value: str, expected: str, outcome: str
    ):
        (problem,) = load(tmp_path, function_record(1, ("0\n0", expected)))
        assert outcomes(problem, f"def add(x, y): return {value}") == [outcome]

    def test_values_that_strain_the_grader(self, tmp_path: Path):
        (problem,) = load(tmp_path, function_record(1, ("0\n0", "[1]")))
        assert "passed" not in outcomes(problem, *CASES["strains"])

    def test_a_program_cannot_forge_a_verdict(self, tmp_path: Path):
        """Whatever it does to the harness, only the expected value passes: that is not there."""
        secret = "7301982465"
        (problem,) = load(tmp_path, function_record(1, ("0\n0", f"[{secret}]")))
        searcher = CASES["searcher"]
        assert "passed" not in outcomes(problem, *CASES["forgers"], searcher)
        # The search would find it if it were there.
        there = "x = bytearray(b'[')\nx += b'73019'\nx += b'82465]'\n"
        assert outcomes(problem, there + searcher) == ["passed"]
        # Taking over the channel is no more than returning a value.
        forger = f"import os\nos.write(3, b'[\"value\", [{secret}]]')\nos._exit(0)"
        assert outcomes(problem, forger) == ["passed"]

    def test_tests_do_not_share_a_process_or_a_folder(self, problem: Problem):
        keeps = "import os\nassert not os.path.exists('seen')\nopen('seen', 'w').close()\n"
        assert outcomes(problem, keeps + SUM) == ["passed"]

    def test_the_first_failed_test_is_the_last(self, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(livecodebench, "SECONDS_PER_TEST", 1)
        (problem,) = load(tmp_path, record(private_test_cases=cases(*[("1 1", "2")] * 30)))
        start = time.perf_counter()
        assert outcomes(problem, "while True: pass") == ["time limit"]
        assert time.perf_counter() - start < 5

    def test_a_time_limit_for_all_tests(self, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(livecodebench, "SECONDS_PER_TEST", 1)
        clock, start = time.monotonic, time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: 10 * (clock() - start))
        (problem,) = load(tmp_path, record(private_test_cases=cases(*[("1 1", "2")] * 10)))
        # Ten times as fast a clock: 0.18 s a test, 11 tests, in place of 2.7 s for all.
        slow = "import time\ntime.sleep(0.1)\n" + SUM
        assert outcomes(problem, SUM, slow + "\ntime.sleep(0.3)")[1] == "time limit"

    def test_nothing_to_run_needs_no_sandbox(self, problem: Problem, monkeypatch):
        monkeypatch.setattr(livecodebench, "check_sandbox", None)
        assert outcomes(problem, "") == ["no code"]
        assert list(grade_programs([problem], [])) == livecodebench._COLUMNS

    def test_without_a_sandbox_it_refuses(self, fresh, problem: Problem, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="install bubblewrap"):
            outcomes(problem, SUM)


# --- going on after a kill ------------------------------------------------------------------


def grade_some(folder: Path, cache: Path, out: Path) -> None:
    tests = record()["public_test_cases"]
    problems = load(folder, *(record(n, private_test_cases=tests) for n in range(2)))
    codes = [f"import time\ntime.sleep(0.1)\nprint({n})" for n in range(6)]
    completions = [complete(p, fenced(code), n) for p in problems for n, code in enumerate(codes)]
    grade_programs(problems, completions, cache=cache, progress=False).to_csv(out)


@pytest.mark.slow
@needs_bwrap
class TestCache:
    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        folder = tmp_path_factory.mktemp("whole")
        grade_some(folder, folder / "cache", folder / "out")
        return (folder / "out").read_text()

    @pytest.mark.parametrize("delay", [0.0, 0.15, 0.3, 0.45])
    def test_a_killed_run_goes_on(self, tmp_path: Path, whole: str, delay: float):
        cache, out = tmp_path / "cache", tmp_path / "out"
        context = multiprocessing.get_context("fork")
        process = context.Process(target=grade_some, args=(tmp_path, cache, out))
        process.start()
        time.sleep(delay)
        process.kill()
        process.join()
        assert not out.exists()
        assert len(livecodebench._read_cache(cache)) < 12
        grade_some(tmp_path, cache, out)
        assert out.read_text() == whole
        assert [whole.count(outcome) for outcome in ("passed", "wrong answer")] == [2, 10]
        assert len(livecodebench._read_cache(cache)) == 12

    def test_what_is_known_is_not_run_again(self, tmp_path: Path, monkeypatch):
        (problem,) = load(tmp_path, record())
        cache = tmp_path / "deep" / "cache.jsonl"
        codes = [SUM, "print(1)", SUM]
        first = outcomes(problem, *codes, cache=cache)
        assert len(livecodebench._read_cache(cache)) == 2  # one program is there twice
        cache.write_bytes(cache.read_bytes() + b'["unfinished')
        monkeypatch.setattr(livecodebench, "run_program", None)
        monkeypatch.setattr(livecodebench, "check_sandbox", None)
        assert outcomes(problem, *codes, cache=cache) == first
        monkeypatch.undo()
        assert outcomes(problem, "print(2)", cache=cache) == ["wrong answer"]
        assert len(livecodebench._read_cache(cache)) == 3
        # Other tests, or other code of ours: everything anew.
        (changed,) = load(tmp_path, record(question_title="Other"))
        monkeypatch.setattr(livecodebench, "_verdict", lambda problem, code, stop: "passed")
        assert outcomes(changed, "print(1)", cache=cache) == ["passed"]
        monkeypatch.setattr(livecodebench, "_code_digest", lambda: "changed")
        (problem,) = load(tmp_path, record())
        assert outcomes(problem, "print(1)", cache=cache) == ["passed"]

    @pytest.mark.usefixtures("interruptible")
    def test_an_interrupt_ends_it_soon(self, problem: Problem):
        threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.perf_counter()
        slow = [f"import time\ntime.sleep(1)\nprint({n})" for n in range(100)]
        with pytest.raises(KeyboardInterrupt):
            outcomes(problem, *slow)
        assert time.perf_counter() - start < 5


# --- Table 16 -------------------------------------------------------------------------------


def results(*rows: tuple[str, str, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["prompt_id", "difficulty", "correct"])


def test_accuracy_by_difficulty():
    frame = results(
        *((f"e{n}", "easy", n < 8) for n in range(10)),
        *((f"h{n}", "hard", False) for n in range(5)),
    )
    table = accuracy_by_difficulty(frame)
    assert list(table.index) == ["easy", "medium", "hard"]
    for name, passed, count in (("easy", 8, 10), ("hard", 0, 5)):
        interval = stats.binomtest(passed, count).proportion_ci(method="wilson")
        row = table.loc[name]
        assert row["accuracy"] == passed / count
        assert row[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    assert table.loc["medium", "num_problems"] == 0
    assert math.isnan(table.loc["medium", "accuracy"]) and math.isnan(table.loc["medium", "low"])


def test_accuracy_is_the_mean_over_problems():
    frame = results(*[("a", "easy", True)] * 3, ("b", "easy", True), ("b", "easy", False))
    row = accuracy_by_difficulty(frame).loc["easy"]
    assert (row["num_problems"], row["num_samples"], row["accuracy"]) == (2, 5, 0.75)
