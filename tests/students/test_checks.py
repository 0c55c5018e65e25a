"""What a student must not be: one that sees later tokens, or whose files hold other layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, build_student
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    MixtralConfig,
    PreTrainedConfig,
    ProphetNetConfig,
    RobertaConfig,
    XLNetConfig,
)

from lalp.errors import InputError
from lalp.students.checks import check_causal, check_positions
from lalp.students.student import load_student

ENCODER = {k: v for k, v in TINY.items() if k not in ("num_key_value_heads", "initializer_range")}
XLNET = {"vocab_size": 400, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
PROPHETNET = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_decoder_layers": 2,
    "num_decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "init_std": 0.3,
}


def make(config: PreTrainedConfig, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


# --- positions --------------------------------------------------------------------------------


def test_a_student_that_counts_positions_in_its_own_way_is_refused():
    model = make(RobertaConfig(**ENCODER, is_decoder=True))
    check_causal(model, "s")
    with pytest.raises(InputError, match=r"'s' cannot be scored: it counts positions"):
        check_positions(model, "s")
    check_positions(make(BertConfig(**ENCODER, is_decoder=True)), "s")


# --- later tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**ENCODER),
        RobertaConfig(**ENCODER),
        XLNetConfig(**XLNET),
        Gemma3TextConfig(**TINY, head_dim=8, sliding_window=16, use_bidirectional_attention=True),
    ],
    ids=lambda config: config.model_type,
)
def test_a_student_that_sees_later_tokens_is_refused(config):
    with pytest.raises(InputError, match=r"'s' cannot be scored: .* depend on later tokens"):
        check_causal(make(config), "s")


def test_a_student_whose_predictions_depend_on_how_many_tokens_follow_is_refused():
    with pytest.raises(InputError, match="depend on how many tokens follow"):
        check_causal(make(ProphetNetConfig(**PROPHETNET)), "s")


def test_a_saved_encoder_is_refused_and_as_a_decoder_it_loads(tokenizer, tmp_path):
    for is_decoder in (False, True):
        folder = tmp_path / str(is_decoder)
        make(BertConfig(**ENCODER, is_decoder=is_decoder)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=f"student '{tmp_path}/False' cannot be scored"):
        load_student(str(tmp_path / "False"), device="cpu")
    load_student(str(tmp_path / "True"), device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [8, 512])
def test_rounding_and_positions_are_no_later_tokens(dtype, positions):
    # Rounding sends tokens of a mixture of experts to other experts.
    tiny = TINY | {"max_position_embeddings": positions}
    check_causal(make(MixtralConfig(**tiny, num_local_experts=4), dtype), "s")


def test_predictions_that_are_not_finite_are_left_to_the_scores(tokenizer):
    model = build_student("llama", tokenizer).model
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    check_causal(model, "s")


# --- weights that are left over -----------------------------------------------------------------


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change: three layers, without biases."""
    return Path(shutil.copytree(llama_folder, tmp_path / "student"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_weight(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name: torch.ones(8)}, path, {"format": "pt"})


def test_a_config_with_fewer_layers_than_the_files_is_refused(folder):
    change_config(folder, num_hidden_layers=2)
    message = r"cannot be loaded: its configuration has no place for model\.layers\.2\.\S+, which"
    with pytest.raises(InputError, match=message):
        load_student(str(folder), device="cpu")


@pytest.mark.parametrize(
    "weight",
    [
        "model.layers.0.self_attn.q_proj.bias",  # attention_bias is false
        "layers.1.self_attn.q_norm.weight",  # of a model without its head
        "model.layers.2.mlp.up_proj.lora_A.weight",
    ],
)
def test_a_weight_of_a_layer_that_the_model_does_not_take_is_refused(folder, weight):
    add_weight(folder, weight)
    with pytest.raises(InputError, match=f"no place for (model.)?{weight}"):
        load_student(str(folder), device="cpu")


@pytest.mark.parametrize(
    "weight",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.vision_tower.layers.7.mlp.up_proj.weight",
        "model.pooler.dense.weight",
        "model.layers.3.eh_proj.weight",  # predicts the token after the next one
    ],
)
def test_weights_that_decide_nothing_may_be_left_over(folder, weight, llama):
    add_weight(folder, weight)
    change_config(folder, num_nextn_predict_layers=1)
    student = load_student(str(folder), device="cpu")
    ids = torch.tensor([[5, 17, 250, 9]])
    with torch.inference_mode():
        expected = llama.model(input_ids=ids).logits
        torch.testing.assert_close(student.model(input_ids=ids).logits, expected)
