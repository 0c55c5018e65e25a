"""Tiny models for dry runs: random weights of any family, taught a few answers where asked to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lalp.errors import InputError
from lalp.paper.models import find_model
from lalp.pools.pool import Prompt
from lalp.students.encoding import encode, render_prompt

_VOCAB = 700
_MAX_STEPS, _STEPS_BETWEEN_CHECKS = 900, 50
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
    # Digits one by one: numbers are then not single tokens that a tiny model would have to know.
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


def teach(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    lessons: Sequence[tuple[Prompt, str]],
) -> int:
    """Train a tiny model until it gives its lessons; returns the steps it took."""
    # Threads that wait for each other cost a tiny model more than they compute.
    torch.set_num_threads(1)
    ids, labels, certain = _encode(lessons, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, _MAX_STEPS)
    for step in range(1, _MAX_STEPS + 1):
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        right = (logits.argmax(-1) == labels[:, 1:]) | (labels[:, 1:] < 0)
        # A low loss as well: a token that is barely the likeliest may not be after rounding.
        sure = loss < 0.08 and bool(right[certain].all())
        if step % _STEPS_BETWEEN_CHECKS == 0 and sure:
            model.eval()
            return step
    raise InputError(f"dry run: a tiny model did not learn its answers in {_MAX_STEPS} steps")


def _encode(
    lessons: Sequence[tuple[Prompt, str]], tokenizer: PreTrainedTokenizerFast
) -> tuple[Int[torch.Tensor, "rows width"], Int[torch.Tensor, "rows width"], list[int]]:
    """Token ids, labels (-100 outside the answers), and the rows with a single right answer."""
    ids, labels = [], []
    for prompt, answer in lessons:
        one = encode(tokenizer, render_prompt(tokenizer, prompt), answer)
        said = [*one.response_ids, tokenizer.eos_token_id]
        ids.append(torch.tensor([*one.prompt_ids, *said]))
        labels.append(torch.tensor([-100] * len(one.prompt_ids) + said))
    # A prompt of MATH has two answers in turn: no model gives both greedily.
    names = [prompt.prompt_id for prompt, _ in lessons]
    certain = [row for row, name in enumerate(names) if names.count(name) == 1]
    padding = {"batch_first": True, "padding_value": tokenizer.eos_token_id}
    padded = pad_sequence(ids, **padding), pad_sequence(labels, **padding | {"padding_value": -100})
    return *padded, certain
