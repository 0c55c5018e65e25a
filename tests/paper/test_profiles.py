from __future__ import annotations

import pytest

from lalp.errors import InputError
from lalp.paper.profiles import PROFILES, load_profile, parse_profile
from lalp.scoring.windows import parse_windows

GOOD = """
student: s
pool: champ
splitter: sentences
windows: ["0", "4"]
main_window: "4"
num_prompts: 3
responses_per_teacher: 1
sweep_windows: ["50%"]
sweep_prompts: 2
splitters: [paragraphs]
splitter_prompts: 2
embedder: all-minilm-l6-v2
coverage_prompts: 2
num_resamples: 10
sft_prompts: 2
sft_rules: [galp]
sft_groups: [rules]
sft_windows: ["0"]
sft_teachers: [A]
sft_seeds: 1
sft_epochs: 1
sft_batch: 1
sft_learning_rate: 1.0e-5
sft_workers: 1
held_out_prompts: 1
held_out_teachers: 1
eval_prompts: 1
eval_samples: 1
eval_max_tokens: 8
"""


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_its_windows_parse(name):
    profile = load_profile(name)
    assert parse_windows(profile.windows)
    assert parse_windows(profile.sweep_windows)


def test_a_good_profile_is_read():
    assert parse_profile(GOOD, "here").windows == ["0", "4"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("student: s", "students: s", "unknown key 'students'"),
        ("student: s\n", "", "key 'student' is missing"),
        ("num_prompts: 3", "num_prompts: three", "key 'num_prompts' must be a whole number"),
        ("num_prompts: 3", "num_prompts: true", "key 'num_prompts' must be a whole number"),
        ("num_prompts: 3", "num_prompts: 0", "key 'num_prompts' must be a whole number from 1"),
        ('["0", "4"]', "[0, 4]", "key 'windows' must be a list of str"),
        ("1.0e-5", "-1.0", "key 'sft_learning_rate' must be a number above 0"),
        ("1.0e-5", "1e-5", "key 'sft_learning_rate' must be a number above 0, not '1e-5'"),
        ("[rules]", "[rule]", "key 'sft_groups': there is no comparison 'rule'"),
        ('main_window: "4"', 'main_window: "8"', "'main_window' must be one of 'windows'"),
        ("student: s", "student: [", "not valid YAML"),
    ],
)
def test_bad_profiles_name_the_key(old, new, message):
    with pytest.raises(InputError, match="here: ") as error:
        parse_profile(GOOD.replace(old, new), "here")
    assert message in str(error.value)


def test_an_unknown_profile_lists_those_that_exist():
    with pytest.raises(InputError, match="smoke, cpu, standard, gpu, paper"):
        load_profile("huge")
