"""The plan for ten million traces: `python -m benchmarks.scale` measures, computes and writes it.

Rates of this machine are measured in seconds of one processor, so that other work on the machine
does not count. They are kept in ``docs/scale.json``. Everything else is computed from these rates
and from the assumptions below, and written into the last section of ``docs/scale.md``. With
``--render``, nothing is measured again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import Qwen2Config

from benchmarks.streaming import small_student
from lalp.files import write_json
from lalp.pools.pool import Response
from lalp.pools.reading import load_pool
from lalp.pools.spool import SpooledResponses
from lalp.scoring.costs import measure_model, plan_flops
from lalp.scoring.groups import Task
from lalp.scoring.shards import Form, ScoreKey, pack_shard
from lalp.scoring.windows import parse_window
from lalp.steps.sentences import split_steps
from lalp.students.encoding import Encoded, encode
from lalp.students.student import load_tokenizer

DOCS = Path(__file__).parents[1] / "docs"
_HEADING = "## Ten million traces\n"
_PIECE = "So 3x + 4y = 12, and since y = x - 1 we have 7x = 16. Wait, let me check that again. "


@dataclass(frozen=True)
class Assumptions:
    """Values that were not measured here. They make the hours uncertain by a factor of two."""

    traces: int = 10_000_000
    candidates: int = 4  # per prompt
    tokens: int = 12_000  # per trace
    steps: int = 400  # per trace
    prompt_tokens: int = 200
    characters: float = 3.5  # per token, one byte each
    gpus: int = 64
    gpu: str = "H100"
    gpu_flops: float = 989e12
    gpu_share: float = 0.5  # the share of that which forward passes reach
    gpu_price: float = 2.5  # dollars per hour
    disk: float = 1e9  # bytes per second, of a shared folder and of the driver's TMPDIR

    @property
    def text_bytes(self) -> float:
        """Bytes of the texts of all traces."""
        return self.traces * self.tokens * self.characters


PLAN = Assumptions()


# --- Measured -----------------------------------------------------------------------------------


def _rate(work: Callable[[], Any], amount: float, least: float = 1.0) -> float:
    """Amount of work per second of one processor."""
    work()
    began, times = time.process_time(), 0
    while time.process_time() - began < least:
        work()
        times += 1
    return amount * times / (time.process_time() - began)


def measure(folder: Path) -> dict[str, float]:
    """Measure the parts around the student: characters per second, and bytes per response."""
    small_student(folder / "student")
    tokenizer = load_tokenizer(str(folder / "student"))
    text = (_PIECE * (int(PLAN.tokens * PLAN.characters) // len(_PIECE) + 1))[
        : int(PLAN.tokens * PLAN.characters)
    ]
    record = {"prompt_id": "p1", "prompt": "?", "teacher": "A", "response": text}
    pool = folder / "pool.jsonl"
    lines = (json.dumps(record | {"prompt_id": f"p{n}"}) + "\n" for n in range(100))
    pool.write_text("".join(lines), encoding="utf-8")
    response = Response("p1/A/0", "p1", "A", text)
    return {
        "read": _rate(lambda: load_pool(pool), 100 * len(text)),
        "spool": _rate(lambda: SpooledResponses([response])[0], len(text)),
        "cut": _rate(lambda: split_steps(text, "sentences"), len(text)),
        "tokenize": _rate(lambda: encode(tokenizer, "?", text), len(text)),
        "memory": _memory_of_response(),
        "stored": _stored_bytes(False),
        "stored_tokens": _stored_bytes(True),
    }


def _memory_of_response(number: int = 20_000) -> float:
    """Bytes that the driver holds per response during scoring: its place, ids and scores."""
    tracemalloc.start()
    spooled = SpooledResponses(
        Response(f"prompt-{n // 4}/{'ABCD'[n % 4]}/0", f"prompt-{n // 4}", "ABCD"[n % 4], "x")
        for n in range(number)
    )
    members: dict[str, list[int]] = {}
    for place, (_, prompt_id, *_) in enumerate(spooled.facts()):
        members.setdefault(prompt_id, []).append(place)
    scores = np.zeros((number, 8))
    found, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The table of scores exists twice while it is put in the pool's order.
    return (found + scores.nbytes) / number + len("prompt-12345/A/0")


def _stored_bytes(with_tokens: bool) -> float:
    """Bytes per response in the store."""
    rng, form = np.random.default_rng(0), Form(("galp", "lalp@4"), with_tokens)
    number = 4 if with_tokens else 400
    rows = []
    for n in range(number):
        row = {name: float(-rng.gamma(2.0)) for name in form.schema.names}
        row |= {"galp:reason": None, "lalp@4:reason": None, "num_steps": PLAN.steps}
        row |= {"num_tokens": PLAN.tokens, "group": random.Random(n // 4).randbytes(10)}
        if with_tokens:
            values = -rng.gamma(0.3, size=(2, PLAN.tokens)).astype(np.float32)
            ends = np.arange(PLAN.tokens)
            row |= {"galp:tokens": values[0], "lalp@4:tokens": values[1]}
            row |= {"token_spans": [[3 * e, 3 * e + 3] for e in ends.tolist()]}
            row |= {"token_steps": ends // (PLAN.tokens // PLAN.steps)}
        rows.append(row)
    table = pa.Table.from_pylist(rows, form.schema)
    _, data = pack_shard(table, form, ScoreKey(*"abcdefgh"))
    return len(data) / number


# --- Computed -----------------------------------------------------------------------------------


def student_flops(plan: Assumptions) -> float:
    """FLOPs of all traces under Qwen2.5-7B, for GALP and a window of four steps, by lalp's plan."""
    config = Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    length = plan.tokens // plan.steps
    spans = tuple((n * length, (n + 1) * length) for n in range(plan.steps))
    encoded = Encoded((0,) * plan.prompt_tokens, (0,) * (length * plan.steps), ())
    task = Task(encoded, spans, 131_072)
    prompt = plan_flops(measure_model(config), [task] * plan.candidates, [parse_window("4")])
    return prompt * plan.traces / plan.candidates


def compute(plan: Assumptions, rates: dict[str, float]) -> dict[str, float]:
    """Compute hours, bytes and dollars."""
    flops = student_flops(plan)
    seconds = flops / (plan.gpus * plan.gpu_flops * plan.gpu_share)
    size = plan.text_bytes
    driver = size / rates["read"] + size / rates["spool"]
    around = (size / rates["cut"] + size / rates["tokenize"]) / plan.gpus
    stored = plan.traces * rates["stored"]
    stored_tokens = plan.traces * rates["stored_tokens"]
    shard = 64 << 20
    return {
        "flops": flops,
        "gpu_hours": seconds * plan.gpus / 3600,
        "hours": seconds / 3600,
        "dollars": seconds * plan.gpus / 3600 * plan.gpu_price,
        "prompt_seconds": seconds * plan.gpus / (plan.traces / plan.candidates),
        "text": size,
        "read_hours": max(driver, 2 * size / plan.disk) / 3600,
        "feed": size / seconds,
        "around_hours": around / 3600,
        "table_hours": max(size / rates["spool"], 2 * size / plan.disk) / 3600,
        "stored": stored,
        "stored_tokens": stored_tokens,
        "files": max(1.0, stored / shard),
        "files_tokens": stored_tokens / shard,
        "memory": plan.traces * rates["memory"],
        "kill": 60 + seconds * plan.gpus / (plan.traces / plan.candidates),
    }


def render(plan: Assumptions, rates: dict[str, float], share: dict[str, float]) -> str:
    """The text of the section."""
    values = compute(plan, rates) | {f"rate_{name}": rate for name, rate in rates.items()}
    values |= {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    values["feed_rate"] = rates["read"] / values["feed"]
    values["share_text"] = _say_share(share)
    numbers = {
        name: float(value)
        for name, value in values.items()
        if name != "share_text" and name != "gpu"
    }
    values |= {f"{name}_GB": value / 1e9 for name, value in numbers.items()}
    values |= {f"{name}_MB": value / 1e6 for name, value in numbers.items()}
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return template.format(**values)


def with_section(page: str, section: str) -> str:
    """The page with its last section replaced."""
    return page.partition(_HEADING)[0] + section


def _say_share(share: dict[str, float]) -> str:
    if not share:
        return "Its share has not been measured: `python -m benchmarks.cluster`."
    return (
        f"{share['workers']:.0f} workers took {share['prompts']:,.0f} prompts, "
        f"{share['piece']:.0f} at a time, and only slept, {share['seconds_each']:g} s for each. "
        f"They were at work for {share['share']:.1%} of the time (`python -m benchmarks.cluster`)."
    )


def main() -> None:
    """Measure, unless ``--render`` is given, and write the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    path = DOCS / "scale.json"
    kept = json.loads(path.read_text()) if path.exists() else {"share": {}}
    if not asked.render:
        with TemporaryDirectory() as name:
            kept["rates"] = measure(Path(name))
        write_json(path, kept)
    page, section = DOCS / "scale.md", render(PLAN, kept["rates"], kept["share"])
    page.write_text(with_section(page.read_text("utf-8"), section), encoding="utf-8")


if __name__ == "__main__":
    main()
