"""Files that are never half written, digests, and the folder of caches."""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import resource
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path

from lalp.errors import InputError, close_names, reason

PACKAGE = Path(__file__).parent
"""The folder of the package: its code, and the data beside it."""

# --- Finding -----------------------------------------------------------------------------------


def not_found(path: str | os.PathLike, what: str = "file", advice: str = "check the path") -> str:
    """What to say of a path where nothing is: what is beside it under nearly that name, or advice.

    Example:
        >>> not_found("none.jsonl", advice="make one with lalp score")
        'no such file: make one with lalp score'
    """
    path, names = Path(path), []
    with suppress(OSError, ValueError):
        names = sorted(each.name for each in path.parent.iterdir() if each.name[0] != ".")
    # Endings are left out: all files of a folder may share one.
    stems = close_names(path.stem, [Path(name).stem for name in names], 1, 0.7)
    near = close_names(path.name, [name for name in names if Path(name).stem in stems], 1, 0)
    return f"no such {what}: " + (f"did you mean {path.parent / near[0]}?" if near else advice)


# --- Writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds.

    On any exception the temporary file is removed and ``path`` stays as it was, so a reader never
    sees half a file. The parent folder is made if missing; symbolic links are followed. What killed
    processes left in that folder is removed. InputError if ``path`` is a folder or a device, or
    cannot be written: a full disk, a missing right.
    """
    target = _find_target(path)
    with _temporary(path, target, is_folder=False) as made, writing(path, made, target):
        yield made
        made.replace(target)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for a new folder; if another process is faster, its folder stays."""
    with _temporary(path, path, is_folder=True) as made, writing(path):
        yield made
        try:
            made.rename(path)
        except OSError:
            if not path.is_dir():
                raise


@contextmanager
def writing(place: str | os.PathLike, *files: Path) -> Iterator[None]:
    """Turn whatever a full disk or a missing right makes a library raise into one InputError.

    For blocks that write to ``place``. If ``files`` are given, an OSError that names another file
    is left as it is.
    """
    try:
        yield
    except Exception as error:
        named = getattr(error, "filename", None)
        is_other = bool(files) and named is not None and Path(named) not in files
        if is_other or (why := _why_unwritten(error)) is None:
            raise
        advice = "; make its folder, or give another" if _lacks_folder(error) else ""
        raise InputError(f"{place}: cannot be written: {why}{advice}") from error


def _lacks_folder(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | FileExistsError | NotADirectoryError)


def _why_unwritten(error: Exception) -> str | None:
    """What the system says of a write that failed; None of any other error."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else reason(error)
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # as Rust's libraries say it
        return os.strerror(int(found[1]))
    return "torch says no more: is the disk full?" if "inline_container" in str(error) else None


def _find_target(path: str | os.PathLike) -> Path:
    """The file that a path stands for, its folder made; InputError if none can be there."""
    target = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Arrow, for one, takes no such name
        raise InputError(f"{path}: is not a name in UTF-8; give another path") from None
    with writing(path):
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: exists and is not a regular file; give another path")
    try:
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
    except RuntimeError:
        raise InputError(f"{path}: is a link to itself; give another path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot make its folder: {error.strerror}") from error
    return target


# The name of a temporary file ends with its machine and process: locks may not reach further.
_HOST = re.sub(r"\W", "", os.uname().nodename)[:30]
LEFTOVER = re.compile(rf"\.{_HOST}-\d+-[0-9a-f]{{8}}\.tmp\Z")
_SWEPT: set[Path] = set()  # folders that this process has seen to


@contextmanager
def _temporary(place: str | os.PathLike, target: Path, *, is_folder: bool) -> Iterator[Path]:
    """A new file or folder beside ``target``; a lock on it says that its writer lives."""
    with writing(place):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        made, lock = _make_temporary(target, is_folder)
    try:
        yield made
    finally:
        _remove(made)
        os.close(lock)


def _make_temporary(target: Path, is_folder: bool) -> tuple[Path, int]:
    """Its path and its lock."""
    while True:
        # The name is cut, for the longest file names; .tmp keeps it out of "*.parquet" globs.
        mark = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
        made = target.with_name(f"{target.name[:40]}.{mark}.tmp")
        if is_folder:
            made.mkdir()
        flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            lock = os.open(made, flags, 0o666)
        except FileNotFoundError:
            if is_folder:
                continue
            raise
        # Before it was locked, another process may have taken it for a leftover.
        if _lock(lock) is not False and made.exists():
            return made, lock
        os.close(lock)


def _remove_leftovers(folder: Path) -> None:
    """Once, remove the temporary files of killed processes: those that nobody has locked."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if LEFTOVER.search(path.name)]:
            with suppress(OSError):
                lock = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
                if _lock(lock):
                    _remove(path)
                os.close(lock)


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lock(handle: int) -> bool | None:
    """Whether an open file could be locked; None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


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

    The file ``path`` stands for the lock and stays where it is. InputError if it cannot be made or
    locked there, or (then with ``busy`` as its text) if another process holds the lock.
    """
    path = Path(path)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        if (is_locked := _lock(lock)) is None:
            raise InputError(f"{path}: its file system has no locks: give a folder on another one")
        if not is_locked:
            raise InputError(busy)
        yield
    finally:
        os.close(lock)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep `lalp cache --clear` of other processes from a folder while the block runs.

    The folder is made if missing. Any number of processes may use it at once.
    """
    lock = _share(folder)
    try:
        yield
    finally:
        os.close(lock)


def _share(folder: Path) -> int:
    """A lock on a folder that others may hold too, as an open file."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    # Not where the file system has no locks, nor while the folder is being removed.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return lock


use_until_exit = cache(_share)
"""Like `in_use`, for the life of this process."""


def remove_unused(path: Path) -> bool:
    """Remove a file or folder unless a process has locked it, as it does what it writes or uses.

    Links are not followed: one within a folder is removed, not what it leads to. A link is no file
    or folder here, so nothing happens. InputError if something cannot be removed.
    """
    if path.is_symlink() or not path.exists():
        return False
    with writing(path):
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if _lock(lock) is False:
                return False
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(lock)
    return True


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


def cache_dir() -> Path:
    """The folder for what need not be computed twice; it need not exist yet.

    ``LALP_CACHE`` if set; else ``lalp`` in the folder that this system keeps for a user's caches.
    Always absolute. The replication sets ``LALP_CACHE`` to its own ``build``.
    """
    chosen = os.environ.get("LALP_CACHE")
    return (Path(chosen).expanduser() if chosen else user_cache_path("lalp")).resolve()


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
    """A Python file's syntax tree without docstrings, also those of constants; data as it is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a text alone: it does nothing."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
