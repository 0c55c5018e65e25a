"""Claims of the paper, this run's numbers, and the verdicts on them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from lalp.errors import InputError
from lalp.files import cache_dir, write_text
from lalp.paper import root_dir
from lalp.paper.show import ShownTable, name_scores, show_verdicts
from lalp.paper.tables import FIGURES, TABLES, ReferenceFigure

# The basis of a test. A result by algebra, or in a world made for it, says nothing about texts that
# people train on.
KINDS = ("real text", "made-up text", "made-up world", "algebra")
VERDICTS = ("holds", "does not hold", "not resolved", "not testable at this scale", "not run")
# Columns whose texts hold numbers of this run.
_IN_WORDS = ("run", "why", "needs")
_PAPER_ITEMS: dict[str, ReferenceFigure] = {
    **{f"Table {number}": table for number, table in TABLES.items()},
    **{f"Fig. {number}": figure for number, figure in FIGURES.items()},
}


def cited_items(where: str) -> list[str]:
    """The paper's tables and figures that a text names, each once, in the text's order.

    Sections, equations and theorems are skipped. InputError if the paper has no such item.

    Example:
        >>> cited_items("Tables 2 and 3, Sec. 4, Figs. 7-8")
        ['Table 2', 'Table 3', 'Fig. 7', 'Fig. 8']
    """
    kinds = {"table": "Table", "tables": "Table"}
    kinds |= dict.fromkeys(("fig", "figs", "figure", "figures"), "Fig.")
    found: list[str] = []
    kind = None
    for word, first, last in re.findall(r"([A-Za-z]+)|(\d+(?:\.\d+)*)(?:\s*[-–]\s*(\d+))?", where):
        if word:
            kind = kind if word == "and" else kinds.get(word.lower())
        elif kind:
            whole = last and first.isdigit()
            numbers = range(int(first), int(last) + 1) if whole else [first]
            found += [f"{kind} {number}" for number in numbers]
    for item in found:
        if item not in _PAPER_ITEMS:
            raise InputError(f"{where!r} names {item}, which the paper does not have")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Verdict:
    """Whether this run shows a claim of the paper."""

    claim: str  # The claim, in one sentence
    paper: str  # What the paper reports
    run: str  # What this run gives
    verdict: str  # One of `VERDICTS`
    why: str  # The basis of the verdict, or the reason why there is none
    where: str = ""  # The paper's tables and figures, for example `Table 2, Fig. 1`
    kind: str = "real text"  # One of `KINDS`
    after_look: bool = False  # Whether its rule was set after a first look at the numbers
    needs: str = ""  # What would resolve it; kept only for a claim that is not resolved

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"{self.kind!r} is no kind of {self.claim!r}: choose {', '.join(KINDS)}"
            )
        if self.verdict not in VERDICTS:
            raise InputError(
                f"{self.verdict!r} is no verdict on {self.claim!r}: choose one of "
                f"{', '.join(VERDICTS)}"
            )
        if self.verdict != "not resolved":
            # So a notebook may state it before it knows the verdict.
            object.__setattr__(self, "needs", "")
        elif not self.needs and self.kind != "algebra":
            raise InputError(
                f"{self.claim!r} is not resolved: say in `needs` what would resolve it"
            )


def decide(*, holds: bool, fails: bool, testable: bool = True) -> str:
    """The verdict by the caller's rule; if neither side is shown, it is not resolved.

    Comparisons with a missing interval (NaN) are false, so they settle nothing.

    Args:
        holds: Whether this run shows the claim.
        fails: Whether this run shows the opposite; ValueError if it shows both.
        testable: Whether this run could show either.

    Example:
        >>> from lalp.stats import Estimate
        >>> gap = Estimate(0.07, 0.05, 0.09)
        >>> decide(holds=gap.low > 0, fails=gap.high < 0)
        'holds'
    """
    if holds and fails:
        raise ValueError("a claim cannot hold and fail: look at the rule")
    if not testable:
        return "not testable at this scale"
    return "holds" if holds else "does not hold" if fails else "not resolved"


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table, one row each, in the given order, with the names that a reader knows."""
    table = pd.DataFrame(list(verdicts), columns=[field.name for field in fields(Verdict)])
    return table.assign(**{name: table[name].map(name_scores) for name in _IN_WORDS})


def save_verdicts(verdicts: Sequence[Verdict], notebook: str, profile: str) -> ShownTable:
    """Keep the verdicts of a notebook such as ``01_coverage``; returns the table to show."""
    table = verdict_table(verdicts)
    text = table.to_json(orient="records", indent=1)
    write_text(_verdict_file(notebook, profile), text)
    return show_verdicts(table)


def _verdict_file(notebook: str, profile: str) -> Path:
    return cache_dir() / profile / "verdicts" / f"{notebook}.json"


def collect_verdicts(profile: str) -> pd.DataFrame:
    """All notebooks' verdicts under one profile, numbered from 1 in the notebooks' order.

    The columns are those of `verdict_table`, ``section`` (the notebook's title), ``notebook`` and
    ``profile``. InputError if a file of verdicts cannot be read.
    """
    empty = verdict_table([]).assign(section="", notebook="", profile="")
    tables = [empty]
    for name, section in _sections().items():
        path = _verdict_file(name, profile)
        if path.is_file():
            try:
                said = [Verdict(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
            except (ValueError, TypeError, InputError) as error:
                raise InputError(
                    f"{path.name}: not a file of verdicts ({error}); delete it and run its "
                    "notebook again"
                ) from error
            about = {"section": section, "notebook": name, "profile": profile}
            tables.append(verdict_table(said).assign(**about))
    verdicts = pd.concat(tables, ignore_index=True)
    return verdicts.set_axis(pd.RangeIndex(1, len(verdicts) + 1, name="no."))


def missing_verdicts(profile: str) -> pd.DataFrame:
    """Notebooks without verdicts under a profile, and the command that runs each."""
    missing = [name for name in _sections() if not _verdict_file(name, profile).is_file()]
    make = f"make PROFILE={profile} build/{profile}/notebooks"
    commands = [f"{make}/{name}.ipynb" for name in missing]
    return pd.DataFrame({"notebook": missing, "verdicts come from": commands}, dtype=str)


def _sections() -> dict[str, str]:
    """Title of every notebook except the overview and the one on a reader's own pool."""
    found = {}
    for path in sorted((root_dir() / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        # The heading without its number.
        heading = re.match(r"#\s*(?:\d+\s+)?(.+)", "".join(cells[0]["source"])) if cells else None
        found[path.stem] = heading[1].strip() if heading else path.stem
    for name in ("09_paper_vs_run", "11_your_pool"):
        found.pop(name, None)
    return found


def count_verdicts(verdicts: pd.DataFrame, by: str = "section") -> pd.DataFrame:
    """Number of claims by verdict, for each section or ``kind`` and for all together."""
    groups = verdicts[by].unique() if by == "section" else [*KINDS]
    counts = pd.crosstab(verdicts[by], verdicts["verdict"])
    counts = counts.reindex(index=groups, columns=list(VERDICTS), fill_value=0).astype(int)
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index=None, columns=None)


def paper_items(verdicts: pd.DataFrame, missing: Collection[str] = ()) -> pd.DataFrame:
    """This run's result for each of the paper's tables and figures.

    A verdict (`collect_verdicts`) covers the items in its ``where``, or in its claim if that is
    empty; the notebooks of ``missing`` have no verdicts.

    Returns:
        One row per table and figure: what it ``shows``, the ``notebook`` on it, the numbers of the
        ``claims`` about it, ``this run`` (tested, tested in part, or not) and ``why``.
    """
    cited = [cited_items(v.where or v.claim) for v in verdicts.itertuples()]
    rows = {}
    for name, item in _PAPER_ITEMS.items():
        own = verdicts.loc[[name in names for names in cited]]
        speaking = own["verdict"]
        claims = {v: ", ".join(map(str, speaking.index[speaking == v])) for v in VERDICTS}
        state, why = _item_state(item, own, set(missing))
        rows[name] = {
            "shows": item.title,
            "notebook": item.notebook,
            "claims": "; ".join(f"{v}: {numbers}" for v, numbers in claims.items() if numbers),
            "this run": state,
            "why": why,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _item_state(
    item: ReferenceFigure, own: pd.DataFrame, missing: Collection[str]
) -> tuple[str, str]:
    """Whether this run has tested a table or figure, and why not."""
    tested = own[own["verdict"].isin(["holds", "does not hold", "not resolved"])]
    if len(tested):
        if "kind" in tested and set(tested["kind"]) == {"made-up world"}:
            return "in a made-up world only", item.not_run
        return "tested in part" if item.not_run else "tested", item.not_run
    if item.not_run.startswith("a list of settings"):
        return "settings only", item.not_run
    if item.notebook in missing:
        return "not run yet", f"{item.notebook} has not run"
    if "not testable at this scale" in set(own["verdict"]):
        return "not testable at this scale", item.not_run
    return "not run at this scale", item.not_run or f"no claim of {item.notebook} names it"


def paper_notes() -> pd.DataFrame:
    """Gaps and contradictions in the paper, by table and figure."""
    pairs = [(note, name) for name, item in _PAPER_ITEMS.items() for note in item.notes]
    notes = pd.DataFrame(pairs, columns=["note", "shows in"])
    return notes.groupby("note", sort=False)["shows in"].agg(", ".join).reset_index()
