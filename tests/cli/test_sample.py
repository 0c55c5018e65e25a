"""`lalp sample`: what it writes and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lalp.pools.reading import load_pool
from lalp.sampling import pool as sampling_pool
from lalp.sampling import samples
from lalp.sampling.samples import SYSTEM_PROMPT
from lalp.sampling.settings import Sampling
from tests.pools.builders import jsonl

RECORDS = [
    {"prompt_id": "sum", "prompt": "What is 3 + 4?", "answer": 7},
    {"prompt_id": "product", "prompt": "What is 3 times 4?", "answer": "12"},
    {"prompt_id": "free", "prompt": [{"role": "user", "content": "Who are you?"}]},
]


@pytest.fixture
def prompts(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """The settings and options that reach `generate`; its answers are made up."""
    calls = []

    def answer(prompts, model, sampling, **options):
        calls.append((prompts, sampling, options))
        texts = [r"So \boxed{7}.", "", r"<think>So \boxed{12}."]
        return [
            samples.Completion(prompt.prompt_id, i, texts[i % 3], 10 + i, i == 3)
            for prompt in prompts
            for i in range(sampling.num_samples)
        ]

    monkeypatch.setattr(sampling_pool, "generate", answer)
    return calls


def test_a_pool_of_verified_samples_is_written(lalp, model, prompts, tmp_path):
    options = ["--model", model, "--num-samples", 2, "--temperature", 1, "--max-tokens", 9]
    out = tmp_path / "pool.jsonl"
    first = lalp("sample", prompts, *options, "--out", out, "--json", "--quiet")
    assert first.code == 0, first.err
    pool = load_pool(out)
    assert [r.response_id for r in pool.responses] == [
        f"{prompt}/Tiny-1B/{n}" for prompt in ("sum", "product", "free") for n in (0, 1)
    ]
    for response in pool.responses:
        assert set(response.extra) == {"sample", "num_tokens", "truncated"}
        assert 1 <= response.extra["num_tokens"] <= 9
        unknown = response.prompt_id == "free" and not response.extra["truncated"]
        assert response.correct is (None if unknown else False)
    assert [m.role for m in pool.prompts["sum"].messages] == ["user"]
    summary = json.loads(first.out)
    assert (summary["num_prompts"], summary["num_samples"]) == (3, 6)
    assert summary["num_tokens"] == sum(r.extra["num_tokens"] for r in pool.responses)
    assert summary["accuracy"] == 0
    assert first.err.splitlines()[-1] == f"lalp: 6 responses written: {out}"


def test_what_is_printed(lalp, model, prompts, asked, tmp_path):
    out = tmp_path / "pool.jsonl"
    options = ["--num-samples", 4, "--temperature", 1, "--teacher", "Ada"]
    outcome = lalp("sample", prompts, "--model", model, "--out", out, *options)
    assert outcome.out.splitlines() == [
        "12 samples of 3 prompts, 138 tokens (12 on average), 25.0% truncated",
        "12.5% correct; 1 prompts solved at least once",
        *("         4  no answer", "         3  truncated", "         3  no reference"),
        *("         1  correct", "         1  wrong"),
        "         3  left out: empty response",
    ]
    assert {r.teacher for r in load_pool(out).responses} == {"Ada"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", Sampling()),
        ("--preset table7-sampled --num-samples 2 --seed 3", Sampling(2, 0.6, 0.95, 0, 32768, 3)),
        ("--temperature 0.7 --top-p 0.8 --top-k 20", Sampling(1, 0.7, 0.8, 20, 1024)),
        ("--preset c9-sampled --max-tokens 48", Sampling(16, 0.6, 0.95, 0, 48)),
    ],
)
def test_settings(options, expected, lalp, prompts, asked, tmp_path):
    out = tmp_path / "p.jsonl"
    lalp("sample", prompts, "--model", "m", "--out", out, *options.split())
    assert asked[0][1] == expected


def test_other_options_reach_the_sampler(lalp, prompts, asked, tmp_path):
    options = ["--backend", "vllm", "--tensor-parallel", 4, "--batch-size", 50, "--device", "cuda"]
    options += ["--store", tmp_path / "kept", "--trust-remote-code", "--quiet"]
    lalp("sample", prompts, "--model", "a/B-7B", "--out", tmp_path / "p.jsonl", *options)
    given = {"backend": "vllm", "tensor_parallel": 4, "batch_size": 50, "device": "cuda"}
    given |= {"store": tmp_path / "kept", "trust_remote_code": True, "progress": False}
    assert asked[0][2] == given | {"system_prompt": None}
    assert {r.teacher for r in load_pool(tmp_path / "p.jsonl").responses} == {"B-7B"}


def test_the_system_prompt_is_the_papers_one_of_ones_own_or_none(lalp, prompts, asked, tmp_path):
    common = [prompts, "--model", "m", "--out", tmp_path / "p.jsonl"]
    for system in ([], ["--system", "Be brief."], ["--system", ""]):
        assert lalp("sample", *common, *system).code == 0
    (paper, _, first), (own, _, second), (none, _, third) = asked
    assert [prompt.messages[0].content for prompt in paper] == [SYSTEM_PROMPT] * 3
    assert first["system_prompt"] is None
    assert (len(own[0].messages), second["system_prompt"]) == (1, "Be brief.")
    assert (len(none[0].messages), third["system_prompt"]) == (1, None)
