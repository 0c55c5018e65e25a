"""The plan to ten million traces says what the committed code computes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.scale import DOCS, PLAN, compute, render, with_section

KEPT = json.loads((DOCS / "scale.json").read_text(encoding="utf-8"))


def test_the_committed_section_is_what_is_computed():
    page, section = (
        (DOCS / "scale.md").read_text("utf-8"),
        render(PLAN, KEPT["rates"], KEPT["share"]),
    )
    assert page.endswith(section)
    assert with_section(page, section) == page


def test_hours_and_bytes_by_hand():
    values = compute(PLAN, KEPT["rates"])
    assert values["text"] == 10_000_000 * 12_000 * 3.5
    # Twice the body's weights (6.5 billion) for each token that is read: a row that begins at one
    # step reads five, GALP one, and a little for attention and head.
    least = 2 * 6.5e9 * 6 * 12_000 * 10_000_000
    assert least < values["flops"] < 1.2 * least
    assert values["hours"] == pytest.approx(values["flops"] / (64 * 0.5 * 989e12) / 3600)
    assert values["dollars"] == pytest.approx(2.5 * 64 * values["hours"])
    half = compute(replace(PLAN, gpus=32), KEPT["rates"])
    assert half["hours"] == pytest.approx(2 * values["hours"])
    assert half["gpu_hours"] == pytest.approx(values["gpu_hours"])
