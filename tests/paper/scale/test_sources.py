"""Prompts of the paper's data sets."""

from __future__ import annotations

import pytest

from lalp.errors import InputError
from lalp.paper.scale import sources
from lalp.pools.pool import Message, Prompt
from lalp.sampling.settings import SYSTEM_PROMPT
from tests.paper.scale.conftest import write_lines


@pytest.fixture
def load(tmp_path):
    """Loads prompts of a set whose records, and those of others, are given by file."""

    def load_records(name: str, limit: int, **files: list[dict]) -> list[Prompt]:
        for file, records in files.items():
            write_lines(tmp_path / f"{file}.jsonl", records)
        return sources.load_source(name, limit, tmp_path)

    return load_records


def test_limo_prompts(load):
    records = [{"question": f"q{n}", "solution": "s", "answer": n} for n in (0, 2, 2, 3)]
    found = load("limo", 10, limo=records)
    ids = ["limo/00001", "limo/00002", "limo/00003"]
    # An answer of zero is an answer.
    assert [(p.prompt_id, p.answer) for p in found] == list(zip(ids, "023", strict=True))
    # Students learn and answer behind the same words.
    assert found[0].messages[0] == Message("system", SYSTEM_PROMPT)
    assert [m.role for m in found[0].messages] == ["system", "user"]
    assert len(load("limo", 2)) == 2


def test_math_prompts_leave_out_easy_and_tested_problems(load):
    records = [
        {"problem": f"q{n}", "level": level, "solution": rf"so \boxed{{{n}}}"}
        for n, level in enumerate(["Level 1", "Level 2", "Level 3", "Level ?", "Level 5"])
    ]
    found = load("math", 10, math_train=records, math500=[{"problem": " q4", "answer": "4"}])
    assert [(p.messages[-1].content, p.answer) for p in found] == [("q2", "2"), ("q3", "3")]


def test_code_prompts_come_from_both_sets_without_answers(load):
    leetcode = [{"task_id": f"t{n}", "query": f"l{n}"} for n in range(9)]
    repeated = [{"id": f"o{n // 2}", "input": f"o{n // 2}"} for n in range(18)]
    found = load("code", 6, leetcode=leetcode, opencodereasoning=repeated)
    assert [p.messages[0].content for p in found] == ["l0", "l1", "l2", "o0", "o1", "o2"]
    assert all(p.answer is None and len(p.messages) == 1 for p in found)


def test_a_solution_without_a_box_is_left_out_and_said(load, caplog):
    solutions = ("Nothing is said here", r"\boxed{0}")
    records = [{"problem": text, "solution": text} for text in solutions]
    (found,) = load("math", 10, math_train=records, math500=[{"problem": "other", "answer": "4"}])
    assert (found.prompt_id, found.answer) == ("math_train/00002", "0")
    assert "math_train, record 1: left out" in caplog.text


def test_published_solutions_are_a_graded_pool(tmp_path):
    marks = {r"It is \boxed{1}.": True, r"It is \boxed{5}.": False}
    records = [{"question": text, "solution": text, "answer": 1} for text in marks]
    write_lines(tmp_path / "limo.jsonl", records)
    pool = sources.published_pool("DeepSeek-R1", 2, tmp_path)
    found = [(r.teacher, r.text, r.correct) for r in pool.responses]
    assert found == [("DeepSeek-R1", text, correct) for text, correct in marks.items()]


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
    ("name", "line", "message"),
    [
        ("limo", "{", "limo.jsonl, line 1: invalid JSON"),
        ("limo", "[1]", "line 1: must be an object"),
        ("limo", '{"question": " "}', "limo, record 1: field 'question' is missing or empty"),
        ("limo", '{"question": "q"}', "field 'answer' is missing or empty"),
        ("gsm8k", "{}", "no prompts 'gsm8k': choose limo, math, code"),
        ("code", "{}", "leetcode.jsonl: no such file"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, name, line, message):
    (tmp_path / "limo.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        sources.load_source(name, 5, tmp_path)
