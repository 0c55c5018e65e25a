"""Committed results of step world beside traces made again, and a student run again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.committed import save_results
from lalp.paper.world import recheck, study
from lalp.paper.world.study import WorldResults, load_results
from tests.paper.world.test_study import SMALL
from tests.paper.world.test_study import here as here

TWO = replace(SMALL, seeds=2, most_seeds=2)


@pytest.fixture
def committed() -> WorldResults:
    """A study of two students, written to files and read again."""
    for name in ("standard", "cpu"):
        save_results(study.run_world(TWO), f"world_{name}")
    return load_results("standard")


def test_only_accepted_students_are_drawn():
    students = pd.DataFrame({"seed": range(6), "accepted": [True, False, True, False, True, False]})
    run = SimpleNamespace(students=students)
    assert {recheck.draw_seed(run, seed) for seed in range(20)} == {0, 2, 4}


def test_a_run_agrees_with_itself_and_one_of_other_code_does_not(committed, tmp_path, monkeypatch):
    monkeypatch.setattr(recheck, "load_study", lambda name: TWO)
    # From nothing, as on another machine.
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "elsewhere"))
    table = recheck.check_world(committed, 0)
    assert table["values"].min() > 0
    # Committed tables have seven digits.
    assert table["largest"].max() < 1e-6
    for name, column, shift, what in (
        ("gaps", "num_tokens", 1, "student: tokens of traces"),
        ("means", "mean", 2 * recheck.TRAINED_NATS, "student: mean scores"),
        ("students", "copying_near", 2 * recheck.TRAINED_SHARE, "student: skills"),
        ("arms", "last_loss", 2 * recheck.TRAINED_NATS, "student: losses"),
    ):
        changed = getattr(committed, name).assign(**{column: lambda t, c=column, s=shift: t[c] + s})
        save_results(replace(committed, **{name: changed}), "world_cpu")
        with pytest.raises(InputError, match=f"{what}.*make world"):
            recheck.check_world(committed, 0)
    gaps = committed.gaps.assign(num_tokens=committed.gaps["num_tokens"] + 1)
    with pytest.raises(InputError, match=r"seed \d: tokens of traces"):
        recheck.check_world(replace(committed, gaps=gaps), 0)
