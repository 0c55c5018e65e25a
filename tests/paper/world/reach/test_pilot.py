"""The pilot: each teacher alone, no score, and what it refuses."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from lalp.paper.world.reach import pilot
from lalp.paper.world.reach.settings import TEACHERS
from lalp.paper.world.reach.study import ReachUnit
from tests.paper.world.reach.test_study import SMALL

GOOD = {"reach": 4, "accepted": True, "whole": 0.1}
GOOD |= {"steady": 0.3, "half careful": 0.4, "careful": 0.5}


def test_a_pilot_trains_on_each_teacher_alone(monkeypatch):
    gate = {"reach": 4, "seed": 100, "short": 1.0, "whole": 0.1, "accepted": True, "solved": ""}
    run_arm = Mock(return_value={"num_solved": 3, "num_problems": 4})
    monkeypatch.setattr(pilot, "gate", lambda unit: gate)
    monkeypatch.setattr(pilot.base, "run_arm", run_arm)
    found = pilot.run_pilot(ReachUnit(SMALL, 4, pilot.SEED))
    for teacher, call in zip(TEACHERS, run_arm.call_args_list, strict=True):
        ids = call.args[2]
        assert len(ids) == SMALL.problems
        assert {i.split("/")[1] for i in ids} == {teacher.name}
        assert found[teacher.name] == 0.75
    assert (found["whole"], found["accepted"]) == (0.1, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"accepted": False}, ["does not pass its gate"]),
        ({"half careful": 0.1}, ["half careful teaches nothing"]),
        ({"careful": 0.3}, [r"careful minus steady is +0.00"]),
        ({"reach": 1}, [r"careful minus steady is +0.20"]),
        ({"reach": 1, "careful": 0.2}, []),
    ],
)
def test_what_the_predictions_suppose(changes, words):
    found = pilot.faults([GOOD | changes])
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))
