"""The paper's experiment from sampling to its tables, as a list of stages made by pure functions.

A stage is command lines with the files they read and write. `make_stages` writes them for the
tables that a pipeline file names: which rows of which table need which trained student is stated in
`SOURCES`, rows themselves are those of `lalp.paper.tables`. `lalp.paper.scale.costs` says what the
stages cost, `lalp.paper.scale.run` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS
from lalp.files import build_dir
from lalp.paper.scale.models import ModelFacts, find_gpu, find_model
from lalp.paper.tables import BENCHMARKS as MATH_COLUMNS
from lalp.paper.tables import DEEPSEEK, GEMMA, QWEN3, QWEN72B, QWQ, STUDENT_32B, TABLES
from lalp.scoring.windows import parse_windows
from lalp.settings import read_keys

PIPELINES = ("gpu", "paper")
DECODINGS = ("greedy", "sampled")

# The paper's student models that others trained are evaluated only (Sec. C.14).
EVALUATED_ONLY = ("LIMO-32B", "Sky-T1-32B-Preview", "OpenThinker2-32B")
TEACHERS = {
    "limo": (DEEPSEEK, QWQ, QWEN3),
    "math": (QWEN72B, GEMMA, QWQ),
    "code": (DEEPSEEK, QWQ, QWEN3),
}
# Column of the paper's tables: name in `lalp.evaluation.benchmarks`.
COLUMNS = {benchmark.title: name for name, benchmark in BENCHMARKS.items()}
PROBLEMS = {name: benchmark.size for name, benchmark in BENCHMARKS.items()}


@dataclass(frozen=True)
class Source:
    """Where the numbers of one of the paper's tables come from.

    Attributes:
        pool: ``limo``, ``math`` or ``code``: whose responses the students are trained on.
        columns: Keys of ``COLUMNS`` that a student must be evaluated on.
        decoding: ``greedy`` or ``sampled``.
        scores: The table holds scores before training as well.
        mix: The table holds the teachers of what was selected; nothing is trained for it.
    """

    pool: str
    columns: tuple[str, ...] = MATH_COLUMNS
    decoding: str = "greedy"
    scores: bool = False
    mix: bool = False


SOURCES: dict[str, Source] = {
    "1": Source("math"),
    "2": Source("limo", scores=True),
    "3": Source("limo"),
    "8": Source("limo", columns=(), mix=True),
    "9": Source("limo", scores=True),
    "10": Source("limo"),
    "13": Source("math"),
    "14": Source("math"),
    "15": Source("limo", columns=("GPQA",)),
    "16": Source("code", columns=("LCB",)),
    "17": Source("limo", columns=(*MATH_COLUMNS, "GPQA")),
    "18": Source("limo", decoding="sampled"),
    "19": Source("limo", columns=(*MATH_COLUMNS, "GPQA")),
}
NOT_PRODUCED: dict[str, str] = {
    "4": "attribution needs no trained student: 02_token_attribution on the scored pool",
    "5": "settings of sampling: they are the presets table5-greedy and table5-sampled",
    "6": "settings of training: they are the recipes",
    "7": "settings of evaluation: they are the presets table7-greedy and table7-sampled",
    "11": "four examples chosen by the authors, not a measurement: 01_coverage shows nearest "
    "neighbours of the scored pool",
    "12": "four examples chosen by the authors, not a measurement: 01_coverage shows nearest "
    "neighbours of the scored pool",
}


# --- settings --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pipeline:
    """Settings of a pipeline: one flat YAML file.

    Attributes:
        tables: Numbers of the paper's tables to produce.
        students: Rows of these students only, named as in the paper.
        controls: Also train on a random choice that is matched to LALP's teacher mix.
        window_student: Student of the window arms (Fig. 9); empty: no such arms.
        stand_ins: ``NAME=OTHER``: run another model in the place of one of the paper's.
        published: Teachers whose LIMO responses come with the data set and are not sampled.
        limo_prompts: LIMO prompts at most.
        math_prompts: MATH prompts of levels 3-5 at most.
        code_prompts: Programming prompts at most.
        min_teachers: LIMO prompts that fewer teachers solved are left out of every arm.
        splitter: ``sentences``, ``paragraphs``, or ``llm`` (the paper's; needs a server).
        llm_url: OpenAI-compatible server of ``llm``.
        llm_model: Its model.
        main_window: LALP's window.
        sweep_windows: Windows of the window arms.
        seeds: Every arm is trained with each.
        recipe: Recipe of students trained on long responses (`lalp.training.recipes.RECIPES`).
        large_recipe: The same for the 32B student.
        short_recipe: Recipe of students trained on responses to MATH prompts (Sec. C.9).
        everything: Evaluate every student on every benchmark, greedy and sampled, not only where
            a table needs it.
        backend: ``vllm`` or ``transformers``.
        gpu: A key of `lalp.paper.scale.models.GPUS`.
        gpus: GPUs of the node.
        big_gpu: GPU of the node for models that do not fit the first.
        big_gpus: Its GPUs.
        accelerate: Configuration of ``accelerate launch``: a name in ``lalp/training/accelerate``,
            or a file.
        big_accelerate: The same for students whose training states do not fit the GPUs.
    """

    tables: list[str]
    students: list[str]
    controls: bool
    window_student: str
    stand_ins: list[str]
    published: list[str]
    limo_prompts: int
    math_prompts: int
    code_prompts: int
    min_teachers: int
    splitter: str
    llm_url: str
    llm_model: str
    main_window: str
    sweep_windows: list[str]
    seeds: list[int]
    recipe: str
    large_recipe: str
    short_recipe: str
    everything: bool
    backend: str
    gpu: str
    gpus: int
    big_gpu: str
    big_gpus: int
    accelerate: str
    big_accelerate: str


# May be empty: nothing is asked for then.
_OPTIONAL = frozenset(
    {"stand_ins", "published", "sweep_windows", "window_student", "llm_url", "llm_model"}
)


def load_pipeline(name: str) -> Pipeline:
    """Load one of the pipelines that come with the project.

    Raises:
        InputError: If there is no such pipeline, or its file does not fit `Pipeline`.
    """
    if name not in PIPELINES:
        raise InputError(
            f"there is no pipeline for profile {name!r}: choose {' or '.join(PIPELINES)} (the "
            "smaller profiles are run by the notebooks: make all)"
        )
    text = files("lalp").joinpath("paper", "scale", "plans", f"{name}.yaml").read_text("utf-8")
    return parse_pipeline(text, f"pipeline {name!r}")


def parse_pipeline(text: str, where: str) -> Pipeline:
    """Read a pipeline from YAML text.

    Raises:
        InputError: If a key is unknown, missing or of the wrong type, or a value names nothing
            that exists; ``where`` begins the message.
    """
    values = read_keys(text, where, Pipeline)
    known = get_type_hints(Pipeline)
    for key, value in values.items():
        _check_type(where, key, value, known[key])
    pipeline = Pipeline(**values)
    try:
        _check_values(pipeline)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return pipeline


def _check_type(where: str, key: str, value: Any, expected: Any) -> None:
    if get_origin(expected) is list:
        (item,) = get_args(expected)
        fits = isinstance(value, list) and all(type(v) is item for v in value)
        fits = fits and (bool(value) or key in _OPTIONAL)
        wanted = f"a list of {item.__name__} values"
    else:
        fits = type(value) is expected and not (expected is int and value < 1)
        fits = fits and (value != "" or key in _OPTIONAL)
        wanted = "a whole number from 1" if expected is int else f"a {expected.__name__} value"
    if not fits:
        raise InputError(f"{where}: key {key!r} must be {wanted}, not {value!r}")


def _check_values(pipeline: Pipeline) -> None:
    """Refuse values that name nothing: a week of GPU time is too late to find out."""
    for number in pipeline.tables:
        if number not in SOURCES:
            raise InputError(
                f"key 'tables': {number!r} is not produced: choose from {', '.join(SOURCES)}"
            )
    for pair in pipeline.stand_ins:
        if pair.count("=") != 1:
            raise InputError(f"key 'stand_ins': {pair!r} must be NAME=OTHER")
    named = [*pipeline.students, *pipeline.published, *stand_ins(pipeline), pipeline.window_student]
    for name in [*named, *stand_ins(pipeline).values()]:
        if name:
            find_model(name)
    if pipeline.window_student and pipeline.window_student not in pipeline.students:
        raise InputError("key 'window_student' must be one of 'students'")
    if bool(pipeline.window_student) != bool(pipeline.sweep_windows):
        raise InputError("keys 'window_student' and 'sweep_windows' go together")
    for name in pipeline.published:
        if name not in TEACHERS["limo"]:
            raise InputError(f"key 'published': {name!r} is no teacher of the LIMO prompts")
    if repeated := [n for n in pipeline.seeds if pipeline.seeds.count(n) > 1]:
        raise InputError(f"key 'seeds': {repeated[0]} is given twice")
    parse_windows([pipeline.main_window, *pipeline.sweep_windows])
    if pipeline.splitter == "llm" and not (pipeline.llm_url and pipeline.llm_model):
        raise InputError("key 'splitter': llm needs 'llm_url' and 'llm_model'")
    if pipeline.backend not in ("vllm", "transformers"):
        raise InputError(f"key 'backend': {pipeline.backend!r} is neither vllm nor transformers")
    find_gpu(pipeline.gpu)
    find_gpu(pipeline.big_gpu)


def stand_ins(pipeline: Pipeline) -> dict[str, str]:
    """Models that run in the place of the paper's, by the paper's name."""
    return dict(pair.split("=") for pair in pipeline.stand_ins)


def model_run(pipeline: Pipeline, name: str) -> ModelFacts:
    """The model that runs where the paper has ``name``."""
    return find_model(stand_ins(pipeline).get(name, name))


# --- arms: rows of tables ----------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One student and what it is trained on.

    Attributes:
        student: As named in the paper.
        pool: ``limo``, ``math`` or ``code``; empty where nothing is trained.
        rule: A rule of `lalp.select`; ``original`` (not trained), ``all`` (every teacher's
            response to every prompt) or ``control`` (random, with the teacher mix of ``lalp``).
        teacher: Chosen among this teacher's responses only.
        window: Of ``lalp`` and ``lalp-lowest``, where it is not the main one.
    """

    student: str
    pool: str = ""
    rule: str = "original"
    teacher: str = ""
    window: str = ""

    @property
    def name(self) -> str:
        """Names the arm in files: letters, digits, dots, dashes and underscores."""
        if not self.pool:
            return f"{self.student}_original"
        what = self.rule + (f"-w{self.window.replace('%', 'pct')}" if self.window else "")
        return "_".join(filter(None, [self.student, self.pool, self.teacher, what]))


_THIRDS = {"highest": "galp", "middle": "galp-middle", "lowest": "galp-lowest"}


def arm_of_row(number: str, row: Sequence[str]) -> Arm:
    """The arm behind one row of a table of the paper.

    Args:
        number: A key of ``SOURCES``.
        row: The row's index in `lalp.paper.tables`; of Table 1 student, teacher and third.
    """
    student, *what = row
    pool = SOURCES[number].pool
    if what[0] == "original" or what[-1] == "original":
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


def table_arms(pipeline: Pipeline, number: str) -> dict[tuple[str, ...], Arm]:
    """Arms of one table by row, of the pipeline's students only."""
    index = TABLES[number].frame.index
    rows = [tuple(row) for row in index if row[0] in pipeline.students]
    if number == "1":
        columns = TABLES["1"].frame.columns
        rows = [(*row, column) for row in rows for column in columns]
    return {row: arm_of_row(number, row) for row in rows}


@dataclass(frozen=True)
class Need:
    """An arm, and what it is needed for.

    Attributes:
        arm: What is trained.
        tables: The paper's tables and figures with a number of this arm.
        columns: Columns it is evaluated on, by decoding.
    """

    arm: Arm
    tables: tuple[str, ...]
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)


def plan_needs(pipeline: Pipeline) -> list[Need]:
    """Every arm of the pipeline once, in order of first need."""
    tables: dict[Arm, list[str]] = {}
    columns: dict[Arm, dict[str, list[str]]] = {}
    for number, arm, source in _uses(pipeline):
        tables.setdefault(arm, []).append(number)
        columns.setdefault(arm, {}).setdefault(source.decoding, []).extend(source.columns)
    return [
        Need(arm, tuple(dict.fromkeys(numbers)), _columns(pipeline, columns[arm]))
        for arm, numbers in tables.items()
    ]


def _uses(pipeline: Pipeline) -> Iterator[tuple[str, Arm, Source]]:
    for number in pipeline.tables:
        for arm in table_arms(pipeline, number).values():
            yield number, arm, SOURCES[number]
    long = SOURCES["3"]
    if pipeline.controls and {"3", "10"} & set(pipeline.tables):
        for student in TABLES["3"].frame.index.unique("student"):
            if student in pipeline.students:
                yield "control", Arm(student, "limo", "control"), long
    for window in pipeline.sweep_windows:
        same = parse_windows([window]) == parse_windows([pipeline.main_window])
        arm = Arm(pipeline.window_student, "limo", "lalp", window="" if same else window)
        yield "Fig. 9", arm, long


def _columns(pipeline: Pipeline, wanted: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    if pipeline.everything:
        return dict.fromkeys(DECODINGS, tuple(COLUMNS))
    return {
        decoding: tuple(column for column in COLUMNS if column in wanted[decoding])
        for decoding in DECODINGS
        if wanted.get(decoding)
    }


def arm_recipe(pipeline: Pipeline, arm: Arm) -> str:
    """Name of the recipe that an arm is trained with."""
    if arm.pool == "math":
        return pipeline.short_recipe
    return pipeline.large_recipe if arm.student == STUDENT_32B else pipeline.recipe


def accelerate_file(name: str) -> str:
    """File for ``accelerate launch``: one of the project's by name, or a path of one's own.

    Raises:
        InputError: If there is no such file in the project.
    """
    if name.endswith(".yaml"):
        return name
    folder = Path(str(files("lalp").joinpath("training", "accelerate")))
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in folder.glob("*.yaml")))
        raise InputError(f"there is no configuration {name!r} for accelerate: choose {known}")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def run_folder(kind: str, profile: str) -> str:
    """Folder of a pipeline's outputs, below the build folder; relative where it can be."""
    path = build_dir() / kind / profile
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
