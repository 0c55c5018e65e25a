"""The pilot: levels in turn until both gates hold; the study reads what it found."""

from __future__ import annotations

import pandas as pd
import pytest
from typer import Exit

from lalp.errors import InputError
from lalp.paper.words import __main__, pilot
from lalp.paper.words.settings import FAMILIES, LEVELS, load_study
from lalp.paper.words.study import WordResults


def shares(untrained: float, best: float) -> dict[str, float]:
    return {"before training": untrained, **dict.fromkeys(FAMILIES, 0.01), "leaping": best}


@pytest.fixture
def world(monkeypatch) -> dict[tuple[int, int], dict[str, float]]:
    """Accuracies by level, in place of training; with the levels that were asked for."""
    by_level = {level: shares(0.05, 0.2) for level in LEVELS}

    def collect(units: list) -> WordResults:
        (unit,) = units
        assert not unit.ranked and unit.seed == 100
        found = by_level[unit.study.fewest_operations, unit.study.most_operations]
        rows = [{"arm": arm, "num_solved": round(300 * share), "num_problems": 300, "solved": "01"}
                for arm, share in found.items()]  # fmt: skip
        chosen = pd.DataFrame({"arm": list(FAMILIES), "num_examples": 200})
        empty = pd.DataFrame()
        return WordResults(chosen, empty, empty, empty, empty, pd.DataFrame(rows), {})

    monkeypatch.setattr(pilot, "run_units", lambda units: None)
    monkeypatch.setattr(pilot, "collect", collect)
    return by_level


def test_the_first_level_that_passes_is_the_studys(world, monkeypatch, capsys):
    world[3, 3] = shares(0.1, 0.3)
    pilot.main(workers=1)
    assert "leaping" in capsys.readouterr().out
    assert pilot.find_level() == (3, 3)
    table = pd.read_csv("figures/words_pilot/pilot.csv")
    assert table[["fewest", "most"]].drop_duplicates().values.tolist() == [[3, 5], [3, 4], [3, 3]]
    asked = []
    monkeypatch.setattr(__main__, "run_study", asked.append)
    __main__.main(workers=3)
    assert asked[0].operations == range(3, 4) and asked[0].workers == 3


def test_too_able_a_student_ends_the_pilot_at_once(world, capsys):
    world[3, 5] = shares(0.11, 0.2)
    with pytest.raises(Exit):
        pilot.main()
    said = capsys.readouterr().out
    assert "untrained student has 0.11" in said and "best single teacher has 0.20" in said
    with pytest.raises(InputError, match="no level of difficulty passed"):
        pilot.find_level()
    assert set(pd.read_csv("figures/words_pilot/pilot.csv")["most"]) == {5}


def test_no_level_is_easy_enough(world):
    tables = []
    table = pilot.run_pilot(load_study(), LEVELS, tables.append)
    assert len(tables) == len(LEVELS) and len(table) == 7 * len(LEVELS)


def test_the_own_family_is_not_a_teacher_of_the_gate(world):
    world[3, 5] = shares(0.0, 0.2) | {"own family": 0.9}
    assert set(pilot.faults(pilot.run_pilot(load_study(), LEVELS[:1], lambda _: None))) == {
        "teachers"
    }


def test_without_a_pilot_there_is_no_study():
    with pytest.raises(InputError, match="run make words PILOT=1"):
        __main__.main()
