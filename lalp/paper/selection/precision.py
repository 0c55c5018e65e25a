"""bfloat16 against float32: how far scores move, and whether choices and teachers' order change.

A GPU scores in bfloat16, the replication in float32. bfloat16 keeps 8 bits of a number, so the last
digits of a score of some nats are wrong. Whether that matters depends on the distance between
candidates.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.paper.champ.champ import pick_candidates
from lalp.paper.profiles import Profile
from lalp.paper.scores import scores_of
from lalp.pools.pool import Pool
from lalp.scoring.columns import GALP, column_window, lalp_column
from lalp.scoring.run import score
from lalp.selection.ranking import rank_teachers
from lalp.selection.rules import agreement, select


def bfloat16_scores(profile: Profile, pool: Pool, seed: int = 0) -> pd.DataFrame:
    """GALP and the main window of the profile's candidates in bfloat16, without tokens.

    They are the candidates of `lalp.paper.champ.pool.profile_scores` with the same ``seed``.
    """
    candidates = pick_candidates(pool, profile.num_prompts, profile.responses_per_teacher, seed)

    def compute(some: Pool) -> pd.DataFrame:
        how = {"splitter": profile.splitter, "dtype": "bfloat16"}
        return score(some, profile.student, [profile.main_window], **how)

    return scores_of(profile, "bfloat16", candidates, compute)


def precision_table(exact: pd.DataFrame, near: pd.DataFrame, window: str) -> pd.DataFrame:
    """Effect of a coarser number format on GALP and on LALP at a window, a row for each.

    Args:
        exact: Scores in float32.
        near: Scores of the same responses in bfloat16.
        window: LALP's window.

    Returns:
        ``responses``; ``mean error`` and ``largest error`` of a score (absolute, nats);
        ``prompts`` and the share of them whose ``choice flips``, if the highest score is chosen;
        ``mean moves``, the largest change of a teacher's mean (nats); ``order``: ``the same``, or
        the teachers from highest to lowest in bfloat16.

    Raises:
        InputError: If the tables hold different responses.
    """
    if sorted(exact["response_id"]) != sorted(near["response_id"]):
        raise InputError("the two tables hold scores of other responses: score the same ones")
    rows = [_compare(exact, near, column) for column in (GALP, lalp_column(window))]
    return pd.DataFrame(rows)


def _compare(exact: pd.DataFrame, near: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row of one score."""
    one, other = (table.set_index("response_id")[column] for table in (exact, near))
    errors = (one - other).abs().dropna()
    rule = "galp" if column == GALP else "lalp"
    chosen = [select(table, rule, column_window(column)) for table in (exact, near)]
    ranked = [rank_teachers(table, column).set_index("teacher") for table in (exact, near)]
    orders = [" > ".join(table.index) for table in ranked]
    moves = ranked[0]["mean"] - ranked[1]["mean"]
    return {
        "score": column,
        "responses": len(errors),
        "mean error": errors.mean(),
        "largest error": errors.max(),
        "prompts": len(chosen[0]),
        "choice flips": 1 - agreement(*chosen),
        "mean moves": moves.abs().max(),
        "order": "the same" if orders[0] == orders[1] else orders[1],
    }
