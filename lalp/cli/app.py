"""The `lalp` command: a thin shell over the functions of the package.

Exit code 0 means success, and 2 means bad input. Results go to standard output, messages to
standard error.
"""

from typing import Annotated

from typer import Exit, Option, Typer, echo

from lalp import __version__
from lalp.cli import caches, models, pools, scores
from lalp.cli.options import run

app = Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which reasoning traces teach a student best? Score, rank teachers, select.",
)
for part in (pools, scores, models, caches):
    app.add_typer(part.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"lalp {__version__}")
        raise Exit


_VERSION = Option("--version", callback=_print_version, is_eager=True, help="Print the version.")


@app.callback()
def _options(version: Annotated[bool, _VERSION] = False) -> None:
    pass


def main() -> None:
    """Entry point of `lalp`."""
    run(app)
