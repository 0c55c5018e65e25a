"""The committed notebooks as Sphinx reads them: figures have words, folded cells stay folded.

Nothing is written: a notebook is changed on its way from the file to Sphinx.
"""

from __future__ import annotations

import re
from typing import Any

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx

from lalp.paper.site.figures import Drawn, drawn_figures, imported_modules, words_of

# How JupyterLab folds a part of a cell, and how MyST-NB does.
_FOLDED = {"source_hidden": "hide-input", "outputs_hidden": "hide-output"}
# The hidden source of a cell that continues another one: MyST-NB skips empty cells.
_SAME = "# the same cell"


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Prepare the text of a notebook, before Sphinx reads it."""
    if docname.startswith("notebooks/"):
        notebook = nbformat.reads(source[0], as_version=4)
        source[0] = nbformat.writes(prepare(notebook, docname.rpartition("/")[2]))


def prepare(notebook: NotebookNode, name: str) -> NotebookNode:
    """A notebook with words and links for its figures, each in its own cell."""
    imports = imported_modules([c for c in notebook.cells if c.cell_type == "code"])
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _fold(cell)
            _link_pages(cell)
            cells += _with_words(cell, drawn_figures(cell, name, imports))
        else:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def _fold(cell: NotebookNode) -> None:
    """Fold what the author has folded in JupyterLab."""
    hidden = cell.metadata.get("jupyter", {})
    tags = [tag for key, tag in _FOLDED.items() if hidden.get(key)]
    if tags:
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), *tags]


def _link_pages(cell: NotebookNode) -> None:
    """Point links of a table from notebooks to their pages."""
    for output in cell.outputs:
        if written := output.get("data", {}).get("text/html"):
            output.data["text/html"] = re.sub(r'(href="\w+)\.ipynb"', r'\1.html"', written)


def _with_words(cell: NotebookNode, figures: list[Drawn]) -> list[NotebookNode]:
    """Cells with one figure each, because MyST-NB gives one caption to all output of a cell."""
    parts = _parts(cell.outputs)
    cells = [cell]
    for number, part in enumerate(parts[1:], 1):
        about = {"id": f"{cell.id}-{number}", "metadata": {"tags": ["remove-input"]}}
        cells.append(nbformat.v4.new_code_cell(_SAME, outputs=part, **about))
    cell.outputs = parts[0] if parts else []
    pictured = [one for one in cells if any(map(_is_picture, one.outputs))]
    for one, drawn in zip(pictured, figures, strict=False):
        one.metadata["mystnb"] = _options(drawn)
    return cells


def _parts(outputs: list[NotebookNode]) -> list[list[NotebookNode]]:
    """Outputs in their order: each picture alone, and outputs between pictures together."""
    parts: list[list[NotebookNode]] = []
    for before, output in zip([None, *outputs], outputs, strict=False):
        if before is None or _is_picture(before) or _is_picture(output):
            parts.append([])
        parts[-1].append(output)
    return parts


def _is_picture(output: NotebookNode) -> bool:
    return "image/png" in output.get("data", {})


def _options(drawn: Drawn) -> dict[str, Any]:
    """MyST-NB's options for a figure: its words, its name, and its source."""
    words = words_of(drawn)
    says = [words["caption"], f"Drawn by {{py:obj}}`~{drawn.function}`"]
    if drawn.is_saved:
        says[1] += f"; the numbers: [{drawn.name}.csv](../figures/{drawn.name}.csv)"
    caption = " ".join(says) + "."
    return {"image": {"alt": words["alt"]}, "figure": {"caption": caption, "name": drawn.label}}


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
