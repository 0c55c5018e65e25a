"""A JSON list is read item by item, and says what json.loads says of the whole."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools import json_list, lines
from lalp.pools.json_list import json_items
from lalp.pools.sources import open_source

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "inf" not in repr(value))


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", 3)
        yield


@given(values=st.lists(VALUES), indent=st.sampled_from([None, 1]), is_ascii=st.booleans())
def test_items_are_those_of_the_whole(values, indent, is_ascii):
    raw = json.dumps(values, indent=indent, ensure_ascii=is_ascii).encode()
    assert [value for _, value in json_items(io.BytesIO(raw), "x.json")] == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a": 2,}]', "item 2: invalid JSON: .* at line 1, column 20"),
        ('[\n 1,\n "x]', "item 2: invalid JSON: Unterminated string .* line 3, column 2"),
        ("[1 2]", "invalid JSON after item 1, at line 1, column 5"),
        ("[1, 2", "invalid JSON after item 2"),
        ("[1, 2] 3", "invalid JSON after item 2"),
        ("[1, ]", "item 2: invalid JSON: Expecting value at line 1, column 5"),
        ("[1, NaN]", "item 2: invalid JSON: NaN is not JSON"),
        ('[{"a": 1, "a": 2}]', "item 1: invalid JSON: field 'a' is given twice"),
        ("[" * 100_000, "item 1: invalid JSON: nested too deeply"),
        ('[1, "é"]'.encode("latin-1"), "item .: not UTF-8 text: byte 0xe9 at offset 5"),
    ],
)
def test_what_is_no_list_is_refused_at_its_place(text, says):
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InputError, match=f"x.json.*{says}"):
        list(json_items(io.BytesIO(raw), "x.json"))


def test_what_is_no_list_is_left_to_others():
    assert json_items(io.BytesIO(b' {"a": 1}'), "x.json") is None
    assert json_items(io.BytesIO(b""), "x.json") is None


@pytest.mark.parametrize("name", ["pool.jsonl.gz", "pool.csv.gz", "pool.json.gz"])
def test_a_record_that_none_can_be_is_refused_before_it_fills_the_memory(
    tmp_path, monkeypatch, name
):
    for module in (lines, json_list):
        monkeypatch.setattr(module, "ROW_LIMIT", 1 << 20)
    monkeypatch.setattr("lalp.pools.sources.ROW_LIMIT", 1 << 20)
    start = {"pool.csv.gz": b"prompt,response\n", "pool.json.gz": b'["'}.get(name, b"")
    path = tmp_path / name
    path.write_bytes(gzip.compress(start + b"x" * (5 << 20)))
    with pytest.raises(InputError, match=f"{name}, (line|item) \\d: .*1 MiB, which no record is"):
        list(open_source(path).records)
