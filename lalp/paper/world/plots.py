"""Figures of step world: one per claim, with intervals over seeds.

The arguments are tables of `lalp.paper.world.measure`, and a description of their run, which is
shown above the figure.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lalp.paper.conditioning.plots import MARKERS
from lalp.paper.figures import (
    FULL_WIDTH,
    SCORE_COLORS,
    legend_above,
    score_label,
    spread,
    teacher_colors,
)
from lalp.paper.show import in_words
from lalp.paper.tables import TABLES
from lalp.paper.world.problems import WORLD, Problem, Trace
from lalp.paper.world.settings import BEFORE, CONTROL
from lalp.scoring.columns import GALP, lalp_column

_THIRDS = ["lowest", "middle", "highest"]
# For a line at 0: above the grid, below the markers.
_ZERO = {"color": "0.35", "lw": 1.2, "ls": "--", "zorder": 1.5}


# --- what all figures share ------------------------------------------------------------------


def _draw(
    axis: Axes, rows: pd.DataFrame, x: Any, y: Any, spread: str, *,
    color: Any, label: str | None = None, line: bool = False, **style: Any,
) -> None:  # fmt: skip
    """Markers with their intervals, joined by a ``line`` if wanted.

    ``spread`` is ``x`` or ``y``, the direction of the intervals ``low`` to ``high`` of the rows, or
    ``band``, which shades the area between them.
    """
    if spread == "band":
        axis.fill_between(x, rows["low"], rows["high"], color=color, alpha=0.2, lw=0)
    else:
        draw, places = (axis.hlines, y) if spread == "x" else (axis.vlines, x)
        draw(places, rows["low"], rows["high"], color=color, lw=2)
    style = {"ls": "-" if line else "", "ms": 6} | style
    axis.plot(x, y, **style, color=color, zorder=3, label=label)


def _draw_rows(
    axis: Axes, table: pd.DataFrame, key: str, column: str, names: Sequence[str] | None = None
) -> None:
    """A row for each name in a column, from top to bottom, with a line at 0."""
    names = list(table[key].unique()) if names is None else names
    y = [names.index(name) for name in table[key]]
    _draw(axis, table, table[column], y, "x", color="0.2", marker="o")
    _label_rows(axis, [name.replace(" minus ", "\nminus ") for name in names])
    axis.axvline(0, **_ZERO)


def _label_rows(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_yticks(range(len(labels)), labels, fontsize="small")
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def _mark_paper(axis: Axes, values: Sequence[float], places: Sequence[float]) -> None:
    """The paper's numbers: hollow marks."""
    axis.plot(values, places, "D", mfc="none", mec="0.2", mew=1.4, ms=7, label="paper (hollow)")


def _legend(fig: Figure, axis: Axes, run: str, *, ncols: int = 4) -> None:
    """Legend of an axis above the figure, with the name of its run."""
    handles, labels = axis.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    fig.legend(
        list(named.values()), list(named), loc="outside upper center", ncols=ncols,
        fontsize="small", title=run, title_fontsize="small",
    )  # fmt: skip


def _title(fig: Figure, run: str) -> None:
    """The name of a figure's run above it, for figures whose names are beside their marks."""
    style = {"title_fontsize": "small", "frameon": False, "borderpad": 0}
    fig.legend([], [], loc="outside upper center", title=run, **style)


def _label_points(axis: Axes, points: pd.DataFrame, x: str, y: str, styles: Mapping) -> None:
    """The name of each point (its index) in a margin beside the points, with a thin line to it.

    Points with ``x`` below the median have their names on the left.
    """
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    axis.set_xlim(low - 0.6 * (high - low), high + 0.45 * (high - low))
    axis.set_xticks(ticks)
    bottom, top = axis.get_ylim()
    is_left = points[x] < points[x].median()
    for rows, place, side in ((points[is_left], 0.285, "right"), (points[~is_left], 0.79, "left")):
        heights = spread(rows[y], 0.065 * (top - bottom))
        for (name, row), height in zip(rows.iterrows(), heights, strict=True):
            axis.annotate(
                in_words(name), (row[x], row[y]), (place, height), fontsize="small", ha=side,
                va="center", textcoords=axis.get_yaxis_transform(), color=styles[name]["color"],
                arrowprops={"arrowstyle": "-", "color": styles[name]["color"], "lw": 0.7},
            )  # fmt: skip


def _styles(colors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Color and marker by name."""
    markers = zip(colors.items(), cycle(MARKERS), strict=False)
    return {name: {"color": color, "marker": marker} for (name, color), marker in markers}


def _draw_points(
    axis: Axes, table: pd.DataFrame, key: str, column: str, styles: Mapping[str, Any],
    lw: float | None = None,
) -> None:  # fmt: skip
    """Accuracy against a score or a loss, with both intervals (`measure.beside_accuracy`)."""
    ends = [f"{column.removeprefix('last_')}_{end}" for end in ("low", "high")]
    for name, own in table.groupby(key, sort=False):
        style, accuracy = styles[name], own["accuracy"]
        axis.hlines(accuracy, *(own[end] for end in ends), color=style["color"], lw=lw)
        _draw(axis, own, own[column], accuracy, "y", label=name, **style)


# --- the world itself ------------------------------------------------------------------------

# Sentences by function, with their colours.
_KINDS = {
    "move": ("a move", "0.1"),
    "list": ("values restated", "#0b5394"),
    "check": ("a move checked again", "#38761d"),
    "filler": ("no content", "0.55"),
}
_LINE, _BETWEEN = 1.0, 0.55  # Heights of a line of text, and of the space between two steps
_CHARACTERS = 30  # In a line


def plot_world_drawing(
    problem: Problem, traces: Mapping[str, Trace], picks: pd.DataFrame, run: str
) -> Figure:
    """One problem, each teacher's solution to it, and GALP's and LALP's choices of all solutions.

    ``traces`` are keyed by teacher, and ``picks`` are `teacher_picks` of the run.
    """
    columns = {name: _trace_lines(trace) for name, trace in traces.items()}
    tallest = max(lines[-1][0] for lines in columns.values()) + 1
    fig, axes = plt.subplots(
        2, len(columns), figsize=(FULL_WIDTH, 0.152 * tallest + 2.3), sharex="row", sharey="row",
        height_ratios=[0.152 * tallest, 1.15], squeeze=False,
    )  # fmt: skip
    colors = teacher_colors(columns)
    for (text, bars), (name, lines) in zip(axes.T, columns.items(), strict=True):
        text.set_title(name, fontsize="medium", weight="bold", color=colors[name], loc="left")
        text.set(xlim=(0, 1), ylim=(tallest, -0.6))
        text.axis("off")
        for height, words, kind, number in lines:
            style = {"fontsize": 8, "va": "center", "color": _KINDS[kind][1]}
            text.text(0.09, height, words, **style)
            if number:
                text.text(0, height, number, **style | {"color": colors[name], "weight": "bold"})
        own = picks.set_index("teacher").loc[name]
        labels = {"galp": "GALP chooses", "lalp": "LALP chooses", "accuracy": "its student\nsolves"}
        values = [own[key] for key in labels]
        bars.barh(range(3), values, color=[colors[name]] * 2 + ["0.6"], height=0.7)
        for height, value in enumerate(values):
            bars.text(value + 0.04, height, f"{value:.0%}", fontsize="small", va="center")
        bars.set(xlim=(0, 1.3), ylim=(2.6, -0.6), xticks=[])
        bars.set_yticks(range(3), labels.values(), fontsize="small")
        bars.tick_params(labelleft=bars is axes[1, 0])
        bars.grid(visible=False)
        sns.despine(ax=bars, bottom=True)
    handles = [plt.Line2D([], [], lw=5, color=color) for _, color in _KINDS.values()]
    fig.legend(
        handles, [words for words, _ in _KINDS.values()], loc="outside lower center", ncols=4,
        fontsize="small", frameon=False, title=f"Shares: {run}", title_fontsize="small",
    )  # fmt: skip
    fig.suptitle(f"{problem.prompt}   answer {problem.answer}", fontsize="medium", weight="bold")
    return fig


def _trace_lines(trace: Trace) -> list[tuple[float, str, str, str]]:
    """Every line of a solution with its height, its kind, and the number where a step begins."""
    found, height = [], 0.0
    for number, (start, end) in enumerate(trace.spans, 1):
        begins = str(number)
        for sentence in re.findall(r"\S[^.]*\.", trace.text[start:end]):
            # A comma is a word of this world and never begins a line.
            for line in textwrap.wrap(sentence.replace(" ,", "\N{NO-BREAK SPACE},"), _CHARACTERS):
                found.append((height, line, _sentence_kind(sentence), begins))
                height, begins = height + _LINE, ""
        height += _BETWEEN
    return found


def _sentence_kind(sentence: str) -> str:
    if sentence in WORLD["fillers"]:
        return "filler"
    return {"so": "list", "check": "check"}.get(sentence.split()[0], "move")


# --- claims ----------------------------------------------------------------------------------


def plot_world_thirds(accuracy: pd.DataFrame, differences: pd.DataFrame, run: str) -> Figure:
    """Accuracy by ``third`` of a ``teacher``, and `third_differences` (Table 1)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8))
    teachers = accuracy["teacher"].unique()
    styles = _styles(teacher_colors(teachers))
    for place, teacher in enumerate(teachers):
        own = accuracy[accuracy["teacher"] == teacher].set_index("third").reindex(_THIRDS)
        x = np.arange(3) + 0.12 * (place - (len(teachers) - 1) / 2)
        _draw(left, own, x, own["accuracy"], "y", line=True, lw=1, label=teacher, **styles[teacher])
    left.set_xticks(range(3), _THIRDS)
    left.set(xlabel="third by GALP", ylabel="accuracy", ylim=(0, None))
    # The paper has other teachers: each gets a row below.
    paper = TABLES["1"].frame.droplevel("student")
    gains = paper["highest"] - paper["lowest"]
    rows = list(differences["teacher"].unique())
    _draw_rows(right, differences, "teacher", "difference", [*rows, *gains.index])
    _mark_paper(right, gains, range(len(rows), len(rows) + len(gains)))
    right.set_xlabel("accuracy, highest minus lowest third")
    _legend(fig, left, run, ncols=5)
    return fig


def plot_world_teachers(points: pd.DataFrame, ranking: pd.DataFrame, run: str) -> Figure:
    """Mean scores `beside_accuracy` by teacher, and `ranking_means` (Fig. 1, Table 2)."""
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 3.9), width_ratios=[1, 1, 1.05])
    styles = _styles(teacher_colors(points["teacher"].unique()))
    true = points[points["split"] == "true"]
    for axis, score in zip(axes, (GALP, lalp_column(1)), strict=False):
        _draw_points(axis, true[true["score"] == score], "teacher", "mean", styles)
        axis.set(xlabel=f"mean {score_label(score)}\n(nats per token)", ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel("accuracy of its student")
    axes[1].sharey(axes[0])
    axes[1].tick_params(labelleft=False)
    labels = ranking["score"].map(score_label)
    # All others are on true steps.
    labels += (", " + ranking["split"]).where(ranking["split"] != "true", "")
    _draw_rows(axes[2], ranking.assign(label=labels), "label", "tau")
    axes[2].set(xlabel="Kendall tau with accuracy", xlim=(-1.08, 1.08))
    _legend(fig, axes[0], run, ncols=5)
    return fig


def plot_world_rules(accuracy: pd.DataFrame, differences: pd.DataFrame, run: str) -> Figure:
    """Accuracy of the rules and of their controls, and `arm_differences` to these (Table 3)."""
    names = [name for name in accuracy["arm"].unique() if not name.startswith(CONTROL)]
    first = [name for name in (BEFORE, "random") if name in names]
    order = [*first, *(name for name in names if name not in first)]
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 0.42 * len(order) + 1.9), sharey=True
    )
    blue, orange = sns.color_palette("colorblind")[:2]
    panels = ((left, accuracy, "accuracy", "arm"), (right, differences, "difference", "against"))
    for axis, table, column, key in panels:
        control = table[key].str.startswith(CONTROL)
        # Differences to GALP are not drawn.
        plain = ~control if key == "arm" else table[key] == "random"
        for label, own, color, marker, shift in (
            ("chosen by the rule", table[plain], blue, "o", -0.13),
            ("random, same teacher mix", table[control], orange, "s", 0.17),
        ):
            y = [order.index(name.removeprefix(CONTROL)) + shift for name in own["arm"]]
            _draw(axis, own, own[column], y, "x", color=color, marker=marker, label=label)
    for _, table in TABLES["3"].frame["AVG"].groupby("student"):
        gains = table.droplevel("student") - table.droplevel("student")["random"]
        own = gains[gains.index.isin(order) & (gains.index != "random")]
        _mark_paper(right, own, [order.index(name) for name in own.index])
    left.set(xlabel="accuracy", xlim=(0, None))
    right.axvline(0, **_ZERO)
    right.set_xlabel(
        "accuracy minus that of\nrandom (circle), of its control (square)\n"
        "hollow: the paper's two students, minus random"
    )
    _label_rows(left, [in_words(name) for name in order])
    right.grid(axis="y", visible=False)
    _legend(fig, left, run)
    return fig


def plot_world_windows(taus: pd.DataFrame, accuracy: pd.DataFrame, run: str) -> Figure:
    """Mean ``tau`` and accuracy by ``window`` of LALP, and of GALP (Fig. 3, Fig. 9)."""
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.7))
    for axis, table, column in ((axes[0], taus, "tau"), (axes[1], accuracy, "accuracy")):
        # Numbers by size, then the full prefix.
        sizes = {w: np.inf if w == "all" else float(w) for w in set(table["window"]) - {GALP}}
        windows = sorted(sizes, key=sizes.get)
        places = {window: i for i, window in enumerate([*windows, GALP])}
        rows = table.assign(place=table["window"].map(places))
        for name, marker in (("LALP", "o"), ("GALP", "s")):
            color = SCORE_COLORS[name.lower()]
            own = rows[(rows["window"] == GALP) == (name == "GALP")].sort_values("place")
            _draw(axis, own, own["place"], own[column], "y", line=True, label=name, color=color,
                  marker=marker)  # fmt: skip
        labels = ["full\nprefix" if w == "all" else w for w in windows]
        axis.set_xticks(range(len(places)), [*labels, "GALP"])
        axis.grid(axis="x", visible=False)
        axis.set_xlabel("window of LALP (true steps)")
    axes[0].set(ylabel="Kendall tau of teachers' order\nwith accuracy", ylim=(-1.05, 1.05))
    axes[0].axhline(0, **_ZERO)
    axes[1].set(ylabel="accuracy of the student\ntrained on the selection", ylim=(0, None))
    _legend(fig, axes[1], run)
    return fig


def plot_world_gaps(curves: pd.DataFrame, trends: pd.DataFrame, run: str) -> Figure:
    """Mean ``gap`` by ``teacher`` and ``bin`` against position, and `gap_trends` (Fig. 5)."""
    fig, axes = plt.subplots(1, 4, figsize=(FULL_WIDTH, 3.9), width_ratios=[1.9, 1, 1, 1])
    styles = _styles(teacher_colors(curves["teacher"].unique()))
    for teacher, own in curves.groupby("teacher", sort=True):
        _draw(axes[0], own, 10 * own["bin"] + 5, own["gap"], "band", line=True, lw=1.5, ms=5,
              label=teacher, **styles[teacher])  # fmt: skip
    axes[0].axhline(0, **_ZERO)
    axes[0].set(
        xlabel="position in the solution (%)", ylabel="gap: global - local\n(nats per token)"
    )
    titles = {
        "rise": "last tenth\nminus first",
        "rise_before_end": "ninth tenth\nminus first",
        "late_slope_before_end": "slope from\n50 to 90 %",
    }
    names = list(trends["teacher"].unique())
    for axis, (measure, title) in zip(axes[1:], titles.items(), strict=True):
        _draw_rows(axis, trends[trends["measure"] == measure], "teacher", "value", names)
        axis.set_title(title, fontsize="medium")
        axis.locator_params(axis="x", nbins=3)
        axis.set_xlabel("nats per token")
    for axis in axes[2:]:
        axis.tick_params(labelleft=False)
    _legend(fig, axes[0], run)
    return fig


def plot_world_losses(points: pd.DataFrame, differences: pd.DataFrame, run: str) -> Figure:
    """Losses `beside_accuracy` by rule, and differences to GALP by ``measure`` (Fig. 6)."""
    fig, (left, *right) = plt.subplots(1, 3, figsize=(FULL_WIDTH, 4.3), width_ratios=[3, 1, 1])
    points = points[~points["arm"].str.startswith(CONTROL)]
    names = list(points["arm"].unique())
    dark = sns.husl_palette(len(names), l=0.5)
    colors = {name: SCORE_COLORS.get(name, c) for name, c in zip(names, dark, strict=True)}
    styles = _styles(colors)
    _draw_points(left, points, "arm", "last_loss", styles, lw=1)
    left.set(xlabel="training loss at the end\n(nats per token)", ylabel="accuracy", ylim=(0, None))
    _label_points(left, points.set_index("arm"), "last_loss", "accuracy", styles)
    arm, against = (differences[name].map(in_words) for name in ("arm", "against"))
    table = differences.assign(label=arm + " minus " + against)
    labels = list(table["label"].unique())
    for axis, measure in zip(right, table["measure"].unique(), strict=True):
        _draw_rows(axis, table[table["measure"] == measure], "label", "difference", labels)
        axis.set_xlabel(measure)
        axis.locator_params(axis="x", nbins=2)
    right[1].tick_params(labelleft=False)
    _title(fig, run)
    return fig


def plot_world_copying(points: pd.DataFrame) -> Figure:
    """`copying_table`: gains and losses of GALP's selection as students copy better."""
    labels = {
        "share": "share of restating teachers'\nresponses, GALP minus LALP",
        "accuracy": "accuracy,\nGALP minus LALP",
    }
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.9))
    palette = sns.color_palette("colorblind")
    colors = dict(zip(points["family"].unique(), palette, strict=False))
    levels = sorted(points["copying"].unique())
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for (family, copying), own in points.groupby(["family", "copying"], sort=False):
            axis.plot(own["copying_far"], own[column], ls="", color=colors[family],
                      marker=MARKERS[levels.index(copying)],
                      label=f"{family}, repetitive {copying:g}")  # fmt: skip
        axis.axhline(0, **_ZERO)
        axis.set(xlabel="probability of restated values\nbefore fine-tuning", ylabel=label)
    legend_above(fig, axes[0], 2)
    return fig


def plot_world_map(table: pd.DataFrame) -> Figure:
    """`map_differences`, LALP's selection minus GALP's; a star: the interval excludes 0."""
    kinds = list(table.groupby(["family", "copying"], sort=False).groups)
    splits = table["split"].unique()
    fig, axes = plt.subplots(
        len(splits), len(kinds), figsize=(FULL_WIDTH, 2.25 * len(splits) + 1), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    table = table.assign(value=100 * table["difference"])
    limit = max(float(table["value"].abs().max()), 1.0)
    stars = np.where((table["low"] > 0) | (table["high"] < 0), "*", "")
    table["text"] = [f"{round(v):+d}{star}" for v, star in zip(table["value"], stars, strict=True)]
    for line, split in zip(axes, splits, strict=True):
        for axis, (family, copying) in zip(line, kinds, strict=True):
            chosen = (table[["family", "copying", "split"]] == (family, copying, split)).all(axis=1)
            cells = table[chosen].pivot(index="scaffolding", columns="leap")
            sns.heatmap(
                cells["value"], annot=cells["text"].to_numpy(), fmt="", cmap="RdBu", vmin=-limit,
                vmax=limit, cbar=False, ax=axis, annot_kws={"fontsize": "small"}, linewidths=0.5,
            )  # fmt: skip
            axis.invert_yaxis()
            axis.set(xlabel="", ylabel="")
            if split == splits[0]:
                axis.set_title(f"{family},\nrepetitive {copying:g}", fontsize="medium")
        line[0].set_ylabel(split, weight="bold", fontsize="medium")
    fig.supxlabel("leaps: share of steps that take two moves", fontsize="medium")
    fig.supylabel("scaffolding (sentences a step)", fontsize="medium")
    bar = fig.colorbar(axes[0, 0].collections[0], ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("accuracy, LALP minus GALP (percentage points)")
    return fig
