"""`lalp report`: the page that it writes, the scores that it shares, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from conftest import build_student
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lalp.report import page
from tests.cli.test_app import RECORDS
from tests.pools.builders import jsonl, read_lines

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pool_file(tmp_path) -> Path:
    path = tmp_path / "pool <b>.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


def shards(folder: Path) -> dict[str, int]:
    """When each shard was written, by folder and name."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("build/scores/*/*.parquet")}


def test_one_page_that_needs_nothing_else_of_the_scores_that_score_made(
    lalp, pool_file, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the notebook's own process
    options = [pool_file, "--student", model, "--window", "1", "--window", "25%", "--quiet"]
    assert lalp("score", *options, "--out", tmp_path / "scores.parquet").code == 0
    scored = shards(tmp_path)
    out = tmp_path / "page.html"
    done = lalp("report", *options, "--out", out)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == f"lalp: report of 9 responses: {out}"
    # Nothing was scored again, but the one response of the heat map for its tokens.
    after = shards(tmp_path)
    assert scored.items() <= after.items() and len(after) == len(scored) + 1

    text = out.read_text(encoding="utf-8")
    html = BeautifulSoup(text, "html.parser")
    assert html.h1.text == html.title.text == "Report of pool <b>.jsonl"
    assert not html.find_all(["script", "iframe", "object"])
    assert not re.search("(src|href)=.http", text)
    # No link leads out of the page, to files that do not stand beside it.
    assert all(link["href"].startswith("#") for link in html.find_all("a", href=True))
    assert ".md" not in text and ".ipynb" not in text and len(html.find("ul").find_all("li")) == 3
    images = html.find_all("img")
    assert len(images) == 3
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert [image["alt"] for image in images] == [
        *("figure: scores", "figure: teacher means", "figure: window sweep")
    ]
    assert html.find(class_="lalp-heat-map") and len(html.find_all("table", "dataframe")) == 6
    assert "import pandas" not in text and "injected" not in text and "Traceback" not in text
    assert f"STUDENT = {model}; WINDOWS = 1, 25%" in html.footer.text


def test_the_quickstart_runs_as_it_stands(lalp, tokenizer, tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Quickstart\n.*?```sh\n(.*?)```", readme, re.DOTALL)[1]
    install, *lines = [line.partition("#")[0].split() for line in block.splitlines()]
    assert install[:2] == ["make", "setup"] and len(lines) == 4
    long = build_student("llama", tokenizer, max_position_embeddings=2048)
    long.model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    monkeypatch.chdir(tmp_path)
    Path("lalp").symlink_to(ROOT / "lalp")
    for name, *words in lines:
        others = ["--student", "student", "--quiet"] if words[0] == "score" else []
        done = lalp(*words, *others)
        assert (name, done.code) == ("lalp", 0), done.err
    assert len(read_lines(Path("train.jsonl"))) == 20


@pytest.fixture
def refused(lalp, pool_file, model, tmp_path):
    """What `report` says at the end, having written nothing."""

    def run() -> str:
        out = tmp_path / "page.html"
        done = lalp("report", pool_file, "--student", model, "--quiet", "--out", out)
        assert (done.code, done.out, out.exists()) == (2, "", False)
        # Before it stand transformers' bars, which this process did not silence in time.
        assert "Traceback" not in done.err
        return done.err.splitlines()[-1]

    return run


def test_a_missing_package_is_named_with_the_extra_that_has_it(refused, monkeypatch):
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "nbconvert" else name)
    assert "a report needs nbconvert: pip install 'lalp[notebooks]'" in refused()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PapermillExecutionError(3, 1, "", "InputError", "the pool has changed", []),
            "has changed",
        ),
        (DeadKernelError("Kernel died"), "is there enough memory?"),
    ],
)
def test_what_a_cell_refuses_is_one_line(refused, monkeypatch, error, message):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("papermill.execute.execute_notebook", fail)
    # What stands before the notebook takes seconds; the test of the page has it.
    for name in ("lalp.scoring.run.score", "lalp.report.heat_map.draw_response"):
        monkeypatch.setattr(name, lambda *_, **__: None)
    assert message in refused()


def test_a_fault_of_the_notebook_is_not_taken_for_bad_input(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise PapermillExecutionError(3, 1, "", "KeyError", "'x'", [])

    monkeypatch.setattr("papermill.execute.execute_notebook", fail)
    with pytest.raises(PapermillExecutionError):
        page.run_notebook({})
