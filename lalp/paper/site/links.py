"""Links to files of the checkout that are not pages: code has a page, a folder has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.osutil import relative_uri


def link_code(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Point links to the package's Python files at the pages that show them."""
    for link in list(doctree.findall(download_reference)):
        path = Path(link["reftarget"])
        if path.suffix == ".py" and "lalp" in path.parts:
            module = path.parts[path.parts.index("lalp") :]
            page = "/".join(["_modules", *module]).removesuffix(".py")
            uri = relative_uri(app.builder.get_target_uri(docname), f"{page}.html")
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))


def keep_text(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, text: nodes.Node
) -> nodes.Node | None:
    """Replace a link to a folder of the checkout by its text: the site has no page for it."""
    if node.get("reftype") != "myst":
        return None
    place = Path(app.srcdir, node["refdoc"]).parent / node["reftarget"]
    return text if place.is_dir() else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-resolved", link_code)
    app.connect("missing-reference", keep_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
