"""Stages of a plan: command lines and the files they read and write, in the order of the run.

``stages.yaml`` describes each kind of stage; this module decides which ones a plan needs. It runs
and reads nothing. Inside the files, teachers are named after the models that ran.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath
from typing import Any, TypeVar

from lalp.files import read_data
from lalp.paper.scale.models import ASSUMED
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Need, Plan, accelerate_file, plan_needs

_FORMS = read_data("paper/scale/stages.yaml")
KINDS = tuple(dict.fromkeys(form.get("kind", key) for key, form in _FORMS["stages"].items()))
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Work:
    """What a stage computes, for its costs; models are named as in the paper."""

    data: str = ""  # limo, math or code: the kind of prompts
    prompts: int = 0
    samples: float = 1  # per prompt, and per writer if there are writers
    model: str = ""  # samples, scores, learns or answers
    writers: tuple[str, ...] = ()  # models whose responses are read
    windows: tuple[str, ...] = ()
    recipe: str = ""
    benchmarks: tuple[str, ...] = ()
    answer_tokens: int = 0  # length of one answer to a benchmark


@dataclass(frozen=True)
class Stage:
    """One unit of work, done or not done as a whole."""

    name: str  # unique, and usable as a file name
    kind: str  # one of KINDS
    tables: tuple[str, ...]  # the paper's tables that need it; "control" is this project's own
    command: tuple[str, ...]  # the first word is the program
    inputs: tuple[str, ...] = ()  # files and folders: outputs of earlier stages
    outputs: tuple[str, ...] = ()
    work: Work = field(default_factory=Work)
    stdout: str = ""  # one of the outputs: the printed text of the last command
    unless_empty: str = ""  # one of the inputs: if that file is empty, so are the outputs


@dataclass(frozen=True)
class Place:
    """Where a plan runs; a dry run is the same plan in another place."""

    root: str  # folder of all outputs
    models: str = ""  # folder with one model folder per name, instead of the hub
    data: str = ""  # folder with the data sets as files, instead of the hub
    # Further options by `lalp` command or preset; they come last, so they win.
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_stages(plan: Plan, place: Place, profile: str) -> tuple[Stage, ...]:
    """All stages of the plan that ``profile`` names; each follows those whose outputs it reads."""
    run = _Run(plan, place, plan_needs(plan))
    families = (_pools, _scores, _selections, _trainings, _evaluations)
    stages = [stage for family in families for stage in family(run)]
    read = [path for stage in stages if stage.kind in ("score", "eval") for path in stage.outputs]
    read += [stage.stdout for stage in stages if stage.kind == "select" and stage.stdout]
    tables = tuple(plan.tables)
    return (*stages, run.stage("tables", tables, profile=profile, parts=tuple(read)))


# --- where results lie: also read by lalp.paper.scale.tables --------------------------------------


@dataclass(frozen=True)
class Group:
    """Responses that are scored together: a pool, or one teacher's responses in it."""

    pool: str
    teachers: tuple[str, ...]

    @property
    def values(self) -> dict[str, str]:
        """The name of its files."""
        name = self.pool if len(self.teachers) > 1 else f"{self.pool}_{self.teachers[0]}"
        return {"group": name, "pool": self.pool}


def arm_group(arm: Arm) -> Group:
    """The responses that an arm chooses from; thirds need only one teacher's."""
    return Group(arm.pool, (arm.teacher,) if arm.pool == "math" else TEACHERS[arm.pool])


def arm_file(root: str, name: str, arm: Arm, seed: int = 0, decoding: str = "greedy") -> str:
    """Path of an arm's file ``name`` in ``stages.yaml``, such as its ``results``."""
    return _Values(_arm_values(arm, seed), root=root, decoding=decoding)[name]


def _arm_values(arm: Arm, seed: int) -> dict[str, Any]:
    seeded = f"{arm.name}-s{seed}"
    # If a choice depends on chance, each seed has its own. An original student has no seed.
    choice = seeded if arm.rule in ("random", "control", "all") else arm.name
    values = {"arm": seeded if arm.pool else arm.name, "choice": choice, "seed": seed}
    return values | {"student": arm.student} | (arm_group(arm).values if arm.pool else {})


class _Values(dict[str, Any]):
    """Values for the forms of stages; the name of a file stands for its path."""

    def __missing__(self, name: str) -> str:
        return str(PurePosixPath(self["root"], _FORMS["files"][name].format_map(self)))

    def words(self, form: str) -> tuple[str, ...]:
        """The words of a form, filled one by one, because a folder's name may hold spaces."""
        words: list[str] = []
        for word in form.split():
            value = self.get(word[1:-1])
            words += value if isinstance(value, tuple) else [word.format_map(self)]
        return tuple(words)


# --- what all command lines depend on ------------------------------------------------------------


def _joined(pairs: Iterable[tuple[_Key, Iterable[str]]]) -> dict[_Key, tuple[str, ...]]:
    """Keys in order of first appearance, each with all its tables once."""
    joined: dict[_Key, dict[str, None]] = {}
    for key, tables in pairs:
        joined.setdefault(key, {}).update(dict.fromkeys(tables))
    return {key: tuple(tables) for key, tables in joined.items()}


@dataclass(frozen=True)
class _Run:
    """A plan in its place."""

    plan: Plan
    place: Place
    needs: list[Need]

    @property
    def chosen(self) -> list[Need]:
        """Arms whose training data must be chosen."""
        return [need for need in self.needs if need.arm.pool]

    @property
    def groups(self) -> dict[Group, tuple[str, ...]]:
        """Groups of responses with the tables that need them."""
        return _joined((arm_group(need.arm), need.tables) for need in self.chosen)

    def file(self, name: str, **values: Any) -> str:
        return _Values(values, root=self.place.root)[name]

    def stage(
        self,
        key: str,
        tables: tuple[str, ...],
        work: Work | None = None,
        launcher: tuple[str, ...] = ("lalp",),
        **values: Any,
    ) -> Stage:
        """The stage that a form of ``stages.yaml`` describes, with the place's further options."""
        form, data = _FORMS["stages"][key], self.place.data
        shared = {"root": self.place.root, "data": ("--data", data) if data else ()}
        filled = _Values(shared | values)
        words = filled.words(form["command"])
        words += tuple(o for word in words for o in self.place.options.get(word, ()))
        # Two commands belong to the replication, all others to the tool.
        own = words[0] in ("prompts", "tables")
        program = ("python", "-m", "lalp.paper.scale") if own else launcher
        return Stage(
            form["name"].format_map(filled),
            form.get("kind", key),
            tables,
            (*program, *words),
            filled.words(form.get("inputs", "")),
            filled.words(form["outputs"]),
            work or Work(),
            *(form.get(name, "").format_map(filled) for name in ("stdout", "unless_empty")),
        )

    def model(self, name: str) -> str:
        """The place from which the model that runs for ``name`` is loaded."""
        facts, folder = self.plan.model(name), self.place.models
        return str(PurePosixPath(folder, facts.name)) if folder else facts.hub_id

    def served(self, name: str) -> tuple[str, ...]:
        """Options of a model that answers: backend, and the GPUs that share it."""
        plan = self.plan
        if plan.backend != "vllm":
            return ("--backend", plan.backend)
        small = plan.model(name).fits(plan.gpu, plan.gpus)
        gpus = plan.gpus if small else plan.big_gpus
        return ("--backend", "vllm", "--tensor-parallel", str(gpus))

    def reading(self, group: Group, model: str = "", windows: tuple[str, ...] = ()) -> Work:
        """Work of a stage that reads all responses of a group."""
        count, kept = self.plan.prompts(group.pool), ASSUMED.kept_samples[group.pool]
        return Work(group.pool, count, kept, model, group.teachers, windows)


# --- prompts, samples, pools, steps ---------------------------------------------------------------

# Presets and samples per prompt; each preset takes the prompts that the previous one did not solve.
# LIMO: one greedy answer, and 16 more if that was wrong (Table 5).
_PRESETS = {
    "limo": {"table5-greedy": 1, "table5-sampled": 16},
    "math": {"c9-sampled": 16},
    "code": {"table5-greedy": 1},
}


def _presets(plan: Plan, pool: str, teacher: str) -> dict[str, int]:
    published = pool == "limo" and teacher in plan.published
    return {"published": 1} if published else _PRESETS[pool]


def _pools(run: _Run) -> Iterator[Stage]:
    plan, groups = run.plan, run.groups.items()
    for pool, tables in _joined((group.pool, tables) for group, tables in groups).items():
        count = plan.prompts(pool)
        yield run.stage("prompts", tables, Work(pool, count), pool=pool, count=count)
    writers = (((g.pool, teacher), tables) for g, tables in groups for teacher in g.teachers)
    for (pool, teacher), tables in _joined(writers).items():
        yield from _attempts(run, pool, teacher, tables)
    for group, tables in groups:
        parts = tuple(
            run.file("samples", pool=group.pool, teacher=teacher, preset=preset)
            for teacher in group.teachers
            for preset in _presets(plan, group.pool, teacher)
        )
        # Answers to programming prompts are not verified, because the prompts come without tests.
        kept = () if group.pool == "code" else ("--only-correct",)
        if len(group.teachers) > 1:
            # So every arm is trained on the same prompts, and no teacher has more than one try.
            kept += ("--per-teacher", "1", "--min-teachers", str(plan.min_teachers))
        yield run.stage("merge", tables, parts=parts, kept=kept, **group.values)
    splitter: tuple[str, ...] = ("--splitter", plan.splitter)
    if plan.splitter == "llm":
        splitter += ("--llm-url", plan.llm_url, "--llm-model", plan.llm_model)
    for group, tables in groups:
        work = run.reading(group)
        yield run.stage("segment", tables, work, splitter=splitter, **group.values)


def _attempts(run: _Run, pool: str, teacher: str, tables: tuple[str, ...]) -> Iterator[Stage]:
    """Sample with one preset after another, each on the prompts still unsolved."""
    asked, rest, count = run.file("prompts", pool=pool), "", run.plan.prompts(pool)
    # Mathematics prompts hold their system message; programming prompts have none.
    served = {"served": run.served(teacher), "system": ("--system", "") if pool == "code" else ()}
    served |= {"model": run.model(teacher), "writer": run.plan.model(teacher).name}
    presets = _presets(run.plan, pool, teacher)
    for place, (preset, samples) in enumerate(presets.items(), 1):
        values = {"pool": pool, "teacher": teacher, "preset": preset, "asked": asked}
        if preset == "published":
            yield run.stage("published", tables, count=count, **values)
            return
        work = Work(pool, count, samples, teacher, (teacher,))
        yield run.stage("sample", tables, work, rest=rest, **values, **served)
        if place < len(presets):
            yield run.stage("unsolved", tables, **values)
            asked = rest = run.file("unsolved", **values)
            count = max(1, round((1 - ASSUMED.greedy_solved) * count))


# --- scores, choices -----------------------------------------------------------------------------


def _scores(run: _Run) -> Iterator[Stage]:
    plan = run.plan
    pairs = (((arm_group(n.arm), n.arm.student), n.tables) for n in run.chosen)
    scored = _joined(pairs).items()
    for (group, student), tables in scored:
        windows: tuple[str, ...] = (plan.main_window,)
        if group.pool == "math":
            # Thirds use GALP alone, and a score table needs a window: take the cheapest.
            windows = ("0",)
        elif group.pool == "limo" and student == plan.window_student:
            windows = tuple(dict.fromkeys([plan.main_window, *plan.sweep_windows]))
        options = tuple(word for window in windows for word in ("--window", window))
        values = {"student": student, "model": run.model(student), "windows": options}
        work = run.reading(group, student, windows)
        yield run.stage("score", tables, work, **values, **group.values)
    for (group, student), tables in scored:
        if group.pool == "limo":
            yield run.stage("teachers", tables, student=student, **group.values)


def _parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm combines."""
    teachers = TEACHERS[arm.pool] if arm.rule == "all" else ()
    return tuple(Arm(arm.student, arm.pool, "random", teacher) for teacher in teachers)


def _selections(run: _Run) -> Iterable[Stage]:
    plan, root = run.plan, run.place.root
    wanted = _joined(
        ((arm, seed), need.tables)
        for need in run.chosen
        for seed in plan.seeds
        for arm in (*_parts(need.arm), need.arm)
    )
    stages = {}
    for (arm, seed), tables in wanted.items():
        values = _arm_values(arm, seed)
        parts = tuple(arm_file(root, "selected", part, seed) for part in _parts(arm))
        rule = "random --like lalp" if arm.rule == "control" else arm.rule
        window = ("--window", arm.window or plan.main_window) if "lalp" in rule else ()
        teacher = plan.teacher_name(arm.pool, arm.teacher) if arm.teacher else ""
        values |= {"rule": tuple(rule.split()), "window": window, "parts": parts}
        values["by_teacher"] = ("--teacher", teacher) if teacher else ()
        stage = run.stage("put_together" if parts else "select", tables, **values)
        # Most choices are the same for every seed.
        stages[stage.name] = stage
    return stages.values()


# --- training and evaluation ---------------------------------------------------------------------


def _trainings(run: _Run) -> Iterator[Stage]:
    plan = run.plan
    for need, seed in ((n, seed) for n in run.chosen if n.columns for seed in plan.seeds):
        arm, recipe = need.arm, plan.recipe_of(need.arm)
        writers = (arm.teacher,) if arm.teacher else TEACHERS[arm.pool]
        # One response per prompt by some writer, or one by each writer.
        samples = 1.0 if arm.rule == "all" else 1 / len(writers)
        count = plan.prompts(arm.pool)
        work = Work(arm.pool, count, samples, arm.student, writers, recipe=recipe)
        values = {"model": run.model(arm.student), "recipe": recipe} | _arm_values(arm, seed)
        yield run.stage("train", need.tables, work, _launcher(plan, arm.student), **values)


def _launcher(plan: Plan, student: str) -> tuple[str, ...]:
    small = plan.model(student).trains_on(plan.gpu, plan.gpus)
    if small and plan.gpus == 1:
        return ("lalp",)
    config = accelerate_file(plan.accelerate if small else plan.big_accelerate)
    words = ("accelerate", "launch", "--config_file", config)
    return (*words, "--num_processes", str(plan.gpus), "-m", "lalp.cli")


def _evaluations(run: _Run) -> Iterator[Stage]:
    for need in run.needs:
        arm = need.arm
        # A seed changes nothing for an original student.
        seeds = run.plan.seeds if arm.pool else run.plan.seeds[:1]
        for (decoding, columns), seed in product(need.columns.items(), seeds):
            trained = (arm_file(run.place.root, "trained", arm, seed),) if arm.pool else ()
            values = {"model": trained[0] if trained else run.model(arm.student), "parts": trained}
            names = tuple(COLUMNS[column] for column in columns)
            values["benchmarks"] = tuple(w for name in names for w in ("--benchmark", name))
            values |= {"decoding": decoding, "served": run.served(arm.student)}
            samples, length = 8 if decoding == "sampled" else 1, _answer_tokens(arm)
            work = Work(samples=samples, model=arm.student, benchmarks=names, answer_tokens=length)
            yield run.stage("eval", need.tables, work, **values, **_arm_values(arm, seed))


def _answer_tokens(arm: Arm) -> int:
    if arm.pool == "math":
        return ASSUMED.response_tokens["math"][arm.teacher]
    brief = not arm.pool and arm.student.endswith(("Instruct", "7B"))
    return ASSUMED.answer_tokens_original if brief else ASSUMED.answer_tokens_long
