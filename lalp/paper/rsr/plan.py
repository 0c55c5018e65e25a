"""Which part of the trajectory sets is scored, and under which students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lalp.files import read_data


@dataclass(frozen=True)
class Plan:
    """The sets, the students and the settings of ``plan.yaml``, which says what each means."""

    repository: str
    revision: str
    set_file: str
    generations: Sequence[str]
    set_size: int
    teachers: Mapping[str, str]  # name in the paper: folder, or a pattern of its name
    students: Mapping[str, str]  # name in the paper: model
    num_responses: int
    seed: int
    windows: Sequence[str]
    main_window: str
    splitter: str
    num_resamples: int
    gpu: str

    @property
    def num_sets(self) -> int:
        """Trajectory sets: one for each teacher and generation."""
        return len(self.teachers) * len(self.generations)


PLAN = Plan(**read_data("paper/rsr/plan.yaml"))


def find_plan(toys: str) -> Plan:
    """The plan; of a dry run the same with few traces and draws."""
    sizes = read_data("paper/rsr/made_up.yaml")["sizes"]
    return replace(PLAN, **sizes) if toys else PLAN
