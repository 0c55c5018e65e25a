"""What the commands of `lalp` share: arguments, options and printing."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalp.errors import InputError

# Imported for types only: torch and transformers take seconds, `lalp check` should not.
if TYPE_CHECKING:
    import pandas as pd


PoolFile = Annotated[
    str, typer.Argument(metavar="POOL", help="JSONL or Parquet, one response a line.")
]
ScoresFile = Annotated[str, typer.Argument(metavar="SCORES", help="Table written by lalp score.")]
StudentName = Annotated[
    str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m (packaged).")
]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="Steps (4), share (25%), tokens (256t), or all; repeatable."),
]
Splitter = Annotated[
    str,
    typer.Option(
        help="How responses are cut into steps: sentences, paragraphs, semantic, 32t (chunks of "
        "that many student tokens), or a steps file (.jsonl)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TrustCode = Annotated[bool, typer.Option(help="Run Python code that comes with the model.")]
Seed = Annotated[int, typer.Option(help="For everything random.")]


def run(app: typer.Typer) -> None:
    """Run a command line: bad input is one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("lalp: %(message)s"))
    logging.getLogger("lalp").addHandler(handler)
    # Bars for reading local weights, and a line for every retry of the hub, say nothing new.
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except InputError as error:
        say(str(error))
        sys.exit(2)
    except OSError as error:
        say(f"{error.filename or 'file'}: {error.strerror or error}")
        sys.exit(2)


def is_main_process() -> bool:
    """Whether this process speaks; accelerate launch numbers them."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    if is_main_process():
        typer.echo(f"lalp: {message}", err=True)


def print(value: Any, as_json: bool, for_people: Any) -> None:
    if as_json:
        typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        for_people()


def _plain(value: Any) -> Any:
    """Values that JSON holds: numpy numbers as numbers, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")
