"""Another precision is another score, and is asked for by name."""

from __future__ import annotations

import numpy as np
import pytest

from lalp.errors import InputError
from lalp.scoring.estimate import plan_scoring
from lalp.scoring.run import score

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def test_bfloat16_is_near_float32_and_kept_apart(pool, student_folder, tmp_path):
    how = {"windows": ["1"], "store": tmp_path, "progress": False}
    exact, near = (score(pool, student_folder, dtype=d, **how) for d in (None, "bfloat16"))
    assert exact.attrs["key"] != near.attrs["key"]
    assert near.attrs["scored_with"]["dtype"] == "torch.bfloat16"
    gap = np.abs(exact[["galp", "lalp@1"]] - near[["galp", "lalp@1"]]).to_numpy().max()
    assert 0 < gap < 0.1


def test_what_no_dtype_is_called_and_what_is_loaded_already(pool, llama, student_folder, tmp_path):
    with pytest.raises(InputError, match="dtype 'bfloat' is not known: did you mean 'bfloat16'"):
        score(pool, student_folder, ["1"], dtype="bfloat", store=tmp_path, progress=False)
    with pytest.raises(InputError, match="is there in float32 already: give its name"):
        score(pool, llama, ["1"], dtype="bfloat16", store=tmp_path, progress=False)


def test_the_plan_counts_the_bytes_of_the_dtype(pool, student_folder):
    costs = [plan_scoring(pool, student_folder, ["1"], dtype=d) for d in ("float32", "float16")]
    assert [cost.dtype for cost in costs] == ["float32", "float16"]
    assert costs[1].memory_bytes < costs[0].memory_bytes
