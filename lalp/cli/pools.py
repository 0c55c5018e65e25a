"""Commands on pools: check, unsolved, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lalp.cli.options import AsJson, PoolFile, print, say
from lalp.pools.pool import pool_summary
from lalp.pools.reading import load_pool
from lalp.pools.writing import TRAINING_FORMATS, save_pool, write_training

app = typer.Typer()


@app.command()
def check(pool: PoolFile, as_json: AsJson = False) -> None:
    """Read a pool and say what it holds."""
    summary = pool_summary(load_pool(pool))
    print(summary, as_json, lambda: _print_summary(summary))


@app.command()
def unsolved(
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help="As for lalp sample.")],
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="Responses to them.")],
    out: Annotated[Path, typer.Option(help="JSONL to write; an empty file if all are solved.")],
) -> None:
    """Write the prompts that no response of the pools is known to solve, to sample them again."""
    from lalp.pools import merging
    from lalp.pools.prompts import load_prompts

    asked = load_prompts(prompts)
    rest = merging.unsolved_prompts(asked, [load_pool(pool) for pool in pools])
    merging.write_prompts(rest, out)
    say(f"{len(rest)} of {len(asked)} prompts are not solved: {out}")


@app.command()
def merge(
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="JSONL or Parquet.")],
    out: Annotated[Path, typer.Option(help="File to write (a folder for llamafactory).")],
    only_correct: Annotated[
        bool, typer.Option("--only-correct", help="Keep responses known to be correct.")
    ] = False,
    per_teacher: Annotated[
        int | None, typer.Option(min=1, help="Keep the first N of each teacher to a prompt.")
    ] = None,
    min_teachers: Annotated[
        int, typer.Option(min=1, help="Keep prompts with kept responses of so many teachers.")
    ] = 1,
    fmt: Annotated[
        str, typer.Option("--format", help="pool, " + ", ".join(TRAINING_FORMATS) + ".")
    ] = "pool",
    as_json: AsJson = False,
) -> None:
    """Put several pools together into one, or into one training file."""
    from lalp.pools.merging import merge_pools

    pool = merge_pools(
        pools, only_correct=only_correct, per_teacher=per_teacher, min_teachers=min_teachers
    )
    if fmt == "pool":
        save_pool(pool, out)
    else:
        write_training(pool, [response.response_id for response in pool.responses], out, fmt)
    summary = pool_summary(pool)
    print(summary, as_json, lambda: _print_summary(summary))
    say(f"{len(pool.responses)} responses written: {out}")


def _print_summary(summary: dict[str, Any]) -> None:
    typer.echo(f"{summary['num_prompts']} prompts, {summary['num_responses']} responses")
    for teacher, count in summary["responses_by_teacher"].items():
        typer.echo(f"  {count:>8,}  {teacher}")
    for number, count in summary["prompts_by_num_teachers"].items():
        typer.echo(f"  {count:>8,}  prompts with responses by {number} teacher(s)")
    for mark in ("correct", "incorrect", "unverified"):
        typer.echo(f"  {summary[f'num_{mark}']:>8,}  {mark}")
    typer.echo(f"  {summary['num_prompts_with_answer']:>8,}  prompts with a reference answer")
    if summary["num_duplicate_texts"]:
        typer.echo(f"  {summary['num_duplicate_texts']:>8,}  repeat another response's text")
    for reason, count in summary["left_out"].items():
        typer.echo(f"  {count:>8,}  left out: {reason}")
