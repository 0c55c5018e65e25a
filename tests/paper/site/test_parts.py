"""What the site adds to Sphinx, part by part: figures, notebooks, the reference."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sphinx.addnodes import desc_annotation

from lalp.errors import InputError
from lalp.paper.refresh import count_figures
from lalp.paper.site.figures import drawn_figures, figure_words, imported_modules, words_of
from lalp.paper.site.notebooks import prepare
from lalp.paper.site.reference import (
    command_text,
    modules_of,
    package_text,
    readable_signature,
    shorten_values,
)

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PICTURE = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
IMPORTS = "%matplotlib inline\nfrom lalp.paper.world import plots\nfrom lalp.paper import figures"


def text(words: str):
    return new_output("stream", name="stdout", text=words)


def code(source: str, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def shown(cell) -> list[str]:
    return [output.get("text", "picture") for output in cell.outputs]


# --- figures ------------------------------------------------------------------------------------


def drawn_in(path: Path) -> list:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    imports = imported_modules(cells)
    return [(cell, drawn_figures(cell, path.stem, imports)) for cell in cells]


def test_every_figure_has_words_and_no_words_are_left_over():
    drawn = [one for path in NOTEBOOKS for _, found in drawn_in(path) for one in found]
    assert {one.name for one in drawn} == set(figure_words())
    saved = {path.stem for path in (ROOT / "figures").glob("*.png")}
    assert {one.name for one in drawn if one.is_saved} == saved


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_of_a_notebook_are_those_that_its_cells_draw(path):
    for cell, drawn in drawn_in(path):
        assert len(drawn) == count_figures(cell)[1]


def test_words_are_sentences_for_people_who_see_and_who_do_not():
    for name, words in figure_words().items():
        assert words["caption"].endswith("."), name
        assert words["alt"].endswith(".") and words["alt"] != words["caption"], name
        assert len(words["alt"]) > 60, name


def test_a_figure_without_words_has_its_functions_first_line():
    imports = {"plots": "lalp.paper.champ.champ", "own": "lalp.paper.selection.plots"}
    cell = code('f = own.plot_pool(t)\nfigures.save_figure(f, "new", t, PROFILE)')
    (drawn,) = drawn_figures(cell, "00_pool", imports)
    assert drawn.name == "new" and drawn.function == "lalp.paper.selection.plots.plot_pool"
    assert words_of(drawn)["alt"] == "Responses, lengths and step counts per teacher."


def test_a_function_of_an_unknown_module_is_refused():
    with pytest.raises(InputError, match=r"00_pool: pyplot\.plot_date is called, and pyplot"):
        drawn_figures(code("pyplot.plot_date(x)"), "00_pool", {})


# --- notebooks ----------------------------------------------------------------------------------


def test_each_picture_gets_a_cell_with_its_own_words_and_nothing_is_lost():
    source = (
        'a = plots.plot_world_copying(t)\nfigures.save_figure(a, "world_copying", t, PROFILE)\n'
        'b = plots.plot_world_map(t)\nfigures.save_figure(b, "world_map", t, PROFILE)'
    )
    cell = code(source, text("before"), PICTURE, PICTURE, text("after"), text("last"))
    cells = prepare(new_notebook(cells=[code(IMPORTS), cell]), "08_step_world").cells[1:]
    assert [shown(c) for c in cells] == [["before"], ["picture"], ["picture"], ["after", "last"]]
    # MyST-NB leaves out cells without a source.
    assert cells[0].source == source and all(c.source for c in cells)
    assert ["remove-input" in c.metadata.get("tags", []) for c in cells] == [False, *[True] * 3]
    names = [c.metadata.get("mystnb", {}).get("figure", {}).get("name") for c in cells]
    assert names == [None, "picture-world_copying", "picture-world_map", None]
    caption = cells[2].metadata["mystnb"]["figure"]["caption"]
    assert "{py:obj}`~lalp.paper.world.plots.plot_world_map`" in caption
    assert "[world_map.csv](../figures/world_map.csv)" in caption
    assert cells[2].metadata["mystnb"]["image"]["alt"] == figure_words()["world_map"]["alt"]


def test_a_notebook_without_pictures_stays_as_it_is():
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), code("1 + 1", text("2"))])
    assert prepare(notebook.copy(), "x") == notebook


def test_what_is_folded_in_jupyterlab_is_folded():
    folded = code("PROFILE = 1", jupyter={"source_hidden": True}, tags=["parameters"])
    hidden = code("1", text("1"), jupyter={"outputs_hidden": True})
    cells = prepare(new_notebook(cells=[folded, hidden]), "x").cells
    assert [c.metadata["tags"] for c in cells] == [["parameters", "hide-input"], ["hide-output"]]


# --- the reference ------------------------------------------------------------------------------


def test_modules_come_in_the_order_that_a_page_gives_then_by_name():
    text = package_text("lalp.scoring", ["run", "equations"])
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles[:2] == ["run", "equations"]
    assert titles[2:] == sorted(set(modules_of("lalp.scoring")) - {"run", "equations"})
    assert "engine" not in titles and "__init__" not in titles
    with pytest.raises(InputError, match="reruns"):
        package_text("lalp.scoring", ["reruns"])


def test_every_package_has_its_place_in_the_reference():
    pages = "".join(p.read_text("utf-8") for p in (ROOT / "docs" / "api").glob("*.md"))
    folders = {path.parent for path in (ROOT / "lalp").rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    # The command line has a page of its own, made from what it says of itself.
    missing = [
        name
        for name in packages
        if modules_of(name) and name != "lalp.cli" and f"modules of {name} -->" not in pages
        if f"modules of {name}," not in pages
    ]
    assert missing == []


def test_a_signature_that_is_no_python_becomes_python():
    def read(signature):
        return readable_signature(None, "class", "x.X", None, {}, signature, "int")

    assert read("(a: ~typing.Any = <factory>)") == ("(a: ~typing.Any = ...)", "int")
    annotated = "~pathlib.Annotated[~pathlib.Path, <typer.models.ArgumentInfo object at 0x7f86>]"
    assert read(f"(a: {annotated}, b: int)") == ("(a: ~pathlib.Path, b: int)", "int")
    assert read("(a: int = 1)") == ("(a: int = 1)", "int")
    assert read(None) is None  # Sphinx's own: a module, or a property


def test_a_long_value_is_left_out_and_a_short_one_stays():
    page = new_document("page")
    for value in (" = 7", " = {" + "1: 2, " * 50 + "}", ": dict[str, " + "x" * 200 + "]"):
        page += desc_annotation("", "", nodes.Text(value))
    shorten_values(None, page)
    texts = [note.astext() for note in page.children]
    assert texts[:2] == [" = 7", " = ..."] and len(texts[2]) > 200  # a type is no value


def test_every_page_is_in_a_table_of_contents():
    for folder in ("docs", "docs/api"):
        pages = sorted((ROOT / folder).glob("*.md"))
        listed = "".join(page.read_text("utf-8") for page in pages).splitlines()
        named = {line.strip().removeprefix("api/") for line in listed}
        assert [p.stem for p in pages if p.stem != "index" and p.stem not in named] == []


def test_the_page_on_commands_has_every_command():
    text = command_text()
    for name in ("check", "score", "teachers", "select", "export llamafactory"):
        assert f"`lalp {name}`" in text
