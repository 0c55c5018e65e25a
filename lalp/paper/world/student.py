"""Step world's student: a small transformer that knows single moves and little more.

It is pre-trained on drills (facts, looking things up in a prompt, repeating lists of values), on
parts of solutions (up to seven steps, from anywhere), and on whole solutions of problems with up to
three moves. So before fine-tuning it can do every move, but has never seen a whole solution of the
required length. The share of documents that only repeat lists sets how well it repeats earlier
text.

Model and tokenizer are ordinary files of transformers, so scoring, training and sampling treat them
like any other student.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lalp.files import write_json, writing
from lalp.paper.world import problems as world
from lalp.paper.world.problems import DIGITS, LABELS, PLACES, Problem, Teacher, Trace

# Their ids are 0, 1 and 2.
_UNKNOWN, _PAD, _END = "<unknown>", "<pad>", "<end>"
_PAD_ID, _END_ID = 1, 2
_IGNORED = -100
MAX_POSITIONS = 1024
_LEARNING_RATE = 2e-3
_BATCH_TOKENS = 768
# Documents drawn at once, so a batch can hold documents of similar length with little padding.
_BLOCK = 256
# How a student was trained. It has its own folder, because the student's identity is a hash over
# the JSON files beside its weights, and durations do not belong to that.
REPORTS = "reports"
SCHOOLING = f"{REPORTS}/schooling.json"
# A drill is learned when the mean loss over this many steps is this low (nats per token).
_STEPS_NOTED, _KNOWN = 30, 0.15
# Numbers of moves of the problems that the student has seen solved as a whole.
SHORT_MOVES = (1, 2, 3)


@dataclass(frozen=True)
class Schooling:
    """How a student is pre-trained."""

    family: str  # Of problems, one of `lalp.paper.world.problems.FAMILIES`
    copying: float  # Share of documents after the drills that repeat lists of values
    moves: tuple[int, int]  # Least and most moves of the problems whose solutions give parts
    tokens: int  # Tokens of all other documents, without padding
    seed: int  # Decides weights and documents


# A piece of a document, and whether its tokens are in the loss.
_Piece = tuple[str, bool]
_Maker = Callable[[Schooling, np.random.Generator], list[_Piece]]
# Token ids, labels, and the share of pre-training that is over before the document.
_Document = tuple[list[int], list[int], float]
_Batch = tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], float]


# --- tokenizer and model ---------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word and full stop; only this world's tokens."""
    vocab = {word: i for i, word in enumerate([_UNKNOWN, _PAD, _END, *world.words()])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\."), "isolated")]
    )
    names = {"unk_token": _UNKNOWN, "pad_token": _PAD, "eos_token": _END}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_POSITIONS, **names
    )


def make_model(vocab_size: int, seed: int) -> LlamaForCausalLM:
    """A Llama model with random weights: three layers of width 128, 0.5 M parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, max_position_embeddings=MAX_POSITIONS, hidden_size=128,
        intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        tie_word_embeddings=False, initializer_range=0.05, bos_token_id=None,
        eos_token_id=_END_ID, pad_token_id=_PAD_ID,
    )  # fmt: skip
    return LlamaForCausalLM(config)


# --- documents -------------------------------------------------------------------------------

# How often the solutions that it reads leap, and so on: no teacher has this style.
_LEAP, _SCAFFOLDING, _RESTATING, _CHECKING = 0.1, 0.8, 0.4, 0.3
# Questions of one drill: many, so that lookups are learned early.
_ASKED = 30


def _solve(problem: Problem, rng: np.random.Generator, start: int = 0) -> Trace:
    """A solution in a newly drawn style: with or without scaffolding, lists and checks."""
    has = rng.random(3) < 0.5
    knobs = {"scaffolding": _SCAFFOLDING, "restating": 2 * _RESTATING, "checking": 2 * _CHECKING}
    style = {name: value * on for (name, value), on in zip(knobs.items(), has, strict=True)}
    return world.write_trace(problem, Teacher("any", leap=_LEAP, **style), rng, start)


def _facts(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """Facts one after another; only their results are in the loss."""
    pieces = []
    for _ in range(_ASKED):
        problem = world.make_problem("registers", 1, rng)
        before, after = problem.values
        pieces += [(f"{before} {problem.ops[0]} =", False), (after, True)]
    return pieces


def _operations(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """A prompt's operations, and questions for many of them by label."""
    problem = world.make_problem("registers", int(rng.integers(3, school.moves[1] + 1)), rng)
    lines = list(zip(LABELS[1:], problem.ops, strict=False))
    return [(problem.prompt, False), *_asked_again(lines, rng)]


def _arrows(names: Sequence[str], school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """Arrows that make a circle, and questions for many of them.

    In a circle every word occurs twice, so only a lookup of the right one gives the word after it.
    The student learns this within some hundred steps. It learns it much later from lines where
    counting is enough, or where the most frequent value is a good guess.
    """
    circle = rng.permutation(names)[: int(rng.integers(3, len(names) + 1))].tolist()
    lines = list(pairwise([*circle, circle[0]]))
    lines = [lines[i] for i in rng.permutation(len(lines))]
    return [(" ; ".join(map(" ".join, lines)) + " :", False), *_asked_again(lines, rng)]


_labels_drill, _places_drill = partial(_arrows, LABELS), partial(_arrows, PLACES)


def _asked_again(lines: Sequence[tuple[str, str]], rng: np.random.Generator) -> Iterator[_Piece]:
    for i in rng.integers(len(lines), size=_ASKED):
        yield lines[i][0], False
        yield lines[i][1], True


def _list_of_values(
    school: Schooling, rng: np.random.Generator, fewest: int, most: int
) -> list[list[str]]:
    """Labels in their order with values. In random order, repeating them is learned much later."""
    values = DIGITS if school.family == "registers" else PLACES
    labels = LABELS[: int(rng.integers(fewest, most + 1))]
    return [[label, values[rng.integers(len(values))]] for label in labels]


def _restating(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """Values, and then a list of them, which is scored: ``a is 6. b is 7. so far a 6 , b 7.``."""
    pieces: list[_Piece] = []
    for _ in range(3):
        pairs = _list_of_values(school, rng, 2, 6)
        pieces += [(f"{label} is {value}.", False) for label, value in pairs]
        pieces.append((world.write_list(pairs), True))
    return pieces


def _repetitive(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """One long list of values, again and again until there are 200 words."""
    text = world.write_list(_list_of_values(school, rng, 5, len(LABELS) - 1))
    again = math.ceil(200 / len(text.split())) - 1
    return [(text, False)] + again * [(text, True)]


def _unconnected(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """As many moves as in whole solutions, independent of each other, and lists of them.

    Only the lists are in the loss. So the student learns to copy from far away without seeing a
    long solution.
    """
    ((first, value),) = _list_of_values(school, rng, 1, 1)
    known, pieces = [(first, value)], [(f"{first} is {value}.", False)]
    moves = int(rng.integers(2, school.moves[1] + 1))
    for place in range(1, moves + 1):
        sentence, value = world.write_alone(school.family, place, rng)
        pieces.append((sentence, False))
        known.append((LABELS[place], value))
        if place == moves or rng.random() < _RESTATING:
            pieces.append((world.write_list(known), True))
    return pieces


def _part(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """One to four steps to read, and one to three more to predict; the answer if they are the last.

    A part begins anywhere, so nothing shows how a long solution begins.
    """
    low, high = school.moves
    problem = world.make_problem(school.family, int(rng.integers(low, high + 1)), rng)
    start = int(rng.integers(0, problem.num_moves - 2))
    trace = _solve(problem, rng, start)
    read = min(int(rng.integers(1, 5)), len(trace.steps) - 1)
    stop = read + int(rng.integers(1, 4))
    end = [trace.answer, _END] if stop >= len(trace.steps) else []
    pieces = [(problem.prompt, False), (" ".join(trace.steps[:read]), False)]
    return [*pieces, (" ".join([*trace.steps[read:stop], *end]), True)]


def _short(school: Schooling, rng: np.random.Generator) -> list[_Piece]:
    """A problem of few moves with its whole solution."""
    problem = world.make_problem(school.family, SHORT_MOVES[rng.integers(len(SHORT_MOVES))], rng)
    return [(problem.prompt, False), (f"{_solve(problem, rng).text} {_END}", True)]


def _phases(school: Schooling) -> list[tuple[float, dict[_Maker, float]]]:
    """The largest share of the tokens that each phase may take, and its kinds of documents.

    One new drill begins at a time. If all were mixed from the start, each would hide the others'
    first progress.
    """
    labels, places, restating = _labels_drill, _places_drill, _restating
    if school.family == "registers":
        drills: dict[_Maker, float] = {_facts: 0.25, _operations: 0.55, labels: 0.2}
        phases = [
            (0.2, {labels: 1.0}),
            (0.2, {restating: 0.7, labels: 0.3}),
            (0.1, {_operations: 0.65, labels: 0.15, restating: 0.2}),
            (0.1, {_facts: 0.6, _operations: 0.15, labels: 0.1, restating: 0.15}),
        ]
    else:
        drills = {places: 1.0}
        phases = [(0.3, {places: 1.0}), (0.2, {places: 0.4, labels: 0.3, restating: 0.3})]
    rest = 1 - school.copying
    mixed = {kind: 0.2 * rest * share for kind, share in drills.items()}
    mixed |= {_part: 0.4 * rest, _short: 0.4 * rest}
    copying = {_unconnected: school.copying / 2, _repetitive: school.copying / 2}
    return [*phases, (1.0, mixed | copying)]


@dataclass
class _Course:
    """The current phase of pre-training; the next one begins when the drill's loss is low."""

    phase: int = 0
    losses: list[float] = field(default_factory=list)

    def note(self, loss: float, last: int) -> None:
        """Record a step's loss; ``last`` is the phase that nothing ends."""
        self.losses = [*self.losses[1 - _STEPS_NOTED :], loss]
        known = len(self.losses) == _STEPS_NOTED and np.mean(self.losses) < _KNOWN
        if known and self.phase < last:
            self.go_on()

    def go_on(self) -> None:
        """Begin the next phase."""
        self.phase, self.losses = self.phase + 1, []


def documents(
    school: Schooling, tokenizer: PreTrainedTokenizerFast, course: _Course | None = None
) -> Iterator[_Document]:
    """One document after another, from the current phase of the course.

    Without a course, every phase takes its longest share. Documents that repeat lists are extra:
    they do not count towards the tokens, so students who read more of them have read as much of
    everything else.
    """
    course = course or _Course()
    rng = np.random.default_rng([school.seed, 77])
    vocab = tokenizer.get_vocab()
    phases, written, begun = _phases(school), 0, (0, 0)
    while written < school.tokens:
        if begun[0] != course.phase:
            begun = (course.phase, written)
        elif written - begun[1] >= phases[course.phase][0] * school.tokens:
            course.go_on()
            continue
        kinds, is_last = phases[course.phase][1], course.phase == len(phases) - 1
        makers, shares = list(kinds), np.array(list(kinds.values()))
        for i in rng.choice(len(makers), size=_BLOCK, p=shares / shares.sum()):
            ids, labels = _encode(makers[i](school, rng), vocab)
            yield ids, labels, written / school.tokens
            written += len(ids) * (not is_last or makers[i] not in (_repetitive, _unconnected))


def _encode(pieces: Sequence[_Piece], vocab: Mapping[str, int]) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for text, scored in pieces:
        # The tokenizer's work; word by word in Python is faster than many short calls.
        new = [vocab[word] for word in text.replace(".", " .").split()]
        ids += new
        labels += new if scored else [_IGNORED] * len(new)
    return ids, labels


def batches(
    school: Schooling, tokenizer: PreTrainedTokenizerFast, course: _Course | None = None
) -> Iterator[_Batch]:
    """Padded batches of documents of like length, with the finished share of pre-training."""
    rng = np.random.default_rng([school.seed, 78])
    stream = documents(school, tokenizer, course)
    while block := list(islice(stream, _BLOCK)):
        begin, end = block[0][2], block[-1][2]
        groups: list[list[_Document]] = [[]]
        for document in sorted(block, key=lambda document: len(document[0])):
            # The longest document so far sets the width of all rows.
            if groups[-1] and len(document[0]) * (len(groups[-1]) + 1) > _BATCH_TOKENS:
                groups.append([])
            groups[-1].append(document)
        for place, i in enumerate(rng.permutation(len(groups))):
            ids, labels = (
                pad_sequence([torch.tensor(document[part]) for document in groups[i]],
                             batch_first=True, padding_value=padding)
                for part, padding in ((0, _PAD_ID), (1, _IGNORED))
            )  # fmt: skip
            yield ids, labels, begin + (end - begin) * place / len(groups)


# --- pre-training ----------------------------------------------------------------------------


def pretrain(school: Schooling, out: Path) -> None:
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
    model: LlamaForCausalLM, school: Schooling, tokenizer: PreTrainedTokenizerFast
) -> Iterator[float]:
    """Run optimizer steps until the tokens are used up; return the loss of each."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01, fused=True
    )
    model.train()
    course, last = _Course(), len(_phases(school)) - 1
    for ids, labels, share in batches(school, tokenizer, course):
        share = min(share, 1.0)  # the last documents may exceed the remaining tokens
        rate = _LEARNING_RATE * min(1.0, share / 0.02 + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)
        loss = _loss(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        course.note(loss.item(), last)
        yield loss.item()


def _loss(
    model: LlamaForCausalLM, ids: Int[Tensor, "batch pos"], labels: Int[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean over scored tokens; padding is on the right, where causal attention never looks."""
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    scored = targets != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[scored]), targets[scored])
