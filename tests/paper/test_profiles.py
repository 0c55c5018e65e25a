from __future__ import annotations

from dataclasses import asdict

import pytest
import yaml

from lalp.errors import InputError
from lalp.paper.profiles import PROFILES, Profile, load_profile
from lalp.scoring.windows import parse_windows
from lalp.settings import parse_settings

PROFILE = asdict(load_profile("smoke")) | {
    "student": "s",
    "windows": ["0", "4"],
    "main_window": "4",
    "num_prompts": 3,
    "sft_groups": ["rules"],
    "sft_learning_rate": 1e-5,
}
GOOD = yaml.safe_dump(PROFILE, sort_keys=False, default_flow_style=None)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_its_windows_parse(name):
    profile = load_profile(name)
    assert parse_windows(profile.windows)
    assert parse_windows(profile.sweep_windows)


def test_a_good_profile_is_read():
    assert parse_settings(GOOD, "here", Profile).windows == ["0", "4"]
    text = parse_settings(GOOD.replace("1.0e-05", "1e-5"), "here", Profile)
    assert text.sft_learning_rate == 1e-5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("student: s", "student: s\ncolour: red", "unknown key 'colour'"),
        ("student: s\n", "", "key 'student' is missing"),
        ("num_prompts: 3", "num_prompts: three", "line 7: key 'num_prompts' should be a valid"),
        ("num_prompts: 3", "num_prompts: true", "key 'num_prompts' should be a valid integer"),
        ("num_prompts: 3", "num_prompts: 0", "key 'num_prompts' should be greater than 0"),
        ("['0', '4']", "[0, 4]", "key 'windows', item 1, should be a valid string"),
        ("['0', '4']", "[]", "key 'windows' List should have at least 1 item"),
        ("1.0e-05", "-1.0", "key 'sft_learning_rate' should be greater than 0"),
        ("1.0e-05", ".inf", "key 'sft_learning_rate' should be a finite number"),
        ("[rules]", "[rule]", "key 'sft_groups', item 1, should be 'rules', 'equal tokens'"),
        ("main_window: '4'", "main_window: '8'", "'main_window' must be one of 'windows'"),
        ("student: s", "student: [", "not valid YAML"),
    ],
)
def test_bad_profiles_name_the_key(old, new, message):
    with pytest.raises(InputError, match=r"^here") as error:
        parse_settings(GOOD.replace(old, new), "here", Profile)
    assert message in str(error.value)


def test_an_unknown_profile_lists_those_that_exist():
    with pytest.raises(InputError, match="smoke, cpu, full, standard, gpu, paper"):
        load_profile("huge")
