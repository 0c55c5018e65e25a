"""Step world's studies: those of the project load, others say which key is wrong."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import product

import pytest

from lalp.errors import InputError
from lalp.paper.world.problems import make_problems
from lalp.paper.world.settings import RULES_BY_NAME, STUDIES, TEACHERS_BY_NAME, Study, load_study
from lalp.paper.world.study import map_teachers
from lalp.scoring.windows import parse_windows
from lalp.selection.rules import RULES as SELECTION_RULES
from lalp.settings import parse_settings
from lalp.steps.splitters import check_splitter

FOLDER = files("lalp").joinpath("paper", "world", "studies")
GOOD = FOLDER.joinpath("long.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads_and_can_be_run(name):
    study = load_study(name)
    assert 1 <= study.seeds <= study.most_seeds
    assert set(study.controls) <= set(study.rules)
    for family in study.families:
        moves = range(study.fewest_moves, study.most_moves + 1)
        assert len(make_problems(family, moves, study.held_out, (0,))) == study.held_out
        assert len(make_problems(family, (1, 2, 3), study.held_out, (0,))) == study.held_out
    for leap, scaffolding in product(study.leaps, study.scaffoldings):
        map_teachers(leap, scaffolding)
    if "thirds" in study.groups and name != "smoke":
        assert study.samples >= 3


def test_every_file_is_a_study():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.yaml" for name in STUDIES}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "seeds: 5\n",
            "seeds: 5\nseed: 2\n",
            "unknown key 'seed': did you mean 'seeds'? There are families, copying",
        ),
        ("seeds: 5\n", "seeds: 2.0\n", "line 4: key 'seeds' should be a valid integer, not 2.0"),
        ("[0.0, 0.2]", "[0.0, 1.0]", "key 'copying', item 2, should be less than 1, not 1.0"),
        ("[0.0, 0.2]", "[]", "key 'copying' List should have at least 1 item"),
        ("[registers, paths]", "[sums]", "'families', item 1, should be 'registers' or"),
        ("[rules]", "[rule]", "key 'groups', item 1, should be 'teachers',"),
        ('["galp", "lalp"', '["galp", "lapl"', "key 'rules', item 2, should be 'random',"),
        ("controls: []", 'controls: ["best"]', "'controls', item 1, should be 'random'"),
        ("most_moves: 12", "most_moves: 13", "'most_moves' should be less than or equal to 12"),
        ("most_moves: 12", "most_moves: 7", "'most_moves' must be at least fewest_moves"),
        ('["1"]', '["x"]', "window 'x' is not understood"),
        ("leaps: [0.1, 0.3, 0.6]", "leaps: []", "a map needs both 'leaps' and 'scaffoldings'"),
        ("scaffoldings: [0.0, 0.5, 1.0]", "scaffoldings: []", "a map needs both 'leaps' and"),
        ("seeds: 5\n", "", "key 'seeds' is missing"),
    ],
)
def test_bad_studies_name_the_key(old, new, message):
    assert old in GOOD
    with pytest.raises(InputError, match=f"^here.*{re.escape(message)}"):
        parse_settings(GOOD.replace(old, new), "here", Study)


def test_an_unknown_study_lists_those_that_exist():
    with pytest.raises(InputError, match="no study 'huge': choose one of smoke, cpu, standard"):
        load_study("huge")


def test_rules_and_teachers_are_what_the_project_knows():
    for split, rule, window in RULES_BY_NAME.values():
        assert rule in SELECTION_RULES
        parse_windows([window])
        if split != "true":
            check_splitter(split)
    assert all(name == teacher.name for name, teacher in TEACHERS_BY_NAME.items())
    assert len({teacher.variety for teacher in TEACHERS_BY_NAME.values()}) == 1
    assert all(teacher.scaffolding > 0 for teacher in TEACHERS_BY_NAME.values())
