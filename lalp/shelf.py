"""Finished work on disk: files of JSON lines that say what they were made by and if they are whole.

A program that was killed reads them and goes on; whatever cannot be trusted is computed anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lalp.errors import reason
from lalp.files import check_file, digest, write_text

log = logging.getLogger("lalp")


def write_records(path: Path, key: str, records: Iterable[Any]) -> None:
    """Write records, one JSON value a line, behind a line with their key and their checksum.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_records(Path(folder, "a.jsonl"), "version 1", [["x", 1], ["y", 2]])
        ...     read_records(Path(folder, "a.jsonl"), "version 1", "computing again")
        [['x', 1], ['y', 2]]
    """
    body = "".join(json.dumps(record) + "\n" for record in records)
    header = json.dumps({"key": key, "sha256": digest(body, 64)})
    write_text(path, f"{header}\n{body}")


def read_records(path: Path, key: str, instead: str) -> list[Any]:
    """Records that `write_records` wrote under the same key; none if the file is missing.

    The key holds everything that decides the records besides what each of them holds. A file that
    is damaged, or was written under another key, is reported and has none; ``instead`` begins the
    report and says what the caller does without it, as "sampling again".
    """
    if not path.exists():
        return []
    try:
        check_file(path)
        header, _, body = path.read_text(encoding="utf-8").partition("\n")
        mark = json.loads(header)
        if mark["key"] != key:
            raise ValueError(f"it was written by others: {mark['key']}")
        if mark["sha256"] != digest(body, 64):
            raise ValueError("it is damaged")
        return [json.loads(line) for line in body.splitlines()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s: %s cannot be used (%s)", instead, path.name, reason(error))
        return []
