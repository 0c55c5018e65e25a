"""A small version of the plan: every stage, on toy problems, with tiny models, in minutes.

`shrink` changes only a plan's settings: a dry run uses the rules and the command lines of the real
run. ``toys.yaml`` holds its data, words and settings. Teachers must solve problems, or there would
be nothing to select from. So each is trained for seconds on answers to the toy prompts, in its own
words. Students have random weights. The first model that is only evaluated is taught the toy
benchmarks and must solve all of them: if it does not, they are read or graded wrongly.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import torch
import yaml

from lalp.cli.printing import say
from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS, load_benchmark
from lalp.evaluation.evaluate import load_results
from lalp.files import digest, fingerprint, read_data, write_text
from lalp.paper.scale.forks import forking
from lalp.paper.scale.plan import EVALUATED_ONLY, TEACHERS, Arm
from lalp.paper.scale.sources import load_source
from lalp.paper.scale.stages import Stages, arm_file, make_stages, open_workflow
from lalp.paper.tiny import make_model, make_tokenizer
from lalp.pools.pool import Prompt, Response
from lalp.sampling.samples import SYSTEM_PROMPT, with_system_prompt
from lalp.training.recipes import load_recipe
from lalp.training.trainer import train

_TOYS = read_data("paper/scale/toys.yaml")


def dry_run(profile: str, root: str | Path) -> None:
    """Run a small version of every stage of a plan; a second run continues where one stopped.

    The folder ``root`` is emptied when the code or the plan has changed.
    """
    # For tiny models, waiting threads cost more time than the computation.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    # Before anything is trained: torch cannot train in forks of a process that has.
    with forking():
        make_toys(make_stages(profile, "toys"), Path(root))
        open_workflow(profile, root, "toys").run()
    name = EVALUATED_ONLY[0]
    path = Path(root, arm_file("results", Arm(name)))
    for row in load_results(path).query("not correct").itertuples() if path.exists() else ():
        raise InputError(
            f"dry run: {name} was taught the answer {row.answer!r} to {row.prompt_id}, which was "
            f"graded {row.outcome} (read: {row.extracted!r})"
        )


def models_needed(stages: Stages) -> tuple[list[str], list[str]]:
    """Names of the models that sample, and of all other models that run."""
    arms = [need.arm for need in stages.needs.values()]
    teachers = {
        stages.plan.model(teacher).name: None
        for pool in dict.fromkeys(arm.pool for arm in arms if arm.pool)
        for teacher in TEACHERS[pool]
        if "published" not in stages.presets(pool, teacher)
    }
    students = dict.fromkeys(stages.plan.model(arm.student).name for arm in arms)
    return list(teachers), [name for name in students if name not in teachers]


def make_toys(stages: Stages, root: Path) -> None:
    """Write the toy data and models once; another version of the code or plan starts over.

    Nothing else may be in ``root``.
    """
    # Over the whole package: after any change of the code, a dry run must try everything again.
    made, made_by = root / "toys/made", digest([fingerprint("."), _TOYS, asdict(stages.plan)])
    if made.is_file() and made.read_text() == made_by:
        return
    shutil.rmtree(root, ignore_errors=True)
    for name, records in _TOYS["data"].items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_text(root / f"toys/data/{name}.jsonl", lines)
    write_text(root / "toys/two_processes.yaml", yaml.safe_dump(_TOYS["two_processes"]))
    teachers, students = models_needed(stages)
    lessons = {name: _lessons(n, root / "toys/data") for n, name in enumerate(teachers)}
    if (name := EVALUATED_ONLY[0]) in students:
        lessons[name] = _benchmark_lessons(root / "toys/data")
    texts = [SYSTEM_PROMPT, *chain(*_TOYS["styles"]), *_TOYS["code_styles"], *_TOYS["questions"]]
    tokenizer = make_tokenizer(texts)
    for number, name in enumerate([*teachers, *students]):
        model = make_model(name, number, 64 if name in lessons else 32)
        folder = root / ("toys/untaught" if name in lessons else "toys/models") / name
        for part in (model, tokenizer):
            part.save_pretrained(folder)
        if name in lessons:
            _teach(folder, lessons[name], root / "toys/models" / name)
    write_text(made, made_by)


def _teach(untaught: Path, lessons: list[tuple[Prompt, str]], taught: Path) -> None:
    """Train a tiny model until it repeats its lessons."""
    pairs = [
        (prompt, Response(str(number), prompt.prompt_id, "", answer))
        for number, (prompt, answer) in enumerate(lessons)
    ]
    recipe = replace(load_recipe("paper", batch_size=len(pairs)), **_TOYS["lessons"])
    log = train(pairs, str(untaught), taught, recipe, device="cpu", progress=False)
    # A token that is barely the likeliest may not be after rounding.
    if (loss := log["loss"].iloc[-1]) > _TOYS["learned"]:
        raise InputError(f"dry run: {taught.name} did not learn its answers (loss {loss:.3f})")
    say(f"tiny model in the place of {taught.name}: learned {len(lessons)} answers")


def _lessons(number: int, data: Path) -> list[tuple[Prompt, str]]:
    """The lessons of a teacher: answers to the toy prompts in its own words.

    The second teacher does not learn the last LIMO prompt, so that one prompt stays unsolved.
    """
    first, second = _TOYS["styles"][number % 3]
    limo, math, code = (load_source(pool, n, data) for pool, n in _TOYS["prompts"].items())
    lessons = [(prompt, first.format(prompt.answer)) for prompt in limo]
    lessons = lessons[:-1] if number == 1 else lessons
    for prompt in math:
        lessons += [(prompt, style.format(prompt.answer)) for style in (first, second)]
    for prompt in code:
        value = "".join(c for c in prompt.messages[-1].content if c.isdigit())
        lessons.append((prompt, _TOYS["code_styles"][number % 3].format(value)))
    return lessons


def _benchmark_lessons(data: Path) -> list[tuple[Prompt, str]]:
    """The toy benchmarks with their answers, except for programs."""
    names = [name for name, benchmark in BENCHMARKS.items() if benchmark.grader != "code"]
    prompts = [p for name in names for p in load_benchmark(name, data, allow_count=True)]
    return [(with_system_prompt(p, SYSTEM_PROMPT), f"\\boxed{{{p.answer}}}.") for p in prompts]
