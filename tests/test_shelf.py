"""Finished work on disk: read back, or said to be no use."""

import pytest

from lalp.shelf import read_records, write_records

RECORDS = [["x", 1], {"ä": None}, "half a pair: \ud83d", "two\nlines"]


@pytest.fixture
def path(tmp_path):
    write_records(tmp_path / "new" / "a.jsonl", "version 1", RECORDS)
    return tmp_path / "new" / "a.jsonl"


def test_records_come_back_and_a_missing_file_has_none(path, caplog):
    assert read_records(path, "version 1", "anew") == RECORDS
    assert read_records(path.with_name("b.jsonl"), "version 1", "anew") == []
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: whole.replace(b"version 1", b"version 2"), "written by others: version 2"),
        (lambda whole: whole.replace(b'"x", 1', b'"x", 2'), "it is damaged"),
        (lambda whole: whole[: whole.rindex(b"\n", 0, -1) + 1], "it is damaged"),  # a line is lost
        (lambda whole: whole + b'["y"]\n', "it is damaged"),
        (lambda whole: whole[:20], ""),
        (lambda whole: b"", ""),
        (lambda whole: b"[]\n", ""),
        (lambda whole: b"{}\n", ""),
        (lambda whole: b"\xff\xfe no text", ""),
    ],
)
def test_what_cannot_be_trusted_is_said_and_not_used(path, damage, reason, caplog):
    path.write_bytes(damage(path.read_bytes()))
    assert read_records(path, "version 1", "computing again") == []
    (message,) = caplog.messages
    assert message.startswith("computing again: a.jsonl cannot be used (")
    assert reason in message
    assert "\n" not in message
