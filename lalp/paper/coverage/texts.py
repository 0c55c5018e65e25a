"""Texts of several sizes and their vectors: whole responses, steps, and random chunks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.errors import InputError
from lalp.files import read_data
from lalp.paper.profiles import Profile
from lalp.pools.pool import Pool
from lalp.steps.sentences import Span
from lalp.steps.splitters import chunk_size, split_pool
from lalp.students.embedder import load_embeddings
from lalp.students.student import load_tokenizer

RESPONSES, PIECES, STEPS, CHUNKS = "responses", "responses in pieces", "steps", "random chunks"
"""Names of the levels. They are responses cut to the embedder's input, the mean of pieces that hold
all of a response, steps, and chunks."""

# Chinese and Japanese are written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Level:
    """Texts of one size and their vectors."""

    items: pd.DataFrame  # one row per text: prompt_id, response_id, teacher, text and more
    vectors: Float[np.ndarray, "items dim"]  # of unit length

    def __post_init__(self) -> None:
        if len(self.items) != len(self.vectors):
            raise InputError(
                f"{len(self.items)} texts but {len(self.vectors)} vectors: give one vector per text"
            )
        if not np.allclose(np.linalg.norm(self.vectors, axis=1), 1, atol=1e-3):
            raise InputError(
                "some vectors are not of unit length: embed the texts with lalp.students.embedder"
            )


def cut_pool(profile: Profile, pool: Pool, seed: int) -> dict[str, dict[str, list[Span]]]:
    """Spans by level and response id: whole, cut into steps, and in chunks of the same lengths."""
    # Only steps of a fixed number of tokens need the student's tokenizer.
    tokenizer = load_tokenizer(profile.student) if chunk_size(profile.splitter) else None
    steps = split_pool(pool, profile.splitter, tokenizer=tokenizer, embedder=profile.embedder)
    chunks = {
        r.response_id: permute_lengths(r.text, steps[r.response_id], [seed, place])
        for place, r in enumerate(pool.responses)
    }
    whole = {r.response_id: [(0, len(r.text))] for r in pool.responses}
    return {RESPONSES: whole, STEPS: steps, CHUNKS: chunks}


def permute_lengths(text: str, spans: Sequence[Span], seed: int | Sequence[int]) -> list[Span]:
    """Cut a text into chunks that are as long as its steps, in another order.

    Lengths are counted in words, so no word is cut that the steps leave whole. Among ten random
    orders, the one that shares the fewest boundaries with the steps is used. ``spans`` are
    character spans that partition the text.
    """
    starts = [[word.start() for word in WORD.finditer(text, *span)] for span in spans]
    words = [start for inside in starts for start in inside]
    if not words:
        return [(0, len(text))] if text else []
    lengths = np.array([len(inside) for inside in starts if inside])
    ends = np.cumsum(lengths)[:-1]
    rng = np.random.default_rng(seed)
    orders = [np.cumsum(rng.permutation(lengths))[:-1] for _ in range(10)]
    chosen = min(orders, key=lambda order: np.isin(order, ends).sum())
    return list(pairwise([0, *(words[place] for place in chosen), len(text)]))


def shared_boundaries(first: Sequence[Span], second: Sequence[Span]) -> tuple[int, int]:
    """Inner boundaries that two partitions of a text share, and those of the first one."""
    inner = [{start for start, _ in spans if start} for spans in (first, second)]
    return len(inner[0] & inner[1]), len(inner[0])


def level_items(
    pool: Pool, spans: Mapping[str, Mapping[str, Sequence[Span]]]
) -> dict[str, pd.DataFrame]:
    """The texts of every level of `cut_pool`, a row each; responses appear twice, for `PIECES`."""
    columns = ["prompt_id", "response_id", "teacher", "place", "text"]
    levels = {}
    for name, spans_of in spans.items():
        rows = [
            (r.prompt_id, r.response_id, r.teacher, place, r.text[start:end].strip())
            for r in pool.responses
            for place, (start, end) in enumerate(spans_of[r.response_id])
        ]
        levels[name] = pd.DataFrame(rows, columns=columns)
    whole = levels.pop(RESPONSES)
    return {RESPONSES: whole, PIECES: whole, **levels}


def embed_levels(embedder: str, items: Mapping[str, pd.DataFrame]) -> dict[str, Level]:
    """Embed the texts of every level of `level_items`; read kept embeddings from disk.

    Responses appear twice: cut to the embedder's input, and as means of pieces that hold all of
    their text. Items get the embedder's ``num_tokens`` and ``num_read``.
    """
    levels = {}
    for name, own in items.items():
        if name == PIECES:
            continue
        found = load_embeddings(embedder, own["text"].tolist())
        read = np.minimum(found.num_tokens, found.limit)
        levels[name] = Level(own.assign(num_tokens=found.num_tokens, num_read=read), found.vectors)
    whole = levels.pop(RESPONSES)
    own, vectors = whole.items, whole.vectors.copy()
    # What fits into the embedder's input is the same whole as in pieces, so it keeps its vector.
    cut = (own["num_tokens"] > own["num_read"]).to_numpy()
    if cut.any():
        texts = own.loc[cut, "text"].tolist()
        vectors[cut] = load_embeddings(embedder, texts, chunk_mean=True).vectors
    pieces = Level(own.assign(num_read=own["num_tokens"]), vectors)
    return {RESPONSES: whole, PIECES: pieces, **levels}


def truncation_table(levels: Mapping[str, Level]) -> pd.DataFrame:
    """Number of texts of each level that exceed the embedder's input; share of tokens dropped."""
    rows = []
    for name, level in levels.items():
        tokens, read = level.items["num_tokens"], level.items["num_read"]
        cut, lost = tokens > read, 1 - read.sum() / max(tokens.sum(), 1)
        lengths = float(tokens.median()), int(tokens.max())
        rows.append((name, len(tokens), *lengths, int(cut.sum()), float(cut.mean()), lost))
    names = "level texts tokens_median tokens_longest cut share_cut share_tokens_lost"
    return pd.DataFrame(rows, columns=names.split())


def prompt_similarity(embedder: str, pool: Pool) -> pd.DataFrame:
    """Cosine of any two prompts, by their ids."""
    texts = ["\n\n".join(m.content for m in p.messages) for p in pool.prompts.values()]
    vectors = load_embeddings(embedder, texts).vectors
    names = list(pool.prompts)
    return pd.DataFrame(vectors @ vectors.T, index=names, columns=names)


def prompt_categories(pool: Pool) -> dict[str, str]:
    """The category of each prompt, as its responses name it; empty if one has none."""
    found = {r.prompt_id: r.extra.get("category") for r in pool.responses}
    return found if len(set(found.values()) - {None}) > 1 and None not in found.values() else {}


def paper_pairs_table(embedder: str) -> pd.DataFrame:
    """Cosines of the paper's example pairs (Table 11) under an embedder, beside the paper's."""
    pairs = pd.DataFrame(read_data("paper/coverage/table11.yaml"))
    texts = pairs[["response", "nearest"]].to_numpy().ravel().tolist()
    vectors = load_embeddings(embedder, texts).vectors
    cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
    for name in ("response", "nearest"):
        pairs[name] = [excerpt(one, 8) for one in pairs[name]]
    return pairs.rename(columns={"cosine": "paper"}).assign(**{"this embedder": cosines.round(2)})


def excerpt(text: str, max_words: int = 12, max_characters: int = 70) -> str:
    """The text's first words on one line, with a mark where text is left out."""
    whole = " ".join(text.split())
    shown = " ".join(whole.split(" ")[:max_words])[:max_characters].rstrip()
    return shown if shown == whole else f"{shown} ..."
