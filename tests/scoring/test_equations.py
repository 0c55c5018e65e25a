"""The paper's equations by hand; their windows are in `test_windows`."""

from __future__ import annotations

import numpy as np
import pytest

from lalp.scoring.equations import choose, local_average_log_prob, self_conditioning_gap


def test_steps_have_equal_weight():
    steps = [np.array([-1.0]), np.array([-4.0, -2.0, -3.0, -3.0])]
    assert local_average_log_prob(steps) == pytest.approx(-2.0)


def test_the_first_of_the_most_natural_candidates_is_chosen():
    assert choose(np.array([-2.0, -1.0, -1.0])) == 1
    with pytest.raises(ValueError, match="no score"):
        choose(np.array([-2.0, np.nan]))


def test_the_gap_is_unknown_where_a_score_is():
    gap = self_conditioning_gap(np.array([-1.0, np.nan]), np.array([-3.0, -1.0]))
    np.testing.assert_array_equal(gap, [2.0, np.nan])
