"""`lalp eval` and `lalp compare`: end to end with tiny models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lalp.evaluation.evaluate import COLUMNS, load_results
from lalp.sampling.samples import SYSTEM_PROMPT
from tests.pools.builders import jsonl


@pytest.fixture
def data(tmp_path) -> Path:
    """Two benchmarks' files, whole and tiny, and a file of prompts."""
    folder = tmp_path / "data"
    folder.mkdir()
    problems = [{"question": f"What is {i}?", "answer": float(i)} for i in range(40)]
    (folder / "amc.jsonl").write_bytes(jsonl(*problems))
    choices = {f"Incorrect Answer {k}": f"wrong {k}" for k in (1, 2, 3)}
    choices["Correct Answer"] = "right"
    questions = [{"Question": f"Which is {i}?"} | choices for i in range(3)]
    (folder / "gpqa.jsonl").write_bytes(jsonl(*questions))
    (tmp_path / "mine.jsonl").write_bytes(jsonl({"problem": "What is 1 + 1?", "answer": 2}))
    return folder


FAST = ("--max-tokens", "3", "--quiet", "--workers", "1")


def test_eval_and_compare(lalp, model, data, tmp_path):
    names = ("--benchmark", "amc23", "--benchmark", tmp_path / "mine.jsonl", "--data", data)
    out = tmp_path / "greedy.parquet"
    done = lalp("eval", "--model", model, *names, "--out", out, *FAST)
    assert done.code == 0, done.err
    assert done.err.endswith(f"lalp: 41 samples graded: {out}\n")
    titles = [("AMC", "40"), ("mine", "1"), ("AVG", "41")]
    assert re.findall(r"\]  (\w+): (\d*)", done.out) == titles

    results = load_results(out)
    assert tuple(results.columns) == COLUMNS
    assert results["benchmark"].tolist() == ["amc23"] * 40 + ["mine"]
    assert results["num_tokens"].le(3).all()
    run = results.attrs["run"]
    assert (run["model"], run["system_prompt"]) == (model, SYSTEM_PROMPT)
    assert run["sampling"]["max_tokens"] == 3
    assert run["benchmarks"]["amc23"]["num_problems"] == 40
    assert "transformers" in run["versions"]

    sampled = tmp_path / "sampled.parquet"
    options = ("--preset", "table7-sampled", "--num-samples", "2", "--json")
    done = lalp("eval", "--model", model, *names, "--out", sampled, *FAST, *options)
    report = json.loads(done.out)
    assert [row["benchmark"] for row in report["accuracy"]] == ["amc23", "mine", "AVG"]
    assert [row["num_samples"] for row in report["accuracy"]] == [2, 2, 2]
    assert report["run"]["sampling"]["temperature"] == 0.6

    done = lalp("compare", out, sampled)
    assert done.code == 0, done.err
    assert re.findall(r"\]  (\w+):", done.out) == ["AMC", "mine", "AVG"]
    comparison = json.loads(lalp("compare", out, sampled, "--json").out)["comparison"]
    assert comparison[0]["p_value"] is None
    assert json.loads(lalp("compare", out, out, "--json").out)["comparison"][0]["p_value"] == 1


def test_choices_are_graded_by_their_letter(lalp, model, data, tmp_path):
    out = tmp_path / "r.parquet"
    command = ["eval", "--model", model, "--benchmark", "gpqa_diamond", "--data", data, *FAST]
    assert "3 problems, but GPQA has 198" in lalp(*command, "--out", out).err
    done = lalp(*command, "--out", out, "--allow-count")
    assert done.code == 0, done.err
    assert load_results(out)["answer"].isin(list("ABCD")).all()
