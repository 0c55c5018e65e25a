"""Clean copies of executed notebooks, and what every committed notebook must be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lalp.errors import InputError
from lalp.paper.refresh import (
    clean_notebook,
    count_figures,
    find_absolute_path,
    main,
    tagged_cells,
)

ROOT = Path(__file__).resolve().parents[2]
TIMES = {
    "execution": {"iopub.execute_input": "2031-05-06T07:08:09.101112Z"},
    "papermill": {"duration": 0.1, "start_time": "2031-05-06T07:08:09.101112"},
}


def code(cell_id: str, source: str, count: int | None, outputs=(), tags=()) -> NotebookNode:
    """A cell as papermill leaves it."""
    return new_code_cell(
        source,
        id=cell_id,
        execution_count=count,
        outputs=list(outputs),
        metadata={**TIMES, "tags": list(tags)},
    )


def printed(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


def shown(count: int, text: str, **data: str) -> NotebookNode:
    return new_output("execute_result", {"text/plain": text, **data}, execution_count=count)


def executed(
    *extra: NotebookNode, injected: str = '# Parameters\nPROFILE = "cpu"\n'
) -> NotebookNode:
    """A notebook as papermill leaves it, with the injected cell as its second code cell."""
    # A path on standard error alone is no reason to refuse.
    warning = printed(f"{Path.cwd()}/x.py:1: warned\n", "stderr")
    cells = [
        new_markdown_cell("# 07 A title", id="md", metadata={"papermill": {}, "tags": []}),
        code("own", 'PROFILE = "cpu"\nSEED = 0', 1, tags=["parameters"]),
        code("inj", injected, 2, tags=["injected-parameters"]),
        code("sum", "1 + 2", 3, [warning, shown(3, "3")]),
        *extra,
    ]
    metadata = {
        "kernelspec": {"display_name": "Some env", "language": "python", "name": "some-env"},
        "language_info": {"name": "python", "version": "3.11.99", "codemirror_mode": {}},
        "papermill": {"input_path": "a.ipynb", "duration": 3.5},
        "widgets": {},
    }
    return new_notebook(cells=cells, metadata=metadata)


def save(folder: Path, name: str, notebook: NotebookNode) -> Path:
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / name)
    return folder


def refuse(folder: Path, notebook: NotebookNode) -> str:
    """Refuse a notebook beside a good one: nothing is written. Returns the message, one line."""
    source = save(save(folder / "src", "a_good.ipynb", executed()), "bad.ipynb", notebook)
    with pytest.raises(InputError, match=r"^bad\.ipynb.*$") as refused:
        main(source, folder / "dst")
    assert not list((folder / "dst").glob("*"))
    return str(refused.value)


# --- cleaning -------------------------------------------------------------------------------


def test_what_differs_between_runs_goes_and_the_rest_stays():
    pieces = [printed("a\n"), printed("oops\n", "stderr"), printed("b\n"), shown(4, "5")]
    dirty = executed(code("last", "x", 4, [*pieces, printed("c\n")]))
    notebook = clean_notebook(dirty)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    cells = notebook.cells
    assert [cell.id for cell in cells] == ["md", "own", "sum", "last"]
    assert [c.source for c in cells[1:]] == ['PROFILE = "cpu"\nSEED = 0', "1 + 2", "x"]
    assert [cell.metadata for cell in cells] == [{}, {"tags": ["parameters"]}, {}, {}]
    # Counts are contiguous without the injected cell, standard error goes, pieces are joined.
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3]
    assert cells[2].outputs == [shown(2, "3")]
    assert cells[3].outputs == [printed("a\nb\n"), shown(3, "5"), printed("c\n")]


def test_files_are_valid_hold_no_trace_of_the_run_and_are_cleaned_once(tmp_path, capsys):
    source, target = save(tmp_path / "src", "07_a.ipynb", executed()), tmp_path / "dst"
    target.mkdir()
    (target / "07_a.ipynb").write_text("old")
    (target / "notes.txt").write_text("mine")
    main(source, target)
    assert capsys.readouterr().out == "07_a.ipynb: refreshed\n"
    assert sorted(file.name for file in target.iterdir()) == ["07_a.ipynb", "notes.txt"]
    path = target / "07_a.ipynb"
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and not text.endswith("\n\n")
    for trace in ("papermill", "2031", "3.11", "Some env", "some-env", "warned", "injected"):
        assert trace not in text
    nbformat.validate(nbformat.read(path, as_version=4))
    before = path.stat().st_mtime_ns
    main(target, target)
    assert (path.read_text(encoding="utf-8"), path.stat().st_mtime_ns) == (text, before)
    assert capsys.readouterr().out == "07_a.ipynb: unchanged\n"


# --- refusals -------------------------------------------------------------------------------


SAVING = '_ = figures.save_figure(figure, "a", table, PROFILE)\n'
PICTURE = new_output("display_data", {"image/png": "x", "text/plain": "<Figure>"})
ERROR = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
PATH = "/home/ada/figures"
IN_OUTPUT = f"cell 4 (last): its output holds the absolute path {PATH!r}"
IN_SOURCE = IN_OUTPUT.replace("output", "source")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (code("last", "d['x']", 4, [ERROR]), "cell 4 (last) ended in an error (KeyError)"),
        (code("last", "1", None), "cell 4 (last) did not run"),
        (code("last", 2 * SAVING, 4, [PICTURE]), "cell 4 (last) saves 2 figures and shows 1"),
        (code("last", "1", 4, [printed(f"to {PATH}")]), IN_OUTPUT),
        (code("last", "1", 4, [shown(4, f"'{PATH}'")]), IN_OUTPUT),
        (code("last", "1", 4, [shown(4, "", **{"text/html": f"<td>{PATH}</td>"})]), IN_OUTPUT),
        (code("last", f"open('{PATH}')", 4), IN_SOURCE),
        (new_markdown_cell(PATH, id="last"), IN_SOURCE),
    ],
)
def test_what_must_not_be_committed_is_refused(cell, said, tmp_path):
    assert said in refuse(tmp_path, executed(cell))


@pytest.mark.parametrize(
    "injected",
    ['PROFILE = "smoke"', "SEED = 1", "OTHER = 1", "PROFILE = print()", "PROFILE = ", "print(1)"],
)
def test_a_run_with_other_parameters_is_refused(injected, tmp_path):
    assert "parameter" in refuse(tmp_path, executed(injected=injected))


@pytest.mark.parametrize(
    "text",
    ["/home/ada/x.json", "(/tmp/ipykernel_12/3.py", "file:///Users/ada/x", "a=/opt/conda/lib",
     "'/var/lib/x'", "/usr/lib/python3", "\n/mnt/data"],
)  # fmt: skip
def test_absolute_paths_are_found(text):
    found = find_absolute_path(text)
    assert found is not None and found.startswith("/") and found in text


def test_paths_of_this_machine_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/people/ada")
    for path in ("/people/ada", Path.cwd(), sys.prefix):
        assert find_absolute_path(f"saved to {path}/figures") == f"{path}/figures"


@pytest.mark.parametrize(
    "text",
    ["", "figures/pool.png", "../build/cpu", "https://example.org/home/ada/x", "and/or", "1/2",
     "~/data/tmp/x", "n/tmp/x", "/homeward/bound", "a / b", r"\frac{1}{2}", "./var/x", "//tmp/x"],
)  # fmt: skip
def test_other_slashes_are_let_through(text):
    assert find_absolute_path(text) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON", '{"nbformat": 4, "cells": 1}'])
def test_a_file_that_is_no_notebook_is_refused(content, tmp_path):
    source = save(tmp_path / "src", "a.ipynb", executed())
    (source / "broken.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"broken\.ipynb: not a notebook"):
        main(source, tmp_path / "dst")
    assert not list((tmp_path / "dst").glob("*"))
    with pytest.raises(InputError, match="no notebooks there"):
        main(tmp_path / "none", tmp_path / "dst")


# --- committed notebooks --------------------------------------------------------------------


@pytest.fixture(
    params=sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem
)
def committed(request) -> NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parse(cell: NotebookNode) -> ast.Module:
    """The cell's syntax tree, without lines for IPython or the shell."""
    return ast.parse(re.sub(r"(?m)^[ \t]*[%!].*$", "pass", cell.source))


def test_committed_cells_that_are_checked_have_output(committed):
    checked = [c for c in code_cells(committed) if c.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert checked, "a notebook without a checked cell proves nothing"
    assert all(cell.outputs for cell in checked)


def test_committed_notebooks_are_short_and_define_rules_only(committed):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    heading = "## Paper / this run / verdict"
    titles = [cell.source.startswith(heading) for cell in committed.cells]
    # Below it, each claim has a cell of its own.
    assert (titles.index(True) if any(titles) else len(titles)) <= 34
    section = 0
    for cell in committed.cells:
        section += cell.source.startswith(heading)
        if cell.cell_type != "code":
            continue
        nodes = parse(cell).body
        body = [node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom)]
        num_lines = sum(node.end_lineno - node.lineno + 1 for node in body)
        assert num_lines <= (20 if section else 16), cell.source
        # A rule that several claims share may have a name.
        if not section:
            assert not [node for node in ast.walk(parse(cell)) if isinstance(node, definitions)]


def test_committed_notebooks_hold_no_trace_of_run_or_machine(committed):
    assert len(tagged_cells(committed, "parameters")) == 1
    # The one on a reader's own pool shows figures and saves none.
    assert any(any(count_figures(cell)) for cell in code_cells(committed))
    # Refuses errors, cells that did not run, parameters that are no literals, paths, figures not
    # shown; whatever it would clean must already be clean.
    before = nbformat.writes(committed)
    assert nbformat.writes(clean_notebook(committed)) == before


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "lalp.paper.refresh", "nowhere", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr
