"""Prompts of the paper's data sets."""

from __future__ import annotations

import pytest

from lalp.errors import InputError
from lalp.paper.scale import sources
from lalp.pools.pool import Message
from lalp.sampling.settings import SYSTEM_PROMPT
from tests.paper.scale.conftest import write_lines


def test_limo_prompts(tmp_path):
    write_lines(
        tmp_path / "limo.jsonl",
        [{"question": f"q{n}", "solution": "s", "answer": n} for n in (1, 2, 2, 3)],
    )
    found = sources.load_source("limo", 10, tmp_path)
    assert [(p.prompt_id, p.answer) for p in found] == [
        ("limo/00001", "1"),
        ("limo/00002", "2"),
        ("limo/00003", "3"),
    ]
    # Students learn and answer behind the same words.
    assert found[0].messages[0] == Message("system", SYSTEM_PROMPT)
    assert [m.role for m in found[0].messages] == ["system", "user"]
    assert len(sources.load_source("limo", 2, tmp_path)) == 2


def test_math_prompts_leave_out_easy_and_tested_problems(tmp_path):
    records = [
        {"problem": f"q{n}", "level": level, "solution": rf"so \boxed{{{n}}}"}
        for n, level in enumerate(["Level 1", "Level 2", "Level 3", "Level ?", "Level 5"])
    ]
    write_lines(tmp_path / "math_train.jsonl", records)
    write_lines(tmp_path / "math500.jsonl", [{"problem": " q4", "answer": "4"}])
    found = sources.load_source("math", 10, tmp_path)
    assert [(p.messages[-1].content, p.answer) for p in found] == [("q2", "2"), ("q3", "3")]


def test_code_prompts_come_from_both_sets_without_answers(tmp_path):
    write_lines(
        tmp_path / "leetcode.jsonl", [{"task_id": f"t{n}", "query": f"l{n}"} for n in range(9)]
    )
    write_lines(
        tmp_path / "opencodereasoning.jsonl",
        [{"id": f"o{n // 2}", "input": f"o{n // 2}"} for n in range(18)],
    )
    found = sources.load_source("code", 6, tmp_path)
    assert [p.messages[0].content for p in found] == ["l0", "l1", "l2", "o0", "o1", "o2"]
    assert all(p.answer is None and len(p.messages) == 1 for p in found)


def test_a_solution_without_a_box_is_left_out_and_said(tmp_path, caplog):
    write_lines(
        tmp_path / "math_train.jsonl",
        [
            {"problem": "q0", "level": "Level 5", "solution": "Nothing is said here"},
            {"problem": "q1", "level": "Level 5", "solution": r"\boxed{0}"},
        ],
    )
    write_lines(tmp_path / "math500.jsonl", [{"problem": "other", "answer": "4"}])
    (found,) = sources.load_source("math", 10, tmp_path)
    assert (found.prompt_id, found.answer) == ("math_train/00002", "0")
    assert "math_train, record 1: left out" in caplog.text


def test_an_answer_of_zero_is_an_answer(tmp_path):
    write_lines(tmp_path / "limo.jsonl", [{"question": "q", "solution": "s", "answer": 0}])
    assert sources.load_source("limo", 1, tmp_path)[0].answer == "0"


def test_prompts_of_the_hub_run_no_code(monkeypatch):
    calls = []

    def load_dataset(name, config, **options):
        calls.append((name, config, options))
        return [{"question": "q", "solution": "s", "answer": "1"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert [p.answer for p in sources.load_source("limo", 1)] == ["1"]
    assert calls == [("GAIR/LIMO", None, {"split": "train", "streaming": True})]

    def offline(*arguments, **options):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(InputError, match=r"GAIR/LIMO: cannot be read from the hub \(no route\)"):
        sources.load_source("limo", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "limo.jsonl, line 1: invalid JSON"),
        ("[1]", "line 1: must be an object"),
        ('{"question": " "}', "limo, record 1: field 'question' is missing or empty"),
        ('{"question": "q"}', "field 'answer' holds no answer"),
    ],
)
def test_a_bad_record_is_named(tmp_path, line, message):
    (tmp_path / "limo.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        sources.load_source("limo", 5, tmp_path)


def test_unknown_prompts_and_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no prompts 'gsm8k': choose limo, math, code"):
        sources.load_source("gsm8k", 1)
    with pytest.raises(InputError, match="cannot be read"):
        sources.load_source("limo", 1, tmp_path)
