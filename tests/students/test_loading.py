"""Folders of models that hold what no library should begin to read."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lalp.errors import InputError
from lalp.students.loading import check_num_layers, unreadable
from lalp.students.student import find_student, load_tokenizer, revision
from tests.fuzz.hostile import STUDENT_DAMAGES

DAMAGES = {damage.name: damage for damage in STUDENT_DAMAGES}


@pytest.fixture
def folder(llama_folder, tmp_path):
    shutil.copytree(llama_folder, tmp_path / "student")
    return tmp_path / "student"


def test_a_pipe_in_a_folder_is_not_waited_for(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(InputError, match=r"config\.json: is a pipe or a device"):
        find_student(str(folder), device="cpu")


def test_weights_of_a_terabyte_of_zeros_are_refused_before_they_are_read(folder):
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"model\.safetensors: its header would have 0 bytes"):
        revision(str(folder), None)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "name",
    [
        "a header longer than the file",
        "a header of 2^60 bytes",
        "a header of 2^64 - 1 bytes",
        "no header",
        "offsets beyond the file",
        "a deep header",
        "a header that is a list",
    ],
)
def test_a_header_of_weights_that_lies_is_refused(name, folder):
    DAMAGES[f"weights: {name}"].apply(folder, random.Random(0))
    with pytest.raises(InputError, match=r"model\.safetensors: "):
        revision(str(folder), None)


@pytest.mark.parametrize("layers", [10**9, -1, "2"])
def test_a_number_of_layers_that_no_model_has_is_refused(layers):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=layers))
    with pytest.raises(InputError, match=r"it has .* layers"):
        check_num_layers(config)


def test_a_fault_within_a_library_in_rust_is_bad_input():
    fault = type("PanicException", (BaseException,), {})
    with pytest.raises(InputError, match=r"student 'x' cannot be loaded: index 3\. Mend it"):  # noqa: SIM117
        with unreadable("student", "x", "Mend it"):
            raise fault("index 3")
    with pytest.raises(KeyboardInterrupt), unreadable("student", "x", "Mend it"):
        raise KeyboardInterrupt


def test_an_architecture_does_not_replace_the_rules_of_a_tokenizer_file(folder, caplog):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    rules = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "Then  12345\n\n1. I'll"
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs(text).input_ids != rules.encode(text).ids  # split as Qwen2's
    ours = [load_tokenizer(str(folder)) for _ in range(2)]
    assert [each(text).input_ids for each in ours] == [rules.encode(text).ids] * 2
    assert ours[0].chat_template == theirs.chat_template
    assert caplog.text.count("the file's rules are taken") == 1


def test_a_tokenizer_file_that_pads_without_end_pads_nothing(folder):
    rules = json.loads((folder / "tokenizer.json").read_text())
    padding = {"strategy": {"Fixed": 10**11}, "direction": "Right", "pad_to_multiple_of": None}
    rules["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|end|>"}
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    assert len(load_tokenizer(str(folder))("Two words.").input_ids) < 12


def test_tokenizer_files_that_contradict_each_other_are_refused(folder):
    DAMAGES["tokenizer: padding without end"].apply(folder, random.Random(0))  # its mark is "x"
    with pytest.raises(InputError, match=r"do not read texts alike"):
        load_tokenizer(str(folder))


def test_a_tokenizer_that_makes_thousands_of_tokens_of_a_character_is_refused(folder):
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["normalizer"] = {"type": "Replace", "pattern": {"String": "e"}, "content": "ab" * 9999}
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(InputError, match=r"its tokenizer makes [\d,]+ tokens of 58 characters"):
        load_tokenizer(str(folder))
