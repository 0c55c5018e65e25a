"""Tables that take every token of the long traces, and the figures that are drawn from them."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lalp.paper.conditioning.tokens import token_frame
from lalp.paper.traces import plots, tokens
from lalp.paper.traces.controls import cut_scores
from lalp.paper.traces.measure import main_rows
from lalp.paper.traces.plan import traces_profile
from lalp.paper.traces.pool import MAIN_TEACHERS
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring.run import score
from lalp.stats import Estimate

FEW = {"num_resamples": 20, "seed": 0}
WINDOWS = ["0", "4", "all"]


def made_pool(problems: int = 4) -> Pool:
    """Traces of different lengths to problems of both data sets."""
    names = [f"{data}/{i}" for data in ("gsm8k", "math") for i in range(problems)]
    prompts = {n: Prompt(n, (Message("user", f"What is {n}?"),), "4") for n in names}
    responses = []
    for place, name in enumerate(names):
        for more, teacher in enumerate((*MAIN_TEACHERS, "Qwen2.5-32B-Instruct")):
            thought = " ".join(
                f"Wait, {n} and 12 is {n + 12}. But 12 it is." for n in range(more + 3)
            )
            text = f"<think>\nOkay, we add {place}. {thought}\n</think>\n\nSo it is 4."
            extra = {"data_set": name.partition("/")[0]}
            responses.append(Response(f"{name}/{teacher}", name, teacher, text, True, extra))
    return Pool(prompts, tuple(responses))


@pytest.fixture(scope="module")
def scored(student_folder):
    pool = made_pool()
    profile = replace(traces_profile(), student=student_folder, windows=WINDOWS, num_resamples=20)
    how = {"splitter": "sentences", "with_tokens": True, "device": "cpu", "progress": False}
    frame = score(pool, student_folder, WINDOWS, **how)
    parts = frame["prompt_id"].str.partition("/")[0]
    return profile, pool, {n: frame[parts == n].reset_index(drop=True) for n in ("gsm8k", "math")}


@pytest.fixture(scope="module")
def tables(scored):
    return tokens.token_tables(*scored)


def test_every_table_tells_of_both_data_sets_and_of_them_together(tables):
    rows = {"variants", "resplit", "gaps"}
    for name, table in tables.items():
        if name not in rows:
            assert table["data"].unique().tolist() == ["gsm8k", "math", "pooled"], name
        # Numbers alone: what a table says in words are names.
        assert not table.map(lambda value: isinstance(value, Estimate)).any(axis=None), name
    assert len(tables["gaps"]) == 8 * 5
    assert set(tables["curves"]["teacher"]) == {"all", *MAIN_TEACHERS}


def test_the_tokens_of_a_cut_are_those_of_the_cut_scores(scored):
    _, pool, scores = scored
    own = main_rows(scores["gsm8k"])
    cut = tokens.cut_tokens(token_frame(own, pool, "4"), own)
    expected = cut_scores(own).set_index("response_id")
    found = cut.groupby("response_id", observed=True)
    assert found.size().to_dict() == expected["num_tokens"].to_dict()
    means = found["global"].mean()
    assert np.allclose(means, expected["galp"][means.index])
    assert found["position"].max().between(0.9, 1).all()


def test_marks_are_the_tokens_that_begin_in_them(scored):
    _, pool, scores = scored
    frame = token_frame(scores["math"], pool, "4")
    texts = {response.response_id: response.text for response in pool.responses}
    marked = frame[tokens.is_mark(frame, pool)]
    for name, own in marked.groupby("response_id", observed=True):
        text = texts[name]
        ends = [text.index(mark) + len(mark) for mark in ("<think>", "</think>")]
        assert {min(end for end in ends if start < end) for start in own["start"]} == set(ends)


@pytest.mark.parametrize(
    ("text", "span", "word"),
    [
        ("Wait, no", (0, 4), "wait"),
        (" Wait, no", (0, 5), "wait"),
        ("awaiting", (1, 5), None),
        ("Waiting", (0, 4), None),
        ("OKAY.", (0, 4), "okay"),
        ("no", (0, 2), None),
    ],
)
def test_a_word_is_a_token_of_its_own(text, span, word):
    assert tokens.spoken_word(text, *span) == word


def test_shares_of_words_by_hand():
    word = ["wait", None, None, "wait"]
    rows = {"prompt_id": "p", "teacher": "A", "word": word, "galp": np.log([0.5, 0.25, 0.25, 1.0])}
    frame = pd.DataFrame(rows)
    found = tokens.word_shares(frame, ["galp"], **FEW).set_index(["teacher", "word"])
    wait = found.loc[("all", "wait")]
    assert wait["num_tokens"] == 2
    assert [wait[name].value for name in ("tokens", "mass", "ratio")] == pytest.approx(
        [50, 75, 1.5]
    )
    assert found.loc[("A", "hmm"), "num_tokens"] == 0


def test_gaps_of_a_response_by_hand():
    row = {"prompt_id": "p", "response_id": "r", "teacher": "A", "num_tokens": 10, "num_steps": 2}
    row |= {"reason": None, "token_steps": [0] * 5 + [1] * 5, "galp:tokens": [-1.0] * 10}
    local = [-1.0] * 5 + [-3.0] + [-2.0] * 3 + [-5.0]
    found = tokens.response_gaps(pd.DataFrame([row | {"lalp@4:tokens": local}]), ["4"], "4").iloc[0]
    assert found["gap@4"] == pytest.approx((2 + 3 + 4) / 10)
    assert found["last@4"] == pytest.approx(4)
    assert found["lalp@4:first"] == pytest.approx(-2)
    assert found["galp:others"] == pytest.approx(-1)


def test_an_estimate_is_three_numbers_and_read_again():
    one = Estimate(0.5, 0.25, 0.75, 9)
    (row,) = tokens.flat(pd.DataFrame({"data": ["x"], "gap": [one]})).to_dict("records")
    assert tokens.estimate(row, "gap", 9) == one


def test_figures_are_drawn_from_the_tables(scored, tables):
    _, _, scores = scored
    words = tables["words"].query("data == 'pooled' and teacher == 'all'")
    gaps = tables["gaps"].assign(data="gsm8k").rename(columns={"last@4": "last"})
    whole = main_rows(pd.concat(scores.values()))
    means = pd.concat(
        [
            whole.groupby("teacher")[column]
            .agg(mean="mean", low="min", high="max")
            .reset_index()
            .assign(data=data, score=column)
            for data in ("gsm8k", "math")
            for column in ("galp", "lalp@4")
        ]
    )
    problems = whole.assign(data_set="gsm8k", all_solved=True, drawn=1)
    axes = {
        1: plots.plot_gap_sizes(gaps),
        2: plots.plot_words(words),
    }
    for number, figure in [*axes.items(), (2, plots.plot_orders(means))]:
        assert len(figure.axes) == number
        plt.close(figure)
    figure = plots.plot_lengths(problems, 4096)
    assert figure.axes[0].get_title() == "GSM8K: 8 of 8 problems"
    plt.close(figure)
