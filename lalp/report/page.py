"""Run the notebook on your own pool, and write its output as one HTML page.

The page needs no other files: style and figures are inside, and there is no script. The notebook is
beside this file without outputs; ``notebooks/11_your_pool.ipynb`` is the same one executed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from lalp.errors import InputError, one_line
from lalp.files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_name("your_pool.ipynb")
EXAMPLE_POOL = Path(__file__).with_name("pool.jsonl")
# ipykernel always warns that others on this machine could listen to the kernel.
_KERNEL = ["--log-level=ERROR"]
_NEEDED = ("papermill", "nbconvert", "ipykernel", "seaborn")
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    autoescape=True,
)


def check_packages() -> None:
    """InputError if a package that only the report needs is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"a report needs {', '.join(missing)}: pip install 'lalp[notebooks]'")


def write_report(
    pool_file: str,
    out: str | Path,
    student: str,
    windows: Sequence[str],
    *,
    progress: bool = True,
) -> int:
    """Score a pool, run the notebook on it, and write its page; returns the number of responses.

    This function puts scores into the store of `lalp.scoring.run.score`, so bad input is refused
    and progress is shown before a notebook runs; the notebook finds the scores there.

    Raises:
        InputError: If the pool, the student or a window cannot be used, or a package is missing.
    """
    check_packages()
    from lalp.pools.reading import load_pool
    from lalp.report.heat_map import draw_response
    from lalp.scoring.run import score

    pool = load_pool(pool_file)
    scores = score(pool, student, windows, progress=progress)
    draw_response(pool, scores, student, windows[0])
    parameters = {"POOL": pool_file, "STUDENT": student, "WINDOWS": list(windows)}
    # A file name may hold characters that no page can.
    title = one_line(f"Report of {Path(pool_file).name}")
    write_text(out, to_page(run_notebook(parameters), title, parameters))
    return len(pool.responses)


def run_notebook(parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook, executed with these parameters in the current folder.

    InputError if a cell refuses its input, or the kernel dies.
    """
    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # These two report an ended kernel in a traceback; the caller says it in one line.
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options = {"kernel_name": "python3", "progress_bar": False, "extra_arguments": _KERNEL}
    try:
        # Nothing is written: papermill returns what it executed.
        return execute_notebook(notebook, None, dict(parameters), **options)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from None
        raise
    except DeadKernelError as error:
        raise InputError("the notebook was ended: is there enough memory?") from error


def to_page(notebook: NotebookNode, title: str, parameters: Mapping[str, Any]) -> str:
    """An executed notebook as one page, without its code and under another title."""
    from nbconvert import HTMLExporter

    first = notebook.cells[0]
    first.source = re.sub(r"\A# .*\n", "", first.source)
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # otherwise the page has a class for each
        if cell.cell_type == "code":
            _tidy_outputs(cell)
        else:
            # They lead to files of the project, which are not beside the page.
            cell.source = re.sub(r"\[([^\]]+)\]\([^)\s]+\)", r"\1", cell.source)
    notebook.cells = [c for c in notebook.cells if c.cell_type != "code" or c.outputs]
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    texts = {name: v if isinstance(v, str) else ", ".join(v) for name, v in parameters.items()}
    settings = {name: one_line(text) for name, text in texts.items()}
    template = TEMPLATES.get_template("page.html.j2")
    return template.render(title=title, settings=settings, body=body)


def _tidy_outputs(cell: NotebookNode) -> None:
    """Leave out libraries' standard error, and give figures a text."""
    cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    plotted = re.search(r"\bplot_(\w+)\(", cell.source)
    text = f"figure: {plotted[1].replace('_', ' ')}" if plotted else "figure"
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            output.metadata = {"image/png": {"alt": text}}
