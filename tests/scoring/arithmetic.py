"""A small pool of sums and products, and the store of its scores."""

from __future__ import annotations

from pathlib import Path

from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool

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


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.parquet"))


def rendered(prompt_id: str) -> str:
    return f"<|user|>\n{QUESTIONS[prompt_id]}<|end|>\n<|assistant|>\n"
