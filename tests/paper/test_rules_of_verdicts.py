"""Verdicts of all notebooks in one table, the paper's tables and figures, and the overview."""

from __future__ import annotations

import itertools
import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper import verdicts as paper_verdicts
from lalp.paper.figures import FULL_WIDTH, use_style
from lalp.paper.headline import HEADLINES
from lalp.paper.tables import FIGURES, TABLES
from lalp.paper.verdict_figure import plot_verdicts
from lalp.paper.verdicts import VERDICTS, Verdict, cited_items, save_verdicts
from tests.paper.verdict_cells import NOTEBOOKS


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Table 4, Fig. 4", ["Table 4", "Fig. 4"]),
        ("Tables 2, 3 and 8", ["Table 2", "Table 3", "Table 8"]),
        ("Fig. 2, 7, 8, C.8", ["Fig. 2", "Fig. 7", "Fig. 8"]),
        ("Figs. 7-8; Sec. 5", ["Fig. 7", "Fig. 8"]),
        ("Figures 7–8 and Table 19", ["Fig. 7", "Fig. 8", "Table 19"]),
        ("Fig. 5 (a), figure 5 (b)", ["Fig. 5"]),
        ("Table 12. Fig. 1.", ["Table 12", "Fig. 1"]),
        ("Sec. 7.4.1, Eq. 1-3, Theorem A.3, Examples 1-4", []),
        ("Teachers differ (Sec. 4), 3 of 4 prompts", []),
        ("", []),
    ],
)
def test_tables_and_figures_are_read_out_of_a_text(where, expected):
    assert cited_items(where) == expected


@pytest.mark.parametrize("where", ["Table 20", "Fig. 11", "Figs. 9-11", "Table 0", "Table 7.4"])
def test_what_the_paper_does_not_have_is_refused(where):
    with pytest.raises(InputError, match=r"which the paper does not have"):
        cited_items(where)


def said(claim: str, verdict: str = "holds", where: str = "") -> Verdict:
    return Verdict(
        claim, "paper's", "0.5 [0.4, 0.6]", verdict, "because", where, needs="20 prompts"
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of three notebooks, the one that collects, and the one on a reader's own pool."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    (tmp_path / "notebooks").mkdir()
    for name, heading in {
        "00_pool": "# 00 The pool\n\n**Question.** Which?",
        "01_coverage": "# 01 Coverage of steps",
        "04_selection": "No heading",
        "09_paper_vs_run": "# 09 The paper",
        "11_your_pool": "# 11 Your pool",
    }.items():
        cells = [{"cell_type": "markdown", "source": heading.splitlines(keepends=True)}]
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return tmp_path


def test_verdicts_are_collected_in_the_notebooks_order(project):
    save_verdicts([said("later", "not run")], "04_selection", "cpu")
    save_verdicts([said("first"), said("second", where="Fig. 2")], "00_pool", "cpu")
    save_verdicts([said("other profile")], "01_coverage", "smoke")
    save_verdicts([said("of a notebook that is gone")], "02_gone", "cpu")
    table = paper_verdicts.collect_verdicts("cpu")
    assert table.index.tolist() == [1, 2, 3]
    columns = ["claim", "section", "notebook", "profile"]
    assert table[columns].to_numpy().tolist() == [
        ["first", "The pool", "00_pool", "cpu"],
        ["second", "The pool", "00_pool", "cpu"],
        ["later", "04_selection", "04_selection", "cpu"],
    ]
    written = ["paper's", "0.5 [0.4, 0.6]", "holds", "because", "Fig. 2"]
    assert table.loc[2, ["paper", "run", "verdict", "why", "where"]].tolist() == written


def test_notebooks_that_have_not_run_are_listed_with_a_command(project):
    save_verdicts([], "00_pool", "smoke")  # it has run, and says nothing
    missing = paper_verdicts.missing_verdicts("smoke")
    assert missing["notebook"].tolist() == ["01_coverage", "04_selection"]
    assert missing.iloc[0, 1] == "make PROFILE=smoke build/smoke/notebooks/01_coverage.ipynb"


def test_nothing_has_run(project):
    table = paper_verdicts.collect_verdicts("cpu")
    assert table.empty
    assert len(paper_verdicts.missing_verdicts("cpu")) == 3
    assert paper_verdicts.count_verdicts(table).loc["all"].tolist() == [0] * 5
    items = paper_verdicts.paper_items(table, ["04_selection"])
    assert items.loc["Table 2", "this run"] == "not run yet"
    plt.close(plot_verdicts(table))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(text, "") for text in ("", "{", "[1]", '{"claim": "a"}', '[{"claim": "a", "spoken": "b"}]')]
    + [(json.dumps([vars(said("a")) | {"verdict": "perhaps"}]), "'perhaps' is no verdict")],
)
def test_a_broken_file_of_verdicts_is_refused_by_name(project, content, reason):
    folder = project / "build" / "cpu" / "verdicts"
    folder.mkdir(parents=True)
    (folder / "00_pool.json").write_text(content, encoding="utf-8")
    message = rf"00_pool\.json: not a file of verdicts.*{reason}.*run its note"
    with pytest.raises(InputError, match=message):
        paper_verdicts.collect_verdicts("cpu")


def table_of(*verdicts: tuple[str, str, str, str]) -> pd.DataFrame:
    """Section, claim, verdict and where of each, as `collect_verdicts` gives them."""
    table = pd.DataFrame(verdicts, columns=["section", "claim", "verdict", "where"])
    return table.set_axis(range(1, len(table) + 1))


def test_counts_per_section_and_in_all():
    rows = [("B", "holds"), ("B", "not run"), ("A", "holds"), ("B", "holds")]
    table = table_of(*((section, "claim", verdict, "") for section, verdict in rows))
    counts = paper_verdicts.count_verdicts(table)
    assert counts.columns.tolist() == list(VERDICTS)
    assert counts["holds"].to_dict() == {"B": 2, "A": 1, "all": 3}
    assert counts["not run"].to_dict() == {"B": 1, "A": 0, "all": 1}
    assert counts.sum().sum() == 8


def test_counts_by_kind_tell_algebra_from_real_text():
    table = table_of(*(("S", f"claim {n}", "holds", "") for n in range(3)))
    table["kind"] = ["real text", "algebra", "algebra"]
    counts = paper_verdicts.count_verdicts(table, by="kind")
    assert counts.index.tolist() == [*paper_verdicts.KINDS, "all"]
    assert counts["holds"].tolist() == [1, 0, 0, 2, 3]
    table["after_look"] = [False, True, False]
    drawn = texts(plot_verdicts(table))
    plt.close("all")
    assert {"real text, 1: holds 1", "algebra, 2: holds 2", "holds*"} <= set(drawn)


def test_a_verdict_of_no_kind_is_refused():
    with pytest.raises(InputError, match="'text' is no kind of 'claim'"):
        Verdict("claim", "paper's", "0.5", "holds", "because", kind="text")


def test_what_is_not_resolved_says_what_would_resolve_it_and_nothing_else_does():
    told = ("claim", "paper's", "0.5")
    assert Verdict(*told, "not resolved", "because", needs="20 prompts").needs == "20 prompts"
    assert Verdict(*told, "holds", "because", needs="20 prompts").needs == ""
    with pytest.raises(InputError, match="'claim' is not resolved: say in `needs`"):
        Verdict(*told, "not resolved", "because")
    # Algebra is not sampled.
    assert Verdict(*told, "not resolved", "because", kind="algebra").needs == ""


def committed_verdicts() -> pd.DataFrame:
    """What the committed notebooks say, all together."""
    path = NOTEBOOKS.parent / "figures" / "overview.csv"
    return pd.read_csv(path, keep_default_na=False)


def test_no_committed_verdict_is_left_open_without_a_way_on():
    said = committed_verdicts()
    still_open = said[(said["verdict"] == "not resolved") & (said["kind"] != "algebra")]
    assert len(still_open) and (still_open["needs"] != "").all()


def test_every_headline_is_a_claim_with_a_verdict():
    assert set(HEADLINES) <= set(committed_verdicts()["claim"])


def test_every_table_and_figure_has_a_row_and_those_not_tested_a_reason():
    items = paper_verdicts.paper_items(table_of())
    expected = [f"Table {n}" for n in range(1, 20)] + [f"Fig. {n}" for n in range(1, 11)]
    assert items.index.tolist() == expected
    settings = items["this run"] == "settings only"
    assert items.index[settings].tolist() == ["Table 5", "Table 6", "Table 7"]
    assert set(items["this run"][~settings]) == {"not run at this scale"}
    assert (items["why"] != "").all()
    assert (items["claims"] == "").all()
    assert items.loc["Table 19", "shows"] == TABLES["19"].title
    assert items.loc["Fig. 10", "shows"] == FIGURES["10"].title


def test_rows_follow_from_the_verdicts():
    table = table_of(
        ("S", "order", "not resolved", "Table 2, Fig. 1"),
        ("S", "level (Table 2)", "holds", ""),  # nothing in `where`: the claim says it
        ("S", "cited in the claim alone (Table 8)", "holds", "Sec. 4"),
        ("S", "accuracy", "not run", "Table 3"),
        ("S", "long", "not testable at this scale", "Fig. 4"),
        ("S", "mass", "does not hold", "Table 4"),
    )
    items = paper_verdicts.paper_items(table, missing=pd.Series(["01_coverage"]))
    rows = {name: tuple(row) for name, row in items.drop(columns=["shows", "notebook"]).iterrows()}
    table["kind"] = ["made-up world", "made-up world", *["real text"] * 4]
    made_up = paper_verdicts.paper_items(table)["this run"]
    assert made_up["Table 2"] == "in a made-up world only" and made_up["Table 4"] == "tested"
    claims, state, why = rows["Table 2"]
    assert (claims, state) == ("holds: 2; not resolved: 1", "tested in part")
    assert "accuracies" in why  # they are not run
    assert rows["Table 4"] == ("does not hold: 6", "tested", "")
    assert rows["Table 3"][:2] == ("not run: 4", "not run at this scale")
    assert "trained" in rows["Table 3"][2]
    assert rows["Fig. 4"][1] == "not testable at this scale"
    assert rows["Table 8"][2] == "no claim of 04_selection names it"
    assert rows["Fig. 2"][1:] == ("not run yet", "01_coverage has not run")


def test_each_note_on_the_paper_is_listed_once_with_all_its_places():
    notes = paper_verdicts.paper_notes()
    assert notes["note"].is_unique
    written = {note for item in (*TABLES.values(), *FIGURES.values()) for note in item.notes}
    assert set(notes["note"]) == written
    gpqa = notes.loc[notes["note"].str.contains("0.694"), "shows in"]
    assert gpqa.tolist() == ["Table 3, Table 15, Table 19"]


# --- the overview ---------------------------------------------------------------------------

LONG = (
    "WIDE MARGINS: As the window grows from a few of the preceding steps to all of them, the "
    "order of the teachers under LALP turns into the order under GALP and stays there"
)


def texts(figure: plt.Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("num_shown", [25, 8, 1])
def test_texts_are_within_the_picture_and_not_on_each_other(num_shown):
    use_style()
    sections = ("Short", "A section with a long name of several words")
    places = ("Tables 2, 3 and 8, Fig. 1 and Fig. 3", "", "Sec. 4")
    claims = [f"{n}: {LONG}"[: 30 + 9 * (n % 14)].strip() for n in range(25)]
    table = table_of(
        *((sections[n // 4 % 2], c, VERDICTS[n % 5], places[n % 3]) for n, c in enumerate(claims))
    ).assign(kind=[paper_verdicts.KINDS[n % 4] for n in range(25)])
    shown = None if num_shown == 25 else {claim: claim for claim in claims[:num_shown]}
    figure = plot_verdicts(table, shown)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    for one, other in itertools.combinations(boxes, 2):
        assert one.shrunk(0.98, 0.7).overlaps(other.shrunk(0.98, 0.7)) == 0
    # The heading counts all claims, also those not shown.
    heading = "25 claims: holds 5, does not hold 5, not resolved 5, not testable 5, not run 5"
    assert heading in texts(figure)
    whole = figure.bbox
    assert all(box.x0 >= 0 and box.x1 <= whole.x1 and box.y0 >= 0 for box in boxes)
    assert figure.get_figwidth() == FULL_WIDTH
    assert len(drawn_claims(figure, table)) == num_shown


def drawn_claims(figure: plt.Figure, table: pd.DataFrame) -> list[str]:
    joined = " ".join(texts(figure))
    plt.close(figure)
    return [claim for claim in table["claim"] if claim in joined]


def test_headlines_keep_their_order_and_stand_under_their_kind_and_name():
    table = table_of(*(("S", f"claim {n} (Table 2)", "holds", "") for n in range(4)))
    table["kind"] = ["algebra", "real text", "algebra", "real text"]
    figure = plot_verdicts(
        table, {"claim 3 (Table 2)": "the last", "claim 0 (Table 2)": "the first"}
    )
    drawn = texts(figure)
    plt.close(figure)
    own = ["real text", "the last", "algebra", "the first"]
    assert [text for text in drawn if text in own] == own
    assert not any(text.startswith("claim") and text != "claim" for text in drawn)


def test_a_citation_at_the_end_of_a_claim_moves_to_its_column():
    claims = {
        "Traces are long (Sec. 3.2)": "",
        "LALP differs (Table 2)": "Table 2, Fig. 1",
        "Two of three (most of 4)": "",
        "A statement (App. A)": "",
    }
    figure = plot_verdicts(table_of(*(("S", c, "holds", where) for c, where in claims.items())))
    drawn = texts(figure)
    assert {"Traces are long", "Sec. 3.2", "LALP differs", "Table 2, Fig. 1"} <= set(drawn)
    assert {"Two of three (most of 4)", "A statement", "App. A"} <= set(drawn)
    plt.close(figure)
