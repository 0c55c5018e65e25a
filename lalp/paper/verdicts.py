"""Claims of the paper, this run's numbers, and the verdicts on them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path, build_dir
from lalp.paper.tables import FIGURES, TABLES, ReferenceFigure

VERDICTS = ("holds", "does not hold", "not resolved", "not testable at this scale", "not run")


def cited_items(where: str) -> list[tuple[str, str]]:
    """The paper's tables and figures that a text names, in its order.

    Reads ``Table 2, Fig. 1``, ``Tables 2, 3 and 8`` and ``Figs. 7-8``; sections, equations and
    theorems are passed over.

    Returns:
        Kind and number, as ``("Table", "2")`` or ``("Fig.", "1")``, each once.

    Raises:
        InputError: If the paper has no such table or figure.
    """
    kinds = {"table": "Table", "tables": "Table"}
    kinds |= dict.fromkeys(("fig", "figs", "figure", "figures"), "Fig.")
    found: dict[tuple[str, str], None] = {}
    kind = None
    for word, first, last in re.findall(r"([A-Za-z]+)|(\d+(?:\.\d+)*)(?:\s*[-–]\s*(\d+))?", where):
        if word:
            kind = kind if word == "and" else kinds.get(word.lower())
        elif kind:
            whole = last and first.isdigit()
            numbers = range(int(first), int(last) + 1) if whole else [first]
            found |= {(kind, str(number)): None for number in numbers}
    for kind, number in found:
        if number not in (TABLES if kind == "Table" else FIGURES):
            raise InputError(f"{where!r} names {kind} {number}, which the paper does not have")
    return list(found)


@dataclass(frozen=True)
class Verdict:
    """Whether a claim of the paper is seen in this run.

    Attributes:
        claim: The claim, in one sentence.
        paper: What the paper reports.
        run: What this run gives.
        verdict: One of ``VERDICTS``.
        why: What the verdict rests on, or why there is none.
        where: The paper's tables and figures, for example ``Table 2, Fig. 1``.
    """

    claim: str
    paper: str
    run: str
    verdict: str
    why: str
    where: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(
                f"{self.verdict!r} is no verdict on {self.claim!r}: choose one of "
                f"{', '.join(VERDICTS)}"
            )


def decide(*, holds: bool, fails: bool, testable: bool = True) -> str:
    """The verdict by the rule that the caller states; neither side: not resolved.

    Comparisons with a missing interval (NaN) are false, so that they settle nothing.

    Args:
        holds: Whether this run shows the claim.
        fails: Whether this run shows its contrary.
        testable: Whether this run could show either.

    Raises:
        ValueError: If both are said to be so.

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
    """Verdicts as a table, one row each, in the given order."""
    columns = [field.name for field in fields(Verdict)]
    return pd.DataFrame([asdict(verdict) for verdict in verdicts], columns=columns)


def save_verdicts(verdicts: Sequence[Verdict], notebook: str, profile: str) -> pd.DataFrame:
    """Keep a notebook's verdicts for `09_paper_vs_run`; returns them as a table.

    Args:
        verdicts: In the order to show.
        notebook: Its name without suffix, for example ``01_coverage``.
        profile: The run's profile.
    """
    table = verdict_table(verdicts)
    with atomic_path(build_dir() / profile / "verdicts" / f"{notebook}.json") as temporary:
        table.to_json(temporary, orient="records", indent=1)
    return table.drop(columns="where")


# The notebook that collects what the others say.
_COLLECTOR = "09_paper_vs_run"
_PAPER_ITEMS: tuple[tuple[str, ReferenceFigure], ...] = (
    *(("Table", TABLES[str(number)]) for number in range(1, 20)),
    *(("Fig.", figure) for figure in FIGURES.values()),
)


def collect_verdicts(profile: str) -> pd.DataFrame:
    """All notebooks' verdicts under one profile, numbered from 1 in the notebooks' order.

    Returns:
        The columns of `verdict_table`, and ``section`` (the notebook's title), ``notebook``,
        ``profile``.

    Raises:
        InputError: If a file of verdicts cannot be read.
    """
    tables = [
        _read_verdicts(path).assign(section=section, notebook=name, profile=profile)
        for name, (section, path) in _verdict_files(profile).items()
        if path.is_file()
    ]
    empty = verdict_table([]).assign(section="", notebook="", profile="")
    verdicts = pd.concat([empty, *tables], ignore_index=True)
    return verdicts.set_axis(pd.RangeIndex(1, len(verdicts) + 1, name="no."))


def missing_verdicts(profile: str) -> pd.DataFrame:
    """Notebooks that have said nothing under a profile, and the command that makes each speak."""
    missing = [name for name, (_, path) in _verdict_files(profile).items() if not path.is_file()]
    commands = [
        f"make PROFILE={profile} build/{profile}/notebooks/{name}.ipynb" for name in missing
    ]
    return pd.DataFrame({"notebook": missing, "verdicts come from": commands}, dtype=str)


def _verdict_files(profile: str) -> dict[str, tuple[str, Path]]:
    """Title and file of verdicts of every notebook but the one that collects them."""
    found = {}
    for path in sorted((build_dir().parent / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        # The heading without its number.
        heading = re.match(r"#\s*(?:\d+\s+)?(.+)", "".join(cells[0]["source"])) if cells else None
        title = heading[1].strip() if heading else path.stem
        found[path.stem] = (title, build_dir() / profile / "verdicts" / f"{path.stem}.json")
    found.pop(_COLLECTOR, None)
    return found


def _read_verdicts(path: Path) -> pd.DataFrame:
    try:
        return verdict_table([Verdict(**one) for one in json.loads(path.read_text("utf-8"))])
    except (ValueError, TypeError, InputError) as error:
        raise InputError(
            f"{path.name}: not a file of verdicts ({error}); delete it and run its notebook again"
        ) from error


def count_verdicts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Claims of each section by verdict, and of all sections together."""
    sections = verdicts["section"].unique()
    counts = pd.crosstab(verdicts["section"], verdicts["verdict"])
    counts = counts.reindex(index=sections, columns=list(VERDICTS), fill_value=0).astype(int)
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index=None, columns=None)


def paper_items(verdicts: pd.DataFrame, missing: Collection[str] = ()) -> pd.DataFrame:
    """What this run says on each of the paper's tables and figures.

    A verdict speaks on what its ``where`` names, or its claim where that is empty.

    Args:
        verdicts: As `collect_verdicts` returns them.
        missing: Notebooks that have said nothing, as in `missing_verdicts`.

    Returns:
        One row per table and figure: what it ``shows``, the numbers of the ``claims`` that speak
        on it, ``this run`` (tested, tested in part, or not) and ``why``.

    Raises:
        InputError: If a verdict names a table or figure that the paper does not have.
    """
    cited = [cited_items(v.where or v.claim) for v in verdicts.itertuples()]
    rows = {}
    for kind, item in _PAPER_ITEMS:
        speaking = verdicts.loc[[(kind, item.number) in names for names in cited]]
        rows[f"{kind} {item.number}"] = _item_row(item, speaking, set(missing))
    return pd.DataFrame.from_dict(rows, orient="index")


def paper_notes() -> pd.DataFrame:
    """Where the paper is silent or contradicts itself, by the tables and figures it shows in."""
    notes: dict[str, list[str]] = {}
    for kind, item in _PAPER_ITEMS:
        for note in item.notes:
            notes.setdefault(note, []).append(f"{kind} {item.number}")
    return pd.DataFrame({"note": list(notes), "shows in": [", ".join(n) for n in notes.values()]})


def _item_row(
    item: ReferenceFigure, speaking: pd.DataFrame, missing: Collection[str]
) -> dict[str, str]:
    said = set(speaking["verdict"])
    why = item.not_run
    if said & {"holds", "does not hold", "not resolved"}:
        state = "tested in part" if item.not_run else "tested"
    elif item.notebook in missing:
        state, why = "not run yet", f"{item.notebook} has not run"
    elif "not testable at this scale" in said:
        state = "not testable at this scale"
    else:
        state, why = "not run at this scale", why or f"no claim of {item.notebook} names it"
    claims = {v: speaking.index[speaking["verdict"] == v] for v in VERDICTS if v in said}
    return {
        "shows": item.title,
        "claims": "; ".join(f"{v}: {', '.join(map(str, of))}" for v, of in claims.items()),
        "this run": state,
        "why": why,
    }
