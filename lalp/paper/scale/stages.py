"""What the rules of the ``Snakefile`` take from a plan: files and options of every stage.

A stage is a rule with values for its wildcards. Which stages a plan needs, and in which order they
run, is Snakemake's to find out. File names hold the paper's names of models, even where another
model stands in; inside the files, teachers are named after the models that ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lalp.files import read_data
from lalp.paper.scale.plan import COLUMNS, TEACHERS, Arm, Need, Plan, accelerate_file, plan_needs

# How rules are listed; those of one place take turns.
ORDER = ("prompts", "published sample unsolved", "merge", "segment", "score", "teachers")
ORDER += ("select put_together", "train", "eval", "tables")

# Presets and samples per prompt; the second takes the prompts that the first did not solve. LIMO:
# one greedy answer, 16 more where that was wrong (Table 5).
_PRESETS = {
    "limo": {"table5-greedy": 1, "table5-sampled": 16},
    "math": {"c9-sampled": 16},
    "code": {"table5-greedy": 1},
}


# --- where results lie: also read by lalp.paper.scale.tables -------------------------------------


def arm_group(arm: Arm) -> str:
    """Names the responses that are scored together: a pool, or one teacher's in it."""
    return f"{arm.pool}_{arm.teacher}" if arm.pool == "math" else arm.pool


def group_teachers(group: str) -> tuple[str, tuple[str, ...]]:
    """Pool and teachers of a group of responses: thirds need one teacher's only."""
    pool, _, teacher = group.partition("_")
    return pool, (teacher,) if teacher else TEACHERS[pool]


def arm_file(name: str, arm: Arm, seed: int = 0, decoding: str = "greedy") -> str:
    """Where a file of an arm lies in a run's folder: scores, selected, mix, trained or results."""
    # An original student has no seed.
    seeded = f"{arm.name}-s{seed}" if arm.pool else arm.name
    # Where chance has a part in a choice, each seed has its own.
    choice = seeded if arm.rule in ("random", "control", "all") else arm.name
    return {
        "selected": f"selected/{choice}.jsonl",
        "mix": f"selected/{choice}.json",  # what `lalp select --json` says of it
        "trained": f"models/{seeded}",
        "results": f"results/{seeded}_{decoding}.parquet",
        "scores": f"scores/{arm_group(arm)}_{arm.student}.parquet" if arm.pool else "",
    }[name]


def _name(path: str) -> str:
    return path.partition("/")[2].removesuffix(".jsonl")


def arm_parts(arm: Arm) -> tuple[Arm, ...]:
    """Choices that an arm puts together."""
    teachers = TEACHERS[arm.pool] if arm.rule == "all" else ()
    return tuple(Arm(arm.student, arm.pool, "random", teacher) for teacher in teachers)


# --- what the rules ask ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stages:
    """The stages of a plan; ``toys`` is the folder of a dry run's data and models."""

    plan: Plan
    toys: str = ""

    @cached_property
    def needs(self) -> list[Need]:
        """Every arm with what it is needed for."""
        return plan_needs(self.plan)

    @cached_property
    def arms(self) -> dict[str, tuple[Arm, int]]:
        """Arm and seed of every student, by its name in files."""
        return {
            _name(arm_file("trained", need.arm, seed)): (need.arm, seed)
            for need in self.needs
            for seed in (self.plan.seeds if need.arm.pool else self.plan.seeds[:1])
        }

    @cached_property
    def columns(self) -> dict[Arm, dict[str, tuple[str, ...]]]:
        """What each arm is evaluated on, by decoding."""
        return {need.arm: need.columns for need in self.needs}

    @cached_property
    def choices(self) -> dict[str, tuple[Arm, int]]:
        """Arm and seed of every choice of training data, by its name in files."""
        found: dict[str, tuple[Arm, int]] = {}
        for whole, seed in self.arms.values():
            for arm in (*arm_parts(whole), whole) if whole.pool else ():
                found.setdefault(_name(arm_file("selected", arm, seed)), (arm, seed))
        return found

    def leaves(self) -> list[str]:
        """All files that the tables read or people want: Snakemake finds what they take."""
        found: dict[str, None] = {}
        for arm, seed in self.choices.values():
            found[arm_file("scores", arm)] = None
            found[arm_file("selected", arm, seed)] = None
            if arm.pool == "limo":
                found[f"teachers/{arm_group(arm)}_{arm.student}.json"] = None
        for arm, seed in self.arms.values():
            for decoding in self.columns[arm]:
                found[arm_file("results", arm, seed, decoding)] = None
        return list(found)

    def needs_of(self, wildcards: Mapping[str, str]) -> list[Need]:
        """The needs that a stage with such values serves."""
        return [need for need in self.needs if self._serves(need.arm, wildcards)]

    def place(self, wildcards: Mapping[str, str]) -> int:
        """Place of the first need that a stage serves, to list stages in that order."""
        return self.needs.index(self.needs_of(wildcards)[0])

    def _serves(self, arm: Arm, wildcards: Mapping[str, str]) -> bool:
        if name := wildcards.get("arm"):
            return self.arms[name][0] == arm
        if not arm.pool:
            return not wildcards
        if name := wildcards.get("choice"):
            return self.choices[name][0] in (arm, *arm_parts(arm))
        own = {"pool": arm.pool, "group": arm_group(arm), "student": arm.student}
        _, teachers = group_teachers(own["group"])
        same = all(wildcards.get(name, value) == value for name, value in own.items())
        return same and wildcards.get("teacher", teachers[0]) in teachers

    # --- models and data

    @property
    def data(self) -> tuple[str, ...]:
        """Options of commands that read data sets."""
        return ("--data", f"{self.toys}/data") if self.toys else ()

    def more(self, *names: str) -> tuple[str, ...]:
        """Further options of a dry run by command or preset; they come last, so they win."""
        options = read_data("paper/scale/toys.yaml")["options"] if self.toys else {}
        return tuple(word for name in names for word in options.get(name, ()))

    def model(self, name: str) -> str:
        """Where the model that runs in the place of ``name`` is loaded from."""
        facts = self.plan.model(name)
        return f"{self.toys}/models/{facts.name}" if self.toys else facts.hub_id

    def served(self, name: str) -> tuple[str, ...]:
        """Options of a model that answers: backend, and the GPUs that share it."""
        plan = self.plan
        if plan.backend != "vllm":
            return ("--backend", plan.backend)
        small = plan.model(name).fits(plan.gpu, plan.gpus)
        return (
            "--backend",
            "vllm",
            "--tensor-parallel",
            str(plan.gpus if small else plan.big_gpus),
        )

    # --- prompts, samples, pools, steps

    def presets(self, pool: str, teacher: str) -> dict[str, int]:
        """Samples per prompt by preset."""
        published = pool == "limo" and teacher in self.plan.published
        return {"published": 1} if published else _PRESETS[pool]

    def asked(self, wildcards: Any) -> str:
        """The prompts that a preset is given: all, or what the one before it did not solve."""
        pool, teacher = wildcards.pool, wildcards.teacher
        first = wildcards.preset == next(iter(self.presets(pool, teacher)))
        return f"prompts/{pool}.jsonl" if first else f"prompts/{pool}_{teacher}_unsolved.jsonl"

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
        # Answers to programming prompts are not verified: the prompts come without tests.
        kept = () if pool == "code" else ("--only-correct",)
        if len(teachers) > 1:
            # Every arm is then trained on the same prompts, and no teacher has more than one try.
            kept += ("--per-teacher", "1", "--min-teachers", str(self.plan.min_teachers))
        return kept

    @property
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
            # Thirds are by GALP alone, and a score table has some window: the cheapest.
            return ("0",)
        sweep = plan.sweep_windows if pool == "limo" and student == plan.window_student else ()
        return tuple(dict.fromkeys([plan.main_window, *sweep]))

    def choice(self, name: str) -> tuple[str, ...]:
        """Options of `lalp select` for a choice."""
        plan, (arm, seed) = self.plan, self.choices[name]
        rule = ("random", "--like", "lalp") if arm.rule == "control" else (arm.rule,)
        window = ("--window", arm.window or plan.main_window) if "lalp" in " ".join(rule) else ()
        teacher = ("--teacher", plan.teacher_name(arm.pool, arm.teacher)) if arm.teacher else ()
        return ("--rule", *rule, *window, *teacher, "--skip-unscored", "--seed", str(seed))

    # --- training and evaluation

    def launcher(self, name: str) -> tuple[str, ...]:
        """Words before ``train``: one process, or several by accelerate."""
        plan, model = self.plan, self.plan.model(self.arms[name][0].student)
        small = model.trains_on(plan.gpu, plan.gpus)
        if small and plan.gpus == 1:
            return ("lalp",)
        config = accelerate_file(plan.accelerate if small else plan.big_accelerate)
        words = ("accelerate", "launch", "--config_file", config)
        return (*words, "--num_processes", str(plan.gpus), "-m", "lalp.cli")

    def benchmarks(self, name: str, decoding: str) -> tuple[str, ...]:
        """Options of `lalp eval` for an arm."""
        arm, seed = self.arms[name]
        names = [COLUMNS[column] for column in self.columns[arm][decoding]]
        words = tuple(word for each in names for word in ("--benchmark", each))
        return (*words, *self.data, *self.served(arm.student), "--seed", str(seed))
