"""The judge of `make kills` sees what it should; `tests/faults` kills for real."""

from __future__ import annotations

from hashlib import sha256

import pytest

from benchmarks.kills import (
    LINES,
    OLD,
    Chain,
    Outcome,
    differences,
    draw_moments,
    read_files,
    report,
    torn_files,
)

FINAL = {"out.jsonl": "new", "store/a.parquet": "a"}
STUDENT = "build/worlds/student-1"


@pytest.mark.parametrize(
    ("files", "torn"),
    [
        (FINAL, []),
        ({"out.jsonl": sha256(OLD).hexdigest()}, []),
        ({"out.jsonl": "half"}, ["out.jsonl"]),
        ({"store/a.parquet": "half"}, ["store/a.parquet"]),
        ({"store/unknown.parquet": "b"}, ["store/unknown.parquet"]),
        ({"store/a.parquet.host-1-0123abcd.tmp": "half"}, []),
        ({"trained.partial/checkpoint-2/model.safetensors": "half"}, []),
        ({f"{STUDENT}/model.safetensors": "half"}, []),
        (
            {
                f"{STUDENT}/{name}": "half"
                for name in ("model.safetensors", "reports/schooling.json")
            },
            [f"{STUDENT}/model.safetensors", f"{STUDENT}/reports/schooling.json"],
        ),
        ({f"{STUDENT}/arms/1/model/model.safetensors": "half"}, []),
        ({f"{STUDENT}/arms/1.json": "half"}, [f"{STUDENT}/arms/1.json"]),
    ],
)
def test_what_is_torn_after_a_kill(files, torn):
    found = torn_files(files, FINAL)
    assert found == [f"{name} is neither the old nor the new file" for name in torn]


def test_what_differs_at_the_end():
    files = {"out.jsonl": "other", "out.jsonl.host-1-0123abcd.tmp": ""}
    assert differences(files, FINAL) == [
        "store/a.parquet is missing",
        "out.jsonl.host-1-0123abcd.tmp is left over",
        "out.jsonl differs",
    ]
    assert differences(FINAL, FINAL) == []


def test_only_seconds_by_the_clock_may_differ(tmp_path):
    def digest(seconds: float, loss: float) -> dict[str, str]:
        (tmp_path / "training_log.csv").write_text(f"loss,seconds\n{loss},{seconds}\n")
        (tmp_path / "schooling.json").write_text(f'{{"loss": {loss}, "seconds": {seconds}}}')
        return read_files(tmp_path)

    assert digest(1.5, 0.25) == digest(2.5, 0.25)
    assert not set(digest(1.5, 0.25).values()) & set(digest(1.5, 0.5).values())


def test_moments_are_drawn_from_seed_and_number_and_some_are_aimed():
    calm = Outcome(0, 40, 2.0, "")
    drawn = [draw_moments(7, number, calm) for number in range(200)]
    assert drawn == [draw_moments(7, number, calm) for number in range(200)]
    assert drawn != [draw_moments(8, number, calm) for number in range(200)]
    moments = [moment for chain in drawn for moment in chain]
    aimed = [moment for moment in moments if moment.change is not None]
    assert 0.4 < len(aimed) / len(moments) < 0.6
    changes = {moment.change for moment in aimed}
    assert changes <= set(range(1, 41)) and len(changes) > 35
    assert all(moment.seconds <= 2 for moment in moments)


def test_a_failure_is_printed_with_what_shows_it_again(capsys):
    sound = Chain(0, LINES[0], kills=["1.000 s", "change 3 + 0.000 s"], resumed=1)
    wrong = Chain(8, LINES[0], kills=["0.500 s"], faults=["out.parquet differs"])
    report([sound, wrong], seed=7, seconds=12)
    said = capsys.readouterr().out
    assert "1 of 2 FAILED" in said and "out.parquet differs" in said
    assert "make kills SEED=7 CASE=8" in said
    assert "2 of 3 kills left no trace; 12 s; seed 7" in said
