"""Log-probabilities of target tokens, a few thousand columns of the vocabulary at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Logits (numbers of 4 bytes) that the head computes at once, and how many of them for one target.
# These are few columns for many targets, because reading the head's weights from memory is costly.
HEAD_LOGITS = 3 << 20
HEAD_COLUMNS = 3072
# Logits that a GPU computes at once: whole rows of the vocabulary, because many small products
# would leave it idle.
GPU_LOGITS = 1 << 26


def read_targets(
    head: Callable[..., Tensor],
    features: Float[Tensor, "targets features"],
    token_ids: Int[Tensor, "targets"],
    with_statistics: Bool[Tensor, "targets"],
) -> Float[np.ndarray, "3 targets"]:
    """Log-probability, rank (from 1) and entropy of targets, from bounded parts of their logits.

    ``features`` are those of the position before each target. ``head`` turns them into logits of
    some columns (`Student.head`). If no statistics are wanted, rank and entropy are NaN. If logits
    are NaN or plus infinity, all three are NaN.
    """
    vocab = head(features[:1]).shape[-1]
    size = max(1, HEAD_LOGITS // min(vocab, HEAD_COLUMNS))
    out = torch.full((3, len(token_ids)), math.nan, device=features.device)
    for statistics in with_statistics.unique().tolist():
        for part in (with_statistics == statistics).nonzero()[:, 0].split(size):
            values = _read_vocabulary(head, vocab, features[part], token_ids[part], statistics)
            out[: len(values), part] = torch.stack(values)
    return out.cpu().numpy()


def read_rows_of_targets(
    head: Callable[..., Tensor],
    features: Float[Tensor, "targets features"],
    token_ids: Int[Tensor, "targets"],
    num_with_statistics: int,
) -> Float[Tensor, "3 targets"]:
    """Do what `read_targets` does, with whole rows of logits, without waiting for the device.

    The first ``num_with_statistics`` targets are those for which statistics are wanted.
    """
    size = max(1, GPU_LOGITS // head(features[:1]).shape[-1])
    out = torch.full((3, len(token_ids)), math.nan, device=features.device)
    ends = (0, num_with_statistics, len(token_ids))
    for statistics, begin, end in zip((True, False), ends, ends[1:], strict=False):
        for first in range(begin, end, size):
            part = slice(first, min(first + size, end))
            logits = head(features[part])
            chosen = logits.gather(1, token_ids[part, None])
            log_norm = logits.logsumexp(1)
            out[0, part] = chosen[:, 0] - log_norm
            if statistics:
                ranks = 1.0 + (logits > chosen).sum(1)
                # No logit compares as above NaN, so the rank would be 1.
                out[1, part] = ranks.masked_fill(out[0, part].isnan(), math.nan)
                log_probs = logits.sub_(log_norm[:, None])
                # An impossible token (-inf) adds 0.
                out[2, part] = -(log_probs.exp().mul_(log_probs.clamp_(min=-1e30))).sum(1)
    return out


def _read_vocabulary(
    head: Callable[..., Tensor],
    vocab: int,
    features: Float[Tensor, "targets features"],
    token_ids: Int[Tensor, "targets"],
    statistics: bool,
) -> list[Float[Tensor, "targets"]]:
    """Log-probabilities, and ranks and entropies if wanted, from a few columns at a time."""
    columns, places = token_ids.unique(return_inverse=True)
    chosen = head(features, columns).gather(1, places[:, None])
    firsts = range(0, vocab, HEAD_COLUMNS)
    # One tensor, because small ones would take the memory of freed logits, and new logits would
    # not fit there.
    sums = chosen.new_empty(len(firsts), 4 if statistics else 2, len(chosen))
    for first, block in zip(firsts, sums, strict=True):
        logits = head(features, slice(first, first + HEAD_COLUMNS))
        # Use the number in ``chosen``, because this product may round the same logit differently.
        here = ((token_ids >= first) & (token_ids < first + HEAD_COLUMNS)).nonzero()[:, 0]
        logits[here, token_ids[here] - first] = chosen[here, 0]
        _read_block(logits, chosen, block)
    peaks, norms, *more = sums.unbind(1)
    log_norm = (peaks + norms.log()).logsumexp(0)
    log_probs = chosen[:, 0] - log_norm
    if not statistics:
        return [log_probs]
    above, moments = more
    shifts = peaks - log_norm
    # No logit compares as above NaN, so the rank would be 1.
    ranks = (1 + above.sum(0)).masked_fill(log_probs.isnan(), math.nan)
    return [log_probs, ranks, -(shifts.exp() * (moments + shifts * norms)).sum(0)]


def _read_block(
    logits: Float[Tensor, "targets columns"],
    chosen: Float[Tensor, "targets 1"],
    out: Float[Tensor, "sums targets"],
) -> None:
    """Write each target's peak and its sum of ``w = exp(logit - peak)``; overwrite the logits.

    If ``out`` has room for four values, also write the number of logits above the chosen one and
    the sum of ``w log w``.
    """
    peaks, norms, *more = out
    # An impossible token (-inf) adds 0 to the entropy, and so does a block of such tokens.
    torch.amax(logits, 1, out=peaks).clamp_(min=-1e30)
    if not more:
        torch.sum(logits.sub_(peaks[:, None]).exp_(), 1, out=norms)
        return
    above, moments = more
    above.copy_((logits > chosen).sum(1))
    weights = logits.sub_(peaks[:, None]).exp()
    torch.sum(weights, 1, out=norms)
    torch.sum(weights.mul_(logits.clamp_(min=-1e30)), 1, out=moments)
