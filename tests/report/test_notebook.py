"""The notebook of one's own pool: what it shows of pools that lack this or that."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from lalp.report.page import NOTEBOOK
from lalp.students import student
from tests.pools.builders import jsonl

ROOT = Path(__file__).parents[2]
CODE = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]


def show(source: str, names: dict) -> str:
    """Run a cell here, without a kernel; what it would show of its last line."""
    tree = ast.parse(re.sub(r"(?m)^%.*$", "pass", source))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    if value is None:
        return ""
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


@pytest.fixture
def run(tmp_path, monkeypatch, llama_folder, capsys) -> Callable[..., tuple[str, int]]:
    """Run the notebook on records; everything that it says, and how many figures it draws."""
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    monkeypatch.setattr(student, "default_device", lambda: "cpu")

    def call(records: Sequence[dict], windows: Sequence[str] = ("1", "4")) -> tuple[str, int]:
        path = tmp_path / "pool.jsonl"
        path.write_bytes(jsonl(*records))
        names, shown = {}, []
        plt.close("all")  # what another test of this process left open
        with plt.rc_context():
            for cell in CODE:
                shown.append(show(cell.source, names))
                if "parameters" in cell.metadata.get("tags", []):
                    names |= {"POOL": str(path), "STUDENT": str(llama_folder)}
                    names["WINDOWS"] = list(windows)
        drawn = len(plt.get_fignums())
        plt.close("all")
        return "\n".join([*shown, capsys.readouterr().out]), drawn

    return call


def record(prompt: int, teacher: str, text: str, **others: object) -> dict:
    asked = {"prompt_id": f"p{prompt}", "prompt": f"What is {prompt} + 1?"}
    return asked | {"teacher": teacher, "response": text} | others


def records(prompts: int, teachers: str, **others: object) -> list[dict]:
    texts = {
        "A": "We add {0} and 1. Then it is {1}. So {1}.",
        "B": "It is {1}. Check: {1} - 1 = {0}.",
    }
    return [
        record(n, teacher, texts[teacher].format(n, n + 1), **others)
        for n in range(1, prompts + 1)
        for teacher in teachers
    ]


def test_two_teachers_and_windows_have_all_figures(run):
    said, drawn = run(records(4, "AB", correct=True))
    assert drawn == 3
    assert "All 4 prompts have a response of every teacher" in said
    assert "Not verified" not in said
    assert re.search(r"LALP, w = 4: [AB] is first with a probability of", said)
    assert "Note: only 4 prompts in common under galp, lalp@1, lalp@4" in said
    assert 'class="lalp-heat-map"' in said
    short = said[: said.index("</ul>")]
    assert re.search(r"By GALP, the teacher [AB] is first \((not )?settled\)\.", short)
    assert re.search(r"By LALP, w = 1, the teacher [AB] is first", short)
    assert re.search(r"choose the same response to \d+ % of the prompts\.", short)
    assert re.search(r"LALP, w = 1 takes \d+ % of its responses from [AB]\.", short)
    assert "a row for each response: True" in said and "False" not in said


CASES = {
    "without verdicts": (records(3, "AB"), ["Not verified: 6 of 6 responses"], 3),
    "one teacher": (
        records(3, "A"),
        ["there is nothing to rank", "</b> All responses are by one", "Without a choice: 3 of 3"],
        3,
    ),
    "one prompt": (
        records(1, "AB"),
        ["one prompt: not known", "(on one prompt, so", "too few prompts to say"],
        3,
    ),
    "one response": (records(1, "A"), ["Fewer than two responses have every score"], 2),
    "no shared prompt": (
        [record(1, "A", "It is 2. So 2."), record(2, "B", "It is 3. Yes.")],
        ["GALP: no ranking. Because no prompt has", "needs teachers ranked at two windows"],
        1,
    ),
    "nothing correct": (
        records(2, "AB", correct=False),
        [
            "Incorrect: 4 of 4",
            "</b> No score ranks",
            "</b> No rule chooses",
            "GALP: no selection. Because no candidate is left",
        ],
        1,
    ),
    "one too long": (
        [*records(2, "AB"), record(3, "A", "We add 3 and 1. " * 99), record(3, "B", "It is 4.")],
        ["Without a score: 1 of 6", "exceed the student's 512 positions", "2 or 3 of 3 prompts"],
        3,
    ),
    "all too long": (
        [record(1, teacher, "We add 3 and 1. " * 99) for teacher in "AB"],
        ["not scored", "No response has both GALP and LALP", "GALP: no selection. Because"],
        1,
    ),
    "the same text": (
        [record(1, "A", "It is 2."), record(1, "B", "It is 2.")],
        ["Repeat another one to the same prompt: 1 of 2"],
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_known_is_said_and_never_nan(run, case):
    pool, sentences, figures = CASES[case]
    said, drawn = run(pool)
    assert [sentence for sentence in sentences if sentence not in said] == []
    assert drawn == figures
    assert re.findall(r"\b(?i:nan|none|nat|<na>)\b", re.sub("<[^>]*>", " ", said)) == []


def test_one_window_needs_no_sweep(run):
    said, drawn = run(records(3, "AB"), ["25%"])
    assert drawn == 2
    assert "LALP, w = 25%" in said and "needs teachers ranked at two windows" in said


def test_texts_of_a_pool_are_no_html(run):
    evil = "<script>alert(1)</script>"
    asked = {"prompt_id": evil, "prompt": evil, "response_id": evil}
    said, _ = run([record(1, evil, f"It is {evil}. So 2.") | asked, record(2, "B", "It is 3.")])
    assert "&lt;script&gt;" in said
    shown = said[: said.index("Not verified")]  # then comes what is printed
    assert "<script>" not in shown


def test_the_packaged_notebook_is_the_committed_one_without_outputs():
    committed = nbformat.read(ROOT / "notebooks" / "11_your_pool.ipynb", 4)
    for cell in committed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    assert committed == nbformat.read(NOTEBOOK, 4)


def test_it_takes_three_parameters_and_knows_nothing_of_the_replication():
    sources = [cell.source for cell in CODE]
    tagged = [cell.source for cell in CODE if "parameters" in cell.metadata.get("tags", [])]
    assert re.findall(r"(?m)^(\w+) = ", tagged[0]) == ["POOL", "STUDENT", "WINDOWS"]
    assert not [source for source in sources if "lalp.paper" in source]
