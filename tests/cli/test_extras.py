"""Commands without the packages of extras: one line that says what to install, or no need of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lalp.extras import EXTRAS
from tests.cli.test_app import RECORDS
from tests.pools.builders import jsonl
from tests.tiny import write_gguf

ROOT = Path(__file__).parents[2]
# Runs command lines, each part of them in a fork in which some packages cannot be found. What more
# than one part imports (torch, for seconds) is imported before.
RUN = """
import contextlib, io, json, os, sys

parts = json.load(sys.stdin)

class Hiding:
    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.hidden:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

def run(hidden, lines):
    assert not {name.partition(".")[0] for name in sys.modules} & set(hidden)
    sys.meta_path[:] = [Hiding(finder, hidden) for finder in sys.meta_path]
    from lalp.cli.app import main

    for words in lines:
        sys.argv, err, code = ["lalp", *words], io.StringIO(), 0
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
        print(json.dumps([code, err.getvalue()]), flush=True)

if len(parts) == 1:
    run(*parts[0])
else:
    import lalp.cli.app
    import lalp.students.student

    for part in parts:
        if not (child := os.fork()):
            run(*part)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
"""


def run_without(
    parts: list[tuple[list[str], list[list[str]]]], folder: Path
) -> list[tuple[int, str]]:
    """Exit code and standard error of each command line, of parts that hide packages."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LALP_CACHE": str(folder / "cache")}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=environment,
        input=json.dumps(parts),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "pool.jsonl").write_bytes(jsonl(*RECORDS))
    return tmp_path


def test_the_tool_alone_scores_ranks_and_selects(folder, model, llama):
    student, gguf = ["--student", model], ["--student", "tiny.gguf"]
    write_gguf(llama.model, llama.tokenizer, folder / "tiny.gguf")
    lines = [
        ["check", "pool.jsonl"],
        ["import", "pool.jsonl", "--out", "imported.jsonl"],
        ["merge", "imported.jsonl", "--out", "merged.parquet"],
        ["segment", "merged.parquet", "--out", "steps.jsonl"],
        ["plan", "merged.parquet", *student, "--splitter", "steps.jsonl"],
        ["score", "pool.jsonl", *student, "--tokens", "--quiet", "--out", "scores.parquet"],
        ["teachers", "scores.parquet"],
        ["select", "scores.parquet", "--rule", "lalp", "--out", "train.jsonl"],
        ["show", "scores.parquet", "--response-id", "p1/Ada/0", "--out", "heat.html"],
        ["describe", "scores.parquet"],
        ["export", "llamafactory", "train.jsonl", *student, "--out", "lf", "--template", "qwen"],
        ["plan", "pool.jsonl", *gguf],
        ["score", "pool.jsonl", *gguf, "--quiet", "--out", "by_gguf.parquet"],
        ["cache"],
    ]
    done = run_without([(sorted(modules_of_extras()), lines)], folder)
    assert [(words, out) for words, out in zip(lines, done, strict=True) if out[0]] == []
    assert (folder / "heat.html").is_file()


REFUSALS = {
    "train": ["train pool.jsonl --student {model} --out trained"],
    "eval": [
        "sample pool.jsonl --model {model} --out new.jsonl",
        "eval --model {model} --benchmark pool.jsonl --out a.parquet",
    ],
    "cluster": ["score pool.jsonl --student {model} --ray auto --out a.parquet"],
    "vllm": ["sample pool.jsonl --model {model} --out new.jsonl --backend vllm"],
    "semantic": [
        "segment pool.jsonl --splitter semantic --out steps.jsonl",
        "score pool.jsonl --splitter semantic --student {model} --out a.parquet",
        "plan pool.jsonl --splitter semantic --student {model}",
    ],
    "llm": ["segment pool.jsonl --splitter llm --llm-url http://x --llm-model y --out s.jsonl"],
    "datasets": [
        "import some/one:train --out new.jsonl",
        "check some/one:train",
        "eval --model {model} --benchmark math500 --out a.parquet",
    ],
}


def test_each_command_says_in_one_line_which_extra_it_lacks(folder, model):
    before = sorted(folder.iterdir())
    parts = [
        ([*EXTRAS[extra]], [text.format(model=model).split() for text in REFUSALS[extra]])
        for extra in REFUSALS
    ]
    found = iter(run_without(parts, folder))
    for extra, texts in REFUSALS.items():
        needs = rf"lalp: [^\n]+: needs {EXTRAS[extra][0]}: pip install 'lalp\[{extra}\]'\n"
        for text in texts:
            code, err = next(found)
            assert (text, code) == (text, 2)
            assert re.fullmatch(needs, err), (text, err)
    assert next(found, None) is None
    assert sorted(folder.iterdir()) == before


def test_plots_from_python_say_it_too(monkeypatch):
    import lalp

    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(lalp.InputError, match=r"lalp\.plot_scores: needs seaborn: pip install"):
        _ = lalp.plot_scores


# --- what pyproject.toml declares -----------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SLURM = "snakemake-executor-plugin-slurm"
MODULE = {"math-verify": "math_verify", "sentence-transformers": "sentence_transformers"}
MODULE |= {SLURM: SLURM.replace("-", "_")}


def modules_of_extras() -> set[str]:
    """Modules that no command of the tool alone may need."""
    return {module for modules in EXTRAS.values() for module in modules}


def test_the_extras_are_those_of_the_project():
    declared = PROJECT["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        names = [Requirement(text).name for text in declared[extra]]
        # What trl brings is not named twice.
        assert {MODULE.get(name, name) for name in names} <= set(modules)
    base = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert base.isdisjoint(modules_of_extras() | set(MODULE))


def test_the_locked_torch_is_in_the_range():
    (torch,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "torch"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert torch.specifier.contains(re.search(r"^torch==(\S+)$", lock, re.M)[1])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lowest, highest = re.search(r"^TORCHES := (\S+) (\S+)$", makefile, re.M).groups()
    assert f">={lowest.removesuffix('.0')}" in str(torch.specifier)
    assert torch.specifier.contains(highest)
