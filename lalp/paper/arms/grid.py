"""Arms: what one rule chooses, trained on and evaluated (paper, Table 1, Table 3, Fig. 6, Fig. 9).

An arm is a set of responses and a seed. Its student is trained (`lalp.training`) and answers
held-out problems (`lalp.sampling.samples`) in a folder named after everything that decides the
result, so that a grid of arms goes on after a crash, and two rules that choose the same responses
share one run. Arms run side by side in worker processes, one thread each: that is faster on a CPU
than one after the other on all threads.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path, fingerprint
from lalp.paper.profiles import SFT_GROUPS
from lalp.paper.workers import run_side_by_side
from lalp.pools.pool import Pool, Prompt, Response
from lalp.sampling.pool import grade_completions
from lalp.sampling.samples import Completion, generate
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import lalp_column, score_columns
from lalp.scoring.run import score
from lalp.selection import matched
from lalp.selection import rules as selection_rules
from lalp.students.student import load_config, load_student, locate_student, revision
from lalp.training.examples import HeldOut
from lalp.training.log import load_held_out, load_log
from lalp.training.recipes import Recipe
from lalp.training.trainer import train

RULES, EQUAL_TOKENS, THIRDS, WINDOWS, TEACHERS = SFT_GROUPS
_LIKE = "random like "

BEFORE = "before training"
_MODEL = "model"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Arm:
    """What one student is trained on.

    Attributes:
        group: The comparison it belongs to, one of `SFT_GROUPS`; thirds with the teacher's name.
        name: What is compared in it, for example ``lalp`` or ``highest``.
        seed: For the choice (where it is random), the order of examples and nothing else.
        response_ids: The responses trained on.
    """

    group: str
    name: str
    seed: int
    response_ids: tuple[str, ...]


@dataclass(frozen=True)
class Setup:
    """What all arms of one grid share.

    Attributes:
        student: As in `lalp.load_student`.
        recipe: Hyperparameters of the fine-tuning.
        held_out: Responses to measure global and local NLL on.
        folder: Where runs are kept, one folder each.
        workers: Arms that run at the same time, at most one per core.
    """

    student: str
    recipe: Recipe
    held_out: HeldOut
    folder: Path
    workers: int = 2


# --- which responses ---------------------------------------------------------------------------


def plan_arms(
    scores: pd.DataFrame,
    *,
    rules: Sequence[str],
    window: str,
    seeds: Sequence[int],
    groups: Sequence[str] = SFT_GROUPS,
    windows: Sequence[str] = (),
    teachers: Sequence[str] = (),
) -> list[Arm]:
    """Arms of up to five comparisons, each with every seed.

    Args:
        scores: Candidates with their scores, one row per response.
        rules: Rules of `lalp.select`, or ``random like RULE``: the control matched on that rule's
            teacher mix. In "equal tokens" each is cut to the number of response tokens that the
            shortest selection has.
        window: LALP's window.
        seeds: For random choices, and for training.
        groups: Comparisons wanted: rules, equal tokens, thirds, windows, teachers.
        windows: Windows whose LALP selections are compared (Fig. 9).
        teachers: Whose responses are cut into thirds by GALP (Table 1).

    Raises:
        InputError: If a comparison, rule, window or teacher does not exist, or a score is missing.
    """
    unknown = [group for group in groups if group not in SFT_GROUPS]
    if unknown:
        raise InputError(
            f"there is no comparison {unknown[0]!r}: choose among {', '.join(SFT_GROUPS)}"
        )
    arms: list[Arm] = []
    for seed in seeds:
        found: dict[str, dict[str, pd.DataFrame]] = {}
        if RULES in groups or EQUAL_TOKENS in groups:
            found[RULES] = {rule: _choose(scores, rule, window, seed) for rule in rules}
        if EQUAL_TOKENS in groups:
            found[EQUAL_TOKENS] = _equal_tokens(found[RULES], seed)
        if THIRDS in groups:
            found |= {f"{THIRDS}: {teacher}": _thirds(scores, teacher) for teacher in teachers}
        if WINDOWS in groups:
            found[WINDOWS] = {w: selection_rules.select(scores, "lalp", w) for w in windows}
        if TEACHERS in groups:
            found[TEACHERS] = {t: _one_teacher(scores, t) for t in sorted(set(scores["teacher"]))}
        arms += [
            _arm(group, name, seed, table)
            for group, tables in found.items()
            if group.partition(":")[0] in groups
            for name, table in tables.items()
        ]
    return arms


def _equal_tokens(chosen: dict[str, pd.DataFrame], seed: int) -> dict[str, pd.DataFrame]:
    limit = min(int(table["num_tokens"].sum()) for table in chosen.values())
    return {
        r: selection_rules.within_tokens(table, limit, seed=seed) for r, table in chosen.items()
    }


def _choose(scores: pd.DataFrame, rule: str, window: str, seed: int) -> pd.DataFrame:
    chosen = selection_rules.select(scores, rule.removeprefix(_LIKE), window, seed=seed)
    if rule.startswith(_LIKE):
        return matched.select_random_matched(scores, chosen, seed=seed)
    return chosen


def _one_teacher(scores: pd.DataFrame, teacher: str) -> pd.DataFrame:
    """One response per prompt by a teacher; of several, a random one (Table 2)."""
    return selection_rules.select(selection_rules.of_teacher(scores, teacher), "random")


def _thirds(scores: pd.DataFrame, teacher: str) -> dict[str, pd.DataFrame]:
    rows = selection_rules.of_teacher(scores, teacher)
    return {third: selection_rules.select_third(rows, third) for third in selection_rules.THIRDS}


def _arm(group: str, name: str, seed: int, selected: pd.DataFrame) -> Arm:
    return Arm(group, name, seed, tuple(sorted(selected["response_id"])))


def arm_table(arms: Sequence[Arm], scores: pd.DataFrame) -> pd.DataFrame:
    """Examples, response tokens and mean scores of what each arm is trained on.

    Returns:
        One row per arm: ``group``, ``arm``, ``seed``, ``num_examples``, ``num_tokens``, means of
        ``galp`` and every ``lalp@W``, and the number of responses by each teacher.
    """
    by_id = scores.set_index("response_id")
    columns = score_columns(scores)
    rows = []
    for arm in arms:
        chosen = by_id.loc[list(arm.response_ids)]
        rows.append(
            {
                "group": arm.group,
                "arm": arm.name,
                "seed": arm.seed,
                "num_examples": len(chosen),
                "num_tokens": int(chosen["num_tokens"].sum()),
                **chosen[columns].mean(),
                **chosen["teacher"].value_counts().sort_index(),
            }
        )
    table = pd.DataFrame(rows)
    teachers = sorted(scores["teacher"].unique())
    return (
        table.reindex(columns=[*table.columns.difference(teachers, sort=False), *teachers])
        .fillna(dict.fromkeys(teachers, 0))
        .astype(dict.fromkeys(teachers, int))
    )


# --- training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainJob:
    """Everything a worker needs to train one student."""

    folder: Path
    examples: tuple[tuple[Prompt, Response], ...]
    setup: Setup
    seed: int
    keep_weights: bool


def train_arms(
    arms: Sequence[Arm], pool: Pool, setup: Setup, *, keep: Collection[str] = SFT_GROUPS
) -> dict[str, pd.DataFrame]:
    """Fine-tune a student for every arm; finished ones are read from their folders.

    Args:
        arms: From `plan_arms`.
        pool: Holds the arms' responses.
        setup: What they share.
        keep: Comparisons whose students' weights stay on disk, to be evaluated; the others' are
            deleted when they are trained.

    Returns:
        ``log``: one row per arm and optimizer step (`lalp.training.trainer.train`); ``held_out``:
        one row per arm, measured step (0 is before training) and held-out response, with ``galp``
        and ``lalp`` in nats. Both begin with ``group``, ``arm`` and ``seed``.

    Raises:
        InputError: If an arm names a response that the pool lacks, or training refuses it.
    """
    jobs = _train_jobs(arms, pool, setup, keep)
    # Long ones first, so that no worker is left alone with one at the end.
    missing = [job for job in _distinct(jobs.values()) if not _is_trained(job)]
    missing.sort(key=_length, reverse=True)
    run_side_by_side(_train, missing, setup.workers, "training")
    before = _before_training(setup)
    held_out = [
        _labelled(arm, pd.concat([before, load_held_out(job.folder / _MODEL)], ignore_index=True))
        for arm, job in jobs.items()
    ]
    log = [_labelled(arm, load_log(job.folder / _MODEL)) for arm, job in jobs.items()]
    return {
        "log": pd.concat(log, ignore_index=True),
        "held_out": pd.concat(held_out, ignore_index=True),
    }


def _before_training(setup: Setup) -> pd.DataFrame:
    """GALP and LALP of the held-out responses under the student as it is; the same for all arms."""
    held_out = setup.held_out
    table = score(
        held_out.pool,
        setup.student,
        [held_out.window],
        splitter=held_out.splitter,
        progress=False,
    )
    table = table.rename(columns={lalp_column(held_out.window): "lalp"}).assign(step=0)
    return table[["step", "prompt_id", "response_id", "galp", "lalp", "reason"]]


def _train_jobs(
    arms: Sequence[Arm], pool: Pool, setup: Setup, keep: Collection[str]
) -> dict[Arm, _TrainJob]:
    """One job per arm; arms with the same responses and seed share it, and one may keep weights."""
    examples = {arm: _examples(arm, pool) for arm in arms}
    folders = {
        arm: setup.folder / _run_digest(mine, setup, arm.seed) for arm, mine in examples.items()
    }
    kept = {folder for arm, folder in folders.items() if arm.group.partition(":")[0] in keep}
    return {
        arm: _TrainJob(folder, examples[arm], setup, arm.seed, folder in kept)
        for arm, folder in folders.items()
    }


def _distinct(jobs: Iterable[Any]) -> list[Any]:
    """Each folder's job once."""
    return list({job.folder: job for job in jobs}.values())


def _examples(arm: Arm, pool: Pool) -> tuple[tuple[Prompt, Response], ...]:
    by_id = {response.response_id: response for response in pool.responses}
    try:
        responses = [by_id[response_id] for response_id in arm.response_ids]
    except KeyError as error:
        raise InputError(
            f"arm {arm.name!r} trains on response {error}, which the pool does not hold: give the "
            "pool that was scored"
        ) from error
    return tuple((pool.prompts[r.prompt_id], r) for r in responses)


# Whose code decides what a student learns and how its held-out scores come out.
ARM_CODE_PARTS = ("training", "steps", "scoring", "students")


def _run_digest(examples: Sequence[tuple[Prompt, Response]], setup: Setup, seed: int) -> str:
    held_out = setup.held_out
    parts = [
        _student_revision(setup.student),
        asdict(setup.recipe),
        seed,
        [_text_of(prompt, response) for prompt, response in examples],
        [_text_of(held_out.pool.prompts[r.prompt_id], r) for r in held_out.pool.responses],
        [held_out.splitter, held_out.window],
        fingerprint(*ARM_CODE_PARTS),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _text_of(prompt: Prompt, response: Response) -> list[str]:
    return [*(m.content for m in prompt.messages), response.response_id, response.text]


@lru_cache(maxsize=8)
def _student_revision(name: str) -> str:
    return revision(locate_student(name), load_config(name))


def _length(job: _TrainJob) -> int:
    return sum(len(response.text) for _, response in job.examples)


def _is_trained(job: _TrainJob) -> bool:
    """Whether the run is there, with its weights where they are wanted."""
    return (job.folder / _MODEL / (_WEIGHTS if job.keep_weights else "run.json")).is_file()


def _train(job: _TrainJob) -> None:
    out = job.folder / _MODEL
    if out.is_dir():  # a finished run whose weights were deleted
        shutil.rmtree(out)
    train(
        job.examples,
        job.setup.student,
        out,
        job.setup.recipe,
        seed=job.seed,
        held_out=job.setup.held_out,
        evaluations=1,
        progress=False,
    )
    if not job.keep_weights:
        (out / _WEIGHTS).unlink()


def _labelled(arm: Arm, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(
        [pd.DataFrame({"group": arm.group, "arm": arm.name, "seed": arm.seed}, table.index), table],
        axis=1,
    )


# --- evaluation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AnswerJob:
    """Everything a worker needs to have one student answer the problems."""

    folder: Path
    model: str
    problems: tuple[Prompt, ...]
    samplings: tuple[Sampling, ...]


def evaluate_arms(
    arms: Sequence[Arm],
    pool: Pool,
    setup: Setup,
    problems: Sequence[Prompt],
    samplings: Sequence[Sampling],
) -> pd.DataFrame:
    """Answers to held-out problems by the student before training and after each arm's.

    Args:
        arms: Trained before (`train_arms`) with the same pool and setup.
        pool: The pool that the arms' responses are of.
        setup: As in `train_arms`.
        problems: With reference answers; none of them may be a prompt that an arm is trained on.
        samplings: For example greedy, and four samples at a temperature.

    Returns:
        One row per arm, problem, sampling and sample: ``group``, ``arm``, ``seed`` (empty, "before
        training" and -1 for the untrained student), ``temperature`` and the columns of
        `grade_completions` without the text.

    Raises:
        InputError: If a problem is trained on, or an arm's student is missing.
    """
    _check_problems(arms, pool, problems)
    jobs = _answer_jobs(arms, pool, setup, problems, samplings)
    missing = [job for job in _distinct(jobs.values()) if not _answers_path(job).is_file()]
    _check_students(missing, setup)
    run_side_by_side(_answer, missing, setup.workers, "answering")
    answers = [_labelled(arm, pd.read_parquet(_answers_path(job))) for arm, job in jobs.items()]
    return _graded(pd.concat(answers, ignore_index=True), problems)


def _answer_jobs(
    arms: Sequence[Arm],
    pool: Pool,
    setup: Setup,
    problems: Sequence[Prompt],
    samplings: Sequence[Sampling],
) -> dict[Arm, _AnswerJob]:
    before = Arm("", BEFORE, -1, ())
    folders = {before: setup.folder / f"before-{_student_revision(setup.student)[:16]}"}
    folders |= {arm: job.folder for arm, job in _train_jobs(arms, pool, setup, ()).items()}
    return {
        arm: _AnswerJob(
            folder,
            setup.student if arm == before else str(folder / _MODEL),
            tuple(problems),
            tuple(samplings),
        )
        for arm, folder in folders.items()
    }


def _graded(answers: pd.DataFrame, problems: Sequence[Prompt]) -> pd.DataFrame:
    names = ["prompt_id", "sample", "text", "num_tokens", "truncated"]
    # Students often answer alike: each different text is graded once.
    texts = answers.drop_duplicates(names)
    completions = [Completion(**row) for row in texts[names].to_dict("records")]
    graded = grade_completions(problems, completions)
    return answers.merge(graded, on=names, how="left").drop(columns="text")


def _check_problems(arms: Sequence[Arm], pool: Pool, problems: Sequence[Prompt]) -> None:
    prompt_of = {response.response_id: response.prompt_id for response in pool.responses}
    trained = {prompt_of.get(response_id) for arm in arms for response_id in arm.response_ids}
    for problem in problems:
        if problem.prompt_id in trained:
            raise InputError(f"problem {problem.prompt_id!r} is trained on: evaluate on others")
        if problem.answer is None:
            raise InputError(f"problem {problem.prompt_id!r} has no reference answer: leave it out")


def _check_students(jobs: Sequence[_AnswerJob], setup: Setup) -> None:
    for job in jobs:
        if job.model != setup.student and not (job.folder / _MODEL / _WEIGHTS).is_file():
            raise InputError(
                f"{job.folder / _MODEL} holds no trained student: train the arms first"
            )


def _answers_path(job: _AnswerJob) -> Path:
    parts = [
        [asdict(sampling) for sampling in job.samplings],
        [[p.prompt_id, p.answer, *(m.content for m in p.messages)] for p in job.problems],
        fingerprint("sampling", "students"),
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return job.folder / f"answers-{digest}.parquet"


def _answer(job: _AnswerJob) -> None:
    drawn = generate(
        job.problems,
        load_student(job.model),
        list(job.samplings),
        store=job.folder / "samples",
        progress=False,
    )
    frames = [
        pd.DataFrame([asdict(c) for c in completions]).assign(temperature=sampling.temperature)
        for sampling, completions in zip(job.samplings, drawn, strict=True)
    ]
    with atomic_path(_answers_path(job)) as temporary:
        pd.concat(frames, ignore_index=True).to_parquet(temporary)


def run_arms(
    arms: Sequence[Arm],
    pool: Pool,
    setup: Setup,
    problems: Sequence[Prompt],
    samplings: Sequence[Sampling],
) -> dict[str, pd.DataFrame]:
    """Train and evaluate many arms, a few at a time, so that their weights fit on the disk.

    Returns:
        ``log`` and ``held_out`` as `train_arms`, ``answers`` as `evaluate_arms`.
    """
    for start in range(0, len(arms), 2 * setup.workers):
        some = arms[start : start + 2 * setup.workers]
        missing = [a for a, job in _answer_jobs(some, pool, setup, problems, samplings).items()
                   if a.name != BEFORE and not _answers_path(job).is_file()]  # fmt: skip
        if missing:
            train_arms(missing, pool, setup)
            evaluate_arms(missing, pool, setup, problems, samplings)
        for job in _train_jobs(some, pool, setup, ()).values():
            (job.folder / _MODEL / _WEIGHTS).unlink(missing_ok=True)
    answers = evaluate_arms(arms, pool, setup, problems, samplings)
    return train_arms(arms, pool, setup, keep=()) | {"answers": answers}
