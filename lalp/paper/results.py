"""Compute all committed results of a name again: `make results NAME=champ`.

A killed run continues where it stopped. Numbers are written to ``figures/NAME/`` with their origin
in ``provenance.json``; notebooks read them and check a sample live.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import pandas as pd
from typer import Option

from lalp.cli.options import run_main
from lalp.errors import InputError, did_you_mean
from lalp.files import fingerprint, write_json, write_text
from lalp.paper import root_dir
from lalp.paper.champ.champ import pick_candidates
from lalp.paper.champ.pool import profile_pool, profile_scores, verified_scores
from lalp.paper.conditioning.tokens import shuffled_tokens
from lalp.paper.coverage.results import save_coverage
from lalp.paper.profiles import Profile, load_profile
from lalp.paper.provenance import commit, describe_run
from lalp.paper.scores import keeping
from lalp.paper.selection.precision import bfloat16_scores
from lalp.paper.selection.splitters import scores_under, splitter_scores
from lalp.paper.traces import load_traces
from lalp.paper.traces.coverage import coverage_tables
from lalp.paper.traces.plan import (
    CONTROLS,
    control_scores,
    part_pool,
    problem_table,
    second_profile,
    second_scores,
    token_scores,
    traces_profile,
    traces_scores,
)
from lalp.paper.traces.pool import DATA_SETS
from lalp.paper.traces.tokens import token_tables
from lalp.pools.pool import Pool
from lalp.steps.splitters import split_pool
from lalp.students.student import find_student, load_tokenizer

_PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
# The packages of `lalp` whose code decides the numbers, besides the pool's own.
_CODE = ("scoring", "steps", "students", "grading")


def champ_scores(profile: Profile) -> None:
    """All windows, and every token, of the prompts that all teachers solved."""
    profile_scores(profile, profile_pool(profile)[0])


def champ_sweep(profile: Profile) -> None:
    """The windows of Fig. 3."""
    profile_scores(profile, profile_pool(profile)[0], sweep=True)


def champ_shuffled(profile: Profile) -> None:
    """Responses with their steps shuffled, one of each prompt."""
    pool, _ = profile_pool(profile)
    shuffled_tokens(profile, pool, profile_scores(profile, pool))


def champ_splitters(profile: Profile) -> None:
    """Other steps of the same responses."""
    pool, _ = profile_pool(profile)
    splitter_scores(profile, pool, profile_scores(profile, pool))


def champ_bfloat16(profile: Profile) -> None:
    """The main window again in bfloat16, to compare with float32."""
    bfloat16_scores(profile, profile_pool(profile)[0])


def champ_coverage(profile: Profile) -> None:
    """Nearest neighbours of all texts that 01 compares."""
    chosen = pick_candidates(profile_pool(profile)[0], profile.coverage_prompts, 1)
    save_coverage(profile, chosen, 0)


def champ_pairs(profile: Profile) -> None:
    """One response of every teacher to every prompt that two teachers solved."""
    verified_scores(profile, profile_pool(profile)[0], "pairs")


def champ_all(profile: Profile) -> None:
    """Every verified response, under GALP and the main window."""
    verified_scores(profile, profile_pool(profile)[0], "all")


def traces_problems(profile: Profile) -> None:
    """Lengths of the main teachers' traces, and the scored problems: no scores."""
    table = problem_table(profile, load_traces())
    path = root_dir() / "figures" / profile.results / "problems.csv"
    write_text(path, table.to_csv(index=False))


def traces_gsm8k(profile: Profile) -> None:
    """All windows on the problems of GSM8K, and the controls on the same tokens."""
    _score_traces(profile, "gsm8k")


def traces_math(profile: Profile) -> None:
    """All windows on the problems of MATH, and the controls on the same tokens."""
    _score_traces(profile, "math")


def traces_sweep(profile: Profile) -> None:
    """The fractions of Fig. 3 on some problems of GSM8K."""
    traces_scores(profile, load_traces(), "sweep")


def second_student(profile: Profile) -> None:
    """Some of the long traces under a student of another size and family."""
    second_scores(profile, load_traces())


def traces_tokens(profile: Profile) -> None:
    """Tables of all measures of single tokens, from the same scores."""
    pool = load_traces()
    parts = {name: part_pool(profile, pool, name) for name in DATA_SETS}
    scores = {name: token_scores(profile, own, name) for name, own in parts.items()}
    _write_tables(profile, token_tables(profile, pool, scores))


def traces_coverage(profile: Profile) -> None:
    """Nearest neighbours of the problems' traces, of their steps, and of chunks."""
    pool = load_traces()
    parts = [part_pool(profile, pool, name) for name in DATA_SETS]
    prompts = {name: prompt for part in parts for name, prompt in part.prompts.items()}
    whole = Pool(prompts, tuple(response for part in parts for response in part.responses))
    _write_tables(profile, coverage_tables(profile, whole))


def traces_splitter(profile: Profile) -> None:
    """Other steps under the main window, on the problems of the sweep."""
    few = part_pool(profile, load_traces(), "sweep")
    tokenizer = load_tokenizer(profile.student)
    for splitter in profile.splitters:
        steps = split_pool(few, splitter, tokenizer=tokenizer, embedder=profile.embedder)
        scores_under(profile, few, splitter, steps, [profile.main_window])


def _write_tables(profile: Profile, tables: Mapping[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        path = root_dir() / "figures" / profile.results / f"{name}.csv"
        write_text(path, table.to_csv(index=False, float_format="%.8g"))


def _score_traces(profile: Profile, part: str) -> None:
    pool = load_traces()
    traces_scores(profile, pool, part)
    for control in CONTROLS:
        control_scores(profile, pool, part, control)


# The function that computes each folder of results.
PROFILES: Mapping[str, Callable[[], Profile]] = {
    "champ": lambda: load_profile("cpu"),
    "traces": traces_profile,
    "second": second_profile,
}
PARTS: Mapping[str, Mapping[str, Callable[[Profile], None]]] = {
    "champ": {
        "scores": champ_scores,
        "sweep": champ_sweep,
        "shuffled": champ_shuffled,
        "splitter": champ_splitters,
        "bfloat16": champ_bfloat16,
        "coverage": champ_coverage,
        "pairs": champ_pairs,
        "all": champ_all,
    },
    "traces": {
        "problems": traces_problems,
        "gsm8k": traces_gsm8k,
        "math": traces_math,
        "tokens": traces_tokens,
        "coverage": traces_coverage,
        "splitter": traces_splitter,
        "sweep": traces_sweep,
    },
    "second": {"second": second_student},
}


def main(
    name: Annotated[str, Option(help=f"One of {', '.join(PARTS)}.")] = "champ",
    part: Annotated[str | None, Option(help="One part alone.")] = None,
    add: Annotated[bool, Option("--add", help="Only prompts that are not committed yet.")] = False,
    student: Annotated[
        str, Option(help="Folder or GGUF file of the profile's student, if not where it is named.")
    ] = "",
) -> None:
    """Compute one folder of results, or one part of it, and write its origin.

    A part is written after every few prompts. With ``--add`` the committed ones stay. After Ctrl-C
    a part stays as far as it got, with its origin, and ``--add`` goes on with it.
    """
    if name not in PARTS:
        raise InputError(f"no results are called {name!r}: {did_you_mean(name, list(PARTS))}")
    if part is not None and part not in PARTS[name]:
        raise InputError(f"{name} has no part {part!r}: {did_you_mean(part, list(PARTS[name]))}")
    profile = PROFILES[name]()
    path = root_dir() / "figures" / profile.results / "provenance.json"
    made = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for each in [part] if part else PARTS[name]:
        before = [made[each]] if add and each in made else []
        made[each] = _compute_part(profile, name, each, add, student)
        made[each] |= {"added_to": before} if before else {}
        write_json(path, made)
        if made[each].get("unfinished"):
            raise KeyboardInterrupt
        print(f"{name}: {each} written")


def _compute_part(
    profile: Profile, name: str, part: str, add: bool, student: str
) -> dict[str, Any]:
    """Compute a part and return its origin, which says ``unfinished`` after Ctrl-C."""
    started, at = time.monotonic(), commit()
    own = (f"paper.{profile.results}", *(["paper.coverage"] if part == "coverage" else []))
    code = {package: fingerprint(package) for package in (*_CODE, *own)}
    stopped = {}
    try:
        with keeping(part, adds=add, student=student):
            PARTS[name][part](profile)
    except KeyboardInterrupt:
        stopped = {"unfinished": True}
    found = find_student(student or profile.student)
    origin = {"profile": asdict(profile), "student": found.revision, "code": code}
    origin |= {"device": found.device_name}
    hours = (time.monotonic() - started) / 3600
    return origin | describe_run(hours, _PACKAGES) | {"commit": at} | stopped


if __name__ == "__main__":
    run_main(main)
