"""Token heat maps as HTML: a response with each token shaded by global minus local log-probability.

`lalp.report.side_by_side` shows the heat maps of a whole prompt next to each other.
The HTML holds no script and loads nothing. All styles are inline, because notebook viewers drop the
style sheets of untrusted notebooks. Shades are translucent, so text and background keep the colours
of the viewer's theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.errors import InputError, no_such
from lalp.files import atomic_path
from lalp.pools.pool import show
from lalp.scoring.columns import GALP, lalp_column, token_column, windows_of
from lalp.scoring.equations import self_conditioning_gap
from lalp.scoring.windows import parse_window
from lalp.students.encoding import first_character

# Orange and blue of the Okabe-Ito palette; the underline tells them apart without colour.
_HIGHER, _LOWER = "213,94,0", "0,114,178"
_LEVELS = 4
_STRONGEST = 0.6
_NARROWEST_SCALE = 0.5
_GIVEN = "opacity:0.6;font-style:italic"
_UNSCORED = "border-bottom:2px dotted gray"


def nats(value: float, form: str = ".3f") -> str:
    """A log-probability as text; "not scored" if it is not finite."""
    return format(value, form) if math.isfinite(value) else "not scored"


# All text is escaped, because responses come from anywhere.
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    autoescape=True,
)
_TEMPLATES.filters["nats"] = nats


@dataclass(frozen=True)
class _Piece:
    """A run of characters of the text."""

    text: str
    step: int
    # Indices of its tokens. There are several if tokens share a character. There are none for white
    # space that no token holds, and for the text between two turns.
    tokens: tuple[int, ...] = ()
    label: str = ""  # the token's text, with the white space that is shown before its step


def token_heat_map(
    text: str, scores: Mapping[str, Any], window: str = "4", *, limit: float | None = None
) -> str:
    """A response with each token shaded by global minus local log-probability (Eq. 4).

    Steps are numbered from 1, and hovering over a token shows its text, both log-probabilities, the
    gap and the step.

    Args:
        text: The response.
        scores: Its row of a score table with token columns.
        window: The local window.
        limit: Gap in nats that gets the strongest shade, on either side; by default a round number
            that 98 % of the tokens' gaps stay below.

    Returns:
        A ``<div>`` with all text escaped; in a notebook, pass it to ``IPython.display.HTML``.

    Raises:
        InputError: If the row lacks token columns or this window's, or has those of another text.

    Example:
        >>> row = {"galp:tokens": [-1.0, -2.0], "lalp@4:tokens": [-1.0, -4.0]}
        >>> row |= {"token_spans": [(0, 1), (1, 3)], "token_steps": [0, 0]}
        >>> "gap +2.00 nats" in token_heat_map("x=3", row)
        True
    """
    shown = _shown(text, dict(scores), window, limit, "the scores")
    return _TEMPLATES.get_template("heat_map.html").render(shown)


def _shown(
    text: str, scores: Mapping[str, Any], window: str, limit: float | None, where: str
) -> dict[str, Any]:
    """The values that both templates show: the legend, and the tokens of each step."""
    global_, local = token_scores(text, scores, window, where)
    gap = self_conditioning_gap(global_, local)
    scale = gap_scale(gap) if limit is None else limit
    if not scale > 0 or not math.isfinite(scale):
        raise InputError(f"limit={limit}: give the gap of the strongest shade, in nats, above 0")
    spans = [_visible(text[start:end]) for start, end in scores["token_spans"]]
    return {
        "window": str(parse_window(window)),
        "legend": legend(scale),
        "steps": shaded_steps(text, scores, global_, local, scale),
        "numbers": zip(spans, scores["token_steps"], global_, local, gap, strict=True),
    }


def legend(scale: float) -> list[tuple[str, str]]:
    """The gap and the style of each shade, from the strongest below 0 to the strongest above."""
    return [
        (f"{scale * level / _LEVELS:+.3g}" if level else "0", _shade(level))
        for level in range(-_LEVELS, _LEVELS + 1)
    ]


def shaded_steps(
    text: str,
    scores: Mapping[str, Any],
    global_: Float[np.ndarray, " tokens"],
    local: Float[np.ndarray, " tokens"],
    scale: float,
) -> list[tuple[int, list[tuple[str, str, str]]]]:
    """Each step's number, and its pieces: their text, what hovering shows, and their style.

    ``scores`` is the response's row, with the spans and steps of its tokens. The two
    log-probabilities are those of `token_scores`, in nats. ``scale`` is the gap of the strongest
    shade.
    """
    pieces = _pieces(text, scores["token_spans"], scores["token_steps"])
    return [
        (step + 1, [(piece.text, *_token(piece, global_, local, scale)) for piece in members])
        for step, members in groupby(pieces, key=lambda piece: piece.step)
    ]


def token_scores(
    text: str, scores: Mapping[str, Any], window: str, where: str
) -> tuple[Float[np.ndarray, " tokens"], Float[np.ndarray, " tokens"]]:
    """Global and local log-probabilities of a row, in nats, checked against the text.

    Raises:
        InputError: If a column is missing, or the columns do not fit each other or the text;
            ``where`` begins the message.
    """
    columns = token_column(GALP), token_column(lalp_column(window))
    for name in (columns[0], "token_spans", "token_steps"):
        if not np.ndim(scores.get(name)):
            advice = "score with lalp score --tokens (with_tokens=True)"
            raise InputError(f"{where}: no column {name!r} in it: {advice}")
    if not np.ndim(scores.get(columns[1])):
        raise InputError(
            f"{where}: window {parse_window(window)} is not in it, but "
            f"{', '.join(windows_of(scores, tokens=True)) or 'none'}: name one of these, or score "
            "this one"
        )
    global_, local = (np.asarray(scores[name], dtype=float) for name in columns)
    spans, steps = scores["token_spans"], scores["token_steps"]
    if any(np.shape(span) != (2,) for span in spans):
        raise InputError(f"{where}: column 'token_spans' must hold [start, end] for each token")
    if not isinstance(text, str):
        raise InputError(f"{where}: the response is no text, but {show(text)}")
    if not len(global_) == len(local) == len(spans) == len(steps):
        raise InputError(f"{where}: the token columns differ in length: score the response again")
    if any(not 0 <= start <= end <= len(text) for start, end in spans):
        why = "the token spans exceed the text: it is not the text that was scored"
        raise InputError(f"{where}: {why}")
    return global_, local


def gap_scale(gap: Float[np.ndarray, " tokens"]) -> float:
    """A round number of nats that 98 % of the gaps stay below: 0.5, 1, 2, 5, 10, ..."""
    known = np.abs(gap[np.isfinite(gap)])
    needed = max(float(np.quantile(known, 0.98)) if len(known) else 0.0, _NARROWEST_SCALE)
    power = 10.0 ** math.floor(math.log10(needed))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= needed * (1 - 1e-9))


def _pieces(text: str, spans: Sequence[Sequence[int]], steps: Sequence[int]) -> list[_Piece]:
    """Cut the text so that every character is in one piece, in order."""
    pieces: list[_Piece] = []
    done, step = 0, int(steps[0]) if len(steps) else 0
    for token, ((start, end), own_step) in enumerate(zip(spans, steps, strict=True)):
        begin = max(int(start), done)
        if own_step != step or not pieces:
            # White space stays before the step's number, so that no line ends in a number.
            begin = max(begin, first_character(text, int(start), int(end)))
        if begin > done:
            # The text between two turns is shown with the step that follows.
            gap = text[done:begin]
            pieces.append(_Piece(gap, int(own_step) if gap.strip() else step))
        done, step = begin, int(own_step)
        if end > done:
            pieces.append(_Piece(text[done:end], step, (token,), text[start:end]))
            done = int(end)
        elif pieces:
            # The token shares a character with the last one, as the bytes of an emoji do.
            last = pieces[-1]
            pieces[-1] = replace(last, tokens=(*last.tokens, token), label=last.label or last.text)
    if done < len(text):
        pieces.append(_Piece(text[done:], step))
    return pieces


def _shade(level: int) -> str:
    """Style of a shade from -4 to 4."""
    if level == 0:
        return ""
    color, line = (_HIGHER, "solid") if level > 0 else (_LOWER, "dashed")
    alpha = _STRONGEST * abs(level) / _LEVELS
    return f"background-color:rgba({color},{alpha:.2f});border-bottom:2px {line} rgb({color})"


def _token(piece: _Piece, global_: np.ndarray, local: np.ndarray, scale: float) -> tuple[str, str]:
    """What hovering over a piece shows, and its style; both empty for white space alone."""
    if not piece.tokens:
        return ("read, not scored", _GIVEN) if piece.text.strip() else ("", "")
    # Log-probabilities of tokens that share a character add up to that of the character.
    chosen = list(piece.tokens)
    total, near = float(global_[chosen].sum()), float(local[chosen].sum())
    gap = self_conditioning_gap(total, near)
    if math.isfinite(gap):
        style = _shade(int(np.clip(round(gap / scale * _LEVELS), -_LEVELS, _LEVELS)))
        numbers = f"global {total:.2f}  |  local {near:.2f}  |  gap {gap:+.2f} nats"
    else:
        style, numbers = _UNSCORED, "not scored"
    title = f"{_visible(piece.label)}  |  {numbers}  |  step {piece.step + 1}"
    return title + (f"  |  {len(chosen)} tokens" if len(chosen) > 1 else ""), style


def _visible(text: str) -> str:
    """Replace white space and control characters with signs that a tooltip can show."""
    signs = {"\n": "⏎", "\t": "⇥", " ": "␣", "\r": "␍"}
    return "".join(signs.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in text)


def heat_map_page(
    table: pd.DataFrame, response_id: str, window: str | None = None, *, where: str = "the table"
) -> str:
    """An HTML page for one response of a score table: its heat map, and all numbers in a table.

    Args:
        table: Written by `lalp.scoring.table.write_scores` with token columns and texts.
        response_id: The response to show.
        window: The local window; may be left out if the table holds only one.
        where: What error messages call the table.

    Raises:
        InputError: If the table lacks texts, token columns, this response or this window.
    """
    windows = windows_of(table, tokens=True)
    for part, there in (("texts", "response" in table), ("token columns", bool(windows))):
        if not there:
            raise InputError(f"{where}: no {part} in it: write it with lalp score --tokens")
    found = table[table["response_id"] == response_id]
    if found.empty:
        known = [str(name) for name in table["response_id"]]
        raise InputError(f"{where}: {no_such('response', response_id, known)}")
    if window is None and len(windows) > 1:
        raise InputError(f"{where}: holds windows {', '.join(windows)}: name one with --window")
    window = windows[0] if window is None else window
    row = found.iloc[0].to_dict()
    shown = _shown(row["response"], row, window, None, where)
    for name in ("num_tokens", "num_steps", GALP, lalp_column(window)):
        if name not in row:
            raise InputError(f"{where}: no column {name!r} in it: write it with lalp score")
    return _TEMPLATES.get_template("heat_map_page.html").render(shown, row=row)


def write_heat_map(
    table: pd.DataFrame,
    response_id: str,
    path: str | Path,
    window: str | None = None,
    *,
    where: str = "the table",
) -> Path:
    """Write `heat_map_page` to a file; an old file stays if anything fails.

    For example ``write_heat_map(load_scores("scores.parquet"), "p/Ada/0", "ada.html")``.

    Raises:
        InputError: As in `heat_map_page`, or if the name does not end in ``.html`` or ``.htm``.
    """
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"{path}: the heat map is a web page: give a name in .html")
    page = heat_map_page(table, response_id, window, where=where)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path
