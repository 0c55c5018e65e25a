"""Score tables that hold something else than scores, or cannot be read as a table."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools.reading import load_pool
from lalp.scoring.heat_map import heat_map_page
from lalp.scoring.table import load_scores, scored_pool, write_scores

# Fields of users' own, some under the names of a score table's columns.
NAMES = ["level", "source", "galp", "lalp@9", "galp:tokens", "num_tokens", "extra", "reason", "é"]
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(VALUES | st.text("aé\n", max_size=4), lambda v: st.lists(v, max_size=2))
EXTRAS = st.dictionaries(st.sampled_from(NAMES), VALUES.filter(lambda v: v is not None), max_size=4)


def sound(**changes: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "prompt_id": ["p", "p"],
            "response_id": ["a", "b"],
            "teacher": ["Ada", "Bob"],
            "correct": [True, None],
            "num_tokens": [2, 1],
            "num_steps": [2, 1],
            "galp": [-1.0, np.nan],
            "lalp@2": [-1.5, -2.0],
            "token_spans": [[[0, 1], [1, 3]], [[0, 4]]],
            "token_steps": [[0, 1], [0]],
            "galp:tokens": [[-1.0, -1.0], [np.nan]],
            "lalp@2:tokens": [[-1.0, -2.0], [-2.0]],
            "prompt": ["2 + 2?", "2 + 2?"],
            "response": ["x=4", "Four"],
        }
    )
    return frame.assign(**changes)


def load(frame: pd.DataFrame, path) -> pd.DataFrame:
    frame.to_parquet(path, index=False)
    return load_scores(path)


def test_a_sound_table_is_read(tmp_path):
    frame = load(sound(), tmp_path / "s.parquet")
    assert frame["galp"].tolist()[0] == -1.0
    assert "gap" in heat_map_page(frame, "a")
    assert len(scored_pool(frame, "s.parquet").responses) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": [1, 2]}, "row 1 of column 'teacher' holds 1"),
        ({"prompt_id": ["p", None]}, "row 2 of column 'prompt_id' holds"),
        ({"response_id": [["a"], ["b"]]}, "row 1 of column 'response_id' holds"),
        ({"response_id": ["a", "a"]}, "response_id 'a' stands in several rows"),
        ({"galp": ["-1", "-2"]}, "column 'galp' holds str"),
        ({"lalp@2": [[1.0], [2.0]]}, "column 'lalp@2' holds object"),
        ({"galp": pd.date_range("2020", periods=2)}, "column 'galp' holds datetime64"),
        ({"num_tokens": [True, False]}, "column 'num_tokens' holds bool"),
        ({"correct": ["yes", "no"]}, "column 'correct', row 1: holds 'yes'"),
        ({"galp:tokens": [[-1.0], [-1.0]]}, "column 'galp:tokens', row 1: holds"),
        ({"lalp@2:tokens": [["x", "y"], ["z"]]}, "column 'lalp@2:tokens', row 1: holds"),
        ({"token_steps": [1, 2]}, "column 'token_steps', row 1: holds 1"),
    ],
)
def test_columns_of_another_kind_are_refused(changes, said, tmp_path):
    with pytest.raises(InputError, match=r"s\.parquet") as error:
        load(sound(**changes), tmp_path / "s.parquet")
    assert said in str(error.value)


def test_no_rows_and_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="the table has no rows"):
        load(sound().iloc[:0], tmp_path / "s.parquet")
    table = pa.Table.from_pandas(sound())
    pq.write_table(table.append_column("galp", table["galp"]), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=r"s\.parquet: .*galp"):
        load_scores(tmp_path / "s.parquet")


@pytest.mark.parametrize(
    "notes", [b"{", b"{}", b"\xff", b'{"columns": 3, "index_columns": [{}]}', b"[" * 9000]
)
def test_damaged_notes_for_pandas_end_in_no_traceback(notes, tmp_path):
    table = pa.Table.from_pandas(sound(), preserve_index=False)
    pq.write_table(table.replace_schema_metadata({"pandas": notes}), tmp_path / "s.parquet")
    try:
        assert len(load_scores(tmp_path / "s.parquet")) == 2
    except InputError as error:
        assert "s.parquet: not a readable score table" in str(error)


@pytest.mark.parametrize("name", ["num_steps", "lalp@2"])
def test_a_table_without_what_a_page_shows_is_refused(name):
    with pytest.raises(InputError, match=f"s.parquet: no column '{name}' in it"):
        heat_map_page(sound().drop(columns=name), "a", where="s.parquet")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "s.parquet")
    with pytest.raises(InputError, match="is a pipe or a device"):
        load_scores(tmp_path / "s.parquet")


def test_texts_that_make_no_pool_are_refused_with_the_file(tmp_path):
    frame = load(sound(response=["x=4", ""]), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=r"s\.parquet: DataFrame, row 2: field 'response' is empt"):
        scored_pool(frame, "s.parquet")
    with pytest.raises(InputError, match="'token_spans' must hold"):
        heat_map_page(sound(token_spans=[[0, 1], [0]]), "a")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(EXTRAS, min_size=2, max_size=2))
def test_fields_and_answers_of_a_pool_travel_with_its_scores(tmp_path, extras):
    base = {"prompt_id": "p", "prompt": "2 + 2?", "response": "x=4", "answer": "4"}
    records = [
        base | {"response_id": t[0].lower(), "teacher": t} | x
        for t, x in zip(("Ada", "Bob"), extras, strict=True)
    ]
    pool = load_pool(records)
    scores = sound().drop(columns=["prompt", "response", "correct"])
    write_scores(scores, pool, tmp_path / "s.parquet")
    loaded = load_scores(tmp_path / "s.parquet")
    assert scored_pool(loaded, "s.parquet") == pool
    assert loaded["galp"].tolist()[0] == -1.0


def test_a_field_of_one_plain_type_is_a_column(tmp_path):
    fields = [{"level": 3, "source": "web", "tags": ["a"]}, {"source": "book", "galp": 7}]
    base = {"prompt_id": "p", "prompt": "2 + 2?", "response": "x=4"}
    pool = load_pool(
        base | {"response_id": i, "teacher": i} | x for i, x in zip("ab", fields, strict=True)
    )
    scores = sound().drop(columns=["prompt", "response", "correct"])
    write_scores(scores, pool, tmp_path / "s.parquet")
    loaded = load_scores(tmp_path / "s.parquet")
    assert loaded["level"].tolist() == [3, pd.NA]
    assert loaded["source"].tolist() == ["web", "book"]
    assert [json.loads(text) for text in loaded["extra"]] == [{"tags": ["a"]}, {"galp": 7}]
