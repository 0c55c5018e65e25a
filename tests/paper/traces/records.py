"""Made-up records in the layout of each file of the pool, in words of our own."""

from __future__ import annotations

from typing import Any

from lalp.paper.traces.files import FACTS

SUMS = [
    ("Ann has 3 pears and buys 4 more. How many pears has Ann?", "She has 3 + 4.\n#### 7"),
    ("A train of 12 coaches loses 2 coaches. How many coaches stay?", "12 - 2\n#### 10"),
    ("Each of 250 bees visits 5 roses. How many visits are that?", "250 * 5\n#### 1,250"),
]
PROOFS = [
    ("Find the slope of a line through two lattice points.", r"\frac{1}{2}", "test/algebra/7.json"),
    ("What is the area of a triangle of legs six and eight?", "24", "test/geometry/3.json"),
    ("Which remainder leaves forty divided by seven?", "5", "test/number_theory/9.json"),
]
# Rows of GSM8K come in this order in all files but DeepSeek-R1's.
OTHER_ORDER = [2, 0, 1]
THOUGHT = "Okay, let me think about: {}\n\nWait, is it {}? Yes."
ANSWER = r"So it is \boxed{{{}}}."


def trace(folder: str, question: str, answer: str) -> str:
    """A right response with the marks of the teacher whose folder it is."""
    thought, said = THOUGHT.format(question, answer), ANSWER.format(answer)
    if folder == "deepseekR1":
        return f"{thought}</think>{said}"
    if folder in ("QwQ", "DSQ"):
        return f"{thought}\n</think>\n\n{said}"
    if folder == "s1.1":
        return f"think\n{thought}\nanswer\nAnswer: {said}"
    if folder == "Limo":
        return f"{thought}\n\n**Final Answer**\n{answer}"
    return f"{question} {said}"


def make_files() -> dict[str, list[dict[str, Any]]]:
    """Records of every file, by its path: three problems of either data set, all solved."""
    files: dict[str, list[dict[str, Any]]] = {
        "data/gsm8k.json": [{"question": q, "answer": a} for q, a in SUMS]
    }
    for facts in FACTS["teachers"].values():
        for data_set in facts["data_sets"]:
            path = FACTS["path"].format(data_set=data_set, folder=facts["folder"])
            files[path] = _gsm8k(facts) if data_set == "gsm8k" else _math(facts)
    return files


def _gsm8k(facts: dict[str, Any]) -> list[dict[str, Any]]:
    records = []
    for question, answer in SUMS:
        text = trace(facts["folder"], question, answer.split("#### ")[1])
        records.append({"question": question, "answer": answer, facts["field"]: text})
    order = range(3) if facts["folder"] == "deepseekR1" else OTHER_ORDER
    return [records[place] for place in order]


def _math(facts: dict[str, Any]) -> list[dict[str, Any]]:
    records = []
    for question, answer, name in PROOFS:
        record = {"answer": answer, facts["field"]: trace(facts["folder"], question, answer)}
        if facts["folder"] in ("deepseekR1", "s1.1"):
            record["question"] = question
        if facts["folder"] == "deepseekR1":
            record["unique_id"] = name
        records.append(record)
    return records
