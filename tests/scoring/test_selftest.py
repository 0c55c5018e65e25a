"""What should not move a score does not, and what does is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lalp.cli.app import main
from lalp.errors import InputError
from lalp.pools.pool import Pool
from lalp.scoring import selftest as module
from lalp.scoring.run import score
from lalp.scoring.selftest import SAME_NATS, first_prompts, known_selftest, selftest
from lalp.scoring.table import load_scores
from tests.scoring.arithmetic import make_pool


@pytest.fixture(scope="module")
def pool():
    return first_prompts(make_pool(), 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    return tmp_path


def write_pool(pool: Pool, path: Path) -> Path:
    names = ("prompt_id", "teacher", "text")
    records = [[getattr(response, name) for name in names] for response in pool.responses]
    rows = [
        {"prompt_id": p, "prompt": pool.prompts[p].messages[0].content, "teacher": t, "response": r}
        for p, t, r in records
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_order_changes_no_bit_and_company_nothing_that_counts(
    pool, student_folder, cache, monkeypatch
):
    found = selftest(pool, student_folder, ["1"], device="cpu")
    table = found.table.set_index("change")
    assert table.loc["pool in another order", ["largest", "same"]].tolist() == [0, 1]
    assert found.holds
    assert (table["limit"].dropna() <= SAME_NATS).all()
    limited = table[table["limit"].notna()]
    assert (limited["choices"] == 0).all()
    assert (limited["places"] == 0).all()
    assert table["prompts"].unique().tolist() == [2 * len(pool.prompts)]
    near = table.loc["bfloat16 instead of float32"]
    assert SAME_NATS < near["largest"] < 1
    assert np.isnan(near["limit"])
    # A table of scores of the same student on the same device holds what was found.
    frame = score(pool, student_folder, ["4"], device="cpu", progress=False)
    rows = known_selftest(frame.attrs["scored_with"])
    pd.testing.assert_frame_equal(pd.DataFrame(rows), found.table, check_dtype=False)
    (path,) = (cache / "selftests").glob("*.json")
    assert "NaN" not in path.read_text()
    other = frame.attrs["scored_with"] | {"dtype": "torch.bfloat16"}
    assert known_selftest(other) is None
    # So does a file that the command writes.
    pool_path, out = write_pool(pool, cache / "pool.jsonl"), cache / "scores.parquet"
    monkeypatch.setattr(
        "sys.argv",
        ["lalp", "score", str(pool_path), "--student", student_folder, "--window", "1",
         "--device", "cpu", "--quiet", "--out", str(out)],
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert load_scores(out).attrs["scored_with"]["selftest"] == rows
    path.write_text("{")
    assert known_selftest(frame.attrs["scored_with"]) is None


def test_a_pool_without_scores_is_refused(pool, student_folder, cache):
    long = Pool(pool.prompts, tuple(replace(r, text="We add. " * 400) for r in pool.responses))
    with pytest.raises(InputError, match="no response of the pool has a score"):
        selftest(long, student_folder, ["all"], device="cpu")


def test_differences_choices_and_places_by_hand():
    base = pd.DataFrame(
        {
            "prompt_id": ["p", "p", "q", "q"],
            "response_id": ["a", "b", "c", "d"],
            "teacher": ["Ada", "Bob", "Ada", "Bob"],
            "galp": [-1.0, -1.5, -2.0, -1.0],
        }
    )
    other = base.assign(galp=[-1.0, -0.5, -2.25, -1.0]).iloc[::-1]
    row = module._compare("some", base, other, 1e-4)
    assert (row["largest"], row["mean"], row["same"]) == (1.0, 1.25 / 4, 0.5)
    assert (row["choices"], row["prompts"]) == (1, 2)  # p now has b
    assert row["places"] == 0  # Bob was first before
    missing = other.assign(galp=[-1.0, -2.25, np.nan, -1.0])
    assert module._compare("some", base, missing, 1e-4)["largest"] == np.inf


def test_a_score_that_moves_too_far_is_told_and_the_command_fails(
    pool, student_folder, cache, monkeypatch, capsys, tmp_path
):
    real = module._in_small_batches

    def moved(*given):
        return {name: value + 0.01 for name, value in real(*given).items()}

    monkeypatch.setattr(module, "_in_small_batches", moved)
    path = write_pool(pool, tmp_path / "pool.jsonl")
    command = ["lalp", "selftest", str(path), "--student", student_folder, "--window", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    told = capsys.readouterr()
    assert "above its limit" in told.out
    assert told.out.count("above its limit") == 1
    assert "please report" in told.err
