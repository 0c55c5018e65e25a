from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, build_student
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from lalp.scoring.engine import packed
from lalp.scoring.engine.forward import packed_body
from lalp.scoring.engine.packed import make_room, pack_body, read_packed
from lalp.students import heads

PACKED = ("llama", "mistral", "qwen2")
PROMPT = torch.tensor([5, 17, 250, 9, 33])


def read_rows(student, rows: list[torch.Tensor], wanted=None) -> torch.Tensor:
    body = packed_body(student)
    context = make_room(packed.read_prompt(body, PROMPT)[0], max(map(len, rows)))
    wanted = wanted or [torch.arange(len(row)) for row in rows]
    return read_packed(body, rows, context, wanted)


def read_rows_apart(student, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    whole = [torch.cat([PROMPT, row])[None] for row in rows]
    with torch.inference_mode():
        outputs = [student.model.base_model(input_ids=ids) for ids in whole]
    return [output.last_hidden_state[0, len(PROMPT) :] for output in outputs]


def random_rows(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 400, (n,), generator=generator) for n in lengths]


def assert_reads_as_the_model_does(student, lengths: list[int]) -> None:
    rows = random_rows(lengths)
    expected = torch.cat(read_rows_apart(student, rows))
    torch.testing.assert_close(read_rows(student, rows), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("tile, queries", [(1, 1), (5, 3), (5, 256), (2048, 4), (2048, 256)])
def test_rows_get_the_models_own_features(family, tile, queries, tokenizer, monkeypatch):
    monkeypatch.setattr(packed, "TILE", tile)
    monkeypatch.setattr(packed, "QUERIES", queries)
    student = build_student(family, tokenizer)
    assert_reads_as_the_model_does(student, [3, 9, 0, 1, 4, 2, 12])
    assert_reads_as_the_model_does(student, [0, 0])


@settings(max_examples=25, deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_wanted_positions_are_read_in_order(data, lengths, llama):
    rows = random_rows(lengths)
    wanted = [
        torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1)))), dtype=torch.long)
        for n in lengths
    ]
    apart = read_rows_apart(llama, rows)
    expected = torch.cat([row[places] for row, places in zip(apart, wanted, strict=True)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "TILE", 8)
        patch.setattr(packed, "QUERIES", data.draw(st.integers(1, 8)))
        got = read_rows(llama, rows, wanted)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_products_have_few_shapes_and_the_numbers_that_they_would_have_alone(llama, monkeypatch):
    """oneDNN keeps a kernel for each shape, and of a large pool every number of tokens comes up."""
    real, sides = heads.project, set()

    def note(states, weight, bias=None):
        sides.update((len(states), len(weight)))
        return real(states, weight, bias)

    def read() -> list[torch.Tensor]:
        features = [read_rows(llama, random_rows([n, 2])) for n in range(0, 90, 7)]
        return [*features, *(llama.head(f, torch.arange(len(f))) for f in features)]

    for module in (packed, heads):
        monkeypatch.setattr(module, "project", note)
    filled = read()
    assert sides <= {32, 16, 64, 128, 1}  # of weights, and of products
    monkeypatch.setattr(heads, "spare_columns", lambda count: 0)
    for module in (packed, heads):
        monkeypatch.setattr(module, "spare_rows", lambda count: 0)
    alone = read()
    assert len(sides) > 12
    # torch 2.6 adds in another order for another shape; the locked one may not.
    off = 0.0 if torch.__version__.startswith("2.13.") else 1e-5
    for one, other in zip(filled, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=off, atol=off)


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        *((family, {}) for family in CONFIGS if family not in PACKED),
        ("llama", {"sliding_window": 8}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"rope_parameters": DYNAMIC}),
    ],
)
def test_what_has_another_form_is_left_alone(family, change, tokenizer):
    assert packed_body(build_student(family, tokenizer, **change)) is None


@pytest.mark.parametrize("family", PACKED)
def test_in_bfloat16_packed_rows_are_as_near_to_float32_as_the_models_own(family, tokenizer):
    exact = build_student(family, tokenizer)
    near = build_student(family, tokenizer)
    near.model.to(torch.bfloat16)
    rows = random_rows([3, 40, 1, 300])
    expected = torch.cat(read_rows_apart(exact, rows))
    own = (torch.cat(read_rows_apart(near, rows)).float() - expected).norm()
    found = read_rows(near, rows)
    assert packed_body(near) is not None and found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 1.5 * own
    assert 0 < own < 0.05 * expected.norm()


def test_float16_is_left_alone_and_a_body_that_differs_is_refused(monkeypatch, tokenizer):
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"](), dtype=torch.float16)
    assert pack_body(model) is None
    real = packed._rotate
    monkeypatch.setattr(packed, "_rotate", lambda x, cos, sin, out: real(x, cos, -sin, out))
    assert packed_body(build_student("llama", tokenizer)) is None


def test_weights_are_shared_with_a_model_that_can_still_be_trained_and_saved(tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS["qwen2"](), dtype=torch.float32).eval()
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        body = pack_body(model)
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert body is model.model
    model.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved[name]), name
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of mappings")
def test_a_packed_model_lets_go_of_its_file(llama, tmp_path):
    llama.model.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert pack_body(model)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_static_rope_scaling_is_followed(tokenizer):
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 1e4,
    }  # fmt: skip
    student = build_student("llama", tokenizer, rope_parameters=rope)
    assert packed_body(student) is not None
    assert_reads_as_the_model_does(student, [40, 11])
