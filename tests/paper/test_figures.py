"""Figures and their tables: what a run writes, what it leaves, and what it says of that."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lalp.paper.committed import main, table_moves
from lalp.paper.figures import save_figure, spread

TABLE = pd.DataFrame({"teacher": ["A", "B"], "nats": [-1.5, 12345.6], "hole": [None, 1.0]})


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Save a figure of a table; returns whether its picture and its table were written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))

    def call(table: pd.DataFrame, profile: str = "cpu") -> tuple[bool, bool]:
        folder = tmp_path / ("figures" if profile == "cpu" else f"build/{profile}/figures")
        paths = [folder / f"one.{kind}" for kind in ("png", "csv")]
        before = [path.stat().st_ino if path.exists() else 0 for path in paths]
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.plot(table["nats"])
        assert save_figure(figure, "one", table, profile) == paths[0]
        plt.close(figure)
        return tuple(b != path.stat().st_ino for b, path in zip(before, paths, strict=True))

    return call


def test_only_what_moved_is_written_and_listed_once(save, tmp_path, capsys):
    assert save(TABLE) == (True, True)
    nearly = TABLE.assign(nats=[-1.50009, 12345.7])  # 1e-4 nats, or the last of six digits
    assert save(nearly) == (False, False)
    main()
    assert capsys.readouterr().out == ""
    assert save(TABLE.assign(nats=[-1.5002, 12345.6])) == (True, True)
    main()
    expected = "figures/one.csv has moved:\n  nats: 1 of 2 cells, by 0.0002 at most\n"
    assert capsys.readouterr().out == expected
    main()
    assert capsys.readouterr().out == ""
    assert "-1.5002" in (tmp_path / "figures" / "one.csv").read_text()


@pytest.mark.parametrize("kind", ["png", "csv"])
def test_a_deleted_file_is_made_again(save, tmp_path, kind):
    save(TABLE)
    (tmp_path / "figures" / f"one.{kind}").unlink()
    assert save(TABLE) == (True, kind == "csv")


def test_other_profiles_are_drawn_each_time(save, capsys):
    assert save(TABLE, "smoke") == save(TABLE, "smoke") == (True, True)
    main("smoke")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("after", "moves"),
    [
        ("a,b\n1,x\n2,\n", {}),
        ("a,b\n1,x\n2,y\n", {"b": "1 of 2 cells, as text"}),
        ("a,b\n1,x\n,\n", {"a": "1 of 2 cells, as text"}),
        ("a,b\n1.5,x\n0,\n", {"a": "2 of 2 cells, by 2 at most"}),
        ("a,c\n1,x\n2,\n", {"all columns": "2 rows of 2 columns"}),
        ("a,b\n1,x\n", {"all columns": "1 rows of 2 columns"}),
        ("", {"all columns": "one of the tables cannot be read"}),
    ],
)
def test_moves_of_a_table(after, moves):
    assert table_moves("a,b\n1,x\n2,\n", after) == moves


def test_labels_are_moved_apart_as_little_as_needed_and_keep_their_order():
    assert spread([3.0, 1.0, 2.0], 0.5).tolist() == [3.0, 1.0, 2.0]
    assert spread([], 1.0).tolist() == []
    rng = np.random.default_rng(0)
    places = rng.random(30)
    moved = spread(places, 0.02)
    assert (np.argsort(moved) == np.argsort(places)).all()
    assert np.diff(np.sort(moved)).min() > 0.02 - 1e-9
    assert moved.mean() == pytest.approx(places.mean())
