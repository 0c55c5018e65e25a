"""One cluster of two processors for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray in this process, with room for two workers; or the cluster at ``RAY_ADDRESS``."""
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    from benchmarks.cluster import start

    start(2)
    yield
    ray.shutdown()
