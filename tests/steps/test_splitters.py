"""Splitters by name, chunks of tokens, and files of given steps: read, written and refused."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.steps.sentences import SPLITTERS, split_steps
from lalp.steps.splitters import (
    check_splitter,
    chunk_size,
    chunk_tokens,
    count_reasons,
    load_steps,
    split_pool,
    write_steps,
)
from lalp.students.encoding import assign_steps, encode, render_prompt

TEXTS = {"a": "We add. So 7.", "b": "Let us see: 🙂 3 + 4.\n\nIt is 7. Done.", "c": " x = 7 "}
SPANS = {"a": [(0, 8), (8, 13)], "b": [(0, 22), (22, 36)], "c": [(0, 7)]}
PROMPT = Prompt("p", (Message("user", "What is 3 + 4?"),))
POOL = Pool({"p": PROMPT}, tuple(Response(name, "p", "Ada", text) for name, text in TEXTS.items()))


def is_partition(text: str, spans: list[tuple[int, int]]) -> bool:
    return "".join(text[a:b] for a, b in spans) == text and all(a < b for a, b in spans)


def test_a_named_splitter_is_the_one_for_texts():
    for name in SPLITTERS:
        assert split_pool(POOL, name) == {k: split_steps(text, name) for k, text in TEXTS.items()}


@pytest.mark.parametrize("name", ["words", "", "t", "0t", "32", "-3t", "٣t", "3.5t", "Sentences"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match=r"unknown step splitter .*32t, and steps files"):
        split_pool(POOL, name)


def test_splitters_that_lack_something_say_what():
    with pytest.raises(InputError, match="run `lalp segment --splitter llm"):
        check_splitter("llm")
    with pytest.raises(InputError, match="counts tokens: give the student's tokenizer"):
        split_pool(POOL, "32t")


def test_sentences_do_not_wait_for_torch():
    code = "import sys, lalp.steps.splitters; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_chunks_by_hand():
    assert [chunk_size(name) for name in ("32t", "1t", "0t", "sentences")] == [32, 1, None, None]
    offsets = [(0, 2), (2, 6), (6, 7), (7, 10), (10, 13)]
    assert chunk_tokens("We add. So 7.", offsets, 2) == [(0, 6), (6, 10), (10, 13)]
    assert chunk_tokens("We add. So 7.", offsets, 5) == [(0, 13)]
    assert chunk_tokens("a", [], 3) == [(0, 1)]
    # Three tokens make up one character: it stays whole.
    assert chunk_tokens("🙂!", [(0, 1), (0, 1), (0, 1), (1, 2)], 2) == [(0, 2)]
    assert chunk_tokens("🙂!", [(0, 1), (0, 1), (0, 1), (1, 2)], 1) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_chunks_hold_that_many_student_tokens(size, tokenizer):
    texts = ["We add the numbers, so the sum is 7. Then x = 3.", "7", "Therefore: 3 * 4 = 12."]
    pool = Pool({"p": PROMPT}, tuple(Response(text, "p", "A", text) for text in texts))
    for text, spans in split_pool(pool, f"{size}t", tokenizer=tokenizer).items():
        assert is_partition(text, spans)
        encoded = encode(tokenizer, render_prompt(tokenizer, PROMPT), text)
        tokens = assign_steps(text, encoded.offsets, spans)
        lengths = [end - start for start, end in tokens]
        assert lengths[:-1] == [size] * (len(lengths) - 1)
        assert sum(lengths) == len(encoded.response_ids)
        assert 1 <= lengths[-1] <= size


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), max_size=20), size=st.integers(1, 6), rest=st.integers(0, 3)
)
def test_chunks_partition_any_text(lengths, size, rest):
    text = "x" * (sum(lengths) + rest)
    offsets = list(itertools.pairwise(itertools.accumulate(lengths, initial=0)))
    spans = chunk_tokens(text, offsets, size)
    assert is_partition(text, spans) or not text
    assert bool(spans) == bool(text)


def test_given_steps_are_taken_as_they_are():
    found = split_pool(POOL, {name: np.array(spans) for name, spans in SPANS.items()})
    assert found == SPANS
    assert all(type(place) is int for spans in found.values() for span in spans for place in span)


BAD_SPANS = {
    "a gap": ([(0, 7), (8, 13)], "step 2 is [8, 13) where one from 7 on is due"),
    "an overlap": ([(0, 9), (8, 13)], "step 2 is [8, 13) where one from 9 on is due"),
    "out of order": ([(8, 13), (0, 8)], "step 1 is [8, 13) where one from 0 on is due"),
    "an empty step": ([(0, 8), (8, 8), (8, 13)], "step 2 is [8, 8)"),
    "too short": ([(0, 8)], "the steps end at 8, the response has 13 characters"),
    "too long": ([(0, 8), (8, 14)], "the steps end at 14, the response has 13 characters"),
    "three places": ([(0, 8, 13)], "step 1 must be [start, end] in characters"),
    "floats": ([(0, 8.0), (8.0, 13)], "step 1 must be [start, end] in characters"),
    "null": ([None], "step 1 must be [start, end] in characters"),
}


@pytest.mark.parametrize(("spans", "message"), BAD_SPANS.values(), ids=BAD_SPANS)
def test_given_steps_that_do_not_partition_are_refused(spans, message):
    with pytest.raises(InputError, match=re.escape(f"given steps of response 'a': {message}")):
        split_pool(POOL, SPANS | {"a": spans})


def test_given_steps_are_of_exactly_the_pools_responses():
    with pytest.raises(InputError, match="response 'b' has no steps"):
        split_pool(POOL, {k: v for k, v in SPANS.items() if k != "b"})
    with pytest.raises(InputError, match="response 'z' has steps but is not in the pool"):
        split_pool(POOL, SPANS | {"z": [(0, 1)]})


def test_a_written_file_reads_back(tmp_path):
    path = tmp_path / "new" / "steps.jsonl"
    write_steps(path, POOL, SPANS, {"b": "the answer is empty"})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        **{"prompt_id": "p", "response_id": "a", "teacher": "Ada"},
        "steps": [[0, 8], [8, 13]],
    }
    assert [line.get("fallback") for line in lines] == [None, "the answer is empty", None]
    assert load_steps(path, POOL) == SPANS
    assert split_pool(POOL, str(path)) == SPANS


def test_blank_lines_other_fields_and_another_order_do_no_harm(tmp_path):
    path = tmp_path / "steps.jsonl"
    records = [{"response_id": k, "steps": v, "note": 1} for k, v in reversed(SPANS.items())]
    text = "\n\n".join(json.dumps(record) for record in records)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_steps(path, POOL) == SPANS


def line(response_id: object = "b", steps: object = ((0, 36),)) -> str:
    return json.dumps({"response_id": response_id, "steps": steps})


BAD_LINES = {
    "{": "line 2: invalid JSON",
    "[" * 100_000: "line 2: invalid JSON",
    "[1]": "line 2: must be a JSON object",
    '{"steps": [[0, 36]]}': "line 2: field 'response_id' must be a text",
    '{"response_id": "b"}': "line 2: field 'steps' must be a list",
    line(steps="all"): "line 2: field 'steps' must be a list",
    line(steps=[[0]]): "line 2: step 1 must be [start, end]",
    line("z"): "line 2: response 'z' is not in the pool",
    line("a", SPANS["a"]): "line 2: response 'a' has steps in an earlier line already",
    line(steps=[[0, 20], [21, 36]]): "line 2: step 2 is [21, 36) where one from 20 on is due",
    "": "1 of 3 responses have no steps, for example 'b'",
}


@pytest.mark.parametrize(("bad", "message"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_errors_name_file_and_line(bad, message, tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text(f"{line('a', SPANS['a'])}\n{bad}\n{line('c', SPANS['c'])}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_steps(path, POOL)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        split_pool(POOL, str(tmp_path / "none.jsonl"))


def test_reasons_are_counted_without_their_percentages():
    fallbacks = {"a": "too little (10% of the words)", "b": "empty", "c": "too little (7% ...)"}
    assert count_reasons(fallbacks) == {"too little": 2, "empty": 1}
