"""The folder of shards: who else writes there, windows asked for later, and how shards grow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt, Response
from lalp.scoring import run as scoring_run
from lalp.scoring import store as scoring_store
from lalp.scoring.gathering import Gathered
from lalp.scoring.groups import PromptGroup
from lalp.scoring.run import score
from lalp.scoring.shards import Form, ScoreKey
from lalp.scoring.store import Store
from tests.scoring.arithmetic import RESPONSES, WINDOWS, make_pool, packed, shards

pytestmark = pytest.mark.usefixtures("on_the_cpu")

KEY = ScoreKey(*"abcdefgh")
FORM = Form(("galp", "lalp@1"), False)


def make_group(name: int, size: int = 2) -> PromptGroup:
    prompt = Prompt(f"p{name}", (Message("user", "?"),))
    texts = [f"{name} {i}" for i in range(size)]
    responses = tuple(Response(text, prompt.prompt_id, "Ada", text) for text in texts)
    return PromptGroup(prompt, f"? {name}", responses, ((),) * size)


def rows_of(group: PromptGroup, value: float, form: Form = FORM) -> pa.Table:
    row = {name: value for name in form.schema.names if not name.endswith("reason")}
    row |= {"group": bytes.fromhex(group.digest), "num_tokens": 5, "num_steps": 1}
    return pa.Table.from_pylist([row] * len(group.responses), form.schema)


def gather(store: Store, groups: list[PromptGroup], form: Form = FORM) -> Gathered:
    gathered = Gathered(form)
    for group in groups:
        gathered.ask(group)
    gathered.begin()
    store.fill(gathered)
    return gathered


def values(gathered: Gathered, part: str) -> list[float]:
    pile = gathered._piles[part]
    column = pile.table()[part].to_pylist() if pile.num_rows else []
    return [column[row] if row >= 0 else np.nan for row in gathered._rows[part]]


def test_a_window_that_is_asked_for_later_is_scored_alone(llama, pool, tmp_path, monkeypatch):
    asked, real = [], scoring_run.score_candidates

    def spy(student, tasks, windows, *, galp, on_tokens):
        asked.append(([str(window) for window in windows], galp))
        return real(student, tasks, windows, galp=galp, on_tokens=on_tokens)

    monkeypatch.setattr(scoring_run, "score_candidates", spy)
    options = {"store": tmp_path, "progress": False}
    first = score(pool, llama, ["1", "25%"], **options)
    more = score(pool, llama, ["25%", "all"], **options)
    assert asked == [(["1", "25%"], True)] * 3 + [(["all"], False)] * 3
    same = more.columns.intersection(first.columns).drop("reason")
    assert_frame_equal(more[same], first[same], check_exact=True)
    alone = score(pool, llama, ["25%", "all"], store=tmp_path / "new", progress=False)
    assert_frame_equal(more, alone, atol=1e-5, rtol=0)
    # Asked for with tokens, it is scored with them; those serve without, too.
    del asked[:]
    score(pool, llama, ["all"], with_tokens=True, **options)
    score(pool, llama, ["1", "all"], **options)
    assert asked == [(["all"], True)] * 3


def test_prompts_that_lack_the_same_are_packed_together(llama, pool, computed, tmp_path):
    student, options = packed(llama), {"store": tmp_path / "packed", "progress": False}
    score(make_pool([row for row in RESPONSES if row[0] == "sum"]), student, ["1"], **options)
    frame = score(pool, student, ["1", "all"], **options)
    # "sum" lacks one window alone; the other two prompts lack all.
    assert computed == [3, 3, 2 + 2]
    plain = score(pool, llama, ["1", "all"], store=tmp_path / "plain", progress=False)
    assert computed[3:] == [3, 2, 2]
    assert_frame_equal(frame, plain, atol=1e-5, rtol=0)


def test_the_same_command_has_the_same_numbers_whatever_others_asked_for(llama, pool, tmp_path):
    options = {"with_tokens": True, "store": tmp_path, "progress": False}
    for windows in (["all"], ["6t", "1"], WINDOWS, ["1", "25%", "6t", "all", "2"]):
        score(pool, llama, windows, **options)
    again = score(pool, llama, WINDOWS, **options)
    score(pool, llama, ["0", *WINDOWS], **options)
    assert_frame_equal(score(pool, llama, WINDOWS, **options), again, check_exact=True)


def test_shards_are_put_together_and_hold_each_prompt_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_store, "FLUSH_SECONDS", 0.0)
    groups = [make_group(n, 1 + n % 3) for n in range(100)]
    one, other = (Store(tmp_path, KEY) for _ in range(2))
    for number, group in enumerate(groups):
        one.add(rows_of(group, number), FORM)
        if number % 2:
            other.add(rows_of(group, number), FORM)
    assert len(shards(tmp_path)) < 40
    one.close()
    other.close()
    assert len(shards(tmp_path)) < 20
    found = gather(Store(tmp_path, KEY), groups)
    assert values(found, "galp") == values(found, "lalp@1") == list(range(100))
    assert list(tmp_path.rglob("*.tmp")) == []


def test_what_another_process_puts_together_meanwhile_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_store, "FLUSH_SECONDS", 0.0)
    groups = [make_group(n) for n in range(15)]
    writer = Store(tmp_path, KEY)
    for number, group in enumerate(groups):
        writer.add(rows_of(group, number), FORM)
    reader = Store(tmp_path, KEY)
    reader._list()  # and then the shards go
    writer.add(rows_of(make_group(99), 99), FORM)
    assert len(shards(tmp_path)) == 1
    assert values(gather(reader, groups), "galp") == list(range(15))


def test_scores_of_another_number_of_responses_are_not_taken(tmp_path, caplog):
    store = Store(tmp_path, KEY)
    group = make_group(1, 2)
    store.add(rows_of(group, 1.0).slice(1), FORM)
    store.close()
    assert np.isnan(values(gather(Store(tmp_path, KEY), [group]), "galp")).all()
    assert "wrong number of rows" in caplog.text


def test_a_store_can_be_a_url(llama, pool, tmp_path):
    options = {"store": "memory://scores", "progress": False}
    first = score(pool, llama, ["1"], **options)
    plain = score(pool, llama, ["1"], store=tmp_path, progress=False)
    assert_frame_equal(first, plain, check_exact=True)
    # The key and a shard.
    assert len(scoring_store.fsspec.filesystem("memory").find("/scores")) == 2


def test_a_url_that_nothing_reads_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"store nowhere://x: .*install what reads it"):
        Store("nowhere://x", KEY)


parts = st.sets(st.sampled_from(["galp", "lalp@1", "lalp@2", "lalp@all"]), min_size=1)
written = st.tuples(st.integers(0, 9), parts.map(frozenset), st.booleans())
# A process asks its store before it scores: it never writes the same twice.
writes = st.lists(written, max_size=12, unique_by=lambda write: write[:2])


@settings(max_examples=10, deadline=None)
@given(writes=writes, wanted=parts)
def test_whatever_was_written_is_found_and_nothing_else(writes, wanted, tmp_path_factory):
    """Against a plain dictionary: a group's part is found if and only if somebody wrote it."""
    folder, known = tmp_path_factory.mktemp("store"), set()
    store = Store(folder, KEY)
    groups = [make_group(n) for n in range(10)]
    for number, own, is_flushed in writes:
        form = Form(tuple(sorted(own)), False)
        store.add(rows_of(groups[number], number, form), form)
        known |= {(number, part) for part in own}
        if is_flushed:
            store.flush()
    store.close()
    form = Form(tuple(sorted(wanted)), False)
    found = gather(Store(folder, KEY), groups, form)
    for part in form.parts:
        expected = [float(n) if (n, part) in known else np.nan for n in range(10)]
        np.testing.assert_array_equal(values(found, part), expected)


def test_one_prompt_scored_twice_in_one_pool_has_its_rows_twice(tmp_path):
    group = make_group(1)
    twin = replace(
        group, responses=tuple(replace(r, response_id=r.response_id + "b") for r in group.responses)
    )
    store = Store(tmp_path, KEY)
    store.add(rows_of(group, 1.0), FORM)
    found = gather(store, [group, twin])
    assert values(found, "galp") == [1.0]
    assert list(found._owners) == [0] * 4 and list(found._places) == [0, 1, 0, 1]
