"""The cells in which a notebook states its verdicts, run on made-up values."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lalp.paper.verdicts import Verdict, decide

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def run_verdict_cells(notebook: str, **values: Any) -> list[Verdict]:
    """What the cells below the heading "Paper / this run / verdict" hand to `save_verdicts`.

    Args:
        notebook: Its name without suffix.
        **values: What earlier cells would have left behind.
    """
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    (start,) = (i for i, s in enumerate(sources) if s.startswith("## Paper / this run / verdict"))
    saved: list[Verdict] = []
    keeper = SimpleNamespace(save_verdicts=lambda verdicts, *_: saved.extend(verdicts))
    names = {"Verdict": Verdict, "decide": decide, "champ_pool": keeper, "PROFILE": "smoke"}
    names |= values
    for cell, source in zip(cells[start:], sources[start:], strict=True):
        if cell["cell_type"] == "code":
            exec(source, names)
    return saved
