"""Sampling: settings, seeds, limits, the store, vLLM and the pool. `make kills` kills it."""

from __future__ import annotations

import copy
import itertools
import math
import sys
from dataclasses import astuple, replace
from pathlib import Path
from shutil import copytree
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from conftest import build_student
from sampling.tiny import END, PROMPTS, WARM, greedy_ids, prompt_ids

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt
from lalp.sampling import samples
from lalp.sampling.decoding import Request
from lalp.sampling.pool import sample_pool
from lalp.sampling.samples import SYSTEM_PROMPT, Completion, generate, paper_prompts
from lalp.sampling.settings import Sampling, sample_seed
from lalp.sampling.vllm import decode_with_vllm
from lalp.students import student as students_student
from lalp.students.encoding import stop_token_ids


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(students_student, "default_device", lambda: "cpu")


@pytest.fixture
def run(tmp_path, llama):
    """`generate` with the tiny student, its store in the test's folder."""

    def call(prompts=PROMPTS, sampling=WARM, student=llama, **options):
        options = {"store": tmp_path / "store", "progress": False} | options
        return generate(prompts, student, sampling, **options)

    return call


@pytest.fixture
def drawn(monkeypatch) -> list[list[Request]]:
    """The batches that the model was asked for."""
    batches, real = [], samples.decode

    def record(student, requests, *args):
        batches.append(list(requests))
        return real(student, requests, *args)

    monkeypatch.setattr(samples, "decode", record)
    return batches


OUT_OF_RANGE = [
    *(("num_samples", 0), ("max_tokens", 0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.01)),
    *(("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf)),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}: it must be "):
        Sampling(**{name: value})
    with pytest.raises(
        InputError, match="num_samples is 2 at temperature 0: all would be the same"
    ):
        Sampling(2)


@pytest.mark.parametrize("batch_size", [3, None])
def test_texts_are_the_decoded_tokens_in_the_prompts_order(batch_size, run, llama):
    found = run(sampling=Sampling(max_tokens=40), batch_size=batch_size)
    assert [completion.prompt_id for completion in found] == ["p0", "p1", "p2", "p3"]
    stops = stop_token_ids(llama.tokenizer, llama.model.config, llama.model.generation_config)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = greedy_ids(llama, prompt_ids(llama, prompt), 40, stops)
        ended = ids[-1] in stops
        assert (completion.num_tokens, completion.truncated) == (len(ids), not ended)
        assert completion.text == llama.tokenizer.decode(ids[:-1] if ended else ids)


def test_other_prompts_order_and_batches_change_nothing(run, tmp_path):
    whole = run()
    assert run([PROMPTS[2]], store=tmp_path / "alone") == whole[6:9]
    turned = run(PROMPTS[::-1], batch_size=5, store=tmp_path / "turned")
    assert turned == sorted(whole, key=lambda c: c.prompt_id, reverse=True)


def test_seed_prompt_id_and_sample_each_change_what_is_drawn(run):
    texts = {c.text for c in run([PROMPTS[0]])}
    assert len(texts) == 3
    others = run([PROMPTS[0]], replace(WARM, seed=1)) + run([replace(PROMPTS[0], prompt_id="q")])
    assert texts.isdisjoint(c.text for c in others)
    seeds = {sample_seed(s, p, n) for s in range(3) for p in ("a", "b") for n in range(3)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_several_settings_are_drawn_together_and_are_the_same(run, tmp_path, drawn):
    greedy = Sampling(max_tokens=9)
    assert run([], [greedy, WARM]) == [[], []]
    both = run(sampling=[greedy, WARM])
    assert len(drawn) == 1
    assert len(drawn[0]) == 4 * (1 + 3)
    assert both == [run(sampling=greedy, store=tmp_path / "a"), run(store=tmp_path / "b")]
    drawn.clear()
    assert run() == both[1]
    assert drawn == []


def test_the_limit_counts_the_end_token(run, llama, monkeypatch):
    ids = greedy_ids(llama, prompt_ids(llama, PROMPTS[0]), 8, frozenset())
    place = ids.index(ids[4])
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", [2, ids[4]])
    whole, cut = (run([PROMPTS[0]], Sampling(max_tokens=n))[0] for n in (place + 1, max(1, place)))
    assert (whole.num_tokens, whole.truncated) == (place + 1, False)
    assert (cut.num_tokens, cut.truncated) == (place, True)
    assert whole.text == cut.text


def test_the_limit_is_lowered_to_the_models_positions_and_this_is_said_once(tokenizer, run, caplog):
    student = build_student("llama", tokenizer, max_position_embeddings=60)
    lengths = [len(prompt_ids(student, prompt)) for prompt in PROMPTS]
    long = Prompt("long", (Message("user", "word " * 60),))
    found = run([*PROMPTS, long], Sampling(max_tokens=50), student)
    for completion, length in zip(found, lengths, strict=False):
        assert completion.num_tokens == 60 - length or not completion.truncated
    assert found[-1] == Completion("long", 0, "", 0, True)
    assert any(c.truncated for c in found[:-1])
    (message,) = caplog.messages
    assert "60 positions" in message
    assert "for 3 prompts, to 0 at the least ('long')" in message


def test_a_system_prompt_goes_in_front_but_not_of_another(run, drawn, llama):
    run(PROMPTS[:1], Sampling(max_tokens=2), system_prompt="Be brief.")
    text = llama.tokenizer.decode(drawn[0][0].prompt_ids)
    assert text == ("<|system|>\nBe brief.<|end|>\n<|user|>\nAdd 3 and 4.<|end|>\n<|assistant|>\n")
    own = Prompt("own", (Message("system", "Be long."), Message("user", "Why?")))
    with pytest.raises(InputError, match="'own' has a system message of its own"):
        run([own], system_prompt="Be brief.")
    few = Sampling(max_tokens=4)
    assert run([own], few) == run([own], few, system_prompt="Be long.")
    assert paper_prompts([own, PROMPTS[0]]) == [
        own,
        Prompt("p0", (Message("system", SYSTEM_PROMPT), Message("user", "Add 3 and 4.")), "7"),
    ]


BAD_CALLS = {
    "'p0' is given 2 times": {"prompts": [PROMPTS[0], PROMPTS[0]]},
    "unknown backend 'jax': there are transformers, vllm": {"backend": "jax"},
    "batch_size is 0": {"batch_size": 0},
    "vllm and ray backends": {"tensor_parallel": 2},
    "no such folder": {"student": "./nowhere"},
    "cannot be used": {"device": "gpu7", "student": "smollm2-135m"},
}


@pytest.mark.parametrize(("said", "change"), BAD_CALLS.items(), ids=BAD_CALLS)
def test_bad_calls_are_refused(said, change, run, tmp_path):
    with pytest.raises(InputError, match=said):
        run(**change)
    assert list(tmp_path.iterdir()) == []


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jsonl"))


def test_a_second_call_loads_no_weights(run, student_folder, tmp_path, monkeypatch):
    first = run(student=student_folder, batch_size=5)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(shards(tmp_path / "store")) == 3
    monkeypatch.setattr(students_student, "load_model", lambda *a, **k: pytest.fail("loaded"))
    assert run(student=student_folder) == first
    # Fewer prompts, in another order, fewer samples.
    some = run(PROMPTS[2:0:-1], replace(WARM, num_samples=1), student_folder)
    assert some == [c for p in ("p2", "p1") for c in first if (c.prompt_id, c.sample) == (p, 0)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_more_samples_join_those_that_are_there(run, drawn, tmp_path):
    two = run(sampling=replace(WARM, num_samples=2))
    drawn.clear()
    five = run(sampling=replace(WARM, num_samples=5))
    assert [len(batch) for batch in drawn] == [4 * 3]
    assert [c.sample for c in five] == [0, 1, 2, 3, 4] * 4
    assert len({c.text for c in five if c.prompt_id == "p1"}) > 1
    assert [c for c in five if c.sample < 2] == two
    assert five == run(sampling=replace(WARM, num_samples=5), store=tmp_path / "anew")


def test_samples_are_drawn_again_if_anything_that_decides_them_changes(
    run, drawn, llama, monkeypatch
):
    first = run()
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.add_tokens(["sum is"])
    template = copy.deepcopy(llama.tokenizer)
    template.chat_template = template.chat_template.replace("\n", " ")
    asked = [replace(p, messages=(Message("user", "Why not?"),)) for p in PROMPTS]
    students = ({"revision": "other"}, {"tokenizer": tokenizer}, {"tokenizer": template})
    settings = ({"temperature": 0.9}, {"top_p": 0.9}, {"top_k": 9}, {"max_tokens": 11}, {"seed": 5})
    for change in (
        {"prompts": asked},
        {"system_prompt": "Be brief."},
        *({"student": replace(llama, **other)} for other in students),
        *({"sampling": replace(WARM, **other)} for other in settings),
    ):
        drawn.clear()
        run(**change)
        assert sum(map(len, drawn)) == 12, change
    drawn.clear()
    # Neither the reference nor the batch decides a sample.
    assert run([replace(p, answer="8") for p in PROMPTS], batch_size=2) == first
    assert drawn == []
    monkeypatch.setattr(samples, "_CODE", "other code")
    run()
    assert sum(map(len, drawn)) == 12


# `tests/test_shelf.py` damages files in every other way.
def test_a_damaged_shard_is_said_and_drawn_again(run, tmp_path, drawn, caplog):
    first = run(batch_size=6)
    files = shards(tmp_path / "store")
    contents = [path.read_bytes() for path in files]
    files[0].write_bytes(contents[0].replace(b'"num_tokens": 12', b'"num_tokens": 11', 1))
    # What a kill in the middle of writing leaves behind is no shard.
    files[1].with_name(f"{files[1].name}.1-00.tmp").write_bytes(contents[1][:100])
    drawn.clear()
    assert run(batch_size=6) == first
    assert [len(batch) for batch in drawn] == [6]
    (message,) = caplog.messages
    assert message.startswith(f"sampling again: {files[0].name} cannot be used")
    assert [path.read_bytes() for path in shards(tmp_path / "store")] == contents


def test_a_run_that_goes_on_draws_the_batches_of_the_first(run, tmp_path, drawn, llama):
    run(PROMPTS[1:3], replace(WARM, num_samples=2))  # some samples are there before
    drawn.clear()
    calm = run(batch_size=3, store=copytree(tmp_path / "store", tmp_path / "calm"))
    expected = list(drawn)
    assert [len(batch) for batch in expected] == [3, 3, 2]
    real, prompts_read = llama.body, itertools.count(1)

    def stop(**inputs):
        if inputs["input_ids"].shape[1] > 1 and next(prompts_read) == 3:
            raise KeyboardInterrupt
        return real(**inputs)

    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        run(batch_size=3, student=replace(llama, body=stop))
    assert drawn == expected[:3]
    drawn.clear()
    assert run(batch_size=3) == calm
    assert drawn == expected[2:]


class SamplingParams(SimpleNamespace):
    """With the checks of vLLM 0.33's own."""

    def __init__(self, **given: object) -> None:
        super().__init__(**given)
        assert 0 <= self.temperature <= 2
        assert 0 < self.top_p <= 1
        assert self.max_tokens >= 1
        assert all(type(token) is int for token in self.stop_token_ids)


class FakeLLM:
    """Made as vLLM's; its samples tell which request made them, and end after five tokens."""

    made: ClassVar[list[FakeLLM]] = []
    fails_at: ClassVar[int | None] = None

    def __init__(self, model: str, **options: object) -> None:
        self.model, self.options, self.calls = model, options, []
        self.made.append(self)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(list(zip(prompts, sampling_params, strict=True)))
        return [SimpleNamespace(outputs=[self.sample(*request)]) for request in self.calls[-1]]

    def sample(self, prompt: dict, params: SamplingParams) -> SimpleNamespace:
        longest = self.options["max_model_len"]
        assert len(prompt["prompt_token_ids"]) + params.max_tokens <= longest
        ids = [10 + (params.seed + i) % 300 for i in range(4)] + params.stop_token_ids[:1]
        reason = "length" if params.max_tokens < 5 else "stop"
        return SimpleNamespace(token_ids=ids[: params.max_tokens], finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch) -> list[FakeLLM]:
    """A module `vllm` with the signatures of vLLM 0.33 (LLM, SamplingParams, TokensPrompt).

    All tests of vLLM run against it; no vLLM runs here.
    """
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.TokensPrompt = FakeLLM, SamplingParams, dict
    module.__spec__ = SimpleNamespace(name="vllm")
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(FakeLLM, "made", [])
    return FakeLLM.made


def test_without_vllm_it_is_said_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"pip install 'lalp\[vllm\]'"):
        run(backend="vllm", student="smollm2-135m")


def test_vllm_gets_token_ids_settings_and_a_seed_for_each_sample(run, vllm, student_folder, llama):
    sampling = Sampling(2, temperature=0.6, top_p=0.95, top_k=40, max_tokens=7, seed=3)
    found = run(sampling=sampling, student=student_folder, backend="vllm", tensor_parallel=4)
    (llm,) = vllm
    assert llm.model == student_folder
    ids = {prompt.prompt_id: prompt_ids(llama, prompt) for prompt in PROMPTS}
    assert llm.options == {
        **{"tensor_parallel_size": 4, "dtype": "bfloat16"},
        **{"max_model_len": max(map(len, ids.values())) + 7},
        **{"enable_prefix_caching": True, "trust_remote_code": False, "seed": 0},
    }
    (call,) = llm.calls
    asked = {params.seed: (prompt, vars(params)) for prompt, params in call}
    settings = {"n": 1, "temperature": 0.6, "top_p": 0.95, "top_k": 40, "max_tokens": 7}
    settings |= {"stop_token_ids": [2, 3], "detokenize": False}
    for prompt_id, sample, text, *rest in map(astuple, found):
        seed = sample_seed(3, prompt_id, sample)
        prompt = {"prompt_token_ids": ids[prompt_id]}
        assert asked.pop(seed) == (prompt, settings | {"seed": seed})
        assert text == llama.tokenizer.decode([10 + (seed + i) % 300 for i in range(4)])
        assert rest == [5, False]
    assert asked == {}
    found = run(sampling=Sampling(max_tokens=3), student=student_folder, backend="vllm")
    assert [(c.num_tokens, c.truncated) for c in found] == [(3, True)] * 4


def test_vllm_batches_that_are_finished_are_kept(run, vllm, student_folder, monkeypatch):
    options = {"student": student_folder, "backend": "vllm", "batch_size": 5}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FakeLLM, "fails_at", 2)
        run(**options)
    found = run(**options)
    assert [len(call) for llm in vllm for call in llm.calls] == [5, 5, 2]
    assert run(**options) == found
    assert len(vllm) == 2  # the third run loads nothing
    # The backends do not share samples.
    assert run(student=student_folder) != found


def test_vllm_refusals(run, vllm, llama, student_folder):
    with pytest.raises(InputError, match="backend vllm loads llama itself"):
        run(backend="vllm", student=llama)
    for temperature in (0.001, 2.5):
        sampling = Sampling(temperature=temperature, max_tokens=9)
        with pytest.raises(InputError, match=r"vLLM takes 0, or 0\.01 to 2"):
            run(sampling=sampling, student=student_folder, backend="vllm")
    for reason in ("abort", None):
        given = SimpleNamespace(outputs=[SimpleNamespace(token_ids=[5], finish_reason=reason)])
        llm = SimpleNamespace(generate=lambda *a, given=given, **k: [given])
        with pytest.raises(RuntimeError, match=f"gave a sample up: {reason}"):
            decode_with_vllm(llm, [Request((1,), Sampling(), 5, 0)], frozenset({2}))


def test_sample_pool_asks_with_the_papers_prompt_and_keeps_the_given_one(drawn, llama, tmp_path):
    few, options = Sampling(max_tokens=5), {"store": tmp_path, "progress": False}
    pool, summary = sample_pool(PROMPTS, llama, few, "T", **options)
    assert SYSTEM_PROMPT in llama.tokenizer.decode(drawn[0][0].prompt_ids)
    assert list(pool.prompts.values()) == PROMPTS
    assert summary["num_samples"] == 4
    sample_pool(PROMPTS, llama, few, "T", system_prompt="", **options)
    assert "<|system|>" not in llama.tokenizer.decode(drawn[1][0].prompt_ids)
    silent = replace(llama, head=lambda x: torch.eye(400)[[END] * len(x)])
    with pytest.raises(InputError, match="all 4 responses are empty"):
        sample_pool(PROMPTS, replace(silent, revision="silent"), few, "T", **options)
