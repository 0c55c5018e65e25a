"""Prompts without responses: what models are asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError
from lalp.pools.pool import Prompt, build_pool
from lalp.pools.reading import jsonl_records


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
    if path.suffix.lower() == ".parquet":
        unit, rows = "row", enumerate(_parquet_rows(path), 1)
    else:
        unit, rows = "line", jsonl_records(path, Counter())
    numbered = list(rows)
    if not numbered:
        raise InputError(f"{path}: no prompts")
    _check_repeats(path, unit, numbered)
    # What a pool needs beside the prompt.
    filled = [
        (n, {"teacher": "none", "response": "none"} | row if _is_bare(row) else row)
        for n, row in numbered
    ]
    return list(build_pool(filled, str(path), unit).prompts.values())


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: broken or not a Parquet file: {reason!r}") from error
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _is_bare(row: Any) -> bool:
    """Whether a record is a prompt without a response."""
    return isinstance(row, dict) and not {"response", "messages"} & row.keys()


def _check_repeats(path: Path, unit: str, rows: Iterable[tuple[int, Any]]) -> None:
    first: dict[str, int] = {}
    for number, row in rows:
        prompt_id = row.get("prompt_id") if _is_bare(row) else None
        if isinstance(prompt_id, str) and first.setdefault(prompt_id, number) != number:
            raise InputError(
                f"{path}, {unit} {number}: prompt_id {prompt_id!r} is already taken by {unit} "
                f"{first[prompt_id]}; give each prompt its own"
            )
