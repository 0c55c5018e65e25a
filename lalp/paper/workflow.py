"""A ``Snakefile`` of the replication, listed or run through Snakemake's own command line."""

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
from typing import Annotated

import typer

from lalp.errors import InputError
from lalp.extras import require
from lalp.files import PACKAGE, locked

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- SNAKEMAKE]", help="Options and targets of snakemake."),
]
"""What commands hand on to Snakemake."""


@dataclass(frozen=True)
class Stage:
    """One unit of work, done or not done as a whole."""

    name: str  # unique; also of its log
    kind: str  # its rule in the Snakefile
    wildcards: Mapping[str, str]
    command: str
    inputs: tuple[str, ...]  # outputs of other stages
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Workflow:
    """The stages of a ``Snakefile`` with some settings, and the folder where their files are."""

    snakefile: str  # in lalp/paper
    root: Path
    config: Mapping[str, str]
    gpus: int  # of this machine, if stages run on it

    def list_stages(self, *words: str) -> list[Stage]:
        """The stages, each after those whose outputs it reads; nothing runs.

        ``words`` are options and targets of Snakemake, which may choose some of the stages.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        said, logger = BufferingHandler(capacity=1_000_000), logging.getLogger("snakemake")
        logger.addHandler(said)
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                found = self._call("--dry-run", "--forceall", *words)
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

    def run(self, *words: str) -> None:
        """Run the stages that are not done yet.

        ``words`` are options and targets of Snakemake, which prints what runs. If a command fails,
        it also prints the command's line and all that it said.
        """
        busy = f"{self.root}: another process runs its stages: wait for it"
        # Snakemake's own lock outlives a killed run.
        with locked(self.root / "lock", busy):
            shown = ("--quiet", "host", "reason", "--show-failed-logs")
            if not self._call("--nolock", *shown, *words):
                advice = "the same command goes on from there"
                raise InputError(f"snakemake stopped (see above): {advice}")

    def _call(self, *words: str) -> bool:
        """Call Snakemake in this process; whether it succeeded."""
        require("scale", "stages of a plan")
        from snakemake.cli import args_to_api, parse_args  # takes a second

        # Commands are those beside this interpreter, also for stages on a cluster.
        programs, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
        if programs not in path.split(os.pathsep):
            os.environ["PATH"] = programs + os.pathsep + path
        options = ["--snakefile", str(PACKAGE / "paper" / self.snakefile)]
        options += ["--directory", str(self.root), "--rerun-incomplete", "--config"]
        options += [f"{name}={value}" for name, value in self.config.items()]
        parser, args = parse_args([*options, *words])
        if args.executor in (None, "local"):
            # On a cluster these would limit all jobs together.
            args.cores = args.cores or len(os.sched_getaffinity(0))
            args.resources.setdefault("gpu", self.gpus)
        return args_to_api(args, parser)
