"""The sandbox, with programs that try to get out or to use more than they may.

Where the tests run as root, everything is tried as an ordinary user, too: by a helper process that
has dropped all privileges. Every program marks its processes, and none may be left afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import pickle
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

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

PROGRAMS = yaml.safe_load(Path(__file__).with_name("programs.yaml").read_text(encoding="utf-8"))

# Runs what it is told, one program after another, as whoever it is.
HELPER = """
import os, pickle, sys
sys.path.insert(0, sys.argv[1])
from lalp.evaluation.sandbox import run_program
assert os.geteuid() == int(sys.argv[2])
while sys.stdin.buffer.peek(1):
    pickle.dump(run_program(*pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
    sys.stdout.buffer.flush()
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
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"SECRET_TOKEN": "do-not-tell"}
    helper = subprocess.Popen(command, cwd="/", env=environment, **pipes)

    def run(source: str, stdin: bytes = b"", limits: Limits | None = None) -> Run:
        pickle.dump((source, stdin, limits), helper.stdin)
        helper.stdin.flush()
        return pickle.load(helper.stdout)

    yield run
    helper.stdin.close()
    assert helper.wait(10) == 0


def processes_called(mark: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == mark]


def marked(source: str, mark: str) -> str:
    """Give the program's process a name, which its children and threads inherit."""
    source = source.replace("IGNORE_SIGNALS\n", PROGRAMS["ignore_signals"])
    return f"with open('/proc/self/comm', 'w') as _f: _f.write({mark!r})\ndel _f\n{source}"


def filled(source: str, **values: object) -> str:
    """Put values in the place of the names in capitals: numbers, texts, and paths as texts."""
    for name, value in values.items():
        source = source.replace(name, repr(str(value) if isinstance(value, Path) else value))
    return source


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


@pytest.mark.parametrize("case", PROGRAMS["allowed"].values(), ids=PROGRAMS["allowed"])
def test_what_a_program_may_do(run: Runner, case: dict[str, str]):
    result = run(case["source"], case.get("stdin", "").encode())
    assert (result.outcome, result.status) == ("ok", 0)
    assert result.stdout.decode() == case["stdout"]
    assert 0 < result.seconds < 12


def test_any_bytes_may_be_printed_and_large_input_left_unread(run: Runner):
    result = run("import sys\nsys.stdout.buffer.write(bytes(range(256)))", b"x" * 5_000_000)
    assert (result.outcome, result.stdout) == ("ok", bytes(range(256)))


@pytest.mark.parametrize(("source", "status"), PROGRAMS["failing"])
def test_a_program_that_fails(source: str, status: int):
    result = run_program(source)
    assert (result.outcome, result.status) == ("runtime error", status)


@pytest.mark.parametrize(("source", "outcome", "status"), PROGRAMS["ends"])
def test_odd_ends(source: str, outcome: str, status: int):
    result = run_program(PROGRAMS["signal_oneself"] + source)
    assert (result.outcome, result.status, result.stdout) == (outcome, status, b"")


def test_its_traceback_comes_with_it(run: Runner):
    result = run("def f():\n    return 1 / 0\nf()")
    assert (result.outcome, result.status) == ("runtime error", 1)
    assert b"return 1 / 0" in result.stderr and b"ZeroDivisionError" in result.stderr


def test_deep_recursion(run: Runner):
    deep = PROGRAMS["count_deep"]
    cached = f"{deep}f = functools.cache(f)\n"
    assert run(f"{deep}print(f(50_000))").stdout == b"50000\n"
    assert run(f"{cached}print(f(20_000))").stdout == b"20000\n"
    # Through C code, and without an end: the interpreter may crash, and that is all.
    assert run(f"{cached}f(10**6)").outcome in ("runtime error", "memory limit")
    endless = "sys.setrecursionlimit(10**5)\nendless(0)"
    assert run(deep + endless).outcome == "runtime error"


# --- time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", PROGRAMS["busy"].values(), ids=PROGRAMS["busy"])
def test_cpu_time(run: Runner, source: str):
    result = run(source, limits=Limits(wall_seconds=30, cpu_seconds=1))
    assert result.outcome == "time limit"
    assert result.seconds < 29


@pytest.mark.parametrize("source", PROGRAMS["waiting"].values(), ids=PROGRAMS["waiting"])
def test_wall_time(run: Runner, source: str):
    result = run(source, limits=Limits(wall_seconds=0.3))
    assert (result.outcome, result.status) == ("time limit", None)
    assert result.stdout.startswith(b"early\n")
    assert 0.3 <= result.seconds < 2


# --- processes ------------------------------------------------------------------------------


def test_threads_stop_at_a_limit_of_each_sandbox(run: Runner):
    """As root every sandbox has its own uid, as a user its own namespace."""
    assert run(PROGRAMS["thread_storm"]).stdout == b"16\n"
    with ThreadPoolExecutor(6) as executor:
        runs = list(executor.map(run_program, [PROGRAMS["thread_storm"]] * 6))
    assert [int(result.stdout) for result in runs] == [16] * 6


def test_it_sees_no_other_process(run: Runner):
    assert run(PROGRAMS["see_others"]).stdout == b"['1', '2'] []\n"
    # kill -1 may end itself, as bwrap is not its own.
    assert run(PROGRAMS["kill_others"]).stdout in (b"", b"1\n")


@pytest.fixture
def unfiltered(monkeypatch: pytest.MonkeyPatch):
    """The sandbox without its filter of system calls."""
    check_sandbox()
    allow_all = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
    monkeypatch.setattr(sandbox, "seccomp_filter", lambda machine: allow_all)


def test_no_daemon(run: Runner):
    result = run(PROGRAMS["daemon"])
    assert (result.outcome, result.status, result.stdout) == ("runtime error", 1, b"")
    assert b"BlockingIOError" in result.stderr


@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize(
    ("end", "outcome", "status"),
    [
        ("", "ok", 0),
        ("os.kill(os.getpid(), 9)", "runtime error", 137),
        ("time.sleep(20)", "time limit", None),
        ("while True: print('x' * 9999)", "output limit", None),
    ],
)
def test_a_daemon_dies_with_its_program_without_the_filter_too(
    end: str, outcome: str, status: int | None
):
    mark = f"d-{secrets.token_hex(6)}"
    start = time.monotonic()
    result = run_program(marked(PROGRAMS["daemon"] + end, mark), limits=Limits(wall_seconds=2))
    assert processes_called(mark) == []
    assert (result.outcome, result.status) == (outcome, status)
    assert set(result.stdout.split(maxsplit=2)[:2]) == {b"daemon", b"parent"}  # in either order
    assert time.monotonic() - start < 10  # so it does not wait for the daemon


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


@pytest.mark.parametrize("delay", [*(n / 1000 for n in range(0, 50, 6)), 0.3])
def test_nothing_outlives_a_killed_caller(delay: float, left: Callable[[], list[psutil.Process]]):
    """Killed at any moment of the sandbox's start, and while the program runs."""
    check_sandbox()
    mark = f"k-{secrets.token_hex(6)}"
    program = marked("import time\ntime.sleep(1000)", mark)
    context = multiprocessing.get_context("fork")
    limits = Limits(wall_seconds=60)
    caller = context.Process(target=run_program, args=(program, b"", limits))
    caller.start()
    time.sleep(delay)
    while delay >= 0.3 and not processes_called(mark):
        time.sleep(0.05)
    assert delay < 0.3 or len(left()) == 4  # caller, bwrap, its first process, the program
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
    assert 200 < int(run(PROGRAMS["hog_that_catches"], limits=limits).stdout) < 300


def test_a_huge_file(run: Runner):
    limits = Limits(scratch_bytes=8 * MIB)
    result = run(PROGRAMS["huge_file"], limits=limits)
    assert result.outcome == "runtime error"
    assert result.stdout.count(b"m") <= 8
    # Several smaller ones: the file system is full.
    total, is_full = run(PROGRAMS["many_large_files"], limits=limits).stdout.split()
    assert int(total) <= 8 * MIB and is_full == b"True"
    assert run("import os\nos.truncate(open('a', 'wb').fileno(), 2**40)").outcome == "runtime error"


def test_very_many_files(run: Runner):
    result = run(PROGRAMS["endless_files"])
    assert result.outcome == "memory limit"
    assert result.seconds < 3
    assert run("for i in range(1000): open(str(i), 'w').close()").outcome == "ok"


@pytest.mark.parametrize("source", PROGRAMS["huge_output"].values(), ids=PROGRAMS["huge_output"])
@pytest.mark.parametrize("file", [1, 2])
def test_a_gibibyte_of_output_is_cut(run: Runner, file: int, source: str):
    limits = Limits(output_bytes=4 * MIB)
    tracemalloc.start()
    result = run(filled(source, FILE=file), limits=limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (result.outcome, result.status) == ("output limit", None)
    assert len((result.stdout, result.stderr)[file - 1]) == limits.output_bytes
    assert peak < 4 * limits.output_bytes
    assert result.seconds < 5


@pytest.mark.parametrize(("size", "outcome"), [(1000, "ok"), (1001, "output limit")])
def test_output_at_the_limit(run: Runner, size: int, outcome: str):
    result = run(f"print('x' * {size}, end='')", limits=Limits(output_bytes=1000))
    assert (result.outcome, result.stdout) == (outcome, b"x" * 1000)


@pytest.mark.parametrize(
    ("then", "outcome", "status", "output"),
    [
        # It puts SIGXCPU off, until SIGKILL comes from the kernel: its caller has not stopped it.
        ("while True: pass", "time limit", 137, ""),
        (PROGRAMS["take_all"] + PROGRAMS["thread_storm"], "ok", 0, "True\nTrue 63\nTrue 0\n16\n"),
    ],
    ids=["time", "all else"],
)
def test_limits_cannot_be_raised(run: Runner, then: str, outcome: str, status: int, output: str):
    result = run(PROGRAMS["raise_limits"] + then, limits=Limits(wall_seconds=20, cpu_seconds=1))
    assert (result.outcome, result.status) == (outcome, status)
    assert result.stdout.decode() == "[]\n" + output


# --- files and secrets ----------------------------------------------------------------------


def refused_actions(name: str) -> list[str]:
    """What the sandbox refuses, with the places of this machine."""
    actions = PROGRAMS["refused"][name]
    if name == "writing outside its folder":
        outside = [*PROGRAMS["outside"].split(), f"{sys.base_prefix}/x", f"{ROOT}/x"]
        actions = actions + [f"open({name!r}, 'w')" for name in [*outside, f"{Path.home()}/x"]]
        for folder in ("/", "/usr", "/dev", "/packages", Path(os.__file__).parent):
            actions += [f"{make}('{folder}/new')" for make in ("os.mkdir", "os.mkfifo")]
            actions.append(f"os.symlink('/', '{folder}/new')")
    return actions


@pytest.mark.parametrize("name", PROGRAMS["refused"])
def test_what_is_refused(run: Runner, name: str):
    allowed = ["open('a', 'w')", "call('getpid')"]
    actions = [*refused_actions(name), *allowed]
    clone = SYSTEM_CALLS["clone"][platform.machine() == "aarch64"]
    source = PROGRAMS["try_all"].replace("ACTIONS", repr(actions).replace("CLONE", str(clone)))
    assert run(source, b"some").stdout.decode().splitlines() == allowed


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach and change, with a secret in it; `tmp_path` is closed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret.txt").write_text("do-not-tell")
        (folder / "secret.txt").chmod(0o666)
        yield folder


def test_neither_home_nor_environment_can_be_read(run: Runner, open_folder: Path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "do-not-tell")
    places = {"SECRET": open_folder / "secret.txt", "PROJECT_FILE": ROOT / "README.md"}
    places |= {"HOME": Path.home(), "PYTHON": sys.base_prefix}
    source = filled(PROGRAMS["spy"], **places)
    lines = run(source).stdout.decode().replace("'", '"').splitlines()
    leaked, seen, environment, top, home, files = map(json.loads, lines)
    assert leaked == seen == home == []
    assert "SECRET_TOKEN" not in environment
    assert len(environment) == 10
    assert not {"home", "tmp", "var", "run", "sys", "work", "opt", "mnt"} & set(top)
    assert files == ["0", "1", "2", "3"]  # the last reads this folder


def test_every_environment_is_the_sandbox_own(run: Runner, monkeypatch: pytest.MonkeyPatch):
    """/proc/PID/environ keeps what a process was started with, whatever it changes then."""
    monkeypatch.setenv("SECRET_TOKEN", "do-not-tell")
    seen = [json.loads(line) for line in run(PROGRAMS["environments"]).stdout.splitlines()]
    paths = [path for path, _ in seen]
    assert paths.count("/proc/self/environ") == paths.count("/proc/2/task/2/environ") == 2
    assert "/proc/2/task/3/environ" in paths
    expected = {f"{name}={value}" for name, value in sandbox._ENVIRONMENT.items()}
    for _, variables in seen:
        others = set(variables) - expected
        assert {variable.split("=")[0] for variable in others} == {"PWD", "LALP_GATE"}
        assert expected < set(variables)
        assert "do-not-tell" not in str(others)


def test_no_link_leads_out(run: Runner, open_folder: Path, tmp_path: Path):
    source = filled(PROGRAMS["links"], FOLDER=open_folder, PROJECT_FILE=ROOT / "README.md")
    result = run(source)
    assert (result.outcome, result.stdout) == ("ok", b"")
    assert [path.name for path in open_folder.iterdir()] == ["secret.txt"]
    assert (open_folder / "secret.txt").read_text() == "do-not-tell"
    # Without a sandbox each of these links leads there, and everything can be done.
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    actions, starts = zip(*(line.split(": ") for line in done.decode().splitlines()), strict=True)
    assert len(set(actions)) == 11 and len(set(starts)) >= 7
    assert list(open_folder.iterdir()) != []


def test_no_capabilities(run: Runner):
    capabilities, rest = run(PROGRAMS["capabilities"]).stdout.decode().splitlines()
    assert capabilities == "0 0 0 0 0"
    assert rest in ("1 2 True []", "1 2 True [65534]")


# --- network --------------------------------------------------------------------------------


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
    places = {"TCP": tcp.getsockname(), "UDP": udp.getsockname()}
    source = filled(PROGRAMS["network"], **places, ABSTRACT=f"\0{name}", FILE=path)
    yield source, [tcp, udp, abstract, file]
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


@pytest.mark.usefixtures("unfiltered")
def test_no_network_without_the_filter_either(servers):
    source, listening = servers
    assert b"sent" not in run_program(source).stdout.split()[:1]
    assert not any(map(received, listening))


# --- where there is no sandbox --------------------------------------------------------------


@pytest.mark.parametrize(("tool", "package"), [("bwrap", "bubblewrap"), ("prlimit", "util-linux")])
def test_without_a_tool_nothing_runs(fresh, monkeypatch, tmp_path: Path, tool: str, package: str):
    for name in {"bwrap", "prlimit", "setpriv"} - {tool}:
        (tmp_path / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(InputError, match=f"'{tool}' is on the PATH; install {package}"):
        run_program("print(1)")


@pytest.mark.parametrize("name", PROGRAMS["false_bwraps"])
def test_with_a_bubblewrap_that_fails_nothing_runs(fresh, monkeypatch, tmp_path, name):
    bwrap, path = PROGRAMS["false_bwraps"][name], tmp_path / "bwrap"
    path.write_text(bwrap["source"].replace("PYTHON", str(sandbox._interpreter())))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError, match=bwrap["message"]):
        run_program("print(1)")


@pytest.mark.parametrize(
    ("owner", "name", "value", "message"),
    [
        (platform, "machine", lambda: "pdp11", "x86_64 and aarch64 only, not pdp11"),
        (Path, "home", lambda: Path(sys.base_prefix, "me"), "holds your home folder"),
        # RLIMIT_NPROC does not bind root, not even in a user namespace: the self-test notices.
        pytest.param(
            *(sandbox, "_spare_uid", lambda: None, "does not confine: the number of threads"),
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
