"""Every test of step world: one thread, and a folder of its own for what it computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

from lalp.paper.world.student import make_model, make_tokenizer


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """Large weights: near-uniform predictions would hide a wrong context."""
    found = make_model(len(make_tokenizer()), 0)
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(3)
    return found.eval()
