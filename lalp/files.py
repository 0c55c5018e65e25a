"""Files that are never half written, digests, and the folder for what is computed."""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import resource
import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lalp.errors import InputError

PACKAGE = Path(__file__).parent
"""The folder of the package: its code, and the data beside it."""

# --- Writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds.

    On any exception the temporary file is removed and ``path`` stays as it was, so a reader never
    sees half a file. The parent folder is made if missing; symbolic links are followed. InputError
    if ``path`` is a folder or a device, or its folder cannot be made.
    """
    given, path = path, Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Arrow, for one, takes no such name
        raise InputError(f"{given}: is not a name in UTF-8; give another path") from None
    if path.exists() and not path.is_file():
        raise InputError(f"{given}: exists and is not a regular file; give another path")
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
    except RuntimeError:
        raise InputError(f"{given}: is a link to itself; give another path") from None
    except OSError as error:
        raise InputError(f"{given}: cannot make its folder: {error.strerror}") from error
    # The name is cut, for the longest file names; .tmp keeps leftovers out of "*.parquet" globs.
    temporary = path.with_name(f"{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole, or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a JSON file whole, or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def locked(path: str | os.PathLike, busy: str) -> Iterator[None]:
    """Keep other processes out while the block runs; the lock ends with the process.

    The file ``path`` stands for the lock and stays where it is. InputError if it cannot be made, or
    (then with ``busy`` as its text) if another process holds the lock.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InputError(busy) from None
    try:
        yield
    finally:
        os.close(lock)


# --- Reading -----------------------------------------------------------------------------------


def check_file(path: str | os.PathLike) -> None:
    """Refuse what cannot be read to its end: a pipe, a device, a file larger than memory.

    What is missing, or a folder, is left to the reader. InputError with the path.
    """
    check_regular(path)
    place = Path(path)
    if not place.is_file():
        return
    size, memory = place.stat().st_size, memory_limit()
    if size > memory:
        sizes = f"has {size / 2**30:,.1f} GiB, more than the memory of {memory / 2**30:,.1f} GiB"
        raise InputError(f"{path}: {sizes}: cut it into several files")


def check_regular(path: str | os.PathLike) -> None:
    """Refuse a pipe or a device: who reads it may wait for ever. InputError with the path."""
    place = Path(path)
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise InputError(f"{path}: is a pipe or a device: save what it holds to a file")


def memory_limit() -> int:
    """Bytes of memory that this process may have: the machine's, or less where it is limited."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return whole if soft == resource.RLIM_INFINITY else min(whole, soft)


# --- Digests -----------------------------------------------------------------------------------


def digest(value: Any, length: int = 20) -> str:
    """Short SHA-256 of a value that JSON can hold; dataclasses count as their fields.

    Example:
        >>> digest({"b": 1, "a": [2]}) == digest({"a": [2], "b": 1})
        True
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_dir() -> Path:
    """The folder for everything computed; it need not exist yet.

    ``LALP_BUILD`` if set; else ``build`` in the nearest folder, from the current one upwards, whose
    ``pyproject.toml`` names the project lalp (so notebooks and the command agree wherever in a
    checkout they run); else ``build`` in the current folder. Always absolute.
    """
    if chosen := os.environ.get("LALP_BUILD"):
        return Path(chosen).expanduser().resolve()
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if _is_project(folder)), here)
    return root / "build"


def read_data(path: str) -> Any:
    """What a YAML file of this package holds, by its path in it.

    Example:
        >>> read_data("grading/words.yaml")["numbers"]["twelve"]
        '12'
    """
    return yaml.safe_load((PACKAGE / path).read_text(encoding="utf-8"))


def fingerprint(*parts: str, root: Path = PACKAGE) -> str:
    """Short hash of the code and data of whole packages or modules, such as ``"scoring"``.

    What is stored under it is computed anew when the code changes. Comments, docstrings and layout
    do not count. ``root`` is the folder of the package `lalp`.
    """
    digests = {}
    for part in parts:
        path = root.joinpath(*part.split("."))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path.with_suffix(".py")]:
            if file.suffix in (".py", ".yaml"):
                digests[file.relative_to(root).as_posix()] = _code(file)
    return digest(digests)


def _code(path: Path) -> str:
    """What Python reads of a file: its syntax tree without docstrings; data as it is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _is_project(folder: Path) -> bool:
    """Whether the folder's ``pyproject.toml`` is this project's."""
    try:
        with (folder / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, ValueError):
        return False
    return isinstance(project, dict) and project.get("name") == "lalp"
