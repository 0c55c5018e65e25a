"""The whole plan in small."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from lalp.paper.scale.__main__ import app as scale
from lalp.paper.scale.dryrun import call_here, dry_run, models_needed, shrink
from lalp.paper.scale.plan import load_plan
from lalp.paper.scale.stages import KINDS, Place, make_stages
from lalp.pools.reading import load_pool
from tests.paper.scale.conftest import B7, ROOT, option, pool_of


@pytest.mark.parametrize("name", ["paper", "gpu"])
def test_a_dry_run_has_the_same_stages(name):
    plan = load_plan(name)
    small, place = shrink(plan, "dry")
    real, toy = make_stages(plan, Place("run"), name), make_stages(small, place, name)
    assert [stage.name for stage in real] == [stage.name for stage in toy]
    for one, other in zip(real, toy, strict=True):
        assert one.kind == other.kind
        assert [path.replace("run/", "dry/", 1) for path in one.outputs] == list(other.outputs)
        if one.kind != "train":
            assert other.command[:2] == one.command[:2]
        options = {word for word in one.command if word.startswith("--")}
        assert options - {"--tensor-parallel"} <= set(other.command)
    teachers, students = models_needed(small, toy)
    assert not set(teachers) & set(students)
    assert {f"dry/toys/models/{name}" for name in (*teachers, *students)} >= {
        option(stage, "--student") for stage in toy if stage.kind in ("score", "train")
    }


def test_a_command_in_this_process_is_as_one_of_its_own(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)])
    log = tmp_path / "log"
    log.touch()
    words = ("lalp", "merge", str(a), "--out", str(tmp_path / "out.jsonl"), "--json")
    assert call_here(scale, words, tmp_path / "stdout", log) == 0
    assert json.loads((tmp_path / "stdout").read_text())["num_responses"] == 1
    assert "1 responses written" in log.read_text()
    assert call_here(scale, ("lalp", "merge", "none.jsonl", "--out", "x.jsonl"), None, log) == 2
    assert "lalp: none.jsonl: no such file" in log.read_text()


@pytest.mark.slow
def test_a_dry_run_of_one_table_in_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    some = dataclasses.replace(load_plan("gpu"), tables=["3", "8"], controls=False)
    options = {"plan": some, "processes": ("train",)}
    fresh = []
    reports = dry_run(
        "gpu",
        "dry",
        scale,
        **options,
        on_report=lambda r, new: fresh.append(r.stage.kind if new else ""),
    )
    assert {report.stage.kind for report in reports} == set(KINDS)
    assert fresh.count("train") == 1
    assert "nothing to do" in {report.state for report in reports}
    # One teacher was not taught one of the six LIMO prompts: five are left, three responses each.
    pool = load_pool("dry/pools/limo.jsonl")
    assert len(pool.prompts) == 5
    assert [response.correct for response in pool.responses] == [True] * 15
    assert len(pd.read_csv(f"dry/models/{B7}_limo_lalp-s0/training_log.csv")) >= 2
    written = json.loads(Path("dry/tables.json").read_text())
    cells = {(*c["row"], c["column"]): c["run"] for c in written["tables"]["3"]["cells"]}
    assert all(cells[B7, rule, "AVG"] is not None for rule in ("original", "random", "lalp"))
    mix = [c["run"] for c in written["tables"]["8"]["cells"] if c["row"] == [B7, "random"]]
    assert sum(mix) == pytest.approx(100)
    again = dry_run("gpu", "dry", scale, **options)
    assert {report.state for report in again} == {"done before"}
