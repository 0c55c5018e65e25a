"""Find what a name means, tell versions apart, and say why something cannot be loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lalp.errors import InputError
from lalp.files import file_digest


def find_folder(what: str, name: str) -> Path | None:
    """The folder that ``name`` means, or None if it can only be a hub id.

    A path where no folder is is an `InputError` that begins with ``what``.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"{what} {name!r}: no such folder: check the path, or give a hub id")
    return None


def folder_digest(folder: Path, suffixes: Collection[str], *, deep: bool = False) -> str:
    """A sha256 over names and contents of a folder's files that end in one of ``suffixes``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        if path.suffix in suffixes:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(bytes.fromhex(file_digest(path)))
    return digest.hexdigest()


@contextmanager
def unreadable(what: str, name: str, advice: str) -> Iterator[None]:
    """Turn what the libraries raise on damaged files (anything) into one `InputError`.

    It reads ``WHAT 'NAME' cannot be loaded: reason. ADVICE``.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".: ")
        raise InputError(f"{what} {name!r} cannot be loaded: {reason}. {advice}") from error
