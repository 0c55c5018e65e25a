"""Files of every kind, packed or not, folders and data sets of the hub."""

import csv
import gzip
import io
import json

import datasets
import pandas as pd
import pyarrow as pa
import pytest

from lalp.pools.importing import Reject, import_pool
from lalp.pools.reading import load_pool, load_prompts
from tests.pools.builders import GOOD, REPLY, USER, exact, jsonl, refused, write

LONG = "A step of many words.\n" * 20_000  # more than the csv module takes by itself
RECORDS = [
    GOOD | {"response": LONG, "answer": "4", "correct": True},
    GOOD | {"teacher": "bob", "response": 'He said "4", and\nwent.'},
]
POOL = load_pool(RECORDS)


def table(records, mark):
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, names, delimiter=mark)
    rows.writeheader()
    rows.writerows(records)
    return text.getvalue().encode()


def parquet(records):
    file = io.BytesIO()
    pd.DataFrame(records).to_parquet(file)
    return file.getvalue()


def packed(content, suffix):
    if suffix == ".gz":
        return gzip.compress(content)
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as file:
            file.write(content)
        return sink.getvalue().to_pybytes()
    return content


CONTENTS = {
    "pool.jsonl": jsonl(*RECORDS),
    "pool.ndjson": jsonl(*RECORDS),
    "lines.json": jsonl(*RECORDS),
    "list.json": json.dumps(RECORDS, indent=2).encode(),
    "POOL.JSON": b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
    "pool.csv": table(RECORDS, ","),
    "excel.csv": b"\xef\xbb\xbf" + table(RECORDS, ","),
    "pool.tsv": table(RECORDS, "\t"),
    "pool.parquet": parquet(RECORDS),
}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_kind_of_file_reads_the_same(tmp_path, name, suffix):
    path = write(tmp_path / f"{name}{suffix}", packed(CONTENTS[name], suffix))
    assert exact(load_pool(path)) == exact(POOL)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["pool.jsonl", "list.json", "pool.csv", "pool.parquet"])
def test_what_cannot_be_unpacked_is_refused(tmp_path, name, suffix):
    whole = packed(CONTENTS[name], suffix)
    path = tmp_path / f"{name}{suffix}"
    for content in (whole[: len(whole) // 2], b"no such thing at all", CONTENTS[name]):
        with refused(f"{path}: "):
            load_pool(write(path, content))


def test_prompts_are_unpacked_too(tmp_path):
    content = packed(jsonl({"prompt_id": "a", "prompt": "Why?"}), ".gz")
    (prompt,) = load_prompts(write(tmp_path / "p.jsonl.gz", content))
    assert prompt.prompt_id == "a"


LISTED = b"[" + jsonl(GOOD) + b"," + jsonl(GOOD)


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("p.json", b"[", ["item 1: invalid JSON: Expecting value at line 1, column 2"]),
        ("p.json", b"[]", ["no records"]),
        ("p.json", LISTED + b"{}]", ["invalid JSON after item 2, at line 3"]),
        ("p.json", b"[{}, 1]]", ["item 1: the fields are none"]),
        ("p.json", LISTED + b"] x", ["invalid JSON after item 2"]),
        ("p.json", b'[{"x": NaN}]', ["item 1: invalid JSON: NaN is not JSON"]),
        ("p.json", b'[{"x": 1, "x": 2}]', ["item 1", "'x' is given twice"]),
        (
            "p.json",
            b'{"data": [\n1]}',
            ["line 1: invalid JSON", "a list of objects, or JSON lines"],
        ),
        ("p.json", b'["\xe9"]', ["not UTF-8 text: byte 0xe9 at offset 2"]),
        ("p.csv", b"a,b\n1,2\n", ["no column 'prompt_id'", "--map prompt=FIELD"]),
        ("p.csv", b"a,a\n1,2\n", ["2 columns are named 'a'"]),
        ("p.csv", b"prompt,response\n", ["no records"]),
        ("p.csv", b'prompt,response\nq,a\n"q\n2",a,b\n', ["line 3: has 3 cells, but there are 2"]),
        ("p.csv", b'prompt,response\nq,"a\n', ["line 2: unexpected end of data"]),
        ("p.csv", b"prompt,response\nq,caf\xe9\n", ["not UTF-8 text: byte 0xe9"]),
        ("p.csv", b"prompt,response\nq,\n", ["line 2", "--map prompt=prompt --map response="]),
        ("p.csv", b"problem,generations\nq,\"['a', 'b']\"\n", ["line 2", "must be a list"]),
        ("p.txt", b"hello", ["a pool is .jsonl", ".parquet, each also .gz or .zst, not '.txt'"]),
        ("p.gz", gzip.compress(b"hello", mtime=0), ["not ''"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, fragments):
    with refused(name, *fragments):
        load_pool(write(tmp_path / name, content))


def test_a_chat_in_a_table_of_text(tmp_path):
    rows = [{"messages": json.dumps([USER, REPLY]), "teacher": "ada"}]
    pool = load_pool(write(tmp_path / "p.csv", table(rows, ",")))
    assert (pool.responses[0].text, pool.responses[0].teacher) == ("4", "ada")


# --- Folders -----------------------------------------------------------------------------------


def shards(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        write(folder / f"{name}.parquet", parquet([GOOD | {"response": str(number)}]))
    return folder


@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_of_shards(tmp_path, below):
    names = [f"train-0000{n}-of-00003" for n in range(3)]
    shards(tmp_path / below, *names)
    assert [one.text for one in load_pool(tmp_path).responses] == ["0", "1", "2"]
    (tmp_path / below / f"{names[1]}.parquet").unlink()
    with refused("holds 2 of 3 shards"):
        load_pool(tmp_path)


def test_shards_of_several_splits_are_refused(tmp_path):
    shards(tmp_path, "train-00000-of-00001", "test-00000-of-00001")
    with refused("Parquet files of several kinds (test-#-of-#, train-#-of-#)"):
        load_pool(tmp_path)


def test_a_bad_row_of_a_shard_is_named(tmp_path):
    shards(tmp_path, "0", "1")
    write(tmp_path / "1.parquet", parquet([GOOD, GOOD | {"response": " "}]))
    with refused(f"{tmp_path}, 1.parquet, row 2: field 'response' is empty"):
        load_pool(tmp_path)


def test_what_save_to_disk_writes(tmp_path):
    data = datasets.Dataset.from_list(RECORDS)
    data.save_to_disk(tmp_path / "one")
    assert exact(load_pool(tmp_path / "one")) == exact(POOL)
    splits = datasets.DatasetDict({"train": data, "test": data.select([1])})
    splits.save_to_disk(tmp_path / "splits")
    with refused("splits: holds the splits test, train; give one, as"):
        load_pool(tmp_path / "splits")
    assert exact(load_pool(tmp_path / "splits" / "train")) == exact(POOL)
    write(tmp_path / "one" / "state.json", b"{}")
    with refused("one: is not what save_to_disk writes", "give its files"):
        load_pool(tmp_path / "one")


# --- The hub -----------------------------------------------------------------------------------


def test_a_data_set_of_the_hub(monkeypatch):
    asked = []

    def load(*place, split):
        asked.append((*place, split))
        return datasets.Dataset.from_list([GOOD | {"answer": None}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("some/one:train", "some/one:all:test[:1%]"):
        assert exact(load_pool(name)) == exact(load_pool([GOOD]))
    assert asked == [("some/one", None, "train"), ("some/one", "all", "test[:1%]")]


def test_the_hub_out_of_reach(monkeypatch):
    def load(*_, **__):
        raise ConnectionError("no way there")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with refused("some/one:train: cannot be loaded from the hub (no way there); give its files"):
        load_pool("some/one:train")
    with refused("some/one: no such file"):
        load_pool("some/one")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with refused("some/one:train: needs datasets: pip install 'lalp[datasets]'"):
        load_pool("some/one:train")


# --- Several sources, and bad rows -------------------------------------------------------------


def test_several_files_count_on_and_name_both_places(tmp_path):
    limo = {"question": "2 + 3?", "solution": "Five.", "answer": "5"}
    first = write(tmp_path / "a.jsonl", jsonl(limo, limo))
    second = write(tmp_path / "b.json", json.dumps([limo]).encode())
    pool = import_pool([str(first), str(second)], teacher="ada")
    assert [one.response_id[-6:] for one in pool.responses] == ["/ada/0", "/ada/1", "/ada/2"]
    write(second, json.dumps([limo | {"answer": "6"}]).encode())
    with refused(f"{second}, item 1: field 'answer' is '6', but '5' in {first}, line 1"):
        import_pool([str(first), str(second)])


BAD = [
    b"oops\n",
    jsonl(GOOD | {"response": " "}),
    jsonl(GOOD | {"prompt": "Another?"}),
    jsonl({"question": "q"}),
    b'{"caf\xe9": 1}\n',
]


def test_bad_rows_are_told_and_left_out(tmp_path):
    other = GOOD | {"teacher": "bob"}
    content = jsonl(GOOD) + b"\n" + b"".join(BAD) + jsonl(other, GOOD)
    path = str(write(tmp_path / "p.jsonl", content))
    told: list[Reject] = []
    pool = import_pool([path], on_reject=told.append)
    assert exact(pool)[:-1].startswith(exact(load_pool([GOOD, other, GOOD]))[:50])
    assert [one.response_id for one in pool.responses] == ["p1/ada/0", "p1/bob/0", "p1/ada/1"]
    assert pool.left_out == {"blank line": 1, "bad row": 5}
    assert [one.place for one in told] == [f"line {n}" for n in range(3, 8)]
    assert {one.source for one in told} == {path}
    reasons = [
        "invalid JSON",
        "'response' is empty",
        "the prompt differs",
        "'prompt_id' is",
        "not UTF",
    ]
    assert all(why in one.reason for one, why in zip(told, reasons, strict=True))
    assert told[0].record == "oops"
    assert told[3].record == {"question": "q"}


def test_a_bad_row_leaves_nothing_behind():
    """A row of two responses, the second of them bad: neither prompt nor number is taken."""
    row = {"problem": "q", "generations": ["a", "b"]}
    rows = [row | {"generations": ["a", 5]}, row | {"answer": "1"}, row | {"answer": "2"}]
    told: list[Reject] = []
    pool = import_pool([rows], on_reject=told.append)
    assert [one.response_id[-2:] for one in pool.responses] == ["/0", "/1"]
    assert [prompt.answer for prompt in pool.prompts.values()] == ["1"]
    assert [one.place for one in told] == ["row 1", "row 3"]


def test_only_bad_rows_are_no_pool():
    with refused("no records"):
        import_pool([[{"problem": "q", "generations": []}]], on_reject=lambda _: None)


def test_a_batch_and_its_requests(tmp_path):
    ask = {"method": "POST", "url": "/v1/chat/completions", "body": {"messages": [USER]}}
    asked = [ask | {"custom_id": name} for name in "ab"]
    body = {"model": "m", "choices": [{"message": REPLY, "finish_reason": "stop"}]}
    got = {"id": "x", "custom_id": "b", "response": {"status_code": 200, "body": body}}
    requests, output = tmp_path / "r.jsonl", tmp_path / "o.jsonl"
    paths = [str(write(requests, jsonl(*asked))), str(write(output, jsonl(got)))]
    for order in (paths, paths[::-1]):
        pool = import_pool(order)
        assert [(one.teacher, one.text) for one in pool.responses] == [("m", "4")]
        assert pool.left_out == {"request without an output": 1}
    write(output, jsonl(got | {"custom_id": "c"}))
    with refused(f"{output}, line 1: no request has the custom_id 'c'"):
        import_pool(paths)
    write(requests, jsonl(asked[0], asked[0]))
    with refused(f"{requests}, line 2: the custom_id 'a' is given twice"):
        import_pool(paths)
