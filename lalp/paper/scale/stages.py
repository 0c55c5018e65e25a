"""Stages of a plan: command lines with the files they read and write, in the order they run.

Nothing is run or read here. File names hold the paper's names of models, even where another model
stands in. Inside the files, teachers are named after the models that ran.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TypeVar

from lalp.paper.scale.models import ASSUMED, fits_gpus, states_fit
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Need, Plan, accelerate_file, plan_needs

KINDS = (
    *("prompts", "sample", "unsolved", "merge", "segment", "score", "teachers", "select"),
    *("train", "eval", "tables"),
)
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Work:
    """What a stage computes, for its costs; models are named as in the paper."""

    data: str = ""  # limo, math or code: what the prompts are
    prompts: int = 0
    samples: float = 1  # per prompt, and per writer where there are writers
    model: str = ""  # samples, scores, learns or answers
    writers: tuple[str, ...] = ()  # models whose responses are read
    windows: tuple[str, ...] = ()
    recipe: str = ""
    benchmarks: tuple[str, ...] = ()
    answer_tokens: int = 0  # of one answer to a benchmark


@dataclass(frozen=True)
class Stage:
    """One unit of work: it is done or not done as a whole."""

    name: str  # unique, and good as a file name
    kind: str  # one of KINDS
    tables: tuple[str, ...]  # the paper's that need it; "control" is this project's own
    command: tuple[tuple[str, ...], ...]  # lines, one after another; the first word is the program
    inputs: tuple[str, ...] = ()  # files and folders: outputs of earlier stages
    outputs: tuple[str, ...] = ()
    work: Work = field(default_factory=Work)
    stdout: str = ""  # one of the outputs: what the last command prints
    # One of the inputs: if that file is empty, nothing is run and the outputs are empty files.
    unless_empty: str = ""


@dataclass(frozen=True)
class Place:
    """Where a plan runs; a dry run is the same plan in another place."""

    root: str  # folder of all outputs
    models: str = ""  # folder with one model folder per name, instead of the hub
    data: str = ""  # folder with the data sets as files, instead of the hub
    # Further options by `lalp` command or preset; they come last, so they win.
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_stages(plan: Plan, place: Place, profile: str) -> tuple[Stage, ...]:
    """All stages of the plan that ``profile`` names, each behind those whose outputs it reads."""
    run = _Run(plan, place)
    parts = [_prompts(run), _samples(run), _merges(run), _segments(run), _scores(run)]
    parts += [_rankings(run), _selections(run), _trainings(run), _evaluations(run)]
    stages = [stage for part in parts for stage in part]
    return (*stages, _tables(run, stages, profile))


# --- where results lie: also read by lalp.paper.scale.tables --------------------------------------


@dataclass(frozen=True)
class Group:
    """Responses that are scored together: a pool, or one teacher's responses in it."""

    pool: str
    teachers: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names its files."""
        return self.pool if len(self.teachers) > 1 else f"{self.pool}_{self.teachers[0]}"


def arm_group(arm: Arm) -> Group:
    """The responses that an arm chooses from: thirds need one teacher's only."""
    return Group(arm.pool, (arm.teacher,) if arm.pool == "math" else TEACHERS[arm.pool])


def score_file(root: str, arm: Arm) -> str:
    """Scores of the responses that an arm chooses from."""
    return _join(root, "scores", f"{arm_group(arm).name}_{arm.student}.parquet")


def selected_file(root: str, arm: Arm, seed: int) -> str:
    """What an arm is trained on; where chance has a part in it, a file for each seed."""
    seeded = arm.rule in ("random", "control", "all")
    return _join(root, "selected", f"{arm.name}-s{seed}.jsonl" if seeded else f"{arm.name}.jsonl")


def mix_file(root: str, arm: Arm, seed: int) -> str:
    """What `lalp select --json` says of it."""
    return str(PurePosixPath(selected_file(root, arm, seed)).with_suffix(".json"))


def trained_folder(root: str, arm: Arm, seed: int) -> str:
    """The student after training."""
    return _join(root, "models", f"{arm.name}-s{seed}")


def result_file(root: str, arm: Arm, seed: int, decoding: str) -> str:
    """Graded answers of the student; an original one has no seed."""
    name = f"{arm.name}-s{seed}" if arm.pool else arm.name
    return _join(root, "results", f"{name}_{decoding}.parquet")


# --- what all command lines depend on ------------------------------------------------------------


def _join(*parts: str) -> str:
    return str(PurePosixPath(*parts))


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

    @cached_property
    def needs(self) -> list[Need]:
        return plan_needs(self.plan)

    @cached_property
    def chosen(self) -> list[Need]:
        """Arms whose training data must be chosen."""
        return [need for need in self.needs if need.arm.pool]

    @cached_property
    def groups(self) -> dict[Group, tuple[str, ...]]:
        """Groups of responses with the tables that need them."""
        return _joined((arm_group(need.arm), need.tables) for need in self.chosen)

    @cached_property
    def scored(self) -> dict[tuple[Group, str], tuple[str, ...]]:
        """Groups, each with the students that score it."""
        pairs = ((arm_group(need.arm), need.arm.student) for need in self.chosen)
        return _joined(zip(pairs, (need.tables for need in self.chosen), strict=True))

    @property
    def data(self) -> tuple[str, ...]:
        """Option of commands that read data sets."""
        return ("--data", self.place.data) if self.place.data else ()

    def path(self, *parts: str) -> str:
        return _join(self.place.root, *parts)

    def pool(self, group: Group) -> str:
        return self.path("pools", f"{group.name}.jsonl")

    def steps(self, group: Group) -> str:
        return self.path("steps", f"{group.name}.jsonl")

    def sampled(self, pool: str, teacher: str, preset: str) -> str:
        return self.path("samples", f"{pool}_{teacher}_{preset}.jsonl")

    def lalp(self, command: str, *words: str) -> tuple[str, ...]:
        """A command line, with the place's further options."""
        further = [o for key in (command, *words) for o in self.place.options.get(key, ())]
        # Two commands are the replication's, all others the tool's.
        own = command in ("prompts", "tables")
        program = ("python", "-m", "lalp.paper.scale") if own else ("lalp",)
        return (*program, command, *words, *further)

    def stage(
        self,
        name: str,
        tables: tuple[str, ...],
        words: Sequence[str],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        work: Work | None = None,
        **rest: str,
    ) -> Stage:
        """A stage named ``KIND-...`` that runs the `lalp` command of its kind."""
        kind, work = name.partition("-")[0], work or Work()
        return Stage(name, kind, tables, (self.lalp(kind, *words),), inputs, outputs, work, **rest)

    def model(self, name: str) -> str:
        """Where the model that runs in the place of ``name`` is loaded from."""
        facts = self.plan.model(name)
        return _join(self.place.models, facts.name) if self.place.models else facts.hub_id

    def served(self, name: str) -> tuple[str, ...]:
        """Options of a model that answers: backend, and the GPUs that share it."""
        plan = self.plan
        if plan.backend != "vllm":
            return ("--backend", plan.backend)
        small = fits_gpus(plan.model(name), plan.gpu, plan.gpus)
        gpus = plan.gpus if small else plan.big_gpus
        return ("--backend", "vllm", "--tensor-parallel", str(gpus))

    def reading(self, group: Group, model: str = "", windows: tuple[str, ...] = ()) -> Work:
        """Work of a stage that reads all responses of a group."""
        count, kept = self.plan.prompts(group.pool), ASSUMED.kept_samples[group.pool]
        return Work(group.pool, count, kept, model, group.teachers, windows)


# --- prompts, samples, pools ---------------------------------------------------------------------

# Presets and samples per prompt; each preset takes the prompts that the one before did not solve.
# LIMO: one greedy answer, 16 more where that was wrong (Table 5).
_PRESETS = {
    "limo": {"table5-greedy": 1, "table5-sampled": 16},
    "math": {"c9-sampled": 16},
    "code": {"table5-greedy": 1},
}


def _presets(plan: Plan, pool: str, teacher: str) -> dict[str, int]:
    published = pool == "limo" and teacher in plan.published
    return {"published": 1} if published else _PRESETS[pool]


def _prompts(run: _Run) -> Iterator[Stage]:
    pools = _joined((group.pool, tables) for group, tables in run.groups.items())
    for pool, tables in pools.items():
        out, count = run.path("prompts", f"{pool}.jsonl"), run.plan.prompts(pool)
        words = (pool, "--out", out, "--limit", str(count), *run.data)
        yield run.stage(f"prompts-{pool}", tables, words, (), (out,), Work(pool, count))


def _samples(run: _Run) -> Iterator[Stage]:
    wanted = _joined(
        ((group.pool, teacher), tables)
        for group, tables in run.groups.items()
        for teacher in group.teachers
    )
    for (pool, teacher), tables in wanted.items():
        if "published" in _presets(run.plan, pool, teacher):
            out = run.sampled(pool, teacher, "published")
            words = (pool, "--out", out, "--limit", str(run.plan.prompts(pool)))
            command = run.lalp("prompts", *words, "--responses-by", teacher, *run.data)
            name = f"published-{pool}-{teacher}"
            yield Stage(name, "prompts", tables, (command,), (), (out,))
        else:
            yield from _attempts(run, pool, teacher, tables)


def _attempts(run: _Run, pool: str, teacher: str, tables: tuple[str, ...]) -> Iterator[Stage]:
    """Sample with one preset after another, each on the prompts that are not solved yet."""
    prompts, rest, count = run.path("prompts", f"{pool}.jsonl"), "", run.plan.prompts(pool)
    for preset, samples in _PRESETS[pool].items():
        out = run.sampled(pool, teacher, preset)
        words = (prompts, "--model", run.model(teacher), "--teacher", run.plan.model(teacher).name)
        # Prompts of mathematics hold their system message; programs are asked for without one.
        words += ("--system", "") if pool == "code" else ()
        words += ("--preset", preset, *run.served(teacher), "--seed", "0")
        words += ("--store", run.path("store", "samples"), "--out", out, "--quiet")
        name, work = f"{pool}-{teacher}", Work(pool, count, samples, teacher, (teacher,))
        sample = f"sample-{name}-{preset}"
        yield run.stage(sample, tables, words, (prompts,), (out,), work, unless_empty=rest)
        if preset != list(_PRESETS[pool])[-1]:
            rest = run.path("prompts", f"{pool}_{teacher}_unsolved.jsonl")
            words = (prompts, out, "--out", rest)
            yield run.stage(f"unsolved-{name}", tables, words, (prompts, out), (rest,))
            prompts, count = rest, max(1, round((1 - ASSUMED.greedy_solved) * count))


def _merges(run: _Run) -> Iterator[Stage]:
    for group, tables in run.groups.items():
        out = run.pool(group)
        parts = tuple(
            run.sampled(group.pool, teacher, preset)
            for teacher in group.teachers
            for preset in _presets(run.plan, group.pool, teacher)
        )
        # Answers to programming prompts are not verified: the prompts come without tests.
        words = () if group.pool == "code" else ("--only-correct",)
        if len(group.teachers) > 1:
            # Every arm is then trained on the same prompts, and no teacher has more than one try.
            words += ("--per-teacher", "1", "--min-teachers", str(run.plan.min_teachers))
        words = (*parts, *words, "--out", out)
        yield run.stage(f"merge-{group.name}", tables, words, parts, (out,))


# --- steps, scores, choices ----------------------------------------------------------------------


def _segments(run: _Run) -> Iterator[Stage]:
    splitter = ("--splitter", run.plan.splitter)
    if run.plan.splitter == "llm":
        splitter += ("--llm-url", run.plan.llm_url, "--llm-model", run.plan.llm_model)
    for group, tables in run.groups.items():
        pool, out, work = run.pool(group), run.steps(group), run.reading(group)
        words = (pool, *splitter, "--out", out)
        yield run.stage(f"segment-{group.name}", tables, words, (pool,), (out,), work)


def _scores(run: _Run) -> Iterator[Stage]:
    plan = run.plan
    for (group, student), tables in run.scored.items():
        pool, steps = run.pool(group), run.steps(group)
        out = score_file(run.place.root, Arm(student, group.pool, teacher=group.teachers[0]))
        windows = (plan.main_window,)
        if group.pool == "math":
            # Thirds are by GALP alone, and a score table has some window: the cheapest.
            windows = ("0",)
        elif group.pool == "limo" and student == plan.window_student:
            windows = tuple(dict.fromkeys([plan.main_window, *plan.sweep_windows]))
        words = (pool, "--student", run.model(student), "--splitter", steps)
        words += tuple(word for window in windows for word in ("--window", window))
        words += ("--store", run.path("store", "scores"), "--out", out, "--quiet")
        name, work = f"score-{group.name}-{student}", run.reading(group, student, windows)
        yield run.stage(name, tables, words, (pool, steps), (out,), work)


def _rankings(run: _Run) -> Iterator[Stage]:
    for (group, student), tables in run.scored.items():
        if group.pool == "limo":
            scores = score_file(run.place.root, Arm(student, group.pool))
            out = run.path("teachers", f"{group.name}_{student}.json")
            name = f"teachers-{group.name}-{student}"
            yield run.stage(name, tables, (scores, "--json"), (scores,), (out,), stdout=out)


def _parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm puts together."""
    if arm.rule != "all":
        return ()
    return tuple(Arm(arm.student, arm.pool, "random", t) for t in TEACHERS[arm.pool])


def _selections(run: _Run) -> Iterator[Stage]:
    wanted = _joined(
        ((arm, seed), need.tables)
        for need in run.chosen
        for seed in run.plan.seeds
        for arm in (*_parts(need.arm), need.arm)
    )
    stages = (_selection(run, arm, seed, tables) for (arm, seed), tables in wanted.items())
    # Most choices are the same for every seed.
    yield from {stage.name: stage for stage in stages}.values()


def _selection(run: _Run, arm: Arm, seed: int, tables: tuple[str, ...]) -> Stage:
    root = run.place.root
    out = selected_file(root, arm, seed)
    name = "select-" + PurePosixPath(out).stem
    if parts := tuple(selected_file(root, part, seed) for part in _parts(arm)):
        command = run.lalp("merge", *parts, "--out", out, "--format", "messages")
        return Stage(name, "select", tables, (command,), parts, (out,))
    scores, mix = score_file(root, arm), mix_file(root, arm, seed)
    control = arm.rule == "control"
    words = (scores, "--rule", *(("random", "--like", "lalp") if control else (arm.rule,)))
    if control or arm.rule.startswith("lalp"):
        words += ("--window", arm.window or run.plan.main_window)
    if arm.teacher:
        words += ("--teacher", run.plan.teacher_name(arm.pool, arm.teacher))
    # A response longer than the student's positions has no score, and cannot be trained on whole.
    words += ("--skip-unscored", "--seed", str(seed), "--out", out, "--json")
    return run.stage(name, tables, words, (scores,), (out, mix), stdout=mix)


# --- training and evaluation ---------------------------------------------------------------------


def _trainings(run: _Run) -> Iterator[Stage]:
    trained = [(need, seed) for need in run.chosen if need.columns for seed in run.plan.seeds]
    for need, seed in trained:
        arm, root = need.arm, run.place.root
        data, out = selected_file(root, arm, seed), trained_folder(root, arm, seed)
        recipe = run.plan.recipe_of(arm)
        words = (data, "--student", run.model(arm.student), "--out", out)
        words += ("--recipe", recipe, "--seed", str(seed), "--quiet")
        command = (*_launcher(run.plan, arm.student), *run.lalp("train", *words)[1:])
        writers = (arm.teacher,) if arm.teacher else TEACHERS[arm.pool]
        # One response per prompt by some writer, or one by each.
        samples = 1.0 if arm.rule == "all" else 1 / len(writers)
        count = run.plan.prompts(arm.pool)
        work = Work(arm.pool, count, samples, arm.student, writers, recipe=recipe)
        name = f"train-{arm.name}-s{seed}"
        yield Stage(name, "train", need.tables, (command,), (data,), (out,), work)


def _launcher(plan: Plan, student: str) -> tuple[str, ...]:
    small = states_fit(plan.model(student), plan.gpu, plan.gpus)
    if small and plan.gpus == 1:
        return ("lalp",)
    config = accelerate_file(plan.accelerate if small else plan.big_accelerate)
    words = ("accelerate", "launch", "--config_file", config)
    return (*words, "--num_processes", str(plan.gpus), "-m", "lalp.cli")


def _evaluations(run: _Run) -> Iterator[Stage]:
    evaluated = [
        (need.arm, need.tables, decoding, columns, seed)
        for need in run.needs
        for decoding, columns in need.columns.items()
        # An original student has nothing that a seed could change.
        for seed in (run.plan.seeds if need.arm.pool else run.plan.seeds[:1])
    ]
    for arm, tables, decoding, columns, seed in evaluated:
        read = (trained_folder(run.place.root, arm, seed),) if arm.pool else ()
        out = result_file(run.place.root, arm, seed, decoding)
        names = tuple(COLUMNS[column] for column in columns)
        words = ("--model", read[0] if read else run.model(arm.student))
        words += tuple(word for name in names for word in ("--benchmark", name))
        words += (*run.data, "--preset", f"table7-{decoding}", *run.served(arm.student))
        words += ("--seed", str(seed), "--store", run.path("store", "answers"), "--out", out)
        samples, length = 8 if decoding == "sampled" else 1, _answer_tokens(arm)
        work = Work(samples=samples, model=arm.student, benchmarks=names, answer_tokens=length)
        name = "eval-" + PurePosixPath(out).stem
        yield run.stage(name, tables, (*words, "--quiet"), read, (out,), work)


def _answer_tokens(arm: Arm) -> int:
    if arm.pool == "math":
        return ASSUMED.response_tokens["math"][arm.teacher]
    brief = not arm.pool and arm.student.endswith(("Instruct", "7B"))
    return ASSUMED.answer_tokens_original if brief else ASSUMED.answer_tokens_long


def _tables(run: _Run, stages: Sequence[Stage], profile: str) -> Stage:
    out = run.path("tables.json")
    words = ("--profile", profile, "--root", run.place.root, *run.data)
    command = (*run.lalp("tables", *words), "--out", out)
    inputs = [path for stage in stages if stage.kind in ("score", "eval") for path in stage.outputs]
    inputs += [stage.stdout for stage in stages if stage.kind == "select" and stage.stdout]
    return Stage("tables", "tables", tuple(run.plan.tables), (command,), tuple(inputs), (out,))
