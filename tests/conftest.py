"""Tiny random-weight students of several families, and an oracle: one forward pass per step."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from lalp.pools.pool import Message, Prompt
from lalp.students.student import Student, make_student
from tests.tiny import train_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TRAINING_TEXT = [
    "We add the two numbers. Then x = 3 and y = 4, so the sum is 7.",
    "First, factor the polynomial: (x - 1)(x + 2) = 0. Hence x = 1 or x = -2.",
    "Therefore the answer is 12. Let us check: 3 * 4 = 12.",
]

# Two processes with two threads each would wait for one another on two cores, and take three times
# as long. The same holds for the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
# What tests of the real student compute is kept for the next run, and never in the user's folders.
os.environ.setdefault("LALP_CACHE", str(Path(__file__).parents[1] / "build"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, for else one of two processes waits long for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on three sentences."""
    return train_tokenizer(TRAINING_TEXT, 400, CHAT_TEMPLATE)


TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Large weights: near-uniform predictions would hide a wrong context.
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**TINY),
    "qwen2": lambda: Qwen2Config(**TINY),
    "mistral": lambda: MistralConfig(**TINY, sliding_window=None),
    "gemma3": lambda: Gemma3TextConfig(**TINY, head_dim=8, sliding_window=16),
    "gemma2": lambda: Gemma2Config(**TINY, head_dim=8, sliding_window=16),
    "cohere2": lambda: Cohere2Config(**TINY, sliding_window=16, logit_scale=0.25),
    "gpt2": lambda: GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3
    ),
    "mamba": lambda: MambaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, initializer_range=0.3
    ),
}


def build_student(family: str, tokenizer: PreTrainedTokenizerFast, **changes: object) -> Student:
    """A tiny random-weight student of a model family."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return make_student(model, tokenizer, name=family, revision="test")


@pytest.fixture(scope="session")
def llama(tokenizer: PreTrainedTokenizerFast) -> Student:
    return build_student("llama", tokenizer)


@pytest.fixture(scope="session")
def llama_folder(llama: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama in a folder; a test that changes a file copies it first."""
    folder = tmp_path_factory.mktemp("students") / "Tiny-1B"
    llama.model.save_pretrained(folder)
    llama.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def student_folder(llama_folder: Path) -> str:
    """The tiny Llama's folder as a student's name."""
    return str(llama_folder)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def prompt() -> Prompt:
    return Prompt("p", (Message("user", "What is 3 times 4?"),), "12")


@torch.inference_mode()
def separate_pass(student: Student, context: list[int], target: list[int]) -> np.ndarray:
    """Log-probabilities of ``target`` after ``context`` by one forward pass, as in the paper."""
    ids = torch.tensor([context + target], device=student.device)
    logits = student.model(input_ids=ids).logits[0].double().cpu()
    log_probs = logits.log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(target) - 1)
    return np.array([log_probs[i, t] for i, t in zip(places, target, strict=True)])


def naive_lalp(student, prompt_ids, response_ids, spans, starts) -> float:
    """Eq. 3 with one forward pass per step."""
    response_ids = list(response_ids)
    steps = [
        separate_pass(student, [*prompt_ids, *response_ids[start:begin]], response_ids[begin:end])
        for start, (begin, end) in zip(starts, spans, strict=True)
    ]
    return float(np.mean([step.mean() for step in steps]))


def spans_of(lengths: list[int]) -> tuple[tuple[int, int], ...]:
    """Consecutive spans of the given lengths."""
    ends = list(itertools.accumulate(lengths))
    return tuple(zip([0, *ends[:-1]], ends, strict=True))
