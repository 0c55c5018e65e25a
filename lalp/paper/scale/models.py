"""What a plan of the paper's pipeline rests on: facts about models and GPUs, and assumptions.

Facts are those of published configurations and data sheets; nothing is downloaded, since a plan
must be possible before there is a network or a GPU. Assumptions stand beside what they rest on, and
nowhere else. Names are those of `lalp.paper.tables`, so that a table's row names its model.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def _qwen(name: str, org: str, params: int, shape: tuple[int, ...], **changes: int) -> ModelFacts:
    layers, hidden, heads, kv_heads, head_size, vocab = shape
    positions = changes.pop("positions", 32_768)
    return ModelFacts(
        name,
        f"{org}/{name}",
        "qwen2",
        params,
        layers,
        hidden,
        heads,
        kv_heads,
        head_size,
        vocab,
        positions,
        **changes,
    )


# layers, hidden, heads, heads of keys, head size, vocabulary
_SHAPE_7B = (28, 3584, 28, 4, 128, 152_064)
_SHAPE_32B = (64, 5120, 40, 8, 128, 152_064)

MODELS: dict[str, ModelFacts] = {
    facts.name: facts
    for facts in (
        # Students.
        _qwen(
            "Qwen2.5-0.5B-Instruct", "Qwen", 494_032_768, (24, 896, 14, 2, 64, 151_936), tied=True
        ),
        _qwen(
            "Qwen2.5-1.5B-Instruct",
            "Qwen",
            1_543_714_304,
            (28, 1536, 12, 2, 128, 151_936),
            tied=True,
        ),
        _qwen("Qwen2.5-7B-Instruct", "Qwen", 7_615_616_512, _SHAPE_7B),
        _qwen("Qwen2.5-Math-7B", "Qwen", 7_615_616_512, _SHAPE_7B, positions=4_096),
        _qwen("Qwen2.5-32B-Instruct", "Qwen", 32_763_876_352, _SHAPE_32B),
        ModelFacts(
            "Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.1-8B-Instruct",
            "llama",
            8_030_261_248,
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_size=128,
            vocab=128_256,
            positions=131_072,
        ),
        # Teachers. DeepSeek-R1 is published in 8 bits, its cache is compressed: 512 + 64 numbers
        # per layer; of its 671 billion weights 37 serve a token (DeepSeek-V3 report).
        ModelFacts(
            "DeepSeek-R1",
            "deepseek-ai/DeepSeek-R1",
            "llama",
            671_000_000_000,
            layers=61,
            hidden=7168,
            heads=128,
            kv_heads=128,
            head_size=128,
            vocab=129_280,
            positions=163_840,
            active=37_000_000_000,
            cache=61 * 576,
            weight_bytes=1,
        ),
        _qwen("QwQ-32B", "Qwen", 32_763_876_352, _SHAPE_32B, positions=40_960),
        _qwen(
            "Qwen3-32B",
            "Qwen",
            32_762_123_264,
            (64, 5120, 64, 8, 128, 151_936),
            positions=40_960,
        ),
        _qwen("Qwen2.5-72B-Instruct", "Qwen", 72_706_203_648, (80, 8192, 64, 8, 128, 152_064)),
        # Five of six of its layers see 1,024 tokens only: this counts all, the cautious side.
        ModelFacts(
            "Gemma3-27B-IT",
            "google/gemma-3-27b-it",
            "llama",
            27_432_406_640,
            layers=62,
            hidden=5376,
            heads=32,
            kv_heads=16,
            head_size=128,
            vocab=262_208,
            positions=131_072,
            tied=True,
        ),
        # Smaller teachers that stand in on one GPU.
        _qwen(
            "DeepSeek-R1-Distill-Qwen-7B",
            "deepseek-ai",
            7_615_616_512,
            _SHAPE_7B,
            positions=131_072,
        ),
        _qwen("Qwen3-8B", "Qwen", 8_190_735_360, (36, 4096, 32, 8, 128, 151_936), positions=40_960),
        # Evaluated, not trained here (Sec. C.14).
        ModelFacts("LIMO-32B", "GAIR/LIMO", "qwen2", 32_763_876_352, *_SHAPE_32B, positions=32_768),
        _qwen("Sky-T1-32B-Preview", "NovaSky-AI", 32_763_876_352, _SHAPE_32B),
        _qwen("OpenThinker2-32B", "open-thoughts", 32_763_876_352, _SHAPE_32B),
        # The paper's splitter of steps (Sec. B.1): 106 billion weights, 12 of them per token.
        ModelFacts(
            "GLM-4.5-Air",
            "zai-org/GLM-4.5-Air",
            "llama",
            106_000_000_000,
            layers=46,
            hidden=4096,
            heads=96,
            kv_heads=8,
            head_size=128,
            vocab=151_552,
            positions=131_072,
            active=12_000_000_000,
        ),
    )
}


@dataclass(frozen=True)
class Gpu:
    """One GPU, from its data sheet: dense bf16 FLOP and memory bytes per second, bytes it holds."""

    flops: float
    bandwidth: float
    memory: float


GPUS: dict[str, Gpu] = {
    "A100-80GB": Gpu(312e12, 2.039e12, 80e9),
    "H100-80GB": Gpu(989e12, 3.35e12, 80e9),
    "H200-141GB": Gpu(989e12, 4.8e12, 141e9),
    "L40S-48GB": Gpu(362e12, 0.864e12, 48e9),
    "RTX4090-24GB": Gpu(165e12, 1.008e12, 24e9),
}


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
