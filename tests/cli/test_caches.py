"""`lalp cache`: where caches are, what they hold, and their removal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.test_app import RECORDS
from tests.pools.builders import jsonl

USES = """
import sys
from pathlib import Path
from lalp.files import in_use
with in_use(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def scored(lalp, model, tmp_path):
    """A cache with the scores of three prompts."""
    (tmp_path / "pool.jsonl").write_bytes(jsonl(*RECORDS))
    options = ["--student", model, "--out", tmp_path / "scores.parquet", "--quiet"]
    assert lalp("score", tmp_path / "pool.jsonl", *options).code == 0
    (folder,) = (tmp_path / "build" / "scores").iterdir()
    return folder


def test_what_scoring_kept_is_listed_and_cleared(lalp, scored, tmp_path):
    before = set(tmp_path.iterdir())
    done = lalp("cache")
    assert (done.code, done.err) == (0, "")
    first, *_, last = done.out.splitlines()
    assert first.split()[:2] == ["scores", "1"]
    assert "last used 20" in first
    assert last.endswith(f"MiB kept in {tmp_path / 'build'}")
    told = json.loads(lalp("cache", "scores", "--json").out)
    assert (told["folder"], told["cleared"]) == (str(tmp_path / "build"), False)
    (kind,) = told["kinds"]
    assert kind["size"] == told["size"] > 1000

    assert lalp("cache", "--clear", "embeddings").out.splitlines()[-1].startswith("0.0 MiB freed")
    assert scored.is_dir()
    told = json.loads(lalp("cache", "--clear", "--json").out)
    assert (told["size"], told["cleared"], told["in_use"]) == (kind["size"], True, [])
    assert json.loads(lalp("cache", "--json").out)["size"] == 0
    assert set(tmp_path.iterdir()) == before


def test_what_another_process_uses_stays_and_is_named(lalp, scored):
    command = [sys.executable, "-c", USES, str(scored)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "ready\n"
        done = lalp("cache", "--clear", "scores")
        assert (done.code, done.err) == (0, f"lalp: {scored}: a process uses it, it stays\n")
        assert list(scored.glob("*.parquet"))
        other.communicate()
    assert lalp("cache", "--clear", "scores").err == ""
    assert not scored.exists()


def test_a_misspelt_kind_is_one_line(lalp):
    done = lalp("cache", "--clear", "score")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("lalp: no kind of cache is called 'score': did you mean 'scores'?")
