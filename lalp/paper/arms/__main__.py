"""A longer run of fine-tuned students, its results committed with what made them (`make arms`).

``python -m lalp.paper.arms --profile standard`` trains and evaluates every arm of a profile, goes
on where it stopped, and writes ``figures/arms_standard/*.csv`` and ``provenance.json``, which
`05_sft` and `06_eval` lay beside their own small run.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from lalp.errors import InputError
from lalp.files import build_dir
from lalp.paper.arms.grid import run_in_turns, save_results
from lalp.paper.arms.plan import plan_grid
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
        results = run_in_turns(plan_grid(load_profile(options.profile), options.seed))
        made = describe_run((time.monotonic() - started) / 3600, _PACKAGES)
        made = {"profile": options.profile, "seed": options.seed} | made
        folder = build_dir().parent / "figures" / f"arms_{options.profile}"
        save_results(replace(results, provenance=made), folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(results.arms)} arms in {folder.name}")


if __name__ == "__main__":
    main()
