"""Sampling settings (paper, Tables 5 and 7, C.9), and how a token is drawn from logits.

Temperature, top-k and top-p mean what they mean in vLLM and in transformers, in that order.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

from lalp.errors import InputError


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
