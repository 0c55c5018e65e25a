"""Self-conditioning: gaps, trends, controls and repeated items, by hand and by other libraries."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lalp.errors import InputError
from lalp.paper.conditioning.estimates import spread_estimates
from lalp.paper.conditioning.examples import (
    EXAMPLES,
    TOY_FORMS,
    example_pool,
    example_table,
    toy_table,
)
from lalp.paper.conditioning.items import (
    find_items,
    item_frame,
    match_controls,
    occurrence_rises,
    occurrence_series,
    occurrence_table,
)
from lalp.paper.conditioning.tokens import (
    SEEN,
    compare_trends,
    gap_shares,
    position_curves,
    position_trends,
    shuffle_steps,
    token_frame,
    top_agreement,
)
from lalp.paper.profiles import load_profile
from lalp.paper.verdicts import Verdict
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.stats import Estimate
from lalp.steps.sentences import split_steps
from tests.paper.verdict_cells import run_verdict_cells

FEW = {"num_resamples": 200, "seed": 0}


def pool_of(*texts: str, prompt: str = "Why?") -> Pool:
    return load_pool(
        {"prompt_id": f"p{i}", "prompt": prompt, "teacher": "A", "response": text}
        for i, text in enumerate(texts)
    )


def word_scores(pool: Pool, window: str = "0", **columns: object) -> pd.DataFrame:
    """Scores whose tokens are words with the space before them; sentences are steps."""
    rows = []
    for response in pool.responses:
        text, spans, done = response.text, [], 0
        for word in text.split():
            end = text.index(word, done) + len(word)
            spans.append([done, end])
            done = end
        ends = [end for _, end in split_steps(text)]
        steps = [sum(end - 1 >= stop for stop in ends) for _, end in spans]
        rows.append(
            {
                "prompt_id": response.prompt_id,
                "response_id": response.response_id,
                "teacher": response.teacher,
                "token_spans": spans,
                "token_steps": steps,
                "galp:tokens": [-1.0] * len(spans),
                f"lalp@{window}:tokens": [-1.0 - i / 8 for i in range(len(spans))],
            }
        )
    return pd.DataFrame(rows).assign(**columns)


# --- tokens ---------------------------------------------------------------------------------


def test_tokens_by_hand():
    pool = pool_of("Add one. Then add two. Add one.", prompt="Then?")
    tokens = token_frame(word_scores(pool), pool, "0")
    assert tokens["step"].tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert tokens["window_start"].tolist() == [0, 0, 2, 2, 2, 5, 5]
    assert tokens["dropped"].tolist() == [False] * 2 + [True] * 5
    assert tokens["start"].tolist() == [0, 4, 9, 14, 18, 23, 27]
    assert tokens["gap"].tolist() == [i / 8 for i in range(7)]
    assert tokens["position"].tolist() == pytest.approx([(i + 0.5) / 7 for i in range(7)])
    new, near, far = SEEN
    # "Then" is in the prompt; "add" and "one" were said in steps that window 0 drops.
    assert tokens["word_seen"].tolist() == [new, new, near, far, new, far, far]
    # "then add", "add two" and ". add" are new as pairs, "add one" is not.
    assert tokens["pair_seen"].tolist() == [new, new, new, new, new, new, far]


def test_a_wider_window_still_shows_what_was_said():
    pool = pool_of("Add one. Then add two. Add one.")
    tokens = token_frame(word_scores(pool, "1"), pool, "1")
    assert tokens["window_start"].tolist() == [0, 0, 0, 0, 0, 2, 2]
    assert tokens["word_seen"].tolist()[5:] == [SEEN[1], SEEN[2]]
    whole = token_frame(word_scores(pool, "all"), pool, "all")
    assert not whole["dropped"].any() and SEEN[2] not in set(whole["word_seen"])


def test_a_window_in_tokens_counts_tokens():
    pool = pool_of("Add one. Then add two. Add one.")
    tokens = token_frame(word_scores(pool, "1t"), pool, "1t")
    assert tokens["window_start"].tolist() == [0, 0, 1, 1, 1, 4, 4]


def test_tokens_without_a_score_are_left_out_and_counted():
    pool = pool_of("Add one. Then two.")
    scores = word_scores(pool)
    scores.at[0, "lalp@0:tokens"] = [-1.0, math.nan, -1.0, math.nan]
    tokens = token_frame(scores, pool, "0")
    assert tokens["token"].tolist() == [0, 2]
    assert tokens.attrs["left_out"] == 2


def test_odd_texts_have_tokens_too():
    for text, spans in (("   ", [[0, 3]]), ("\n\na", [[0, 2], [2, 3]]), ("🙂", [[0, 1], [0, 1]])):
        pool = pool_of("x")
        pool = Pool(pool.prompts, (replace(pool.responses[0], text=text),))
        row = {"prompt_id": "p0", "response_id": pool.responses[0].response_id, "teacher": "A"}
        row |= {"token_spans": spans, "token_steps": [0] * len(spans)}
        row |= {"galp:tokens": [-1.0] * len(spans), "lalp@0:tokens": [-1.0] * len(spans)}
        assert len(token_frame(pd.DataFrame([row]), pool, "0")) == len(spans)


@pytest.mark.parametrize("column", ["galp:tokens", "lalp@0:tokens", "token_steps"])
def test_scores_without_tokens_are_refused(column):
    pool = pool_of("Add one.")
    with pytest.raises(InputError, match=column):
        token_frame(word_scores(pool).drop(columns=column), pool, "0")


def test_scores_of_another_pool_are_refused():
    with pytest.raises(InputError, match=r"lacks response 'p1/A/0'"):
        token_frame(word_scores(pool_of("a", "b")), pool_of("a"), "0")


# --- trends ---------------------------------------------------------------------------------


def made_tokens(gaps: dict[tuple[str, str], list[float]], **columns: list) -> pd.DataFrame:
    """Tokens at even positions: gap by (prompt, teacher)."""
    rows = []
    for (prompt, teacher), values in gaps.items():
        for i, gap in enumerate(values):
            place = (i + 0.5) / len(values)
            rows.append((prompt, f"{prompt}/{teacher}", teacher, place, gap, -1.0, -1.0 - gap))
    names = ["prompt_id", "response_id", "teacher", "position", "gap", "global", "local"]
    return pd.DataFrame(rows, columns=names).assign(**columns)


def test_curves_pool_the_tokens_of_a_bin():
    tokens = made_tokens({("p", "A"): [0, 1, 2, 3], ("q", "A"): [4, 5], ("q", "B"): [8, 8]})
    curves = position_curves(tokens, "teacher", num_bins=2, **FEW)
    gap = curves[curves["quantity"] == "gap"].set_index(["teacher", "position"])
    assert gap.loc[("A", 0.25), "mean"] == pytest.approx((0 + 1 + 4) / 3)
    assert gap.loc[("A", 0.75), "mean"] == pytest.approx((2 + 3 + 5) / 3)
    assert gap.loc[("all", 0.25), "num_tokens"] == 4
    assert gap.loc[("all", 0.75), "mean"] == pytest.approx((2 + 3 + 5 + 8) / 4)
    # Resamples of p and q alone span all that is possible.
    assert gap.loc[("A", 0.25), ["low", "high"]].tolist() == pytest.approx([0.5, 4])


def test_an_empty_bin_has_no_mean_and_one_prompt_no_interval():
    curves = position_curves(made_tokens({("p", "A"): [1, 2]}), "teacher", num_bins=4, **FEW)
    gap = curves.query("quantity == 'gap' and teacher == 'A'")
    assert np.isnan(gap["mean"]).tolist() == [True, False, True, False]
    assert gap[["low", "high"]].isna().all().all()


def test_trends_agree_with_numpy():
    values = np.random.default_rng(1).normal(size=40).tolist()
    tokens = made_tokens({("p", "A"): values[:20], ("q", "A"): values[20:]})
    trend = position_trends(tokens, "teacher", **FEW).set_index(["teacher", "quantity"])
    for name in ("gap", "local"):
        slope = np.polyfit(tokens["position"], tokens[name], 1)[0]
        assert trend.loc[("A", name), "slope"].value == pytest.approx(slope)
    first = np.mean(values[:2] + values[20:22])
    last = np.mean(values[18:20] + values[38:])
    assert trend.loc[("A", "gap"), "change"].value == pytest.approx(last - first)
    assert trend.loc[("A", "gap"), "num_prompts"] == 2


def test_intervals_agree_with_scipy():
    values = np.random.default_rng(2).normal(size=30)
    tokens = made_tokens({(f"p{i:02}", "A"): [v, v] for i, v in enumerate(values)})
    mean = position_trends(tokens, "teacher", num_resamples=9000, seed=3).iloc[0]["mean"]
    oracle = stats.bootstrap((values,), np.mean, method="percentile", rng=4).confidence_interval
    assert (mean.low, mean.high) == pytest.approx((oracle.low, oracle.high), abs=0.03)


def test_equal_prompts_have_a_tight_interval():
    tokens = made_tokens({(p, "A"): [0.0, 1.0, 2.0] for p in "abcd"})
    slope = position_trends(tokens, "teacher", **FEW).iloc[0]["slope"]
    assert (slope.low, slope.value, slope.high) == pytest.approx((3, 3, 3))
    assert slope.sign == 1


def test_differences_are_paired_and_change_sign():
    gaps = {("p", "A"): [0, 0], ("p", "B"): [1, 1], ("q", "A"): [5, 5], ("q", "B"): [6, 6]}
    tokens = made_tokens(gaps)
    there = compare_trends(tokens, "teacher", "A", "B", **FEW)["mean"]
    back = compare_trends(tokens, "teacher", "B", "A", **FEW)["mean"]
    # Prompts differ by 5, but each prompt has the same difference.
    assert (there.low, there.value, there.high) == pytest.approx((1, 1, 1))
    assert (back.value, back.sign) == (-1, -1)


def test_shares_add_up():
    tokens = made_tokens({("p", "A"): [1, 3, 0, 0], ("q", "A"): [2, 2, 4, 0]})
    tokens["kind"] = ["x", "y"] * 4
    shares = gap_shares(tokens, "kind", **FEW).set_index("kind")
    assert shares.loc["x", "gap_percent"].value == pytest.approx(100 * 7 / 12)
    assert shares.loc["y", "tokens_percent"].value == 50
    assert shares.loc["x", "mean_gap"].value == pytest.approx(7 / 4)


def test_top_agreement_by_hand():
    tokens = made_tokens({(p, t): [g] for p in "abc" for t, g in (("A", 1.0), ("B", 2.0))})
    scores = tokens[["prompt_id", "response_id", "teacher"]]
    gaps, galps, share = top_agreement(
        tokens, scores.assign(galp=np.where(scores["teacher"] == "B", -1.0, -2.0)), **FEW
    )
    assert (list(gaps.index), list(galps), share) == (["B", "A"], [-1, -2], 1)
    other = scores.assign(galp=np.where(scores["teacher"] == "A", -1.0, -2.0))
    assert top_agreement(tokens, other, **FEW)[2] == 0


def test_estimates_spread_into_numbers():
    table = pd.DataFrame({"name": ["a"], "rise": [Estimate(1.0, 0.0, 2.0)]})
    assert spread_estimates(table).to_dict("records") == [
        {"name": "a", "rise": 1.0, "rise_low": 0.0, "rise_high": 2.0}
    ]


# --- shuffled steps -------------------------------------------------------------------------

SENTENCES = st.lists(st.sampled_from(["One.", "It is 2.", "So x = 3.", "Yes!"]), max_size=7)
SPACES = st.sampled_from([" ", "\n", "\n\n", ""])


@given(SENTENCES, SPACES, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_shuffling_keeps_the_steps_and_partitions_the_text(sentences, space, seed):
    text = " " + space.join(sentences)
    ends = np.cumsum([1 + len(sentences[0]) + len(space)] if sentences else [len(text)]).tolist()
    for sentence in sentences[1:]:
        ends.append(ends[-1] + len(sentence) + len(space))
    ends[-1] = len(text)
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    pool = pool_of("x")
    pool = Pool(pool.prompts, (replace(pool.responses[0], text=text),))
    moved, steps = shuffle_steps(pool, {"p0/A/0": spans}, seed)
    new, new_spans = moved.responses[0].text, steps["p0/A/0"]
    assert [new_spans[0][0], *(end for _, end in new_spans)] == [
        *(start for start, _ in new_spans),
        len(new),
    ]
    bodies = sorted(new[start:end].strip() for start, end in new_spans)
    assert bodies == sorted(sentences) or not sentences
    assert len(new) == len(text) or space == ""


def test_shuffling_depends_on_the_response_alone():
    texts = ["One. Two. Three. Four. Five.", "Six. Seven. Eight. Nine. Ten."]
    both, one = pool_of(*texts), pool_of(texts[0])
    steps = {r.response_id: split_steps(r.text) for r in both.responses}
    moved, _ = shuffle_steps(both, steps, 1)
    alone, _ = shuffle_steps(one, steps, 1)
    assert moved.responses[0] == alone.responses[0]
    assert moved.responses[0].text != texts[0]
    assert {shuffle_steps(one, steps, seed)[0].responses[0].text for seed in range(20)} != {
        moved.responses[0].text
    }


# --- items ----------------------------------------------------------------------------------


def items_of(text: str) -> dict[tuple[str, str], int]:
    return {(item.kind, item.text): len(item.spans) for item in find_items(text)}


def test_numbers_of_two_digits_or_more():
    found = items_of("12 and 7, x12; 1,228 is 1228. 3.5 or 3.5. 12,345,678 and 0.25% (12)")
    assert found == {
        ("number", "12"): 3,
        ("number", "1228"): 2,
        ("number", "3.5"): 2,
        ("number", "12345678"): 1,
        ("number", "0.25"): 1,
    }
    assert items_of("{1,2,3} 4. 12") == {("number", "12"): 1}


def test_spans_hold_the_item():
    text = "We get 1,228 here. So we\nget 1228: We get it."
    for item in find_items(text):
        for start, end in item.spans:
            assert text[start:end].replace(",", "").casefold().split() == item.text.split()


def test_phrases_are_as_long_as_possible():
    text = "the sum of all roots. The sum of all roots! the sum of all roots; the sum of it"
    repeated = {key: count for key, count in items_of(text).items() if count > 1}
    assert repeated == {("phrase", "the sum of all roots"): 3}


def test_a_phrase_outside_the_longer_one_counts_by_itself():
    text = "we add the two. we add the two. we add the two. " + "now add the. " * 3
    repeated = {item for (_, item), count in items_of(text).items() if count > 1}
    assert repeated == {"we add the two", "now add the"}


def test_what_parts_words_parts_phrases():
    assert not items_of("come, in pairs. come in, pairs. come in\n\npairs " * 3)
    assert ("phrase", "come in pairs") in items_of("come in pairs. " * 3)
    assert ("phrase", "come in pairs") in items_of("Come\nin pairs, " * 3)
    assert not items_of("come in pairs. " * 2)


def test_overlapping_occurrences_count_once():
    assert items_of("no no no no no no no no") == {}
    assert items_of("no " * 9)[("phrase", "no no no")] == 3


@given(st.text(alphabet="ab 12.,\n", max_size=80))
@settings(max_examples=150, deadline=None)
def test_items_never_overlap_and_stand_in_order(text):
    repeated = [item for item in find_items(text) if len(item.spans) > 1]
    spans = sorted(span for item in repeated for span in item.spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    for item in repeated:
        assert list(item.spans) == sorted(item.spans)


REPEATING = "We get 177 so. It is fine. Then 177 it is. We see. Hence 177 holds. Also 64."


def test_occurrences_by_hand():
    pool = pool_of(REPEATING)
    frame = item_frame(token_frame(word_scores(pool, "1"), pool, "1"), pool)
    rows = frame[frame["item"] == "177"]
    # Words 2, 8 and 14 of 18: the window of one step never shows the one before.
    assert rows["occurrence"].tolist() == [1, 2, 3]
    assert rows["previous"].tolist() == ["none", "dropped", "dropped"]
    assert rows["global"].tolist() == [-1, -1, -1]
    tokens = [REPEATING[:m].split() for m in (REPEATING.index("177"), REPEATING.rindex("177"))]
    assert rows["local"].tolist()[::2] == [-1 - len(before) / 8 for before in tokens]
    assert rows["p_local"].tolist() == pytest.approx(np.exp(rows["local"]).tolist())
    assert frame[frame["item"] == "64"]["count"].tolist() == [1]


def test_a_window_that_shows_the_one_before():
    pool = pool_of(REPEATING)
    frame = item_frame(token_frame(word_scores(pool, "2"), pool, "2"), pool)
    rows = frame[frame["item"] == "177"]
    assert rows["previous"].tolist() == ["none", "in the window", "in the window"]


def test_items_of_the_prompt_are_no_first_occurrences():
    for prompt in ("Is it 177?", "Is it 1,77?"):
        pool = pool_of(REPEATING, prompt=prompt)
        frame = item_frame(token_frame(word_scores(pool), pool, "0"), pool)
        assert ("177" in set(frame["item"])) == (prompt == "Is it 1,77?")
    text = "They come in pairs. So they come in pairs. Yes, they come in pairs."
    for prompt, found in (("Do they Come in pairs?", False), ("Come in, pairs", False)):
        pool = pool_of(text, prompt=prompt)
        frame = item_frame(token_frame(word_scores(pool), pool, "0"), pool)
        assert ("come in pairs" in set(frame["item"])) == found


def test_items_that_no_token_begins_in_are_left_out():
    pool = pool_of("Ax12 Ax12 Ax12")
    assert item_frame(token_frame(word_scores(pool), pool, "0"), pool).empty


def made_items(rows: list[tuple]) -> pd.DataFrame:
    """Rows of (prompt, item, count, occurrence, position, previous, global, local)."""
    names = ["prompt_id", "item", "count", "occurrence", "position", "previous", "global", "local"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(
        response_id=frame["prompt_id"],
        kind="number",
        size=0,
        p_global=np.exp(frame["global"]),
        p_local=np.exp(frame["local"]),
    )


ITEMS = made_items(
    [
        ("p", "11", 4, 1, 0.1, "none", -4.0, -4.0),
        ("p", "11", 4, 2, 0.3, "in the window", -2.0, -2.5),
        ("p", "11", 4, 3, 0.5, "dropped", -1.0, -5.0),
        ("p", "11", 4, 4, 0.9, "dropped", -1.0, -5.0),
        ("q", "22", 3, 1, 0.2, "none", -2.0, -2.0),
        ("q", "22", 3, 2, 0.4, "in the window", -1.0, -1.0),
        ("q", "22", 3, 3, 0.6, "in the window", -1.0, -1.0),
        *(("r", str(i), 1, 1, i / 10, "none", -float(i), -2.0 * i) for i in range(10)),
    ]
)


def test_occurrences_are_averaged_over_items():
    table = occurrence_table(ITEMS, **FEW).set_index("occurrence")
    assert list(table.index) == ["1", "2", "3", "4+"]
    assert [table.loc[i, "global"].value for i in table.index] == [-3, -1.5, -1, -1]
    assert [table.loc[i, "local"].value for i in table.index] == [-3, -1.75, -3, -5]
    assert table["num_items"].tolist() == [2, 2, 2, 1]
    assert table["dropped"].tolist() == [0, 0, 0.5, 1]
    assert math.isnan(table.loc["4+", "global"].low)


def test_controls_are_the_nearest_single_items():
    controls = match_controls(ITEMS)
    assert len(controls) == 7
    # Nearest to 0.5 are the singles at 0.3 to 0.7, hence -5 on average.
    assert controls.loc[2, ["global", "local"]].tolist() == pytest.approx([-5, -10])
    assert controls.loc[0, "global"] == pytest.approx(-(0 + 1 + 2 + 3 + 4) / 5)
    without = match_controls(ITEMS[ITEMS["count"] > 1])
    assert without["global"].isna().all()


def test_rises_by_hand():
    rises = occurrence_rises(ITEMS, match_controls(ITEMS), **FEW).set_index("previous")
    assert rises.loc["all", "num_items"] == 2
    assert rises.loc["all", "global"].value == pytest.approx(((-4 / 3 + 4) + 1) / 2)
    assert rises.loc["dropped", "local"].value == pytest.approx(-1)
    assert rises.loc["dropped", "difference"].value == pytest.approx(3 + 1)
    assert rises.loc["in the window", "local"].value == pytest.approx((1.5 + 1) / 2)


def test_nothing_repeated_gives_empty_tables():
    pool = pool_of("One.")
    items = item_frame(token_frame(word_scores(pool), pool, "0"), pool)
    assert items.empty
    assert occurrence_table(items, **FEW).empty
    assert occurrence_rises(items, match_controls(items), **FEW).empty


# --- the paper's examples -------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_hold_their_item_as_often_as_the_paper_prints_values(example):
    assert len(example.places) == len(example.paper)
    assert example.item not in example.prompt
    for place in example.places:
        start = place - example.offset
        assert example.text[start:].startswith(example.item)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.name != "Example 2"])
def test_the_main_window_drops_earlier_occurrences(example):
    ends = [end for _, end in split_steps(example.text)]
    steps = [sum(place >= end for end in ends) for place in example.places]
    window = int(load_profile("cpu").main_window)
    assert all(b - a > window for a, b in itertools.pairwise(steps))


def character_scores() -> pd.DataFrame:
    """Scores of the examples with a token per character: -index / 100 and twice that."""
    rows = []
    for response in example_pool().responses:
        count = len(response.text)
        values = np.arange(count) / -100
        rows.append(
            {
                "prompt_id": response.prompt_id,
                "response_id": response.response_id,
                "teacher": response.teacher,
                "token_spans": [[i, i + 1] for i in range(count)],
                "galp:tokens": values,
                "lalp@0:tokens": 2 * values,
            }
        )
    return pd.DataFrame(rows)


def test_example_table_reads_the_tracked_token():
    table = example_table(character_scores())
    assert len(table) == sum(len(e.paper) for e in EXAMPLES)
    last = table[table["item"] == "177"].iloc[-1]
    place = EXAMPLES[0].text.rindex("177") + 2
    assert last["token"] == "7"
    assert last["galp"] == pytest.approx(100 * math.exp(-place / 100))
    assert last["lalp@0"] == pytest.approx(100 * math.exp(-place / 50))
    assert table[table["item"] == "come in pairs"]["token"].tolist() == ["c", "c"]


def test_wrong_sums_are_wrong_and_come_in_two_forms():
    forms = [r for r in example_pool().responses if r.teacher in TOY_FORMS]
    assert len(forms) == 2 * len({r.prompt_id for r in forms})
    for response in forms:
        a, b = map(int, response.prompt_id.split("+"))
        assert f"is {a + b}" not in response.text
        assert response.text.count(f" {a + b + 1}") == 2
        assert len(split_steps(response.text)) == 1 + TOY_FORMS.index(response.teacher)


def test_toy_table_by_hand():
    table = toy_table(character_scores(), "0", **FEW).set_index("form")
    # "1+1 is 3, so the answer is 3": the results are characters 7 and 27.
    one, two = (table.loc[form] for form in TOY_FORMS)
    assert one["global_first"].value == pytest.approx(-0.07)
    assert one["global_rise"].value == pytest.approx(-0.20)
    assert two["local_rise"].value == pytest.approx(-0.40)
    assert one["difference"].value == pytest.approx(0.27)


# --- verdicts -------------------------------------------------------------------------------

PROFILE = load_profile("smoke")


def verdict_inputs(growing: bool) -> dict[str, pd.DataFrame]:
    """Tokens whose gap grows (or not), carried by pairs that the window drops."""
    shape = np.linspace(0, 2, 20) if growing else np.full(20, 1.0)
    gaps = {
        (prompt, teacher): (level * shape).tolist()
        for prompt in "abcde"
        for teacher, level in (("A", 1.0), ("B", 0.5))
    }
    tokens = made_tokens(gaps, dropped=True)
    tokens["pair_seen"] = pd.Categorical(
        np.where(tokens["gap"] > tokens["gap"].median(), SEEN[2], SEEN[0]), categories=SEEN
    )
    both = pd.concat([tokens.assign(order=order) for order in ("as written", "shuffled")])
    scores = tokens[["prompt_id", "response_id", "teacher"]].drop_duplicates()
    scores = scores.assign(galp=np.where(scores["teacher"] == "A", -1.0, -2.0), num_tokens=20)
    return {
        "tokens": tokens,
        "shuffled": both.reset_index(drop=True),
        "items": ITEMS,
        "examples": character_scores(),
        "scores": scores,
    }


def verdicts(inputs: dict[str, pd.DataFrame]) -> list[Verdict]:
    """What notebook 03 says, given what it has computed by then."""
    tokens, items, examples = inputs["tokens"], inputs["items"], inputs["examples"]
    options = {"num_resamples": PROFILE.num_resamples, "seed": 0}
    dropped = tokens[tokens["dropped"]]
    return run_verdict_cells(
        "03_self_conditioning",
        **inputs,
        profile=PROFILE,
        options=options,
        dropped=dropped,
        growth=position_trends(tokens, "teacher", **options),
        curves=position_curves(tokens, "teacher", **options),
        trends=position_trends(dropped, "teacher", **options).query("quantity == 'gap'"),
        shares={"pair": gap_shares(dropped, "pair_seen", **options).set_index("pair_seen")},
        rises=occurrence_rises(items, match_controls(items), **options),
        sums=toy_table(examples, "0", **options),
        printed=example_table(examples),
    )


def test_clear_growth_gets_clear_verdicts():
    said = verdicts(verdict_inputs(growing=True))
    assert all(verdict.where for verdict in said)
    found = [verdict.verdict for verdict in said]
    assert found[0] == found[1] == "holds"
    assert found[4] == "holds"
    assert found[5] == "holds"  # the shuffled steps are the same tokens
    assert found[6] == "holds"
    assert found[2] == "not testable at this scale"  # twenty tokens
    assert said[0].run.endswith("from tenth to tenth the pooled gap rises in 9 of 9 cases")


def test_no_growth_is_not_called_growth():
    found = verdicts(verdict_inputs(growing=False))
    assert "holds" not in [verdict.verdict for verdict in found[:2]]


def test_one_prompt_resolves_nothing():
    inputs = verdict_inputs(growing=True)
    for name in ("tokens", "shuffled", "scores"):
        inputs[name] = inputs[name][inputs[name]["prompt_id"] == "a"]
    assert "holds" not in [verdict.verdict for verdict in verdicts(inputs)[:7]]


def test_nothing_repeated_is_said():
    said = verdicts(verdict_inputs(growing=True) | {"items": ITEMS[:0]})
    assert (said[7].run, said[7].verdict) == ("no repeated items", "not resolved")
    assert said[8].verdict == "not resolved"


def test_series_of_occurrences_hold_items_and_controls():
    series = occurrence_series(ITEMS, **FEW).set_index(["series", "occurrence"])
    assert series.loc[("repeated items: local", "3"), "mean"] == -3
    assert series.loc[("repeated items: global", "1"), "num_items"] == 2
    assert len(set(series.index.get_level_values("series"))) == 4
