"""Read pools and prompts; errors name file, line and field."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import not_found
from lalp.pools.importing import import_pool
from lalp.pools.lines import fits_memory, numbered_records
from lalp.pools.pool import Pool, Prompt
from lalp.pools.records import build_pool
from lalp.pools.tables import parquet_records


def load_pool(source: str | os.PathLike | pd.DataFrame | Iterable[Mapping[str, Any]]) -> Pool:
    """Read a pool and check every record; `lalp.pools.pool` lists the fields.

    What is laid out in another known way (`layouts.yaml`) is read as well, and the layout's name is
    logged; `lalp.pools.importing.import_pool` takes a mapping, a teacher's name, and bad rows.

    In a table (Parquet, DataFrame) a null cell means that the record lacks the field. Numbers and
    booleans given as ``answer`` are taken as text; a blank answer counts as absent. ``left_out``
    counts a file's blank lines. InputError at the first record that cannot be used, with its file,
    line and field.

    Args:
        source: A file (JSON lines, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, each also ``.gz``
            or ``.zst``), a folder, a data set of the hub as ``OWNER/NAME:SPLIT``, a DataFrame, or
            records.

    Example:
        >>> record = {"prompt_id": "p", "prompt": "2 + 2?", "teacher": "Ada", "response": "4."}
        >>> load_pool([record, record | {"teacher": "Bob"}]).responses[1].response_id
        'p/Bob/0'
    """
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    is_known = isinstance(source, str | pd.DataFrame | Iterable)
    if not is_known or isinstance(source, Mapping | bytes):
        kind = type(source).__name__
        readable = "a path, a DataFrame, or a sequence of records"
        raise InputError(f"cannot read a pool from {kind}: give {readable}")
    with fits_memory(source) if isinstance(source, str) else nullcontext():
        return import_pool([source])


def is_parquet(path: Path) -> bool:
    """Whether a pool to write is a Parquet file, by its name, and not JSONL; others are refused."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json-lines", ".parquet"):
        known = ".jsonl, .json-lines or .parquet"
        raise InputError(f"{path}: a pool is {known}, not '{suffix}'; convert or rename the file")
    return suffix == ".parquet"


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts: JSONL or Parquet with ``prompt_id``, ``prompt`` and optionally ``answer``.

    The prompts of a pool file are read too, each once. Errors are those of `load_pool`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {not_found(path)}")
    is_table = path.suffix.lower() == ".parquet"
    unit = "row" if is_table else "line"
    with fits_memory(path):
        records = parquet_records(path) if is_table else numbered_records(path, "a file of prompts")
        return list(_prompts(path, list(records), unit).values())


def _prompts(path: Path, rows: list[tuple[int, Any]], unit: str) -> Mapping[str, Prompt]:
    """Prompts by id, from the rows of a file."""
    if not rows:
        raise InputError(f"{path}: no prompts")
    first: dict[str, int] = {}
    for place, (number, row) in enumerate(rows):
        if isinstance(row, dict) and not {"response", "messages"} & row.keys():
            prompt_id = row.get("prompt_id")
            if isinstance(prompt_id, str) and first.setdefault(prompt_id, number) != number:
                taken = f"prompt_id {prompt_id!r} is already taken by {unit} {first[prompt_id]}"
                raise InputError(f"{path}, {unit} {number}: {taken}; give each prompt its own")
            # A prompt alone is given what a pool's record has besides: one check serves both.
            rows[place] = number, {"teacher": "none", "response": "none"} | row
    return build_pool(rows, str(path), unit).prompts
