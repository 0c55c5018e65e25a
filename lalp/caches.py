"""What is kept in the cache folder: which kinds there are, how large they are, how they go.

Everything here can be made again from its source, at the price of time. What a folder holds that is
not named as these kinds name theirs is somebody else's: it is neither counted nor removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lalp.errors import InputError, did_you_mean
from lalp.files import LEFTOVER, cache_dir, remove_unused

_RUN = r"[0-9a-f]{20}"  # a folder named by all that decides its numbers
_TEXTS = r"[0-9a-f]{32}"
KINDS = {
    "scores": re.compile(_RUN),
    "samples": re.compile(rf"{_RUN}|grades(-\w+)?\.jsonl"),
    "students": re.compile(r".+-[0-9a-f]{12}-v\d+"),  # converted from GGUF
    "embeddings": re.compile(rf"{_TEXTS}\.npz"),
    "selftests": re.compile(rf"{_RUN}\.json"),
    "llm_steps": re.compile(rf"{_TEXTS}\.json"),
}
"""Folders of the cache, and the pattern of the names in each."""


@dataclass(frozen=True)
class Kept:
    """What is kept of one kind, or was removed."""

    kind: str
    number: int  # files or folders that are made and removed as a whole
    size: int  # bytes
    last_use: date | None  # as far as the file system notes when a file was read


def list_caches(kinds: Sequence[str] = ()) -> list[Kept]:
    """What the cache folder keeps of some kinds, or of all.

    Raises:
        InputError: If there is no such kind, or the folder cannot be read.
    """
    return [_sum_up(kind, list(_entries(kind))) for kind in _checked(kinds)]


def clear_caches(kinds: Sequence[str] = ()) -> tuple[list[Kept], list[Path]]:
    """Remove what the cache folder keeps; returns what is gone, and what processes use and stays.

    Raises:
        InputError: If there is no such kind, or something cannot be removed.
    """
    gone, left = [], []
    for kind in _checked(kinds):
        entries = list(_entries(kind))
        measured = {path: _sum_up(kind, [path]) for path in entries}
        removed = [path for path in entries if remove_unused(path)]
        left += [path for path in entries if path not in removed]
        parts = [measured[path] for path in removed]
        uses = [part.last_use for part in parts if part.last_use]
        size = sum(part.size for part in parts)
        gone.append(Kept(kind, len(parts), size, max(uses, default=None)))
    return gone, left


def _checked(kinds: Sequence[str]) -> list[str]:
    """The kinds that are meant, each once; all if none is named."""
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"no kind of cache is called {kind!r}: {did_you_mean(kind, KINDS)}")
    return [*dict.fromkeys(kinds or KINDS)]


def _entries(kind: str) -> Iterator[Path]:
    """Files and folders of a kind; links are left out, for what they lead to lies elsewhere."""
    folder = cache_dir() / kind
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        is_own = KINDS[kind].fullmatch(path.name) or LEFTOVER.search(path.name)
        if is_own and not path.is_symlink() and (path.is_dir() or path.is_file()):
            yield path


def _sum_up(kind: str, entries: Sequence[Path]) -> Kept:
    size, last = 0, 0.0
    for entry in entries:
        for path in [entry, *entry.rglob("*")] if entry.is_dir() else [entry]:
            try:
                found = path.lstat()
            except OSError:  # another process has just removed it
                continue
            size += found.st_size
            # A listing reads folders, which is no use of them.
            if not path.is_dir():
                last = max(last, found.st_mtime, found.st_atime)
    return Kept(kind, len(entries), size, date.fromtimestamp(last) if last else None)
