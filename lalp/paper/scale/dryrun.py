"""A small version of the plan: every stage, on toy problems, with tiny models, in minutes.

`shrink` changes a plan's settings and nothing else: a dry run takes the same rules and the same
command lines as the real one. ``toys.yaml`` holds its data, words and settings. Teachers must
solve problems, or there would be nothing to select from: each is trained for seconds on answers to
the toy prompts, in words of its own, until it gives them. Students have random weights. The first
model that is only evaluated is taught the toy benchmarks, and must solve all of them: if it does
not, they are read or graded wrongly.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lalp.cli.printing import say
from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS, load_benchmark
from lalp.evaluation.evaluate import load_results
from lalp.files import digest, fingerprint, read_data
from lalp.paper.scale.forks import forking
from lalp.paper.scale.plan import EVALUATED_ONLY, TEACHERS, Arm, Plan, load_plan
from lalp.paper.scale.sources import load_source
from lalp.paper.scale.stages import Stages, arm_file
from lalp.paper.scale.workflow import Stage, run_stages
from lalp.paper.tiny import make_model, make_tokenizer, teach
from lalp.pools.pool import Prompt
from lalp.sampling.samples import SYSTEM_PROMPT, with_system_prompt

_TOYS = read_data("paper/scale/toys.yaml")
_PROMPTS = _TOYS["prompts"]


def dry_run(
    profile: str,
    root: str | Path,
    *words: str,
    on_done: Callable[[Stage, float], object] = lambda stage, seconds: None,
) -> list[Stage]:
    """Run every stage of a plan in small; a second run goes on where one stopped.

    The folder ``root`` is emptied when the code or the plan has changed. ``words`` are further
    options of Snakemake. Returns the stages that ran.
    """
    small = shrink(load_plan(profile))
    make_toys(small, root)
    with forking(Path(root) / "toys/programs"):
        stages = run_stages(f"{root}/toys/plan.yaml", root, *words, toys="toys", on_done=on_done)
    name = EVALUATED_ONLY[0]
    path = Path(root, arm_file("results", Arm(name)))
    wrong = load_results(path).query("not correct") if path.exists() else ()
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"dry run: {name} was taught the answer {row['answer']!r} to {row['prompt_id']}, which "
            f"was graded {row['outcome']} (read: {row['extracted']!r})"
        )
    return stages


def shrink(plan: Plan) -> Plan:
    """The same plan with toy data, tiny models and two CPU processes for training."""
    recipes = ("recipe", "large_recipe", "short_recipe")
    changes = {"seeds": plan.seeds[:1], "backend": "transformers", "gpus": 2}
    changes |= {f"{pool}_prompts": count for pool, count in _PROMPTS.items()}
    changes |= dict.fromkeys(recipes, "toys/recipe.yaml")
    changes |= dict.fromkeys(("accelerate", "big_accelerate"), "toys/two_processes.yaml")
    return replace(plan, **changes)


def models_needed(stages: Stages) -> tuple[list[str], list[str]]:
    """Names of the models that sample, and of all others that run."""
    plan, arms = stages.plan, [arm for arm, _ in stages.arms.values()]
    pairs = [
        (pool, each) for pool in {a.pool: 0 for a in arms if a.pool} for each in TEACHERS[pool]
    ]
    sampled = [name for pool, name in pairs if "published" not in stages.presets(pool, name)]
    teachers = dict.fromkeys(plan.model(name).name for name in sampled)
    students = dict.fromkeys(plan.model(arm.student).name for arm in arms)
    return list(teachers), [name for name in students if name not in teachers]


def make_toys(plan: Plan, root: str | Path) -> None:
    """Write the toy data and models, once; another version of the code or plan begins anew.

    Nothing else may be in ``root``. The plan is one of `shrink`.
    """
    toys = Path(root) / "toys"
    mark, (teachers, students) = toys / "made", models_needed(Stages(plan))
    # Of the whole package: after any change of the code, a dry run must try everything again.
    made_by = digest([fingerprint("."), _TOYS, asdict(plan)])
    if mark.is_file() and mark.read_text() == made_by:
        return
    shutil.rmtree(root, ignore_errors=True)
    data = toys / "data"
    data.mkdir(parents=True)
    (toys / "plan.yaml").write_text(yaml.safe_dump(asdict(plan)), encoding="utf-8")
    for name, records in _TOYS["data"].items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (data / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name in ("recipe", "two_processes"):
        (toys / f"{name}.yaml").write_text(yaml.safe_dump(_TOYS[name]), encoding="utf-8")
    lessons = {name: _lessons(number, data) for number, name in enumerate(teachers)}
    if (name := EVALUATED_ONLY[0]) in students:
        students.remove(name)
        lessons[name] = _benchmark_lessons(data)
    texts = [SYSTEM_PROMPT, *chain(*_TOYS["styles"]), *_TOYS["code_styles"], *_TOYS["questions"]]
    tokenizer = make_tokenizer(texts)
    for number, (name, taught) in enumerate(lessons.items()):
        model = make_model(name, 100 + number, 64)
        steps = teach(model, tokenizer, taught)
        _save(toys / "models" / name, model, tokenizer)
        who, what = ("teacher", "prompts") if name in teachers else ("model", "benchmarks")
        say(f"tiny {who} in the place of {name}: answers the toy {what} after {steps} steps")
    for number, name in enumerate(students):
        _save(toys / "models" / name, make_model(name, number, 32), tokenizer)
    say(f"tiny students with random weights in the place of {', '.join(students)}")
    mark.write_text(made_by)


def _save(folder: Path, *parts: PreTrainedModel | PreTrainedTokenizerFast) -> None:
    for part in parts:
        part.save_pretrained(folder)


def _lessons(number: int, data: Path) -> list[tuple[Prompt, str]]:
    """The lessons of a teacher: answers to the toy prompts in its own words.

    The second teacher does not learn the last LIMO prompt, so that one prompt stays unsolved.
    """
    first, second = _TOYS["styles"][number % 3]
    limo = load_source("limo", _PROMPTS["limo"], data)
    limo = limo[:-1] if number == 1 else limo
    lessons = [(prompt, first.format(prompt.answer)) for prompt in limo]
    for prompt in load_source("math", _PROMPTS["math"], data):
        lessons += [(prompt, style.format(prompt.answer)) for style in (first, second)]
    for prompt in load_source("code", _PROMPTS["code"], data):
        value = "".join(c for c in prompt.messages[-1].content if c.isdigit())
        lessons.append((prompt, _TOYS["code_styles"][number % 3].format(value)))
    return lessons


def _benchmark_lessons(data: Path) -> list[tuple[Prompt, str]]:
    """The toy benchmarks with their answers, except for programs."""
    names = [name for name, benchmark in BENCHMARKS.items() if benchmark.grader != "code"]
    prompts = [p for name in names for p in load_benchmark(name, data, allow_count=True)]
    return [(with_system_prompt(p, SYSTEM_PROMPT), f"\\boxed{{{p.answer}}}.") for p in prompts]
