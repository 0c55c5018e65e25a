"""Training and evaluation of a grid of arms, several at a time, and their results.

An arm's student is trained (`lalp.training`) and answers held-out problems
(`lalp.sampling.samples`) in a folder named after everything that decides the result. So a grid goes
on after a crash, and two rules that choose the same responses share one run. Arms run side by side
in worker processes, one thread each: on a CPU that is faster than one arm at a time on all threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path, digest, fingerprint
from lalp.paper.arms.plan import Arm, Grid, Setup, arm_table
from lalp.paper.committed import load_tables, save_tables
from lalp.paper.profiles import SFT_GROUPS
from lalp.paper.workers import run_side_by_side
from lalp.pools.pool import Prompt, Response
from lalp.sampling.pool import grade_completions
from lalp.sampling.samples import Completion, generate
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import lalp_column
from lalp.scoring.run import score
from lalp.students.student import load_config, load_student, locate_student, revision
from lalp.training.log import load_held_out, load_log
from lalp.training.trainer import train

BEFORE = "before training"
_WEIGHTS = "model.safetensors"
# Whose code decides what a student learns and how its held-out scores come out.
ARM_CODE_PARTS = ("training", "steps", "scoring", "students")


@lru_cache(maxsize=8)
def _student_revision(name: str) -> str:
    return revision(locate_student(name), load_config(name))


def _labelled(arm: Arm, table: pd.DataFrame) -> pd.DataFrame:
    key = {"group": arm.group, "arm": arm.name, "seed": arm.seed}
    return pd.concat([pd.DataFrame(key, table.index), table], axis=1)


# --- training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainJob:
    """Everything a worker needs to train one student."""

    folder: Path
    examples: tuple[tuple[Prompt, Response], ...]
    setup: Setup
    seed: int
    keep_weights: bool

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train_arms(grid: Grid, *, keep: Collection[str] = SFT_GROUPS) -> dict[str, pd.DataFrame]:
    """Fine-tune a student for every arm; finished ones are read from their folders.

    Args:
        grid: Arms, and what they share; InputError if one names a response that the pool lacks.
        keep: Comparisons whose students' weights stay on disk, to be evaluated; the others' are
            deleted when they are trained.

    Returns:
        ``log``: one row per arm and optimizer step (`lalp.training.trainer.train`); ``held_out``:
        one row per arm, measured step (0 is before training) and held-out response, with ``galp``
        and ``lalp`` in nats. Both begin with ``group``, ``arm`` and ``seed``.
    """
    jobs, setup = _train_jobs(grid, keep), grid.setup
    missing = [
        job
        for job in {job.folder: job for job in jobs.values()}.values()
        if not (job.model / (_WEIGHTS if job.keep_weights else "run.json")).is_file()
    ]
    # Long ones first, so that no worker is left alone with one at the end.
    missing.sort(key=lambda job: -sum(len(response.text) for _, response in job.examples))
    run_side_by_side(_train, missing, setup.workers, "training")
    # Before training, all arms are the same student.
    window, splitter = setup.held_out.window, setup.held_out.splitter
    before = score(setup.held_out.pool, setup.student, [window], splitter=splitter, progress=False)
    before = before.rename(columns={lalp_column(window): "lalp"}).assign(step=0)
    before = before[["step", "prompt_id", "response_id", "galp", "lalp", "reason"]]
    log, held_out = [], []
    for arm, job in jobs.items():
        log.append(_labelled(arm, load_log(job.model)))
        measured = pd.concat([before, load_held_out(job.model)], ignore_index=True)
        held_out.append(_labelled(arm, measured))
    tables = {"log": log, "held_out": held_out}
    return {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}


def _train_jobs(grid: Grid, keep: Collection[str]) -> dict[Arm, _TrainJob]:
    """One job per arm; arms with the same responses and seed share it, and one may keep weights."""
    setup, by_id = grid.setup, {r.response_id: r for r in grid.pool.responses}
    examples, folders = {}, {}
    for arm in grid.arms:
        if unknown := [i for i in arm.response_ids if i not in by_id]:
            raise InputError(
                f"arm {arm.name!r} trains on response {unknown[0]!r}, which the pool does not hold:"
                " give the pool that was scored"
            )
        responses = [by_id[i] for i in arm.response_ids]
        examples[arm] = tuple((grid.pool.prompts[r.prompt_id], r) for r in responses)
        folders[arm] = setup.folder / _run_digest(examples[arm], setup, arm.seed)
    kept = {folder for arm, folder in folders.items() if arm.group.partition(":")[0] in keep}
    return {
        arm: _TrainJob(folder, examples[arm], setup, arm.seed, folder in kept)
        for arm, folder in folders.items()
    }


def _run_digest(examples: Sequence[tuple[Prompt, Response]], setup: Setup, seed: int) -> str:
    held_out = setup.held_out
    measured = [(held_out.pool.prompts[r.prompt_id], r) for r in held_out.pool.responses]
    trained_on, measured_on = (
        [[*(m.content for m in p.messages), r.response_id, r.text] for p, r in pairs]
        for pairs in (examples, measured)
    )
    student, code = _student_revision(setup.student), fingerprint(*ARM_CODE_PARTS)
    parts = [student, setup.recipe, seed, trained_on, measured_on]
    return digest([*parts, held_out.splitter, held_out.window, code])


def _train(job: _TrainJob) -> None:
    if job.model.is_dir():  # a finished run whose weights were deleted
        shutil.rmtree(job.model)
    train(
        job.examples,
        job.setup.student,
        job.model,
        job.setup.recipe,
        seed=job.seed,
        held_out=job.setup.held_out,
        evaluations=1,
        progress=False,
    )
    if not job.keep_weights:
        (job.model / _WEIGHTS).unlink()


# --- evaluation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AnswerJob:
    """Everything a worker needs to have one student answer the problems."""

    folder: Path
    model: str
    problems: tuple[Prompt, ...]
    samplings: tuple[Sampling, ...]

    @property
    def path(self) -> Path:
        """Where the answers are kept."""
        asked = [[p.prompt_id, p.answer, *(m.content for m in p.messages)] for p in self.problems]
        key = [self.samplings, asked, fingerprint("sampling", "students")]
        return self.folder / f"answers-{digest(key)}.parquet"


def evaluate_arms(grid: Grid) -> pd.DataFrame:
    """Answers to held-out problems by the student before training and after each arm's.

    Arms are trained before (`train_arms`). InputError if a problem is trained on, or an arm's
    student is missing.

    Returns:
        One row per arm, problem, sampling and sample: ``group``, ``arm``, ``seed`` (empty, "before
        training" and -1 for the untrained student), ``temperature`` and the columns of
        `grade_completions` without the text.
    """
    prompt_of = {response.response_id: response.prompt_id for response in grid.pool.responses}
    trained = {prompt_of.get(response_id) for arm in grid.arms for response_id in arm.response_ids}
    for problem in grid.problems:
        if problem.prompt_id in trained:
            raise InputError(f"problem {problem.prompt_id!r} is trained on: evaluate on others")
        if problem.answer is None:
            raise InputError(f"problem {problem.prompt_id!r} has no reference answer: leave it out")
    jobs = _answer_jobs(grid)
    distinct = {job.folder: job for job in jobs.values()}.values()
    missing = [job for job in distinct if not job.path.is_file()]
    for job in missing:
        if job.model != grid.setup.student and not Path(job.model, _WEIGHTS).is_file():
            raise InputError(f"{job.model} holds no trained student: train the arms first")
    run_side_by_side(_answer, missing, grid.setup.workers, "answering")
    found = [_labelled(arm, pd.read_parquet(job.path)) for arm, job in jobs.items()]
    answers = pd.concat(found, ignore_index=True)
    names = ["prompt_id", "sample", "text", "num_tokens", "truncated"]
    # Students often answer alike: each different text is graded once.
    texts = answers.drop_duplicates(names)[names].to_dict("records")
    graded = grade_completions(grid.problems, [Completion(**row) for row in texts])
    return answers.merge(graded, on=names, how="left").drop(columns="text")


def _answer_jobs(grid: Grid) -> dict[Arm, _AnswerJob]:
    student, what = grid.setup.student, (grid.problems, grid.samplings)
    folder = grid.setup.folder / f"before-{_student_revision(student)[:16]}"
    jobs = {Arm("", BEFORE, -1, ()): _AnswerJob(folder, student, *what)}
    trained = _train_jobs(grid, ()).items()
    return jobs | {arm: _AnswerJob(job.folder, str(job.model), *what) for arm, job in trained}


def _answer(job: _AnswerJob) -> None:
    student, samplings, store = load_student(job.model), list(job.samplings), job.folder / "samples"
    drawn = generate(job.problems, student, samplings, store=store, progress=False)
    frames = [
        pd.DataFrame([asdict(c) for c in completions]).assign(temperature=sampling.temperature)
        for sampling, completions in zip(samplings, drawn, strict=True)
    ]
    with atomic_path(job.path) as temporary:
        pd.concat(frames, ignore_index=True).to_parquet(temporary)


# --- results -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmResults:
    """What came out of a grid of arms; the tables of `arm_table`, `train_arms`, `evaluate_arms`.

    ``answers`` is empty if none were asked for. ``provenance`` holds profile, commit, hours and
    versions of a committed run, and nothing for this one.
    """

    arms: pd.DataFrame
    log: pd.DataFrame
    held_out: pd.DataFrame
    answers: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)


_TABLES = ("arms", "log", "held_out", "answers")


def run_grid(grid: Grid, *, answers: bool = True) -> ArmResults:
    """Train the students of a grid and let them answer; what is there already is read."""
    trained = train_arms(grid)
    table = evaluate_arms(grid) if answers else pd.DataFrame()
    return ArmResults(arm_table(grid.arms, grid.scores), **trained, answers=table)


def run_in_turns(grid: Grid) -> ArmResults:
    """As `run_grid`, a few arms at a time, so that their weights fit on the disk."""
    some = 2 * grid.setup.workers
    for start in range(0, len(grid.arms), some):
        part = replace(grid, arms=grid.arms[start : start + some])
        jobs = {arm: job for arm, job in _answer_jobs(part).items() if arm.name != BEFORE}
        missing = tuple(arm for arm, job in jobs.items() if not job.path.is_file())
        if missing:
            train_arms(replace(part, arms=missing))
            evaluate_arms(replace(part, arms=missing))
        for job in jobs.values():
            Path(job.model, _WEIGHTS).unlink(missing_ok=True)
    answers = evaluate_arms(grid)
    trained = train_arms(grid, keep=())
    return ArmResults(arm_table(grid.arms, grid.scores), **trained, answers=answers)


def save_results(results: ArmResults, folder: Path) -> None:
    """Write results as CSV files with their provenance, to be committed."""
    save_tables({t: getattr(results, t) for t in _TABLES}, results.provenance, folder)


def load_results(name: str) -> ArmResults:
    """The committed results of a longer run, by its profile's name; InputError if none."""
    tables, provenance = load_tables(f"arms_{name}", _TABLES, f"make arms PROFILE={name}")
    return ArmResults(**tables, provenance=provenance)
