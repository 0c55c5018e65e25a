"""Scores of the trajectory sets: by response under a student, by set, by teacher."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.rsr.plan import Plan
from lalp.paper.rsr.published import RSR
from lalp.pools.pool import Pool
from lalp.scoring.columns import GALP, lalp_column
from lalp.selection.variants import LOWER_IS_BETTER, add_variants, variant_column

_RANK = "mean_rank_100"


def score_columns(plan: Plan) -> list[str]:
    """The scores that are correlated: GALP, LALP at every window, RSR, and CASL of both.

    Example:
        >>> from lalp.paper.rsr.plan import PLAN
        >>> score_columns(PLAN)[1:4]
        ['lalp@0', 'lalp@1', 'lalp@2']
    """
    casl = [variant_column(name, plan.main_window) for name in ("galp-casl", "lalp-casl")]
    return [GALP, *map(lalp_column, plan.windows), RSR, *casl]


def score_responses(plan: Plan, pool: Pool, student: str) -> pd.DataFrame:
    """Every response's scores under a student, a column each, and its set; no tokens or texts.

    A killed run continues where it stopped: finished prompts are in the store of scores.
    """
    from lalp.scoring.run import score  # waits for torch

    scores = score(pool, student, plan.windows, splitter=plan.splitter, with_tokens=True)
    # One fit over all teachers, so that its corrections are comparable.
    added = add_variants(scores, ["galp-casl", "lalp-casl"], plan.main_window)
    columns = [name for name in score_columns(plan) if name != RSR]
    kept = added[["prompt_id", "response_id", "teacher", "num_tokens", _RANK, *columns]]
    kept.attrs = dict(scores.attrs)
    generations = {r.response_id: r.extra["generation"] for r in pool.responses}
    return kept.assign(generation=kept["response_id"].map(generations))


def set_scores(plan: Plan, responses: pd.DataFrame) -> pd.DataFrame:
    """The score of each set: the mean over its responses that have all scores.

    RSR is defined for a set (Eq. 9 of arXiv 2601.14249): the mean rank of the tokens, each at most
    100, averaged over responses, over the surprisal averaged over responses.

    Returns:
        A row per set and score: ``teacher``, ``generation``, ``score``, ``value``, its standard
        error ``error`` over responses, ``num_scored`` and ``num_unscored``.
    """
    columns = [name for name in score_columns(plan) if name != RSR]
    rows = []
    for (teacher, generation), group in responses.groupby(["teacher", "generation"], sort=False):
        scored = group[np.isfinite(group[[*columns, _RANK]].to_numpy(float)).all(axis=1)]
        counts = len(scored), len(group) - len(scored)
        for name in score_columns(plan):
            value, pulls = _set_score(scored, name)
            error = pulls.std(ddof=1) / np.sqrt(len(pulls)) if len(pulls) > 1 else np.nan
            rows.append((teacher, generation, name, value, error, *counts))
    names = ["teacher", "generation", "score", "value", "error", "num_scored", "num_unscored"]
    return pd.DataFrame(rows, columns=names)


def _set_score(scored: pd.DataFrame, name: str) -> tuple[float, Float[np.ndarray, "responses"]]:
    """A score of some responses together, and how far each of them pulls it."""
    if scored.empty:
        return np.nan, np.empty(0)
    if name != RSR:
        values = scored[name].to_numpy(float)
        return float(values.mean()), values
    ranks, surprisals = scored[_RANK].to_numpy(float), -scored[GALP].to_numpy(float)
    ratio = float(ranks.mean() / surprisals.mean())
    return ratio, (ranks - ratio * surprisals) / surprisals.mean()


def teacher_scores(sets: pd.DataFrame) -> pd.DataFrame:
    """Mean over a teacher's sets, like the accuracies; for each score, higher is better.

    Takes the sets of several students, and changes the sign of scores for which lower is better. A
    row per ``student``, ``score`` and ``teacher``, with ``value``.
    """
    keys = ["student", "score", "teacher"]
    means = sets.groupby(keys, sort=False)["value"].mean().reset_index()
    return means.assign(value=means["value"] * _sign(means["score"]))


def _sign(scores: pd.Series) -> Float[np.ndarray, "rows"]:
    return np.where(scores.isin(LOWER_IS_BETTER), -1.0, 1.0)
