"""Sampling settings (paper, Tables 5 and 7, C.9), and how a token is drawn from logits.

Temperature, top-k and top-p mean what they mean in vLLM and in transformers, in that order.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lalp.records import InputError

# Candidates for top-p that are sorted first; more only where they hold too little probability.
_FIRST_CANDIDATES = 128


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        num_samples: Samples of each prompt.
        temperature: Logits are divided by it; 0 takes the most likely token (greedy).
        top_p: Draw from the most likely tokens that together hold this probability; 1 is off.
        top_k: Draw from this many most likely tokens; 0 is off.
        max_tokens: New tokens of a sample at most, its end token included.
        seed: For everything random.

    Raises:
        InputError: If a value is out of its range.
    """

    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "num_samples": self.num_samples < 1 and "at least 1",
            "temperature": not 0 <= self.temperature < math.inf and "a number from 0 on",
            "top_p": not 0 < self.top_p <= 1 and "above 0 and at most 1",
            "top_k": self.top_k < 0 and "at least 1, or 0 for off",
            "max_tokens": self.max_tokens < 1 and "at least 1",
        }
        for name, allowed in wrong.items():
            if allowed:
                raise InputError(f"{name} is {getattr(self, name)}: it must be {allowed}")
        if self.greedy and self.num_samples > 1:
            raise InputError(
                f"num_samples is {self.num_samples} at temperature 0: all would be the same; "
                "take 1 sample, or a temperature above 0"
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is random."""
        return self.temperature == 0


# Table 5 (sampling from teachers), Table 7 (evaluation of students) and C.9 (short responses).
TABLE_5_GREEDY = Sampling(1, temperature=0.0, top_p=1.0, top_k=1, max_tokens=42786)
TABLE_5_SAMPLED = Sampling(16, temperature=1.0, top_p=0.95, top_k=40, max_tokens=42786)
TABLE_7_GREEDY = Sampling(1, temperature=0.0, top_p=1.0, max_tokens=32768)
TABLE_7_SAMPLED = Sampling(8, temperature=0.6, top_p=0.95, max_tokens=32768)
# C.9 states no limit; Table 7's is more than its short responses need.
C9_SAMPLED = Sampling(16, temperature=0.6, top_p=0.95, max_tokens=32768)

PRESETS = {
    "table5-greedy": TABLE_5_GREEDY,
    "table5-sampled": TABLE_5_SAMPLED,
    "table7-greedy": TABLE_7_GREEDY,
    "table7-sampled": TABLE_7_SAMPLED,
    "c9-sampled": C9_SAMPLED,
}


def sample_seed(seed: int, prompt_id: str, sample: int) -> int:
    """The seed of one sample, 63 bits: it does not depend on what else is drawn."""
    text = json.dumps([seed, prompt_id, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def choose_tokens(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, uniforms: Sequence[float]
) -> Int[Tensor, "batch"]:
    """The next token of every row.

    Args:
        logits: In float32.
        sampling: Temperature, top-k and top-p.
        uniforms: One number from [0, 1) for each row; none are read if the sampling is greedy.

    Raises:
        InputError: If logits are not numbers.
    """
    if not bool(torch.isfinite(logits.amax(-1)).all()):  # NaN is larger than all numbers here
        raise InputError(
            "the model's predictions are not numbers (NaN or infinite): its weights are damaged, "
            "or do not fit the number format they are loaded in"
        )
    if sampling.greedy:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if not sampling.top_k and sampling.top_p == 1:
        return _invert(logits.softmax(-1), uniforms)
    probs, ids = candidates(logits, sampling.top_k, sampling.top_p)
    return ids.gather(1, _invert(probs, uniforms)[:, None])[:, 0]


def candidates(
    logits: Float[Tensor, "batch vocab"], top_k: int, top_p: float
) -> tuple[Float[Tensor, "batch kept"], Int[Tensor, "batch kept"]]:
    """The tokens that may be drawn, in the order of their ids.

    Top-k keeps all tokens that are as likely as the k-th. Top-p keeps a token if those more likely
    than it hold less than ``top_p`` of what top-k has kept.

    Returns:
        Probabilities, not scaled to 1, and 0 for tokens that may not be drawn; and token ids.
    """
    vocab = logits.shape[-1]
    wanted = _FIRST_CANDIDATES
    if 0 < top_k < vocab:
        lowest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
        wanted = int((logits > -math.inf).sum(-1).max())
    probs = logits.softmax(-1)
    while True:
        top, ids = probs.topk(min(wanted, vocab))
        before = top.cumsum(-1) - top
        if wanted >= vocab or bool((before[:, -1] >= top_p).all()) or 0 < top_k < vocab:
            break
        wanted *= 8
    kept = before < top_p
    kept[:, 0] = True
    # By id: a rounding error that lets two likely tokens change places moves no other boundary.
    order = ids.argsort(-1)
    return (top * kept).gather(1, order), ids.gather(1, order)


def _invert(probs: Float[Tensor, "batch kept"], uniforms: Sequence[float]) -> Int[Tensor, "batch"]:
    """Draw by the inverse of the cumulated probabilities."""
    sums = probs.double().cumsum(-1)
    at = torch.tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0].clamp_(max=probs.shape[-1] - 1)
