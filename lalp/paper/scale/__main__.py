"""Plan, try out and run the paper's pipeline: `python -m lalp.paper.scale --help`.

Stages of the pipeline themselves call two of these commands: ``prompts`` and ``tables``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalp.cli.options import AsJson, run, writes_out
from lalp.cli.printing import print_result, say
from lalp.errors import InputError
from lalp.paper.scale.plan import NOT_PRODUCED, load_plan, run_folder
from lalp.paper.scale.sources import load_source, published_pool
from lalp.paper.scale.stages import make_stages, open_workflow
from lalp.paper.workflow import Words
from lalp.pools.merging import write_prompts
from lalp.pools.writing import save_pool

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The paper's experiment from sampling to its tables: what it costs, in small, for real.",
)
PlanName = Annotated[str, typer.Option("--profile", help="paper, gpu, or a .yaml file.")]


@app.command("plan")
def plan_(profile: PlanName = "paper", words: Words = None, as_json: AsJson = False) -> None:
    """Print what every stage computes and needs, before anything runs."""
    from lalp.paper.scale.costs import add_up, plan_costs, plan_text  # waits for torch

    workflow = open_workflow(profile, run_folder("pipeline", profile))
    listed = workflow.list_stages(*(words or ()))
    costs = plan_costs(make_stages(profile), listed)
    result = {"stages": costs, "totals": add_up(costs)}
    print_result(result, as_json, lambda _: typer.echo(plan_text(costs)))


@app.command("run")
def run_(profile: PlanName = "paper", words: Words = None) -> None:
    """Run the stages that are not done yet; a second run continues where one stopped."""
    open_workflow(profile, run_folder("pipeline", profile)).run(*(words or ()))


@app.command("dryrun")
def dryrun_(profile: PlanName = "paper") -> None:
    """Run a small version of every stage, with tiny models and toy problems, on the CPU."""
    from lalp.paper.scale.dryrun import dry_run  # waits for torch

    dry_run(profile, run_folder("dryrun", profile))
    typer.echo(
        "All stages passed. Unlike the real run: toy problems, tiny models, transformers instead "
        "of vLLM, two CPU processes over gloo, and forks of one process for all but the first "
        "stage of each kind."
    )


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
def tables_(
    profile: PlanName = "paper",
    root: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the paper's tables and the run's numbers side by side."""
    from lalp.paper.scale.tables import collect_tables, tables_text

    tables = collect_tables(load_plan(profile), root or run_folder("pipeline", profile))
    by_number = {table.number: table.as_dict() for table in tables}
    result = {"tables": by_number, "not_produced": NOT_PRODUCED}
    print_result(result, as_json, lambda _: typer.echo(tables_text(tables)))


if __name__ == "__main__":
    run(app)
