"""The student of `registers-reach`: what it reads, and that only the reach is new."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lalp.paper.world import student as base
from lalp.paper.world.problems import LABELS
from lalp.paper.world.reach import student
from lalp.paper.world.reach.problems import REACHES, ReachProblem, make_problem
from lalp.paper.world.reach.student import ReachSchooling
from lalp.paper.world.student import SCHOOLING, SHORT_MOVES, Schooling, make_tokenizer

SCHOOL = ReachSchooling("registers", 0.2, (8, 12), 1000, 0, 4)


@pytest.fixture
def made(monkeypatch) -> list[ReachProblem]:
    """Problems that documents are about, in turn."""
    found: list[ReachProblem] = []

    def note(*args: object) -> ReachProblem:
        found.append(make_problem(*args))
        return found[-1]

    monkeypatch.setattr(student.world, "make_problem", note)
    return found


@pytest.mark.parametrize("reach", REACHES)
def test_parts_ask_for_no_operand_from_further_than_one_step_back(reach, made):
    school, ends, lists = replace(SCHOOL, reach=reach), 0, 0
    for seed in range(300):
        (prompt, one), (told, two), (asked, three) = student._part(
            school, np.random.default_rng(seed)
        )
        assert (one, two, three) == (False, False, True)
        problem = made[-1]
        assert prompt == problem.prompt
        listed = set(re.findall(r"([a-m]) \d(?= ,|$)", told.split(".")[0]))
        before, moves = (re.findall(r"(?<!check )([a-m]) [+*]\d", text) for text in (told, asked))
        assert 1 <= len(before) <= 2 and 1 <= len(moves) <= 2
        for place, label in enumerate(moves):
            operand = LABELS[problem.operand(LABELS.index(label))]
            assert operand in listed | {"a", [*before, *moves][len(before) + place - 1]}
            lists += operand in listed
        ends += asked.endswith("<end>")
        assert asked.endswith("<end>") == ("boxed" in asked)
    assert 0 < ends < 300
    assert (lists > 100) == (reach == 4)


@pytest.mark.parametrize("reach", REACHES)
def test_short_solutions_are_whole(reach, made):
    lengths = set()
    for seed in range(60):
        (prompt, _), (text, scored) = student._short(
            replace(SCHOOL, reach=reach), np.random.default_rng(seed)
        )
        student.world.read_trace(made[-1], text.removesuffix(" <end>"))
        assert scored and prompt == made[-1].prompt
        lengths.add(made[-1].num_moves)
    assert lengths == set(SHORT_MOVES)


@pytest.mark.parametrize("make", [student._restating, student._unconnected])
def test_drills_list_the_last_four_registers_alone(make):
    lengths = set()
    for seed in range(100):
        known: list[tuple[str, str]] = []
        for text, scored in make(SCHOOL, np.random.default_rng(seed)):
            listed = re.findall(r"([a-m]) (\d)(?= ,|\.)", text) if scored else []
            if scored:
                assert text.startswith("so far ") and listed == known[-4:]
                lengths.add(len(listed))
                known = [] if make is student._restating else known
            else:
                label = re.search(r"\b([b-m])\b|\ba\b", text).group(0)
                known.append((label, re.findall(r"(?<![+*])\b\d\b", text)[-1]))
    assert max(lengths) == 4 and min(lengths) >= 2


def test_only_this_worlds_documents_differ_from_the_first_world():
    first = Schooling("registers", 0.2, (8, 12), 1000, 0)
    for (share, kinds), (other, base_kinds) in zip(
        student.phases(SCHOOL), base._phases(first), strict=True
    ):
        assert share == other
        assert list(kinds.values()) == list(base_kinds.values())
        changed = {(old, new) for old, new in zip(base_kinds, kinds, strict=True) if old != new}
        assert changed <= set(student._OWN.items())
    assert {student._part, student._short, student._unconnected} <= set(kinds)


def test_with_the_first_worlds_documents_its_batches_come_out(monkeypatch):
    """What stands in both files does the same."""
    monkeypatch.setattr(base, "_BLOCK", 16)
    monkeypatch.setattr(student, "phases", base._phases)
    tokenizer, school = make_tokenizer(), replace(SCHOOL, tokens=20_000)
    own = student.batches(school, tokenizer, base._Course())
    other = base.batches(school, tokenizer, base._Course())
    pairs = list(zip(own, other, strict=True))
    assert len(pairs) > 20
    for (ids, labels, share), (ids_2, labels_2, share_2) in pairs:
        assert torch.equal(ids, ids_2) and torch.equal(labels, labels_2) and share == share_2
    models = [base.make_model(len(tokenizer), 0) for _ in range(2)]
    losses = [
        list(islice(module._steps(model, school, tokenizer), 5))
        for module, model in zip((student, base), models, strict=True)
    ]
    assert losses[0] == losses[1]


def test_the_same_schooling_gives_the_same_weights_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_BLOCK", 2)
    school = replace(SCHOOL, tokens=6000)  # so many that drills are over
    for name in ("one", "two"):
        student.pretrain(school, tmp_path / name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    student.pretrain(replace(school, reach=1), tmp_path / "other")
    third = load_file(tmp_path / "other" / "model.safetensors")
    assert not all(torch.equal(one[key], third[key]) for key in one)
    assert '"reach": 4' in (tmp_path / "one" / SCHOOLING).read_text()
    monkeypatch.setattr(student, "_steps", None)
    student.pretrain(school, tmp_path / "one")
