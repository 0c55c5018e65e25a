"""Kill runs at random moments, let them go on, and compare the end with an undisturbed run.

``make kills`` runs each command once undisturbed. Then it starts them in turn, kills the whole
process group (SIGKILL) at drawn moments, up to four times in a row, and lets the last run end. Half
of the moments are drawn from the run's whole time. The others are aimed at writing: at one of the
run's changes of files, just before it or 0.03 to 30 ms later. What is judged:

- after each kill: every file is the old one or the final one, byte for byte;
- at the end: all files are those of the undisturbed run, none is missing and none is left over;
- a run that goes on ends well, without finding a file damaged or a lock taken.

Only kills that ended a live process count. Runs are forked from a process that has imported
everything, so that few kills hit an import. The same seed and number draw the same moments.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import secrets
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

# What has threads must not be forked.
os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} if __name__ == "__main__" else {}

import pandas as pd

from tests.fuzz import good
from tests.fuzz.work import import_commands

MOST_KILLS = 4  # of one chain of runs
AIMED = 0.5  # share of kills aimed at a change of a file
LATEST = 0.03  # seconds after it
TIME_LIMIT = 300.0  # of one run, by the clock
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "0"}
OLD = b"what an earlier run wrote\n"
_DRAW = "--max-tokens 24 --temperature 1 --num-samples 2 --batch-size 4 --workers 1 --quiet"
_SCORE = "--window 1 --window 50% --tokens --quiet --store store --out out.parquet"


@dataclass(frozen=True)
class Line:
    """A command, and where its finished work lies, with which a killed run goes on."""

    name: str
    words: str
    finished: str = ""  # none: a killed run begins anew


LINES = (
    Line("score", f"score pool.jsonl --student student {_SCORE}", "store/*/*.parquet"),
    Line("sample", f"sample prompts.jsonl --model student {_DRAW} --store store "
         "--out out.jsonl", "store/*/*.jsonl"),
    Line("train", "train train.jsonl --student student --recipe recipe.yaml --held-out held.jsonl "
         "--save-steps 2 --quiet --out trained", "trained.partial/checkpoint-*/manifest.json"),
    Line("eval", f"eval --model student --benchmark prompts.jsonl {_DRAW} "
         "--store store --out out.parquet", "store/*/*.jsonl"),
    Line("segment", "segment large.jsonl --out out.jsonl"),
    Line("segment (semantic)", "segment some.jsonl --splitter semantic --out out.jsonl",
         "build/embeddings/*"),
    Line("score (GGUF)", f"score some.jsonl --student tiny.gguf {_SCORE}", "build/students/*-v2/*"),
    Line("study (step world)", "", "build/worlds/*/reports/schooling.json"),
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """When a run is killed: so long after its start, or after its ``change``-th change of files."""

    change: int | None
    seconds: float  # 0 after a change: before it


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    code: int  # negative: the signal that ended it
    changes: int
    seconds: float
    said: str


@dataclass
class Chain:
    """What came of one command, killed and started again until it ended."""

    number: int
    line: Line
    kills: list[str] = field(default_factory=list)
    resumed: int = 0  # starts that found finished work
    faults: list[str] = field(default_factory=list)


# --- Running ------------------------------------------------------------------------------------


def make_inputs(folder: Path) -> None:
    """Write what the commands read: pools of responses, prompts, a recipe, two students."""
    folder.mkdir(parents=True)
    good.tiny_student(folder / "student")
    good.tiny_gguf(folder / "student", folder / "tiny.gguf")
    pool = [
        {
            "prompt_id": f"p{i}",
            "prompt": f"What is {i} + {i}?",
            "answer": str(2 * i),
            "teacher": teacher,
            "response": " ".join(f"We add {i} and {j * k}. So x = {i + j}." for j in range(3 + k)),
            "response_id": f"p{i}/{teacher}/0",
        }
        for i in range(12)
        for k, teacher in enumerate(("Ada", "Bob", "Eve"))
    ]
    prompts = [{k: r[k] for k in ("prompt_id", "prompt", "answer")} for r in pool[:24:3]]
    train = [
        {"messages": [{"role": "user", "content": r["prompt"]},
                      {"role": "assistant", "content": r["response"]}]}
        for r in pool[:12]
    ]  # fmt: skip
    large = [r | {"response_id": f"{i}/{r['response_id']}"} for i in range(50) for r in pool]
    held = [record | {"prompt_id": f"h{record['prompt_id']}"} for record in pool[-3:]]
    files = {"pool": pool, "some": pool[:9], "large": large}
    files |= {"prompts": prompts, "train": train, "held": held}
    for name, records in files.items():
        good.write_lines(folder / f"{name}.jsonl", records)
    recipe = good.RECIPE | {"max_length": 256}  # nothing is cut
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in recipe.items()]
    (folder / "recipe.yaml").write_text("".join(lines), encoding="utf-8")
    for name in ("out.jsonl", "out.parquet"):
        (folder / name).write_bytes(OLD)


def run_study() -> None:
    """A small study of step world, its jobs one after another in this process."""
    from lalp.paper.committed import save_results
    from lalp.paper.world import student, study
    from lalp.paper.world.settings import load_study

    def one_after_another(function: Any, jobs: Sequence[Any], *_: Any, **__: Any) -> None:
        for job in jobs:
            function(job)

    study.run_side_by_side, student._BLOCK = one_after_another, 8
    few = {"rules": ["galp", "lalp"], "controls": ["lalp"], "groups": ["rules"], "windows": ["1"]}
    small = replace(load_study("smoke"), pretraining_tokens=1000, problems=3, held_out=3, **few)
    save_results(study.run_world(small), "world_kills")


def run_line(line: Line) -> int:
    """Run a command in this process, as the console script would; its exit code."""
    from lalp.cli import app
    from lalp.scoring import store

    store.FLUSH_SECONDS = 0.0  # or a run this short would have nothing to go on from
    sys.argv = ["lalp", *line.words.split()]
    try:
        app.main() if line.words else run_study()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def watch(folder: Path, report: int, fatal: int | None) -> None:
    """Write a byte for every change of a file that Python begins; before one of them, be killed."""
    count, beginning = 0, f"{folder}/"

    def see(event: str, values: tuple) -> None:
        nonlocal count
        if event == "open":
            if not values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if isinstance(values[0], str | bytes | Path):
            path = os.fsdecode(values[0])
            if os.path.join(folder, path).startswith(beginning):  # noqa: PTH118
                count += 1
                if count == fatal:
                    os.killpg(0, signal.SIGKILL)
                os.write(report, b".")

    sys.addaudithook(see)


def start(line: Line, place: Path, fatal: int | None = None, tag: str = "") -> tuple[int, int]:
    """Fork a run in ``place``; its process, and a pipe with a byte for every change of a file.

    What it says goes to the file that `said` reads.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        _become(line, place, sender, fatal, f"{place}{tag}.said")
    os.close(sender)
    os.set_blocking(receiver, False)
    return child, receiver


def said(place: Path, tag: str = "") -> str:
    """What a run said last; nothing if it was killed before it could."""
    path = Path(f"{place}{tag}.said")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _become(line: Line, place: Path, report: int, fatal: int | None, said: str) -> None:
    """Be the command, in a process group of its own; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        for name, folder in {"HOME": f"{place}.home", "TMPDIR": f"{place}.tmp"}.items():
            Path(folder).mkdir(exist_ok=True)
            os.environ[name] = folder
        os.environ |= _ENVIRONMENT | {"LALP_CACHE": f"{place}/build"}
        out = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        watch(place, report, fatal)
        code = run_line(line)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def run(line: Line, place: Path, moment: Moment | None = None) -> Outcome:
    """Run a command in ``place``; at its moment, if it has one, kill it with all its processes."""
    aimed, later = (moment.change, moment.seconds) if moment else (None, TIME_LIMIT)
    is_before = aimed is not None and not later  # then the run kills itself
    began, changes = time.monotonic(), 0
    child, receiver = start(line, place, aimed if is_before else None)
    due = began + (later if aimed is None else TIME_LIMIT)
    done = 0
    while not done and time.monotonic() < due:
        select.select([receiver], [], [], min(0.01, max(0, due - time.monotonic())))
        with suppress(BlockingIOError):
            changes += len(os.read(receiver, 1 << 16))
        if aimed is not None and not is_before and changes >= aimed:
            due, aimed = time.monotonic() + later, None
        done, status = os.waitpid(child, os.WNOHANG)
    try:
        os.killpg(child, signal.SIGKILL)  # also what a killed run has left running
    except ProcessLookupError:
        if not done:  # it has no group yet
            os.kill(child, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(child, 0)
    with suppress(BlockingIOError):
        changes += len(os.read(receiver, 1 << 16))
    os.close(receiver)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, changes, time.monotonic() - began, said(place))


# --- Judging ------------------------------------------------------------------------------------


def read_files(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {name: _digest(path) for name, path in files.items() if path.is_file()}


def _digest(path: Path) -> str:
    data = path.read_bytes()
    # How long something took by the clock differs in any two runs; nothing else may.
    if path.name in ("training_log.csv", "students.csv"):
        data = pd.read_csv(io.BytesIO(data), dtype=str).drop(columns="seconds").to_csv().encode()
    elif path.name == "schooling.json" or path.name.startswith("gate-"):
        data = json.dumps(json.loads(data) | {"seconds": None}).encode()
    return sha256(data).hexdigest()


_IN_PROGRESS = ("*.tmp", "*.tmp/*", "*.partial/*", "build/worlds/*/arms/*/*")


def is_work_in_progress(name: str, files: dict[str, str]) -> bool:
    """Whether a file may be half written, as nobody reads it before something else says so.

    That is a temporary file; one of a training's unfinished folder, whose checkpoints count once
    they have a manifest; one of an arm's folder, or of a student's before ``schooling.json``.
    """
    folder = Path(name).parent
    is_student = folder.parent == Path("build/worlds")
    return any(fnmatchcase(name, pattern) for pattern in _IN_PROGRESS) or (
        is_student and f"{folder}/reports/schooling.json" not in files
    )


def torn_files(files: dict[str, str], final: dict[str, str]) -> list[str]:
    """What is neither as it was, nor as it will be, when a run has been killed."""
    old = sha256(OLD).hexdigest()
    return [
        f"{name} is neither the old nor the new file"
        for name, found in files.items()
        if found not in (final.get(name), old) and not is_work_in_progress(name, files)
    ]


def differences(files: dict[str, str], final: dict[str, str]) -> list[str]:
    """In what the end differs from that of the undisturbed run."""
    found = [f"{name} is missing" for name in final if name not in files]
    found += [f"{name} is left over" for name in files if name not in final]
    return found + [
        f"{name} differs" for name in files if files[name] != final.get(name, files[name])
    ]


def draw_moments(seed: int, number: int, calm: Outcome) -> list[Moment]:
    """The moments of a chain's kills: the same for the same seed and number."""
    rng = random.Random(f"{seed}/{number}")
    moments = []
    for _ in range(rng.randint(1, MOST_KILLS)):
        is_aimed, share = rng.random() < AIMED, rng.random()
        later = rng.choice((0.0, LATEST * 1000 ** -rng.random()))
        change = 1 + int(share * calm.changes) if is_aimed else None
        moments.append(Moment(change, later if is_aimed else share * calm.seconds))
    return moments


_REPAIRS = ("scoring again", "sampling again", "grading anew", "embedding anew")


def stamps(place: Path, line: Line) -> dict[str, tuple[int, int]]:
    """Which files hold finished work, and what changes if one is written again."""
    paths = {path: path.stat() for path in place.rglob("*") if path.is_file()}
    names = {path.relative_to(place).as_posix(): stat for path, stat in paths.items()}
    pattern = line.finished
    return {n: (s.st_ino, s.st_mtime_ns) for n, s in names.items() if fnmatchcase(n, pattern)}


def run_chain(chain: Chain, moments: Sequence[Moment], place: Path, final: dict[str, str]) -> None:
    """Kill and start a command again, then let it end, and judge what is there each time."""
    for moment in [*moments, None]:
        before = stamps(place, chain.line)
        chain.resumed += bool(chain.kills and before)
        outcome = run(chain.line, place, moment)
        after = stamps(place, chain.line)
        again = [name for name in before if after.get(name, before[name]) != before[name]]
        chain.faults += [f"{name} is made again" for name in again]
        chain.faults += [f"it says: {mark}" for mark in _REPAIRS if mark in outcome.said]
        if moment is None or outcome.code != -signal.SIGKILL:
            break
        where = f"change {moment.change} + " if moment.change else ""
        chain.kills.append(f"{where}{moment.seconds:.3f} s")
        chain.faults += torn_files(read_files(place), final)
    if outcome.code:
        last = outcome.said.strip().splitlines()[-1:] or ["nothing"]
        chain.faults.append(f"it ended with {outcome.code} and said: {last[0][:300]}")
    else:
        chain.faults += differences(read_files(place), final)


@dataclass
class Bench:
    """Runs below a folder, and what each command does undisturbed."""

    folder: Path
    calm: dict[Line, tuple[Outcome, dict[str, str]]] = field(default_factory=dict)

    def lay_out(self, line: Line, name: str = "run") -> Path:
        """A fresh folder with the inputs, in which the command is run."""
        place = self.folder / line.name.replace(" ", "-") / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "inputs", place)
        return place

    def undisturbed(self, line: Line) -> tuple[Outcome, dict[str, str]]:
        """How the command ends if nothing happens, and the files that are there then."""
        if line not in self.calm:
            place = self.lay_out(line)
            outcome = run(line, place)
            if outcome.code:
                raise AssertionError(f"{line.name}, undisturbed: {outcome.said}")
            self.calm[line] = outcome, read_files(place)
        return self.calm[line]

    def chain(self, seed: int, number: int, line: Line, most: int) -> Chain:
        """The chain of a number, of so many kills at most; its folder stays if it failed."""
        outcome, final = self.undisturbed(line)
        place, chain = self.lay_out(line), Chain(number, line)
        run_chain(chain, draw_moments(seed, number, outcome)[:most], place, final)
        if chain.faults:
            place.rename(place.with_name(f"failed-{number}"))
        return chain


def make_bench(folder: Path) -> Bench:
    """A bench in a fresh folder, with inputs; this process gets all that commands import."""
    import_commands(light=False)
    shutil.rmtree(folder, ignore_errors=True)
    in_a_fork(make_inputs, folder / "inputs")
    return Bench(folder)


def run_kills(
    bench: Bench, seed: int, most: int, lines: Sequence[Line] = LINES, case: int | None = None
) -> list[Chain]:
    """Run chains of each command in turn until so many kills have hit, or only that of a number."""
    if case is not None:
        return [bench.chain(seed, case, lines[case % len(lines)], MOST_KILLS)]
    chains = []
    while (left := most - sum(len(chain.kills) for chain in chains)) > 0:
        number = len(chains)
        chains.append(bench.chain(seed, number, lines[number % len(lines)], left))
    return chains


def in_a_fork(function: Any, *arguments: Any) -> None:
    """Run what starts threads in a process of its own: this one is forked again and again."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise AssertionError(f"{function.__name__} failed: exit code {process.exitcode}")


def report(chains: Sequence[Chain], seed: int, seconds: float) -> None:
    """Print a table by command, then every failure and how to see it again."""
    print(f"\n{'command':<20} {'runs':>5} {'kills':>6} {'resumed':>8}  verdict")
    for line in {chain.line: None for chain in chains}:
        own = [chain for chain in chains if chain.line == line]
        kills, wrong = sum(len(c.kills) for c in own), sum(bool(c.faults) for c in own)
        resumed = sum(c.resumed for c in own) if line.finished else "-"
        verdict = f"{wrong} of {len(own)} FAILED" if wrong else "same, bit for bit"
        print(f"{line.name:<20} {len(own):>5} {kills:>6} {resumed:>8}  {verdict}")
    for chain in (chain for chain in chains if chain.faults):
        print(f"\nnumber {chain.number}, {chain.line.name}, killed at {', '.join(chain.kills)}")
        print("".join(f"  {fault}\n" for fault in dict.fromkeys(chain.faults)), end="")
        print(f"  again: make kills SEED={seed} CASE={chain.number}")
    kills, sound = (
        sum(len(c.kills) for c in some)
        for some in (chains, [chain for chain in chains if not chain.faults])
    )
    print(f"\n{sound} of {kills} kills left no trace; {seconds:.0f} s; seed {seed}")


def main() -> int:
    """Run the kills that the command line asks for; exit code 1 if one left a trace."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--n", type=int, default=100, help="kills")
    parser.add_argument("--case", type=int, default=None, help="only the chain of this number")
    parser.add_argument("--folder", type=Path, default=Path("build/kills"))
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    chains = run_kills(make_bench(asked.folder.resolve()), seed, asked.n, case=asked.case)
    report(chains, seed, time.monotonic() - began)
    return int(any(chain.faults for chain in chains))


if __name__ == "__main__":
    sys.exit(main())
