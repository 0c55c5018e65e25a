"""Bad inputs over every command and kind of file: `python -m tests.fuzz --seed 7 --n 1000`.

Prints what came of them, and what to run to see a failure again; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
# As `lalp` sets it before it imports transformers, which is imported here before the forks.
os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error"}

from tests.fuzz import work
from tests.fuzz.work import Result

REAL_EVERY = 25  # one of so many cases is a process of its own


def main() -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--n", type=int, default=1000, help="cases")
    parser.add_argument(
        "--case", type=int, default=None, help="this one alone, and keep its folder"
    )
    parser.add_argument("--light", action="store_true", help="only cases that load no student")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    folder = (asked.folder / str(seed)).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    numbers = range(asked.n) if asked.case is None else [asked.case]
    start = time.monotonic()
    options = {"real_every": 0 if asked.light else REAL_EVERY, "light": asked.light}
    results = work.run_all(seed, numbers, folder, asked.jobs, **options)
    report(results, seed, time.monotonic() - start)
    failed = [result for result in results if result.faults]
    return int(bool(failed))


def report(results: list[Result], seed: int, seconds: float) -> None:
    """A table of kinds and commands: refused, read, failed; then every failure."""
    counts = Counter((r.kind, r.command, r.verdict) for r in results)
    print(f"\n{'kind':<14} {'command':<10} {'refused':>8} {'read':>8} {'failed':>8}")
    for kind, command in sorted({key[:2] for key in counts}):
        row = (counts[kind, command, verdict] for verdict in ("refused", "read", "failed"))
        print(f"{kind:<14} {command:<10}" + "".join(f" {n or '-':>8}" for n in row))
    failed = [result for result in results if result.faults]
    for result in failed:
        print(f"\ncase {result.number}, {result.kind}, {result.damage}: lalp {result.line}")
        for fault in result.faults:
            print(f"  {fault}")
        print(f"  again: make fuzz SEED={seed} CASE={result.number} (files: {result.folder})")
    slowest = max(results, key=lambda r: r.seconds)
    took = f"{seconds:.0f} s, the slowest case {slowest.seconds:.1f} s ({slowest.number})"
    print(f"\n{len(results) - len(failed)} of {len(results)} as they should; {took}; seed {seed}")


if __name__ == "__main__":
    sys.exit(main())
