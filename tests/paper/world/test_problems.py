"""Step world's problems and traces, against an executor and a reader written here."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.paper.world import problems as world
from lalp.paper.world.problems import FAMILIES, LABELS, Problem, Teacher, Trace
from lalp.sampling.pool import grade_completions
from lalp.sampling.samples import Completion
from lalp.steps.sentences import split_paragraphs, split_sentences


def execute(prompt: str) -> list[str]:
    """The values along a prompt's chain, without the project's code."""
    if start := re.match(r"a = (\d) ;", prompt):
        numbers = [int(start[1])]
        for sign, number in re.findall(r"[a-m] ([+*])(\d)", prompt):
            last = numbers[-1]
            numbers.append((last + int(number) if sign == "+" else last * int(number)) % 10)
        return [str(number) for number in numbers]
    leads = dict(re.findall(r"([a-z]{3}) ([a-z]{3}) ;", prompt))
    values = [re.search(r"; a is ([a-z]{3}) ;", prompt)[1]]
    for _ in re.search(r"; find ((?:[a-m] )+):$", prompt)[1].split():
        values.append(leads[values[-1]])
    return values


VALUES = {"registers": set(world.DIGITS), "paths": set(world.PLACES)}


def claims(family: str, sentence: str) -> tuple[str, list[str], list[str], list[str]]:
    """Kind of a sentence, and the labels, operations and values in it, whatever its wording."""
    found = sentence.rstrip(".").split()
    kind = {"so": "ledger", "check": "check", "the": "answer"}.get(found[0], "move")
    labels = [w for w in found if w in LABELS]
    ops = [w for w in found if w in world.OPERATIONS]
    values = [w for w in found if w in VALUES[family]]
    if not (labels or values):
        kind = "filler"
    return kind, labels, ops, values


def reread(problem: Problem, text: str) -> list[tuple[int, int]]:
    """Assert that a trace is right; the places that each of its moves begins and ends at."""
    truth = execute(problem.prompt)
    ops = re.findall(r"[a-m] ([+*]\d)", problem.prompt)
    moves, known = [], [0]
    sentences = [part.strip() + "." for part in text.split(".")[:-1]]
    found = [claims(problem.family, sentence) for sentence in sentences]
    for kind, labels, used, values in found:
        places = [LABELS.index(label) for label in labels]
        if kind == "ledger":
            assert (places, values) == (known, [truth[place] for place in known])
        elif kind in ("move", "check"):
            begin, end = (known[-1], known[-1] + len(places)) if kind == "move" else moves[-1]
            assert places == list(range(begin + 1, end + 1))
            assert values == [truth[begin], truth[end]]
            if problem.family == "registers":
                assert used in (ops[begin:end], 2 * ops[begin:end])
            if kind == "move":
                moves.append((begin, end))
                known.append(end)
    assert known[-1] == len(truth) - 1
    assert [kind for kind, *_ in found].count("answer") == 1
    assert (found[-1][0], found[-1][3]) == ("answer", [truth[-1]])
    return moves


families = st.sampled_from(FAMILIES)
seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)


@st.composite
def problems(draw: st.DrawFn, fewest: int = 1) -> Problem:
    rng = np.random.default_rng(draw(seeds))
    return world.make_problem(draw(families), draw(st.integers(fewest, len(LABELS) - 1)), rng)


teachers = st.builds(
    Teacher,
    name=st.just("any"),
    leap=shares,
    scaffolding=st.floats(0, 2),
    restating=shares,
    checking=shares,
    variety=st.integers(1, world.NUM_WORDINGS),
)


@st.composite
def traces(
    draw: st.DrawFn, fewest: int = 1, by: st.SearchStrategy[Teacher] = teachers
) -> tuple[Problem, Trace]:
    problem = draw(problems(fewest))
    return problem, world.write_trace(problem, draw(by), np.random.default_rng(draw(seeds)))


@given(problems())
def test_problems_are_what_an_executor_says(problem):
    assert list(problem.values) == execute(problem.prompt)
    assert problem.answer == problem.values[-1]
    assert problem.num_moves == len(problem.values) - 1 == len(problem.ops)
    assert set(problem.prompt.split()) <= set(world.words())
    if problem.family == "paths":
        # One circle through all places, so that nothing but looking up helps.
        arrows = dict(re.findall(r"([a-z]{3}) ([a-z]{3}) ;", problem.prompt))
        met = [world.PLACES[0]]
        for _ in world.PLACES[1:]:
            met.append(arrows[met[-1]])
        assert sorted(met) == sorted(world.PLACES) == sorted(arrows)


def test_bad_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no family 'sums': choose registers or paths"):
        world.make_problem("sums", 3, rng)
    for moves in (0, -1, 13):
        with pytest.raises(InputError, match=f"a problem of {moves} moves: give 1 to 12"):
            world.make_problem("registers", moves, rng)


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [("leap", -0.1, "0 to 1"), ("leap", math.nan, "0 to 1"), ("restating", 1.1, "0 to 1"),
     ("checking", 2, "0 to 1"), ("scaffolding", 2.1, "0 to 2"), ("variety", 0, "1 to 4"),
     ("variety", 5, "1 to 4")],
)  # fmt: skip
def test_bad_teachers_name_the_knob(name, value, limits):
    with pytest.raises(InputError, match=f"'x': {name} is {value}: give {limits}"):
        Teacher("x", **{name: value})


@pytest.mark.parametrize("family", FAMILIES)
def test_sets_hold_different_problems_and_follow_their_seed(family):
    found = world.make_problems(family, range(8, 13), 200, (3, 1))
    assert list(found) == [f"{family}-3-1-{i:04d}" for i in range(200)]
    prompts = [problem.prompt for problem in found.values()]
    assert len(set(prompts)) == 200
    assert Counter(p.num_moves for p in found.values()) == dict.fromkeys(range(8, 13), 40)
    assert found == world.make_problems(family, range(8, 13), 200, (3, 1))
    for seed in ((3, 2), (4, 1)):
        others = {p.prompt for p in world.make_problems(family, range(8, 13), 200, seed).values()}
        assert not others & set(prompts)


def test_a_set_can_hold_all_there_are_and_no_more():
    found = world.make_problems("registers", [1], 80, (0,))  # ten values, eight operations
    assert len({problem.prompt for problem in found.values()}) == 80
    with pytest.raises(InputError, match=r"no 81 problems of \[1\] moves"):
        world.make_problems("registers", [1], 81, (0,))


@settings(max_examples=200)
@given(traces())
def test_traces_are_right_in_every_sentence(written):
    problem, trace = written
    world.read_trace(problem, trace.text)
    assert len(trace.steps) == len(reread(problem, trace.text))
    assert world.find_answer(trace.text) == execute(problem.prompt)[-1]
    assert set(trace.text.replace(".", " .").split()) <= set(world.words())
    pieces = [trace.text[start:end] for start, end in trace.spans]
    assert "".join(pieces) == trace.text
    assert [piece.strip() for piece in pieces[:-1]] == list(trace.steps[:-1])
    assert pieces[-1] == f"{trace.steps[-1]} {trace.answer}"
    assert all(not piece[0].isspace() for piece in pieces)  # gaps end the step before


@given(traces())
def test_splitters_see_sentences_and_paragraphs(written):
    _, trace = written
    sentences, paragraphs = (
        [trace.text[start:end].strip() for start, end in split(trace.text)]
        for split in (split_sentences, split_paragraphs)
    )
    assert sentences == [part.strip() + "." for part in trace.text.split(".")[:-1]]
    threes = [" ".join(trace.steps[i : i + 3]) for i in range(0, len(trace.steps), 3)]
    assert paragraphs == [*threes[:-1], f"{threes[-1]} {trace.answer}"]


@given(problems(fewest=4), teachers, seeds, st.integers(1, 3))
def test_a_part_of_a_solution_states_nothing_that_it_does_not_show(problem, teacher, seed, start):
    steps = world.write_trace(problem, teacher, np.random.default_rng(seed), start).steps
    shown = {LABELS[start]}
    for sentence in " ".join(steps).split(".")[:-1]:
        kind, labels, _, _ = claims(problem.family, sentence.strip() + ".")
        if kind == "ledger":
            assert set(labels) <= shown
        shown |= set(labels)
    assert labels[-1] == LABELS[problem.num_moves] or kind in ("ledger", "filler")
    assert max(shown) == LABELS[problem.num_moves]


@cache
def many(teacher: Teacher, family: str = "registers") -> list[tuple[Problem, Trace]]:
    rng = np.random.default_rng(1)
    found = [world.make_problem(family, int(rng.integers(8, 13)), rng) for _ in range(300)]
    return [(problem, world.write_trace(problem, teacher, rng)) for problem in found]


def assert_share(count: int, of: int, share: float) -> None:
    """Within four and a half standard deviations of the binomial law; exactly at 0 and 1."""
    assert abs(count - of * share) <= 4.5 * math.sqrt(of * share * (1 - share))


def kinds(step: str) -> list[str]:
    return [claims("registers", s.strip() + ".")[0] for s in step.split(".")[:-1]]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_leaps_come_as_often_as_asked(share):
    taken = possible = 0
    for problem, trace in many(Teacher("x", leap=share)):
        moves = reread(problem, trace.text)
        taken += sum(end - begin == 2 for begin, end in moves)
        possible += sum(begin + 1 < problem.num_moves for begin, _ in moves)
    assert_share(taken, possible, share)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    ("knob", "kind", "most", "first"),
    # There is nothing to list yet in the first step.
    [("restating", "ledger", 1, 1), ("checking", "check", 1, 0), ("scaffolding", "filler", 2, 0)],
)
def test_lists_checks_and_fillers_come_as_often_as_asked(knob, kind, most, first, share):
    written = [t.steps for _, t in many(Teacher("x", **{knob: most * share}))]
    assert all(kind not in kinds(step) for steps in written for step in steps[:first])
    found = [kinds(step) for steps in written for step in steps[first:]]
    counts = [sentences.count(kind) for sentences in found]
    assert_share(sum(counts), most * len(counts), share)
    assert max(counts) <= most
    # Lists and fillers stand before the move, checks behind it; no other knob shows.
    place = 0 if kind == "check" else -1
    assert all(set(s) <= {kind, "move"} and s[place] == "move" for s in found)


def wording(step: str) -> str:
    first, _, rest = step.partition(" ")
    third = " is " in f" {rest}" or " from " in f" {rest}"
    return first if first in ("for", "next") else "third" if third else "plain"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variety", range(1, world.NUM_WORDINGS + 1))
def test_as_many_wordings_as_asked(variety, family):
    found = many(Teacher("x", variety=variety), family)
    used = Counter(wording(step) for _, t in found for step in t.steps)
    assert len(used) == variety
    for count in used.values():
        assert_share(count, used.total(), 1 / variety)


FULL = Teacher("x", leap=0.3, scaffolding=0.7, restating=0.6, checking=0.5)
full_traces = traces(3, st.just(FULL))


def assert_refused(problem: Problem, text: str) -> None:
    with pytest.raises(InputError):
        world.read_trace(problem, text)


@settings(max_examples=200)
@given(full_traces, st.data())
def test_any_other_value_label_or_operation_is_refused(written, data):
    problem, trace = written
    places = [
        (match.span(), sorted(kind - {match[0]}))
        for match in re.finditer(r"[^\s.]+", trace.text)
        for kind in (VALUES[problem.family], set(LABELS), set(world.OPERATIONS))
        if match[0] in kind
    ]
    (start, end), others = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from(others))
    assert_refused(problem, trace.text[:start] + other + trace.text[end:])


@given(full_traces, st.data())
def test_a_step_dropped_repeated_or_out_of_turn_and_a_cut_are_refused(written, data):
    problem, trace = written
    steps = trace.steps
    i = data.draw(st.integers(1, len(steps) - 1))
    swapped = (*steps[: i - 1], steps[i], steps[i - 1], *steps[i + 1 :])
    first_dropped, dropped = steps[1:], (*steps[:i], *steps[i + 1 :])
    for wrong in (swapped, first_dropped, dropped, (*steps[: i + 1], *steps[i:])):
        assert_refused(problem, replace(trace, steps=wrong).text)
    stops = [match.end() for match in re.finditer(r"\S+|\.", trace.text)][:-1]
    assert_refused(problem, trace.text[: data.draw(st.sampled_from(stops))])


PROBLEM = Problem("registers", "a = 6 ; b +1 ; c *9 :", ("+1", "*9"), ("6", "7", "3"))
RIGHT = (
    "b +1 : 6 +1 = 7. check b +1 : 6 +1 = 7. so far a 6 , b 7. let us go on. "
    r"for c *9 on 7 we get 3. the answer is \boxed{ 3 }."
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a 6 , b 7", "b 7 , a 6"),
        ("a 6 , b 7", "a 6"),
        ("a 6 , b 7", "a 6 , b 7 , c 3"),
        ("check b +1 : 6 +1 = 7.", "check c *9 : 7 *9 = 3."),
        ("b +1 : 6 +1 = 7. check b +1 : 6 +1 = 7.", "check b +1 : 6 +1 = 7. b +1 : 6 +1 = 7."),
        ("for c *9 on 7 we get 3.", "for b +1 c *9 on 6 we get 3."),
        (r"the answer is \boxed{ 3 }.", "the answer is 3."),
        (r"\boxed{ 3 }.", r"\boxed{ 3 }. done"),
        (r"the answer is \boxed{ 3 }.", r"the answer is \boxed{ 7 }. the answer is \boxed{ 3 }."),
        ("let us go on.", "let us go home."),
        ("let us go on.", "."),
        ("let us go on. ", r"the answer is \boxed{ 3 }. "),
    ],
)
def test_wrong_traces_by_hand_are_refused(old, new):
    assert old in RIGHT
    world.read_trace(PROBLEM, RIGHT)
    assert_refused(PROBLEM, RIGHT.replace(old, new))


def test_the_first_wrong_sentence_is_named():
    for old, new in (("b 7. let", "b 8. let"), ("let us go on", "we rest")):
        with pytest.raises(InputError, match=r"' is not so in 'a = 6.* or no sentence of this"):
            world.read_trace(PROBLEM, RIGHT.replace(old, new))
    for more in ("let us go on.", "so far a 6 , b 7 , c 3.", r"the answer is \boxed{ 3 }."):
        with pytest.raises(InputError, match="comes after the answer"):
            world.read_trace(PROBLEM, f"{RIGHT} {more}")
    with pytest.raises(InputError, match="no answer to 'a = 6"):
        world.read_trace(PROBLEM, RIGHT.partition(" the answer")[0])


@pytest.mark.parametrize(
    ("text", "answer"),
    [(r"the answer is \boxed{ 3 }.", "3"), (r"\boxed{ 3 } no , \boxed{ elk }", "elk"),
     ("the answer is 3.", None), (r"the answer is \boxed{ 3", None), ("", None)],
)  # fmt: skip
def test_the_last_answer_counts(text, answer):
    assert world.find_answer(text) == answer


TEACHERS = (Teacher("plain", scaffolding=0.3), replace(FULL, name="full"))


def test_pools_hold_every_teachers_solutions_of_every_problem():
    found = world.make_problems("paths", [5, 6], 4, (0, 1))
    pool, steps = world.make_pool(found, TEACHERS, 3, seed=0)
    assert [(r.prompt_id, r.teacher) for r in pool.responses] == [
        (key, teacher.name) for key in found for teacher in TEACHERS for _ in range(3)
    ]
    assert list(steps) == [response.response_id for response in pool.responses]
    for response in pool.responses:
        moves = reread(found[response.prompt_id], response.text)
        assert len(steps[response.response_id]) == len(moves)
    assert world.make_pool(found, TEACHERS, 3, seed=0) == (pool, steps)
    assert world.make_pool(found, TEACHERS, 3, seed=1)[0] != pool


def test_the_projects_grading_agrees_on_registers():
    found = world.make_problems("registers", [2, 3], 6, (0, 1))
    pool, _ = world.make_pool(found, TEACHERS, 1, seed=0)
    right = [(r.prompt_id, r.text) for r in pool.responses]
    wrong = [(key, re.sub(r"(\d) \}", lambda m: f"{(int(m[1]) + 1) % 10} }}", text))
             for key, text in right]  # fmt: skip
    completions = [Completion(key, i, text, 9, truncated=False)
                   for i, (key, text) in enumerate(right + wrong)]  # fmt: skip
    graded = grade_completions(list(pool.prompts.values()), completions, num_workers=1)
    answers = [world.find_answer(c.text) for c in completions]
    assert graded["extracted"].str.strip().tolist() == answers
    assert graded["correct"].tolist() == [True] * len(right) + [False] * len(wrong)
