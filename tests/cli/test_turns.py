"""Traces of an agent, from the file that people hold to the trained student."""

from __future__ import annotations

import json

import pytest

from lalp.pools.reading import load_pool
from lalp.scoring.table import load_scores
from tests.pools.builders import jsonl, read_lines

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def trace(teacher, said):
    chat = [
        {"role": "user", "content": "What is 3 + 4?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
        {"role": "assistant", "content": said},
    ]
    return {"messages": chat, "tools": TOOLS, "teacher": teacher, "prompt_id": "p"}


@pytest.fixture
def traces(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(jsonl(trace("Ada", "We add. So it is 7."), trace("Bob", "It is 7. Done.")))
    return path


def test_a_trace_is_imported_cut_scored_selected_and_trained_on(
    lalp, traces, student_folder, tmp_path
):
    pool, steps, scores, chosen, out = (
        tmp_path / name for name in ("p.jsonl", "s.jsonl", "s.parquet", "t.jsonl", "trained")
    )
    done = lalp("import", traces, "--out", pool)
    assert done.code == 0, done.err
    assert "2 of several turns" in done.err
    assert "2  responses of several assistant's turns" in done.out
    assert lalp("check", pool).code == 0
    shown = lalp("segment", pool, "--splitter", "turns", "--text")
    assert shown.code == 0 and shown.out.count("<tool_response>") == 2
    own = ("--student", student_folder)
    assert lalp("segment", pool, *own, "--splitter", "turns", "--out", steps).code == 0
    assert [len(line["steps"]) for line in read_lines(steps)] == [2, 2]
    how = (*own, "--splitter", "turns", "--window", 0, "--tokens", "--quiet", "--out", scores)
    done = lalp("score", pool, *how)
    assert done.code == 0, done.err
    assert list(load_scores(scores)["num_steps"]) == [2, 2]
    assert lalp("select", scores, "--rule", "lalp", "--out", chosen).code == 0
    (record,) = read_lines(chosen)
    assert record["num_prompt_turns"] == 1 and record["tools"] == TOOLS
    assert [turn["role"] for turn in record["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    done = lalp("train", chosen, *own, "--out", out, "--epochs", 1, "--quiet")
    assert done.code == 0, done.err
    assert (out / "run.json").is_file()


def test_earlier_turns_are_prompt_unless_all_are_asked_for(lalp, tmp_path):
    chat = [
        {"from": who, "value": text}
        for who, text in (("human", "Hi."), ("gpt", "Hello."), ("human", "3 + 4?"), ("gpt", "7"))
    ]
    path, pool = tmp_path / "talk.jsonl", tmp_path / "pool.jsonl"
    path.write_bytes(jsonl({"conversations": chat}))
    done = lalp("import", path, "--out", pool)
    assert "of 1 chats with several turns of the assistant, only the last" in done.err
    assert load_pool(pool).responses[0].text == "7"
    done = lalp("import", path, "--all-turns", "--out", pool)
    assert done.code == 0 and "--all-turns" not in done.err
    (response,) = load_pool(pool).responses
    assert [turn["content"] for turn in response.turns] == ["Hello.", "3 + 4?", "7"]
    assert response.text == "Hello.\n\n3 + 4?\n\n7"
    assert json.loads(pool.read_text())["prompt"] == "Hi."


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({2: {"role": "tool"}}, "message 3: field 'content' is missing"),
        ({3: {"role": "user", "content": "More?"}}, "must end with the assistant's"),
        ({1: {"role": "assistant", "content": ""}}, "message 2: field 'content' is empty"),
        ({1: {"role": "assistant", "tool_calls": "{"}}, "message 2: a tool's call is not JSON"),
        ({1: {"role": "assistant", "tool_calls": [{"name": ""}]}}, "call 1: field 'name' is empty"),
        ({0: {"role": "tool", "content": "x"}}, "message 1: the turn is a tool's"),
    ],
)
def test_a_broken_trace_is_refused_with_its_place(lalp, tmp_path, changes, says):
    record = trace("Ada", "It is 7.")
    record["messages"] = [changes.get(i, turn) for i, turn in enumerate(record["messages"])]
    path = tmp_path / "traces.jsonl"
    path.write_bytes(jsonl(record))
    done = lalp("check", path)
    assert done.code == 2 and says in done.err, done.err


def test_llamafactory_is_refused_before_it_is_written_wrongly(
    lalp, traces, student_folder, tmp_path
):
    out = tmp_path / "folder"
    done = lalp("merge", traces, "--format", "llamafactory", "--out", out)
    assert done.code == 2 and "several turns, or tools" in done.err and not out.exists()
