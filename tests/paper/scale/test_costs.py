"""What stages cost, by hand and as scoring counts it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.cli.printing import print_result
from lalp.paper.models import GPUS, MODELS, Gpu, ModelFacts, model_size, score_flops
from lalp.paper.scale.costs import (
    add_up,
    decode_rate,
    plan_costs,
    plan_text,
    stage_cost,
    stage_resources,
    train_bytes,
    train_flops,
)
from lalp.paper.scale.stages import Stages
from lalp.scoring import costs
from tests.paper.scale.conftest import B7, B32, LLAMA

# 2 layers, 8 features, 2 heads of 4, one head of keys, vocabulary 10, 1,000 weights.
TINY = ModelFacts("tiny", "x/tiny", "llama", 1000, 2, 8, 2, 1, 4, 10, 100)
SLOW = Gpu(flops=1000.0, bandwidth=100.0, memory=10_000.0)


def test_flops_by_hand():
    # Body: 1000 - 2 x 80 weights. 3 tokens after 2 others: 3 x (2 + 2) = 12 pairs of 2 x 2 x 4.
    assert costs.row_flops(model_size(TINY), 2, 3, 1) == 2 * 840 * 3 + 4 * 16 * 12 + 2 * 80 * 1
    assert train_flops(TINY, 3) == 4 * (2 * 840 * 3 + 4 * 16 * 6 + 2 * 80 * 3)


def test_scoring_feeds_what_its_plan_feeds():
    # 56 tokens are two steps of 28. GALP's row feeds 55; with window 0 the second step has a row of
    # its own, of 27; with window 1 it begins at the first step, whose row is GALP's.
    assert score_flops(TINY, 5, 56, ("0",))[1] == 55 + 27
    assert score_flops(TINY, 5, 56, ("1",))[1] == 55
    assert score_flops(TINY, 5, 84, ("1",))[1] == 83 + 55


def test_decoding_by_hand():
    # Context 10 + 20 / 2; 2 bytes x (2 layers x keys and values x 4) x 20 = 640 bytes a sequence.
    # Room 0.9 x 10,000 - 2,000 = 7,000: ten sequences. A step reads 2,000 + 6,400 bytes at half of
    # 100 a second: 168 s; it computes 10 x 2,000 FLOP at 0.4 x 1,000: 50 s.
    assert decode_rate(TINY, SLOW, 1, 10, 20) == pytest.approx(10 / 168)
    # Compute bound where reading is fast.
    fast = dataclasses.replace(SLOW, bandwidth=1e9)
    assert decode_rate(TINY, fast, 1, 10, 20) == pytest.approx(10 / 50)
    assert decode_rate(TINY, dataclasses.replace(SLOW, memory=2_800.0), 1, 10, 20) == 0.0


@settings(deadline=None)
@given(gpus=st.integers(1, 8), response=st.integers(1, 20_000), longer=st.integers(0, 20_000))
def test_longer_responses_never_decode_faster(gpus, response, longer):
    model, gpu = MODELS["QwQ-32B"], GPUS["A100-80GB"]
    rates = [decode_rate(model, gpu, gpus, 200, n) for n in (response, response + longer)]
    assert rates[0] >= rates[1] * (1 - 1e-9)
    assert decode_rate(model, gpu, gpus + 1, 200, response) >= rates[0]


def test_memory_of_training_by_hand():
    # Weights and gradients 4 x 1,000 and optimizer 12 x 1,000 over 2 GPUs; 5 tokens keep 2 bytes x
    # 8 features x 2 layers and 34 x 8 of one layer, and 10 bytes x 10 logits; two layers of 1,000
    # bytes are gathered.
    activations = 5 * 8 * (2 * 2 + 34) + 5 * 10 * 10
    assert train_bytes(TINY, 2, 5) == (8_000 + activations + 2_000, 0.0)
    assert train_bytes(TINY, 2, 5, offload=True) == (2_000 + activations + 2_000, 12_000)


@pytest.mark.parametrize(
    ("name", "config", "intermediate"),
    [
        (B7, "Qwen2Config", 18_944),
        (B32, "Qwen2Config", 27_648),
        ("Qwen2.5-1.5B-Instruct", "Qwen2Config", 8_960),
        (LLAMA, "LlamaConfig", 14_336),
        ("Qwen3-32B", "Qwen3Config", 25_600),
        ("Qwen3-8B", "Qwen3Config", 12_288),
        ("Qwen3-14B-Base", "Qwen3Config", 17_408),
        ("Llama-3.1-8B", "LlamaConfig", 14_336),
        ("Qwen3-4B-Base", "Qwen3Config", 9_728),
        ("Qwen2.5-3B", "Qwen2Config", 11_008),
    ],
)
def test_weights_are_those_of_the_architecture(name, config, intermediate):
    facts = MODELS[name]
    heads = {"num_attention_heads": facts.heads, "num_key_value_heads": facts.kv_heads}
    widths = {"hidden_size": facts.hidden, "intermediate_size": intermediate}
    widths |= {"vocab_size": facts.vocab, "head_dim": facts.head_size}
    layers = {"num_hidden_layers": facts.layers, "tie_word_embeddings": facts.tied}
    made = getattr(transformers, config)(**heads, **widths, **layers)
    assert costs.measure_model(made) == model_size(facts)


def test_a_plan_says_what_it_takes_and_what_stands_in_the_way(paper, stages, capsys):
    plan = plan_costs(Stages(paper), stages)
    total, text = add_up(plan), plan_text(plan)
    for part in (
        "DeepSeek-R1: 671.0 GB of weights do not fit 4x A100-80GB: sample on 8x H200-141GB",
        "524.2 GB of weights, gradients and AdamW states do not fit 4x A100-80GB",
        # 65.5 GB of states, 13.6 of activations, 1.6 of logits, 2 of gathered layers.
        "8 GPUs would take 82.7 GB each, with 16,384 tokens",
        "Qwen2.5-Math-7B has 4,096 positions",
        "QwQ-32B has 40,960 positions: prompt and response end there, not at 42,786",
    ):
        assert part in text
    assert plan["gpu_hours"].map(math.isfinite).all()
    for key in ("kind", "node"):
        parts = [total.get(f"GPU hours of {name}", 0) for name in plan[key].unique()]
        assert total["GPU hours"] == pytest.approx(sum(parts))
        assert f"{round(total['GPU hours'], 1):,} GPU hours\n" in text
    assert all(f"\n{stage.name} " in text for stage in stages)
    assert set(plan["name"]) == {stage.name for stage in stages}
    print_result({"stages": plan, "totals": total}, as_json=True)
    written = json.loads(capsys.readouterr().out)["stages"]
    assert written[0]["name"] == "prompts-code" and written[0]["outputs"] == ["prompts/code.jsonl"]


def test_every_stage_names_the_tables_that_need_it(paper, stages):
    tables = plan_costs(Stages(paper), stages).set_index("name")["tables"]
    assert tables[f"eval-{B32}_limo_all-s0_greedy"] == ["15", "18"]
    assert tables[f"train-{B32}_code_lalp-s0"] == tables["prompts-code"] == ["16"]
    # What all of them read.
    assert {"3", "10", "15", "18", "Fig. 9", "control"} <= set(tables["prompts-limo"])
    assert "16" not in tables["prompts-limo"]


def test_the_plan_of_the_paper_costs_what_it_did(paper, stages):
    total = add_up(plan_costs(Stages(paper), stages))
    assert total["stages"] == 181
    assert total["GPU hours"] == pytest.approx(4315.677389355726)
    assert 24 * total["days if stages follow each other"] == pytest.approx(1264.19142393412)
    by_kind = {"sample": 331.054, "score": 253.05, "train": 3387.475, "eval": 344.098}
    assert {kind: round(total[f"GPU hours of {kind}"], 3) for kind in by_kind} == by_kind


def test_what_a_scheduler_is_asked_for(paper):
    train = {"arm": f"{B32}_limo_lalp-s0"}
    cost = stage_cost(Stages(paper), "train", train)
    found = stage_resources(Stages(paper), "train", train)
    # 32 GB for each GPU's process, and the optimizer's 12 bytes of every weight.
    memory = 4 * 32_000 + 12 * MODELS[B32].params / 1e6
    minutes = 60 * (1 + 2 * cost.gpu_hours / 4)
    assert found == {"gpu": 4, "mem_mb": math.ceil(memory), "runtime": math.ceil(minutes)}
    score = stage_resources(Stages(paper), "score", {"group": "limo", "student": B7})
    assert (score["gpu"], score["mem_mb"]) == (1, 32_000)
    sample = {"pool": "limo", "teacher": "DeepSeek-R1", "preset": "table5-greedy"}
    assert stage_resources(Stages(paper), "sample", sample)["gpu"] == 8
    assert stage_resources(Stages(paper, "toys"), "train", train)["gpu"] == 0


def cost_of(plan, kind: str, **wildcards):
    return stage_cost(Stages(plan), kind, wildcards)


def test_costs_of_a_training_stage_by_hand(paper):
    cost = cost_of(paper, "train", arm=f"{B7}_limo_lalp-s0")
    # 817 examples of 12,000 + 200 tokens, ten times.
    assert cost.prompts == 817
    assert cost.tokens_in == pytest.approx(817 * 12_200 * 10)
    flops = 817 * 10 * train_flops(MODELS[B7], 12_200)
    assert cost.gpu_hours == pytest.approx(flops / (0.45 * 312e12) / 3600)
    assert cost.node == "4x A100-80GB"
    cost = cost_of(paper, "train", arm=f"{B32}_limo_all-s0")
    assert cost.prompts == 3 * 817
    assert cost.host_bytes == 12 * MODELS[B32].params


def test_a_model_that_fits_nowhere_is_said(paper):
    small = dataclasses.replace(paper, big_gpu="RTX4090-24GB", big_gpus=1)
    asked = {"pool": "limo", "teacher": "DeepSeek-R1", "preset": "table5-greedy"}
    cost = cost_of(small, "sample", **asked)
    assert math.isnan(cost.gpu_hours)  # null in JSON
    assert "do not fit 4x A100-80GB: nor do they fit 1x RTX4090-24GB" in cost.notes[0]
    assert stage_resources(Stages(small), "sample", asked)["runtime"] == 24 * 60


def test_a_splitter_behind_a_server_is_paid_for(paper):
    changes = {"splitter": "llm", "llm_url": "http://here", "llm_model": "m"}
    asked = dataclasses.replace(paper, **changes)
    cost = cost_of(asked, "segment", group="limo")
    # Three teachers' 817 responses of 12,000 tokens are read and written again.
    assert cost.tokens_in == cost.tokens_out == 3 * 817 * 12_000
    assert cost.gpu_hours > 0
    assert cost.notes == ("m behind http://here, 4x A100-80GB assumed",)
