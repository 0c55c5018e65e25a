"""Prompts without responses: what models are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lalp.errors import InputError
from lalp.pools.pool import Prompt
from lalp.pools.reading import numbered_records, parquet_records
from lalp.pools.records import build_pool


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts: JSONL or Parquet with ``prompt_id``, ``prompt`` and optionally ``answer``.

    ``prompt`` is a text or a list of messages, as in a pool. A pool file is read too: its prompts,
    each once.

    Raises:
        InputError: At the first record that cannot be used, with its file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    is_table = path.suffix.lower() == ".parquet"
    unit = "row" if is_table else "line"
    rows = list(parquet_records(path) if is_table else numbered_records(path, "a file of prompts"))
    if not rows:
        raise InputError(f"{path}: no prompts")
    return list(build_pool(_with_responses(rows, path, unit), str(path), unit).prompts.values())


def _with_responses(
    rows: Iterable[tuple[int, Any]], path: Path, unit: str
) -> Iterator[tuple[int, Any]]:
    """Give prompts that stand alone what a pool's record needs besides; each may come once."""
    first: dict[str, int] = {}
    for number, row in rows:
        if isinstance(row, dict) and not {"response", "messages"} & row.keys():
            prompt_id = row.get("prompt_id")
            if isinstance(prompt_id, str) and first.setdefault(prompt_id, number) != number:
                raise InputError(
                    f"{path}, {unit} {number}: prompt_id {prompt_id!r} is already taken by {unit} "
                    f"{first[prompt_id]}; give each prompt its own"
                )
            row = {"teacher": "none", "response": "none"} | row
        yield number, row
