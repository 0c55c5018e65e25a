"""Plan, try out and run the paper's pipeline: `python -m lalp.paper.scale --help`.

Stages of the pipeline themselves call two of these commands: ``prompts`` and ``tables``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lalp.cli.options import AsJson, run, writes_out
from lalp.cli.printing import print_result, say
from lalp.errors import InputError
from lalp.paper.scale.plan import Plan, load_plan, run_folder
from lalp.paper.scale.run import Report, adopt_stage, choose_stages, run_stages
from lalp.paper.scale.sources import load_source, published_pool
from lalp.paper.scale.stages import Place, Stage, make_stages
from lalp.pools.merging import write_prompts
from lalp.pools.writing import save_pool

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The paper's experiment from sampling to its tables: what it costs, in small, for real.",
)
PlanName = Annotated[str, typer.Option("--profile", help="paper or gpu.")]
StagePatterns = Annotated[
    list[str] | None,
    typer.Option("--stage", help="A name, a pattern like 'train-*', or a kind; repeatable."),
]


def _chosen(profile: str, patterns: list[str] | None) -> tuple[Plan, str, list[Stage]]:
    """The plan of a profile, the folder of its run, and the stages that the patterns choose."""
    plan, root = load_plan(profile), run_folder("pipeline", profile)
    stages = make_stages(plan, Place(root), profile)
    return plan, root, choose_stages(stages, patterns or [])


@app.command("plan")
def plan_(
    profile: PlanName = "paper", stage: StagePatterns = None, as_json: AsJson = False
) -> None:
    """Print what every stage computes, needs and calls, before anything runs."""
    from lalp.paper.scale.costs import add_up, as_record, plan_costs, plan_text  # waits for torch

    plan, _, stages = _chosen(profile, stage)
    costs = plan_costs(plan, stages)
    result = {"stages": [as_record(cost) for cost in costs], "totals": add_up(costs)}
    print_result(result, as_json, lambda _: typer.echo(plan_text(costs)))


@app.command("run")
def run_(
    profile: PlanName = "paper",
    stage: StagePatterns = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take outputs made elsewhere; needs --stage.")
    ] = False,
) -> None:
    """Run the stages that are not done yet; a second run continues where one stopped."""
    _, root, stages = _chosen(profile, stage)
    if not adopt:
        run_stages(stages, root, on_report=_print_report)
        return
    if not stage:
        raise InputError("--adopt takes the outputs of named stages: add --stage")
    for each in stages:
        _print_report(adopt_stage(each, root))


@app.command("dryrun")
def dryrun_(profile: PlanName = "paper") -> None:
    """Run a small version of every stage, with tiny models and toy problems, on the CPU."""
    from lalp.paper.scale.dryrun import dry_run

    began = time.monotonic()
    typer.echo(f"{'stage':<68} {'seconds':>8} {'run as':<7}  outputs checked")
    reports = dry_run(profile, run_folder("dryrun", profile), app, on_report=_print_report)
    typer.echo(f"{len(reports)} stages passed in {time.monotonic() - began:.0f} s")
    typer.echo(
        "Unlike the real run: toy problems, tiny models, transformers instead of vLLM, two CPU "
        "processes over gloo, and one process for all but the first stage of each kind."
    )


def _print_report(report: Report, is_process: bool = False) -> None:
    how = "process" if is_process else ""
    seconds = "before" if report.state == "done before" else f"{report.seconds:.1f}"
    outputs = "; ".join(report.outputs) + ("  (nothing to do)" if "nothing" in report.state else "")
    typer.echo(f"{report.stage.name:<68} {seconds:>8} {how:<7}  {outputs}")


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
    """Print the paper's tables and the run's numbers side by side."""
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
