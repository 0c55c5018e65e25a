"""Counting pools, saving them, and writing training files."""

import json
from dataclasses import replace

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.pools.pool import Message, Pool, Prompt, Response, pool_summary
from lalp.pools.reading import load_pool
from lalp.pools.writing import TRAINING_FORMATS, save_pool, write_training
from tests.pools.builders import CHAT, GOOD, exact, read_lines, refused, two_prompt_pool, write

# --- Summaries ----------------------------------------------------------------------------------


def test_pool_summary_counts():
    assert pool_summary(replace(two_prompt_pool(), left_out={"blank line": 2})) == {
        "num_prompts": 2,
        "num_responses": 4,
        "responses_by_teacher": {"ada": 1, "bob": 2, "cyd": 1},
        "prompts_by_num_teachers": {"1": 1, "2": 1},
        "num_correct": 2,
        "num_incorrect": 1,
        "num_unverified": 1,
        "num_prompts_with_answer": 1,
        "num_duplicate_texts": 1,
        "num_multi_turn": 0,
        "left_out": {"blank line": 2},
    }
    # Equal texts under different prompts are no duplicates.
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


SYSTEM = st.lists(st.builds(Message, st.just("system"), TEXT), max_size=1)
TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), FILLED), max_size=2)


@st.composite
def pools(draw):
    ids = draw(st.lists(FILLED, min_size=1, max_size=3, unique=True))
    prompts = {
        i: Prompt(
            i,
            (*draw(SYSTEM), *draw(TURNS), Message("user", draw(FILLED))),
            draw(st.none() | FILLED),
        )
        for i in ids
    }
    extras = st.dictionaries(EXTRA_NAME, JSON_VALUE, max_size=3)
    marks = st.sampled_from([True, False, None])
    rest = st.tuples(FILLED, FILLED, marks, extras)
    owners = [*ids, *draw(st.lists(st.sampled_from(ids), max_size=3))]
    names = draw(st.lists(FILLED, min_size=len(owners), max_size=len(owners), unique=True))
    pairs = zip(names, owners, strict=True)
    return Pool(prompts, tuple(Response(*pair, *draw(rest)) for pair in pairs))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@settings(max_examples=60, deadline=None)
@given(pool=pools())
def test_saved_pool_reads_back_equal(tmp_path_factory, suffix, pool):
    path = tmp_path_factory.mktemp("pool") / f"pool.{suffix}"
    save_pool(pool, path)
    assert exact(load_pool(path)) == exact(pool)


def test_saved_jsonl_is_readable_text(tmp_path):
    save_pool(two_prompt_pool(), tmp_path / "pool.jsonl")
    records = read_lines(tmp_path / "pool.jsonl")
    assert "√7" in (tmp_path / "pool.jsonl").read_text(encoding="utf-8")  # not as escapes
    assert (records[0]["prompt"], records[0]["level"]) == (CHAT, 3)
    ids = {"prompt_id": "b", "teacher": "cyd", "response_id": "b1"}
    texts = {"prompt": "Add ½ and ¼.", "response": "¾\n\nDone."}
    assert records[3] == ids | texts | {"tags": ["x", 1, None]}


def test_saved_parquet_has_plain_columns_where_it_can(tmp_path):
    extras = [
        {"text": "a", "whole": 1, "real": 0.5, "flag": True, "mixed": 1, "list": [1]},
        {"text": "b", "real": -0.0, "mixed": True, "big": 2**63},
    ]
    pool = load_pool([GOOD | extra for extra in extras])
    save_pool(pool, tmp_path / "pool.parquet")
    schema = pq.read_schema(tmp_path / "pool.parquet")
    names = ("prompt", "correct", "text", "whole", "real", "flag", "mixed", "list", "big")
    plain = ["string", "bool", "string", "int64", "double", "bool"]
    found = [str(schema.field(name).type) for name in names]
    assert found == [*plain, *["extension<arrow.json>"] * 3]
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
    with refused(*fragments):
        save_pool(pool, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# --- Training files ----------------------------------------------------------------------------


B1 = {"prompt_id": "b", "response_id": "b1", "teacher": "cyd", "answer": None, "correct": None}
B1 |= {"extra": '{"tags": ["x", 1, null]}'}
A2 = {"prompt_id": "a", "response_id": "a2", "teacher": "bob", "answer": "yes", "correct": False}
A2 |= {"extra": None}
ASKED = [{"role": "user", "content": "Add ½ and ¼."}]
ANSWERED = [{"role": "assistant", "content": "¾\n\nDone."}]
YES = [{"role": "assistant", "content": "Yes."}]
MESSAGES = [{"messages": ASKED + ANSWERED} | B1, {"messages": CHAT + YES} | A2]
PAIRS = [{"prompt": ASKED, "completion": ANSWERED} | B1, {"prompt": CHAT, "completion": YES} | A2]


@pytest.mark.parametrize(("fmt", "records"), [("messages", MESSAGES), ("prompt-completion", PAIRS)])
def test_formats_of_json_lines_as_datasets_reads_them(tmp_path, fmt, records):
    path = tmp_path / "new" / "train.jsonl"
    write_training(two_prompt_pool(), pd.Series(["b1", "a2"], [3, 1]), path, fmt)
    assert read_lines(path) == records
    assert "½" in path.read_text(encoding="utf-8")
    rows = datasets.load_dataset("json", data_files=str(path), cache_dir=tmp_path)["train"]
    assert rows.to_list() == records


def test_llamafactory_data_and_its_entry_among_others(tmp_path):
    others = {"zürich": {"file_name": "z.json"}, "train2": {"hf_hub_url": "some/where"}}
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(others), encoding="utf-8")
    for ids in (["a1"], ["b1", "a2"]):  # the second call replaces the first one's data
        write_training(two_prompt_pool(), ids, tmp_path, "llamafactory")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "train.json"]
    tags = {f"{tag}_tag": tag for tag in ("role", "content", "user", "assistant", "system")}
    entry = {"file_name": "train.json", "formatting": "sharegpt", "tags": tags}
    info = json.loads(path.read_text(encoding="utf-8"))
    assert info == others | {"train": entry | {"columns": {"messages": "messages"}}}
    text = (tmp_path / "train.json").read_text(encoding="utf-8")
    assert "½" in text
    assert json.loads(text) == MESSAGES


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "must be a JSON object"),
        ('{"é": 1}'.encode("latin-1"), "utf-8"),
        (b'{"train": {"file_name": "mine.json"}}', "another entry 'train'"),
    ],
)
def test_llamafactory_info_that_cannot_be_extended_stays(tmp_path, content, fragment):
    path = write(tmp_path / "dataset_info.json", content)
    with refused(str(path), fragment):
        write_training(two_prompt_pool(), ["a1"], tmp_path, "llamafactory")
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("roles", ["user user", "assistant user", "system system user"])
def test_llamafactory_refuses_chats_it_would_skip(tmp_path, roles):
    chat = [{"role": role, "content": "x"} for role in roles.split()]
    pool = load_pool([GOOD | {"prompt": chat, "response_id": "r"}])
    with refused("'p1'", roles.replace(" ", ", ")):
        write_training(pool, ["r"], tmp_path / "out", "llamafactory")
    assert list(tmp_path.iterdir()) == []
    write_training(pool, ["r"], tmp_path / "out.jsonl", "messages")


BAD_IDS = {"'zz' is not in the pool": ["a1", "zz"], "'a1' is given 2": ["a1", "a1"], "empty": []}


@pytest.mark.parametrize(
    ("fragment", "name", "fmt"),
    [
        *((fragment, "out", fmt) for fragment in BAD_IDS for fmt in TRAINING_FORMATS),
        ("'alpaca': there are messages, prompt-completion, llamafactory", "out", "alpaca"),
        ("training data as messages is JSONL", ".", "messages"),
        ("file/dataset_info.json: cannot make its folder", "file", "llamafactory"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, fragment, name, fmt):
    path = write(tmp_path / "file", b"before")
    with refused(fragment):
        write_training(two_prompt_pool(), BAD_IDS.get(fragment, ["a1"]), tmp_path / name, fmt)
    with refused("pool.csv: a pool is .jsonl"):
        save_pool(two_prompt_pool(), tmp_path / "pool.csv")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fmt", TRAINING_FORMATS)
def test_weights_stand_in_the_records(tmp_path, fmt):
    is_folder = fmt == "llamafactory"
    path = tmp_path / ("out" if is_folder else "out.jsonl")
    write_training(two_prompt_pool(), ["b1", "a2"], path, fmt, weights=[1.5, 0])
    records = json.loads((path / "train.json").read_text()) if is_folder else read_lines(path)
    assert [(record["response_id"], record["weight"]) for record in records] == [
        ("b1", 1.5),
        ("a2", 0.0),
    ]


@pytest.mark.parametrize(
    ("weights", "fragment"),
    [([1.0], "2 responses have 1 weights"), *(([1, w], "'a2' has") for w in (-1, 1e999, "nan"))],
)
def test_weights_that_cannot_be_are_refused(tmp_path, weights, fragment):
    with refused(fragment):
        write_training(
            two_prompt_pool(), ["b1", "a2"], tmp_path / "out", weights=[float(w) for w in weights]
        )
    assert list(tmp_path.iterdir()) == []
