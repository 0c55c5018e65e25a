"""Fingerprints of the code: an edit of code makes results stale, an edit of prose does not."""

import shutil
from pathlib import Path

import pytest

from lalp.errors import InputError
from lalp.files import fingerprint, locked
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
    before = [fingerprint(*parts, root=copy) for parts in (shards.CODE_PARTS, grid.ARM_CODE_PARTS)]
    source = (copy / path).read_text(encoding="utf-8")
    try:
        (copy / path).write_text(
            source + ("\nEDITED = 1\n" if path.suffix == ".py" else "\nedited: 1\n"),
            encoding="utf-8",
        )
        after = [
            fingerprint(*parts, root=copy) for parts in (shards.CODE_PARTS, grid.ARM_CODE_PARTS)
        ]
    finally:
        (copy / path).write_text(source, encoding="utf-8")
    assert all(new != old for new, old in zip(after, before, strict=True))


def test_a_taken_lock_is_refused_and_free_again_afterwards(tmp_path):
    path = tmp_path / "folder" / "lock"
    first, second = locked(path, "busy: wait"), locked(path, "busy: wait")
    with first, pytest.raises(InputError, match="busy: wait"), second:
        pass
    with locked(path, "busy: wait"):
        assert path.exists()
