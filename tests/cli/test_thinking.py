"""What a student reads of thoughts, from the command line."""

from __future__ import annotations

import json

import pytest
from conftest import build_student

from lalp.pools.turns import join_thought
from lalp.scoring.table import load_scores
from tests.pools.builders import jsonl, read_lines
from tests.tiny import train_tokenizer

# As gpt-oss joins them, in small: other tags, other white space.
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THOUGHT, ANSWER = "Three and four. We add.", "So it is 7. Done."


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    tokenizer = train_tokenizer([THOUGHT, ANSWER], 300, TEMPLATE)
    folder = tmp_path_factory.mktemp("student")
    build_student("llama", tokenizer).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def pool_file(tmp_path):
    turn = {"role": "assistant", "reasoning_content": THOUGHT, "content": ANSWER}
    chat = [{"role": "user", "content": "What is 3 + 4?"}, turn]
    path = tmp_path / "pool.jsonl"
    path.write_bytes(jsonl({"messages": chat, "teacher": "Ada", "prompt_id": "p"}))
    return path


@pytest.mark.parametrize(
    ("thinking", "text"),
    [
        ("join", f"[THINK]{THOUGHT}[/THINK]{ANSWER}"),
        ("only", f"<think>\n{THOUGHT}\n</think>"),
        ("drop", ANSWER),
    ],
)
def test_scores_and_training_files_hold_what_the_student_read(
    lalp, student, pool_file, tmp_path, thinking, text
):
    out, steps, chosen = (tmp_path / name for name in ("s.parquet", "steps.jsonl", "train.jsonl"))
    own = ("--student", student, "--thinking", thinking)
    assert lalp("segment", pool_file, *own, "--out", steps).code == 0
    how = (*own, "--window", 1, "--splitter", steps, "--tokens", "--quiet", "--out", out)
    done = lalp("score", pool_file, *how)
    assert done.code == 0, done.err
    (row,) = load_scores(out).to_dict("records")
    assert row["response"] == text and row["token_spans"][-1][1] == len(text)
    (record,) = read_lines(steps)
    assert record["steps"][-1][1] == len(text)
    assert lalp("select", out, "--rule", "galp", "--out", chosen).code == 0
    (record,) = read_lines(chosen)
    assert record["messages"][-1]["content"] == text


def test_steps_of_another_text_are_refused(lalp, student, pool_file, tmp_path):
    steps, out = tmp_path / "steps.jsonl", tmp_path / "s.parquet"
    assert lalp("segment", pool_file, "--out", steps).code == 0
    how = ("--student", student, "--splitter", steps, "--quiet", "--out", out)
    done = lalp("score", pool_file, *how)
    assert done.code == 2 and "steps.jsonl, line 1" in done.err and not out.exists()


def test_check_shows_what_a_student_reads(lalp, student, pool_file):
    done = lalp("check", pool_file, "--student", student, "--json")
    shown = json.loads(done.out)["preview"]
    assert shown["system"] == "<|user|>\n" and shown["thought"] == ["[THINK]", "[/THINK]"]
    assert shown["prompt_end"] == "<|user|>\nWhat is 3 + 4?<|end|>\n<|assistant|>\n"
    assert shown["response_start"] == f"[THINK]{THOUGHT}[/THINK]{ANSWER}"
    assert shown["end_of_turn"] == "<|end|>\n" and shown["too_long"] == []
    tokens = shown["response_tokens"]
    assert tokens["min"] == tokens["max"] > 5
    people = lalp("check", pool_file, "--student", student).out
    assert "thoughts are joined as '[THINK]' thought '[/THINK]' answer" in people
    assert "exceed its positions: 0" in people


def test_check_names_what_exceeds_the_positions(lalp, student, tmp_path):
    path = tmp_path / "pool.jsonl"
    texts = {"short": "So 7.", "long": "We add. " * 4000}
    base = {"prompt_id": "p", "prompt": "What is 3 + 4?", "teacher": "Ada"}
    path.write_bytes(jsonl(*(base | {"response_id": n, "response": t} for n, t in texts.items())))
    shown = json.loads(lalp("check", path, "--student", student, "--json").out)["preview"]
    assert shown["too_long"] == ["long"]
    people = lalp("check", path, "--student", student).out
    assert "exceed its positions: 1, for example long" in people


def test_a_misspelt_way_is_refused(lalp, student, pool_file, tmp_path):
    how = ("--student", student, "--thinking", "dropp", "--out", tmp_path / "s.parquet")
    done = lalp("score", pool_file, *how)
    assert done.code == 2 and "thinking is join, only, drop, not 'dropp'" in done.err


def test_the_pool_s_own_form_is_not_changed_on_disk(pool_file):
    from lalp.pools.reading import load_pool

    assert load_pool(pool_file).responses[0].text == join_thought(THOUGHT, ANSWER)
