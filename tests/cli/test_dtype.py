"""The precision of a student, from the command line."""

from __future__ import annotations

from lalp.scoring.table import load_scores
from tests.pools.builders import jsonl


def test_the_command_takes_it(lalp, student_folder, tmp_path):
    record = {"prompt_id": "p", "prompt": "3 + 4?", "teacher": "Ada", "response": "We add. 7."}
    (tmp_path / "pool.jsonl").write_bytes(jsonl(record))
    out = tmp_path / "scores.parquet"
    how = ("--student", student_folder, "--dtype", "bfloat16", "--quiet", "--out", out)
    done = lalp("score", tmp_path / "pool.jsonl", *how)
    assert done.code == 0, done.err
    assert load_scores(out).attrs["scored_with"]["dtype"] == "torch.bfloat16"
