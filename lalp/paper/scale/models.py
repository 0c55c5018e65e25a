"""What a plan rests on: facts about models and GPUs (``facts.yaml``), ``assumptions.yaml``.

Nothing is downloaded: a plan is made before there is a network or a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import yaml

from lalp.errors import InputError


@dataclass(frozen=True)
class ModelFacts:
    """One model, from its ``config.json`` and model card.

    Attributes:
        name: As in the paper's tables.
        hub_id: Where it is published.
        family: ``qwen2`` or ``llama``: what a dry run builds in its place.
        params: All weights; tied ones once.
        layers: Transformer layers.
        hidden: Features per token.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head_size: Features per head.
        vocab: Size of the head.
        positions: Longest sequence without any change of the configuration.
        active: Weights that one token passes through, where not all do.
        cache: Numbers kept per token, where not two per layer, head of keys and feature.
        weight_bytes: Bytes per published weight.
        tied: Embeddings and head are the same weights.
    """

    name: str
    hub_id: str
    family: str
    params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    positions: int
    active: int = 0
    cache: int = 0
    weight_bytes: int = 2
    tied: bool = False

    @property
    def weights_per_token(self) -> int:
        """Weights that one token passes through."""
        return self.active or self.params

    @property
    def cache_per_token(self) -> int:
        """Numbers kept per token: keys and values of all layers."""
        return self.cache or 2 * self.layers * self.kv_heads * self.head_size

    @property
    def body(self) -> int:
        """Weights that every fed token passes through: all but embeddings and head."""
        return self.weights_per_token - (1 if self.tied else 2) * self.vocab * self.hidden

    @property
    def weights(self) -> int:
        """Bytes of the published weights."""
        return self.params * self.weight_bytes


@dataclass(frozen=True)
class Gpu:
    """One GPU, from its data sheet: dense bf16 FLOP and memory bytes per second, bytes it holds."""

    flops: float
    bandwidth: float
    memory: float


def read_data(name: str) -> dict[str, Any]:
    """A data file of this package."""
    return yaml.safe_load(files("lalp.paper.scale").joinpath(name).read_text("utf-8"))


MODELS = {
    name: ModelFacts(name, **facts) for name, facts in read_data("facts.yaml")["models"].items()
}
GPUS = {name: Gpu(**facts) for name, facts in read_data("facts.yaml")["gpus"].items()}
# Lengths, shares, speeds and bytes: the file says where each comes from.
ASSUMED = SimpleNamespace(**read_data("assumptions.yaml"))


def find_model(name: str) -> ModelFacts:
    """Facts of a model by its name in the paper.

    Raises:
        InputError: If the table lacks it.
    """
    if name not in MODELS:
        raise InputError(f"there are no facts about model {name!r}: known are {', '.join(MODELS)}")
    return MODELS[name]


def find_gpu(name: str) -> Gpu:
    """Facts of a GPU by name.

    Raises:
        InputError: If the table lacks it.
    """
    if name not in GPUS:
        raise InputError(f"there are no facts about GPU {name!r}: known are {', '.join(GPUS)}")
    return GPUS[name]


def fits_gpus(model: ModelFacts, gpu: str, gpus: int) -> bool:
    """Whether a model's weights leave a tenth of the GPUs' usable memory for its cache."""
    return model.weights <= 0.9 * ASSUMED.memory_share * gpus * find_gpu(gpu).memory


def states_fit(model: ModelFacts, gpu: str, gpus: int) -> bool:
    """Whether weights, gradients and optimizer states leave a quarter of the GPUs' memory."""
    states = ASSUMED.weight_bytes + ASSUMED.gradient_bytes + ASSUMED.optimizer_bytes
    return model.params * states <= 0.75 * gpus * find_gpu(gpu).memory
