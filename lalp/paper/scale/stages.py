"""Stages of a plan: command lines with the files they read and write, in the order they run.

Nothing is run or read here. Names of models are the paper's in every file name, also where another
model stands in; teachers inside the files are named after the models that ran.
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
    """What a stage computes, for its costs; models are named as in the paper.

    Attributes:
        data: ``limo``, ``math`` or ``code``: what the prompts are.
        prompts: Number of prompts.
        samples: Responses per prompt, and per writer where there are writers.
        model: Samples, scores, learns or answers.
        writers: Models whose responses are read.
        windows: Windows scored.
        recipe: Recipe of the training.
        benchmarks: Sets of problems that are answered.
        answer_tokens: Tokens of an answer to them.
    """

    data: str = ""
    prompts: int = 0
    samples: float = 1
    model: str = ""
    writers: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    recipe: str = ""
    benchmarks: tuple[str, ...] = ()
    answer_tokens: int = 0


@dataclass(frozen=True)
class Stage:
    """One unit of work: it is done or not done as a whole.

    Attributes:
        name: Unique, and good as a file name.
        kind: One of ``KINDS``.
        tables: The paper's tables and figures that need it; ``control`` is this project's own.
        command: Command lines, one after another; the first word is the program.
        inputs: Files and folders it reads: outputs of earlier stages.
        outputs: Files and folders it writes.
        work: What it computes.
        stdout: One of the outputs: what the last command prints.
        unless_empty: One of the inputs: if that is an empty file there is nothing to do, and the
            outputs are empty files.
    """

    name: str
    kind: str
    tables: tuple[str, ...]
    command: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    work: Work = field(default_factory=Work)
    stdout: str = ""
    unless_empty: str = ""


@dataclass(frozen=True)
class Place:
    """Where a plan runs; a dry run is the same plan in another place.

    Attributes:
        root: Folder of all outputs.
        models: Folder with one model folder per name, instead of the hub.
        data: Folder with the data sets as files, instead of the hub.
        options: Further options by ``lalp`` command or preset, behind all others.
    """

    root: str
    models: str = ""
    data: str = ""
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_stages(plan: Plan, place: Place, profile: str) -> tuple[Stage, ...]:
    """All stages, each behind those whose outputs it reads.

    Args:
        plan: What is run.
        place: Where it runs.
        profile: Name of the plan, for the command that writes its tables.
    """
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

# Commands of the replication; all others are the tool's.
_OWN_COMMANDS = ("prompts", "tables")


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
        """All arms."""
        return plan_needs(self.plan)

    @property
    def chosen(self) -> list[Need]:
        """Arms whose training data must be chosen."""
        return [need for need in self.needs if need.arm.pool]

    @property
    def groups(self) -> dict[Group, tuple[str, ...]]:
        """Groups of responses with the tables that need them."""
        return _joined((arm_group(need.arm), need.tables) for need in self.chosen)

    @property
    def scored(self) -> dict[tuple[Group, str], tuple[str, ...]]:
        """Groups with the students that score them."""
        return _joined(
            ((arm_group(need.arm), need.arm.student), need.tables) for need in self.chosen
        )

    @property
    def data(self) -> tuple[str, ...]:
        """Option of commands that read data sets."""
        return ("--data", self.place.data) if self.place.data else ()

    def path(self, *parts: str) -> str:
        """A file of the run."""
        return _join(self.place.root, *parts)

    def pool(self, group: Group) -> str:
        """The file of a group's responses."""
        return self.path("pools", f"{group.name}.jsonl")

    def sampled(self, pool: str, teacher: str, preset: str) -> str:
        """The file of a teacher's samples."""
        return self.path("samples", f"{pool}_{teacher}_{preset}.jsonl")

    def lalp(self, command: str, *words: str) -> tuple[str, ...]:
        """A command line, with the place's further options."""
        further = [o for key in (command, *words) for o in self.place.options.get(key, ())]
        program = ("python", "-m", "lalp.paper.scale") if command in _OWN_COMMANDS else ("lalp",)
        return (*program, command, *words, *further)

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
        return (
            "--backend",
            "vllm",
            "--tensor-parallel",
            str(plan.gpus if small else plan.big_gpus),
        )


# --- prompts, samples, pools ---------------------------------------------------------------------

# Preset and samples per prompt. LIMO: one greedy answer (Table 5), 16 more where that was wrong.
_PRESETS = {"math": ("c9-sampled", 16), "code": ("table5-greedy", 1)}
_FIRST, _FURTHER = ("table5-greedy", 1), ("table5-sampled", 16)


def _prompts(run: _Run) -> Iterator[Stage]:
    pools = _joined((group.pool, tables) for group, tables in run.groups.items())
    for pool, tables in pools.items():
        out, count = run.path("prompts", f"{pool}.jsonl"), run.plan.prompts(pool)
        command = run.lalp("prompts", pool, "--out", out, "--limit", str(count), *run.data)
        yield Stage(f"prompts-{pool}", "prompts", tables, (command,), (), (out,), Work(pool, count))


def _samples(run: _Run) -> Iterator[Stage]:
    wanted = _joined(
        ((group.pool, teacher), tables)
        for group, tables in run.groups.items()
        for teacher in group.teachers
    )
    for (pool, teacher), tables in wanted.items():
        if pool in _PRESETS:
            yield _sample(run, pool, teacher, tables, _PRESETS[pool])
        elif teacher in run.plan.published:
            yield _published(run, teacher, tables)
        else:
            yield from _until_solved(run, teacher, tables)


def _sample(
    run: _Run,
    pool: str,
    teacher: str,
    tables: tuple[str, ...],
    preset: tuple[str, int],
    rest: str = "",
) -> Stage:
    """Sample a teacher on the pool's prompts, or on the ``rest`` of them that it did not solve."""
    name, samples = preset
    prompts = rest or run.path("prompts", f"{pool}.jsonl")
    out, count = run.sampled(pool, teacher, name), run.plan.prompts(pool)
    words = (prompts, "--model", run.model(teacher), "--teacher", run.plan.model(teacher).name)
    # Prompts of mathematics hold their system message; programs are asked for without one.
    words += ("--system", "") if pool == "code" else ()
    words += ("--preset", name, *run.served(teacher), "--seed", "0")
    words += ("--store", run.path("store", "samples"), "--out", out, "--quiet")
    count = max(1, round((1 - ASSUMED.greedy_solved) * count)) if rest else count
    work = Work(pool, count, samples, teacher, (teacher,))
    name, command = f"sample-{pool}-{teacher}-{name}", run.lalp("sample", *words)
    return Stage(name, "sample", tables, (command,), (prompts,), (out,), work, unless_empty=rest)


def _until_solved(run: _Run, teacher: str, tables: tuple[str, ...]) -> Iterator[Stage]:
    """Table 5's one greedy answer, and its 16 samples where that one was wrong."""
    first = _sample(run, "limo", teacher, tables, _FIRST)
    read = (*first.inputs, *first.outputs)
    rest = run.path("prompts", f"limo_{teacher}_unsolved.jsonl")
    command = run.lalp("unsolved", *read, "--out", rest)
    yield first
    yield Stage(f"unsolved-limo-{teacher}", "unsolved", tables, (command,), read, (rest,))
    yield _sample(run, "limo", teacher, tables, _FURTHER, rest)


def _published(run: _Run, teacher: str, tables: tuple[str, ...]) -> Stage:
    out = run.sampled("limo", teacher, "published")
    words = ("limo", "--out", out, "--limit", str(run.plan.prompts("limo")))
    command = run.lalp("prompts", *words, "--responses-by", teacher, *run.data)
    return Stage(f"published-limo-{teacher}", "prompts", tables, (command,), (), (out,))


def _sample_files(run: _Run, group: Group) -> Iterator[str]:
    for teacher in group.teachers:
        if group.pool in _PRESETS:
            presets = [_PRESETS[group.pool][0]]
        else:
            taken = teacher in run.plan.published
            presets = ["published"] if taken else [_FIRST[0], _FURTHER[0]]
        yield from (run.sampled(group.pool, teacher, preset) for preset in presets)


def _merges(run: _Run) -> Iterator[Stage]:
    for group, tables in run.groups.items():
        parts, out = tuple(_sample_files(run, group)), run.pool(group)
        # Answers to programming prompts are not verified: the prompts come without tests.
        words = () if group.pool == "code" else ("--only-correct",)
        if len(group.teachers) > 1:
            # Every arm is then trained on the same prompts, and no teacher has more than one try.
            words += ("--per-teacher", "1", "--min-teachers", str(run.plan.min_teachers))
        command = run.lalp("merge", *parts, *words, "--out", out)
        yield Stage(f"merge-{group.name}", "merge", tables, (command,), parts, (out,))


# --- steps, scores, choices ----------------------------------------------------------------------


def _steps_file(run: _Run, group: Group) -> str:
    return run.path("steps", f"{group.name}.jsonl")


def _segments(run: _Run) -> Iterator[Stage]:
    splitter = ("--splitter", run.plan.splitter)
    if run.plan.splitter == "llm":
        splitter += ("--llm-url", run.plan.llm_url, "--llm-model", run.plan.llm_model)
    for group, tables in run.groups.items():
        pool, out, work = run.pool(group), _steps_file(run, group), _reading(run, group)
        command = run.lalp("segment", pool, *splitter, "--out", out)
        yield Stage(f"segment-{group.name}", "segment", tables, (command,), (pool,), (out,), work)


def _reading(run: _Run, group: Group, model: str = "", windows: tuple[str, ...] = ()) -> Work:
    count, kept = run.plan.prompts(group.pool), ASSUMED.kept_samples[group.pool]
    return Work(group.pool, count, kept, model, group.teachers, windows)


def _scores(run: _Run) -> Iterator[Stage]:
    for (group, student), tables in run.scored.items():
        read = (run.pool(group), _steps_file(run, group))
        out = score_file(run.place.root, Arm(student, group.pool, teacher=group.teachers[0]))
        windows = _windows(run, group, student)
        words = (read[0], "--student", run.model(student), "--splitter", read[1])
        words += tuple(word for window in windows for word in ("--window", window))
        words += ("--store", run.path("store", "scores"), "--out", out, "--quiet")
        name, command = f"score-{group.name}-{student}", run.lalp("score", *words)
        work = _reading(run, group, student, windows)
        yield Stage(name, "score", tables, (command,), read, (out,), work)


def _windows(run: _Run, group: Group, student: str) -> tuple[str, ...]:
    # Thirds are by GALP alone, and a score table has some window: the cheapest.
    if group.pool == "math":
        return ("0",)
    sweep = group.pool == "limo" and student == run.plan.window_student
    return tuple(dict.fromkeys([run.plan.main_window, *(run.plan.sweep_windows if sweep else ())]))


def _rankings(run: _Run) -> Iterator[Stage]:
    for (group, student), tables in run.scored.items():
        if group.pool == "limo":
            scores = score_file(run.place.root, Arm(student, group.pool))
            out = run.path("teachers", f"{group.name}_{student}.json")
            name, command = (
                f"teachers-{group.name}-{student}",
                run.lalp("teachers", scores, "--json"),
            )
            yield Stage(name, "teachers", tables, (command,), (scores,), (out,), stdout=out)


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


def _parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm puts together."""
    if arm.rule != "all":
        return ()
    return tuple(Arm(arm.student, arm.pool, "random", t) for t in TEACHERS[arm.pool])


def _selection(run: _Run, arm: Arm, seed: int, tables: tuple[str, ...]) -> Stage:
    root = run.place.root
    out = selected_file(root, arm, seed)
    name = "select-" + PurePosixPath(out).stem
    if parts := tuple(selected_file(root, part, seed) for part in _parts(arm)):
        command = run.lalp("merge", *parts, "--out", out, "--format", "messages")
        return Stage(name, "select", tables, (command,), parts, (out,))
    scores, mix = score_file(root, arm), mix_file(root, arm, seed)
    words = (scores, *_rule(run, arm))
    # A response longer than the student's positions has no score, and cannot be trained on whole.
    words += ("--skip-unscored", "--seed", str(seed), "--out", out, "--json")
    command = run.lalp("select", *words)
    return Stage(name, "select", tables, (command,), (scores,), (out, mix), stdout=mix)


def _rule(run: _Run, arm: Arm) -> tuple[str, ...]:
    window = ("--window", arm.window or run.plan.main_window)
    if arm.rule == "control":
        return ("--rule", "random", "--like", "lalp", *window)
    words = ("--rule", arm.rule, *(window if arm.rule.startswith("lalp") else ()))
    teacher = arm.teacher and run.plan.teacher_name(arm.pool, arm.teacher)
    return (*words, "--teacher", teacher) if teacher else words


# --- training and evaluation ---------------------------------------------------------------------


def _trainings(run: _Run) -> Iterator[Stage]:
    for need in run.chosen:
        for seed in run.plan.seeds if need.columns else []:
            yield _training(run, need, seed)


def _training(run: _Run, need: Need, seed: int) -> Stage:
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
    return Stage(name, "train", need.tables, (command,), (data,), (out,), work)


def _launcher(plan: Plan, student: str) -> tuple[str, ...]:
    small = states_fit(plan.model(student), plan.gpu, plan.gpus)
    if small and plan.gpus == 1:
        return ("lalp",)
    config = accelerate_file(plan.accelerate if small else plan.big_accelerate)
    words = ("accelerate", "launch", "--config_file", config)
    return (*words, "--num_processes", str(plan.gpus), "-m", "lalp.cli")


def _evaluations(run: _Run) -> Iterator[Stage]:
    for need in run.needs:
        seeds = run.plan.seeds if need.arm.pool else run.plan.seeds[:1]
        for decoding, columns in need.columns.items():
            for seed in seeds:
                yield _evaluation(run, need, seed, decoding, columns)


def _evaluation(run: _Run, need: Need, seed: int, decoding: str, columns: Sequence[str]) -> Stage:
    arm, root = need.arm, run.place.root
    read = (trained_folder(root, arm, seed),) if arm.pool else ()
    out = result_file(root, arm, seed, decoding)
    names = tuple(COLUMNS[column] for column in columns)
    words = ("--model", read[0] if read else run.model(arm.student))
    words += tuple(word for name in names for word in ("--benchmark", name))
    words += (*run.data, "--preset", f"table7-{decoding}", *run.served(arm.student))
    words += ("--seed", str(seed), "--store", run.path("store", "answers"), "--out", out)
    samples, length = 8 if decoding == "sampled" else 1, _answer_tokens(arm)
    work = Work(samples=samples, model=arm.student, benchmarks=names, answer_tokens=length)
    name, command = "eval-" + PurePosixPath(out).stem, run.lalp("eval", *words, "--quiet")
    return Stage(name, "eval", need.tables, (command,), read, (out,), work)


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
