"""Names of score columns: ``galp``, ``lalp@WINDOW``; per token, ``:tokens`` is appended."""

from __future__ import annotations

from collections.abc import Iterable

from lalp.scoring.windows import Window, parse_window

GALP = "galp"
COUNTS = ("num_tokens", "num_steps")
STATISTICS = ("mean_rank", "mean_rank_100", "mean_entropy")
_LALP, _TOKENS = "lalp@", ":tokens"
# Each score has the same colour in all figures. No teacher has either colour.
SCORE_COLORS = {"galp": "#4d4d4d", "lalp": "#7b3294"}


def lalp_column(window: str | int | Window) -> str:
    """The column of LALP at a window.

    Raises:
        InputError: If the window is malformed.

    Example:
        >>> lalp_column("25.0%")
        'lalp@25%'
    """
    return f"{_LALP}{parse_window(window)}"


def token_column(column: str) -> str:
    """The column of a score's log-probabilities per token: ``galp:tokens`` for ``galp``."""
    return column + _TOKENS


def column_window(column: str) -> str | None:
    """The window in the name of a LALP column, with or without tokens; None for other columns.

    Example:
        >>> column_window("lalp@25%"), column_window("lalp@4:tokens"), column_window("galp")
        ('25%', '4', None)
    """
    name = str(column)
    return name[len(_LALP) :].removesuffix(_TOKENS) if name.startswith(_LALP) else None


def score_label(column: str) -> str:
    """The name of a score column for readers.

    Example:
        >>> score_label("galp"), score_label("lalp@4"), score_label("lalp@all")
        ('GALP', 'LALP, w = 4', 'LALP, full prefix')
    """
    window = column_window(column)
    if window is None:
        return "GALP"
    return "LALP, full prefix" if window == "all" else f"LALP, w = {window}"


def score_columns(columns: Iterable[str]) -> list[str]:
    """GALP and LALP columns, in order, without those per token; takes a table or its columns.

    Example:
        >>> score_columns(["galp", "lalp@4", "lalp@4:tokens", "reason"])
        ['galp', 'lalp@4']
    """
    names = [str(name) for name in columns]
    return [n for n in names if n == GALP or (n.startswith(_LALP) and not n.endswith(_TOKENS))]


def windows_of(columns: Iterable[str], *, tokens: bool = False) -> list[str]:
    """Windows that have a LALP column; with ``tokens``, those that have one per token.

    Example:
        >>> windows_of(["galp", "lalp@4", "lalp@all", "lalp@4:tokens"], tokens=True)
        ['4']
    """
    windows = {str(name): column_window(name) for name in columns}
    return [w for name, w in windows.items() if w and name.endswith(_TOKENS) == tokens]
