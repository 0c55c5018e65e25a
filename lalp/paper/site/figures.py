"""Figures of the site: their words, and links to the notebook and the code that draw them.

A picture of ``figures/`` that a page of ``docs/`` shows becomes a figure with these links too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from docutils import nodes
from nbformat import NotebookNode
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from lalp.errors import InputError

_WORDS = Path(__file__).with_name("figures.yaml")


@dataclass(frozen=True)
class Drawn:
    """One figure of a notebook: its name, and the function that draws it."""

    name: str
    function: str  # Where it is defined, such as `lalp.paper.champ.plots.plot_pool`
    is_saved: bool = True

    @property
    def label(self) -> str:
        """Its name in cross references."""
        return f"picture-{self.name}".replace("/", "-")


@cache
def figure_words() -> dict[str, dict[str, str]]:
    """The ``caption`` and the ``alt`` text of every figure, by its name."""
    words: dict[str, dict[str, str]] = yaml.safe_load(_WORDS.read_text(encoding="utf-8"))
    for name, entry in words.items():
        if set(entry) != {"caption", "alt"}:
            raise InputError(f"{_WORDS.name}: {name}: needs a caption and an alt, and nothing else")
    return words


def words_of(drawn: Drawn) -> dict[str, str]:
    """Caption and alternative text; those of the function if the figure has none yet."""
    module, _, function = drawn.function.rpartition(".")
    says = getattr(import_module(module), function).__doc__ or drawn.name
    first = says.partition("\n")[0]
    return figure_words().get(drawn.name, {"caption": first, "alt": first})


def drawn_figures(cell: NotebookNode, notebook: str, imports: dict[str, str]) -> list[Drawn]:
    """The figures that a cell draws with ``plot_*`` functions, in their order.

    Args:
        cell: A code cell.
        notebook: The notebook's name without suffix.
        imports: Modules by the names under which the notebook imports them.
    """
    found = []
    calls = re.findall(r"\b(\w+)\.(plot_\w+)\(", cell.source)
    saved = re.findall(r"\bsave_figure\(\s*[\w.]+,\s*\"(\w+)\"", cell.source)
    for place, (module, function) in enumerate(calls):
        if module not in imports:
            raise InputError(f"{notebook}: {module}.{function} is called, and {module} is unknown")
        home = getattr(import_module(imports[module]), function)
        name = saved[place] if place < len(saved) else f"{notebook}/{function}"
        where = f"{home.__module__}.{home.__qualname__}"
        found.append(Drawn(name, where, is_saved=place < len(saved)))
    return found


def imported_modules(cells: Sequence[NotebookNode]) -> dict[str, str]:
    """The project's modules by the names under which a notebook's cells import them."""
    found = {}
    for cell in cells:
        for node in ast.walk(_tree(cell.source)):
            if isinstance(node, ast.Import):
                found |= {name.asname or name.name: name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {n.asname or n.name: f"{node.module}.{n.name}" for n in node.names}
    return {name: module for name, module in found.items() if module.split(".")[0] == "lalp"}


def _tree(source: str) -> ast.AST:
    """The Python code of a cell, without IPython's own lines; nothing if it is not Python."""
    try:
        return ast.parse(re.sub(r"(?m)^[%!].*$", "", source))
    except SyntaxError:
        return ast.Module([], [])


# --- pictures in pages of docs/ -----------------------------------------------------------------


def frame_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Turn every picture of ``figures/`` on a page into a figure with its words and links."""
    for image in list(doctree.findall(nodes.image)):
        path = PurePosixPath(image["uri"])
        if path.parent.name != "figures" or isinstance(image.parent, nodes.figure):
            continue
        if path.stem not in figure_words():
            raise InputError(f"{_WORDS.name} has no words for {path.name}")
        image["alt"] = figure_words()[path.stem]["alt"]
        paragraph = image.parent
        paragraph.parent.replace(paragraph, _figure(image, path.stem, app.env.docname))


def _figure(image: nodes.image, name: str, docname: str) -> nodes.figure:
    """A figure of a page: it has no number itself, but names the notebook's."""
    link = pending_xref(
        "",
        nodes.inline(text="%s", classes=["xref", "std", "std-numref"]),
        refdomain="std",
        reftype="numref",
        reftarget=f"picture-{name}",
        refdoc=docname,
        refexplicit=False,
        refwarn=True,
    )
    words = figure_words()[name]["caption"]
    caption = nodes.caption("", "", nodes.Text(f"{words} "), link, nodes.Text(": how it is drawn."))
    return nodes.figure("", image.deepcopy(), caption)


def name_pictures(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give the figures of a page the ids that HTML needs.

    Only now: a figure with an earlier id gets a number, but the notebook's figure has it already.
    """
    for figure in doctree.findall(nodes.figure):
        if not figure["ids"]:
            image = next(figure.findall(nodes.image))
            figure["ids"] = [f"shown-{PurePosixPath(image['uri']).stem}"]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    # Before Sphinx collects images, so that it finds them in their figures.
    app.connect("doctree-read", frame_pictures, priority=100)
    app.connect("doctree-resolved", name_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
