"""Pools put together from several files, and what is left to solve."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools import merging
from lalp.pools.pool import Message, Prompt
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import save_pool
from tests.paper.scale.conftest import pool_of

ONE_TEACHER = "prompt has responses of fewer than 2 teachers"
REPEATED = "more than 1 responses of one teacher to a prompt"
UNVERIFIED = {"response is wrong": 1, "response is not verified": 1}


@pytest.mark.parametrize(
    ("options", "kept", "left_out"),
    [
        ({}, "123456", {}),
        ({"only_correct": True}, "2345", UNVERIFIED),
        ({"only_correct": True, "per_teacher": 1}, "245", UNVERIFIED | {REPEATED: 1}),
        ({"only_correct": True, "min_teachers": 2}, "234", UNVERIFIED | {ONE_TEACHER: 1}),
    ],
)
def test_merge_keeps_what_is_asked_for(tmp_path, options, kept, left_out):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", False), ("p", "A", "2", True)])
    rows = [("p", "A", "3", True), ("p", "B", "4", True), ("q", "B", "5", True)]
    b = pool_of(tmp_path / "b.jsonl", [*rows, ("q", "B", "6", None)])
    (tmp_path / "c.jsonl").touch()  # nothing was left to sample
    pool = merging.merge_pools([a, tmp_path / "c.jsonl", b], **options)
    assert "".join(response.response_id for response in pool.responses) == kept
    assert pool.left_out == left_out
    assert set(pool.prompts) == {response.prompt_id for response in pool.responses}


def test_an_empty_file_of_a_table_is_no_pool(tmp_path):
    (tmp_path / "a.parquet").touch()
    with pytest.raises(InputError, match=r"a\.parquet: the file is empty"):
        merging.merge_pools([tmp_path / "a.parquet"])


def test_merge_refuses_what_disagrees(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)])
    for response_id, answer, message in [
        ("1", "7", r"b\.jsonl: field 'response_id': '1' is already taken by .*a\.jsonl"),
        ("2", "8", r"b\.jsonl: field 'answer' is '8', but '7' in .*a\.jsonl"),
    ]:
        b = pool_of(tmp_path / "b.jsonl", [("p", "B", response_id, True)], answer=answer)
        with pytest.raises(InputError, match=message):
            merging.merge_pools([a, b])
    b.write_text(a.read_text().replace("question p", "another question"))
    message = r"b\.jsonl: the prompt differs from that of .*a\.jsonl, .* prompt_id 'p'"
    with pytest.raises(InputError, match=message):
        merging.merge_pools([a, b])


def test_a_wrong_first_try_may_share_its_id_with_a_later_one(tmp_path):
    greedy = pool_of(tmp_path / "greedy.jsonl", [("p", "A", "p/A/0", False)])
    sampled = pool_of(tmp_path / "sampled.jsonl", [("p", "A", "p/A/0", True)])
    pool = merging.merge_pools([greedy, sampled], only_correct=True)
    assert [r.correct for r in pool.responses] == [True]


def test_an_answer_known_to_one_file_is_kept(tmp_path):
    a = pool_of(tmp_path / "a.jsonl", [("p", "A", "1", True)], answer=None)
    b = pool_of(tmp_path / "b.jsonl", [("p", "A", "2", True)], answer="7")
    for order in ([a, b], [b, a]):
        assert merging.merge_pools(order).prompts["p"].answer == "7"


ROWS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("ABC"), st.sampled_from([True, False, None])),
    min_size=1,
    max_size=12,
)
OPTIONS = st.fixed_dictionaries(
    {
        "only_correct": st.booleans(),
        "per_teacher": st.sampled_from([None, 1, 2]),
        "min_teachers": st.integers(1, 3),
    }
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 12), options=OPTIONS)
def test_merge_in_any_two_parts(tmp_path_factory, rows, cut, options):
    folder = tmp_path_factory.mktemp("parts")
    numbered = [(p, t, str(n), c) for n, (p, t, c) in enumerate(rows)]
    parts = [part for part in (numbered[:cut], numbered[cut:]) if part]
    paths = [pool_of(folder / f"{n}.jsonl", part) for n, part in enumerate(parts)]
    kept = pd.DataFrame(numbered, columns=["prompt", "teacher", "id", "correct"])
    if options["only_correct"]:
        kept = kept[kept["correct"].map(bool)]
    kept = kept.groupby(["prompt", "teacher"]).head(options["per_teacher"] or 99)
    teachers = kept.groupby("prompt")["teacher"].transform("nunique")
    expected = set(kept.loc[teachers >= options["min_teachers"], "id"])
    if not expected:
        with pytest.raises(InputError, match="no response is left"):
            merging.merge_pools(paths, **options)
        return
    pool = merging.merge_pools(paths, **options)
    assert sorted(r.response_id for r in pool.responses) == sorted(expected)
    save_pool(pool, folder / "out.jsonl")
    assert load_pool(folder / "out.jsonl").responses == pool.responses
    # Every response is kept or counted; prompts are counted as such.
    dropped = sum(n for why, n in pool.left_out.items() if not why.startswith("prompt"))
    assert dropped + len(expected) <= len(rows)


def test_unsolved_prompts(tmp_path):
    prompts = [Prompt(p, (Message("user", p),), "7") for p in "abc"]
    pool = load_pool(pool_of(tmp_path / "x.jsonl", [("a", "A", "1", True), ("b", "A", "2", False)]))
    assert [p.prompt_id for p in merging.unsolved_prompts(prompts, [pool])] == ["b", "c"]
    merging.write_prompts([], tmp_path / "none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    merging.write_prompts(prompts[:1], tmp_path / "one.jsonl")
    assert load_prompts(tmp_path / "one.jsonl") == prompts[:1]
