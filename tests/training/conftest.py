"""A student in a folder, the command, and LLaMA-Factory's own files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from lalp.students.student import Student
from tests.cli.conftest import lalp

__all__ = ["lalp"]


def save(student: Student, folder: Path) -> str:
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    return str(folder)


def llamafactory_file(name: str) -> Path:
    """A file of LLaMA-Factory, where it is installed."""
    package = find_spec("llamafactory")
    if package is None:
        pytest.skip("LLaMA-Factory is not installed: there is nothing to compare with")
    return Path(package.submodule_search_locations[0], name)
