"""What a reader of a notebook is told in words agrees with what the notebook found."""

from __future__ import annotations

import re
from functools import cache

import nbformat
import pandas as pd
import pytest

from lalp.paper import root_dir
from tests.paper.test_notebooks import NOTEBOOKS

VERDICTS = {
    "Holds.": "holds",
    "Does not hold.": "does not hold",
    "Not resolved.": "not resolved",
    "Not testable.": "not testable at this scale",
    "Not run.": "not run",
}
# It is on a reader's own pool: what it says in short it computes, or that would be false there.
OWN = "11_your_pool"
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def claims() -> pd.DataFrame:
    """The committed verdicts of all notebooks."""
    return pd.read_csv(root_dir() / "figures" / "overview.csv", keep_default_na=False)


def numbers(text: str) -> set[str]:
    """Numbers of a text without signs, names of columns, links, years of citations."""
    plain = re.sub(r"\]\([^)]*\)|`[^`]*`|\$[^$]*\$", " ", text)
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w])", plain))


def in_short(path) -> list[str]:
    """The sentences under *In short*, each with what its lines continue."""
    first = nbformat.read(path, 4).cells[0].source
    block = first.partition("**In short**")[2].partition("\n\n**")[0]
    return [" ".join(item.split()) for item in re.split(r"^- ", block, flags=re.M)[1:]]


def outputs(path) -> str:
    """All that a notebook prints or shows as text."""
    cells = nbformat.read(path, 4).cells
    found = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) for o in found]
    return " ".join(texts + [str(o.get("data", {}).get("text/html", "")) for o in found])


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem != OWN], ids=lambda path: path.stem
)
def test_the_first_cell_says_what_was_found_and_its_numbers_are_those_of_a_verdict(path):
    sentences = in_short(path)
    assert len(sentences) == 3
    own = claims() if path.stem == "09_paper_vs_run" else claims().query("notebook == @path.stem")
    for sentence in sentences:
        found = re.match(r"\*\*([^*]+)\*\*", sentence)
        if found and found[1] in VERDICTS:
            of_kind = own[own["verdict"] == VERDICTS[found[1]]]
            told = of_kind[["claim", "paper", "run", "why"]].agg(" ".join, axis=1)
        else:
            told = pd.Series([outputs(path)])
        assert any(numbers(sentence) <= numbers(text) for text in told), sentence


def test_the_notebook_on_a_reader_s_own_pool_computes_what_it_says_first():
    (path,) = [path for path in NOTEBOOKS if path.stem == OWN]
    cells = nbformat.read(path, 4).cells
    headings = [c for c in cells[1:] if c.source.startswith("#") and c.cell_type == "markdown"]
    assert headings[0].source.startswith("## In short")
    computed = cells[cells.index(headings[0]) + 1]
    (shown,) = [output["data"]["text/html"] for output in computed.outputs]
    assert len(re.findall(r"<li><b>\w+\.</b> [^<]+\.</li>", shown)) == 3
    assert not numbers(" ".join(c.source for c in headings[:1]))


@every_notebook
def test_after_every_figure_a_sentence_says_what_it_shows(path):
    cells = nbformat.read(path, 4).cells
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert following is not None
            assert following.cell_type == "markdown", cell.id
            assert not following.source.startswith("#"), cell.id


@every_notebook
def test_a_notebook_leads_on_by_links(path):
    if path.stem == "11_your_pool":
        pytest.skip(
            "it is also run on a reader's own pool, outside the checkout: no link holds there"
        )
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]
    assert len(re.findall(r"\]\([^)]+\)", "\n".join(cells))) >= 3
