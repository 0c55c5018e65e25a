"""`lalp show --prompt`: a pool or a table, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from lalp.pools.reading import load_pool
from lalp.scoring.table import holds_scores, load_scores
from tests.cli.test_app import RECORDS
from tests.pools.builders import jsonl


@pytest.fixture
def pool_file(tmp_path) -> Path:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


def test_the_command_reads_a_pool_and_a_table(lalp, pool_file, model, tmp_path):
    table, pages = tmp_path / "scores.parquet", [tmp_path / f"{n}.html" for n in range(2)]
    student, shown = ["--student", model], ["--window", 0, "--window", "all"]
    assert lalp("score", pool_file, *student, *shown, "--tokens", "--out", table).code == 0
    assert holds_scores(table) and not holds_scores(pool_file)
    first = lalp("show", pool_file, "--prompt", "p1", *student, *shown, "--out", pages[0])
    second = lalp("show", table, "--prompt", "p1", "--out", pages[1])
    count = (load_scores(table)["prompt_id"] == "p1").sum()
    for done, page in zip((first, second), pages, strict=True):
        assert (done.code, done.err) == (0, f"lalp: {count} responses to p1: {page}\n")
    written = [page.read_text("utf-8") for page in pages]
    assert written[0] == written[1]
    page = BeautifulSoup(written[0], "html.parser")
    assert load_pool(pool_file).prompts["p1"].messages[-1].content in page.text
    assert [
        len(part(style="white-space:pre-wrap;overflow-wrap:anywhere;font-size:85%"))
        for part in page("details")
    ] == [count] * 2
