"""Check committed results of `registers-reach`: make the solutions of some students again.

Results that do not depend on a student's weights must be the same on any machine: problems,
solutions, the choices of arms that use no score, and their numbers of tokens. Training elsewhere
gives a different student (`lalp.paper.world.recheck`), so nothing is trained again.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lalp.paper.rechecks import compare, require_agreement
from lalp.paper.world.reach import problems as world
from lalp.paper.world.reach.settings import RANDOM, TEACHERS, UNIT, ReachStudy, load_study
from lalp.paper.world.reach.study import ReachResults, ReachUnit
from lalp.paper.world.student import make_tokenizer
from lalp.pools.pool import Pool
from lalp.selection import rules


def check_reach(results: ReachResults, seed: int, study: ReachStudy | None = None) -> pd.DataFrame:
    """Make the solutions of one student of each reach again, drawn by ``seed``.

    ``study`` is that of the results; the default is the preregistered one.

    Returns:
        One row per check (`lalp.paper.rechecks.compare`).

    Raises:
        InputError: If anything differs.
    """
    study = study or load_study("reach")
    rng, made = np.random.default_rng(seed), []
    for reach in sorted(results.arms["reach"].unique()):
        seeds = results.arms.loc[results.arms["reach"] == reach, "seed"].unique()
        made.append(solution_tokens(ReachUnit(study, int(reach), int(rng.choice(seeds)))))
    arms = pd.concat(made)
    means = arms[arms["mean"].notna()].rename(columns={"arm": "teacher"}).assign(score="num_tokens")
    checks = [
        compare("tokens that no score chose", results.arms, arms, [*UNIT, "arm"], ["num_tokens"]),
        compare("mean tokens of a solution", results.means, means, [*UNIT, "teacher", "score"],
                ["mean"], 1e-4),
    ]  # fmt: skip
    return require_agreement(checks, "make world PROFILE=reach")


def solution_table(pool: Pool) -> pd.DataFrame:
    """A score table without scores, for rules that use none, with each solution's tokens."""
    tokenizer = make_tokenizer()
    rows = [
        (r.prompt_id, r.response_id, r.teacher, True, len(tokenizer(r.text)["input_ids"]))
        for r in pool.responses
    ]
    columns = ["prompt_id", "response_id", "teacher", "correct", "num_tokens"]
    return pd.DataFrame(rows, columns=columns)


def solution_tokens(unit: ReachUnit) -> pd.DataFrame:
    """``num_tokens`` of the arms that use no score; for a teacher, the ``mean`` of a solution."""
    pool, _ = world.make_pool(unit.problems, TEACHERS, unit.study.samples, unit.seed)
    table = solution_table(pool)
    arms = [unit.labels | {"arm": RANDOM, "num_tokens": _tokens(table, unit.seed)}]
    for teacher in TEACHERS:
        own = rules.of_teacher(table, teacher.name)
        arms.append(unit.labels | {"arm": teacher.name, "num_tokens": _tokens(own, unit.seed),
                                   "mean": own["num_tokens"].mean()})  # fmt: skip
    return pd.DataFrame(arms)


def _tokens(table: pd.DataFrame, seed: int) -> int:
    return int(rules.select(table, "random", seed=seed)["num_tokens"].sum())
