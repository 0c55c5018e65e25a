"""The commands that stages of the pipeline call: prompts and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalp.cli.options import AsJson
from lalp.cli.printing import print_result, say
from lalp.errors import InputError
from lalp.pools.writing import save_pool

# Apart from the commands of `__main__`, for a dry run calls these inside its own process.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The paper's experiment from sampling to its tables: what it costs, in small, for real.",
)
PlanName = Annotated[str, typer.Option("--profile", help="paper or gpu.")]


@app.command()
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
    from lalp.paper.scale.sources import load_source, published_pool
    from lalp.pools.merging import write_prompts

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
    data: Annotated[Path | None, typer.Option(help="Folder of LiveCodeBench's file.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lay the paper's tables and the run's numbers side by side."""
    from lalp.paper.scale.plan import load_plan, run_folder
    from lalp.paper.scale.tables import collect_tables, tables_text, write_tables

    folder = root or run_folder("pipeline", profile)
    tables = collect_tables(load_plan(profile), folder, data)
    if out is not None:
        write_tables(tables, out)
        say(f"{len(tables)} tables: {out}")
    result = {table.number: table.as_dict() for table in tables}
    print_result(result, as_json, lambda: typer.echo(tables_text(tables)))
