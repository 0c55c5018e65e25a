"""What the cache folder keeps: what is counted, what is removed, and what is nobody's business."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from lalp.caches import KINDS, clear_caches, list_caches
from lalp.errors import InputError
from lalp.files import in_use, write_text

RUN, TEXTS = "0123456789abcdef0123", "0123456789abcdef0123456789abcdef"
ENTRIES = {
    "scores": f"{RUN}/one.parquet",
    "samples": f"{RUN}/one.jsonl",
    "students": f"Tiny-{RUN[:12]}-v2/model.safetensors",
    "embeddings": f"{TEXTS}.npz",
    "selftests": f"{RUN}.json",
    "llm_steps": f"{TEXTS}.json",
}
OTHERS = ["scores/thesis/one.parquet", "samples/samples.csv", "students/ada/grades", "cpu/verdict"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A cache folder with a thousand bytes of each kind, and files that are somebody else's."""
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "cache"))
    for kind, entry in ENTRIES.items():
        write_text(tmp_path / "cache" / kind / entry, "x" * 1000)
    for other in OTHERS:
        write_text(tmp_path / "cache" / other, "mine")
    return tmp_path / "cache"


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_every_kind_is_listed_with_its_number_size_and_last_use(folder):
    write_text(folder / "samples" / "grades-aime25.jsonl", "x" * 500)
    day = date(2024, 5, 6)
    seconds = (day - date(1970, 1, 1)).total_seconds() + 43200
    os.utime(folder / "embeddings" / ENTRIES["embeddings"], (seconds, seconds - 10**6))
    kept = {one.kind: one for one in list_caches()}
    assert list(kept) == list(KINDS)
    assert {kind: one.number for kind, one in kept.items()} == dict.fromkeys(KINDS, 1) | {
        "samples": 2
    }
    assert kept["embeddings"].size == kept["llm_steps"].size == 1000
    assert kept["scores"].size >= 1000  # with its folder
    assert kept["samples"].size == kept["scores"].size + 500
    assert kept["embeddings"].last_use == day
    assert kept["scores"].last_use >= date.today().replace(day=1)


def test_an_empty_or_missing_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "none"))
    assert [(one.number, one.size, one.last_use) for one in list_caches()] == [(0, 0, None)] * len(
        KINDS
    )
    gone, left = clear_caches()
    assert (sum(one.number for one in gone), left) == (0, [])
    assert not (tmp_path / "none").exists()


def test_clearing_removes_what_is_kept_and_nothing_else(folder):
    before = list_caches()
    assert clear_caches() == (before, [])
    assert files_in(folder) == set(OTHERS)
    assert sum(one.number for one in list_caches()) == 0


def test_one_kind_is_cleared_alone(folder):
    gone, left = clear_caches(["embeddings", "embeddings"])
    assert ([one.kind for one in gone], gone[0].size, left) == (["embeddings"], 1000, [])
    assert {one.kind for one in list_caches() if one.number} == set(KINDS) - {"embeddings"}


def test_a_misspelt_kind_is_refused_and_nothing_is_removed(folder):
    with pytest.raises(InputError, match=r"'score': did you mean 'scores'\?"):
        clear_caches(["embeddings", "score"])
    assert len(files_in(folder)) == len(ENTRIES) + len(OTHERS)


def test_what_a_process_uses_stays(folder):
    with in_use(folder / "scores" / RUN):
        gone, left = clear_caches(["scores", "samples"])
    assert [one.number for one in gone] == [0, 1]
    assert left == [folder / "scores" / RUN]
    assert (folder / "scores" / ENTRIES["scores"]).read_text() == "x" * 1000
    assert clear_caches(["scores"])[1] == []


def test_what_a_killed_process_left_is_cleared_too(folder):
    left = f"{TEXTS}.json.{os.uname().nodename.replace('-', '')[:30]}-1-{'0' * 8}.tmp"
    (folder / "llm_steps" / left).write_text("half")
    clear_caches(["llm_steps"])
    assert list((folder / "llm_steps").iterdir()) == []


def test_links_are_not_followed(folder, tmp_path):
    for place in ("outside", "away"):
        write_text(tmp_path / place / ENTRIES["scores"], "mine")
    (folder / "scores" / ("f" * 20)).symlink_to(tmp_path / "outside" / RUN)
    (folder / "scores" / RUN / "inner").symlink_to(tmp_path / "outside")
    (folder / "embeddings").rename(folder / "former")
    (folder / "embeddings").symlink_to(tmp_path / "away")
    kept = {one.kind: one.number for one in list_caches()}
    assert (kept["scores"], kept["embeddings"]) == (1, 0)
    clear_caches()
    assert not (folder / "scores" / RUN).exists()
    for place in ("outside", "away"):
        assert (tmp_path / place / ENTRIES["scores"]).read_text() == "mine"
