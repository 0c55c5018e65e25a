"""Which case has which number: a command, and a damage of one of its files or options."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer.main

from tests.fuzz.damage import DAMAGES, Damage

# Each command line, and the files that it reads, with their kind. Damages of a kind are drawn by
# weight, since a training takes seconds and a check takes none.
_TRAIN = "train train.jsonl --student student --recipe recipe.yaml --quiet --out trained"
_SCORE = "--student student --window 2 --tokens --quiet --out out.parquet"
_DRAW = "--max-tokens 4 --workers 1 --quiet"
COMMANDS: list[tuple[str, dict[str, str], int]] = [
    ("check pool.jsonl --json", {"pool.jsonl": "pool"}, 8),
    ("check pool.parquet --json", {"pool.parquet": "table"}, 4),
    (
        "check pool.jsonl --student student --json",
        {"pool.jsonl": "pool", "student": "student"},
        3,
    ),
    (
        "unsolved prompts.jsonl pool.jsonl --out out.jsonl",
        {"prompts.jsonl": "prompts", "pool.jsonl": "pool"},
        5,
    ),
    (
        "unsolved prompts.parquet pool.jsonl --out out.jsonl",
        {"prompts.parquet": "table"},
        2,
    ),
    (
        "merge pool.jsonl more.jsonl --out out.jsonl --json",
        {"pool.jsonl": "pool", "more.jsonl": "pool"},
        4,
    ),
    ("merge pool.jsonl more.jsonl --out out.parquet", {"pool.jsonl": "pool"}, 3),
    ("merge pool.parquet more.jsonl --out out.jsonl", {"pool.parquet": "table"}, 3),
    ("merge pool.jsonl --format llamafactory --out lf --json", {"pool.jsonl": "pool"}, 2),
    ("segment pool.jsonl --out out.jsonl --json", {"pool.jsonl": "pool"}, 4),
    ("segment pool.jsonl --text", {"pool.jsonl": "pool"}, 2),
    (
        "segment pool.jsonl --splitter steps.jsonl --out out.jsonl --json",
        {"steps.jsonl": "steps"},
        6,
    ),
    (
        "segment pool.jsonl --splitter 8t --student student --out out.jsonl",
        {"student": "student", "pool.jsonl": "pool"},
        5,
    ),
    (
        "segment pool.jsonl --splitter llm --llm-url http://127.0.0.1:9/v1 --llm-model m "
        "--llm-instruction instruction.txt --llm-timeout 1 --out out.jsonl",
        {"instruction.txt": "instruction"},
        3,
    ),
    (
        "segment pool.jsonl --splitter semantic --out out.jsonl --json",
        {"build/embeddings": "arrays"},
        2,
    ),
    ("import chats.jsonl --out out.jsonl --json", {"chats.jsonl": "foreign"}, 6),
    (
        "import many.jsonl --map prompt=problem --map response=generations --bad-rows skip "
        "--rejects rejects.jsonl --out out.parquet --json",
        {"many.jsonl": "skipped"},
        6,
    ),
    ("import sheet.csv --teacher Ada --out out.jsonl --json", {"sheet.csv": "sheet"}, 4),
    ("import packed.jsonl.gz list.json --out out.jsonl", {"packed.jsonl.gz": "packed"}, 3),
    ("import list.json --out out.jsonl", {"list.json": "list"}, 3),
    ("import shards --out out.parquet --json", {"shards/2.parquet": "table"}, 3),
    ("check many.jsonl --json", {"many.jsonl": "foreign"}, 3),
    ("import traces.jsonl --all-turns --out out.parquet --json", {"traces.jsonl": "foreign"}, 5),
    ("segment traces.jsonl --splitter turns --text", {"traces.jsonl": "foreign"}, 3),
    (f"score traces.jsonl {_SCORE}", {"traces.jsonl": "foreign"}, 4),
    ("describe scores.parquet --json", {"scores.parquet": "table"}, 3),
    ("describe lines.jsonl", {"lines.jsonl.origin.json": "origin"}, 3),
    ("plan pool.jsonl --student student --json", {"student": "student", "pool.jsonl": "pool"}, 4),
    ("plan pool.jsonl --student tiny.gguf --json", {"tiny.gguf": "gguf"}, 5),
    (
        f"score pool.jsonl {_SCORE}",
        {"student": "student", "pool.jsonl": "pool", "build/scores": "shards"},
        14,
    ),
    (f"score pool.parquet {_SCORE}", {"pool.parquet": "table"}, 3),
    (f"score chats.jsonl --thinking drop {_SCORE}", {"chats.jsonl": "foreign"}, 3),
    (f"score pool.jsonl --splitter steps.jsonl {_SCORE}", {"steps.jsonl": "steps"}, 3),
    (
        "score pool.jsonl --student tiny.gguf --window 2 --quiet --out out.parquet",
        {"tiny.gguf": "gguf", "build/students": "converted"},
        6,
    ),
    ("teachers scores.parquet --json", {"scores.parquet": "table"}, 6),
    ("teachers scores.parquet", {"scores.parquet": "table"}, 4),
    (
        "select scores.parquet --rule lalp --window 2 --out out.jsonl --json",
        {"scores.parquet": "table"},
        6,
    ),
    (
        "select scores.parquet --rule lalp-tail --window 2 --out out.jsonl --json",
        {"scores.parquet": "table"},
        3,
    ),
    (
        "select scores.parquet --rule random --like hybrid --window 2 --format llamafactory "
        "--out lf --json",
        {"scores.parquet": "table"},
        3,
    ),
    (
        "select scores.parquet --rule lalp --window 2 --where correct --per-prompt 2 --top 80% "
        "--quota Ada=40% --max-tokens 60 --weights --out out.jsonl --json",
        {"scores.parquet": "table"},
        5,
    ),
    (
        "select scores.parquet --rule galp-casl --teacher Ada --teacher Bob --min-score -9 "
        "--tie shortest --format prompt-completion --out out.jsonl --json",
        {"scores.parquet": "table"},
        3,
    ),
    (
        "show scores.parquet --response-id p1/Ada/0 --window 2 --out out.html",
        {"scores.parquet": "table"},
        6,
    ),
    (
        f"sample prompts.jsonl --model student {_DRAW} --out out.jsonl",
        {"prompts.jsonl": "prompts", "student": "student", "build/samples": "samples"},
        8,
    ),
    (
        _TRAIN,
        {"train.jsonl": "training", "recipe.yaml": "recipe", "student": "student"},
        3,
    ),
    (f"{_TRAIN} --held-out held.jsonl", {"held.jsonl": "pool", "recipe.yaml": "recipe"}, 2),
    (
        f"eval --model student --benchmark prompts.jsonl {_DRAW} --out out.parquet",
        {"prompts.jsonl": "prompts", "student": "student", "build/samples": "samples"},
        6,
    ),
    (
        f"eval --model student --benchmark amc23 --data data --allow-count {_DRAW} "
        "--out out.parquet",
        {"data/amc.jsonl": "problems"},
        4,
    ),
    ("compare a.parquet b.parquet --json", {"a.parquet": "table", "b.parquet": "table"}, 6),
    ("compare a.parquet b.parquet", {"b.parquet": "table"}, 2),
    (
        "export llamafactory train.jsonl --student student --recipe recipe.yaml "
        "--template default --out lf",
        {"train.jsonl": "training", "recipe.yaml": "recipe", "student": "student"},
        8,
    ),
]
# A sixth of all cases damages the command line itself.
_OPTION_SHARE = 1 / 6


@dataclass(frozen=True)
class Case:
    """One command line in a folder of its own, and what is done there before."""

    number: int
    words: tuple[str, ...]
    file: str  # what is damaged; empty where it is the command line
    kind: str
    damage: str
    expected: str
    base: str  # the command line that it was made from

    @property
    def command(self) -> str:
        """The name of the command that it was made from; a damaged line may lack it."""
        return self.base.split()[0]

    def prepare(self, seed: int) -> None:
        """Damage the file, in the current folder."""
        if self.file:
            found = next(d for d in DAMAGES[self.kind] if d.name == self.damage)
            found.apply(Path(self.file), random.Random(f"{seed}/{self.number}/damage"))


def draw_case(seed: int, number: int, *, light: bool = False) -> Case:
    """The case of a number: the same for the same seed, however many are run.

    ``light`` cases load no student: thirty of them take a second.
    """
    rng = random.Random(f"{seed}/{number}")
    lines = [c for c in COMMANDS if not light or not set(c[0].split()) & _HEAVY]
    line, files, _ = rng.choices(lines, [weight for *_, weight in lines])[0]
    words = tuple(line.split())
    if rng.random() < _OPTION_SHARE:
        return _bad_line(rng, number, words, line)
    file, kind = rng.choice(sorted(files.items()))
    damage: Damage = rng.choice(DAMAGES[kind])
    is_part = kind in ("student", "gguf") and words[0] in _READ_A_PART
    # An empty file of lines is a pool without responses, as `lalp unsolved` writes one.
    is_part = is_part or (words[0] == "merge" and damage.name == "empty")
    is_part = is_part or words[0] == "describe"  # reads what is written beside the rows
    # One of several shards.
    is_part = is_part or (words[0] == "import" and damage.name in ("no rows", "missing"))
    expected = "any" if is_part else damage.expected
    return Case(number, words, file, kind, damage.name, expected, line)


# Of a student or its GGUF file: no weights, or nothing but the tokenizer, or no template.
_READ_A_PART = {"check", "plan", "segment", "export"}
_HEAVY = {"semantic", "student", "tiny.gguf", "trained", "llm"}

# --- Command lines -----------------------------------------------------------------------------

_TEXTS = [
    *(
        "",
        " ",
        "\udcff\udcfe",
        "é\u202e",
        "x" * 5000,
        "../../..",
        "/",
        "/dev/zero",
        "-",
        "--",
        "%s",
    ),
    *("nan", "-inf", "1e400", "-1", "0", "0x10", "1.5", "1e3", str(2**70), "9" * 5000, "٣", "None"),
    *("llm", "all", "0t", "12345678t", "101%", "-5%", "nan%", "1e300%", "4,5", "random", "first"),
]
_OUTS = [
    *("", ".", "student", "pool.jsonl/out.jsonl", "/proc/out.jsonl", "/dev/null"),
    *("no/such/folder/out.jsonl", "no/out.parquet", "x" * 300 + ".jsonl", "\udcff.parquet"),
    *("out", "out.csv", "out.JSONL", "/sys/out.parquet", "o\nut.jsonl", "out.jsonl/"),
]
# What is read in a small language of its own.
_SPOKEN = {
    "--where": [
        *(
            "correct",
            "not correct",
            "level >= 4",
            "teacher = Ada",
            "teacher == 'Ada",
            "correct and",
        ),
        *(
            "__import__('os').system('touch PWNED')",
            "prompt_id in ('p1',)",
            "answer >= 7",
            ">=",
            "a b",
        ),
        *(
            "(" * 5000 + "correct" + ")" * 5000,
            "teacher != \x1b[31m",
            "galp > nan",
            "correct == true",
        ),
    ],
    "--map": [
        *("prompt=problem", "prompt=", "=x", "prompt", "prompt=prompt", "a=b", "prompt=no.such"),
        *(
            "response=" + "a." * 5000 + "a",
            "messages=generations",
            "thought=.",
            "prompt==",
            "answer=*",
        ),
    ],
    "--quota": [
        "Ada=50%",
        "Ada=0.5",
        "Ada=150%",
        "Zoe=5%",
        "Ada=",
        "=5%",
        "Ada",
        "Ada=nan",
        "Ada=-1",
    ],
    "--top": ["20%", "20%/teacher", "0%", "100.1%", "1/teacher", "%/teacher", "20%/prompt", "-20%"],
}


@cache
def _options(command: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Name of each option of a command, whether it is a flag."""
    from lalp.cli.app import app

    group: Any = typer.main.get_command(app)
    for word in command:
        group = group.commands[word]
    return [
        (param.opts[0], bool(getattr(param, "is_flag", False)))
        for param in group.params
        if param.opts[0].startswith("--")
    ]


def _bad_line(rng: random.Random, number: int, words: tuple[str, ...], line: str) -> Case:
    depth = 2 if words[0] == "export" else 1
    name, is_flag = rng.choice(_options(words[:depth]))
    way = rng.choice(["value", "value", "value", "value", "lost", "unknown", "twice", "help"])
    made = list(words)
    if way == "help":
        made = [*words[:depth], "--help"]
    elif way == "unknown":
        made.insert(
            rng.randint(depth, len(made)), rng.choice(["--no-such", "-z", "extra", "--out="])
        )
    elif way == "lost":
        del made[rng.randrange(len(made))]
    elif is_flag:
        made += [name] * (2 if way == "twice" else 1)
    else:
        values = _OUTS if name in ("--out", "--rejects") else _SPOKEN.get(name, []) + _TEXTS
        made += [name, rng.choice(values)] * (2 if way == "twice" else 1)
    shown = f"{way} {name}" if way in ("value", "twice") else way
    return Case(number, tuple(made), "", "command line", shown, "any", line)
