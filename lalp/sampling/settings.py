"""Sampling settings: the paper's (Tables 5 and 7, C.9) and your own.

Temperature, top-k and top-p are applied in this order. They mean the same as in vLLM and in
transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lalp.errors import InputError, did_you_mean
from lalp.files import read_data

# The paper puts this in front of every prompt (Sec. 3.1).
SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled."""

    num_samples: int = 1  # per prompt
    temperature: float = 0.0  # logits are divided by it; 0 takes the most likely token (greedy)
    top_p: float = 1.0  # draw from the likeliest tokens that together hold this probability
    top_k: int = 0  # draw from this many most likely tokens; 0 is off
    max_tokens: int = 1024  # maximum number of new tokens per sample, end token included
    seed: int = 0  # for everything random

    def __post_init__(self) -> None:
        wrong = {
            "num_samples": not 1 <= self.num_samples <= 1_000_000 and "from 1 to 1,000,000",
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


_TABLE = read_data("sampling/presets.yaml")
PRESETS = {name: Sampling(**values) for name, values in _TABLE.items()}


def choose_sampling(preset: str | None, seed: int, changes: Mapping[str, Any]) -> Sampling:
    """A preset by name (`Sampling`'s own defaults if None) with the changes that are not None.

    Example:
        >>> choose_sampling("table7-sampled", 3, {"num_samples": 2, "top_p": None})
        Sampling(num_samples=2, temperature=0.6, top_p=0.95, top_k=0, max_tokens=32768, seed=3)
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: {did_you_mean(preset, PRESETS)}")
    known = {name: value for name, value in changes.items() if value is not None}
    return replace(PRESETS[preset] if preset else Sampling(), seed=seed, **known)


def sample_seed(seed: int, prompt_id: str, sample: int) -> int:
    """The 63-bit seed of one sample; it does not depend on what else is drawn."""
    text = json.dumps([seed, prompt_id, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
