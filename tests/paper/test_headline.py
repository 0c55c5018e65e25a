"""The lead picture has the numbers of the committed tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lalp.paper import root_dir
from lalp.paper.headline import headline_table, plot_headline
from lalp.stats import Estimate

RULES = pd.DataFrame(
    {"arm": ["random", "galp", "lalp", "random like galp", "random like lalp", "other"]}
).assign(accuracy=0.5, low=0.25, high=0.75)
FILLER = pd.DataFrame({"scaffolding": [0.0, 0.5, 1.0], "difference": [0.0, -0.001, 0.09]})


def test_numbers_are_percent_and_the_papers_have_no_interval():
    filler = FILLER.assign(low=-0.1, high=0.1)
    table = headline_table(RULES, filler, {"CHAMP": Estimate(8.0, 3.0, 19.0)}, {"paper": 29.0})
    assert table["panel"].value_counts().to_dict() == {"students": 5, "teachers": 3, "choices": 2}
    rows = table.set_index("row")
    assert rows.loc["GALP", ["value", "low", "high"]].tolist() == [50, 25, 75]
    assert rows.loc["most", "value"] == pytest.approx(9)
    assert rows.loc["CHAMP", ["value", "low", "high"]].tolist() == [8, 3, 19]
    assert rows.loc["paper", ["low", "high"]].isna().all()
    figure = plot_headline(table)
    labels = [text.get_text() for axis in figure.axes for text in axis.texts]
    plt.close(figure)
    assert labels == ["50"] * 5 + ["0", "0", "+9"] + ["8", "29"]


def test_the_committed_picture_is_of_the_committed_tables():
    folder = root_dir() / "figures"
    shown = pd.read_csv(folder / "headline.csv").set_index("row")["value"]
    rules = pd.read_csv(folder / "world_rules.csv").set_index("arm")["accuracy"]
    assert shown["LALP"] == pytest.approx(100 * rules["lalp"], rel=1e-5)
    assert shown["GALP"] == pytest.approx(100 * rules["galp"], rel=1e-5)
