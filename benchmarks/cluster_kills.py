"""Kill workers of a Ray cluster on this machine: `python -m benchmarks.cluster_kills`.

Two workers score a pool again and again. Each time, one of them is killed (SIGKILL) at a random
moment. The table must still equal that of one undisturbed process, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import psutil
import torch
from pandas.testing import assert_frame_equal

from benchmarks.cluster import start
from benchmarks.streaming import small_student, write_pool
from lalp.cluster.scores import score_on_ray
from lalp.cluster.workers import Workers
from lalp.pools.importing import Reject
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.run import score

_PROMPTS = 48  # prompts in the pool that is scored while workers die
_WINDOWS = ("0", "2")


def worker_pids() -> list[int]:
    """The processes of this cluster's workers, busy or idle, and of no other cluster."""
    import ray

    gcs, found = ray.get_runtime_context().gcs_address, list[int]()
    for each in psutil.process_iter(["cmdline"]):
        if (each.info["cmdline"] or [""])[0].startswith("ray::_Worker"):
            with suppress(psutil.Error):
                if any(gcs in word for word in each.parent().cmdline()):
                    found.append(each.pid)
    return found


def kill_one(after: float, done: threading.Event, killed: list[int], rng: random.Random) -> None:
    """Kill a worker after some seconds, or as soon as there is one; none once the run is done."""
    done.wait(after)
    while not done.wait(0.05):
        if pids := worker_pids():
            killed.append(rng.choice(sorted(pids)))
            os.kill(killed[-1], signal.SIGKILL)
            return


def run_kills(pool: Pool, student: str, number: int, seed: int) -> Iterator[tuple[float, bool]]:
    """Yield each kill's moment in seconds and whether it hit; AssertionError if tables differ."""
    rng = random.Random(seed)
    with TemporaryDirectory() as name:
        options = {"progress": False, "device": "cpu"}
        calm = score(pool, student, _WINDOWS, store=Path(name, "calm"), **options)
        table = partial(_by_workers, pool, student, Path(name), options)
        began = time.monotonic()
        table("0")  # to measure how long one run takes
        length = time.monotonic() - began
        for place in range(1, number + 1):
            moment, done, killed = rng.uniform(0, length), threading.Event(), list[int]()
            thread = threading.Thread(target=kill_one, args=(moment, done, killed, rng))
            thread.start()
            try:
                frame = table(str(place))
            finally:
                done.set()
                thread.join()
            assert_frame_equal(frame, calm, check_exact=True)
            assert frame.attrs == calm.attrs
            yield moment, bool(killed)


def _by_workers(
    pool: Pool, student: str, folder: Path, options: dict[str, Any], store: str
) -> pd.DataFrame:
    options = options | {"store": folder / store, "on_reject": _refuse}
    return score_on_ray(pool, Workers("auto", 2, 0), student, _WINDOWS, **options)[0]


def _refuse(reject: Reject) -> None:
    raise AssertionError(f"nothing may be rejected: {reject}")


def main() -> None:
    """Kill as often as ``--n`` says, and print the moment of each kill."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_kills", description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    start(2)
    with TemporaryDirectory() as name:
        student, path = Path(name, "student"), Path(name, "pool.jsonl")
        small_student(student)
        write_pool(path, 0)
        pool = load_pool(path)
        few = dict(list(pool.prompts.items())[:_PROMPTS])
        pool = Pool(few, tuple(r for r in pool.responses if r.prompt_id in few))
        hits = 0
        for moment, is_hit in run_kills(pool, str(student), asked.n, seed):
            print(f"after {moment:.1f} s: {'killed' if is_hit else 'all were gone'}", flush=True)
            hits += is_hit
    print(f"{hits} of {asked.n} kills hit a worker; every table the same, bit for bit")


if __name__ == "__main__":
    main()
