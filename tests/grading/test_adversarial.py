"""Pairs that graders get wrong: no wrong answer may pass, and few right ones may not."""

from pathlib import Path

import pytest
import yaml

from lalp.grading.workers import Answer, grade_answers

TABLE = yaml.safe_load(Path(__file__).with_name("adversarial.yaml").read_text(encoding="utf-8"))
CASES = [(kind, verdict) for kind, verdicts in TABLE.items() for verdict in verdicts]


def pairs_of(kind: str, verdict: str) -> list[tuple[str, str]]:
    return [(reference, text) for reference, *texts in TABLE[kind][verdict] for text in texts]


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], str]:
    """The outcome of each pair of the table, all graded by one guarded worker."""
    pairs = list(dict.fromkeys(pair for case in CASES for pair in pairs_of(*case)))
    answers = [Answer(reference, rf"\boxed{{{text}}}") for reference, text in pairs]
    grades = grade_answers(answers, num_workers=1)
    return dict(zip(pairs, (grade.outcome for grade in grades), strict=True))


@pytest.mark.parametrize(("kind", "verdict"), CASES)
def test_adversarial_pairs(kind, verdict, outcomes):
    pairs = pairs_of(kind, verdict)
    found = [pair for pair in pairs if outcomes[pair] == "correct"]
    assert found == (pairs if verdict == "same" else [])


def test_the_table_holds_every_kind_and_no_pair_twice_over():
    due = {}
    for kind, verdict in CASES:
        for pair in pairs_of(kind, verdict):
            assert due.setdefault(pair, verdict == "different") == (verdict == "different"), pair
    assert len(due) > 1000
