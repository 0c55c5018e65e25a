"""Commands of a dry run as forks of its process: importing torch takes longer than most of them.

Scripts named like the real programs hand their words to a forked server and wait. The first command
of each kind runs like the real one, in its own process. This file is also run as a script, by
itself: whoever asks must not import what takes long.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import socketserver
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

_MODULES = {"lalp": "lalp.cli", "accelerate": "accelerate.commands.accelerate_cli", "python": ""}


@contextmanager
def forking() -> Iterator[None]:
    """While the block runs, the programs in ``PATH`` are forks of this process as it is now."""
    # What commands need, so that no fork has to.
    import lalp.cli.app
    import lalp.paper.scale.tables
    import lalp.scoring.run  # noqa: F401

    with TemporaryDirectory() as folder:
        for name in _MODULES:
            script = f'#!/bin/sh\nexec "{sys.executable}" -SE "{__file__}" "{folder}" {name} "$@"\n'
            Path(folder, name).write_text(script)
            Path(folder, name).chmod(0o755)
        server, path = _Server(f"{folder}/socket", _Command), os.environ["PATH"]
        if (pid := os.fork()) == 0:
            os.setsid()
            server.serve_forever()
        os.environ["PATH"] = f"{folder}:{Path(sys.executable).parent}:{path}"
        try:
            yield
        finally:
            os.environ["PATH"] = path
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def ask(folder: str, program: str, words: list[str]) -> int:
    """Have a command run in a fork, with this process's folder and outputs; its exit code."""
    at = words.index("-m") + 1 if "-m" in words else 0
    module, rest = (words[at], words[at + 1 :]) if at else (_MODULES[program], words)
    with suppress(FileExistsError):
        Path(folder, f"{rest[0]}.first").touch(exist_ok=False)
        real = ["-m", _MODULES[program]] if _MODULES[program] else []
        os.execv(sys.executable, [sys.executable, *real, *words])
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(f"{folder}/socket")
        socket.send_fds(call, [json.dumps([str(Path.cwd()), module, rest]).encode()], [1, 2])
        # A fork that is killed answers nothing.
        return int(call.recv(16) or b"1")


class _Command(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """In a fork: become the command that was asked for."""
        message, outputs, *_ = socket.recv_fds(self.request, 1 << 20, 2)
        folder, module, words = json.loads(message)
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        # Anew, because those of the dry run may write elsewhere.
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        sys.argv, code = [module, *words], 1
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        self.request.sendall(str(code).encode())


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    request_queue_size = max_children = 1000
    dry_run = os.getpid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.dry_run:  # it was killed
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(ask(*sys.argv[1:3], sys.argv[3:]))
