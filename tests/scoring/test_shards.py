"""Damaged, foreign and missing shards: a run notices them and scores again what they held."""

from __future__ import annotations

import json
import logging
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from lalp.scoring import groups
from lalp.scoring import run as scoring_run
from lalp.scoring import shards as scoring_shards
from lalp.scoring.run import score
from tests.scoring.arithmetic import WINDOWS, shards

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def other_key(table: pa.Table) -> pa.Table:
    """What another setting computed for the same texts, columns and all but one bit alike."""
    mark = b"0" * 20 + table.schema.metadata[b"lalp"][20:]
    return table.replace_schema_metadata({"lalp": mark})


def other_types(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("galp")
    return table.cast(table.schema.set(place, pa.field("galp", pa.float32())))


def shorter_list(table: pa.Table) -> pa.Table:
    """What Arrow makes of one flipped bit in a page's header."""
    rows = table.to_pylist()
    del rows[-1]["token_steps"][-1]
    return pa.Table.from_pylist(rows, table.schema)


def no_utf8(table: pa.Table) -> pa.Table:
    raw = pa.array([b"\xff\xfe"] * len(table), pa.binary())
    text = pa.StringArray.from_buffers(len(table), *raw.buffers()[1:])
    place = table.schema.get_field_index("reason")
    return table.set_column(place, table.schema.field(place), text)


BYTES = {
    "truncated": lambda data, shard: data[:-100],
    "empty": lambda data, shard: b"",
    "no parquet": lambda data, shard: b"galp,lalp\n-1,-1\n",
    "another group": lambda data, shard: shards(shard.parents[1])[1].read_bytes(),
}
TABLES = {
    "another key": other_key,
    "no mark": lambda table: table.replace_schema_metadata(None),
    "fewer rows": lambda table: table.slice(1),
    "other columns": lambda table: table.drop_columns(["reason"]),
    "other types": other_types,
    "a shorter list": shorter_list,
    "no UTF-8": no_utf8,
}


@pytest.mark.parametrize("damage", [*BYTES, *TABLES])
def test_a_damaged_or_foreign_shard_is_noticed_and_scored_again(
    damage, done, run_again, tmp_path, caplog, computed
):
    shard = shards(tmp_path)[0]
    rows = pq.read_metadata(shard).num_rows
    if damage in BYTES:
        shard.write_bytes(BYTES[damage](shard.read_bytes(), shard))
    else:
        pq.write_table(TABLES[damage](pq.read_table(shard)), shard)
    with caplog.at_level(logging.WARNING, logger="lalp"):
        again = run_again()
    assert_frame_equal(again, done[0], check_exact=True)
    assert computed == [rows]
    (message,) = caplog.messages
    assert message.startswith(f"scoring again: shard {shard.name} cannot be used (")
    assert "\n" not in message
    # It is whole again.
    caplog.clear()
    run_again()
    assert computed == [rows]
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["flipped bit", "truncated"])
def test_no_damage_ever_becomes_a_score(kind, done, pool, tokenizer, tmp_path):
    # Arrow alone lets some damage pass: a list that lost its end, for example.
    _, folder = done
    shard = max(shards(folder), key=lambda path: path.stat().st_size)
    key = json.loads((shard.parent / "key.json").read_text())
    key = scoring_shards.ScoreKey(**key | {"windows": tuple(key["windows"])})
    (group,) = (g for g in groups.group_responses(pool, tokenizer) if g.digest == shard.stem)
    whole, data = scoring_shards._read_shard(shard, key, group), shard.read_bytes()
    path, generator = tmp_path / shard.name, random.Random(5)
    noticed = 0
    for _ in range(250):
        damaged = bytearray(data)
        if kind == "flipped bit":
            damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        else:
            del damaged[generator.randrange(len(data)) :]
        path.write_bytes(damaged)
        read = scoring_shards.read_shard(tmp_path, key, group)
        noticed += read is None
        if read is not None:
            found = read.replace_schema_metadata(None)
            assert found.equals(whole.replace_schema_metadata(None))
    assert noticed > 150


def test_leftovers_and_strangers_in_the_folder_are_ignored(done, run_again, tmp_path, computed):
    shard, *_ = shards(tmp_path)
    shutil.copy(shard, shard.with_name(f"{shard.name}.123-abcdef.tmp"))
    shard.with_name(f"{shard.name}.124-abcdef.tmp").write_bytes(shard.read_bytes()[:80])
    shard.with_name("another.parquet").write_bytes(b"")
    (shard.parent / "key.json").unlink()
    assert_frame_equal(run_again(), done[0], check_exact=True)
    assert computed == []


def test_a_run_that_fails_half_way_keeps_what_it_has(
    llama, pool, done, tmp_path, computed, monkeypatch
):
    options, real = {"with_tokens": True, "store": tmp_path, "progress": False}, groups.make_tasks
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(scoring_run, "make_tasks", lambda *args: 1 / 0 if computed else real(*args))
        score(pool, llama, WINDOWS, **options)
    assert len(shards(tmp_path)) == 1
    assert_frame_equal(score(pool, llama, WINDOWS, **options), done[0], check_exact=True)
    assert computed == [3, 2, 2]
    assert not list(tmp_path.rglob("*.tmp"))
