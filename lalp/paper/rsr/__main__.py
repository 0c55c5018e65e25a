"""Plan, try out and run the comparison with RSR's accuracies: `make plan PROFILE=rsr`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lalp.cli.options import run
from lalp.files import cache_dir
from lalp.paper import root_dir
from lalp.paper.rsr.correlate import ALL_STUDENTS
from lalp.paper.rsr.plan import PLAN
from lalp.paper.workflow import Words

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

    results = dry_run(cache_dir() / "dryrun" / "rsr", student or ())
    typer.echo(f"All stages passed: {results}")
    typer.echo("Made-up traces and random weights: these numbers mean nothing.")


@app.command("run")
def run_(student: Students = None, words: Words = None) -> None:
    """Fetch and draw the sets, score them, correlate; a second run continues where one stopped."""
    from lalp.paper.rsr.run import open_workflow
    from lalp.paper.rsr.sets import given_folder

    # Stages run in another folder.
    os.environ["RSR"] = given_folder(PLAN)
    out = root_dir() / "figures" / "rsr"
    open_workflow(cache_dir() / "pipeline" / "rsr", out, student or ()).run(*(words or ()))
    if (found := out / "correlations.csv").is_file():
        _print_means(pd.read_csv(found))
    typer.echo(f"tables and figure: {out}")


@app.command("published")
def published_() -> None:
    """Correlate the paper's own scores with its accuracies: no student, no hub."""
    from lalp.paper.rsr.run import write_published

    _print_means(write_published(PLAN, root_dir() / "figures" / "rsr"))


Toys = Annotated[str, typer.Option(help="Folder of a dry run's sets and students.")]


@app.command(hidden=True)
def draw(toys: Toys = "") -> None:
    """A stage: draw the responses that are scored."""
    from lalp.paper.rsr.run import draw as draw_responses

    draw_responses(toys)


@app.command(hidden=True)
def score(student: str, toys: Toys = "") -> None:
    """A stage: score the drawn responses under one student."""
    from lalp.paper.rsr.run import score_student

    score_student(student, toys)


@app.command(hidden=True)
def results(scored: list[Path], into: Annotated[Path, typer.Option()], toys: Toys = "") -> None:
    """A stage: correlate the scores of all students."""
    from lalp.paper.rsr.run import collect

    collect(scored, into, toys)


def _print_means(found: pd.DataFrame) -> None:
    means = found.query("student == @ALL_STUDENTS and measure == 'spearman'")
    typer.echo(f"Spearman's rho with accuracy, {ALL_STUDENTS}:")
    for row in means.itertuples():
        interval = f"[{row.low:.2f}, {row.high:.2f}]"
        typer.echo(f"{row.score:<14} {row.correlation:>6.2f} {interval:<14} p = {row.p_holm:.3g}")


if __name__ == "__main__":
    run(app)
