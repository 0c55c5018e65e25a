"""Which problems of the pool of long traces are scored, and their scores.

A problem is drawn among those that all four main teachers solved and whose four traces fit the
student's positions with the prompt. This limit favours short traces; `problem_table` holds every
length, which shows how much. Responses of the two other teachers to the same problems are scored if
they are correct and fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from lalp.errors import InputError
from lalp.files import read_data
from lalp.paper import root_dir
from lalp.paper.profiles import Profile, load_profile
from lalp.paper.scores import recheck, scores_of, scoring_student
from lalp.paper.traces.controls import cut_scores, unmarked_scores
from lalp.paper.traces.pool import DATA_SETS, MAIN_TEACHERS, load_traces, solved_by
from lalp.pools.pool import Pool, Response
from lalp.scoring.run import score
from lalp.scoring.table import load_scores
from lalp.stats import seeded_generator
from lalp.students.encoding import render_prompt
from lalp.students.student import find_student
from lalp.students.thinking import join_as_student

PLAN = read_data("paper/traces/plan.yaml")
CONTROLS = ("cut", "unmarked")
PARTS = (*DATA_SETS, "sweep")
"""The parts of the run: all windows on either data set, and the fractions of Fig. 3."""


def traces_profile() -> Profile:
    """The profile of the run: `cpu`, with this pool, its numbers of problems and its results."""
    return replace(
        load_profile("cpu"),
        pool="traces",
        results="traces",
        num_prompts=sum(PLAN["problems"].values()),
        sweep_prompts=PLAN["sweep_problems"],
        splitters=PLAN["splitters"],
        splitter_prompts=PLAN["sweep_problems"],
    )


def second_profile() -> Profile:
    """The profile of the second student's run."""
    second = PLAN["second"]
    problems = sum(second["problems"].values())
    own = {"student": second["student"], "windows": second["windows"], "num_prompts": problems}
    return replace(traces_profile(), **own)


def count_tokens(profile: Profile, pool: Pool, responses: Sequence[Response]) -> pd.DataFrame:
    """Tokens of some responses of a pool, and whether each fits the student with its prompt.

    A row per response, by its id: ``num_tokens`` (of the response) and ``fits``. Prompt and
    response are tokenized together, as for scoring.
    """
    student = find_student(profile.student)
    tokenizer = student.tokenizer
    asked = {name: render_prompt(tokenizer, prompt) for name, prompt in pool.prompts.items()}
    texts = [asked[r.prompt_id] + join_as_student(tokenizer, r.text) for r in responses]
    alone = {r.prompt_id: asked[r.prompt_id] for r in responses}
    # Not verbose: this code itself asks whether a text exceeds the student's positions.
    whole, prompts = (
        [len(ids) for ids in tokenizer(each, add_special_tokens=False, verbose=False)["input_ids"]]
        for each in (texts, list(alone.values()))
    )
    of_prompt = dict(zip(alone, prompts, strict=True))
    names = pd.Index([r.response_id for r in responses], name="response_id")
    counts = pd.DataFrame({"num_tokens": whole}, index=names)
    counts["fits"] = counts["num_tokens"] <= student.max_positions
    counts["num_tokens"] -= [of_prompt[r.prompt_id] for r in responses]
    return counts


def draw_problems(profile: Profile, pool: Pool, data_set: str) -> list[str]:
    """The problems of a data set that are scored, in the order of the draw.

    The order is seeded and covers all problems that the main teachers solved; those with a trace
    that does not fit are skipped. A smaller number gives the first of the same problems.

    Raises:
        InputError: If there are fewer than planned.
    """
    number, drawn = PLAN["problems"][data_set], []
    for prompt_ids in _in_drawn_order(pool, data_set, number):
        wanted = set(prompt_ids)
        traces = [r for r in pool.responses if r.prompt_id in wanted and r.teacher in MAIN_TEACHERS]
        fits = count_tokens(profile, pool, traces)["fits"]
        drawn += [name for name in prompt_ids if all(fits[f"{name}/{t}"] for t in MAIN_TEACHERS)]
        if len(drawn) >= number:
            return drawn[:number]
    fewer = f"{len(drawn)} problems of {data_set} were solved by all and fit {profile.student}"
    raise InputError(f"{fewer}, {number} are planned: plan fewer, or take a longer student")


def _in_drawn_order(pool: Pool, data_set: str, size: int) -> Iterator[list[str]]:
    """All problems that the main teachers solved, drawn by seed, so many at a time."""
    solved = solved_by(pool, MAIN_TEACHERS, data_set)
    order = seeded_generator(f"traces {data_set}", PLAN["seed"]).permutation(len(solved))
    for start in range(0, len(order), size):
        yield [solved[place] for place in order[start : start + size]]


def part_pool(profile: Profile, pool: Pool, part: str) -> Pool:
    """The problems and responses of one of `PARTS`, all correct and within the student's positions.

    The sweep holds only the main teachers. This function does not count what a part leaves out;
    `problem_table` shows it.
    """
    data_set = part if part in DATA_SETS else DATA_SETS[0]
    drawn = draw_problems(profile, pool, data_set)
    if part == "sweep":
        drawn = drawn[: profile.sweep_prompts]
    kept = [r for r in pool.responses if r.prompt_id in drawn and r.correct]
    if part == "sweep":
        kept = [r for r in kept if r.teacher in MAIN_TEACHERS]
    fits = count_tokens(profile, pool, kept)["fits"]
    prompts = {name: prompt for name, prompt in pool.prompts.items() if name in drawn}
    return Pool(prompts, tuple(r for r in kept if fits[r.response_id]))


def token_scores(profile: Profile, pool: Pool, part: str) -> pd.DataFrame:
    """Scores of a part's pool and of every token, from the store or computed."""
    windows = profile.sweep_windows if part == "sweep" else profile.windows
    how = {"splitter": profile.splitter, "with_tokens": part != "sweep"}
    return score(pool, profile.student, windows, **how)


def traces_scores(profile: Profile, pool: Pool, part: str) -> pd.DataFrame:
    """Scores of a part without tokens: the committed ones, or computed ones.

    One table holds main teachers and controls; a comparison takes those that it needs.
    """

    def compute(some: Pool) -> pd.DataFrame:
        scores = token_scores(profile, some, part)
        tokens = [name for name in scores if name.startswith("token_") or name.endswith(":tokens")]
        return scores.drop(columns=tokens)

    return scores_of(profile, part, part_pool(profile, pool, part), compute)


def control_scores(profile: Profile, pool: Pool, part: str, control: str) -> pd.DataFrame:
    """Scores of a part's tokens under a control of `lalp.paper.traces.controls`: cut or unmarked.

    They are committed beside the part's, and computed from its tokens.
    """
    scored = part_pool(profile, pool, part)

    def compute(some: Pool) -> pd.DataFrame:
        scores = token_scores(profile, some, part)
        if control == "cut":
            return cut_scores(scores)
        return unmarked_scores(scores, {r.response_id: r.text for r in some.responses})

    return scores_of(profile, f"{part}_{control}", scored, compute)


def second_scores(profile: Profile, pool: Pool) -> pd.DataFrame:
    """GALP and the main window under the second student, on the problems that the plan gives it.

    They are the first of those that the first student scored, and all fit this student too.
    """
    first, wanted = traces_profile(), PLAN["second"]["problems"]
    drawn = [n for d in DATA_SETS for n in draw_problems(first, pool, d)[: wanted[d]]]
    kept = [r for r in pool.responses if r.prompt_id in drawn and r.teacher in MAIN_TEACHERS]
    few = Pool({name: pool.prompts[name] for name in drawn}, tuple(kept))

    def compute(some: Pool) -> pd.DataFrame:
        how = {"splitter": profile.splitter, "dtype": PLAN["second"]["dtype"]}
        return score(some, scoring_student(profile), profile.windows, **how)

    return scores_of(profile, "second", few, compute)


def committed_scores(part: str) -> pd.DataFrame:
    """A part's committed scores if the traces themselves are missing; nothing is checked.

    ``part`` may be a control's: ``gsm8k_cut``.

    Raises:
        InputError: If they were not computed yet.
    """
    return load_scores(root_dir() / "figures" / "traces" / f"{part}.parquet")


def recheck_traces(profile: Profile, part: str, seed: int) -> str:
    """Score three committed responses of a part again if the traces are there, and report it.

    InputError if a score is off by more than 1e-4 nats.
    """
    if not os.environ.get("TRACES"):
        return "TRACES names no folder: no response was scored again"
    scored = part_pool(profile, load_traces(), part)
    checked = recheck(profile, scored, committed_scores(part), profile.windows, seed=seed)
    largest = checked["largest"].max()
    return f"{len(checked)} responses scored again: largest difference {largest:.0e} nats"


def problem_table(profile: Profile, pool: Pool) -> pd.DataFrame:
    """Every response of the main teachers: its length, and whether its problem is scored.

    A row per problem and teacher: ``data_set``, ``prompt_id``, ``teacher``, ``correct``,
    ``num_tokens``, ``fits`` (prompt and response fit the student), ``all_solved`` and ``all_fit``
    (of the four), and ``drawn``: the problem's place in its draw, from 1 on, or 0 if it is not
    scored.
    """
    traces = [r for r in pool.responses if r.teacher in MAIN_TEACHERS]
    rows = [(r.extra["data_set"], r.prompt_id, r.teacher, r.correct is True) for r in traces]
    table = pd.DataFrame(rows, columns=["data_set", "prompt_id", "teacher", "correct"])
    counts = count_tokens(profile, pool, traces)
    for name in ("num_tokens", "fits"):
        table[name] = counts[name].to_numpy()
    by_problem = table.groupby("prompt_id")
    is_whole = by_problem["teacher"].transform("size") == len(MAIN_TEACHERS)
    for name, column in (("all_solved", "correct"), ("all_fit", "fits")):
        table[name] = by_problem[column].transform("all") & is_whole
    places = {
        name: place
        for data_set in DATA_SETS
        for place, name in enumerate(draw_problems(profile, pool, data_set), 1)
    }
    table["drawn"] = table["prompt_id"].map(places).fillna(0).astype(int)
    return table
