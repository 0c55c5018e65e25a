"""Files written whole or not at all, locks, and fingerprints: what makes results stale."""

import os
import shutil
from pathlib import Path

import pytest

from lalp.errors import InputError
from lalp.files import atomic_path, check_file, fingerprint, locked, write_text
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
