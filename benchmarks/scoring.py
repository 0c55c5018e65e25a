"""Speed, memory and exactness of scoring, beside the per-step loop and three peers (`make bench`).

On the same tokens, in float32 on the CPU, with the same threads, each in a process of its own:

- ``loop``: one forward pass per step, as the paper describes it (Sec. 6).
- ``padded``: padded batches of steps, longest first, logits only from the first target on.
- ``minicons``: ``IncrementalLMScorer.compute_stats``, batches sorted by length.
- ``lm-eval``: lm-evaluation-harness's ``HFLM._loglikelihood_tokens``.
- ``lalp``: this project's plan.

minicons and lm-evaluation-harness usually take text; here they get token ids, so that they neither
pay for tokenization nor score other tokens where text would be cut. Peers run at the better of two
batch sizes, tried on a sample first. With the default settings all takes about 12 minutes on two
cores. A bar that is missed is printed, not an error. Linux only: memory is read from ``/proc``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from lalp.errors import InputError
from lalp.files import atomic_path, cache_dir
from lalp.paper.champ.champ import champ_pool, pick_candidates
from lalp.scoring.candidates import score_candidates
from lalp.scoring.columns import lalp_column
from lalp.scoring.costs import count_weights, matmul_rate, row_flops
from lalp.scoring.engine.rows import batch_rows
from lalp.scoring.equations import score_per_step, window_starts
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.plan import plan_response
from lalp.scoring.windows import Window, parse_window, parse_windows
from lalp.students.encoding import Encoded
from lalp.students.student import Student, find_student, load_student

# Windows, and whether GALP is scored too.
WORKLOADS = {"window 2": (["2"], False), "sweep 1, 2, 4, 8 + GALP": (["1", "2", "4", "8"], True)}
ONE, SWEEP = WORKLOADS
# Batch sizes to try: tokens for padded batches, rows for the others. lm-evaluation-harness's own
# search ("auto") begins with five passes over 64 rows, which takes minutes on a CPU.
BATCH_SIZES = {"padded": (512, 2048), "minicons": (4, 16), "lm-eval": (4, 16)}
METHODS = ("loop", *BATCH_SIZES, "lalp")
TEACHERS = 4
LONG_RESPONSE = 16_000
RAISED_POSITIONS = 32_768
MIB = 1 << 20

# Tokens before a step (prompt included) and tokens of the step.
Request = tuple[list[int], list[int]]
Peer = Callable[[list[Request]], list[float]]
Scores = list[dict[str, float]]


# --- methods --------------------------------------------------------------------------------


def run_loop(student: Student, tasks: list[Task], windows: list[Window], galp: bool) -> Scores:
    """One forward pass per step and window; GALP is the pass whose only step is the response."""
    results = []
    for task in tasks:
        scores = {lalp_column(window): score_per_step(student, task, window) for window in windows}
        if galp:
            whole = replace(task, step_spans=((0, task.num_tokens),))
            scores["galp"] = score_per_step(student, whole, parse_window("0"))
        results.append(scores)
    return results


def run_lalp(student: Student, tasks: list[Task], windows: list[Window], galp: bool) -> Scores:
    """This project: the responses of one prompt together."""
    scored = score_candidates(student, tasks, windows, galp=galp)
    return [scores.lalp | ({"galp": scores.galp} if galp else {}) for scores in scored]


def run_peer(peer: Peer, tasks: list[Task], windows: list[Window], galp: bool) -> Scores:
    """A peer: mean log-probability per request, all requests at once; then mean over steps."""
    by_task = [make_requests(task, windows, galp) for task in tasks]
    means = iter(peer([r for named in by_task for steps in named.values() for r in steps]))
    return [
        {name: sum(next(means) for _ in steps) / len(steps) for name, steps in named.items()}
        for named in by_task
    ]


def make_requests(task: Task, windows: list[Window], galp: bool) -> dict[str, list[Request]]:
    """Each step after its context, by score."""
    prompt, ids = list(task.encoded.prompt_ids), list(task.encoded.response_ids)
    requests = {"galp": [(prompt, ids)]} if galp else {}
    for window in windows:
        starts = window_starts(window, task.step_spans)
        requests[lalp_column(window)] = [
            (prompt + ids[start:begin], ids[begin:end])
            for start, (begin, end) in zip(starts, task.step_spans, strict=True)
        ]
    return requests


def score_padded(student: Student, max_tokens: int, requests: list[Request]) -> list[float]:
    """Mean log-probability of each target by batches, padded on the right where none looks."""
    means = [0.0] * len(requests)
    lengths = [len(context) + len(target) - 1 for context, target in requests]
    for batch in batch_rows(lengths, max_tokens):
        ids = torch.zeros(len(batch), lengths[batch[0]], dtype=torch.long)
        for row, (context, target) in enumerate(requests[i] for i in batch):
            ids[row, : len(context) + len(target) - 1] = torch.tensor(context + target[:-1])
        first = min(len(requests[i][0]) for i in batch) - 1
        keep = ids.shape[1] - first
        logits = student.model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
        for row, i in enumerate(batch):
            context, target = requests[i]
            begin = len(context) - 1 - first
            log_probs = logits[row, begin : begin + len(target)].log_softmax(-1)
            means[i] = float(log_probs.gather(1, torch.tensor(target)[:, None]).mean())
    return means


def score_minicons(scorer: Any, batch_size: int, requests: list[Request]) -> list[float]:
    """Mean log-probability of each target by minicons."""
    means = [0.0] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0]) - len(requests[i][1]))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        rows = [context + target for context, target in (requests[i] for i in batch)]
        encoded = scorer.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        # minicons counts its offsets without the first token, which nothing predicts.
        offsets = [len(requests[i][0]) - 1 for i in batch]
        log_probs = scorer.compute_stats((encoded, offsets), return_tensors=True)
        for i, values in zip(batch, log_probs, strict=True):
            means[i] = float(values.mean())
    return means


def score_lm_eval(model: Any, requests: list[Request]) -> list[float]:
    """Mean log-probability of each target by lm-evaluation-harness."""
    sums = model._loglikelihood_tokens([(None, *r) for r in requests], disable_tqdm=True)
    return [total / len(target) for (total, _), (_, target) in zip(sums, requests, strict=True)]


def make_peer(name: str, student: Student, batch_size: int) -> Peer:
    """A function from requests to mean log-probabilities."""
    if name == "padded":
        return partial(score_padded, student, batch_size)
    model, tokenizer = student.model, student.tokenizer
    if name == "minicons":
        from minicons.scorer import IncrementalLMScorer

        scorer = IncrementalLMScorer(model, "cpu", tokenizer=tokenizer)
        return partial(score_minicons, scorer, batch_size)
    from lm_eval.models.huggingface import HFLM

    # Its logits cache gives wrong sums where requests differ only in the place of their cut, as
    # GALP and a last step that sees everything do.
    options = {"batch_size": batch_size, "logits_cache": False}
    return partial(score_lm_eval, HFLM(model, tokenizer=tokenizer, **options))


# --- what a child process does --------------------------------------------------------------


@torch.inference_mode()
def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Load the student, then measure a method or try batch sizes."""
    torch.set_num_threads(job["threads"])
    student = load_student(job["student"], device="cpu", dtype=torch.float32)
    if job["limit"] > student.max_positions:
        student.model.config.max_position_embeddings = job["limit"]
    tasks = [
        Task(Encoded(tuple(prompt), tuple(ids), ()), tuple(map(tuple, spans)), job["limit"])
        for prompt, ids, spans in job["tasks"]
    ]
    windows = parse_windows(job["windows"])
    run = measure if job["method"] in METHODS else try_batch_sizes
    return run(job, student, tasks, windows)


def measure(
    job: dict[str, Any], student: Student, tasks: list[Task], windows: list[Window]
) -> dict[str, Any]:
    """Time, peak memory and scores of one method on one workload."""
    name, galp, size = job["method"], job["galp"], count_weights(student.model)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    loaded = read_memory("VmRSS")
    own = {"loop": run_loop, "lalp": run_lalp}
    method = (
        partial(own[name], student)
        if name in own
        else partial(run_peer, make_peer(name, student, job["batch_size"]))
    )
    method([replace(tasks[0], step_spans=tasks[0].step_spans[:2])], windows[:1], False)  # warm up
    rates = [matmul_rate("cpu", torch.float32, size.hidden, seconds=1.0)]
    begin, cpu_begin = time.perf_counter(), time.process_time()
    scores = method(tasks, windows, galp)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = read_memory("VmHWM")
    rates.append(matmul_rate("cpu", torch.float32, size.hidden, seconds=1.0))
    return {
        "seconds": seconds,
        "cores_used": cpu_seconds / seconds,
        "loaded_bytes": loaded,
        "extra_bytes": peak - loaded,
        "matmul_rates": rates,
        "plan_flops": sum_flops(student, tasks, windows, galp),
        "scores": scores,
    }


def try_batch_sizes(
    job: dict[str, Any], student: Student, tasks: list[Task], windows: list[Window]
) -> dict[str, int]:
    """The fastest batch size of each peer on a sample.

    The sample is a run of requests of like length from the middle, as in batches sorted by length.
    """
    by_task = [make_requests(task, windows, job["galp"]) for task in tasks]
    requests = [request for named in by_task for steps in named.values() for request in steps]
    requests.sort(key=lambda request: len(request[0]) + len(request[1]))
    middle = max(0, len(requests) // 2 - 8)
    best = {}
    for name, sizes in BATCH_SIZES.items():
        seconds = {}
        for size in sizes:
            peer = make_peer(name, student, size)
            peer(requests[:1])
            begin = time.perf_counter()
            peer(requests[middle : middle + 16])
            seconds[size] = time.perf_counter() - begin
        best[name] = min(seconds, key=seconds.get)
    return best


def sum_flops(student: Student, tasks: list[Task], windows: list[Window], galp: bool) -> float:
    """FLOPs of what the plan feeds: prompts included, padding not."""
    size = count_weights(student.model)
    flops = sum(row_flops(size, 0, len(ids), 0) for ids in {t.encoded.prompt_ids for t in tasks})
    for task in tasks:
        for row in plan_response(task, windows, galp=galp).rows:
            prompt = len(task.encoded.prompt_ids)
            flops += row_flops(size, prompt, row.num_inputs, row.num_targets)
    return flops


def read_memory(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


# --- the whole benchmark --------------------------------------------------------------------


def load_tasks(student: str, responses: int) -> tuple[list[Task], Task]:
    """Responses to CHAMP problems by four teachers, and one long response made of such.

    The long one strings real responses together, with their real steps; it makes no sense, which
    does not matter to memory.
    """
    pool, _ = champ_pool(cache_dir() / "champ")
    found = find_student(student)
    tokenizer, limit = found.tokenizer, found.max_positions
    picked, every = (
        (
            task
            for group in group_responses(some, tokenizer)
            for task in make_tasks(group, tokenizer, limit)
        )
        for some in (pick_candidates(pool, -(-responses // TEACHERS), seed=0), pool)
    )
    tasks = list(picked)[:responses]
    return tasks, join_responses(every, tasks[0].encoded.prompt_ids)


def join_responses(tasks: Iterable[Task], prompt_ids: tuple[int, ...]) -> Task:
    """One response of `LONG_RESPONSE` tokens from the first of many."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for task in tasks:
        spans += [(len(ids) + start, len(ids) + end) for start, end in task.step_spans]
        ids += task.encoded.response_ids
        if len(ids) >= LONG_RESPONSE:
            break
    spans = [(start, min(end, LONG_RESPONSE)) for start, end in spans if start < LONG_RESPONSE]
    encoded = Encoded(prompt_ids, tuple(ids[:LONG_RESPONSE]), ())
    return Task(encoded, tuple(spans), RAISED_POSITIONS)


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Every method on every workload, rounds outermost, and the long response."""
    tasks, long_task = load_tasks(options.student, options.responses)
    child = partial(run_child, options)
    best = {name: child(name, "batch sizes", tasks, *work) for name, work in WORKLOADS.items()}
    runs: dict[str, dict[str, list]] = {w: {m: [] for m in METHODS} for w in WORKLOADS}
    for _ in range(options.rounds):
        for name, work in WORKLOADS.items():
            for method in METHODS:
                run = child(name, method, tasks, *work, best[name].get(method))
                runs[name][method].append(run)
    results = {
        "machine": machine_facts(options.threads),
        "student": Path(options.student).name,
        "responses": len(tasks),
        "steps": sum(len(task.step_spans) for task in tasks),
        "response_tokens": sum(task.num_tokens for task in tasks),
        "batch_sizes": best,
        "runs": runs,
        "long_response": child("long response", "lalp", [long_task], ["4", "all"], True),
    }
    return results | {"bars": check_bars(results)}


def run_child(
    options: argparse.Namespace,
    workload: str,
    method: str,
    tasks: list[Task],
    windows: list[str],
    galp: bool,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Run one job in a fresh process."""
    job = {
        "method": method,
        "student": options.student,
        "threads": options.threads,
        "limit": tasks[0].limit,
        "tasks": [(t.encoded.prompt_ids, t.encoded.response_ids, t.step_spans) for t in tasks],
        "windows": windows,
        "galp": galp,
        "batch_size": batch_size,
    }
    print(f"{workload}: {method} ...", end="", file=sys.stderr, flush=True)
    begin = time.perf_counter()
    done = start_child(job)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [""])[-1]
        raise InputError(
            f"{workload}, {method}: its process ended with code {done.returncode}: {reason} "
            "(`make bench` installs the peers)"
        )
    print(f" {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return json.loads(done.stdout)


def start_child(job: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """This module again, with the job on its standard input."""
    environment = {"OMP_NUM_THREADS": str(job["threads"]), "LALP_CACHE": str(cache_dir())}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.scoring", "--child"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=Path(__file__).resolve().parents[1],
        check=False,
    )


def machine_facts(threads: int) -> dict[str, Any]:
    """What decides the numbers besides the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("torch", "transformers", "minicons", "lm_eval")
    return {
        "cpu": names[0] if names else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


# --- what is reported -----------------------------------------------------------------------


def make_table(results: dict[str, Any], workload: str) -> pd.DataFrame:
    """One row per method: medians over the rounds; the largest memory and difference.

    Where ``cores used`` is below the number of threads, the machine was busy with something else.
    """
    runs = results["runs"][workload]
    seconds = {method: median(run["seconds"] for run in runs[method]) for method in METHODS}
    tokens, looped = results["response_tokens"], runs["loop"][0]["scores"]
    rows = [
        {
            "method": method,
            "batch": results["batch_sizes"][workload].get(method, ""),
            "tokens/s": tokens / seconds[method],
            "best": tokens / min(run["seconds"] for run in runs[method]),
            "x loop": seconds["loop"] / seconds[method],
            "lalp x it": seconds[method] / seconds["lalp"],
            "cores used": min(run["cores_used"] for run in runs[method]),
            "MiB": max(run["extra_bytes"] for run in runs[method]) / MIB,
            "difference": np.max(
                [
                    abs(score[name] - expected[name])
                    for run in runs[method]
                    for score, expected in zip(run["scores"], looped, strict=True)
                    for name in expected
                ]
            ),
        }
        for method in METHODS
    ]
    return pd.DataFrame(rows).set_index("method")


def compute_rate(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """FLOP/s of this project, and its share of the machine's matrix-multiply rate (medians)."""
    achieved = [run["plan_flops"] / run["seconds"] for run in runs]
    shares = [r / max(run["matmul_rates"]) for r, run in zip(achieved, runs, strict=True)]
    return median(achieved), median(shares)


def check_bars(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The project's bars: what was measured, what is asked, whether it is met."""
    one, sweep = make_table(results, ONE), make_table(results, SWEEP)
    long_run = results["long_response"]
    scored = all(score <= 0 for score in long_run["scores"][0].values())  # False for NaN
    bars = [
        ("one window, x loop", one.loc["lalp", "x loop"], ">=", 3.5),
        ("one window, x best peer", one.loc[list(BATCH_SIZES), "lalp x it"].min(), ">=", 2.5),
        ("sweep, x loop once per window", sweep.loc["lalp", "x loop"], ">=", 6),
    ]
    for workload in WORKLOADS:
        share = compute_rate(results["runs"][workload]["lalp"])[1]
        bars.append((f"{workload}, share of matmul rate", share, ">=", 0.7))
    difference = np.max([*one["difference"], *sweep["difference"]])
    bars.append(("largest difference, nats", difference, "<=", 1e-4))
    bars.append((f"{LONG_RESPONSE:,}-token response scored", scored, ">=", 1))
    bars.append(
        (f"{LONG_RESPONSE:,}-token response, MiB", long_run["extra_bytes"] / MIB, "<=", 1024)
    )
    return [
        {
            "bar": name,
            "measured": float(value),
            "asked": f"{sign} {bound:g}",
            "met": bool(value >= bound if sign == ">=" else value <= bound),
        }
        for name, value, sign, bound in bars
    ]


def print_report(results: dict[str, Any]) -> None:
    """Tables, rates and bars for people."""
    machine = results["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print(
        f"{results['student']}, float32: {results['responses']} responses, "
        f"{results['response_tokens']:,} tokens (counted once, however many windows), "
        f"{results['steps']} steps"
    )
    for workload, runs in results["runs"].items():
        table = make_table(results, workload)
        table["difference"] = table["difference"].map("{:.0e}".format)
        achieved, share = compute_rate(runs["lalp"])
        rates = [rate / 1e9 for method in runs.values() for run in method
                 for rate in run["matmul_rates"]]  # fmt: skip
        print(f"\n{workload}\n{table.to_string(float_format='{:.1f}'.format)}")
        print(
            f"lalp: {achieved / 1e9:.0f} GFLOP/s, {share:.0%} of the matrix-multiply rate "
            f"({min(rates):.0f} to {max(rates):.0f} over all processes)"
        )
    long_run = results["long_response"]
    print(
        f"\n{LONG_RESPONSE:,}-token response, windows 4 and all, GALP: "
        f"{long_run['extra_bytes'] / MIB:.0f} MiB above the loaded model's "
        f"{long_run['loaded_bytes'] / MIB:.0f} MiB, {long_run['seconds']:.0f} s (positions raised "
        f"to {RAISED_POSITIONS:,}: memory is measured, not meaning)"
    )
    print(f"\n{pd.DataFrame(results['bars']).to_string(index=False, float_format='{:.3g}'.format)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its tables and write its JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring")
    parser.add_argument("--responses", type=int, default=4, help="responses to score")
    parser.add_argument("--rounds", type=int, default=1, help="times each method runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--student", default="smollm2-135m", help="as in `lalp score`")
    parser.add_argument("--out", type=Path, default=cache_dir() / "bench" / "scoring.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        with contextlib.redirect_stdout(sys.stderr):
            result = run_job(json.load(sys.stdin))
        print(json.dumps(result))
        return 0
    if min(options.responses, options.rounds, options.threads) < 1:
        parser.error("--responses, --rounds and --threads must be 1 or more")
    try:
        results = run_all(options)
        print_report(results)
        with atomic_path(options.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
