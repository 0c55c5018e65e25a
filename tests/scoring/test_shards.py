"""Damaged, foreign and missing shards: a run notices them and scores again what they held."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from pathlib import Path

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
    mark = json.loads(table.schema.metadata[b"lalp"]) | {"key": "0" * 20}
    return table.replace_schema_metadata({"lalp": json.dumps(mark)})


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
    place = table.schema.get_field_index("galp:reason")
    return table.set_column(place, table.schema.field(place), text)


BYTES = {
    "truncated": lambda data: data[:-100],
    "empty": lambda data: b"",
    "no parquet": lambda data: b"galp,lalp\n-1,-1\n",
    "a flipped bit at the end": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
}
# These stand under the name that fits them, as if somebody had written them on purpose.
TABLES = {
    "another key": other_key,
    "no mark": lambda table: table.replace_schema_metadata(None),
    "fewer rows": lambda table: table.slice(1),
    "other columns": lambda table: table.drop_columns(["galp:reason"]),
    "other types": other_types,
    "a shorter list": shorter_list,
    "no UTF-8": no_utf8,
}


def rename_as_written(shard: Path) -> Path:
    with shard.open("rb") as file:
        name = scoring_shards._footer_digest(file)
    return shard.rename(shard.with_name(f"{name}.parquet"))


@pytest.mark.parametrize("damage", [*BYTES, *TABLES])
def test_a_damaged_or_foreign_shard_is_noticed_and_scored_again(
    damage, done, run_again, tmp_path, caplog, computed
):
    (shard,) = shards(tmp_path)
    if damage in BYTES:
        shard.write_bytes(BYTES[damage](shard.read_bytes()))
    else:
        pq.write_table(TABLES[damage](pq.read_table(shard)), shard)
        shard = rename_as_written(shard)
    with caplog.at_level(logging.WARNING, logger="lalp"):
        again = run_again()
    assert_frame_equal(again, done[0], check_exact=True)
    # Of a shard whose prompts are not all whole, the others are sound.
    assert computed == [3, 2, 2]
    (message,) = caplog.messages
    assert message.startswith(f"scoring again: shard {shard.name} cannot be used (")
    assert "\n" not in message
    # The store is whole again.
    caplog.clear()
    run_again()
    assert computed == [3, 2, 2]
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["flipped bit", "truncated"])
def test_no_damage_ever_becomes_a_score(kind, done, tmp_path):
    # Arrow alone lets some damage pass: a list that lost its end, for example.
    (shard,) = shards(done[1])
    key = scoring_shards.ScoreKey(**json.loads((shard.parent / "key.json").read_text()))

    def read(path: Path) -> pa.Table:
        with path.open("rb") as file:
            opened = scoring_shards.Shard(file, path.name, key)
            return pa.concat_tables(opened.read(n) for n in range(opened.num_row_groups))

    whole, data = read(shard), shard.read_bytes()
    path, generator = tmp_path / shard.name, random.Random(5)
    noticed = 0
    for _ in range(250):
        damaged = bytearray(data)
        if kind == "flipped bit":
            damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        else:
            del damaged[generator.randrange(len(data)) :]
        path.write_bytes(damaged)
        try:
            assert read(path).equals(whole)
        except (pa.ArrowException, OSError, ValueError):
            noticed += 1
    assert noticed > 150


def test_leftovers_and_strangers_in_the_folder_are_ignored(done, run_again, tmp_path, computed):
    shard, *_ = shards(tmp_path)
    shutil.copy(shard, shard.with_name(f"{shard.name}.123-abcdef.tmp"))
    shard.with_name(f"{shard.name}.124-abcdef.tmp").write_bytes(shard.read_bytes()[:80])
    shard.with_name("another.parquet").write_bytes(b"")
    os.mkfifo(shard.with_name(f"{'0' * 20}.parquet"))
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
