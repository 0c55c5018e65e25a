"""Sentence embeddings in a pipeline of ray.data (the extras ``cluster`` and ``semantic``)."""

from __future__ import annotations

import pandas as pd

from lalp.extras import require
from lalp.students.embedder import PACKAGED_EMBEDDER, embed_texts, load_embedder


class EmbedTexts:
    """Embed a column of texts in ``map_batches`` of ``ray.data``, with one embedder per worker.

    If a text is longer than the embedder's input, it gets the mean embedding of its pieces, as in
    `embed_texts`.

    Raises:
        InputError: If there is no such embedder, or the extra is not installed.

    Example:
        >>> import ray  # doctest: +SKIP
        >>> pool = ray.data.read_parquet("s3://bucket/pool/")  # doctest: +SKIP
        >>> pool.map_batches(  # doctest: +SKIP
        ...     EmbedTexts, concurrency=8, num_gpus=1, batch_format="pandas"
        ... ).write_parquet("s3://bucket/embedded/")
    """

    def __init__(self, embedder: str = PACKAGED_EMBEDDER, column: str = "response") -> None:
        require("semantic", "EmbedTexts")
        self._embedder, self._column = load_embedder(embedder), column

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Return the batch with a new column ``embedding`` of unit vectors."""
        vectors = embed_texts(self._embedder, batch[self._column].tolist(), chunk_mean=True)
        return batch.assign(embedding=list(vectors))
