"""A pool of many times the memory that a command may take: `python -m benchmarks.streaming`.

The tool holds 64 MiB of a pool in memory before its texts go to a file. Here it holds 1 MiB, so
that a small pool tells as much as one of gigabytes. Each command first reads a pool of 1,000
responses, which tells what Python, its libraries and a full batch of rows take. Then it reads the
large one under a limit of address space: as much, and a quarter of what the large pool has more.

Printed are both peaks, of address space, which the limit holds, and of memory, and what each
response adds to them: ids, scores, and where its text lies. Libraries ask for address space that
they never use (a gigabyte at once), so the first says what a limit has to allow, the second what is
needed.

The student reads every token. Words are long, and each is one token, because tokens take the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import train_tokenizer

_WORDS = ("consequently", "multiplication", "denominators", "simplification", "approximately")
_SMALL = 1000  # responses of the small pool
_CHARACTERS = 20_000  # of a response, about
_HELD = 1 << 20  # bytes of a pool that a command holds before it takes a file
_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
# A command prints the peaks of its address space and memory in kB when it ends.
_RUN = """
import sys
from lalp.cli import app
from lalp.pools import spool
spool.LIMIT = int(sys.argv.pop(1))
try:
    app.main()
finally:
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    print(*(lines[name].split()[0] for name in ("VmPeak", "VmHWM")), file=sys.stderr)
"""
# Not what the pool takes: how many threads took an arena of 64 MiB, and how many of Arrow's eight
# readers had begun by chance, each with a stack of 8 MiB.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "1", "ARROW_IO_THREADS": "1"}
_HOW = "--student student --window 0 --quiet --out out.parquet"
COMMANDS = {
    "check": "check POOL",
    "import": "import POOL --out out.jsonl",
    "import to a table": "import POOL --out out.parquet",
    "import from a table": "import out.parquet --out out.jsonl",
    "segment": "segment POOL --out steps.jsonl",
    "score": f"score POOL {_HOW} --store store",
}


@dataclass(frozen=True)
class Peaks:
    """What a command took, in bytes, and its seconds."""

    space: int
    memory: int
    seconds: float


def small_student(folder: Path) -> None:
    """A Llama of 12,000 random weights, to which a word is a token, in a folder."""
    texts = [f"{word} {word}. {word.capitalize()}" for word in _WORDS]
    tokenizer = train_tokenizer(texts * 100, 400, _TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_pool(path: Path, size: int) -> int:
    """A pool of about ``size`` bytes, four responses a prompt; how many there are."""
    rng, number, written = random.Random(7), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size or number < _SMALL:
            words = rng.choices(_WORDS, k=_CHARACTERS // 14)
            words[::20] = (f"{word}. So" for word in words[::20])
            record = {
                "prompt_id": f"p{number // 4}",
                "prompt": f"What is {number // 4}?",
                "teacher": "ABCD"[number % 4],
                "response": f"{number} {' '.join(words)}",
            }
            written += file.write(json.dumps(record) + "\n")
            number += 1
    return number


def run(words: list[str], folder: Path, limit: int | None = None) -> Peaks:
    """What a command takes, which must succeed; ``limit`` is of address space, in bytes."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(_HELD), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())},
        preexec_fn=set_limit,
    )
    if done.returncode:
        raise SystemExit(f"lalp {' '.join(words)}: {done.stderr.strip()[-500:]}")
    space, memory = map(int, done.stderr.strip().splitlines()[-1].split())
    return Peaks(space * 1024, memory * 1024, time.monotonic() - start)


def main() -> None:
    """Write the pools, run the commands, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--mib", type=int, default=128, help="size of the large pool")
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        small_student(folder / "student")
        num_small = write_pool(folder / "small.jsonl", 0)
        num_large = write_pool(folder / "large.jsonl", asked.mib << 20)
        sizes = [(folder / f"{name}.jsonl").stat().st_size for name in ("small", "large")]
        more = sizes[1] - sizes[0]
        print(f"{num_small:,} responses, {sizes[0] >> 20} MiB; {num_large:,}, {sizes[1] >> 20} MiB")
        print(f"limit: the small pool's address space, and {more // 4 >> 20} MiB")
        print(f"{'':<20} {'address space':^31} {'memory':^31}")
        columns = f"{'small':>9} {'large':>9} {'a response':>11} "
        print(f"{'command':<20} {columns * 2} {'seconds':>8}")
        for command in asked.commands:
            line = COMMANDS[command].split()
            small = run([w.replace("POOL", "small.jsonl") for w in line], folder)
            words = [w.replace("POOL", "large.jsonl") for w in line]
            large = run(words, folder, small.space + more // 4)
            text = "".join(
                f" {a / 2**20:>5,.0f} MiB {b / 2**20:>5,.0f} MiB"
                f" {(b - a) / max(1, num_large - num_small):>9,.0f} B "
                for a, b in ((small.space, large.space), (small.memory, large.memory))
            )
            print(f"{command:<20}{text} {large.seconds:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
