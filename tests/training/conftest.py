"""A tiny student in a folder, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from lalp.students.student import Student
from tests.cli.conftest import lalp

__all__ = ["lalp"]


def save(student: Student, folder: Path) -> str:
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def folder(llama: Student, tmp_path_factory) -> str:
    return save(llama, tmp_path_factory.mktemp("students") / "tiny")
