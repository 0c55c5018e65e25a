"""Results of longer runs, committed beside the figures: tables as CSV files, and what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError
from lalp.files import atomic_path, build_dir

_PROVENANCE = "provenance.json"


def save_tables(
    tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any], folder: Path
) -> None:
    """Write a run's tables and, last, its provenance."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.7g")
    with atomic_path(folder / _PROVENANCE) as temporary:
        temporary.write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


def load_tables(
    run: str, names: Sequence[str], command: str, texts: Sequence[str] = ()
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """A committed run's tables and provenance; a ``group`` that is empty is an empty text.

    Args:
        run: Name of its folder in ``figures``.
        names: Of its tables.
        command: That makes it, for the message.
        texts: Columns that are text also where they look like numbers.

    Raises:
        InputError: If there is no such run, or a file of it is missing or damaged.
    """
    folder = _folder(run)
    types = dict.fromkeys(texts, str)
    try:
        tables = {name: pd.read_csv(folder / f"{name}.csv", dtype=types) for name in names}
        provenance = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no results of that run ({error}): run {command}") from error
    return {k: t.fillna({"group": ""}) for k, t in tables.items()}, provenance


def _folder(run: str) -> Path:
    return build_dir().parent / "figures" / run
