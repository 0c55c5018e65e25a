"""The table of model families, for a handful of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import families
from benchmarks.families import Case, check_case, list_cases

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cases() -> dict[str, Case]:
    return {case.name: case for case in list_cases()}


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        ("gemma2", "exact", ""),
        ("mamba", "exact", ""),
        ("mixtral", "exact", ""),
        ("bert", "refused", "depend on later tokens"),
        ("bert, as a decoder", "exact", ""),
        ("gemma3_text, bidirectional", "refused", "depend on later tokens"),
        ("musicgen", "cannot be built", "Error"),
    ],
)
def test_a_family_gets_its_verdict(name, verdict, reason, cases):
    row = check_case(cases[name])
    assert row["verdict"] == verdict, row
    assert reason in row["reason"]
    assert (row["largest difference in nats"] <= 1e-4) == (verdict == "exact")


def test_wrong_scores_and_tracebacks_are_found(cases, monkeypatch):
    real = families.score

    def shift(*args, **kwargs):
        return real(*args, **kwargs).assign(galp=lambda frame: frame["galp"] + 2e-4)

    def withhold(*args, **kwargs):
        return real(*args, **kwargs).assign(galp=float("nan"))

    def fail(*args, **kwargs):
        raise IndexError("out of range")

    for fault, verdict in ((shift, "wrong"), (withhold, "wrong"), (fail, "traceback")):
        monkeypatch.setattr(families, "score", fault)
        assert check_case(cases["llama"])["verdict"] == verdict


def test_the_committed_table_is_whole_and_has_no_fault():
    table = pd.read_csv(ROOT / "figures" / "families" / "families.csv", keep_default_na=False)
    assert table["family"].tolist() == [case.name for case in list_cases()]
    assert set(table["verdict"]) == {"exact", "refused", "cannot be built"}
    exact = table["verdict"] == "exact"
    assert exact.sum() >= 170
    assert (table.loc[exact, "largest difference in nats"].astype(float) <= 1e-4).all()
    assert (table.loc[~exact, "reason"] != "").all()
