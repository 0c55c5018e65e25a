"""A longer run of fine-tuned students, its results committed with what made them (`make arms`).

``python -m lalp.paper.arms --profile standard`` trains and evaluates every arm of a profile, goes
on where it stopped, and writes ``figures/arms_standard/*.csv`` and ``provenance.json``, which
`05_sft` and `06_eval` lay beside their own small run.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from lalp.errors import InputError
from lalp.files import build_dir
from lalp.paper.arms import run
from lalp.paper.arms.grid import arm_table, run_arms
from lalp.paper.profiles import PROFILES, load_profile
from lalp.paper.provenance import describe_run

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "math-verify")


def main() -> None:
    """Train and evaluate a profile's arms and keep their results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="standard", choices=PROFILES)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts")
    options = parser.parse_args()
    try:
        started = time.monotonic()
        grid = run.sft_grid(load_profile(options.profile), options.seed)
        found = run_arms(grid.arms, grid.pool, grid.setup, grid.problems, grid.samplings)
        hours = (time.monotonic() - started) / 3600
        results = run.ArmResults(
            arm_table(grid.arms, grid.scores), **found, provenance=_provenance(options, hours)
        )
        folder = build_dir().parent / "figures" / f"arms_{options.profile}"
        run.save_arm_results(results, folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(grid.arms)} arms in {folder.name}")


def _provenance(options: argparse.Namespace, hours: float) -> dict[str, Any]:
    return {"profile": options.profile, "seed": options.seed} | describe_run(hours, _PACKAGES)


if __name__ == "__main__":
    main()
