"""Workers on a Ray cluster: each prepares once, and works until all is done or it dies.

Ray places, starts and restarts them. Only a worker that is ready is given work, and one piece at a
time: so one that never comes up holds nothing back, and one that is added takes its share.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lalp.errors import InputError, reason
from lalp.extras import require

log = logging.getLogger("lalp")

_MOST_DEATHS = 5  # of workers at one piece of work, before it is given up
_PATIENCE = 60.0  # seconds without any worker, before that is told
_ANSWER = 10.0  # seconds for a cluster to answer at its address
_LAST_WORDS = 60.0  # seconds for workers to write what they keep


@dataclass(frozen=True)
class Workers:
    """How many workers, and what each has.

    ``address`` is ``auto``, for the cluster that this machine belongs to, or an address of one.
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
    """Some items that a worker works on at once, and how often one has died of them."""

    items: list[Any]
    deaths: int = 0


@dataclass
class _State:
    """Who is at what: what Ray was asked for, by its reference."""

    waiting: deque[Piece]
    starting: dict[Any, Any] = field(default_factory=dict)  # workers
    working: dict[Any, tuple[Any, Piece]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    dead_starts: int = 0  # workers that died while they prepared, since one was ready


def connect(address: str) -> None:
    """Join a cluster, unless this process is in one.

    Raises:
        InputError: If there is none.
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
    """OSError if nothing listens at an address, which Ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), _ANSWER).close()


def run_workers(
    workers: Workers,
    make: Callable[[], Callable[[list[Any]], Any]],
    pieces: Iterable[list[Any]],
    on_failure: Callable[[Any, str], None],
) -> Iterator[Any]:
    """What workers make of pieces of work, in the order in which they finish.

    A worker that dies is replaced, and its piece is given to another. Where a piece fails, each of
    its items is tried alone.

    Args:
        workers: Who works.
        make: Called once by each worker: prepares what is called with each piece, and whose
            ``close`` is called at the end.
        pieces: Lists of items; taken one by one, as workers get free.
        on_failure: Is told of each item that cannot be worked on, and why.

    Raises:
        InputError: If workers cannot be prepared, or die of it again and again.
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
    """What runs on the cluster."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._work = make, None

    def prepare(self) -> int:
        """Read what is needed; again, if the worker was restarted."""
        self._work = self._make()
        return os.getpid()

    def work(self, items: list[Any]) -> Any:
        return self._work(items)

    def close(self) -> None:
        self._work.close()


def _give_work(state: _State, source: Iterator[list[Any]]) -> bool:
    """Give each idle worker a piece; whether anything is left to wait for."""
    while state.idle:
        if not state.waiting:
            if (items := next(source, None)) is None:
                break
            state.waiting.append(Piece(items))
        worker, piece = state.idle.pop(), state.waiting.popleft()
        state.working[worker.work.remote(piece.items)] = worker, piece
    # While none is ready, nobody has asked whether there is work at all.
    return bool(state.working or state.waiting or (state.starting and not state.idle))


def _take_results(ray: Any, state: _State, on_failure: Callable[[Any, str], None]) -> Iterator[Any]:
    """Wait until something has happened, and yield what is finished."""
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
    """A worker is ready, or could not be."""
    worker = state.starting.pop(reference)
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise InputError(f"a worker cannot start: {reason(error.cause)}") from error
    except ray.exceptions.RayError as error:
        state.dead_starts += 1
        # Where others work, a machine may just have gone; where none does, none ever will.
        if state.dead_starts >= _MOST_DEATHS and not (state.working or state.idle):
            told = f"{state.dead_starts} died while they prepared, the last so: {reason(error)}"
            raise InputError(f"no worker can start: {told[:300]}") from error
        state.starting[worker.prepare.remote()] = worker  # Ray starts it again
    else:
        state.dead_starts = 0
        state.idle.append(worker)


def _try_again(
    state: _State, piece: Piece, why: str, on_failure: Callable[[Any, str], None]
) -> None:
    """Try each item of a piece that failed alone; one that was alone is given up."""
    if len(piece.items) == 1:
        on_failure(piece.items[0], why)
    else:
        state.waiting.extend(Piece([item]) for item in piece.items)


def _close(ray: Any, state: _State) -> None:
    """Let workers write what they keep; of one that dies meanwhile, that is made again later."""
    closing = [worker.close.remote() for worker in state.idle]
    try:
        ray.get(closing, timeout=_LAST_WORDS)
    except ray.exceptions.RayError as error:
        log.warning("a worker has not kept all of its scores: %s", reason(error)[:200])
