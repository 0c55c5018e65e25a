from __future__ import annotations

import pandas as pd
import pytest

from tests.selection.score_tables import scores_table


@pytest.fixture
def pool() -> pd.DataFrame:
    """Three teachers, four prompts; the best of each prompt and rule is plain to see."""
    rows = [
        ("q", "qA", "A", True, -0.9, -1.9),
        ("q", "qB", "B", True, -0.5, -1.1),
        ("q", "qC", "C", None, -0.7, -1.0),
        ("p", "pA", "A", True, -0.1, -2.0),
        ("p", "pB", "B", False, -0.05, -0.1),
        ("r", "rC", "C", None, -0.6, -1.5),
        ("s", "sA", "A", True, -0.4, -1.2),
        ("s", "sA2", "A", True, -0.3, -1.3),
        ("s", "sB", "B", True, -0.2, -1.4),
    ]
    return scores_table(rows, "prompt_id response_id teacher correct galp lalp@4")
