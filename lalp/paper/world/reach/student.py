"""The student of `registers-reach`: that of step world, trained under one reach.

Model, tokenizer, optimizer and most drills are those of `lalp.paper.world.student`. Parts of
solutions and short whole ones follow the reach, and lists of values hold the last four registers. A
part that begins in the middle starts with such a list, which is not in the loss. So before
fine-tuning, the student can do every move whose operand is in a list, in the prompt or in the step
before: it has learned locally, as the paper's theory assumes. Only fine-tuning teaches it to fetch
an operand from further back, and the length of whole solutions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lalp.files import write_json, writing
from lalp.paper.world import student as base
from lalp.paper.world.problems import LABELS, Teacher, Trace, write_alone, write_list
from lalp.paper.world.reach import problems as world
from lalp.paper.world.reach.problems import LISTED, ReachProblem
from lalp.paper.world.student import SCHOOLING, SHORT_MOVES, Schooling, make_model, make_tokenizer

# Each solution that it reads has its own style, as in `lalp.paper.world.student`.
_KNOBS = {"scaffolding": 0.8, "restating": 0.8, "checking": 0.6}


@dataclass(frozen=True)
class ReachSchooling(Schooling):
    """How a student is pre-trained under one reach."""

    reach: int


def _solve(problem: ReachProblem, rng: np.random.Generator, start: int = 0) -> Trace:
    """A solution in a newly drawn style: with or without scaffolding, lists and checks."""
    has = rng.random(len(_KNOBS)) < 0.5
    style = {name: value * on for (name, value), on in zip(_KNOBS.items(), has, strict=True)}
    return world.write_trace(problem, Teacher("any", **style), rng, start)


def _part(school: ReachSchooling, rng: np.random.Generator) -> list[base._Piece]:
    """One or two steps to read, and one or two more to predict; the answer if they are the last.

    A part has four steps at most, so its operands are in the prompt, in its first list, or in the
    step before. Nothing shows how to fetch one from a step further back.
    """
    low, high = school.moves
    problem = world.make_problem(school.reach, int(rng.integers(low, high + 1)), rng)
    start = int(rng.integers(0, problem.num_moves - 2))
    trace = _solve(problem, rng, start)
    read = int(rng.integers(1, 3))
    stop = read + int(rng.integers(1, 3))
    end = [trace.answer, base._END] if stop >= len(trace.steps) else []
    told = [world.write_values(problem, world.shown_before(start))] if start else []
    pieces = [(problem.prompt, False), (" ".join([*told, *trace.steps[:read]]), False)]
    return [*pieces, (" ".join([*trace.steps[read:stop], *end]), True)]


def _short(school: ReachSchooling, rng: np.random.Generator) -> list[base._Piece]:
    """A problem of few moves with its whole solution."""
    moves = SHORT_MOVES[rng.integers(len(SHORT_MOVES))]
    problem = world.make_problem(school.reach, moves, rng)
    return [(problem.prompt, False), (f"{_solve(problem, rng).text} {base._END}", True)]


def _restating(school: ReachSchooling, rng: np.random.Generator) -> list[base._Piece]:
    """Values, and then a list of the last ones, which is in the loss."""
    pieces: list[base._Piece] = []
    for _ in range(3):
        pairs = base._list_of_values(school, rng, 2, 6)
        pieces += [(f"{label} is {value}.", False) for label, value in pairs]
        pieces.append((write_list(pairs[-LISTED:]), True))
    return pieces


def _unconnected(school: ReachSchooling, rng: np.random.Generator) -> list[base._Piece]:
    """As many moves as in whole solutions, independent of each other, and lists of the last values.

    Only the lists are in the loss.
    """
    ((first, value),) = base._list_of_values(school, rng, 1, 1)
    known, pieces = [(first, value)], [(f"{first} is {value}.", False)]
    moves = int(rng.integers(2, school.moves[1] + 1))
    for place in range(1, moves + 1):
        sentence, value = write_alone(school.family, place, rng)
        pieces.append((sentence, False))
        known.append((LABELS[place], value))
        if place == moves or rng.random() < base._RESTATING:
            pieces.append((write_list(known[-LISTED:]), True))
    return pieces


_OWN = {
    base._part: _part,
    base._short: _short,
    base._restating: _restating,
    base._unconnected: _unconnected,
}
# Documents that repeat lists: they are extra tokens.
_EXTRA = {base._repetitive, base._unconnected, _unconnected}


def phases(school: ReachSchooling) -> list[tuple[float, dict[base._Maker, float]]]:
    """The phases of step world's student, with this world's documents."""
    return [
        (share, {_OWN.get(kind, kind): weight for kind, weight in kinds.items()})
        for share, kinds in base._phases(school)
    ]


# The rest differs from `lalp.paper.world.student` only in the phases. It is repeated here because
# the names of trained students contain a hash of that file.


def documents(
    school: ReachSchooling, tokenizer: PreTrainedTokenizerFast, course: base._Course
) -> Iterator[base._Document]:
    """One document after another, from the current phase of the course."""
    rng = np.random.default_rng([school.seed, 77])
    vocab, plan = tokenizer.get_vocab(), phases(school)
    written, begun = 0, (0, 0)
    while written < school.tokens:
        if begun[0] != course.phase:
            begun = (course.phase, written)
        elif written - begun[1] >= plan[course.phase][0] * school.tokens:
            course.go_on()
            continue
        kinds, is_last = plan[course.phase][1], course.phase == len(plan) - 1
        makers, shares = list(kinds), np.array(list(kinds.values()))
        for i in rng.choice(len(makers), size=base._BLOCK, p=shares / shares.sum()):
            ids, labels = base._encode(makers[i](school, rng), vocab)
            yield ids, labels, written / school.tokens
            # Repeated lists are extra tokens, so all students read the same amount of other text.
            extra = is_last and makers[i] in _EXTRA
            written += 0 if extra else len(ids)


def batches(
    school: ReachSchooling, tokenizer: PreTrainedTokenizerFast, course: base._Course
) -> Iterator[base._Batch]:
    """Padded batches of documents of like length, with the finished share of pre-training."""
    rng = np.random.default_rng([school.seed, 78])
    stream = documents(school, tokenizer, course)
    while block := list(islice(stream, base._BLOCK)):
        begin, end = block[0][2], block[-1][2]
        groups: list[list[base._Document]] = [[]]
        for document in sorted(block, key=lambda document: len(document[0])):
            if groups[-1] and len(document[0]) * (len(groups[-1]) + 1) > base._BATCH_TOKENS:
                groups.append([])
            groups[-1].append(document)
        for place, i in enumerate(rng.permutation(len(groups))):
            ids, labels = (
                pad_sequence([torch.tensor(document[part]) for document in groups[i]],
                             batch_first=True, padding_value=padding)
                for part, padding in ((0, base._PAD_ID), (1, base._IGNORED))
            )  # fmt: skip
            yield ids, labels, begin + (end - begin) * place / len(groups)


def pretrain(school: ReachSchooling, out: Path) -> None:
    """Train a student from scratch, and write weights, tokenizer and `SCHOOLING` to ``out``.

    An existing student is kept.
    """
    if (out / SCHOOLING).is_file():
        return
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), school.seed)
    started = time.monotonic()
    losses = list(_steps(model, school, tokenizer))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    report = {"seconds": time.monotonic() - started, "loss": float(np.mean(losses[-50:]))}
    # Last, because it marks the folder as complete.
    write_json(out / SCHOOLING, asdict(school) | report)


def _steps(
    model: LlamaForCausalLM, school: ReachSchooling, tokenizer: PreTrainedTokenizerFast
) -> Iterator[float]:
    """Run optimizer steps until the tokens are used up; return the loss of each."""
    top = base._LEARNING_RATE
    optimizer = torch.optim.AdamW(model.parameters(), lr=top, weight_decay=0.01, fused=True)
    model.train()
    course, last = base._Course(), len(phases(school)) - 1
    for ids, labels, share in batches(school, tokenizer, course):
        share = min(share, 1.0)  # the last documents may exceed the remaining tokens
        rate = top * min(1.0, share / 0.02 + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)
        loss = base._loss(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        course.note(loss.item(), last)
        yield loss.item()
