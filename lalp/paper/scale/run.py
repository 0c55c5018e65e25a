"""Run the stages of a plan: each once, and again only if its command or its inputs changed.

A finished stage leaves a mark in ``ROOT/stages``: the digest of its command line and of its inputs'
contents, and what it wrote. A killed run continues at the first stage without its mark. The command
of a killed stage finds its own work again (samples, scores, checkpoints). Outputs that were made by
another command or from other inputs are moved to ``ROOT/stale``, never deleted.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lalp.errors import InputError
from lalp.files import atomic_path, digest, file_digest, locked, write_json, write_text
from lalp.paper.scale.stages import Stage
from lalp.pools.pool import located

# How programs are started: with this interpreter, regardless of the path.
_PROGRAMS = {
    "python": (sys.executable,),
    "lalp": (sys.executable, "-m", "lalp.cli"),
    "accelerate": (sys.executable, "-m", "accelerate.commands.accelerate_cli"),
}
_SHOWN_LINES = 20

# Runs a command line: words, file for its standard output or None, file for all its other output.
# Returns its exit code.
Call = Callable[[Sequence[str], Path | None, Path], int]


@dataclass(frozen=True)
class Report:
    """The outcome of a stage."""

    stage: Stage
    state: str  # "done now", "done before" or "nothing to do"
    seconds: float  # that it took, now or earlier
    outputs: tuple[str, ...]  # summary of each output


def choose_stages(stages: Sequence[Stage], patterns: Sequence[str]) -> list[Stage]:
    """The stages with a name or kind that fits a pattern such as ``train-*``; without one, all."""
    names: set[str] = set()
    for pattern in patterns:
        found = {s.name for s in stages if s.kind == pattern or fnmatchcase(s.name, pattern)}
        if not found:
            kinds = ", ".join(dict.fromkeys(stage.kind for stage in stages))
            raise InputError(
                f"no stage is called {pattern!r}: give a name that `plan` prints, a "
                f"pattern like 'train-*', or a kind ({kinds})"
            )
        names |= found
    return [stage for stage in stages if not patterns or stage.name in names]


def call_process(words: Sequence[str], stdout: Path | None, log: Path) -> int:
    """Run a command line as a process, without a shell."""
    program = [*_PROGRAMS.get(words[0], (words[0],)), *words[1:]]
    with log.open("ab") as said, stdout.open("wb") if stdout else nullcontext(said) as out:
        return subprocess.run(program, stdout=out, stderr=said, check=False).returncode


def run_stages(
    stages: Sequence[Stage],
    root: str | Path,
    *,
    call: Call = call_process,
    on_report: Callable[[Report], Any] = lambda report: None,
) -> list[Report]:
    """Run stages in order, with their outputs below ``root``; finished stages are skipped.

    If a command fails, the `InputError` holds its line and the end of its output.
    """
    reports = []
    for stage in stages:
        reports.append(_run_stage(stage, Path(root), call))
        on_report(reports[-1])
    return reports


def adopt_stage(stage: Stage, root: str | Path) -> Report:
    """Accept outputs that were made elsewhere, for example by a server, as a stage's own."""
    with _opened(stage, Path(root)) as (key, _):
        found = tuple(describe_output(path) for path in stage.outputs)
        _write_mark(stage, Path(root), digest=key, seconds=0.0, found=found)
    return Report(stage, "done now", 0.0, found)


def is_done(stage: Stage, root: str | Path) -> bool:
    """Whether a stage's outputs exist and were made by this command from these inputs."""
    if not all(Path(path).exists() for path in stage.inputs):
        return False
    return _holds(_read_json(_mark_path(stage, Path(root))), stage, Path(root))


def _run_stage(stage: Stage, folder: Path, call: Call) -> Report:
    with _opened(stage, folder) as (key, mark):
        if _holds(mark, stage, folder, key):
            return Report(stage, "done before", mark["seconds"], tuple(mark["found"]))
        if mark and mark.get("digest") != key:
            _set_aside(stage, folder, mark["digest"])
        # If this run is killed, the next one knows which stage left the partial outputs.
        write_json(_mark_path(stage, folder), {"digest": key, "began": time.time()})
        began = time.monotonic()
        empty = bool(stage.unless_empty) and Path(stage.unless_empty).stat().st_size == 0
        if empty:
            for path in stage.outputs:
                write_text(path, "")
        else:
            _run_command(stage, folder, call)
        with located(f"stage {stage.name}"):
            found = tuple(describe_output(path) for path in stage.outputs)
        seconds = time.monotonic() - began
        _write_mark(stage, folder, digest=key, seconds=seconds, found=found)
    return Report(stage, "nothing to do" if empty else "done now", seconds, found)


@contextmanager
def _opened(stage: Stage, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keep a second run out of a stage; yields the stage's digest and its mark."""
    missing = [path for path in stage.inputs if not Path(path).exists()]
    if missing:
        raise InputError(
            f"stage {stage.name} reads {missing[0]}, which is not there: run the stages before it "
            "first (run without --stage)"
        )
    busy = f"stage {stage.name}: another process is running it: wait for it"
    with locked(folder / "stages" / f"{stage.name}.lock", busy):
        yield _digest(stage, folder), _read_json(_mark_path(stage, folder))


def _run_command(stage: Stage, folder: Path, call: Call) -> None:
    log = folder / "logs" / f"{stage.name}.log"
    for path in (log, *map(Path, stage.outputs)):
        path.parent.mkdir(parents=True, exist_ok=True)
    line = f"$ {shlex.join(stage.command)}\n"
    log.write_text(line, encoding="utf-8")
    # Printed text becomes an output only when the command has succeeded.
    with atomic_path(stage.stdout) if stage.stdout else nullcontext() as stdout:
        if code := call(stage.command, stdout, log):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
            end = "\n".join(lines[-_SHOWN_LINES:])
            raise InputError(
                f"stage {stage.name} failed with exit code {code}:\n{line}{end}\n"
                f"(all of it: {log}; the next run goes on here)"
            )


def _set_aside(stage: Stage, folder: Path, key: str) -> None:
    """Move aside outputs of another command or from other inputs, finished or not."""
    target = folder / "stale" / f"{stage.name}-{key[:12]}-{time.time_ns()}"
    for path in map(Path, stage.outputs):
        for item in (path, path.with_name(f"{path.name}.partial")):
            if item.exists():
                target.mkdir(parents=True, exist_ok=True)
                item.rename(target / item.name)


# --- outputs ---------------------------------------------------------------


def describe_output(path: str | Path) -> str:
    """Read enough of an output to know that it is complete, and summarize it."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} was not written")
    try:
        if path.is_dir():
            needed = ("config.json", "tokenizer_config.json")
            missing = [name for name in needed if not (path / name).is_file()]
            weights = [item.stat().st_size for item in path.glob("*.safetensors")]
            if missing or not weights:
                raise InputError(f"{path} lacks {', '.join(missing or ['*.safetensors'])}")
            return f"{path.name}: model, {sum(weights) / 1e6:,.1f} MB"
        if path.stat().st_size == 0:
            return f"{path.name}: empty"
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                return f"{path.name}: {file.metadata.num_rows} rows"
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                return f"{path.name}: {sum(json.loads(line) is not None for line in file)} records"
        json.loads(path.read_text(encoding="utf-8"))
        return f"{path.name}: JSON"
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


# --- marks ---------------------------------------------------------------


def _mark_path(stage: Stage, folder: Path) -> Path:
    return folder / "stages" / f"{stage.name}.json"


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a mark; nothing if it is missing or broken: then its stage is not done."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_mark(stage: Stage, folder: Path, **mark: Any) -> None:
    mark |= {"command": [stage.command], "outputs": _signatures(stage, folder)}
    write_json(_mark_path(stage, folder), mark)


def _holds(mark: dict[str, Any], stage: Stage, folder: Path, key: str | None = None) -> bool:
    """Whether the mark says that this stage finished, and its outputs are unchanged since."""
    if mark.get("outputs") != _signatures(stage, folder):
        return False
    return mark["digest"] == (key or _digest(stage, folder))


def _signatures(stage: Stage, folder: Path) -> dict[str, list[list[Any]]]:
    return {_portable(path, folder): _signature(Path(path)) for path in stage.outputs}


def _portable(word: str, folder: Path) -> str:
    """A path inside the run's folder or the package, from whatever folder the command was run."""
    for name, place in (("{root}", folder), ("{lalp}", Path(__file__).parents[2])):
        # Not `resolve`: a link inside the folder may lead out of it, but still belongs to the run.
        path, place = (Path(os.path.normpath(Path.cwd() / item)) for item in (word, place))
        if path.is_relative_to(place):
            return f"{name}/{path.relative_to(place)}"
    return word


def _files(path: Path) -> list[Path]:
    items = path.rglob("*") if path.is_dir() else [path]
    return sorted(item for item in items if item.is_file())


def _signature(path: Path) -> list[list[Any]]:
    """Names, sizes and times of an output's files: changes whenever a file is written."""
    stats = [(item.name, item.stat()) for item in _files(path)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _digest(stage: Stage, folder: Path) -> str:
    """Digest of a stage's command line and of its inputs' contents."""
    inputs = {_portable(path, folder): _content(Path(path), folder) for path in stage.inputs}
    return digest([[[_portable(word, folder) for word in stage.command]], inputs])


def _content(path: Path, folder: Path) -> str:
    """Hash of a file or folder; kept beside its signature, because weights take minutes to read."""
    kept, signature = folder / "stages" / "contents" / f"{digest(str(path))}.json", _signature(path)
    known = _read_json(kept)
    if known.get("signature") != signature:
        files = [[str(item.relative_to(path)), file_digest(item)] for item in _files(path)]
        known = {"signature": signature, "content": digest(files)}
        write_json(kept, known)
    return known["content"]
