"""Read pools and prompts; errors name file, line and field."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.pools.importing import import_pool
from lalp.pools.layouts import fits_columns
from lalp.pools.lines import fits_memory
from lalp.pools.pool import Pool, Prompt, located, show
from lalp.pools.records import PoolBuilder, plain_record
from lalp.pools.sources import open_source


def load_pool(source: str | os.PathLike | pd.DataFrame | Iterable[Mapping[str, Any]]) -> Pool:
    """Read a pool and check every record; `lalp.pools.pool` lists the fields.

    Other known layouts (`layouts.yaml`) are read too, and the layout's name is logged;
    `lalp.pools.importing.import_pool` takes a mapping, a teacher's name, and bad rows.

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
    """Whether the name of a pool to write means Parquet, not JSONL; other names are refused."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json-lines", ".parquet"):
        known = ".jsonl, .json-lines or .parquet"
        raise InputError(f"{path}: a pool is {known}, not '{suffix}'; convert or rename the file")
    return suffix == ".parquet"


# Names of a prompt that stands alone, without a response yet.
_ASKED = ("prompt", "problem", "question", "instruction")


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts from any kind of file: ``prompt`` and optionally ``prompt_id`` and ``answer``.

    ``problem``, ``question`` or ``instruction`` is read as ``prompt``; without a ``prompt_id`` it
    is a hash of the prompt. The prompts of a pool, in any layout, are also read, each once. Errors
    are those of `load_pool`.
    """
    with fits_memory(path):
        source = open_source(str(path), any_columns=True)
        rows = iter(source.records)
        first = next(rows, None)
        if first is None:
            raise InputError(f"{path}: no prompts")
        if _asked(first[1]) is None:
            return list(import_pool([str(path)]).prompts.values())
        builder, taken = PoolBuilder(), dict[str, str]()
        for place, row in chain([first], rows):
            with located(f"{path}, {place}"):
                _add_prompt(builder, row, place, taken)
        return list(builder.draft.prompts.values())


def _asked(row: Any) -> str | None:
    """The field of a row that is a prompt without a response; None for other rows."""
    if not isinstance(row, Mapping) or fits_columns(row) or row.get("response") is not None:
        return None
    return next((name for name in _ASKED if row.get(name) is not None), None)


def _add_prompt(builder: PoolBuilder, row: Any, place: str, taken: dict[str, str]) -> None:
    record = plain_record(row)
    name = _asked(record)
    if name is None and record.get("response") is None:
        lacking = ", ".join(map(repr, _ASKED))
        raise InputError(f"there is no {lacking} among {show(list(record), 120)}; name the prompt")
    if name is None:
        builder.add([record], place)
        return
    prompt_id = record.get("prompt_id")
    if isinstance(prompt_id, str) and taken.setdefault(prompt_id, place) != place:
        known = f"prompt_id {prompt_id!r} is already taken by {taken[prompt_id]}"
        raise InputError(f"{known}; give each prompt its own")
    # A prompt alone gets the other fields of a pool's record, so one check serves both.
    record |= {"prompt": record[name], "response": "none", "response_id": place}
    builder.add([record], place, teacher="none")
