"""Rotary frequencies that depend on the length of a pass."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS as ORDINARY
from lengths import CONFIGS, LIMIT, build, forget
from transformers import Phi3Config

from lalp.errors import InputError
from lalp.students.rotary import Frequencies, read_frequencies

IDS = torch.tensor([[5, 17, 250, 9, 33, 4, 399, 0, 120, 7] * 4])


def test_which_lengths_get_the_same_frequencies_by_hand():
    longrope = read_frequencies(CONFIGS["longrope"]())
    assert longrope == read_frequencies(CONFIGS["longrope_layers"]()) == Frequencies({LIMIT})
    assert longrope.of(1) == longrope.of(24)
    assert longrope.of(25) == longrope.of(400)
    assert longrope.of(24) != longrope.of(25)
    dynamic = read_frequencies(CONFIGS["dynamic"]())
    assert dynamic.of(1) == dynamic.of(24)
    assert len({dynamic.of(length) for length in range(24, 30)}) == 6
    assert not any(read_frequencies(make()) for make in ORDINARY.values())


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_a_prefix_is_read_as_in_the_whole_text(name):
    student = build(CONFIGS[name]())
    whole = student.model(input_ids=IDS).logits[:, :10]
    forget(student)
    alone = student.model(input_ids=IDS[:, :10]).logits
    assert (alone - whole).abs().max() > 1e-2  # a pass of its own has other frequencies
    for _ in range(2):  # the frequencies are not kept
        with student.at_length(IDS.shape[1]):
            torch.testing.assert_close(
                student.model(input_ids=IDS[:, :10]).logits, whole, rtol=0, atol=1e-5
            )
        assert torch.equal(student.model(input_ids=IDS[:, :10]).logits, alone)


def test_frequencies_in_an_unknown_form_are_refused():
    student = build(CONFIGS["longrope"]())
    student.model.model.rotary_emb.rope_type = "own"
    with (
        pytest.raises(InputError, match="phi3 cannot be read exactly: its rotary frequencies"),
        student.at_length(30),
    ):
        pass


def test_the_limit_of_old_configurations_is_found():
    old = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = Phi3Config(
        hidden_size=32,
        num_attention_heads=4,
        max_position_embeddings=512,
        original_max_position_embeddings=64,
        rope_scaling=old,
    )
    assert read_frequencies(config) == Frequencies({64})
