"""The folder of a training run: identity, lock, checkpoints."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from lalp.errors import InputError
from lalp.files import file_digest, write_json

log = logging.getLogger("lalp")


RUN, LOG, HELD_OUT = "run.json", "training_log.csv", "held_out.csv"
MANIFEST = "manifest.json"


def speaks() -> bool:
    """Whether this is the process that writes files and messages."""
    return PartialState().is_main_process


# --- folders --------------------------------------------------------------------------------


def partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextmanager
def open_folder(out: Path, identity: dict[str, Any]) -> Iterator[tuple[bool, str | None]]:
    """Whether the run is finished, and the checkpoint to go on from; the same in all processes.

    The main process alone looks and writes; a lock keeps a second run out.
    """
    found: list[Any] = [None, None]
    lock = None
    try:
        if speaks():
            try:
                found, lock = _look(out, identity)
            except InputError as error:
                found = [None, str(error)]
        if PartialState().num_processes > 1:
            broadcast_object_list(found)
        if found[0] is None:
            raise InputError(found[1])
        yield tuple(found)
        PartialState().wait_for_everyone()
    finally:
        if lock is not None:
            os.close(lock)


def _look(out: Path, identity: dict[str, Any]) -> tuple[list[Any], int | None]:
    """What `open_folder` yields, and the lock."""
    if _holds_run(out, identity):
        shutil.rmtree(partial(out), ignore_errors=True)  # of a run killed while it cleaned up
        return [True, None], None
    lock = _lock(partial(out))
    try:
        if _holds_run(out, identity):  # finished by another process in between
            shutil.rmtree(partial(out), ignore_errors=True)
            return [True, None], lock
        return [False, _find_checkpoint(partial(out), identity)], lock
    except BaseException:
        os.close(lock)
        raise


def _holds_run(out: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds this run, finished; anything else in it is refused."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    _check_identity(out, identity, "another run")
    return True


def _check_identity(folder: Path, identity: dict[str, Any], what: str) -> None:
    try:
        found = dict(json.loads((folder / RUN).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{folder}: exists and is no folder of lalp train: give another folder"
        ) from None
    differs = [key for key, value in identity.items() if found.get(key) != value]
    if differs:
        raise InputError(
            f"{folder}: holds {what} (another {', '.join(differs)}): delete it, or give another "
            "folder"
        )


def _lock(folder: Path) -> int:
    """Make the folder and keep other runs out of it; the lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InputError(
            f"{folder}: another process is training into it: wait for it, or give another folder"
        ) from None
    return lock


def _find_checkpoint(folder: Path, identity: dict[str, Any]) -> str | None:
    """The newest sound checkpoint of this run; damaged ones are reported and removed."""
    if not (folder / RUN).exists():
        if any(path.name != "lock" and path.suffix != ".tmp" for path in folder.iterdir()):
            raise InputError(f"{folder}: is no folder of lalp train: delete it or rename it")
        write_json(folder / RUN, {"run": identity})
        return None
    _check_identity(folder, identity, "another run, unfinished")
    for path in checkpoints(folder):
        problem = _damage(path)
        if problem is None:
            return str(path)
        log.warning("%s cannot be used (%s): going on from before it", path.name, problem)
        shutil.rmtree(path)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(numbered, key=lambda path: int(path.name[11:]), reverse=True)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        digests = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            if file_digest(checkpoint / name) != digest:
                return f"{name} is damaged"
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (ValueError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None
