"""`lalp describe`: what files say of where they come from."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.cli.test_app import RECORDS, scores_frame
from tests.pools.builders import jsonl

READ = ("student", "dtype", "device", "attention", "chat_template", "versions", "windows")


@pytest.fixture
def pool(tmp_path) -> Path:
    (tmp_path / "pool.jsonl").write_bytes(jsonl(*RECORDS))
    return tmp_path / "pool.jsonl"


@pytest.fixture
def told(lalp):
    """What `describe` prints of a file, for programs and for people alike."""

    def describe(path: Path) -> dict:
        done = lalp("describe", path, "--json")
        assert done.code == 0, done.err
        assert yaml.safe_load(lalp("describe", path).out) == json.loads(done.out)
        return json.loads(done.out)

    return describe


def named(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_pool_says_what_it_was_merged_from(lalp, told, pool, tmp_path, suffix):
    out = tmp_path / f"merged.{suffix}"
    assert lalp("merge", pool, "--out", out, "--per-teacher", 1).code == 0
    facts = told(out)
    assert (facts["origin"] if suffix == "parquet" else facts) == {
        "lalp": version("lalp"),
        "command": "merge",
        "inputs": {"pools": [named(pool)]},
        "settings": {"only_correct": False, "per_teacher": 1, "min_teachers": 1},
    }


def test_scores_and_a_training_file_name_student_rule_and_inputs(lalp, told, pool, model, tmp_path):
    scores, train = tmp_path / "scores.parquet", tmp_path / "train.jsonl"
    options = ["--student", model, "--window", "2", "--quiet", "--store", tmp_path / "store"]
    assert lalp("score", pool, *options, "--out", scores).code == 0
    facts = told(scores)
    assert facts["origin"]["inputs"] == {"pool": [named(pool)]}
    settings = {"student": str(model), "windows": ["2"], "splitter": "sentences"}
    settings |= {"thinking": "join"}
    assert facts["origin"]["settings"] == settings
    assert set(READ) <= facts["scored_with"].keys()
    rule = ["--rule", "lalp", "--window", "2", "--seed", "3"]
    assert lalp("select", scores, *rule, "--out", train).code == 0
    chosen = told(train)
    assert chosen["command"] == "select"
    assert {"rule": "lalp", "window": "2", "seed": 3}.items() <= chosen["settings"].items()
    assert chosen["inputs"] == {"scores": [named(scores)]}
    assert chosen["scores"] == facts  # and so on, to the pool


def test_steps_and_a_folder_for_llamafactory_say_it_too(lalp, told, pool, tmp_path):
    assert lalp("segment", pool, "--out", tmp_path / "steps.jsonl").code == 0
    assert told(tmp_path / "steps.jsonl")["settings"]["splitter"] == "sentences"
    scores_frame().to_parquet(tmp_path / "scores.parquet")
    options = ["--rule", "galp", "--format", "llamafactory", "--out", tmp_path / "lf"]
    assert lalp("select", tmp_path / "scores.parquet", *options).code == 0
    assert told(tmp_path / "lf" / "train.json")["settings"]["rule"] == "galp"


def test_what_says_nothing_or_has_changed_is_refused(lalp, pool, tmp_path):
    steps = tmp_path / "steps.jsonl"
    assert lalp("segment", pool, "--out", steps).code == 0
    steps.write_text(steps.read_text() + "\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    scores_frame().to_csv(tmp_path / "bare.jsonl")
    (tmp_path / "pool.jsonl.origin.json").write_text("[" * 9999)
    for path, message in [
        (steps, "is not the file that steps.jsonl.origin.json describes"),
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path, "no such file, nor a folder"),
        (tmp_path / "bad.parquet", "is damaged"),
        (tmp_path / "bare.jsonl", "nothing says where it comes from"),
        (pool, "is damaged"),
    ]:
        done = lalp("describe", path)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
