"""Speed of step world's pre-training beside a plain loop (`python -m benchmarks.pretraining`).

- ``plain``: a model of the same class and size, AdamW, the same batches, made and padded before the
  clock starts; then nothing but forward, cross-entropy over the same positions, backward, clipping
  and step.
- ``lalp``: `lalp.paper.world.student`'s pre-training, which also makes, sorts and pads its
documents, and
  sets the learning rate.

Both run in turns of a few steps in one process and one thread, so that what else the machine does
meets both alike. Padding does not count as tokens. The bar: at least 0.8 of the plain loop's speed.
A bar that is missed is printed, not an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import pandas as pd
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from lalp.paper.world.problems import FAMILIES
from lalp.paper.world.student import Schooling, _steps, batches, make_model, make_tokenizer

BAR = 0.8
_TURN = 20  # steps
_PAD, _IGNORED = 1, -100
Batch = tuple[Tensor, Tensor]


def plain_steps(model: LlamaForCausalLM, made: Sequence[Batch]) -> Iterator[float]:
    """The loop that anyone would write; the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    model.train()
    for ids, labels in made:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def run_round(school: Schooling) -> dict[str, float]:
    """One pre-training by each method, in turns.

    Returns:
        Tokens per second of both, their ratio, and the share of ``lalp``'s time that its documents
        take when nothing else is done.
    """
    tokenizer = make_tokenizer()
    begin = time.perf_counter()
    made = [(ids, labels) for ids, labels, *_ in batches(school, tokenizer)]
    making = time.perf_counter() - begin
    runs = {
        "plain": plain_steps(make_model(len(tokenizer), school.seed), made),
        "lalp": _steps(make_model(len(tokenizer), school.seed), school, tokenizer),
    }
    seconds, losses = dict.fromkeys(runs, 0.0), {name: [] for name in runs}
    while len(losses["lalp"]) < len(made):
        for name, run in runs.items():
            begin = time.perf_counter()
            losses[name] += islice(run, _TURN)
            seconds[name] += time.perf_counter() - begin
    if abs(losses["plain"][0] - losses["lalp"][0]) > 1e-4:
        raise RuntimeError("the two methods do not begin with the same loss")
    tokens = sum(int((ids != _PAD).sum()) for ids, _ in made)
    return {
        **{f"{name} tokens/s": tokens / spent for name, spent in seconds.items()},
        "ratio": seconds["plain"] / seconds["lalp"],
        "documents' share": making / seconds["lalp"],
    }


def measure(rounds: int, tokens: int) -> pd.DataFrame:
    """Rounds of both families in turn: one row per round, each with documents of its own."""
    rows = []
    for seed in range(rounds):
        for family in FAMILIES:
            school = Schooling(family, copying=0.1, moves=(8, 12), tokens=tokens, seed=seed)
            rows.append({"family": family, **run_round(school)})
            print(f"round {seed + 1}, {family}: {rows[-1]['ratio']:.2f}", file=sys.stderr)
    return pd.DataFrame(rows)


def print_report(runs: pd.DataFrame) -> None:
    """Medians over the rounds, and the ratio with its spread, beside the bar."""
    print(runs.groupby("family").median().to_string(float_format="{:,.2f}".format))
    for family, rows in runs.groupby("family"):
        ratio = rows["lalp tokens/s"].median() / rows["plain tokens/s"].median()
        spread = f"{rows['ratio'].min():.2f} to {rows['ratio'].max():.2f} over {len(rows)} rounds"
        met = "met" if ratio >= BAR else "missed"
        print(f"{family}: {ratio:.2f} of the plain loop ({spread}); bar {BAR}: {met}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining")
    parser.add_argument("--rounds", type=int, default=3, help="pre-trainings of each kind")
    parser.add_argument("--tokens", type=int, default=150_000, help="of each pre-training")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.tokens) < 1:
        parser.error("--rounds and --tokens must be 1 or more")
    torch.set_num_threads(1)
    print_report(measure(options.rounds, options.tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
