"""Word problems in small: a folder of their own, one thread, a tiny student, everything at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import CHAT_TEMPLATE, build_student

from lalp.files import fingerprint as parse_code
from lalp.paper.arms import grid
from lalp.paper.words import study
from lalp.paper.words.problems import make_problems
from lalp.paper.words.settings import TEACHERS, WordStudy, load_study
from lalp.paper.words.teachers import written_pool
from tests.tiny import train_tokenizer

SMALL = replace(
    load_study((2, 3)), problems=4, held_out=4, measured=2, own_problems=2, own_samples=1,
    samples=2, max_tokens=4, batch=4, epochs=1, seeds=1, seeds_on_gpu=1, workers=1,
)  # fmt: skip


def one_after_another(
    function: Callable, jobs: list, *_: object, after: Callable = lambda: None, **__: object
) -> None:
    for job in jobs:
        function(job)
        after()


# It parses all code, at each look at the missing cells: once is enough here.
fingerprint = cache(parse_code)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    monkeypatch.setattr(study, "run_side_by_side", one_after_another)
    monkeypatch.setattr(grid, "fingerprint", fingerprint)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory) -> Path:
    """A random student that reads word problems, in a folder."""
    problems = make_problems([2, 3], 20, 9)
    texts = [response.text for response in written_pool(problems, TEACHERS, 1, 0).responses]
    texts += [problem.prompt for problem in problems.values()]
    tokenizer = train_tokenizer(texts, 400, CHAT_TEMPLATE)
    student = build_student("llama", tokenizer, num_hidden_layers=1, max_position_embeddings=2048)
    folder = tmp_path_factory.mktemp("students") / "tiny"
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small(tiny_student) -> WordStudy:
    return replace(SMALL, student=str(tiny_student))
