"""The overview figure: claims with their verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from lalp.paper.figures import FULL_WIDTH

# Marker, colour and label of each verdict; label and shape identify them without colour.
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
_VERDICT_COLUMNS = {"section": 0.1, "mark": 1.45, "verdict": 1.6, "claim": 2.75, "where": 7.7}


def plot_verdicts(verdicts: pd.DataFrame, headlines: Mapping[str, str] | None = None) -> Figure:
    """Claims with their verdicts, grouped by section, and how many of each kind there are.

    Args:
        verdicts: Has ``section``, ``claim``, ``verdict`` and ``where``, and may have ``kind`` and
            ``after_look`` (marked by an asterisk). The heading counts all of them.
        headlines: The claims to draw with their names, in this order and grouped by ``kind``. By
            default every claim is drawn.
    """
    shown = verdicts if headlines is None else _headlines(verdicts, headlines)
    blocks = [_verdict_lines(block) for _, block in shown.groupby("section", sort=False)]
    titles = _count_lines(verdicts)
    head = 0.75 + 0.18 * (len(titles) - 1)
    height = head + sum(block["height"].sum() + 0.12 for block in blocks)
    fig, axis = plt.subplots(figsize=(FULL_WIDTH, height))
    axis.set(xlim=(0, FULL_WIDTH), ylim=(height, 0))
    axis.set_axis_off()
    for number, title in enumerate(titles):
        weight = {} if number else {"weight": "bold"}
        axis.text(0.1, 0.2 + 0.18 * number, title, va="center", size=10 - bool(number), **weight)
    section = "notebook" if headlines is None else "tested on"
    headings = {"section": section, "where": "in the paper"}
    for column in ("section", "verdict", "claim", "where"):
        label = headings.get(column, column)
        axis.text(_VERDICT_COLUMNS[column], head - 0.27, label, va="center", size=8.5, color="0.4")
    top = head - 0.13
    for block in blocks:
        top = _draw_verdict_block(axis, block, top)
    axis.plot([0.1, FULL_WIDTH - 0.1], [top, top], color="0.8", lw=0.8)
    return fig


def _headlines(verdicts: pd.DataFrame, headlines: Mapping[str, str]) -> pd.DataFrame:
    """The claims of this choice, in its order and under its names, with their kind as section."""
    places = {claim: place for place, claim in enumerate(headlines)}
    chosen = verdicts[verdicts["claim"].isin(places)]
    chosen = chosen.loc[chosen["claim"].map(places).sort_values().index]
    return chosen.assign(section=chosen["kind"], claim=chosen["claim"].map(headlines))


def _count_lines(verdicts: pd.DataFrame) -> list[str]:
    """Counts of claims by verdict: for all, and for each kind if there are several."""
    lines = [f"{len(verdicts)} claims: {_count_verdicts(verdicts)}"]
    if "kind" in verdicts and verdicts["kind"].nunique() > 1:
        kinds = verdicts.groupby("kind", sort=False)
        lines += [f"{kind}, {len(own)}: {_count_verdicts(own)}" for kind, own in kinds]
    if "after_look" in verdicts and verdicts["after_look"].any():
        lines.append("* the rule was set after a first look at the numbers")
    return lines


def _count_verdicts(verdicts: pd.DataFrame) -> str:
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"{mark[2]} {counts[v]}" for v, mark in _VERDICT_MARKS.items() if v in counts)


def _verdict_lines(block: pd.DataFrame) -> pd.DataFrame:
    """A section's claims, their texts broken into lines, and their heights in inches."""
    # An ending such as "(Table 2, Fig. 1)" moves from the claim to the last column.
    cited = block["claim"].str.extract(_CITED_AT_END)
    where = block["where"].where(block["where"] != "", cited["where"].fillna(""))
    marks = block.get("after_look", pd.Series(False, index=block.index))
    rows = block.assign(
        star=marks.map({True: "*", False: ""}),
        claim=[_break_lines(claim, 4.8) for claim in cited["claim"]],
        where=[_break_lines(text, 1.1) for text in where],
        section=_break_lines(block["section"].iloc[0], 1.2, "bold"),
    )
    lines = rows[["claim", "where"]].map(lambda text: text.count("\n") + 1).max(axis=1)
    heights = 0.09 + 0.145 * lines
    # The text beside the rows may need more lines than they have.
    beside = rows["section"].iloc[0].count("\n") + 1
    heights.iloc[-1] += max(0.0, 0.06 + 0.145 * beside - heights.sum())
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
    """Draw one section from ``top`` downwards, in inches; returns the start of the next one."""
    axis.plot([0.1, FULL_WIDTH - 0.1], [top, top], color="0.8", lw=0.8)
    top += 0.06
    section = block["section"].iloc[0]
    _draw_lines(axis, _VERDICT_COLUMNS["section"], top, section, weight="bold")
    for row in block.itertuples():
        marker, color, label = _VERDICT_MARKS[row.verdict]
        axis.scatter(_VERDICT_COLUMNS["mark"], top + 0.1, marker=marker, color=color, s=34)
        _draw_lines(axis, _VERDICT_COLUMNS["verdict"], top, label + row.star, color=color)
        _draw_lines(axis, _VERDICT_COLUMNS["claim"], top, row.claim)
        _draw_lines(axis, _VERDICT_COLUMNS["where"], top, row.where, color="0.4")
        top += row.height
    return top + 0.06


def _draw_lines(axis: Axes, left: float, top: float, text: str, **style: str) -> None:
    """Lines one below the other, on baselines that neighbouring texts share."""
    for number, line in enumerate(text.split("\n")):
        axis.text(left, top + 0.14 + 0.145 * number, line, va="baseline", size=8.5, **style)
