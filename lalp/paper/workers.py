"""Run independent jobs side by side in processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm


def run_side_by_side(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int,
    label: str,
    threads: int | None = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run jobs in fresh processes; by default each has its share of the cores.

    ``after`` is called in this process whenever a job has ended. The first error stops all jobs.
    """
    if not jobs:
        return
    cores = len(os.sched_getaffinity(0))
    workers = min(workers, cores, len(jobs))
    threads = threads or cores // workers
    # Spawned, not forked: a fork of a process with torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (threads,)) as executor:
        futures = [executor.submit(function, job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=label):
                future.result()
                after()
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _begin(threads: int) -> None:
    """Prepare a worker; it ends when its parent is killed."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
