"""Files written whole or not at all, locks, and fingerprints: what makes results stale."""

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from lalp import files
from lalp.errors import InputError
from lalp.files import (
    atomic_folder,
    atomic_path,
    check_file,
    fingerprint,
    locked,
    not_found,
    write_text,
)
from lalp.paper.arms import grid
from lalp.scoring import shards

PACKAGE = Path(__file__).parents[1] / "lalp"
SOURCE = '''
"""A module."""

LIMIT = 4


def double(x: int) -> int:
    """Twice x."""
    return 2 * x


class Box:
    """Holds x."""

    def get(self):
        """Just that."""
'''


@pytest.fixture
def version_of(tmp_path):
    """The fingerprint of a module with that source."""

    def version(source: str) -> str:
        (tmp_path / "module.py").write_text(source, encoding="utf-8")
        return fingerprint("module", root=tmp_path)

    return version


def test_comments_docstrings_and_layout_are_no_code(version_of):
    version = version_of(SOURCE)
    assert version_of(SOURCE.replace("LIMIT = 4", "# A comment.\nLIMIT = 4  # another")) == version
    assert version_of(SOURCE.replace("Twice x.", "x + x.")) == version
    assert version_of(SOURCE.replace('"""A module."""', "")) == version
    assert version_of(SOURCE.replace("Just that.", "That.")) == version
    assert version_of(SOURCE.replace("\n\n\n", "\n\n\n\n\n")) == version
    assert version_of(SOURCE.replace("2 * x", "(2\n        * x)")) == version
    assert version_of(SOURCE.replace("LIMIT = 4", 'LIMIT = 4\n"""The limit."""')) == version


@pytest.mark.parametrize(
    ("old", "new"),
    [("LIMIT = 4", "LIMIT = 5"), ("2 * x", "2 + x"), ("2 * x", "x * 2"), ("def get", "def got")],
)
def test_other_code_has_another_version(version_of, old, new):
    assert version_of(SOURCE.replace(old, new)) != version_of(SOURCE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package, to edit."""
    root = tmp_path_factory.mktemp("copy") / "lalp"
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__", "paper"))
    return root


def test_a_copy_has_the_same_fingerprint(copy):
    assert fingerprint(*shards.CODE_PARTS, root=copy) == shards.code_version()


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(PACKAGE)
        for package in ("scoring", "students", "steps")
        for path in sorted((PACKAGE / package).rglob("*"))
        if path.suffix in (".py", ".yaml") and path.name != "__init__.py"
    ],
    ids=str,
)
def test_an_edit_in_scoring_or_students_makes_scores_and_arms_stale(copy, path):
    def versions() -> set[str]:
        return {
            fingerprint(*parts, root=copy) for parts in (shards.CODE_PARTS, grid.ARM_CODE_PARTS)
        }

    before, source = versions(), (copy / path).read_text(encoding="utf-8")
    edit = "\nEDITED = 1\n" if path.suffix == ".py" else "\nedited: 1\n"
    (copy / path).write_text(source + edit, encoding="utf-8")
    after = versions()
    (copy / path).write_text(source, encoding="utf-8")
    assert len(before | after) == 4


def test_a_taken_lock_is_refused_and_free_again_afterwards(tmp_path):
    path = tmp_path / "folder" / "lock"
    first, second = locked(path, "busy: wait"), locked(path, "busy: wait")
    with first, pytest.raises(InputError, match="busy: wait"), second:
        pass
    with locked(path, "busy: wait"):
        assert path.exists()


# --- Atomic writes -----------------------------------------------------------------------------


def test_atomic_path_replaces_on_success(tmp_path):
    path = tmp_path / "deep" / "er" / ("é" * 127)  # the longest file name
    for content in ("first", "second"):
        with atomic_path(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, ".tmp")
            temporary.write_text(content)
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_changes_nothing_on_an_exception(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(error), atomic_path(str(path)) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_paths_of_one_target_differ(tmp_path):
    with atomic_path(tmp_path / "f") as one, atomic_path(tmp_path / "f") as two:
        assert one != two
        assert str(os.getpid()) in one.name
        one.write_text("outer")
        two.write_text("inner")
    assert (tmp_path / "f").read_text() == "outer"


@pytest.fixture
def no_space() -> Iterator[None]:
    """No file may grow beyond 1,000 bytes, which libraries meet as they meet a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "text": lambda path: write_text(path, "x" * 2000),
    "arrow": lambda path: _save(path, pd.DataFrame({"x": range(2000)}).to_parquet),
    "safetensors": lambda path: _save(path, lambda made: save_file({"a": torch.ones(900)}, made)),
    "torch": lambda path: _save(path, lambda made: torch.save(torch.ones(900), made)),
}


def _save(path: Path, save: Callable[[Path], None]) -> None:
    with atomic_path(path) as made:
        save(made)


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_one_error_and_the_old_file_stays(library, no_space, tmp_path):
    path = tmp_path / "file.parquet"
    path.write_text("before")
    with pytest.raises(
        InputError, match=r"file\.parquet: cannot be written: (File too large|torch)"
    ):
        WRITERS[library](path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_that_are_not_of_the_written_file_are_left_alone(tmp_path):
    for error in (OSError(errno.ENOENT, "No such file", "other"), RuntimeError("no"), KeyError(3)):
        with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "file.txt"):
            raise error
        assert raised.value is error


# --- What killed processes leave -----------------------------------------------------------------

LEAVE = """
import os, sys
from lalp.files import atomic_folder, atomic_path
with atomic_path(sys.argv[1]) as file, atomic_folder(file.with_name("folder")) as folder:
    for path in (file, folder / "part"):
        path.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    command = [sys.executable, "-c", LEAVE, str(tmp_path / "file.txt")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, cwd=PACKAGE.parent)
    assert process.stdout.readline() == b"ready\n"
    written = sorted(tmp_path.iterdir())
    assert len(written) == 2
    foreign = [tmp_path / "my.tmp", tmp_path / "file.txt.otherhost-1-0123abcd.tmp"]
    for path in foreign:
        path.write_text("of others")

    def write() -> list[Path]:
        files._SWEPT.clear()  # as a fresh process
        write_text(tmp_path / "file.txt", "whole")
        return sorted(tmp_path.iterdir())

    assert write() == sorted([*written, *foreign, tmp_path / "file.txt"])
    process.communicate()
    assert write() == sorted([*foreign, tmp_path / "file.txt"])


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, seen = files._lock, []

    def lock(handle: int) -> bool | None:
        if len(seen) < 2:  # another process has locked it, or has removed it
            seen.extend(path for path in tmp_path.iterdir() if path not in seen)
            if len(seen) == 1:
                return False
            seen[1].unlink()
        return real(handle)

    monkeypatch.setattr(files, "_lock", lock)
    with atomic_path(tmp_path / "file.txt") as made:
        made.write_text("whole")
        assert made not in seen
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_file_system_without_locks_is_said_apart_from_a_taken_lock(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="lock: its file system has no locks"):
        locked(tmp_path / "lock", "busy").__enter__()
    write_text(tmp_path / "file.txt", "x")  # needs none
    assert (tmp_path / "file.txt").read_text() == "x"


def test_of_two_that_make_a_folder_the_first_wins(tmp_path):
    path = tmp_path / "deep" / "folder"
    with atomic_folder(path) as one:
        (one / "file").write_text("slow")
        with atomic_folder(path) as two:
            (two / "file").write_text("fast")
    assert [p.read_text() for p in path.iterdir()] == ["fast"]
    assert list(path.parent.iterdir()) == [path]


def test_atomic_path_follows_symbolic_links(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file.txt")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file.txt").read_text() == "x"


def test_atomic_path_refuses_folders_devices_and_files_as_folders(tmp_path):
    (tmp_path / "file").touch()
    for path, fragment in (
        (tmp_path, "not a regular file"),
        (Path(os.devnull), "not a regular file"),
        (tmp_path / "file" / "sub", "cannot make its folder"),
    ):
        with pytest.raises(InputError, match=fragment), atomic_path(path):
            raise AssertionError("not reached")


# --- What cannot be read to its end -----------------------------------------------------------


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a name in UTF-8"):
        write_text(tmp_path / "a\udcff.txt", "new")


def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(InputError, match=f"{name}: is a pipe or a device"):
            check_file(tmp_path / name)


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.jsonl").open("wb") as file:
        file.truncate(1 << 43)  # a hole: it takes no place on the disk
    with pytest.raises(InputError, match=r"has 8,192\.0 GiB, more than the memory of"):
        check_file(tmp_path / "large.jsonl")
    # What is missing, or a folder, is for the reader to say.
    check_file(tmp_path / "missing")
    check_file(tmp_path)


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with (
        pytest.raises(InputError, match="loop: is a link to itself"),
        atomic_path(tmp_path / "loop"),
    ):
        pass


def test_a_path_that_leads_nowhere_names_what_is_beside_it(tmp_path):
    for name in ("pool.jsonl", "pool.parquet", "two.jsonl", ".pol.jsonl"):
        (tmp_path / name).touch()
    assert not_found(tmp_path / "pol.jsonl") == f"no such file: did you mean {tmp_path}/pool.jsonl?"
    # An ending that all share makes no name alike.
    assert not_found(tmp_path / "scores.jsonl") == "no such file: check the path"
    assert not_found(tmp_path / "none" / "pool.jsonl", advice="make one").endswith(": make one")


# --- the folder of caches -----------------------------------------------------------------------


def test_caches_are_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "elsewhere"))
    assert files.cache_dir() == tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LALP_CACHE", "here")
    assert files.cache_dir() == tmp_path / "here"


def test_else_caches_are_in_the_users_folder_and_never_in_the_current_one(monkeypatch, tmp_path):
    monkeypatch.delenv("LALP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "lalp"\n')
    monkeypatch.chdir(tmp_path)
    assert files.cache_dir() == tmp_path / "caches" / "lalp"


def test_what_is_in_use_is_not_removed(tmp_path):
    folder = tmp_path / "run"
    with files.in_use(folder), files.in_use(folder):
        (folder / "shard").write_text("1")
        assert not files.remove_unused(folder)
        assert (folder / "shard").exists()
    assert files.remove_unused(folder)
    assert not folder.exists()
    assert not files.remove_unused(folder)


def test_what_is_being_written_is_not_removed(tmp_path):
    with files.atomic_path(tmp_path / "made") as temporary:
        temporary.write_text("half")
        assert not files.remove_unused(temporary)
        assert temporary.read_text() == "half"
    assert files.remove_unused(tmp_path / "made")


def test_links_are_neither_removed_nor_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("all of it")
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert not files.remove_unused(tmp_path / "link")
    assert files.remove_unused(tmp_path / "cached")
    assert (tmp_path / "mine" / "thesis").read_text() == "all of it"
