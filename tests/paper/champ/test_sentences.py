"""Reading the answer that a closing sentence states."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lalp.paper.champ.sentences import extract_from_sentence
from tests.grading.test_answers import texts

CASES = yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("question", "sentence", "answer"),
    [(question, *case) for question, each in CASES.items() for case in each.items()],
)
def test_extract_from_sentence(question, sentence, answer):
    assert extract_from_sentence(sentence, question) == answer


@given(texts, st.sampled_from(["", *CASES]))
def test_reading_never_fails(text, question):
    found = extract_from_sentence(text, question)
    assert found is None or isinstance(found, str)


def test_reading_a_long_degenerate_text_is_fast():
    start = time.perf_counter()
    assert extract_from_sentence("The value is " + "(" * 900 + "1" + ")" * 900) is not None
    assert extract_from_sentence("It is 1 and it is " * 5_000) is None
    assert time.perf_counter() - start < 5
