"""Commands of a dry run in forks of one process: importing torch takes longer than most of them.

Scripts named as the real programs hand their words to that process and wait. The first command of
each kind runs as the real one does, in a process of its own. This file is also run as a script, by
itself: whoever asks must not import what takes long.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MODULES = {"lalp": "lalp.cli", "accelerate": "accelerate.commands.accelerate_cli", "python": ""}


@contextmanager
def forking(folder: Path) -> Iterator[None]:
    """While the block runs, processes that it starts find in ``PATH`` the programs that ask."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("socket", "new"):
        (folder / name).unlink(missing_ok=True)
    for name in _MODULES:
        script = f'#!/bin/sh\nexec "{sys.executable}" -SE "{__file__}" "{folder}" {name} "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    path = os.environ["PATH"]
    # Threads that wait for each other cost tiny models more than they compute.
    os.environ |= {"PATH": f"{folder}:{path}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "lalp.paper.scale.forks", str(folder)]
    with subprocess.Popen(words, start_new_session=True) as server:
        try:
            while not (folder / "socket").exists():
                if server.poll() is not None:
                    raise RuntimeError("the process that is forked did not start: see above")
                time.sleep(0.05)
            yield
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            os.environ["PATH"] = path
            del os.environ["OMP_NUM_THREADS"]


def ask(folder: str, program: str, words: list[str]) -> int:
    """Have a command run in a fork, with this process's folder and outputs; its exit code."""
    at = words.index("-m") + 1 if "-m" in words else 0
    module, rest = (words[at], words[at + 1 :]) if at else (_MODULES[program], words)
    with suppress(FileExistsError):
        os.close(os.open(f"{folder}/{rest[0]}.first", os.O_CREAT | os.O_EXCL))
        real = ["-m", _MODULES[program]] if _MODULES[program] else []
        os.execv(sys.executable, [sys.executable, *real, *words])
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(f"{folder}/socket")
        socket.send_fds(call, [json.dumps([str(Path.cwd()), module, rest]).encode()], [1, 2])
        # Nothing is answered where the fork was killed.
        return int(call.recv(16) or b"1")


def serve(folder: str) -> None:
    """Import what commands need, then run each that is asked for in a fork."""
    import lalp.cli.app
    import lalp.paper.scale.tables
    import lalp.sampling.samples
    import lalp.scoring.run
    import lalp.training.trainer  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/new")
        server.listen(100)
        Path(folder, "new").rename(f"{folder}/socket")
        while True:
            call, _ = server.accept()
            if os.fork() == 0:
                _answer(call)
            call.close()


def _answer(call: socket.socket) -> None:
    """In a fork: become the command that was asked for, and never return."""
    message, outputs, *_ = socket.recv_fds(call, 1 << 20, 2)
    folder, module, words = json.loads(message)
    code = 1
    try:
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        os.chdir(folder)
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.sendall(str(code).encode())
        os._exit(0)


if __name__ == "__main__":
    sys.exit(ask(*sys.argv[1:3], sys.argv[3:]) if sys.argv[2:] else serve(sys.argv[1]))
