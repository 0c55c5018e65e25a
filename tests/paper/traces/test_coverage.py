"""Nearest neighbours of long traces: by folds of a data set, and in the other one."""

from dataclasses import replace

import numpy as np
import pytest

from lalp.paper.coverage.texts import Level, embed_levels
from lalp.paper.traces import coverage
from lalp.paper.traces.plan import traces_profile
from tests.paper.traces.test_tokens import made_pool


def test_each_data_set_seeks_within_itself_and_then_in_the_other(monkeypatch, tmp_path):
    """Texts of a data set are alike, and have a cosine of 0.6 with those of the other one."""
    vectors = {"gsm8k": (1.0, 0.0), "math": (0.6, 0.8)}

    def embed(embedder, items):
        levels = embed_levels(embedder, items)
        for name, level in levels.items():
            data = level.items["prompt_id"].str.partition("/")[0]
            given = np.array([vectors[one] for one in data], dtype=np.float32)
            levels[name] = Level(level.items, given)
        return levels

    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    monkeypatch.setattr(coverage, "embed_levels", embed)
    profile = replace(traces_profile(), num_resamples=20)
    found = coverage.coverage_tables(profile, made_pool(), num_folds=2)
    table = found["coverage"].set_index(["data", "label", "candidates"])
    for data in ("gsm8k", "math"):
        assert table.loc[data][["first", "second"]].to_numpy() == pytest.approx(1.0)
        other = table.loc[f"{data}, from the other"]
        assert other[["first", "second"]].to_numpy() == pytest.approx(0.6)
    assert set(table["num_prompts"]) == {4}
    cut = found["coverage_cut"]
    # Four problems of four main teachers: the fifth teacher does not count.
    assert cut[cut["level"] == "responses"]["texts"].tolist() == [16, 16]
