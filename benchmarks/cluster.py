"""How much of a Ray cluster's time the scheduler takes: `python -m benchmarks.cluster`.

The scorer only sleeps, for as long as a GPU takes for a prompt, or less. The program prints the
share of the workers' time that is work, while all of them run. Each worker is a process on this
machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lalp.cluster.workers import Workers, run_workers
from lalp.files import write_json

SCALE = Path(__file__).parents[1] / "docs" / "scale.json"
# How long Ray's processes wait for each other. The defaults are 10 to 30 seconds, which is too
# little if other work takes the processors.
_PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_raylet_client_connect_timeout_milliseconds": "6000",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "120",
}


def start(num_cpus: int) -> None:
    """Start a small cluster, or join the one that ``RAY_ADDRESS`` names."""
    os.environ.update(_PATIENCE | os.environ)
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
        # With the default niceness, other processes on the machine would run before the workers.
        "_system_config": {"worker_niceness": 0},
    }
    for attempt in range(3):
        try:
            ray.init(**options)
            return
        except Exception:  # Ray's own processes have 15 s to start, too little on a busy machine
            ray.shutdown()
            if attempt == 2:
                raise


@dataclass(frozen=True)
class Sleeping:
    """Sleeps instead of scoring; tells its process, start and end, and the time to sleep."""

    seconds: float

    def __call__(self, prompts: Sequence[int]) -> tuple[int, float, float, float]:
        """Sleep for some prompts."""
        began = time.time()
        time.sleep(self.seconds * len(prompts))
        return os.getpid(), began, time.time(), self.seconds * len(prompts)

    def close(self) -> None:
        """Do nothing, because no scores are kept."""


def measure_share(number: int, prompts: int, seconds: float, piece: int) -> dict[str, float]:
    """The share of the workers' time that is work, while all of them run."""
    pieces = ([*range(n, min(n + piece, prompts))] for n in range(0, prompts, piece))
    make = partial(Sleeping, seconds)
    spans = list(run_workers(Workers("auto", number, 0), make, pieces, _refuse))
    pids = {pid for pid, *_ in spans}
    # Count from when the last worker began, because starting processes is not scheduling.
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


def _refuse(item: int, why: str) -> None:
    raise AssertionError(f"prompt {item}: {why}")


def keep_share(found: dict[str, float]) -> None:
    """Add the result to docs/scale.json; the printed command then writes docs/scale.md."""
    kept = json.loads(SCALE.read_text(encoding="utf-8"))
    write_json(SCALE, kept | {"share": found})
    print("next: python -m benchmarks.scale --render")


def main() -> None:
    """Measure the share, print it, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.1, help="that a prompt takes")
    parser.add_argument("--piece", type=int, default=16, help="prompts handed over at once")
    asked = parser.parse_args()
    start(asked.workers)
    found = measure_share(asked.workers, asked.prompts, asked.seconds, asked.piece)
    print(", ".join(f"{name} {value:,.4g}" for name, value in found.items()))
    keep_share(found | {"seconds_each": asked.seconds, "piece": asked.piece})


if __name__ == "__main__":
    main()
