"""What tests of the sandbox share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lalp.evaluation import sandbox


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing known of this machine yet, nor kept of what the test pretends it to be."""
    functions = (sandbox.check_sandbox, sandbox._tool, sandbox._view, sandbox._interpreter)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()
