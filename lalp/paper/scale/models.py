"""What a plan rests on: facts about models and GPUs (``facts.yaml``), and assumptions.

Nothing is downloaded: a plan is made before there is a network or a GPU. Assumptions stand beside
their reasons, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

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


_FACTS = yaml.safe_load(files("lalp.paper.scale").joinpath("facts.yaml").read_text("utf-8"))
MODELS = {name: ModelFacts(name, **facts) for name, facts in _FACTS["models"].items()}
GPUS = {name: Gpu(**facts) for name, facts in _FACTS["gpus"].items()}


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


# --- assumptions: lengths ----------------------------------------------------------------------

# Mean response tokens. LIMO traces: "over 12K tokens" (Sec. 3.2). MATH: the paper calls the first
# teacher's responses short and QwQ's long and gives no numbers; these are guesses of their size,
# as is that programs are reasoned about as long as LIMO problems.
RESPONSE_TOKENS: dict[str, dict[str, int]] = {
    "limo": {"DeepSeek-R1": 12_000, "QwQ-32B": 12_000, "Qwen3-32B": 12_000},
    "math": {"Qwen2.5-72B-Instruct": 600, "Gemma3-27B-IT": 900, "QwQ-32B": 4_000},
    "code": {"DeepSeek-R1": 12_000, "QwQ-32B": 12_000, "Qwen3-32B": 12_000},
}
# Mean answer tokens in evaluation. Students trained on long responses, and others' reasoning
# models: below the 12K trained on since most benchmarks are easier than LIMO, but what does not end
# runs to the limit of 32,768. Students before training: instruct models are brief.
ANSWER_TOKENS_LONG = 10_000
ANSWER_TOKENS_ORIGINAL = 800
# Prompt tokens, system message and chat template included: guesses.
PROMPT_TOKENS = {"limo": 200, "math": 150, "code": 600, "gpqa_diamond": 300, "livecodebench": 700}
PROMPT_TOKENS_OTHER = 200
# Mean tokens of a sentence: 475 / 17 in the CHAMP pool (00_pool).
STEP_TOKENS = 28
# Bytes of text per token.
TOKEN_BYTES = 4
# --- assumptions: shares ------------------------------------------------------------------------

# LIMO prompts that a teacher solves with its one greedy answer; the others get 16 samples.
GREEDY_SOLVED = 0.8
# Responses kept per prompt and teacher. LIMO and code: one. MATH: three of four samples are right.
KEPT_SAMPLES = {"limo": 1.0, "math": 12.0, "code": 1.0}

# --- assumptions: speed. None was measured here; expect them right within a factor of two. --------

# Of a data sheet's dense bf16 FLOP per second: training with ZeRO-3 and recomputed activations
# (published runs on A100 reach 40-55 % with the recomputation counted), the same while optimizer
# states wait for the host, scoring (lalp reaches 82-85 % of the CPU's matrix rate; a GPU's rows are
# padded), reading prompts.
TRAIN_SHARE, OFFLOAD_SHARE, SCORE_SHARE, PREFILL_SHARE = 0.45, 0.30, 0.40, 0.40
# Of the memory bandwidth and of the FLOP rate while decoding, and vLLM's default limits.
DECODE_BANDWIDTH_SHARE, DECODE_FLOPS_SHARE = 0.5, 0.4
MEMORY_SHARE, MAX_SEQUENCES = 0.9, 256
# Of a GPU's memory, what torch can use beside the driver and gaps.
USABLE_SHARE = 0.95

# --- assumptions: bytes ---------------------------------------------------------------------------

# Per weight in mixed-precision AdamW: bf16 weight and gradient, float32 weight and two moments.
WEIGHT_BYTES, GRADIENT_BYTES, OPTIMIZER_BYTES = 2, 2, 12
# Per weight of a trained student on disk: bf16 from ZeRO-3, float32 without.
SAVED_BYTES = 4
# Per token, feature and layer while one layer is recomputed, attention in one kernel: 34
# (Korthikanti et al. 2022, Eq. 2 without its attention matrices); 2 where only the layer's input is
# kept.
LAYER_BYTES, CHECKPOINT_BYTES = 34, 2
# Logits exist for a tile of tokens at a time (TRL's loss): in bf16, in float32, and their gradient.
LOGIT_BYTES, LOGIT_TOKENS = 10, 1024
# The longest response is this many times the mean one.
LONGEST = 2.7
# Where answers are cut in evaluation (Table 7) and responses in sampling (Table 5).
ANSWER_LIMIT, RESPONSE_LIMIT = 32_768, 42_786


def fits_gpus(model: ModelFacts, gpu: str, gpus: int) -> bool:
    """Whether a model's weights leave a tenth of the GPUs' usable memory for its cache."""
    return model.weights <= 0.9 * MEMORY_SHARE * gpus * find_gpu(gpu).memory


def states_fit(model: ModelFacts, gpu: str, gpus: int) -> bool:
    """Whether weights, gradients and optimizer states leave a quarter of the GPUs' memory."""
    states = WEIGHT_BYTES + GRADIENT_BYTES + OPTIMIZER_BYTES
    return model.params * states <= 0.75 * gpus * find_gpu(gpu).memory
