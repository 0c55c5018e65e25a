"""A plan of the paper's experiment: its settings and the arms that its tables need.

A plan names tables of the paper. `SOURCES` says which trained students (arms) the rows of a table
need; the rows are those of `lalp.paper.tables`. `lalp.paper.scale.stages` turns them into stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator
from pydantic import dataclasses as records

from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.files import PACKAGE, cache_dir, read_data
from lalp.paper import tables as paper
from lalp.paper.models import GPUS, MODELS, ModelFacts, find_model
from lalp.scoring.windows import parse_windows
from lalp.settings import STRICT, parse_settings

DECODINGS = ("greedy", "sampled")
Text = Annotated[str, Field(min_length=1)]
Model = Literal[*MODELS]

# The paper's student models that others trained are only evaluated (Sec. C.14).
EVALUATED_ONLY = ("LIMO-32B", "Sky-T1-32B-Preview", "OpenThinker2-32B")
TEACHERS = {
    "limo": (paper.DEEPSEEK, paper.QWQ, paper.QWEN3),
    "math": (paper.QWEN72B, paper.GEMMA, paper.QWQ),
    "code": (paper.DEEPSEEK, paper.QWQ, paper.QWEN3),
}
# Column of the paper's tables: name in `lalp.evaluation.benchmarks`.
COLUMNS = {benchmark.title: name for name, benchmark in BENCHMARKS.items()}


@dataclass(frozen=True)
class Source:
    """Where the numbers of one of the paper's tables come from."""

    pool: str  # limo, math or code: the prompts whose responses students are trained on
    columns: Sequence[str] = paper.BENCHMARKS  # keys of COLUMNS that a student is evaluated on
    decoding: str = "greedy"  # one of DECODINGS
    scores: bool = False  # the table also holds scores before training
    mix: bool = False  # it holds the teachers of selected responses; nothing is trained for it


_PRODUCED = read_data("paper/scale/produced.yaml")
SOURCES = {number: Source(**source) for number, source in _PRODUCED["tables"].items()}
NOT_PRODUCED: dict[str, str] = _PRODUCED["not_produced"]


def _list(*values: str | int) -> Any:
    return field(default_factory=lambda: list(values))


@records.dataclass(frozen=True, config=STRICT)
class Plan:
    """The parts of the paper's experiment to run, and where: by default all, on the paper's node.

    A flat YAML file gives the keys that differ. Files that it names need their whole path.
    """

    tables: Annotated[list[Literal[*SOURCES]], Field(min_length=1)] = _list(*SOURCES)
    students: Annotated[list[Model], Field(min_length=1)] = _list(
        paper.STUDENT_7B, paper.STUDENT_32B, paper.STUDENT_LLAMA, paper.STUDENT_MATH
    )
    # Also train on a random choice with LALP's teacher mix: the paper has no such control.
    controls: bool = True
    # Fig. 9 names no student: the smallest; empty for none. Shares above 10 % cost far more to
    # score than all other windows together on responses of 400 steps.
    window_student: str = paper.STUDENT_7B
    sweep_windows: list[str] = _list("0", "2", "8", "5%", "10%")
    stand_ins: list[str] = _list()  # NAME=OTHER runs another model in place of the paper's
    # Teachers whose responses are taken from the LIMO data set instead of being sampled.
    # [DeepSeek-R1] spares the node for a model of 671 billion weights.
    published: list[Literal[*TEACHERS["limo"]]] = _list()
    limo_prompts: PositiveInt = 817  # at most, as are the next two
    math_prompts: PositiveInt = 8890
    code_prompts: PositiveInt = 5000
    min_teachers: PositiveInt = 3  # every arm is trained on the prompts that so many solved
    splitter: Text = "sentences"  # llm is the paper's: lalp segment asks a server at llm_url
    llm_url: str = ""
    llm_model: str = "zai-org/GLM-4.5-Air"
    # Not stated for Tables 2 and 3; four sentences in the paper's first version.
    main_window: Text = "4"
    # The paper reports no seeds. Each further one trains and evaluates all students again.
    seeds: Annotated[list[int], Field(min_length=1)] = _list(0)
    # Recipes of lalp train: long responses, the same for the 32B student, responses to MATH.
    recipe: Text = "paper"
    large_recipe: Text = "paper-32b"
    short_recipe: Text = "terciles"
    # Evaluate everyone on everything, greedy and sampled, instead of what the tables hold.
    everything: bool = False
    backend: Literal["vllm", "transformers"] = "vllm"
    gpu: Literal[*GPUS] = "A100-80GB"  # Sec. B.4
    gpus: PositiveInt = 4
    big_gpu: Literal[*GPUS] = "H200-141GB"  # node for models that do not fit (DeepSeek-R1)
    big_gpus: PositiveInt = 8
    # Files of `accelerate launch`; the second keeps optimizer states on the host.
    accelerate: Text = "zero3"
    big_accelerate: Text = "zero3-offload"

    @model_validator(mode="after")
    def _names_what_exists(self) -> Plan:
        """Refuse values that name nothing: a week of GPU time later would be too late."""
        if wrong := [pair for pair in self.stand_ins if pair.count("=") != 1]:
            raise ValueError(f"key 'stand_ins': {wrong[0]!r} must be NAME=OTHER")
        for name in (*self.replaced, *self.replaced.values()):
            find_model(name)
        if self.window_student and self.window_student not in self.students:
            raise ValueError("key 'window_student' must be one of 'students'")
        if bool(self.window_student) != bool(self.sweep_windows):
            raise ValueError("keys 'window_student' and 'sweep_windows' go together")
        if wrong := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
            raise ValueError(f"key 'seeds': {wrong[0]} is given twice")
        parse_windows([self.main_window, *self.sweep_windows])
        if self.splitter == "llm" and not (self.llm_url and self.llm_model):
            raise ValueError("key 'splitter': llm needs 'llm_url' and 'llm_model'")
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
        return self.large_recipe if arm.student == paper.STUDENT_32B else self.recipe

    def teacher_name(self, pool: str, teacher: str) -> str:
        """A teacher's name in the pool's files: the model that ran in its place."""
        published = pool == "limo" and teacher in self.published
        return teacher if published else self.model(teacher).name


def load_plan(name: str) -> Plan:
    """Load a plan that comes with the project, or a YAML file; an `InputError` if there is none."""
    if name == "paper":
        return Plan()
    path = Path(name) if name.endswith(".yaml") else PACKAGE / f"paper/scale/plans/{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"there is no plan for profile {name!r}: choose gpu or paper, or give a .yaml "
            "file (the smaller profiles are run by the notebooks: make all)"
        )
    return parse_settings(path.read_text("utf-8"), f"plan {name!r}", Plan)


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
    seed: int = 0

    @property
    def name(self) -> str:
        """Names the arm in files: letters, digits, dots, dashes and underscores."""
        return f"{self._unseeded}-s{self.seed}" if self.pool else self._unseeded

    @property
    def choice(self) -> str:
        """Names what it is trained on; if that depends on chance, each seed has its own."""
        return self.name if self.rule in ("random", "control", "all") else self._unseeded

    @property
    def _unseeded(self) -> str:
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
    frame = paper.TABLES[number].frame
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
    """Every arm of the plan once per seed, in order of first need; an original has one seed."""
    uses: dict[Arm, list[tuple[str, Source]]] = {}
    for number in plan.tables:
        for arm in table_arms(plan, number).values():
            uses.setdefault(arm, []).append((number, SOURCES[number]))
    long = SOURCES["3"]
    if plan.controls and {"3", "10"} & set(plan.tables):
        students = paper.TABLES["3"].frame.index.unique("student")
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
        seeds = plan.seeds if arm.pool else plan.seeds[:1]
        needs += [Need(replace(arm, seed=seed), tables, columns) for seed in seeds]
    return needs


def run_folder(kind: str, profile: str) -> str:
    """Folder of a plan's outputs, below the build folder."""
    return str(cache_dir() / kind / Path(profile).stem)
