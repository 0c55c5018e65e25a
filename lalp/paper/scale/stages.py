"""The files and options of every stage, as the rules of the ``Snakefile`` take them from a plan.

A stage is a rule with values for its wildcards. Snakemake finds out which stages a plan needs and
in which order they run. File names hold the paper's names of models, even if another model stands
in; inside the files, teachers are named after the models that ran.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lalp.errors import InputError
from lalp.files import PACKAGE, not_found, read_data
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Need, Plan, load_plan, plan_needs
from lalp.paper.workflow import Workflow

# Presets and samples per prompt; the second takes the prompts that the first did not solve. LIMO:
# one greedy answer, and 16 more if that was wrong (Table 5).
_PRESETS = {
    "limo": {"table5-greedy": 1, "table5-sampled": 16},
    "math": {"c9-sampled": 16},
    "code": {"table5-greedy": 1},
}


# --- where results are: also read by lalp.paper.scale.tables --------------------------------------


def arm_group(arm: Arm) -> str:
    """Names the responses that are scored together: a pool, or one teacher's in it."""
    return f"{arm.pool}_{arm.teacher}" if arm.pool == "math" else arm.pool


def group_teachers(group: str) -> tuple[str, tuple[str, ...]]:
    """Pool and teachers of a group of responses; thirds need only one teacher's."""
    pool, _, teacher = group.partition("_")
    return pool, (teacher,) if teacher else TEACHERS[pool]


def arm_file(name: str, arm: Arm, decoding: str = "greedy") -> str:
    """Path of an arm's file in a run's folder: scores, selected, mix or results."""
    return {
        "scores": f"scores/{arm_group(arm)}_{arm.student}.parquet",
        "selected": f"selected/{arm.choice}.jsonl",
        "mix": f"selected/{arm.choice}.json",  # what `lalp select --json` says of it
        "results": f"results/{arm.name}_{decoding}.parquet",
    }[name]


def arm_parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm combines."""
    teachers = TEACHERS[arm.pool] if arm.rule == "all" else ()
    return tuple(replace(arm, rule="random", teacher=teacher) for teacher in teachers)


# --- what the rules ask ---------------------------------------------------------------------------


def open_workflow(profile: str, root: str | Path, toys: str = "") -> Workflow:
    """The workflow of a profile's plan; ``toys`` as in `make_stages`."""
    # Snakemake reads a plan's file in the run's folder.
    plan = str(Path(profile).absolute()) if profile.endswith(".yaml") else profile
    config = {"profile": plan, "toys": toys}
    return Workflow("scale/Snakefile", Path(root), config, load_plan(profile).gpus)


def make_stages(profile: str, toys: str = "") -> Stages:
    """The stages of a profile's plan; of the shrunk one if ``toys`` is given."""
    plan = load_plan(profile)
    return Stages(shrink(plan), toys) if toys else Stages(plan)


def shrink(plan: Plan) -> Plan:
    """The same plan with toy data, tiny models and two CPU processes for training."""
    toys = read_data("paper/scale/toys.yaml")
    changes = {"seeds": plan.seeds[:1], "backend": "transformers", "gpus": 2}
    changes |= {f"{pool}_prompts": count for pool, count in toys["prompts"].items()}
    changes |= dict.fromkeys(("accelerate", "big_accelerate"), "toys/two_processes.yaml")
    return replace(plan, **changes)


@dataclass(frozen=True)
class Stages:
    """The stages of a plan; ``toys`` is the folder of a dry run's data and models."""

    plan: Plan
    toys: str = ""

    @cached_property
    def needs(self) -> dict[str, Need]:
        """Every arm and its uses, by its name in files."""
        return {need.arm.name: need for need in plan_needs(self.plan)}

    @cached_property
    def choices(self) -> dict[str, Arm]:
        """An arm for every choice of training data, by its name in files."""
        arms = [need.arm for need in self.needs.values() if need.arm.pool]
        # From the end: of the seeds that share a choice, the first makes it, also if more join.
        return {arm.choice: arm for whole in reversed(arms) for arm in (whole, *arm_parts(whole))}

    def results(self) -> dict[str, tuple[str, ...]]:
        """Files that the tables read or people want, and the tables that need each."""
        found: dict[str, tuple[str, ...]] = {}
        for need in self.needs.values():
            arm = need.arm
            files = [arm_file("results", arm, decoding) for decoding in need.columns]
            files += [arm_file(name, arm) for name in ("scores", "selected") if arm.pool]
            files += [f"teachers/limo_{arm.student}.json"] if arm.pool == "limo" else []
            for file in files:
                found[file] = tuple(dict.fromkeys([*found.get(file, ()), *need.tables]))
        return found

    # --- models and data

    def data(self) -> tuple[str, ...]:
        """Options of commands that read data sets."""
        return ("--data", f"{self.toys}/data") if self.toys else ()

    def model(self, name: str) -> str:
        """The place from which the model that runs for ``name`` is loaded."""
        facts = self.plan.model(name)
        return f"{self.toys}/models/{facts.name}" if self.toys else facts.hub_id

    def _more(self, *names: str) -> tuple[str, ...]:
        """Further options of a dry run by command or preset; they come last, so they win."""
        options = read_data("paper/scale/toys.yaml")["options"] if self.toys else {}
        return tuple(word for name in names for word in options.get(name, ()))

    def _served(self, name: str) -> tuple[str, ...]:
        """Options of a model that answers: backend, and the GPUs that share it."""
        plan, backend = self.plan, ("--backend", self.plan.backend)
        if plan.backend != "vllm":
            return backend
        small = plan.model(name).fits(plan.gpu, plan.gpus)
        return (*backend, "--tensor-parallel", str(plan.gpus if small else plan.big_gpus))

    # --- prompts, samples, pools, steps

    def presets(self, pool: str, teacher: str) -> dict[str, int]:
        """Samples per prompt by preset."""
        published = pool == "limo" and teacher in self.plan.published
        return {"published": 1} if published else _PRESETS[pool]

    def asked(self, wildcards: Any) -> str:
        """The prompts that a preset is given: all, or those that the previous one left unsolved."""
        pool, teacher = wildcards.pool, wildcards.teacher
        first = wildcards.preset == next(iter(self.presets(pool, teacher)))
        return f"prompts/{pool}.jsonl" if first else f"prompts/{pool}_{teacher}_unsolved.jsonl"

    def sampling(self, pool: str, teacher: str, preset: str) -> tuple[str, ...]:
        """Options of `lalp sample`."""
        words = ("--model", self.model(teacher), "--teacher", self.plan.model(teacher).name)
        # Mathematics prompts hold their system message; programming prompts have none.
        words += ("--system=",) if pool == "code" else ()
        words += ("--preset", preset, *self._served(teacher), "--seed", "0")
        return words + self._more("sample", preset)

    def samples(self, group: str) -> list[str]:
        """Files of a group's samples."""
        pool, teachers = group_teachers(group)
        return [
            f"samples/{pool}_{teacher}_{preset}.jsonl"
            for teacher in teachers
            for preset in self.presets(pool, teacher)
        ]

    def kept(self, group: str) -> tuple[str, ...]:
        """Options that say which responses are merged."""
        pool, teachers = group_teachers(group)
        # Answers to programming prompts are not verified, because the prompts come without tests.
        kept = () if pool == "code" else ("--only-correct",)
        if len(teachers) > 1:
            # So every arm is trained on the same prompts, and no teacher has more than one try.
            kept += ("--per-teacher", "1", "--min-teachers", str(self.plan.min_teachers))
        return kept

    def splitter(self) -> tuple[str, ...]:
        """Options that say how responses are cut into steps."""
        plan = self.plan
        server = ("--llm-url", plan.llm_url, "--llm-model", plan.llm_model)
        return ("--splitter", plan.splitter, *(server if plan.splitter == "llm" else ()))

    # --- scores, choices

    def windows(self, group: str, student: str) -> tuple[str, ...]:
        """Windows that a student's scores of a group have."""
        plan, (pool, _) = self.plan, group_teachers(group)
        if pool == "math":
            # Thirds use GALP alone, and a score table needs a window: take the cheapest.
            return ("0",)
        sweep = plan.sweep_windows if pool == "limo" and student == plan.window_student else ()
        return tuple(dict.fromkeys([plan.main_window, *sweep]))

    def scoring(self, group: str, student: str) -> tuple[str, ...]:
        """Options of `lalp score`."""
        windows = [w for each in self.windows(group, student) for w in ("--window", each)]
        return ("--student", self.model(student), *windows, *self._more("score"))

    def chosen_from(self, choice: str) -> list[str]:
        """Files that a choice is made from: scores, or other choices."""
        arm = self.choices[choice]
        parts = [arm_file("selected", part) for part in arm_parts(arm)]
        return parts or [arm_file("scores", arm)]

    def selection(self, choice: str) -> tuple[str, ...]:
        """Options of `lalp select`."""
        plan, arm = self.plan, self.choices[choice]
        rule = ("random", "--like", "lalp") if arm.rule == "control" else (arm.rule,)
        window = ("--window", arm.window or plan.main_window) if "lalp" in " ".join(rule) else ()
        teacher = ("--teacher", plan.teacher_name(arm.pool, arm.teacher)) if arm.teacher else ()
        # A response longer than the student's positions has no score, and is not trained on.
        return ("--rule", *rule, *window, *teacher, "--skip-unscored", "--seed", str(arm.seed))

    # --- training and evaluation

    def launcher(self, name: str) -> tuple[str, ...]:
        """Words before ``train``: one process, or several by accelerate."""
        plan, model = self.plan, self.plan.model(self.needs[name].arm.student)
        small = model.trains_on(plan.gpu, plan.gpus)
        if small and plan.gpus == 1:
            return ("lalp",)
        config = plan.accelerate if small else plan.big_accelerate
        if not config.endswith(".yaml"):
            path = PACKAGE / f"training/accelerate/{config}.yaml"
            if not path.is_file():
                raise InputError(f"plan: accelerate: {path}: {not_found(path)}")
            # Relative, so that a checkout that moves changes no command.
            config = os.path.relpath(path)
        words = ("accelerate", "launch", "--config_file", config)
        return (*words, "--num_processes", str(plan.gpus), "-m", "lalp.cli")

    def training(self, name: str) -> tuple[str, ...]:
        """Options of `lalp train`."""
        arm = self.needs[name].arm
        words = ("--student", self.model(arm.student), "--seed", str(arm.seed))
        return (*words, "--recipe", self.plan.recipe_of(arm), *self._more("train"))

    def evaluated(self, name: str) -> list[str]:
        """The folder of a trained student; none for an original one."""
        return [f"models/{name}"] if self.needs[name].arm.pool else []

    def evaluation(self, name: str, decoding: str) -> tuple[str, ...]:
        """Options of `lalp eval`."""
        need, preset = self.needs[name], f"table7-{decoding}"
        (model,) = self.evaluated(name) or [self.model(need.arm.student)]
        benchmarks = [w for each in need.columns[decoding] for w in ("--benchmark", COLUMNS[each])]
        words = ("--model", model, *benchmarks, *self.data(), "--preset", preset)
        words += (*self._served(need.arm.student), "--seed", str(need.arm.seed))
        return words + self._more("eval", preset)
