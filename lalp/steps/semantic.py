"""Steps by meaning, offline: neighbouring sentences that are about the same thing form one.

TextTiling (Hearst, Computational Linguistics 23(1), 1997), with sentence embeddings instead of word
counts as in Solbiati et al. (arXiv 2106.12978). At each gap between two sentences, the two before
it are compared with the two after it. A step ends where the similarity has a valley deep below the
peaks on both sides. "Deep" follows Hearst's liberal rule, relative to the response's other valleys:
at least their mean depth minus one standard deviation. (The stricter rule, minus half of one,
always drops the shallower of two valleys.) So there is no threshold to tune.
"""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from lalp.pools.pool import Pool
from lalp.steps.sentences import Span, cut_at, split_sentences
from lalp.students.embedder import PACKAGED_EMBEDDER, load_embeddings, normalize_rows

log = logging.getLogger("lalp")

WINDOW = 2  # sentences compared on each side of a gap
MAX_SENTENCES = 8  # of one step; a longer step is cut again where its sentences are least similar


def split_semantic(pool: Pool, embedder: str = PACKAGED_EMBEDDER) -> dict[str, list[Span]]:
    """Cut every response of a pool into groups of sentences by their meaning.

    All sentences of the pool are embedded at once, and their embeddings are kept. If a sentence is
    longer than the embedder's input, only its beginning counts; a warning gives the number.

    Raises:
        InputError: If the embedder (as in `load_embedder`) cannot be loaded.
    """
    sentences = [split_sentences(response.text) for response in pool.responses]
    pairs = list(zip(pool.responses, sentences, strict=True))
    texts = [response.text[a:b].strip() for response, spans in pairs for a, b in spans]
    embedded = load_embeddings(embedder, texts)
    if cut := int((embedded.num_tokens > embedded.limit).sum()):
        log.warning(
            "%d of %d sentences are longer than the %d tokens that the embedder %s reads: only "
            "their beginnings decide where steps end",
            *(cut, len(texts), embedded.limit, embedder),
        )
    parts = np.split(embedded.vectors, np.cumsum([len(spans) for spans in sentences]))
    return {
        response.response_id: cut_at(response.text, [spans[k][0] for k in group_sentences(part)])
        for (response, spans), part in zip(pairs, parts, strict=False)
    }


def group_sentences(
    vectors: Float[np.ndarray, "sentences dim"], max_sentences: int = MAX_SENTENCES
) -> list[int]:
    """The first sentence of each group, counted from 0; the embeddings may have any length."""
    if not len(vectors):
        return []
    similarities = gap_similarities(vectors)
    depths = valley_depths(similarities)
    valleys = depths[depths > 0]
    # Equal depths may differ by rounding, and this must not decide.
    cutoff = valleys.mean() - valleys.std() - 1e-9 if len(valleys) else np.inf
    starts = [0, *(np.flatnonzero(depths >= max(cutoff, 1e-9)) + 1).tolist()]
    bounds = pairwise([*starts, len(vectors)])
    return [s for a, b in bounds for s in _cut_long(similarities, a, b, max_sentences)]


def gap_similarities(vectors: Float[np.ndarray, "sentences dim"]) -> Float[np.ndarray, "gaps"]:
    """Cosine between the mean of the sentences before each gap and the mean of those after it.

    It is rounded to four digits, so the last bits of another machine's results move no boundary.
    """
    sums = np.vstack(
        [np.zeros(vectors.shape[1]), normalize_rows(vectors).astype(float).cumsum(axis=0)]
    )
    gaps = np.arange(1, len(vectors))
    before = sums[gaps] - sums[np.maximum(gaps - WINDOW, 0)]
    after = sums[np.minimum(gaps + WINDOW, len(vectors))] - sums[gaps]
    return (normalize_rows(before) * normalize_rows(after)).sum(axis=1).round(4)


def valley_depths(similarities: Float[np.ndarray, "gaps"]) -> Float[np.ndarray, "gaps"]:
    """How far each valley lies below the peak to its left plus below the one to its right.

    It is 0 for gaps that are no valley. The first and the last gap are valleys if their only
    neighbour is higher; the first of several equal gaps in a row stands for all.
    """
    depths = np.zeros(len(similarities))
    first = np.flatnonzero(np.diff(similarities, prepend=np.nan) != 0)
    values = similarities[first]
    fall_from, rise_to = _climb(values), _climb(values[::-1])[::-1]
    left = np.diff(values, prepend=np.inf) < 0
    right = np.diff(values, append=np.inf) > 0
    depths[first] = np.where(left & right, fall_from + rise_to - 2 * values, 0.0)
    return depths


def _climb(values: Float[np.ndarray, "gaps"]) -> Float[np.ndarray, "gaps"]:
    """The peak that each gap reaches by going left as long as it goes up."""
    tops = np.diff(values, prepend=-np.inf) >= 0
    return values[np.maximum.accumulate(np.where(tops, np.arange(len(values)), 0))]


def _cut_long(
    similarities: Float[np.ndarray, "gaps"], start: int, end: int, max_sentences: int
) -> list[int]:
    """First sentences of the parts of sentences ``[start, end)``, none longer than allowed."""
    if end - start <= max_sentences:
        return [start]
    # The gap before sentence i is number i - 1. Among equal ones, the one nearest the middle wins.
    middle = (start + end) / 2
    cut = min(range(start + 1, end), key=lambda i: (similarities[i - 1], abs(i - middle)))
    left = _cut_long(similarities, start, cut, max_sentences)
    return left + _cut_long(similarities, cut, end, max_sentences)
