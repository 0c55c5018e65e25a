"""Grading in worker processes, and the cache of grades."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lalp.grading import workers
from lalp.grading.workers import Answer, Grade


def grade_answers(pairs, **options):
    return workers.grade_answers([Answer(*pair) for pair in pairs], **options)


def test_grades_keep_the_order_and_their_texts():
    rows = [
        ("x^2-1", "(x-1)(x+1)", "correct", "(x-1)(x+1)"),
        ("29", "There are 29 strings of length 6", "no answer", None),
        ("n", r"so \boxed{n+1}", "wrong", "n+1"),
        ("x^2-1", "(x-1)(x+1)", "correct", "(x-1)(x+1)"),
        ("7", "7", "correct", "7"),
        ("7", "n!!", "no answer", "n!!"),
        ("n +", "3n", "error", "3n"),
    ]
    grades = grade_answers([row[:2] for row in rows], num_workers=1)
    assert grades == [Grade(*row[2:]) for row in rows]


def test_hostile_expressions_end_and_do_not_block_the_others():
    towers = ("10^{10^{10}}", "2^{2^{2^{2^{2^{2}}}}}")  # compared without computing them
    pairs = [*(("1", tower) for tower in towers), ("n", "2n/2"), ("m", "m+1")]
    pairs.append(("7", r"\lfloor 10^{10^{10}} \rfloor"))
    outcomes = [grade.outcome for grade in grade_answers(pairs, num_workers=1, time_limit=1.5)]
    assert set(outcomes[:2]) <= {"wrong", "timeout"}
    assert outcomes[2:4] == ["correct", "wrong"]
    assert outcomes[4] in ("timeout", "error")
    assert grade_answers([]) == []


FAKE_WORKER = """
import json, os, signal, sys, time
print("ready", flush=True)
for line in sys.stdin:
    reference, answer, _ = json.loads(line)
    if answer == "h+1":
        time.sleep(60)
    if answer == "c+1":
        os.kill(os.getpid(), signal.SIGPROF)
    if answer == "d+1":
        sys.exit(1)
    print(json.dumps(["correct" if reference == "n" else "wrong", answer]), flush=True)
"""


@pytest.fixture
def fake_worker(monkeypatch):
    """A worker that starts at once, hangs on one answer and dies of another."""

    def use(script: str = FAKE_WORKER) -> None:
        command = [sys.executable, "-c", script]
        monkeypatch.setattr(workers, "_worker_command", lambda limit: command)

    # A hanging worker computes nothing, so the clock on the wall ends it.
    monkeypatch.setattr(workers, "_WAITING", 1.0)
    use()
    return use


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_hanging_and_a_dying_item_cost_only_themselves(fake_worker, num_workers):
    answers = ["1+n", "h+1", "2+n", "d+1", "c+1", "3+n", *(f"{k}n" for k in range(4, 60))]
    start = time.perf_counter()
    pairs = [("n", answer) for answer in answers]
    grades = grade_answers(pairs, num_workers=num_workers, time_limit=0.5)
    outcomes = dict(zip(answers, (grade.outcome for grade in grades), strict=True))
    assert outcomes.pop("h+1") == outcomes.pop("c+1") == "timeout"
    assert outcomes.pop("d+1") == "error"
    assert set(outcomes.values()) == {"correct"}
    assert time.perf_counter() - start < 10


def test_only_the_seconds_that_a_worker_computes_count():
    worker = workers._Worker(time_limit=1.0)
    process = worker.start()
    long = Answer("7", r"\lfloor 10^{10^{10}} \rfloor")
    with ThreadPoolExecutor(1) as thread:
        # It stands still for longer than its limit, as on a machine whose cores others use.
        process.send_signal(signal.SIGSTOP)
        waiting = thread.submit(worker.grade, Answer("n", "2n/2"))
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        assert waiting.result().outcome == "correct"
    assert worker.process is process
    assert worker.grade(long).outcome in ("timeout", "error")
    assert worker.process is None


def test_a_worker_that_computes_too_long_ends_itself():
    program = (
        "from lalp.grading import workers\n"
        "workers.grade_text = lambda *_: [0 for _ in iter(int, 1)]\n"
        "workers.serve(0.5, 100)"
    )
    command = [sys.executable, "-P", "-c", program]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(b'["n", "2n", false]\n')
    process.stdin.flush()
    assert process.wait(timeout=60) == -signal.SIGPROF


def test_a_worker_that_does_not_start_says_why(fake_worker):
    fake_worker("import sys; sys.exit('no such library')")
    with pytest.raises(RuntimeError, match="did not start: no such library"):
        grade_answers([("n", "2n/2")])


def test_no_process_is_left_behind(fake_worker):
    psutil = pytest.importorskip("psutil")
    before = set(psutil.Process().children(recursive=True))
    grade_answers([("n", "h+1"), ("n", "2n")], time_limit=0.3)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.fixture
def no_worker(monkeypatch):
    """From its call on, none can be started."""
    return lambda: monkeypatch.setattr(workers, "_worker_command", lambda limit: ["/nonexistent"])


def test_plain_numbers_and_equal_texts_need_no_algebra():
    pairs = [("252", "252"), ("252", "251"), ("1/2", "0.5"), ("a + b", "a  + b"), ("2,500", "2500")]
    pairs += [(None, "so it is \\boxed{5}"), ("7", "There are 12 ways to do it.")]
    asked = [Answer(*pair) for pair in pairs]
    grades = [workers.grade_text(answer, lambda: pytest.fail("loaded")) for answer in asked]
    outcomes = ["correct", "wrong", "correct", "correct", "correct", "no reference", "no answer"]
    assert [grade.outcome for grade in grades] == outcomes
    assert grades[5].extracted == "5"


@pytest.mark.parametrize("digits", [4300, 4301, 100_000])
def test_numbers_of_thousands_of_digits_end_nothing(digits):
    long = "9" * digits
    pairs = [
        ("7", long),
        (long, "7"),
        ("7", "7"),
        ("7", rf"\boxed{{1/{long}}}"),
    ]
    outcomes = [grade.outcome for grade in grade_answers(pairs, num_workers=1)]
    assert [outcome == "correct" for outcome in outcomes] == [False, False, True, False]


def test_a_percent_sign_is_optional_where_the_problem_asks_for_one():
    answers = [Answer("50", r"\boxed{50\%}", optional) for optional in (True, False)]
    outcomes = [grade.outcome for grade in workers.grade_answers(answers)]
    assert outcomes == ["correct", "wrong"]


@pytest.fixture
def cached(tmp_path, fake_worker):
    """A cache file with three grades, and their pairs."""
    pairs = [("n", "1+n"), ("m", "2+m"), ("n", "3+n")]
    path = tmp_path / "grades" / "cache.jsonl"
    grades = grade_answers(pairs, cache=path)
    assert [grade.outcome for grade in grades] == ["correct", "wrong", "correct"]
    return path, pairs, grades


def test_cached_grades_need_no_worker_and_new_ones_join_them(cached, no_worker, caplog):
    path, pairs, grades = cached
    new = grade_answers([("n", "4+n")], cache=path)
    before = path.stat().st_mtime_ns
    no_worker()
    assert grade_answers([("n", "4+n"), *pairs], cache=path) == [*new, *grades]
    assert caplog.messages == []
    assert path.stat().st_mtime_ns == before


def test_a_timeout_counts_only_up_to_its_limit(tmp_path, fake_worker, no_worker):
    path = tmp_path / "cache.jsonl"
    assert grade_answers([("n", "h+1")], time_limit=0.3, cache=path)[0].outcome == "timeout"
    no_worker()
    assert grade_answers([("n", "h+1")], time_limit=0.2, cache=path)[0].outcome == "timeout"
    with pytest.raises(OSError, match="nonexistent"):
        grade_answers([("n", "h+1")], time_limit=0.4, cache=path)


def test_errors_are_not_cached(tmp_path, fake_worker):
    path = tmp_path / "cache.jsonl"
    assert grade_answers([("n", "d+1")], cache=path)[0].outcome == "error"
    fake_worker(FAKE_WORKER.replace("d+1", "-"))
    assert grade_answers([("n", "d+1")], cache=path)[0].outcome == "correct"


def test_grades_by_other_code_are_ignored_and_replaced(cached, no_worker, caplog):
    path, pairs, grades = cached
    path.write_text(path.read_text().replace("lalp grading", "lalp older grading"))
    assert grade_answers(pairs, cache=path) == grades
    (message,) = caplog.messages
    assert message.startswith("grading anew: cache.jsonl cannot be used")
    no_worker()
    assert grade_answers(pairs, cache=path) == grades
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header["key"] == workers.grading_key()
    assert len(lines) == 3
    assert len(caplog.messages) == 1
