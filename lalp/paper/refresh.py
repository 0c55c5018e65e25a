"""Clean copies of executed notebooks that can be committed (`make refresh`).

``python -m lalp.paper.refresh SRC DST`` reads the notebooks that papermill executed into SRC. It
leaves out whatever differs between runs and machines: times, versions, the injected parameters,
standard error. It refuses anything that must not be committed, and then writes nothing: an error, a
cell that did not run, a figure that is saved but not shown, parameters other than the notebook's
own, an absolute path.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import nbformat
from nbformat import NotebookNode
from typer import Argument

from lalp.cli.options import run_main
from lalp.errors import InputError, reason
from lalp.files import write_text
from lalp.pools.pool import located

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_RUN_METADATA = ("execution", "papermill", "ExecuteTime")
_SYSTEM_FOLDERS = "home|Users|root|tmp|var|usr|opt|mnt|media|srv|private|workspace"


def refresh(source: Path, target: Path) -> dict[str, bool]:
    """Write a clean copy of every notebook of one folder into another; all of them or none.

    Returns whether each copy changed, by file name. InputError if there is no notebook, or if one
    must not be committed.
    """
    paths = sorted(source.glob("*.ipynb"))
    if not paths:
        raise InputError(f"{source}: no notebooks there; execute them first with `make all`")
    texts = {}
    for path in paths:
        notebook = read_notebook(path)
        with located(path.name):
            texts[path.name] = nbformat.writes(clean_notebook(notebook)).rstrip("\n") + "\n"
    changed = {}
    for name, text in texts.items():
        path = target / name
        changed[name] = not path.is_file() or path.read_bytes() != text.encode()
        if changed[name]:
            write_text(path, text)
    return changed


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook; InputError if it is not one."""
    try:
        notebook = nbformat.read(str(path), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat may raise anything on broken files
        why = f"not a notebook that can be read: {reason(error)}"
        raise InputError(f"{path.name}: {why}") from error
    return notebook


def clean_notebook(notebook: NotebookNode) -> NotebookNode:
    """Clean an executed notebook in place; cell ids, sources and tags stay.

    Execution counts are renumbered 1 to n, because the injected parameters took one number.
    InputError if a cell must not be committed; it names the cell.
    """
    notebook.metadata = NotebookNode(
        kernelspec=KERNEL, language_info={"name": "python", "pygments_lexer": "ipython3"}
    )
    _check_parameters(notebook)
    injected = tagged_cells(notebook, "injected-parameters")
    notebook.cells = [cell for cell in notebook.cells if cell not in injected]
    count = 0
    for number, cell in enumerate(notebook.cells, 1):
        place = f"cell {number} ({cell.get('id', 'no id')})"
        for key in _RUN_METADATA:
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            count += 1
            _clean_code(cell, count, place)
        for where, text in _texts(cell):
            if found := find_absolute_path(text):
                raise InputError(
                    f"{place}: its {where} holds the absolute path {found!r}; "
                    "print it relative to the project, or not at all"
                )
    return notebook


def _clean_code(cell: NotebookNode, count: int, place: str) -> None:
    if cell.execution_count is None:
        raise InputError(f"{place} did not run; execute the notebook again")
    cell.execution_count = count
    outputs: list[NotebookNode] = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise InputError(f"{place} ended in an error ({output.ename}); mend it, run it again")
        if output.get("name") == "stderr":
            continue
        if "execution_count" in output:
            output.execution_count = count
        # The place where the kernel cuts the output of one cell differs from run to run.
        if outputs and output.get("name") and outputs[-1].get("name") == output.name:
            outputs[-1].text += output.text
        else:
            outputs.append(output)
    cell.outputs = outputs
    saved, shown = count_figures(cell)
    if shown < saved:
        raise InputError(
            f"{place} saves {saved} figures and shows {shown}: show each, run it again"
        )


def count_figures(cell: NotebookNode) -> tuple[int, int]:
    """Numbers of the figures that a cell saves by `save_figure`, and of the pictures it shows."""
    saved = len(re.findall(r"\bsave_figure\(", cell.source))
    return saved, sum("image/png" in output.get("data", {}) for output in cell.outputs)


def tagged_cells(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """The cells to which papermill, or the author for it, gave a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def _check_parameters(notebook: NotebookNode) -> None:
    """Refuse a run whose injected parameters are not the notebook's own."""
    own = dict(pair for cell in tagged_cells(notebook, "parameters") for pair in _literals(cell))
    for cell in tagged_cells(notebook, "injected-parameters"):
        for name, value in _literals(cell):
            if name not in own or own[name] != value:
                raise InputError(
                    f"cell tagged injected-parameters: {name} = {value!r} is not the notebook's "
                    "own parameter; only default runs are committed"
                )


def _literals(cell: NotebookNode) -> list[tuple[str, Any]]:
    """Names and values that a cell of parameters assigns."""
    try:
        lines = ast.parse(cell.source).body
        return [(line.targets[0].id, ast.literal_eval(line.value)) for line in lines]
    except (SyntaxError, ValueError, AttributeError) as error:
        raise InputError(
            f"cell {cell.get('id', 'no id')}: parameters must be plain assignments of literals"
        ) from error


def _texts(cell: NotebookNode) -> Iterator[tuple[str, str]]:
    """Everything in a cell that a person reads."""
    yield "source", cell.source
    for output in cell.get("outputs", []):
        yield "output", output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                yield "output", data if isinstance(data, str) else json.dumps(data)


def find_absolute_path(text: str) -> str | None:
    """The first absolute path in a text: under a system folder, or one of this machine's own.

    Web addresses do not count.
    """
    own = {Path.home(), Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), tempfile.gettempdir()}
    folders = {str(form) for path in own for form in (Path(path), Path(path).resolve())} - {"/"}
    # The longest come first, or a folder would hide the one within it.
    exact = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    begin = r"(?:(?<![\w.~/])|(?<=file://))"
    pattern = rf"{begin}(?:(?:{exact})(?![\w-])|/(?:{_SYSTEM_FOLDERS})/[\w.])[^\s'\"<>]*"
    match = re.search(pattern, text)
    return match[0] if match else None


def main(
    source: Annotated[Path, Argument(metavar="SRC", help="Folder of executed notebooks.")],
    target: Annotated[Path, Argument(metavar="DST", help="Folder for the clean copies.")],
) -> None:
    """Put clean copies of executed notebooks into a folder: all of them or none."""
    for name, changed in refresh(source, target).items():
        print(f"{name}: {'refreshed' if changed else 'unchanged'}")


if __name__ == "__main__":
    run_main(main)
