"""Sentence embeddings: load an embedder, embed texts, and keep the embeddings.

Vectors have unit length, so the product of two is their cosine. An embedder reads the first few
hundred tokens of a text and silently drops the rest; ``chunk_mean`` embeds such a text in pieces
that together hold all of it.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from lalp.assets import embedder_path
from lalp.errors import InputError, reason
from lalp.files import atomic_path, cache_dir, check_file, digest, fingerprint
from lalp.students.loading import find_folder, folder_digest, unreadable

# Imported when needed: it takes seconds, and kept embeddings do not need it.
if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("lalp")

PACKAGED_EMBEDDER = "all-minilm-l6-v2"
_ADVICE = f"Give {PACKAGED_EMBEDDER}, a folder, or a sentence-transformers id on the hub"

# Files that decide what an embedder does.
_CONTENT = {".json", ".safetensors", ".bin", ".model", ".txt"}
# Part of the key of kept embeddings, because other code may give other vectors.
_CODE = fingerprint("students.embedder", "students.loading")
# Padded tokens of one forward pass on a CPU: enough to use it fully, few enough for its caches.
_BATCH_TOKENS = 4096
# Tokens of whole texts, without special tokens and without a warning about length.
_WHOLE = {"add_special_tokens": False, "verbose": False}


@dataclass(frozen=True)
class Embedded:
    """Texts as vectors of unit length (float32), and their lengths for the embedder.

    Tokens are counted without special ones: ``num_tokens`` for each whole text; ``limit`` is the
    most that the embedder reads.
    """

    vectors: Float[np.ndarray, "texts dim"]
    num_tokens: Int[np.ndarray, "texts"]
    limit: int


def load_embedder(name: str = PACKAGED_EMBEDDER) -> SentenceTransformer:
    """Load a sentence embedder, on a GPU if there is one; code that comes with it never runs.

    ``name`` is ``all-minilm-l6-v2`` (packaged), a folder, or a sentence-transformers hub id;
    anything else is an `InputError`.
    """
    source = _locate(name)
    with unreadable("embedder", name, _ADVICE):
        from sentence_transformers import SentenceTransformer

        embedder = SentenceTransformer(source, trust_remote_code=False).eval()
        if name != PACKAGED_EMBEDDER:
            _check_weights(embedder)
        return embedder


def _check_weights(embedder: SentenceTransformer) -> None:
    """InputError if the files lack weights, because transformers would use random ones."""
    from transformers import AutoModel

    body = getattr(embedder[0], "auto_model", None)
    if body is None:  # a table of words, for example
        return
    _, found = AutoModel.from_pretrained(body.name_or_path, output_loading_info=True)
    # Vectors are means of hidden states; many files omit the layer after them.
    if missing := [key for key in found["missing_keys"] if not key.startswith("pooler.")]:
        raise InputError(f"its files lack the weights {min(missing)}")


def _locate(name: str) -> str:
    """Folder or hub id to load ``name`` from; a path without an embedder is refused."""
    if name == PACKAGED_EMBEDDER:
        return str(embedder_path())
    folder = find_folder("embedder", name)
    if folder and not (folder / "modules.json").is_file():
        # The library would turn any model into an embedder by taking means, with only a warning.
        why = "holds no modules.json, so it is no sentence-transformers model"
        advice = "give one that SentenceTransformer.save wrote"
        raise InputError(f"embedder {name!r}: the folder {why}: {advice}")
    return str(folder or name)


def embedder_revision(name: str) -> str:
    """The identity of this embedder: a hub commit, or a sha256 over a folder's files."""
    source = Path(_locate(name))
    if source.is_dir():
        return folder_digest(source, _CONTENT, deep=True)
    from transformers import AutoConfig

    with unreadable("embedder", name, _ADVICE):
        return AutoConfig.from_pretrained(name, trust_remote_code=False)._commit_hash


def embed_texts(
    embedder: SentenceTransformer, texts: Sequence[str], *, chunk_mean: bool = False
) -> Float[np.ndarray, "texts dim"]:
    """Embed texts as float32 vectors of unit length, in the order of ``texts``.

    With ``chunk_mean``, a text longer than the embedder's input is embedded in pieces of about
    equal length, and gets the mean of their vectors, weighted by their tokens. Without it, text
    beyond the input is dropped.
    """
    if not len(texts):
        return np.zeros((0, embedder.get_embedding_dimension()), dtype=np.float32)
    # Equal texts, such as repeated steps, are embedded once.
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    pieces = [cut_pieces(embedder, text) if chunk_mean else [text] for text in places]
    flat = [piece for group in pieces for piece in group]
    lengths = count_tokens(embedder, flat)
    vectors = _embed_in_batches(embedder, flat, lengths)
    if len(flat) > len(places):
        weighted = vectors * np.maximum(lengths, 1)[:, None]
        first = np.cumsum([0, *(len(group) for group in pieces[:-1])])
        vectors = np.add.reduceat(weighted, first, axis=0)
    return normalize_rows(vectors)[[places[text] for text in texts]]


def cut_pieces(embedder: SentenceTransformer, text: str) -> list[str]:
    """Cut a text at word borders into as few pieces of about equal length as the input allows."""
    limit = input_limit(embedder)
    encoded = embedder.tokenizer(text, return_offsets_mapping=True, **_WHOLE)
    words, start, cuts = encoded.word_ids(), 0, {0, len(text)}
    while len(words) - start > limit:
        left = len(words) - start
        end = border = start + math.ceil(left / math.ceil(left / limit))
        while border > start and words[border] == words[border - 1]:
            border -= 1
        # A word longer than a piece is cut inside.
        start = border if border > start else end
        cuts.add(encoded["offset_mapping"][start][0])
    if len(cuts) <= 2:  # even one character with more tokens than the input holds
        return [text]
    # A separate piece may have a few tokens more than inside the text, so check again.
    return [piece for a, b in pairwise(sorted(cuts)) for piece in cut_pieces(embedder, text[a:b])]


def normalize_rows(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Rows scaled to unit length, float32; a row of zeros stays as it is."""
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def count_tokens(embedder: SentenceTransformer, texts: Sequence[str]) -> Int[np.ndarray, "texts"]:
    """Tokens of each whole text, without special tokens, even beyond the embedder's input."""
    # The tokenizer refuses an empty list.
    ids = embedder.tokenizer(list(texts), **_WHOLE)["input_ids"] if len(texts) else []
    return np.array([len(each) for each in ids], dtype=np.int64)


def input_limit(embedder: SentenceTransformer) -> int:
    """Most tokens of a text that the embedder reads, without special tokens and its prompt."""
    limit = embedder.max_seq_length
    if limit is None:
        return int(np.iinfo(np.int64).max)
    prompt = embedder.prompts.get(embedder.default_prompt_name or "", "")
    special = embedder.tokenizer.num_special_tokens_to_add()
    return max(limit - special - int(count_tokens(embedder, [prompt])[0]), 1)


def load_embeddings(
    name: str, texts: Sequence[str], *, chunk_mean: bool = False, folder: Path | None = None
) -> Embedded:
    """Embed texts like `embed_texts`, or read earlier embeddings from ``folder``.

    ``name`` is that of `load_embedder`, which is called only if texts are left to embed; ``folder``
    is ``embeddings`` in `cache_dir` by default.
    """
    # The texts' order is part of the key, so no text is looked up alone.
    key = digest([_CODE, embedder_revision(name), chunk_mean, list(texts)], length=32)
    path = (folder or cache_dir() / "embeddings") / f"{key}.npz"
    try:
        check_file(path)
        with np.load(path, allow_pickle=False) as arrays:
            kept = Embedded(arrays["vectors"], arrays["num_tokens"], int(arrays["limit"]))
        if kept.vectors.ndim != 2 or not len(kept.vectors) == len(kept.num_tokens) == len(texts):
            raise ValueError("it holds other texts")
        return kept
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: damaged (%s); embedding anew", path, reason(error))
    embedder = load_embedder(name)
    vectors = embed_texts(embedder, texts, chunk_mean=chunk_mean)
    made = Embedded(vectors, count_tokens(embedder, texts), input_limit(embedder))
    # An open file, because numpy would add a suffix to a path.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(made))
    return made


def _embed_in_batches(
    embedder: SentenceTransformer, texts: Sequence[str], lengths: Int[np.ndarray, "texts"]
) -> Float[np.ndarray, "texts dim"]:
    """Embed texts in batches of about equal lengths, so padding adds little."""
    vectors = np.zeros((len(texts), embedder.get_embedding_dimension()), dtype=np.float32)
    # A GPU can process more at once than a CPU's caches hold.
    budget = _BATCH_TOKENS if embedder.device.type == "cpu" else 16 * _BATCH_TOKENS
    sizes = np.minimum(lengths, input_limit(embedder)) + 2  # special tokens: two at least
    # Longest first, so a lack of memory shows at once, not at the end.
    order = np.argsort(-sizes, kind="stable")
    while len(order):
        rows, order = np.split(order, [max(budget // int(sizes[order[0]]), 1)])
        vectors[rows] = embedder.encode(
            [texts[i] for i in rows],
            batch_size=len(rows),
            normalize_embeddings=True,
            show_progress_bar=False,
        )
    return vectors
