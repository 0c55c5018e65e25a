"""Run one case under limits, and judge what it did.

Most cases run in a fork of a process that has imported everything; some as real processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from tests.fuzz.cases import Case

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 20.0  # seconds of the processor
CLOCK_LIMIT = 90.0  # seconds by the clock
MEMORY = 3 << 30  # bytes of address space that a case may take beyond what is there at its start
MESSAGE_LIMIT = 1000  # characters of an error

# What a command may make besides its output: the documented stores, and a training's unfinished
# folder, with which a killed run goes on.
_STORES = ("build/",)
_OWN = ("home/", "tmp/")  # looked at apart: nothing may be left in either


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    made: Mapping[str, str] = field(default_factory=dict)  # digests of new or changed files
    lost: tuple[str, ...] = ()
    results: str = ""  # what its outputs hold, comparable


def snapshot(folder: Path) -> dict[str, str]:
    """A digest of every file, link and folder below."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = path.relative_to(folder).as_posix()
        if stat.S_ISLNK(mode):
            found[name] = f"link to {path.readlink()}"
        elif stat.S_ISREG(mode) and path.stat().st_size < 1 << 30:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISDIR(mode):
            found[name + "/"] = ""
        else:
            found[name] = f"mode {mode}, {path.lstat().st_size} bytes"
    return found


def _environment(folder: Path) -> dict[str, str]:
    own = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "LALP_CACHE": folder / "build"}
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {name: str(path) for name, path in own.items()} | quiet | {"COLUMNS": "120"}


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _inside(case: Case) -> int:
    """Run the command in this process, as the console script would; its exit code."""
    from lalp.cli import app

    sys.argv = ["lalp", *case.words]
    try:
        app.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _child(case: Case, folder: Path, real: bool) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.update(_environment(folder))
        for number, name in enumerate(("in", "out", "err")):
            path = "/dev/null" if name == "in" else f"{folder}.{name}"
            flags = os.O_RDONLY if name == "in" else os.O_CREAT | os.O_TRUNC | os.O_WRONLY
            os.dup2(os.open(path, flags), number)
        if real:
            # A limit of address space that leaves room for the libraries themselves.
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY + (6 << 30),) * 2)
            os.environ["PYTHONPATH"] = str(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "lalp.cli", *case.words])
        _limit()
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        import tempfile

        tempfile.tempdir = None
        code = _inside(case)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int) -> tuple[int, float]:
    """The child's exit code and its seconds; it is killed when it has had its time.

    Seconds of the processor, so that a busy machine is not taken for a hang. One that waits for
    something without end uses none: hence a limit by the clock too.
    """
    start = time.monotonic()
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        used = _processor_seconds(child)
        if used > TIME_LIMIT or time.monotonic() - start > CLOCK_LIMIT:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL, max(used, TIME_LIMIT + 1)
        time.sleep(0.01)


def _processor_seconds(child: int) -> float:
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(
    case: Case, good: Path, folder: Path, prepare: Callable[[], None], *, real: bool = False
) -> Outcome:
    """Run a case in ``folder``, which is made of copies of the ``good`` files that it names."""
    _lay_out(case, good, folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        prepare()
    finally:
        os.chdir(here)
    before = snapshot(folder)
    child = os.fork()
    if child == 0:
        _child(case, folder, real)
    code, seconds = _wait(child)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever it left running
    after = snapshot(folder)
    made = {name: after[name] for name in after if before.get(name) != after[name]}
    lost = tuple(name for name in before if name not in after)
    out, err = (Path(f"{folder}.{name}").read_text("utf-8", "replace") for name in ("out", "err"))
    return Outcome(code, out, err, seconds, made, lost, _results(folder, made, out))


def _lay_out(case: Case, good: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("home", "tmp", "build"):
        (folder / name).mkdir(parents=True)
    words = {word.partition("/")[0] for word in case.base.split()}
    for path in good.iterdir():
        if path.name.removesuffix(".origin.json") in words:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)
    if case.file.startswith("build/"):
        copies = good.parent / "stores" / hashlib.sha256(case.base.encode()).hexdigest()[:12]
        shutil.copytree(copies, folder / "build", dirs_exist_ok=True)
        shutil.copytree(good / "foreign", folder / "foreign")


def _results(folder: Path, made: Mapping[str, str], out: str) -> str:
    """What was printed and written, without what differs from run to run."""
    parts = []
    with contextlib.suppress(ValueError):
        printed = json.loads(out)
        if isinstance(printed, dict):
            for name in ("seconds_low", "seconds_high", "basis"):
                printed.pop(name, None)
            printed.pop("left_out", None)  # blank lines are counted
            printed.pop("run", None)
            out = json.dumps(printed, sort_keys=True)
    parts.append(re.sub(r"(?m)^ *\d+  left out: blank line\n", "", out))
    for name in made:
        if name.startswith((*_STORES, *_OWN)) or name.endswith("/"):
            continue
        path = folder / name
        if path.suffix == ".parquet" and path.stat().st_size:
            frame = pq.read_table(path).to_pandas()
            frame = frame.reindex(columns=sorted(frame.columns))
            parts.append(f"{name} {pd.util.hash_pandas_object(frame.astype(str)).sum()}")
        elif path.name == "training_log.csv":
            log = pd.read_csv(path)
            parts.append(log.drop(columns=[c for c in log if "seconds" in c]).to_csv())
        elif name.startswith("trained") or name.endswith(".origin.json"):  # they name the data's
            parts.append(name)
        elif path.name == "train.yaml":  # it names the student's folder
            parts.append(f"{name} {path.read_text().replace(str(folder), '')}")
        else:
            parts.append(f"{name} {_without_order(path) or made[name]}")
    return "\n".join(parts)


def _without_order(path: Path) -> str | None:
    """A digest of JSON, or of JSON lines, that no order of fields changes; None of other files."""
    if path.suffix not in (".json", ".jsonl"):
        return None
    try:
        text = path.read_text("utf-8")
        values = (
            [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.splitlines())
        )
        same = json.dumps(list(values), sort_keys=True)
    except (ValueError, RecursionError, OSError):
        return None
    return hashlib.sha256(same.encode("utf-8", "surrogatepass")).hexdigest()


# --- Judging -----------------------------------------------------------------------------------


def outputs(case: Case) -> tuple[str, ...]:
    """Beginnings of the names that the command may write."""
    # `--out=` and `--out ''` are this folder.
    words = [part for word in case.words for part in word.replace("--out=", "--out ").split(" ", 1)]
    named = [b for a, b in pairwise(words) if a in ("--out", "--rejects")]
    names = [os.path.normpath(name) for name in named]  # none is this folder
    names += [f"{name}.origin.json" for name in list(names)]
    stores = [b for a, b in pairwise(words) if a == "--store"]
    if "." in names:
        names += ["train.json", "dataset_info.json", "train.yaml", "zero3.json"]
    return tuple(
        n for name in (*names, *stores) for n in (name, *_parents(name), f"{name}.partial")
    )


def _parents(name: str) -> list[str]:
    return [f"{parent}/" for parent in Path(name).parents if str(parent) not in (".", "/")]


def faults(case: Case, outcome: Outcome, good: Outcome | None) -> list[str]:
    """Everything that is wrong with an outcome; ``good`` is that of the undamaged line."""
    found = _crashes(outcome) + _touched(case, outcome)
    if found:
        return found
    if outcome.code == 2:
        found += _message(case, outcome)
        if case.expected == "same":
            found.append(f"refused what is sound: {outcome.err.strip()[-300:]}")
    elif case.expected == "refused":
        found.append("read what is not sound")
    elif case.expected in ("same", "kept") and good is not None and outcome.results != good.results:
        found.append(f"another result: {outcome.results[:300]} instead of {good.results[:300]}")
    return found


def _crashes(outcome: Outcome) -> list[str]:
    if outcome.seconds > TIME_LIMIT:
        return [f"no end within {TIME_LIMIT:.0f} s"]
    for mark in ("Traceback (most", "Fatal Python", "panicked at", "terminate called"):
        if mark in outcome.err:
            last = [line for line in outcome.err.splitlines() if line.strip()][-1]
            return [f"{mark} ... {last[:300]}"]
    if outcome.code not in (0, 2):
        return [f"exit code {outcome.code}: {outcome.err.strip()[-300:]}"]
    return []


def _touched(case: Case, outcome: Outcome) -> list[str]:
    """Files that were changed, lost, or made where nothing belongs."""
    mine = outputs(case)
    found = [f"removed {name}" for name in outcome.lost if not name.startswith(_STORES)]
    for name in outcome.made:
        if name.endswith(".tmp") or name.startswith(_OWN):
            found.append(f"left {name}")
        elif name.startswith(_STORES):
            continue
        elif not any(name == own or name.startswith(f"{own}/") for own in mine):
            found.append(f"touched {name}")
        elif outcome.code == 2 and not name.endswith("/") and ".partial" not in name:
            found.append(f"refused, and wrote {name}")
    return found


# Printed by compiled code of the library, of a field in a tokenizer file that it does not know.
_NOISE_OF_TOKENIZERS = re.compile(r"^Ignored unknown kwarg option \w+$", re.MULTILINE)
_NOISE = re.compile(r"^lalp: |^Usage: |^Try |^[╭│╰]|^Error: |^\s*$")


def _message(case: Case, outcome: Outcome) -> list[str]:
    lines = outcome.err.rstrip("\n").split("\n")
    last, found = lines[-1], []
    if strange := [line for line in lines if not _NOISE.match(line)]:
        found.append(f"said in between: {strange[0][:200]}")
    if len(last) > MESSAGE_LIMIT:
        found.append(f"an error of {len(last)} characters: {last[:200]}")
    if not all(line.isprintable() for line in lines):
        found.append(f"an error that no terminal can show: {ascii(last)[:300]}")
    if _NOISE_OF_TOKENIZERS.sub("", outcome.out).strip():
        found.append(f"refused, and printed {outcome.out[:100]!r}")
    name = "build" if case.file.startswith("build/") else case.file
    if "--llm-url" in case.words and "cannot be reached" in last:  # the file was read before
        return found
    if case.file and last.startswith("lalp: ") and Path(name).name not in last:
        found.append(f"names no file: {last[:300]}")
    return found
