"""The executed notebooks as static pages with an index (`make site`), for readers without Jupyter.

``python -m lalp.paper.site`` writes one page per notebook and ``index.html`` into ``build/site``.
Every page is one file that needs nothing else: style, figures and the font for formulas are inside,
formulas are MathML, which browsers draw themselves, and there is no script. A content security
policy keeps it so.
"""

from __future__ import annotations

import base64
import io
import os
import pkgutil
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from html import unescape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import jinja2
import pandas as pd
from fontTools import subset
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from typer import Option

from lalp import paper
from lalp.cli.options import run_main
from lalp.errors import InputError
from lalp.files import cache_dir, write_text
from lalp.paper import figures as paper_figures
from lalp.paper import root_dir
from lalp.paper.refresh import read_notebook, tagged_cells
from lalp.paper.verdicts import VERDICTS
from lalp.pools.pool import located

_MATHML = "http://www.w3.org/1998/Math/MathML"
# What these elements must hold; latex2mathml leaves parts out where braces are not closed.
_NUM_PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2}
_NUM_PARTS |= {"msubsup": 3, "munderover": 3}
# Browsers draw a variable x as the character for an italic x: Latin, Greek, and Planck's h.
_ITALICS = (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E)
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("site_templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Shape and word say what the colour says.
_MARKS = dict(zip(VERDICTS, "●✖◆■–", strict=True))


@dataclass(frozen=True)
class Page:
    """One notebook as a page: where it goes, what it is called, what it asks, and its HTML."""

    name: str
    title: str
    question: str
    body: str


def build_site(notebooks: Sequence[Path], figures: Path, target: Path) -> list[Path]:
    """Write a page for each executed notebook, and an index; returns the files, the index first.

    The index shows ``overview.png`` and ``overview.csv`` of ``figures`` if they have been made.
    Pages of notebooks that are gone are removed from ``target``.
    """
    if not notebooks:
        raise InputError("no notebooks to make pages of")
    names = [path.stem for path in notebooks]
    pages = [_read_page(path, names) for path in notebooks]
    style = _style(pages)
    written = {"index.html": _index(pages, figures, style)}
    template = _TEMPLATES.get_template("page.html.j2")
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        values = {"page": page, "style": style, "before": before, "after": after}
        written[f"{page.name}.html"] = template.render(values)
    for old in target.glob("*.html"):
        if old.name not in written:
            old.unlink()
    for name, html in written.items():
        write_text(target / name, html)
    return [target / name for name in written]


def choose_notebooks(root: Path, profile: str) -> list[Path]:
    """The executed notebooks of a profile; for the default one also committed copies.

    Of a notebook's two copies the newer one counts: `make all` writes the one, `git` the other.
    InputError if there are none.
    """
    committed = {path.name: path for path in (root / "notebooks").glob("[0-9]*.ipynb")}
    executed = (root / "build" / profile / "notebooks").glob("*.ipynb")
    found = list(committed.values()) if profile == "cpu" else []
    found += [path for path in executed if path.name in committed]
    newest = {path.name: path for path in sorted(found, key=lambda path: path.stat().st_mtime)}
    if not newest:
        raise InputError(
            f"no executed notebooks of profile {profile!r}: run `make all PROFILE={profile}` first"
        )
    return [newest[name] for name in sorted(newest)]


# --- a notebook's page ------------------------------------------------------------------------


def _read_page(path: Path, names: Collection[str]) -> Page:
    """A notebook's page; links to the notebooks of ``names`` lead to their pages."""
    notebook = read_notebook(path)
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title = re.match(r"#\s*(.+)", text)
    question = re.search(r"\*\*Question\.\*\*\s*(.+)", text)
    _leave_out(notebook)
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"markdown2html": lambda source: render_markdown(source, names)},
    )
    with located(path.name):
        return Page(
            path.stem,
            title[1].strip() if title else path.stem,
            render_markdown(question[1], names) if question else "",
            exporter.from_notebook_node(notebook)[0],
        )


def _leave_out(notebook: NotebookNode) -> None:
    """Take out papermill's additions and standard error, and give figures a text."""
    own = {
        line for cell in tagged_cells(notebook, "parameters") for line in cell.source.split("\n")
    }
    for cell in tagged_cells(notebook, "injected-parameters"):
        # They stay where they tell the reader of another profile.
        if own | {"# Parameters", ""} >= {*cell.source.split("\n")}:
            notebook.cells.remove(cell)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            _describe_images(cell)


@cache
def _plot_titles() -> dict[str, str]:
    """What each function that draws a figure shows, by its name."""
    names = [each.name for each in pkgutil.walk_packages(paper.__path__, "lalp.paper.")]
    modules = [import_module(name) for name in names if name.endswith(("plots", "figure"))]
    members = (pair for module in modules for pair in vars(module).items())
    return {n: (m.__doc__ or "").partition("\n")[0] for n, m in members if n.startswith("plot_")}


def _describe_images(cell: NotebookNode) -> None:
    """Give the cell's figures a text for readers who do not see them: its name, what it plots."""
    saved = re.search(r"save_figure\(\s*[\w.]+,\s*\"(\w+)\"", cell.source)
    plotted = re.search(r"\b(plot_\w+)\(", cell.source)
    name = saved[1].replace("_", " ") if saved else ""
    title = _plot_titles().get(plotted[1], "") if plotted else ""
    text = ": ".join(filter(None, [name, title])) or f"figure of cell {cell.execution_count}"
    for output in cell.outputs:
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = text


# --- Markdown and formulas --------------------------------------------------------------------


class _Renderer(IPythonRenderer):
    """Markdown to HTML: formulas become MathML, links to notebooks lead to their pages."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(escape=False, anchor_link_text="#")
        self.names = names

    def inline_math(self, body: str) -> str:
        """A formula within a line."""
        return to_mathml(body)

    def block_math(self, body: str) -> str:
        """A formula of its own, which scrolls where the page is narrow."""
        return f'<span class="equation">{to_mathml(body, display="block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        r"""A formula as ``\begin{name} ... \end{name}``."""
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; where it leads to a file that the site does not have, its text alone."""
        if re.match(r"https?://|mailto:|#", url):
            return super().link(text, url, title)
        name, _, place = url.partition("#")
        if Path(name).suffix == ".ipynb" and Path(name).stem in self.names:
            page = f"{Path(name).stem}.html"
            return super().link(text, f"{page}#{place}" if place else page, title)
        return text


def render_markdown(source: str, names: Collection[str] = ()) -> str:
    """Markdown as HTML, with formulas as MathML."""
    return MarkdownWithMath(renderer=_Renderer(names)).render(source)


def to_mathml(latex: str, display: str = "inline") -> str:
    """A formula as MathML; InputError if it has an unknown command, or is not complete."""
    try:
        root = ET.fromstring(convert(latex, display=display))
    except Exception as error:  # what latex2mathml raises on bad formulas is anything
        raise InputError(f"cannot read the formula {latex!r}") from error
    for element in root.iter():
        if "\\" in (element.text or ""):
            raise InputError(f"cannot read the formula {latex!r}: {element.text} is not known")
        name = element.tag.rpartition("}")[2]
        if len(element) != _NUM_PARTS.get(name, len(element)):
            raise InputError(f"cannot read the formula {latex!r}: it is not complete")
    _space_functions(root)
    ET.register_namespace("", _MATHML)
    return ET.tostring(root, encoding="unicode")


def _space_functions(root: ET.Element) -> None:
    """Put a thin space between a function's name and what stands beside it, as TeX does."""
    for row in list(root.iter(f"{{{_MATHML}}}mrow")):
        spaced: list[ET.Element] = []
        for element in row:
            beside = [*spaced[-1:], element]
            # Operators and parentheses have room of their own.
            has_room = any(each.tag.endswith(("}mo", "}mspace")) for each in beside)
            if len(beside) == 2 and any(map(_is_function, beside)) and not has_room:
                spaced.append(ET.Element(f"{{{_MATHML}}}mspace", width="0.167em"))
            spaced.append(element)
        row[:] = spaced


def _is_function(element: ET.Element) -> bool:
    """Whether it is a name such as log or max, with or without bounds."""
    name = element if element.tag.endswith("}mi") or not len(element) else element[0]
    return name.tag.endswith("}mi") and re.fullmatch("[a-z]{2,}", name.text or "") is not None


# --- the index --------------------------------------------------------------------------------


def _index(pages: Sequence[Page], figures: Path, style: str) -> str:
    picture, table = figures / "overview.png", figures / "overview.csv"
    verdicts, image = pd.DataFrame(columns=["notebook", "verdict"]), ""
    if picture.is_file() and table.is_file():
        verdicts = pd.read_csv(table, keep_default_na=False)
        image = base64.b64encode(picture.read_bytes()).decode("ascii")
    claims = {name: rows.to_dict("records") for name, rows in verdicts.groupby("notebook")}
    known = verdicts["verdict"].value_counts()
    counts = {verdict: known[verdict] for verdict in _MARKS if verdict in known}
    values = {"pages": pages, "claims": claims, "counts": counts, "marks": _MARKS}
    return _TEMPLATES.get_template("index.html.j2").render(**values, image=image, style=style)


def _style(pages: Sequence[Page]) -> str:
    """The pages' style sheet: the font for formulas, and code in light and in dark colours."""
    text = "".join(page.question + page.body for page in pages)
    formulas = unescape(re.sub("<.*?>", "", "".join(re.findall("<math.*?</math>", text))))
    font = base64.b64encode(_math_font(formulas)).decode("ascii")
    own = Path(__file__).with_name("site_templates").joinpath("style.css").read_text("utf-8")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return (
        f'@font-face {{ font-family: "Formulas"; src: url(data:font/woff;base64,{font}); }}\n'
        f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"
    )


def _math_font(formulas: str) -> bytes:
    """STIX Two Math (SIL Open Font License) as WOFF, cut down to what the formulas use.

    Without a font made for it a browser draws large operators small and their bounds over them, and
    many machines have none. The file is the one that ``ziamath`` packs; its code is not used.
    """
    package = find_spec("ziamath")
    if package is None or not package.submodule_search_locations:
        raise InputError("the font for formulas is missing: pip install --no-deps ziamath==0.13")
    path = Path(package.submodule_search_locations[0], "fonts", "STIXTwoMath-Regular.ttf")
    options = subset.Options(flavor="woff", hinting=False, layout_features=[])
    font = subset.load_font(str(path), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[*map(ord, formulas), *_ITALICS])
    cutter.subset(font)
    written = io.BytesIO()
    subset.save_font(font, written, options)
    return written.getvalue()


def main(profile: Annotated[str, Option(help="The run to show.")] = "cpu") -> None:
    """Write the executed notebooks as static pages."""
    root, figures = root_dir(), paper_figures.figures_dir(profile)
    notebooks = choose_notebooks(root, profile)
    pages = build_site(notebooks, figures, cache_dir() / "site")
    for path in notebooks:
        print(path.relative_to(root).as_posix())
    if not (figures / "overview.png").is_file():
        print("no overview yet: 09_paper_vs_run has not run")
    print(f"{len(pages)} pages; open {os.path.relpath(pages[0], root)}")


if __name__ == "__main__":
    run_main(main)
