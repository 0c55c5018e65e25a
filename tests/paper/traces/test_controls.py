"""Scores of traces that are cut to equal length, or lack the marks of a thought."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.paper.traces.controls import cut_scores, unmarked_scores, whole_steps
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring.columns import score_columns
from lalp.scoring.run import score
from lalp.steps.splitters import split_pool

TEXTS = {"p/A": "<think>\nA. B.\n</think>\n\nC.", "p/B": "<think>\nA.\n</think>\n\nC."}
# Spans of ``<think>``, a line break, sentences, and ``</think>`` in the first text.
LONG = [(0, 7), (7, 8), (8, 11), (11, 13), (13, 23), (23, 25), (25, 27)]
SHORT = [(0, 7), (8, 10), (10, 19), (19, 23)]


def row(teacher, spans, steps, galp, local, reason=None):
    return {
        "prompt_id": "p",
        "response_id": f"p/{teacher}",
        "teacher": teacher,
        "correct": True,
        "num_tokens": len(spans),
        "galp": np.mean(galp),
        "lalp@4": 0.0,
        "reason": reason,
        "token_spans": spans,
        "token_steps": steps,
        "galp:tokens": galp,
        "lalp@4:tokens": local,
    }


@pytest.fixture
def scores():
    long = [-9.0, -1.0, -2.0, -3.0, -9.0, -1.0, -5.0]
    local = [-9.0, -2.0, -2.0, -4.0, -9.0, -2.0, -6.0]
    short = [-8.0, -2.0, -8.0, -4.0]
    return pd.DataFrame(
        [
            row("A", LONG, [0, 0, 0, 1, 1, 1, 2], long, local),
            row("B", SHORT, [0, 0, 0, 1], short, short),
        ]
    )


def test_longer_responses_are_cut_behind_their_last_whole_step(scores):
    cut = cut_scores(scores, ["A", "B"]).set_index("teacher")
    # Of four tokens, A's first three are a whole step.
    assert cut.loc["A", ["num_tokens", "num_steps"]].tolist() == [3, 1]
    assert cut.loc["A", "galp"] == pytest.approx((-9 - 1 - 2) / 3)
    assert cut.loc["A", "lalp@4"] == pytest.approx((-9 - 2 - 2) / 3)
    assert cut.loc["B", ["num_tokens", "num_steps"]].tolist() == [4, 2]
    assert cut.loc["B", "galp"] == pytest.approx(-22 / 4)
    assert cut.loc["B", "lalp@4"] == pytest.approx((-18 / 3 - 4) / 2)
    assert not any(name.endswith(":tokens") or name.startswith("token_") for name in cut)


def test_problems_that_a_cut_leaves_nothing_of_do_not_count(scores):
    first_is_long = scores.assign(token_steps=[[0] * 7, [0, 0, 0, 1]])
    assert cut_scores(first_is_long, ["A", "B"]).empty
    assert cut_scores(scores, ["A", "B", "C"]).empty
    assert cut_scores(scores.assign(reason=[None, "too long"]), ["A", "B"]).empty


def test_marks_do_not_count(scores):
    plain = unmarked_scores(scores, TEXTS).set_index("teacher")
    assert plain.loc["A", ["num_tokens", "num_steps"]].tolist() == [5, 3]
    assert plain.loc["A", "galp"] == pytest.approx((-1 - 2 - 3 - 1 - 5) / 5)
    assert plain.loc["A", "lalp@4"] == pytest.approx((-4 / 2 - (4 + 2) / 2 - 6) / 3)
    assert plain.loc["B", "galp"] == pytest.approx((-2 - 4) / 2)
    # A text without marks keeps its scores.
    whole = unmarked_scores(scores, dict.fromkeys(TEXTS, "no mark at all")).set_index("teacher")
    assert whole["galp"].tolist() == pytest.approx(scores["galp"].tolist())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 40))
def test_a_cut_keeps_whole_steps_and_as_many_as_fit(sizes, most):
    steps = np.repeat(np.arange(len(sizes)), sizes)
    kept = whole_steps(steps, most)
    ends = np.cumsum(sizes)
    assert kept.sum() == max([0, *ends[ends <= most]])
    assert kept[: kept.sum()].all()


def test_a_cut_text_that_is_scored_anew_has_the_same_scores(llama, tmp_path):
    """The claim that the cut rests on: no token depends on what follows it."""
    text = "<think>\nWe add x. Then y is 4.\n</think>\n\nSo the sum is 7. It is 7."
    short = "<think>\nx is 3.\n</think>\n\nSo y is 4."
    prompt = Prompt("p", (Message("user", "x + y?"),))
    responses = [Response(f"p/{name}", "p", name, t) for name, t in (("A", text), ("B", short))]
    pool = Pool({"p": prompt}, tuple(responses))
    how = {"windows": ["0", "1", "all"], "store": tmp_path, "progress": False}
    scores = score(pool, llama, with_tokens=True, **how)
    cut = cut_scores(scores, ["A", "B"]).set_index("teacher").loc["A"]
    row = scores.set_index("teacher").loc["A"]
    assert 0 < cut["num_tokens"] < row["num_tokens"]
    end = row["token_spans"][cut["num_tokens"] - 1][1]
    steps = split_pool(pool, "sentences")["p/A"][: cut["num_steps"]]
    left = Response("p/A", "p", "A", text[:end])
    given_steps = {"p/A": [(start, min(stop, end)) for start, stop in steps]}
    again = score(Pool({"p": prompt}, (left,)), llama, splitter=given_steps, **how).iloc[0]
    for name in score_columns(scores):
        assert cut[name] == pytest.approx(again[name], abs=1e-4), name
    # All tokens of both give the table's own scores.
    plain = unmarked_scores(scores, dict.fromkeys(["p/A", "p/B"], ""))
    for name in score_columns(scores):
        assert plain[name].tolist() == pytest.approx(scores[name].tolist(), abs=1e-5), name
