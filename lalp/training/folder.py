"""The folder of a training run: its files, its identity, its lock and its checkpoints."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import sort_checkpoints

from lalp.errors import InputError
from lalp.files import file_digest, locked, write_json

log = logging.getLogger("lalp")

# Files of a finished run beside its weights: identity and provenance, log, held-out scores.
RUN_FILE, LOG_FILE, HELD_OUT_FILE = "run.json", "training_log.csv", "held_out.csv"
# In a checkpoint: the digest of each of its files.
MANIFEST_FILE = "manifest.json"


def warn(message: str, *values: Any) -> None:
    """Log a warning once, not in every process."""
    if PartialState().is_main_process:
        log.warning(message, *values)


def unfinished(out: Path) -> Path:
    """The folder of work in progress: ``out`` appears only when it is complete."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def open_folder(out: Path, identity: dict[str, Any]) -> Iterator[tuple[bool, str | None]]:
    """Whether the run is finished, and the checkpoint to resume from; the same in all processes.

    Only the main process looks and writes; a lock keeps a second run out. InputError in all
    processes if ``out`` holds something else or another run is at work.
    """
    with ExitStack() as lock:
        found: list[Any] = [None]
        if PartialState().is_main_process:
            try:
                found = [_look(out, identity, lock)]
            except InputError as error:
                found = [error]  # if raised only here, it would leave the other processes waiting
        (result,) = broadcast_object_list(found)
        if isinstance(result, InputError):
            raise result
        yield result
        PartialState().wait_for_everyone()


def _look(out: Path, identity: dict[str, Any], lock: ExitStack) -> tuple[bool, str | None]:
    """The result of `open_folder`; unless the run is finished, ``lock`` is taken."""
    folder = unfinished(out)
    if not _holds_run(out, identity):
        busy = "another process is training into it: wait for it, or give another folder"
        lock.enter_context(locked(folder / "lock", f"{folder}: {busy}"))
        # Another process may have finished it meanwhile.
        if not _holds_run(out, identity):
            return False, _find_checkpoint(folder, identity)
    shutil.rmtree(folder, ignore_errors=True)  # from a run killed during its clean-up
    return True, None


def _holds_run(folder: Path, identity: dict[str, Any], what: str = "another run") -> bool:
    """Whether a folder exists and holds this run; any other content is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = dict(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, LookupError, TypeError):
        wrong = "exists and is no folder of lalp train: give another folder"
        raise InputError(f"{folder}: {wrong}") from None
    if differs := [key for key, value in identity.items() if found.get(key) != value]:
        held = f"holds {what} (another {', '.join(differs)})"
        raise InputError(f"{folder}: {held}: delete it, or give another folder")
    return True


def _find_checkpoint(folder: Path, identity: dict[str, Any]) -> str | None:
    """The newest sound checkpoint of this run; damaged ones are reported and removed."""
    if not (folder / RUN_FILE).exists():
        if any(path.name != "lock" and path.suffix != ".tmp" for path in folder.iterdir()):
            raise InputError(f"{folder}: is no folder of lalp train: delete it or rename it")
        write_json(folder / RUN_FILE, {"run": identity})
        return None
    _holds_run(folder, identity, "another run, unfinished")
    for path in map(Path, reversed(sort_checkpoints(str(folder)))):
        problem = _damage(path)
        if problem is None:
            return str(path)
        log.warning("%s cannot be used (%s): going on from before it", path.name, problem)
        shutil.rmtree(path)
    return None


def seal_checkpoint(checkpoint: Path) -> None:
    """Record the content of a finished checkpoint's files."""
    (checkpoint / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    digests = {str(path.relative_to(checkpoint)): file_digest(path) for path in files}
    write_json(checkpoint / MANIFEST_FILE, digests)


def _damage(checkpoint: Path) -> str | None:
    """The fault of a checkpoint, if any."""
    try:
        digests = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            if file_digest(checkpoint / name) != digest:
                return f"{name} is damaged"
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (ValueError, AttributeError):
        return f"{MANIFEST_FILE} is damaged"
    return None
