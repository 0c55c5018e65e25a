"""Comparing answers."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.grading.equivalence import UnreadableError, equivalent, split_values
from lalp.grading.formulas import to_latex

TABLE = yaml.safe_load(Path(__file__).with_name("equivalence.yaml").read_text(encoding="utf-8"))
PAIRS = [
    (kind, reference, answer)
    for kind in ("same", "different")
    for reference, *answers in TABLE[kind]
    for answer in answers
]


@pytest.mark.parametrize(("expression", "values"), TABLE["values"])
def test_split_values(expression, values):
    assert split_values(expression) == [tuple(value) for value in values]


@pytest.mark.parametrize("expression", ["1, 2, ..., 9", r"1 \mp 2", "±1 ± 2", "", "1," * 200])
def test_split_values_refuses_what_is_not_explicit(expression):
    with pytest.raises(UnreadableError):
        split_values(expression)


@pytest.mark.parametrize(("plain", "latex"), TABLE["latex"])
def test_to_latex(plain, latex):
    assert to_latex(plain) == latex


@pytest.mark.parametrize(("kind", "reference", "answer"), PAIRS)
def test_same_and_different_values(kind, reference, answer):
    assert equivalent(reference, answer) == (kind == "same")


@pytest.mark.parametrize(
    "answer", ["12_8 + 1", "2 3", "n!!", "10^10^10", "n +", "1 + 2 + ... + n", "(3", "=", ""]
)
def test_unreadable_answers(answer):
    with pytest.raises(UnreadableError):
        equivalent("5", answer)


# Equations that are decided by themselves: all that are false would be equal.
@pytest.mark.parametrize("reference", ["n +", "1 = 2", r"\frac{dy}{dx} = 4"])
def test_an_unreadable_reference_is_another_error(reference):
    message = re.escape(f"cannot read the reference {reference!r}")
    with pytest.raises(ValueError, match=message) as error:
        equivalent(reference, "5")
    assert not isinstance(error.value, UnreadableError)


@given(st.integers(-999, 999), st.integers(1, 99))
def test_fractions_in_every_spelling(numerator, denominator):
    sign = "-" if numerator < 0 else ""
    spellings = [f"{numerator}/{denominator}", rf"{sign}\frac{{{abs(numerator)}}}{{{denominator}}}"]
    for reference in spellings:
        for answer in spellings:
            assert equivalent(reference, answer)
        assert not equivalent(reference, f"{numerator * 2 + 1}/{denominator * 2}")


@settings(max_examples=25, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_a_product_equals_its_expansion_only(a, b, c, d):
    """(x - a)(x - b) expands to x^2 - (a+b) x + ab; equal iff both coefficients are."""
    same = (a + b, a * b) == (c + d, c * d)
    assert equivalent(f"(x - ({a}))(x - ({b}))", f"x^2 - ({c + d})x + ({c * d})") == same


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True), st.randoms())
def test_the_order_of_several_values_is_free(numbers, random):
    shuffled = random.sample(numbers, len(numbers))
    assert equivalent(", ".join(map(str, numbers)), " and ".join(map(str, shuffled)))
    assert not equivalent(", ".join(map(str, numbers)), ", ".join(map(str, [*shuffled, 51])))
