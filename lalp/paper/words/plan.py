"""A seed of the study: its problems, everyone's solutions, their scores, and what each arm takes.

The plan of a seed is one file, written whole. It holds all that is needed to train its arms, also
on another machine, where the student's own solutions and the scores would come out differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import cache_dir, digest, fingerprint, write_json
from lalp.paper.arms.grid import ARM_CODE_PARTS, plan_runs
from lalp.paper.arms.plan import Arm, Grid, Setup, arm_table
from lalp.paper.words import settings
from lalp.paper.words.problems import STORIES, Problem, as_prompts, make_problems
from lalp.paper.words.runs import graded_answers, keep_right
from lalp.paper.words.settings import FAMILIES, OWN, SPLITTER, TEACHERS, WINDOW, WordStudy
from lalp.paper.words.teachers import STYLES, WORDINGS, one_each, written_pool
from lalp.pools.pool import Pool, Response
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import GALP, lalp_column, score_columns
from lalp.scoring.run import score
from lalp.selection import matched, rules
from lalp.students.student import default_device, find_student
from lalp.training.examples import HeldOut
from lalp.training.job import training_dtype
from lalp.training.recipes import Recipe

_EVALUATIONS = 3  # of held-out likelihood: before training, in its middle, after it
# Read once, because another version may be saved during a long run.
_CODE = fingerprint(
    *(f"paper.words.{part}" for part in ("problems", "teachers", "runs", "plan", "study")),
    *("grading", "sampling", "selection", *ARM_CODE_PARTS),
)
_PLANNED = {key: settings.PREREGISTERED[key] for key in ("teachers", "arms")}
# A response's place among all candidates of its problem, as one character.
_PLACES, _NONE = ascii_letters + digits, "-"

# Rows by table: what a stage adds to the results.
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Unit:
    """One seed: its problems, solutions, choices and order of training."""

    study: WordStudy
    seed: int
    ranked: bool = True  # whether rules choose too; the pilot trains on single teachers alone

    @cached_property
    def _all(self) -> list[tuple[str, Problem]]:
        study = self.study
        count = study.problems + study.held_out + study.own_problems
        name = f"words{self.seed}"
        return list(make_problems(list(study.operations), count, self.seed, name).items())

    @property
    def problems(self) -> dict[str, Problem]:
        """Problems whose solutions are selected and trained on."""
        return dict(self._all[: self.study.problems])

    @property
    def held_out(self) -> dict[str, Problem]:
        """Problems that every student answers; none is trained on."""
        return dict(self._all[self.study.problems :][: self.study.held_out])

    @property
    def others(self) -> dict[str, Problem]:
        """Problems that the own family is trained on."""
        return dict(self._all[self.study.problems + self.study.held_out :])

    @cached_property
    def written(self) -> Pool:
        """The written teachers' solutions."""
        return written_pool(self.problems, TEACHERS, self.study.samples, self.seed)

    @cached_property
    def folder(self) -> Path:
        """Where the plan and the cells are kept."""
        name = digest([study_key(self.study), self.ranked])
        return cache_dir() / "words" / name / f"seed{self.seed}"

    @property
    def plan(self) -> Path:
        """The file of the plan."""
        return self.folder / "plan.json"

    def cell(self, arm: str) -> Path:
        """The file of a cell."""
        return self.folder / f"{re.sub(r'[^a-z0-9@]+', '-', arm)}.json"

    @property
    def setup(self) -> Setup:
        """What all of its arms share."""
        study = self.study
        first = dict(list(self.held_out.items())[: study.measured])
        held_out = HeldOut(one_each(first, TEACHERS, self.seed), SPLITTER, WINDOW)
        return Setup(
            study.student,
            study.recipe(),
            held_out if self.ranked else None,
            cache_dir() / "words" / "runs",
            study.workers,
            tuple(as_prompts(self.held_out).values()),
            (Sampling(max_tokens=study.max_tokens),),
            evaluations=_EVALUATIONS,
        )


def study_key(study: WordStudy) -> dict[str, Any]:
    """All that decides the results of a seed: values, texts, teachers, arms and code."""
    values = asdict(replace(study, seeds=1, seeds_on_gpu=1, workers=1))
    texts = digest([STORIES, WORDINGS, [asdict(style) for style in STYLES]])
    return {"values": values, "planned": _PLANNED, "texts": texts, "code": _CODE}


# --- a seed's plan ---------------------------------------------------------------------------


def plan_seed(unit: Unit) -> None:
    """Make the solutions of a seed, score them, choose for every arm, and keep all that."""
    own, right = own_family(unit)
    pool = replace(unit.written, responses=(*unit.written.responses, *own))
    table = score_pool(pool, unit.study) if unit.ranked else count_tokens(pool, unit.study)
    chosen = select_arms(table, unit.seed, unit.ranked)
    rows = _plan_rows(unit, table, chosen)
    rows["seeds"][0]["own_right"] = right
    ids = {name for names in chosen.values() for name in names}
    rows["own"] = [
        {"seed": unit.seed, "response_id": response.response_id, "text": response.text}
        for response in own
        if response.response_id in ids
    ]
    write_json(unit.plan, rows)


def own_family(unit: Unit) -> tuple[tuple[Response, ...], float]:
    """The student's own solutions, and the share of its samples that are right."""
    study, pool = unit.study, one_each(unit.others, TEACHERS, unit.seed)
    setup = replace(
        unit.setup,
        recipe=study.recipe(epochs=1),
        held_out=None,
        problems=tuple(as_prompts(unit.problems).values()),
        samplings=(Sampling(study.own_samples, 1.0, max_tokens=study.max_tokens, seed=unit.seed),),
    )
    arm = Arm("", OWN, unit.seed, tuple(r.response_id for r in pool.responses))
    graded = graded_answers(plan_runs(Grid((arm,), pool, pd.DataFrame(), setup))[arm])
    return keep_right(graded, unit.problems, study.samples), float(graded["correct"].mean())


def score_pool(pool: Pool, study: WordStudy) -> pd.DataFrame:
    """Scores of all solutions by the untrained student, at every window."""
    options = {"splitter": SPLITTER, "dtype": training_dtype(study.recipe()), "progress": False}
    store = cache_dir() / "words" / "scores"
    return score(pool, study.student, settings.WINDOWS, store=store, **options)


def count_tokens(pool: Pool, study: WordStudy) -> pd.DataFrame:
    """A score table without scores, for choices that use none."""
    tokenizer = find_student(study.student).tokenizer
    rows = [
        (r.prompt_id, r.response_id, r.teacher, True, len(tokenizer(r.text)["input_ids"]))
        for r in pool.responses
    ]
    columns = ["prompt_id", "response_id", "teacher", "correct", "num_tokens"]
    return pd.DataFrame(rows, columns=columns)


def select_arms(table: pd.DataFrame, seed: int, ranked: bool = True) -> dict[str, list[str]]:
    """Response ids of every arm, in order; those of single teachers alone if nothing is ranked.

    Without a solution by the own family there is no such arm.
    """
    known = [teacher for teacher in FAMILIES if (table["teacher"] == teacher).any()]
    found = {
        teacher: rules.select(rules.of_teacher(table, teacher), "random", seed=seed)
        for teacher in known
    }
    if ranked:
        found |= _selections_by_rule(table, seed)
    order = [arm for arm in settings.ARMS if arm in found]
    return {arm: found[arm]["response_id"].tolist() for arm in order}


def _selections_by_rule(table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    column, within = lalp_column(WINDOW), rules.of_teacher(table, settings.WITHIN)
    galp, lalp = rules.select(table, "galp"), rules.select(table, "lalp", WINDOW)
    shorter = min(int(chosen["num_tokens"].sum()) for chosen in (galp, lalp))
    windows = [window for window in settings.WINDOWS if window != WINDOW]
    return {
        "galp": galp,
        "lalp": lalp,
        "random like galp": matched.select_random_matched(table, galp, seed=seed),
        "random like lalp": matched.select_random_matched(table, lalp, seed=seed),
        "lalp in galp's mix": matched.select_best_matched(table, galp, column),
        "galp in lalp's mix": matched.select_best_matched(table, lalp, GALP),
        "random": rules.select(table, "random", seed=seed),
        **{lalp_column(window): rules.select(table, "lalp", window) for window in windows},
        "rsr": rules.select(table, "rsr"),
        "hybrid": rules.select(table, "hybrid", WINDOW),
        "galp, equal tokens": rules.within_tokens(galp, shorter, seed=seed),
        "lalp, equal tokens": rules.within_tokens(lalp, shorter, seed=seed),
        f"{settings.WITHIN}, highest": rules.select(within, "galp"),
        f"{settings.WITHIN}, middle": rules.select(within, "galp-middle"),
        f"{settings.WITHIN}, lowest": rules.select(within, "galp-lowest"),
    }


def _plan_rows(unit: Unit, table: pd.DataFrame, chosen: Mapping[str, list[str]]) -> Rows:
    """The rows of a plan: all but the own family's texts."""
    scores = score_columns(table)
    arms = [Arm("", name, unit.seed, tuple(ids)) for name, ids in chosen.items()]
    selections = arm_table(arms, table).drop(columns="group")
    selections["chosen"] = [encode(ids, unit) for ids in chosen.values()]
    means = table.groupby("teacher")[[*scores, "num_tokens"]].mean()
    means = means.melt(var_name="score", value_name="mean", ignore_index=False).reset_index()
    answered = table.loc[table["teacher"] == OWN, "prompt_id"].nunique()
    far = "".join(str(int(problem.is_far)) for problem in unit.held_out.values())
    seeds = {"seed": unit.seed, "far": far, "own_problems": answered}
    seeds |= machine_facts(unit.study.recipe())
    return {
        "seeds": [seeds],
        "selections": plain_rows(selections),
        "means": plain_rows(means.assign(seed=unit.seed)),
    }


def machine_facts(recipe: Recipe) -> dict[str, str]:
    """The device and the precision of training on this machine."""
    return {"device": default_device(), "dtype": training_dtype(recipe)}


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; a missing one is None."""
    return json.loads(table.to_json(orient="records", double_precision=12))


def encode(ids: Sequence[str], unit: Unit) -> str:
    """A selection as one character for each problem: the candidate's place, or a hyphen."""
    found = dict.fromkeys(unit.problems, _NONE)
    for name in ids:
        key, teacher, number = name.split("/")
        found[key] = _PLACES[FAMILIES.index(teacher) * unit.study.samples + int(number)]
    return "".join(found.values())


def decode(chosen: str, unit: Unit) -> list[str]:
    """The response ids of a selection by `encode`; InputError if it is not one of this seed."""
    if len(chosen) != unit.study.problems:
        raise InputError(f"seed {unit.seed}: {chosen!r} is no selection of its problems")
    ids = []
    for key, place in zip(unit.problems, chosen, strict=True):
        if place != _NONE:
            teacher, number = divmod(_PLACES.index(place), unit.study.samples)
            ids.append(f"{key}/{FAMILIES[teacher]}/{number}")
    return ids
