"""Texts embedded in batches are those embedded at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lalp.cluster import embeddings
from lalp.cluster.embeddings import EmbedTexts


def test_a_batch_gets_a_vector_for_each_text(monkeypatch):
    def embed(embedder, texts, *, chunk_mean):
        assert (embedder, chunk_mean) == ("loaded tiny", True)
        return np.array([[len(text), 0.0] for text in texts], np.float32)

    monkeypatch.setattr(embeddings, "load_embedder", lambda name: f"loaded {name}")
    monkeypatch.setattr(embeddings, "embed_texts", embed)
    found = EmbedTexts("tiny", "text")(pd.DataFrame({"id": [1, 2], "text": ["ab", "abc"]}))
    assert found["id"].tolist() == [1, 2]
    assert np.stack(found["embedding"]).tolist() == [[2.0, 0.0], [3.0, 0.0]]
