"""The whole site: built without a warning, every link followed, every page opened in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from lalp.paper.refresh import count_figures
from tests.paper.site.chromium import Browser, chromium, complaints

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
# What a page loads by itself, and what a reader follows.
_LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
# The pages that are walked: all but most lists of names, and most sources.
WALKED = [
    *[f"docs/{path.stem}.html" for path in sorted((ROOT / "docs").glob("*.md"))],
    *[f"notebooks/{path.stem}.html" for path in NOTEBOOKS],
    *[f"docs/api/{path.stem}.html" for path in sorted((ROOT / "docs" / "api").glob("*.md"))],
    *["genindex.html", "search.html", "_modules/lalp/scoring/equations.html"],
]

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The ids, links, pictures and loaded files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.texts: list[str | None] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        self.links += [given["href"]] if tag == "a" and given.get("href") else []
        self.texts += [given.get("alt")] if tag == "img" else []
        if tag in _LOADED and given.get(_LOADED[tag]):
            self.loaded.append(given[_LOADED[tag]])


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site as `make site` builds it, where any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="session")
def pages(site) -> dict[Path, Page]:
    # What lies in _static is the theme's own.
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path.resolve(): Page(path) for path in found}


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or link == "#":
                continue
            place = (path.parent / unquote(target.path)).resolve() if target.path else path
            name, known = unquote(target.fragment), pages.get(place)
            if not place.is_file() or (name and known and name not in known.ids):
                broken.append((path.relative_to(site).as_posix(), link))
    assert broken == []


def test_pages_load_only_what_lies_beside_them(site, pages):
    for path, page in pages.items():
        for loaded in page.loaded:
            target = urlsplit(loaded)
            if loaded == "#":
                continue  # a page names itself
            assert target.scheme in ("", "data"), (path, loaded)
            assert target.scheme or (path.parent / unquote(target.path)).is_file(), (path, loaded)


def test_every_picture_has_a_text(site, pages):
    for path, page in pages.items():
        assert all(page.texts), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_of_a_notebook_names_its_code_and_its_numbers(site, path):
    html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    saved, shown = (sum(numbers) for numbers in zip(*map(count_figures, cells), strict=True))
    captions = [part.partition("</figcaption>")[0] for part in html.split("<figcaption>")[1:]]
    assert len(captions) == shown
    assert all("Picture " in c and "../docs/api/" in c and "plot_" in c for c in captions)
    assert sum(".csv" in c for c in captions) == saved


def test_signatures_of_the_reference_are_python_of_a_readable_length(site):
    unreadable = []
    for path in sorted((site / "docs" / "api").glob("*.html")):
        for html in re.findall(r'<dt class="sig .*?</dt>', path.read_text("utf-8"), re.DOTALL):
            line = unescape(re.sub(r"<[^>]+>", "", html)).strip()
            # Sphinx shows what it cannot read as it stands, with its marks for short names.
            if "~" in line or "<" in line or len(line) > 1000:
                unreadable.append((path.name, line))
    assert unreadable == []


def test_the_first_page_is_found_at_the_root(site):
    assert "docs/index.html" in (site / "index.html").read_text(encoding="utf-8")


# --- in a browser -------------------------------------------------------------------------------


def test_a_broken_page_would_be_noticed(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<h1>x</h1><img src='gone.png'><script src='https://example.invalid/a.js'></script>"
        "<script>console.error('oh'); nowhere()</script>"
    )
    found = json.dumps(complaints(browser.open(page.as_uri())))
    for sign in ("gone.png", "example.invalid", "oh", "nowhere"):
        assert sign in found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", WALKED)
def test_a_page_opens_shows_all_and_fits(browser, site, name, width):
    events = browser.open((site / name).as_uri(), width=width)
    assert complaints(events) == []
    look = browser.measure("look")
    assert look["heading"]
    for alt, natural, drawn in look["images"]:
        assert alt and natural > 0 and 0 < drawn <= width, alt
    assert all(size > 0 for size in look["formulas"])
    assert "$" not in look["prose"] and "\\(" not in look["prose"]
    assert look["overhang"] <= 0
    assert look["clipped"] == []


def test_formulas_are_drawn_as_formulas(browser, site):
    browser.open((site / "docs" / "scoring.html").as_uri())
    look = browser.measure("look")
    assert max(look["formulas"]) > 40  # a sum with its bounds is higher than a line


def test_search_finds_pages_and_functions(browser, site):
    page = (site / "search.html").as_uri()
    events = browser.open(f"{page}?q=window_starts")
    results = "document.querySelector('#search-results').innerText"
    assert "window_starts" in browser.wait_for(
        f"document.querySelector('#search-results li') && {results}"
    )
    assert complaints(events + browser.events) == []


def test_a_reader_can_turn_the_light_off(browser, site):
    browser.open((site / "docs" / "index.html").as_uri())
    for mode in ("dark", "light", "auto"):
        browser.run(f"document.querySelector('.theme-change-button[data-mode={mode}]').click()")
        shown = browser.run("document.documentElement.dataset.theme")
        assert shown == ("light" if mode == "auto" else mode)
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["docs/index", "notebooks/04_selection", "docs/api/scoring"])
def test_text_can_be_read_in_both_schemes(browser, site, name, scheme):
    browser.open((site / f"{name}.html").as_uri(), scheme=scheme)
    assert browser.run("document.documentElement.dataset.theme") == scheme
    faint = {k: round(v, 2) for k, v in browser.measure("contrast").items() if v < 4.5}
    assert faint == {}
