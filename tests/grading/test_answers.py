"""Reading the answer that a text marks."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.grading.answers import extract_answer, extract_choice, final_part, is_choice


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


def test_references_that_are_letters():
    assert all(map(is_choice, ["B", "(B)", r"\text{(B)}", r"\textbf{B}", "$B$"]))
    assert not any(map(is_choice, ["2", "BC", "x", r"\text{Ada}", "K", "A_1", "A+B", ""]))


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("So 7.", "So 7."),
        ("<think>Hm, 8?</think>So 7.", "So 7."),
        ("Hm, 8?</think>So 7.", "So 7."),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>The answer is 7.", None),
        ("<think>a</think>b<think>c", None),
        ("<think>a</think>", ""),
        ("", ""),
    ],
)
def test_the_answer_follows_the_reasoning(text, final):
    assert final_part(text) == final


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
