"""Several turns: the assistant's tokens are scored, all others condition."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import separate_pass
from pandas.testing import assert_frame_equal

from lalp.pools import spool
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool, write_training
from lalp.scoring.heat_map import heat_map_page
from lalp.scoring.preview import preview_pool
from lalp.scoring.run import score
from lalp.scoring.table import load_scores, scored_pool, write_scores
from lalp.selection.rules import select
from lalp.steps.splitters import split_pool, split_response, write_steps

pytestmark = pytest.mark.usefixtures("on_the_cpu")

ASKED = {"role": "user", "content": "Add 3 and 4."}
FIRST, SECOND = "Let us check. We add.", "So the sum is 7. Done."
TOOL = {"role": "tool", "content": "The answer is 7."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}
SAID_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>'


def turn(content, **more):
    return {"role": "assistant", "content": content} | more


def talk():
    return [ASKED, turn(FIRST), {"role": "user", "content": "Go on."}, turn(SECOND)]


def agent():
    return [ASKED, turn(FIRST, tool_calls=[CALL]), TOOL, turn(SECOND)]


@pytest.fixture(scope="module")
def traces() -> Pool:
    records = [
        {"messages": talk(), "teacher": "Ada", "num_prompt_turns": 1, "level": 3},
        {"messages": agent(), "teacher": "Bob", "correct": True},
        {"messages": [ASKED, turn(SECOND)], "teacher": "Eve"},
    ]
    return load_pool(records)


# What the student of these tests writes between two turns, and the steps of each response: what is
# read before the step's own tokens, and these.
GO_ON, HEARD = (
    f"<|end|>\n<|{said['role']}|>\n{said['content']}<|end|>\n<|assistant|>\n"
    for said in ({"role": "user", "content": "Go on."}, TOOL)
)
STEPS = {
    "Ada": [("", "Let us check. "), ("", "We add."), (GO_ON, "So the sum is 7. "), ("", "Done.")],
    "Bob": [
        *[("", "Let us check. "), ("", "We add.\n"), ("", SAID_CALL)],
        *[(HEARD, "So the sum is 7. "), ("", "Done.")],
    ],
    "Eve": [("", "So the sum is 7. "), ("", "Done.")],
}


def by_hand(student, teacher, window):
    """GALP and LALP of a response, one pass for each, over the assistant's tokens alone."""
    steps = STEPS[teacher]
    text = "".join(given + own for given, own in steps)
    asked = f"<|user|>\n{ASKED['content']}<|end|>\n<|assistant|>\n"
    prompt = student.tokenizer(asked)["input_ids"]
    tokens = student.tokenizer(text, return_offsets_mapping=True)
    ids, begins = tokens["input_ids"], []
    for start, end in tokens["offset_mapping"]:
        piece = text[start:end]
        begins.append(start + len(piece) - len(piece.lstrip() or piece))
    marks, place = [], 0  # of each step: where what it hears begins, where its own text does, ends
    for given, own in steps:
        marks.append((place, place + len(given), place + len(given) + len(own)))
        place = marks[-1][2]
    means, counted = [], []
    whole = separate_pass(student, prompt, ids)
    for k, (_, begin, end) in enumerate(marks):
        seen = marks[max(0, k - window)][0]
        context = [i for i, at in zip(ids, begins, strict=True) if seen <= at < begin]
        own = [i for i, at in zip(ids, begins, strict=True) if begin <= at < end]
        means.append(separate_pass(student, prompt + context, own).mean())
        counted += [p for p, at in zip(whole, begins, strict=True) if begin <= at < end]
    return np.mean(counted), np.mean(means), len(counted)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_scores_are_those_of_the_assistants_tokens(llama, traces, window, tmp_path):
    scores = score(traces, llama, [window], store=tmp_path, progress=False)
    for row in scores.to_dict("records"):
        galp, lalp, count = by_hand(llama, row["teacher"], window)
        assert (row["num_tokens"], row["num_steps"]) == (count, len(STEPS[row["teacher"]]))
        assert row["galp"] == pytest.approx(galp, abs=1e-4)
        assert row[f"lalp@{window}"] == pytest.approx(lalp, abs=1e-4)


def test_what_is_heard_decides_scores_but_is_none(llama, traces, tmp_path):
    other = [ASKED, turn(FIRST), {"role": "user", "content": "Why? Why? Why?"}, turn(SECOND)]
    pool = load_pool([{"messages": other, "teacher": "Ada", "num_prompt_turns": 1}])
    one, two = (
        score(each, llama, ["0"], store=tmp_path, with_tokens=True, progress=False).iloc[0]
        for each in (traces, pool)
    )
    assert one["num_tokens"] == two["num_tokens"] == len(two["galp:tokens"])
    first = len(llama.tokenizer(FIRST)["input_ids"])
    same = one["galp:tokens"] == pytest.approx(two["galp:tokens"], abs=1e-5)
    assert not same and one["galp:tokens"][:first] == pytest.approx(
        two["galp:tokens"][:first], abs=1e-5
    )


def test_turns_as_steps(llama, traces, tmp_path):
    scores = score(traces, llama, ["0"], splitter="turns", store=tmp_path, progress=False)
    assert list(scores["num_steps"]) == [2, 2, 1]
    pool = traces.responses
    assert [len(split_response(response, "turns")) for response in pool] == [2, 2, 1]
    # Of one turn it is the whole response.
    assert scores["lalp@0"][2] == pytest.approx(scores["galp"][2], abs=1e-5)


@pytest.mark.parametrize("splitter", ["sentences", "paragraphs", "turns", "semantic", "4t"])
def test_no_step_reaches_from_one_turn_into_another(llama, traces, splitter):
    options = {}
    if splitter == "semantic":
        pytest.importorskip("sentence_transformers", reason="the extra semantic is not installed")
        options = {"embedder": "all-minilm-l6-v2"}
    steps = split_pool(traces, splitter, tokenizer=llama.tokenizer, **options)
    for response in traces.responses:
        spans = steps[response.response_id]
        assert [spans[0][0], *(end for _, end in spans)] == [
            0,
            *(start for start, _ in spans[1:]),
            len(response.text),
        ]
        ends = {end for _, end in spans}
        for begin, end in response.given:
            assert begin in ends and end not in ends
            assert not any(begin < place <= end for place in ends)


def test_a_selection_of_traces_is_written_with_its_turns(llama, traces, tmp_path):
    scores = score(traces, llama, ["1"], with_tokens=True, store=tmp_path / "s", progress=False)
    write_scores(scores, traces, tmp_path / "scores.parquet")
    table = load_scores(tmp_path / "scores.parquet")
    # The text that was scored is the student's; the pool that is read back has its own.
    assert GO_ON in table["response"][0] and GO_ON not in traces.responses[0].text
    back = scored_pool(table, "scores")
    assert [r.turns for r in back.responses] == [r.turns for r in traces.responses]
    assert [r.text for r in back.responses] == [r.text for r in traces.responses]
    chosen = select(table, "galp")
    write_training(back, list(chosen["response_id"]), tmp_path / "train.jsonl")
    (record,) = map(json.loads, (tmp_path / "train.jsonl").read_text().splitlines())
    turns = {"Ada": talk(), "Bob": agent(), "Eve": [ASKED, turn(SECOND)]}[record["teacher"]]
    assert record["messages"] == turns
    page = heat_map_page(table, traces.responses[1].response_id)
    assert (
        'title="read, not scored"' in page
        and "&lt;|tool|&gt;" in page
        and "The answer is 7." in page
    )


def test_thoughts_that_were_dropped_are_dropped_from_turns(llama, tmp_path):
    thought = "<think>\nA sum.\n</think>\n\n"
    turns = [ASKED, turn(thought + FIRST, tool_calls=[CALL]), TOOL, turn(SECOND)]
    pool = load_pool([{"messages": turns}])
    scores = score(pool, llama, ["1"], thinking="drop", store=tmp_path, progress=False)
    write_scores(scores, pool, tmp_path / "scores.parquet")
    back = scored_pool(load_scores(tmp_path / "scores.parquet"), "scores").responses[0]
    assert back.turns[0]["content"] == FIRST


def test_a_pool_of_traces_is_kept_in_every_kind_of_file(traces, tmp_path, monkeypatch):
    for name in ("pool.jsonl", "pool.parquet"):
        save_pool(traces, tmp_path / name)
        assert load_pool(tmp_path / name) == traces
    monkeypatch.setattr(spool, "LIMIT", 1)
    assert list(load_pool(tmp_path / "pool.jsonl").responses) == list(traces.responses)


def test_a_spooled_pool_of_traces_has_the_same_scores(llama, traces, tmp_path, monkeypatch):
    save_pool(traces, tmp_path / "pool.jsonl")
    plain = score(traces, llama, ["1"], store=tmp_path / "a", progress=False)
    monkeypatch.setattr(spool, "LIMIT", 1)
    spooled = load_pool(tmp_path / "pool.jsonl")
    again = score(spooled, llama, ["1"], store=tmp_path / "b", progress=False)
    assert_frame_equal(plain[again.columns], again)


def test_steps_of_traces_go_by_a_file(llama, traces, llama_folder, tmp_path):
    from lalp.students.thinking import shape_thinking

    shaped = shape_thinking(traces, "join", llama.tokenizer)
    write_steps(tmp_path / "steps.jsonl", shaped, split_pool(shaped))
    options = {"store": tmp_path / "s", "progress": False}
    given = score(traces, llama, ["1"], splitter=str(tmp_path / "steps.jsonl"), **options)
    cut = score(traces, llama, ["1"], **options)
    assert_frame_equal(given, cut)


def test_a_preview_counts_the_assistants_tokens(traces, llama, student_folder):
    shown = preview_pool(traces, student_folder)
    counts = sorted(by_hand(llama, teacher, 1)[2] for teacher in STEPS)
    assert [shown.response_tokens[name] for name in ("min", "median", "max")] == counts
    assert shown.unreadable == {} and shown.too_long == ()
