"""Where the replication is: the checkout, and what is computed there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lalp.paper import root_dir

ROOT = Path(__file__).parents[2]
BELOW = ["", "notebooks", "notebooks/deeper"]
OTHERS = ['[project]\nname = "other"\n', "not [toml", 'project = "lalp"\n', None]


@pytest.mark.parametrize("below", BELOW)
def test_it_is_the_same_anywhere_in_a_checkout(monkeypatch, tmp_path, below):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "lalp"\n')
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / below)
    assert root_dir() == tmp_path


@pytest.mark.parametrize("pyproject", OTHERS)
def test_outside_of_a_checkout_it_is_the_current_folder(monkeypatch, tmp_path, pyproject):
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert root_dir() == tmp_path / "inner"


@pytest.mark.parametrize(
    ("folder", "chosen", "expected"),
    [
        ("checkout/notebooks", None, "checkout/build"),
        ("checkout/notebooks", "mine", "checkout/notebooks/mine"),
        ("elsewhere", None, "home/caches/lalp"),
    ],
)
def test_the_replication_and_the_tool_keep_all_in_one_folder(tmp_path, folder, chosen, expected):
    (tmp_path / folder).mkdir(parents=True)
    if folder.startswith("checkout"):
        (tmp_path / "checkout" / "pyproject.toml").write_text('[project]\nname = "lalp"\n')
    environment = {name: v for name, v in os.environ.items() if name != "LALP_CACHE"}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "home" / "caches")}
    environment |= {"LALP_CACHE": chosen} if chosen else {}
    code = "import lalp.paper, lalp.files; print(lalp.files.cache_dir())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / expected)
