"""The sandbox, with programs that try to get out or to use more than they may.

Where the tests run as root, everything is tried as an ordinary user, too: by a helper process that
has dropped all privileges. Every program marks its processes, and none may be left afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import psutil
import pytest

from lalp.errors import InputError
from lalp.evaluation import sandbox
from lalp.evaluation.sandbox import MIB, Limits, Run, check_sandbox, run_program
from lalp.evaluation.seccomp import SYSTEM_CALLS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
ORDINARY_UID = 23456
Runner = Callable[..., Run]

# Runs what it is told, line by line, as whoever it is.
HELPER = """
import base64, json, os, sys
sys.path.insert(0, sys.argv[1])
from lalp.evaluation.sandbox import Limits, run_program
assert os.geteuid() == int(sys.argv[2])
for line in sys.stdin:
    task = json.loads(line)
    run = run_program(task["source"], base64.b64decode(task["stdin"]), Limits(**task["limits"]))
    texts = [base64.b64encode(text).decode() for text in (run.stdout, run.stderr)]
    print(json.dumps([run.outcome, run.status, *texts, run.seconds]), flush=True)
"""


def as_ordinary_user(*command: str) -> list[str]:
    """The command line that runs ``command`` as a user without any privilege (called by root).

    Python may lie below root's home, which others cannot enter: the user sees an empty folder in
    its place, with nothing but Python and the project in it.
    """
    needed = {Path(sys.base_prefix), Path(sys.prefix), ROOT}
    closed = {
        next((p for p in reversed(path.parents) if not p.stat().st_mode & 1), None)
        for path in needed
    }
    options = []
    for folder in sorted(closed - {None}):
        options += ["--perms", "0755", "--tmpfs", str(folder)]
        for path in sorted(path for path in needed if path.is_relative_to(folder)):
            options += sandbox._readable_bind(path, path)
    for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        options += ["--cap-add", name]
    user = [f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"]
    drop = ["setpriv", *user, "--inh-caps=-all", "--bounding-set=-all", "--"]
    return ["bwrap", "--dev-bind", "/", "/", "--cap-drop", "ALL", *options, *drop, *command]


@pytest.fixture(scope="module")
def user_runner() -> Iterator[Runner]:
    command = as_ordinary_user(sys.executable, "-c", HELPER, str(ROOT), str(ORDINARY_UID))
    helper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )

    def run(source: str, stdin: bytes = b"", limits: Limits | None = None) -> Run:
        task = {"source": source, "stdin": base64.b64encode(stdin).decode()}
        helper.stdin.write(json.dumps(task | {"limits": asdict(limits or Limits())}) + "\n")
        helper.stdin.flush()
        outcome, status, out, err, seconds = json.loads(helper.stdout.readline())
        return Run(outcome, status, base64.b64decode(out), base64.b64decode(err), seconds)

    yield run
    helper.stdin.close()
    assert helper.wait(10) == 0


def processes_called(mark: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == mark]


def marked(source: str, mark: str) -> str:
    """Give the program's process a name, which its children and threads inherit."""
    return f"with open('/proc/self/comm', 'w') as _f: _f.write({mark!r})\ndel _f\n{source}"


@pytest.fixture(params=["caller", "ordinary user"])
def run(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """`run_program` as the caller of the tests, and as a user without privileges."""
    if request.param == "ordinary user" and not IS_ROOT:
        pytest.skip("the tests run as an ordinary user already")
    runner = run_program
    if request.param == "ordinary user":
        runner = request.getfixturevalue("user_runner")
    mark = f"t-{secrets.token_hex(6)}"
    mounts = Path("/proc/self/mountinfo").read_text()
    num_files = len(list(Path("/proc/self/fd").iterdir()))
    yield lambda source, *args, **options: runner(marked(source, mark), *args, **options)
    assert processes_called(mark) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert len(list(Path("/proc/self/fd").iterdir())) == num_files
    assert not any(Path(name).exists() for name in ("/scratch", "/program.py", "/packages"))


# --- what a program may do ------------------------------------------------------------------

IGNORES_SIGNALS = """
import os, signal, sys, time
for n in set(signal.valid_signals()) - {9, 19}: signal.signal(n, signal.SIG_IGN)
"""
NUMPY = """
import asyncio, threading
import numpy as np
results = []
threads = [threading.Thread(target=results.append, args=(i,)) for i in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(results), np.arange(4) @ np.arange(4), np.linalg.inv(np.eye(2)).sum())
print(asyncio.run(asyncio.sleep(0, "done")))
"""
FOLDER = """
import os, tempfile
with open("a.txt", "w") as file: file.write("kept")
with tempfile.NamedTemporaryFile("w+") as file: print(file.name.startswith(os.getcwd()))
print(open("a.txt").read(), os.listdir())
"""


@pytest.mark.parametrize(
    ("source", "stdin", "stdout"),
    [
        ("print(input(), open('/dev/stdin').read())", "é\nb".encode(), "é é\nb\n".encode()),
        ("print(1)", b"x" * 5_000_000, b"1\n"),  # nobody reads it
        (NUMPY, b"", b"45 14 2.0\ndone\n"),
        (FOLDER, b"", b"True\nkept ['a.txt']\n"),
        ("import os\nprint(os.listdir())", b"", b"[]\n"),  # it is a new folder every time
        ("import sys\nsys.stdout.buffer.write(bytes(range(256)))", b"", bytes(range(256))),
        ("import sys\nprint(sys.flags.hash_randomization)", b"", b"0\n"),
    ],
    ids=["stdin", "large stdin", "threads and numpy", "folder", "new folder", "no UTF-8", "hashes"],
)
def test_what_a_program_may_do(run: Runner, source: str, stdin: bytes, stdout: bytes):
    result = run(source, stdin)
    assert (result.outcome, result.status, result.stdout) == ("ok", 0, stdout)
    assert 0 < result.seconds < 12


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import sys\nsys.exit(3)", 3),
        ("print(repr(input()))", 1),  # end of file
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
        ("import os\nos.kill(os.getpid(), 9)", 128 + 9),
        # Texts that are no program.
        *(("print(", 1), ("x = 'a\0b'", 1), ("print('\ud800')", 1)),
    ],
)
def test_a_program_that_fails(source: str, status: int):
    result = run_program(source)
    assert (result.outcome, result.status) == ("runtime error", status)


def test_its_traceback_comes_with_it(run: Runner):
    result = run("def f():\n    return 1 / 0\nf()")
    assert (result.outcome, result.status) == ("runtime error", 1)
    assert b"return 1 / 0" in result.stderr and b"ZeroDivisionError" in result.stderr


def test_deep_recursion(run: Runner):
    deep = "import sys\nsys.setrecursionlimit(10**6)\n"
    f = "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
    cached = "import functools\n@functools.cache\n" + f
    assert run(f"{deep}{f}print(f(50_000))").stdout == b"50000\n"
    assert run(f"{deep}{cached}print(f(20_000))").stdout == b"20000\n"
    # Through C code, and without an end: the interpreter may crash, and that is all.
    assert run(f"{deep}{cached}f(10**6)").outcome in ("runtime error", "memory limit")
    endless = "def f(n): return f(n + 1)\nf(0)"
    assert run(deep.replace("6", "5") + endless).outcome == "runtime error"


def test_overhead():
    check_sandbox()
    python = str(sandbox._interpreter())
    alone = timeit.repeat(lambda: subprocess.run([python, "-c", "pass"]), number=1)
    assert min(timeit.repeat(lambda: run_program("pass"), number=1)) < min(alone) + 0.1


# --- time -----------------------------------------------------------------------------------

THREADS = """
import threading
for _ in range(8): threading.Thread(target=lambda: exec("while 1: pass")).start()
"""


@pytest.mark.parametrize(
    "source",
    ["while True: pass", IGNORES_SIGNALS + "while True: pass", THREADS],
    ids=["plain", "ignores signals", "threads"],
)
def test_cpu_time(run: Runner, source: str):
    result = run(source, limits=Limits(wall_seconds=30, cpu_seconds=1))
    assert result.outcome == "time limit"
    assert result.seconds < 29


@pytest.mark.parametrize(
    "source",
    [
        "import time\nprint('early', flush=True)\ntime.sleep(1000)",
        IGNORES_SIGNALS + "print('early', flush=True)\nwhile True: signal.pause()",
        "import os, time\nprint('early', flush=True)\nfor n in range(3): os.close(n)\n"
        "time.sleep(1000)",
        "import os, signal\nprint('early', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import os\nprint('early', flush=True)\nr, w = os.pipe()\nos.read(r, 1)",
        "print('early')\nwhile True: print('x', flush=True)",
    ],
    ids=["sleeps", "ignores signals", "closes its files", "stopped", "waits for itself", "prints"],
)
def test_wall_time(run: Runner, source: str):
    result = run(source, limits=Limits(wall_seconds=0.3))
    assert (result.outcome, result.status) == ("time limit", None)
    assert result.stdout.startswith(b"early\n")
    assert 0.3 <= result.seconds < 2


# --- processes ------------------------------------------------------------------------------

STORM = """
import os, time
started = 1
for _ in range(299):
    try: child = os.fork()
    except OSError: continue
    if child == 0: time.sleep(5); os._exit(0)
    started += 1
print(started)
"""


@pytest.mark.parametrize("processes", [1, 2, 12])
def test_a_fork_storm_stops_at_the_limit(run: Runner, processes: int):
    assert int(run(STORM, limits=Limits(processes=processes)).stdout) == processes


def test_a_storm_that_forks_in_every_child(run: Runner):
    source = """
import os, time
reader, writer = os.pipe()
for _ in range(6):  # 64 processes if nobody stops it
    try: os.fork()
    except OSError: pass
os.write(writer, b"x")
time.sleep(0.3)
if os.getpid() == 2: print(len(os.read(reader, 1000)))
"""
    assert int(run(source, limits=Limits(processes=10)).stdout) <= 10


def test_limits_of_sandboxes_do_not_add_up(run: Runner):
    """As root every sandbox has its own uid, as a user its own namespace."""
    del run  # only for its checks
    with ThreadPoolExecutor(6) as executor:
        runs = executor.map(lambda _: run_program(STORM, limits=Limits(processes=9)), range(6))
        assert [int(result.stdout) for result in runs] == [9] * 6


def test_a_thread_storm_stops_at_the_limit(run: Runner):
    source = """
import threading, time
try:
    for n in range(100): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
except RuntimeError: print(n + 1)
"""
    assert run(source).stdout == b"16\n"


def test_daemons_end_with_the_program(run: Runner):
    daemon = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: print("daemon", flush=True); time.sleep(1000)
    os._exit(0)
time.sleep(0.3)
print("main")
"""
    result = run(IGNORES_SIGNALS + daemon, limits=Limits(processes=4))
    assert (result.outcome, result.stdout) == ("ok", b"daemon\nmain\n")
    assert result.seconds < 5


def test_it_sees_no_other_process(run: Runner):
    source = (
        "import os\nprint(list(filter(str.isdigit, os.listdir('/proc'))), os.listdir('/proc/1'))"
    )
    assert run(source).stdout == b"['1', '2'] []\n"
    source = "import os\nfor n in (1, -1):\n  try: os.kill(n, 9)\n  except OSError: pass\nprint(1)"
    assert run(source).stdout in (b"", b"1\n")  # kill -1 may end itself, as bwrap is not its own


@pytest.fixture
def left() -> Iterator[Callable[[], list[psutil.Process]]]:
    """All living descendants: who loses its parent becomes a child, also before it is a bwrap."""
    before = psutil.Process().children(recursive=True)

    def living() -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)
                elif process not in before:
                    found.append(process)
        return found

    set_subreaper = partial(ctypes.CDLL(None).prctl, 36)  # PR_SET_CHILD_SUBREAPER
    assert set_subreaper(1, 0, 0, 0) == 0
    yield living
    assert set_subreaper(0, 0, 0, 0) == 0


@pytest.mark.parametrize("delay", [*(n / 1000 for n in range(0, 50, 2)), 0.3])
def test_nothing_outlives_a_killed_caller(delay: float, left: Callable[[], list[psutil.Process]]):
    """Killed at any moment of the sandbox's start, and while the program runs."""
    check_sandbox()
    mark = f"k-{secrets.token_hex(6)}"
    program = marked("import os, time\nos.fork()\ntime.sleep(1000)", mark)
    context = multiprocessing.get_context("fork")
    limits = Limits(wall_seconds=60, processes=4)
    caller = context.Process(target=run_program, args=(program, b"", limits))
    caller.start()
    time.sleep(delay)
    while delay >= 0.3 and len(processes_called(mark)) < 2:
        time.sleep(0.05)
    assert delay < 0.3 or len(left()) == 5  # caller, bwrap, its first process, two of the program
    caller.kill()
    caller.join()
    deadline = time.monotonic() + 3
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    # bwrap itself may have been killed in the moment in which its first process waits for it.
    for process in left():
        assert process.children() == []
        assert "Seccomp:\t0" in Path(f"/proc/{process.pid}/status").read_text()  # so it ran nothing
        process.kill()
        process.wait()


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_sandbox():
    mark = f"i-{secrets.token_hex(6)}"
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_program(marked("import time\ntime.sleep(1000)", mark), limits=Limits(wall_seconds=30))
    assert processes_called(mark) == []


# --- memory and output ----------------------------------------------------------------------


def test_a_memory_hog(run: Runner):
    limits = Limits(memory_bytes=300 * MIB)
    result = run("x = []\nwhile True: x.append(bytearray(2**20))", limits=limits)
    assert result.outcome == "memory limit"
    assert run("x = bytearray(100 * 2**20)\nprint(len(x))", limits=limits).outcome == "ok"
    # One that catches its error goes on within its limit, until its time is over.
    source = """
x = []
while True:
    try: x.append(bytearray(2**20))
    except MemoryError: print(len(x), flush=True); break
"""
    assert 200 < int(run(source, limits=limits).stdout) < 300


def test_memory_of_several_processes_is_limited_in_total(run: Runner):
    source = """
import os, time
for _ in range(7): (os.getpid() == 2) and os.fork()
x, reason = [], ""
try:
    while len(x) < 1000: x.append(bytearray(2**20))
except MemoryError: reason = "refused"
os.write(1, f"{len(x)} {reason}\\n".encode())
time.sleep(0.5)  # all of it held at once
"""
    result = run(source, limits=Limits(processes=8, memory_bytes=800 * MIB))
    taken = [line.split() for line in result.stdout.decode().splitlines()]
    assert len(taken) == 8
    assert all(reason == "refused" for _, reason in taken)
    assert 200 < sum(int(number) for number, _ in taken) < 800


def test_a_huge_file(run: Runner):
    limits = Limits(scratch_bytes=8 * MIB)
    source = "f = open('a', 'wb')\nwhile True: f.write(bytes(2**20)); f.flush(); print('m')"
    result = run(source, limits=limits)
    assert result.outcome == "runtime error"
    assert result.stdout.count(b"m") <= 8
    # Several smaller ones: the file system is full.
    source = """
import os
total = 0
try:
    for i in range(100):
        with open(str(i), "wb", 0) as file: total += file.write(bytes(2**20))
except OSError as error: print(total, error.errno == 28)
"""
    total, is_full = run(source, limits=limits).stdout.split()
    assert int(total) <= 8 * MIB and is_full == b"True"
    assert run("import os\nos.truncate(open('a', 'wb').fileno(), 2**40)").outcome == "runtime error"


def test_very_many_files(run: Runner):
    result = run("i = 0\nwhile True:\n    open(str(i), 'w').close()\n    i += 1")
    assert result.outcome == "memory limit"
    assert result.seconds < 3
    assert run("for i in range(1000): open(str(i), 'w').close()").outcome == "ok"


@pytest.mark.parametrize("file", [1, 2])
def test_huge_output_is_cut(run: Runner, file: int):
    limits = Limits(output_bytes=MIB)
    source = f"import os\nchunk = b'x' * 2**20\nfor _ in range(2**12): os.write({file}, chunk)"
    before = psutil.Process().memory_info().rss
    result = run(source, limits=limits)
    assert (result.outcome, result.status) == ("output limit", None)
    assert len((result.stdout, result.stderr)[file - 1]) == MIB
    assert psutil.Process().memory_info().rss - before < 64 * MIB


@pytest.mark.parametrize(("size", "outcome"), [(1000, "ok"), (1001, "output limit")])
def test_output_at_the_limit(run: Runner, size: int, outcome: str):
    result = run(f"print('x' * {size}, end='')", limits=Limits(output_bytes=1000))
    assert (result.outcome, result.stdout) == (outcome, b"x" * 1000)


# --- files and secrets ----------------------------------------------------------------------


# Tries every action, and prints those that it could do.
TRY_ALL = """
import ctypes, mmap, os, resource, stat, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) == -1: raise OSError
def system(command):
    if os.system(command) != 0: raise OSError
for action in ACTIONS:
    try: exec(action); print(action)
    except (OSError, ValueError): pass
"""
READ_ONLY = ["/", "/usr", "/dev", "/packages", str(Path(os.__file__).parent)]
OUTSIDE = [
    *("/x", "/usr/x", "/dev/x", "/dev/shm/x", "/etc/x", "/packages/x", "/tmp/x", "/var/x"),
    *("/run/x", "/sys/x", f"{sys.base_prefix}/x", "/packages/numpy/x", "/program.py"),
    *("/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/1/mem", "/proc/1/oom_score_adj"),
    *(f"{ROOT}/x", f"{Path.home()}/x"),
]
REFUSED = {
    "processes": [
        *("os.fork()", "os.forkpty()", "system('true')", "subprocess.run(['/bin/true'])"),
        "os.posix_spawn('/bin/true', ['true'], {})",
    ],
    "memory of no process": [
        *("os.memfd_create('x')", "call('shmget', 0, 2**20, 0o1700)", "call('msgget', 0, 0o1700)"),
        *("call('semget', 0, 1, 0o1700)", "mmap.mmap(-1, 3 * 2**30)"),
        "call('mq_open', b'/q', os.O_CREAT | os.O_RDWR, 0o600, None)",
        "call('syscall', 425, 8, ctypes.create_string_buffer(200))",  # io_uring
        *("open('/dev/shm/x', 'w')", "open('/dev/stdin', 'wb', 0).write(b'more')"),
    ],
    "writing outside its folder": [
        *(f"open({name!r}, 'w')" for name in OUTSIDE),
        *(f"{make}('{folder}/new')" for folder in READ_ONLY for make in ("os.mkdir", "os.mkfifo")),
        *(f"os.symlink('/', '{folder}/new')" for folder in READ_ONLY),
        "os.mknod('device', stat.S_IFBLK | 0o666, os.makedev(254, 0))",
        "os.remove('/program.py')",
    ],
    "privileges": [
        *("call('unshare', 0x10000000)", "call('unshare', 0x20000)", "call('setuid', 0)"),
        *("call('chroot', b'/usr')", "call('mount', b'none', b'/scratch', b'tmpfs', 0, None)"),
        *("call('ptrace', 0, 0, 0, 0)", "call('syscall', 435, 0, 0)"),  # clone3
        *("call('sethostname', b'x', 1)", "os.setpriority(os.PRIO_PROCESS, 0, -5)"),
        *(
            f"resource.setrlimit(resource.RLIMIT_{name}, (resource.RLIM_INFINITY,) * 2)"
            for name in ("NPROC", "AS", "CPU", "FSIZE", "NOFILE", "CORE")
        ),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(run: Runner, name: str):
    allowed = ["open('a', 'w')", "call('getpid')"]
    source = TRY_ALL.replace("ACTIONS", repr([*REFUSED[name], *allowed]))
    limits = Limits(processes=3 if name == "privileges" else 1)
    assert run(source, b"some", limits).stdout.decode().splitlines() == allowed


def test_neither_home_nor_environment_can_be_read(run: Runner, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "do-not-tell")
    secret = tmp_path / "secret.txt"
    secret.write_text("do-not-tell")
    secret.chmod(0o644)
    source = f"""
import glob, os
def read(path):
    try: return open(path, "rb").read(10**6)
    except OSError: return b""
names = [{str(secret)!r}, {str(ROOT / "README.md")!r}, "/etc/passwd", "/etc/shadow", "/etc/hosts"]
names += glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/root/etc/passwd")
names += glob.glob("/proc/[0-9]*/cwd/README.md")
texts = [repr(os.environ).encode(), *map(read, names)]
print([name for name, text in zip(["env", *names], texts) if b"do-not-tell" in text])
print([name for name in names[:5] if os.path.exists(name)])
print(sorted(os.environ))
print(os.listdir("/"))
print([os.path.join(root, name) for root, _, names in os.walk({str(Path.home())!r})
       for name in names if not root.startswith({sys.base_prefix!r})])
print(os.listdir("/proc/self/fd"))
"""
    lines = run(source).stdout.decode().replace("'", '"').splitlines()
    leaked, seen, environment, top, home, files = map(json.loads, lines)
    assert leaked == seen == home == []
    assert "SECRET_TOKEN" not in environment
    assert len(environment) == 10
    assert not {"home", "tmp", "var", "run", "sys", "work", "opt", "mnt"} & set(top)
    assert files == ["0", "1", "2", "3"]  # the last reads this folder


def test_no_capabilities(run: Runner):
    source = """
import os
status = dict(l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines())
print(*(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")))
print(status["NoNewPrivs"], status["Seccomp"], os.getuid() not in (0, os.getppid()), os.getgroups())
"""
    capabilities, rest = run(source, limits=Limits(processes=3)).stdout.decode().splitlines()
    assert capabilities == "0 0 0 0 0"
    assert rest in ("1 2 True []", "1 2 True [65534]")


# --- network --------------------------------------------------------------------------------

NETWORK = """
import socket
def attempt(family, kind, address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(1)
            s.connect(address)
            s.send(b"hello")
            return "sent"
    except OSError as error: return type(error).__name__
print(attempt(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", TCP)))
print(attempt(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", UDP)))
print(attempt(socket.AF_UNIX, socket.SOCK_STREAM, "\\0NAME"))
print(attempt(socket.AF_UNIX, socket.SOCK_STREAM, PATH))
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[str, list[socket.socket]]]:
    """A program that calls four servers, and the servers."""
    name, path = f"lalp-{secrets.token_hex(4)}", str(tmp_path / "s")
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    abstract, file = (socket.socket(socket.AF_UNIX) for _ in range(2))
    addresses = (("127.0.0.1", 0), ("127.0.0.1", 0), f"\0{name}", path)
    for server, address in zip((tcp, udp, abstract, file), addresses, strict=True):
        server.bind(address)
        server.settimeout(0)
        if server is not udp:
            server.listen()
    source = NETWORK.replace("NAME", name).replace("PATH", repr(path))
    source = source.replace("TCP", str(tcp.getsockname()[1]))
    yield source.replace("UDP", str(udp.getsockname()[1])), [tcp, udp, abstract, file]
    for server in (tcp, udp, abstract, file):
        server.close()


def received(server: socket.socket) -> bool:
    try:
        server.recv(10) if server.type == socket.SOCK_DGRAM else server.accept()[0].close()
        return True
    except BlockingIOError:
        return False


def test_no_network(run: Runner, servers):
    source, listening = servers
    assert run(source).stdout.split() == [b"PermissionError"] * 4
    assert not any(map(received, listening))
    subprocess.run([sys.executable, "-c", source], check=True)
    assert all(map(received, listening))  # so they do listen


def test_no_network_without_the_filter_either(servers, monkeypatch: pytest.MonkeyPatch):
    check_sandbox()
    allow_all = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
    monkeypatch.setattr(sandbox, "seccomp_filter", lambda machine, processes: allow_all)
    source, listening = servers
    assert b"sent" not in run_program(source).stdout.split()[:1]
    assert not any(received(server) for server in listening if server is not listening[1])
    assert not received(listening[1])


# --- where there is no sandbox --------------------------------------------------------------


@pytest.mark.parametrize(("tool", "package"), [("bwrap", "bubblewrap"), ("prlimit", "util-linux")])
def test_without_a_tool_nothing_runs(fresh, monkeypatch, tmp_path: Path, tool: str, package: str):
    for name in {"bwrap", "prlimit", "setpriv"} - {tool}:
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(InputError, match=f"'{tool}' is on the PATH; install {package}"):
        run_program("print(1)")


BROKEN = "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1"
# It says that it ran the program, but does so without a sandbox.
LIAR = f"""#!{sandbox._interpreter()}
import os, sys
options = dict(zip(sys.argv, sys.argv[1:]))
gate = int(sys.argv[sys.argv.index("LALP_GATE") + 1].split()[0])
os.write(int(options["--json-status-fd"]), b'{{"child-pid": %d}}\\n' % os.getpid())
os.write(gate, b"?")
os.read(gate, 1)
print('["it has a network"]')
"""


@pytest.mark.parametrize(
    ("bwrap", "message"),
    [
        (BROKEN, "No permissions to create new namespace; user namespaces"),
        (LIAR, "here it does not confine: it has a network"),
    ],
    ids=["broken", "liar"],
)
def test_with_a_bubblewrap_that_fails_nothing_runs(fresh, monkeypatch, tmp_path, bwrap, message):
    path = tmp_path / "bwrap"
    path.write_text(bwrap)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError, match=message):
        run_program("print(1)")


@pytest.mark.parametrize(
    ("owner", "name", "value", "message"),
    [
        (platform, "machine", lambda: "pdp11", "x86_64 and aarch64 only, not pdp11"),
        (Path, "home", lambda: Path(sys.base_prefix, "me"), "holds your home folder"),
        # RLIMIT_NPROC does not bind root, not even in a user namespace: the self-test notices.
        pytest.param(
            *(sandbox, "_spare_uid", lambda: None, "does not confine: the number of processes"),
            marks=pytest.mark.skipif(not IS_ROOT, reason="only root is not bound by RLIMIT_NPROC"),
        ),
    ],
    ids=["unknown machine", "Python in the home folder", "root without a uid of its own"],
)
def test_where_it_could_not_confine_nothing_runs(fresh, monkeypatch, owner, name, value, message):
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(InputError, match=message):
        run_program("print(1)")


def test_a_user_without_a_home(fresh, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 87654)
    assert run_program("print(1)").stdout == b"1\n"


def test_a_restrictive_umask_does_no_harm(fresh):
    before = os.umask(0o077)
    try:
        assert run_program("open('a', 'w').write('x')\nprint(open('a').read())").stdout == b"x\n"
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_system_call_numbers(column: int, header: str):
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    known = dict(re.findall(r"#define __NR3?2?6?4?_(\w+)\s+(\d+)", path.read_text()))
    both = SYSTEM_CALLS["refused"] | {name: SYSTEM_CALLS[name] for name in ("clone", "clone3")}
    ours = {name: numbers[column] for name, numbers in both.items()}
    if column == 0:
        ours |= SYSTEM_CALLS["x86_forks"] | SYSTEM_CALLS["x86_old"]
    assert {name: int(known[name]) for name in ours if name in known} == ours
