"""Score tables put together: shards to the table of the whole pool, and what does not fit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from lalp.errors import InputError
from lalp.pools.parts import Part, parse_part, pool_part
from lalp.pools.spool import SpooledPrompts, SpooledResponses
from lalp.scoring import merging
from lalp.scoring.merging import is_score_table, merge_scores
from lalp.scoring.run import score
from lalp.scoring.table import POOL_ROW, load_scores, write_scores
from tests.scoring.arithmetic import make_pool

pytestmark = pytest.mark.usefixtures("on_the_cpu")
# Prompts alternate, as in a pool that was put together of one file a teacher.
ROWS = [
    (f"{i} + {i}?", teacher, f"It is {2 * i}. {teacher} knows.")
    for teacher in "AB"
    for i in range(7)
]


@pytest.fixture(scope="module")
def parted(llama, tmp_path_factory):
    """A pool's table, and those of its three shards."""
    folder, pool = tmp_path_factory.mktemp("parts"), make_pool(ROWS)
    options = {"store": folder / "store", "progress": False}
    whole = score(pool, llama, ["1"], **options)
    write_scores(whole, pool, folder / "whole.parquet")
    paths = []
    for number in (1, 2, 3):
        part, places = pool_part(pool, Part(number, 3))
        frame = score(part, llama, ["1"], **options).assign(**{POOL_ROW: np.asarray(places)})
        frame.attrs = whole.attrs | {
            "scored_with": whole.attrs["scored_with"] | {"shard": f"{number}/3"}
        }
        paths.append(folder / f"part-{number}.parquet")
        write_scores(frame, part, paths[-1], pool)
    return folder / "whole.parquet", paths


def test_shards_give_the_table_of_the_whole_pool(parted, tmp_path, monkeypatch):
    whole, paths = parted
    out = tmp_path / "out.parquet"
    for rows in (1024, 3):
        monkeypatch.setattr(merging, "ROWS_PER_BATCH", rows)
        monkeypatch.setattr(merging, "_READ_ROWS", 2)
        assert merge_scores(paths[::-1], out, {"command": "merge"}) == len(ROWS)
        assert pq.read_table(out).equals(pq.read_table(whole))
        merged, table = load_scores(out), load_scores(whole)
        assert_frame_equal(merged, table, check_exact=True)
        assert merged.attrs == table.attrs | {"origin": {"command": "merge"}}


def test_tables_of_several_pools_stand_one_after_another(parted, llama, tmp_path):
    whole, _ = parted
    pool = make_pool([("Why?", "Ada", "Because.")])
    more = score(pool, llama, ["1"], store=tmp_path / "store", progress=False)
    write_scores(more, pool, tmp_path / "more.parquet")
    merge_scores([whole, tmp_path / "more.parquet"], tmp_path / "out.parquet", {})
    expected = pd.concat([load_scores(whole), load_scores(tmp_path / "more.parquet")])
    expected = expected.reset_index(drop=True)
    assert_frame_equal(load_scores(tmp_path / "out.parquet"), expected, check_exact=True)


def changed(path, out, attributes=None, drop=(), **settings):
    """A table with other settings."""
    table = pq.read_table(path).drop_columns(list(drop))
    attrs = json.loads(table.schema.metadata[b"PANDAS_ATTRS"]) | (attributes or {})
    attrs["scored_with"] |= settings
    metadata = table.schema.metadata | {b"PANDAS_ATTRS": json.dumps(attrs)}
    pq.write_table(table.replace_schema_metadata(metadata), out)
    return out


REFUSED = {
    "another student": ({"student": "other"}, "different ways, student is 'test' and 'other'"),
    "a shard of other shards": ({"shard": "3/4"}, "is shard 3/4"),
    "a shard that is none": ({"shard": None}, "is no shard"),
    "the same shard": ({"shard": "2/3"}, "shard 3 of 3 is missing: score it"),
    "another window": ({"drop": ["lalp@1"]}, "only one has the column 'lalp@1'"),
    "another pool": ({"attributes": {"origin": {"inputs": {"pool": "x"}}}}, "different inputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_written(what, parted, tmp_path):
    settings, message = REFUSED[what]
    _, paths = parted
    third = changed(paths[2], tmp_path / "third.parquet", **settings)
    with pytest.raises(InputError, match=message):
        merge_scores([*paths[:2], third], tmp_path / "out.parquet", {})
    assert list(tmp_path.iterdir()) == [third]


def test_a_missing_shard_and_a_row_twice_are_named(parted, tmp_path):
    whole, paths = parted
    with pytest.raises(InputError, match="shard 2 of 3 is missing: score it"):
        merge_scores([paths[0], paths[2]], tmp_path / "out.parquet", {})
    pq.write_table(pq.read_table(whole).slice(3, 2), tmp_path / "few.parquet")
    with pytest.raises(InputError, match=r"few\.parquet: response .* stands in several rows"):
        merge_scores([whole, tmp_path / "few.parquet"], tmp_path / "out.parquet", {})


def test_another_card_is_told_but_not_refused(parted, tmp_path, caplog):
    _, paths = parted
    third = changed(paths[2], tmp_path / "third.parquet", device="NVIDIA H100")
    merge_scores([*paths[:2], third], tmp_path / "out.parquet", {})
    assert "device is 'cpu' and 'NVIDIA H100'" in caplog.text


def test_what_is_a_score_table(parted, tmp_path):
    whole, _ = parted
    other, text = tmp_path / "other.parquet", tmp_path / "pool.parquet"
    pq.write_table(pa.table({"response_id": ["a"]}), other)
    text.write_text("PAR1")
    assert [is_score_table(p) for p in (whole, other, text, tmp_path / "none.parquet")] == [
        True,
        *[False] * 3,
    ]


@settings(max_examples=20)
@given(st.sets(st.text(max_size=5), min_size=1), st.integers(1, 9))
def test_a_prompt_is_in_one_part_alone(names, total):
    parts = [Part(number, total) for number in range(1, total + 1)]
    assert all(sum(part.holds(name) for part in parts) == 1 for name in names)


def test_parts_of_a_pool_larger_than_memory_are_the_same():
    pool = make_pool(ROWS)
    prompts = SpooledPrompts(pool.prompts.values())
    spooled = type(pool)(prompts, SpooledResponses(pool.responses))
    part, places = pool_part(pool, Part(2, 3))
    same, rows = pool_part(spooled, Part(2, 3))
    assert (list(same.responses), dict(same.prompts)) == (list(part.responses), dict(part.prompts))
    assert list(places) == list(rows)
    assert [pool.responses[row] for row in rows] == list(part.responses)
    assert {r.prompt_id for r in part.responses} == set(part.prompts)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "1", "1/2/3", "-1/3", "1.5/3"])
def test_parts_that_are_none(text):
    with pytest.raises(InputError, match=f"--shard {text}: give a part of all"):
        parse_part(text)
