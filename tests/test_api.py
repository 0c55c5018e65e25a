"""The names that `lalp` offers: each is used once, from a pool to figures of its scores."""

import inspect
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

import lalp
from lalp.scoring.table import write_scores

RECORDS = [
    {"prompt_id": p, "prompt": f"What is 3 + 4 ({p})?", "teacher": teacher, "response": text}
    for p in ("p", "q")
    for teacher, text in (("Ada", "We add. So it is 7."), ("Bob", "Count on. It is 7."))
]


def test_a_star_brings_every_name():
    names = {}
    exec("from lalp import *", names)
    assert set(lalp.__all__) <= names.keys()
    with pytest.raises(AttributeError, match="no attribute 'load_champ_pool'"):
        _ = lalp.load_champ_pool


def test_names_are_imported_when_they_are_used():
    code = "import sys, lalp; lalp.load_pool; print({'torch', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_every_name_from_a_pool_to_figures(llama_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    pool = lalp.load_pool(RECORDS)
    assert isinstance(pool, lalp.Pool)
    with pytest.raises(lalp.InputError, match="no records"):
        lalp.load_pool([])
    student = lalp.load_student(str(llama_folder), device="cpu")
    scores = lalp.score(pool, student, ["0", "1"], with_tokens=True, progress=False)
    write_scores(scores, pool, tmp_path / "scores.parquet")
    table = lalp.load_scores(tmp_path / "scores.parquet")

    assert lalp.describe_scores(table)["responses"].tolist() == [2, 2]

    rankings = {name: lalp.rank_teachers(table, name) for name in ("lalp@0", "lalp@1", "galp")}
    means = lalp.means_by_window(rankings)
    assert means["window"].unique().tolist() == ["0", "1", "GALP"]
    figures = [lalp.plot_teacher_means(rankings), lalp.plot_window_sweep(means)]
    for figure in [*figures, lalp.plot_scores(table, "lalp@0")]:
        figure.canvas.draw()
        assert any(axis.has_data() for axis in figure.axes)
        plt.close(figure)
    assert figures[1].axes[0].get_xlabel() == "window"

    chosen = lalp.select(table, "lalp", "0")
    lalp.write_training(pool, list(chosen["response_id"]), tmp_path / "train.jsonl")
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["response_id"] for line in lines] == list(chosen["response_id"])

    row = table.iloc[0]
    heat_map = lalp.token_heat_map(row["response"], row, "0")
    page = lalp.write_heat_map(table, row["response_id"], tmp_path / "page.html", "0")
    assert heat_map in page.read_text(encoding="utf-8")

    source = inspect.getsource(test_every_name_from_a_pool_to_figures)
    assert [name for name in lalp.__all__ if f"lalp.{name}" not in source] == []
