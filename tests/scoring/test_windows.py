"""Window forms, the contexts they give each step, and the rows and batches planned from them."""

from __future__ import annotations

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


# --- forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("0", Window("steps", Fraction(0))),
        ("4", Window("steps", Fraction(4))),
        ("25%", Window("fraction", Fraction(1, 4))),
        ("12.5%", Window("fraction", Fraction(1, 8))),
        ("100%", Window("fraction", Fraction(1))),
        ("256t", Window("tokens", Fraction(256))),
        ("all", Window("all")),
    ],
)
def test_every_form_is_read_and_written_back(text, window):
    assert parse_window(text) == window
    assert str(window) == text


def test_other_ways_to_name_a_window():
    assert parse_window(4) == parse_window(" 4 ") == parse_window("4.0") == parse_window("04")
    assert str(parse_window("7.50%")) == "7.5%"
    assert str(parse_window("0.000001%")) == "0.000001%"
    window = parse_window("256t")
    assert parse_window(window) is window


@given(forms, forms)
def test_a_windows_name_is_read_back_and_is_its_own(first, second):
    first, second = parse_window(first), parse_window(second)
    assert parse_window(str(first)) == first
    assert (str(first) == str(second)) == (first == second)


MALFORMED = "x -1 +4 1.5 4.5t 101% 100.001% -5% % t 1e2 4steps All nan 1_000 0x4 ٤ ½ .5% 5.%"


@pytest.mark.parametrize("text", [*MALFORMED.split(), "", "25 %", "4 t", "1" * 99, None, True, 2.5])
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match="not understood: give a number of steps"):
        parse_window(text)


@pytest.mark.parametrize(
    ("windows", "named"),
    [(["4", "4"], "4"), ([4, "4"], "4"), (["25%", "0", "25.0%"], "25%"), (["all", "all"], "all")],
)
def test_a_repeated_window_is_refused(windows, named):
    with pytest.raises(InputError, match=f"window {named} is given more than once"):
        parse_windows(windows)


def test_several_windows_keep_their_order():
    assert [str(w) for w in parse_windows(["all", 4, "25%", "4t"])] == ["all", "4", "25%", "4t"]
    with pytest.raises(InputError, match="no window given"):
        parse_windows([])


# --- contexts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "starts"),
    [
        ("0", [0, 3, 5, 9, 10]),
        ("1", [0, 0, 3, 5, 9]),
        ("2", [0, 0, 0, 3, 5]),
        ("9", [0, 0, 0, 0, 0]),
        # Preceding steps 0, 1, 2, 3, 4; 12.5 % of them rounded up: 0, 1, 1, 1, 1.
        ("12.5%", [0, 0, 3, 5, 9]),
        # 50 %: 0, 1, 1, 2, 2.
        ("50%", [0, 0, 3, 3, 5]),
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


@given(lengths, forms)
def test_a_context_ends_where_its_step_begins(lengths, form):
    steps = spans_of(lengths)
    starts = window_starts(parse_window(form), steps)
    assert len(starts) == len(steps)
    assert all(0 <= start <= begin for start, (begin, _) in zip(starts, steps, strict=True))
    assert starts == sorted(starts)


# --- rows -------------------------------------------------------------------------------------


def contexts_of(windows: list[str], steps) -> list[tuple[int, tuple[int, int]]]:
    """Every (context start, step) pair of a sweep, after the whole response for GALP."""
    pairs = [(0, (0, steps[-1][1]))]
    for window in windows:
        pairs += zip(window_starts(parse_window(window), steps), steps, strict=True)
    return pairs


def fed(windows: list[str], steps) -> int:
    return sum(row.num_inputs for row in plan_rows(contexts_of(windows, steps)))


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


def test_spans_that_touch_or_overlap_are_read_once():
    rows = plan_rows([(0, (0, 3)), (0, (5, 9)), (0, (3, 4)), (0, (5, 7)), (0, (0, 3))])
    assert rows == [Row(0, 9, ((0, 4), (5, 9)))]


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


@given(lengths)
def test_a_sweep_over_steps_has_at_most_one_row_per_step(lengths):
    steps = spans_of(lengths)
    rows = plan_rows(contexts_of(["0", "1", "2", "4", "8", "10%", "50%", "all"], steps))
    assert len(rows) == len(steps)
    assert {row.start for row in rows} == {start for start, _ in steps}


@given(lengths)
def test_a_sweep_costs_what_its_largest_window_costs(lengths):
    # Window 8 leaves rows out where fewer than 8 steps follow, smaller windows do not. So the
    # bound is window 8 on a text that goes on; the whole response is fed in either case.
    steps = spans_of(lengths)
    goes_on = spans_of([*lengths, *[1] * 8])
    largest = [pair for pair in contexts_of(["8"], goes_on) if pair[0] > 0]
    bound = sum(row.num_inputs for row in plan_rows(largest)) + steps[-1][1] - 1
    assert fed(["1", "2", "4", "8"], steps) <= bound
    # Never more than one plan per window.
    assert fed(["1", "2", "4", "8"], steps) <= sum(fed([w], steps) for w in ("1", "2", "4", "8"))


def test_the_cost_of_a_sweep_by_hand():
    # A hundred steps of ten tokens. Window 8: the whole response feeds 999 tokens; a row of nine
    # steps (89 tokens fed) begins at each of steps 2 to 92.
    steps = spans_of([10] * 100)
    assert fed(["8"], steps) == 999 + 91 * 89
    # Only the rows at the end are new: window 4 from steps 93-96, 2 from 97-98, 1 from 99.
    assert fed(["1", "2", "4", "8"], steps) == 999 + 91 * 89 + 4 * 49 + 2 * 29 + 19
    assert sum(fed([w], steps) for w in ("1", "2", "4", "8")) > 2 * fed(["1", "2", "4", "8"], steps)


# --- batches ----------------------------------------------------------------------------------


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
    assert batch_rows(list(lengths), budget) == batches


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
