"""Training and evaluation of a grid of arms, several at a time, and their results.

An arm's student is trained (`lalp.training`) and answers held-out problems
(`lalp.sampling.samples`) in a folder named after everything that decides the result. So a grid
continues after a crash, and two rules that choose the same responses share one run. Arms run side
by side in worker processes with one thread each. On a CPU this is faster than one after another.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path, digest, fingerprint
from lalp.paper.arms.plan import Arm, Grid, Setup, arm_table, plan_grid
from lalp.paper.champ.pool import profile_pool, profile_scores
from lalp.paper.committed import load_results as load_committed
from lalp.paper.profiles import Profile, load_profile
from lalp.paper.workers import run_side_by_side
from lalp.pools.pool import Prompt, Response
from lalp.sampling.pool import grade_completions
from lalp.sampling.samples import Completion, generate
from lalp.scoring.columns import lalp_column
from lalp.scoring.run import score
from lalp.students.student import find_student, load_student
from lalp.training.job import training_dtype
from lalp.training.log import load_held_out, load_log
from lalp.training.trainer import train

BEFORE = "before training"
# The profile whose results are committed: `make arms`.
COMMITTED = "standard"
# A trained student's largest file, which is deleted once it has answered.
WEIGHTS = "model.safetensors"
# The packages whose code decides what a student learns and how its held-out scores come out.
ARM_CODE_PARTS = ("training", "steps", "scoring", "students")


@lru_cache(maxsize=8)
def _student_revision(name: str) -> str:
    return find_student(name).revision


def labelled(arm: Arm, table: pd.DataFrame) -> pd.DataFrame:
    """An arm's table, after the columns ``group``, ``arm`` and ``seed``."""
    key = {"group": arm.group, "arm": arm.name, "seed": arm.seed}
    return pd.concat([pd.DataFrame(key, table.index), table], axis=1)


@dataclass(frozen=True)
class Run:
    """One arm's student: all that a worker needs to train it and to have it answer the problems."""

    folder: Path  # Its own, for the student and the answers
    examples: tuple[tuple[Prompt, Response], ...]  # None for the student before training
    seed: int
    setup: Setup

    @property
    def model(self) -> Path:
        """The trained student's folder."""
        return self.folder / "model"

    @property
    def answers(self) -> Path:
        """The file of the answers to these problems."""
        setup = self.setup
        key = [setup.samplings, setup.problems, fingerprint("sampling", "students")]
        return self.folder / f"answers-{digest(key)}.parquet"


def plan_runs(grid: Grid) -> dict[Arm, Run]:
    """One run per arm; arms with the same responses and seed share it.

    InputError if an arm names a response that the pool lacks.
    """
    setup, runs = grid.setup, {}
    by_id = {response.response_id: response for response in grid.pool.responses}
    # The examples, the seed, and everything else that decides the result.
    shared = [setup.recipe, setup.held_out, fingerprint(*ARM_CODE_PARTS)]
    shared += [_student_revision(setup.student), training_dtype(setup.recipe)]
    for arm in grid.arms:
        if unknown := [i for i in arm.response_ids if i not in by_id]:
            raise InputError(
                f"arm {arm.name!r} trains on response {unknown[0]!r}, which the pool does not hold:"
                " give the pool that was scored"
            )
        responses = [by_id[i] for i in arm.response_ids]
        examples = tuple((grid.pool.prompts[r.prompt_id], r) for r in responses)
        folder = setup.folder / digest([examples, arm.seed, *shared])
        runs[arm] = Run(folder, examples, arm.seed, setup)
    return runs


def untrained_run(setup: Setup) -> dict[Arm, Run]:
    """The run of the student before training, which only answers."""
    folder = setup.folder / f"before-{_student_revision(setup.student)[:16]}"
    return {Arm("", BEFORE, -1, ()): Run(folder, (), -1, setup)}


# --- training ----------------------------------------------------------------------------------


def train_arms(grid: Grid, *, with_weights: bool = True) -> dict[str, pd.DataFrame]:
    """Fine-tune a student for every arm; read finished ones from their folders.

    Students whose weights were deleted are trained again, unless no weights are asked for.
    InputError if an arm names a response that the pool lacks.

    Returns:
        ``log``: one row per arm and optimizer step (`lalp.training.trainer.train`); ``held_out``:
        one row per arm, measured step (0 is before training) and held-out response, with ``galp``
        and ``lalp`` in nats. Both begin with ``group``, ``arm`` and ``seed``.
    """
    runs, setup = plan_runs(grid), grid.setup
    needed = WEIGHTS if with_weights else "run.json"
    distinct = {run.folder: run for run in runs.values()}.values()
    missing = [run for run in distinct if not (run.model / needed).is_file()]
    # Long ones first, so that no worker is left alone with one at the end.
    missing.sort(key=lambda run: -sum(len(response.text) for _, response in run.examples))
    run_side_by_side(train_run, missing, setup.workers, "training")
    # Before training, all arms are the same student.
    window, splitter = setup.held_out.window, setup.held_out.splitter
    before = score(setup.held_out.pool, setup.student, [window], splitter=splitter, progress=False)
    before = before.rename(columns={lalp_column(window): "lalp"}).assign(step=0)
    before = before[["step", "prompt_id", "response_id", "galp", "lalp", "reason"]]
    log, held_out = [], []
    for arm, run in runs.items():
        log.append(labelled(arm, load_log(run.model)))
        measured = pd.concat([before, load_held_out(run.model)], ignore_index=True)
        held_out.append(labelled(arm, measured))
    tables = {"log": log, "held_out": held_out}
    return {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}


def train_run(run: Run) -> None:
    """Train a run's student, even if it was trained before and its weights were deleted."""
    if run.model.is_dir():  # a finished run whose weights were deleted
        shutil.rmtree(run.model)
    train(
        run.examples,
        run.setup.student,
        run.model,
        run.setup.recipe,
        seed=run.seed,
        held_out=run.setup.held_out,
        evaluations=run.setup.evaluations,
        progress=False,
    )


# --- evaluation --------------------------------------------------------------------------------


def evaluate_arms(grid: Grid) -> pd.DataFrame:
    """Answers to held-out problems by the student before training and after each arm's.

    Arms must be trained first (`train_arms`). InputError if a problem was trained on, or an arm's
    student is missing.

    Returns:
        One row per arm, problem, sampling and sample: ``group``, ``arm``, ``seed`` (empty, "before
        training" and -1 for the untrained student), ``temperature`` and the columns of
        `grade_completions` without the text.
    """
    runs, setup = plan_runs(grid), grid.setup
    trained = {prompt.prompt_id for run in runs.values() for prompt, _ in run.examples}
    for problem in setup.problems:
        if problem.prompt_id in trained:
            raise InputError(f"problem {problem.prompt_id!r} is trained on: evaluate on others")
        if problem.answer is None:
            raise InputError(f"problem {problem.prompt_id!r} has no reference answer: leave it out")
    runs = untrained_run(setup) | runs
    distinct = {run.folder: run for run in runs.values()}.values()
    missing = [run for run in distinct if not run.answers.is_file()]
    for run in missing:
        if run.examples and not (run.model / WEIGHTS).is_file():
            raise InputError(f"{run.model} holds no trained student: train the arms first")
    run_side_by_side(answer_run, missing, setup.workers, "answering")
    found = [labelled(arm, pd.read_parquet(run.answers)) for arm, run in runs.items()]
    answers = pd.concat(found, ignore_index=True)
    names = ["prompt_id", "sample", "text", "num_tokens", "truncated"]
    # Students often give the same answer: each distinct text is graded once.
    texts = answers.drop_duplicates(names)[names].to_dict("records")
    graded = grade_completions(setup.problems, [Completion(**row) for row in texts])
    return answers.merge(graded, on=names, how="left").drop(columns="text")


def answer_run(run: Run) -> None:
    """Have a run's student answer all problems, and keep its answers."""
    problems, samplings = run.setup.problems, run.setup.samplings
    student = load_student(str(run.model) if run.examples else run.setup.student)
    store = run.folder / "samples"
    how = {"batch_size": run.setup.rows, "store": store, "progress": False}
    drawn = generate(problems, student, list(samplings), **how)
    frames = [
        pd.DataFrame([asdict(c) for c in completions]).assign(temperature=sampling.temperature)
        for sampling, completions in zip(samplings, drawn, strict=True)
    ]
    with atomic_path(run.answers) as temporary:
        pd.concat(frames, ignore_index=True).to_parquet(temporary)


# --- results -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmResults:
    """The results of a grid of arms; the tables of `arm_table`, `train_arms`, `evaluate_arms`.

    ``answers`` is empty if none were asked for. For a committed run, ``provenance`` holds profile,
    day, commit, hours, versions and the precision of training (``dtype``). For a live run it is
    empty.
    """

    arms: pd.DataFrame
    log: pd.DataFrame
    held_out: pd.DataFrame
    answers: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)


def run_grid(grid: Grid, *, answers: bool = True, with_weights: bool = True) -> ArmResults:
    """Train the students of a grid and let them answer; finished ones are read."""
    trained = train_arms(grid, with_weights=with_weights)
    table = evaluate_arms(grid) if answers else pd.DataFrame()
    return ArmResults(arm_table(grid.arms, grid.scores), **trained, answers=table)


def run_in_turns(grid: Grid) -> ArmResults:
    """As `run_grid`, a few arms at a time, so that their weights fit on the disk."""
    some = 2 * grid.setup.workers
    for start in range(0, len(grid.arms), some):
        runs = plan_runs(replace(grid, arms=grid.arms[start : start + some]))
        if missing := tuple(arm for arm, run in runs.items() if not run.answers.is_file()):
            run_grid(replace(grid, arms=missing))
        for run in runs.values():
            (run.model / WEIGHTS).unlink(missing_ok=True)
    return run_grid(grid, with_weights=False)


def load_results(name: str) -> ArmResults:
    """The committed results of a run, by its profile's name; InputError if none."""
    # Answers that look like numbers are still texts.
    texts = ("extracted",)
    return load_committed(ArmResults, f"arms_{name}", f"make arms PROFILE={name}", texts)


def profile_results(
    profile: Profile, seed: int, *, answers: bool = True
) -> tuple[Grid, ArmResults]:
    """What a profile's notebooks show, and the grid behind it.

    A profile that reads committed results shows those of the longer run `COMMITTED`; its responses
    are chosen again from the profile's scores. All others train and evaluate their own arms, on
    prompts that ``seed`` chooses. What was trained in float32 is retrained in it.
    """
    if not profile.results:
        planned = plan_grid(profile, seed)
        return planned, run_grid(planned, answers=answers)
    results = load_results(COMMITTED)
    made = results.provenance["seed"]
    scores = profile_scores(profile, profile_pool(profile)[0], seed=made)
    bf16 = results.provenance["dtype"] == "bfloat16"
    return plan_grid(load_profile(COMMITTED), made, scores, bf16=bf16), results
