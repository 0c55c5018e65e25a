"""Figures of notebook 01."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lalp.paper.conditioning.plots import LINES, MARKERS, PALETTE
from lalp.paper.figures import FULL_WIDTH, errors

PAPER_COSINES = {"responses": 0.760, "steps": 0.935}
"""Mean cosines to the nearest training text in the paper's Fig. 2."""


def plot_coverage(
    neighbors: dict[str, pd.DataFrame], problems: pd.DataFrame, *, sort_by: str
) -> Figure:
    """Nearest-neighbour cosines: their distribution, and problem by problem (paper, Fig. 2, 7, 8).

    ``neighbors`` has, for each label, one row per held-out text with ``cosine``; ``problems`` has
    mean cosines, a row per problem and a column per label.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.9))
    for place, (label, table) in enumerate(neighbors.items()):
        style = {"color": PALETTE[place], "ls": LINES[place]}
        shape = {"x": table["cosine"], "ax": left, "clip": (-1, 1)}
        sns.kdeplot(fill=True, alpha=0.15, lw=0, color=PALETTE[place], **shape)
        sns.kdeplot(lw=2, label=label, **style, **shape)
        left.axvline(table["cosine"].mean(), lw=1.2, **style)
    # With another embedder, levels differ; only their order can be compared.
    for label, cosine in PAPER_COSINES.items():
        left.axvline(cosine, color="0.35", lw=1, ls=":")
        style = {"rotation": 90, "ha": "left", "va": "top", "fontsize": "x-small", "color": "0.25"}
        left.text(cosine, 0.98, f"paper, {label}", transform=left.get_xaxis_transform(), **style)
    left.set(xlabel="cosine to the nearest training text", ylabel="density", xlim=(0, 1))
    left.set_title("(a) held-out texts; vertical lines: means", fontsize="medium")
    left.legend(fontsize="small")
    ordered = problems.sort_values(sort_by)
    for place, label in enumerate(ordered):
        style = {"color": PALETTE[place], "marker": MARKERS[place], "label": label}
        right.scatter(range(1, len(ordered) + 1), ordered[label], s=13, alpha=0.8, lw=0, **style)
    right.set(xlabel=f"problem, ordered by {sort_by}", ylabel="mean cosine", ylim=(0, 1))
    right.set_title("(b) problem by problem", fontsize="medium")
    right.legend(fontsize="small", loc="lower right", markerscale=1.8)
    return fig


def plot_nearness(curves: pd.DataFrame, equal: int) -> Figure:
    """Nearest-neighbour cosine against the number of candidates, from `nearness_curves`.

    Levels are compared at ``equal`` candidates.
    """
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 4.4))
    for place, (level, table) in enumerate(curves.groupby("level", sort=False)):
        x = table["candidates"].to_numpy()
        style = {"color": PALETTE[place], "marker": MARKERS[place], "ls": LINES[place]}
        axis.plot(x, table["mean"], ms=5, lw=1.8, label=level, **style)
        axis.fill_between(x, table["low"], table["high"], color=PALETTE[place], alpha=0.15, lw=0)
    axis.axvline(equal, color="0.35", lw=1.2, ls=":")
    at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right"}
    axis.annotate(f"equal numbers: {equal}", (equal, 0.03), (-5, 0), fontsize="small", **at)
    axis.set(
        xscale="log",
        xlabel="training texts to choose the nearest from (mean over all draws)",
        ylabel="cosine to the nearest one",
    )
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(fontsize="small")
    return fig


def plot_similarity_sweep(sweep: pd.DataFrame) -> Figure:
    """Differences between levels as similar training problems are left out.

    ``sweep`` comes from `similarity_sweep`: at an infinite ``limit`` nothing is left out.
    """
    limits = list(dict.fromkeys(sweep["limit"]))
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 4.2))
    labels = list(dict.fromkeys(sweep["label"]))
    for series, table in sweep.groupby(["label", "candidates"], sort=False):
        place, line = labels.index(series[0]), 0 if series[1].startswith("all") else 1
        # Side by side, because error bars at the same place could not be told apart.
        x = [limits.index(limit) + 0.05 * (place - line) for limit in table["limit"]]
        style = {"color": PALETTE[place], "marker": MARKERS[place], "ls": LINES[line]}
        bars = {"yerr": errors(table, "difference"), "capsize": 2, "label": ", ".join(series)}
        axis.errorbar(x, table["difference"], **bars, **style)
    axis.axhline(0, color="0.35", lw=1)
    names = ["any" if np.isinf(limit) else f"{limit:g} at most" for limit in limits]
    axis.set_xticks(range(len(limits)), names)
    axis.set(
        xlabel="cosine between the held-out problem and the problems of its candidates",
        ylabel="difference of mean cosines,\n95 % interval over prompts",
    )
    fig.legend(loc="outside upper center", ncols=2, fontsize="small")
    return fig


def plot_differences(table: pd.DataFrame, xlabel: str) -> Figure:
    """Differences of a `contrast_table`, a row each, with all and with equal candidates."""
    labels = list(dict.fromkeys(table["label"]))
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.55 * len(labels) + 1.5))
    for place, (candidates, rows) in enumerate(table.groupby("candidates", sort=False)):
        y = [labels.index(label) + 0.16 * (2 * place - 1) for label in rows["label"]]
        axis.hlines(y, rows["low"], rows["high"], color=PALETTE[place], lw=2)
        style = {"color": PALETTE[place], "marker": MARKERS[place], "label": candidates}
        axis.plot(rows["difference"], y, ls="", **style)
    axis.axvline(0, color="0.35", lw=1, ls="--")
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(xlabel)
    fig.legend(loc="outside upper center", ncols=2, fontsize="small")
    return fig
