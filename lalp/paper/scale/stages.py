"""Stages of a pipeline: command lines with the files they read and write, in the order they run.

Nothing is run or read here. Names of models are the paper's in every file name, also where another
model stands in; teachers inside the files are named after the models that ran.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from lalp.paper.scale.models import (
    ANSWER_TOKENS_LONG,
    ANSWER_TOKENS_ORIGINAL,
    GREEDY_SOLVED,
    KEPT_SAMPLES,
    RESPONSE_TOKENS,
    fits_gpus,
    states_fit,
)
from lalp.paper.scale.settings import (
    COLUMNS,
    TEACHERS,
    Arm,
    Need,
    Pipeline,
    accelerate_file,
    arm_recipe,
    model_run,
    plan_needs,
)

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
        command: Command lines, one after another; the first word is ``lalp`` or ``accelerate``.
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
    """Where a pipeline runs; a dry run is the same pipeline in another place.

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


def make_stages(pipeline: Pipeline, place: Place, profile: str) -> tuple[Stage, ...]:
    """All stages, each behind those whose outputs it reads.

    Args:
        pipeline: Settings.
        place: Where it runs.
        profile: Name of the pipeline, for the command that writes its tables.
    """
    plan = _Plan(pipeline, place, plan_needs(pipeline))
    parts = [_prompts(plan), _samples(plan), _merges(plan), _segments(plan), _scores(plan)]
    parts += [_rankings(plan), _selections(plan), _trainings(plan), _evaluations(plan)]
    stages = [stage for part in parts for stage in part]
    return (*stages, _tables(plan, stages, profile))


# --- where results lie: also read by `lalp pipeline tables` --------------------------------------


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


# --- words of command lines ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What all command lines depend on."""

    pipeline: Pipeline
    place: Place
    needs: list[Need]


def _join(*parts: str) -> str:
    return str(PurePosixPath(*parts))


def _path(plan: _Plan, *parts: str) -> str:
    return _join(plan.place.root, *parts)


def _pool_file(plan: _Plan, group: Group) -> str:
    return _path(plan, "pools", f"{group.name}.jsonl")


# Commands of the replication; all others are the tool's.
_OWN_COMMANDS = ("prompts", "tables")


def _lalp(plan: _Plan, command: str, *words: str) -> tuple[str, ...]:
    options = plan.place.options
    further = (word for key in (command, *words) for word in options.get(key, ()))
    program = ("python", "-m", "lalp.paper.scale") if command in _OWN_COMMANDS else ("lalp",)
    return (*program, command, *words, *further)


def _model(plan: _Plan, name: str) -> str:
    """Where the model that runs in the place of ``name`` is loaded from."""
    facts = model_run(plan.pipeline, name)
    return _join(plan.place.models, facts.name) if plan.place.models else facts.hub_id


def _served(plan: _Plan, name: str) -> tuple[str, ...]:
    """Options of a model that answers: backend, and the GPUs that share it."""
    pipeline = plan.pipeline
    if pipeline.backend != "vllm":
        return ("--backend", pipeline.backend)
    small = fits_gpus(model_run(pipeline, name), pipeline.gpu, pipeline.gpus)
    gpus = pipeline.gpus if small else pipeline.big_gpus
    return ("--backend", "vllm", "--tensor-parallel", str(gpus))


def _data(plan: _Plan) -> tuple[str, ...]:
    return ("--data", plan.place.data) if plan.place.data else ()


def _count(plan: _Plan, pool: str) -> int:
    return getattr(plan.pipeline, f"{pool}_prompts")


# --- what is needed by which tables --------------------------------------------------------------


def _joined(pairs: Iterable[tuple[_Key, Iterable[str]]]) -> dict[_Key, tuple[str, ...]]:
    """Keys in order of first appearance, each with all its tables once."""
    joined: dict[_Key, dict[str, None]] = {}
    for key, tables in pairs:
        joined.setdefault(key, {}).update(dict.fromkeys(tables))
    return {key: tuple(tables) for key, tables in joined.items()}


def _chosen(plan: _Plan) -> list[Need]:
    """Arms whose training data must be chosen."""
    return [need for need in plan.needs if need.arm.pool]


def _groups(plan: _Plan) -> dict[Group, tuple[str, ...]]:
    return _joined((arm_group(need.arm), need.tables) for need in _chosen(plan))


def _scored(plan: _Plan) -> dict[tuple[Group, str], tuple[str, ...]]:
    """Groups with the students that score them."""
    return _joined(((arm_group(need.arm), need.arm.student), need.tables) for need in _chosen(plan))


# --- prompts, samples, pools ---------------------------------------------------------------------


def _prompts(plan: _Plan) -> Iterator[Stage]:
    pools = _joined((group.pool, tables) for group, tables in _groups(plan).items())
    for pool, tables in pools.items():
        out, count = _path(plan, "prompts", f"{pool}.jsonl"), _count(plan, pool)
        words = (pool, "--out", out, "--limit", str(count), *_data(plan))
        command = _lalp(plan, "prompts", *words)
        yield Stage(f"prompts-{pool}", "prompts", tables, (command,), (), (out,), Work(pool, count))


def _samples(plan: _Plan) -> Iterator[Stage]:
    wanted = _joined(
        ((group.pool, teacher), tables)
        for group, tables in _groups(plan).items()
        for teacher in group.teachers
    )
    for (pool, teacher), tables in wanted.items():
        if pool == "math":
            yield _sample(plan, pool, teacher, tables, ("c9-sampled", 16))
        elif pool == "code":
            yield _sample(plan, pool, teacher, tables, ("table5-greedy", 1))
        elif teacher in plan.pipeline.published:
            yield _published(plan, teacher, tables)
        else:
            yield from _until_solved(plan, teacher, tables)


def _sample_file(plan: _Plan, pool: str, teacher: str, preset: str) -> str:
    return _path(plan, "samples", f"{pool}_{teacher}_{preset}.jsonl")


def _sample(
    plan: _Plan,
    pool: str,
    teacher: str,
    tables: tuple[str, ...],
    preset: tuple[str, int],
    rest: str = "",
) -> Stage:
    """Sample a teacher on the pool's prompts, or on the ``rest`` of them that it did not solve."""
    name, samples = preset
    prompts = rest or _path(plan, "prompts", f"{pool}.jsonl")
    out = _sample_file(plan, pool, teacher, name)
    words = (prompts, "--model", _model(plan, teacher))
    words += ("--teacher", model_run(plan.pipeline, teacher).name)
    # Prompts of mathematics hold their system message; programs are asked for without one.
    words += ("--system", "") if pool == "code" else ()
    words += ("--preset", name, *_served(plan, teacher), "--seed", "0")
    words += ("--store", _path(plan, "store", "samples"), "--out", out, "--quiet")
    count = _count(plan, pool)
    count = max(1, round((1 - GREEDY_SOLVED) * count)) if rest else count
    return Stage(
        f"sample-{pool}-{teacher}-{name}",
        "sample",
        tables,
        (_lalp(plan, "sample", *words),),
        (prompts,),
        (out,),
        Work(pool, count, samples, teacher, (teacher,)),
        unless_empty=rest,
    )


def _until_solved(plan: _Plan, teacher: str, tables: tuple[str, ...]) -> Iterator[Stage]:
    """Table 5's one greedy answer, and its 16 samples where that one was wrong."""
    first = _sample(plan, "limo", teacher, tables, ("table5-greedy", 1))
    rest = _path(plan, "prompts", f"limo_{teacher}_unsolved.jsonl")
    command = _lalp(plan, "unsolved", *first.inputs, *first.outputs, "--out", rest)
    read = (*first.inputs, *first.outputs)
    yield first
    yield Stage(f"unsolved-limo-{teacher}", "unsolved", tables, (command,), read, (rest,))
    yield _sample(plan, "limo", teacher, tables, ("table5-sampled", 16), rest)


def _published(plan: _Plan, teacher: str, tables: tuple[str, ...]) -> Stage:
    out = _sample_file(plan, "limo", teacher, "published")
    words = ("limo", "--out", out, "--limit", str(_count(plan, "limo")))
    command = _lalp(plan, "prompts", *words, "--responses-by", teacher, *_data(plan))
    return Stage(f"published-limo-{teacher}", "prompts", tables, (command,), (), (out,))


def _sample_files(plan: _Plan, group: Group) -> list[str]:
    paths = []
    for teacher in group.teachers:
        presets = {"math": ["c9-sampled"], "code": ["table5-greedy"]}.get(group.pool)
        if presets is None:
            taken = teacher in plan.pipeline.published
            presets = ["published"] if taken else ["table5-greedy", "table5-sampled"]
        paths += [_sample_file(plan, group.pool, teacher, preset) for preset in presets]
    return paths


def _merges(plan: _Plan) -> Iterator[Stage]:
    for group, tables in _groups(plan).items():
        parts, out = _sample_files(plan, group), _pool_file(plan, group)
        # Answers to programming prompts are not verified: the prompts come without tests.
        words = () if group.pool == "code" else ("--only-correct",)
        if len(group.teachers) > 1:
            # Every arm is then trained on the same prompts, and no teacher has more than one try.
            words += ("--per-teacher", "1", "--min-teachers", str(plan.pipeline.min_teachers))
        command = _lalp(plan, "merge", *parts, *words, "--out", out)
        yield Stage(f"merge-{group.name}", "merge", tables, (command,), tuple(parts), (out,))


# --- steps, scores, choices ----------------------------------------------------------------------


def _segments(plan: _Plan) -> Iterator[Stage]:
    splitter = ("--splitter", plan.pipeline.splitter)
    if plan.pipeline.splitter == "llm":
        splitter += ("--llm-url", plan.pipeline.llm_url, "--llm-model", plan.pipeline.llm_model)
    for group, tables in _groups(plan).items():
        pool, out = _pool_file(plan, group), _path(plan, "steps", f"{group.name}.jsonl")
        command = _lalp(plan, "segment", pool, *splitter, "--out", out)
        yield Stage(
            f"segment-{group.name}",
            "segment",
            tables,
            (command,),
            (pool,),
            (out,),
            _reading(plan, group),
        )


def _reading(plan: _Plan, group: Group, model: str = "", windows: tuple[str, ...] = ()) -> Work:
    count, kept = _count(plan, group.pool), KEPT_SAMPLES[group.pool]
    return Work(group.pool, count, kept, model, group.teachers, windows)


def _scores(plan: _Plan) -> Iterator[Stage]:
    for (group, student), tables in _scored(plan).items():
        pool, steps = _pool_file(plan, group), _path(plan, "steps", f"{group.name}.jsonl")
        out = score_file(plan.place.root, Arm(student, group.pool, teacher=group.teachers[0]))
        windows = _windows(plan, group, student)
        words = (pool, "--student", _model(plan, student), "--splitter", steps)
        words += tuple(word for window in windows for word in ("--window", window))
        words += ("--store", _path(plan, "store", "scores"), "--out", out, "--quiet")
        yield Stage(
            f"score-{group.name}-{student}",
            "score",
            tables,
            (_lalp(plan, "score", *words),),
            (pool, steps),
            (out,),
            _reading(plan, group, student, windows),
        )


def _windows(plan: _Plan, group: Group, student: str) -> tuple[str, ...]:
    # Thirds are by GALP alone, and a score table has some window: the cheapest.
    if group.pool == "math":
        return ("0",)
    sweep = group.pool == "limo" and student == plan.pipeline.window_student
    wanted = [plan.pipeline.main_window, *(plan.pipeline.sweep_windows if sweep else ())]
    return tuple(dict.fromkeys(wanted))


def _rankings(plan: _Plan) -> Iterator[Stage]:
    for (group, student), tables in _scored(plan).items():
        if group.pool != "limo":
            continue
        scores = score_file(plan.place.root, Arm(student, group.pool))
        out = _path(plan, "teachers", f"{group.name}_{student}.json")
        command = _lalp(plan, "teachers", scores, "--json")
        name = f"teachers-{group.name}-{student}"
        yield Stage(name, "teachers", tables, (command,), (scores,), (out,), stdout=out)


def _selections(plan: _Plan) -> Iterator[Stage]:
    wanted = _joined(
        ((arm, seed), need.tables)
        for need in _chosen(plan)
        for seed in plan.pipeline.seeds
        for arm in (*_parts(need.arm), need.arm)
    )
    stages = (_selection(plan, arm, seed, tables) for (arm, seed), tables in wanted.items())
    # Most choices are the same for every seed.
    yield from {stage.name: stage for stage in stages}.values()


def _parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm puts together."""
    if arm.rule != "all":
        return ()
    return tuple(Arm(arm.student, arm.pool, "random", t) for t in TEACHERS[arm.pool])


def _selection(plan: _Plan, arm: Arm, seed: int, tables: tuple[str, ...]) -> Stage:
    root = plan.place.root
    out = selected_file(root, arm, seed)
    name = "select-" + PurePosixPath(out).stem
    if parts := tuple(selected_file(root, part, seed) for part in _parts(arm)):
        command = _lalp(plan, "merge", *parts, "--out", out, "--format", "messages")
        return Stage(name, "select", tables, (command,), parts, (out,))
    scores, mix = score_file(root, arm), mix_file(root, arm, seed)
    words = (scores, *_rule(plan, arm))
    # A response longer than the student's positions has no score, and cannot be trained on whole.
    words += ("--skip-unscored", "--seed", str(seed), "--out", out, "--json")
    command = _lalp(plan, "select", *words)
    return Stage(name, "select", tables, (command,), (scores,), (out, mix), stdout=mix)


def _rule(plan: _Plan, arm: Arm) -> tuple[str, ...]:
    window = ("--window", arm.window or plan.pipeline.main_window)
    if arm.rule == "control":
        return ("--rule", "random", "--like", "lalp", *window)
    words = ("--rule", arm.rule, *(window if arm.rule.startswith("lalp") else ()))
    teacher = model_run(plan.pipeline, arm.teacher).name if arm.teacher else ""
    # Published responses bear the name of the paper's teacher.
    if arm.pool == "limo" and arm.teacher in plan.pipeline.published:
        teacher = arm.teacher
    return (*words, "--teacher", teacher) if teacher else words


# --- training and evaluation ---------------------------------------------------------------------


def _trainings(plan: _Plan) -> Iterator[Stage]:
    for need in _chosen(plan):
        for seed in plan.pipeline.seeds if need.columns else []:
            yield _training(plan, need, seed)


def _training(plan: _Plan, need: Need, seed: int) -> Stage:
    arm, root = need.arm, plan.place.root
    data, out = selected_file(root, arm, seed), trained_folder(root, arm, seed)
    recipe = arm_recipe(plan.pipeline, arm)
    words = (data, "--student", _model(plan, arm.student), "--out", out)
    words += ("--recipe", recipe, "--seed", str(seed), "--quiet")
    command = (*_launcher(plan, arm.student), *_lalp(plan, "train", *words)[1:])
    writers = (arm.teacher,) if arm.teacher else TEACHERS[arm.pool]
    # One response per prompt by some writer, or one by each.
    samples = 1.0 if arm.rule == "all" else 1 / len(writers)
    count = _count(plan, arm.pool)
    work = Work(arm.pool, count, samples, arm.student, writers, recipe=recipe)
    name = f"train-{arm.name}-s{seed}"
    return Stage(name, "train", need.tables, (command,), (data,), (out,), work)


def _launcher(plan: _Plan, student: str) -> tuple[str, ...]:
    pipeline = plan.pipeline
    small = states_fit(model_run(pipeline, student), pipeline.gpu, pipeline.gpus)
    if small and pipeline.gpus == 1:
        return ("lalp",)
    config = accelerate_file(pipeline.accelerate if small else pipeline.big_accelerate)
    words = ("accelerate", "launch", "--config_file", config)
    return (*words, "--num_processes", str(pipeline.gpus), "-m", "lalp.cli")


def _evaluations(plan: _Plan) -> Iterator[Stage]:
    for need in plan.needs:
        seeds = plan.pipeline.seeds if need.arm.pool else plan.pipeline.seeds[:1]
        for decoding, columns in need.columns.items():
            for seed in seeds:
                yield _evaluation(plan, need, seed, decoding, columns)


def _evaluation(plan: _Plan, need: Need, seed: int, decoding: str, columns: Sequence[str]) -> Stage:
    arm, root = need.arm, plan.place.root
    read = (trained_folder(root, arm, seed),) if arm.pool else ()
    out = result_file(root, arm, seed, decoding)
    names = tuple(COLUMNS[column] for column in columns)
    words = ("--model", read[0] if read else _model(plan, arm.student))
    words += tuple(word for name in names for word in ("--benchmark", name))
    words += (*_data(plan), "--preset", f"table7-{decoding}", *_served(plan, arm.student))
    words += ("--seed", str(seed), "--store", _path(plan, "store", "answers"), "--out", out)
    samples = 8 if decoding == "sampled" else 1
    work = Work(
        samples=samples, model=arm.student, benchmarks=names, answer_tokens=_answer_tokens(arm)
    )
    name = "eval-" + PurePosixPath(out).stem
    command = _lalp(plan, "eval", *words, "--quiet")
    return Stage(name, "eval", need.tables, (command,), read, (out,), work)


def _answer_tokens(arm: Arm) -> int:
    if arm.pool == "math":
        return RESPONSE_TOKENS["math"][arm.teacher]
    brief = not arm.pool and arm.student.endswith(("Instruct", "7B"))
    return ANSWER_TOKENS_ORIGINAL if brief else ANSWER_TOKENS_LONG


def _tables(plan: _Plan, stages: Sequence[Stage], profile: str) -> Stage:
    out = _path(plan, "tables.json")
    command = _lalp(plan, "tables", "--profile", profile, "--root", plan.place.root, *_data(plan))
    inputs = [path for stage in stages if stage.kind in ("score", "eval") for path in stage.outputs]
    inputs += [stage.stdout for stage in stages if stage.kind == "select" and stage.stdout]
    tables = tuple(plan.pipeline.tables)
    return Stage("tables", "tables", tables, ((*command, "--out", out),), tuple(inputs), (out,))
