from __future__ import annotations

import pytest

from lalp.students.student import Student


@pytest.fixture(scope="session")
def student_folder(llama: Student, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("students") / "tiny"
    llama.model.save_pretrained(folder)
    llama.tokenizer.save_pretrained(folder)
    return str(folder)
