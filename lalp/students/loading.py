"""Find what a name means, tell versions apart, and say why something cannot be loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lalp.errors import InputError, reason
from lalp.files import check_regular, file_digest

# The deepest models have about two hundred.
MOST_LAYERS = 10_000


def find_folder(what: str, name: str) -> Path | None:
    """The folder that ``name`` means, or None if it can only be a hub id.

    A path where no folder is is an `InputError` that begins with ``what``.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        check_folder(path)
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"{what} {name!r}: no such folder: check the path, or give a hub id")
    return None


def check_folder(folder: Path) -> None:
    """Refuse a model's folder that holds a pipe: a library would wait for it for ever."""
    for path in folder.iterdir():
        check_regular(path)


def check_layers(config: Any) -> None:
    """Refuse a number of layers that no model has: building them would take for ever."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if not isinstance(layers, int) or not 0 <= layers <= MOST_LAYERS:
        raise InputError(f"its configuration says that it has {layers!r} layers")


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
    except InputError as error:
        if str(error).startswith(what):
            raise
        raise InputError(f"{what} {name!r} cannot be loaded: {error}. {advice}") from None
    except BaseException as error:
        # A fault within a library in Rust is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} {name!r} cannot be loaded: {reason(error)}. {advice}") from error
