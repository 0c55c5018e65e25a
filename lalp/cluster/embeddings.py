"""Sentence embeddings in a pipeline of ray.data (the extras ``cluster`` and ``semantic``)."""

from __future__ import annotations

import pandas as pd

from lalp.extras import require
from lalp.students.embedder import PACKAGED_EMBEDDER, embed_texts, load_embedder


class EmbedTexts:
    """Embeds a column of texts, in ``map_batches`` of ``ray.data``; one embedder a worker.

    A text that is longer than the embedder reads gets the mean of its pieces, as in `embed_texts`.

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
        """The batch with a column ``embedding``, of unit length."""
        vectors = embed_texts(self._embedder, batch[self._column].tolist(), chunk_mean=True)
        return batch.assign(embedding=list(vectors))
