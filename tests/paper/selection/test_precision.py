"""bfloat16 beside float32: by hand, on a tiny student, and as a part of the committed results."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper import results
from lalp.paper import scores as paper_scores
from lalp.paper.profiles import load_profile
from lalp.paper.scores import keeping
from lalp.paper.selection import precision
from lalp.paper.selection.precision import bfloat16_scores, precision_table
from lalp.pools.pool import Pool
from lalp.scoring.run import score
from tests.paper.test_scores import RECORDS, load_pool


def table_of(galp: list[float], lalp: list[float]) -> pd.DataFrame:
    """Two prompts with one response by each of two teachers."""
    rows = [(p, f"{p}/{t}", t) for p in "pq" for t in ("Ada", "Bob")]
    frame = pd.DataFrame(rows, columns=["prompt_id", "response_id", "teacher"])
    return frame.assign(
        correct=True, num_tokens=5, reason=None, galp=galp, **{"lalp@4": lalp, "lalp@0": 0.0}
    )


def test_errors_choices_and_orders_by_hand():
    exact = table_of([-1.0, -2.0, -1.0, -1.5], [-1.0, -1.25, -3.0, -3.125])
    near = table_of([-1.0, -2.0, -1.0, -1.25], [-1.0, -1.5, -3.0, -2.5])
    galp, lalp = precision_table(exact, near.iloc[::-1], "4").to_dict("records")
    assert galp == {
        "score": "galp", "responses": 4, "mean error": 0.0625, "largest error": 0.25,
        "prompts": 2, "choice flips": 0, "mean moves": 0.125, "order": "the same",
    }  # fmt: skip
    # Bob's mean rises from -2.1875 to -2, that of Ada, with whom he ties.
    assert lalp["choice flips"] == 0.5
    assert lalp["largest error"] == 0.625
    assert lalp["mean error"] == pytest.approx((0.25 + 0.625) / 4)
    assert lalp["mean moves"] == 0.1875
    near.loc[3, "lalp@4"] = -2.0
    assert precision_table(exact, near, "4")["order"].tolist() == ["the same", "Bob > Ada"]


def test_tables_of_other_responses_are_refused():
    table = table_of([-1.0] * 4, [-1.0] * 4)
    with pytest.raises(InputError, match="hold scores of other responses: score the same ones"):
        precision_table(table, table[:3], "4")


def test_the_candidates_are_scored_in_bfloat16_and_kept(student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "root_dir", lambda: tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    pool = load_pool(RECORDS)
    monkeypatch.setattr(precision, "pick_candidates", lambda *args: pool)
    profile = replace(load_profile("smoke"), student=student_folder, results="mine")
    exact = score(pool, student_folder, [profile.main_window], device="cpu", progress=False)
    with keeping("bfloat16"):
        bfloat16_scores(profile, pool)
    near = bfloat16_scores(profile, Pool({}, ()))
    assert (tmp_path / "figures/mine/bfloat16.parquet").is_file()
    found = precision_table(exact, near, profile.main_window)
    assert found["responses"].tolist() == [4, 4]
    assert (found["largest error"] > 0).all() and (found["largest error"] < 0.1).all()


def test_it_is_a_part_of_the_results_of_champ():
    assert "bfloat16" in results.PARTS["champ"]
