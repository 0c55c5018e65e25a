"""The same responses under several splitters: by hand, and what the verdicts make of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lalp.paper.profiles import Profile, load_profile
from lalp.paper.selection import plots, splitters
from lalp.paper.selection.splitters import (
    centered_means,
    compare_splitters,
    splitter_column,
    splitter_windows,
    weigh_responses,
    weigh_steps,
)
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring import run


def test_columns():
    assert splitter_column("32t", "4") == "32t:lalp@4"
    assert splitter_column("32t", "num_steps") == "32t:num_steps"


def test_steps_weigh_the_same_whatever_their_length():
    log_probs = np.array([-1.0, -4, -2, -3, -3])
    assert weigh_steps(log_probs, [(0, 1), (1, 5)]) == -2
    assert weigh_steps(log_probs, [(0, 5)]) == pytest.approx(-2.6)
    assert np.isnan(weigh_steps(log_probs, [(0, 5), (5, 5)]))
    assert np.isnan(weigh_steps(log_probs, []))
    assert np.isnan(weigh_steps(np.array([-1, np.nan]), [(0, 2)]))


def test_other_steps_reweigh_the_tokens_that_were_scored():
    scores = pd.DataFrame(
        {
            "response_id": ["a", "b"],
            "token_spans": [[[0, 2], [2, 6], [6, 8]], [[0, 1]]],
            "galp:tokens": [np.array([-1, -2, -6], np.float32), np.array([-3], np.float32)],
        },
        index=[7, 3],
    )
    texts = {"a": "So it is", "b": "7"}
    # The token " it " counts where its first character that is no space stands.
    found = weigh_responses(scores, texts, {"a": [(0, 3), (3, 8)], "b": [(0, 1)]})
    assert list(found.index) == [7, 3]
    assert list(found["score"]) == [-2.5, -3]
    assert list(found["num_steps"]) == [2, 1]


LEVEL = {"A": -1.0, "B": -2.0, "C": -3.0}


def frame_of(num_prompts: int, turned: set[str] = frozenset(), noise: float = 0.0) -> pd.DataFrame:
    """Three splitters; those in ``turned`` reverse the teachers. Prompts differ in level."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(num_prompts):
        for teacher, level in LEVEL.items():
            row = {"prompt_id": f"p{i}", "response_id": f"p{i}/{teacher}", "teacher": teacher}
            row |= {"correct": True, "num_tokens": 12}
            for splitter, steps in (("s", 6), ("p", 2), ("t", 3)):
                sign = -1 if splitter in turned else 1
                value = sign * level - 5 - 10 * (i % 2) + noise * generator.normal()
                row |= {f"{splitter}:lalp@4": value, f"{splitter}:lalp@all": value}
                row[f"{splitter}:num_steps"] = steps
            rows.append(row)
    return pd.DataFrame(rows)


def test_the_table_by_hand():
    table = compare_splitters(frame_of(12, {"t"}), ["s", "p", "t"], ["4"], num_resamples=50)
    assert list(table["splitter"]) == ["s", "p", "t"]
    assert list(table["order"]) == ["A > B > C", "A > B > C", "C > B > A"]
    assert list(table["tau"]) == [1, 1, -1]
    assert list(table["tau_low"]) == [1, 1, -1]
    assert list(table["tau_high"]) == [1, 1, -1]
    assert list(table["same"]) == [1, 1, 0]
    assert list(table["steps"]) == [6, 2, 3]
    assert list(table["tokens"]) == [2, 6, 4]
    assert list(table["prompts"]) == [12, 12, 12]
    # Wilson: 0 of 12 successes, 1.96^2 / (12 + 1.96^2).
    assert table["same_high"][2] == pytest.approx(3.8415 / 15.8415, abs=1e-3)


def test_what_one_splitter_cannot_score_counts_under_none():
    frame = frame_of(12, {"t"})
    frame.loc[frame["prompt_id"] == "p3", "p:lalp@4"] = np.nan
    table = compare_splitters(frame, ["s", "p", "t"], ["4", "all"], num_resamples=50)
    assert list(table["prompts"]) == [11] * 3 + [12] * 3


def test_intervals_hold_for_the_whole_table_together():
    frame = frame_of(12, noise=1.0)
    wide = compare_splitters(frame, ["s", "p", "t"], ["4", "all"], num_resamples=2000)
    alone = compare_splitters(frame, ["s", "p"], ["4"], num_resamples=2000)
    assert wide["tau_low"][1] <= alone["tau_low"][1]


def test_centered_means_take_out_what_is_common_to_a_prompt():
    means = centered_means(frame_of(12, {"t"}), ["s", "t"], ["4"], num_resamples=50)
    assert list(means["prompts"]) == [12] * 6
    found = {(row.splitter, row.teacher): row for row in means.itertuples()}
    for teacher, value in (("A", 1), ("B", 0), ("C", -1)):
        assert found["s", teacher].mean == pytest.approx(value)
        assert found["t", teacher].mean == pytest.approx(-value)
        # Prompts differ by 10 nats, and the intervals do not show it.
        assert found["s", teacher].low == pytest.approx(value)
        assert found["s", teacher].high == pytest.approx(value)
    assert found["s", "A"].rank == found["t", "C"].rank == 1


def profile_of(**changes: object) -> Profile:
    values = vars(load_profile("smoke")) | {"splitter": "s", "splitters": ["p", "t"]}
    return Profile(**values | {"num_resamples": 200} | changes)


def test_windows_of_the_comparison():
    assert splitter_windows(profile_of()) == ["0", "4", "all"]
    windows = ["0", "1", "4", "25%", "256t", "all"]
    assert splitter_windows(profile_of(windows=windows)) == ["0", "4", "256t", "all"]
    assert splitter_windows(profile_of(windows=["all"], main_window="all")) == ["all"]


def test_each_splitter_is_scored_for_the_same_first_prompts(llama, tmp_path, monkeypatch):
    texts = ["We add. Then x = 3.\n\nSo the sum is 7.", "It is 7. Done.\n\nIndeed."]
    prompts = {f"p{i}": Prompt(f"p{i}", (Message("user", f"{i} + 4?"),)) for i in range(3)}
    responses = [
        Response(f"{p}/{t}", p, t, text, True)
        for p in prompts
        for t, text in zip("AB", texts, strict=True)
    ]
    pool = Pool(prompts, tuple(responses))
    profile = profile_of(
        splitter="sentences", splitters=["paragraphs", "5t"], num_prompts=3, splitter_prompts=2
    )
    monkeypatch.setenv("LALP_BUILD", str(tmp_path))
    monkeypatch.setattr(splitters, "load_tokenizer", lambda name: llama.tokenizer)
    monkeypatch.setattr(
        splitters,
        "score",
        lambda pool, name, *rest, **options: run.score(pool, llama, *rest, **options),
    )
    scores = run.score(pool, llama, ["0", "4", "all"], with_tokens=True, progress=False)
    frame = splitters.splitter_scores(profile, pool, scores)
    assert list(frame["response_id"]) == list(scores["response_id"])
    scored = frame["5t:lalp@4"].notna()
    assert frame[scored]["prompt_id"].nunique() == 2
    for splitter in ("sentences", "paragraphs"):
        assert (frame[f"{splitter}:lalp@4"].notna() == scored).all()
        expected = run.score(pool, llama, ["0", "4", "all"], splitter=splitter, progress=False)
        assert list(frame[f"{splitter}:num_steps"]) == list(expected["num_steps"])
        # Exactly the full-prefix LALP of a forward pass with those steps.
        assert frame[f"{splitter}:lalp@all"].to_numpy() == pytest.approx(
            expected["lalp@all"].to_numpy(), abs=1e-5
        )
        assert frame[scored][f"{splitter}:lalp@4"].to_numpy() == pytest.approx(
            expected[scored]["lalp@4"].to_numpy(), abs=1e-5
        )


def test_the_figure_shows_every_window_splitter_and_teacher():
    means = centered_means(frame_of(5, {"t"}), ["s", "p", "t"], ["4", "all"], num_resamples=20)
    figure = plots.plot_splitter_sensitivity(means)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["w = 4; 5 prompts", "full prefix; 5 prompts"]
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["s", "p", "t"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B", "C"]
    plt.close(figure)
