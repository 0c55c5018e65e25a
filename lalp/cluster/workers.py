"""Workers on a Ray cluster: each prepares once, and works until all is done or it dies.

Ray places, starts and restarts the workers. A worker gets work only when it is ready, one piece at
a time. So a worker that never starts delays nothing, and a worker that starts later takes its
share.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lalp.errors import InputError, reason
from lalp.extras import require

log = logging.getLogger("lalp")

# A piece of work fails after this many workers have died of it. The run fails after as many deaths
# during preparation, if no worker runs.
_MOST_DEATHS = 5
_LONGEST_DYING = 600.0  # seconds in which workers only die while they prepare
_PATIENCE = 60.0  # seconds without any worker before a warning
_ANSWER = 10.0  # seconds for a cluster to answer at its address
_LAST_WORDS = 60.0  # seconds for workers to write what they still hold


@dataclass(frozen=True)
class Workers:
    """How many workers, on which cluster, and with how many GPUs each.

    ``address`` is the address of a cluster, or ``auto`` for the cluster of this machine.
    """

    address: str = "auto"
    number: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        require("cluster", "--ray")
        if not self.address:
            raise InputError("--ray: give auto, or the address of a cluster")
        if self.number < 1:
            raise InputError(f"--workers {self.number}: give 1 or more")
        if self.gpus < 0:
            raise InputError(f"--gpus-per-worker {self.gpus}: give 0 or more")


@dataclass
class Piece:
    """Items that a worker gets at once, and how many workers have died of them."""

    items: list[Any]
    deaths: int = 0


@dataclass
class _State:
    """What each worker is doing; a request to Ray is known by its reference."""

    waiting: deque[Piece]
    starting: dict[Any, Any] = field(default_factory=dict)  # the worker of each request to prepare
    working: dict[Any, tuple[Any, Piece]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    dying_since: float | None = None  # when a worker died while none was ready yet


def connect(address: str) -> None:
    """Join a cluster, unless this process is already in one.

    Raises:
        InputError: If there is no such cluster.
    """
    import ray

    if ray.is_initialized():
        return
    try:
        _check_answer(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        why = reason(error).partition(". ")[0]  # the rest is about options of Ray's own commands
        advice = "start one with `ray start --head`, or give its address"
        raise InputError(f"Ray cluster {address}: not there ({why}): {advice}") from error


def _check_answer(address: str) -> None:
    """OSError if nothing listens at an address; Ray itself would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), _ANSWER).close()


def run_workers(
    workers: Workers,
    make: Callable[[], Callable[[list[Any]], Any]],
    pieces: Iterable[list[Any]],
    on_failure: Callable[[Any, str], None],
) -> Iterator[Any]:
    """Yield the results of pieces of work, in the order in which workers finish them.

    If a worker dies, Ray replaces it, and another worker gets its piece. If a piece fails, each of
    its items is tried alone.

    Args:
        workers: How many workers, and on which cluster.
        make: Each worker calls this once to prepare. It returns an object that the worker calls
            with each piece. At the end, the object's ``close`` is called.
        pieces: Lists of items. One list is taken whenever a worker is free.
        on_failure: Called with each item that failed, and the reason.

    Raises:
        InputError: If the preparation fails, or workers die during it again and again.
    """
    import ray

    connect(workers.address)
    options = {"num_cpus": 1, "num_gpus": workers.gpus, "max_restarts": -1}
    actor = ray.remote(**options)(_Worker)
    actors = [actor.remote(make) for _ in range(workers.number)]
    state, source = _State(deque()), iter(pieces)
    state.starting = {each.prepare.remote(): each for each in actors}
    try:
        while _give_work(state, source):
            yield from _take_results(ray, state, on_failure)
        _close(ray, state)
    finally:
        for each in actors:
            ray.kill(each)


class _Worker:
    """The Ray actor that runs on the cluster."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._work = make, None

    def prepare(self) -> int:
        """Load what the work needs; this is called again after a restart."""
        self._work = self._make()
        return os.getpid()

    def work(self, items: list[Any]) -> Any:
        return self._work(items)

    def close(self) -> None:
        self._work.close()


def _give_work(state: _State, source: Iterator[list[Any]]) -> bool:
    """Give each idle worker a piece, and return whether there is anything to wait for."""
    while state.idle:
        if not state.waiting:
            if (items := next(source, None)) is None:
                break
            state.waiting.append(Piece(items))
        worker, piece = state.idle.pop(), state.waiting.popleft()
        state.working[worker.work.remote(piece.items)] = worker, piece
    # If no worker is idle, the source may still have work for the workers that are starting.
    return bool(state.working or state.waiting or (state.starting and not state.idle))


def _take_results(ray: Any, state: _State, on_failure: Callable[[Any, str], None]) -> Iterator[Any]:
    """Wait until a request to a worker ends, and yield the finished results."""
    references = [*state.working, *state.starting]
    ready, _ = ray.wait(references, timeout=_PATIENCE)
    if not (ready or state.working):
        told = f"{len(state.starting)} ask for it, the cluster has {ray.available_resources()}"
        log.warning("no worker has started yet: %s", told)
    for reference in ready:
        if reference in state.starting:
            _welcome(ray, state, reference)
            continue
        worker, piece = state.working.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            state.idle.append(worker)
            _try_again(state, piece, reason(error.cause), on_failure)
        except ray.exceptions.RayError as error:  # it died, or its machine did
            log.warning("a worker is lost, and replaced: %s", reason(error)[:200])
            state.starting[worker.prepare.remote()] = worker
            piece.deaths += 1
            if piece.deaths < _MOST_DEATHS:
                state.waiting.appendleft(piece)
            else:
                why = f"{piece.deaths} workers died of it, the last so: {reason(error)}"
                _try_again(state, piece, why, on_failure)
        else:
            state.idle.append(worker)
            yield result


def _welcome(ray: Any, state: _State, reference: Any) -> None:
    """Handle a worker that is ready, or whose preparation failed."""
    worker = state.starting.pop(reference)
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise InputError(f"a worker cannot start: {reason(error.cause)}") from error
    except ray.exceptions.RayError as error:
        # Ray starts the worker again. Until it has, the worker fails like one that died.
        state.dying_since = state.dying_since or time.monotonic()
        lasted = time.monotonic() - state.dying_since
        # Where others work, a machine may just have gone; where none does, none ever will.
        if lasted > _LONGEST_DYING and not (state.working or state.idle):
            told = f"all died while they prepared, for {lasted:.0f} s, the last so: {reason(error)}"
            raise InputError(f"no worker can start: {told[:300]}") from error
        state.starting[worker.prepare.remote()] = worker
    else:
        state.dying_since = None
        state.idle.append(worker)


def _try_again(
    state: _State, piece: Piece, why: str, on_failure: Callable[[Any, str], None]
) -> None:
    """Queue each item of a failed piece alone; give up an item that was already alone."""
    if len(piece.items) == 1:
        on_failure(piece.items[0], why)
    else:
        state.waiting.extend(Piece([item]) for item in piece.items)


def _close(ray: Any, state: _State) -> None:
    """Let workers write what they hold; if one dies now, a later run computes that again."""
    closing = [worker.close.remote() for worker in state.idle]
    try:
        ray.get(closing, timeout=_LAST_WORDS)
    except ray.exceptions.RayError as error:
        log.warning("a worker has not kept all of its scores: %s", reason(error)[:200])
