"""Commands on pools: check, unsolved, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from lalp.cli import options
from lalp.cli.printing import print_origin, print_pool, print_result, say
from lalp.origins import origin, read_origin, write_beside
from lalp.pools.merging import merge_pools, unsolved_prompts, write_prompts
from lalp.pools.pool import pool_summary
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import JSON_LINES, save_pool, write_training

app = Typer()

_CORRECT = "Keep responses known to be correct."
_FIRST = "Keep the first N of each teacher to a prompt."
_TEACHERS = "Keep prompts with kept responses of so many teachers."


@app.command()
def check(pool: options.PoolFile, as_json: options.AsJson = False) -> None:
    """Read a pool and say what it holds."""
    print_result(pool_summary(load_pool(pool)), as_json, print_pool)


@app.command()
@options.writes_out
def unsolved(
    prompts: Annotated[str, Argument(metavar="PROMPTS", help="As for lalp sample.")],
    pools: Annotated[list[str], Argument(metavar="POOL...", help="Responses to them.")],
    out: Annotated[Path, Option(help="JSONL to write; an empty file if all are solved.")],
) -> None:
    """Write the prompts that no response of the pools is known to solve, to sample them again."""
    options.check_out(out, "prompts are written as JSONL", *JSON_LINES)
    asked = load_prompts(prompts)
    rest = unsolved_prompts(asked, [load_pool(pool) for pool in pools])
    write_prompts(rest, out)
    write_beside(out, origin("unsolved", {"prompts": prompts, "pools": pools}))
    say(f"{len(rest)} of {len(asked)} prompts are not solved: {out}")


@app.command()
@options.writes_out
def merge(
    pools: Annotated[list[str], Argument(metavar="POOL...", help="JSONL or Parquet.")],
    out: Annotated[Path, Option(help="File to write (a folder for llamafactory).")],
    only_correct: Annotated[bool, Option("--only-correct", help=_CORRECT)] = False,
    per_teacher: Annotated[int | None, Option(min=1, help=_FIRST)] = None,
    min_teachers: Annotated[int, Option(min=1, help=_TEACHERS)] = 1,
    fmt: Annotated[str, Option("--format", help=f"pool, {options.FORMATS}.")] = "pool",
    as_json: options.AsJson = False,
) -> None:
    """Put several pools together into one, or into one training file."""
    if fmt != "pool":
        options.check_training_out(out, fmt)
    kept = {"only_correct": only_correct, "per_teacher": per_teacher, "min_teachers": min_teachers}
    pool = merge_pools(pools, **kept)
    facts = origin("merge", {"pools": pools}, **kept)
    if fmt == "pool":
        save_pool(pool, out, facts)
    else:
        write_training(pool, [response.response_id for response in pool.responses], out, fmt)
        options.say_origin(out, fmt, facts)
    print_result(pool_summary(pool), as_json, print_pool)
    say(f"{len(pool.responses)} responses written: {out}")


@app.command()
def describe(
    path: Annotated[str, Argument(metavar="FILE", help="A file or folder that lalp wrote.")],
    as_json: options.AsJson = False,
) -> None:
    """Say where a file comes from: command, settings, inputs with their checksums."""
    print_result(read_origin(path), as_json, print_origin)
