"""The files of the pool of long traces: fetched at a pinned commit, or read from a folder."""

from __future__ import annotations

import json
import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pooch

from lalp.errors import InputError, reason
from lalp.files import cache_dir, read_data

FACTS: dict[str, Any] = read_data("paper/traces/traces.yaml")
"""Facts about the pool, from `traces.yaml`."""

_SOURCE = f"{FACTS['repository']} at commit {FACTS['commit']}"
_URL = f"https://raw.githubusercontent.com/{FACTS['repository']}/{FACTS['commit']}/"
_SECONDS = 60  # seconds without a byte after which a server counts as silent

Records = list[dict[str, Any]]


def read_files(folder: str | Path | None = None) -> dict[str, Records]:
    """The records of every file of the pool, by the file's path in the repository.

    Files are read from ``folder``, or the folder in the environment variable TRACES; without both
    they are fetched once and kept in the cache folder. Their SHA-256 is checked either way.

    Raises:
        InputError: If a file is missing, is not the expected one, or cannot be fetched.

    Example:
        >>> files = read_files()  # doctest: +SKIP
        >>> len(files["data/gsm8k.json"])  # doctest: +SKIP
        582
    """
    given = folder or os.environ.get("TRACES")
    if given and not Path(given).is_dir():
        advice = f"give the folder with data/ and response/ of {_SOURCE}"
        raise InputError(f"{given}: no such folder: {advice}, or leave TRACES empty to fetch it")
    records = {}
    for name, digest in FACTS["files"].items():
        path = Path(given) / name if given else _fetch(name, digest)
        records[name] = read_file(path, digest)
    return records


def read_file(path: Path, digest: str) -> Records:
    """The records of a file whose SHA-256 is known; InputError if it is not that file."""
    advice = f"copy it from {_SOURCE}, or leave TRACES empty to fetch it"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}): {advice}") from error
    if (found := sha256(content).hexdigest()) != digest:
        raise InputError(f"{path}: another file (its SHA-256 begins with {found[:12]}): {advice}")
    return json.loads(content)


def _fetch(name: str, digest: str) -> Path:
    """A file in the cache folder; it is fetched if it is missing or incomplete."""
    pooch.get_logger().setLevel(logging.WARNING)  # it logs every file
    folder, advice = cache_dir() / "traces", "go online, or set TRACES to a folder with the files"
    try:
        path = pooch.retrieve(
            _URL + name,
            known_hash=f"sha256:{digest}",
            fname=name.replace("/", "-"),
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_SECONDS),
        )
    except (OSError, ValueError) as error:  # no network, no such page, other bytes, a full disk
        raise InputError(f"{_URL}{name}: cannot be fetched ({reason(error)}): {advice}") from error
    return Path(path)
