"""What `test_faults.py` looks at: kills, a full disk, eight processes at once, read-only folders.

``python -m tests.faults.worker FOLDER`` works in FOLDER and prints a report as JSON. The full disk
is what is mounted at ``FOLDER/full``.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import kills
from benchmarks.kills import LINES, Bench, Line, differences, read_files, torn_files
from lalp.origins import SUFFIX

BY_NAME = {line.name: line for line in LINES}
KILLED = [BY_NAME[name] for name in ("score", "sample", "eval")]
# Free bytes of the full disk, in one run after another; then there is room.
FULL = {"score": [60_000], "sample": [16_000], "segment": [60_000], "train": [60_000, 500_000]}
_SHORT = replace(BY_NAME["sample"], words=BY_NAME["sample"].words.replace("tokens 24", "tokens 4"))
CROWDED = [_SHORT, BY_NAME["score (GGUF)"]]
UID = 23456  # of nobody
READ_ONLY = [BY_NAME[name] for name in ("score", "sample", "eval", "train", "segment")]


def fill(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes of a disk free."""
    path = disk / "fill.tmp"
    with path.open("wb", buffering=0) as file:
        status = os.statvfs(disk)
        file.write(bytes(status.f_bavail * status.f_bsize - free))
    return path


def on_a_full_disk(bench: Bench, line: Line, disk: Path) -> dict[str, Any]:
    """Run a command where the space does not suffice, then where it does."""
    _, final = bench.undisturbed(line)
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(bench.folder / "inputs", disk, dirs_exist_ok=True)
    runs = []
    for free in FULL[line.name]:
        filler = fill(disk, free)
        outcome = kills.run(line, disk)
        filler.unlink()
        files = read_files(disk)
        wrong = torn_files(files, final) + [name for name in files if name.endswith(".tmp")]
        runs.append({"code": outcome.code, "said": outcome.said, "wrong": wrong})
    end = kills.run(line, disk)
    wrong = differences(read_files(disk), final)
    return {"runs": runs, "end": {"code": end.code, "said": end.said, "wrong": wrong}}


def eight_at_once(bench: Bench, line: Line) -> dict[str, Any]:
    """Eight processes with one store, two of them for each output."""
    _, final = bench.undisturbed(line)
    place = bench.lay_out(line, "crowded")
    out = line.words.rpartition("--out ")[2].split()[0]
    outs = [out.replace("out", f"out{i % 4}") for i in range(8)]
    started = [
        kills.start(replace(line, words=line.words.replace(out, name)), place, tag=str(i))
        for i, name in enumerate(outs)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in started]
    files = read_files(place)
    tables = [files.pop(name, None) == final[out] for name in dict.fromkeys(outs)]
    for name in outs:
        files.pop(f"{name}{SUFFIX}", None)  # each names its own output
    files |= {name: final[name] for name in (out, f"{out}{SUFFIX}") if name in final}
    said = [kills.said(place, str(i)) for i in range(8)]
    return {"codes": codes, "tables": tables, "wrong": differences(files, final), "said": said}


def in_read_only_folders(bench: Bench) -> dict[str, Any]:
    """Run commands whose outputs and stores lie where an ordinary user may not write."""
    for line in READ_ONLY:
        place = bench.lay_out(line, "read-only")
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        place.parent.chmod(0o777)  # for what the run says
    report = bench.folder / "read-only.json"
    report.touch()
    report.chmod(0o666)
    kills.in_a_fork(_run_as_ordinary_user, bench.folder, report)
    return json.loads(report.read_text())


def _run_as_ordinary_user(folder: Path, report: Path) -> None:
    become_ordinary()
    found = {}
    for line in READ_ONLY:
        place = folder / line.name / "read-only"
        before = read_files(place)
        outcome = kills.run(line, place)
        wrong = [] if read_files(place) == before else ["files were changed"]
        found[line.name] = {"code": outcome.code, "said": outcome.said, "wrong": wrong}
        found[line.name]["may_write"] = os.access(place, os.W_OK)
    report.write_text(json.dumps(found))


def become_ordinary() -> None:
    """Give up all of root's rights but to read: Python may lie where others cannot look."""
    libc, reading = ctypes.CDLL(None), 1 << 2  # CAP_DAC_READ_SEARCH
    libc.prctl(8, 1)  # keep capabilities while the user changes
    with suppress(OSError):  # of those who are not root, or root in their own namespace only
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)(reading, reading, reading))
    libc.prctl(47, 2, 2, 0, 0)  # also for the programs that it starts


def main(folder: Path) -> dict[str, Any]:
    """What happened, by kind of fault."""
    bench, seed = kills.make_bench(folder / "bench"), int.from_bytes(os.urandom(2))
    chains = kills.run_kills(bench, seed, 5, KILLED)
    found = [{"line": c.line.name, "kills": c.kills, "faults": c.faults} for c in chains]
    full = {}
    if (folder / "full").is_mount():
        full = {name: on_a_full_disk(bench, BY_NAME[name], folder / "full") for name in FULL}
    return {
        "seed": seed,
        "kills": found,
        "full": full,
        "crowded": {line.name: eight_at_once(bench, line) for line in CROWDED},
        "read only": in_read_only_folders(bench),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
