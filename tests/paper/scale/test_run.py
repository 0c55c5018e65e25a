"""Stages run once, go on where they stopped, and refuse what is damaged."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from lalp.errors import InputError
from lalp.paper.scale.run import (
    adopt_stage,
    call_process,
    choose_stages,
    describe_output,
    is_done,
    run_stages,
)
from lalp.paper.scale.stages import Stage

_WRITE = """
import sys, pathlib
out, word, *read = sys.argv[1:]
pathlib.Path(out).write_text(''.join(pathlib.Path(p).read_text() for p in read) + word)
pathlib.Path(out + '.runs').open('a').write('.')
"""


def toy_stage(name: str, code: str, *words: str, kind: str = "select", **options) -> Stage:
    return Stage(name, kind, ("3",), (sys.executable, "-c", code, *words), **options)


def write_stage(name: str, *inputs: str, word: str = "x", **options) -> Stage:
    """A stage that writes its inputs' text and a word."""
    out = f"{name}.txt"
    return toy_stage(name, _WRITE, out, word, *inputs, inputs=inputs, outputs=(out,), **options)


def states_of(stages: list[Stage], root: str | Path = "root") -> list[str]:
    return [report.state for report in run_stages(stages, root)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # The toy stages write text, which no output of the pipeline is.
    monkeypatch.setattr("lalp.paper.scale.run.describe_output", lambda path: Path(path).read_text())
    return tmp_path


def test_stages_run_once_and_go_on(here):
    chain = [write_stage("a"), write_stage("b", "a.txt"), write_stage("c", "b.txt")]
    reports = run_stages(chain, "root")
    assert Path("c.txt").read_text() == "xxx"
    assert all(is_done(stage, "root") for stage in chain)
    again = run_stages(chain, "root")
    assert [r.state for r in reports + again] == ["done now"] * 3 + ["done before"] * 3
    assert [r.seconds for r in again] == [r.seconds for r in reports]
    assert [Path(f"{name}.txt.runs").read_text() for name in "abc"] == ["."] * 3


def test_a_killed_run_goes_on_at_the_stage_it_stopped_in(here):
    chain = [write_stage("a"), write_stage("b", "a.txt"), write_stage("c", "b.txt")]

    def call(words, stdout, log):
        if words[-1] == "a.txt":
            Path("b.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        return call_process(words, stdout, log)

    if (child := os.fork()) == 0:
        run_stages(chain, "root", call=call)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not is_done(chain[1], "root")
    assert states_of(chain) == ["done before", "done now", "done now"]
    assert Path("c.txt").read_text() == "xxx"


def test_what_changed_runs_again_and_keeps_the_old_output(here):
    chain = [write_stage("a"), write_stage("b", "a.txt")]
    run_stages(chain, "root")
    os.utime("a.txt", (1, 1))  # as a copy from another machine: its content is the same
    assert is_done(chain[1], "root")
    changed = [write_stage("a", word="y"), chain[1]]
    assert not is_done(changed[0], "root")
    assert states_of(changed) == ["done now"] * 2
    assert Path("b.txt").read_text() == "yx"
    (kept,) = Path("root/stale").glob("a-*/a.txt")
    assert kept.read_text() == "x"
    Path("a.txt").unlink()
    assert states_of(changed) == ["done now", "done before"]
    assert Path("a.txt").read_text() == "y"
    Path("a.txt").write_text("z")
    assert not is_done(chain[1], "root")


def test_a_run_goes_on_from_another_folder(here, monkeypatch):
    def stages_in(root: Path | str) -> list[Stage]:
        a, b = (str(Path(root) / name) for name in "ab")
        first = toy_stage("a", _WRITE, a, "x", outputs=(a,))
        return [first, toy_stage("b", _WRITE, b, "x", a, inputs=(a,), outputs=(b,))]

    run_stages(stages_in("root"), "root")
    Path("elsewhere").mkdir()
    root, moved = Path("root").resolve(), Path("moved").resolve()
    monkeypatch.chdir("elsewhere")
    for name in (root, Path("../root")):
        assert states_of(stages_in(name), name) == ["done before"] * 2
    root.rename(moved)
    assert states_of(stages_in(moved), moved) == ["done before"] * 2


def test_a_failing_stage_stops_the_run_with_its_command(here):
    code = "import sys; print('so far'); sys.exit('disk on fire')"
    broken = toy_stage("broken", code, outputs=("never.txt",))
    with pytest.raises(InputError) as error:
        run_stages([write_stage("a"), broken, write_stage("b")], "root")
    for part in ("stage broken failed with exit code 1", "disk on fire", "$ ", "sys.exit"):
        assert part in str(error.value)
    assert (Path("a.txt").exists(), Path("b.txt").exists()) == (True, False)
    assert not is_done(broken, "root")


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"stage s: out\.jsonl was not written"):
        run_stages([toy_stage("s", "", outputs=("out.jsonl",))], "root")
    for run in (adopt_stage, lambda stage, root: run_stages([stage], root)):
        with pytest.raises(InputError, match=r"stage b reads a\.txt, which is not there"):
            run(write_stage("b", "a.txt"), "root")
    Path("a.txt").touch()
    with pytest.raises(InputError, match=r"b\.txt was not written"):
        adopt_stage(write_stage("b", "a.txt"), "root")


def test_nothing_left_to_do(here):
    Path("rest.txt").touch()
    stage = write_stage("a", "rest.txt", unless_empty="rest.txt")
    assert states_of([stage]) == ["nothing to do"]
    assert Path("a.txt").read_bytes() == b""
    assert not Path("a.txt.runs").exists()
    Path("rest.txt").write_text("more")
    assert states_of([stage]) == ["done now"]
    assert Path("a.txt").read_text() == "morex"


def test_standard_output_becomes_a_file_only_when_whole(here):
    code = "import sys; print('{}'); print('log', file=sys.stderr)"
    output = {"outputs": ("s.json",), "stdout": "s.json"}
    run_stages([toy_stage("s", code, **output)], "root")
    assert Path("s.json").read_text() == "{}\n"
    assert Path("root/logs/s.log").read_text().endswith("log\n")
    with pytest.raises(InputError, match="exit code 3"):
        run_stages([toy_stage("s", "import sys; print('{'); sys.exit(3)", **output)], "root")
    assert not Path("s.json").exists()  # the older one was set aside, no half one took its place


def test_a_stage_runs_in_one_process_at_a_time(here):
    def call(words, stdout, log):
        with pytest.raises(InputError, match="another process is running it"):
            run_stages([stage], "root")
        Path("a.txt").touch()
        return 0

    stage = write_stage("a")
    assert [report.state for report in run_stages([stage], "root", call=call)] == ["done now"]


def test_outputs_made_elsewhere_are_adopted(here):
    Path("prompts.txt").write_text("p")
    stage = write_stage("a", "prompts.txt")
    Path("a.txt").write_text("from a server")
    adopt_stage(stage, "root")
    assert states_of([stage]) == ["done before"]


def test_stages_are_chosen_by_name_pattern_or_kind(stages):
    assert {s.kind for s in choose_stages(stages, ["eval"])} == {"eval"}
    some = choose_stages(stages, ["train-*_math_*", "merge-limo"])
    assert some[0].name == "merge-limo"
    assert len(some) == 1 + 15
    assert choose_stages(stages, []) == list(stages)
    with pytest.raises(InputError, match="no stage is called 'trian-x'"):
        choose_stages(stages, ["trian-x"])


def test_outputs_are_read_before_they_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"x": [1, 2, 3]}).to_parquet("a.parquet")
    for name, text in (("a.jsonl", "{}\n{}\n"), ("a.json", "{}"), ("empty.jsonl", "")):
        Path(name).write_text(text)
    for said in ("a.jsonl: 2 records", "a.parquet: 3 rows", "a.json: JSON", "empty.jsonl: empty"):
        assert describe_output(said.partition(":")[0]) == said
    for name, text in (("b.jsonl", '{"half": '), ("c.parquet", "PAR1 but not really")):
        Path(name).write_text(text)
        with pytest.raises(InputError, match=f"{name} is damaged"):
            describe_output(name)
    Path("model").mkdir()
    for name in ("config.json", "tokenizer_config.json", ".safetensors"):
        with pytest.raises(InputError, match=f"model lacks .*{name}"):
            describe_output("model")
        Path("model", name.replace(".safe", "model.safe")).write_text("{}")
    assert describe_output("model") == "model: model, 0.0 MB"
