"""The choice of Eq. 2; windows are in `test_windows`, the other equations in their own examples."""

from __future__ import annotations

import numpy as np
import pytest

from lalp.scoring.equations import choose


def test_the_first_of_the_most_natural_candidates_is_chosen():
    assert choose(np.array([-2.0, -1.0, -1.0])) == 1
    with pytest.raises(ValueError, match="no score"):
        choose(np.array([-2.0, np.nan]))
