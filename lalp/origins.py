"""Where a file comes from: which command made it, with what settings, of which inputs.

A Parquet file says it in its own metadata. Beside a JSONL file stands a small one that says it,
with a checksum, so that it is never read for another file of that name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError, reason
from lalp.files import check_file, check_regular, file_digest, not_found, write_json

SUFFIX = ".origin.json"
_MOST = 1 << 26  # bytes
ORIGIN = "origin"  # its key in the attributes of a data frame, and in a Parquet file's metadata


def origin(command: str, inputs: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What made a file; inputs that are files are named with their sha256.

    Example:
        >>> origin("merge", {"pools": "none.jsonl"}, only_correct=True)["settings"]
        {'only_correct': True}
    """
    paths = {
        name: [_input(path) for path in (value if isinstance(value, list) else [value])]
        for name, value in inputs.items()
        if value is not None
    }
    return {"lalp": version("lalp"), "command": command, "inputs": paths, "settings": settings}


def _input(path: str | Path) -> dict[str, str]:
    found = {"path": str(path)}
    return found | ({"sha256": file_digest(path)} if Path(path).is_file() else {})


def write_beside(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Say in a file beside a JSONL file where that comes from."""
    write_json(f"{path}{SUFFIX}", {"sha256": file_digest(path), **facts})


def read_origin(path: str | Path) -> dict[str, Any]:
    """What a file says of where it comes from.

    InputError if there is no such file, it says nothing, or what stands beside it is not its own.
    """
    path = Path(path)
    run = path / "run.json"  # of a trained student
    if not (path.is_file() or run.is_file()):
        advice = "give one that lalp wrote"
        raise InputError(f"{path}: {not_found(path, 'file, nor a folder of lalp train', advice)}")
    place = Path(f"{path}{SUFFIX}")
    if path.is_dir():
        place = run
    elif path.suffix == ".parquet":
        place = path
    try:
        if place != path:
            facts = _facts(place, path)
            return facts if place == run else _of_same_file(facts, path, place)
        return _in_table(path)
    except (pa.ArrowException, OSError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        why = f"what it says of an origin is damaged ({reason(error)})"
        raise InputError(f"{place}: {why}: write {path.name} again") from error


def _in_table(path: Path) -> dict[str, Any]:
    check_file(path)
    metadata = pq.read_schema(path).metadata or {}
    attributes = json.loads(metadata.get(b"PANDAS_ATTRS", b"{}"))
    if ORIGIN.encode() in metadata:
        attributes |= {ORIGIN: json.loads(metadata[ORIGIN.encode()])}
    if not attributes:
        raise InputError(f"{path}: says nothing of its origin: give a file that lalp wrote")
    return attributes


def _facts(place: Path, path: Path) -> dict[str, Any]:
    if not place.exists():
        why = f"nothing says where it comes from, there is no {place.name}"
        raise InputError(f"{path}: {why}: give a file that lalp wrote")
    check_regular(place)
    if place.stat().st_size > _MOST:
        raise InputError(f"{place}: is larger than what lalp writes of an origin: write it again")
    return json.loads(place.read_text(encoding="utf-8"))


def _of_same_file(facts: dict[str, Any], path: Path, place: Path) -> dict[str, Any]:
    if facts.pop("sha256", None) != file_digest(path):
        raise InputError(f"{path}: is not the file that {place.name} describes: it has changed")
    return facts
