"""One figure style, and saving a figure together with the numbers it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import seaborn as sns

from lalp.files import atomic_path, build_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
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


def score_label(column: str) -> str:
    return "GALP" if column == "galp" else f"LALP, w = {column[5:]}"


def errors(rows: pd.DataFrame, column: str = "share", prefix: str = "") -> list[pd.Series]:
    """Lengths of error bars about a column; rounding never makes one negative."""
    low, high = rows[f"{prefix}low"], rows[f"{prefix}high"]
    return [(rows[column] - low).clip(lower=0), (high - rows[column]).clip(lower=0)]
