"""The lead picture: the result for the paper's main claim, in a made-up world and on real text."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.files import read_data
from lalp.paper.figures import FULL_WIDTH, SCORE_COLORS
from lalp.stats import Estimate

HEADLINES = {one["claim"]: one["short"] for one in read_data("paper/headlines.yaml")}
"""The claims that a reader should know first, and what they are called."""
GALP, LALP = SCORE_COLORS["galp"], SCORE_COLORS["lalp"]
# Rules of step world: name, colour, and whether the mark is full.
_RULES = {
    "lalp": ("LALP", LALP, True),
    "random like lalp": ("random,\nLALP's teachers", LALP, False),
    "galp": ("GALP", GALP, True),
    "random like galp": ("random,\nGALP's teachers", GALP, False),
    "random": ("random", "0.6", False),
}
_SCAFFOLDING = {"0": "none", "0.0": "none", "0.5": "some", "1": "most", "1.0": "most"}
_TITLES = {
    "students": "Made-up world: whose\nstudents solve more?",
    "teachers": "Made-up world: LALP's lead,\nby the other teacher's filler",
    "choices": "Real text: shift of the\nteachers' shares",
}
_AXES = {
    "students": "problems solved (%)",
    "teachers": "LALP minus GALP (points)",
    "choices": "from GALP to LALP (points)",
}


def headline_table(
    rules: pd.DataFrame,
    by_scaffolding: pd.DataFrame,
    moved: Mapping[str, Estimate],
    paper: Mapping[str, float],
) -> pd.DataFrame:
    """The numbers of the lead picture in percent: ``panel``, ``row``, ``value``, ``low``, ``high``.

    Args:
        rules: ``arm``, ``accuracy``, ``low`` and ``high`` of step world's students by rule.
        by_scaffolding: ``scaffolding``, ``difference``, ``low`` and ``high``: LALP minus GALP on
            the map of step world, on true steps.
        moved: By how many points the teachers' shares shift from GALP to LALP, for each pool.
        paper: The same in the paper, without intervals, for each student.
    """
    shown = rules.set_index("arm").loc[list(_RULES), ["accuracy", "low", "high"]] * 100
    parts = {
        "students": shown.set_axis([name for name, _, _ in _RULES.values()]),
        "teachers": by_scaffolding.set_index(
            by_scaffolding["scaffolding"].astype(str).map(_SCAFFOLDING)
        )[["difference", "low", "high"]]
        * 100,
        "choices": pd.DataFrame(
            {name: [one.value, one.low, one.high] for name, one in moved.items()}
            | {name: [value, float("nan"), float("nan")] for name, value in paper.items()}
        ).T,
    }
    tables = [
        part.set_axis(["value", "low", "high"], axis=1)
        .rename_axis("row")
        .reset_index()
        .assign(panel=name)
        for name, part in parts.items()
    ]
    return pd.concat(tables, ignore_index=True)[["panel", "row", "value", "low", "high"]]


def plot_headline(table: pd.DataFrame) -> Figure:
    """The lead picture of `headline_table`: marks with intervals; the paper's marks are hollow."""
    fig, axes = plt.subplots(
        1, 3, figsize=(FULL_WIDTH, 3.1), gridspec_kw={"width_ratios": [1.25, 0.9, 1.1]}
    )
    for axis, (panel, title) in zip(axes, _TITLES.items(), strict=True):
        _draw_panel(axis, table[table["panel"] == panel], panel)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel(_AXES[panel], fontsize=9)
        axis.tick_params(labelsize=9)
        axis.grid(axis="y", visible=False)
    axes[1].axvline(0, color="0.35", lw=1.2, ls="--", zorder=1.5)
    axes[0].set_xlim(0, 100)
    axes[2].set_xlim(-1, 40)
    return fig


def _draw_panel(axis: Axes, rows: pd.DataFrame, panel: str) -> None:
    styles = {name: (color, full) for name, color, full in _RULES.values()}
    for place, row in enumerate(rows.itertuples()):
        measured = pd.notna(row.low)
        color, full = styles.get(row.row, (LALP if measured else "0.35", measured))
        axis.hlines(place, row.low, row.high, color=color, lw=2)
        face = color if full else "white"
        axis.plot(row.value, place, "o", color=color, mfc=face, ms=8, mew=1.8, zorder=3)
        text = (
            f"{row.value:.0f}"
            if panel != "teachers"
            else f"{round(row.value):+d}".replace("+0", "0")
        )
        axis.annotate(
            text, (row.value, place), (0, 8), textcoords="offset points", ha="center", fontsize=9
        )
    axis.set_yticks(range(len(rows)), rows["row"])
    axis.set_ylim(len(rows) - 0.5, -0.7)
