"""Committed scores: read where they belong, computed elsewhere, checked live."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lalp.errors import InputError
from lalp.paper import scores as paper_scores
from lalp.paper.profiles import load_profile
from lalp.paper.scores import keeping, recheck, scores_of
from lalp.pools.reading import load_pool
from lalp.scoring.run import score

RECORDS = [
    {"prompt_id": p, "prompt": f"What is {p}?", "teacher": t, "response": f"We add. {t} says {p}."}
    for p in ("3 + 4", "5 + 6")
    for t in ("Ada", "Bob")
]


@pytest.fixture
def profile(student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "root_dir", lambda: tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    return replace(load_profile("smoke"), student=student_folder, results="mine")


def compute(profile, pool):
    how = {"with_tokens": True, "device": "cpu", "progress": False}
    return lambda: score(pool, profile.student, ["1"], splitter=profile.splitter, **how)


def refuse():
    raise AssertionError("it is computed")


def test_what_is_kept_is_read_for_the_same_texts_student_and_steps_alone(profile, tmp_path):
    pool = load_pool(RECORDS)
    with keeping("scores"):
        kept = scores_of(profile, "scores", pool, compute(profile, pool))
    text = (tmp_path / "figures/mine/scores.parquet").read_bytes()
    assert "response" not in kept and b"We add" not in text
    read = scores_of(profile, "scores", pool, refuse)
    assert read["lalp@1"].tolist() == kept["lalp@1"].tolist()
    others = [
        (profile, load_pool(RECORDS[:2])),
        (replace(profile, student="another"), pool),
        (replace(profile, splitter="paragraphs"), pool),
        (replace(profile, results=""), pool),
    ]
    for other, texts in others:
        with pytest.raises(AssertionError, match="it is computed"):
            scores_of(other, "scores", texts, refuse)


def test_a_part_is_kept_with_what_its_name_begins_and_nothing_else(profile, tmp_path):
    pool = load_pool(RECORDS)
    with keeping("splitter"):
        for part in ("scores", "splitter_32t"):
            scores_of(profile, part, pool, compute(profile, pool))
    assert [path.stem for path in tmp_path.glob("figures/mine/*")] == ["splitter_32t"]


def test_a_recheck_sees_a_score_and_a_token_that_are_off(profile):
    pool = load_pool(RECORDS)
    frame = compute(profile, pool)()
    checked = recheck(profile, pool, frame, ["1"], num_responses=2)
    assert len(checked) == 2 and checked["largest"].max() < 1e-6
    with pytest.raises(InputError, match=r"off by 0\.01 nats: run make results again"):
        recheck(profile, pool, frame.assign(galp=frame["galp"] + 0.01), ["1"], num_responses=2)
    tokens = [values + 0.01 for values in frame["lalp@1:tokens"]]
    with pytest.raises(InputError, match=r"off by 0\.01 nats"):
        recheck(profile, pool, frame.assign(**{"lalp@1:tokens": tokens}), ["1"], num_responses=2)
