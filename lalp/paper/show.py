"""One style for every table that a notebook shows.

A table is shown as HTML with its styles in its cells. JupyterLab removes style sheets from a
notebook that its reader has not run. GitHub removes all styles; the words stay readable there.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Number
from typing import Any

import numpy as np
import pandas as pd

from lalp.paper.tables import TABLES
from lalp.scoring.columns import column_window, score_label
from lalp.stats import Estimate

# What is left of sums that are 0: no measured number is so small.
_ROUNDING = 1e-15
MOST_ROWS = 12
"""Rows that a table shows at once; the others are behind "more"."""

# Names for readers of a column, or of a value that fills a cell.
WORDS = {
    "casl": "CASL",
    "galp": "GALP",
    "galp-lowest": "lowest GALP",
    "galp-tail": "GALP, tails",
    "cut": "cut to equal length",
    "high": "to",
    "lalp": "LALP",
    "lalp full prefix": "LALP, full prefix",
    "lalp paragraphs": "LALP, paragraphs",
    "lalp sentences": "LALP, sentences",
    "lalp-lowest": "lowest LALP",
    "lalp-tail": "LALP, tails",
    "low": "from",
    "p_holm": "p (Holm)",
    "p_top": "p (first place)",
    "random, mix of galp": "random, GALP's teachers",
    "random, mix of lalp": "random, LALP's teachers",
    "response_id": "response",
    "rsr": "RSR",
    "run": "here",
    "tau": "Kendall tau",
    "unmarked": "without marks of thought",
}
# Mark, background and text of each verdict. Mark and word identify it without the colour.
_VERDICT_STYLES = {
    "holds": ("●", "#d3e8f5", "#06395a"),
    "does not hold": ("✕", "#f8ddd0", "#6d2502"),
    "not resolved": ("◆", "#f3e9c4", "#4c3c00"),
    "not testable at this scale": ("■", "#e4e4e4", "#3a3a3a"),
    "not run": ("–", "#e4e4e4", "#3a3a3a"),
}
# Scores and rules in a sentence; not modules, files and commands.
_SCORE = re.compile(
    r"\b(random like |random, mix of )?(galp|lalp|rsr)(-lowest|-tail)?(@(\d+%?|all))?(?![\w./@-])"
)
# A splitter into chunks of so many tokens; a percent sign without the space before it.
_CHUNKS = re.compile(r"\b(\d+)t\b")
_PERCENT = re.compile(r"(?<=\d)%")
# A cell that names a notebook links to it.
_NOTEBOOK = re.compile(r"\d\d_[a-z_]+")


@dataclass(frozen=True, repr=False)
class ShownTable:
    """A table in words, as a notebook shows it: every cell is text."""

    cells: pd.DataFrame
    numeric: frozenset[str]  # Columns that are aligned to the right

    def __repr__(self) -> str:
        return self.cells.to_string(index=False)

    def _repr_html_(self) -> str:
        first, rest = self.cells.iloc[:MOST_ROWS], self.cells.iloc[MOST_ROWS:]
        shown = self._table(first)
        if len(rest):
            shown += f"<details><summary>{len(rest)} more</summary>{self._table(rest)}</details>"
        return shown

    def _table(self, cells: pd.DataFrame) -> str:
        head = "".join(self._cell("th", name, name) for name in cells.columns)
        body = "\n".join(self._row(row) for _, row in cells.iterrows())
        inside = f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
        return f'<table class="dataframe">{inside}</table>'

    def _row(self, row: pd.Series) -> str:
        return f"<tr>{''.join(self._cell('td', name, text) for name, text in row.items())}</tr>"

    def _cell(self, tag: str, column: str, text: str) -> str:
        side = "right" if column in self.numeric else "left"
        written = html.escape(text)
        if tag == "td" and text.rstrip("*") in _VERDICT_STYLES:
            mark, ground, ink = _VERDICT_STYLES[text.rstrip("*")]
            style = (
                f"background-color: {ground}; color: {ink}; padding: 1px 6px; white-space: nowrap"
            )
            written = f'<span style="{style}">{mark} {written}</span>'
        if tag == "td" and _NOTEBOOK.fullmatch(text):
            written = f'<a href="{text}.ipynb">{written}</a>'
        # Other columns must not squeeze a column of sentences.
        wide = "; min-width: 11em" if tag == "td" and len(text) > 60 else ""
        return f'<{tag} style="text-align: {side}; vertical-align: top{wide}">{written}</{tag}>'


@dataclass(frozen=True, repr=False)
class CaptionedTables:
    """Tables one below the other, each under a line that describes it."""

    tables: Mapping[str, ShownTable]

    def __repr__(self) -> str:
        return "\n\n".join(f"{caption}\n{table!r}" for caption, table in self.tables.items())

    def _repr_html_(self) -> str:
        return "\n".join(
            f'<p style="margin: 8px 0 2px">{html.escape(caption)}</p>{table._repr_html_()}'
            for caption, table in self.tables.items()
        )


@dataclass(frozen=True, repr=False)
class FilteredTable(ShownTable):
    """A table whose rows can be narrowed by the values of some columns, without JavaScript.

    Without style sheets, all rows are shown.
    """

    by: tuple[str, ...]

    def _repr_html_(self) -> str:
        filters, rules = "", []
        for column in self.by:
            counts = self.cells[column].str.rstrip("*").value_counts(sort=False)
            filters += f'<fieldset style="border: 0; padding: 0"><b>{html.escape(column)}</b> '
            filters += _radio(column, f"all ({len(self.cells)})", "all", checked=True)
            for value, count in counts.items():
                filters += _radio(column, f"{value} ({count})", _key(column, value))
                chosen = f".lalp-claims:has(#{_key(column, value)}:checked)"
                rules.append(f"{chosen} tbody tr:not(.{_key(column, value)}) {{ display: none }}")
            filters += "</fieldset>"
        box = '<div tabindex="0" style="max-height: 40rem; overflow: auto">'
        style = f"<style>{' '.join(rules)}</style>"
        return (
            f'{style}<div class="lalp-claims">{filters}{box}{self._table(self.cells)}</div></div>'
        )

    def _row(self, row: pd.Series) -> str:
        keys = " ".join(_key(column, row[column].rstrip("*")) for column in self.by)
        return super()._row(row).replace("<tr>", f'<tr class="{keys}">', 1)


def _key(column: str, value: str) -> str:
    return "-".join(["is", *column.split(), *value.split()])


def _radio(column: str, label: str, key: str, checked: bool = False) -> str:
    name = f"{key}-{column}".replace(" ", "-") if key == "all" else key
    state = " checked" if checked else ""
    radio = f'<input type="radio" name="{html.escape(column)}" id="{name}"{state}>'
    return f'{radio} <label for="{name}">{html.escape(label)}</label> '


def show_table(
    frame: pd.DataFrame | pd.Series,
    names: Mapping[str, str] | None = None,
    *,
    decimals: int = 2,
) -> ShownTable:
    """A table as a notebook shows it.

    Row numbers are dropped, and a meaningful index becomes the first columns. An interval shares a
    cell with its value. Columns and values have names that a reader knows.

    Args:
        frame: The table. Columns ``low`` and ``high`` are the interval of the column before them,
            ``X_low`` and ``X_high`` that of ``X``.
        names: Words for columns, if `WORDS` and the column itself are not clear enough.
        decimals: Digits after the point. A number too small for them keeps its first digit.

    Example:
        >>> gaps = {"tau": [0.7], "low": [0.123], "high": [1.0], "num_prompts": [1500]}
        >>> show_table(pd.DataFrame(gaps))
              Kendall tau prompts
        0.70 [0.12, 1.00]   1,500
    """
    table = _with_index(frame.to_frame() if isinstance(frame, pd.Series) else frame)
    cells: dict[str, list[str]] = {}
    numeric = set()
    for column, low, high in _with_intervals(list(table.columns)):
        written = [_write(value, decimals) for value in _whole(table[column])]
        if low is not None:
            ends = zip(written, table[low], table[high], strict=True)
            written = [_write_interval(*each, decimals) for each in ends]
        name = (names or {}).get(column) or in_words(column)
        while name in cells:  # Two columns with one name stay two columns
            name += " "
        cells[name] = written
        estimates = table[column].map(lambda value: isinstance(value, Estimate)).all()
        if estimates or (
            pd.api.types.is_numeric_dtype(table[column]) and table[column].dtype != bool
        ):
            numeric.add(name)
    return ShownTable(pd.DataFrame(cells), frozenset(numeric))


def filter_verdicts(verdicts: pd.DataFrame) -> FilteredTable:
    """Claims of all notebooks; a reader can filter them by verdict and by kind of evidence.

    ``verdicts`` come from `lalp.paper.verdicts.collect_verdicts`.
    """
    shown = show_verdicts(verdicts)
    kinds = verdicts["kind"].tolist()
    cells = shown.cells.assign(**{"tested on": kinds, "notebook": verdicts["notebook"].tolist()})
    places = ["verdict", "claim", "paper", "here", "tested on", "notebook", "why"]
    numbered = cells[places].set_axis(verdicts.index).reset_index(names="no.").astype(str)
    return FilteredTable(numbered, frozenset(), ("verdict", "tested on"))


def show_paper(*numbers: str) -> CaptionedTables:
    """Tables of the paper as printed there, to compare with this run's.

    Example:
        >>> caption, table = show_paper("12").tables.popitem()
        >>> caption.partition(":")[0], table.cells["cosine"].tolist()
        ('Table 12 of the paper', ['0.96', '0.94', '0.98', '0.97'])
    """
    shown = {}
    for number in numbers:
        table = TABLES[number]
        caption = f"Table {number} of the paper: {table.title}"
        shown[caption] = show_table(table.frame, decimals=table.decimals)
    return CaptionedTables(shown)


def show_verdicts(verdicts: pd.DataFrame) -> ShownTable:
    """Claims as a notebook shows them: verdict, paper's result, this run's result, and the reason.

    ``verdicts`` come from `lalp.paper.verdicts.verdict_table`. An asterisk marks a verdict whose
    rule was set after a look at the numbers. An unresolved claim ends with what would resolve it.
    """
    needs = verdicts["needs"].where(
        verdicts["needs"] == "", "; would be resolved by " + verdicts["needs"]
    )
    shown = {
        "verdict": verdicts["verdict"] + verdicts["after_look"].map({True: "*", False: ""}),
        "claim": verdicts["claim"],
        "paper": verdicts["paper"],
        "here": verdicts["run"],
        "why": verdicts["why"] + needs,
    }
    return show_table(pd.DataFrame(shown).reset_index(drop=True))


def in_words(name: str) -> str:
    """The name of a column or a value for readers: ``lalp@4`` is LALP, w = 4.

    Example:
        >>> [in_words(name) for name in ("lalp@all", "num_tokens", "GPT-4")]
        ['LALP, full prefix', 'tokens', 'GPT-4']
    """
    if name in WORDS:
        return WORDS[name]
    if name.startswith("random like "):
        return f"random, same teachers as {in_words(name.removeprefix('random like '))}"
    if column_window(name):
        return score_label(name)
    if of_window := re.fullmatch(r"([a-z-]+)@(\d+%?|all)", name):
        return f"{WORDS.get(of_window[1], of_window[1])}, w = {of_window[2]}"
    if chunks := _CHUNKS.fullmatch(name):
        return f"chunks of {chunks[1]} tokens"
    plain = re.fullmatch(r"(?:num_)?([a-z]+(?:_[a-z]+)*)", name)
    return plain[1].replace("_", " ") if plain else name


def name_scores(text: str) -> str:
    """A sentence in which scores and rules have the names that a reader knows.

    Example:
        >>> name_scores("random like lalp minus galp +0.10, lalp@4 minus lalp-lowest +0.20")
        'random, same teachers as LALP minus GALP +0.10, LALP, w = 4 minus lowest LALP +0.20'
        >>> name_scores("32t: GALP in 4% of draws")
        'chunks of 32 tokens: GALP in 4 % of draws'
    """
    named = _CHUNKS.sub(lambda found: in_words(found[0]), text)
    return _PERCENT.sub(" %", _SCORE.sub(lambda found: in_words(found[0]), named))


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose index, if meaningful, is in its first columns."""
    table = frame.copy()
    table.columns = [
        ", ".join(str(part) for part in name if part != "")
        if isinstance(name, tuple)
        else str(name)
        for name in table.columns
    ]
    says = not isinstance(table.index, pd.RangeIndex) and not (
        table.index.nlevels == 1
        and table.index.name is None
        and pd.api.types.is_integer_dtype(table.index)
    )
    if not says:
        return table.reset_index(drop=True)
    levels = [
        str(name) if name is not None else " " * (place + 1)
        for place, name in enumerate(table.index.names)
    ]
    return table.reset_index(names=levels)


def _with_intervals(columns: Sequence[str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Every column that has its own cell, and the ends of its interval."""
    ends: dict[str, tuple[str, str]] = {}
    for place, name in enumerate(columns):
        if name == "low" and place and "high" in columns:
            ends[columns[place - 1]] = ("low", "high")
        elif name.endswith("_low") and {name[:-4], f"{name[:-4]}_high"} <= set(columns):
            ends[name[:-4]] = (name, f"{name[:-4]}_high")
    taken = {end for pair in ends.values() for end in pair}
    for name in columns:
        if name not in taken:
            yield name, *ends.get(name, (None, None))


def _whole(values: pd.Series) -> pd.Series:
    """Counts as whole numbers, even if arithmetic or a missing value made them floats."""
    numbers = values.dropna()
    if not pd.api.types.is_float_dtype(values) or not (numbers % 1 == 0).all():
        return values
    counts = str(values.name).startswith("num_") or (numbers.abs() > 1).any()
    return values.astype("Int64") if counts else values


def _write(value: Any, decimals: int) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return in_words(value)
    if isinstance(value, Estimate):  # z: no minus before a rounded 0
        return "" if pd.isna(value.value) else f"{value:z.{decimals}f}"
    if not pd.api.types.is_scalar(value) or not (pd.isna(value) or isinstance(value, Number)):
        return str(value)
    if pd.isna(value):
        return ""
    return f"{value:,d}" if isinstance(value, Integral) else write_number(float(value), decimals)


def write_number(value: float, decimals: int = 2) -> str:
    """A number with ``decimals`` digits after the point; a smaller one keeps its first digit.

    Example:
        >>> [write_number(x) for x in (-1.234, 0.0042, 2e-06, -7e-19, 36641.0)]
        ['-1.23', '0.004', '2e-06', '0.00', '36,641.00']
    """
    if abs(value) < _ROUNDING:
        value = 0.0
    if value != 0 and abs(value) < 0.5 * 10**-decimals:
        return f"{value:.1g}" if float(f"{abs(value):.0e}") > 1e-4 else f"{value:.0e}"
    return f"{value + 0.0:,.{decimals}f}"  # -0.0 is written as 0


def _write_interval(value: str, low: Any, high: Any, decimals: int) -> str:
    """A value with its interval, or alone if it has none."""
    if pd.isna(low) or pd.isna(high):
        return value
    return f"{value} [{write_number(float(low), decimals)}, {write_number(float(high), decimals)}]"
