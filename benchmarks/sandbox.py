"""What the sandbox adds to a program that does nothing: `python -m benchmarks.sandbox`."""

from __future__ import annotations

import subprocess
import timeit
from statistics import median

from lalp.evaluation import sandbox

REPEATS = 30


def main() -> None:
    """Run the empty program alone and in the sandbox, in turns, and print the ratio."""
    sandbox.check_sandbox()
    python = str(sandbox._interpreter())
    alone, inside = [], []
    for _ in range(REPEATS):
        alone.append(timeit.timeit(lambda: subprocess.run([python, "-c", "pass"]), number=1))
        inside.append(timeit.timeit(lambda: sandbox.run_program("pass"), number=1))
    ratio = median(inside) / median(alone)
    print(f"alone {median(alone) * 1e3:.0f} ms, in the sandbox {median(inside) * 1e3:.0f} ms")
    print(f"{ratio:.2f} times as long (median of {REPEATS} runs of each, in turns)")


if __name__ == "__main__":
    main()
