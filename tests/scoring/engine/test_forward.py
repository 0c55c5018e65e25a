from __future__ import annotations

import itertools
import math
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_student
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.scoring.candidates import score_candidates
from lalp.scoring.engine import forward, vocabulary
from lalp.scoring.engine.vocabulary import read_targets
from lalp.scoring.groups import Task
from lalp.scoring.windows import parse_window
from lalp.students.encoding import Encoded
from lalp.students.heads import take_logits
from lalp.students.student import Student
from tests.scoring.arithmetic import PROMPT_IDS, assert_equals_separate_passes, make_task

WINDOWS = [parse_window(w) for w in ("0", "1", "2", "4", "25%", "60%", "100%", "5t", "40t", "all")]


def unpacked(student: Student) -> Student:
    """The same student without its packed body."""
    return replace(student, laid_out={"packed": None})


MANY_BATCHES = itertools.product(["llama", "gpt2", "gemma3"], [1, 16, 100])


@pytest.mark.parametrize(
    ("family", "max_batch_tokens"), [*((family, None) for family in CONFIGS), *MANY_BATCHES]
)
def test_every_window_equals_a_separate_pass_per_step(family, max_batch_tokens, tokenizer):
    student = build_student(family, tokenizer)
    lengths = ([3, 7, 1, 12, 4, 9, 2], [20], [1, 1, 1, 5], [6, 11, 3, 30])
    tasks = [make_task(some, seed=seed) for seed, some in enumerate(lengths, 1)]
    scored = score_candidates(student, tasks, WINDOWS, max_batch_tokens=max_batch_tokens)
    for task, scores in zip(tasks, scored, strict=True):
        assert_equals_separate_passes(student, task, {"galp": scores.galp} | scores.lalp, WINDOWS)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    window=st.sampled_from(["0", "1", "3", "10%", "50%", "99.5%", "1t", "7t", "all"]),
    seed=st.integers(0, 5),
)
def test_any_segmentation_equals_separate_passes(llama, lengths, window, seed):
    task, parsed = make_task(lengths, seed=seed), [parse_window(window)]
    (scores,) = score_candidates(llama, [task], parsed)
    assert_equals_separate_passes(llama, task, {"galp": scores.galp} | scores.lalp, parsed)


@pytest.mark.parametrize(
    ("family", "packed", "shared"),
    [("llama", True, False), ("gpt2", False, True), ("gemma3", False, False)],
)
def test_the_path_is_chosen_by_what_the_student_is(family, packed, shared, tokenizer):
    prefix = forward._read_prompt(build_student(family, tokenizer), PROMPT_IDS)
    assert (prefix.context is not None) == packed
    assert (prefix.layers is not None) == shared


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_rank_and_entropy_against_a_naive_formula(family, tokenizer):
    student, task = build_student(family, tokenizer), make_task([6, 8])
    (scores,) = score_candidates(student, [task], WINDOWS[:1])
    prompt, ids = list(PROMPT_IDS), list(task.encoded.response_ids)
    with torch.inference_mode():
        logits = student.model(input_ids=torch.tensor([prompt + ids])).logits[0].double()
    predictions = logits[len(prompt) - 1 : -1].log_softmax(-1).numpy()
    entropies = -(np.exp(predictions) * predictions).sum(1)
    ranks = [1 + (row > row[token]).sum() for row, token in zip(predictions, ids, strict=True)]
    assert scores.mean_rank == pytest.approx(np.mean(ranks))
    assert max(ranks) > 100
    assert scores.mean_rank_100 == pytest.approx(np.minimum(ranks, 100).mean())
    assert scores.mean_entropy == pytest.approx(entropies.mean(), abs=1e-4)


@given(data=st.data(), targets=st.integers(1, 6), vocab=st.integers(1, 12))
def test_targets_follow_from_all_logits_however_they_are_cut(data, targets, vocab):
    # A few values, so that there are ties, and impossible tokens, even whole blocks of them.
    value = st.sampled_from([-math.inf, -80.0, -1.5, 0.0, 0.25, 3.0, 90.0])

    def draw(element, *shape):
        flat = [data.draw(element) for _ in range(math.prod(shape))]
        return torch.tensor(flat).reshape(shape)

    logits = draw(value, targets, vocab)
    logits[:, 0] = logits[:, 0].clamp(min=-2.0)  # something is possible
    ids, wanted = draw(st.integers(0, vocab - 1), targets), draw(st.booleans(), targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "HEAD_COLUMNS", data.draw(st.integers(1, 13)))
        patch.setattr(vocabulary, "HEAD_LOGITS", data.draw(st.integers(1, 40)))
        log_probs, ranks, entropies = read_targets(take_logits, logits, ids, wanted)
    predictions = logits.double().log_softmax(1)
    chosen = predictions.gather(1, ids[:, None])
    np.testing.assert_allclose(log_probs, chosen[:, 0], rtol=1e-5, atol=1e-5)
    plogp = torch.where(predictions.exp() > 0, predictions.exp() * predictions, 0.0)
    for got, expected in (
        (ranks, 1 + (predictions > chosen).sum(1).double()),
        (entropies, -plogp.sum(1)),
    ):
        expected[~wanted] = math.nan
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_too_long_is_nan_with_a_reason_and_the_rest_is_scored(llama):
    task = make_task([10, 10, 10], limit=len(PROMPT_IDS) + 20)
    (scores,) = score_candidates(llama, [task], [parse_window(w) for w in ("0", "1", "2", "all")])
    assert np.isnan([scores.galp, scores.mean_rank, scores.lalp["lalp@2"]]).all()
    assert "36 tokens exceed the student's 26 positions" in scores.reasons["galp"]
    assert "step 3 needs 36 tokens" in scores.reasons["lalp@2"]
    assert set(scores.reasons) == {"galp", "lalp@2", "lalp@all"}
    (fits,) = score_candidates(llama, [replace(task, limit=512)], [parse_window("1")])
    assert scores.lalp["lalp@1"] == pytest.approx(fits.lalp["lalp@1"], abs=1e-5)


def test_a_step_without_tokens_and_a_response_without_tokens(llama):
    empty_step = Task(make_task([4, 3]).encoded, ((0, 4), (4, 4), (4, 7)), 512)
    no_tokens = Task(Encoded(PROMPT_IDS, (), ()), ((0, 0),), 512)
    first, second = score_candidates(llama, [empty_step, no_tokens], [parse_window("1")])
    assert first.galp < 0
    assert first.reasons == {"lalp@1": "step 2 has no tokens of its own"}
    assert np.isnan([first.lalp["lalp@1"], second.galp]).all()
    assert set(second.reasons) == {"galp", "lalp@1"}


def test_a_token_of_probability_zero_is_nan_with_a_reason(llama):
    task = make_task([4, 3])
    banned = task.encoded.response_ids[5]

    def head(features, columns=slice(None)):
        logits = llama.head(features)
        logits[:, banned] = -math.inf
        return logits[:, columns].clone()

    (scores,) = score_candidates(replace(llama, head=head), [task], [parse_window("0")])
    assert np.isnan([scores.galp, scores.lalp["lalp@0"]]).all()
    assert set(scores.reasons) == {"galp", "lalp@0"}
    assert "probability 0" in scores.reasons["galp"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["chosen", "another"])
def test_logits_that_are_not_finite_give_no_score_and_no_rank(value, where, llama):
    task = make_task([4, 3])
    token = task.encoded.response_ids[5]
    column = token if where == "chosen" else (token + 1) % 400

    def head(features, columns=slice(None)):
        logits = llama.head(features)
        logits[:, column] = value
        return logits[:, columns].clone()

    (scores,) = score_candidates(replace(llama, head=head), [task], [parse_window("0")])
    means = [scores.mean_rank, scores.mean_rank_100, scores.mean_entropy]
    assert np.isnan([scores.galp, scores.lalp["lalp@0"], *means]).all()
    assert set(scores.reasons) == {"galp", "lalp@0"}
    assert all("not finite" in reason for reason in scores.reasons.values())


@pytest.mark.parametrize("path", ["_feed_packed", "_feed_padded"])
def test_out_of_memory_halves_the_batch_and_changes_nothing(path, llama, monkeypatch):
    student = llama if path == "_feed_packed" else unpacked(llama)
    tasks = [make_task([5, 9, 4, 8], seed=8)]
    (calm,) = score_candidates(student, tasks, WINDOWS)
    real, refused = getattr(forward, path), []

    def feed(student, prefix, jobs, *args):
        if len(jobs) > 2:
            refused.append(len(jobs))
            raise torch.OutOfMemoryError("out of memory")
        yield from real(student, prefix, jobs, *args)

    monkeypatch.setattr(forward, path, feed)
    (tight,) = score_candidates(student, tasks, WINDOWS)
    assert refused
    assert tight.lalp == pytest.approx(calm.lalp, abs=1e-5)


def test_other_runtime_errors_are_not_swallowed(llama, monkeypatch):
    monkeypatch.setattr(forward, "_feed_packed", Mock(side_effect=RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        score_candidates(llama, [make_task([3, 3])], WINDOWS)
