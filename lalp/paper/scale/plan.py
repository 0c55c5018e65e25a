"""A plan of the paper's experiment: its settings and the arms that its tables need.

A plan names tables of the paper. `SOURCES` says which trained students (arms) the rows of a table
need; the rows are those of `lalp.paper.tables`. `lalp.paper.scale.stages` turns them into stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator
from pydantic import dataclasses as records

from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.files import PACKAGE, cache_dir, read_data
from lalp.paper.scale.models import ModelFacts, find_gpu, find_model
from lalp.paper.tables import BENCHMARKS as MATH_COLUMNS
from lalp.paper.tables import DEEPSEEK, GEMMA, QWEN3, QWEN72B, QWQ, STUDENT_32B, TABLES
from lalp.scoring.windows import parse_windows
from lalp.settings import STRICT, parse_settings

PLANS = ("gpu", "paper")
DECODINGS = ("greedy", "sampled")
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1)]

# The paper's student models that others trained are only evaluated (Sec. C.14).
EVALUATED_ONLY = ("LIMO-32B", "Sky-T1-32B-Preview", "OpenThinker2-32B")
TEACHERS = {
    "limo": (DEEPSEEK, QWQ, QWEN3),
    "math": (QWEN72B, GEMMA, QWQ),
    "code": (DEEPSEEK, QWQ, QWEN3),
}
# Column of the paper's tables: name in `lalp.evaluation.benchmarks`.
COLUMNS = {benchmark.title: name for name, benchmark in BENCHMARKS.items()}


@dataclass(frozen=True)
class Source:
    """Where the numbers of one of the paper's tables come from."""

    pool: str  # limo, math or code: the prompts whose responses students are trained on
    columns: Sequence[str] = MATH_COLUMNS  # keys of COLUMNS that a student is evaluated on
    decoding: str = "greedy"  # one of DECODINGS
    scores: bool = False  # the table also holds scores before training
    mix: bool = False  # it holds the teachers of selected responses; nothing is trained for it


_PRODUCED = read_data("paper/scale/produced.yaml")
SOURCES = {number: Source(**source) for number, source in _PRODUCED["tables"].items()}
NOT_PRODUCED: dict[str, str] = _PRODUCED["not_produced"]


@records.dataclass(frozen=True, config=STRICT)
class Plan:
    """The parts of the paper's experiment to run, and where to run them: one flat YAML file.

    ``plans/paper.yaml`` says what each key means.
    """

    tables: Texts
    students: Texts
    controls: bool
    window_student: str
    stand_ins: list[str]
    published: list[str]
    limo_prompts: PositiveInt
    math_prompts: PositiveInt
    code_prompts: PositiveInt
    min_teachers: PositiveInt
    splitter: Text
    llm_url: str
    llm_model: str
    main_window: Text
    sweep_windows: list[str]
    seeds: Annotated[list[int], Field(min_length=1)]
    recipe: Text
    large_recipe: Text
    short_recipe: Text
    everything: bool
    backend: Literal["vllm", "transformers"]
    gpu: str
    gpus: PositiveInt
    big_gpu: str
    big_gpus: PositiveInt
    accelerate: Text
    big_accelerate: Text

    @model_validator(mode="after")
    def _names_what_exists(self) -> Plan:
        """Refuse values that name nothing: a week of GPU time later would be too late."""
        if wrong := [number for number in self.tables if number not in SOURCES]:
            known = ", ".join(SOURCES)
            raise ValueError(f"key 'tables': {wrong[0]!r} is not produced: choose from {known}")
        if wrong := [pair for pair in self.stand_ins if pair.count("=") != 1]:
            raise ValueError(f"key 'stand_ins': {wrong[0]!r} must be NAME=OTHER")
        others = [*self.published, *self.replaced, *self.replaced.values()]
        for name in filter(None, [*self.students, *others, self.window_student]):
            find_model(name)
        if self.window_student and self.window_student not in self.students:
            raise ValueError("key 'window_student' must be one of 'students'")
        if bool(self.window_student) != bool(self.sweep_windows):
            raise ValueError("keys 'window_student' and 'sweep_windows' go together")
        if wrong := [name for name in self.published if name not in TEACHERS["limo"]]:
            raise ValueError(f"key 'published': {wrong[0]!r} is no teacher of the LIMO prompts")
        if wrong := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
            raise ValueError(f"key 'seeds': {wrong[0]} is given twice")
        parse_windows([self.main_window, *self.sweep_windows])
        if self.splitter == "llm" and not (self.llm_url and self.llm_model):
            raise ValueError("key 'splitter': llm needs 'llm_url' and 'llm_model'")
        find_gpu(self.gpu)
        find_gpu(self.big_gpu)
        return self

    @property
    def replaced(self) -> dict[str, str]:
        """Models that run in place of the paper's, by the paper's name."""
        return dict(pair.split("=") for pair in self.stand_ins)

    def model(self, name: str) -> ModelFacts:
        """The model that runs in place of the paper's ``name``."""
        return find_model(self.replaced.get(name, name))

    def prompts(self, pool: str) -> int:
        """The largest number of prompts of a pool."""
        return getattr(self, f"{pool}_prompts")

    def recipe_of(self, arm: Arm) -> str:
        """Name of the recipe that trains an arm."""
        if arm.pool == "math":
            return self.short_recipe
        return self.large_recipe if arm.student == STUDENT_32B else self.recipe

    def teacher_name(self, pool: str, teacher: str) -> str:
        """A teacher's name in the pool's files: the model that ran in its place."""
        published = pool == "limo" and teacher in self.published
        return teacher if published else self.model(teacher).name


def load_plan(name: str) -> Plan:
    """Load one of the plans that come with the project; an `InputError` if there is none."""
    if name not in PLANS:
        raise InputError(
            f"there is no plan for profile {name!r}: choose {' or '.join(PLANS)} (the smaller "
            "profiles are run by the notebooks: make all)"
        )
    text = (PACKAGE / f"paper/scale/plans/{name}.yaml").read_text("utf-8")
    return parse_settings(text, f"plan {name!r}", Plan)


# --- arms: rows of tables ----------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One student and what it is trained on.

    The rules are those of `lalp.select`, ``original`` (not trained), ``all`` (every teacher's
    response to every prompt) and ``control`` (random, with the teacher mix of ``lalp``).
    """

    student: str  # as named in the paper
    pool: str = ""  # limo, math or code; empty if nothing is trained
    rule: str = "original"
    teacher: str = ""  # chosen among this teacher's responses only
    window: str = ""  # window of lalp and lalp-lowest, if it is not the main one

    @property
    def name(self) -> str:
        """Names the arm in files: letters, digits, dots, dashes and underscores."""
        if not self.pool:
            return f"{self.student}_original"
        what = self.rule + (f"-w{self.window.replace('%', 'pct')}" if self.window else "")
        return "_".join(filter(None, [self.student, self.pool, self.teacher, what]))


_THIRDS = {"highest": "galp", "middle": "galp-middle", "lowest": "galp-lowest"}


def arm_of_row(number: str, row: Sequence[str]) -> Arm:
    """The arm behind a row of one of the ``SOURCES``; for Table 1 a student, teacher and third."""
    student, *what = row
    pool = SOURCES[number].pool
    if "original" in what:
        return Arm(student)
    if what[0] in EVALUATED_ONLY:
        return Arm(what[0])
    if what[0] == "all teachers":
        return Arm(student, pool, "all")
    if len(what) == 2:
        return Arm(student, pool, _THIRDS[what[1]], what[0])
    if what[0] in TEACHERS[pool]:
        return Arm(student, pool, "random", what[0])
    return Arm(student, pool, what[0])


def table_arms(plan: Plan, number: str) -> dict[tuple[str, ...], Arm]:
    """Arms of one table by row, of the plan's students only."""
    frame = TABLES[number].frame
    thirds = [(column,) for column in frame.columns] if number == "1" else [()]
    rows = [(*row, *third) for row in frame.index if row[0] in plan.students for third in thirds]
    return {row: arm_of_row(number, row) for row in rows}


@dataclass(frozen=True)
class Need:
    """An arm and its uses."""

    arm: Arm
    tables: tuple[str, ...]  # the paper's tables and figures with a number of this arm
    columns: dict[str, tuple[str, ...]]  # benchmarks that it is evaluated on, by decoding


def plan_needs(plan: Plan) -> list[Need]:
    """Every arm of the plan once, in order of first need."""
    uses: dict[Arm, list[tuple[str, Source]]] = {}
    for number in plan.tables:
        for arm in table_arms(plan, number).values():
            uses.setdefault(arm, []).append((number, SOURCES[number]))
    long = SOURCES["3"]
    if plan.controls and {"3", "10"} & set(plan.tables):
        students = TABLES["3"].frame.index.unique("student")
        for student in (name for name in students if name in plan.students):
            uses.setdefault(Arm(student, "limo", "control"), []).append(("control", long))
    for window in plan.sweep_windows:
        # The main window's arm is that of the tables, so it is not trained twice.
        same = parse_windows([window]) == parse_windows([plan.main_window])
        arm = Arm(plan.window_student, "limo", "lalp", window="" if same else window)
        uses.setdefault(arm, []).append(("Fig. 9", long))
    needs = []
    for arm, pairs in uses.items():
        tables = tuple(dict.fromkeys(number for number, _ in pairs))
        wanted = {(source.decoding, column) for _, source in pairs for column in source.columns}
        columns = {}
        for decoding in DECODINGS:
            found = tuple(c for c in COLUMNS if plan.everything or (decoding, c) in wanted)
            columns |= {decoding: found} if found else {}
        needs.append(Need(arm, tables, columns))
    return needs


def accelerate_file(name: str) -> str:
    """File for ``accelerate launch``: one of the project's by name, or a path."""
    if name.endswith(".yaml"):
        return name
    files = {path.stem: path for path in (PACKAGE / "training/accelerate").glob("*.yaml")}
    if name not in files:
        known = ", ".join(sorted(files))
        raise InputError(f"there is no configuration {name!r} for accelerate: choose {known}")
    return _relative(files[name])


def run_folder(kind: str, profile: str) -> str:
    """Folder of a plan's outputs, below the build folder; relative if possible."""
    return _relative(cache_dir() / kind / profile)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
