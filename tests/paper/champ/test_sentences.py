"""Reading the answer that a closing sentence states."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.paper.champ.sentences import extract_from_sentence
from tests.grading.test_answers import texts

VALUE = "What is the smallest value of the quotient?"
COUNT = "How many marbles are in the jar?"
AT_MOST = "At most how many of the five switches can be on?"


# The verb that states a value is missing, or what follows would need a guess.
UNCLEAR = [
    "The smallest value is achieved when one of a and b is 0.",
    *("The smallest value is not 3/8.", "The smallest value is greater than 2."),
    *("The smallest value is 5 times the largest.", "The value is a multiple of 6."),
    "The value is 2 if n is odd, and 3 if n is even.",
    "The value is 2 (for n = 1) and 3 (for n = 2).",
    "The value is 0 when n is a square, and 1 when n is 7.",
    *("The smallest value is 3, so the final value is 4.", "The value is approximately n log(n)."),
    *("The value is less than or equal to 9.", "There are 5 such quotients."),
    "It cannot be determined.",
]


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
        *((sentence, VALUE, None) for sentence in UNCLEAR),
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


@given(texts, st.sampled_from(["", VALUE, COUNT, AT_MOST]))
def test_reading_never_fails(text, question):
    found = extract_from_sentence(text, question)
    assert found is None or isinstance(found, str)


def test_reading_a_long_degenerate_text_is_fast():
    start = time.perf_counter()
    assert extract_from_sentence("The value is " + "(" * 900 + "1" + ")" * 900) is not None
    assert extract_from_sentence("It is 1 and it is " * 5_000) is None
    assert time.perf_counter() - start < 5
