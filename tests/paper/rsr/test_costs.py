"""What the plan says before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lalp.paper.rsr.costs import plan_costs, plan_text
from lalp.paper.rsr.plan import PLAN


def test_tokens_by_hand_and_passes_by_the_window():
    costs = plan_costs(PLAN).set_index("student")
    # Three sets of 67 traces of each teacher; 97,034.9 is the sum of their mean lengths.
    assert (costs["responses"] == 33 * 67).all()
    assert costs["tokens"].to_numpy() == pytest.approx(3 * 67 * 97_034.9)
    narrow = plan_costs(replace(PLAN, windows=["0"])).set_index("student")
    # Every token once with its whole prefix, and once behind its own step's beginning.
    assert narrow["fed"].to_numpy() == pytest.approx(2 * costs["tokens"].to_numpy(), rel=0.01)
    assert (costs["hours"] > narrow["hours"]).all()
    # 14.8 billion weights of two bytes, and a long trace's cache.
    assert 29.5 < costs["gigabytes"]["Qwen-3-14B"] < 40


def test_the_plan_names_sets_sizes_and_students():
    text = plan_text(PLAN)
    for part in (
        "Umean/RSR_data at 8f24ed4aa8a6: 33 sets of 5,000 traces by 11 teachers, about 6 GB",
        "67 traces of each are scored: 2,211, 20M tokens; windows 0, 1, 2, 4, all",
        "Qwen/Qwen3-14B-Base",
        "of one H100-80GB in all",
    ):
        assert part in text
