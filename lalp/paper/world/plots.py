"""Figures of step world: one a claim, the committed longer run beside the live one.

Tables have a column ``run``. The first run in a table, the longer one, is drawn solid and with its
intervals over seeds. The other one has few seeds: its markers are hollow, its intervals would reach
over the whole axis and stand in the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lalp.paper.figures import FULL_WIDTH, teacher_colors
from lalp.scoring.columns import column_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MARKERS = "os^Dv*P"
_CONTROL = "random like "
_BEFORE = "before training"
_THIRDS = ("lowest", "middle", "highest")


# --- what all figures share ------------------------------------------------------------------


def _runs(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, bool]]:
    """Name and rows of each run, and whether it is drawn solid: the longest one, first."""
    for place, (name, rows) in enumerate(table.groupby("run", sort=False)):
        yield str(name), rows, place == 0


def _draw(
    axis: Axes, rows: pd.DataFrame, x: Any, y: Any, spread: str, solid: bool, **style: Any
) -> None:
    """Markers, and for the solid run their intervals.

    Args:
        axis: Where to.
        rows: Has ``low`` and ``high`` of the values that ``spread`` names.
        x: Horizontal places.
        y: Vertical places.
        spread: ``x`` or ``y``: along which the intervals lie.
        solid: Of the run.
        style: Colour and marker.
    """
    color = style.pop("color")
    if solid:
        draw = axis.hlines if spread == "x" else axis.vlines
        draw(y if spread == "x" else x, rows["low"], rows["high"], color=color, lw=2)
    face = color if solid else "white"
    axis.plot(x, y, **({"ls": "", "ms": 6} | style), color=color, mfc=face, mec=color, zorder=3)


def _run_legend(fig: Figure, table: pd.DataFrame, axis: Axes, *, ncols: int = 4) -> None:
    """Legend of an axis above the figure, and which markers are which run's."""
    handles, labels = axis.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    for name, rows, solid in _runs(table):
        face = "0.3" if solid else "white"
        (marker,) = axis.plot([], [], "o", color="0.3", mfc=face, mec="0.3")
        seeds = int(rows["num_seeds"].max()) if "num_seeds" in rows else 0
        named[f"{name} ({seeds} seeds)" if seeds else name] = marker
    fig.legend(
        list(named.values()), list(named), loc="outside upper center", ncols=ncols, fontsize="small"
    )


def _zero(axis: Axes, *, vertical: bool) -> None:
    (axis.axvline if vertical else axis.axhline)(0, color="0.35", lw=1.2, ls="--", zorder=1.5)


def _rows_of(axis: Axes, labels: Sequence[str], **style: Any) -> None:
    """Labelled rows from top to bottom."""
    axis.set_yticks(range(len(labels)), labels, **style)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    colors = teacher_colors(names)
    return {
        name: {"color": colors[name], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(sorted(names))
    }


def _names(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column]))


# --- claims ----------------------------------------------------------------------------------


def plot_world_thirds(accuracy: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Accuracy by third of one teacher's samples, and highest minus lowest (Table 1).

    Args:
        accuracy: ``run``, ``teacher``, ``third``, ``accuracy``, ``low``, ``high``.
        differences: ``run``, ``teacher``, ``difference``, ``low``, ``high``.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8))
    teachers = _names(accuracy, "teacher")
    styles = _styles(teachers)
    for _, rows, solid in _runs(accuracy):
        for place, teacher in enumerate(teachers):
            own = rows[rows["teacher"] == teacher].set_index("third").reindex(_THIRDS)
            x = np.arange(3) + 0.12 * (place - (len(teachers) - 1) / 2)
            label = teacher if solid else None
            line = {"ls": "-" if solid else ":", "lw": 1}
            _draw(left, own, x, own["accuracy"], "y", solid, **line, **styles[teacher], label=label)
    left.set_xticks(range(3), _THIRDS)
    left.set(xlabel="third by GALP", ylabel="accuracy", ylim=(0, None))
    names = _names(differences, "teacher")
    _draw_rows(right, differences, "teacher", names, "difference")
    _rows_of(right, names, fontsize="small")
    _zero(right, vertical=True)
    right.set_xlabel("accuracy, highest minus lowest third")
    _run_legend(fig, accuracy, left, ncols=5)
    return fig


def _draw_rows(
    axis: Axes, table: pd.DataFrame, key: str, names: Sequence[str], column: str, color: Any = "0.2"
) -> None:
    """A row per name; the second run a little lower."""
    for _, rows, solid in _runs(table):
        y = [names.index(name) + (0 if solid else 0.25) for name in rows[key]]
        _draw(axis, rows, rows[column], y, "x", solid, color=color, marker="o")


def plot_world_teachers(points: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """Teachers by mean score and by accuracy, and Kendall tau of the two (Fig. 1, Table 2).

    Args:
        points: ``run``, ``split``, ``score``, ``teacher``, ``mean``, ``mean_low``, ``mean_high``,
            ``accuracy``, ``low``, ``high``.
        ranking: ``run``, ``split``, ``score``, ``tau``, ``low``, ``high``, ``right``.
    """
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 3.9), width_ratios=[1, 1, 1.05])
    styles = _styles(_names(points, "teacher"))
    true = points[points["split"] == "true"]
    for axis, score in zip(axes, ("galp", "lalp@1"), strict=False):
        for _, rows, solid in _runs(true[true["score"] == score]):
            for row in rows.itertuples():
                own, style = rows.loc[[row.Index]], styles[row.teacher]
                if solid:
                    axis.hlines(row.accuracy, row.mean_low, row.mean_high, color=style["color"])
                label = row.teacher if solid else None
                _draw(axis, own, own["mean"], own["accuracy"], "y", solid, **style, label=label)
        axis.set(xlabel=f"mean {_score_label('true', score)}\n(nats per token)", ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel("accuracy of its student")
    axes[1].sharey(axes[0])
    axes[1].tick_params(labelleft=False)
    table = ranking.assign(label=[_score_label(*key) for key in ranking[["split", "score"]].values])
    names = _names(table, "label")
    _draw_rows(axes[2], table, "label", names, "tau")
    _rows_of(axes[2], names, fontsize="small")
    _zero(axes[2], vertical=True)
    axes[2].set(xlabel="Kendall tau with accuracy", xlim=(-1.08, 1.08))
    _run_legend(fig, points, axes[0], ncols=5)
    return fig


def _score_label(split: str, score: str) -> str:
    if score == "galp":
        return "GALP"
    window = column_window(score)
    where = "" if split == "true" else f", {split}"
    return "LALP, full prefix" + where if window == "all" else f"LALP, w = {window}{where}"


def plot_world_rules(accuracy: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Accuracy by selection rule, each with the control of its teacher mix (Table 3).

    Args:
        accuracy: ``run``, ``arm``, ``accuracy``, ``low``, ``high``; also of the untrained student.
        differences: ``run``, ``arm``, ``against``, ``difference``, ``low``, ``high``.
    """
    names = [name for name in _names(accuracy, "arm") if not name.startswith(_CONTROL)]
    rules = [name for name in names if name not in ("random", _BEFORE)]
    order = [*(name for name in (_BEFORE, "random") if name in names), *rules]
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 0.42 * len(order) + 1.9), sharey=True
    )
    blue, orange = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
    for _, rows, solid in _runs(accuracy):
        control = rows["arm"].str.startswith(_CONTROL)
        kinds = {"chosen by the rule": (rows[~control], blue, "o", -0.13)}
        kinds["random, same teacher mix"] = (rows[control], orange, "s", 0.17)
        for label, (own, color, marker, shift) in kinds.items():
            y = [order.index(name.removeprefix(_CONTROL)) + shift for name in own["arm"]]
            style = {"color": color, "marker": marker, "label": label if solid else None}
            _draw(left, own, own["accuracy"], y, "x", solid, **style)
    left.set(xlabel="accuracy", xlim=(0, None))
    against = {"random": ("random", blue, "o", -0.13)}
    against["control"] = ("random, same teacher mix", orange, "s", 0.17)
    for _, rows, solid in _runs(differences):
        controls = rows["against"].str.startswith(_CONTROL)
        for kind, (_, color, marker, shift) in against.items():
            own = rows[controls if kind == "control" else rows["against"] == "random"]
            y = [order.index(name) + shift for name in own["arm"]]
            _draw(right, own, own["difference"], y, "x", solid, color=color, marker=marker)
    _zero(right, vertical=True)
    right.set_xlabel("accuracy minus that of\nrandom (circle), of its control (square)")
    _rows_of(left, order, fontsize="small")
    right.grid(axis="y", visible=False)
    _run_legend(fig, accuracy, left)
    return fig


def plot_world_windows(taus: pd.DataFrame, accuracy: pd.DataFrame) -> Figure:
    """Kendall tau of the teachers' order, and accuracy, by window of LALP (Fig. 3, Fig. 9).

    Args:
        taus: ``run``, ``window`` (``galp`` for GALP), ``tau``, ``low``, ``high``.
        accuracy: The same with ``accuracy``.
    """
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.7))
    blue, orange = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
    panels = ((axes[0], taus, "tau"), (axes[1], accuracy, "accuracy"))
    for axis, table, column in panels:
        windows = sorted(set(table["window"]) - {"galp"}, key=_window_key)
        places = {window: i for i, window in enumerate([*windows, "galp"])}
        for _, rows, solid in _runs(table):
            rows = rows.iloc[[*np.argsort([places[w] for w in rows["window"]])]]
            for name, color, marker in (("LALP", blue, "o"), ("GALP", orange, "s")):
                own = rows[(rows["window"] == "galp") == (name == "GALP")]
                x = [places[window] for window in own["window"]]
                style = {"color": color, "marker": marker, "ls": "-" if solid else ":"}
                _draw(axis, own, x, own[column], "y", solid, **style,
                      label=name if solid else None)  # fmt: skip
        labels = ["full\nprefix" if w == "all" else w for w in windows]
        axis.set_xticks(range(len(places)), [*labels, "GALP"])
        axis.grid(axis="x", visible=False)
        axis.set_xlabel("window of LALP (true steps)")
    axes[0].set_ylabel("Kendall tau of teachers' order\nwith accuracy")
    axes[0].set_ylim(-1.05, 1.05)
    _zero(axes[0], vertical=False)
    axes[1].set(ylabel="accuracy of the student\ntrained on the selection", ylim=(0, None))
    _run_legend(fig, accuracy, axes[1])
    return fig


def _window_key(window: str) -> float:
    return np.inf if window == "all" else float(window)


def plot_world_gaps(curves: pd.DataFrame, trends: pd.DataFrame) -> Figure:
    """Self-conditioning gap against position, and how much it grows (Fig. 5).

    Args:
        curves: ``run``, ``teacher``, ``bin``, ``gap``, ``low``, ``high``, ``num_seeds``.
        trends: ``run``, ``teacher``, ``measure``, ``value``, ``low``, ``high``.
    """
    fig, axes = plt.subplots(1, 4, figsize=(FULL_WIDTH, 3.9), width_ratios=[1.9, 1, 1, 1])
    styles = _styles(_names(curves, "teacher"))
    for _, rows, solid in _runs(curves):
        for teacher, own in rows.groupby("teacher", sort=True):
            style = styles[teacher] | {"ls": "-" if solid else ":", "lw": 1.5, "ms": 5}
            label = teacher if solid else None
            x = 10 * own["bin"] + 5
            if solid:
                axes[0].fill_between(
                    x, own["low"], own["high"], color=style["color"], alpha=0.2, lw=0
                )
            face = style["color"] if solid else "white"
            axes[0].plot(x, own["gap"], **style, mfc=face, label=label)
    _zero(axes[0], vertical=False)
    axes[0].set(
        xlabel="position in the solution (%)", ylabel="gap: global - local\n(nats per token)"
    )
    titles = {
        "rise": "last tenth\nminus first",
        "rise_before_end": "ninth tenth\nminus first",
        "late_slope_before_end": "slope from\n50 to 90 %",
    }
    names = _names(trends, "teacher")
    for axis, (measure, title) in zip(axes[1:], titles.items(), strict=True):
        _draw_rows(axis, trends[trends["measure"] == measure], "teacher", names, "value")
        _rows_of(axis, names, fontsize="small")
        _zero(axis, vertical=True)
        axis.set_title(title, fontsize="medium")
        axis.locator_params(axis="x", nbins=3)
        axis.set_xlabel("nats per token")
    for axis in axes[2:]:
        axis.tick_params(labelleft=False)
    _run_legend(fig, curves, axes[0], ncols=3)
    return fig


def plot_world_losses(points: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Training loss at the end against accuracy by rule, and GALP minus others (Fig. 6).

    Args:
        points: ``run``, ``arm``, ``last_loss``, ``loss_low``, ``loss_high``, ``accuracy``, ``low``,
            ``high``, ``num_seeds``.
        differences: ``run``, ``arm``, ``against``, ``measure``, ``difference``, ``low``, ``high``.
    """
    fig, (left, *right) = plt.subplots(1, 3, figsize=(FULL_WIDTH, 4.3), width_ratios=[2, 1, 1])
    points = points[~points["arm"].str.startswith(_CONTROL)]
    names = _names(points, "arm")
    palette = sns.color_palette("husl", len(names))
    for _, rows, solid in _runs(points):
        for _, row in rows.iterrows():
            place = names.index(row["arm"])
            own, color = row.to_frame().T, palette[place]
            if solid:
                left.hlines(row["accuracy"], row["loss_low"], row["loss_high"], color=color, lw=1)
            marker = _MARKERS[place % len(_MARKERS)]
            label = row["arm"] if solid else None
            _draw(left, own, own["last_loss"], own["accuracy"], "y", solid, color=color,
                  marker=marker, label=label)  # fmt: skip
    left.set(xlabel="training loss at the end\n(nats per token)", ylabel="accuracy", ylim=(0, None))
    table = differences.assign(
        label=[f"{arm} minus {other}" for arm, other in differences[["arm", "against"]].values]
    )
    labels = _names(table, "label")
    for axis, measure in zip(right, _names(table, "measure"), strict=True):
        _draw_rows(axis, table[table["measure"] == measure], "label", labels, "difference")
        _rows_of(axis, [label.replace(" minus ", "\nminus ") for label in labels], fontsize="small")
        _zero(axis, vertical=True)
        axis.set_xlabel(measure)
        axis.locator_params(axis="x", nbins=3)
    right[1].tick_params(labelleft=False)
    _run_legend(fig, points, left, ncols=5)
    return fig


def plot_world_copying(points: pd.DataFrame) -> Figure:
    """How a student's copying goes with what GALP's selection has more of, and loses, than LALP's.

    Args:
        points: One row per student: ``family``, ``copying``, ``copying_far``,
            ``accuracy``, ``share`` (GALP minus LALP).
    """
    labels = {
        "share": "share of restating teachers'\nresponses, GALP minus LALP",
        "accuracy": "accuracy,\nGALP minus LALP",
    }
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.9))
    kinds = points[["family", "copying"]].drop_duplicates()
    colors = dict(zip(_names(points, "family"), sns.color_palette("colorblind"), strict=False))
    levels = sorted(points["copying"].unique())
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for family, copying in kinds.itertuples(index=False):
            own = points[(points["family"] == family) & (points["copying"] == copying)]
            axis.plot(own["copying_far"], own[column], ls="", color=colors[family],
                      marker=_MARKERS[levels.index(copying)],
                      label=f"{family}, repetitive {copying:g}")  # fmt: skip
        _zero(axis, vertical=False)
        axis.set(xlabel="probability of restated values\nbefore fine-tuning", ylabel=label)
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small"
    )
    return fig


def plot_world_map(table: pd.DataFrame) -> Figure:
    """Accuracy of LALP's selection minus GALP's over the map; a star: the interval excludes 0.

    Args:
        table: ``family``, ``copying``, ``leap``, ``scaffolding``, ``split``, ``difference``,
            ``low``, ``high``.
    """
    kinds = table[["family", "copying"]].drop_duplicates().itertuples(index=False)
    kinds, splits = list(kinds), _names(table, "split")
    fig, axes = plt.subplots(
        len(splits), len(kinds), figsize=(FULL_WIDTH, 2.25 * len(splits) + 1), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    limit = max(100 * float(table["difference"].abs().max()), 1.0)
    for place, (line, split) in enumerate(zip(axes, splits, strict=True)):
        for axis, (family, copying) in zip(line, kinds, strict=True):
            chosen = (table["family"] == family) & (table["copying"] == copying)
            _draw_cells(axis, table[chosen & (table["split"] == split)], limit)
            axis.set(xlabel="", ylabel="")
            if place == 0:
                axis.set_title(f"{family},\nrepetitive {copying:g}", fontsize="medium")
        line[0].set_ylabel(split, weight="bold", fontsize="medium")
    fig.supxlabel("leaps: share of steps that take two moves", fontsize="medium")
    fig.supylabel("scaffolding (sentences a step)", fontsize="medium")
    bar = fig.colorbar(axes[0, 0].collections[0], ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("accuracy, LALP minus GALP (percentage points)")
    return fig


def _draw_cells(axis: Axes, cells: pd.DataFrame, limit: float) -> None:
    values = 100 * cells.pivot(index="scaffolding", columns="leap", values="difference")
    clear = cells.assign(clear=(cells["low"] > 0) | (cells["high"] < 0))
    marks = clear.pivot(index="scaffolding", columns="leap", values="clear")
    texts = [
        [f"{round(value):+d}{'*' if mark else ''}" for value, mark in zip(*both, strict=True)]
        for both in zip(values.to_numpy(), marks.to_numpy(), strict=True)
    ]
    sns.heatmap(
        values, annot=np.array(texts), fmt="", cmap="RdBu", vmin=-limit, vmax=limit, cbar=False,
        ax=axis, annot_kws={"fontsize": "small"}, linewidths=0.5,
    )  # fmt: skip
    axis.invert_yaxis()
