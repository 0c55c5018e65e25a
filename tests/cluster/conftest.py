"""One cluster of two processors for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lalp.extras import is_installed


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray in this process, with room for two workers; or the cluster at ``RAY_ADDRESS``."""
    if not is_installed("ray"):
        pytest.skip("the extra cluster is not installed")
    from benchmarks.cluster import start

    start(2)
    import ray

    yield
    ray.shutdown()
