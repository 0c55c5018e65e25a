"""Plan, try out and run the comparison with RSR's accuracies: `make plan PROFILE=rsr`."""

from __future__ import annotations

import time
from typing import Annotated

import pandas as pd
import typer

from lalp.cli.options import run
from lalp.files import cache_dir
from lalp.paper import root_dir
from lalp.paper.rsr.correlate import ALL_STUDENTS
from lalp.paper.rsr.plan import PLAN

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which scores foresee the accuracies that RSR publishes: the cost, in small, for real.",
)
Students = Annotated[
    list[str] | None, typer.Option("--student", help="As the plan names it; repeatable.")
]


@app.command("plan")
def plan_() -> None:
    """Print the inputs, and each student's computation and needs, before anything runs."""
    from lalp.paper.rsr.costs import plan_text  # waits for torch

    typer.echo(plan_text(PLAN))


@app.command("dryrun")
def dryrun_(student: Students = None) -> None:
    """Run a small version with made-up traces and tiny models on the CPU."""
    from lalp.paper.rsr.dryrun import dry_run

    began, root = time.monotonic(), cache_dir() / "dryrun" / "rsr"
    dry_run(PLAN, root, students=student or (), say=typer.echo)
    typer.echo(f"passed in {time.monotonic() - began:.0f} s: {root / 'results'}")
    typer.echo("Made-up traces and random weights: these numbers mean nothing.")


@app.command("run")
def run_(student: Students = None) -> None:
    """Fetch and draw the sets, score them, correlate; a second run continues where one stopped."""
    from lalp.paper.rsr.run import run_plan

    out = root_dir() / "figures" / "rsr"
    found = run_plan(PLAN, out, students=student or (), say=typer.echo)
    _print_means(found)
    typer.echo(f"tables and figure: {out}")


@app.command("published")
def published_() -> None:
    """Correlate the paper's own scores with its accuracies: no student, no hub."""
    from lalp.paper.rsr.run import write_published

    _print_means(write_published(PLAN, root_dir() / "figures" / "rsr"))


def _print_means(found: pd.DataFrame) -> None:
    means = found.query("student == @ALL_STUDENTS and measure == 'spearman'")
    typer.echo(f"Spearman's rho with accuracy, {ALL_STUDENTS}:")
    for row in means.itertuples():
        interval = f"[{row.low:.2f}, {row.high:.2f}]"
        typer.echo(f"{row.score:<14} {row.correlation:>6.2f} {interval:<14} p = {row.p_holm:.3g}")


if __name__ == "__main__":
    run(app)
