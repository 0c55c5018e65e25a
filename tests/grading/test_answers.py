"""Reading the answer that a text marks."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lalp.grading.answers import extract_answer, extract_choice, final_part, is_choice

READ = {"answer": extract_answer, "choice": extract_choice, "final": final_part}
TABLE = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "text", "found"), [(kind, *row) for kind, rows in TABLE.items() for row in rows]
)
def test_what_a_text_marks(kind, text, found):
    assert READ[kind](text) == found


def test_references_that_are_letters():
    assert all(map(is_choice, ["B", "(B)", r"\text{(B)}", r"\textbf{B}", "$B$"]))
    assert not any(map(is_choice, ["2", "BC", "x", r"\text{Ada}", "K", "A_1", "A+B", ""]))


PIECES = (
    *("is ", "There are ", "3", "x", "=", "(", ")", "$", r"\boxed{", "}", ", ", "and "),
    *("The answer is ", "A", "B", r"\text{", r"\$", "**", "#### "),
)
# Any text, and pieces that are likely in one.
texts = st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(texts)
def test_reading_never_fails(text):
    for found in (extract_answer(text), extract_choice(text)):
        assert found is None or isinstance(found, str)


def test_reading_a_long_degenerate_text_is_fast():
    start = time.perf_counter()
    assert extract_answer("1, " * 20_000 + "the end") is None
    assert extract_answer(r"\boxed{" * 5_000) is None
    assert time.perf_counter() - start < 5
