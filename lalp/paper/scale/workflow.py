"""The ``Snakefile`` of the plan's stages, listed or run through Snakemake's own command line."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from pathlib import Path

from lalp.errors import InputError
from lalp.extras import require
from lalp.files import PACKAGE, locked
from lalp.paper.scale.plan import load_plan


@dataclass(frozen=True)
class Stage:
    """One unit of work, done or not done as a whole."""

    name: str  # unique; also of its log
    kind: str  # its rule in the Snakefile
    wildcards: Mapping[str, str]
    command: str
    inputs: tuple[str, ...]  # outputs of other stages
    outputs: tuple[str, ...]


def list_stages(profile: str, root: str | Path, *words: str, toys: str = "") -> list[Stage]:
    """The stages of a plan, each after those whose outputs it reads; nothing runs.

    ``words`` are options and targets of Snakemake, which may choose some of the stages.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    said, logger = BufferingHandler(capacity=1_000_000), logging.getLogger("snakemake")
    logger.addHandler(said)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            found = _call(profile, root, toys, "--dry-run", "--forceall", *words)
    finally:
        logger.removeHandler(said)
    if not found:
        errors = [record.getMessage() for record in said.buffer if record.levelname == "ERROR"]
        raise InputError("; ".join(errors) or "snakemake cannot list the stages")
    return [
        Stage(
            *(Path(job.log[0]).stem, job.rule_name, dict(job.wildcards), job.shellcmd),
            *(tuple(job.input), tuple(job.output)),
        )
        for job in said.buffer
        if getattr(job, "event", "") == "job_info"
    ]


def run_stages(profile: str, root: str | Path, *words: str, toys: str = "") -> None:
    """Run the stages of a plan that are not done yet, in the folder ``root``.

    ``words`` are options and targets of Snakemake, which prints what runs. If a command fails, it
    also prints the command's line and all that it said.
    """
    # Snakemake's own lock outlives a killed run.
    with locked(Path(root) / "lock", f"{root}: another process runs its stages: wait for it"):
        shown = ("--quiet", "host", "reason", "--show-failed-logs")
        if not _call(profile, root, toys, "--nolock", *shown, *words):
            raise InputError("snakemake stopped (see above): the same command goes on from there")


def _call(profile: str, root: str | Path, toys: str, *words: str) -> bool:
    """Call Snakemake in this process; whether it succeeded."""
    require("scale", "the paper's scale")
    from snakemake.cli import args_to_api, parse_args  # takes a second

    # Snakemake reads it in the run's folder.
    plan = str(Path(profile).absolute()) if profile.endswith(".yaml") else profile
    # Commands are found beside this interpreter, also by stages on a cluster.
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    options = ["--snakefile", str(PACKAGE / "paper/scale/Snakefile"), "--directory", str(root)]
    options += ["--rerun-incomplete", "--config", f"profile={plan}", f"toys={toys}"]
    parser, args = parse_args([*options, *words])
    if args.executor in (None, "local"):
        # On a cluster these would limit all jobs together.
        args.cores = args.cores or len(os.sched_getaffinity(0))
        args.resources.setdefault("gpu", load_plan(profile).gpus)
    return args_to_api(args, parser)
