"""Steps by meaning: the rule by hand, its bounds, and two topics that anyone would tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.steps import semantic
from lalp.steps.semantic import gap_similarities, group_sentences, split_semantic, valley_depths
from lalp.steps.sentences import split_sentences
from lalp.students.embedder import Embedded

A, B, C = np.eye(3)


def test_similarities_by_hand():
    # Two before against two after each gap; one at the ends. cos(A, A + B) = 1 / sqrt(2).
    found = gap_similarities(np.array([A, A, A, B, B, B]))
    assert found == pytest.approx([1, 0.7071, 0, 0.7071, 1])
    # Neither the length of a vector nor a vector of zeros does any harm.
    assert gap_similarities(np.array([A, 5 * A, 0 * A])) == pytest.approx([1, 0])
    assert len(gap_similarities(np.array([A]))) == 0


def test_depths_by_hand():
    # 0.2 lies 0.3 below the peak to its left and 0.4 below the one to its right.
    depths = valley_depths(np.array([0.5, 0.2, 0.6, 0.3, 0.3, 0.7]))
    assert depths == pytest.approx([0, 0.7, 0, 0.7, 0, 0])
    # A slope counts from its top: 0.9 - 0.1 and 0.4 - 0.1.
    assert valley_depths(np.array([0.9, 0.5, 0.1, 0.4, 0.3])) == pytest.approx([0, 0, 1.1, 0, 0.1])
    # The ends are valleys towards their one neighbour.
    assert valley_depths(np.array([0.1, 0.4])) == pytest.approx([0.3, 0])
    for flat in ([], [0.3], [0.3, 0.3, 0.3]):
        assert not valley_depths(np.array(flat)).any()


def test_a_change_of_topic_begins_a_group():
    assert group_sentences(np.array([A, A, A, B, B, B, C, C])) == [0, 3, 6]
    assert group_sentences(np.array([A, A, A])) == [0]
    assert group_sentences(np.array([A])) == [0]
    assert group_sentences(np.zeros((0, 3))) == []
    # A shallow valley is no boundary: depths 2, 2 and about 0.03, so mean 1.34, deviation 0.93.
    near = A + 0.25 * C
    vectors = np.array([A, A, A, B, B, B, A, A, A, near, near, near])
    depths = valley_depths(gap_similarities(vectors))
    assert depths[8] > 0
    assert group_sentences(vectors) == [0, 3, 6]


def test_long_groups_are_cut_where_sentences_are_least_alike():
    assert group_sentences(np.array([A] * 20), max_sentences=8) == [0, 5, 10, 15]


@settings(max_examples=200, deadline=None)
@given(
    arrays(
        np.float32, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(-1, 1, width=32)
    ),
    st.integers(1, 9),
)
def test_groups_are_ordered_bounded_and_cover_everything(vectors, most):
    groups = group_sentences(vectors, max_sentences=most)
    ends = [*groups, len(vectors)]
    assert ends[0] == 0
    assert all(0 < b - a <= most for a, b in itertools.pairwise(ends))
    assert group_sentences(3 * vectors, max_sentences=most) == groups


def pool_of(*texts: str) -> Pool:
    prompt = Prompt("p", (Message("user", "?"),))
    return Pool({"p": prompt}, tuple(Response(f"r{i}", "p", "A", t) for i, t in enumerate(texts)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("Ab. \n$\\[]12"), min_size=1, max_size=60), max_size=4))
def test_steps_are_runs_of_whole_sentences_of_their_own_response(texts):
    asked = []

    def embed(name: str, sentences: list[str]) -> Embedded:
        asked.append(list(sentences))
        vectors = np.array([[len(s) % 3 + 1, len(s) % 2, 1] for s in sentences], dtype=np.float32)
        return Embedded(vectors.reshape(-1, 3), np.ones(len(sentences), int), 9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "load_embeddings", embed)
        steps = split_semantic(pool_of(*texts))
    assert len(asked) == 1  # the whole pool at once
    assert list(steps) == [f"r{i}" for i in range(len(texts))]
    for text, spans in zip(texts, steps.values(), strict=True):
        assert "".join(text[a:b] for a, b in spans) == text
        assert all(a < b for a, b in spans)
        assert {a for a, _ in spans} <= {a for a, _ in split_sentences(text)}


def test_what_the_embedder_truncates_is_counted_and_said(monkeypatch, caplog):
    def embed(name: str, sentences: list[str]) -> Embedded:
        lengths = np.array([len(sentence.split()) for sentence in sentences])
        return Embedded(np.ones((len(sentences), 3), dtype=np.float32), lengths, 4)

    monkeypatch.setattr(semantic, "load_embeddings", embed)
    split_semantic(pool_of("It is even. Now four words here.", "Here are five words indeed."))
    (record,) = caplog.records
    assert "1 of 3 sentences are longer than the 4 tokens" in record.getMessage()
    caplog.clear()
    split_semantic(pool_of("It is even."))
    assert not caplog.records


TOPICS = """The bakery opens at six in the morning. Fresh bread and rolls are sold until noon. \
In the afternoon the bakers sell cakes and sweet buns. \
A prime number has no divisors but one and itself. \
The number nine is divisible by three, so it is not prime. \
Therefore every even number above two is composite. \
The goalkeeper dived to the left and missed the ball. \
Two minutes later the team scored its second goal. \
The football match ended with a penalty shootout."""


@pytest.mark.slow
def test_obvious_topics_are_told_apart_and_embedded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    pool = pool_of(TOPICS, "Just one sentence.", TOPICS.replace(" ", "\n"))
    steps = split_semantic(pool)
    begins = [TOPICS[a:b][:8] for a, b in steps["r0"]]
    assert begins == ["The bake", "A prime ", "The goal"]
    assert steps["r1"] == [(0, 18)]
    monkeypatch.setattr("lalp.students.embedder.load_embedder", None)
    assert split_semantic(pool) == steps
