"""Step world's run profiles: those of the project load, others say which key is wrong."""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files

import pytest
import yaml

from lalp.errors import InputError
from lalp.paper.world.problems import FAMILIES, Teacher, make_problems
from lalp.paper.world.profiles import (
    GROUPS,
    RULES_BY_NAME,
    TEACHERS_BY_NAME,
    WORLD_PROFILES,
    WorldProfile,
    load_world_profile,
    parse_world_profile,
)
from lalp.scoring.windows import parse_windows
from lalp.selection.rules import RULES as SELECTION_RULES
from lalp.steps.splitters import check_splitter

GOOD = """
families: [registers, paths]
copying: [0.0, 0.3]
seeds: 2
most_seeds: 4
workers: 2
pretraining_tokens: 1000
gate_short: 0.9
gate_whole: 0.3
fewest_moves: 8
most_moves: 12
problems: 10
samples: 2
held_out: 10
groups: [rules, windows]
rules: ["random", "galp", "lalp sentences"]
windows: ["0", "all"]
controls: ["galp"]
leaps: [0.1]
scaffoldings: [0.5]
learning_rate: 1.0e-3
epochs: 1
batch: 8
"""


@pytest.mark.parametrize("name", WORLD_PROFILES)
def test_every_profile_loads_and_can_be_run(name):
    profile = load_world_profile(name)
    parse_windows(profile.windows)
    assert 1 <= profile.seeds <= profile.most_seeds
    assert set(profile.controls) <= set(profile.rules)
    assert all(0 <= share < 1 for share in profile.copying)
    for family in profile.families:
        moves = range(profile.fewest_moves, profile.most_moves + 1)
        assert len(make_problems(family, moves, profile.held_out, (0,))) == profile.held_out
        assert len(make_problems(family, (1, 2, 3), profile.held_out, (0,))) == profile.held_out
    for leap in profile.leaps:
        for scaffolding in profile.scaffoldings:
            Teacher("fluent", leap=leap, scaffolding=scaffolding)
    if "thirds" in profile.groups and name != "smoke":
        assert profile.samples >= 3


def test_every_file_is_a_profile():
    folder = files("lalp").joinpath("paper", "world", "studies")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.yaml" for name in WORLD_PROFILES
    )


def test_a_good_profile_is_read():
    profile = parse_world_profile(GOOD, "here")
    assert profile.families == ["registers", "paths"]
    assert (profile.learning_rate, profile.leaps) == (1e-3, [0.1])


@pytest.mark.parametrize("key", [field.name for field in fields(WorldProfile)])
def test_every_key_is_needed_and_of_its_type(key):
    values = yaml.safe_load(GOOD)
    with pytest.raises(InputError, match=f"here: key '{key}' is missing"):
        parse_world_profile(yaml.safe_dump({k: values[k] for k in values if k != key}), "here")
    for wrong in ("three", True, {"a": 1}, [True], [[1]], -1, None):
        with pytest.raises(InputError, match=f"here: key '{key}' must be a ") as error:
            parse_world_profile(yaml.safe_dump(values | {key: wrong}), "here")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: 2\n", "seeds: 2\nseed: 2\n", "unknown key 'seed': known are families, copying"),
        ("seeds: 2\n", "seeds: 2.0\n", "key 'seeds' must be a whole number, not 2.0"),
        ("1.0e-3", "1e-3", "key 'learning_rate' must be a number with a point, not '1e-3'"),
        ("[0.0, 0.3]", "[0, 0.3]", "key 'copying' must be a list of number with a point"),
        ('["0", "all"]', "[0, all]", "key 'windows' must be a list of text"),
        ("[registers, paths]", "registers", "key 'families' must be a list of text"),
        ("[registers, paths]", "[sums]", "key 'families': there is no 'sums': choose among"),
        ("[rules, windows]", "[rule]", "key 'groups': there is no 'rule': choose among teachers"),
        ('"galp", "lalp s', '"glap", "lalp s', "key 'rules': there is no 'glap': choose among"),
        ('controls: ["galp"]', 'controls: ["best"]', "key 'controls': there is no 'best'"),
        ("leaps: [0.1]", "leaps: []", "a map needs both 'leaps' and 'scaffoldings'"),
        ("scaffoldings: [0.5]", "scaffoldings: []", "a map needs both 'leaps' and"),
        ("families: [", "families: [[", "not valid YAML"),
        (GOOD, "- 1", "expected lines of the form"),
    ],
)
def test_bad_profiles_name_the_key(old, new, message):
    assert old in GOOD
    with pytest.raises(InputError) as error:
        parse_world_profile(GOOD.replace(old, new), "here")
    assert str(error.value).startswith("here: ")
    assert message in str(error.value)


def test_an_unknown_profile_lists_those_that_exist():
    with pytest.raises(InputError, match="no profile 'huge': choose one of smoke, cpu, standard"):
        load_world_profile("huge")


def test_rules_and_teachers_are_what_the_project_knows():
    for split, rule, window in RULES_BY_NAME.values():
        assert rule in SELECTION_RULES
        parse_windows([window])
        if split != "true":
            check_splitter(split)
    assert all(name == teacher.name for name, teacher in TEACHERS_BY_NAME.items())
    assert len({teacher.variety for teacher in TEACHERS_BY_NAME.values()}) == 1
    assert all(teacher.scaffolding > 0 for teacher in TEACHERS_BY_NAME.values())
    assert (GROUPS, FAMILIES) == (("teachers", "thirds", "rules", "windows"), FAMILIES)
