"""Reading, checking and writing pools."""

import codecs
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response, pool_summary
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import TRAINING_FORMATS, save_pool, write_training

GOOD = {"prompt_id": "p1", "prompt": "What is 2 + 2?", "teacher": "ada", "response": "It is 4."}


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write(path, content):
    path.write_bytes(content)
    return path


USER = {"role": "user", "content": "2 + 2?"}
REPLY = {"role": "assistant", "content": "4"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Is 7 prime?"},
]


def two_prompt_pool():
    """Two prompts; the first a chat with an answer, the second plain; three teachers."""
    chat = tuple(Message(**message) for message in CHAT)
    prompts = {
        "a": Prompt("a", chat, "yes"),
        "b": Prompt("b", (Message("user", "Add ½ and ¼."),)),
    }
    responses = (
        Response("a1", "a", "ada", "Yes: no divisor below √7.", True, {"level": 3}),
        Response("a2", "a", "bob", "Yes.", False),
        Response("a3", "a", "bob", "Yes.", True),
        Response("b1", "b", "cyd", "¾\n\nDone.", None, {"tags": ["x", 1, None]}),
    )
    return Pool(prompts, responses)


# --- Good input --------------------------------------------------------------------------------


def test_jsonl_record_becomes_prompt_and_response(tmp_path):
    record = GOOD | {"answer": 4, "correct": True, "source": {"page": 3}}
    pool = load_pool(write(tmp_path / "pool.jsonl", jsonl(record)))
    assert pool.prompts == {"p1": Prompt("p1", (Message("user", "What is 2 + 2?"),), "4")}
    assert pool.responses == (
        Response("p1/ada/0", "p1", "ada", "It is 4.", True, {"source": {"page": 3}}),
    )
    assert pool.left_out == {}


def test_default_response_ids_count_within_prompt_and_teacher():
    changes = ({}, {"teacher": "bob"}, {"prompt_id": "p2"}, {"response_id": "mine"}, {})
    ids = [r.response_id for r in load_pool(GOOD | change for change in changes).responses]
    assert ids == ["p1/ada/0", "p1/bob/0", "p2/ada/0", "mine", "p1/ada/2"]


def test_chat_prompt_keeps_every_message():
    empty, answered = CHAT[0] | {"content": ""}, CHAT[2] | {"tool_calls": None}
    pool = load_pool([GOOD | {"prompt": [empty, CHAT[1], answered, CHAT[3]]}])
    assert pool.prompts["p1"].messages == (
        Message("system", ""),
        *(Message(**message) for message in CHAT[1:]),
    )


def test_messages_record_is_split_before_the_last_message():
    ids = {"prompt_id": "q", "teacher": "ada", "response_id": "r"}
    record = {"messages": [USER, REPLY], **ids, "answer": "4", "correct": True, "lang": "en"}
    pool = load_pool([record])
    assert pool.prompts == {"q": Prompt("q", (Message("user", "2 + 2?"),), "4")}
    assert pool.responses == (Response("r", "q", "ada", "4", True, {"lang": "en"}),)


def test_messages_records_share_a_default_prompt_id_iff_their_prompts_are_equal():
    def record(question, reply):
        return {"messages": [USER | {"content": question}, REPLY | {"content": reply}]}

    first, second, other = load_pool(
        [record("2 + 2?", "4"), record("2 + 2?", "four"), record("2 + 3?", "5")]
    ).responses
    assert first.prompt_id == second.prompt_id != other.prompt_id
    assert first.teacher == "unknown"
    assert second.response_id == f"{first.prompt_id}/unknown/1"
    (again,) = load_pool([record("2 + 3?", "five")]).responses
    assert again.prompt_id == other.prompt_id


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
    content = b"\n" + jsonl(GOOD) + b"  \t\r\n\n" + jsonl(GOOD)
    pool = load_pool(write(tmp_path / "pool.jsonl", content))
    assert len(pool.responses) == 2
    assert pool.left_out == {"blank line": 3}


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + jsonl(GOOD),
        jsonl(GOOD).rstrip(),
        jsonl(GOOD).replace(b"\n", b"\r\n"),
        b"  " + jsonl(GOOD),
    ],
    ids=["byte order mark", "no last line feed", "CRLF", "indented"],
)
def test_harmless_variants_of_jsonl_read_the_same(tmp_path, content):
    assert load_pool(write(tmp_path / "pool.jsonl", content)) == load_pool([GOOD])


@pytest.mark.parametrize("as_escapes", [True, False])
@pytest.mark.parametrize("text", ["one\u2028two\u0085three", "\U0001d54f"])
def test_a_character_is_no_line_end_and_no_two_characters(tmp_path, text, as_escapes):
    raw = json.dumps(GOOD | {"response": text}, ensure_ascii=as_escapes).encode()
    assert load_pool(write(tmp_path / "p.jsonl", raw)).responses[0].text == text


@pytest.mark.parametrize("name", ["POOL.JSONL", "pool.json-lines", "a b.v2.jsonl"])
def test_suffix_decides_the_format(tmp_path, name):
    path = write(tmp_path / name, jsonl(GOOD))
    assert load_pool(str(path)) == load_pool(path) == load_pool([GOOD])


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
    for pool in (load_pool(frame), load_pool(tmp_path / "pool.parquet")):
        assert pool.prompts["p1"].answer == "4"
        assert [response.correct for response in pool.responses] == [True, None]
        assert [response.extra for response in pool.responses] == [
            {"when": "2024-01-02T00:00:00"},
            {"score": 0.5, "note": "n"},
        ]


def test_parquet_messages_column_reads_like_jsonl(tmp_path):
    records = [{"messages": [USER, REPLY], "teacher": teacher} for teacher in (None, "ada")]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "pool.parquet")
    from_frame = load_pool(pd.read_parquet(tmp_path / "pool.parquet"))
    assert load_pool(tmp_path / "pool.parquet") == from_frame == load_pool(records)


def test_parquet_batches_number_their_rows_through(tmp_path):
    rows = [GOOD | {"response": f"r{n}", "response_id": str(n)} for n in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "good.parquet", row_group_size=700)
    pool = load_pool(tmp_path / "good.parquet")
    assert [response.text for response in pool.responses] == [f"r{n}" for n in range(3000)]
    rows[2500]["response"] = " "
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet", row_group_size=700)
    with pytest.raises(InputError, match=r"bad\.parquet, row 2501: field 'response'"):
        load_pool(tmp_path / "bad.parquet")


# --- Bad input ---------------------------------------------------------------------------------

FIRST = GOOD | {"response_id": "r1", "answer": "4"}
SECOND = GOOD | {"response_id": "r2"}


def without(*names, **others):
    """Changes that make of a record one without these fields."""
    return dict.fromkeys(names, ...) | others


BAD_LINES = {
    "truncated": (b'{"prompt_id": "p1", "pro', "invalid JSON", "column 21"),
    "two objects": (b"{} {}", "invalid JSON: Extra data at column 4"),
    "single quotes": (b"{'a': 1}", "invalid JSON", "one JSON object on each line"),
    "array": (b"[1]", "must be an object", "[1] (list)"),
    "NaN": (b'{"x": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"x": [-Infinity]}', "-Infinity is not JSON"),
    "overflow": (jsonl(SECOND)[:-2] + b', "x": 1e999}', "'x'", "inf is not a JSON number"),
    "field twice": (b'{"x": 1, "x": 2}', "'x' is given twice"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "huge integer": (b'{"x": ' + b"9" * 5000 + b"}", "invalid JSON", "integer"),
    "Latin-1": ("{'é'}".encode("latin-1"), "not UTF-8 text", "0xe9"),
    "NUL": (b'{"x": "\0"}', "NUL", "UTF-8"),
    "later byte order mark": (codecs.BOM_UTF8 + b"{}", "invalid JSON"),
}

BAD_RECORDS = {
    **{f"no {name}": (without(name), f"'{name}' is missing") for name in GOOD},
    "null response": ({"response": None}, "'response' is null"),
    "number as id": ({"prompt_id": 7}, "'prompt_id' must be text", "7 (int)"),
    "number as response id": ({"response_id": 7}, "'response_id' must be text"),
    "list as teacher": ({"teacher": ["ada"]}, "'teacher' must be text", "(list)"),
    "empty response": ({"response": ""}, "'response' is empty"),
    "blank response": ({"response": " \n\t\u3000"}, "'response' is empty", "whitespace"),
    "blank id": ({"prompt_id": " "}, "'prompt_id' is empty"),
    "blank response id": ({"response_id": ""}, "'response_id' is empty"),
    "object as prompt": ({"prompt": USER}, "'prompt' must be text", "(dict)"),
    "no messages": ({"prompt": []}, "'prompt' must end with a user message"),
    "ends with assistant": ({"prompt": [USER, REPLY]}, "'prompt' must end with a user"),
    "text as message": ({"prompt": ["hi"]}, "'prompt', message 1 must be an object"),
    "unknown role": (
        {"prompt": [USER | {"role": "human"}]},
        "'prompt', message 1: role must be system, user, assistant",
        "'human'",
    ),
    "list as role": ({"prompt": [USER | {"role": []}]}, "'role' must be text"),
    "no content": ({"prompt": [{"role": "user"}]}, "message 1: 'content' is missing"),
    "blank content": ({"prompt": [USER, USER | {"content": " "}]}, "message 2"),
    "tool call": ({"prompt": [USER | {"tool_calls": [1]}]}, "1: 'tool_calls' is not supported"),
    "messages and response": ({"messages": [USER, REPLY]}, "'messages'", "'prompt'"),
    "messages of text": (without(*GOOD, messages="hi"), "'messages' must be a list of messages"),
    "messages empty": (without(*GOOD, messages=[]), "'messages' must end with the assistant's"),
    "messages unanswered": (without(*GOOD, messages=[USER]), "must end with the assistant's"),
    "messages unasked": (without(*GOOD, messages=[REPLY]), "end with a user message"),
    "number as correct": ({"correct": 1}, "'correct' must be true, false", "1 (int)"),
    "list as answer": ({"answer": [4]}, "'answer' must be text, a number"),
    "other answer": ({"answer": "5"}, "'answer' is '5', but '4' in {unit} 1", "'p1'"),
    "other prompt": ({"prompt": "2 + 3?"}, "prompt differs", "{unit} 1", "'p1'"),
    "same response id": ({"response_id": "r1"}, "'response_id': 'r1'", "taken by {unit} 1"),
    "surrogate": ({"response": "a\ud800"}, "'response': lone surrogate U+D800 at character 2"),
    "surrogate in a message": ({"prompt": [USER | {"content": "\udfff"}]}, "'prompt': lone"),
    "surrogate in an extra key": ({"x": {"\ud800": 1}}, "'x': lone surrogate"),
    "surrogate in a field name": ({"\ud800": 1}, "lone surrogate"),
}


def check_message(error, *fragments):
    message = str(error.value)
    for fragment in fragments:
        assert fragment in message
    assert message.isprintable(), "one line that any terminal can show"
    assert len(message) < 400


@pytest.mark.parametrize(
    ("line", "fragments"), [(b, f) for b, *f in BAD_LINES.values()], ids=BAD_LINES
)
def test_bad_line_names_file_and_line(tmp_path, line, fragments):
    path = write(tmp_path / "pool.jsonl", jsonl(FIRST) + line + b"\n" + jsonl(SECOND))
    with pytest.raises(InputError) as error:
        load_pool(path)
    check_message(error, f"{path}, line 2", *fragments)


@pytest.mark.parametrize(
    ("changes", "fragments"), [(c, f) for c, *f in BAD_RECORDS.values()], ids=BAD_RECORDS
)
def test_bad_record_names_place_and_field(tmp_path, changes, fragments):
    record = {name: value for name, value in (SECOND | changes).items() if value is not ...}
    path = write(tmp_path / "pool.jsonl", jsonl(FIRST, record))
    for source, unit, name in ((path, "line", path), ([FIRST, record], "row", "records")):
        with pytest.raises(InputError) as error:
            load_pool(source)
        expected = [fragment.format(unit=unit) for fragment in fragments]
        check_message(error, f"{name}, {unit} 2: ", *expected)


def test_line_numbers_count_blank_lines(tmp_path):
    path = write(tmp_path / "pool.jsonl", b"\n\n" + jsonl(FIRST) + b"\n" + jsonl(FIRST))
    with pytest.raises(InputError) as error:
        load_pool(path)
    check_message(error, "line 5", "taken by line 3")


@pytest.mark.parametrize("first", [b"", jsonl(GOOD | {"response": "ok"})])
def test_undecodable_byte_is_located_in_the_file(tmp_path, first):
    path = write(tmp_path / "pool.jsonl", codecs.BOM_UTF8 + first + b'{"caf\xe9"}')
    place = f"line {2 if first else 1}: not UTF-8 text: byte 0xe9 at offset {8 + len(first)} of"
    with pytest.raises(InputError, match=place):
        load_pool(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_are_refused(tmp_path, encoding):
    path = write(tmp_path / "pool.jsonl", json.dumps(GOOD).encode(encoding))
    with pytest.raises(InputError) as error:
        load_pool(path)
    check_message(error, "pool.jsonl, line 1", "UTF-16", "save it as UTF-8")


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


def test_made_up_ids_that_clash_say_so():
    clash = [{"prompt_id": "a/b", "teacher": "c"}, {"prompt_id": "a", "teacher": "b/c"}]
    message = r"row 2: field 'response_id': 'a/b/c/0' .* row 1; .* prompt_id/teacher/n"
    with pytest.raises(InputError, match=message):
        load_pool(GOOD | ids for ids in clash)


def test_long_values_are_cut_in_messages():
    with pytest.raises(InputError) as error:
        load_pool([GOOD | {"answer": "1" * 5000}, GOOD | {"answer": "2" * 5000}])
    check_message(error, "'answer' is '222", "but '111", "row 1")


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("pool.jsonl", b"", ["file is empty"]),
        ("pool.jsonl", codecs.BOM_UTF8, ["no records"]),
        ("pool.jsonl", b"\n \n", ["no records"]),
        ("pool.csv", b"a,b", [".jsonl", ".json-lines", ".parquet", "'.csv'"]),
        ("pool", b"x", [".jsonl", ".parquet"]),
        ("pool.parquet", jsonl(GOOD), ["not a Parquet file"]),
        ("pool.parquet", b"PAR1" + bytes(100) + b"PAR1", ["broken"]),
        ("pool.jsonl", b"PAR1\x15\x04\x15\xff\x00", ["line 1", "NUL"]),
    ],
)
def test_bad_file_is_named(tmp_path, name, content, fragments):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        load_pool(path)
    check_message(error, str(path), *fragments)


def test_missing_file_and_folder_are_named(tmp_path):
    for load in (load_pool, load_prompts):
        with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
            load(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=": is a folder; give one"):
        load_pool(tmp_path)


@pytest.mark.parametrize("source", [None, 5, GOOD, b"pool.jsonl", two_prompt_pool()])
def test_other_sources_are_refused(source):
    with pytest.raises(InputError, match=f"cannot read a pool from {type(source).__name__}"):
        load_pool(source)


def test_no_records_are_refused():
    for source in ([], iter(()), pd.DataFrame(columns=list(GOOD))):
        with pytest.raises(InputError, match="no records"):
            load_pool(source)


def test_cut_parquet_file_is_refused(tmp_path):
    path = tmp_path / "pool.parquet"
    save_pool(two_prompt_pool(), path)
    whole = path.read_bytes()
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as error:
            load_pool(path)
        check_message(error, f"{path}: broken or not a Parquet file")


def test_one_wrong_byte_in_a_saved_parquet_file_never_changes_the_pool(tmp_path):
    path = tmp_path / "pool.parquet"
    pool = two_prompt_pool()
    save_pool(pool, path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    num_refused = 0
    for at in range(4, footer, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            assert load_pool(path) == pool  # the byte holds statistics only
        except InputError as error:
            num_refused += 1
            assert str(error).startswith(f"{path}: broken or not a Parquet file")
            assert str(error).isprintable()
    assert num_refused > 10


def test_tables_without_needed_columns_are_refused(tmp_path):
    frame = pd.DataFrame([GOOD])[["prompt_id", "prompt"]]
    frame.to_parquet(tmp_path / "pool.parquet")
    message = r"no column 'teacher', 'response' among \['prompt_id', 'prompt'\]"
    for source, name in ((frame, "DataFrame"), (tmp_path / "pool.parquet", r"pool\.parquet")):
        with pytest.raises(InputError, match=f"{name}: {message}"):
            load_pool(source)


def test_columns_with_one_name_are_refused(tmp_path):
    table = pa.table([pa.array(["x"])] * 5, names=[*GOOD, "teacher"])
    pq.write_table(table, tmp_path / "pool.parquet")
    for source in (tmp_path / "pool.parquet", table.to_pandas()):
        with pytest.raises(InputError, match="2 columns are named 'teacher'"):
            load_pool(source)
    with pytest.raises(InputError, match=r"column name 0 \(int\) is not text"):
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
    with pytest.raises(InputError, match=rf"pool\.parquet, row 2: field '{name}': .*{message}"):
        load_pool(tmp_path / "pool.parquet")


def endless():
    loop = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (b"raw", "bytes values"),
        (Decimal("1.5"), "Decimal values"),
        ({1, 2}, "set values"),
        (float("inf"), "inf is not"),
        ([1.0, float("nan")], "nan is not"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "datetime64 values"),
        ({1: "a"}, "key 1 (int) is not text"),
        (endless(), "nested too deeply"),
        (object(), "object values"),
    ],
)
def test_extra_values_that_json_cannot_hold_are_refused(value, fragment):
    with pytest.raises(InputError) as error:
        load_pool([GOOD | {"meta": value}])
    check_message(error, "row 1: field 'meta': ", fragment)


# --- Summaries ----------------------------------------------------------------------------------


def test_pool_summary_counts():
    pool = replace(two_prompt_pool(), left_out={"blank line": 2})
    summary = pool_summary(pool)
    assert summary == {
        "num_prompts": 2,
        "num_responses": 4,
        "responses_by_teacher": {"ada": 1, "bob": 2, "cyd": 1},
        "prompts_by_num_teachers": {"1": 1, "2": 1},
        "num_correct": 2,
        "num_incorrect": 1,
        "num_unverified": 1,
        "num_prompts_with_answer": 1,
        "num_duplicate_texts": 1,
        "left_out": {"blank line": 2},
    }
    assert json.loads(json.dumps(summary)) == summary


def test_equal_texts_under_different_prompts_are_no_duplicates():
    pool = load_pool([GOOD, GOOD | {"prompt_id": "p2"}, GOOD, GOOD])
    assert pool_summary(pool)["num_duplicate_texts"] == 2


# --- Writing pools -----------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FILLED = TEXT.filter(lambda text: text.strip())
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OWN_FIELDS = {*GOOD, "response_id", "answer", "correct", "messages"}
EXTRA_NAME = st.sampled_from(["score", "a.b", "", "é"]) | TEXT.filter(lambda n: n not in OWN_FIELDS)


@st.composite
def prompts(draw, prompt_id):
    turns = draw(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), FILLED), max_size=2))
    system = draw(st.lists(TEXT, max_size=1))
    messages = [Message("system", text) for text in system]
    messages += [Message(role, text) for role, text in turns]
    messages.append(Message("user", draw(FILLED)))
    return Prompt(prompt_id, tuple(messages), draw(st.none() | FILLED))


@st.composite
def pools(draw):
    ids = draw(st.lists(FILLED, min_size=1, max_size=3, unique=True))
    owners = [*ids, *draw(st.lists(st.sampled_from(ids), max_size=3))]
    response_ids = draw(st.lists(FILLED, min_size=len(owners), max_size=len(owners), unique=True))
    extras = st.dictionaries(EXTRA_NAME, JSON_VALUE, max_size=3)
    marks = st.sampled_from([True, False, None])
    responses = tuple(
        Response(response_id, prompt_id, draw(FILLED), draw(FILLED), draw(marks), draw(extras))
        for response_id, prompt_id in zip(response_ids, owners, strict=True)
    )
    return Pool({prompt_id: draw(prompts(prompt_id)) for prompt_id in ids}, responses)


def exact(pool):
    """A pool as text that tells 1 from True and from 1.0."""
    return repr(
        (sorted(pool.prompts.items()), [vars(r) | {"extra": 0} for r in pool.responses])
    ) + (json.dumps([response.extra for response in pool.responses], sort_keys=True))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@settings(max_examples=60, deadline=None)
@given(pool=pools())
def test_saved_pool_reads_back_equal(tmp_path_factory, suffix, pool):
    path = tmp_path_factory.mktemp("pool") / f"pool.{suffix}"
    save_pool(pool, path)
    assert exact(load_pool(path)) == exact(pool)


def test_saved_jsonl_is_readable_text(tmp_path):
    save_pool(two_prompt_pool(), tmp_path / "pool.jsonl")
    lines = (tmp_path / "pool.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert "√7" in lines[0], "written as it is, not as escapes"
    assert records[0]["prompt"][3] == {"role": "user", "content": "Is 7 prime?"}
    assert records[0]["level"] == 3
    assert records[3] == {
        "prompt_id": "b",
        "prompt": "Add ½ and ¼.",
        "teacher": "cyd",
        "response": "¾\n\nDone.",
        "response_id": "b1",
        "tags": ["x", 1, None],
    }


def test_saved_parquet_has_plain_columns_where_it_can(tmp_path):
    extras = [
        {"text": "a", "whole": 1, "real": 0.5, "flag": True, "mixed": 1, "list": [1]},
        {"text": "b", "real": -0.0, "mixed": True, "big": 2**63},
    ]
    pool = load_pool([GOOD | extra for extra in extras])
    save_pool(pool, tmp_path / "pool.parquet")
    schema = pq.read_schema(tmp_path / "pool.parquet")
    names = ("prompt", "correct", "text", "whole", "real", "flag", "mixed", "list", "big")
    assert [str(schema.field(name).type) for name in names] == [
        "string",
        "bool",
        "string",
        "int64",
        "double",
        "bool",
        *["extension<arrow.json>"] * 3,
    ]
    frame = pd.read_parquet(tmp_path / "pool.parquet")
    assert frame["response"].tolist() == [GOOD["response"]] * 2
    assert load_pool(tmp_path / "pool.parquet") == pool


def with_fifth(**changes):
    pool = two_prompt_pool()
    fifth = replace(Response("b2", "b", "ada", "3/4"), **changes)
    return replace(pool, responses=(*pool.responses, fifth))


@pytest.mark.parametrize(
    ("pool", "fragments"),
    [
        (Pool({}, ()), ["no records"]),
        (replace(two_prompt_pool(), responses=two_prompt_pool().responses[:3]), ["'b'", "drop"]),
        (with_fifth(prompt_id="z"), ["'b2'", "'z'"]),
        (with_fifth(response_id="a1"), ["response 5", "'a1' is already taken by response 1"]),
        (with_fifth(text=" "), ["response 5: field 'response' is empty"]),
        (with_fifth(text="\udc00"), ["response 5: field 'response': lone surrogate"]),
        (with_fifth(extra={"teacher": "x"}), ["'b2'", "'teacher'", "rename"]),
        (with_fifth(extra={"x": b"raw"}), ["response 5: field 'x': bytes"]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_pool_that_could_not_be_read_back_is_not_written(tmp_path, suffix, pool, fragments):
    path = write(tmp_path / f"pool.{suffix}", b"before")
    with pytest.raises(InputError) as error:
        save_pool(pool, path)
    check_message(error, *fragments)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_under_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"pool\.csv: a pool is \.jsonl"):
        save_pool(two_prompt_pool(), tmp_path / "pool.csv")


# --- Training files ----------------------------------------------------------------------------


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


B1 = {"prompt_id": "b", "response_id": "b1", "teacher": "cyd"}
A2 = {"prompt_id": "a", "response_id": "a2", "teacher": "bob"}
ASKED = [{"role": "user", "content": "Add ½ and ¼."}]
ANSWERED = [{"role": "assistant", "content": "¾\n\nDone."}]
YES = [{"role": "assistant", "content": "Yes."}]


@pytest.mark.parametrize(
    ("fmt", "records"),
    [
        ("messages", [{"messages": ASKED + ANSWERED} | B1, {"messages": CHAT + YES} | A2]),
        (
            "prompt-completion",
            [
                {"prompt": ASKED, "completion": ANSWERED} | B1,
                {"prompt": CHAT, "completion": YES} | A2,
            ],
        ),
    ],
)
def test_formats_of_json_lines(tmp_path, fmt, records):
    path = tmp_path / "new" / "train.jsonl"
    write_training(two_prompt_pool(), pd.Series(["b1", "a2"], [3, 1]), path, fmt)
    assert read_lines(path) == records
    assert "½" in path.read_text(encoding="utf-8")
    assert pa_json.read_json(path).column_names == list(records[0])


def test_messages_format_is_a_pool_too(tmp_path):
    pool = two_prompt_pool()
    ids = [response.response_id for response in pool.responses]
    write_training(pool, ids, tmp_path / "train.jsonl", "messages")
    again = load_pool(tmp_path / "train.jsonl")
    plain = [replace(response, correct=None, extra={}) for response in pool.responses]
    assert list(again.responses) == plain
    assert again.prompts == {i: replace(p, answer=None) for i, p in pool.prompts.items()}


@pytest.mark.parametrize("fmt", ["messages", "prompt-completion"])
def test_datasets_reads_the_training_file(tmp_path, fmt):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "train.jsonl"
    write_training(two_prompt_pool(), ["b1", "a2"], path, fmt)
    rows = datasets.load_dataset("json", data_files=str(path), cache_dir=tmp_path)["train"]
    assert rows.to_list() == read_lines(path)


def test_llamafactory_format(tmp_path):
    write_training(two_prompt_pool(), ["b1", "a2"], tmp_path / "data", "llamafactory")
    folder = tmp_path / "data"
    assert sorted(path.name for path in folder.iterdir()) == ["dataset_info.json", "train.json"]
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    tags = ("role", "content", "user", "assistant", "system")
    assert info == {
        "train": {
            "file_name": "train.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {f"{tag}_tag": tag for tag in tags},
        }
    }
    text = (folder / "train.json").read_text(encoding="utf-8")
    assert "½" in text
    assert json.loads(text) == [{"messages": ASKED + ANSWERED} | B1, {"messages": CHAT + YES} | A2]


def test_llamafactory_entry_joins_the_others(tmp_path):
    others = {"zürich": {"file_name": "z.json"}, "train2": {"hf_hub_url": "some/where"}}
    info_path = tmp_path / "dataset_info.json"
    info_path.write_text(json.dumps(others), encoding="utf-8")
    for ids in (["a1"], ["b1"]):  # the second call replaces the first one's data
        write_training(two_prompt_pool(), ids, tmp_path, "llamafactory")
    info = json.loads(info_path.read_text(encoding="utf-8"))
    assert list(info) == ["zürich", "train2", "train"]
    assert others.items() <= info.items()
    (row,) = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    assert row["response_id"] == "b1"


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "must be a JSON object"),
        (b"", "invalid JSON"),
        (b'{"x": 1, "x": 2}', "'x' is given twice"),
        ('{"é": 1}'.encode("latin-1"), "utf-8"),
        (b'{"train": {"file_name": "mine.json"}}', "another entry 'train'"),
    ],
)
def test_llamafactory_info_that_cannot_be_extended_stays(tmp_path, content, fragment):
    path = write(tmp_path / "dataset_info.json", content)
    with pytest.raises(InputError) as error:
        write_training(two_prompt_pool(), ["a1"], tmp_path, "llamafactory")
    check_message(error, str(path), fragment)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("roles", ["user user", "assistant user", "system system user"])
def test_llamafactory_refuses_chats_it_would_skip(tmp_path, roles):
    chat = [{"role": role, "content": "x"} for role in roles.split()]
    pool = load_pool([GOOD | {"prompt": chat, "response_id": "r"}])
    with pytest.raises(InputError) as error:
        write_training(pool, ["r"], tmp_path / "out", "llamafactory")
    check_message(error, "'p1'", roles.replace(" ", ", "))
    assert list(tmp_path.iterdir()) == []
    write_training(pool, ["r"], tmp_path / "out.jsonl", "messages")


@pytest.mark.parametrize("fmt", TRAINING_FORMATS)
@pytest.mark.parametrize(
    ("ids", "fragment"),
    [
        (["a1", "zz"], "'zz' is not in the pool"),
        (["a1", "b1", "a1"], "'a1' is given 2"),
        ([], "empty"),
    ],
)
def test_bad_response_ids_are_refused(tmp_path, fmt, ids, fragment):
    with pytest.raises(InputError) as error:
        write_training(two_prompt_pool(), ids, tmp_path / "out", fmt)
    check_message(error, fragment)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"'alpaca'.* messages, prompt-completion, llamafactory"):
        write_training(two_prompt_pool(), ["a1"], tmp_path / "out", "alpaca")


def test_training_file_where_a_folder_is_and_the_other_way_round(tmp_path):
    with pytest.raises(InputError, match="not a regular file"):
        write_training(two_prompt_pool(), ["a1"], tmp_path, "messages")
    path = write(tmp_path / "file", b"before")
    with pytest.raises(InputError, match="file: is a file"):
        write_training(two_prompt_pool(), ["a1"], path, "llamafactory")
    assert path.read_bytes() == b"before"


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_reading_holds_about_one_copy(tmp_path):
    path = tmp_path / "pool.jsonl"
    with path.open("wb") as file:
        for n in range(600):
            file.write(jsonl(GOOD | {"response": f"{n} " + "x" * 100_000}))
    code = (
        "import resource, sys; from lalp.pools.reading import load_pool\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pool = load_pool(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
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


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([PROMPTS[0]] * 2, r"line 2: prompt_id 'a' is already taken by line 1"),
        ([{"prompt": "Why?"}], r"p.jsonl, line 1: field 'prompt_id' is missing"),
        ([PROMPTS[0], [1]], r"line 2: must be an object"),
        (
            [PROMPTS[0] | {"teacher": "A", "response": "7", "answer": n} for n in (7, 8)],
            r"line 2: field 'answer' is '8', but '7' in line 1 for the same prompt_id 'a'",
        ),
        ([], "no prompts"),
    ],
)
def test_prompts_that_cannot_be_used(records, said, tmp_path):
    with pytest.raises(InputError, match=said):
        load_prompts(write(tmp_path / "p.jsonl", jsonl(*records)))


def test_prompts_in_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="broken or not a Parquet file"):
        load_prompts(write(tmp_path / "p.parquet", b"PAR1 no"))
    with pytest.raises(InputError, match=r"p\.csv, line 1: invalid JSON"):
        load_prompts(write(tmp_path / "p.csv", b"prompt_id,prompt"))
