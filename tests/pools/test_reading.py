"""Reading pools and prompts, and how bad input is refused."""

import codecs
import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import save_pool
from tests.pools.builders import (
    CHAT,
    GOOD,
    REPLY,
    USER,
    exact,
    jsonl,
    refused,
    two_prompt_pool,
    write,
)

FIRST = GOOD | {"response_id": "r1", "answer": "4"}
SECOND = GOOD | {"response_id": "r2"}

# --- Good input --------------------------------------------------------------------------------


ASKED = (Message("user", "What is 2 + 2?"),)
EMPTY, ANSWERED = CHAT[0] | {"content": ""}, CHAT[2] | {"tool_calls": None}


@pytest.mark.parametrize(
    ("record", "prompt", "response"),
    [
        (
            GOOD | {"answer": 4, "correct": True, "source": {"page": 3}},
            Prompt("p1", ASKED, "4"),
            Response("p1/ada/0", "p1", "ada", "It is 4.", True, {"source": {"page": 3}}),
        ),
        (
            GOOD | {"prompt": [EMPTY, CHAT[1], ANSWERED, CHAT[3]]},
            Prompt("p1", (Message("system", ""), *(Message(**turn) for turn in CHAT[1:]))),
            Response("p1/ada/0", "p1", "ada", "It is 4."),
        ),
        (
            {"messages": [USER, REPLY], "prompt_id": "q", "teacher": "ada", "lang": "en"},
            Prompt("q", (Message(**USER),)),
            Response("q/ada/0", "q", "ada", "4", None, {"lang": "en"}),
        ),
    ],
)
def test_a_record_becomes_prompt_and_response(tmp_path, record, prompt, response):
    pool = load_pool(write(tmp_path / "pool.jsonl", jsonl(record)))
    assert pool == Pool({prompt.prompt_id: prompt}, (response,))


def test_default_response_ids_count_within_prompt_and_teacher():
    changes = ({}, {"teacher": "bob"}, {"prompt_id": "p2"}, {"response_id": "mine"}, {})
    ids = [r.response_id for r in load_pool(GOOD | change for change in changes).responses]
    assert ids == ["p1/ada/0", "p1/bob/0", "p2/ada/0", "mine", "p1/ada/2"]


def test_messages_records_share_a_default_prompt_id_iff_their_prompts_are_equal():
    def record(question, reply):
        return {"messages": [USER | {"content": question}, REPLY | {"content": reply}]}

    texts = [("2 + 2?", "4"), ("2 + 2?", "four"), ("2 + 3?", "5")]
    first, second, other = load_pool(record(*pair) for pair in texts).responses
    assert first.prompt_id == second.prompt_id != other.prompt_id
    assert first.teacher == "unknown"
    assert second.response_id == f"{first.prompt_id}/unknown/1"
    assert [other.prompt_id] == list(load_pool([record("2 + 3?", "five")]).prompts)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        *(("  4 ", "  4 "), (4, "4"), (0.25, "0.25"), (4.0, "4"), (True, "True")),
        *((np.int64(4), "4"), (None, None), (float("nan"), None), (pd.NA, None)),
        *(("", None), (" \n", None)),
    ],
)
def test_answer_is_taken_as_text(answer, text):
    assert load_pool([GOOD | {"answer": answer}]).prompts["p1"].answer == text


def test_answer_on_some_records_holds_for_the_prompt():
    records = [GOOD, GOOD | {"answer": "4"}, GOOD | {"answer": " 4\n"}, GOOD | {"answer": None}]
    assert load_pool(records).prompts["p1"].answer == "4"


def test_blank_lines_are_counted_not_dropped_silently(tmp_path):
    content = b"\n" + jsonl(FIRST) + b"  \t\r\n\n" + jsonl(SECOND)
    pool = load_pool(write(tmp_path / "pool.jsonl", content))
    assert (len(pool.responses), pool.left_out) == (2, {"blank line": 3})
    with refused("line 5", "taken by line 2"):
        load_pool(write(tmp_path / "pool.jsonl", content.replace(b'"r2"', b'"r1"')))


ODD_TEXT = GOOD | {"response": "one\u2028two\u0085three \U0001d54f"}  # no line ends, not two


@pytest.mark.parametrize(
    ("name", "content", "record"),
    [
        ("POOL.JSONL", codecs.BOM_UTF8 + jsonl(GOOD), GOOD),
        ("pool.json-lines", jsonl(GOOD).rstrip(), GOOD),
        ("a b.v2.jsonl", jsonl(GOOD).replace(b"\n", b"\r\n"), GOOD),
        ("indented.jsonl", b"  " + jsonl(GOOD), GOOD),
        ("escapes.jsonl", jsonl(ODD_TEXT), ODD_TEXT),
        ("plain.jsonl", json.dumps(ODD_TEXT, ensure_ascii=False).encode(), ODD_TEXT),
    ],
)
def test_harmless_variants_of_jsonl_read_the_same(tmp_path, name, content, record):
    path = write(tmp_path / name, content)
    assert load_pool(path) == load_pool(str(path)) == load_pool([record])


def test_numpy_arrow_and_date_values_become_plain_python():
    values = {
        "int": (np.int32(3), 3),
        "bool": (np.bool_(True), True),
        "float": (np.float32(0.5), 0.5),
        "text": (np.str_("x"), "x"),
        "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        "scalar array": (np.array(7), 7),
        "tuple": ((1, "a"), [1, "a"]),
        "arrow": (pa.array([1, None]), [1, None]),
        "arrow struct": (pa.scalar({"k": 1.5}), {"k": 1.5}),
        "day": (date(2024, 2, 29), "2024-02-29"),
        "null": (None, None),
    }
    given = {name: value for name, (value, _) in values.items()} | {"not there": float("nan")}
    got = load_pool([GOOD | given]).responses[0].extra
    assert got == {name: plain for name, (_, plain) in values.items()}
    assert [type(got[name]) for name in ("int", "bool", "float", "text")] == [int, bool, float, str]


def test_null_cells_of_tables_are_absent_fields(tmp_path):
    first = {"answer": 4, "correct": True, "when": pd.Timestamp("2024-01-02"), "note": pd.NA}
    second = {"answer": None, "correct": None, "when": pd.NaT, "note": "n", "score": 0.5}
    frame = pd.DataFrame([GOOD | first, GOOD | second])
    frame.to_parquet(tmp_path / "pool.parquet")
    extras = [{"when": "2024-01-02T00:00:00"}, {"score": 0.5, "note": "n"}]
    for pool in (load_pool(frame), load_pool(tmp_path / "pool.parquet")):
        assert pool.prompts["p1"].answer == "4"
        assert [response.correct for response in pool.responses] == [True, None]
        assert [response.extra for response in pool.responses] == extras


def test_parquet_messages_column_reads_like_jsonl(tmp_path):
    records = [{"messages": [USER, REPLY], "teacher": teacher} for teacher in (None, "ada")]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "pool.parquet")
    from_frame = load_pool(pd.read_parquet(tmp_path / "pool.parquet"))
    assert load_pool(tmp_path / "pool.parquet") == from_frame == load_pool(records)


def test_parquet_batches_number_their_rows_through(tmp_path):
    rows, path = [GOOD | {"response": f"r{n}"} for n in range(3000)], tmp_path / "pool.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    texts = [response.text for response in load_pool(path).responses]
    assert texts == [row["response"] for row in rows]
    rows[2500]["response"] = " "
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    with refused("pool.parquet, row 2501: field 'response'"):
        load_pool(path)


# --- Bad input ---------------------------------------------------------------------------------


BAD_LINES = {
    "truncated": (b'{"prompt_id": "p1", "pro', "invalid JSON", "column 21"),
    "single quotes": (b"{'a': 1}", "invalid JSON", "one JSON object on each line"),
    "array": (b"[1]", "must be an object", "[1] (list)"),
    "NaN": (b'{"x": NaN}', "NaN is not JSON"),
    "overflow": (jsonl(SECOND)[:-2] + b', "x": 1e999}', "'x'", "inf is not a JSON number"),
    "field twice": (b'{"x": 1, "x": 2}', "'x' is given twice"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "huge integer": (b'{"x": ' + b"9" * 5000 + b"}", "invalid JSON", "integer"),
    "Latin-1": ("{'é'}".encode("latin-1"), "not UTF-8 text", "0xe9"),
    "NUL": (b'{"x": "\0"}', "NUL", "UTF-8"),
    "later byte order mark": (codecs.BOM_UTF8 + b"{}", "invalid JSON"),
}
BAD_RECORDS = yaml.safe_load(
    Path(__file__).with_name("bad_records.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line_names_file_and_line(tmp_path, name):
    line, *fragments = BAD_LINES[name]
    path = write(tmp_path / "pool.jsonl", jsonl(FIRST) + line + b"\n" + jsonl(SECOND))
    with refused(f"{path}, line 2", *fragments):
        load_pool(path)


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_record_names_place_and_field(tmp_path, name):
    changes, *fragments = BAD_RECORDS[name]
    record = SECOND | changes if isinstance(changes, dict) else SECOND.copy()
    if isinstance(changes, str):
        del record[changes]
    path = write(tmp_path / "pool.jsonl", jsonl(FIRST, record))
    for source, place in ((path, f"{path}, line"), ([FIRST, record], "records, row")):
        unit = place.split(", ")[1]
        with refused(f"{place} 2: ", *(fragment.format(unit=unit) for fragment in fragments)):
            load_pool(source)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_jsonl_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    content = jsonl(FIRST, {"messages": [USER, REPLY]}, SECOND | {"x": [1.5, {"é": None}]})
    damaged = data.draw(st.binary()) or b" "
    if data.draw(st.booleans()):
        at, size = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 2))
        damaged = content[:at] + data.draw(st.binary(max_size=2)) + content[at + size :]
    path = write(tmp_path_factory.mktemp("pool") / "pool.jsonl", damaged)
    try:
        pool = load_pool(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert str(error).isprintable()
    else:
        save_pool(pool, path)
        assert exact(load_pool(path)) == exact(pool)


def test_made_up_ids_that_clash_say_so_and_long_values_are_cut():
    clash = [{"prompt_id": "a/b", "teacher": "c"}, {"prompt_id": "a", "teacher": "b/c"}]
    with refused("row 2: field 'response_id': 'a/b/c/0'", "row 1", "prompt_id/teacher/n"):
        load_pool(GOOD | ids for ids in clash)
    with refused("'answer' is '222", "but '111", "row 1"):
        load_pool(GOOD | {"answer": digit * 5000} for digit in "12")


MARKED = codecs.BOM_UTF8 + jsonl(GOOD)
BYTE = "not UTF-8 text: byte 0xe9 at offset"


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("pool.jsonl", b"", ["file is empty"]),
        ("pool.jsonl", codecs.BOM_UTF8, ["no records"]),
        ("pool.jsonl", codecs.BOM_UTF8 + b'{"caf\xe9"}', [f"line 1: {BYTE} 8 of the file"]),
        ("pool.jsonl", MARKED + b'{"caf\xe9"}', [f"line 2: {BYTE} {len(MARKED) + 5} of the file"]),
        *(
            ("pool.jsonl", json.dumps(GOOD).encode(encoding), ["line 1", "UTF-16", "save it as"])
            for encoding in ("utf-16", "utf-16-be", "utf-32")
        ),
        ("pool.jsonl", b"PAR1\x15\x04\x15\xff\x00", ["line 1", "NUL"]),
        ("pool.txt", b"a,b", [".jsonl", ".json-lines", ".parquet", "'.txt'"]),
        ("pool.parquet", jsonl(GOOD), ["not a Parquet file"]),
        ("pool.parquet", b"PAR1" + bytes(100) + b"PAR1", ["broken"]),
    ],
)
def test_bad_file_is_named(tmp_path, name, content, fragments):
    path = write(tmp_path / name, content)
    with refused(str(path), *fragments):
        load_pool(path)


def test_missing_file_and_folder_are_named(tmp_path):
    for load in (load_pool, load_prompts):
        with refused("none.jsonl: no such file"):
            load(tmp_path / "none.jsonl")
    with refused(": is a folder; give one"):
        load_pool(tmp_path)


@pytest.mark.parametrize("source", [None, 5, GOOD, b"pool.jsonl", two_prompt_pool(), [], iter(())])
def test_sources_without_records_are_refused(source):
    kind = type(source).__name__
    is_empty = kind in ("list", "tuple_iterator")
    with refused("no records" if is_empty else f"cannot read a pool from {kind}"):
        load_pool(source)


def test_a_damaged_parquet_file_never_changes_the_pool(tmp_path):
    path, pool = tmp_path / "pool.parquet", two_prompt_pool()
    save_pool(pool, path)
    whole = path.read_bytes()
    cut = [whole[:size] for size in range(1, len(whole), 97)]
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    one_wrong_byte = [
        whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :] for at in range(4, footer, 7)
    ]
    num_read = 0
    for damaged in cut + one_wrong_byte:
        path.write_bytes(damaged)
        try:
            assert load_pool(path) == pool
            num_read += 1
        except InputError as error:
            assert str(error).startswith(f"{path}: broken or not a Parquet file")
            assert str(error).isprintable()
    assert num_read < len(one_wrong_byte) - 10  # a byte may hold statistics only


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["prompt_id"], "no column 'prompt', 'teacher', 'response' among ['prompt_id']"),
        ([*GOOD, "teacher"], "2 columns are named 'teacher'"),
    ],
)
def test_tables_without_needed_columns_or_with_two_of_a_name_are_refused(tmp_path, names, message):
    table = pa.table([pa.array(["x"])] * len(names), names=names)
    pq.write_table(table, tmp_path / "pool.parquet")
    for source, name in ((table.to_pandas(), "DataFrame"), (tmp_path / "pool.parquet", "parquet")):
        with refused(f"{name}: {message}"):
            load_pool(source)
    with refused("column name 0 (int) is not text"):
        load_pool(pd.DataFrame([GOOD | {0: "x"}]))


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("response", pa.array([b"fine", b"caf\xe9"]).view(pa.string()), "utf-8"),
        ("m", pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "{"])), "invalid JSON"),
    ],
)
def test_a_cell_that_cannot_be_read_names_row_and_column(tmp_path, name, cells, message):
    columns = {field: pa.array([value] * 2) for field, value in GOOD.items()} | {name: cells}
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    with refused(f"pool.parquet, row 2: field '{name}': ", message):
        load_pool(tmp_path / "pool.parquet")


ENDLESS = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        *((b"raw", "bytes values"), (Decimal("1.5"), "Decimal values"), ({1, 2}, "set values")),
        *((float("inf"), "inf is not"), ([1.0, float("nan")], "nan is not")),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "datetime64 values"),
        *(({1: "a"}, "key 1 (int) is not text"), (ENDLESS, "nested too deeply")),
    ],
)
def test_extra_values_that_json_cannot_hold_are_refused(value, fragment):
    with refused("row 1: field 'meta': ", fragment):
        load_pool([GOOD | {"meta": value}])


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_reading_holds_about_one_copy(tmp_path):
    path = tmp_path / "pool.jsonl"
    write(path, jsonl(*(GOOD | {"response": f"{n} " + "x" * 100_000} for n in range(600))))
    code = (
        "import resource, sys; from lalp.pools.reading import load_pool\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pool = load_pool(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 1.5 * path.stat().st_size


# --- Prompts -----------------------------------------------------------------------------------

PROMPTS = [
    {"prompt_id": "a", "prompt": "3 + 4?", "answer": 7},
    {"prompt_id": "b", "prompt": [USER], "level": 3},
]
READ = [Prompt("a", (Message("user", "3 + 4?"),), "7"), Prompt("b", (Message(**USER),))]


def test_prompts_of_json_lines_and_parquet(tmp_path):
    assert load_prompts(write(tmp_path / "p.jsonl", jsonl(*PROMPTS))) == READ
    first = PROMPTS[0] | {"prompt": [USER | {"content": "3 + 4?"}]}
    pd.DataFrame([first, PROMPTS[1]]).to_parquet(tmp_path / "p.parquet")
    assert load_prompts(tmp_path / "p.parquet") == READ


def test_the_prompts_of_a_pool(tmp_path):
    rows = [record | {"teacher": t, "response": t} for t in "AB" for record in PROMPTS]
    assert load_prompts(write(tmp_path / "pool.jsonl", jsonl(*rows))) == READ
    save_pool(load_pool(tmp_path / "pool.jsonl"), tmp_path / "pool.parquet")
    assert load_prompts(tmp_path / "pool.parquet") == READ
    path = write(tmp_path / "chat.jsonl", jsonl({"messages": [USER, REPLY]}))
    assert [prompt.messages for prompt in load_prompts(path)] == [READ[1].messages]


def test_prompts_of_other_files_and_layouts(tmp_path):
    asked = (Message("user", "3 + 4?"),)
    rows = b"question,answer\n3 + 4?,7\n"
    (prompt,) = load_prompts(write(tmp_path / "p.csv", rows))
    assert (prompt.messages, prompt.answer) == (asked, "7")
    (same,) = load_prompts(write(tmp_path / "p.json", b'[{"prompt": "3 + 4?", "answer": 7}]'))
    assert same == prompt  # named by a hash of it
    record = {"question": "3 + 4?", "solution": "We add.", "answer": "7"}
    (limo,) = load_prompts(write(tmp_path / "limo.jsonl", jsonl(record)))
    assert limo == prompt


OTHER = [PROMPTS[0] | {"teacher": "A", "response": "7", "answer": n} for n in (7, 8)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", jsonl(*[PROMPTS[0]] * 2), "line 2: prompt_id 'a' is already taken by line 1"),
        (
            "p.jsonl",
            jsonl({"asked": "Why?"}),
            "p.jsonl, line 1: the fields are asked; a pool needs",
        ),
        ("p.jsonl", jsonl(PROMPTS[0], {"asked": 1}), "line 2: there is no 'prompt', 'problem', "),
        ("p.jsonl", jsonl(PROMPTS[0], [1]), "line 2: must be an object"),
        ("p.jsonl", jsonl(*OTHER), "line 2: field 'answer' is '8', but '7' in line 1 for the same"),
        ("p.jsonl", b"", "the file is empty"),
        ("p.jsonl", b"\n", "no prompts"),
        ("p.parquet", b"PAR1 no", "broken or not a Parquet file"),
        ("p.csv", b"prompt_id,prompt", "p.csv: no prompts"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, name, content, said):
    with refused(said):
        load_prompts(write(tmp_path / name, content))
