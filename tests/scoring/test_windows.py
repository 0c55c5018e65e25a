"""Window forms, the contexts they give each step, and the rows and batches planned from them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import pytest
from conftest import spans_of
from hypothesis import example, given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.scoring.engine.rows import Row, batch_rows, plan_rows, spread_rows
from lalp.scoring.equations import window_starts
from lalp.scoring.windows import Window, parse_window, parse_windows

# Five steps that begin at tokens 0, 3, 5, 9 and 10.
STEPS = spans_of([3, 2, 4, 1, 5])

whole = st.integers(0, 10**6).map(str)
percents = st.decimals(0, 100, allow_nan=False, places=7).map(lambda number: f"{number:f}%")
forms = st.one_of(whole, whole.map(lambda n: f"{n}t"), percents, st.just("all"))
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=25)


@pytest.mark.parametrize(
    ("text", "window", "written"),
    [
        ("0", Window("steps", Fraction(0)), "0"),
        (" 4 ", Window("steps", Fraction(4)), "4"),
        ("4.0", Window("steps", Fraction(4)), "4"),
        ("04", Window("steps", Fraction(4)), "4"),
        (4, Window("steps", Fraction(4)), "4"),
        ("12.50%", Window("fraction", Fraction(1, 8)), "12.5%"),
        ("0.000001%", Window("fraction", Fraction(1, 10**8)), "0.000001%"),
        ("100%", Window("fraction", Fraction(1)), "100%"),
        ("256t", Window("tokens", Fraction(256)), "256t"),
        (Window("all"), Window("all"), "all"),
    ],
)
def test_every_form_is_read_and_written_back(text, window, written):
    assert parse_window(text) == window
    assert str(window) == written


@given(forms, forms)
def test_a_windows_name_is_read_back_and_is_its_own(first, second):
    first, second = parse_window(first), parse_window(second)
    assert parse_window(str(first)) == first
    assert (str(first) == str(second)) == (first == second)


MALFORMED = "x -1 +4 1.5 4.5t 101% 100.001% -5% % t 1e2 4steps All nan 1_000 0x4 ٤ ½ .5% 5.%"


@pytest.mark.parametrize("text", [*MALFORMED.split(), "", "25 %", "4 t", "1" * 99, None, True, 2.5])
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match=r"not understood: .*[gG]ive a number of steps"):
        parse_window(text)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([4, "4"], "window 4 is given more than once"),
        (["25%", "0", "25.0%"], "window 25% is given more than once"),
        ([], "no window given"),
    ],
)
def test_no_window_and_a_repeated_window_are_refused(windows, message):
    with pytest.raises(InputError, match=message):
        parse_windows(windows)


@pytest.mark.parametrize(
    ("window", "starts"),
    [
        ("0", [0, 3, 5, 9, 10]),
        ("2", [0, 0, 0, 3, 5]),
        ("9", [0, 0, 0, 0, 0]),
        # Preceding steps 0, 1, 2, 3, 4; 12.5 % of them rounded up: 0, 1, 1, 1, 1.
        ("12.5%", [0, 0, 3, 5, 9]),
        # 60 %: 0, 1, 2, 2, 3.
        ("60%", [0, 0, 0, 3, 3]),
        ("0%", [0, 3, 5, 9, 10]),
        ("100%", [0, 0, 0, 0, 0]),
        ("all", [0, 0, 0, 0, 0]),
        ("0t", [0, 3, 5, 9, 10]),
        ("4t", [0, 0, 1, 5, 6]),
        ("256t", [0, 0, 0, 0, 0]),
    ],
)
def test_what_each_step_sees(window, starts):
    assert window_starts(parse_window(window), STEPS) == starts


def test_a_step_without_tokens_still_counts_as_a_step():
    steps = spans_of([3, 0, 4])
    assert window_starts(parse_window("1"), steps) == [0, 0, 3]
    assert window_starts(parse_window("2"), steps) == [0, 0, 0]
    assert window_starts(parse_window("4"), []) == window_starts(parse_window("4t"), []) == []


@given(percent=st.integers(0, 100), preceding=st.integers(0, 300))
@example(percent=7, preceding=100)  # with floats, 0.07 * 100 is a little above 7
def test_shares_are_rounded_up_exactly(percent, preceding):
    start = window_starts(parse_window(f"{percent}%"), spans_of([1] * (preceding + 1)))[-1]
    # Smallest whole number of steps that is at least the share, in whole numbers only.
    seen = preceding - start
    assert 100 * seen >= percent * preceding
    assert 100 * (seen - 1) < percent * preceding


def contexts_of(windows: Iterable[str], steps) -> list[tuple[int, tuple[int, int]]]:
    """Every (context start, step) pair of a sweep, after the whole response for GALP."""
    pairs = [(0, (0, steps[-1][1]))]
    for window in windows:
        pairs += zip(window_starts(parse_window(window), steps), steps, strict=True)
    return pairs


def test_rows_by_hand():
    # Window 1: steps 1 and 2 see from token 0, step 3 from 3, step 4 from 5, step 5 from 9.
    rows = plan_rows(contexts_of(["1"], STEPS))
    assert rows == [
        Row(0, 15, ((0, 15),)),
        Row(3, 9, ((5, 9),)),
        Row(5, 10, ((9, 10),)),
        Row(9, 15, ((10, 15),)),
    ]
    assert [row.num_inputs for row in rows] == [14, 5, 4, 5]
    assert [row.num_targets for row in rows] == [15, 4, 1, 5]


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2, st.integers(1, 20)), max_size=40))
def test_every_context_is_covered_by_exactly_the_row_of_its_start(parts):
    contexts = [(start, (start + gap, start + gap + size)) for start, gap, size in parts]
    rows = plan_rows(contexts)
    assert sorted(row.start for row in rows) == sorted({start for start, _ in contexts})
    for row in rows:
        asked = {token for s, span in contexts if s == row.start for token in range(*span)}
        read = [token for span in row.targets for token in range(*span)]
        # In order, each token once, nothing that nobody asked for, and no token after the last.
        assert read == sorted(asked)
        assert row.end == max(asked) + 1
        assert row.num_targets == len(asked)
        assert row.num_inputs == row.end - row.start - 1


def test_a_sweep_costs_what_its_largest_window_costs():
    def fed(*windows: str) -> int:
        return sum(row.num_inputs for row in plan_rows(contexts_of(windows, steps)))

    # A hundred steps of ten tokens. Window 8: the whole response feeds 999 tokens; a row of nine
    # steps (89 tokens fed) begins at each of steps 2 to 92.
    steps = spans_of([10] * 100)
    assert fed("8") == 999 + 91 * 89
    # Only the rows at the end are new: window 4 from steps 93-96, 2 from 97-98, 1 from 99.
    assert fed("1", "2", "4", "8") == 999 + 91 * 89 + 4 * 49 + 2 * 29 + 19


def test_batches_by_hand():
    # Longest first: 9 alone in 10; 5 and 4 padded to 2 x 5; 4, 2 padded to 2 x 4.
    assert batch_rows([4, 9, 2, 5, 4], 10) == [[1], [3, 0], [4, 2]]
    assert batch_rows([30, 1], 10) == [[0], [1]]
    assert batch_rows([0, 0, 0], 10) == [[0, 1, 2]]


@given(st.lists(st.integers(0, 60), max_size=50), st.integers(1, 200))
def test_batches_partition_the_rows_within_the_budget(lengths, budget):
    batches = batch_rows(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths, reverse=True)


def test_rows_are_spread_by_hand():
    # 20 tokens, at most 6 in a batch on average: four batches for two workers.
    assert spread_rows([3, 7, 2, 4, 4], 6, 2) == [[1], [3], [4], [0, 2]]
    assert spread_rows([], 6, 2) == []
    assert spread_rows([5], 6, 3) == [[0]]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60), st.integers(1, 4))
def test_spread_rows_fill_batches_of_like_size(lengths, budget, workers):
    batches = spread_rows(lengths, budget, workers)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    sizes = [sum(lengths[row] for row in batch) for batch in batches]
    if lengths and len(batches) % workers == 0:
        assert max(sizes) - min(sizes) <= max(lengths)
    assert sum(sizes) <= budget * workers * -(-sum(sizes) // (budget * workers))
