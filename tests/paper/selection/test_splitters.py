"""The same responses under several splitters: by hand, and what the verdicts make of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lalp.paper.profiles import Profile, load_profile
from lalp.paper.selection import plots, splitters
from lalp.paper.selection.splitters import centered_means, compare_splitters, splitter_windows
from lalp.pools.reading import load_pool
from lalp.scoring import run


def test_steps_weigh_the_same_whatever_their_length():
    weigh_steps, log_probs = splitters.weigh_steps, np.array([-1.0, -4, -2, -3, -3])
    assert weigh_steps(log_probs, [(0, 1), (1, 5)]) == -2
    assert weigh_steps(log_probs, [(0, 5)]) == pytest.approx(-2.6)
    assert np.isnan(weigh_steps(log_probs, [(0, 5), (5, 5)]))
    assert np.isnan(weigh_steps(log_probs, []))
    assert np.isnan(weigh_steps(np.array([-1, np.nan]), [(0, 2)]))


def test_other_steps_reweigh_the_tokens_that_were_scored():
    tokens = [np.array([-1, -2, -6], np.float32), np.array([-3], np.float32)]
    spans = [[[0, 2], [2, 6], [6, 8]], [[0, 1]]]
    scores = {"response_id": ["a", "b"], "token_spans": spans, "galp:tokens": tokens}
    scores = pd.DataFrame(scores, index=[7, 3])
    texts = {"a": "So it is", "b": "7"}
    # The token " it " counts where its first character that is no space stands.
    found = splitters.weigh_responses(scores, texts, {"a": [(0, 3), (3, 8)], "b": [(0, 1)]})
    assert list(found.index) == [7, 3]
    assert list(found["score"]) == [-2.5, -3]
    assert list(found["num_steps"]) == [2, 1]


LEVEL = {"A": -1.0, "B": -2.0, "C": -3.0}


def frame_of(num_prompts: int, turned: set[str] = frozenset(), noise: float = 0.0) -> pd.DataFrame:
    """Three splitters; those in ``turned`` reverse the teachers. Prompts differ in level."""
    generator = np.random.default_rng(0)
    rows = [
        (i, f"p{i}", f"p{i}/{teacher}", teacher) for i in range(num_prompts) for teacher in LEVEL
    ]
    frame = pd.DataFrame(rows, columns=["place", "prompt_id", "response_id", "teacher"])
    frame = frame.assign(correct=True, num_tokens=12)
    for splitter, steps in (("s", 6), ("p", 2), ("t", 3)):
        sign = -1 if splitter in turned else 1
        values = sign * frame["teacher"].map(LEVEL) - 5 - 10 * (frame["place"] % 2)
        values += noise * generator.normal(size=len(frame))
        frame[[f"{splitter}:lalp@4", f"{splitter}:lalp@all"]] = np.column_stack([values, values])
        frame[f"{splitter}:num_steps"] = steps
    return frame


def test_the_table_by_hand():
    table = compare_splitters(frame_of(12, {"t"}), ["s", "p", "t"], ["4"], num_resamples=50)
    expected = {name: [1, 1, -1] for name in ("tau", "tau_low", "tau_high")}
    expected |= {"splitter": ["s", "p", "t"], "order": ["A > B > C", "A > B > C", "C > B > A"]}
    expected |= {"same": [1, 1, 0], "steps": [6, 2, 3], "tokens": [2, 6, 4], "prompts": [12] * 3}
    assert table[list(expected)].to_dict("list") == expected
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
        row = found["s", teacher]
        # Prompts differ by 10 nats, and the intervals do not show it.
        assert [row.mean, row.low, row.high] == pytest.approx([value] * 3)
        assert found["t", teacher].mean == pytest.approx(-value)
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
    texts = {"A": "We add. Then x = 3.\n\nSo the sum is 7.", "B": "It is 7. Done.\n\nIndeed."}
    pool = load_pool(
        {"prompt_id": f"p{i}", "prompt": f"{i} + 4?", "teacher": t, "response": text}
        | {"correct": True}
        for i in range(3)
        for t, text in texts.items()
    )
    splits = {"splitter": "sentences", "splitters": ["paragraphs", "5t"]}
    profile = profile_of(**splits, num_prompts=3, splitter_prompts=2)

    def score(pool, name, *rest, **options):
        return run.score(pool, llama, *rest, **options)

    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    monkeypatch.setattr(splitters, "load_tokenizer", lambda name: llama.tokenizer)
    monkeypatch.setattr(splitters, "score", score)
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
        for column, rows in (("lalp@all", slice(None)), ("lalp@4", scored)):
            found = frame[rows][f"{splitter}:{column}"].to_numpy()
            assert found == pytest.approx(expected[rows][column].to_numpy(), abs=1e-5)


def test_the_figure_shows_every_window_splitter_and_teacher():
    means = centered_means(frame_of(5, {"t"}), ["s", "p", "t"], ["4", "all"], num_resamples=20)
    figure = plots.plot_splitter_sensitivity(means)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["w = 4; 5 prompts", "full prefix; 5 prompts"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["s", "p", "t"]
    # Each teacher's name stands at the end of its line.
    assert [text.get_text() for text in figure.axes[-1].texts] == ["A", "B", "C"]
    plt.close(figure)
