"""Figures of notebook 02."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lalp.paper.figures import FULL_WIDTH, errors, score_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that no teacher has; a letter or a marker stands beside each.
_CATEGORY_COLORS = {
    "discourse": "#CA9161",
    "math": "#56B4E9",
    "reasoning": "#CC78BC",
    "other": "#949494",
}
_CATEGORY_MARKERS = {"discourse": "o", "math": "s", "reasoning": "^", "other": "D"}


def plot_token_categories(text: str, tokens: pd.DataFrame, columns: int = 76) -> Figure:
    """A text with its tokens as boxes in the colour of their category.

    Args:
        text: The text; its words are kept whole.
        tokens: ``start``, ``end`` (characters) and ``category`` of each token.
        columns: Characters per line.
    """
    places = _wrap(text, columns)
    num_lines = max(line for line, _ in places) + 1
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.62 * num_lines + 0.6))
    for start, end, category in tokens[["start", "end", "category"]].itertuples(index=False):
        visible = [i for i in range(start, end) if not text[i].isspace()]
        if not visible:
            continue
        line, column = places[visible[0]]
        box = plt.Rectangle((column, line + 0.12), len(visible), 0.5, lw=0.8, ec="white")
        box.set(facecolor=_CATEGORY_COLORS[category], alpha=0.25 if category == "other" else 0.75)
        axis.add_patch(box)
        if category != "other":
            where = (column + len(visible) / 2, line + 0.78)
            axis.text(*where, category[0].upper(), ha="center", va="center", fontsize=7)
    for i, (line, column) in enumerate(places):
        style = {"family": "monospace", "fontsize": 11, "ha": "center", "va": "center"}
        if not text[i].isspace():
            axis.text(column + 0.5, line + 0.38, text[i].replace("$", r"\$"), **style)
    axis.set(xlim=(-0.5, columns + 0.5), ylim=(num_lines, 0))
    axis.axis("off")
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=color, alpha=0.25 if name == "other" else 0.75)
        for name, color in _CATEGORY_COLORS.items()
    ]
    labels = [n if n == "other" else f"{n[0].upper()}: {n}" for n in _CATEGORY_COLORS]
    fig.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="small")
    return fig


def _wrap(text: str, columns: int) -> list[tuple[int, int]]:
    """Line and column of every character, lines broken at white space."""
    places, line, column = [], 0, 0
    for i, character in enumerate(text):
        begins_word = i == 0 or text[i - 1].isspace()
        length = len(text[i:].split(maxsplit=1)[0]) if begins_word and text[i:].strip() else 0
        if column and column + length > columns:
            line, column = line + 1, 0
        places.append((line, column))
        column += 1
        if character == "\n":
            line, column = line + 1, 0
    return places


def plot_category_mass(table: pd.DataFrame) -> Figure:
    """Share of tokens and of probability mass per category (paper, Table 4).

    Args:
        table: Two scores, the global one first: ``score``, ``category``, ``count``, ``share``,
            ``low``, ``high``, ``paper`` (percent), ``ratio``, ``ratio_low``, ``ratio_high``.
    """
    categories = list(_CATEGORY_COLORS)
    colors = sns.color_palette("colorblind")
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 3.8), sharey=True, width_ratios=[3, 2]
    )
    places = np.arange(len(categories))
    counts = table.drop_duplicates("category").set_index("category").loc[categories, "count"]
    left.barh(places, counts, height=0.75, color="0.85", label="share of tokens")
    for shift, marker, color, (score, rows) in zip(
        (-0.16, 0.16), "os", (colors[0], colors[3]), table.groupby("score", sort=False), strict=True
    ):
        rows, name = rows.set_index("category").loc[categories], score_label(score)
        style = {"fmt": marker, "color": color, "ms": 6, "capsize": 2}
        left.errorbar(rows["share"], places + shift, xerr=errors(rows), label=name, **style)
        label = f"paper, {name.partition(',')[0]}"
        hollow = {"mfc": "none", "mec": color, "mew": 1.5, "ms": 8, "ls": ""}
        left.plot(rows["paper"], places + shift, marker, label=label, **hollow)
        ratio_errors = errors(rows, "ratio", "ratio_")
        right.errorbar(rows["ratio"], places + shift, xerr=ratio_errors, **style)
    left.set(xlabel="share of probability mass (%)", xlim=(0, None))
    left.set_yticks(places, categories)
    left.invert_yaxis()
    right.axvline(1, color="0.5", lw=1, ls="--")
    right.set(xlabel="mean probability / that of all tokens")
    _legend_above(fig, left, 5)
    return fig


def plot_low_tokens(table: pd.DataFrame, shifts: pd.DataFrame) -> Figure:
    """Categories of the least probable tokens, global and local (paper, Fig. 4).

    Args:
        table: As for `plot_category_mass`, without ``paper``; shares of the low tokens.
        shifts: ``category``, ``shift``, ``low``, ``high``: local minus global, points.
    """
    categories = list(_CATEGORY_COLORS)
    colors = sns.color_palette("colorblind")
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 3.6), sharey=True, width_ratios=[3, 2]
    )
    places = np.arange(len(categories))
    scores = table.groupby("score", sort=False)
    for shift, color, hatch, (score, rows) in zip(
        (-0.19, 0.19), (colors[0], colors[3]), ("", "//"), scores, strict=True
    ):
        rows = rows.set_index("category").loc[categories]
        style = {"height": 0.36, "color": color, "hatch": hatch, "edgecolor": "white"}
        bars = {"xerr": errors(rows), "ecolor": "0.2", "capsize": 2}
        left.barh(places + shift, rows["share"], label=score_label(score), **style, **bars)
    counts = table.drop_duplicates("category").set_index("category").loc[categories, "count"]
    ends = (places - 0.38, places + 0.38)
    left.vlines(counts, *ends, color="black", lw=2.5, label="share of all tokens")
    left.set(xlabel="share of the least probable tenth (%)")
    left.set_yticks(places, categories)
    left.invert_yaxis()
    rows = shifts.set_index("category").loc[categories]
    right.errorbar(rows["shift"], places, xerr=errors(rows, "shift"), fmt="ko", ms=6, capsize=3)
    right.axvline(0, color="0.5", lw=1, ls="--")
    right.set(xlabel="local minus global (points)")
    _legend_above(fig, left, 3)
    return fig


def plot_category_shifts(mass: pd.DataFrame, low: pd.DataFrame, window: str) -> Figure:
    """What categories gain from global to local: over windows, and per teacher at one window.

    Args:
        mass: Shifts of the probability mass (points): ``teacher`` (with ``all``), ``window``,
            ``category``, ``shift``, ``low``, ``high``.
        low: The same among the least probable tokens.
        window: The window of the right-hand panels.
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
    _legend_above(fig, axes[0, 0], 4)
    return fig


def _legend_above(fig: Figure, axis: Axes, num_columns: int) -> None:
    handles = axis.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=num_columns, fontsize="small")


def _draw_shifts(axis: Axes, table: pd.DataFrame, column: str, names: list[str], line: str) -> None:
    for number, (category, color) in enumerate(_CATEGORY_COLORS.items()):
        rows = table[table["category"] == category].set_index(column).loc[names]
        places = np.arange(len(names)) + 0.14 * (number - 1.5)
        style = {"color": color, "marker": _CATEGORY_MARKERS[category], "ms": 6, "capsize": 2}
        axis.errorbar(
            places, rows["shift"], yerr=errors(rows, "shift"), ls=line, label=category, **style
        )
    axis.axhline(0, color="0.5", lw=1, ls="--", zorder=0)
    axis.set_xticks(range(len(names)), ["\n".join(name.rsplit(" ", 1)) for name in names])
