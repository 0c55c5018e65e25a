"""What a reader of any notebook meets first."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_set_up_and_versions_are_folded_and_nothing_else_is(path):
    cells = nbformat.read(path, 4).cells
    folded = {i for i, cell in enumerate(cells) if cell.metadata.get("jupyter")}
    # Whoever brings a pool of their own has parameters to set.
    first = 2 if path.stem == "11_your_pool" else 1
    assert folded == set(range(first, 4))
    for i in folded:
        hidden = cells[i].metadata["jupyter"]
        assert hidden["source_hidden"]
        assert hidden.get("outputs_hidden", False) == bool(cells[i].outputs)
    assert cells[1].metadata["tags"] == ["parameters"]
    assert "use_style()" in cells[2].source
    assert "from importlib.metadata import version" in cells[3].source
