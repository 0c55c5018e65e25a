"""Committed scores: read where they belong, computed elsewhere, checked live."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper import results
from lalp.paper import scores as paper_scores
from lalp.paper.champ import pool as champ_pool
from lalp.paper.champ.pool import verified_scores
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


def compute(profile):
    how = {"with_tokens": True, "device": "cpu", "progress": False}
    return lambda some: score(some, profile.student, ["1"], splitter=profile.splitter, **how)


def refuse(some):
    raise AssertionError(f"computed: {', '.join(some.prompts)}")


def committed(tmp_path, part="scores"):
    return (tmp_path / f"figures/mine/{part}.parquet").read_bytes()


def test_what_is_kept_is_read_for_the_same_texts_student_and_steps_alone(profile, tmp_path):
    pool = load_pool(RECORDS)
    with keeping("scores"):
        kept = scores_of(profile, "scores", pool, compute(profile))
    assert "response" not in kept and b"We add" not in committed(tmp_path)
    pd.testing.assert_frame_equal(scores_of(profile, "scores", pool, refuse), kept)
    part = scores_of(profile, "scores", load_pool(RECORDS[2:]), refuse)
    assert part["lalp@1"].tolist() == kept["lalp@1"].tolist()[2:]
    others = [
        (profile, load_pool([RECORDS[0] | {"response": "We add. 7."}, *RECORDS[1:]]), "3 \\+ 4"),
        (replace(profile, student="another"), pool, "3 \\+ 4, 5 \\+ 6"),
        (replace(profile, splitter="paragraphs"), pool, "3 \\+ 4, 5 \\+ 6"),
        (replace(profile, results=""), pool, "3 \\+ 4, 5 \\+ 6"),
    ]
    for other, texts, lacking in others:
        with pytest.raises(AssertionError, match=f"^computed: {lacking}$"):
            scores_of(other, "scores", texts, refuse)


def test_prompts_that_a_table_lacks_are_scored_and_stand_in_their_place(profile, tmp_path, caplog):
    pool, few = load_pool(RECORDS), load_pool(RECORDS[2:])
    with keeping("scores"):
        scores_of(profile, "scores", few, compute(profile))
    before, asked = committed(tmp_path), []

    def count(some):
        asked.extend(some.prompts)
        return compute(profile)(some)

    found = scores_of(profile, "scores", pool, count)
    assert asked == ["3 + 4"] and "1 of 2 prompts" in caplog.text
    assert found["response_id"].tolist() == [r.response_id for r in pool.responses]
    assert committed(tmp_path) == before
    with keeping("scores", adds=True):
        added = scores_of(profile, "scores", pool, count)
    assert asked == ["3 + 4", "3 + 4"]
    with keeping("scores"):
        whole = scores_of(profile, "scores", pool, count)
    assert asked == ["3 + 4", "3 + 4", "3 + 4", "5 + 6"]
    pd.testing.assert_frame_equal(added, whole)


def test_a_run_that_is_cut_off_leaves_whole_prompts_to_add_to(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "_BATCH", 1)
    pool = load_pool(RECORDS)

    def stop(some):
        if "5 + 6" in some.prompts:
            raise KeyboardInterrupt
        return compute(profile)(some)

    with pytest.raises(KeyboardInterrupt), keeping("scores"):
        scores_of(profile, "scores", pool, stop)
    part = scores_of(profile, "scores", load_pool(RECORDS[:2]), refuse)
    assert part["prompt_id"].tolist() == ["3 + 4", "3 + 4"]
    with pytest.raises(AssertionError, match=r"^computed: 5 \+ 6$"), keeping("scores", adds=True):
        scores_of(profile, "scores", pool, refuse)


def test_all_responses_are_scored_beside_those_of_one_for_each_teacher(
    profile, tmp_path, monkeypatch
):
    again = [record | {"response": f"{record['response']} Yes."} for record in RECORDS[:3]]
    pool, asked = load_pool(RECORDS + again), []

    def count(some, *given, **how):
        asked.append([r.response_id for r in some.responses])
        return score(some, *given, **how, device="cpu", progress=False)

    monkeypatch.setattr(champ_pool, "score", count)
    profile = replace(profile, windows=["1"], main_window="1")
    with keeping("pairs"):
        pairs = verified_scores(profile, pool, "pairs")
    with keeping("all"):
        found = verified_scores(profile, pool, "all")
    one_each, rest = asked
    assert sorted(one_each + rest) == sorted(r.response_id for r in pool.responses)
    assert len(rest) == 3 and pairs["response_id"].tolist() == one_each
    assert found["response_id"].tolist() == [r.response_id for r in pool.responses]
    direct = compute(profile)(pool)
    np.testing.assert_allclose(found["lalp@1"], direct["lalp@1"], atol=1e-5)


def test_a_stopped_part_stays_with_its_origin_and_is_gone_on_with(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scores, "_BATCH", 1)
    monkeypatch.setattr(results, "root_dir", lambda: tmp_path)
    stops = [True, False]

    def compute_part(own):
        def compute_once(some):
            if "5 + 6" in some.prompts and stops.pop(0):
                raise KeyboardInterrupt
            return compute(own)(some)

        scores_of(own, "scores", load_pool(RECORDS), compute_once)

    monkeypatch.setattr(results, "fingerprint", lambda package: "")
    monkeypatch.setattr(results, "PROFILES", {"champ": lambda: profile})
    monkeypatch.setattr(results, "PARTS", {"champ": {"scores": compute_part}})
    origins = []
    with pytest.raises(KeyboardInterrupt):
        results.main(name="champ", add=True)
    origins.append(json.loads((tmp_path / "figures/mine/provenance.json").read_text())["scores"])
    results.main(name="champ", add=True)
    origins.append(json.loads((tmp_path / "figures/mine/provenance.json").read_text())["scores"])
    assert origins[0]["unfinished"] and "unfinished" not in origins[1]
    assert origins[1]["added_to"] == [origins[0]]
    assert len(scores_of(profile, "scores", load_pool(RECORDS), refuse)) == 4


def test_rows_of_other_windows_are_not_added(profile):
    pool = load_pool(RECORDS)
    with keeping("scores"):
        scores_of(profile, "scores", load_pool(RECORDS[2:]), compute(profile))

    def wider(some):
        how = {"with_tokens": True, "device": "cpu", "progress": False}
        return score(some, profile.student, ["1", "2"], splitter=profile.splitter, **how)

    with pytest.raises(InputError, match=r"differ in lalp@2, lalp@2:tokens: compute the whole"):
        scores_of(profile, "scores", pool, wider)


def test_a_part_is_kept_with_what_its_name_begins_and_nothing_else(profile, tmp_path):
    pool = load_pool(RECORDS)
    with keeping("splitter"):
        for part in ("scores", "splitter_32t"):
            scores_of(profile, part, pool, compute(profile))
    assert [path.stem for path in tmp_path.glob("figures/mine/*")] == ["splitter_32t"]


def test_a_recheck_sees_a_score_and_a_token_that_are_off(profile):
    pool = load_pool(RECORDS)
    frame = compute(profile)(pool)
    checked = recheck(profile, pool, frame, ["1"], num_responses=2)
    assert len(checked) == 2 and checked["largest"].max() < 1e-6
    with pytest.raises(InputError, match=r"off by 0\.01 nats: run make results again"):
        recheck(profile, pool, frame.assign(galp=frame["galp"] + 0.01), ["1"], num_responses=2)
    tokens = [values + 0.01 for values in frame["lalp@1:tokens"]]
    with pytest.raises(InputError, match=r"off by 0\.01 nats"):
        recheck(profile, pool, frame.assign(**{"lalp@1:tokens": tokens}), ["1"], num_responses=2)
