"""The reference: pages in ``docs/api`` hold a mark, which all modules of a package replace.

``<!-- modules of lalp.scoring, first equations run -->`` names the modules that a reader should
meet first; the others follow by name. ``<!-- commands -->`` becomes the text of ``--help``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from lalp.cli.app import app as commands
from lalp.errors import InputError
from lalp.files import digest, fingerprint

_MARK = re.compile(r"<!-- modules of ([\w.]+)(?:, first ([\w. ]+?))? -->")
# How Python shows a dataclass's `field(default_factory=...)` and typer's annotations.
_FACTORY = "<factory>"
_ANNOTATED = re.compile(r"~\w+(?:\.\w+)*\.Annotated\[([^<>]+), <[^<>]+>\]")
# A longer value is a table, which readers find in the source.
_LONGEST_VALUE = 100
_PACKAGES = Path(__file__).parents[3]


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the mark by the modules before Sphinx reads the page."""
    if docname.startswith("docs/api/"):
        text = _MARK.sub(lambda m: package_text(m[1], (m[2] or "").split()), source[0])
        source[0] = text.replace("<!-- commands -->", command_text())


def package_text(package: str, first: list[str]) -> str:
    """A section for each module of a package with public members."""
    names = modules_of(package)
    if unknown := set(first) - set(names):
        raise InputError(f"the reference of {package} names no module of it: {sorted(unknown)}")
    order = [*first, *sorted(set(names) - set(first))]
    return "\n".join(_section(f"{package}.{name}", name) for name in order)


def modules_of(package: str) -> list[str]:
    """The package's own modules (not those of packages in it) that define something public."""
    folder = _PACKAGES.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if _is_public(path))


def _is_public(path: Path) -> bool:
    """Whether a module defines a function or a class for others."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    named = [node.name for node in body if isinstance(node, kinds)]
    return not path.stem.startswith("__") and any(not name.startswith("_") for name in named)


def _section(module: str, name: str) -> str:
    directive = f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
    return f"## {name}\n\n{directive}"


def command_text() -> str:
    """The help of every command, as Markdown."""
    command = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="lalp")
    # The page has a title already.
    return text.partition("\n")[2]


def readable_signature(app: Sphinx, *about: Any) -> tuple[str, str] | None:
    """A signature in Python; Sphinx shows any other as it is, with its own marks."""
    signature, returned = about[-2:]
    if signature is None:
        return None
    return _ANNOTATED.sub(r"\1", signature).replace(_FACTORY, "..."), returned


def shorten_values(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out values of constants that would fill a page."""
    for note in doctree.findall(desc_annotation):
        if note.astext().startswith(" = ") and len(note.astext()) > _LONGEST_VALUE:
            note.children = [nodes.Text(" = ...")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("doctree-read", shorten_values)
    # Pages are read again if a module came or went, or if the site's additions to Sphinx changed.
    modules = [path.as_posix() for path in sorted(_PACKAGES.joinpath("lalp").rglob("*.py"))]
    app.add_config_value("lalp_code", digest([modules, fingerprint("paper.site")]), "env")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
