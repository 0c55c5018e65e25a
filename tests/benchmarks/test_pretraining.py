"""The benchmark of pre-training, on a few documents."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from benchmarks import pretraining
from lalp.paper.world import student


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_it_measures_both_on_the_same_batches(one_thread, monkeypatch, capsys):
    monkeypatch.setattr(student, "_BLOCK", 4)
    assert pretraining.main(["--rounds", "1", "--tokens", "600"]) == 0
    out = capsys.readouterr().out
    for family in ("registers", "paths"):
        assert f"{family}: " in out
    assert "of the plain loop" in out


@pytest.mark.parametrize(("speed", "verdict"), [(81, "met"), (79, "missed")])
def test_the_bar_is_laid_at_the_medians(speed, verdict, capsys):
    runs = pd.DataFrame(
        {
            "family": "paths",
            "plain tokens/s": [90.0, 100.0, 300.0],
            "lalp tokens/s": [speed, 40.0, 200.0],
            "ratio": [0.9, 0.4, 0.7],
            "documents' share": 0.1,
        }
    )
    pretraining.print_report(runs)
    assert (
        f"paths: {speed / 100:.2f} of the plain loop (0.40 to 0.90 over 3 rounds); "
        f"bar 0.8: {verdict}"
    ) in capsys.readouterr().out


def test_bad_numbers_are_refused():
    with pytest.raises(SystemExit):
        pretraining.main(["--rounds", "0"])
