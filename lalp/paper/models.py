"""The basis of plans: facts about models and GPUs, what is assumed, and formulas of costs.

Facts and assumptions are in ``facts.yaml`` and ``assumptions.yaml``. Nothing is downloaded: a plan
is made before there is a network or a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace

from lalp.errors import InputError
from lalp.files import read_data
from lalp.scoring.costs import ModelSize, row_flops
from lalp.scoring.engine.rows import plan_rows
from lalp.scoring.equations import window_starts
from lalp.scoring.windows import parse_windows


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

    @property
    def states(self) -> int:
        """Bytes that training keeps: weights, gradients and optimizer states."""
        each = ASSUMED.weight_bytes + ASSUMED.gradient_bytes + ASSUMED.optimizer_bytes
        return self.params * each

    def fits(self, gpu: str, gpus: int) -> bool:
        """Whether its weights leave a tenth of the GPUs' usable memory for the cache."""
        return self.weights <= 0.9 * ASSUMED.memory_share * gpus * find_gpu(gpu).memory

    def trains_on(self, gpu: str, gpus: int) -> bool:
        """Whether weights, gradients and optimizer states leave a quarter of the GPUs' memory."""
        return self.states <= 0.75 * gpus * find_gpu(gpu).memory


@dataclass(frozen=True)
class Gpu:
    """One GPU, from its data sheet: dense bf16 FLOP and memory bytes per second, bytes it holds."""

    flops: float
    bandwidth: float
    memory: float


_FACTS = read_data("paper/facts.yaml")
MODELS = {name: ModelFacts(name, **facts) for name, facts in _FACTS["models"].items()}
GPUS = {name: Gpu(**facts) for name, facts in _FACTS["gpus"].items()}
# Lengths, shares, speeds and bytes: the file says where each comes from.
ASSUMED = SimpleNamespace(**read_data("paper/assumptions.yaml"))


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


# --- formulas ------------------------------------------------------------------------------------


def model_size(model: ModelFacts) -> ModelSize:
    """What a forward pass costs, from the facts."""
    head = model.vocab * model.hidden
    return ModelSize(
        body=model.weights_per_token - (1 if model.tied else 2) * head,
        head=head,
        total=model.params,
        attention=model.layers * model.heads * model.head_size,
        cache=model.cache_per_token,
        hidden=model.hidden,
    )


@dataclass(frozen=True)
class ScoringCost:
    """What scoring takes on one GPU."""

    fed: float  # tokens of all forward rows
    flops: float
    hours: float  # right within a factor of two
    memory: float  # bytes of the weights and of the cache of the longest response


def scoring_cost(
    model: ModelFacts,
    gpu: str,
    prompt: int,
    responses: Sequence[int],
    number: float,
    windows: Sequence[str],
) -> ScoringCost:
    """Cost of scoring ``number`` responses of each of some lengths, behind prompts of one length.

    The longest response has `ASSUMED.longest` times the highest of these mean lengths.
    """
    costs = [score_flops(model, prompt, response, tuple(windows)) for response in responses]
    flops, fed = (number * sum(part) for part in zip(*costs, strict=True))
    hours = flops / (ASSUMED.score_share * find_gpu(gpu).flops) / 3600
    longest = min(prompt + ASSUMED.longest * max(responses), model.positions)
    return ScoringCost(fed, flops, hours, model.weights + 2 * model.cache_per_token * longest)


@lru_cache
def score_flops(
    model: ModelFacts, prompt: int, response: int, windows: tuple[str, ...]
) -> tuple[float, int]:
    """FLOPs and fed tokens of scoring one response by GALP and LALP at every window.

    Its steps have ``step_tokens`` tokens each; the rows are those of the scoring plan itself.
    """
    spans = list(pairwise([*range(0, response, ASSUMED.step_tokens), response]))
    contexts = [(0, (0, response))]
    for window in parse_windows(windows):
        contexts += zip(window_starts(window, spans), spans, strict=True)
    rows = plan_rows(contexts)
    size = model_size(model)
    flops = sum(row_flops(size, prompt, row.num_inputs, row.num_targets) for row in rows)
    return flops, sum(row.num_inputs for row in rows)
