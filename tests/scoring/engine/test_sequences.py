"""Packed sequences, on a CPU by a mask of all pairs, and by FlexAttention without a compiler."""

from __future__ import annotations

import itertools
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_student
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GptOssConfig,
    MistralConfig,
    Qwen2Config,
)

from lalp.scoring.candidates import score_candidates
from lalp.scoring.engine import sequences, vocabulary
from lalp.scoring.engine.packing import (
    BLOCK,
    Job,
    num_packed,
    pack_sequence,
    plan_sequences,
)
from lalp.scoring.engine.rows import Row
from lalp.scoring.engine.sequences import Packing, agrees, find_packing, layer_windows
from lalp.scoring.engine.vocabulary import read_rows_of_targets, read_targets
from lalp.scoring.windows import parse_window
from lalp.students.heads import take_logits
from lalp.students.student import Student, make_student
from tests.conftest import TINY
from tests.scoring.arithmetic import (
    PROMPT_IDS,
    assert_equals_separate_passes,
    make_task,
    packed,
)

WINDOWS = [parse_window(w) for w in ("0", "1", "2", "4", "25%", "100%", "5t", "all")]
ATTENDING = sorted(set(CONFIGS) - {"mamba"})
LENGTHS = ([3, 7, 1, 12, 4, 9, 2], [20], [1, 1, 1, 5], [6, 11, 3, 30])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def tasks_of_two_prompts() -> list:
    prompts = (PROMPT_IDS, tuple(range(20, 37)))
    return [
        make_task(lengths, seed=seed, prompt_ids=prompts[seed % 2])
        for seed, lengths in enumerate((*LENGTHS, *LENGTHS))
    ]


def assert_exact(student: Student, oracle: Student, **options) -> None:
    tasks = tasks_of_two_prompts()
    for task, scores in zip(
        tasks, score_candidates(student, tasks, WINDOWS, **options), strict=True
    ):
        assert_equals_separate_passes(oracle, task, {"galp": scores.galp} | scores.lalp, WINDOWS)


# --- who sees whom --------------------------------------------------------------------------


def rows_of(data, response: int) -> list[Row]:
    spans = []
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, response - 1))
        end = data.draw(st.integers(start + 1, response))
        begin = data.draw(st.integers(start, end - 1))
        spans.append(Row(start, end, ((begin, end),)))
    return spans


@settings(max_examples=40, deadline=None)
@given(data=st.data(), window=st.sampled_from([None, 1, 5, 200]))
def test_a_token_sees_its_prompt_and_its_row_up_to_itself(data, window):
    prompts = [tuple(range(data.draw(st.integers(1, 150)))) for _ in range(3)]
    jobs = [Job(p, range(300), row) for p in range(3) for row in rows_of(data, 300)]
    data.draw(st.randoms()).shuffle(jobs)
    length = -(-num_packed(prompts, jobs) // BLOCK + -2) * BLOCK
    sequence = pack_sequence(prompts, jobs, length)
    seen = (sequence.positions, sequence.begin, sequence.prompt_begin, sequence.prompt_end)
    mask = sequences._mask_function(*map(torch.from_numpy, seen), window)
    places = torch.arange(length)
    sees = mask(places[:1], places[:1], places[:, None], places[None]).numpy()
    # An oracle by labels: the prompt and the row that each token belongs to.
    owner, position = [], []
    for prompt in dict.fromkeys(job.prompt for job in jobs):
        owner += [(prompt, None)] * len(prompts[prompt])
        position += range(len(prompts[prompt]))
        for number, job in enumerate(jobs):
            if job.prompt == prompt:
                owner += [(prompt, number)] * job.row.num_inputs
                position += range(len(prompts[prompt]), len(prompts[prompt]) + job.row.num_inputs)
    near = window or length
    for query in range(0, len(owner), 7):
        expected = [
            owner[key] in (owner[query], (owner[query][0], None))
            and key <= query
            and position[query] - position[key] < near
            for key in range(len(owner))
        ]
        np.testing.assert_array_equal(sees[query, : len(owner)], expected)
        assert not sees[query, len(owner) :].any()
    assert sees[len(owner) :].sum(1).tolist() == [1] * (length - len(owner))
    if window is None:
        some, whole = sequence.seen_blocks()
        blocks = sees.reshape(length // BLOCK, BLOCK, length // BLOCK, BLOCK)
        np.testing.assert_array_equal(whole & ~blocks.all((1, 3)), False)
        np.testing.assert_array_equal(some | whole, blocks.any((1, 3)))
        assert not (some & whole).any()


@given(data=st.data(), most=st.integers(1, 400))
def test_every_job_is_in_one_sequence_that_has_room_for_it(data, most):
    prompts = [data.draw(st.integers(1, 50)) for _ in range(4)]
    jobs = [
        Job(data.draw(st.integers(0, 3)), range(60), row)
        for _ in range(data.draw(st.integers(1, 8)))
        for row in rows_of(data, 60)
    ]
    plan = plan_sequences(prompts, jobs, most)
    assert sorted(itertools.chain(*plan)) == list(range(len(jobs)))
    for members in plan:
        needed = sum(prompts[p] for p in {jobs[i].prompt for i in members})
        needed += sum(jobs[i].row.num_inputs for i in members)
        assert needed <= most or len(members) == 1


# --- scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ATTENDING)
@pytest.mark.parametrize("max_tokens", [70, 2048])
def test_many_prompts_in_one_pass_equal_one_pass_per_step(family, max_tokens, tokenizer):
    student = build_student(family, tokenizer)
    other = packed(student, max_tokens)
    assert agrees(other, find_packing(other))
    assert_exact(other, student)


def test_sinks_are_kept_under_the_mask(tokenizer):
    config = GptOssConfig(**TINY, head_dim=16, sliding_window=16, num_local_experts=4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    student = make_student(model, tokenizer, name="gpt_oss", revision="test")
    assert agrees(packed(student), packed(student).laid_out["packing"])
    assert_exact(packed(student, 2048), student)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_flex_attention_gets_the_same_mask(family, tokenizer):
    student = build_student(family, tokenizer)
    before = student.model.config._attn_implementation
    with torch.compiler.set_stance("force_eager"):
        assert_exact(packed(student, 1024, in_blocks=True), student)
    assert student.model.config._attn_implementation == before


def build(config, tokenizer, dtype=torch.float32) -> Student:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to("cuda")
    return make_student(model, tokenizer, name=config.model_type, revision="test")


@needs_gpu
@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**TINY, head_dim=16),
        Gemma2Config(**TINY, head_dim=16, sliding_window=16),
        MistralConfig(**TINY, head_dim=16, sliding_window=16),
        GptOssConfig(**TINY, head_dim=16, sliding_window=16, num_local_experts=4),
    ],
    ids=lambda config: config.model_type,
)
def test_a_gpu_reads_packed_sequences_exactly(config, tokenizer):
    student = build(config, tokenizer)
    assert find_packing(student)
    assert_exact(student, student)


@pytest.mark.parametrize("config", [CONFIGS["mamba"](), CONFIGS["gpt2"]()])
@needs_gpu
def test_other_models_take_the_plain_path_on_a_gpu(config, tokenizer):
    student = build(config, tokenizer)
    assert find_packing(student) is None
    assert_exact(student, student)


def test_a_mask_that_a_model_does_not_heed_is_found_out(tokenizer):
    mamba = build_student("mamba", tokenizer)
    assert not agrees(mamba, Packing(512, {"full_attention": None}, in_blocks=False))
    gemma = build_student("gemma3", tokenizer)
    wide = {"full_attention": None, "sliding_attention": 400}
    assert not agrees(gemma, Packing(512, wide, in_blocks=False))


def test_no_packing_on_a_cpu_and_unknown_layers_have_none(llama):
    assert find_packing(replace(llama, laid_out={})) is None
    config = CONFIGS["llama"]()
    assert layer_windows(config) == {"full_attention": None}
    config.sliding_window = 8
    assert layer_windows(config) == {"sliding_attention": 8}
    config.layer_types = ["chunked_attention", "full_attention"]
    assert layer_windows(config) is None


def test_a_sequence_is_filled_up_to_one_of_few_lengths():
    packing = Packing(5 * 1024, {"full_attention": None})
    lengths = {packing.padded(tokens) for tokens in range(1, 5 * 1024 + 1)}
    assert lengths == {1280, 5120}
    assert all(packing.padded(n) >= n for n in (1, 1280, 1281, 5120))


def test_running_out_of_memory_halves_a_sequence_and_changes_nothing(llama, monkeypatch):
    student, tasks = packed(llama), tasks_of_two_prompts()
    calm = score_candidates(student, tasks, WINDOWS)
    real, refused = sequences._launch, []

    def launch(student, packing, sequence, jobs, statistics):
        if len(jobs) > 2:
            refused.append(len(jobs))
            raise torch.OutOfMemoryError("out of memory")
        return real(student, packing, sequence, jobs, statistics)

    monkeypatch.setattr(sequences, "_launch", launch)
    tight = score_candidates(student, tasks, WINDOWS)
    assert refused
    for one, other in zip(tight, calm, strict=True):
        assert one.lalp == pytest.approx(other.lalp, abs=1e-5)
    # No memory even for a single row of a sequence: they are read by the cache, in parts.
    monkeypatch.setattr(sequences, "_launch", Mock(side_effect=torch.OutOfMemoryError("none")))
    for one, other in zip(score_candidates(student, tasks, WINDOWS), calm, strict=True):
        assert one.lalp == pytest.approx(other.lalp, abs=1e-5)
        assert one.galp == pytest.approx(other.galp, abs=1e-5)


def test_rows_that_are_too_long_for_a_sequence_are_read_by_themselves(llama):
    assert_exact(packed(llama), llama, max_batch_tokens=30)


@pytest.mark.parametrize("most", [1, 40, 1 << 20])
def test_whole_rows_of_logits_give_what_blocks_of_columns_give(most, monkeypatch):
    monkeypatch.setattr(vocabulary, "GPU_LOGITS", most)
    logits = 4 * torch.randn(13, 37, generator=torch.Generator().manual_seed(0))
    logits[2, 5], logits[3, 7] = -torch.inf, torch.nan
    ids = torch.arange(13)
    ids[2] = 5
    wanted = torch.arange(13) < 6
    expected = read_targets(take_logits, logits, ids, wanted)
    got = read_rows_of_targets(take_logits, logits, ids, 6)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)
