"""Speed, memory and exactness of scoring on a GPU, beside the per-step loop and padded batches.

``make bench-gpu`` needs one card and no network: the students are configurations of Qwen2.5-0.5B
and Qwen2.5-7B with random weights, the texts random tokens. Four candidates of 8,192 tokens in 400
steps follow each of four prompts; they are scored under one window, and under a sweep with GALP:

- ``loop``: one forward pass per step, as the paper describes it (Sec. 6), on a random sample of the
  steps, because all of them would take long;
- ``padded``: batches of steps of like length, logits at targets only, on a sample of the steps;
- ``lalp``: this project, all steps.

Rates are response tokens per second. What is fed, over the seconds, is compared with the rate of a
large matrix product in bfloat16, measured in the same run. In float32 the largest difference from
the loop is printed, beside what the dropped steps change in a token: were the wrong context read,
it would be about as large. The table is written to ``figures/bench_gpu/`` with the card's name.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.scoring import Request, make_requests, sum_flops
from lalp.paper.committed import save_results
from lalp.paper.provenance import describe_run
from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import lalp_column
from lalp.scoring.costs import count_weights, matmul_rate
from lalp.scoring.engine.rows import batch_rows
from lalp.scoring.engine.sequences import find_packing
from lalp.scoring.groups import Task
from lalp.scoring.windows import parse_window, parse_windows
from lalp.students.encoding import Encoded
from lalp.students.student import Student, make_student

WORKLOADS = {"window 4": (["4"], False), "sweep 0, 1, 2, 4 + GALP": (["0", "1", "2", "4"], True)}
PROMPTS, CANDIDATES, TOKENS, STEPS, PROMPT_TOKENS = 4, 4, 8192, 400, 200
LONG_RESPONSE = 32_768
SAMPLE = {"loop": 150, "padded": 1200}  # steps
BATCH_TOKENS = (16_384, 65_536)  # of padded batches, the faster is taken
# Published configurations; the other settings are those of the family.
SHAPES = {
    "qwen2.5-0.5b": {
        **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
        **{"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936},
        **{"tie_word_embeddings": True, "initializer_range": 0.05},
    },
    "qwen2.5-7b": {
        **{"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28},
        **{"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064},
        **{"tie_word_embeddings": False, "initializer_range": 0.05},
    },
}
GIB = 1 << 30
CARD = "cuda"
WIDTH = 8192  # of the matrix product that the speed is compared with
_PACKAGES = ("torch", "transformers", "triton")


@dataclass(frozen=True)
class BenchResults:
    """What is committed: a row per student, workload and method, and what made it."""

    speed: pd.DataFrame
    memory: pd.DataFrame
    exactness: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)


def build_student(name: str, dtype: torch.dtype) -> Student:
    """A student of a published shape with random weights, on the card."""
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[name], max_position_embeddings=LONG_RESPONSE + 1024)
    with torch.device(CARD):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    # Random tokens stand for texts: nothing is tokenized.
    return make_student(model, None, name=name, revision="random weights")


def make_tasks(prompts: int, candidates: int, tokens: int, steps: int) -> list[Task]:
    """Random responses to random prompts, cut into steps at random places."""
    drawn = np.random.default_rng(0)
    tasks = []
    for _ in range(prompts):
        prompt = tuple(drawn.integers(0, 150_000, PROMPT_TOKENS).tolist())
        for _ in range(candidates):
            ids = tuple(drawn.integers(0, 150_000, tokens).tolist())
            cuts = np.sort(drawn.choice(np.arange(1, tokens), steps - 1, replace=False)).tolist()
            spans = tuple(zip([0, *cuts], [*cuts, tokens], strict=True))
            tasks.append(Task(Encoded(prompt, ids, ()), spans, LONG_RESPONSE + 1024))
    return tasks


# --- methods --------------------------------------------------------------------------------


def list_requests(tasks: Sequence[Task], windows: Sequence[str], galp: bool) -> list[Request]:
    """What one pass per step would read: every step after its context."""
    parsed = [parse_window(window) for window in windows]
    by_score = (make_requests(task, parsed, galp).values() for task in tasks)
    return [request for scores in by_score for steps in scores for request in steps]


@torch.inference_mode()
def read_padded(student: Student, batch: Sequence[Request]) -> list[np.ndarray]:
    """Token log-probabilities of requests side by side, padded on the right where none looks."""
    rows = [torch.tensor(context + target[:-1]) for context, target in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(student.device)
    features, _ = student.body(input_ids=ids, use_cache=False)
    places = [
        (i, len(c) - 1 + t) for i, (c, target) in enumerate(batch) for t in range(len(target))
    ]
    wanted = torch.tensor(places, device=student.device).T
    targets = torch.tensor([t for _, target in batch for t in target], device=student.device)
    log_probs = student.head(features[wanted[0], wanted[1]]).log_softmax(-1)
    chosen = log_probs.gather(1, targets[:, None])[:, 0].cpu().numpy()
    return np.split(chosen, np.cumsum([len(target) for _, target in batch])[:-1])


def read_batches(student: Student, requests: Sequence[Request], max_tokens: int) -> None:
    """Requests in padded batches, the longest first; one that is longer is a batch of its own."""
    lengths = [len(context) + len(target) - 1 for context, target in requests]
    for batch in batch_rows(lengths, max_tokens):
        read_padded(student, [requests[i] for i in batch])


def timed(run: Callable[[], object]) -> float:
    """Seconds, everything that the card was given to do included."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def draw(requests: Sequence[Request], number: int) -> list[Request]:
    """A sample of the requests, the same in every run."""
    chosen = np.random.default_rng(1).permutation(len(requests))[:number]
    return [requests[i] for i in sorted(chosen)]


# --- what is measured -----------------------------------------------------------------------


def measure_speed(student: Student, tasks: list[Task], workload: str) -> list[dict[str, Any]]:
    """A row for each method: response tokens per second, and the ratio to the loop."""
    windows, galp = WORKLOADS[workload]
    parsed = parse_windows(windows)
    requests = list_requests(tasks, windows, galp)
    steps = [request for request in requests if len(request[1]) < TOKENS]
    wholes = [request for request in requests if len(request[1]) == TOKENS][:1]
    tokens = sum(task.num_tokens for task in tasks)
    score_candidates(student, tasks[:1], parsed, galp=galp)  # warm up and compile
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = {"lalp": timed(lambda: score_candidates(student, tasks, parsed, galp=galp))}
    peak = torch.cuda.max_memory_allocated() - before
    loop, padded = draw(steps, SAMPLE["loop"]), draw(steps, SAMPLE["padded"])
    read_padded(student, loop[:1])
    times = len(steps) / len(loop)
    seconds["loop"] = times * timed(lambda: [read_padded(student, [r]) for r in loop])
    best = min(timed(partial(read_batches, student, padded, size)) for size in BATCH_TOKENS)
    seconds["padded"] = best * len(steps) / len(padded)
    if galp:  # a pass over a whole response costs both the same
        whole = timed(lambda: [read_padded(student, [r]) for r in wholes]) * len(tasks)
        seconds["loop"] += whole
        seconds["padded"] += whole
    rate = matmul_rate(CARD, student.model.dtype, WIDTH)
    flops = sum_flops(student, tasks, parsed, galp)
    facts = {"student": student.name, "workload": workload}
    return [
        facts
        | {"method": method, "seconds": spent, "tokens_per_second": tokens / spent}
        | {"times_loop": seconds["loop"] / spent}
        | ({"times_padded": seconds["padded"] / spent} if method == "lalp" else {})
        | (
            {"share_of_matmul": flops / spent / rate, "matmul_tflops": rate / 1e12}
            if method == "lalp"
            else {}
        )
        | ({"peak_gib": peak / GIB} if method == "lalp" else {})
        for method, spent in seconds.items()
    ]


def measure_memory(student: Student) -> dict[str, Any]:
    """Peak memory above weights and keys, of one response of `LONG_RESPONSE` tokens."""
    tasks = make_tasks(1, 1, LONG_RESPONSE, LONG_RESPONSE // 20)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    weights = torch.cuda.memory_allocated()
    seconds = timed(lambda: score_candidates(student, tasks, parse_windows(["4"])))
    keys = count_weights(student.model).cache * LONG_RESPONSE * student.model.dtype.itemsize
    above = torch.cuda.max_memory_allocated() - weights
    facts = {"student": student.name, "tokens": LONG_RESPONSE, "seconds": seconds}
    return facts | {
        "weights_gib": weights / GIB,
        "keys_gib": keys / GIB,
        "above_weights_gib": above / GIB,
        "above_weights_and_keys_gib": (above - keys) / GIB,
    }


def measure_exactness(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """The largest difference of a token's log-probability from the loop's, on a few responses."""
    student = build_student(name, dtype)
    tasks = make_tasks(2, 2, 512, 26)
    windows = parse_windows(["0", "4"])
    scored = score_candidates(student, tasks, windows)
    most, dropped = 0.0, []
    for task, scores in zip(tasks, scored, strict=True):
        galp = scores.token_log_probs["galp"]
        for window in windows:
            requests = list_requests([task], [str(window)], False)
            loop = np.concatenate([read_padded(student, [request])[0] for request in requests])
            own = scores.token_log_probs[lalp_column(window)]
            most = max(most, float(np.abs(own - loop).max()))
            dropped.append(np.abs(own - galp).mean())
        whole = read_padded(student, list_requests([task], [], True))[0]
        most = max(most, float(np.abs(galp - whole).max()))
    facts = {"student": name, "dtype": str(dtype).removeprefix("torch.")}
    packed = find_packing(student) is not None
    return facts | {
        "packed": packed,
        "largest_difference": most,
        "mean_of_context": float(np.mean(dropped)),
    }


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing is begun later")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU is at hand: this benchmark needs one, and `make bench` does not")
    began = time.monotonic()
    tables: dict[str, list[dict[str, Any]]] = {"speed": [], "memory": [], "exactness": []}

    def save() -> None:
        frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        made = describe_run((time.monotonic() - began) / 3600, _PACKAGES)
        made |= {"card": torch.cuda.get_device_name(), "sample_of_steps": SAMPLE}
        save_results(BenchResults(**frames, provenance=made), "bench_gpu")
        for name, frame in frames.items():
            print(
                f"{name}, {time.monotonic() - began:.0f} s\n{frame.round(4).to_string()}",
                flush=True,
            )

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tables["exactness"].append(measure_exactness("qwen2.5-0.5b", dtype))
        save()
    tasks = make_tasks(PROMPTS, CANDIDATES, TOKENS, STEPS)
    for name in options.students:
        student = build_student(name, torch.bfloat16)
        for workload in WORKLOADS:
            if time.monotonic() - began > 60 * options.minutes:
                break
            tables["speed"] += measure_speed(student, tasks, workload)
            save()
        tables["memory"].append(measure_memory(student))
        save()
        del student
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
