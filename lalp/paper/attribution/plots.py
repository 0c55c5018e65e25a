"""Figures of notebook 02."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.attribution.lexicon import CATEGORIES
from lalp.paper.figures import FULL_WIDTH, SCORE_COLORS, errors, legend_above, score_label

# Colours that no teacher has; a letter or a marker is shown beside each.
_COLORS = dict(zip(CATEGORIES, ("#CA9161", "#56B4E9", "#CC78BC", "#949494"), strict=True))
_MARKERS = dict(zip(CATEGORIES, "os^D", strict=True))


def plot_token_categories(text: str, tokens: pd.DataFrame, columns: int = 76) -> Figure:
    """A text with its tokens as boxes in the colour of their category.

    ``tokens`` has ``start``, ``end`` (characters) and ``category``; a line holds whole words and at
    most ``columns`` characters.
    """
    places = _wrap(text, columns)
    num_lines = max(line for line, _ in places) + 1
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.62 * num_lines + 0.6))
    alphas = dict.fromkeys(CATEGORIES, 0.75) | {"other": 0.25}
    for start, end, category in tokens[["start", "end", "category"]].itertuples(index=False):
        visible = [i for i in range(start, end) if not text[i].isspace()]
        if not visible:
            continue
        line, column = places[visible[0]]
        style = {"lw": 0.8, "ec": "white", "fc": _COLORS[category], "alpha": alphas[category]}
        axis.add_patch(plt.Rectangle((column, line + 0.12), len(visible), 0.5, **style))
        if category != "other":
            where = (column + len(visible) / 2, line + 0.78)
            axis.text(*where, category[0].upper(), ha="center", va="center", fontsize=7)
    style = {"family": "monospace", "fontsize": 11, "ha": "center", "va": "center"}
    for i, (line, column) in enumerate(places):
        if not text[i].isspace():
            axis.text(column + 0.5, line + 0.38, text[i].replace("$", r"\$"), **style)
    axis.set(xlim=(-0.5, columns + 0.5), ylim=(num_lines, 0))
    axis.axis("off")
    for name, color in _COLORS.items():
        label = name if name == "other" else f"{name[0].upper()}: {name}"
        axis.add_patch(plt.Rectangle((0, -1), 0, 0, color=color, alpha=alphas[name], label=label))
    legend_above(fig, axis, 4)
    return fig


def _wrap(text: str, columns: int) -> list[tuple[int, int]]:
    """Line and column of every character; lines break at white space."""
    places, line, column = [], 0, 0
    for piece in re.findall(r"\S+|\s", text):
        if column and column + len(piece.strip()) > columns:
            line, column = line + 1, 0
        places += [(line, column + i) for i in range(len(piece))]
        column += len(piece)
        if piece == "\n":
            line, column = line + 1, 0
    return places


def plot_category_mass(table: pd.DataFrame) -> Figure:
    """Share of tokens and of probability mass per category (paper, Table 4).

    ``table`` is a `share_table` of two scores, the global one first, with ``paper`` (percent).
    """
    fig, left, right, places, counts = _category_panels(table, 3.8)
    left.barh(places, counts, height=0.75, color="0.85", label="share of tokens")
    scores = zip(_score_rows(table), (-0.16, 0.16), "os", strict=True)
    for (rows, name, color), shift, marker in scores:
        style = {"fmt": marker, "color": color, "ms": 6, "capsize": 2}
        left.errorbar(rows["share"], places + shift, xerr=errors(rows), label=name, **style)
        label = f"paper, {name.partition(',')[0]}"
        hollow = {"mfc": "none", "mec": color, "mew": 1.5, "ms": 8, "ls": ""}
        left.plot(rows["paper"], places + shift, marker, label=label, **hollow)
        ratio_errors = errors(rows, "ratio", "ratio_")
        right.errorbar(rows["ratio"], places + shift, xerr=ratio_errors, **style)
    left.set(xlabel="share of probability mass (%)", xlim=(0, None))
    left.invert_yaxis()
    right.axvline(1, color="0.5", lw=1, ls="--")
    right.set(xlabel="mean probability / that of all tokens")
    legend_above(fig, left, 5)
    return fig


def plot_low_tokens(table: pd.DataFrame, shifts: pd.DataFrame) -> Figure:
    """Categories of the least probable tokens, global and local (paper, Fig. 4).

    ``table`` is a `share_table` of the low tokens, ``shifts`` their `shift_table`.
    """
    fig, left, right, places, counts = _category_panels(table, 3.6)
    scores = zip(_score_rows(table), (-0.19, 0.19), ("", "//"), strict=True)
    for (rows, name, color), shift, hatch in scores:
        style = {"height": 0.36, "color": color, "hatch": hatch, "edgecolor": "white"}
        bars = {"xerr": errors(rows), "ecolor": "0.2", "capsize": 2}
        left.barh(places + shift, rows["share"], label=name, **style, **bars)
    ends = (places - 0.38, places + 0.38)
    left.vlines(counts, *ends, color="black", lw=2.5, label="share of all tokens")
    left.set(xlabel="share of the least probable tenth (%)")
    left.invert_yaxis()
    rows = shifts.set_index("category").loc[list(CATEGORIES)]
    right.errorbar(rows["shift"], places, xerr=errors(rows, "shift"), fmt="ko", ms=6, capsize=3)
    right.axvline(0, color="0.5", lw=1, ls="--")
    right.set(xlabel="local minus global (points)")
    legend_above(fig, left, 3)
    return fig


def _category_panels(
    table: pd.DataFrame, height: float
) -> tuple[Figure, Axes, Axes, Int[np.ndarray, " categories"], pd.Series]:
    """Two panels with a row per category: figure, axes, places of the rows, shares of tokens."""
    size = (FULL_WIDTH, height)
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[3, 2])
    places = np.arange(len(CATEGORIES))
    left.set_yticks(places, CATEGORIES)
    counts = table.drop_duplicates("category").set_index("category")["count"]
    return fig, left, right, places, counts.loc[list(CATEGORIES)]


def _score_rows(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, Any]]:
    """Rows per category, name and colour of the global and of the local score."""
    scores = table.groupby("score", sort=False)
    for (score, rows), color in zip(scores, SCORE_COLORS.values(), strict=True):
        yield rows.set_index("category").loc[list(CATEGORIES)], score_label(score), color


def plot_category_shifts(mass: pd.DataFrame, low: pd.DataFrame, window: str) -> Figure:
    """Gain of each category from global to local, over windows, and per teacher at one window.

    ``mass`` and ``low`` are `sweep_shares` of all mass and of the least probable tokens.
    """
    fig, axes = plt.subplots(2, 2, figsize=(FULL_WIDTH, 6.2), sharey="row")
    for row, (table, label) in enumerate(((mass, "mass"), (low, "low tokens"))):
        of_all = table[table["teacher"] == "all"]
        _draw_shifts(axes[row, 0], of_all, "window", list(dict.fromkeys(of_all["window"])), "-")
        own = table[(table["teacher"] != "all") & (table["window"] == window)]
        _draw_shifts(axes[row, 1], own, "teacher", sorted(own["teacher"].unique()), "")
        axes[row, 0].set(ylabel=f"shift, share of\n{label} (points)")
    axes[0, 0].set_title("all teachers", fontsize="medium")
    axes[0, 1].set_title(f"each teacher, w = {window}", fontsize="medium")
    axes[1, 0].set_xlabel("window")
    legend_above(fig, axes[0, 0], 4)
    return fig


def _draw_shifts(axis: Axes, table: pd.DataFrame, column: str, names: list[str], line: str) -> None:
    for number, (category, color) in enumerate(_COLORS.items()):
        rows = table[table["category"] == category].set_index(column).loc[names]
        places = np.arange(len(names)) + 0.14 * (number - 1.5)
        style = {"color": color, "marker": _MARKERS[category], "ms": 6, "capsize": 2, "ls": line}
        axis.errorbar(places, rows["shift"], yerr=errors(rows, "shift"), label=category, **style)
    axis.axhline(0, color="0.5", lw=1, ls="--", zorder=0)
    axis.set_xticks(range(len(names)), ["\n".join(name.rsplit(" ", 1)) for name in names])
