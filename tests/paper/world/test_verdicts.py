"""Verdicts of `08_step_world` on made-up tables, its results kept in files, and `make world`."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lalp.errors import InputError
from lalp.paper.committed import save_results
from lalp.paper.verdicts import cited_items
from lalp.paper.world import __main__, measure
from lalp.paper.world.settings import TEACHERS_BY_NAME, load_study
from lalp.paper.world.study import _EMPTY, WorldResults, load_results
from tests.paper.verdict_cells import verdict_cells_table
from tests.paper.world.test_measure import map_tables, study_tables


@pytest.fixture(scope="module")
def study() -> WorldResults:
    return study_tables(5, 300, noise=0.02)


@pytest.fixture(scope="module")
def no_arms() -> WorldResults:
    empty = {name: pd.DataFrame(columns=columns) for name, columns in _EMPTY.items()}
    return WorldResults(study_tables(1).students, **empty, provenance={})


MAP = map_tables(1, 60)  # too little to decide anything


def say(results: WorldResults, long_map: WorldResults = MAP) -> pd.DataFrame:
    run = measure.describe_scale(results)
    return verdict_cells_table("08_step_world", results=results, long_map=long_map, run=run)


def verdicts(*runs: WorldResults) -> dict[str, str]:
    claims = say(*runs).set_index("claim")["verdict"]
    return {claim.removeprefix("Step world: "): verdict for claim, verdict in claims.items()}


def of(found: dict[str, str], words: str) -> str:
    """The verdict on the claim with these words; of two measures, that on both."""
    (verdict,) = {value for claim, value in found.items() if words in claim}
    return verdict


def test_what_the_tables_were_made_to_hold_is_found(study):
    found = verdicts(study, map_tables(5))
    for words in ("highest GALP give", "LALP orders teachers better", "than data selected by GALP",
                  "least accurate", "grows with position", "teachers who restate",
                  "more of GALP's selection"):  # fmt: skip
        assert of(found, words) == "holds"
    # LALP gains with copying and loses without.
    assert of(found, "over all leaps") == "does not hold"


def test_what_happens_in_the_last_tenth_alone_is_told_apart(study):
    gaps = study.gaps.copy()
    gaps.loc[gaps["bin"] == gaps["bin"].max(), "gap"] -= 10
    found = verdicts(replace(study, gaps=gaps))
    text = "the self-conditioning gap grows with position"
    assert found[text] == "does not hold"
    assert found[f"{text}, the last tenth left out"] == "holds"


def test_a_difference_turned_round_turns_the_verdict(study):
    arms = study.arms.replace({"arm": {"galp": "lalp", "lalp": "galp"}})
    # One teacher below 0 refutes the claim on each teacher.
    own, ends = arms["group"] == "thirds: careful", {"highest": "lowest", "lowest": "highest"}
    arms.loc[own, "arm"] = arms.loc[own, "arm"].replace(ends)
    gaps = study.gaps.assign(gap=-study.gaps["gap"])
    found = verdicts(replace(study, arms=arms, gaps=gaps))
    for words in ("than data selected by GALP", "highest GALP give", "grows with position"):
        assert of(found, words) == "does not hold"


def test_students_who_solve_nothing_test_nothing(study):
    arms = study.arms.assign(num_solved=0, solved="0" * 300)
    found = verdicts(replace(study, arms=arms))
    assert of(found, "than data selected by GALP") == "not testable at this scale"
    assert of(found, "LALP orders teachers better") == "not testable at this scale"
    # The gap needs no accuracy.
    assert of(found, "grows with position") == "holds"


def test_too_few_seeds_or_arms_decide_nothing():
    assert set(verdicts(study_tables(2)).values()) == {"not resolved"}
    found = verdicts(study_tables(3, 100, ("rules",), ("random", "galp")))
    for words in ("highest GALP give", "than data selected by GALP", "small window selects"):
        assert of(found, words) == "not resolved"


def test_a_run_without_accepted_students_decides_nothing(no_arms):
    assert "holds" not in verdicts(no_arms).values()


def test_every_number_has_its_interval_and_every_item_exists(study):
    for verdict in say(study, map_tables(3)).itertuples():
        cited_items(verdict.where)
        assert "[" in verdict.run and "nan" not in verdict.run
        assert verdict.claim.startswith("Step world: ")


def test_results_are_read_as_they_were_written(study):
    # All digits 0 would be read as a number.
    solved = study.arms["solved"].where(study.arms["arm"] != "lalp", "0" * 300)
    facts = {"profile": "standard", "hours": 1.5}
    written = replace(study, arms=study.arms.assign(solved=solved), provenance=facts)
    save_results(written, "world_standard")
    read = load_results("standard")
    assert read.provenance == written.provenance
    for name in ("students", "arms", "means", "gaps"):
        one, other = getattr(read, name), getattr(written, name)
        assert_frame_equal(one, other, check_dtype=False, rtol=1e-6)
    # The name of this split stays a name.
    true = replace(study, means=study.means[study.means["split"] == "true"])
    save_results(true, "world_cpu")
    assert set(load_results("cpu").means["split"]) == {"true"}


def test_missing_and_broken_results_name_the_command(study, tmp_path):
    with pytest.raises(InputError, match="make world PROFILE=long"):
        load_results("long")
    save_results(study, "world_standard")
    (tmp_path / "figures" / "world_standard" / "provenance.json").write_text("{")
    with pytest.raises(InputError, match="make world PROFILE=standard"):
        load_results("standard")


def test_make_world_writes_results_with_what_made_them(study, monkeypatch, capsys):
    monkeypatch.setattr(__main__.study, "run_world", lambda _: replace(study, provenance={}))
    __main__.main("standard")
    assert "5 students" in capsys.readouterr().out
    made = load_results("standard").provenance
    assert made["values"] == asdict(load_study("standard"))
    assert made["seeds"][0]["accepted"] == [0, 1, 2, 3, 4] and made["seeds"][0]["rejected"] == []
    assert {teacher["name"] for teacher in made["teachers"]} == set(TEACHERS_BY_NAME)
    assert {
        "date",
        "commit",
        "hours_since_last_start",
        "cores",
        "packages",
        "code",
        "rules",
    } <= set(made)
    assert made["code"]["paper.world"] != made["code"]["students"]
