"""Coverage: nearest neighbours, equal numbers of candidates, random chunks, intervals."""

from __future__ import annotations

import itertools
import json
import math
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lalp.errors import InputError
from lalp.paper.coverage import measure, neighbors, plots, texts
from lalp.paper.coverage.measure import ALL_CANDIDATES, EQUAL_NUMBERS, Contrast, contrast_levels
from lalp.paper.coverage.neighbors import ALL, assign_folds, expected_nearest, hold_out
from lalp.paper.coverage.texts import CHUNKS, PIECES, RESPONSES, STEPS, Level
from lalp.pools.reading import load_pool
from lalp.stats import Estimate
from lalp.steps.sentences import split_sentences
from tests.paper.verdict_cells import run_verdict_cells

DRAWS = {"num_resamples": 500, "seed": 0}


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_units(seed: int, count: int, dim: int = 6) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def level_of(rows: list[tuple[str, str, str]], vectors: np.ndarray) -> Level:
    """A level of (prompt, teacher, text) rows; one response per prompt and teacher."""
    items = pd.DataFrame(rows, columns=["prompt_id", "teacher", "text"])
    items["response_id"] = items["prompt_id"] + "/" + items["teacher"]
    return Level(items.assign(place=0), vectors)


def world(num_prompts: int, per_response: int, seed: int, dim: int = 24) -> Level:
    """Unrelated random vectors: nothing is nearer to anything but by chance."""
    places = itertools.product(range(num_prompts), "AB", range(per_response))
    rows = [(f"p{i}", teacher, f"{i}{teacher}{k}") for i, teacher, k in places]
    return level_of(rows, random_units(seed, len(rows), dim))


def folds_of(num_prompts: int, num_folds: int) -> dict[str, int]:
    return assign_folds([f"p{i}" for i in range(num_prompts)], num_folds, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([1, 50]))
def test_blocked_search_equals_the_plain_product(num_queries, num_candidates, seed, block):
    queries, candidates = random_units(seed, num_queries), random_units(seed + 1, num_candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lalp.stats.draws._BATCH_NUMBERS", block)
        cosines, places = neighbors.nearest_neighbors(queries, candidates)
        expected = expected_nearest(queries, candidates, [1, ALL])
    plain = queries @ candidates.T
    assert_allclose(cosines, plain.max(axis=1), atol=1e-6)
    assert_allclose(plain[np.arange(num_queries), places], cosines, atol=1e-6)
    assert_allclose(expected[:, 0], plain.mean(axis=1), atol=1e-6)
    assert_allclose(expected[:, 1], plain.max(axis=1), atol=1e-6)


def test_of_equal_candidates_the_first_is_taken():
    candidates = unit([[0, 1], [1, 0], [1, 0], [0, 1], [1, 0]])
    assert neighbors.nearest_neighbors(unit([[1, 0]]), candidates)[1].tolist() == [1]


ITEMS, TWO = world(2, 1, 0).items, random_units(0, 2)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (neighbors.nearest_neighbors, (TWO, TWO[:0]), "no training texts"),
        (expected_nearest, (TWO, TWO[:0], [1]), "no training texts"),
        (expected_nearest, (TWO, TWO, [0]), "0 candidates cannot be drawn: give 1 or more"),
        (assign_folds, ([], 5, 0), "holding out needs two of each"),
        (assign_folds, (["p"], 5, 0), "holding out needs two of each"),
        (assign_folds, (["p", "q"], 1, 0), "holding out needs two of each"),
        (hold_out, (ITEMS, {"p0": 1}), "prompt 'p1' is in no group"),
        (hold_out, (ITEMS, {"p0": 1, "p1": 1}), "all prompts are in one group"),
        (Level, (ITEMS, random_units(0, 3)), "4 texts but 3 vectors"),
        (Level, (ITEMS, 2 * random_units(0, 4)), "not of unit length"),
        (Level, (ITEMS, np.full((4, 2), np.nan)), "not of unit length"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, arguments, message):
    with pytest.raises(InputError, match=message):
        call(*arguments)


def test_an_index_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for index, message in (("tree", "use one of exact, faiss"), ("faiss", "or use index 'exact'")):
        with pytest.raises(InputError, match=message):
            neighbors.nearest_neighbors(TWO, TWO, index=index)


@pytest.mark.parametrize("num_candidates", [1, 7, 5000])
def test_faiss_is_near_the_exact_search_and_never_above(num_candidates):
    pytest.importorskip("faiss", reason="faiss-cpu is an optional package")
    centres = random_units(0, 40, 16)
    rng = np.random.default_rng(1)
    noisy = [
        unit(centres[rng.integers(40, size=n)] + 0.1 * rng.normal(size=(n, 16)))
        for n in (200, num_candidates)
    ]
    exact, _ = neighbors.nearest_neighbors(*noisy)
    cosines, places = neighbors.nearest_neighbors(*noisy, index="faiss")
    assert (cosines <= exact + 1e-5).all()
    assert (cosines >= exact - 1e-5).mean() > 0.95
    assert_allclose((noisy[0] * noisy[1][places]).sum(axis=1), cosines, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.integers(1, 9))
def test_expected_largest_is_the_mean_over_all_draws(values, count):
    draws = list(itertools.combinations(values, min(count, len(values))))
    mean = np.mean([max(draw) for draw in draws])
    found = neighbors.expected_largest(np.array([values, values[::-1]]), [count])
    assert_allclose(found, [[mean], [mean]], atol=1e-9)


def test_of_many_values_only_the_high_ones_matter():
    values = np.random.default_rng(0).normal(size=(2, 3000))
    counts = [1, 200, 2999]
    # A value is the largest where all others drawn are among the lower ones.
    weights = [[math.comb(r, m - 1) / math.comb(3000, m) for m in counts] for r in range(3000)]
    exact = np.sort(values, axis=1) @ np.array(weights)
    assert_allclose(neighbors.expected_largest(values, counts[1:]), exact[:, 1:])
    assert_allclose(neighbors.expected_largest(values, counts), exact)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 9), st.integers(0, 99))
def test_folds_are_even_and_follow_the_seed_alone(num_prompts, num_folds, seed):
    prompts = [f"p{i}" for i in range(num_prompts)]
    folds = assign_folds(prompts, num_folds, seed)
    assert set(folds) == set(prompts)
    sizes = pd.Series(folds).value_counts()
    assert len(sizes) == min(num_folds, num_prompts)
    assert sizes.max() - sizes.min() <= 1
    assert assign_folds([*prompts[::-1], *prompts], num_folds, seed) == folds


def test_no_candidate_shares_a_prompt_or_a_group_with_what_is_held_out():
    level = world(7, 3, 0)
    groups = {f"p{i}": "xyz"[i % 3] for i in range(7)}
    comparisons = hold_out(level.items, groups)
    held_out = np.concatenate([comparison.queries for comparison in comparisons])
    assert sorted(held_out) == list(range(len(level.items)))
    labels = level.items["prompt_id"].map(groups).to_numpy()
    for comparison in comparisons:
        (label,) = set(labels[comparison.queries])
        assert label not in labels[comparison.candidates]
        assert len(comparison.queries) + len(comparison.candidates) == len(labels)
    assert neighbors.smallest_choice(comparisons) == len(labels) - (labels == "x").sum()


def test_of_large_levels_an_even_part_is_held_out(monkeypatch):
    monkeypatch.setattr(neighbors, "_MAX_QUERIES", 20)
    items = world(5, 7, 0).items  # 10 responses of 7 texts: 2 of each may be held out
    items = pd.concat([items, items[:1].assign(response_id="short")], ignore_index=True)
    groups = {f"p{i}": i for i in range(5)}
    held_out = np.concatenate([comparison.queries for comparison in hold_out(items, groups)])
    counts = items.iloc[held_out]["response_id"].value_counts()
    assert counts.to_dict() == dict.fromkeys(items["response_id"].unique(), 1)
    monkeypatch.setattr(neighbors, "_MAX_QUERIES", 22)
    held_out = np.concatenate([comparison.queries for comparison in hold_out(items, groups)])
    assert np.bincount(held_out[held_out < 70] % 7).tolist() == [0, 0, 0, 10, 0, 0, 10]
    assert sum(len(c.candidates) for c in hold_out(items, groups)) == 4 * len(items)


def test_candidates_by_the_same_and_by_other_teachers():
    level = world(2, 1, 0)  # p0/A, p0/B, p1/A, p1/B
    parts = neighbors.split_by_teacher(level.items, hold_out(level.items, {"p0": 0, "p1": 1}))
    for whose, expected in (("same teacher", [2, 3, 0, 1]), ("other teachers", [3, 2, 1, 0])):
        pairs = [(c.queries.tolist(), c.candidates.tolist()) for c in parts[whose]]
        assert pairs == [([row], [other]) for row, other in enumerate(expected)]


WORDS = ["We add.", "So $x = 3$.", "\n\n", "Then\n", "it holds.", "因此成立。", "1. a", "  "]
prose = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(prose, st.integers(0, 99))
def test_chunks_partition_the_text_with_the_lengths_of_the_steps(text, seed):
    spans = split_sentences(text)
    chunks = texts.permute_lengths(text, spans, seed)
    assert "".join(text[a:b] for a, b in chunks) == text
    assert all(a < b for a, b in chunks)
    assert chunks == texts.permute_lengths(text, spans, seed)
    of_steps, of_chunks = (
        sorted(len(texts.WORD.findall(text[a:b])) for a, b in parts) for parts in (spans, chunks)
    )
    assert [n for n in of_steps if n] == [n for n in of_chunks if n]


def test_chunks_cut_no_word_and_move_the_boundaries():
    text = "One. Two three four. Five six. Seven eight nine ten eleven."
    spans = split_sentences(text)
    chunks = texts.permute_lengths(text, spans, 3)
    assert all(text[a - 1] == " " for a, _ in chunks[1:])
    assert texts.shared_boundaries(spans, chunks) == (0, 3)
    assert texts.permute_lengths(text, [(0, len(text))], 0) == [(0, len(text))]
    assert texts.permute_lengths("", [], 0) == []
    assert texts.permute_lengths(" \n", [(0, 2)], 0) == [(0, 2)]
    assert texts.shared_boundaries([(0, 2), (2, 5), (5, 9)], [(0, 5), (5, 6), (6, 9)]) == (1, 2)


def test_every_prompt_and_every_response_counts_the_same():
    items = pd.DataFrame({"prompt_id": list("ppppq"), "response_id": list("aaabc")})
    values = np.array([[1.0, 1], [2, np.nan], [3, 1], [6, 0], [5, 9]])
    means = measure.prompt_means(items, values, [1, "all"])
    assert means.index.tolist() == ["p", "q"]
    # Rows with a missing value are left out as a whole: a has (1 + 3) / 2 = 2, b has 6.
    assert means[1].tolist() == [4, 5]
    assert means["all"].tolist() == [0.5, 9]


@pytest.mark.parametrize("size", [0, 1, 5])
def test_few_prompts_have_no_interval(size):
    found = measure.mean_interval(pd.Series([1.0] * size, dtype=float), 100, 0)
    assert f"{size} prompts: no interval" in str(found)


def test_a_contrast_is_paired_by_prompt():
    first = pd.Series(dict(zip("abcdefg", [1.0, 2, 3, 4, 5, 6, 99], strict=True)))
    second = pd.Series(dict(zip("fedcba", [5.0, 4, 3, 2, 1, 1], strict=True)))
    found = measure.contrast(first, second, **DRAWS)
    assert found.difference.value == pytest.approx(5 / 6)  # 0 for a, 1 for the others
    assert found.difference.num_units == 6
    assert found.share_above.value == pytest.approx(5 / 6)
    assert 0.4 < found.share_above.low < 5 / 6 < found.share_above.high < 1
    assert (found.first.value, found.second.value) == (3.5, pytest.approx(16 / 6))


def test_equal_numbers_take_chance_away():
    # Steps are no nearer to each other than responses are; there are only ten times as many.
    levels = {RESPONSES: world(30, 1, 1), STEPS: world(30, 10, 2)}
    found = contrast_levels(measure.nearness_by_prompt(levels, folds_of(30, 5)), **DRAWS)
    assert found["steps - responses", ALL_CANDIDATES].difference.low > 0.1
    equal = found["steps - responses", EQUAL_NUMBERS].difference
    assert equal.low < 0 < equal.high


def test_equal_numbers_leave_what_recurs():
    # Every step is one of eight moves, whatever the prompt; responses are unrelated.
    steps = world(30, 10, 3)
    moves = random_units(4, 8, 24)[np.random.default_rng(5).integers(8, size=len(steps.items))]
    levels = {RESPONSES: world(30, 1, 1), STEPS: Level(steps.items, moves)}
    values = measure.nearness_by_prompt(levels, folds_of(30, 5))
    found = contrast_levels(values, **DRAWS)["steps - responses", EQUAL_NUMBERS]
    assert found.difference.low > 0.3
    assert found.share_above.value == 1
    assert values[STEPS][ALL_CANDIDATES].min() == pytest.approx(1)
    assert list(values[RESPONSES]) == [1, 2, 5, 10, 20, EQUAL_NUMBERS, ALL_CANDIDATES]
    assert_allclose(values[RESPONSES][EQUAL_NUMBERS], values[RESPONSES][ALL_CANDIDATES], atol=1e-6)


def test_curves_end_at_all_candidates():
    values = measure.nearness_by_prompt({RESPONSES: world(6, 1, 1)}, folds_of(6, 2))
    curves = measure.nearness_curves(values, {RESPONSES: 6}, **DRAWS)
    assert curves["candidates"].tolist() == [1, 2, 5, 6]
    assert curves["mean"].is_monotonic_increasing
    assert curves["mean"].iloc[-1] == pytest.approx(values[RESPONSES][ALL_CANDIDATES].mean())


def test_groups_are_told_apart():
    levels = {RESPONSES: world(24, 1, 1), STEPS: world(24, 6, 2)}
    kinds = {f"p{i}": ("odd" if i % 2 else "even") for i in range(24)}
    values = measure.nearness_by_prompt(levels, kinds)
    table = measure.group_table(values, kinds, **DRAWS).set_index(["candidates", "label"])
    keys = itertools.product((ALL_CANDIDATES, EQUAL_NUMBERS), ("even", "odd"))
    assert table.index.tolist() == list(keys)
    gaps = (values[STEPS] - values[RESPONSES]).groupby(kinds).mean()
    for (column, label), difference in table["difference"].items():
        assert difference == pytest.approx(gaps.loc[label, column])


def test_a_teachers_own_texts_are_nearer_if_it_has_a_manner():
    level = world(20, 2, 7)
    manner = np.where(level.items["teacher"] == "A", 1.0, -1.0)[:, None] * np.eye(24)[:1]
    levels = {RESPONSES: Level(level.items, unit(level.vectors + manner))}
    folds = folds_of(20, 5)
    table = measure.teacher_table(levels, folds, **DRAWS)
    assert table["low"][0] > 0.3
    assert table["candidates"][0] == 32  # of one teacher: 16 training prompts, 2 texts each
    alone = level.items["teacher"] == "A"
    one = Level(level.items[alone].reset_index(drop=True), level.vectors[alone])
    assert measure.teacher_table({RESPONSES: one}, folds, **DRAWS).empty


def test_similar_problems_are_left_out():
    # Each even problem has a twin whose response is the same; all else is unrelated.
    level = world(12, 1, 8)
    twins = level.vectors.copy()
    twins[2::4], twins[3::4] = twins[0::4], twins[1::4]
    names = [f"p{i}" for i in range(12)]
    similarity = pd.DataFrame(np.eye(12), index=names, columns=names)
    for i in range(0, 12, 2):
        similarity.iloc[i, i + 1] = similarity.iloc[i + 1, i] = 0.9
    levels = {RESPONSES: Level(level.items, twins), STEPS: world(12, 3, 9)}
    folds = {name: i % 2 for i, name in enumerate(names)}
    sweep = measure.similarity_sweep(levels, folds, similarity, [ALL, 0.5, -1], **DRAWS)
    assert sweep["limit"].unique().tolist() == [ALL, 0.5]  # at -1 nothing would be left
    assert sweep.query("limit == inf")["second"].tolist()[0] == pytest.approx(1)
    # By hand for the lower limit: 10 responses of the 5 other prompts of the other fold.
    expected = []
    for i in range(12):
        others = [j for j in range(12) if j % 2 != i % 2 and j // 2 != i // 2]
        rows = [2 * j + k for j in others for k in (0, 1)]
        expected.append((twins[2 * i : 2 * i + 2] @ twins[rows].T).max(axis=1).mean())
    low = sweep[(sweep["limit"] == 0.5) & (sweep["candidates"] == ALL_CANDIDATES)]
    assert low["second"].iloc[0] == pytest.approx(np.mean(expected), abs=1e-6)
    # The same number is drawn at both limits.
    equal = sweep[sweep["candidates"] == EQUAL_NUMBERS]
    assert equal["second"].iloc[1] == pytest.approx(low["second"].iloc[0])
    assert equal["second"].iloc[0] < 1


def test_neighbours_are_the_nearest_of_other_folds():
    level = Level(ITEMS, unit([[1, 0], [0, 1], [1, 0.1], [1, 5]]))
    found = neighbors.find_neighbors(level, hold_out(ITEMS, {"p0": 0, "p1": 1}))
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found["nearest"].tolist() == [2, 3, 0, 1]
    first = neighbors.Comparison(np.array([0]), np.array([2, 3]))
    values = neighbors.cosines_by_count(level, [first], [ALL])
    assert values[0, 0] == pytest.approx(found["cosine"][0])
    assert np.isnan(values[1:]).all()


def test_share_of_steps_nearer_than_their_response():
    responses = pd.DataFrame({"response_id": ["p/A", "q/A"], "cosine": [0.5, 0.9]})
    steps = pd.DataFrame({"prompt_id": list("pppq"), "cosine": [0.4, 0.6, 0.7, 0.9]})
    found = measure.nearer_steps(responses, steps.assign(response_id=steps["prompt_id"] + "/A"))
    assert found.to_dict() == {"p": pytest.approx(2 / 3), "q": 0}


def test_truncation_by_hand():
    items = pd.DataFrame({"num_tokens": [4, 10, 16], "num_read": [4, 10, 10]})
    row = texts.truncation_table({"responses": Level(items, random_units(0, 3))}).iloc[0]
    assert (row["texts"], row["cut"], row["tokens_longest"]) == (3, 1, 16)
    assert row["share_tokens_lost"] == pytest.approx(6 / 30)
    assert row["share_cut"] == pytest.approx(1 / 3)


def test_excerpts_are_short_and_say_so():
    assert texts.excerpt("one\n two") == "one two"
    assert texts.excerpt(" ".join(map(str, range(20))), 3) == "0 1 2 ..."
    assert texts.excerpt("x" * 200, max_characters=5) == "xxxxx ..."


def contrast_of(difference: tuple[float, float, float], share: float = 1.0) -> Contrast:
    mean, above = Estimate(0.7, 0.6, 0.8, 50), Estimate(share, share - 0.02, share + 0.02, 50)
    return Contrast(mean, mean, Estimate(*difference, 50), above)


def traced(**differences: tuple[float, float, float]) -> pd.DataFrame:
    """A table of long traces in which all levels differ as given, by data set."""
    rows = itertools.product(
        differences, ("steps - responses", "steps - random chunks"), (ALL_CANDIDATES, EQUAL_NUMBERS)
    )
    names = ("difference", "low", "high")
    return pd.DataFrame(
        {"data": data, "label": label, "candidates": candidates, "num_prompts": 50}
        | dict(zip(names, differences[data], strict=True))
        for data, label, candidates in rows
    )


def verdicts_of(
    gap: Contrast,
    equal: Contrast,
    by_category: pd.DataFrame,
    share: float = 0.95,
    long: pd.DataFrame | None = None,
):
    up = contrast_of((0.1, 0.05, 0.2))
    pairs = ((STEPS, PIECES), (STEPS, CHUNKS), (CHUNKS, RESPONSES))
    contrasts = {(f"{first} - {second}", ALL_CANDIDATES): up for first, second in pairs}
    contrasts |= {("steps - responses", ALL_CANDIDATES): gap}
    contrasts |= {("steps - responses", EQUAL_NUMBERS): equal}
    items = world(6, 1, 0).items.assign(num_tokens=[4] * 6 + [20] * 6, num_read=[4] * 6 + [10] * 6)
    levels = dict.fromkeys((RESPONSES, STEPS), Level(items, random_units(0, 12)))
    # Of every prompt's hundred steps that share is nearer than the response.
    rows = [(f"p{i}", f"p{i}", float(k < 100 * share)) for i in range(50) for k in range(100)]
    steps = pd.DataFrame(rows, columns=["prompt_id", "response_id", "cosine"])
    responses = steps.drop_duplicates("prompt_id").assign(cosine=0.5)
    return run_verdict_cells(
        "01_coverage",
        found={RESPONSES: responses, STEPS: steps},
        items=dict.fromkeys(levels, items),
        truncation=texts.truncation_table(levels).set_index("level"),
        contrasts=contrasts,
        by_category=by_category,
        resampling=DRAWS,
        long=traced(gsm8k=UP, math=UP) if long is None else long,
    )


def categories_of(*differences: tuple[float, float, float]) -> pd.DataFrame:
    labels = [f"c{i}" for i in range(len(differences))] + list(measure.TOGETHER)
    rows = [*differences, *[(0.0, -0.1, 0.1)] * 2]
    return pd.DataFrame(
        {"label": label, "candidates": c, "difference": d, "low": low, "high": high}
        | {"num_prompts": 50}
        for c in (ALL_CANDIDATES, EQUAL_NUMBERS)
        for label, (d, low, high) in zip(labels, rows, strict=True)
    )


UP, FLAT, DOWN = (0.1, 0.05, 0.2), (0.01, -0.1, 0.1), (-0.1, -0.2, -0.05)
YES, OPEN, NO = "holds", "not resolved", "does not hold"


@pytest.mark.parametrize(
    ("gap", "equal", "categories", "share", "expected"),
    [
        ((UP, 0.95), (DOWN, 0.2), (UP, UP), 0.95, [YES, NO, YES, YES, YES, NO, YES, YES, YES]),
        ((FLAT, 0.9), (UP,), (UP, FLAT), 0.5, [OPEN, YES, YES, YES, OPEN, YES, OPEN, OPEN, NO]),
        ((UP,), (UP,), (UP, DOWN), 0.95, [YES, YES, YES, YES, YES, YES, NO, NO, YES]),
    ],
)
def test_verdicts_follow_the_intervals(gap, equal, categories, share, expected):
    found = verdicts_of(contrast_of(*gap), contrast_of(*equal), categories_of(*categories), share)
    assert [verdict.verdict for verdict in found[:9]] == expected
    assert "difference is 0.000 [-0.100, 0.100], and 0.000 [" in found[1].why
    assert "cuts 50% of the responses and drops 42% of their tokens" in found[2].why


@pytest.mark.parametrize(
    ("gsm8k", "math", "expected"),
    [(UP, UP, YES), (DOWN, DOWN, NO), (UP, FLAT, OPEN), (UP, DOWN, OPEN)],
)
def test_long_traces_need_both_data_sets(gsm8k, math, expected):
    categories, clear = categories_of(UP), contrast_of(UP)
    found = verdicts_of(clear, clear, categories, long=traced(gsm8k=gsm8k, math=math))[9:]
    assert [verdict.verdict for verdict in found] == [expected] * 3
    assert all(verdict.needs for verdict in found) == (expected == OPEN)


def test_a_pool_without_categories_and_too_few_prompts_settle_nothing():
    nan = (0.1, math.nan, math.nan)
    empty = measure.category_table({}, {})
    found = verdicts_of(contrast_of(nan, math.nan), contrast_of(nan), empty)
    words = [found[i].verdict for i in (0, 1, 4, 6, 7)]
    assert words == [OPEN] * 3 + ["not testable at this scale"] * 2
    assert found[6].run == "one test set"
    assert found[6].why == "the pool's responses name no category"


def small_pool(*categories: str):
    text = "We add {} and 1. Then we write it down. So it is {}."
    return load_pool(
        {"prompt_id": f"p{i}", "prompt": f"What is {i} plus 1?", "teacher": teacher}
        | {"response": text.format(i, i + 1)}
        | ({"category": categories[i % len(categories)]} if categories else {})
        for i in range(6)
        for teacher in "AB"
    )


def test_categories_are_taken_where_every_prompt_has_one():
    assert texts.prompt_categories(small_pool("c0", "c1"))["p3"] == "c1"
    assert texts.prompt_categories(small_pool()) == {}


def test_neighbours_are_written_whole_and_shown_short(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    rows = [(f"p{i}", "A", f"text {i} " + "word " * 30) for i in range(10)]
    level = level_of(rows, random_units(3, 10))
    found = neighbors.find_neighbors(level, hold_out(level.items, folds_of(10, 5)))
    path = neighbors.save_neighbors({STEPS: level.items}, {STEPS: found}, "smoke")
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(pairs) == 10
    assert pairs[4]["held_out"]["text"] == rows[4][2]
    assert pairs[4]["nearest"]["text"] == rows[found["nearest"][4]][2]
    assert pairs[4]["nearest"]["prompt_id"] != pairs[4]["held_out"]["prompt_id"]
    examples = neighbors.neighbor_examples(found, level.items["text"], 5)
    assert examples["cosine"].is_monotonic_increasing and len(examples) == 5
    assert examples["nearer than"].tolist() == ["15%", "35%", "45%", "65%", "85%"]
    assert all(len(text.split()) <= 13 for text in examples["held out"])
    assert len(neighbors.neighbor_examples(found[:1], level.items["text"], 3)) == 3


@pytest.mark.slow
def test_levels_of_a_pool_with_the_packaged_embedder(tmp_path, monkeypatch):
    from lalp.paper.profiles import load_profile

    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    profile, pool = load_profile("smoke"), small_pool("c0", "c1")
    spans = texts.cut_pool(profile, pool, 0)
    levels = texts.embed_levels(profile.embedder, texts.level_items(pool, spans))
    assert list(levels) == [RESPONSES, PIECES, STEPS, CHUNKS]
    assert [len(level.items) for level in levels.values()] == [12, 12, 36, 36]
    assert "".join(levels[STEPS].items["text"][:3]) == pool.responses[0].text.replace(". ", ".")
    np.testing.assert_array_equal(levels[RESPONSES].vectors, levels[PIECES].vectors)
    assert texts.truncation_table(levels)["cut"].sum() == 0
    similarity = texts.prompt_similarity(profile.embedder, pool)
    assert_allclose(np.diag(similarity), 1, atol=1e-5)
    assert similarity.index.tolist() == list(pool.prompts)
    assert len(texts.paper_pairs_table(profile.embedder)) == 2


def test_figures_are_drawn():
    levels = {RESPONSES: world(8, 1, 1), STEPS: world(8, 3, 2)}
    folds = folds_of(8, 4)
    values = measure.nearness_by_prompt(levels, folds)
    found = {n: neighbors.find_neighbors(v, hold_out(v.items, folds)) for n, v in levels.items()}
    problems = pd.DataFrame({name: table[ALL_CANDIDATES] for name, table in values.items()})
    curves = measure.nearness_curves(values, {RESPONSES: 12, STEPS: 36}, **DRAWS)
    controls = measure.contrast_table(contrast_levels(values, **DRAWS))
    sweep = pd.concat([controls.assign(limit=limit) for limit in (ALL, 0.5)])
    figures = [plots.plot_coverage(found, problems, sort_by=RESPONSES)]
    figures += [plots.plot_nearness(curves, 12), plots.plot_differences(controls, "difference")]
    figures += [plots.plot_similarity_sweep(sweep)]
    assert all(axis.get_xlabel() for figure in figures for axis in figure.axes)
    plt.close("all")


def test_levels_are_shown_with_their_mean_and_its_interval():
    same = pd.DataFrame({ALL_CANDIDATES: [0.5] * 6, EQUAL_NUMBERS: [0.25] * 6})
    shown = measure.nearness_table({STEPS: same}, num_resamples=50, seed=0)
    assert shown.loc[STEPS, ALL_CANDIDATES] == "0.500 [0.500, 0.500]"
    assert shown.loc[STEPS, EQUAL_NUMBERS] == "0.250 [0.250, 0.250]"
