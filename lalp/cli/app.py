"""The `lalp` command: a thin shell over the functions of the package.

Exit codes: 0 done, 2 bad input. Results go to standard output, messages to standard error.
"""

from typer import Typer

from lalp.cli import models, pools, scores
from lalp.cli.options import run

app = Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which reasoning traces teach a student best? Score, rank teachers, select.",
)
for part in (pools, scores, models):
    app.add_typer(part.app)


def main() -> None:
    """Entry point of `lalp`."""
    run(app)
