"""A small pool of sums and products, the store of its scores, and tasks of random tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import naive_lalp, separate_pass, spans_of

from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.engine.sequences import Packing, layer_windows
from lalp.scoring.equations import window_starts
from lalp.scoring.groups import Task
from lalp.scoring.windows import Window
from lalp.students.encoding import Encoded
from lalp.students.student import Student

PROMPT_IDS = (5, 17, 250, 9, 33, 4)
WINDOWS = ["1", "25%", "6t", "all"]
QUESTIONS = {"sum": "What is 3 + 4?", "root": "Solve x² = 4.", "product": "What is 3 times 4?"}
RESPONSES = [
    ("sum", "Ada", "We add the two numbers. Then x = 3 + 4. So the sum is 7."),
    ("root", "Ada", "First, factor: (x - 1)(x + 2). Hence x = 2.\n\nOr x = -2. 🙂 Both hold."),
    ("sum", "Bob", "7"),
    ("product", "Bob", "Add 3 four times. That is 3 + 3 + 3 + 3.\n\nTherefore it is 12."),
    ("sum", "Eve", "Let us check. 3 + 4 = 7. Therefore the answer is 7. Done. Indeed."),
    ("root", "Eve", "x is 2 or x is -2. We check both."),
    ("product", "Eve", "The answer is 12. Let us check: 3 * 4 = 12. So the answer is 12."),
]


def make_pool(rows: list[tuple[str, str, str]] = RESPONSES) -> Pool:
    names = ("prompt_id", "teacher", "response")
    return load_pool(
        [
            {"prompt": QUESTIONS.get(row[0], row[0]), "answer": "7" if row[0] == "sum" else None}
            | dict(zip(names, row, strict=True))
            for row in rows
        ]
    )


def packed(student: Student, max_tokens: int = 512, *, in_blocks: bool = False) -> Student:
    """The same student, reading packed sequences."""
    windows = layer_windows(student.model.config.get_text_config())
    return replace(student, laid_out={"packing": Packing(max_tokens, windows, in_blocks)})


def make_task(
    lengths: list[int],
    *,
    seed: int = 0,
    limit: int = 512,
    prompt_ids: tuple[int, ...] = PROMPT_IDS,
) -> Task:
    """Random tokens in steps of these lengths, after those of a prompt."""
    ids = tuple(np.random.default_rng(seed).integers(4, 400, sum(lengths)).tolist())
    offsets = tuple((i, i + 1) for i in range(len(ids)))
    return Task(Encoded(prompt_ids, ids, offsets), spans_of(lengths), limit)


def assert_equals_separate_passes(
    student: Student, task: Task, scores: Mapping[str, float], windows: list[Window]
) -> None:
    """Scores by column against one forward pass per step and window, and one for GALP."""
    prompt, ids = list(task.encoded.prompt_ids), list(task.encoded.response_ids)
    expected = {"galp": separate_pass(student, prompt, ids).mean()}
    for window in windows:
        starts = window_starts(window, task.step_spans)
        lalp = naive_lalp(student, prompt, ids, task.step_spans, starts)
        expected[f"lalp@{window}"] = lalp
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.parquet"))


def rendered(prompt_id: str) -> str:
    return f"<|user|>\n{QUESTIONS[prompt_id]}<|end|>\n<|assistant|>\n"
