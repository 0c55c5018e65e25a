"""Run the cells of a notebook that give its verdicts, on inputs of a test's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lalp.paper.verdicts import Verdict

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def run_verdict_cells(notebook: str, **names: Any) -> list[Verdict]:
    """What a notebook says on ``names``, which take the place of all that it computes before.

    Args:
        notebook: Its name without suffix.
        names: The values that its cells of verdicts read.
    """
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    space: dict[str, Any] = {"PROFILE": "smoke", "SEED": 0}
    exec(next(source for source in sources if "use_style()" in source), space)
    said: list[Verdict] = []
    keep = SimpleNamespace(save_verdicts=lambda verdicts, *place: said.extend(verdicts))
    space |= {"pool": keep, "champ_pool": keep} | names
    for source in sources:
        if "Verdict(" in source or "save_verdicts(" in source:
            exec(source, space)
    return said
