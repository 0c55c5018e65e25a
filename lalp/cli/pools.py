"""Commands on pools: import, check, unsolved, merge, describe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from lalp.cli import options
from lalp.cli.printing import print_origin, print_pool, print_result, say
from lalp.errors import InputError
from lalp.files import atomic_path
from lalp.origins import origin, read_origin, write_beside
from lalp.pools.importing import Reject, import_pool
from lalp.pools.layouts import TARGETS, parse_mapping
from lalp.pools.merging import merge_pools, unsolved_prompts, write_prompts
from lalp.pools.pool import pool_summary
from lalp.pools.reading import is_parquet, load_pool, load_prompts
from lalp.pools.writing import JSON_LINES, save_pool, write_training

app = Typer()

_READER = "Show what this student reads: the rendered text, tokens, responses beyond its positions."
_CORRECT = "Keep only responses known to be correct."
_FIRST = "Keep each teacher's first N responses to a prompt."
_TEACHERS = "Keep prompts with kept responses of at least this many teachers."


_FILES = "Files, folders, or OWNER/NAME:SPLIT on the hub; give a batch's requests with its output."
_MAP = f"TARGET=FIELD, repeatable; a dot reads inside an object. Targets: {', '.join(TARGETS)}."
_TEACHER = "Teacher of responses that name no teacher."
_ALL_TURNS = "Score all assistant turns of a chat, not only the last (with tools, always all)."
_BAD_ROWS = "strict stops at the first row that cannot be used; skip leaves such rows out."
_REJECTS = "JSONL for the rows that skip leaves out, each with its reason."


_MERGED = "Pools (JSONL or Parquet), or tables of lalp score, such as its shards."


class BadRows(StrEnum):
    """What to do with rows that cannot be used."""

    STRICT = "strict"
    SKIP = "skip"


@app.command("import")
@options.writes_out
def import_(
    files: Annotated[list[str], Argument(metavar="FILE...", help=_FILES)],
    out: Annotated[Path, Option(help="Pool to write, JSONL or Parquet.")],
    mapping: Annotated[list[str] | None, Option("--map", metavar="T=FIELD", help=_MAP)] = None,
    teacher: Annotated[str, Option(help=_TEACHER)] = "unknown",
    all_turns: Annotated[bool, Option("--all-turns", help=_ALL_TURNS)] = False,
    bad_rows: Annotated[BadRows, Option(help=_BAD_ROWS)] = BadRows.STRICT,
    rejects: Annotated[Path | None, Option(help=_REJECTS)] = None,
    as_json: options.AsJson = False,
) -> None:
    """Read files in any known layout, and write them as one pool."""
    is_parquet(out)  # refuses any other name before anything is read
    _check_paths(files, out, rejects, bad_rows)
    if not teacher.strip():
        raise InputError("--teacher is empty; give a name")
    left_out: list[Reject] = []
    on_reject = left_out.append if rejects else None
    chosen = parse_mapping(mapping or [])
    settings = {"teacher": teacher, "all_turns": all_turns}
    pool = import_pool(files, mapping=chosen, on_reject=on_reject, **settings)
    # Both files are written completely before either is put in its place.
    with atomic_path(rejects) if rejects else nullcontext() as made:
        if made:
            made.write_text("".join(map(reject_line, left_out)), encoding="utf-8")
        facts = {"mapping": chosen, "bad_rows": bad_rows.value} | settings
        save_pool(pool, out, origin("import", {"files": files}, **facts))
    print_result(pool_summary(pool), as_json, print_pool)
    say(f"{len(pool.responses)} responses written: {out}")
    if left_out:
        say(f"{len(left_out)} rows left out, with their reasons: {rejects}")


def _check_paths(files: Sequence[str], out: Path, rejects: Path | None, bad_rows: BadRows) -> None:
    if (bad_rows is BadRows.SKIP) != (rejects is not None):
        raise InputError("--bad-rows skip and --rejects FILE go together; give both or neither")
    made = [path.resolve() for path in (out, rejects) if path]
    if len(set(made)) < len(made):
        raise InputError(f"--rejects {rejects}: is --out as well; give another name")
    for file in files:
        if rejects and Path(file).resolve() == rejects.resolve():
            raise InputError(f"{file}: is to be read and to be written; give another name")


def reject_line(reject: Reject) -> str:
    """A row that was left out, as a line of the rejects file."""
    # A value that JSON cannot hold is written as Python shows it. It may be why the row is bad.
    told = {"file": reject.source, "place": reject.place, "reason": reject.reason}
    return json.dumps(told | {"record": reject.record}, default=repr) + "\n"


@app.command()
def check(
    pool: options.PoolFile,
    student: Annotated[str | None, Option(help=_READER)] = None,
    thinking: options.Thinking = "join",
    trust_remote_code: options.TrustCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Read a pool and show what it holds; with --student, also show what the student reads."""
    from lalp.steps.summary import step_summary

    loaded = load_pool(pool)
    result = pool_summary(loaded) | {"steps": step_summary(loaded)}
    if student is not None:
        from lalp.scoring.preview import preview_pool  # imports torch, which takes seconds

        settings = {"thinking": thinking, "trust_remote_code": trust_remote_code}
        result["preview"] = asdict(preview_pool(loaded, student, **settings))
    print_result(result, as_json, print_pool)


@app.command()
@options.writes_out
def unsolved(
    prompts: Annotated[str, Argument(metavar="PROMPTS", help="Prompts, as for lalp sample.")],
    pools: Annotated[list[str], Argument(metavar="POOL...", help="Responses to the prompts.")],
    out: Annotated[Path, Option(help="JSONL to write; an empty file if all are solved.")],
) -> None:
    """Write the prompts without a response known to be correct, to sample them again."""
    options.check_out(out, "prompts are written as JSONL", *JSON_LINES)
    asked = load_prompts(prompts)
    rest = unsolved_prompts(asked, [load_pool(pool) for pool in pools])
    write_prompts(rest, out)
    write_beside(out, origin("unsolved", {"prompts": prompts, "pools": pools}))
    say(f"{len(rest)} of {len(asked)} prompts are not solved: {out}")


@app.command()
@options.writes_out
def merge(
    pools: Annotated[list[str], Argument(metavar="FILE...", help=_MERGED)],
    out: Annotated[Path, Option(help="File to write (a folder for llamafactory).")],
    only_correct: Annotated[bool, Option("--only-correct", help=_CORRECT)] = False,
    per_teacher: Annotated[int | None, Option(min=1, help=_FIRST)] = None,
    min_teachers: Annotated[int, Option(min=1, help=_TEACHERS)] = 1,
    fmt: Annotated[str, Option("--format", help=f"pool, {options.FORMATS}.")] = "pool",
    as_json: options.AsJson = False,
) -> None:
    """Merge several pools into one pool or training file, or several score tables into one."""
    if fmt != "pool":
        options.check_training_out(out, fmt)
    kept = {"only_correct": only_correct, "per_teacher": per_teacher, "min_teachers": min_teachers}
    from lalp.scoring.merging import is_score_table, merge_scores

    if fmt == "pool" and all(map(is_score_table, pools)):
        if only_correct or per_teacher or min_teachers > 1:
            raise InputError("these are score tables: choose from the merged one by lalp select")
        options.check_out(out, "score tables are merged into Parquet", ".parquet")
        number = merge_scores(pools, out, origin("merge", {"scores": pools}))
        print_result({"num_responses": number}, as_json)
        say(f"{number} responses written: {out}")
        return
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
    """Show where a file comes from: command, settings, and inputs with their checksums."""
    print_result(read_origin(path), as_json, print_origin)
