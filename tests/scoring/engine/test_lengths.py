"""Students that read the same tokens otherwise when the pass is longer, and stateful ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TINY, separate_pass
from lengths import CONFIGS, LIMIT, build, forget
from transformers import MiniMaxConfig, RecurrentGemmaConfig

from lalp.scoring.candidates import score_candidates
from lalp.scoring.engine import forward
from lalp.scoring.equations import window_starts
from lalp.scoring.groups import Task
from lalp.scoring.windows import parse_window
from lalp.students.encoding import Encoded
from tests.scoring.arithmetic import PROMPT_IDS, make_task

WINDOWS = [parse_window(window) for window in ("0", "2", "12t", "all")]
# With six tokens of a prompt: 44, 26, 14 and 56, and steps on both sides of the limit of 24.
LENGTHS = ([3, 7, 1, 12, 4, 9, 2], [20], [1, 1, 1, 5], [6, 11, 3, 30])


@pytest.fixture(params=[1, 2], ids=["one_thread", "threads"])
def threads(request):
    """How many threads score; the tests' own number is there again afterwards."""
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


def assert_equals_passes_alone(student, tasks, budgets=(None,), threads=1):
    """Every token of every score against one pass over its step and what the step sees."""
    alone = {}
    for max_batch_tokens in budgets:
        torch.set_num_threads(threads)
        scored = score_candidates(student, tasks, WINDOWS, max_batch_tokens=max_batch_tokens)
        torch.set_num_threads(1)  # small passes alone gain nothing from more
        for task, scores in zip(tasks, scored, strict=True):
            contexts = {"galp": [(0, (0, task.num_tokens))]}
            for window in WINDOWS:
                starts = window_starts(window, task.step_spans)
                contexts[f"lalp@{window}"] = list(zip(starts, task.step_spans, strict=True))
            ids = list(task.encoded.response_ids)
            for start, (begin, end) in {pair for pairs in contexts.values() for pair in pairs}:
                text = (tuple(ids[start:begin]), tuple(ids[begin:end]))
                if text not in alone:
                    forget(student)
                    seen = [*task.encoded.prompt_ids, *text[0]]
                    alone[text] = separate_pass(student, seen, list(text[1]))
            for column, pairs in contexts.items():
                texts = [(tuple(ids[start:a]), tuple(ids[a:b])) for start, (a, b) in pairs]
                expected = np.concatenate([alone[text] for text in texts])
                got = scores.token_log_probs[column]
                np.testing.assert_allclose(got, expected, rtol=5e-6, atol=2e-5)  # float32 rounds


@pytest.mark.parametrize("name", CONFIGS)
def test_every_step_is_read_as_in_a_pass_of_its_own_length(name, threads):
    student = build(CONFIGS[name]())
    tasks = [make_task(lengths, seed=seed) for seed, lengths in enumerate(LENGTHS, 1)]
    assert_equals_passes_alone(student, tasks, (None, 1, 30), threads)


@pytest.mark.parametrize("response", [LIMIT - 7, LIMIT - 6, LIMIT - 5])
def test_the_token_at_the_limit_counts(response, threads):
    # The last token is predicted, never fed: the pass is as long as if it were.
    student = build(CONFIGS["longrope"]())
    tasks = [make_task([response], seed=1), make_task([2, 1], seed=2)]
    assert_equals_passes_alone(student, tasks, threads=threads)


def test_steps_on_one_side_of_the_limit_share_rows_and_the_prompt(monkeypatch):
    student, read, real = build(CONFIGS["longrope"]()), [], forward._read_prompt
    monkeypatch.setattr(forward, "_read_prompt", lambda *args: read.append(1) or real(*args))
    assert real(student, PROMPT_IDS).layers
    tasks = [make_task(lengths, seed=seed) for seed, lengths in enumerate(LENGTHS, 1)]
    score_candidates(student, tasks, WINDOWS)
    assert len(read) == 2  # the prompt on each side of the limit


STATEFUL = {
    # The cache holds states besides its layers.
    "minimax": lambda: MiniMaxConfig(
        **TINY,
        head_dim=8,
        num_local_experts=2,
        block_size=8,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    # The model itself holds states, for a batch of one size.
    "recurrent_gemma": lambda: RecurrentGemmaConfig(
        **{name: value for name, value in TINY.items() if name != "max_position_embeddings"},
        head_dim=8,
        lru_width=32,
        attention_window_size=16,
        block_types=("recurrent", "attention"),
    ),
}


@pytest.mark.parametrize("family", STATEFUL)
def test_state_outside_a_cache_that_grows_goes_the_plain_way(family, threads):
    student = build(STATEFUL[family]())
    assert student.keeps_state == (family == "recurrent_gemma")
    assert forward._read_prompt(student, PROMPT_IDS).layers is None
    tasks = [make_task(lengths, seed=seed) for seed, lengths in enumerate(LENGTHS, 1)]
    assert_equals_passes_alone(student, tasks, (None, 30), threads)


def test_a_prompt_without_tokens_and_unknown_token_ids_have_reasons(llama):
    ids = (5, 6, 7)
    offsets = tuple((i, i + 1) for i in range(3))

    def task(prompt_ids, response_ids):
        return Task(Encoded(prompt_ids, response_ids, offsets), ((0, 2), (2, 3)), 512)

    tasks = [task((), ids), task((4, 400), ids), task((4,), (5, 6, 1000)), task((4,), ids)]
    *odd, plain = score_candidates(llama, tasks, WINDOWS[:1])
    for scores, reason in zip(
        odd,
        (
            "the prompt has no tokens: nothing predicts the response's first token",
            "the prompt has token id 400, the student has 400 token ids",
            "the response has token id 1000, the student has 400 token ids",
        ),
        strict=True,
    ):
        assert scores.reasons == {"galp": reason, "lalp@0": reason}
        assert np.isnan([scores.galp, scores.lalp["lalp@0"], scores.mean_rank]).all()
        assert np.isnan(scores.token_log_probs["galp"]).tolist() == [True] * 3
    assert not plain.reasons
