"""Committed coverage: read for the same texts only, and checked by embedding a sample again."""

from __future__ import annotations

from dataclasses import fields, replace

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lalp.errors import InputError
from lalp.paper.coverage import measure, neighbors, results, texts
from lalp.paper.coverage.results import Coverage, coverage_of, measure_coverage, save_coverage
from lalp.paper.coverage.texts import RESPONSES, STEPS
from lalp.paper.profiles import load_profile
from tests.paper.coverage.test_coverage import small_pool

PROFILE = replace(load_profile("smoke"), results="made", num_resamples=50)
POOL = small_pool("c0", "c1")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LALP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield measure_coverage(PROFILE, POOL, 0)


@pytest.fixture
def root(tmp_path, monkeypatch, measured):
    """A project whose folder of results is empty; what is measured is measured already."""
    monkeypatch.setattr(results, "root_dir", lambda: tmp_path)
    monkeypatch.setattr(results, "measure_coverage", lambda *_: measured)
    return tmp_path


def test_the_tables_are_those_of_the_functions_they_keep(measured):
    spans = texts.cut_pool(PROFILE, POOL, 0)
    levels = texts.embed_levels(PROFILE.embedder, texts.level_items(POOL, spans))
    folds = neighbors.assign_folds(POOL.prompts, results.NUM_FOLDS, 0)
    values = measure.nearness_by_prompt(levels, folds)
    for name, level in levels.items():
        assert_frame_equal(measured.values[name], values[name], check_column_type=False)
        found = neighbors.find_neighbors(level, neighbors.hold_out(level.items, folds))
        kept = measured.found(name, level.items)
        assert_frame_equal(kept, found, check_names=False, check_dtype=False)


def test_committed_tables_are_read_for_the_same_texts_and_settings_alone(root, monkeypatch):
    save_coverage(PROFILE, POOL, 0)
    never = replace(results.measure_coverage(), similarity=pd.DataFrame())
    monkeypatch.setattr(results, "measure_coverage", lambda *_: never)
    read = coverage_of(PROFILE, POOL, 0)
    assert len(read.similarity) and list(read.values) == list(never.values)
    for other in (
        (replace(PROFILE, num_resamples=51), POOL, 0),
        (PROFILE, small_pool("c0", "c2"), 1),
        (replace(PROFILE, results=""), POOL, 0),
    ):
        assert coverage_of(*other) is never


def test_a_missing_table_is_measured(root):
    save_coverage(PROFILE, POOL, 0)
    (root / "figures" / "made" / "coverage_teachers.parquet").unlink()
    assert coverage_of(PROFILE, POOL, 0) is results.measure_coverage()


@pytest.mark.parametrize("column", ["cosine", "equal"])
def test_a_number_that_does_not_come_out_again_is_refused(measured, column):
    items = texts.level_items(POOL, texts.cut_pool(PROFILE, POOL, 0))
    checked = results.recheck_coverage(PROFILE, items, measured, 0)
    assert checked["largest"].max() < 1e-5 and checked["values"].min() > 0
    wrong = measured.neighbors.copy()
    wrong.loc[wrong["level"] == STEPS, column] += 0.001
    with pytest.raises(InputError, match=r"steps.*make results NAME=champ"):
        results.recheck_coverage(PROFILE, items, replace(measured, neighbors=wrong), 0)


def test_no_table_holds_a_text(measured):
    for one in fields(Coverage):
        table = getattr(measured, one.name)
        held = {str(value) for name in table for value in table[name].unique()}
        assert not any("write it" in value or "What is" in value for value in held)
    assert set(measured.neighbors["level"]) >= {RESPONSES, STEPS}
