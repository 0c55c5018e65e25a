"""Students fine-tuned on long traces by the paper's own kind of teachers (Table 3): one GPU run.

``python -m lalp.paper.traces.arms`` (`make traces-arms`) scores the traces of the main teachers
under a student. It trains one copy of it for each rule and each teacher, has all of them solve
held-out problems of the same pool, and writes ``figures/traces_arms/``. It fits into 12 minutes on
one large card (`arms.yaml` holds the plan) and needs no network if weights and traces are there. It
writes its results after each arm, and continues where it was stopped.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import torch
from typer import Option

from lalp.cli.options import run_main
from lalp.errors import InputError
from lalp.files import cache_dir, read_data, write_json
from lalp.paper.arms.grid import WEIGHTS, Run, answer_run, plan_runs, train_run, untrained_run
from lalp.paper.arms.plan import RULES, Arm, Grid, Setup, plan_arms, profile_recipe
from lalp.paper.committed import save_results
from lalp.paper.profiles import Profile
from lalp.paper.provenance import describe_run
from lalp.paper.traces.arm_tables import collect
from lalp.paper.traces.plan import count_tokens, traces_profile
from lalp.paper.traces.pool import DATA_SETS, MAIN_TEACHERS, load_traces, solved_by
from lalp.paper.workers import run_side_by_side
from lalp.pools.pool import Pool
from lalp.sampling.settings import Sampling
from lalp.scoring.run import score
from lalp.stats import seeded_generator
from lalp.students.student import default_device, find_student
from lalp.training.job import training_dtype

SCALES = read_data("paper/traces/arms.yaml")
DATA_SET = DATA_SETS[0]
# Share of a card's memory for all workers together; CUDA itself needs the rest in each worker.
_CARD_SHARE = 0.95
_PACKAGES = ("torch", "transformers", "trl", "accelerate", "math-verify")


# --- what is trained on, and what is solved ----------------------------------------------------


def arms_profile(scale: str, student: str | None = None) -> Profile:
    """The profile of the run, ``full`` or ``small``, with another student if one is named."""
    profile = replace(traces_profile(), **SCALES[scale]["profile"])
    return replace(profile, student=student or profile.student)


def draw_problems(profile: Profile, pool: Pool, trace_tokens: int) -> tuple[list[str], list[str]]:
    """Problems of GSM8K to train on, and others to solve, each drawn by seed.

    Students train on problems that all main teachers solved with traces of at most ``trace_tokens``
    student tokens. Any others are held out, including those with longer traces.

    Raises:
        InputError: If there are too few.
    """
    solved = solved_by(pool, MAIN_TEACHERS, DATA_SET)
    wanted = set(solved)
    traces = [r for r in pool.responses if r.prompt_id in wanted and r.teacher in MAIN_TEACHERS]
    tokens = count_tokens(profile, pool, traces)["num_tokens"]
    longest = {name: max(tokens[f"{name}/{t}"] for t in MAIN_TEACHERS) for name in solved}
    short = [name for name in solved if longest[name] <= trace_tokens]
    trained = _draw("to train on", short, profile.sft_prompts)
    rest = [n for n in pool.prompts if n.startswith(f"{DATA_SET}/") and n not in set(trained)]
    return trained, _draw("to solve", rest, profile.eval_prompts)


def _draw(what: str, names: list[str], number: int) -> list[str]:
    if len(names) < number:
        advice = "plan fewer in lalp/paper/traces/arms.yaml, or take another student"
        raise InputError(f"{len(names)} problems {what}, {number} are planned: {advice}")
    order = seeded_generator(f"traces arms: {what}", 0).permutation(len(names))
    return [names[place] for place in order[:number]]


def plan_traces_grid(profile: Profile, pool: Pool, scale: str) -> Grid:
    """Score the traces to choose among, and choose for each arm; scores are kept in the store."""
    trained, held_out = draw_problems(profile, pool, SCALES[scale]["trace_tokens"])
    candidates = Pool(
        {name: pool.prompts[name] for name in trained},
        tuple(
            r for r in pool.responses if r.prompt_id in set(trained) and r.teacher in MAIN_TEACHERS
        ),
    )
    scores = score(candidates, profile.student, [profile.main_window], splitter=profile.splitter)
    recipe = replace(
        profile_recipe(profile),
        # The traces of a step are sorted by length, so each half is padded to its own longest.
        batch_size=profile.sft_batch // 2,
        gradient_accumulation=2,
        gradient_checkpointing=True,
    )
    setup = Setup(
        profile.student,
        recipe,
        held_out=None,
        folder=cache_dir() / "traces_arms" / scale,
        workers=profile.sft_workers,
        problems=tuple(pool.prompts[name] for name in held_out),
        samplings=(Sampling(max_tokens=profile.eval_max_tokens),),
        rows=len(held_out),
    )
    return Grid(tuple(plan_arms(scores, profile)), candidates, scores, setup)


def ordered_runs(grid: Grid) -> dict[Arm, Run]:
    """The runs of all arms: for each seed the rules, then the teachers; the untrained one between.

    Arms of one seed with the same choice share a run.
    """
    runs = plan_runs(grid)
    number = sum(arm.group == RULES and arm.seed == 0 for arm in runs)
    first = dict(list(runs.items())[:number])
    return first | untrained_run(grid.setup) | runs


# --- the run -----------------------------------------------------------------------------------


@dataclass
class Clock:
    """The minutes of a run, stage by stage."""

    budget: float  # minutes
    planned: dict[str, float]  # minutes of each stage
    began: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def minutes(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.began) / 60

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and report its minutes."""
        begin = self.minutes
        try:
            yield
        finally:
            self.spent[name] = round(self.minutes - begin, 2)
            planned, left = self.planned[name], self.budget - self.minutes
            took = f"{self.spent[name]:.1f} minutes ({planned} planned)"
            print(f"{name}: {took}, {left:.1f} of {self.budget:g} left", flush=True)


def run_arms(grid: Grid, clock: Clock, after: Any) -> list[str]:
    """Train and evaluate what is missing, several students at once, within the clock's budget.

    ``after`` is called after each arm. Returns the names of the arms that had no time left.
    """
    runs = ordered_runs(grid)
    missing = {run.folder: run for run in runs.values() if not run.answers.is_file()}
    job = partial(finish_run, deadline=clock.began + 60 * clock.budget)
    run_side_by_side(job, list(missing.values()), grid.setup.workers, "arms", after=after)
    return [arm.name for arm, run in runs.items() if not run.answers.is_file()]


def finish_run(run: Run, deadline: float) -> None:
    """Train one student and have it answer; then delete its weights.

    It does not start if an arm as long as the longest so far would end after the ``deadline``, in
    seconds of the monotonic clock.
    """
    share_card(run.setup.workers)
    began = time.monotonic()
    known = [json.loads(p.read_text()) for p in run.setup.folder.glob("*/seconds.json")]
    if began + max(known, default=0.0) > deadline:
        return
    if run.examples and not (run.model / WEIGHTS).is_file():
        train_run(run)
        gc.collect()  # the trainer refers to itself and holds weights and AdamW's moments
        torch.use_deterministic_algorithms(False)  # training asks for them, and they are slower
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    answer_run(run)
    write_json(run.folder / "seconds.json", round(time.monotonic() - began, 1))
    (run.model / WEIGHTS).unlink(missing_ok=True)


def share_card(workers: int) -> None:
    """Prepare this process to be one of several workers that share a card.

    It takes no more than its share of memory, because no other process can use the freed memory
    that torch keeps. It does not use cuDNN's attention, which torch prefers on large cards: cuDNN
    builds a kernel for every new length, and so for every token of a batch of answers.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(_CARD_SHARE / workers)


def check_device(is_small: bool) -> None:
    """InputError if there is no GPU, unless the run is small."""
    if not is_small and default_device() != "cuda":
        raise InputError(
            "no GPU is at hand, and on a CPU this would take days: run it where one is, or see that"
            " it works with --small (make traces-arms SMALL=1)"
        )


def main(
    student: Annotated[
        str | None, Option(help="A folder, a GGUF file, or a hub id; else that of arms.yaml.")
    ] = None,
    minutes: Annotated[float, Option(help="No arm is begun that would end later.")] = 12.0,
    small: Annotated[bool, Option(help="Four problems, on any device.")] = False,
) -> None:
    """Fine-tune a student on long traces, an arm for each rule and teacher, and evaluate each."""
    scale = "small" if small else "full"
    check_device(small)
    profile = arms_profile(scale, student)
    share_card(1)
    found = find_student(profile.student)
    clock = Clock(minutes, SCALES[scale]["minutes"])
    stages = ", ".join(f"{name} {long:g}" for name, long in clock.planned.items())
    print(f"{profile.student} on {found.device_name}; {minutes:g} minutes: {stages}", flush=True)
    with clock.stage("pool"):
        pool = load_traces()
    with clock.stage("scores"):
        grid = plan_traces_grid(profile, pool, scale)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    folder = grid.setup.folder / "figures" if small else "traces_arms"
    facts = {
        **{"scale": scale, "student": found.name, "revision": found.revision},
        **{"card": found.device_name, "dtype": training_dtype(grid.setup.recipe)},
        "recipe": asdict(grid.setup.recipe),
    }

    def save() -> None:
        done = collect(grid, {a: r for a, r in ordered_runs(grid).items() if r.answers.is_file()})
        made = describe_run(clock.minutes / 60, _PACKAGES)
        today = datetime.now(UTC).date().isoformat()
        made = {"date": today} | facts | {"minutes_since_last_start": clock.spent} | made
        save_results(replace(done, provenance=made), folder)
        print(done.brief(), flush=True)

    with clock.stage("arms"):
        left = run_arms(grid, clock, save)
    save()
    if left:
        print(f"no time was left for {', '.join(left)}: run it again to go on")


if __name__ == "__main__":
    run_main(main)
