"""The basis of a plan: facts about models and GPUs (``facts.yaml``), ``assumptions.yaml``.

Nothing is downloaded: a plan is made before there is a network or a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from lalp.errors import InputError
from lalp.files import read_data


@dataclass(frozen=True)
class ModelFacts:
    """One model, from its ``config.json`` and model card."""

    name: str  # as in the paper's tables
    hub_id: str
    family: str  # qwen2 or llama: the family that a dry run builds instead
    params: int  # all weights; tied ones once
    layers: int
    hidden: int  # features per token
    heads: int
    kv_heads: int  # heads of keys and values
    head_size: int
    vocab: int
    positions: int  # longest sequence with the configuration unchanged
    active: int = 0  # weights that one token passes through, if not all
    cache: int = 0  # numbers kept per token, if not two per layer, key head and feature
    weight_bytes: int = 2  # per published weight
    tied: bool = False  # embeddings and head are the same weights

    @property
    def weights_per_token(self) -> int:
        """Weights that one token passes through."""
        return self.active or self.params

    @property
    def cache_per_token(self) -> int:
        """Numbers kept per token: keys and values of all layers."""
        return self.cache or 2 * self.layers * self.kv_heads * self.head_size

    @property
    def weights(self) -> int:
        """Bytes of the published weights."""
        return self.params * self.weight_bytes

    def fits(self, gpu: str, gpus: int) -> bool:
        """Whether its weights leave a tenth of the GPUs' usable memory for the cache."""
        return self.weights <= 0.9 * ASSUMED.memory_share * gpus * find_gpu(gpu).memory

    def trains_on(self, gpu: str, gpus: int) -> bool:
        """Whether weights, gradients and optimizer states leave a quarter of the GPUs' memory."""
        return self.params * STATE_BYTES <= 0.75 * gpus * find_gpu(gpu).memory


@dataclass(frozen=True)
class Gpu:
    """One GPU, from its data sheet: dense bf16 FLOP and memory bytes per second, bytes it holds."""

    flops: float
    bandwidth: float
    memory: float


_FACTS = read_data("paper/scale/facts.yaml")
MODELS = {name: ModelFacts(name, **facts) for name, facts in _FACTS["models"].items()}
GPUS = {name: Gpu(**facts) for name, facts in _FACTS["gpus"].items()}
# Lengths, shares, speeds and bytes: the file says where each comes from.
ASSUMED = SimpleNamespace(**read_data("paper/scale/assumptions.yaml"))
# Bytes that training keeps for every weight.
STATE_BYTES = ASSUMED.weight_bytes + ASSUMED.gradient_bytes + ASSUMED.optimizer_bytes


def find_model(name: str) -> ModelFacts:
    """Facts of a model by its name in the paper; an `InputError` if there are none."""
    if name not in MODELS:
        raise InputError(f"there are no facts about model {name!r}: known are {', '.join(MODELS)}")
    return MODELS[name]


def find_gpu(name: str) -> Gpu:
    """Facts of a GPU; an `InputError` if there are none."""
    if name not in GPUS:
        raise InputError(f"there are no facts about GPU {name!r}: known are {', '.join(GPUS)}")
    return GPUS[name]
