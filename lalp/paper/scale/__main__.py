"""Plan, try out and run the paper's pipeline: `python -m lalp.paper.scale --help`.

Stages of the pipeline call two of these commands themselves: ``prompts`` and ``tables``.
"""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lalp.cli.options import AsJson, run, writes_out
from lalp.cli.printing import print_result, say
from lalp.errors import InputError
from lalp.extras import require
from lalp.files import PACKAGE
from lalp.paper.scale.plan import load_plan, run_folder
from lalp.paper.scale.sources import load_source, published_pool
from lalp.paper.scale.stages import Stages
from lalp.pools.merging import write_prompts
from lalp.pools.writing import save_pool

if TYPE_CHECKING:
    from lalp.paper.scale.workflow import Stage

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The paper's experiment from sampling to its tables: what it costs, in small, for real.",
)
PlanName = Annotated[str, typer.Option("--profile", help="paper, gpu, or a .yaml file.")]
StagePatterns = Annotated[
    list[str] | None,
    typer.Option("--stage", help="A name, a pattern like 'train-*', or a kind; repeatable."),
]


def _listed(profile: str, patterns: list[str] | None) -> list[Stage]:
    """The stages of a plan with a name or kind that fits a pattern; all without one."""
    from lalp.paper.scale.workflow import list_stages  # waits for snakemake

    stages = list_stages(profile, run_folder("pipeline", profile))
    for pattern in patterns or []:
        if not any(_fits(stage, pattern) for stage in stages):
            kinds = ", ".join(dict.fromkeys(stage.kind for stage in stages))
            raise InputError(
                f"no stage is called {pattern!r}: give a name that `plan` prints, a "
                f"pattern like 'train-*', or a kind ({kinds})"
            )
    return [s for s in stages if not patterns or any(_fits(s, pattern) for pattern in patterns)]


def _fits(stage: Stage, pattern: str) -> bool:
    return stage.kind == pattern or fnmatchcase(stage.name, pattern)


@app.command("plan")
def plan_(
    profile: PlanName = "paper", stage: StagePatterns = None, as_json: AsJson = False
) -> None:
    """Say of every stage what it computes, needs and runs, before anything runs."""
    require("scale", "a plan of the paper's scale")
    from lalp.paper.scale.costs import add_up, as_record, plan_costs, plan_text  # waits for torch

    plan = load_plan(profile)
    costs = plan_costs(Stages(plan), _listed(profile, stage))
    result = {"stages": [as_record(cost) for cost in costs], "totals": add_up(costs)}
    print_result(result, as_json, lambda _: typer.echo(plan_text(costs)))
    if not as_json:
        typer.echo(f"Commands run in {run_folder('pipeline', profile)}, where their files lie.")


@app.command("run")
def run_(
    profile: PlanName = "paper",
    stage: StagePatterns = None,
    on: Annotated[
        str, typer.Option(help="slurm, kubernetes, or the folder of a profile of snakemake.")
    ] = "",
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of snakemake, behind --.")
    ] = None,
) -> None:
    """Run the stages that are not done yet; a second run goes on where one stopped."""
    require("scale", "the paper's scale")
    from lalp.paper.scale.workflow import run_stages

    plan, words = load_plan(profile), list(options or [])
    if on:
        ours = PACKAGE / "paper/scale" / on
        words += ["--profile", str(ours if ours.is_dir() else Path(on).absolute())]
    else:
        words += ["--resources", f"gpu={plan.gpus}"]
    if stage:
        words += ["--", *(path for each in _listed(profile, stage) for path in each.outputs)]
    run_stages(profile, run_folder("pipeline", profile), *words, on_done=_print_stage)


@app.command("dryrun")
def dryrun_(profile: PlanName = "paper") -> None:
    """Run every stage in small, with tiny models and toy problems, on the CPU."""
    require("scale", "a dry run of the paper's scale")
    from lalp.paper.scale.dryrun import dry_run

    began = time.monotonic()
    stages = dry_run(profile, run_folder("dryrun", profile), on_done=_print_stage)
    typer.echo(f"{len(stages)} stages ran in {time.monotonic() - began:.0f} s; all are done")
    typer.echo(
        "Unlike the real run: toy problems, tiny models, transformers instead of vLLM, two CPU "
        "processes over gloo, and forks of one process for all but the first stage of each kind."
    )


def _print_stage(stage: Stage, seconds: float) -> None:
    typer.echo(f"{stage.name:<68} {seconds:>8.1f} s")


@app.command()
@writes_out
def prompts(
    name: Annotated[str, typer.Argument(help="limo, math (levels 3-5) or code.")],
    out: Annotated[Path, typer.Option(help="JSONL to write, for lalp sample.")],
    limit: Annotated[int, typer.Option(min=1, help="Prompts at most.")] = 1_000_000,
    responses_by: Annotated[
        str | None,
        typer.Option(help="Write the data set's own solutions as a pool of this teacher (limo)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' records, instead of the hub.")
    ] = None,
) -> None:
    """Fetch the paper's training prompts from the hub."""
    if responses_by is not None:
        if name != "limo":
            raise InputError("--responses-by goes with limo: leave it out")
        pool = published_pool(responses_by, limit, data)
        save_pool(pool, out)
        say(f"{len(pool.responses)} responses by {responses_by}: {out}")
        return
    found = load_source(name, limit, data)
    write_prompts(found, out)
    say(f"{len(found)} prompts: {out}")


@app.command("tables")
@writes_out
def tables_(
    profile: PlanName = "paper",
    root: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lay the paper's tables and the run's numbers side by side."""
    from lalp.paper.scale.tables import collect_tables, tables_text, write_tables

    folder = root or run_folder("pipeline", profile)
    tables = collect_tables(load_plan(profile), folder)
    if out is not None:
        write_tables(tables, out)
        say(f"{len(tables)} tables: {out}")
    result = {table.number: table.as_dict() for table in tables}
    print_result(result, as_json, lambda _: typer.echo(tables_text(tables)))


if __name__ == "__main__":
    run(app)
