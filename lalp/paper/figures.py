"""One figure style, and saving a figure together with the numbers it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from lalp.files import atomic_path, cache_dir, write_text
from lalp.paper import root_dir
from lalp.paper.committed import note_moves, table_moves
from lalp.paper.show import in_words
from lalp.scoring.columns import SCORE_COLORS as SCORE_COLORS
from lalp.scoring.columns import score_label as score_label
from lalp.selection.plots import FULL_WIDTH as FULL_WIDTH
from lalp.selection.plots import HALF_WIDTH as HALF_WIDTH
from lalp.selection.plots import teacher_colors as teacher_colors
from lalp.selection.plots import use_style as use_style


def figures_dir(profile: str) -> Path:
    """Folder of a profile's figures: the default one's are committed, others stay in ``build``."""
    return root_dir() / "figures" if profile == "cpu" else cache_dir() / profile / "figures"


def save_figure(fig: Figure, name: str, data: pd.DataFrame, profile: str) -> Path:
    """Save ``name.png`` and the numbers it shows as ``name.csv``; returns the picture's path.

    A committed table and its picture stay as they are if numbers moved only in the last digits, so
    a run on another machine leaves the checkout clean. To get a picture in another style, delete it
    and run its notebook again.
    """
    folder = figures_dir(profile)
    picture, table = folder / f"{name}.png", folder / f"{name}.csv"
    text = data.to_csv(index=False, float_format="%.6g")
    moves = {name: "new"}
    if profile == "cpu" and table.is_file():
        moves = table_moves(table.read_text(encoding="utf-8"), text)
        if moves:
            note_moves(name, moves, profile)
    if moves or not picture.is_file():
        with atomic_path(picture) as temporary:
            fig.savefig(temporary, format="png", metadata={"Software": None})
    if moves:
        # After the picture: a run that is stopped in between draws it again.
        write_text(table, text)
    return picture


def errors(rows: pd.DataFrame, column: str = "share", prefix: str = "") -> list[pd.Series]:
    """Lengths of error bars about a column; rounding never makes one negative."""
    low, high = rows[f"{prefix}low"], rows[f"{prefix}high"]
    return [(rows[column] - low).clip(lower=0), (high - rows[column]).clip(lower=0)]


def legend_above(fig: Figure, axis: Axes, num_columns: int, **style: float) -> None:
    """One axis' legend above all panels."""
    handles = axis.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=num_columns, fontsize="small", **style)


def spread(places: Sequence[float], gap: float) -> Float[np.ndarray, "places"]:
    """Places moved as little as needed to lie ``gap`` apart, in the same order.

    This keeps labels apart beside points that lie close together.

    Example:
        >>> spread([1.0, 5.0, 1.0], 0.5).tolist()
        [0.75, 5.0, 1.25]
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(order))
    moved = np.empty(len(order))
    # Places at least `gap` apart do not decrease once the gaps are subtracted.
    moved[order] = isotonic_regression(np.asarray(places, float)[order] - steps).x + steps
    return moved


def label_ends(axis: Axes, ends: Mapping[str, tuple[float, float, Any]]) -> None:
    """The name of each line beside its end, spread so that none covers another.

    ``ends`` holds place, height and colour by name.
    """
    low, high = axis.get_ylim()
    heights = spread([height for _, height, _ in ends.values()], 0.09 * (high - low))
    for (name, (place, height, color)), moved in zip(ends.items(), heights, strict=True):
        axis.annotate(
            fill(in_words(name), 18), (place, height), (1.015, moved), color=color, va="center",
            textcoords=axis.get_yaxis_transform(), fontsize="small", weight="bold",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "alpha": 0.6},
        )  # fmt: skip
