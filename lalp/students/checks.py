"""Checks of a student after its weights are read: a failed one would mean wrong scores."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from lalp.errors import InputError

# Tokens whose predictions are compared, and as many after them. They are few, because the length of
# a text may change positions (longrope) in a student that is read exactly.
_TOKENS = 4
# The share of their spread by which predictions may move when later tokens change, and when none
# follow. Passes of different lengths round differently, and on a GPU coarsely even in float32. In
# half precision, rounding sends some tokens of a mixture of experts to others (0.2 was seen). What
# sees later tokens moves by 0.5 and more; by 0.01 if its weights are random and small.
_FULL, _HALF = (1e-3, 0.02), (0.1, 0.4)
# Masks and frequencies: old versions of transformers wrote them; every model computes them.
_COMPUTED = (
    ".attn.bias", ".attention.bias", "masked_bias", "causal_mask", "inv_freq", "position_ids",
)  # fmt: skip


@torch.inference_mode()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """InputError if predictions change with the tokens that come after them, or their number."""
    ids = _probe(model)
    other = torch.where(torch.arange(2 * _TOKENS, device=model.device) < _TOKENS, ids, ids.flip(0))
    first, changed, alone = (
        model(input_ids=part[None], use_cache=False).logits[0, :_TOKENS].float()
        for part in (ids, other, ids[:_TOKENS])
    )
    spread = (first - first.mean(-1, keepdim=True)).norm()
    same, shorter = _FULL if model.dtype in (torch.float32, torch.float64) else _HALF
    # Comparisons are false if logits are not finite; the scores report that themselves.
    if (first - changed).norm() > same * spread:
        what, advice = "later tokens", "use it as a decoder, without bidirectional attention"
    elif (first - alone).norm() > shorter * spread:
        what, advice = "how many tokens follow", "use another student"
    else:
        return
    why = f"its predictions depend on {what}, so they give no probability of a text"
    raise InputError(f"student {name!r} cannot be scored: {why}: {advice}")


@torch.inference_mode()
def check_positions(model: PreTrainedModel, name: str) -> None:
    """InputError if a model counts positions from a number other than 0, as RoBERTa does.

    Rows that continue a prompt receive their positions.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return
    ids = _probe(model)[None]
    plain, told = (
        model(input_ids=ids, use_cache=False, **options).logits.float()
        for options in ({}, {"position_ids": torch.arange(ids.shape[1], device=model.device)[None]})
    )
    same, _ = _FULL if model.dtype in (torch.float32, torch.float64) else _HALF
    if (plain - told).norm() > same * (plain - plain.mean(-1, keepdim=True)).norm():
        why = "it counts positions in a way of its own, not from 0 on"
        raise InputError(f"student {name!r} cannot be scored: {why}: use another student")


def _probe(model: PreTrainedModel) -> Int[Tensor, "pos"]:
    """Token ids away from both ends of the vocabulary, because special tokens are there."""
    vocab = model.get_input_embeddings().weight.shape[0]
    return (vocab // 4 + 7 * torch.arange(2 * _TOKENS, device=model.device)) % vocab


def check_weights(model: PreTrainedModel, found: dict[str, Any], name: str) -> None:
    """InputError if a model's files lack weights, or hold more layers than it has.

    ``found`` is transformers' report on the files (``output_loading_info``); it would continue with
    random weights.
    """
    if found["missing_keys"]:
        raise InputError(
            f"student {name!r} cannot be loaded: its files lack the weights "
            f"{min(found['missing_keys'])}: give the files of a causal language model"
        )
    check_layers(model, found["unexpected_keys"], name)


def check_layers(model: PreTrainedModel, unexpected: Collection[str], name: str) -> None:
    """InputError if ``unexpected`` (weights left over in the files) belong to the model's layers.

    Weights of other parts may be left over: a vision tower, a pooler, or layers that predict
    several tokens ahead (the configuration counts them).
    """
    lists = {path: part for path, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    ahead = getattr(model.config, "num_nextn_predict_layers", None) or 0
    for weight in sorted(unexpected):
        for number in re.finditer(r"(?<=\.)\d+(?=\.)", weight):
            path = weight[: number.start() - 1]
            # Files of a model without its head omit the prefix.
            layers = lists.get(path) or lists.get(f"{model.base_model_prefix}.{path}")
            if not layers or weight.endswith(_COMPUTED):
                continue
            if 0 <= int(number[0]) - len(layers) < ahead:
                continue
            why = f"its configuration has no place for {weight}, which its files hold"
            advice = "give the config.json that belongs to these weights"
            raise InputError(f"student {name!r} cannot be loaded: {why}: {advice}")
