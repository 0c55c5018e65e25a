"""The estimate of cost: tokens against what scoring feeds, parts of large pools, ranges of time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import build_student

from lalp.errors import InputError
from lalp.scoring import estimate
from lalp.scoring.candidates import score_candidates
from lalp.scoring.estimate import plan_scoring
from lalp.scoring.groups import group_responses, make_tasks
from lalp.scoring.windows import parse_window
from lalp.steps.splitters import split_pool, write_steps
from lalp.students.student import locate_student
from tests.scoring.arithmetic import RESPONSES, make_pool
from tests.tiny import write_gguf

WINDOWS = ["0", "2", "25%", "8t", "all"]
RATE = 1e9  # FLOP per second
EXACT = ("num_steps", "response_tokens", "fed_tokens", "target_tokens", "flops", "longest_row")
# Prompts of very different lengths.
MANY = make_pool(
    [(f"Question {n}?", "Ada", "So we add. " * (1 + n * n % 37) + "It is 7.") for n in range(60)]
)


@pytest.fixture(autouse=True)
def known_machine(monkeypatch, on_the_cpu):
    monkeypatch.setattr(estimate, "matmul_rate", lambda *args: RATE)


@pytest.fixture
def save(tokenizer, tmp_path):
    """Saves a tiny student of a family; gives its folder."""

    def save_student(family: str, **changes: object) -> str:
        build_student(family, tokenizer, **changes).model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return save_student


def exact(cost: estimate.ScoringCost) -> list[float]:
    return [getattr(cost, name) for name in EXACT]


# --- counts -------------------------------------------------------------------------------------


def test_the_plan_counts_what_scoring_feeds_and_needs(llama, student_folder, pool):
    cost = plan_scoring(pool, student_folder, WINDOWS)
    fed, windows = [], [parse_window(window) for window in WINDOWS]
    groups = [make_tasks(g, llama.tokenizer, 512) for g in group_responses(pool, llama.tokenizer)]
    scores = [s for g in groups for s in score_candidates(llama, g, windows, on_tokens=fed.append)]
    assert cost.fed_tokens == sum(fed)
    assert cost.response_tokens == sum(one.num_tokens for one in scores)
    assert cost.num_steps == sum(one.num_steps for one in scores)
    assert (cost.num_responses, cost.too_long) == (len(RESPONSES), 0)
    assert cost.num_prompts == cost.planned_prompts == 3
    # Every response token is a target of GALP's row at least.
    assert cost.target_tokens >= cost.response_tokens
    rows = (len(task.encoded.prompt_ids) + task.num_tokens for tasks in groups for task in tasks)
    assert cost.longest_row == max(rows)
    assert cost.flops < cost.flops_per_step_loop
    assert cost.memory_bytes > sum(p.numel() * p.element_size() for p in llama.model.parameters())
    assert (cost.device, cost.dtype) == ("cpu", "float32")
    assert json.loads(json.dumps(asdict(cost))) == asdict(cost)


def test_what_is_too_long_is_counted_and_not_planned(save):
    pool = make_pool([("sum", "Ada", "So the sum is 7. " * 10), ("sum", "Bob", "It is 7.")])
    cost = plan_scoring(pool, save("llama", max_position_embeddings=60), ["0"])
    assert cost.too_long == 1
    assert cost.longest_row <= 60


def test_a_recurrent_model_can_be_planned_and_no_weights_are_read(save, pool, monkeypatch):
    folder = Path(save("mamba"))
    (folder / "model.safetensors").unlink()
    # A revision reads every byte of a folder, which takes minutes for a large student.
    monkeypatch.setattr("lalp.students.student.folder_digest", lambda *a: pytest.fail("read"))
    assert plan_scoring(pool, str(folder), ["1"]).flops > 0


def test_a_gguf_file_is_planned_as_it_will_be_scored_and_not_converted(
    llama, pool, tmp_path, monkeypatch
):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "cache"))
    write_gguf(llama.model, llama.tokenizer, tmp_path / "tiny.gguf")
    student = str(tmp_path / "tiny.gguf")
    before = plan_scoring(pool, student, WINDOWS)
    assert not (tmp_path / "cache").exists()
    locate_student(student)  # converts it
    assert exact(plan_scoring(pool, student, WINDOWS)) == exact(before)


# --- parts of large pools -----------------------------------------------------------------------


@pytest.fixture
def only_part(monkeypatch):
    monkeypatch.setattr(estimate, "MOST_CHARACTERS", 6000)


def test_of_a_large_pool_a_part_is_planned_and_the_range_holds_the_whole(
    student_folder, monkeypatch, only_part
):
    part = plan_scoring(MANY, student_folder, ["0", "all"])
    monkeypatch.undo()
    monkeypatch.setattr(estimate, "matmul_rate", lambda *args: RATE)
    whole = plan_scoring(MANY, student_folder, ["0", "all"])
    assert 2 <= part.planned_prompts < whole.planned_prompts == part.num_prompts == 60
    assert part.num_responses == whole.num_responses == 60
    assert part.response_tokens == pytest.approx(whole.response_tokens, rel=0.1)
    assert part.fed_tokens == pytest.approx(whole.fed_tokens, rel=0.2)
    assert part.longest_row == pytest.approx(whole.longest_row, rel=0.1)
    assert part.seconds_low < whole.seconds_low < whole.seconds_high < part.seconds_high
    assert isinstance(part.num_steps, int)


def test_given_steps_are_checked_as_a_whole_before_a_part_is_planned(
    student_folder, tmp_path, only_part
):
    steps = split_pool(MANY, "sentences")
    write_steps(tmp_path / "steps.jsonl", MANY, steps)
    by_name = plan_scoring(MANY, student_folder, ["1"])
    for given in (steps, str(tmp_path / "steps.jsonl")):
        assert exact(plan_scoring(MANY, student_folder, ["1"], splitter=given)) == exact(by_name)
    with pytest.raises(InputError, match="has no steps"):
        plan_scoring(MANY, student_folder, ["1"], splitter=dict([*steps.items()][1:]))


# --- time ---------------------------------------------------------------------------------------


def test_the_range_of_time_by_hand(student_folder, pool):
    cost = plan_scoring(pool, student_folder, ["1"])
    # Three prompts, each of one pass for itself and one for its rows, in three layers.
    passes = 3 * 2 * 3
    assert cost.seconds_low == pytest.approx(cost.flops / (0.95 * RATE) + 1e-4 * passes)
    assert cost.seconds_high == pytest.approx(cost.flops / (0.35 * RATE) + 2e-3 * passes)
    assert "35% to 95% of the 1 GFLOP/s" in cost.basis
    assert "0.1 to 2 ms in each of 3 layers" in cost.basis


@pytest.fixture
def clock(monkeypatch):
    """A clock that scoring alone moves, by 1 or 2 ns for a FLOP in turn; what it scored."""
    now, scored, real = [0.0], [], estimate.score_candidates

    def score(student, tasks, windows):
        now[0] += (1 + len(scored) % 2) * 1e-9 * estimate.plan_flops(size, tasks, windows)
        scored.append([task.num_tokens for task in tasks])
        return real(student, tasks, windows)

    def measured(*args, **options):
        nonlocal size
        size = measure(*args, **options)
        return size

    size, measure = None, estimate.measure_model
    monkeypatch.setattr(estimate, "measure_model", measured)
    monkeypatch.setattr(estimate, "score_candidates", score)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    return scored


def test_a_measured_range_is_what_some_prompts_took(student_folder, pool, clock):
    modelled = plan_scoring(pool, student_folder, ["1"])
    assert clock == []
    cost = plan_scoring(pool, student_folder, ["1"], measure=True)
    assert exact(cost) == exact(modelled)
    assert len(clock) == 4  # once without a clock
    assert cost.seconds_low == pytest.approx(0.9e-9 * cost.flops)
    assert cost.seconds_high == pytest.approx(2.2e-9 * cost.flops)
    assert "slowest of 3 prompts" in cost.basis


def test_a_measurement_takes_prompts_of_all_sizes_that_are_not_too_long(
    student_folder, monkeypatch, clock
):
    plan_scoring(MANY, student_folder, ["0"], measure=True)
    lengths = sorted({sum(tokens) for tokens in clock})
    assert len(clock) == 1 + 5
    assert max(lengths) > 10 * min(lengths)
    clock.clear()
    monkeypatch.setattr(estimate, "_MEASURED_SECONDS", 0.0)
    pool = make_pool([("sum", "Ada", "So we add. " * 30), ("sum", "Bob", "So we add. It is 7.")])
    cost = plan_scoring(pool, student_folder, ["0"], measure=True)
    # Of the one prompt, whose time is over the limit, the shortest response.
    assert len(clock[0]) == 1
    assert clock[0] == clock[1]
    assert "slowest of 1 prompts" in cost.basis
