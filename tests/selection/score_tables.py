"""Score tables to select from and to rank teachers by."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NAN = math.nan
steady = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Multiples of 1/64, so that scores often tie and their sums are exact.
SCORE = st.integers(-256, 0).map(lambda n: n / 64)


def scores_table(rows: list[tuple], columns: str = "prompt_id response_id teacher") -> pd.DataFrame:
    """A scores table from tuples; columns that the test does not name get neutral values."""
    neutral = {"correct": True, "num_tokens": 10, "num_steps": 2, "galp": -1.0, "reason": None}
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(**{name: v for name, v in neutral.items() if name not in table})


def means_table(means: dict[str, list[float]]) -> pd.DataFrame:
    """One response per teacher and prompt; ``means`` lists each teacher's GALP by prompt."""
    rows = [
        (f"p{number}", f"{teacher}{number}", teacher, value)
        for teacher, values in means.items()
        for number, value in enumerate(values)
    ]
    return scores_table(rows, "prompt_id response_id teacher galp")


def tokens_table(*rows: tuple) -> pd.DataFrame:
    """A score table of (tokens, steps, other columns); GALP and LALP follow from the tokens."""
    made = []
    for i, (tokens, steps, *others) in enumerate(rows):
        tokens, steps = np.array(tokens, float), np.array(steps)
        means = [tokens[steps == k].mean() for k in np.unique(steps)]
        ids = {"prompt_id": "p", "response_id": f"r{i}", "teacher": "A", "correct": True}
        counts = {"num_tokens": len(tokens), "num_steps": len(means), "mean_rank_100": 1.0}
        scores = {"galp": tokens.mean(), "lalp@4": np.mean(means)}
        by_token = {"token_steps": steps, "galp:tokens": tokens, "lalp@4:tokens": tokens}
        made.append(ids | counts | scores | by_token | dict(*others))
    return pd.DataFrame(made)


def chosen_ids(selected: pd.DataFrame) -> dict[str, str]:
    return dict(zip(selected["prompt_id"], selected["response_id"], strict=True))


@st.composite
def tables(draw) -> pd.DataFrame:
    """A table in which every prompt has a candidate; responses stand in any order."""
    teachers = "ABCD"[: draw(st.integers(1, 4))]
    rows = []
    for prompt in draw(st.lists(st.text(max_size=3), min_size=1, max_size=6, unique=True)):
        for number in range(draw(st.integers(1, 5))):
            correct = draw(st.sampled_from([True, None, False])) if number else True
            teacher = draw(st.sampled_from(teachers))
            name = f"{draw(st.sampled_from('xyz'))}{number}"
            scores = draw(SCORE), draw(SCORE)
            rows.append((prompt, name, teacher, correct, draw(st.integers(1, 3)), *scores))
    columns = "prompt_id response_id teacher correct num_tokens galp lalp@4"
    return scores_table(draw(st.permutations(rows)), columns)
