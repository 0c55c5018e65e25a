"""Step world's run profiles: which students, teachers and comparisons, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import get_args, get_origin, get_type_hints

from lalp.errors import InputError
from lalp.paper.world.problems import FAMILIES, LABELS, Teacher
from lalp.scoring.windows import parse_windows
from lalp.settings import read_keys

WORLD_PROFILES = ("smoke", "cpu", "standard", "long")
# Comparisons: one teacher each (Table 2), thirds of one teacher's traces by GALP (Table 1),
# selection rules (Table 3), windows of LALP on true steps (Fig. 3 and 9).
TEACHERS, THIRDS, RULES, WINDOWS = GROUPS = ("teachers", "thirds", "rules", "windows")

# Rules: what is chosen by which score, on which steps, in which window. True steps see the step
# before, which holds what they need; sentences see four, as in the paper's first version. Set
# before any selection was trained on.
RULES_BY_NAME = {
    "random": ("true", "random", "1"),
    "galp": ("true", "galp", "1"),
    "galp-lowest": ("true", "galp-lowest", "1"),
    "lalp": ("true", "lalp", "1"),
    "lalp-lowest": ("true", "lalp-lowest", "1"),
    "lalp full prefix": ("true", "lalp", "all"),
    "lalp-tail": ("true", "lalp-tail", "1"),
    "hybrid": ("true", "hybrid", "1"),
    "rsr": ("true", "rsr", "1"),
    "lalp sentences": ("sentences", "lalp", "4"),
    "lalp paragraphs": ("paragraphs", "lalp", "1"),
}

# All use the same wordings, and all write some sentences without content, so that neither variety
# nor scaffolding alone tells them apart. Set before any selection was trained on.
TEACHERS_BY_NAME = {
    teacher.name: teacher
    for teacher in (
        Teacher("steady", leap=0.05, scaffolding=0.3, checking=0.1),
        Teacher("careful", leap=0.05, scaffolding=0.3, restating=0.5, checking=0.4),
        Teacher("leaper", leap=0.5, scaffolding=0.3, checking=0.1),
        Teacher("fluent leaper", leap=0.5, scaffolding=1.0, restating=0.5, checking=0.4),
    )
}


@dataclass(frozen=True)
class WorldProfile:
    """Values that all units of one run share.

    Attributes:
        families: Families of problems.
        copying: Shares of repetitive documents in the students' pre-training, one student each.
        seeds: Accepted students wanted of each kind.
        most_seeds: Students tried at most of each kind.
        workers: Units that run at the same time, at most one per core.
        pretraining_tokens: Of every student.
        gate_short: Least share of problems of one to three moves that a student must solve.
        gate_whole: Greatest share of whole problems that it may solve.
        fewest_moves: Of a whole problem.
        most_moves: Of a whole problem.
        problems: Whose solutions are selected and trained on.
        samples: Solutions of each by every teacher.
        held_out: Problems that the trained students answer.
        groups: Comparisons among the teachers of `TEACHERS_BY_NAME`; those of the map are rules.
        rules: Of `RULES_BY_NAME`.
        windows: Of LALP on true steps.
        controls: Rules that are laid beside a random choice with their teacher mix.
        leaps: Of the map's second teacher, one cell each; empty without a map.
        scaffoldings: Of the map's second teacher.
        learning_rate: Of the fine-tuning, at its highest.
        epochs: Passes over the selected solutions.
        batch: Solutions per optimizer step.
    """

    families: list[str]
    copying: list[float]
    seeds: int
    most_seeds: int
    workers: int
    pretraining_tokens: int
    gate_short: float
    gate_whole: float
    fewest_moves: int
    most_moves: int
    problems: int
    samples: int
    held_out: int
    groups: list[str]
    rules: list[str]
    windows: list[str]
    controls: list[str]
    leaps: list[float]
    scaffoldings: list[float]
    learning_rate: float
    epochs: int
    batch: int


def load_world_profile(name: str) -> WorldProfile:
    """Load one of the profiles that come with the project.

    Raises:
        InputError: If there is no such profile, or its file does not fit `WorldProfile`.
    """
    if name not in WORLD_PROFILES:
        known = ", ".join(WORLD_PROFILES)
        raise InputError(f"step world has no profile {name!r}: choose one of {known}")
    path = files("lalp").joinpath("paper", "world", "studies", f"{name}.yaml")
    return parse_world_profile(path.read_text(encoding="utf-8"), f"step world profile {name!r}")


def parse_world_profile(text: str, where: str) -> WorldProfile:
    """Read a profile from YAML text.

    Raises:
        InputError: If a key is unknown, missing or of the wrong type; ``where`` begins the message.
    """
    values = read_keys(text, where, WorldProfile)
    kinds = get_type_hints(WorldProfile)
    known = {"families": FAMILIES, "groups": GROUPS, "rules": RULES_BY_NAME}
    known["controls"] = known["rules"]
    for key, value in values.items():
        _check(where, key, value, kinds[key])
        for item in value if key in known else ():
            if item not in known[key]:
                raise InputError(
                    f"{where}: key {key!r}: there is no {item!r}: choose among "
                    f"{', '.join(known[key])}"
                )
    if bool(values["leaps"]) != bool(values["scaffoldings"]):
        raise InputError(f"{where}: a map needs both 'leaps' and 'scaffoldings'")
    return _check_values(where, WorldProfile(**values))


def _check_values(where: str, profile: WorldProfile) -> WorldProfile:
    """Refuse what would fail only after students have been trained."""
    longest = len(LABELS) - 1
    numbers = ("seeds", "most_seeds", "workers", "pretraining_tokens", "problems", "samples")
    bounds = {
        **{key: (getattr(profile, key) >= 1, "at least 1") for key in (*numbers, "held_out")},
        "families": (bool(profile.families), "at least one"),
        "copying": (all(c < 1 for c in profile.copying) and profile.copying, "shares below 1"),
        "fewest_moves": (profile.fewest_moves >= 3, "at least 3"),
        "most_moves": (
            profile.fewest_moves <= profile.most_moves <= longest,
            f"between fewest_moves and {longest}",
        ),
        "leaps": (all(leap <= 1 for leap in profile.leaps), "at most 1 each"),
        "scaffoldings": (all(s <= 2 for s in profile.scaffoldings), "at most 2 each"),
    }
    for key, (fits, wanted) in bounds.items():
        if not fits:
            value = getattr(profile, key)
            raise InputError(f"{where}: key {key!r} must be {wanted}, not {value!r}")
    parse_windows(profile.windows)
    return profile


def _check(where: str, key: str, value: object, kind: object) -> None:
    """Lists may be empty here, and numbers 0."""
    is_list = get_origin(kind) is list
    (item,) = get_args(kind) if is_list else (kind,)
    values = value if isinstance(value, list) else [value]
    fits = isinstance(value, list) == is_list and all(type(v) is item for v in values)
    if not fits or any(isinstance(v, int | float) and v < 0 for v in values):
        wanted = {int: "whole number", float: "number with a point", str: "text"}[item]
        raise InputError(
            f"{where}: key {key!r} must be a {'list of ' * is_list}{wanted}, not {value!r}"
        )
