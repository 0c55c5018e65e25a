"""A pool of several times the memory that a command may take: `python -m benchmarks.streaming`.

Each command first reads a pool of a hundred responses, which tells what Python and its libraries
take. Then it reads the large one under a limit of address space: as much, and a quarter of the
pool's size. Printed is what its peak grew by.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.good import tiny_student

_WORDS = ("we", "add", "the", "two", "sums", "so", "that", "x", "is", "y", "and", "check", "again")
_CHARACTERS = 20_000  # of a response
# A command prints the peak of its address space in kB when it ends.
_RUN = """
import sys
from lalp.cli import app
try:
    app.main()
finally:
    lines = open("/proc/self/status").read().splitlines()
    print(*(line.split()[1] for line in lines if line.startswith("VmPeak")), file=sys.stderr)
"""
_HOW = "--student student --window 1 --quiet --out out.parquet"
COMMANDS = {
    "check": "check POOL",
    "import": "import POOL --out out.jsonl",
    "import to a table": "import POOL --out out.parquet",
    "import from a table": "import out.parquet --out out.jsonl",
    "segment": "segment POOL --out steps.jsonl",
    "score": f"score POOL {_HOW} --store store",
}


def write_pool(path: Path, size: int) -> int:
    """A pool of about ``size`` bytes, four responses a prompt; how many there are."""
    rng, number, written = random.Random(7), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size or number < 100:
            words = rng.choices(_WORDS, k=_CHARACTERS // 4)
            text = "".join(f"{word}{'. ' if rng.random() < 0.08 else ' '}" for word in words)
            record = {
                "prompt_id": f"p{number // 4}",
                "prompt": f"What is {number // 4}?",
                "teacher": "ABCD"[number % 4],
                "response": f"{number} {text}",
            }
            written += file.write(json.dumps(record) + "\n")
            number += 1
    return number


def run(words: list[str], folder: Path, limit: int | None = None) -> tuple[int, float]:
    """The peak of address space in bytes, and seconds; the command must succeed."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=set_limit,
    )
    if done.returncode:
        raise SystemExit(f"lalp {' '.join(words)}: {done.stderr.strip()[-500:]}")
    peak = int(done.stderr.strip().splitlines()[-1])
    return peak * 1024, time.monotonic() - start


def main() -> None:
    """Write the pools, run the commands, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the pool")
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    asked = parser.parse_args()
    size = asked.mib << 20
    with TemporaryDirectory() as name:
        folder = Path(name)
        tiny_student(folder / "student")
        write_pool(folder / "small.jsonl", 0)
        num_responses = write_pool(folder / "large.jsonl", size)
        print(f"a pool of {asked.mib:,} MiB, {num_responses:,} responses; limit: a quarter more")
        print(f"{'command':<20} {'small pool':>11} {'large pool':>11} {'grown by':>9} {'of it':>6}")
        for command in asked.commands:
            line = COMMANDS[command].split()
            small, _ = run([w.replace("POOL", "small.jsonl") for w in line], folder)
            space = [w.replace("POOL", "large.jsonl") for w in line]
            large, seconds = run(space, folder, small + size // 4)
            grown = large - small
            sizes = (
                f"{small / 2**20:>7,.0f} MiB {large / 2**20:>7,.0f} MiB {grown / 2**20:>5,.0f} MiB"
            )
            print(f"{command:<20} {sizes} {grown / size:>6.1%}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
