"""One figure style, and saving a figure together with the numbers it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from lalp.assets import build_dir
from lalp.records import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Widths of a README column and of half of it, in inches.
FULL_WIDTH, HALF_WIDTH = 9.0, 5.5


def use_style() -> None:
    """Set the project's figure style: legible at README width, safe for colour-blind readers."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {"figure.dpi": 110, "savefig.dpi": 160, "figure.constrained_layout.use": True}
    )


def figures_dir(profile: str) -> Path:
    """Where a profile's figures go: the default one's are committed, others stay in ``build``."""
    return build_dir().parent / "figures" if profile == "cpu" else build_dir() / profile / "figures"


def save_figure(fig: Figure, name: str, data: pd.DataFrame, profile: str) -> Path:
    """Save ``name.png`` and the numbers it shows as ``name.csv``; returns the picture's path."""
    folder = figures_dir(profile)
    with atomic_path(folder / f"{name}.png") as temporary:
        fig.savefig(temporary, format="png", metadata={"Software": None})
    with atomic_path(folder / f"{name}.csv") as temporary:
        data.to_csv(temporary, index=False, float_format="%.6g")
    return folder / f"{name}.png"


def teacher_colors(teachers: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """One colour per teacher, the same in every figure: by order of name."""
    names = sorted(teachers)
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def plot_pool(frame: pd.DataFrame) -> Figure:
    """Responses, lengths and step counts per teacher.

    Args:
        frame: One row per response: ``teacher``, ``num_tokens``, ``num_steps``.
    """
    order = sorted(frame["teacher"].unique())
    colors = teacher_colors(order)
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 3.4))
    counts = frame["teacher"].value_counts().reindex(order)
    axes[0].barh(order, counts, color=[colors[t] for t in order])
    axes[0].bar_label(axes[0].containers[0], padding=3)
    axes[0].set(xlabel="correct responses", xlim=(0, counts.max() * 1.3))
    for axis, column, label in (
        (axes[1], "num_tokens", "tokens per response"),
        (axes[2], "num_steps", "steps per response"),
    ):
        sns.boxplot(
            frame,
            x=column,
            y="teacher",
            order=order,
            hue="teacher",
            palette=colors,
            legend=False,
            ax=axis,
            fliersize=2,
        )
        axis.set(xlabel=label, ylabel="")
        axis.tick_params(labelleft=False)
    for axis in axes:
        axis.invert_yaxis() if axis is axes[0] else None
    return fig


def plot_scores(frame: pd.DataFrame, column: str) -> Figure:
    """GALP against LALP per response, coloured by teacher."""
    colors = teacher_colors(frame["teacher"].unique())
    # JointGrid lays itself out, and says so if another layout is set.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.JointGrid(frame, x="galp", y=column, hue="teacher", palette=colors, height=5.5)
    grid.plot_joint(sns.scatterplot, s=22, alpha=0.8)
    grid.plot_marginals(sns.kdeplot, fill=True, alpha=0.15, common_norm=False)
    low = min(frame["galp"].min(), frame[column].min()) - 0.1
    high = max(frame["galp"].max(), frame[column].max()) + 0.1
    grid.ax_joint.plot([low, high], [low, high], color="0.5", lw=1, ls="--", zorder=0)
    grid.ax_joint.set(xlim=(low, high), ylim=(low, high))
    grid.ax_joint.locator_params(nbins=5)
    grid.set_axis_labels("GALP (nats per token)", f"LALP, window {column[5:]} (nats per token)")
    grid.ax_joint.legend(title="", fontsize="small")
    grid.figure.tight_layout()
    return grid.figure


def plot_teacher_means(rankings: dict[str, pd.DataFrame]) -> Figure:
    """Mean score and interval per teacher, a panel per score (paper, Fig. 1 and Table 2)."""
    teachers = sorted(next(iter(rankings.values()))["teacher"])
    colors = teacher_colors(teachers)
    fig, axes = plt.subplots(
        1, len(rankings), figsize=(FULL_WIDTH, 3.2), sharey=True, squeeze=False
    )
    for axis, (column, table) in zip(axes[0], rankings.items(), strict=True):
        table = table.set_index("teacher").loc[teachers]
        for place, (teacher, row) in enumerate(table.iterrows()):
            _draw_interval(axis, row, place, colors[teacher])
        axis.set_title(_score_label(column), fontsize="medium")
        axis.set_yticks(range(len(teachers)), teachers)
        axis.margins(y=0.2)
        low, high = axis.get_xlim()
        axis.set_xticks(sorted({round(low + share * (high - low), 1) for share in (0.25, 0.75)}))
    fig.supxlabel(
        "mean score (nats per token), 95 % interval over prompts; 1 = highest", fontsize="medium"
    )
    return fig


def _draw_interval(axis: Axes, row: pd.Series, place: int, color: tuple) -> None:
    axis.plot([row["low"], row["high"]], [place, place], color=color, lw=2)
    axis.plot(row["mean"], place, "o", color=color)
    axis.annotate(
        f"{row['rank']:.0f}",
        (row["mean"], place),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize="small",
    )


def _score_label(column: str) -> str:
    return "GALP" if column == "galp" else f"LALP, w = {column[5:]}"


def plot_window_sweep(means: pd.DataFrame) -> Figure:
    """Teacher means as the window grows from a few steps to the full prefix (paper, Fig. 3).

    Args:
        means: ``window`` (label, in order), ``teacher``, ``mean``, ``low``, ``high``, ``rank``.
    """
    colors = teacher_colors(means["teacher"].unique())
    labels = list(dict.fromkeys(means["window"]))
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.8))
    for shift, (teacher, table) in enumerate(means.groupby("teacher", sort=True)):
        places = [labels.index(window) for window in table["window"]]
        moved = [place + 0.06 * (shift - 1.5) for place in places]
        errors = [table["mean"] - table["low"], table["high"] - table["mean"]]
        left.errorbar(
            moved, table["mean"], yerr=errors, color=colors[teacher], marker="o", ms=4, capsize=2
        )
        right.plot(places, table["rank"], color=colors[teacher], marker="o", label=teacher, lw=2)
    left.set(ylabel="mean score (nats per token)")
    right.set(ylabel="rank (1 = highest)", yticks=sorted(means["rank"].unique().astype(int)))
    right.invert_yaxis()
    for axis in (left, right):
        axis.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        axis.set_xlabel("window (share of the preceding steps)")
    fig.legend(
        *right.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small"
    )
    return fig


def plot_prompts_enough(curves: dict[str, pd.DataFrame]) -> Figure:
    """Share of prompt subsets that give the full set's teacher order (paper, Sec. 7.1)."""
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 3.6))
    for (column, curve), marker in zip(curves.items(), "os^Dv", strict=False):
        (line,) = axis.plot(
            curve["num_prompts"], curve["order_share"], marker=marker, label=_score_label(column)
        )
        axis.fill_between(
            curve["num_prompts"],
            curve["order_low"],
            curve["order_high"],
            color=line.get_color(),
            alpha=0.2,
        )
    axis.axhline(0.95, color="0.5", lw=1, ls="--")
    axis.set(xlabel="prompts", ylabel="share of draws with the full order", ylim=(0, 1.03))
    axis.legend(fontsize="small")
    return fig


def plot_mixes(mixes: pd.DataFrame) -> Figure:
    """Composition of each selection by teacher (paper, Table 8).

    Args:
        mixes: Percent, one row per selection rule, one column per teacher.
    """
    colors = teacher_colors(mixes.columns)
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.5 * len(mixes) + 1.2))
    left = [0.0] * len(mixes)
    for teacher in mixes.columns:
        bars = axis.barh(
            mixes.index, mixes[teacher], left=left, color=colors[teacher], label=teacher
        )
        axis.bar_label(
            bars,
            [f"{v:.0f}" if v >= 4 else "" for v in mixes[teacher]],
            label_type="center",
            color="white",
            fontsize="small",
        )
        left = [a + b for a, b in zip(left, mixes[teacher], strict=True)]
    axis.invert_yaxis()
    axis.set(xlabel="responses chosen per teacher (%)", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside upper center", ncols=4, fontsize="small")
    return fig


def plot_correlations(pairs: pd.DataFrame, shares: pd.DataFrame) -> Figure:
    """Rank correlations between scores, and how often they choose the same response.

    Args:
        pairs: From `lalp.variants.within_prompt_correlations`.
        shares: Square table: share of prompts with the same choice.
    """
    names = list(shares.columns)
    taus = shares * float("nan")
    for row in pairs.itertuples():
        taus.loc[row.score, row.other] = taus.loc[row.other, row.score] = row.tau
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.4))
    options = {"annot": True, "cbar": False, "linewidths": 0.5, "annot_kws": {"size": "small"}}
    sns.heatmap(taus, ax=axes[0], fmt=".2f", cmap="vlag", vmin=-1, vmax=1, **options)
    axes[0].set_title("Kendall tau within prompts", fontsize="medium")
    unlike = shares.mask(taus.isna() & (shares == 1))
    sns.heatmap(100 * unlike, ax=axes[1], fmt=".0f", cmap="Blues", vmin=0, vmax=100, **options)
    axes[1].set_title("same response chosen (% of prompts)", fontsize="medium")
    labels = [_short_label(name) for name in names]
    for axis in axes:
        axis.set_xticklabels(labels, rotation=40, ha="right")
        axis.grid(visible=False)
    axes[0].set_yticklabels(labels, rotation=0)
    axes[1].set_yticklabels([])
    return fig


def plot_step_length(pairs: pd.DataFrame) -> Figure:
    """How each score goes with the length of steps among the candidates of a prompt.

    Args:
        pairs: ``score``, ``tau``, ``low``, ``high``.
    """
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 0.45 * len(pairs) + 1.1))
    places = range(len(pairs))
    axis.hlines(places, pairs["low"], pairs["high"], color="0.35", lw=2)
    axis.plot(pairs["tau"], places, "o", color="0.1")
    axis.axvline(0, color="0.5", lw=1, ls="--")
    axis.set_yticks(places, [_short_label(name) for name in pairs["score"]])
    axis.invert_yaxis()
    reach = 1.15 * max(pairs["low"].abs().max(), pairs["high"].abs().max())
    axis.set(xlabel="Kendall tau with tokens per step", xlim=(-reach, reach))
    return fig


def _short_label(column: str) -> str:
    name, _, window = column.partition("@")
    label = {"galp-tail": "GALP, tails", "lalp-tail": "LALP, tails", "rsr": "RSR (negated)"}.get(
        name, name.upper() if name in ("galp", "lalp") else name
    )
    return f"{label}, w = {window}" if window else label


# Marker, colour and label of each verdict; the label and the shape tell them apart without colour.
_VERDICT_MARKS = {
    "holds": ("o", "#0a6ba8", "holds"),
    "does not hold": ("X", "#b5450b", "does not hold"),
    "not resolved": ("D", "#7d6200", "not resolved"),
    "not testable at this scale": ("s", "#6a6a6a", "not testable"),
    "not run": ("_", "#6a6a6a", "not run"),
}
_CITED_AT_END = (
    r"^(?P<claim>.*?)(?:\s*\((?P<where>(?:Table|Fig|Sec|Eq|App|Prop|Theorem)[^()]*)\))?$"
)
_VERDICT_COLUMNS = {"section": 0.1, "mark": 1.85, "verdict": 2.0, "claim": 3.1, "where": 7.7}


def plot_verdicts(verdicts: pd.DataFrame, max_rows: int = 28) -> Figure:
    """Claims with their verdicts, grouped by section.

    Args:
        verdicts: ``section`` (in order), ``claim``, ``verdict``, ``where``.
        max_rows: Where there are more claims, each section shows as many of its first ones as
            there is room for, those that were tested before the others, and counts the rest.
    """
    counts = verdicts.groupby("section", sort=False).size()
    fits = [k for k in range(1, len(verdicts) + 1) if counts.clip(upper=k).sum() <= max_rows]
    most = max(fits, default=1)
    blocks = [_verdict_lines(b, most) for _, b in verdicts.groupby("section", sort=False)]
    height = 0.75 + sum(block["height"].sum() + 0.12 for block in blocks)
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, height))
    axis.set(xlim=(0, FULL_WIDTH), ylim=(height, 0))
    axis.set_axis_off()
    title = f"{len(verdicts)} claims: {_count_verdicts(verdicts)}"
    axis.text(0.1, 0.2, title, va="center", size=10, weight="bold")
    headings = {"section": "notebook", "where": "in the paper"}
    for column in ("section", "verdict", "claim", "where"):
        label = headings.get(column, column)
        axis.text(_VERDICT_COLUMNS[column], 0.48, label, va="center", size=8.5, color="0.4")
    top = 0.62
    for block in blocks:
        top = _draw_verdict_block(axis, block, top)
    axis.plot([0.1, FULL_WIDTH - 0.1], [top, top], color="0.8", lw=0.8)
    return fig


def _count_verdicts(verdicts: pd.DataFrame) -> str:
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"{mark[2]} {counts[v]}" for v, mark in _VERDICT_MARKS.items() if v in counts)


def _verdict_lines(block: pd.DataFrame, most: int) -> pd.DataFrame:
    """A section's first claims, their texts broken into lines, and their heights in inches."""
    untested = block["verdict"].isin(["not testable at this scale", "not run"])
    block = block.loc[untested.sort_values(kind="stable").index]
    shown, rest = block.iloc[:most], block.iloc[most:]
    # A claim that ends in "(Table 2, Fig. 1)" says so in the last column instead.
    cited = shown["claim"].str.extract(_CITED_AT_END)
    where = shown["where"].where(shown["where"] != "", cited["where"].fillna(""))
    more = f"and {len(rest)} more: {_count_verdicts(rest)}" if len(rest) else ""
    rows = shown.assign(
        claim=[_break_lines(claim, 4.4) for claim in cited["claim"]],
        where=[_break_lines(text, 1.1) for text in where],
        section=_break_lines(shown["section"].iloc[0], 1.6, "bold"),
        more=_break_lines(more, 1.6),
    )
    lines = rows[["claim", "where"]].map(lambda text: text.count("\n") + 1).max(axis=1)
    heights = 0.09 + 0.145 * lines
    # What stands beside the rows may need more lines than they have.
    beside = rows["section"].iloc[0].split("\n") + rows["more"].iloc[0].splitlines()
    heights.iloc[-1] += max(0.0, 0.06 + 0.145 * len(beside) - heights.sum())
    return rows.assign(height=heights)


def _break_lines(text: str, width: float, weight: str = "normal") -> str:
    """Break a text into lines of at most a width in inches, between words."""
    font = FontProperties(size=8.5, weight=weight)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        points, _, _ = text_to_path.get_text_width_height_descent(longer, font, ismath=False)
        # Points to inches, with room for the margin that shrinks the axes.
        if lines and points / 72 <= 0.98 * width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _draw_verdict_block(axis: Axes, block: pd.DataFrame, top: float) -> float:
    """Draw one section from ``top`` downwards, in inches; returns where the next one begins."""
    axis.plot([0.1, FULL_WIDTH - 0.1], [top, top], color="0.8", lw=0.8)
    top += 0.06
    section = block["section"].iloc[0]
    _draw_lines(axis, _VERDICT_COLUMNS["section"], top, section, weight="bold")
    below = top + 0.145 * (section.count("\n") + 1)
    _draw_lines(axis, _VERDICT_COLUMNS["section"], below, block["more"].iloc[0], color="0.4")
    for row in block.itertuples():
        marker, color, label = _VERDICT_MARKS[row.verdict]
        axis.scatter(_VERDICT_COLUMNS["mark"], top + 0.1, marker=marker, color=color, s=34)
        _draw_lines(axis, _VERDICT_COLUMNS["verdict"], top, label, color=color)
        _draw_lines(axis, _VERDICT_COLUMNS["claim"], top, row.claim)
        _draw_lines(axis, _VERDICT_COLUMNS["where"], top, row.where, color="0.4")
        top += row.height
    return top + 0.06


def _draw_lines(axis: Axes, left: float, top: float, text: str, **style: str) -> None:
    """Lines one below the other, on baselines that neighbouring texts share."""
    for number, line in enumerate(text.split("\n")):
        axis.text(left, top + 0.14 + 0.145 * number, line, va="baseline", size=8.5, **style)


# --- theory (07_theory) -------------------------------------------------------------------------

# One colour, marker and line style each: told apart without colour as well.
_ESTIMATES = {
    "direct": ("asked directly", "s", "--"),
    "scaffolded": ("chained, single steps", "o", "-"),
    "widest_hops": ("chained, hops of the window's width", "^", ":"),
}


def _draw_spread(axis: Axes, frame: pd.DataFrame, x: str, y: str, **style: object) -> None:
    """Median over chains as a line, 5 % to 95 % of the chains as a band."""
    spread = frame.groupby(x)[y].quantile([0.05, 0.5, 0.95]).unstack()
    (line,) = axis.plot(spread.index, spread[0.5], **style)
    axis.fill_between(
        spread.index, spread[0.05], spread[0.95], color=line.get_color(), alpha=0.18, lw=0
    )


def plot_learning_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """Distance of a learner of pairs from the closed form while it is trained (Theorem A.2).

    Args:
        curves: `lalp.analysis.theory.learning_curves` by panel title.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(FULL_WIDTH, 3.9), sharey=True, squeeze=False)
    styles = {"adjacent": "-", "never seen": "--"}
    for axis, (title, frame) in zip(axes[0], curves.items(), strict=True):
        for lam, color, marker in zip(
            sorted(frame["lam"].unique()), sns.color_palette("colorblind"), "osD^v", strict=False
        ):
            for pairs, line in styles.items():
                part = frame.query("lam == @lam and pairs == @pairs")
                style = {"color": color, "ls": line, "marker": marker, "ms": 4, "markevery": 4}
                style["markerfacecolor"] = color if pairs == "adjacent" else "white"
                label = f"λ = {lam:g}, {pairs}"
                _draw_spread(axis, part, "update", "error", label=label, **style)
        axis.set_xscale("symlog", linthresh=1)
        axis.set(yscale="log", ylim=(1e-4, 1), xlabel="gradient steps")
        axis.set_title(title, fontsize="medium")
    axes[0, 0].set_ylabel("total-variation distance\nto the closed form")
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        fontsize="small",
    )
    return fig


def plot_learned_weights(table: pd.DataFrame) -> Figure:
    """The data's share in what is learned against the share that Theorem A.2 gives.

    Args:
        table: `lalp.analysis.theory.learned_weights`.
    """
    fig, axis = plt.subplots(figsize=(HALF_WIDTH, 3.8))
    shown = table.sort_values("ratio")
    axis.plot(shown["ratio"], shown["closed"], color="0.3", lw=1.5, label="μ / (μ + λν)")
    colors = sns.color_palette("colorblind")
    for (distance, part), color, marker in zip(
        shown.groupby("distance"), colors, "osD^v*XP", strict=False
    ):
        style = {"marker": marker, "facecolors": "none", "edgecolors": color, "s": 36, "lw": 1.2}
        axis.scatter(part["ratio"], part["learned"], label=f"|j - i| = {distance}", **style)
    axis.set_xscale("log")
    axis.set(xlabel="μ / (λν), data over background", ylabel="learned share of the data")
    axis.legend(fontsize="small")
    return fig


def plot_gap_by_distance(gaps: dict[str, pd.DataFrame]) -> Figure:
    """Errors of direct and scaffolded estimates by distance; only adjacent pairs were seen.

    Args:
        gaps: `lalp.analysis.theory.reasoning_gap` at window 1, by panel title.
    """
    fig, axes = plt.subplots(1, len(gaps), figsize=(FULL_WIDTH, 3.9), sharey=True, squeeze=False)
    for axis, (title, frame) in zip(axes[0], gaps.items(), strict=True):
        lams = sorted(frame["lam"].unique())
        # From distance 2 on the direct estimate is u, whatever lambda.
        unseen = frame.query("distance > 1 and lam == @lams[0]")
        style = {"color": "0.25", "ls": "--", "marker": "s", "ms": 4}
        label = "asked directly (any λ > 0)"
        _draw_spread(axis, unseen, "distance", "direct", label=label, **style)
        for lam, color, marker in zip(lams, sns.color_palette("colorblind"), "oD^v", strict=False):
            style = {"color": color, "marker": marker, "ms": 4, "label": f"chained, λ = {lam:g}"}
            _draw_spread(axis, frame.query("lam == @lam"), "distance", "scaffolded", **style)
        axis.set(xlabel="distance |j - i| (steps)", xticks=sorted(frame["distance"].unique()))
        axis.set_title(title, fontsize="medium")
    # The panels share their limits, so these are set when all is drawn.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("total-variation distance\nto the true conditional")
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4, fontsize="small")
    return fig


def plot_gap_by_window(gaps: dict[str, pd.DataFrame]) -> Figure:
    """Errors of direct and scaffolded estimates by the window of training, three panels a row.

    Args:
        gaps: `lalp.analysis.theory.reasoning_gap` at one lambda, by panel title.
    """
    rows = -(-len(gaps) // 3)
    fig, axes = plt.subplots(
        rows, 3, figsize=(FULL_WIDTH, 0.9 + 2.5 * rows), sharex=True, sharey="row", squeeze=False
    )
    for axis, (title, frame) in zip(axes.flat, gaps.items(), strict=False):
        means = frame.groupby(["chain", "window"], as_index=False)[list(_ESTIMATES)].mean()
        for (name, (label, marker, line)), color in zip(
            _ESTIMATES.items(), ("0.25", *sns.color_palette("colorblind", 2)), strict=True
        ):
            style = {"color": color, "marker": marker, "ls": line, "ms": 4, "label": label}
            _draw_spread(axis, means, "window", name, **style)
        axis.set_title(title, fontsize="medium")
        axis.set_xticks(sorted(means["window"].unique()))
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)
    fig.supxlabel("window of the pairs seen in training (steps)", fontsize="medium")
    fig.supylabel("total-variation distance to the truth, all pairs", fontsize="medium")
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=3, fontsize="small")
    return fig


def plot_fluency_trap(instances: pd.DataFrame) -> Figure:
    """Where GALP prefers the wrong response, and A.3's boundary |L|/T = eps / (eps + Delta).

    Args:
        instances: `lalp.analysis.theory.check_fluency_trap`.
    """
    titles = {"equality": "premises met with equality", "slack": "premises met with slack"}
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.1), sharey=True)
    colors = sns.color_palette("colorblind")
    kinds = {True: ("x", colors[1], "wrong"), False: ("o", colors[0], "right")}
    ratios = np.geomspace(0.01, 100, 200)
    for axis, (premise, title) in zip(axes, titles.items(), strict=True):
        part = instances[instances["premise"] == premise]
        for wrong, (marker, color, which) in kinds.items():
            chosen = part[(part["margin"] > 0) == wrong]
            axis.scatter(
                chosen["num_logic"] / chosen["num_tokens"],
                chosen["delta"] / chosen["eps"],
                marker=marker,
                s=16,
                lw=1,
                color=color,
                label=f"GALP prefers the {which} response",
            )
        axis.plot(1 / (1 + ratios), ratios, color="black", lw=2.5, label="|L|/T = ε / (ε + Δ)")
        axis.set(yscale="log", ylim=(0.01, 100), xlabel="share of logic tokens |L|/T")
        axis.set_title(title, fontsize="medium")
    axes[0].set_ylabel("Δ / ε")
    handles = axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=3, fontsize="small", markerscale=1.5)
    return fig


def plot_fatal_step(boundaries: pd.DataFrame, dilution: pd.DataFrame) -> Figure:
    """GALP and LALP under one premise: who is right where, and whose margin is larger.

    Args:
        boundaries: `lalp.analysis.theory.margin_boundaries`.
        dilution: `lalp.analysis.theory.sample_dilution`.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.1))
    _draw_regions(left, boundaries)
    bins, colors = np.geomspace(0.05, 50, 60), sns.color_palette("colorblind")
    labels = {"any_token": "at any token", "any_step": "in any step"}
    for (column, label), color, line in zip(labels.items(), colors, ("-", "--"), strict=False):
        values = dilution[column]
        right.hist(values, bins=bins, histtype="step", lw=2, color=color, ls=line)
        label = f"one slip {label}: mean {values.mean():.2f}"
        right.axvline(values.mean(), ymax=0.7, color=color, ls=line, lw=1.5, label=label)
    expected = (dilution["num_tokens"] / dilution["num_steps"]).median()
    label = f"tokens per step, T / K: median {expected:.0f}"
    right.axvline(expected, ymax=0.7, color="0.25", ls=":", lw=2, label=label)
    right.set(xscale="log", xlabel="margin of LALP / margin of GALP", ylabel="responses")
    right.set_ylim(top=right.get_ylim()[1] * 1.4)
    right.legend(fontsize="small", loc="upper left")
    return fig


def _draw_regions(axis: Axes, boundaries: pd.DataFrame) -> None:
    colors = sns.color_palette("colorblind")
    x, galp, lalp = (boundaries[name] for name in ("relative_length", "galp", "lalp"))
    level = lalp.iloc[0]
    axis.fill_between(x, lalp, galp, where=galp > lalp, color=colors[0], alpha=0.45, lw=0)
    axis.fill_between(x, galp, lalp, where=galp < lalp, color=colors[1], alpha=0.45, lw=0)
    axis.fill_between(x, level / 12, np.minimum(galp, lalp), color="0.8", lw=0)
    axis.plot(x, galp, color="black", lw=2, ls="--", label="GALP is right above")
    axis.plot(x, lalp, color="black", lw=2, label="LALP is right above")
    for place, text in {
        (0.22, 2): "only LALP\nright",
        (4.5, 1 / 2): "only GALP\nright",
        (3, 4): "both right",
        (0.5, 1 / 4): "both wrong",
    }.items():
        axis.text(place[0], place[1] * level, text, ha="center", va="center", fontsize="small")
    axis.set(xscale="log", yscale="log", ylabel="Δ / ε", xlim=(x.min(), x.max()))
    axis.set(ylim=(level / 12, level * 12), xlabel="length of the fatal step / mean step length")
    axis.grid(visible=False)
    axis.legend(fontsize="small", loc="upper right")


# --- 02_token_attribution -------------------------------------------------------------------------

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
        rows, name = rows.set_index("category").loc[categories], _score_label(score)
        style = {"fmt": marker, "color": color, "ms": 6, "capsize": 2}
        left.errorbar(rows["share"], places + shift, xerr=_errors(rows), label=name, **style)
        label = f"paper, {name.partition(',')[0]}"
        hollow = {"mfc": "none", "mec": color, "mew": 1.5, "ms": 8, "ls": ""}
        left.plot(rows["paper"], places + shift, marker, label=label, **hollow)
        ratio_errors = _errors(rows, "ratio", "ratio_")
        right.errorbar(rows["ratio"], places + shift, xerr=ratio_errors, **style)
    left.set(xlabel="share of probability mass (%)", xlim=(0, None))
    left.set_yticks(places, categories)
    left.invert_yaxis()
    right.axvline(1, color="0.5", lw=1, ls="--")
    right.set(xlabel="mean probability / that of all tokens")
    fig.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize="small"
    )
    return fig


def _errors(rows: pd.DataFrame, column: str = "share", prefix: str = "") -> list[pd.Series]:
    """Lengths of error bars about a column; rounding never makes one negative."""
    low, high = rows[f"{prefix}low"], rows[f"{prefix}high"]
    return [(rows[column] - low).clip(lower=0), (high - rows[column]).clip(lower=0)]


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
        bars = {"xerr": _errors(rows), "ecolor": "0.2", "capsize": 2}
        left.barh(places + shift, rows["share"], label=_score_label(score), **style, **bars)
    counts = table.drop_duplicates("category").set_index("category").loc[categories, "count"]
    ends = (places - 0.38, places + 0.38)
    left.vlines(counts, *ends, color="black", lw=2.5, label="share of all tokens")
    left.set(xlabel="share of the least probable tenth (%)")
    left.set_yticks(places, categories)
    left.invert_yaxis()
    rows = shifts.set_index("category").loc[categories]
    right.errorbar(rows["shift"], places, xerr=_errors(rows, "shift"), fmt="ko", ms=6, capsize=3)
    right.axvline(0, color="0.5", lw=1, ls="--")
    right.set(xlabel="local minus global (points)")
    fig.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small"
    )
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
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        fontsize="small",
    )
    return fig


def _draw_shifts(axis: Axes, table: pd.DataFrame, column: str, names: list[str], line: str) -> None:
    for number, (category, color) in enumerate(_CATEGORY_COLORS.items()):
        rows = table[table["category"] == category].set_index(column).loc[names]
        places = np.arange(len(names)) + 0.14 * (number - 1.5)
        style = {"color": color, "marker": _CATEGORY_MARKERS[category], "ms": 6, "capsize": 2}
        axis.errorbar(
            places, rows["shift"], yerr=_errors(rows, "shift"), ls=line, label=category, **style
        )
    axis.axhline(0, color="0.5", lw=1, ls="--", zorder=0)
    axis.set_xticks(range(len(names)), ["\n".join(name.rsplit(" ", 1)) for name in names])


# --- self-conditioning ----------------------------------------------------------------------

_LINES = ("-", "--", "-.", ":")
_MARKERS = "os^Dv*P"


def plot_conditioning(curves: pd.DataFrame) -> Figure:
    """The gap, and the two log-probabilities behind it, against position (paper, Fig. 5).

    Args:
        curves: From `position_curves` by teacher.
    """
    teachers = [name for name in curves["teacher"].unique() if name != "all"]
    colors = teacher_colors(teachers)
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 4.2))
    for place, teacher in enumerate(teachers):
        own = curves[curves["teacher"] == teacher]
        style = {"color": colors[teacher], "marker": _MARKERS[place % len(_MARKERS)], "ms": 5}
        _draw_curve(left, own[own["quantity"] == "gap"], label=teacher, **style)
        for quantity, line in (("global", "--"), ("local", "-")):
            curve = own[own["quantity"] == quantity]
            right.plot(100 * curve["position"], curve["mean"], ls=line, lw=1.8, **style)
    left.axhline(0, color="0.5", lw=1)
    left.set(ylabel="gap: global - local (nats per token)", title="(a) gap")
    right.set(ylabel="log-probability (nats per token)", title="(b) global and local")
    for axis in (left, right):
        axis.set(xlabel="relative position in the response (%)", xlim=(0, 100))
    right.plot([], [], color="0.3", ls="--", label="global")
    right.plot([], [], color="0.3", label="local")
    right.legend(fontsize="small", loc="lower right")
    fig.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small"
    )
    return fig


def _draw_curve(axis: Axes, curve: pd.DataFrame, **style: Any) -> None:
    x = 100 * curve["position"]
    axis.plot(x, curve["mean"], lw=1.8, **style)
    axis.fill_between(x, curve["low"], curve["high"], color=style["color"], alpha=0.15, lw=0)


def plot_conditioning_controls(seen: pd.DataFrame, order: pd.DataFrame) -> Figure:
    """The gap by what stood before, how much text that is, and the gap of shuffled steps.

    Args:
        seen: From `position_curves` by ``pair_seen``, of tokens whose window drops something.
        order: From `position_curves` by ``order``.
    """
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 4.0))
    palette = sns.color_palette("colorblind")
    gaps = seen[seen["quantity"] == "gap"]
    totals = gaps[gaps["pair_seen"] == "all"].set_index("position")["num_tokens"]
    labels = [name for name in gaps["pair_seen"].unique() if name != "all"]
    for place, label in enumerate(labels):
        own = gaps[(gaps["pair_seen"] == label) & (gaps["num_tokens"] > 0)]
        style = {"color": palette[place], "marker": _MARKERS[place], "ms": 5, "ls": _LINES[place]}
        _draw_curve(axes[0], own, label=label, **style)
        share = 100 * own["num_tokens"] / totals.loc[own["position"]].to_numpy()
        axes[1].plot(100 * own["position"], share, lw=1.8, **style)
    for place, label in enumerate(name for name in order["order"].unique() if name != "all"):
        own = order[(order["order"] == label) & (order["quantity"] == "gap")]
        style = {"color": palette[4 + 3 * place], "marker": _MARKERS[3 + place], "ms": 5}
        _draw_curve(axes[2], own, label=label, ls=_LINES[place], **style)
    axes[0].set(ylabel="gap (nats per token)", title="(a) gap by where the\nword pair stood before")
    axes[1].set(ylabel="share of tokens (%)", title="(b) share of these tokens", ylim=(0, None))
    axes[2].set(ylabel="gap (nats per token)", title="(c) steps as written\nand shuffled")
    for axis in axes:
        axis.set(xlim=(0, 100))
        axis.title.set_size("medium")
    axes[2].legend(fontsize="small")
    fig.supxlabel("relative position in the response (%)", fontsize="medium")
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small"
    )
    return fig


def plot_occurrences(table: pd.DataFrame) -> Figure:
    """Log-probability of repeated numbers and phrases at each occurrence (paper, Sec. C.3).

    Args:
        table: ``kind``, ``occurrence``, ``series`` (one line each) and ``mean``, ``low``, ``high``
            in nats per token.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    fig, axes = plt.subplots(1, len(kinds), figsize=(FULL_WIDTH, 3.8), sharey=True, squeeze=False)
    palette = sns.color_palette("colorblind")
    for axis, kind in zip(axes[0], kinds, strict=True):
        labels = sorted(table.loc[table["kind"] == kind, "occurrence"].unique())
        for place, (name, own) in enumerate(
            table[table["kind"] == kind].groupby("series", sort=False)
        ):
            x = [labels.index(label) + 0.06 * (place - 1.5) for label in own["occurrence"]]
            errors = [own["mean"] - own["low"], own["high"] - own["mean"]]
            axis.errorbar(
                x,
                own["mean"],
                yerr=[error.fillna(0) for error in errors],
                color=palette[place],
                marker=_MARKERS[place],
                ls=_LINES[place],
                capsize=2,
                label=name,
            )
        axis.set(title=f"{kind}s", xlabel="occurrence in the response")
        axis.set_xticks(range(len(labels)), labels)
    axes[0][0].set_ylabel("log-probability (nats per token)")
    fig.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
        fontsize="small",
    )
    return fig


# --- coverage (01_coverage) ---------------------------------------------------------------------


def plot_coverage(
    neighbors: dict[str, pd.DataFrame], problems: pd.DataFrame, *, sort_by: str
) -> Figure:
    """Nearest-neighbour cosines: their distribution, and problem by problem (paper, Fig. 2, 7, 8).

    Args:
        neighbors: By label: one row per held-out text, with ``cosine``.
        problems: One row per problem, one column per label: mean cosine.
        sort_by: The column that orders the problems.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.9))
    palette = sns.color_palette("colorblind")
    for place, (label, table) in enumerate(neighbors.items()):
        style = {"color": palette[place], "ls": _LINES[place]}
        shape = {"x": table["cosine"], "ax": left, "clip": (-1, 1)}
        sns.kdeplot(fill=True, alpha=0.15, lw=0, color=palette[place], **shape)
        sns.kdeplot(lw=2, label=label, **style, **shape)
        left.axvline(table["cosine"].mean(), lw=1.2, **style)
    left.set(xlabel="cosine to the nearest training text", ylabel="density", xlim=(0, 1))
    left.set_title("(a) held-out texts; vertical lines: means", fontsize="medium")
    left.legend(fontsize="small")
    ordered = problems.sort_values(sort_by)
    for place, label in enumerate(ordered):
        style = {"color": palette[place], "marker": _MARKERS[place], "label": label}
        right.scatter(range(1, len(ordered) + 1), ordered[label], s=13, alpha=0.8, lw=0, **style)
    right.set(xlabel=f"problem, ordered by {sort_by}", ylabel="mean cosine", ylim=(0, 1))
    right.set_title("(b) problem by problem", fontsize="medium")
    right.legend(fontsize="small", loc="lower right", markerscale=1.8)
    return fig


def plot_nearness(curves: pd.DataFrame, equal: int) -> Figure:
    """Nearest-neighbour cosine against the number of candidates.

    Args:
        curves: ``level``, ``candidates``, ``mean``, ``low``, ``high``.
        equal: The number of candidates at which levels are compared.
    """
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 4.4))
    palette = sns.color_palette("colorblind")
    for place, (level, table) in enumerate(curves.groupby("level", sort=False)):
        x = table["candidates"].to_numpy()
        style = {"color": palette[place], "marker": _MARKERS[place], "ls": _LINES[place]}
        axis.plot(x, table["mean"], ms=5, lw=1.8, label=level, **style)
        axis.fill_between(x, table["low"], table["high"], color=palette[place], alpha=0.15, lw=0)
    axis.axvline(equal, color="0.35", lw=1.2, ls=":")
    axis.annotate(
        f"equal numbers: {equal}",
        (equal, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        fontsize="small",
    )
    axis.set(
        xscale="log",
        xlabel="training texts to choose the nearest from (mean over all draws)",
        ylabel="cosine to the nearest one",
    )
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(fontsize="small")
    return fig


def plot_similarity_sweep(sweep: pd.DataFrame) -> Figure:
    """Differences between levels as training problems like the held-out one are left out.

    Args:
        sweep: ``limit`` (infinite: nothing is left out), ``label``, ``candidates``,
            ``difference``, ``low``, ``high``.
    """
    limits = list(dict.fromkeys(sweep["limit"]))
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 4.2))
    palette = sns.color_palette("colorblind")
    labels = list(dict.fromkeys(sweep["label"]))
    for series, table in sweep.groupby(["label", "candidates"], sort=False):
        place, line = labels.index(series[0]), 0 if series[1].startswith("all") else 1
        shift = 0.05 * (place - line)
        axis.errorbar(
            [limits.index(limit) + shift for limit in table["limit"]],
            table["difference"],
            yerr=[table["difference"] - table["low"], table["high"] - table["difference"]],
            color=palette[place],
            marker=_MARKERS[place],
            ls=_LINES[line],
            capsize=2,
            label=", ".join(series),
        )
    axis.axhline(0, color="0.35", lw=1)
    names = ["any" if np.isinf(limit) else f"{limit:g} at most" for limit in limits]
    axis.set_xticks(range(len(limits)), names)
    axis.set(
        xlabel="cosine between the held-out problem and the problems of its candidates",
        ylabel="difference of mean cosines,\n95 % interval over prompts",
    )
    fig.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small"
    )
    return fig


def plot_differences(table: pd.DataFrame, xlabel: str) -> Figure:
    """Differences with their intervals, a row each, with all and with equal candidates.

    Args:
        table: ``label``, ``candidates``, ``difference``, ``low``, ``high``.
        xlabel: What the differences are.
    """
    labels = list(dict.fromkeys(table["label"]))
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, 0.55 * len(labels) + 1.5))
    palette = sns.color_palette("colorblind")
    for place, (candidates, rows) in enumerate(table.groupby("candidates", sort=False)):
        y = [labels.index(label) + 0.16 * (2 * place - 1) for label in rows["label"]]
        axis.hlines(y, rows["low"], rows["high"], color=palette[place], lw=2)
        style = {"color": palette[place], "marker": _MARKERS[place], "label": candidates}
        axis.plot(rows["difference"], y, ls="", **style)
    axis.axvline(0, color="0.35", lw=1, ls="--")
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(xlabel)
    fig.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small"
    )
    return fig


def plot_splitter_sensitivity(means: pd.DataFrame) -> Figure:
    """Teachers around their common mean under each step splitter, a panel per window (Sec. B.1).

    Args:
        means: ``window``, ``splitter``, ``prompts``, ``teacher``, ``mean``, ``low``, ``high``.
    """
    windows, splitters = (list(dict.fromkeys(means[name])) for name in ("window", "splitter"))
    teachers = sorted(means["teacher"].unique())
    colors = teacher_colors(teachers)
    fig, axes = plt.subplots(1, len(windows), figsize=(FULL_WIDTH, 3.9), squeeze=False, sharey=True)
    for axis, window in zip(axes[0], windows, strict=True):
        for place, teacher in enumerate(teachers):
            rows = means.query("window == @window and teacher == @teacher")
            rows = rows.set_index("splitter").loc[splitters]
            shift = 0.17 * (place - (len(teachers) - 1) / 2)
            x = [position + shift for position in range(len(splitters))]
            style = {"color": colors[teacher], "marker": _MARKERS[place % len(_MARKERS)]}
            errors = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
            axis.errorbar(x, rows["mean"], yerr=errors, ls="", ms=5, label=teacher, **style)
        axis.axhline(0, color="0.35", lw=1, ls="--")
        axis.set_xticks(range(len(splitters)), splitters, rotation=35, ha="right")
        axis.grid(axis="x", visible=False)
        num_prompts = means.query("window == @window")["prompts"].min()
        name = "full prefix" if window == "all" else f"w = {window}"
        axis.set_title(f"{name}; {num_prompts} prompts", fontsize="medium")
    axes[0, 0].set_ylabel("mean score minus that of all\nteachers (nats per token)")
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4, fontsize="small")
    return fig


def plot_training_loss(logs: dict[str, pd.DataFrame]) -> Figure:
    """Training loss by optimizer step, a panel per run, a line per rule (paper, Fig. 6).

    Args:
        logs: Title of each panel, and ``arm``, ``seed``, ``step``, ``loss``. Thin lines are single
            seeds, thick ones their mean.
    """
    fig, axes = plt.subplots(1, len(logs), figsize=(FULL_WIDTH, 3.7), squeeze=False)
    names = list(dict.fromkeys(name for log in logs.values() for name in log["arm"]))
    styles = _arm_styles(names)
    for axis, (title, log) in zip(axes[0], logs.items(), strict=True):
        for name, rows in log[log["loss"].notna()].groupby("arm", sort=False):
            by_seed = rows.pivot_table(index="step", columns="seed", values="loss")
            color = styles[name]["color"]
            axis.plot(by_seed.index, by_seed, color=color, lw=0.7, alpha=0.4)
            axis.plot(by_seed.index, by_seed.mean(axis=1), label=name, lw=2, ms=4, **styles[name])
        axis.set(xlabel="optimizer step", ylabel="")
        axis.set_title(title, fontsize="medium")
        axis.locator_params(axis="x", integer=True)
    axes[0, 0].set_ylabel("training loss\n(nats per response token)")
    handles = axes[0, -1].get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=len(names), fontsize="small")
    return fig


def _arm_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each arm, by its place."""
    palette = sns.color_palette("colorblind", max(len(names), 1))
    return {
        name: {"color": palette[i], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(names)
    }


def plot_arms(table: pd.DataFrame, xlabel: str, line: float | None = None) -> Figure:
    """One value with its interval per arm, a panel per measure, arms in blocks by comparison.

    Args:
        table: ``group``, ``arm``, ``measure``, ``value``, ``low``, ``high``.
        xlabel: What the values are.
        line: Where to draw a dashed line, for example at no change.
    """
    measures = list(dict.fromkeys(table["measure"]))
    places, labels, marks = _arm_rows(table)
    fig, axes = plt.subplots(
        1, len(measures), figsize=(FULL_WIDTH, 0.3 * max(places.values()) + 1.7), sharey=True,
        squeeze=False,
    )  # fmt: skip
    colors = dict(zip(labels, sns.color_palette("colorblind", len(labels)), strict=False))
    for axis, measure in zip(axes[0], measures, strict=True):
        for row in table[table["measure"] == measure].itertuples():
            y, color = places[row.group, row.arm], colors[row.group]
            axis.hlines(y, row.low, row.high, color=color, lw=2)
            axis.plot(row.value, y, color=color, marker="o", ms=5)
        if line is not None:
            axis.axvline(line, color="0.35", lw=1, ls="--", zorder=0)
        axis.set_title(measure, fontsize="medium")
        axis.grid(axis="y", visible=False)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(list(places.values()), [arm for _, arm in places], fontsize="small")
    for group, y in labels.items():
        axes[0, 0].text(
            -0.02, y, group, transform=axes[0, 0].get_yaxis_transform(), ha="right", va="center",
            fontsize="small", weight="bold",
        )  # fmt: skip
    axes[0, 0].set_ylim(marks + 0.6, -0.6)
    fig.supxlabel(xlabel, fontsize="medium")
    return fig


def _arm_rows(
    table: pd.DataFrame,
) -> tuple[dict[tuple[str, str], int], dict[str, int], int]:
    """The row of every arm, that of every comparison's heading, and the last row."""
    places: dict[tuple[str, str], int] = {}
    labels: dict[str, int] = {}
    row = -1
    for group, arms in table.groupby("group", sort=False)["arm"]:
        if group:
            labels[group] = row = row + 1
        else:
            labels[group] = row + 1
        for arm in dict.fromkeys(arms):
            places[group, arm] = row = row + 1
    return places, labels, row
