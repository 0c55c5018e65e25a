"""A longer run of fine-tuned students; its results are committed with their origin (`make arms`).

``python -m lalp.paper.arms --profile standard`` trains and evaluates every arm of a profile,
continues where it stopped, and writes ``figures/arms_standard/*.csv`` and ``provenance.json``. The
notebooks `05_sft` and `06_eval` show these, and check them by training one arm again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from typer import Option

from lalp.cli.options import run_main
from lalp.paper.arms.grid import run_in_turns
from lalp.paper.arms.plan import plan_grid
from lalp.paper.committed import save_results
from lalp.paper.profiles import PROFILES, load_profile
from lalp.paper.provenance import describe_run
from lalp.training.job import training_dtype

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "math-verify")


def main(
    profile: Annotated[str, Option(help=f"One of {', '.join(PROFILES)}.")] = "standard",
    seed: Annotated[int, Option(help="Of the choice of prompts.")] = 0,
) -> None:
    """Train and evaluate a profile's arms and keep their results."""
    started = time.monotonic()
    grid = plan_grid(load_profile(profile), seed)
    results = run_in_turns(grid)
    made = describe_run((time.monotonic() - started) / 3600, _PACKAGES)
    today, dtype = datetime.now(UTC).date().isoformat(), training_dtype(grid.setup.recipe)
    made = {"profile": profile, "seed": seed, "date": today, "dtype": dtype} | made
    save_results(replace(results, provenance=made), f"arms_{profile}")
    print(f"{len(results.arms)} arms in arms_{profile}")


if __name__ == "__main__":
    run_main(main)
