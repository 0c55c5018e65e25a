"""Run the ``Snakefile``, or list its stages, through Snakemake's own command line."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from snakemake.cli import args_to_api, parse_args
from snakemake_interface_logger_plugins.common import LogEvent

from lalp.errors import InputError
from lalp.files import PACKAGE, locked

_HERE = PACKAGE / "paper/scale"
_SHOWN_LINES = 20


@dataclass(frozen=True)
class Stage:
    """One unit of work: it is done or not done as a whole."""

    name: str  # unique; also of its log
    kind: str  # its rule in the Snakefile
    wildcards: Mapping[str, str]
    command: str
    inputs: tuple[str, ...]  # outputs of other stages
    outputs: tuple[str, ...]
    resources: Mapping[str, int] = field(default_factory=dict)
    log: str = ""


class _Listener(logging.Handler):
    """Hears of stages that begin, end and fail, and of whatever else goes wrong."""

    def __init__(self, on_done: Callable[[Stage, float], object]) -> None:
        super().__init__()
        self.on_done = on_done
        self.stages: dict[int, Stage] = {}
        self.began: dict[int, float] = {}
        self.failed: list[tuple[Stage, str]] = []  # and what a cluster says of it
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            self.stages[record.jobid] = _stage_of(record)
            self.began[record.jobid] = time.monotonic()
        elif event == LogEvent.JOB_FINISHED:
            self.on_done(self.stages[record.job_id], time.monotonic() - self.began[record.job_id])
        elif event == LogEvent.JOB_ERROR:
            self.failed.append((self.stages[record.jobid], record.rule_msg or ""))
        elif record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())


def _stage_of(record: logging.LogRecord) -> Stage:
    return Stage(
        name=Path(record.log[0]).stem if record.log else record.rule_name,
        kind=record.rule_name,
        wildcards=dict(record.wildcards),
        command=record.shellcmd,
        inputs=tuple(record.input),
        outputs=tuple(record.output),
        resources=dict(record.resources.items()),
        log=record.log[0] if record.log else "",
    )


def _ignore(stage: Stage, seconds: float) -> None:
    pass


def run_stages(
    profile: str,
    root: str | Path,
    *words: str,
    toys: str = "",
    on_done: Callable[[Stage, float], object] = _ignore,
) -> list[Stage]:
    """Run the stages of a plan that are not done yet, in ``root``; returns those that ran.

    ``words`` are further options and targets of Snakemake. Where a command fails, the `InputError`
    holds its line and the end of what it said.
    """
    with locked(Path(root) / "lock", f"{root}: another process runs its stages: wait for it"):
        return _call(profile, root, words, toys, on_done)


def list_stages(profile: str, root: str | Path, *words: str, toys: str = "") -> list[Stage]:
    """All stages of a plan, each behind those whose outputs it reads; nothing runs."""
    Path(root).mkdir(parents=True, exist_ok=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return _call(profile, root, ("--dry-run", "--forceall", *words), toys, _ignore)


def _call(
    profile: str, root: str | Path, words: Sequence[str], toys: str, on_done: Callable
) -> list[Stage]:
    listener, logger = _Listener(on_done), logging.getLogger("snakemake")
    # Snakemake reads it in the run's folder.
    profile = str(Path(profile).absolute()) if profile.endswith(".yaml") else profile
    # Commands are found where this interpreter's are, also by stages of a cluster.
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    options = ["--snakefile", str(_HERE / "Snakefile"), "--directory", str(root)]
    options += ["--config", f"profile={profile}", f"toys={toys}"]
    options += ["--rerun-incomplete", "--nolock", "--quiet", "all"]
    logger.addHandler(listener)
    try:
        parser, args = parse_args([*options, *words])
        if args.executor in (None, "local"):
            # On a cluster it would limit the cores of all jobs together.
            args.cores = args.cores or len(os.sched_getaffinity(0))
        succeeded = args_to_api(args, parser)
    finally:
        logger.removeHandler(listener)
    if listener.failed:
        raise InputError(_why_failed(*listener.failed[0], Path(root)))
    if not succeeded:
        raise InputError("\n".join(listener.errors) or "snakemake failed: see what it said above")
    return list(listener.stages.values())


def _why_failed(stage: Stage, message: str, root: Path) -> str:
    log = root / stage.log
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    end = "\n".join(lines[-_SHOWN_LINES:])
    return (
        f"stage {stage.name} failed: {message}\n$ {stage.command}\n{end}\n"
        f"(all of it: {log}; the next run goes on here)"
    )
