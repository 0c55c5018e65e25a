"""Scoring on a Ray cluster of this machine: `python -m benchmarks.cluster kills` and `share`.

``kills`` scores a pool by two workers again and again. Each time it kills one of them (SIGKILL) at
a random moment, and the table must be that of one undisturbed process, bit for bit.

``share`` measures what the scheduler takes. The scorer only sleeps, as long as a prompt takes on a
GPU or less; printed is which part of the workers' time is work, from the first piece to the last.
A worker here is a process of its own, so that 64 of them take about 6 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import psutil
import torch
from pandas.testing import assert_frame_equal

from benchmarks.streaming import small_student, write_pool
from lalp.cluster.scores import score_on_ray
from lalp.cluster.workers import Workers, run_workers
from lalp.files import write_json
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.run import score

SCALE = Path(__file__).parents[1] / "docs" / "scale.json"
_PROMPTS = 48  # of the pool that is scored while workers die
_WINDOWS = ("0", "2")


def start(num_cpus: int) -> None:
    """A small cluster in this process, unless it is in one."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    options = {
        "num_cpus": num_cpus,
        "num_gpus": 0,
        "object_store_memory": 200 << 20,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        # Else whatever runs beside the workers would come first.
        "_system_config": {"worker_niceness": 0},
        "runtime_env": {"env_vars": {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'tests'}"}},
    }
    for attempt in range(3):
        try:
            ray.init(**options)
            return
        except Exception:  # Ray's own processes have 15 s to start: a busy machine takes longer
            ray.shutdown()
            if attempt == 2:
                raise


# --- Kills --------------------------------------------------------------------------------------


def worker_pids() -> list[int]:
    """Processes of workers of this cluster, at work or waiting for it; others are left alone."""
    import ray

    gcs, found = ray.get_runtime_context().gcs_address, list[int]()
    for each in psutil.process_iter(["cmdline"]):
        if (each.info["cmdline"] or [""])[0].startswith("ray::_Worker"):
            with suppress(psutil.Error):
                if any(gcs in word for word in each.parent().cmdline()):
                    found.append(each.pid)
    return found


def kill_one(after: float, done: threading.Event, killed: list[int], rng: random.Random) -> None:
    """Kill a worker, so many seconds from now, or once there is one; none when all is done."""
    done.wait(after)
    while not done.wait(0.05):
        if pids := worker_pids():
            killed.append(rng.choice(sorted(pids)))
            os.kill(killed[-1], signal.SIGKILL)
            return


def run_kills(pool: Pool, student: str, number: int, seed: int) -> Iterator[tuple[float, bool]]:
    """The moment of each kill, in seconds, and whether it hit; AssertionError at a difference."""
    rng = random.Random(seed)
    with TemporaryDirectory() as name:
        options = {"progress": False, "device": "cpu"}
        calm = score(pool, student, _WINDOWS, store=Path(name, "calm"), **options)
        table = partial(_by_workers, pool, student, Path(name), options)
        began = time.monotonic()
        table("0")  # how long one takes
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
    workers, reject = Workers("auto", 2, 0), partial(_refuse, "nothing may be rejected")
    options = options | {"store": folder / store, "on_reject": reject}
    return score_on_ray(pool, workers, student, _WINDOWS, **options)[0]


def _refuse(why: str, reject: Any) -> None:
    raise AssertionError(f"{why}: {reject}")


# --- The scheduler's share ----------------------------------------------------------------------


@dataclass(frozen=True)
class Sleeping:
    """Works on prompts by sleeping; says when it began and ended, and how long it slept."""

    seconds: float

    def __call__(self, prompts: Sequence[int]) -> tuple[int, float, float, float]:
        """Sleep."""
        began = time.time()
        time.sleep(self.seconds * len(prompts))
        return os.getpid(), began, time.time(), self.seconds * len(prompts)

    def close(self) -> None:
        """Nothing is kept."""


def measure_share(number: int, prompts: int, seconds: float, piece: int) -> dict[str, float]:
    """Which part of the workers' time is work, while all of them are there."""
    pieces = ([*range(n, min(n + piece, prompts))] for n in range(0, prompts, piece))
    make = partial(Sleeping, seconds)
    spans = list(run_workers(Workers("auto", number, 0), make, pieces, _refuse))
    pids = {pid for pid, *_ in spans}
    # From when the last worker has begun: how long processes take to start is no scheduling.
    start = max(min(began for pid, began, *_ in spans if pid == own) for own in pids)
    end = min(max(ended for pid, _, ended, _ in spans if pid == own) for own in pids)
    slept = sum(
        max(0.0, min(ended, end) - max(began, start)) * asked / (ended - began)
        for _, began, ended, asked in spans
    )
    return {
        "workers": len(pids),
        "prompts": prompts,
        "seconds": end - start,
        "share": slept / (len(pids) * (end - start)),
    }


def keep_share(found: dict[str, float]) -> None:
    """Put what was measured beside the other rates of docs/scale.md, which then is written anew."""
    kept = json.loads(SCALE.read_text(encoding="utf-8"))
    write_json(SCALE, kept | {"share": found})
    print("next: python -m benchmarks.scale --render")


def main() -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("what", choices=["kills", "share"])
    parser.add_argument("--n", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.1, help="that a prompt takes")
    parser.add_argument("--piece", type=int, default=16, help="prompts handed over at once")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "share":
        start(asked.workers)
        found = measure_share(asked.workers, asked.prompts, asked.seconds, asked.piece)
        print(", ".join(f"{name} {value:,.4g}" for name, value in found.items()))
        keep_share(found | {"seconds_each": asked.seconds, "piece": asked.piece})
        return
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    start(2)
    with TemporaryDirectory() as name:
        small_student(Path(name, "student"))
        write_pool(Path(name, "pool.jsonl"), 0)
        pool = load_pool(Path(name, "pool.jsonl"))
        few = dict(list(pool.prompts.items())[:_PROMPTS])
        pool = Pool(few, tuple(r for r in pool.responses if r.prompt_id in few))
        hits = 0
        for moment, hit in run_kills(pool, str(Path(name, "student")), asked.n, seed):
            print(f"after {moment:.1f} s: {'killed' if hit else 'all were gone'}", flush=True)
            hits += hit
    print(f"{hits} of {asked.n} kills hit a worker; every table the same, bit for bit")


if __name__ == "__main__":
    main()
