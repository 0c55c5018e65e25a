"""Run independent jobs side by side in processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm

# Modules that most jobs import only when they begin.
_NEEDED = ("lalp.training.trainer", "lalp.sampling.decoding", "lalp.scoring.run")


def run_side_by_side(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int,
    label: str,
    threads: int | None = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run jobs in processes of their own; by default each has its share of the cores.

    ``after`` is called in this process whenever a job has ended. The first error stops all jobs.
    """
    if not jobs:
        return
    cores = len(os.sched_getaffinity(0))
    workers = min(workers, cores, len(jobs))
    threads = threads or cores // workers
    # Forked, but not from this process: a fork of one with torch's threads may hang. The server has
    # imported what the jobs need, which takes longer than many of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__, *_NEEDED])
    begin = (threads, dict(os.environ))
    with ProcessPoolExecutor(workers, context, _begin, begin) as executor:
        futures = [executor.submit(function, job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=label):
                future.result()
                after()
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _begin(threads: int, environment: Mapping[str, str]) -> None:
    """Prepare a worker; it ends when its parent is killed."""
    import torch

    os.environ.clear()  # that of the server, from when it was started
    os.environ.update(environment)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
