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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from lalp.files import fingerprint
from lalp.grading.answers import extract_answer
from lalp.grading.equivalence import UnreadableError, equivalent, number, rounds_to, same_expression
from lalp.shelf import read_records, write_records

_START_LIMIT = 120.0  # seconds for a fresh interpreter to import sympy on a busy machine
_GRACE = 5.0  # seconds after the time limit at which a worker without its parent ends itself
# Bytes beyond what a fresh worker maps: 10^10^10 must not fill the machine.
_WORKER_MEMORY = 2 << 30
_ITEMS_PER_WORKER = 20  # fewer do not pay for the start of another worker

_Job = tuple[str, str]


@dataclass(frozen=True)
class Grade:
    """What became of one answer, and the part of its text that was compared.

    The outcome is ``correct``, ``wrong``, ``no answer`` (nothing unambiguous to compare),
    ``timeout``, or ``error`` (the reference cannot be read, or the comparison crashed).
    """

    outcome: str
    extracted: str | None


def grade_answers(
    pairs: Sequence[tuple[str, str]],
    *,
    num_workers: int = 2,
    time_limit: float = 10.0,
    cache: Path | None = None,
) -> list[Grade]:
    """Grade answers against references in worker processes, equal pairs once.

    A pair is a reference and an answer text (see `extract_answer`). Of the worker processes, at
    most ``num_workers``, each needs about 200 MB; one that takes longer for a pair than
    ``time_limit`` seconds is killed and replaced. ``cache`` is a file with the grades of former
    calls, rewritten if there is something new; grades by another version of this code, Math-Verify
    or sympy are not used.

    Example:
        >>> [grade.outcome for grade in grade_answers([("7", "7.0"), ("7", "8")])]
        ['correct', 'wrong']
    """
    rows = read_records(cache, grading_key(), "grading anew") if cache else []
    known = {(reference, answer): (outcome, limit) for reference, answer, outcome, limit in rows}
    jobs = {pair: (pair[0], extract_answer(pair[1])) for pair in dict.fromkeys(pairs)}
    outcomes = {}
    for job in jobs.values():
        outcome, limit = known.get(job, (None, 0))
        # A timeout says nothing about what a longer limit would give.
        if outcome is None or (outcome == "timeout" and limit < time_limit):
            outcome = _easy_outcome(*job)
        outcomes[job] = outcome
    if todo := [job for job, outcome in outcomes.items() if outcome is None]:
        outcomes |= _run_workers(todo, num_workers, time_limit)
        known |= {job: (outcomes[job], time_limit) for job in todo if outcomes[job] != "error"}
        if cache:
            write_records(cache, grading_key(), [[*job, *entry] for job, entry in known.items()])
    return [Grade(outcomes[jobs[pair]], jobs[pair][1]) for pair in pairs]


def _easy_outcome(reference: str, answer: str | None) -> str | None:
    """The outcome that needs no worker: of no answer, of equal texts, and of two plain numbers."""
    if answer is None:
        return "no answer"
    if reference.split() == answer.split():
        return "correct"
    gold = number(reference)
    if gold is None or number(answer) is None:
        return None
    return "correct" if rounds_to(gold, answer) else "wrong"


def _run_workers(jobs: Sequence[_Job], num_workers: int, time_limit: float) -> dict[_Job, str]:
    """Share the jobs out to workers, each served by one thread of this process."""
    wanted = max(1, min(num_workers, math.ceil(len(jobs) / _ITEMS_PER_WORKER)))
    workers = [_Worker(time_limit) for _ in range(wanted)]
    # A worker serves one job at a time, on whichever thread has taken it.
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def grade(job: _Job) -> str:
        worker = free.get()
        try:
            return worker.grade(job)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(wanted)
    try:
        return dict(zip(jobs, threads.map(grade, jobs), strict=True))
    finally:
        # Also after Ctrl-C: killing the processes ends the threads that wait for them.
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()


@dataclass
class _Worker:
    """One worker process, started when first needed and again after every kill.

    It is a fresh interpreter that talks JSON lines over pipes: nothing is forked from a process
    that holds torch's threads, and no caller needs a ``__main__`` guard.
    """

    time_limit: float
    process: subprocess.Popen[bytes] | None = None

    def grade(self, job: _Job) -> str:
        """The outcome for one pair; ``error`` if the worker dies of it."""
        process = self.process or self.start()
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            outcome = self.read_line(self.time_limit)
        except OSError:
            outcome = ""
        if not outcome:
            self.stop()
        return "timeout" if outcome is None else outcome or "error"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process and wait until it is ready; if it fails, say what it said itself."""
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                _worker_command(self.time_limit),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
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

    def stop(self) -> None:
        """Kill the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()  # closes the pipes, whatever they still hold


def _worker_command(time_limit: float) -> list[str]:
    serve = f"from lalp.grading.workers import serve; serve({time_limit + _GRACE!r})"
    return [sys.executable, "-P", "-c", serve]


def serve(last_resort: float) -> None:
    """A worker's main loop: a JSON pair per line in, an outcome per line out.

    The process ends itself if a pair takes ``last_resort`` seconds.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own output must not be taken for a reply
    logging.disable(logging.CRITICAL)  # Math-Verify logs what it cannot parse
    # Loads Math-Verify and sympy, before the clock of the first pair starts.
    same_expression("n", "n+1-1")
    with contextlib.suppress(OSError):  # some systems do not tell how large a process is
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _WORKER_MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, last_resort)  # its default action ends the process
        try:
            outcome = "correct" if equivalent(*json.loads(line)) else "wrong"
        except UnreadableError:
            outcome = "no answer"
        except Exception:  # sympy raises almost anything on odd input
            outcome = "error"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(outcome, file=replies, flush=True)


@lru_cache(maxsize=1)
def grading_key() -> str:
    """What an outcome depends on besides the pair: the code that grades, here and in libraries."""
    packages = ("math-verify", "latex2sympy2_extended", "sympy")
    versions = [f"{package} {version(package)}" for package in packages]
    return ", ".join([f"lalp grading {fingerprint('grading')}", *versions])
