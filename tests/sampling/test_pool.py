"""From drawn answers to grades, a summary and a pool."""

import json
from dataclasses import replace

import pytest

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool
from lalp.sampling.pool import grade_completions, sampled_pool, sampling_summary
from lalp.sampling.samples import Completion


def completion(text: str, prompt_id: str = "p", sample: int = 0, **changes: object) -> Completion:
    return replace(Completion(prompt_id, sample, text, 10, False), **changes)


def test_grades_of_completions():
    answers = {"p": "7", "free": None, "choice": "B", "half": r"\frac{1}{2}"}
    prompts = [Prompt(name, (Message("user", "?"),), answer) for name, answer in answers.items()]
    rows = [
        (completion(r"So \boxed{7}."), "7", "correct", True),
        (completion(r"So \boxed{8}.", sample=1), "8", "wrong", False),
        (completion("We add them, and we add them again.", sample=2), None, "no answer", False),
        (completion(r"\boxed{7} and so on", sample=3, truncated=True), "7", "truncated", False),
        (completion(r"<think>\boxed{7}", sample=4), None, "no answer", False),
        (completion(r"<think>\boxed{7}</think>It is \boxed{9}", sample=5), "9", "wrong", False),
        (completion("", sample=6), None, "no answer", False),
        (completion(r"I am \boxed{me}", "free"), "me", "no reference", None),
        (completion("We do not know yet", "free", 1, truncated=True), None, "truncated", False),
        (completion("The answer is (B).", "choice"), "B", "correct", True),
        (completion("The answer is (A).", "choice", 1), "A", "wrong", False),
        (completion(r"Thus \boxed{0.5}", "half"), "0.5", "correct", True),
    ]
    graded = grade_completions(prompts, [row[0] for row in rows])
    columns = "prompt_id sample text num_tokens truncated extracted outcome correct"
    assert list(graded.columns) == columns.split()
    found = graded.astype(object).where(graded.notna(), None)
    names = ["prompt_id", "sample", "text", "extracted", "outcome", "correct"]
    for row, (said, *verdict) in zip(found[names].values.tolist(), rows, strict=True):
        assert row == [said.prompt_id, said.sample, said.text, *verdict]
    summary = sampling_summary(prompts, graded, sampled_pool(prompts, graded, "T"))
    assert summary["accuracy"] == 3 / 10
    assert summary["truncated"] == 2 / 12
    assert (summary["num_prompts"], summary["num_samples"], summary["solved"]) == (4, 12, 3)
    assert (summary["num_tokens"], summary["mean_tokens"]) == (120, 10)
    assert summary["outcomes"]["wrong"] == 3
    assert summary["left_out"] == {"empty response": 1}
    json.dumps(summary, allow_nan=False)


def test_grading_nothing_and_unknown_prompts():
    empty = grade_completions([], [])
    assert len(empty) == 0
    assert {"extracted", "outcome", "correct", "num_tokens"} <= set(empty.columns)
    with pytest.raises(InputError, match="'p' of a completion is not given"):
        grade_completions([], [completion("7")])
    free = [Prompt("p", (Message("user", "Who?"),))]
    graded = grade_completions(free, [completion("I")])
    assert sampling_summary(free, graded, sampled_pool(free, graded, "T"))["accuracy"] is None


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_pool_comes_back_from_its_file(suffix, tmp_path):
    chat = (Message("system", "Be brief."), Message("user", "3 + 4?"))
    prompts = [
        Prompt("p", chat, "7"),
        Prompt("free", (Message("user", "Who?"),)),
        Prompt("silent", (Message("user", "Why?"),), "1"),
    ]
    completions = [
        completion(r"<think>Add.</think>So \boxed{7}."),
        completion("cut", sample=1, truncated=True, num_tokens=99),
        completion(" \n", sample=2),
        completion("me 🙂", "free"),
        completion("", "silent"),
    ]
    pool = sampled_pool(prompts, grade_completions(prompts, completions), "Ada")
    assert pool.left_out == {"empty response": 2}
    assert list(pool.prompts.values()) == prompts[:2]
    save_pool(pool, tmp_path / f"pool{suffix}")
    back = load_pool(tmp_path / f"pool{suffix}")
    assert back.prompts == pool.prompts
    assert back.responses == pool.responses
    assert [(r.response_id, r.teacher, r.correct) for r in back.responses] == [
        ("p/Ada/0", "Ada", True),
        ("p/Ada/1", "Ada", False),
        ("free/Ada/0", "Ada", None),
    ]
    assert back.responses[1].extra == {"sample": 1, "num_tokens": 99, "truncated": True}
