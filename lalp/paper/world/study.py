"""Step world's experiments: one student, one pool, many arms (paper, Tables 1-3, Fig. 1, 3, 5, 6).

A unit is one student (family, strength of copying, seed) and one set of teachers. The student is
pre-trained, gated, scores the teachers' traces, is fine-tuned on every arm's selection by the same
code as any other student, and solves held-out problems. Every stage is kept under a name made from
everything that decides it, so that a killed run goes on where it stopped. Units run side by side in
worker processes of one thread each.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.files import atomic_path, build_dir, fingerprint
from lalp.paper.workers import run_side_by_side
from lalp.paper.world.problems import (
    Problem,
    Teacher,
    as_prompts,
    find_answer,
    make_pool,
    make_problems,
)
from lalp.paper.world.profiles import (
    RULES,
    RULES_BY_NAME,
    TEACHERS,
    TEACHERS_BY_NAME,
    THIRDS,
    WINDOWS,
    WorldProfile,
)
from lalp.paper.world.student import MAX_POSITIONS, SHORT_MOVES, Schooling, pretrain
from lalp.pools.pool import Pool
from lalp.pools.writing import save_pool
from lalp.sampling.samples import generate
from lalp.sampling.settings import Sampling
from lalp.scoring.columns import score_columns
from lalp.scoring.equations import self_conditioning_gap
from lalp.scoring.run import score
from lalp.selection import matched, rules
from lalp.students.student import load_student
from lalp.training.recipes import RECIPES, Recipe
from lalp.training.trainer import train

BEFORE = "before training"
_LIKE = "random like "
# Of the samples of one problem, so that thirds do not differ in the problems they solve.
_THIRD_RULES = {"highest": "galp", "middle": "galp-middle", "lowest": "galp-lowest"}
# More than the longest solution needs (a list of all values, two sentences and a check each move).
_TOKENS_PER_MOVE = 50
# Read once: another version may be saved while a long run is going. An arm's texts, problems and
# student are part of its name anyway.
_STUDENT_CODE = fingerprint("paper.world.problems", "paper.world.student")
_ARM_CODE = fingerprint("training", "sampling", "scoring", "students")
_GATE_CODE = [_ARM_CODE, fingerprint("paper.world.study")]


@dataclass(frozen=True)
class Unit:
    """One student and one set of teachers.

    Attributes:
        profile: Sizes and settings.
        name: Of the set of teachers.
        family: Of problems.
        copying: Share of repetitive documents in the student's pre-training.
        seed: Of the student, the problems, the traces and the order of examples.
        teachers: Who write the pool.
        groups: Comparisons wanted of it.
    """

    profile: WorldProfile
    name: str
    family: str
    copying: float
    seed: int
    teachers: tuple[Teacher, ...]
    groups: tuple[str, ...]

    @property
    def schooling(self) -> Schooling:
        """How the student is pre-trained."""
        profile = self.profile
        return Schooling(
            family=self.family,
            copying=self.copying,
            moves=(profile.fewest_moves, profile.most_moves),
            tokens=profile.pretraining_tokens,
            seed=self.seed,
        )

    @property
    def student(self) -> Path:
        """Folder of the student before fine-tuning."""
        key = [asdict(self.schooling), _STUDENT_CODE]
        return build_dir() / "worlds" / f"student-{_digest(key)}"

    @property
    def moves(self) -> range:
        """Lengths of whole problems."""
        return range(self.profile.fewest_moves, self.profile.most_moves + 1)

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """Whose solutions are scored, selected and trained on."""
        return make_problems(self.family, self.moves, self.profile.problems, (self.seed, 1))

    @cached_property
    def held_out(self) -> dict[str, Problem]:
        """Solved by every student; none of them is trained on."""
        prompts = {problem.prompt for problem in self.problems.values()}
        wanted = self.profile.held_out
        found = make_problems(self.family, self.moves, 2 * wanted, (self.seed, 2))
        fresh = {key: p for key, p in found.items() if p.prompt not in prompts}
        return dict(list(fresh.items())[:wanted])


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


# --- the gate --------------------------------------------------------------------------------


def gate(unit: Unit) -> dict[str, Any]:
    """Pre-train a student and measure it before any fine-tuning; what is there is read.

    Returns:
        ``short`` and ``whole``, shares of problems of one to three moves and of full length that it
        solves; `copying`; and whether it is ``accepted``: single
        moves are known, whole problems mostly unsolved.
    """
    prompts = [problem.prompt for problem in unit.held_out.values()]
    path = unit.student / f"gate-{_digest([prompts, _GATE_CODE])}.json"
    if not path.is_file():
        pretrain(unit.schooling, unit.student)
        short = make_problems(unit.family, SHORT_MOVES, unit.profile.held_out, (unit.seed, 3))
        report = {
            "short": float(np.mean(_solve(short, unit.student))),
            "whole": float(np.mean(_solve(unit.held_out, unit.student))),
            **copying(unit),
            "seconds": json.loads((unit.student / "schooling.json").read_text())["seconds"],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    report = json.loads(path.read_text(encoding="utf-8"))
    profile = unit.profile
    accepted = report["short"] >= profile.gate_short and report["whole"] <= profile.gate_whole
    return (
        {"family": unit.family, "copying": unit.copying, "seed": unit.seed}
        | report
        | {"accepted": accepted}
    )


def _solve(problems: Mapping[str, Problem], model: Path) -> list[bool]:
    """Whether greedy answers are right, exactly; an answer that does not end is wrong."""
    prompts = list(as_prompts(problems).values())
    greedy = Sampling(max_tokens=_TOKENS_PER_MOVE * max(p.num_moves for p in problems.values()))
    drawn = generate(prompts, str(model), greedy, store=model / "samples", progress=False)
    return [not c.truncated and find_answer(c.text) == problems[c.prompt_id].answer for c in drawn]


# --- scores ----------------------------------------------------------------------------------


def unit_scores(unit: Unit) -> tuple[Pool, dict[str, pd.DataFrame]]:
    """Make the pool and score it on true steps, sentences and paragraphs.

    Returns:
        The pool, and one score table per way to split.
    """
    pool, steps = make_pool(unit.problems, unit.teachers, unit.profile.samples, unit.seed)
    store = unit.student / "scores"
    split_of = {name: RULES_BY_NAME[name][0] for name in unit.profile.rules}
    wanted: dict[str, set[str]] = {"true": {"1", "all", *unit.profile.windows}}
    for name, split in split_of.items():
        wanted.setdefault(split, set()).add(RULES_BY_NAME[name][2])
    tables = {}
    student = load_student(str(unit.student), device="cpu")
    for split, windows in wanted.items():
        tables[split] = score(
            pool,
            student,
            sorted(windows),
            splitter=steps if split == "true" else split,
            with_tokens=split == "true",
            store=store,
            progress=False,
        )
    return pool, tables


# --- arms ------------------------------------------------------------------------------------


def choose(tables: Mapping[str, pd.DataFrame], name: str, seed: int) -> pd.DataFrame:
    """What a rule of `RULES_BY_NAME` chooses, or its control ``random like NAME``."""
    split, rule, window = RULES_BY_NAME[name.removeprefix(_LIKE)]
    chosen = rules.select(tables[split], rule, window, seed=seed)
    if name.startswith(_LIKE):
        return matched.select_random_matched(tables[split], chosen, seed=seed)
    return chosen


def plan_selections(
    unit: Unit, tables: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, str], list[str]]:
    """Response ids of every arm, by comparison and name."""
    profile, seed, true = unit.profile, unit.seed, tables["true"]
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for teacher in unit.teachers:
        rows = rules.of_teacher(true, teacher.name)
        if TEACHERS in unit.groups:
            found[TEACHERS, teacher.name] = rules.select(rows, "random", seed=seed)
        if THIRDS in unit.groups:
            for third, rule in _THIRD_RULES.items():
                found[f"{THIRDS}: {teacher.name}", third] = rules.select(rows, rule)
    if RULES in unit.groups:
        controls = [_LIKE + name for name in profile.controls]
        found |= {(RULES, name): choose(tables, name, seed) for name in [*profile.rules, *controls]}
    if WINDOWS in unit.groups:
        found |= {(WINDOWS, w): rules.select(true, "lalp", w) for w in profile.windows}
    return {key: sorted(table["response_id"]) for key, table in found.items()}


def run_unit(unit: Unit) -> dict[str, pd.DataFrame]:
    """Score, select, fine-tune and evaluate; finished arms are read.

    Returns:
        ``arms``: one row per comparison and arm, the untrained student first: what was selected
        (examples, tokens, mean scores, teachers' shares), training loss at the end, and how many
        held-out problems are solved. ``means``: mean scores by teacher. ``gaps``: by teacher and
        relative position, mean self-conditioning gap (Eq. 4).
    """
    pool, tables = unit_scores(unit)
    problems = len(unit.held_out)
    before = {"num_solved": round(gate(unit)["whole"] * problems), "num_problems": problems}
    rows = [_row(unit, "", BEFORE, before)]
    for (group, name), ids in plan_selections(unit, tables).items():
        result = _summary(tables["true"], ids) | run_arm(unit, pool, ids)
        rows.append(_row(unit, group, name, result))
    return {
        "arms": pd.DataFrame(rows),
        "means": _labelled(unit, _teacher_means(tables)),
        "gaps": _labelled(unit, _gaps(tables["true"])),
    }


def _row(unit: Unit, group: str, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return _labels(unit) | {"group": group, "arm": name} | dict(result)


def _labels(unit: Unit) -> dict[str, Any]:
    labels = {"family": unit.family, "copying": unit.copying, "seed": unit.seed}
    return {"pool": unit.name} | labels


def _labelled(unit: Unit, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(_labels(unit), table.index), table], axis=1)


def _summary(table: pd.DataFrame, ids: Sequence[str]) -> dict[str, Any]:
    chosen = table.set_index("response_id").loc[list(ids)]
    means = {c: chosen[c].mean() for c in chosen if c == "galp" or c in ("lalp@1", "lalp@all")}
    shares = chosen["teacher"].value_counts(normalize=True).sort_index()
    return {
        "num_examples": len(chosen),
        "num_tokens": int(chosen["num_tokens"].sum()),
        **means,
        **{f"share of {teacher}": share for teacher, share in shares.items()},
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
    recipe = world_recipe(unit.profile)
    key = [asdict(recipe), unit.seed, texts, held_out, _ARM_CODE]
    folder = unit.student / "arms" / _digest(key)
    path = folder.with_suffix(".json")
    if not path.is_file():
        log = train(
            examples, str(unit.student), folder / "model", recipe, seed=unit.seed, progress=False
        )
        solved = _solve(unit.held_out, folder / "model")
        tenth = max(1, len(log) // 10)
        report = {
            "first_loss": log["loss"].iloc[:tenth].mean(),
            "last_loss": log["loss"].iloc[-tenth:].mean(),
            "num_solved": sum(solved),
            "num_problems": len(solved),
            "solved": "".join(map(str, map(int, solved))),
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(report) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(path.read_text(encoding="utf-8"))


def world_recipe(profile: WorldProfile) -> Recipe:
    """The paper's recipe with the profile's rate and size, in float32."""
    return replace(
        RECIPES["paper"],
        learning_rate=profile.learning_rate,
        epochs=profile.epochs,
        batch_size=profile.batch,
        gradient_accumulation=1,
        max_length=MAX_POSITIONS,
        bf16=False,
        gradient_checkpointing=False,
    )


# --- what the scores say ---------------------------------------------------------------------


def _teacher_means(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean of every score by teacher: ``teacher``, ``split``, ``score``, ``mean``."""
    frames = []
    for split, table in tables.items():
        columns = score_columns(table)
        if split != "true":
            columns.remove("galp")
        means = table.groupby("teacher")[columns].mean()
        frames.append(means.melt(var_name="score", value_name="mean", ignore_index=False)
                      .reset_index().assign(split=split))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


_BINS = 10
_COPYING_PROBLEMS = 60
_FAR = 3


def _gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Eq. 4 by teacher and tenth of the response, window of one step: means over all tokens."""
    frames = []
    for row in table.itertuples():
        global_, local = (np.asarray(table.at[row.Index, f"{name}:tokens"], float)
                          for name in ("galp", "lalp@1"))  # fmt: skip
        place = np.arange(len(global_)) * _BINS // len(global_)
        columns = {
            "bin": place,
            "global": global_,
            "local": local,
            "gap": self_conditioning_gap(global_, local),
        }
        frames.append(pd.DataFrame(columns).assign(teacher=row.teacher))
    tokens = pd.concat(frames, ignore_index=True)
    return tokens.groupby(["teacher", "bin"], as_index=False).agg(
        **{name: (name, "mean") for name in ("global", "local", "gap")}, num_tokens=("gap", "size")
    )


def copying(unit: Unit) -> dict[str, float]:
    """How well a student repeats values: mean probability of those that are new in a list.

    Returns:
        ``copying_near``: of values that the step before has come to, so on their second occurrence;
        ``copying_far``: of those that three or more values have followed.
    """
    restater = Teacher("restater", restating=0.3)
    problems = dict(list(unit.held_out.items())[:_COPYING_PROBLEMS])
    pool, steps = make_pool(problems, [restater], 1, unit.seed)
    table = score(
        pool,
        str(unit.student),
        ["all"],
        splitter=steps,
        with_tokens=True,
        store=unit.student / "scores",
        progress=False,
    )
    near, far = [], []
    for response, row in zip(pool.responses, table.to_dict("records"), strict=True):
        starts = (start for start, _ in row["token_spans"])
        probs = dict(zip(starts, np.exp(row["galp:tokens"]), strict=True))
        for place, age in _new_in_lists(response.text):
            if age == 0:
                near.append(probs[place])
            elif age >= _FAR:
                far.append(probs[place])
    # Traces of few moves have no far ones.
    means = [float(np.mean(found)) if found else math.nan for found in (near, far)]
    return dict(zip(("copying_near", "copying_far"), means, strict=True))


def _new_in_lists(text: str) -> Iterator[tuple[int, int]]:
    """Where a value stands in the first list that holds it, and how many values have followed it.

    The value before the first move does not count: it stands in the prompt.
    """
    listed = 1
    for found in re.finditer(r"so far ([^.]+)\.", text):
        values = [match.start(1) for match in re.finditer(r"\w+ (\w+)(?: ,|$)", found[1])]
        for i in range(listed, len(values)):
            yield found.start(1) + values[i], len(values) - 1 - i
        listed = len(values)


# --- runs ------------------------------------------------------------------------------------


def study_teachers() -> tuple[Teacher, ...]:
    """The four teachers of the study."""
    return tuple(TEACHERS_BY_NAME.values())


def map_teachers(leap: float, scaffolding: float) -> tuple[Teacher, ...]:
    """Those of one cell of the map: a steady one, and one with these knobs.

    Scaffolding is of both kinds: ``scaffolding`` sentences without content a step, and a list of
    values before half that share of the steps.
    """
    fluent = Teacher("fluent", leap=leap, scaffolding=scaffolding, restating=scaffolding / 2)
    return (TEACHERS_BY_NAME["steady"], replace(fluent, checking=0.1))


def find_students(profile: WorldProfile) -> pd.DataFrame:
    """Pre-train students until enough are accepted, or the seeds are used up.

    Returns:
        One row per student tried: `gate`'s report.
    """
    kinds = [(family, share) for family in profile.families for share in profile.copying]
    tried: dict[tuple[str, float], list[dict[str, Any]]] = {kind: [] for kind in kinds}
    while True:
        units = []
        for kind, reports in tried.items():
            lacking = profile.seeds - sum(report["accepted"] for report in reports)
            left = profile.most_seeds - len(reports)
            seeds = range(len(reports), len(reports) + max(0, min(lacking, left)))
            units += [Unit(profile, "", *kind, seed, (), ()) for seed in seeds]
        if not units:
            break
        run_side_by_side(gate, units, profile.workers, "students", threads=1)
        for unit in units:
            tried[unit.family, unit.copying].append(gate(unit))
    return pd.DataFrame([report for reports in tried.values() for report in reports])


def plan_units(profile: WorldProfile, gates: pd.DataFrame) -> list[Unit]:
    """Units of the accepted students: the four teachers, or one unit per cell of the map."""
    if profile.leaps:
        cells = {
            f"leap {leap}, scaffolding {scaffolding}": (map_teachers(leap, scaffolding), (RULES,))
            for leap in profile.leaps
            for scaffolding in profile.scaffoldings
        }
    else:
        cells = {"four teachers": (study_teachers(), tuple(profile.groups))}
    return [
        Unit(profile, name, row.family, row.copying, row.seed, *cell)
        for name, cell in cells.items()
        for row in gates[gates["accepted"]].itertuples()
    ]


# Of one unit's arms, so that the last units keep all workers busy.
_PARTS = 4


def _score_unit(unit: Unit) -> None:
    """Score a unit's pool, and write it beside the student in the project's format."""
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


def run_world(profile: WorldProfile) -> dict[str, pd.DataFrame]:
    """Everything of a profile; what is there already is read.

    Returns:
        ``students`` (`find_students`), and ``arms``, ``means`` and ``gaps`` (`run_unit`) if any
        student was accepted.
    """
    gates = find_students(profile)
    units = plan_units(profile, gates)
    run_side_by_side(_score_unit, units, profile.workers, "scores", threads=1)
    parts = [(unit, part) for part in range(_PARTS) for unit in units]
    run_side_by_side(_run_part, parts, profile.workers, "arms", threads=1)
    tables: dict[str, list[pd.DataFrame]] = {}
    for unit in units:
        for name, table in run_unit(unit).items():
            tables.setdefault(name, []).append(table)
    joined = {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}
    return {"students": gates} | joined
