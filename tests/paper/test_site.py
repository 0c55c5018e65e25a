"""The static pages: what is written, and what a reader's browser makes of it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
import websocket
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lalp.errors import InputError
from lalp.paper.refresh import count_figures
from lalp.paper.site import build_site, choose_notebooks, main, render_markdown, to_mathml

ROOT = Path(__file__).resolve().parents[2]
# A picture of 3 x 2 pixels.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAEUlEQVR4nGP4//8/AwMDhAIAJ9gE/CoMo4kAAAAA"
    "SUVORK5CYII="
)
FORMULA = r"$$\mathrm{S}_w(y) = \frac{1}{K} \sum_{k=1}^{K} \log p\big(s_k \mid x, s_{<k}\big)$$"


def shown(count: int, **data: str):
    return new_output("execute_result", data, execution_count=count)


def write_notebook(path: Path, *cells, title: str = "# 00 The pool") -> Path:
    question = "**Question.** Which of $a$ and `b` is it?"
    first = new_markdown_cell(f"{title}\n\n{question}\n\n| | |\n|---|---|\n| Paper | Sec. 1 |")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[first, *cells]), str(path))
    return path


def code(source: str, count: int, *outputs, tags=()):
    options = {"metadata": {"tags": list(tags)}, "outputs": list(outputs)}
    return new_code_cell(source, execution_count=count, **options)


@pytest.fixture
def pair(tmp_path) -> list[Path]:
    """Two small notebooks that link to each other."""
    warning = new_output("stream", name="stderr", text="Warning: /somewhere/else.py:1")
    picture = new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})
    first = write_notebook(
        tmp_path / "00_pool.ipynb",
        code('PROFILE = "cpu"\nSEED = 0', 1, tags=["parameters"]),
        code('# Parameters\nPROFILE = "cpu"\n', 2, tags=["injected-parameters"]),
        new_markdown_cell(
            f"## A part\n\n{FORMULA}\n\nSee [selection](04_selection.ipynb#a-part), "
            "[the code](../lalp/scoring/windows.py), "
            "[the paper](https://arxiv.org/abs/2510.03988), costs \\$5 and `$x`."
        ),
        code(
            "figure = plotting.plot_pool(lengths)\n"
            '_ = plotting.save_figure(figure, "pool_sizes", table, PROFILE)',
            *(3, warning, picture),
        ),
    )
    table = {"text/html": "<table><tr><th>a_b</th><td>$5 & more</td></tr></table>"}
    second = write_notebook(
        tmp_path / "04_selection.ipynb",
        new_markdown_cell("## A part\n\nBack to [the pool](00_pool.ipynb)."),
        code("table", 1, shown(1, **table, **{"text/plain": "a_b"})),
        code("1 < 2", 2, shown(2, **{"text/plain": "x < y & z"})),
        title="# 04 Selection <b>",
    )
    return [first, second]


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


# --- formulas ---------------------------------------------------------------------------------


def symbols(mathml: str) -> list[str]:
    """Texts and spaces of a formula in reading order."""
    return [
        " " if element.tag.endswith("mspace") else element.text
        for element in ET.fromstring(mathml).iter()
        if element.text or element.tag.endswith("mspace")
    ]


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\log p", ["log", " ", "p"]),
        (r"2\log p", ["2", " ", "log", " ", "p"]),
        (r"\log(p)", ["log", "(", "p", ")"]),
        (r"-\log p_t", ["−", "log", " ", "p", "t"]),
        (r"\log_2 s", ["log", "2", " ", "s"]),
        (r"\sum_t \exp x", ["∑", "t", " ", "exp", " ", "x"]),
        ("pq", ["p", "q"]),
    ],
)
def test_function_names_stand_apart_from_operands_and_not_from_parentheses(latex, expected):
    assert symbols(to_mathml(latex)) == expected


def test_a_formula_stands_in_the_line_or_alone():
    assert 'display="inline"' in render_markdown("A $x$ in a line.")
    alone = render_markdown("$$x < y$$")
    assert '<span class="equation"><math' in alone and 'display="block"' in alone
    assert "&lt;" in alone


@pytest.mark.parametrize(
    "latex", [r"\notacommand{x}", r"\frac{a", r"\begin{aligned} a &= b \end{aligned}", "{", "a_"]
)
def test_a_formula_that_is_not_understood_is_refused_and_not_shown_wrong(latex):
    with pytest.raises(InputError, match="cannot read the formula"):
        to_mathml(latex)


def test_code_and_escaped_dollars_are_no_formulas():
    html = render_markdown(r"`$x$` costs \$5 and \$6")
    assert "<math" not in html
    assert "<code>$x$</code>" in html


# --- what is written --------------------------------------------------------------------------


def test_a_page_for_each_notebook_and_an_index(pair, tmp_path):
    files = build_site(pair, tmp_path / "figures", tmp_path / "site")
    assert [f.name for f in files] == ["index.html", "00_pool.html", "04_selection.html"]
    index = read(files[0])
    assert [a.text for a in index.select(".entry h3 a")] == ["00 The pool", "04 Selection <b>"]
    assert index.select(".entry")[0].select("p math")
    assert "have not been collected" in index.text
    first, second = map(read, files[1:])
    assert [a["href"] for a in first.select("header nav a")] == ["index.html", "04_selection.html"]
    assert second.title.text == "04 Selection <b> · lalp"
    assert "x < y & z" in second.text
    # Figures have a text, warnings are gone, links lead to pages or are plain text.
    (image,) = first.select("img")
    assert image["alt"] == "pool sizes: Responses, lengths and step counts per teacher."
    assert "somewhere" not in first.text and "<Figure>" not in first.text
    links = {a.text: a["href"] for a in first.select("main a[href]")}
    assert links["selection"] == "04_selection.html#a-part"
    assert links["the paper"] == "https://arxiv.org/abs/2510.03988"
    assert "the code" not in links and "the code" in first.text
    assert second.select_one('main a[href="00_pool.html"]')


def test_injected_parameters_show_where_they_differ(pair, tmp_path):
    build_site(pair, tmp_path, tmp_path / "site")
    assert "# Parameters" not in read(tmp_path / "site" / "00_pool.html").text
    notebook = nbformat.read(pair[0], as_version=4)
    notebook.cells[2].source = "# Parameters\nPROFILE = 1"
    nbformat.write(notebook, pair[0])
    build_site(pair, tmp_path, tmp_path / "site")
    assert "PROFILE = 1" in read(tmp_path / "site" / "00_pool.html").text


def test_the_index_holds_the_verdicts(pair, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "overview.png").write_bytes(base64.b64decode(PNG))
    (folder / "overview.csv").write_text(
        "no.,claim,paper,run,verdict,why,where,section,notebook,profile\n"
        '1,"LALP > GALP, always",None,"0.1 [0, 0.2]",not resolved,<few> prompts,,S,00_pool,cpu\n'
        "2,Second,yes,no,does not hold,NA,Table 2,S,00_pool,cpu\n"
    )
    (path, *_) = build_site(pair, folder, tmp_path / "site")
    index = read(path)
    counts = [s.text for s in index.select(".counts .verdict")]
    assert counts == ["✖ does not hold: 1", "◆ not resolved: 1"]
    first, second = index.select(".entry")
    assert [s.text for s in first.select("summary")] == ["LALP > GALP, always", "Second"]
    assert [d.text for d in first.select("dd")][:3] == ["None", "0.1 [0, 0.2]", "<few> prompts"]
    assert not second.select(".claims")
    assert index.select_one("figure img")["alt"]


def test_pages_of_notebooks_that_are_gone_are_removed_and_others_stay_the_same(pair, tmp_path):
    build_site(pair, tmp_path, tmp_path / "site")
    page, notes = tmp_path / "site" / "04_selection.html", tmp_path / "site" / "notes.txt"
    notes.write_text("kept")
    before = page.read_bytes()
    build_site(pair, tmp_path, tmp_path / "site")
    assert page.read_bytes() == before
    build_site(pair[:1], tmp_path, tmp_path / "site")
    names = sorted(path.name for path in notes.parent.iterdir())
    assert names == ["00_pool.html", "index.html", "notes.txt"]


def test_a_bad_notebook_is_refused_by_name_and_nothing_is_written(pair, tmp_path):
    bad = tmp_path / "bad"
    write_notebook(bad / "05_bad.ipynb", new_markdown_cell(r"$\notacommand$"))
    (bad / "06_worse.ipynb").write_text("{")
    for path, reason in (("05_bad", r"notacommand"), ("06_worse", "not a notebook")):
        with pytest.raises(InputError, match=rf"{path}\.ipynb: .*{reason}"):
            build_site([*pair, bad / f"{path}.ipynb"], tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()
    with pytest.raises(InputError, match="no notebooks"):
        build_site([], tmp_path, tmp_path / "site")


# --- which copies -----------------------------------------------------------------------------


def test_the_newer_copy_counts_and_other_profiles_have_only_their_own(tmp_path):
    executed, committed = tmp_path / "build" / "cpu" / "notebooks", tmp_path / "notebooks"
    for path, age in (
        (executed / "00_pool.ipynb", 10),
        (committed / "00_pool.ipynb", 20),
        (executed / "01_old.ipynb", 20),
        (committed / "01_old.ipynb", 10),
        (committed / "02_only.ipynb", 10),
        (executed / "03_gone.ipynb", 10),
    ):
        write_notebook(path)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert choose_notebooks(tmp_path, "cpu") == [
        executed / "00_pool.ipynb",
        committed / "01_old.ipynb",
        committed / "02_only.ipynb",
    ]
    with pytest.raises(InputError, match=r"profile 'smoke': run `make all PROFILE=smoke`"):
        choose_notebooks(tmp_path, "smoke")


def test_the_command_says_what_it_made(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    with pytest.raises(InputError, match="no executed notebooks of profile 'cpu'"):
        main()
    shutil.copytree(pair[0].parent, tmp_path / "notebooks", ignore=lambda *_: ["notebooks"])
    main()
    out = capsys.readouterr().out
    assert "notebooks/00_pool.ipynb" in out
    assert "no overview yet" in out
    assert "3 pages; open build/site/index.html" in out


@pytest.mark.parametrize("name", ["site --profile nowhere", "refresh nowhere nowhere"])
def test_it_runs_as_a_module(name):
    command = [sys.executable, "-m", *f"lalp.paper.{name}".split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def committed_site(tmp_path_factory) -> list[Path]:
    """The pages of the committed notebooks and figures."""
    target = tmp_path_factory.mktemp("site")
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    return build_site(notebooks, ROOT / "figures", target)


def test_every_link_leads_somewhere(committed_site):
    pages = {path.name: read(path) for path in committed_site}
    ids = {name: [e["id"] for e in page.select("[id]")] for name, page in pages.items()}
    for name, page in pages.items():
        assert len(ids[name]) == len(set(ids[name])), name
        for link in page.select("a[href]"):
            target = urlsplit(link["href"])
            if not target.scheme:
                assert (target.path or name) in pages, link
                assert not target.fragment or target.fragment in ids[target.path or name], link


def test_pages_name_no_other_file(committed_site):
    for path in committed_site:
        page = read(path)
        assert not page.select("script, iframe, link:not([rel=icon]), object, embed")
        sources = [e["src"] for e in page.select("[src]")]
        assert all(source.startswith("data:") for source in sources)
        assert page.style.text.count("url(") == page.style.text.count("url(data:")
        assert "@import" not in page.style.text


class Browser:
    """A headless Chromium, driven by its DevTools protocol."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket, self.count, self.events = socket, 0, []

    def call(self, method: str, **params: object) -> dict:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv())).get("id") != self.count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path, *, width: int = 1200, scheme: str = "light") -> list[dict]:
        """Open a page and wait for it; returns what happened meanwhile."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(json.loads(self.socket.recv()))
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return list(self.events)

    def run(self, script: str) -> object:
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def measure(self, name: str) -> dict:
        """What a script of the folder ``browser`` finds on the open page."""
        return self.run(Path(__file__).with_name("browser").joinpath(f"{name}.js").read_text())


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-extensions", "--mute-audio"]
    process = subprocess.Popen(
        [program, *flags, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _connect(process, folder / "DevToolsActivePort")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _connect(process: subprocess.Popen, ports: Path) -> Browser:
    deadline = time.monotonic() + 60
    while not ports.is_file() or "\n" not in ports.read_text():
        assert process.poll() is None, "Chromium ended by itself"
        assert time.monotonic() < deadline, "Chromium did not start within a minute"
        time.sleep(0.05)
    port, path = ports.read_text().split("\n")[:2]
    root = Browser(
        websocket.create_connection(f"ws://127.0.0.1:{port}{path}", suppress_origin=True)
    )
    target = root.call("Target.createTarget", url="about:blank")["targetId"]
    page = f"ws://127.0.0.1:{port}/devtools/page/{target}"
    browser = Browser(websocket.create_connection(page, suppress_origin=True, timeout=60))
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.call(f"{domain}.enable")
    return browser


def complaints(events: list[dict]) -> list[object]:
    """Console errors and warnings, exceptions, failed requests, requests that leave the page."""
    found: list[object] = []
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        level = params.get("entry", {}).get("level") or params.get("type")
        if method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            found.append(params)
        elif method in ("Log.entryAdded", "Runtime.consoleAPICalled"):
            found += [params] if level in ("error", "warning") else []
        elif method == "Network.requestWillBeSent" and params["type"] != "Document":
            found += [url for url in [params["request"]["url"]] if not url.startswith("data:")]
    return found


def test_a_broken_page_would_be_noticed(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<h1>x</h1><img src='gone.png'><script src='https://example.invalid/a.js'></script>"
        "<script>console.error('oh'); nowhere()</script>"
    )
    found = json.dumps(complaints(browser.open(page)))
    for sign in ("gone.png", "example.invalid", "oh", "nowhere"):
        assert sign in found


def test_every_page_opens_shows_its_figures_and_fits_a_phone(browser, committed_site):
    notebooks = {path.stem: path for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    for path in committed_site:
        events = browser.open(path)
        assert complaints(events) == [], path.name
        look = browser.measure("look")
        assert look["heading"]
        for alt, natural, drawn in look["images"]:
            assert alt and natural > 0 and drawn > 0, (path.name, alt)
        assert all(size > 0 for size in look["formulas"]), path.name
        assert "$" not in look["prose"] and "\\" not in look["prose"], path.name
        if path.stem in notebooks:
            cells = nbformat.read(notebooks[path.stem], as_version=4).cells
            shown = [count_figures(cell)[1] for cell in cells if cell.cell_type == "code"]
            assert len(look["images"]) == sum(shown)
        browser.open(path, width=360)
        look = browser.measure("look")
        assert look["overhang"] <= 0, path.name
        assert all(drawn <= 360 for _, _, drawn in look["images"]), path.name


def test_formulas_are_drawn_as_formulas(browser, pair, tmp_path):
    (_, first, _) = build_site(pair, tmp_path, tmp_path / "site")
    assert complaints(browser.open(first)) == []
    assert browser.run("[...document.fonts].map(font => [font.family, font.status])") == [
        ["Formulas", "loaded"]
    ]
    # A fraction is higher than its line; the sum's bounds stand above and below it.
    boxes = browser.run(
        """[...document.querySelectorAll("main .equation math mfrac > *, main munderover > *")]
           .map(e => e.getBoundingClientRect()).map(b => [b.top, b.bottom])"""
    )
    (numerator, denominator, total, below, above) = boxes
    assert numerator[1] <= denominator[0] + 1
    assert above[1] <= total[0] + 1 and total[1] <= below[0] + 1
    assert total[1] - total[0] > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(browser, committed_site, scheme):
    for path in committed_site:
        browser.open(path, scheme=scheme)
        faint = {k: round(v, 2) for k, v in browser.measure("contrast").items() if v < 4.5}
        assert faint == {}, path.name
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
