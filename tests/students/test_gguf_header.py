"""Headers of GGUF files that promise more than the file holds."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from lalp.errors import InputError
from lalp.students.gguf import convert_gguf
from lalp.students.gguf_header import check_gguf
from tests.fuzz.good import tiny_gguf, tiny_student
from tests.fuzz.hostile import GGUF_DAMAGES

# What each damage is refused for; the libraries refuse the others.
SAID = {
    "another mark": "does not begin as",
    "version 99": "version 99",
    "version 0": "version 0",
    "big end first": "version 50,331,648|version 50331648",
    "2^60 tensors": "tensors, more than the file can hold",
    "2^60 keys": "keys, more than the file can hold",
    "2^64 - 1 keys": "keys, more than the file can hold",
    "a name of 2^60 bytes": "where the file ends",
    "an array of 2^60 words": "values, more than the file can hold",
    "an array of 2^31 words": "values, more than the file can hold",
    "words of an unknown type": "unknown type|where the file ends",
    "2^60 token types": "values, more than the file can hold",
    "a template of 2^60 bytes": "where the file ends",
    "a deep array": "nests arrays too deeply",
    "a billion layers": "1,000,000,000 layers",
    "no layers": "it has 0 layers",
    "a tensor of 2^31 dimensions": "dimensions",
    "a tensor of 2^60": "overlap|beyond the end",
    "a tensor of an unknown type": r"unknown type \(99\)",
    "a tensor beyond the file": "beyond the end",
    "overlapping tensors": "overlap",
}
DAMAGES = {damage.name: damage for damage in GGUF_DAMAGES}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    tiny_student(folder / "student")
    tiny_gguf(folder / "student", folder / "tiny.gguf")
    return folder / "tiny.gguf"


def test_a_sound_file_passes(sound):
    check_gguf(sound, 100)


@pytest.mark.parametrize("name", SAID)
def test_a_header_that_lies_is_refused_at_once(name, sound, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(sound.read_bytes())
    DAMAGES[name].apply(path, random.Random(0))
    start = time.monotonic()
    with pytest.raises(InputError, match=SAID[name]):
        check_gguf(path, 10_000)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.9, 0.9999])
def test_a_file_that_was_cut_is_refused(share, sound, tmp_path):
    data = sound.read_bytes()
    path = tmp_path / "tiny.gguf"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError):
        check_gguf(path, 10_000)


def test_weights_that_a_file_lacks_are_not_made_up(sound, tmp_path, monkeypatch):
    """transformers would go on with random ones."""
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    path = tmp_path / "tiny.gguf"
    path.write_bytes(sound.read_bytes())
    DAMAGES["no tensors"].apply(path, random.Random(0))
    with pytest.raises(InputError, match=r"tiny\.gguf.*its files lack the weights"):
        convert_gguf(path)
    assert list(tmp_path.rglob("model.safetensors")) == []


@pytest.mark.parametrize("begin", [b"", b"GGUF"])
def test_a_terabyte_of_zeros_is_refused_before_it_is_read(begin, tmp_path):
    with (tmp_path / "tiny.gguf").open("wb") as file:
        file.write(begin)
        file.truncate(1 << 40)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"1,024\.0 GiB, more than the memory"):
        convert_gguf(tmp_path / "tiny.gguf")
    assert time.monotonic() - start < 20
