"""Run the cells of a notebook that give its verdicts, on inputs of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from lalp.paper.verdicts import Verdict, verdict_table

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
HEADING = "## Paper / this run / verdict"


def run_verdict_cells(notebook: str, **names: Any) -> list[Verdict]:
    """What a notebook says on ``names``, which take the place of all that it computes before.

    Args:
        notebook: Its name without suffix.
        names: The values that its cells of verdicts read.
    """
    cells = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells
    heading = next(i for i, cell in enumerate(cells) if cell.source.startswith(HEADING))
    code = [(i, cell.source) for i, cell in enumerate(cells) if cell.cell_type == "code"]
    space: dict[str, Any] = {"PROFILE": "smoke", "SEED": 0}
    exec(next(source for _, source in code if "use_style()" in source), space)
    said: list[Verdict] = []
    space |= {"save_verdicts": lambda verdicts, *place: said.extend(verdicts)} | names
    for i, source in code:
        if i > heading or "Verdict(" in source:
            exec(source, space)
    return said


def verdict_cells_table(notebook: str, **names: Any) -> pd.DataFrame:
    """The same as a table, in the notebook's order."""
    return verdict_table(run_verdict_cells(notebook, **names))
