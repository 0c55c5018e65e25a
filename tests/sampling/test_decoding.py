"""Decoding with transformers: tokens, rows, memory and distribution."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock, patch

import lengths
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, build_student
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling.tiny import END, PROMPTS, WARM, greedy_ids, prompt_ids
from scipy.stats import chisquare
from transformers import (
    RecurrentGemmaConfig,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lalp.errors import InputError
from lalp.sampling import decoding
from lalp.sampling.decoding import Output, Request, candidates, choose_tokens, decode
from lalp.sampling.settings import Sampling, sample_seed
from lalp.students.student import Student


@pytest.mark.parametrize(
    ("family", "room"),
    [("llama", 4), ("llama", 256), ("qwen2", 4), ("gemma3", 4), ("gpt2", 4), ("mamba", 4)],
)
def test_greedy_is_what_the_model_generates_itself(family, room, tokenizer, monkeypatch):
    monkeypatch.setattr(decoding, "_ROOM", room)
    student = build_student(family, tokenizer)
    ids = [prompt_ids(student, prompt) for prompt in PROMPTS]
    assert len({*map(len, ids)}) > 2
    # Tokens that do occur early in some rows, so that rows end at different times.
    free = [greedy_ids(student, row, 24, frozenset()) for row in ids]
    stops = frozenset({free[0][5], free[2][17]})
    requests = [Request(tuple(row), Sampling(), 24, 0) for row in (*ids, ids[1])]
    outputs = decode(student, requests, stops)
    for row, output in zip((*ids, ids[1]), outputs, strict=True):
        assert list(output.token_ids) == greedy_ids(student, row, 24, stops)
        assert output.ended == (output.token_ids[-1] in stops)
    assert any(output.ended for output in outputs)


def test_ended_rows_leave_the_batch_and_equal_prompts_are_read_once(llama):
    fed = []

    def body(**inputs):
        fed.append(tuple(inputs["input_ids"].shape))
        return llama.body(**inputs)

    student = replace(llama, body=body)
    ids = [tuple(prompt_ids(llama, prompt)) for prompt in PROMPTS]
    limits = [1, 6, 3, 6]
    requests = [Request(row, Sampling(), n, 0) for row, n in zip(ids, limits, strict=True)]
    outputs = decode(student, requests, frozenset())
    assert [len(output.token_ids) for output in outputs] == limits
    # The prompts at once, and then one token of each row that goes on.
    assert fed == [(4, max(map(len, ids))), (3, 1), (3, 1), (2, 1), (2, 1), (2, 1)]
    fed.clear()
    decode(student, [Request(ids[0], WARM, 2, seed) for seed in range(5)], frozenset())
    assert [rows for rows, _ in fed] == [1, 5]


def test_models_that_cannot_be_decoded_are_refused(llama, monkeypatch):
    requests = [Request((5,), Sampling(), 2, 0)]
    for value in (math.nan, math.inf):
        broken = replace(llama, head=lambda x, value=value: torch.full((len(x), 400), value))
        with pytest.raises(InputError, match="not numbers"):
            decode(broken, requests, frozenset())
    monkeypatch.setattr(type(llama.model), "_supports_default_dynamic_cache", lambda self: False)
    with pytest.raises(InputError, match="vllm backend"):
        decode(llama, requests, frozenset())


@torch.inference_mode()
def passes_alone(student: Student, ids: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Greedy tokens, each by one pass over the whole text before it."""
    text = list(ids)
    for _ in range(limit):
        lengths.forget(student)
        text.append(int(student.model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
    return tuple(text[len(ids) :])


@pytest.mark.parametrize("name", lengths.CONFIGS)
def test_a_text_that_outgrows_its_frequencies_goes_on_as_one_pass_over_it_does(name):
    student = lengths.build(lengths.CONFIGS[name]())
    prompts = [tuple(range(5, 5 + n)) for n in (3, 18, 11, 30, 24, 18)]  # the limit is 24
    limits = [30, 12, 24, 8, 5, 3]
    requests = [Request(p, Sampling(), n, 0) for p, n in zip(prompts, limits, strict=True)]
    outputs = decode(student, requests, frozenset())
    for request, output in zip(requests, outputs, strict=True):
        assert output.token_ids == passes_alone(student, request.prompt_ids, request.limit)


def test_prompts_that_cannot_be_read_are_refused(llama):
    stops: frozenset[int] = frozenset()
    for ids, message in (
        ((), "a prompt has no tokens"),
        ((5, 400), "a prompt has token id 400, the model has 400 token ids"),
    ):
        with pytest.raises(InputError, match=message):
            decode(llama, [Request((5,), Sampling(), 2, 0), Request(ids, Sampling(), 2, 0)], stops)


def test_a_model_that_keeps_its_state_itself_is_refused():
    names = {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"}
    sizes = {name: value for name, value in TINY.items() if name in names}
    config = RecurrentGemmaConfig(
        **sizes,
        num_hidden_layers=2,
        num_key_value_heads=2,
        lru_width=32,
        block_types=("recurrent", "attention"),
    )
    with pytest.raises(InputError, match="keeps its state in a form of its own"):
        decode(lengths.build(config), [Request((5,), Sampling(), 2, 0)], frozenset())


def test_when_memory_runs_out_the_batch_is_halved(llama, monkeypatch):
    sizes, real = [], decoding._decode_batch

    def limited(student, requests, *args):
        sizes.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(student, requests, *args)

    ids = [tuple(prompt_ids(llama, prompt)) for prompt in PROMPTS]
    requests = [Request(row, Sampling(), 5, 0) for row in (*ids, ids[0])]
    expected = decode(llama, requests, frozenset())
    monkeypatch.setattr(decoding, "_decode_batch", limited)
    assert decode(llama, requests, frozenset()) == expected
    assert sizes == [5, 3, 2, 1, 2]
    # Another error is not taken for a lack of memory.
    monkeypatch.setattr(decoding, "_decode_batch", Mock(side_effect=RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        decode(llama, requests, frozenset())
    assert decoding._decode_batch.call_count == 1


def test_the_default_batch_fits_the_memory(llama, monkeypatch):
    # 3 layers x 2 key heads x 8 numbers, keys and values, in 4 bytes: 384 bytes a token.
    weights = sum(p.nbytes for p in {id(p): p for p in llama.model.parameters()}.values())
    free = 384 * 1000 * 10 + 100  # buffers
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * (weights + free)}  # half of it may be used
    monkeypatch.setattr(decoding.os, "sysconf", pages.get)
    lengths = (1000, 1001, 100, 1_000_000)
    assert [decoding.default_batch_size(llama, n) for n in lengths] == [10, 9, 64, 1]


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities by transformers' own processors."""
    scores = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    return scores.softmax(-1)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 0.1, 1.0, 3.0, 12.0]),
    temperature=st.sampled_from([0.3, 0.6, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 299, 300, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.95, 0.999, 1.0]),
    first=st.sampled_from([1, 7, 128]),
)
def test_tokens_that_may_be_drawn_are_those_of_transformers(
    seed, spread, temperature, top_k, top_p, first
):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 300)) * spread).float()
    # Distinct values: of equally likely tokens top-p may cut off either.
    scores = scores + torch.arange(300) * 1e-3
    expected = warped(scores, sampling).double()
    with patch("lalp.sampling.decoding._FIRST_CANDIDATES", first):
        probs, ids = candidates(scores / temperature, top_k, top_p)
    assert bool((ids.diff(dim=1) > 0).all())
    found = torch.zeros_like(expected).scatter_(1, ids, probs.double())
    found /= found.sum(1, keepdim=True)
    # Where the cumulated probability meets top_p to the last digit, either side is right.
    if not torch.allclose(found, expected, atol=1e-5):
        ordered = (scores / temperature).softmax(-1).double().sort(descending=True).values
        assert (ordered.cumsum(-1) - top_p).abs().min() < 1e-5


def test_top_k_keeps_ties_and_top_p_counts_what_top_k_left():
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0, -1.0]])
    probs, ids = candidates(logits, 2, 1.0)
    assert ids[probs > 0].tolist() == [0, 1, 2]
    # exp(2) of exp(2) + 2 exp(1) is 0.576: with top-p 0.58 of what top-k left, one more is kept.
    probs, ids = candidates(logits, 2, 0.57)
    assert ids[probs > 0].tolist() == [0]
    assert len(ids[candidates(logits, 2, 0.58)[0] > 0]) == 2


@pytest.mark.parametrize("sampling", [Sampling(1, 1.3), Sampling(1, 0.7, top_p=0.8, top_k=6)])
def test_evenly_spaced_numbers_draw_each_token_as_often_as_it_is_likely(sampling):
    torch.manual_seed(1)
    logits = torch.randn(1, 50) * 2
    probs = warped(logits, sampling)[0].double().numpy()
    count = 20_000
    uniforms = (np.arange(count) + 0.5) / count
    tokens = choose_tokens(logits.expand(count, -1), sampling, uniforms.tolist())
    counts = np.bincount(tokens.numpy(), minlength=50)
    assert np.abs(counts - count * probs).max() <= 1.1


def test_extreme_numbers_draw_a_possible_token():
    logits = torch.tensor([[0.0, -200.0, -math.inf], [-math.inf, 0.0, 0.0]])
    for uniform, tokens in ((0.0, [0, 1]), (math.nextafter(1, 0), [0, 2])):
        assert choose_tokens(logits, Sampling(temperature=1.0), [uniform] * 2).tolist() == tokens


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_sampled_pairs_of_tokens_follow_the_models_distribution(family, tokenizer):
    student = build_student(family, tokenizer)
    sampling = Sampling(temperature=1.5, top_k=4, top_p=0.9, max_tokens=2)
    ids = prompt_ids(student, PROMPTS[1])
    count = 3000
    requests = [Request(tuple(ids), sampling, 2, sample_seed(0, "p", i)) for i in range(count)]
    drawn = Counter(output.token_ids for output in decode(student, requests, frozenset()))
    expected = {}
    for first, p in next_tokens(student, ids, sampling):
        for second, q in next_tokens(student, [*ids, first], sampling):
            expected[first, second] = p * q
    assert set(drawn) <= set(expected)
    assert len(expected) > 4
    # Rare pairs count together.
    classes = {pair: pair if count * p >= 5 else "rare" for pair, p in expected.items()}
    table = pd.DataFrame({"hoped": pd.Series(expected) * count, "drawn": pd.Series(drawn)})
    table = table.fillna(0).groupby(pd.Series(classes).map(str)).sum()
    hoped = table["hoped"] * count / table["hoped"].sum()
    assert chisquare(table["drawn"], hoped).pvalue > 1e-3


@torch.inference_mode()
def next_tokens(student: Student, ids: list[int], sampling: Sampling) -> list[tuple[int, float]]:
    logits = student.model(input_ids=torch.tensor([ids])).logits[0, -1:].float()
    probs = warped(logits, sampling)[0].double()
    return [(token, float(p)) for token, p in enumerate(probs) if p > 0]


def test_reasoning_that_the_template_begins_belongs_to_the_text(tokenizer):
    ids = tuple(tokenizer("So 7.").input_ids)
    for prompt, output, text in (
        ("<|assistant|>\n<think>\n", Output(ids, False), "<think>\nSo 7."),
        ("<|assistant|>\n<think>\n\n</think>\n\n", Output((*ids, END), True), "So 7."),
        # Special tokens in the middle are no text.
        ("", Output((ids[0], END, *ids[1:]), False), "So 7."),
    ):
        assert decoding.response_text(tokenizer, prompt, output) == text
