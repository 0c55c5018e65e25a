"""Step world's experiments: one student, one pool, many arms (paper, Tables 1-3, Fig. 1, 3, 5, 6).

A unit is one student (family, strength of copying, seed) and one set of teachers. The student is
pre-trained and gated, and scores the teachers' traces. It is fine-tuned on every arm's selection by
the same code as any other student, and solves held-out problems. Every stage is kept under a name
made from everything that decides it, so a killed run continues where it stopped. Units run side by
side in worker processes of one thread each.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.files import cache_dir, digest, fingerprint, write_json
from lalp.paper.committed import load_results as load_committed
from lalp.paper.workers import run_side_by_side
from lalp.paper.world import problems as world
from lalp.paper.world import settings
from lalp.paper.world.problems import Problem, Teacher, find_answer, make_problems
from lalp.paper.world.settings import RULES, RULES_BY_NAME, TEACHERS_BY_NAME, UNIT, Study
from lalp.paper.world.student import (
    MAX_POSITIONS,
    REPORTS,
    SCHOOLING,
    SHORT_MOVES,
    Schooling,
    pretrain,
)
from lalp.pools.pool import Pool
from lalp.pools.writing import save_pool
from lalp.sampling.samples import generate
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import GALP, lalp_column, score_columns, token_column
from lalp.scoring.equations import self_conditioning_gap
from lalp.scoring.run import score
from lalp.selection import matched, rules
from lalp.students.student import load_student
from lalp.training.recipes import RECIPES
from lalp.training.trainer import train

# Rules among one teacher's samples of one problem, so thirds have the same problems.
_THIRD_RULES = {"highest": "galp", "middle": "galp-middle", "lowest": "galp-lowest"}
# More than the longest solution needs (a list of all values, two sentences and a check each move).
_TOKENS_PER_MOVE = 50
# Read once, because another version may be saved during a long run. An arm's name also covers its
# texts, problems and student, so it need not include the code that makes those.
_STUDENT_CODE = [fingerprint("paper.world.problems", "paper.world.student"), world.WORDINGS]
_ARM_CODE = fingerprint("training", "sampling", "scoring", "students")
_GATE_CODE = [_ARM_CODE, fingerprint("paper.world.study")]


@dataclass(frozen=True)
class Unit:
    """One student and one set of teachers, called ``name``, with their comparisons.

    ``copying`` is the share of repetitive documents in the student's pre-training. ``seed`` decides
    the student, the problems, the traces and the order of examples.
    """

    study: Study
    name: str
    family: str
    copying: float
    seed: int
    teachers: tuple[Teacher, ...]
    groups: tuple[str, ...]

    @property
    def labels(self) -> dict[str, Any]:
        """The columns that name the unit in tables."""
        return dict(zip(UNIT, (self.name, self.family, self.copying, self.seed), strict=True))

    @property
    def schooling(self) -> Schooling:
        """How the student is pre-trained."""
        moves, tokens = (self.moves[0], self.moves[-1]), self.study.pretraining_tokens
        return Schooling(self.family, self.copying, moves, tokens, self.seed)

    @property
    def student(self) -> Path:
        """Folder of the student before fine-tuning."""
        return cache_dir() / "worlds" / f"student-{digest([self.schooling, _STUDENT_CODE])}"

    @property
    def moves(self) -> range:
        """Lengths of whole problems."""
        return range(self.study.fewest_moves, self.study.most_moves + 1)

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """Problems whose solutions are scored, selected and trained on."""
        return make_problems(self.family, self.moves, self.study.problems, (self.seed, 1))

    @cached_property
    def held_out(self) -> dict[str, Problem]:
        """Problems that every student solves; none of them is trained on."""
        prompts = {problem.prompt for problem in self.problems.values()}
        # Twice as many as wanted, because some may be among the training problems.
        found = make_problems(self.family, self.moves, 2 * self.study.held_out, (self.seed, 2))
        fresh = ((key, p) for key, p in found.items() if p.prompt not in prompts)
        return dict(islice(fresh, self.study.held_out))


# --- the gate --------------------------------------------------------------------------------


def gate(unit: Unit) -> dict[str, Any]:
    """Pre-train a student and measure it before any fine-tuning; kept results are read.

    Returns:
        ``short`` and ``whole``: solved shares of problems of one to three moves and of full length;
        `copying`; and whether the student is ``accepted``: it knows single moves, and leaves most
        whole problems unsolved.
    """
    prompts = [problem.prompt for problem in unit.held_out.values()]
    path = unit.student / REPORTS / f"gate-{digest([prompts, _GATE_CODE])}.json"
    if not path.is_file():
        pretrain(unit.schooling, unit.student)
        short = make_problems(unit.family, SHORT_MOVES, unit.study.held_out, (unit.seed, 3))
        report = {
            "short": float(np.mean(_solve(short, unit.student))),
            "whole": float(np.mean(_solve(unit.held_out, unit.student))),
            **copying(unit),
            "seconds": json.loads((unit.student / SCHOOLING).read_text("utf-8"))["seconds"],
        }
        write_json(path, report)
    report = json.loads(path.read_text(encoding="utf-8"))
    passed = report["short"] >= unit.study.gate_short and report["whole"] <= unit.study.gate_whole
    labels = {name: label for name, label in unit.labels.items() if name != "pool"}
    return labels | report | {"accepted": passed}


def _solve(problems: Mapping[str, Problem], model: Path) -> list[bool]:
    """Whether greedy answers are exactly right; an answer that does not end is wrong."""
    prompts = list(world.as_prompts(problems).values())
    greedy = Sampling(max_tokens=_TOKENS_PER_MOVE * max(p.num_moves for p in problems.values()))
    drawn = generate(prompts, str(model), greedy, store=model / "samples", progress=False)
    return [not c.truncated and find_answer(c.text) == problems[c.prompt_id].answer for c in drawn]


def unit_scores(unit: Unit) -> tuple[Pool, dict[str, pd.DataFrame]]:
    """Make the pool and score it: one table each on true steps, sentences and paragraphs."""
    pool, steps = world.make_pool(unit.problems, unit.teachers, unit.study.samples, unit.seed)
    wanted: dict[str, set[str]] = {"true": {"1", "all", *unit.study.windows}}
    for split, _, window in (RULES_BY_NAME[name] for name in unit.study.rules):
        wanted.setdefault(split, set()).add(window)
    student = load_student(str(unit.student), device="cpu")
    tables = {}
    for split, windows in wanted.items():
        options = {"splitter": steps, "with_tokens": True} if split == "true" else {}
        options = {"splitter": split, "store": unit.student / "scores", "progress": False} | options
        tables[split] = score(pool, student, sorted(windows), **options)
    return pool, tables


# --- arms ------------------------------------------------------------------------------------


def plan_selections(
    unit: Unit, tables: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, str], list[str]]:
    """Response ids of every arm, by comparison and name."""
    study, seed, true = unit.study, unit.seed, tables["true"]
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for teacher in unit.teachers:
        rows = rules.of_teacher(true, teacher.name)
        if settings.TEACHERS in unit.groups:
            found[settings.TEACHERS, teacher.name] = rules.select(rows, "random", seed=seed)
        if settings.THIRDS in unit.groups:
            for third, rule in _THIRD_RULES.items():
                found[f"{settings.THIRDS}: {teacher.name}", third] = rules.select(rows, rule)
    if RULES in unit.groups:
        for name in [*study.rules, *(settings.CONTROL + name for name in study.controls)]:
            split, rule, window = RULES_BY_NAME[name.removeprefix(settings.CONTROL)]
            chosen = rules.select(tables[split], rule, window, seed=seed)
            if name.startswith(settings.CONTROL):
                chosen = matched.select_random_matched(tables[split], chosen, seed=seed)
            found[RULES, name] = chosen
    if settings.WINDOWS in unit.groups:
        found |= {(settings.WINDOWS, w): rules.select(true, "lalp", w) for w in study.windows}
    return {key: sorted(table["response_id"]) for key, table in found.items()}


def run_unit(unit: Unit) -> dict[str, pd.DataFrame]:
    """Score, select, fine-tune and evaluate; finished arms are read.

    Returns:
        ``arms``: one row per comparison and arm, the untrained student first: the selection
        (examples, tokens, mean scores, teachers' shares), and `run_arm`. ``means``: mean scores by
        teacher. ``gaps``: mean self-conditioning gap (Eq. 4) by teacher and relative position.
    """
    pool, tables = unit_scores(unit)
    by_id, problems = tables["true"].set_index("response_id"), len(unit.held_out)
    before = {"num_solved": round(gate(unit)["whole"] * problems), "num_problems": problems}
    rows = [{"group": "", "arm": settings.BEFORE} | before]
    scores = [GALP, lalp_column(1), lalp_column("all")]
    for (group, name), ids in plan_selections(unit, tables).items():
        chosen = by_id.loc[ids]
        shares = chosen["teacher"].value_counts(normalize=True).sort_index()
        rows.append({
            "group": group,
            "arm": name,
            "num_examples": len(chosen),
            "num_tokens": int(chosen["num_tokens"].sum()),
            **chosen[scores].mean(),
            **shares.add_prefix("share of "),
            **run_arm(unit, pool, ids),
        })  # fmt: skip
    found = {"arms": pd.DataFrame(rows), "means": _teacher_means(tables)}
    found["gaps"] = _gaps(tables["true"])
    return {
        name: pd.concat([pd.DataFrame(unit.labels, table.index), table], axis=1)
        for name, table in found.items()
    }


def run_arm(unit: Unit, pool: Pool, ids: Sequence[str]) -> dict[str, Any]:
    """Fine-tune the unit's student on some responses and have it solve the held-out problems.

    Returns:
        ``first_loss`` and ``last_loss`` (nats per token, means over the first and last tenth of
        the steps), ``num_solved`` of ``num_problems``, and ``solved``, a digit for each problem.
    """
    by_id = {response.response_id: response for response in pool.responses}
    examples = [(pool.prompts[by_id[i].prompt_id], by_id[i]) for i in ids]
    texts = [[p.messages[0].content, response.text] for p, response in examples]
    held_out = [problem.prompt for problem in unit.held_out.values()]
    recipe = replace(
        RECIPES["paper"],
        learning_rate=unit.study.learning_rate,
        epochs=unit.study.epochs,
        batch_size=unit.study.batch,
        gradient_accumulation=1,
        max_length=MAX_POSITIONS,
        # In float32 and without saving memory, because the model is small.
        bf16=False,
        gradient_checkpointing=False,
    )
    folder = unit.student / "arms" / digest([recipe, unit.seed, texts, held_out, _ARM_CODE])
    path = folder.with_suffix(".json")
    if not path.is_file():
        model = folder / "model"
        log = train(examples, str(unit.student), model, recipe, seed=unit.seed, progress=False)
        solved = _solve(unit.held_out, model)
        tenth = max(1, len(log) // 10)
        report = {
            "first_loss": log["loss"].iloc[:tenth].mean(),
            "last_loss": log["loss"].iloc[-tenth:].mean(),
            "num_solved": sum(solved),
            "num_problems": len(solved),
            "solved": "".join(map(str, map(int, solved))),
        }
        write_json(path, report)
    # A finished arm needs only its report; a killed one may have left weights behind.
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(path.read_text(encoding="utf-8"))


# --- what the scores say ---------------------------------------------------------------------


def _teacher_means(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean of every score by teacher: ``teacher``, ``split``, ``score``, ``mean``."""
    frames = []
    for split, table in tables.items():
        # GALP does not depend on the split.
        columns = [c for c in score_columns(table) if split == "true" or c != GALP]
        means = table.groupby("teacher")[columns].mean()
        means = means.melt(var_name="score", value_name="mean", ignore_index=False)
        frames.append(means.reset_index().assign(split=split))
    return pd.concat(frames, ignore_index=True)


def _gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Eq. 4 by teacher and tenth of the response, window of one step: means over all tokens."""
    names = {token_column(GALP): "global", token_column(lalp_column(1)): "local"}
    tokens = table[["teacher", *names]].rename(columns=names).explode(["global", "local"])
    tokens = tokens.astype({"global": float, "local": float})
    response = tokens.groupby(level=0)["teacher"]
    tokens["bin"] = response.cumcount() * 10 // response.transform("size")
    tokens["gap"] = self_conditioning_gap(tokens["global"], tokens["local"])
    groups = tokens.groupby(["teacher", "bin"])
    means = groups[["global", "local", "gap"]].mean()
    return means.assign(num_tokens=groups.size()).reset_index()


_COPYING_PROBLEMS = 60
# A value is far from its repetition if this many values have followed it.
_FAR = 3


def copying(unit: Unit) -> dict[str, float]:
    """How well a student repeats values: mean probability of values that are new in a list.

    Returns:
        ``copying_near``: for values that the step before has reached, on their second occurrence;
        ``copying_far``: for values that three or more values have followed. The value before the
        first move does not count, because the prompt holds it.
    """
    restater = Teacher("restater", restating=0.3)
    problems = dict(list(unit.held_out.items())[:_COPYING_PROBLEMS])
    pool, steps = world.make_pool(problems, [restater], 1, unit.seed)
    table = score(
        pool, str(unit.student), ["all"], splitter=steps, with_tokens=True, progress=False,
        store=unit.student / "scores",
    )  # fmt: skip
    near, far = [], []
    for response, row in zip(pool.responses, table.to_dict("records"), strict=True):
        starts = (start for start, _ in row["token_spans"])
        at = dict(zip(starts, np.exp(row[token_column(GALP)]), strict=True))
        listed = 1
        for found in re.finditer(r"so far ([^.]+)\.", response.text):
            values = list(re.finditer(r"\w+ (\w+)(?: ,|$)", found[1]))
            for i in range(listed, len(values)):
                age, place = len(values) - 1 - i, found.start(1) + values[i].start(1)
                if age == 0:
                    near.append(at[place])
                elif age >= _FAR:
                    far.append(at[place])
            listed = len(values)
    found = {"copying_near": near, "copying_far": far}
    # Traces of few moves have no far values.
    return {key: float(np.mean(probs)) if probs else math.nan for key, probs in found.items()}


# --- runs ------------------------------------------------------------------------------------


def map_teachers(leap: float, scaffolding: float) -> tuple[Teacher, ...]:
    """The teachers of one cell of the map: a steady one, and one with these settings.

    ``scaffolding`` is both the sentences without content per step, and twice the share of steps
    that begin with a list of values.
    """
    fluent = Teacher("fluent", leap=leap, scaffolding=scaffolding, restating=scaffolding / 2)
    return (TEACHERS_BY_NAME["steady"], replace(fluent, checking=0.1))


def find_students(study: Study) -> pd.DataFrame:
    """Pre-train students until enough are accepted, or the seeds are used up; a `gate` for each."""
    tried = {kind: [] for kind in product(study.families, study.copying)}  # reports by kind
    while True:
        units = []
        for kind, reports in tried.items():
            lacking = study.seeds - sum(report["accepted"] for report in reports)
            stop = min(len(reports) + lacking, study.most_seeds)
            units += [Unit(study, "", *kind, seed, (), ()) for seed in range(len(reports), stop)]
        if not units:
            return pd.DataFrame([report for reports in tried.values() for report in reports])
        run_side_by_side(gate, units, study.workers, "students", threads=1)
        for unit in units:
            tried[unit.family, unit.copying].append(gate(unit))


def plan_units(study: Study, gates: pd.DataFrame) -> list[Unit]:
    """Units of the accepted students: the four teachers, or one unit per cell of the map."""
    cells = {
        f"leap {leap}, scaffolding {scaffolding}": (map_teachers(leap, scaffolding), (RULES,))
        for leap, scaffolding in product(study.leaps, study.scaffoldings)
    } or {"four teachers": (tuple(TEACHERS_BY_NAME.values()), tuple(study.groups))}
    return [
        Unit(study, name, row.family, row.copying, row.seed, *cell)
        for name, cell in cells.items()
        for row in gates[gates["accepted"]].itertuples()
    ]


# Parts of one unit's arms, so the last units keep all workers busy.
_PARTS = 4


def _score_unit(unit: Unit) -> None:
    """Score a unit's pool, and save it beside the student."""
    pool, _ = unit_scores(unit)
    folder = unit.student / "pools"
    folder.mkdir(exist_ok=True)
    save_pool(pool, folder / f"{unit.name}.jsonl")


def _run_part(job: tuple[Unit, int]) -> None:
    """Every fourth arm of a unit, which `run_unit` then reads."""
    unit, part = job
    pool, tables = unit_scores(unit)
    selections = {tuple(ids): None for ids in plan_selections(unit, tables).values()}
    for ids in list(selections)[part::_PARTS]:
        run_arm(unit, pool, ids)


# Columns that exist even if no student was accepted, and those that stay text in a file.
_EMPTY = {
    "arms": [*UNIT, "group", "arm", "num_solved", "num_problems", "solved", "last_loss"],
    "means": [*UNIT, "teacher", "split", "score", "mean"],
    "gaps": [*UNIT, "teacher", "bin", "gap"],
}
_TEXTS = ("pool", "family", "group", "arm", "solved", "teacher", "split", "score")


@dataclass(frozen=True)
class WorldResults:
    """Results of a study: tables with one row per student tried, arm, mean score, and gap.

    ``provenance`` has study, commit, hours and versions of a committed run; empty for a live one.
    """

    students: pd.DataFrame
    arms: pd.DataFrame
    means: pd.DataFrame
    gaps: pd.DataFrame
    provenance: dict[str, Any]


def run_world(study: Study) -> WorldResults:
    """All results of a study; finished parts are read. Without accepted students there are no arms.

    The tables are those of `find_students` and `run_unit`.
    """
    return _run_units(study, find_students(study))


def run_seed(study: Study, seed: int) -> WorldResults:
    """Like `run_world`, for one seed's students only."""
    kinds = product(study.families, study.copying)
    units = [Unit(study, "", *kind, seed, (), ()) for kind in kinds]
    run_side_by_side(gate, units, study.workers, "students", threads=1)
    return _run_units(study, pd.DataFrame([gate(unit) for unit in units]))


def _run_units(study: Study, students: pd.DataFrame) -> WorldResults:
    units = plan_units(study, students)
    run_side_by_side(_score_unit, units, study.workers, "scores", threads=1)
    parts = [(unit, part) for part in range(_PARTS) for unit in units]
    run_side_by_side(_run_part, parts, study.workers, "arms", threads=1)
    tables = [run_unit(unit) for unit in units]
    # Without students there are still the columns, which the notebook reads.
    tables = tables or [{name: pd.DataFrame(columns=c) for name, c in _EMPTY.items()}]
    found = {name: pd.concat([t[name] for t in tables], ignore_index=True) for name in _EMPTY}
    return WorldResults(students, **found, provenance={})


def load_results(name: str) -> WorldResults:
    """The committed results of a study; `InputError` if one of their files is missing."""
    return load_committed(WorldResults, f"world_{name}", f"make world PROFILE={name}", _TEXTS)
