"""Problems and solutions of `registers-reach`, against an executor and a reader written here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.paper.world import problems as first_world
from lalp.paper.world.problems import LABELS, Teacher, Trace
from lalp.paper.world.reach import problems as world
from lalp.paper.world.reach.problems import REACHES, ReachProblem
from lalp.paper.world.reach.settings import TEACHERS
from lalp.steps.sentences import split_sentences


def execute(prompt: str, reach: int) -> dict[str, int]:
    """Every register of a prompt by its label, without the project's code."""
    first, *lines = prompt.removesuffix(" :").split(" ; ")
    registers = {"a": int(first.removeprefix("a = "))}
    names = ["a"]
    for line in lines:
        label, op = line.split(" ")
        read = registers[names[-reach] if len(names) >= reach else "a"]
        registers[label] = (read + int(op[1]) if op[0] == "+" else read * int(op[1])) % 10
        names.append(label)
    return registers


def reread(problem: ReachProblem, text: str) -> Iterator[tuple[str, str]]:
    """Assert that a solution is right in every sentence; the kind and label of each."""
    truth, shown = execute(problem.prompt, problem.reach), ["a"]
    ops = dict(re.findall(r"([a-m]) ([+*]\d)", problem.prompt))
    last = list(truth)[-problem.reach :]
    for sentence in (part.strip() for part in text.split(".")[:-1]):
        if found := re.search(r"boxed\{ (.*) \}", sentence):
            assert found[1] == " , ".join(f"{label} {truth[label]}" for label in last)
            yield "answer", ""
        elif sentence.startswith("so far "):
            pairs = [pair.split(" ") for pair in sentence.removeprefix("so far ").split(" , ")]
            assert pairs == [[label, str(truth[label])] for label in shown[-4:]]
            yield "list", ""
        elif found := re.search(r"([a-m]) ([+*]\d)", sentence):
            label, (before, *_, after) = found[1], re.findall(r"(?<![+*])\b\d\b", sentence)
            place = list(truth).index(label)
            operand = list(truth)[place - problem.reach] if place >= problem.reach else "a"
            assert found[2] == ops[label]
            assert (int(before), int(after)) == (truth[operand], truth[label])
            if sentence.startswith("check"):
                assert label == shown[-1]
                yield "check", label
            else:
                shown.append(label)
                yield "move", label
        else:
            assert not re.search(r"\d", sentence)
            yield "filler", ""
    assert shown == list(truth)


reaches = st.sampled_from(REACHES)
seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)
teachers = st.builds(Teacher, name=st.just("any"), scaffolding=st.floats(0, 2), restating=shares,
                     checking=shares, variety=st.integers(1, first_world.NUM_WORDINGS))  # fmt: skip


@st.composite
def problems(draw: st.DrawFn, fewest: int = 1, reach: int | None = None) -> ReachProblem:
    rng = np.random.default_rng(draw(seeds))
    own = draw(reaches) if reach is None else reach
    return world.make_problem(own, draw(st.integers(fewest, len(LABELS) - 1)), rng)


@st.composite
def traces(draw: st.DrawFn, **kind: int) -> tuple[ReachProblem, Trace]:
    problem = draw(problems(**kind))
    return problem, world.write_trace(problem, draw(teachers), np.random.default_rng(draw(seeds)))


PROMPT = "a = 6 ; b +1 ; c *9 ; d +2 ; e *3 ; f +5 :"
OPS = ("+1", "*9", "+2", "*3", "+5")


@pytest.mark.parametrize(
    ("reach", "values", "answer"),
    # At reach 4 b to e read a, and f reads b.
    [(1, "6 7 3 5 5 0", "f 0"), (4, "6 7 4 8 8 2", "c 4 , d 8 , e 8 , f 2")],
)
def test_a_problem_by_hand(reach, values, answer, monkeypatch):
    drawn = first_world.Problem("registers", PROMPT, OPS, ("6", "7", "3", "5", "5", "0"))
    monkeypatch.setattr(first_world, "make_problem", lambda *_: drawn)
    problem = world.make_problem(reach, 5, np.random.default_rng(0))
    assert (problem.prompt, " ".join(problem.values), problem.answer) == (PROMPT, values, answer)


@given(problems())
def test_problems_are_what_an_executor_says(problem):
    truth = execute(problem.prompt, problem.reach)
    assert list(map(int, problem.values)) == list(truth.values())
    last = list(truth.items())[-problem.reach :]
    assert problem.answer == " , ".join(f"{label} {value}" for label, value in last)
    assert problem.num_moves == len(problem.ops) == len(problem.values) - 1


@given(st.integers(1, 12), seeds)
def test_reach_one_is_the_first_world_and_prompts_do_not_tell_the_reach(moves, seed):
    one, four = (world.make_problem(r, moves, np.random.default_rng(seed)) for r in REACHES)
    first = first_world.make_problem("registers", moves, np.random.default_rng(seed))
    assert (one.prompt, one.ops, one.values) == (first.prompt, first.ops, first.values)
    assert one.answer == f"{LABELS[moves]} {first.answer}"
    assert (four.prompt, four.ops) == (one.prompt, one.ops)


@given(problems(fewest=5, reach=4), st.data())
def test_every_move_counts(problem, data):
    """Another last digit of any register that no other one reads is another answer."""
    place = data.draw(st.integers(1, problem.num_moves))
    readers = [p for p in range(1, problem.num_moves + 1) if problem.operand(p) == place]
    assert readers or place > problem.num_moves - problem.reach
    assert all(reader == place + problem.reach for reader in readers)


def test_bad_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no reach 2: choose 1 or 4"):
        world.make_problem(2, 3, rng)
    with pytest.raises(InputError, match="a problem of 13 moves: give 1 to 12"):
        world.make_problem(4, 13, rng)
    with pytest.raises(InputError, match=r"no 81 problems of \[1\] moves"):
        world.make_problems(1, [1], 81, (0,))
    problem = world.make_problem(4, 8, rng)
    with pytest.raises(InputError, match="'leaper' leaps: in registers-reach no teacher does"):
        world.write_trace(problem, Teacher("leaper", leap=0.5), rng)


def test_sets_hold_different_problems_and_follow_their_seed():
    found = world.make_problems(4, range(8, 13), 50, (3, 1))
    assert list(found) == [f"reach4-3-1-{i:04d}" for i in range(50)]
    assert len({problem.prompt for problem in found.values()}) == 50
    assert found == world.make_problems(4, range(8, 13), 50, (3, 1))
    other = world.make_problems(4, range(8, 13), 50, (3, 2))
    assert not {p.prompt for p in found.values()} & {p.prompt for p in other.values()}


@settings(max_examples=200)
@given(traces())
def test_solutions_are_right_in_every_sentence(written):
    problem, trace = written
    world.read_trace(problem, trace.text)
    kinds = [kind for kind, _ in reread(problem, trace.text)]
    assert kinds.count("move") == len(trace.steps) == problem.num_moves
    assert kinds[-1] == "answer" and kinds.count("answer") == 1
    assert set(trace.text.replace(".", " .").split()) <= set(first_world.words())
    assert first_world.find_answer(trace.text) == problem.answer
    pieces = [trace.text[start:end] for start, end in trace.spans]
    assert "".join(pieces) == trace.text


def labels_and_values(step: str) -> set[str]:
    """Registers whose value a step tells: its move's own, and those of its list."""
    told = set()
    for start, end in split_sentences(step):
        sentence = step[start:end].strip()
        pairs = re.findall(r"([a-m]) \d(?= ,|\.)", sentence) if "so far" in sentence else []
        told |= set(pairs) or set(re.findall(r"([a-m]) [+*]\d", sentence))
    return told


@settings(max_examples=200)
@given(traces(fewest=6))
def test_a_window_of_one_step_holds_the_operand_at_reach_4_only_if_restated(written):
    problem, trace = written
    for place in range(problem.reach + 1, problem.num_moves + 1):
        operand = LABELS[problem.operand(place)]
        window = trace.steps[place - 2 : place]  # the step before, and the step itself
        told = set.union(*map(labels_and_values, window))
        restated = any("so far" in step for step in window)
        assert (operand in told) == (problem.reach == 1 or restated)
        wide = set.union(*map(labels_and_values, trace.steps[max(0, place - 5) : place]))
        assert operand in wide


def test_a_list_holds_the_last_four_registers():
    careful = replace(TEACHERS[-1], restating=1.0)
    problem = world.make_problem(4, 8, np.random.default_rng(0))
    steps = world.write_trace(problem, careful, np.random.default_rng(0)).steps
    lists = [re.findall(r"([a-m]) \d(?= ,|$)", step.split(".")[0]) for step in steps[1:]]
    assert lists == [list(LABELS[max(0, n - 2) : n + 2]) for n in range(7)]
    assert "so far" not in steps[0]


@settings(max_examples=100)
@given(problems(fewest=4), teachers, seeds, st.integers(1, 3))
def test_a_part_tells_nothing_that_neither_it_nor_what_stands_before_it_shows(
    problem, teacher, seed, start
):
    before = world.shown_before(start)
    trace = world.write_trace(problem, teacher, np.random.default_rng(seed), start)
    assert len(trace.steps) == problem.num_moves - start
    for place in range(start + 1, problem.num_moves + 1):
        read = problem.operand(place)
        assert read == 0 or read in before or read > start
    for number, step in enumerate(trace.steps):
        listed = re.findall(r"([a-m]) \d(?= ,|\.)", step) if "so far" in step else []
        known = [LABELS[i] for i in [*before, *range(start + 1, start + 1 + number)]]
        assert listed in ([], known[-4:])


FULL = Teacher("x", scaffolding=0.7, restating=0.6, checking=0.5)


@settings(max_examples=200)
@given(problems(fewest=3), seeds, st.data())
def test_any_other_value_label_or_operation_is_refused(problem, seed, data):
    trace = world.write_trace(problem, FULL, np.random.default_rng(seed))
    sets = (set(first_world.DIGITS), set(LABELS), set(first_world.OPERATIONS))
    places = [
        (match.span(), sorted(kind - {match[0]}))
        for match in re.finditer(r"[^\s.]+", trace.text)
        for kind in sets
        if match[0] in kind
    ]
    (start, end), others = data.draw(st.sampled_from(places))
    changed = trace.text[:start] + data.draw(st.sampled_from(others)) + trace.text[end:]
    with pytest.raises(InputError):
        world.read_trace(problem, changed)


@given(problems(fewest=3), seeds, st.data())
def test_a_step_dropped_repeated_or_out_of_turn_and_a_cut_are_refused(problem, seed, data):
    trace = world.write_trace(problem, FULL, np.random.default_rng(seed))
    steps, i = trace.steps, data.draw(st.integers(1, len(trace.steps) - 1))
    swapped = (*steps[: i - 1], steps[i], steps[i - 1], *steps[i + 1 :])
    texts = [
        replace(trace, steps=wrong).text
        for wrong in (swapped, steps[1:], (*steps[: i + 1], *steps[i:]))
    ]
    texts += [trace.text.rpartition(" the answer")[0], f"{trace.text} let us go on."]
    for text in texts:
        with pytest.raises(InputError):
            world.read_trace(problem, text)


def test_pools_hold_every_teachers_solutions_of_every_problem():
    found = world.make_problems(4, [5, 6], 4, (0, 1))
    pool, steps = world.make_pool(found, TEACHERS, 3, seed=0)
    assert [(r.prompt_id, r.teacher) for r in pool.responses] == [
        (key, teacher.name) for key in found for teacher in TEACHERS for _ in range(3)
    ]
    for response in pool.responses:
        moves = [k for k, _ in reread(found[response.prompt_id], response.text) if k == "move"]
        assert len(steps[response.response_id]) == len(moves)
    assert world.make_pool(found, TEACHERS, 3, seed=0) == (pool, steps)
    assert world.make_pool(found, TEACHERS, 3, seed=1)[0] != pool
