"""Pairs that graders get wrong: no wrong answer may pass, and few right ones may not."""

from pathlib import Path

import pytest
import yaml

from lalp.grading.equivalence import UnreadableError, equivalent

TABLE = yaml.safe_load(Path(__file__).with_name("adversarial.yaml").read_text(encoding="utf-8"))
CASES = [(kind, verdict) for kind, verdicts in TABLE.items() for verdict in verdicts]


def is_same(reference: str, answer: str) -> bool:
    try:
        return equivalent(reference, answer)
    except UnreadableError:
        return False  # "no answer", which is not correct


@pytest.mark.parametrize(("kind", "verdict"), CASES)
def test_adversarial_pairs(kind, verdict):
    pairs = [(ref, answer) for ref, *answers in TABLE[kind][verdict] for answer in answers]
    found = [pair for pair in pairs if is_same(*pair)]
    assert found == (pairs if verdict == "same" else [])
