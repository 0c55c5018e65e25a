"""Committed results: tables of longer runs, and changes that a run made to the figures' tables.

``python -m lalp.paper.committed --profile cpu`` lists the changes since it was last called.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from typer import Option

from lalp.cli.options import run_main
from lalp.errors import InputError
from lalp.files import atomic_path, cache_dir, write_json, write_text
from lalp.paper import root_dir

_Results = TypeVar("_Results")
_PROVENANCE = "provenance.json"
_TEXTS = b"lalp texts"
# The same run on another machine may be this far off (nats, the bar of exact scores). The relative
# part is there because tables hold six digits, and the last one may flip.
_SAME = {"atol": 1e-4, "rtol": 1e-5}


def save_results(results: Any, run: str | Path) -> None:
    """Write a run's results, a dataclass of tables, and finally their ``provenance``.

    ``run`` is a folder of ``figures/``, or the whole path of another one.
    """
    folder = _folder(run)
    for name in _tables_of(results):
        table = getattr(results, name)
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.7g"))
    write_json(folder / _PROVENANCE, results.provenance)


def load_results(
    kind: type[_Results], run: str, command: str, texts: Sequence[str] = ()
) -> _Results:
    """The results of a committed run, as a ``kind``; an empty ``group`` is an empty text.

    ``texts`` are columns that stay text even if they look like numbers. If the run is missing or
    damaged, the InputError names the ``command`` that makes it.
    """
    folder, types = _folder(run), dict.fromkeys(texts, str)
    try:
        tables = {
            name: pd.read_csv(folder / f"{name}.csv", dtype=types).fillna({"group": ""})
            for name in _tables_of(kind)
        }
        provenance = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no results of that run ({error}): run {command}") from error
    return kind(**tables, provenance=provenance)


def write_table(path: Path, frame: pd.DataFrame, texts: str) -> None:
    """Write a table as Parquet, with a note of the texts and settings that it was made of."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    said = (table.schema.metadata or {}) | {_TEXTS: texts.encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as made:
        pq.write_table(
            table.replace_schema_metadata(said), made, compression="zstd", compression_level=19
        )


def made_of(path: Path) -> str:
    """The note of a table that `write_table` wrote; empty if there is none."""
    return (pq.read_schema(path).metadata or {}).get(_TEXTS, b"").decode()


def _folder(run: str | Path) -> Path:
    return root_dir() / "figures" / run


def _tables_of(results: Any) -> list[str]:
    return [field.name for field in fields(results) if field.name != "provenance"]


def table_moves(before: str, after: str) -> dict[str, str]:
    r"""Columns of a table (CSV) that moved, and by how much; numbers may differ by rounding.

    Example:
        >>> table_moves("name,nats\nA,-1.5\n", "name,nats\nA,-1.50001\n")
        {}
        >>> table_moves("name,nats\nA,-1.5\n", "name,nats\nA,-1.75\n")
        {'nats': '1 of 1 cells, by 0.25 at most'}
    """
    try:
        old, new = (
            pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
            for text in (before, after)
        )
    except ValueError:
        return {"all columns": "one of the tables cannot be read"}
    if list(old) != list(new) or len(old) != len(new):
        return {"all columns": f"{len(new)} rows of {len(new.columns)} columns"}
    moves = {}
    for column in old:
        first, second = (pd.to_numeric(t[column], errors="coerce") for t in (old, new))
        moved = (old[column] != new[column]) & ~np.isclose(second, first, **_SAME)
        if moved.any():
            most = (second - first)[moved].abs().max()
            how = "as text" if np.isnan(most) else f"by {most:.3g} at most"
            moves[column] = f"{moved.sum()} of {len(moved)} cells, {how}"
    return moves


def note_moves(name: str, moves: Mapping[str, str], profile: str) -> None:
    """Record the changes in a figure's table for the list at the end of the run."""
    write_json(cache_dir() / profile / "moved" / f"{name}.json", moves)


def main(profile: Annotated[str, Option(help="The run to ask.")] = "cpu") -> None:
    """List the changes in committed tables, once."""
    for path in sorted((cache_dir() / profile / "moved").glob("*.json")):
        print(f"figures/{path.stem}.csv has moved:")
        for column, how in json.loads(path.read_text(encoding="utf-8")).items():
            print(f"  {column}: {how}")
        path.unlink()


if __name__ == "__main__":
    run_main(main)
