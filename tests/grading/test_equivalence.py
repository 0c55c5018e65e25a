"""Reading answers, comparing them, and the workers and cache around that."""

import json
import re
import sys
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.grading import workers
from lalp.grading.answers import extract_answer, extract_choice, is_choice
from lalp.grading.equivalence import UnreadableError, equivalent, split_values, to_latex
from lalp.grading.workers import Grade, grade_answers
from lalp.paper.champ.sentences import extract_from_sentence

# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So we get \boxed{17}.", "17"),
        (r"First \boxed{3}, but corrected: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a_{n+1}^{2}} is it", "a_{n+1}^{2}"),
        (r"We know $6 = 5 + 1$. The answer is $\frac{3}{4}$. I checked it twice.", r"\frac{3}{4}"),
        ("Some steps.\nFinal answer: 12\nDone", "12"),
        ("The answer is 7 apples.", "7"),
        ("The answer is 3 times the width.", None),
        ("The answer is not 3.", None),
        ("The answer to the question is 5, as we saw.", "5"),
        ("Step one, step two.\n#### 1,250", "1,250"),
        ("42", "42"),
        (r"\frac{5}{6}", r"\frac{5}{6}"),
        ("x = 2 or x = 3", "x = 2 or x = 3"),
        (r"$\sqrt{2}$", r"\sqrt{2}"),
        ("Yes", "Yes"),
        (r"\text{Monday}", r"\text{Monday}"),
        ("There are 12 ways to seat 5 guests.", None),
        ("", None),
        (r"\boxed{", None),
        (r"\boxed{1 + (2", None),
        ("The answer is unclear.", "unclear"),
        (r"The answer is $\$45.10$.", r"\$45.10"),
        (r"It costs \$3 or \$4. The answer is $\$7$ in all.", r"\$7"),
        (r"The answer is 12,\! 345,\! 678.", "12,345,678"),
        ("The answer is 3 million.", None),
        ("The answer is 2 dozen.", None),
        (r"The answer is 40 \mbox{ feet}^2.", r"40 \mbox{ feet}^2"),
        (r"Hence $x=\boxed{3}$ or $x=\boxed{-5}$.", "3, -5"),
        (r"\boxed{1}, \boxed{2}, and \boxed{4}", "1, 2, 4"),
        (r"$\boxed{3}\text{ and }\boxed{5}$", "3, 5"),
        (r"If $y=\boxed{3}$ is tried, and then we get \boxed{5}", "5"),
        (r"\boxed{1} \boxed{2}", "2"),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"So the result is $\boxed{C}$.", "C"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{\textbf{(D)}\ 12}", "D"),
        (r"\boxed{B: the second one}", "B"),
        (r"\boxed{A}, no, \boxed{B. 7}", "B"),
        ("The answer is (C) 12 N.", "C"),
        ("**Answer: D**", "D"),
        ("Answer: **B**", "B"),
        ("The correct answer is option A, because 3 > 2.", "A"),
        ("The answer is C because of that.", "C"),
        ("The answer is C\n\nDone", "C"),
        ("First, the answer is A. After a check, the answer is B.", "B"),
        (r"The answer is $\text{(B)}$", "B"),
        ("C", "C"),
        ("(C)", "C"),
        # What would need a guess.
        (r"\boxed{BC}", None),
        (r"\boxed{A, B}", None),
        (r"\boxed{A \text{ or } B}", None),
        (r"\boxed{12}", None),
        ("The answer is A or B.", None),
        ("The answer is A, C.", None),
        ("The answer is A large number.", None),
        ("The answer is Boron.", None),
        ("A is wrong and so is B.", None),
        ("A large value", None),
        ("I think that C fits best", None),
        ("", None),
    ],
)
def test_extract_choice(text, letter):
    assert extract_choice(text) == letter


@pytest.mark.parametrize("reference", ["B", "(B)", r"\text{(B)}", r"\textbf{B}", "$B$"])
def test_references_that_are_letters(reference):
    assert is_choice(reference)


@pytest.mark.parametrize("reference", ["2", "BC", "x", r"\text{Ada}", "K", "A_1", "A+B", ""])
def test_references_that_are_no_letters(reference):
    assert not is_choice(reference)


VALUE = "What is the smallest value of the quotient?"
COUNT = "How many marbles are in the jar?"
AT_MOST = "At most how many of the five switches can be on?"


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        # The main verb, whatever numbers stand before and after it.
        ("The smallest value of (a + 7)/b for 0 < b < 5 is 3/8.", VALUE, "3/8"),
        ("The smallest value is 3/8, which is attained when a = b = 4.", VALUE, "3/8"),
        ("The smallest value is 3/8 and this is attained when b is 4.", VALUE, "3/8"),
        (r"The smallest value of \( q \) is \( \frac{3}{8} \).", VALUE, r"\frac{3}{8}"),
        ("The minimum of $q$, where $b$ is 4, is $9$.", VALUE, "9"),
        ("The remainder when 100 is divided by 7 is 2.", VALUE, "2"),
        (r"The maximum is $\boxed{6}$ because 2 times 3 is 6.", VALUE, "6"),
        ("The quotient equals sqrt(5)/2.", VALUE, "sqrt(5)/2"),
        ("The sum is given by the formula S = n(n+3)/2 for all n.", VALUE, "S = n(n+3)/2"),
        (
            "The solutions are x = 4, y = 1 and x = 1, y = 4.",
            VALUE,
            "x = 4, y = 1 and x = 1, y = 4",
        ),
        ("The limit exists and is equal to √7.", VALUE, "sqrt(7)"),
        ("The chance is approximately 12.5%.", VALUE, "12.5%"),
        ("It factors as (x - 2)(x + 5).", VALUE, "(x - 2)(x + 5)"),
        (r"$u_{40} = 81$, since every step adds 2.", VALUE, "u_{40} = 81"),
        ("The product is xy + yz - 1.", VALUE, "xy + yz - 1"),
        # What would need a guess.
        ("The smallest value is achieved when one of a and b is 0.", VALUE, None),
        ("The smallest value is not 3/8.", VALUE, None),
        ("The smallest value is greater than 2.", VALUE, None),
        ("The smallest value is 5 times the largest.", VALUE, None),
        ("The value is a multiple of 6.", VALUE, None),
        ("The value is 2 if n is odd, and 3 if n is even.", VALUE, None),
        ("The value is 2 (for n = 1) and 3 (for n = 2).", VALUE, None),
        ("The value is 0 when n is a square, and 1 when n is 7.", VALUE, None),
        ("The smallest value is 3, so the final value is 4.", VALUE, None),
        ("The value is approximately n log(n).", VALUE, None),
        ("The value is less than or equal to 9.", VALUE, None),
        ("There are 5 such quotients.", VALUE, None),
        ("It cannot be determined.", VALUE, None),
        # Counts.
        ("There are 18 marbles, 7 of them red, in the 2 jars.", COUNT, "18"),
        ("There are exactly three marbles in the jar.", COUNT, "3"),
        ("There are no marbles in the jar.", COUNT, "0"),
        ("There are no marbles other than the 4 red ones.", COUNT, None),
        ("The number of marbles such that at least 2 are red is 18.", COUNT, "18"),
        ("The jar has 18 marbles.", COUNT, "18"),
        ("They can be arranged in 2^(n-1) different ways.", COUNT, "2^(n-1)"),
        ("The jar can be filled in n! ways.", COUNT, "n!"),
        ("For all n in {1, 2, ..., 60}, the marble is red.", COUNT, "60"),
        ("Not all 60 marbles are red.", COUNT, None),
        ("The only such marble is n = 4.", COUNT, None),
        ("The number is n factorial.", COUNT, None),
        ("There are at least 4 marbles.", COUNT, None),
        ("At most two of the five switches can be on.", AT_MOST, "2"),
        ("None of the switches can be on.", AT_MOST, "0"),
        ("At least two of the five switches can be on.", AT_MOST, None),
        ("At most two of the marbles are red.", COUNT, None),
        # A modulus must be the one that was asked for.
        ("The remainder is 4 modulo 9.", "What is the remainder modulo 9?", "4"),
        (r"$k \equiv 4 \pmod{9}$.", "What is k mod 9?", "k = 4"),
        (r"$k \equiv 4 \pmod{3}$.", "What is k mod 9?", None),
        (r"$k \equiv 4 \pmod{3}$.", "What is 3k mod 9?", None),
        ("The remainder is 4 modulo 9.", "What is the remainder of k divided by 9?", "4"),
        ("The remainder is 4 modulo 18.", "What is the remainder modulo 9?", None),
    ],
)
def test_extract_from_sentence(sentence, question, answer):
    assert extract_from_sentence(sentence, question) == answer


@given(st.text(max_size=200), st.sampled_from(["", VALUE, COUNT, AT_MOST]))
def test_reading_never_fails(text, question):
    readings = (extract_answer(text), extract_choice(text), extract_from_sentence(text, question))
    for found in readings:
        assert found is None or isinstance(found, str)


@given(
    st.lists(
        st.sampled_from(
            [
                *("is ", "There are ", "3", "x", "=", "(", ")", "$", r"\boxed{", "}", ", ", "and "),
                *("The answer is ", "A", "B", r"\text{", r"\$", "**", "#### "),
            ]
        ),
        max_size=30,
    )
)
def test_reading_never_fails_on_likely_pieces(pieces):
    text = "".join(pieces)
    for found in (extract_answer(text), extract_choice(text), extract_from_sentence(text, COUNT)):
        assert found is None or isinstance(found, str)


def test_reading_a_long_degenerate_text_is_fast():
    start = time.perf_counter()
    assert extract_answer("1, " * 20_000 + "the end") is None
    assert extract_answer(r"\boxed{" * 5_000) is None
    assert extract_from_sentence("The value is " + "(" * 900 + "1" + ")" * 900) is not None
    assert extract_from_sentence("It is 1 and it is " * 5_000) is None
    assert time.perf_counter() - start < 5


# ----------------------------------------------------------------------------------- comparing


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


SAME = [
    ("5", "5.0"),
    ("1/2", r"\frac12"),
    ("1/2", "50%"),
    ("1/3", "0.333"),
    ("1/3", "33.3%"),
    ("5/14", "35.71%"),
    (r"\pi", "3.14"),
    ("pi/4", r"\frac{\pi}{4}"),
    ("sqrt(2)", "1.414"),
    ("sqrt(3)/3", r"\frac{1}{\sqrt{3}}"),
    ("1,234", "1234"),
    ("2^997", r"\frac{2^{1000}}{8}"),
    ("5!", "120"),
    ("C(10, 4)", "210"),
    ("C(n, 2)", r"\frac{n(n-1)}{2}"),
    ("n!/n", "(n-1)!"),
    ("n", r"\frac{n^2+n}{n+1}"),
    ("2^floor(n/2)", r"2^{\lfloor \frac{n}{2} \rfloor}"),
    ("(4^n+2^n)/2", "2^{2n-1} + 2^{n-1}"),
    ("x^2-1", "(x-1)(x+1)"),
    ("{1, 2}", "2 and 1"),
    ("(1, 2)", "(1, 2)"),
    ("x=1, y=2", "(y, x) = (2, 1)"),
    ("x=±3", "3 or -3"),
    ("[-1, 1]", r"\left[-1, 1\right]"),
    ("(0, 1]", r"x \in (0, 1]"),
    ("x > 3", "3 < x"),
    ("a(1±sqrt(2))", r"x = a - \sqrt{2}a, x = a + a\sqrt{2}"),
    ("3", "m = 3"),
    ("23", "a^2 + b^2 = 23"),
    (r"\infty", "infinity"),
    ("Yes", r"\text{yes}"),
    ("pi", r"\pi"),
    ("ab", "ba"),
    ("infinity", r"\infty"),
    (r"3\frac{1}{2}", "7/2"),
    ("2^floor(n/2)*floor(n/2)!", r"2^{\lfloor n/2 \rfloor} \cdot \lfloor n/2 \rfloor!"),
    # Units may be left out, or written otherwise.
    (r"70^\circ", "70"),
    (r"70^\circ", "70°"),
    (r"70^\circ", r"70\text{ degrees}"),
    ("70", r"70^{\circ}"),
    (r"70^\circ", "70^°"),
    (r"\frac{27}{4}\text{ degrees}", r"\frac{27}{4}^\circ"),
    (r"3\text{ m}", r"3\text{ meters}"),
    (r"\$45.10", "45.1"),
    (r"\$45.10", r"45.10 \text{ dollars}"),
    (r"\$45", "45 dollars"),
    (r"\$12,\!345", "12345"),
    (r"\$12,\!345", r"\$12,345"),
    (r"7.2 \text{ cents}", "7.2¢"),
    (r"40\mbox{ cm}^2", "40"),
    (r"40\mbox{ cm}^2", r"40 \text{ square centimeters}"),
    (r"40\mbox{ cm}^2", "40 cm²"),
    (r"21\pi", r"21\pi \text{ cubic inches}"),
    ("31", "31 red marbles"),
    ("45", r"45\text{ mph}"),
    ("50%", "50 percent"),
    # Digits.
    (r"12,\!345", "12345"),
    (r"12,\! 345,\! 678", "12,345,678"),
    ("4321", r"4\,321"),
    ("4321", "4{,}321"),
    (".625", "0.625"),
    (".000045", r"4.5 \times 10^{-5}"),
    (r"51 \frac{1}{4}", "51.25"),
    (r"2\frac{3}{7}", r"\frac{17}{7}"),
    ("3", r"\text{three}"),
    ("3", r"\mathbf{3}"),
    ("3", r"\text{$3$}"),
    ("3", "3."),
    ("4.5e33", r"4.5 \times 10^{33}"),
    ("4.5e33", r"45 \cdot 10^{32}"),
    ("1e-4", "0.0001"),
    ("1e11", "100000000000"),
    (r"30^\circ, 60^\circ", "60, 30"),
    (r"3 \text{ cm}, 4 \text{ cm}", "3, 4"),
    (r"(2\text{ m}, 3\text{ m})", "(2, 3)"),
    (r"\frac{9a+1}{2}\text{ units}", r"\frac{9a+1}{2}"),
    # What could be a unit is an unknown here.
    ("2m+3s", "3s+2m"),
    ("3s", "s + 2s"),
    ("m^2 + 2h", "2h + m^2"),
    # Digits in another base.
    ("317_8", "317_{8}"),
    ("317_8", r"317_{\text{eight}}"),
    ("317_8", "317"),
    ("52", "52_{10}"),
    # Words and letters.
    (r"\text{Ada}", "Ada"),
    (r"\text{Ada}", r"\textbf{ada}"),
    (r"\text{Ada}", r"\mbox{Ada}."),
    (r"\text{prism}", "a prism"),
    (r"\text{south}", "South"),
    (r"\text{(B)}", "B"),
    (r"\text{(B)}", r"\textbf{(B)}\ 12"),
    ("C", r"\text{(C)}"),
    # Intervals and inequalities.
    (r"x \in [-3,5]", "[-3, 5]"),
    ("[-3, 5]", r"-3 \le x \le 5"),
    (r"x \in [-3,5]", r"5 \geq x \geq -3"),
    (r"(4,\infty)", "x > 4"),
    (r"(4,\infty)", "4 < y"),
    (r"(4,\infty)", r"x \in (4, +\infty)"),
    (r"(4,\infty)", "(4, ∞)"),
    (r"(-\infty, 1]", r"x \leqslant 1"),
    (r"(-\infty, 1) \cup (6, \infty)", r"x < 1 \text{ or } x > 6"),
    (r"(-\infty, 1) \cup (6, \infty)", r"(6, \infty) \cup (-\infty, 1)"),
    (r"(0,4) \cup (4,9)", r"x \in (0, 4) ∪ (4, 9)"),
    (r"\left(\frac{1}{5},\frac{7}{3}\right]", r"\dfrac{1}{5} < x \le \dfrac{7}{3}"),
    # Matrices and vectors.
    (
        r"\begin{pmatrix} 3 & 0 \\ 1 & -2 \end{pmatrix}",
        r"\begin{bmatrix} 3 & 0 \\ 1 & -2 \end{bmatrix}",
    ),
    (
        r"\begin{pmatrix} 1/4 \\ -2/3 \end{pmatrix}",
        r"\begin{pmatrix} \dfrac{1}{4} \\[4pt] -\dfrac{2}{3} \end{pmatrix}",
    ),
    # Lists.
    ("4,-9", "-9, 4"),
    ("4,-9", r"x = 4 \text{ or } x = -9"),
    ("2, 6, 8", "2, 6, and 8"),
    (r"\{2\pm\sqrt{3},-1\}", r"-1, 2+\sqrt{3}, 2-\sqrt{3}"),
    (r"\emptyset", r"\varnothing"),
]
DIFFERENT = [
    ("5", "6"),
    ("1/3", "0.33"),  # two digits say too little
    ("1/3", "0.334"),
    ("2", "2.0000001"),
    ("50", "50%"),
    ("9", r"9\%"),
    ("2^997", "2^{998}"),
    ("10^{20}", "10^{20}+1"),
    ("n", "n+1"),
    ("n", "m"),
    ("1", "n/n"),  # other unknowns, even if they cancel
    ("2^n", "n^2"),
    ("(1, 2)", "(2, 1)"),
    ("(1, 2)", "{1, 2}"),
    ("{1, 2}", "{1, 2, 3}"),
    ("{1, 2}", "{1, 1}"),
    ("x=1, y=2", "x=2, y=1"),
    ("[-1, 1]", "(-1, 1)"),
    ("(0, 1]", "(0, 1)"),
    (r"x \le 3", "x < 3"),
    ("3", "3 or 4"),
    ("n(n+1)/2", r"\sum_{i=1}^{n} i"),  # the sum is left to be carried out
    ("Yes", "No"),
    (r"3\frac{1}{2}", "31/2"),
    ("0", "0.0001"),
    (r"70^\circ", r"\$70"),
    (r"40\mbox{ cm}^2", r"40 \text{ cm}^3"),
    (r"40\mbox{ cm}^2", r"40 \text{ inches}^2"),
    (r"7.2 \text{ cents}", r"7.2 \text{ dollars}"),
    (r"\$45", "45 cents"),
    (r"3\text{ m}", r"3\text{ s}"),
    (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}\text{ in}"),
    ("4.5e33", r"4.5 \times 10^{32}"),
    ("1e11", "1e12"),
    ("3e", "3e1"),
    ("3s", "3"),
    ("2m", "2"),
    ("5h", "5"),
    (r"3\text{ million}", "3"),
    (r"30^\circ, 60^\circ", r"30^\circ, 45^\circ"),
    ("3", "3 million"),
    ("3", "3 dozen"),
    ("5", "5 percent"),
    ("12345", "123,45"),
    ("625", ".625"),
    (r"51 \frac{1}{4}", r"\frac{51}{4}"),
    ("317_8", "317_9"),
    ("317_8", "3178"),
    ("317_8", "207"),  # the same number, but not written in base 8
    ("317", "317_8"),
    (r"\text{Ada}", r"\text{Eve}"),
    (r"\text{even}", "not even"),
    (r"\text{(B)}", r"\text{(C)}"),
    (r"\text{(B)}", "BC"),
    (r"\text{(B)}", "12"),
    (r"x \in [-3,5]", "[-3, 5)"),
    (r"x \in [-3,5]", r"-3 < x < 5"),
    (r"x \in [-3,5]", r"x \le 5"),
    (r"(4,\infty)", r"x \ge 4"),
    (r"(4,\infty)", "x < 4"),
    (r"(4,\infty)", r"(-\infty, 4)"),
    (r"(-\infty, 1) \cup (6, \infty)", r"(-\infty, 6) \cup (1, \infty)"),
    (r"(-\infty, 1) \cup (6, \infty)", "x < 1"),
    ("12", "x > 12"),
    (r"\begin{pmatrix} 2 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 2 & 3 \end{pmatrix}"),
    (r"\begin{pmatrix} 2 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 3 \\ 2 \end{pmatrix}"),
    ("4,-9", "4"),
    ("4,-9", "4, 9"),
    ("2, 6, 8", "268"),
]


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_same_values(reference, answer):
    assert equivalent(reference, answer)


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different_values(reference, answer):
    assert not equivalent(reference, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "12_8 + 1",
        "2 3",
        "n!!",
        "10^10^10",
        "n +",
        "1 + 2 + ... + n",
        "(3",
        "=",
        "",
    ],
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


# ------------------------------------------------------------------------------------- workers


def test_grades_keep_the_order_and_their_texts():
    pairs = [
        ("x^2-1", "(x-1)(x+1)"),
        ("29", "There are 29 strings of length 6"),
        ("n", r"so \boxed{n+1}"),
        ("x^2-1", "(x-1)(x+1)"),
        ("7", "7"),
        ("7", "n!!"),
        ("n +", "3n"),
    ]
    assert grade_answers(pairs, num_workers=1) == [
        Grade("correct", "(x-1)(x+1)"),
        Grade("no answer", None),
        Grade("wrong", "n+1"),
        Grade("correct", "(x-1)(x+1)"),
        Grade("correct", "7"),
        Grade("no answer", "n!!"),
        Grade("error", "3n"),
    ]


def test_nothing_to_grade():
    assert grade_answers([]) == []


def test_hostile_expressions_end_and_do_not_block_the_others():
    pairs = [("7", r"\lfloor 10^{10^{10}} \rfloor"), ("n", "2n/2"), ("m", "m+1")]
    outcomes = [grade.outcome for grade in grade_answers(pairs, num_workers=1, time_limit=1.5)]
    assert outcomes[0] in ("timeout", "error")
    assert outcomes[1:] == ["correct", "wrong"]


def test_towers_of_powers_are_compared_without_computing_them():
    pairs = [("1", "10^{10^{10}}"), ("2", "2^{2^{2^{2^{2^{2}}}}}")]
    grades = grade_answers(pairs, num_workers=1, time_limit=5)
    assert {grade.outcome for grade in grades} <= {"wrong", "timeout"}


FAKE_WORKER = """
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    reference, answer = json.loads(line)
    if answer == "h+1":
        time.sleep(60)
    if answer == "d+1":
        sys.exit(1)
    print("correct" if reference == "n" else "wrong", flush=True)
"""


@pytest.fixture
def fake_worker(monkeypatch):
    """A worker that starts at once, hangs on one answer and dies of another."""

    def use(script: str = FAKE_WORKER) -> None:
        monkeypatch.setattr(
            workers, "_worker_command", lambda limit: [sys.executable, "-c", script]
        )

    use()
    return use


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_hanging_and_a_dying_item_cost_only_themselves(fake_worker, num_workers):
    answers = ["1+n", "h+1", "2+n", "d+1", "3+n", *(f"{k}n" for k in range(4, 60))]
    start = time.perf_counter()
    grades = grade_answers(
        [("n", answer) for answer in answers], num_workers=num_workers, time_limit=0.5
    )
    outcomes = dict(zip(answers, (grade.outcome for grade in grades), strict=True))
    assert outcomes.pop("h+1") == "timeout"
    assert outcomes.pop("d+1") == "error"
    assert set(outcomes.values()) == {"correct"}
    assert time.perf_counter() - start < 10


def test_a_worker_that_does_not_start_says_why(fake_worker):
    fake_worker("import sys; sys.exit('no such library')")
    with pytest.raises(RuntimeError, match="did not start: no such library"):
        grade_answers([("n", "2n/2")])


def test_no_process_is_left_behind(fake_worker):
    psutil = pytest.importorskip("psutil")
    before = set(psutil.Process().children(recursive=True))
    grade_answers([("n", "h+1"), ("n", "2n")], time_limit=0.3)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_plain_numbers_and_equal_texts_need_no_worker(monkeypatch):
    monkeypatch.setattr(workers, "_worker_command", lambda limit: ["/nonexistent"])
    pairs = [("252", "252"), ("252", "251"), ("1/2", "0.5"), ("a + b", "a  + b"), ("2,500", "2500")]
    outcomes = [grade.outcome for grade in grade_answers(pairs)]
    assert outcomes == ["correct", "wrong", "correct", "correct", "correct"]


# --------------------------------------------------------------------------------------- cache


@pytest.fixture
def cached(tmp_path, fake_worker):
    """A cache file with three grades, and their pairs."""
    pairs = [("n", "1+n"), ("m", "2+m"), ("n", "3+n")]
    path = tmp_path / "grades" / "cache.jsonl"
    grades = grade_answers(pairs, cache=path)
    assert [grade.outcome for grade in grades] == ["correct", "wrong", "correct"]
    return path, pairs, grades


def _no_worker(monkeypatch) -> None:
    monkeypatch.setattr(workers, "_worker_command", lambda limit: ["/nonexistent"])


def test_cached_grades_need_no_worker(cached, monkeypatch):
    path, pairs, grades = cached
    before = path.stat().st_mtime_ns
    _no_worker(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grade_answers(pairs, cache=path) == grades
    assert path.stat().st_mtime_ns == before


def test_new_grades_join_the_cached_ones(cached, monkeypatch):
    path, pairs, _ = cached
    grade_answers([("n", "4+n")], cache=path)
    _no_worker(monkeypatch)
    outcomes = [grade.outcome for grade in grade_answers([("n", "4+n"), *pairs], cache=path)]
    assert outcomes == ["correct", "correct", "wrong", "correct"]


def test_a_timeout_counts_only_up_to_its_limit(tmp_path, fake_worker, monkeypatch):
    path = tmp_path / "cache.jsonl"
    assert grade_answers([("n", "h+1")], time_limit=0.3, cache=path)[0].outcome == "timeout"
    _no_worker(monkeypatch)
    assert grade_answers([("n", "h+1")], time_limit=0.2, cache=path)[0].outcome == "timeout"
    with pytest.raises(OSError, match="nonexistent"):
        grade_answers([("n", "h+1")], time_limit=0.4, cache=path)


def test_errors_are_not_cached(tmp_path, fake_worker, monkeypatch):
    path = tmp_path / "cache.jsonl"
    assert grade_answers([("n", "d+1")], cache=path)[0].outcome == "error"
    fake_worker(FAKE_WORKER.replace("d+1", "-"))
    assert grade_answers([("n", "d+1")], cache=path)[0].outcome == "correct"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[: text.rindex("\n", 0, -1) + 1],  # cut between two lines
        lambda text: text + '["n"]\n',
        lambda text: "",
        lambda text: "something else\n",
        lambda text: "[]\n",
        lambda text: text.replace("lalp grading", "lalp older grading"),
    ],
)
def test_a_damaged_or_foreign_cache_is_ignored_and_rewritten(cached, monkeypatch, damage):
    path, pairs, grades = cached
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match=r"cache\.jsonl .*; grading anew"):
        assert grade_answers(pairs, cache=path) == grades
    _no_worker(monkeypatch)
    assert grade_answers(pairs, cache=path) == grades
    header = json.loads(path.read_text().splitlines()[0])
    assert header == {"key": workers.grading_key(), "records": 3}
