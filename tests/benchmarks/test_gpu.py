"""The benchmark for a GPU: what can be checked without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import build_student

from benchmarks import gpu
from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import lalp_column
from lalp.scoring.groups import Task
from lalp.scoring.windows import parse_windows
from lalp.students.encoding import Encoded


@pytest.fixture
def tasks() -> list[Task]:
    drawn = np.random.default_rng(0)
    prompt = tuple(drawn.integers(4, 400, 5).tolist())
    spans = ((0, 4), (4, 5), (5, 14), (14, 20))
    return [
        Task(Encoded(prompt, tuple(drawn.integers(4, 400, 20).tolist()), ()), spans, 512)
        for _ in range(2)
    ]


def test_tasks_are_those_that_are_announced():
    tasks = gpu.make_tasks(2, 3, 500, 40)
    assert len(tasks) == 6
    assert len({task.encoded.prompt_ids for task in tasks}) == 2
    for task in tasks:
        assert (task.num_tokens, len(task.step_spans)) == (500, 40)
        ends = [end for _, end in task.step_spans]
        assert [start for start, _ in task.step_spans] == [0, *ends[:-1]]
        assert all(start < end for start, end in task.step_spans)


def test_what_the_loop_reads_gives_the_projects_scores(tasks, tokenizer):
    student = build_student("qwen2", tokenizer)
    windows = ["0", "2"]
    scored = score_candidates(student, tasks, parse_windows(windows))
    for task, scores in zip(tasks, scored, strict=True):
        for window in windows:
            requests = gpu.list_requests([task], [window], False)
            loop = np.concatenate([gpu.read_padded(student, [r])[0] for r in requests])
            own = scores.token_log_probs[lalp_column(parse_windows([window])[0])]
            np.testing.assert_allclose(own, loop, atol=1e-5)
            together = np.concatenate(gpu.read_padded(student, requests))
            np.testing.assert_allclose(together, loop, atol=1e-5)
        (whole,) = gpu.read_padded(student, gpu.list_requests([task], [], True))
        np.testing.assert_allclose(scores.token_log_probs["galp"], whole, atol=1e-5)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match="no GPU is at hand"):
        gpu.main()
