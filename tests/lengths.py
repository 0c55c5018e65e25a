"""Tiny students whose rotary frequencies depend on the length of a pass."""

from __future__ import annotations

import torch
from conftest import TINY
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from lalp.students.student import Student, make_student

LIMIT = 24
_BASE = {**TINY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": LIMIT,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
_DEFAULT = {"rope_type": "default", "rope_theta": 1e4}
CONFIGS = {
    # Phi-3.5 and Phi-4-mini
    "longrope": lambda: Phi3Config(
        **_BASE, original_max_position_embeddings=LIMIT, rope_parameters=_LONGROPE
    ),
    # Phi-3.5-MoE: the scale of the embeddings changes, not the frequencies
    "longrope_scale": lambda: PhimoeConfig(
        **_BASE,
        num_local_experts=2,
        rope_parameters={**_LONGROPE, "short_mscale": 1.0, "long_mscale": 1.6},
    ),
    "longrope_layers": lambda: Gemma3TextConfig(
        **_BASE,
        head_dim=8,
        sliding_window=512,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        rope_parameters={"full_attention": _LONGROPE, "sliding_attention": _DEFAULT},
    ),
    "dynamic": lambda: LlamaConfig(
        **{**_BASE, "max_position_embeddings": LIMIT}, rope_parameters=_DYNAMIC
    ),
}


def build(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast | None = None) -> Student:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return make_student(model, tokenizer, name=config.model_type, revision="test")


def forget(student: Student) -> None:
    """A short pass, after which dynamic NTK keeps no longer pass's frequencies."""
    if student.frequencies.grows:
        student.model(input_ids=torch.tensor([[1]]))
