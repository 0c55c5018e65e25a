"""Step world's student: tokens, documents, loss, and a pre-training that can be killed."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lalp.cli import app
from lalp.paper.world import problems as world
from lalp.paper.world import student as world_student
from lalp.paper.world.problems import FAMILIES, LABELS, Problem, Teacher
from lalp.paper.world.student import (
    MAX_POSITIONS,
    SCHOOLING,
    Schooling,
    batches,
    documents,
    pretrain,
)
from lalp.pools.writing import save_pool
from lalp.students.encoding import assign_steps, encode, end_of_turn, render_prompt
from lalp.students.student import revision
from tests.paper.world.test_problems import FULL, VALUES, execute

SCHOOL = Schooling(family="registers", copying=0.2, moves=(8, 12), tokens=4000, seed=3)
LONG = replace(SCHOOL, tokens=150_000)
TOKENIZER = world_student.make_tokenizer()
IGNORED = -100

Pieces = list[tuple[str, bool]]


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Fewer documents at once, so that a few steps are a whole pre-training."""
    monkeypatch.setattr(world_student, "_BLOCK", 12)


def test_the_vocabulary_is_this_worlds_words():
    assert len(TOKENIZER) == len(world.words()) + 3
    assert TOKENIZER.convert_ids_to_tokens(range(3)) == ["<unknown>", "<pad>", "<end>"]
    assert end_of_turn(TOKENIZER) == (TOKENIZER.eos_token_id,) == (2,)
    assert TOKENIZER.pad_token_id == 1


@settings(max_examples=40)
@given(st.sampled_from(FAMILIES), st.integers(0, 10**6))
def test_the_tokenizers_offsets_are_the_words(family, seed):
    found = world.make_problems(family, [1, 9], 2, (seed,))
    pool, steps = world.make_pool(found, [FULL], 1, seed)
    for response in pool.responses:
        prompt = pool.prompts[response.prompt_id]
        encoded = encode(TOKENIZER, render_prompt(TOKENIZER, prompt), response.text)
        read = [response.text[start:end] for start, end in encoded.offsets]
        assert read == response.text.replace(".", " .").split()
        assert TOKENIZER.convert_ids_to_tokens(encoded.response_ids) == read
        asked = prompt.messages[0].content.split()
        assert TOKENIZER.convert_ids_to_tokens(encoded.prompt_ids) == asked
        assert 0 not in {*encoded.response_ids, *encoded.prompt_ids}
        spans = assign_steps(response.text, encoded.offsets, steps[response.response_id])
        assert all(start < end for start, end in spans)


MAKERS = ("facts", "operations", "labels_drill", "places_drill", "restating", "repetitive",
          "unconnected", "part", "short")  # fmt: skip


def draw_document(name: str, family: str, seed: int) -> tuple[Pieces, list[int], list[int]]:
    maker = getattr(world_student, f"_{name}")
    pieces = maker(replace(SCHOOL, family=family), np.random.default_rng(seed))
    return pieces, *world_student._encode(pieces, TOKENIZER.get_vocab())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MAKERS)
def test_documents_are_encoded_as_the_tokenizer_would(name, family):
    for seed in range(20):
        pieces, ids, labels = draw_document(name, family, seed)
        assert ids == TOKENIZER(" ".join(text for text, _ in pieces)).input_ids
        assert not {0, 1} & set(ids)  # no unknown word; padding is told by its id
        assert len(ids) == len(labels) <= MAX_POSITIONS
        assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
        assert labels[0] == IGNORED  # nothing stands before it
        scored = [len(TOKENIZER(text).input_ids) * scored for text, scored in pieces]
        assert sum(label != IGNORED for label in labels) == sum(scored) > 0


def asked_and_answered(pieces: Pieces) -> list[tuple[str, str]]:
    """Questions with their answers, which alone are scored."""
    assert [is_scored for _, is_scored in pieces] == [False, True] * (len(pieces) // 2)
    texts = [text for text, _ in pieces]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_of_facts_only_results_are_scored_and_all_facts_are_met():
    seen = set()
    for seed in range(200):
        pieces, *_ = draw_document("facts", "registers", seed)
        for question, result in asked_and_answered(pieces):
            before, op, equals = question.split()
            assert (execute(f"a = {before} ; b {op} :")[-1], equals) == (result, "=")
            seen.add(question)
    assert len(seen) == len(world.DIGITS) * 8


@pytest.mark.parametrize("name", ["operations", "labels_drill", "places_drill"])
def test_of_what_is_asked_again_only_the_answer_is_scored(name):
    for seed in range(20):
        ((prompt, _), *pieces), *_ = draw_document(name, "registers", seed)
        lines = prompt.removesuffix(" :").split(" ; ")
        said = dict(line.split() for line in lines if "=" not in line)
        assert all(said[asked] == answer for asked, answer in asked_and_answered(pieces))
        if name != "operations":  # every word stands twice: once before what it leads to
            assert sorted(said) == sorted(said.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_of_values_are_scored_when_they_come_again(family):
    for seed in range(20):
        said: list[list[str]] = []
        for text, is_scored in draw_document("restating", family, seed)[0]:
            assert is_scored == text.startswith("so far")
            if is_scored:
                assert text == world.write_list(said)
                said = []
            else:
                said.append(text.removesuffix(".").split(" is "))
        pieces, ids, _ = draw_document("repetitive", family, seed)
        (first, is_scored), *again = pieces
        assert not is_scored
        assert set(again) == {(first, True)}
        assert len(ids) >= 200


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_of_unconnected_moves_are_scored_and_the_moves_are_not(family):
    follows, moves = 0, 0
    for seed in range(60):
        pieces, _, _ = draw_document("unconnected", family, seed)
        said = [pieces[0][0].removesuffix(".").split(" is ")]
        for text, is_scored in pieces[1:]:
            assert is_scored == text.startswith("so far")
            if is_scored:
                assert text == world.write_list(said)
                continue
            given = text.removesuffix(".").split()
            before, value = (word for word in given if word in VALUES[family])
            assert LABELS[len(said)] in given
            follows += said[-1][1] == before
            said.append([LABELS[len(said)], value])
            moves += 1
        assert pieces[-1][1]
        assert len(said) <= SCHOOL.moves[1] + 1
    # As often as by chance, one in as many as there are values.
    chance = 1 / len(VALUES[family])
    assert abs(follows - moves * chance) <= 4.5 * math.sqrt(moves * chance)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_solutions_show_steps_and_ask_for_one_to_three_more(family, monkeypatch):
    written = []
    write_trace = world.write_trace

    def keep(*arguments):
        written.append(write_trace(*arguments))
        return written[-1]

    monkeypatch.setattr(world, "write_trace", keep)
    read, predicted, ended = set(), set(), set()
    for seed in range(200):
        (prompt, shown, asked), ids, _ = draw_document("part", family, seed)
        assert (prompt[1], shown[1], asked[1]) == (False, False, True)
        assert len(execute(prompt[0])) - 1 in range(8, 13)
        trace = written[-1]
        steps, end = trace.steps, f" {trace.answer} <end>"
        first = next(n for n in range(1, 9) if shown[0] == " ".join(steps[:n]))
        more = asked[0].removesuffix(end)
        count = next(n for n in range(1, 9) if more == " ".join(steps[first : first + n]))
        read.add(first)
        predicted.add(count)
        ended.add(more != asked[0])
        assert (more != asked[0]) == (first + count == len(steps)) == (2 in ids)
        assert first + count < len(execute(prompt[0])) - 1  # never a whole long solution
    assert (read, predicted, ended) == ({1, 2, 3, 4}, {1, 2, 3}, {True, False})


@pytest.mark.parametrize("family", FAMILIES)
def test_short_solutions_are_whole_and_end_as_fine_tuning_ends_them(family):
    moves = set()
    for seed in range(60):
        pieces, ids, _ = draw_document("short", family, seed)
        ((prompt, text),) = asked_and_answered(pieces)
        assert (ids[-1], ids.count(2), text[-6:]) == (TOKENIZER.eos_token_id, 1, " <end>")
        values = tuple(execute(prompt))
        moves.add(len(values) - 1)
        ops = re.findall(r"; [a-m] ([+*]\d)", prompt) or [""] * (len(values) - 1)
        world.read_trace(Problem(family, prompt, tuple(ops), values), text.removesuffix(" <end>"))
    assert moves == {1, 2, 3}


def is_repetitive(ids: list[int]) -> bool:
    """Nothing else begins with a list of values, or with a value that is no part of a prompt."""
    return TOKENIZER.convert_ids_to_tokens(ids[1]) in ("far", "is")


@pytest.mark.parametrize("copying", [0.0, 0.4])
def test_repetitive_documents_come_on_top(copying, monkeypatch):
    monkeypatch.setattr(world_student, "_BLOCK", 32)
    found = list(documents(replace(LONG, copying=copying), TOKENIZER))
    # What comes before the first whole solution are drills.
    first = next(i for i, (ids, *_) in enumerate(found) if 2 in ids)
    counted = sum(
        len(ids) for i, (ids, *_) in enumerate(found) if i < first or not is_repetitive(ids)
    )
    assert LONG.tokens - 32 * 300 <= counted < LONG.tokens + 32 * 300
    rest = [is_repetitive(ids) for ids, *_ in found[first:]]
    spread = math.sqrt(len(rest) * copying * (1 - copying))
    assert abs(sum(rest) - copying * len(rest)) <= 4.5 * spread


def test_batches_hold_every_document_once_and_are_of_like_length(monkeypatch):
    monkeypatch.setattr(world_student, "_BLOCK", 64)
    school = replace(LONG, tokens=20_000)
    written = [(ids, labels) for ids, labels, *_ in documents(school, TOKENIZER)]
    read = []
    for ids, labels, *_ in batches(school, TOKENIZER):
        assert ids.numel() <= world_student._BATCH_TOKENS or len(ids) == 1
        assert (labels[ids == 1] == IGNORED).all()
        for row, targets in zip(ids, labels, strict=True):
            kept = int((row != 1).sum())
            assert (row[kept:] == 1).all()  # on the right
            read.append((row[:kept].tolist(), targets[:kept].tolist()))
    assert sorted(read) == sorted(written)
    assert read != written


def test_the_loss_and_its_gradients_are_transformers_own(model):
    for ids, labels, *_ in islice(batches(LONG, TOKENIZER), 5):
        losses, grads = [], []
        for loss in (world_student._loss(model, ids, labels), model(ids, labels=labels).loss):
            model.zero_grad()
            loss.backward()
            losses.append(loss.item())
            grads.append([weight.grad.clone() for weight in model.parameters()])
        assert losses[0] > 1
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def files(folder: Path) -> dict[str, bytes]:
    """What is written, but for how long it took."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    report = json.loads(found[SCHOOLING])
    assert report.pop("seconds") > 0
    return found | {SCHOOLING: json.dumps(report).encode()}


@pytest.fixture
def written(small_blocks, tmp_path) -> Path:
    pretrain(SCHOOL, tmp_path / "student")
    return tmp_path / "student"


def test_the_same_schooling_gives_the_same_weights(written, tmp_path, monkeypatch):
    torch.manual_seed(99)  # what was drawn before does not matter
    pretrain(SCHOOL, tmp_path / "again")
    assert files(written) == files(tmp_path / "again")
    one, other = (revision(str(path), None) for path in (written, tmp_path / "again"))
    assert one == other  # however long it took: stores are named after it
    report = json.loads((written / SCHOOLING).read_text())
    assert report["family"] == "registers"
    assert 0 < report["loss"] < 2 * math.log(len(TOKENIZER))
    pretrain(replace(SCHOOL, seed=4), tmp_path / "other")
    assert files(written)["model.safetensors"] != files(tmp_path / "other")["model.safetensors"]
    monkeypatch.setattr(world_student, "_steps", None)
    pretrain(SCHOOL, written)  # is there already


def test_one_that_was_cut_off_comes_to_the_same_weights(written, tmp_path, monkeypatch):
    out = tmp_path / "cut off"
    for name, calls in (("_loss", 1), ("_loss", 7), ("asdict", 1), ("write_json", 1)):
        effects = [*[DEFAULT] * (calls - 1), KeyboardInterrupt]
        cut_off = Mock(wraps=getattr(world_student, name), side_effect=effects)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(world_student, name, cut_off)
            pretrain(SCHOOL, out)
        assert not (out / SCHOOLING).exists()
    (out / "model.safetensors").write_bytes(b"half a fi")
    pretrain(SCHOOL, out)
    assert files(written) == files(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_projects_commands_run_on_it_unchanged(family, small_blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrain(replace(SCHOOL, family=family), Path("student"))
    problems = world.make_problems(family, (3, 4), 3, (0, 1))
    save_pool(world.make_pool(problems, [Teacher("one"), FULL], 2, 0)[0], "pool.jsonl")
    for command in (
        "score pool.jsonl --student student --window 1 --out s.parquet --quiet",
        "select s.parquet --rule lalp --window 1 --out c.jsonl",
        "train c.jsonl --student student --out trained --epochs 1 --quiet",
        "eval --model trained --benchmark pool.jsonl --max-tokens 5 --out r.parquet --workers 1"
        " --quiet --system ''",
    ):
        done = CliRunner().invoke(app.app, shlex.split(command), catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert len(pd.read_parquet("r.parquet")) == len(problems)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_solution_fits_its_positions(family):
    teacher = Teacher("x", scaffolding=2, restating=1, checking=1)
    rng = np.random.default_rng(0)
    for _ in range(50):
        problem = world.make_problem(family, 12, rng)
        text = world.write_trace(problem, teacher, rng).text
        assert len(TOKENIZER(f"{problem.prompt} {text} <end>").input_ids) <= MAX_POSITIONS


def test_a_drill_that_is_known_gives_way_to_the_next():
    course, steps = world_student._Course(), world_student._STEPS_NOTED
    low, high = world_student._KNOWN / 2, world_student._KNOWN * 2
    # Too few steps to say so; known; the next one is not; the last one stays.
    for count, loss, phase in ((steps - 1, low, 0), (1, low, 1), (2 * steps, high, 1),
                               (4 * steps, low, 2)):  # fmt: skip
        for _ in range(count):
            course.note(loss, last=2)
        assert course.phase == phase


def test_a_drill_that_is_never_known_takes_its_longest_share(monkeypatch):
    monkeypatch.setattr(world_student, "_BLOCK", 16)
    course, phases = world_student._Course(), world_student._phases(LONG)
    begun = {}
    for _, _, share in documents(LONG, TOKENIZER, course):
        begun.setdefault(course.phase, share)
    assert list(begun) == list(range(len(phases)))
    expected = np.cumsum([0.0, *(share for share, _ in phases[:-1])])
    block = 16 * 200 / LONG.tokens
    assert expected[-1] < 0.75  # what is left for whole solutions
    for phase, share in begun.items():
        assert expected[phase] <= share <= expected[phase] + (phase + 1) * block
