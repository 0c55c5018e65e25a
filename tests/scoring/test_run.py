"""Scores end to end, what the store reuses, and the table as a file."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import build_student, separate_pass, spans_of
from pandas.testing import assert_frame_equal
from tqdm import tqdm

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring import groups
from lalp.scoring import run as scoring_run
from lalp.scoring import shards as scoring_shards
from lalp.scoring.estimate import plan_scoring
from lalp.scoring.run import score
from lalp.scoring.table import load_scores, scored_pool, write_scores
from lalp.scoring.windows import parse_window
from lalp.steps.sentences import split_steps
from lalp.steps.splitters import split_pool, write_steps
from lalp.students import student as students_student
from lalp.students.encoding import Encoded
from lalp.students.student import load_student, make_student
from tests.scoring.arithmetic import (
    QUESTIONS,
    RESPONSES,
    WINDOWS,
    assert_equals_separate_passes,
    make_pool,
    rendered,
    shards,
)

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="session")
def few() -> Pool:
    return make_pool(RESPONSES[2:4])


def test_scores_have_one_row_per_response_in_the_pools_order(pool, student_folder, tmp_path):
    scores = score(pool, student_folder, ["1", 4], store=tmp_path, progress=False)
    assert list(scores.columns) == [
        *("prompt_id", "response_id", "teacher", "correct", "num_tokens", "num_steps"),
        *("mean_rank", "mean_rank_100", "mean_entropy", "galp", "lalp@1", "lalp@4", "reason"),
    ]
    ids = zip(scores["prompt_id"], scores["teacher"], strict=True)
    assert list(ids) == [row[:2] for row in RESPONSES]
    assert list(scores["response_id"]) == [r.response_id for r in pool.responses]
    assert list(scores.index) == list(range(len(RESPONSES)))
    assert scores[["correct", "reason"]].isna().all(axis=None)
    assert (scores.attrs["student"], scores.attrs["splitter"]) == (student_folder, "sentences")


def assert_scored_by_separate_passes(frame, student, texts, steps, windows) -> None:
    """Scores, and the step of each token, against one forward pass per step of each text."""
    for row, text, own_steps in zip(frame.to_dict("records"), texts, steps, strict=True):
        prompt, ids = student.tokenizer([rendered(row["prompt_id"]), text])["input_ids"]
        assert row["num_tokens"] == len(ids)
        assert row["num_steps"] == len(own_steps)
        # Character offsets of a byte-level tokenizer, found by decoding longer and longer parts.
        decode = student.tokenizer.decode
        ends = [len(decode(ids[: n + 1]).rstrip("\ufffd")) for n in range(len(ids))]
        parts = [(start, text[start:end]) for start, end in pairwise([0, *ends])]
        # A token belongs to the step of its first character, white space aside.
        firsts = [start + len(part) - len(part.lstrip() or part) for start, part in parts]
        step_of = np.searchsorted([end for _, end in own_steps], firsts, side="right").tolist()
        assert list(row["token_steps"]) == step_of
        encoded = Encoded(tuple(prompt), tuple(ids), ())
        task = groups.Task(encoded, spans_of(np.bincount(step_of).tolist()), 512)
        assert_equals_separate_passes(student, task, row, [parse_window(w) for w in windows])


def test_every_score_equals_a_separate_pass_per_step(llama, done):
    texts = [text for _, _, text in RESPONSES]
    steps = [split_steps(text, "sentences") for text in texts]
    assert_scored_by_separate_passes(done[0], llama, texts, steps, WINDOWS)


def test_given_steps_are_scored_as_given(llama, few, tmp_path):
    steps = {r.response_id: [(0, 8), (8, 21), (21, len(r.text))] for r in few.responses}
    steps["sum/Bob/0"] = [(0, 1)]
    scores = score(few, llama, ["1"], splitter=steps, store=tmp_path, with_tokens=True)
    assert scores.attrs["splitter"] == "given steps"
    texts = [response.text for response in few.responses]
    assert_scored_by_separate_passes(scores, llama, texts, steps.values(), ["1"])


def test_scores_can_be_computed_again_from_the_token_columns(pool, done):
    frame, _ = done
    for row, response in zip(frame.to_dict("records"), pool.responses, strict=True):
        spans = [tuple(span) for span in row["token_spans"]]
        assert len(spans) == len(row["token_steps"]) == row["num_tokens"]
        assert {i for a, b in spans for i in range(a, b)} == set(range(len(response.text)))
        assert sorted(set(row["token_steps"])) == list(range(row["num_steps"]))
        assert np.mean(row["galp:tokens"], dtype=float) == pytest.approx(row["galp"], abs=1e-6)
        steps = np.asarray(row["token_steps"])
        for window in WINDOWS:
            tokens = np.asarray(row[f"lalp@{window}:tokens"], dtype=float)
            means = [tokens[steps == k].mean() for k in range(row["num_steps"])]
            assert np.mean(means) == pytest.approx(row[f"lalp@{window}"], abs=1e-6)
        # The whole prefix is GALP's condition.
        assert row["lalp@all:tokens"] == pytest.approx(row["galp:tokens"], abs=1e-5)


def test_token_columns_change_no_score(llama, pool, done, tmp_path):
    plain = score(pool, llama, WINDOWS, store=tmp_path, progress=False)
    assert_frame_equal(plain, done[0][plain.columns], check_exact=True)


def test_a_prompt_and_responses_that_merge_at_the_boundary(llama, tmp_path):
    # " Then" is one token, begun in the prompt; "x" is not merged with it. So the responses of
    # one prompt follow different prompt tokens.
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = "{{ messages[0].content }} T"
    student = replace(llama, tokenizer=tokenizer)
    texts = ["hen x = 3. So the sum is 7.", "x = 3. Then y = 4."]
    pool = make_pool([("We add.", "Ada", text) for text in texts])
    scores = score(pool, student, ["1"], store=tmp_path, progress=False)
    for text, galp, num_tokens in zip(texts, scores["galp"], scores["num_tokens"], strict=True):
        ids = tokenizer("We add. T" + text)["input_ids"]
        prompt, response = ids[:-num_tokens], ids[-num_tokens:]
        assert tokenizer.decode(prompt) in ("We add. Then", "We add. T")
        assert galp == pytest.approx(separate_pass(llama, prompt, response).mean(), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prompt_that_alone_is_too_long(family, tokenizer, tmp_path):
    student = build_student(family, tokenizer)
    pool = make_pool([("word " * 600, "Ada", "So it is 7."), ("sum", "Ada", "So it is 7.")])
    scores = score(pool, student, ["0"], store=tmp_path, progress=False)
    for name in ("galp", "lalp@0", "mean_rank"):
        assert list(scores[name].isna()) == [True, False]
    assert scores["reason"][0].startswith("galp: ")
    assert "tokens exceed the student's 512 positions; lalp@0: step 1" in scores["reason"][0]
    again = score(pool, student, ["0"], store=tmp_path, progress=False)  # from the store
    assert_frame_equal(again, scores, check_exact=True)


BAD_WINDOWS = [{"windows": windows} for windows in (["x"], ["4", "4"], [])]
BAD_SPLITTERS = [{"splitter": name} for name in ("words", "llm", "0t", "steps.json")]


@pytest.mark.parametrize("options", BAD_WINDOWS + BAD_SPLITTERS, ids=str)
def test_bad_settings_are_refused_before_the_student_is_loaded(
    options, pool, tmp_path, monkeypatch
):
    monkeypatch.setattr(scoring_run, "find_student", None)
    with pytest.raises(InputError, match="window" if "windows" in options else "splitter"):
        score(pool, "any", store=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_same_candidates_in_another_order_are_the_same_scores(
    pool, student_folder, tmp_path, monkeypatch
):
    first = score(pool, student_folder, WINDOWS, store=tmp_path, progress=False)
    monkeypatch.setattr(scoring_run, "score_candidates", None)
    turned = Pool(pool.prompts, pool.responses[::-1])
    again = score(turned, student_folder, WINDOWS, store=tmp_path, progress=False)
    assert_frame_equal(again[::-1].reset_index(drop=True), first, check_exact=True)


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers"])
def test_scores_by_another_version_of_a_library_are_not_taken(
    library, pool, student_folder, tmp_path, monkeypatch
):
    def keys() -> str:
        return score(pool, student_folder, ["0"], store=tmp_path, progress=False).attrs["key"]

    before, real = keys(), scoring_run.version
    fake = {library: "0.0"}
    monkeypatch.setattr(scoring_run, "version", lambda name: fake.get(name) or real(name))
    assert keys() != before


def test_a_second_call_loads_no_weights_and_computes_nothing(
    pool, student_folder, tmp_path, monkeypatch
):
    first = score(pool, student_folder, WINDOWS, store=tmp_path, progress=False)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    loaded = load_student(student_folder)
    monkeypatch.setattr(scoring_run, "score_candidates", None)
    monkeypatch.setattr(students_student, "load_model", None)
    # The same student in memory has the same key.
    for student in (student_folder, loaded):
        again = score(pool, student, WINDOWS, store=tmp_path, progress=False)
        assert_frame_equal(again, first, check_exact=True)
        assert again.attrs["key"] == first.attrs["key"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_whatever_decides_a_score_changes_the_key(llama, few, tmp_path, monkeypatch):
    template, vocabulary = copy.deepcopy(llama.tokenizer), copy.deepcopy(llama.tokenizer)
    template.chat_template = "{{ messages[0].content }}\n"
    vocabulary.add_tokens(["sum is"])
    half = build_student("llama", llama.tokenizer).model.to(torch.bfloat16)
    changed = [
        {},
        {"student": replace(llama, revision="other")},
        {"student": replace(llama, tokenizer=template)},
        {"student": replace(llama, tokenizer=vocabulary)},
        {"student": make_student(half, llama.tokenizer, name="llama", revision="test")},
    ]

    def key_of(**changes: object) -> str:
        options = {"student": llama, "windows": ["1", "all"], "store": tmp_path} | changes
        return score(few, **options, progress=False).attrs["key"]

    keys = [key_of(**changes) for changes in changed]
    # Code on disk may be edited while this process goes on with what it imported.
    monkeypatch.setattr(scoring_shards, "code_version", lambda: "edited meanwhile")
    assert key_of() == keys[0]
    monkeypatch.setattr(scoring_run, "CODE", "other code")
    keys.append(key_of())
    assert len(set(keys)) == len(keys)
    assert {path.name for path in tmp_path.iterdir()} == set(keys)
    assert len(shards(tmp_path)) == len(keys)


def test_names_change_nothing_and_a_text_its_prompts_scores(done, run_again, computed):
    frame, _ = done

    def run(rows, *prompts: Prompt):
        pool = make_pool(rows)
        return run_again(replace(pool, prompts=pool.prompts | {p.prompt_id: p for p in prompts}))

    renamed = run([(prompt_id, teacher.upper(), text) for prompt_id, teacher, text in RESPONSES])
    assert list(renamed["teacher"]) == [row[1].upper() for row in RESPONSES]
    numbers = renamed.columns.difference(["teacher", "response_id"])
    assert_frame_equal(renamed[numbers], frame[numbers], check_exact=True)
    renamed = [(f"p-{prompt_id}", teacher, text) for prompt_id, teacher, text in RESPONSES]
    run(renamed, *(Prompt(f"p-{p}", (Message("user", q),), "0") for p, q in QUESTIONS.items()))
    assert computed == []
    # One text changes: its prompt is scored again, the others are not.
    changed = run([*RESPONSES[:3], ("product", "Bob", "It is 12."), *RESPONSES[4:]])
    assert computed == [2]
    same = changed["prompt_id"] != "product"
    assert_frame_equal(changed[same], frame[same], check_exact=True)
    # The prompt's text counts as well.
    other = Prompt("sum", (Message("system", ""), Message("user", QUESTIONS["sum"])))
    assert run(RESPONSES, other)["galp"][0] != frame["galp"][0]
    # A pool that grew: only the new prompt is scored.
    run([*RESPONSES, ("sum of 2 and 2?", "Ada", "4")])
    assert computed == [2, 3, 1]


def test_one_text_under_two_prompt_ids_is_scored_once(llama, tmp_path, computed):
    pool = make_pool([(prompt_id, "Ada", "So it is 7.") for prompt_id in "ab"])
    same = (Message("user", "3 + 4?"),)
    pool = replace(pool, prompts={name: Prompt(name, same) for name in "ab"})
    scores = score(pool, llama, ["1"], store=tmp_path, progress=False)
    assert computed == [1]
    assert scores["galp"][0] == scores["galp"][1] < 0


def test_steps_share_scores_whoever_made_them_and_never_with_others(llama, few, tmp_path, computed):
    def run(splitter) -> pd.DataFrame:
        return score(few, llama, ["1"], splitter=splitter, store=tmp_path, progress=False)

    sentences = split_pool(few, "sentences")
    write_steps(tmp_path / "steps.jsonl", few, sentences)
    as_lists = {name: [list(span) for span in spans] for name, spans in sentences.items()}
    ways = ("sentences", sentences, str(tmp_path / "steps.jsonl"), as_lists)
    named, *others = map(run, ways)
    assert all(given.equals(named) for given in others)
    assert {given.attrs["key"] for given in others} == {named.attrs["key"]}
    assert computed == [1, 1]
    # One boundary moves in one response: its prompt is scored again, the other is not.
    (moved,) = (r for r in few.responses if len(sentences[r.response_id]) > 1)
    (first, cut), (_, second), *rest = sentences[moved.response_id]
    others = sentences | {moved.response_id: [(first, cut - 2), (cut - 2, second), *rest]}
    assert not run(others).equals(named)
    assert computed == [1, 1, 1]
    assert len(shards(tmp_path)) == 2


def test_a_prompt_counts_as_it_is_rendered(llama, few, tmp_path, computed, monkeypatch):
    # Llama 3.2's template, for one, writes today's date.
    for date in ("1 May: ", "2 May: ", "2 May: "):
        monkeypatch.setattr(groups, "render_prompt", lambda _, p, date=date: date + p.prompt_id)
        score(few, llama, ["1"], store=tmp_path, progress=False)
    assert computed == [1, 1, 1, 1]


def test_progress_counts_the_tokens_fed_and_ends_where_it_was_announced(
    llama, pool, student_folder, tmp_path, monkeypatch
):
    bars = []

    class Bar(tqdm):
        def __init__(self, **options):
            super().__init__(disable=True)
            self.total, self.n = None, 0
            bars.append(self)

        def update(self, tokens):
            self.n += tokens
            # Before the first prompt is done, nobody knows; later estimates are of the right size.
            assert self.total is None or self.total > self.n / 2

    monkeypatch.setattr(scoring_run, "tqdm", Bar)
    for _ in range(2):
        score(pool, llama, WINDOWS, store=tmp_path)
    (bar,) = bars  # the second run has nothing to do
    assert bar.n == bar.total == plan_scoring(pool, student_folder, WINDOWS).fed_tokens


CHAT_POOL = Pool(
    {
        "a": Prompt("a", (Message("system", "Be brief."), Message("user", "3 + 4?")), "7"),
        "b": Prompt("b", (Message("user", "Hi"), Message("assistant", "?"), Message("user", "2"))),
    },
    (
        Response("b1", "b", "Ada", "So it is 4. Done.", True),
        Response("a1", "a", "Ada", "  3 + 4 = 7.\n\n🙂 Done.", False),
        Response("a2", "a", "Bob", "It is 7.", None),
    ),
)


@pytest.mark.parametrize("with_tokens", [False, True])
def test_a_written_table_reads_back_with_its_texts(with_tokens, llama, tmp_path):
    options = {"with_tokens": with_tokens, "store": tmp_path / "store", "progress": False}
    scores = score(CHAT_POOL, llama, ["1", "25%"], **options)
    path = tmp_path / "new" / "scores.parquet"
    write_scores(scores, CHAT_POOL, path)
    loaded = load_scores(path)
    assert list(loaded.columns) == [*scores.columns, "prompt", "response", "answer"]
    assert_frame_equal(loaded[scores.columns], scores, check_exact=True)
    assert loaded.attrs == scores.attrs
    assert list(path.parent.iterdir()) == [path]
    carried = scored_pool(loaded, path)
    assert carried.responses == CHAT_POOL.responses
    assert carried.prompts == CHAT_POOL.prompts
    # A subset of the rows carries its own texts.
    assert scored_pool(loaded.iloc[1:], "x").responses == CHAT_POOL.responses[1:]


def test_files_that_are_no_score_table_are_refused(done, tmp_path):
    frame, _ = done
    text, table, other = (tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet"))
    text.write_text('{"prompt_id": "a"}')
    pd.DataFrame({"prompt_id": ["a"], "teacher": ["t"], "response_id": ["r"]}).to_parquet(table)
    write_scores(frame, make_pool(), other)
    other.write_bytes(other.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"none\.parquet: no such file: make one with lalp score"):
        load_scores(tmp_path / "none.parquet")
    for path in (text, other):
        with pytest.raises(InputError, match=f"{path.name}: not a readable score table") as caught:
            load_scores(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not a score table, column 'galp' is missing"):
        load_scores(table)
    with pytest.raises(InputError, match=r"scores\.parquet: the table holds no texts"):
        scored_pool(frame, "scores.parquet")
