"""Grade in worker processes with limits on time and memory, and keep the grades."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from lalp.extras import require
from lalp.files import digest, fingerprint
from lalp.grading.answers import extract_answer, letter_or_text, without_percent
from lalp.grading.equivalence import UnreadableError, equivalent, number, rounds_to, same_expression
from lalp.shelf import read_records, write_records

_START_LIMIT = 120.0  # seconds to start an interpreter, or to import sympy, on a busy machine
# A worker's own clock counts the seconds that it computes, so a busy machine changes no outcome. By
# the clock on the wall it may take so many times longer: it may wait for a core.
_WAITING = 30.0
_GRACE = 5.0  # seconds after that when a worker without its parent ends itself
# Bytes beyond what a fresh worker maps: 10^10^10 must not fill the machine.
_WORKER_MEMORY = 2 << 30
_LOADING = "loading"
_ITEMS_PER_WORKER = 20  # fewer are not worth another worker


@dataclass(frozen=True)
class Answer:
    """A text whose final answer is compared with a reference; without one, it is only found."""

    reference: str | None
    text: str  # text after the reasoning
    percent_optional: bool = False  # whether the problem asks for a percentage


@dataclass(frozen=True)
class Grade:
    """The outcome of one answer, and the part of its text that was compared.

    The outcome is ``correct``, ``wrong``, ``no answer`` (nothing unambiguous to compare), ``no
    reference``, ``timeout``, or ``error`` (the reference cannot be read, or the comparison
    crashed).
    """

    outcome: str
    extracted: str | None


def grade_answers(
    answers: Sequence[Answer],
    *,
    num_workers: int = 2,
    time_limit: float = 10.0,
    cache: Path | None = None,
) -> list[Grade]:
    r"""Grade answers against references in worker processes; equal pairs are graded once.

    Only workers read a text, so its content can end at most its worker. There are at most
    ``num_workers`` worker processes, and each needs about 200 MB. A worker that computes for longer
    than ``time_limit`` seconds on an answer is replaced; time in which other processes have the
    cores does not count. ``cache`` is a file with the grades of earlier calls, rewritten if there
    are new ones; grades by another version of this code, Math-Verify or sympy are not used.

    Example:
        >>> answers = [Answer("7", r"So it is \boxed{7.0}."), Answer("7", "8")]
        >>> [grade.outcome for grade in grade_answers(answers)]
        ['correct', 'wrong']
    """
    require("eval", "grading")
    rows = read_records(cache, grading_key(), "grading anew") if cache else []
    known = {mark: (Grade(*grade), limit) for mark, grade, limit in rows}
    marks = {answer: digest(answer, 32) for answer in dict.fromkeys(answers)}
    # A timeout says nothing about the result under a longer limit.
    enough = {
        mark
        for mark, (grade, limit) in known.items()
        if grade.outcome != "timeout" or limit >= time_limit
    }
    if todo := [answer for answer, mark in marks.items() if mark not in enough]:
        grades = _run_workers(todo, num_workers, time_limit)
        known |= {marks[answer]: (grade, time_limit) for answer, grade in grades.items()}
        if cache:
            kept = [
                [mark, astuple(grade), limit]
                for mark, (grade, limit) in known.items()
                if grade.outcome != "error"
            ]
            write_records(cache, grading_key(), kept)
    return [known[marks[answer]][0] for answer in answers]


def _run_workers(
    answers: Sequence[Answer], num_workers: int, time_limit: float
) -> dict[Answer, Grade]:
    """Distribute the answers to workers, each served by one thread of this process."""
    wanted = max(1, min(num_workers, math.ceil(len(answers) / _ITEMS_PER_WORKER)))
    workers = [_Worker(time_limit) for _ in range(wanted)]
    # A worker serves one answer at a time, on whichever thread took it.
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def grade(answer: Answer) -> Grade:
        worker = free.get()
        try:
            return worker.grade(answer)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(wanted)
    try:
        return dict(zip(answers, threads.map(grade, answers), strict=True))
    finally:
        # Also after Ctrl-C: killing the processes ends the threads that wait for them.
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()


@dataclass
class _Worker:
    """One worker process, started when first needed and again after every kill.

    It is a fresh interpreter that talks JSON lines over pipes: it is not forked from a process that
    holds torch's threads, and no caller needs a ``__main__`` guard.
    """

    time_limit: float
    process: subprocess.Popen[bytes] | None = None

    def grade(self, answer: Answer) -> Grade:
        """The outcome of one answer; ``error`` if the worker dies of it."""
        process = self.process or self.start()
        try:
            process.stdin.write(json.dumps(astuple(answer)).encode() + b"\n")
            process.stdin.flush()
            reply = self.read_line(_WAITING * self.time_limit)
            if reply == _LOADING:  # it has met its first formula; that time does not count
                reply = self.read_line(_START_LIMIT) and self.read_line(_WAITING * self.time_limit)
        except OSError:
            reply = ""
        if reply:
            return Grade(*json.loads(reply))
        out_of_time = self.stop() == -signal.SIGPROF or reply is None
        return Grade("timeout" if out_of_time else "error", None)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process and wait until it is ready; if it fails, report its own message."""
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                _worker_command(self.time_limit),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # two lines in a buffer would look like a missing one
                env=os.environ | {"PYTHONPATH": path},
            )
            if self.read_line(_START_LIMIT) != "ready":
                self.stop()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-2000:]
                raise RuntimeError(f"a grading worker did not start: {said or 'it said nothing'}")
        return self.process

    def read_line(self, limit: float) -> str | None:
        """One line: None if none comes within ``limit`` seconds, empty if the process has ended."""
        stream = self.process.stdout
        readable, _, _ = select.select([stream], [], [], limit)
        return stream.readline().decode().strip() if readable else None

    def stop(self) -> int | None:
        """Kill the process, if there is one, and tell how it has ended."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()  # changes nothing about one that is ending already
        process.communicate()  # closes the pipes, whatever they still hold
        return process.returncode


def _worker_command(time_limit: float) -> list[str]:
    limits = f"{time_limit!r}, {_WAITING * time_limit + _GRACE!r}"
    return [sys.executable, "-P", "-c", f"from lalp.grading.workers import serve; serve({limits})"]


def serve(time_limit: float, last_resort: float) -> None:
    """A worker's main loop: a JSON answer per line in, its grade per line out.

    The process ends itself, by SIGPROF, if it computes for ``time_limit`` seconds on an answer, and
    by SIGALRM if an answer takes ``last_resort`` seconds in all.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own output must not look like a reply
    logging.disable(logging.CRITICAL)  # Math-Verify logs what it cannot parse

    @lru_cache(maxsize=1)
    def load() -> None:
        """Import Math-Verify and sympy while no clock runs, because it takes seconds."""
        set_clocks(0, 0)
        print(_LOADING, file=replies, flush=True)
        same_expression("n", "n+1-1")
        _limit_memory()
        print("ready", file=replies, flush=True)
        set_clocks(time_limit, last_resort)

    def set_clocks(computing: float, in_all: float) -> None:
        """The default action of both signals ends the process, whatever it is doing."""
        signal.setitimer(signal.ITIMER_PROF, computing)
        signal.setitimer(signal.ITIMER_REAL, in_all)

    _limit_memory()
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        set_clocks(time_limit, last_resort)
        grade = grade_text(Answer(*json.loads(line)), load)
        set_clocks(0, 0)
        print(json.dumps(astuple(grade)), file=replies, flush=True)


def _limit_memory() -> None:
    with contextlib.suppress(OSError):  # some systems do not tell how large a process is
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _WORKER_MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def grade_text(answer: Answer, load: Callable[[], None]) -> Grade:
    """A worker's work: find the final answer, compare it. ``load`` is called before algebra."""
    reference, text = answer.reference, None
    try:
        text = extract_answer(letter_or_text(answer.text, reference))
        if reference is None or text is None:
            return Grade("no reference" if reference is None else "no answer", text)
        if answer.percent_optional:
            reference, text = without_percent(reference), without_percent(text)
        if reference.split() == text.split():
            return Grade("correct", text)
        gold, value = number(reference), number(text)
        if gold is not None and value is not None:
            return Grade("correct" if rounds_to(gold, text) else "wrong", text)
        load()
        return Grade("correct" if equivalent(reference, text) else "wrong", text)
    except UnreadableError:
        return Grade("no answer", text)
    except Exception:  # sympy may raise almost anything on odd input
        return Grade("error", text)


@lru_cache(maxsize=1)
def grading_key() -> str:
    """What an outcome depends on besides the pair: the grading code, here and in libraries."""
    packages = ("math-verify", "latex2sympy2_extended", "sympy")
    versions = [f"{package} {version(package)}" for package in packages]
    return ", ".join([f"lalp grading {fingerprint('grading')}", *versions])
