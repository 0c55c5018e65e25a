"""The command on caches: list or remove what is kept between runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from typer import Argument, Option, Typer, echo

from lalp.caches import KINDS, Kept, clear_caches, list_caches
from lalp.cli import options
from lalp.cli.printing import print_result, say
from lalp.files import cache_dir

app = Typer()

_KINDS = f"{', '.join(KINDS)}; all if none is given."


@app.command()
def cache(
    kinds: Annotated[list[str] | None, Argument(metavar="[KIND]...", help=_KINDS)] = None,
    clear: Annotated[bool, Option("--clear", help="Remove them, except those in use.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List what is kept between runs and where, or remove it."""
    kept, left = clear_caches(kinds or ()) if clear else (list_caches(kinds or ()), [])
    size = sum(one.size for one in kept)
    result = {"folder": str(cache_dir()), "cleared": clear, "size": size}
    result |= {"kinds": [asdict(one) for one in kept], "in_use": [str(path) for path in left]}
    print_result(result, as_json, lambda _: _print_kept(kept, size, clear))
    for path in left:
        say(f"{path}: a process uses it, it stays")


def _print_kept(kept: list[Kept], size: int, cleared: bool) -> None:
    for one in kept:
        day = f"last used {one.last_use}" if one.last_use else ""
        echo(f"{one.kind:<12}{one.number:>8,}{_mebibytes(one.size):>14}  {day}".rstrip())
    echo(f"{_mebibytes(size)} {'freed' if cleared else 'kept'} in {cache_dir()}")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
