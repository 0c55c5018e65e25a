"""The whole plan in small, with one tiny student, and its command lines."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.rsr.costs import plan_costs, student_resources
from lalp.paper.rsr.dryrun import dry_run
from lalp.paper.rsr.plan import PLAN, find_plan
from lalp.paper.rsr.run import keep_sets, open_workflow, write_published
from lalp.paper.rsr.scores import score_columns

ROOT = Path(__file__).parents[3]
STUDENT = "Qwen-2.5-3B"
TABLES = ("sets", "correlations", "agreement", "published")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("rsr")
        patch.setenv("LALP_CACHE", str(folder / "cache"))
        patch.setenv("PYTHONPATH", str(ROOT))
        dry_run(folder / "dry", [STUDENT])
        yield folder / "dry"


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / "results" / f"{name}.csv")


def test_every_set_has_every_score(root):
    sets = table(root, "sets")
    assert len(sets) == 33 * len(score_columns(PLAN))
    assert sets["value"].notna().all() and (sets["num_unscored"] == 0).all()
    assert set(sets["student"]) == {STUDENT}
    galp, rsr = (sets.query("score == @name")["value"] for name in ("galp", "rsr"))
    assert (galp < 0).all() and (rsr > 0).all()
    narrow, wide = (sets.query("score == @name")["value"] for name in ("lalp@0", "lalp@all"))
    assert (narrow.to_numpy() != wide.to_numpy()).all()


def test_every_score_is_correlated_and_drawn(root):
    found = table(root, "correlations")
    assert list(found["score"].unique()) == score_columns(PLAN)
    assert found["correlation"].between(-1, 1).all() and (found["num_teachers"] == 11).all()
    assert (found["low"] <= found["high"]).all() and (found["p_holm"] >= found["p"]).all()
    assert table(root, "agreement")["score"].tolist() == ["galp", "rsr"]
    assert (root / "results" / "correlations.png").read_bytes().startswith(b"\x89PNG")


def test_what_made_it_is_told(root):
    (made,) = json.loads((root / "results" / "provenance.json").read_text()).values()
    assert made["scored_with"]["dtype"] == "torch.float32"
    assert len(made["files"]) == 33 and made["plan"]["revision"] == PLAN.revision
    assert {"commit", "cores", "packages", "code", "model"} <= made.keys()


def test_a_second_run_has_nothing_to_do(root, monkeypatch, capfd):
    monkeypatch.setenv("LALP_CACHE", str(root.parent / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = [(root / "results" / f"{name}.csv").read_bytes() for name in TABLES]
    dry_run(root, [STUDENT])
    assert "Nothing to be done" in capfd.readouterr().err
    assert [(root / "results" / f"{name}.csv").read_bytes() for name in TABLES] == before


def test_students_of_another_plan_do_not_stay(root, tmp_path):
    sets = table(root, "sets")
    one, other = (sets.assign(student=name) for name in ("Qwen-3-14B", STUDENT))
    keep_sets(PLAN, tmp_path, one, {"Qwen-3-14B": {"plan": asdict(PLAN)}})
    keep_sets(PLAN, tmp_path, other, {STUDENT: {"plan": asdict(PLAN)}})
    assert list(pd.read_csv(tmp_path / "sets.csv")["student"].unique()) == ["Qwen-3-14B", STUDENT]
    more = replace(PLAN, num_responses=200)
    keep_sets(more, tmp_path, other, {STUDENT: {"plan": asdict(more)}})
    assert list(pd.read_csv(tmp_path / "sets.csv")["student"].unique()) == [STUDENT]


def test_an_unknown_student_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="no student is called 'Qwen-2\\.5-3': did you mean"):
        open_workflow(tmp_path, tmp_path, ["Qwen-2.5-3"])


def test_each_student_is_a_stage_with_its_resources(tmp_path):
    stages = {s.name: s for s in open_workflow(tmp_path, tmp_path / "out").list_stages()}
    assert set(stages) == {"draw", "results", *(f"score-{name}" for name in PLAN.students)}
    assert stages["results"].inputs == tuple(f"scored/{name}" for name in PLAN.students)
    assert stages[f"score-{STUDENT}"].inputs == stages["draw"].outputs
    asked = student_resources(PLAN, STUDENT, toys=False)
    # An hour, and twice what is estimated.
    hours = plan_costs(PLAN).set_index("student")["hours"][STUDENT]
    assert asked["gpu"] == 1 and asked["runtime"] == pytest.approx(60 + 120 * hours, abs=1)


def test_the_published_table_needs_no_student(tmp_path):
    found = write_published(find_plan("toys"), tmp_path)
    assert list(found["score"].unique()) == ["galp", "rsr", "rsr (200)"]
    assert len(pd.read_csv(tmp_path / "published.csv")) == len(found) == 3 * 6 * 2


def test_a_missing_folder_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "lalp.paper.rsr", "run"]
    done = subprocess.run(
        command,
        env={"RSR": "nowhere", "PYTHONPATH": str(ROOT), "LALP_CACHE": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "lalp: nowhere: no such folder: give the folder of Umean/RSR_data"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("profile", "command"),
    [("rsr", "-m lalp.paper.rsr plan"), ("gpu", "-m lalp.paper.scale plan --profile gpu")],
)
def test_make_chooses_the_plan_by_its_profile(profile, command):
    words = ["make", "--dry-run", "--no-print-directory", "plan", f"PROFILE={profile}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith(command)
