"""Run an untrusted Python program in a bubblewrap sandbox, or not at all.

The kernel enforces every limit but one, so a program cannot outrun it:

==================  ==============================================================================
network             own network namespace, and ``socket()`` is refused (seccomp)
files               a read-only view of ``/usr``, this interpreter and numpy; nothing of a home
                    folder. The one writable folder is a tmpfs of limited size
environment         empty but for a few fixed settings of Python
processes           own pid namespace, which dies with its first process, its caller or its time.
                    ``fork`` is refused by seccomp, and threads are limited by RLIMIT_NPROC
memory              RLIMIT_AS; memory that belongs to no process (memfd, System V, ...) is refused
                    by seccomp
time, files         RLIMIT_CPU, RLIMIT_FSIZE; the caller stops what exceeds wall time or output
==================  ==============================================================================

RLIMIT_NPROC counts per user and does not bind root. So a sandbox started by root runs under its own
uid, picked at random among unused ones. An ordinary user's sandbox runs in a user namespace, whose
processes Linux counts separately (since 5.14; before that, no thread can be started).

If the caller is killed, its sandboxes die with it. While bwrap waits for its own first process
(microseconds), that process may stay behind idle; it has run nothing yet.

The only polled limit is the number of files in the tmpfs (each takes a kilobyte of the kernel's
memory). Other small kernel objects, such as file locks, are limited only by CPU time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import resource
import secrets
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lalp.errors import InputError
from lalp.evaluation.seccomp import seccomp_filter

MIB = 2**20
_PURPOSE = "running generated programs needs a bubblewrap sandbox"
_NOT_WORKING = (
    "user namespaces may be switched off (sysctl kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns), or a container forbids them "
    "(docker run --privileged); --size needs bubblewrap 0.7 or later"
)
_SECONDS_TO_START, _SECONDS_TO_DIE, _SECONDS_TO_POLL = 60, 60, 0.1
_MAX_FILES = 10_000
_OUT_OF_MEMORY = re.compile(rb"MemoryError|std::bad_alloc|[Cc]annot allocate memory")
# No account has these, nor any range that systemd or containers assign.
_FIRST_UID, _NUM_UIDS = 0x7000_0000, 0x0FFF_0000
_NOBODY = "65534"
_THREADS = 16

_ENVIRONMENT = {
    "HOME": "/scratch",
    "TMPDIR": "/scratch",
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the same verdict on every run, even if a set's order matters
    "PYTHONPATH": "/packages",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # every extra arena takes 64 MB of address space
}


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    wall_seconds: float = 12.0  # from the program's start to its end
    cpu_seconds: int = 6
    memory_bytes: int = 2048 * MIB  # address space
    output_bytes: int = 16 * MIB  # for stdout, and as many for stderr
    scratch_bytes: int = 64 * MIB  # for the only writable folder, which is also in memory


@dataclass(frozen=True)
class Run:
    """The outcome of a program."""

    outcome: str  # ok (status 0), runtime error, time limit, memory limit or output limit
    status: int | None  # 128 + n if signal n ended it; None if the caller stopped it
    stdout: bytes  # at most `Limits.output_bytes`, like stderr
    stderr: bytes
    seconds: float  # its wall time, without the sandbox's own


def run_program(source: str, stdin: bytes = b"", limits: Limits | None = None) -> Run:
    """Run a Python program in its own sandbox and wait for its end.

    When this returns, no process, mount or file of the sandbox is left. Several threads may call it
    at once. InputError if bubblewrap is missing, or breaks this module's promises.
    """
    check_sandbox()
    return _run(source, stdin, limits or Limits())


@cache
def check_sandbox() -> None:
    """Check once per process that a sandbox can be made here and confines; InputError if not."""
    run = _run(_PROBE, b"", Limits(wall_seconds=30))
    if run.outcome != "ok":
        raise InputError(f"{_PURPOSE}; it cannot run here: {run.outcome}: {_last_line(run.stderr)}")
    try:
        leaks = json.loads(run.stdout)
    except ValueError:
        leaks = [f"its self-test answered {run.stdout[:80]!r}"]
    if leaks:
        raise InputError(f"{_PURPOSE}; here it does not confine: {', '.join(leaks)}")


# Prints what should be impossible, as a JSON list; starts at most twice the allowed threads.
_PROBE = f"""
import json, os, socket, threading
leaks = []
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
if any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
    leaks.append("it has capabilities")
if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
    leaks.append("system calls are not filtered")
if len(open("/proc/net/dev").read().splitlines()) > 3:
    leaks.append("it has a network")
if os.getuid() == 0:
    leaks.append("it runs as root")
for folder in ("/", "/usr", "/dev", "/dev/shm", "/packages", os.path.dirname(os.__file__)):
    if os.access(folder, os.W_OK):
        leaks.append(f"{{folder}} is writable")
if os.access("/proc/1/mem", os.F_OK):
    leaks.append("it can reach the sandbox's own process")
try:
    socket.socket()
    leaks.append("it can open sockets")
except OSError:
    pass
try:
    if os.fork() == 0:
        os._exit(0)
    leaks.append("it can start processes")
except OSError:
    pass
started, is_over = 1, threading.Event()
try:
    for _ in range({2 * _THREADS}):
        threading.Thread(target=is_over.wait).start()
        started += 1
except RuntimeError:
    pass
is_over.set()
if started > {_THREADS}:
    leaks.append("the number of threads is not limited")
print(json.dumps(leaks))
"""


def _run(source: str, stdin: bytes, limits: Limits) -> Run:
    with ExitStack() as stack:
        sandbox = _make(stack, source, stdin, limits)
        texts = {file: bytearray() for file in sandbox.outputs}
        init, started, stopped = None, False, None
        try:
            init = _first_process(stack, sandbox)
            # Python asks whether its caller still lives; if it never starts, no question comes.
            sandbox.gate.settimeout(_SECONDS_TO_START)
            with contextlib.suppress(OSError):
                started = bool(sandbox.gate.recv(1) and sandbox.gate.send(b"!"))
            start = time.monotonic()
            if started:
                stopped = _watch(sandbox, init, texts, start + limits.wall_seconds, limits)
            seconds = time.monotonic() - start
        finally:
            _end(sandbox.process, init)
        # All writers are dead, so their pipes already hold the last output.
        for file, text in texts.items():
            while len(text) <= limits.output_bytes and (chunk := os.read(file, 2**16)):
                text += chunk
            if len(text) > limits.output_bytes:
                stopped = "output limit"
                del text[limits.output_bytes :]
    status, (out, err) = sandbox.process.returncode, map(bytes, texts.values())
    if not started:
        raise InputError(f"{_PURPOSE}; none can be made here: {_last_line(err)}; {_NOT_WORKING}")
    if stopped:
        return Run(stopped, None, out, err, seconds)
    if status < 0:
        raise RuntimeError("a sandbox was killed from outside; is the machine out of memory?")
    return Run(_outcome(status, err, seconds, limits), status, out, err, seconds)


def _outcome(status: int, err: bytes, seconds: float, limits: Limits) -> str:
    """The meaning of the exit status of a program that ended by itself."""
    if status == 0:
        return "ok"
    # The kernel's second signal for CPU time is SIGKILL, which a program can also send itself.
    is_killed = status == 128 + signal.SIGKILL and seconds >= limits.cpu_seconds
    if is_killed or status == 128 + signal.SIGXCPU:
        return "time limit"
    # An allocation fails at the limit, so only the last words tell.
    return "memory limit" if _OUT_OF_MEMORY.search(err[-2048:]) else "runtime error"


def _last_line(text: bytes) -> str:
    return (text.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]


@dataclass(frozen=True)
class _Sandbox:
    """A bwrap that was just started, and the caller's ends of its pipes.

    At ``gate``, Python asks before the program whether its caller is still alive: bwrap's processes
    die with the caller only after their first milliseconds.
    """

    process: subprocess.Popen
    status: int
    gate: socket.socket
    outputs: tuple[int, int]


def _make(stack: ExitStack, source: str, stdin: bytes, limits: Limits) -> _Sandbox:
    uid = _spare_uid()
    program = source.encode("utf-8", "surrogatepass")
    system_calls = seccomp_filter(platform.machine())
    contents = (program, _PRELUDE, system_calls, stdin)
    *files, given = (_memory_file(stack, content) for content in contents)
    gate, far_gate = map(stack.enter_context, socket.socketpair())
    with ExitStack() as far:  # the ends that only the sandbox keeps
        far.enter_context(far_gate)
        pipes = (_pipe(stack, far, uid) for _ in range(3))
        (status, far_status), (out, far_out), (err, far_err) = pipes
        process = subprocess.Popen(
            _command(limits, uid, files, far_status, (far_gate.fileno(), status)),
            stdin=given,
            stdout=far_out,
            stderr=far_err,
            # bwrap must not fail on a status that nobody reads, so it also has the reader's end.
            pass_fds=(*files, far_status, status, far_gate.fileno()),
            env={},
            start_new_session=True,  # Ctrl-C goes to the caller, who then ends the sandbox
        )
    return _Sandbox(process, status, gate, (out, err))


# Python runs it before the program (as sitecustomize).
_PRELUDE = b"""
import os
gate, *others = map(int, os.environ.pop("LALP_GATE", "-1").split())
if gate >= 0:
    answer = b""
    try:
        os.write(gate, b"?")
        answer = os.read(gate, 1)
    finally:
        if not answer:
            os._exit(1)
    for file in (gate, *others):
        os.close(file)
"""


def _memory_file(stack: ExitStack, content: bytes) -> int:
    """A read-only descriptor of bytes in memory.

    Unlike a pipe, it needs no writer while the program runs, and the program can open it again
    (``/dev/stdin``). It is sealed, because a writable one would be memory without a limit.
    """
    with os.fdopen(os.memfd_create("lalp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
        file.write(content)
        file.flush()
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        readable = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, readable)
    return readable


def _pipe(near: ExitStack, far: ExitStack, uid: int | None) -> tuple[int, int]:
    """A pipe's read and write ends; the program may open the write end (``/dev/stdout``)."""
    reader, writer = os.pipe()
    near.callback(os.close, reader)
    far.callback(os.close, writer)
    if uid is not None:
        os.fchown(writer, uid, uid)
    return reader, writer


@dataclass(frozen=True)
class _Init:
    """The first process of a sandbox's pid namespace; all others die with it."""

    pid: int
    pidfd: int


def _first_process(stack: ExitStack, sandbox: _Sandbox) -> _Init | None:
    """Read its id from bwrap; None if bwrap failed before, or if it has already ended."""
    with os.fdopen(os.dup(sandbox.status), "rb") as status:
        line = status.readline()
    if not line.endswith(b"\n"):
        return None
    pid = json.loads(line)["child-pid"]
    try:
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except (ProcessLookupError, FileNotFoundError):
        return None
    # By now its number may belong to another process, which we must not end.
    return _Init(pid, pidfd) if int(parent) == sandbox.process.pid else None


def _watch(
    sandbox: _Sandbox,
    init: _Init | None,
    texts: Mapping[int, bytearray],
    deadline: float,
    limits: Limits,
) -> str | None:
    """Collect output until the program ends (None) or exceeds a limit (the outcome)."""
    ended = os.pidfd_open(sandbox.process.pid)
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        stack.callback(os.close, ended)
        for file in (ended, *texts):
            selector.register(file, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = {key.fd for key, _ in selector.select(min(left, _SECONDS_TO_POLL))}
            for file in ready & texts.keys():
                chunk = os.read(file, 2**16)
                texts[file] += chunk
                if len(texts[file]) > limits.output_bytes:
                    return "output limit"
                if not chunk:
                    selector.unregister(file)
            if ended in ready:
                return None
            if init is not None and _has_too_many_files(init, limits):
                return "memory limit"
    return "time limit"


def _has_too_many_files(init: _Init, limits: Limits) -> bool:
    try:
        scratch = os.statvfs(f"/proc/{init.pid}/root/scratch")
    except OSError:
        return False  # not there yet, or gone
    # While bwrap is still at work, this is the machine's own file.
    is_ours = scratch.f_blocks == limits.scratch_bytes // scratch.f_frsize
    return is_ours and scratch.f_files - scratch.f_ffree > _MAX_FILES


def _end(process: subprocess.Popen, init: _Init | None) -> None:
    """Kill all that is left, and wait until nothing is."""
    process.kill()  # the first process dies with it (--die-with-parent) ...
    if init is not None:  # ... unless it is too young to know that
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        # Readable when it is dead, and it dies after every process of its namespace.
        if not select.select([init.pidfd], [], [], _SECONDS_TO_DIE)[0]:
            raise RuntimeError(f"a sandbox's processes cannot be killed within {_SECONDS_TO_DIE} s")
    process.wait()


def _spare_uid() -> int | None:
    """A random unused uid; None if the caller cannot take one (is not root)."""
    if os.geteuid() != 0:
        return None
    uid = _FIRST_UID + secrets.randbelow(_NUM_UIDS)
    # A container's root may have only few uids, but it is not root to the kernel.
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return uid
    return None


def _command(
    limits: Limits, uid: int | None, files: list[int], status: int, gate: tuple[int, ...]
) -> list[str]:
    """The command line: bwrap, then prlimit and (for root) setpriv, which become Python.

    ``files`` are descriptors of bwrap's inputs: the program, its prelude, and the filter.
    """
    program, prelude, system_calls = files
    bwrap, prlimit = _tool("bwrap"), _tool("prlimit")
    become: list[str] = []
    user = ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
    if uid is not None:
        # These capabilities only serve to change the uid. They are gone before Python starts.
        added = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
        user = ["--cap-drop", "ALL", *(word for name in added for word in ("--cap-add", name))]
        become = [_tool("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        become += ["--inh-caps=-all", "--bounding-set=-all", "--"]
    variables = {**_ENVIRONMENT, "LALP_GATE": " ".join(map(str, gate))}
    return [
        *(bwrap, *user),
        *(f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session"),
        *("--json-status-fd", str(status), "--seccomp", str(system_calls)),
        *_view(),
        *("--perms", "0444", "--file", str(prelude), "/packages/sitecustomize.py"),
        *("--perms", "0444", "--file", str(program), "/program.py"),
        *("--perms", "1777", "--size", str(limits.scratch_bytes), "--tmpfs", "/scratch"),
        *("--remount-ro", "/", "--chdir", "/scratch", "--clearenv"),
        *(word for item in variables.items() for word in ("--setenv", *item)),
        *("--", prlimit, *_resource_limits(limits, own_user=uid is not None), "--"),
        *(*become, str(_interpreter()), "-P", "-s", "-B", "/program.py"),
    ]


def _resource_limits(limits: Limits, *, own_user: bool) -> list[str]:
    """Options of prlimit; no limit exceeds the caller's own."""
    wanted = {
        "nproc": _THREADS if own_user else _THREADS + 1,  # in a user namespace bwrap itself counts
        "as": limits.memory_bytes,
        "cpu": limits.cpu_seconds,
        "fsize": limits.scratch_bytes,
        "stack": 64 * MIB,  # deep recursion through C code
        "nofile": 64,
        "memlock": 0,
        "msgqueue": 0,
        "sigpending": 128,
        "core": 1,  # 0 would not keep a crash from the machine's core dump handler
    }
    options = []
    for name, value in wanted.items():
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # First SIGXCPU, which marks a time limit; SIGKILL a second later.
        top = soft + 1 if name == "cpu" and (hard < 0 or soft < hard) else soft
        options.append(f"--{name}={soft}:{top}")
    return options


@cache  # so that the tested tool is the one in use
def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        package = "bubblewrap" if name == "bwrap" else "util-linux"
        advice = f"install {package} (apt install {package}, dnf install {package})"
        raise InputError(f"{_PURPOSE}, and no '{name}' is on the PATH; {advice}")
    return str(Path(path).resolve())


@cache
def _interpreter() -> Path:
    """Python itself, outside any virtual environment."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = Path(sys.base_exec_prefix) / "bin" / name
    return path if path.exists() else Path(sys.executable).resolve()


@cache
def _view() -> tuple[str, ...]:
    """A program's view of the file system: the files that Python needs, read-only."""
    options = ["--ro-bind", "/usr", "/usr", "--perms", "0755", "--dir", "/etc"]
    options += ["--ro-bind-try", *["/etc/ld.so.cache"] * 2]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    try:
        home = Path.home()
    except RuntimeError:  # a user that no file knows, as in some containers
        home = None
    for prefix in sorted({Path("/usr"), Path(sys.base_prefix), Path(sys.base_exec_prefix)}):
        if home is not None and home.is_relative_to(prefix):
            raise InputError(
                f"a sandbox shows programs the folder of Python, and {prefix} holds your home "
                "folder; use a Python that has a folder of its own"
            )
        if not prefix.is_relative_to("/usr"):
            options += _readable_bind(prefix, prefix)
    options += ["--perms", "0755", "--dir", "/packages"]
    numpy = Path(find_spec("numpy").origin).parent
    for folder in (numpy, numpy.with_name("numpy.libs")):
        if folder.is_dir():
            options += _readable_bind(folder, Path("/packages", folder.name))
    options += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    # bwrap's own process has no limits, and an ordinary user's program could write to its memory.
    return (*options, "--perms", "0555", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1")


def _readable_bind(source: Path, target: Path) -> Iterator[str]:
    """Bind a folder whose parents may be closed to other users (``/root``)."""
    for parent in reversed(target.parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(parent))
    yield from ("--ro-bind", str(source), str(target))
