"""Workers on a cluster: every item is worked on, whoever dies, and what fails is told."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest

from benchmarks.cluster import Sleeping, measure_share
from lalp.cluster.workers import Workers, connect, run_workers
from lalp.errors import InputError

pytestmark = pytest.mark.usefixtures("cluster")


class Doubling:
    """Doubles numbers; a text kills the worker, a negative number fails, ``once`` kills it once."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def __call__(self, items: list) -> tuple[list, int]:
        for item in items:
            if item == "always" or (item == "once" and not os.path.exists(f"{self.folder}/once")):  # noqa: PTH110
                open(f"{self.folder}/once", "w").close()  # noqa: PTH123
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(item, int) and item < 0:
                raise ValueError(f"{item} is negative")
        time.sleep(0.02)
        return [item * 2 for item in items], os.getpid()

    def close(self) -> None:
        pass


def run(make, pieces, number=2) -> tuple[Counter, set[int], dict]:
    failures: dict = {}
    results = list(run_workers(Workers("auto", number), make, pieces, failures.__setitem__))
    return Counter(x for items, _ in results for x in items), {pid for _, pid in results}, failures


def test_all_items_by_two_workers_and_whatever_fails_is_told(tmp_path):
    pieces = [[n, n + 1, -n - 1] if n == 20 else [n, n + 1] for n in range(0, 60, 2)]
    found, pids, failures = run(Doubling, pieces)
    assert found == Counter(range(0, 120, 2))
    assert 1 <= len(pids) <= 2
    assert failures == {-21: "-21 is negative"}


def test_a_worker_that_dies_is_replaced_and_its_work_done_by_another(tmp_path):
    def make():
        return Doubling(str(tmp_path))

    found, _, failures = run(make, [[1], ["once", 2], [3], [4]])
    assert found == Counter([2, "onceonce", 4, 6, 8])
    assert failures == {}


def test_what_kills_every_worker_is_given_up_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("lalp.cluster.workers._MOST_DEATHS", 2)

    def make():
        return Doubling(str(tmp_path))

    found, _, failures = run(make, [[1], [2, "always", 3], [4]])
    assert found == Counter([2, 4, 6, 8])
    assert list(failures) == ["always"]
    assert failures["always"].startswith("2 workers died of it")


def test_workers_for_which_there_is_no_room_hold_nothing_back():
    found, pids, _ = run(Doubling, [[n] for n in range(12)], number=5)
    assert found == Counter(range(0, 24, 2))
    assert len(pids) <= 2


def test_a_worker_that_is_added_takes_its_share():
    import ray

    @ray.remote(num_cpus=1)
    class Taken:
        def ready(self) -> None:
            pass

    pids, end = set(), time.monotonic() + 120

    def pieces():
        while len(pids) < 2 and time.monotonic() < end:
            yield [1]

    taken = Taken.remote()
    ray.get(taken.ready.remote())
    for _, pid in run_workers(Workers("auto", 2), Doubling, pieces(), pytest.fail):
        if not pids:
            ray.kill(taken)  # there is room for a second worker now
        pids.add(pid)
    assert len(pids) == 2


def test_no_work_is_no_wait():
    assert run(Doubling, []) == (Counter(), set(), {})


def test_a_worker_that_cannot_start_is_one_clear_error():
    def make():
        raise InputError("student 'x': no such folder")

    with pytest.raises(InputError, match="a worker cannot start: student 'x': no such folder"):
        run(make, [[1]])


def test_workers_that_die_before_they_are_ready_end_the_run(monkeypatch):
    monkeypatch.setattr("lalp.cluster.workers._LONGEST_DYING", 1.0)

    def make():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="no worker can start: all died while they prepared"):
        run(make, [[1]])


@pytest.mark.parametrize("wrong", [{"number": 0}, {"gpus": -1.0}, {"address": ""}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"give ([01] or more|auto, or the address)"):
        Workers(**{"address": "auto"} | wrong)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nothing_listens_is_told_at_once(address, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"not there \(.*refused\): start one"):
        connect(address)


def test_the_share_of_work_is_counted_while_all_workers_are_there():
    found = measure_share(2, 40, 0.05, 2)
    assert (found["workers"] in (1, 2), found["prompts"]) == (True, 40)
    assert 0.3 < found["share"] <= 1.0
    assert Sleeping(0.0)([1])[3] == 0.0
