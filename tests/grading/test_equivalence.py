"""Comparing answers."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.grading.equivalence import UnreadableError, equivalent, split_values, to_latex


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("7", [("7",)]),
        ("x = 7", [("7",)]),
        ("x = y = 0", [("0", "0")]),
        ("y=5, x=6", [("6", "5")]),
        ("(y, x) = (5, 6)", [("6", "5")]),
        ("(x, y) = (1, 2) and (2, 1)", [("1", "2"), ("2", "1")]),
        ("x=1, y=2 or x=2, y=1", [("1", "2"), ("2", "1")]),
        ("(x=1, y=2), (x=2, y=1)", [("1", "2"), ("2", "1")]),
        ("x = 3 and x = 5", [("3",), ("5",)]),
        (r"\{1, 2\}", [("1",), ("2",)]),
        ("±4", [("4",), ("-4",)]),
        (r"1 \pm \sqrt{2}", [(r"1 + \sqrt{2}",), (r"1 - \sqrt{2}",)]),
        ("1,234", [("1234",)]),
        ("1, 234", [("1",), ("234",)]),
        ("[0, 1)", [("[0, 1)",)]),
        ("C(n, 2)", [("C(n, 2)",)]),
        ("f(x) = 0 or f(x) = 1", [("0",), ("1",)]),
        (r"\sum_{i=1}^n i", [(r"\sum_{i=1}^n i",)]),
        ("1 + 2 + ... + 9 = 45", [("45",)]),
    ],
)
def test_split_values(expression, values):
    assert split_values(expression) == values


@pytest.mark.parametrize("expression", ["1, 2, ..., 9", r"1 \mp 2", "±1 ± 2", "", "1," * 200])
def test_split_values_refuses_what_is_not_explicit(expression):
    with pytest.raises(UnreadableError):
        split_values(expression)


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("sqrt(3)/3", r"\sqrt{3}/3"),
        ("2^(n-1)", "2^{n-1}"),
        ("2^floor(n/2)", r"2^{\lfloor n/2 \rfloor }"),
        ("C(n+1, 2)", r"\binom{n+1}{2}"),
        ("sum_(i=1)^n i^2", r"\sum_{i=1}^n i^{2}"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("50%", r"50\%"),
        ("sqrt(sqrt(2))", r"\sqrt{\sqrt{2}}"),
        ("sqrt(2", "sqrt(2"),
    ],
)
def test_to_latex(plain, latex):
    assert to_latex(plain) == latex


TABLE = yaml.safe_load(Path(__file__).with_name("equivalence.yaml").read_text(encoding="utf-8"))
PAIRS = [
    (kind, reference, answer)
    for kind, rows in TABLE.items()
    for reference, *answers in rows
    for answer in answers
]


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
