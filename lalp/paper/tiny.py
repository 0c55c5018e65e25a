"""Tiny models with random weights for dry runs, of any family."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lalp.paper.models import find_model

_VOCAB = 700
_SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
_CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_SIZE = {
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"max_position_embeddings": 256, "tie_word_embeddings": False},
    **{"eos_token_id": _SPECIAL.index("<|end|>"), "bos_token_id": None},
}


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that learns its words from texts; ids of special tokens are always the same."""
    bpe = Tokenizer(models.BPE())
    # Digits one by one: a tiny model then need not know each number as a token.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>")
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def make_model(name: str, seed: int, hidden: int) -> PreTrainedModel:
    """A random model of the family that ``name`` belongs to."""
    size = {"hidden_size": hidden, "intermediate_size": 2 * hidden, **_SIZE}
    family, vocab = find_model(name).family, _VOCAB
    config = AutoConfig.for_model(family, vocab_size=vocab, **size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
