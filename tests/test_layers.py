"""The house keeps its layers: imports go down only, and nobody outside imports the replication."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a room imports from those before it, and from itself.
LAYERS = (
    *("errors", "extras", "files", "settings", "stats", "shelf", "origins", "assets", "caches"),
    *("pools", "students", "steps", "grading", "scoring", "cluster", "selection", "sampling"),
    *("training", "evaluation", "report", "cli", "paper"),
)
# Nothing of these may be named where the tool is: they belong to the replication.
PAPER_ONLY = ("champ_dataset", "champ_pool", "load_profile")


@cache
def imports_of(source: str, package: str) -> list[tuple[int, str]]:
    """Line and full name of everything that a file imports from `lalp`, also inside functions.

    A name that is imported from a package may be a module of it: then the module counts.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, name) for name in names if name.split(".")[0] == "lalp"]
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "lalp").rglob("*.py"))}


def home(name: str) -> str:
    """The module that an imported name lives in."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def edges(modules: dict[str, str]) -> list[tuple[str, int, str]]:
    """Importing module, line and imported module, of every import inside the project."""
    return [
        (module, line, home(name))
        for module, source in modules.items()
        for line, name in imports_of(source, module.rpartition(".")[0] or module)
    ]


def layer(module: str) -> int:
    """The place of a module's room; -1 for the package's own front door, which forwards."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 else -1


def faults(modules: dict[str, str]) -> list[str]:
    """Every import that goes up, and every circle, in words."""
    found = edges(modules)
    wrong = [
        f"{module}, line {line}: imports {other}, which stands above it"
        for module, line, other in found
        if module != "lalp" and other != "lalp" and layer(other) > layer(module)
    ]
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, _, other in found:
        # A package's front door is run before its rooms, whoever enters one.
        if other != module and module != "lalp":
            graph[module].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append("a circle: " + " -> ".join(reversed(error.args[1])))
    return wrong


SOURCES = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}


def test_every_room_is_known():
    assert {module.split(".")[1] for module in MODULES if "." in module} <= set(LAYERS)


def test_imports_go_down_only_and_in_no_circle():
    assert faults(SOURCES) == []


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("lalp.steps.sentences", "from lalp.paper.champ import champ", "imports lalp.paper.champ"),
        ("lalp.files", "from lalp.pools.pool import Pool", "imports lalp.pools.pool"),
        ("lalp.students.student", "import lalp.scoring.run", "imports lalp.scoring.run"),
        ("lalp.scoring.windows", "from lalp.scoring import run", "a circle: "),
    ],
)
def test_a_wrong_import_is_named_with_its_line(module, line, message):
    lines = SOURCES[module].splitlines()
    first = next(i for i, text in enumerate(lines) if text.startswith(("import", "from"))) + 1
    broken = "\n".join([*lines[:first], f"def late() -> None:\n    {line}", *lines[first:]])
    found = faults(SOURCES | {module: broken})
    assert any(message in fault for fault in found)
    # An import that goes up may close a circle too: nothing else is said.
    assert len(found) <= 2


def test_the_tool_does_not_know_what_belongs_to_the_replication():
    tool = {m: s for m, s in SOURCES.items() if not m.startswith("lalp.paper")}
    named = [(module, name) for module, text in tool.items() for name in PAPER_ONLY if name in text]
    assert named == []


def test_the_command_starts_without_the_replication_and_without_torch():
    code = (
        "import sys, lalp.cli.app\n"
        "late = [m for m in sys.modules if m.startswith(('lalp.paper', 'torch', 'transformers'))]\n"
        "assert not late, late\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_file_is_too_long_to_read():
    lengths = {module: len(text.splitlines()) for module, text in SOURCES.items()}
    assert {module: n for module, n in lengths.items() if n > 650} == {}
