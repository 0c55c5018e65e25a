"""What tests make small: a byte-level tokenizer, and students in llama.cpp's file format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, template: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose turns end with ``<|end|>``, token 3."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer


def write_gguf(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """A student in llama.cpp's file format, unquantized."""
    config = model.config
    vocab = tokenizer.get_vocab()
    tokens = [
        *sorted(vocab, key=vocab.get),
        *(f"<{i}>" for i in range(len(vocab), config.vocab_size)),
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads,
        "head_count_kv": config.num_key_value_heads,
        "rope_dimension_count": config.head_dim,
        "layer_norm_rms_eps": config.rms_norm_eps,
        "vocab_size": config.vocab_size,
        **{"tokenizer_model": "gpt2", "tokenizer_pre": "gpt-2", "token_list": tokens},
        "token_types": [3 if token.startswith("<|") else 1 for token in tokens],
        "token_merges": [" ".join(pair) for pair in merges],
        "eos_token_id": tokenizer.eos_token_id,
        "chat_template": tokenizer.chat_template,
    }
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in values.items():
        getattr(writer, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = array.shape[0] // config.head_dim
            # llama.cpp pairs the rotated halves of a head element by element.
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        its_name = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{its_name}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
