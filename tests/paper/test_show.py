"""Tables as notebooks show them."""

from __future__ import annotations

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lalp.paper.show import (
    MOST_ROWS,
    filter_verdicts,
    in_words,
    show_table,
    show_verdicts,
    write_number,
)
from lalp.paper.verdicts import Verdict, verdict_table
from lalp.stats import Estimate
from tests.paper.test_notebooks import NOTEBOOKS


def test_an_interval_stands_in_the_cell_of_its_value():
    table = pd.DataFrame({"gap": [0.5, 0.25], "low": [0.4, np.nan], "high": [0.6, np.nan]})
    assert show_table(table).cells["gap"].tolist() == ["0.50 [0.40, 0.60]", "0.25"]
    named = pd.DataFrame({"tau_high": [1.0], "tau": [0.5], "tau_low": [-1.0], "n": [3]})
    assert show_table(named).cells.loc[0].tolist() == ["0.50 [-1.00, 1.00]", "3"]
    assert show_table(named).cells.columns.tolist() == ["Kendall tau", "n"]


def test_an_estimate_has_its_interval_and_is_empty_without_a_value():
    found = [Estimate(-0.001, -0.014, 0.5), Estimate(np.nan, np.nan, np.nan)]
    shown = show_table(pd.DataFrame({"slope": found, "of": ["a", "b"]}))
    assert shown.cells["slope"].tolist() == ["0.00 [-0.01, 0.50]", ""]
    assert shown.numeric == {"slope"}


def test_missing_values_are_empty_cells_and_counts_stay_whole():
    table = pd.DataFrame({"num_tokens": [1500.0, None], "share": [0.126, None], "of": ["a", None]})
    shown = show_table(table).cells
    assert shown.loc[0].tolist() == ["1,500", "0.13", "a"]
    assert shown.loc[1].tolist() == ["", "", ""]


def test_row_numbers_go_and_an_index_that_says_something_stays():
    table = pd.DataFrame({"mean": [1.5, 2.5]})
    assert show_table(table).cells.columns.tolist() == ["mean"]
    assert show_table(table.iloc[[1]]).cells.columns.tolist() == ["mean"]
    by_teacher = table.set_axis(pd.Index(["Ada", "Bob"], name="teacher"))
    assert show_table(by_teacher).cells["teacher"].tolist() == ["Ada", "Bob"]
    pairs = table.set_axis(pd.MultiIndex.from_tuples([("a", "galp"), ("b", "32t")]))
    assert show_table(pairs).cells.iloc[:, 1].tolist() == ["GALP", "chunks of 32 tokens"]


def test_columns_of_one_name_are_all_shown():
    shown = show_table(pd.DataFrame({"num_tokens": [1], "tokens": [2]})).cells
    assert shown.iloc[0].tolist() == ["1", "2"]


def test_more_rows_than_a_reader_takes_in_are_behind_more():
    html = show_table(pd.DataFrame({"a": range(MOST_ROWS + 3)}))._repr_html_()
    first, more = html.split("<details>")
    assert first.count("<td") == MOST_ROWS
    assert more.count("<td") == 3
    assert "3 more" in more
    assert "<details>" not in show_table(pd.DataFrame({"a": range(MOST_ROWS)}))._repr_html_()


def test_what_stands_in_a_cell_is_never_read_as_html():
    html = show_table(pd.DataFrame({"<b>": ["p < 0.05 & <script>"]}))._repr_html_()
    assert "<b>" not in html
    assert "p &lt; 0.05 &amp; &lt;script&gt;" in html


def test_a_verdict_has_a_mark_a_word_and_an_asterisk_for_a_later_rule():
    said = [
        Verdict("A", "0.5", "0.4", "holds", "n = 3", after_look=True),
        Verdict("B", "0.5", "0.4", "not resolved", "n = 3", needs="40 prompts"),
    ]
    shown = show_verdicts(verdict_table(said))
    assert shown.cells["verdict"].tolist() == ["holds*", "not resolved"]
    assert shown.cells["why"].tolist() == ["n = 3", "n = 3; would be resolved by 40 prompts"]
    assert "● holds*</span>" in shown._repr_html_()


def test_claims_are_narrowed_by_verdict_and_by_kind_without_javascript():
    said = [
        Verdict("A", "0.5", "0.4", "holds", "n = 3", kind="algebra"),
        Verdict("B", "0.5", "0.4", "holds", "n = 3", after_look=True),
        Verdict("C", "0.5", "0.4", "not run", "n = 3"),
    ]
    verdicts = verdict_table(said).assign(notebook="00_pool").set_axis([1, 2, 3])
    page = BeautifulSoup(filter_verdicts(verdicts)._repr_html_(), "html.parser")
    labels = [label.text for label in page.find_all("label")]
    assert labels == [
        "all (3)",
        "holds (2)",
        "not run (1)",
        "all (3)",
        "algebra (1)",
        "real text (2)",
    ]
    chosen = page.find_all("input", checked=True)
    assert [one["id"] for one in chosen] == ["all-verdict", "all-tested-on"]
    rows = [row["class"] for row in page.tbody.find_all("tr")]
    assert rows[1] == ["is-verdict-holds", "is-tested-on-real-text"]
    ids = {one["id"] for one in page.find_all("input")}
    assert {key for row in rows for key in row} <= ids
    rule = ".lalp-claims:has(#is-verdict-holds:checked) tbody tr:not(.is-verdict-holds)"
    assert rule + " { display: none }" in page.style.text and "script" not in str(page)
    assert page.find("a")["href"] == "00_pool.ipynb"


@pytest.mark.parametrize("value", [0.0, 0.004, -0.0049, 2e-7, 1.5, -12345.678, float("inf")])
def test_numbers_have_few_digits_and_keep_their_size(value):
    written = write_number(value)
    assert float(written.replace(",", "")) == pytest.approx(value, abs=0.005, rel=0.5)
    assert len(written.partition(".")[2]) <= 4
    assert (value == 0) == (float(written.replace(",", "")) == 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lalp@all", "LALP, full prefix"),
        ("lalp@4", "LALP, w = 4"),
        ("lalp-tail@4", "LALP, tails, w = 4"),
        ("hybrid@25%", "hybrid, w = 25%"),
        ("mean_tokens", "mean tokens"),
        ("random like lalp-tail", "random, same teachers as LALP, tails"),
        ("R1-Distill-Qwen-32B", "R1-Distill-Qwen-32B"),
        ("P_Inequality_43", "P_Inequality_43"),
        ("", ""),
    ],
)
def test_identifiers_are_words_and_names_stay(name, words):
    assert in_words(name) == words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_of_a_committed_table_holds_nan_or_many_digits(path):
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            for text in re.findall(
                r"<td[^>]*>([^<]*)", output.get("data", {}).get("text/html", "")
            ):
                assert "nan" not in text.lower().split(), (cell.id, text)
                numbers = re.sub(r"arXiv \d{4}\.\d{5}", "", text)
                assert not re.search(r"\d\.\d{5}", numbers), (cell.id, text)
