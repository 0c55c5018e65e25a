"""Scores of every family that transformers builds, beside one forward pass per step.

``make families`` builds a small model with random weights of each family of causal language models
in transformers, and of some variants that read text in another way. It saves it with a small
tokenizer, scores a few responses with `lalp.score`, as a user would, and compares all scores with
the plain loop of `lalp.scoring.equations`. That loop gets a fresh copy of the model for every pass,
so that nothing is left of the pass before. The verdicts:

- ``exact``: all scores agree within 1e-4 nats;
- ``refused``: the student is refused with a reason that a user reads, and rightly;
- ``cannot be built``: transformers builds no such model in small, or none that depends on its text;
- ``wrong`` and ``traceback``: the faults; then the exit code is 1.

The table is ``figures/families/families.csv``. It takes a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from benchmarks.scoring import run_loop
from lalp.errors import InputError
from lalp.paper.committed import save_results
from lalp.paper.provenance import describe_run
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.groups import Task, group_responses, make_tasks
from lalp.scoring.run import score
from lalp.scoring.windows import parse_windows
from lalp.students.heads import take_logits
from lalp.students.student import Student, load_tokenizer

DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
WINDOWS = ("0", "1", "all")
SAME = 1e-4  # nats, the project's bar
# By so much at least must a window change some score: else a wrong context would not show.
SENSITIVE = 1e-2
NOISE = 0.03  # spread of what is added to every weight
FAULTS = ("wrong", "traceback")
_PACKAGES = ("torch", "transformers", "tokenizers")
_SMALL = {name: value for value, names in DATA["small"].items() for name in names}
_DEPTHS = tuple(DATA["depths"])
_VOCABULARY = _SMALL["vocab_size"]

# Responses of one and more steps, of unlike lengths, to two prompts.
RESPONSES = [
    ("What is 3 + 4?", "We add the two numbers. Then x = 3 + 4. So the sum is 7."),
    ("What is 3 + 4?", "7"),
    ("What is 3 + 4?", "Let us check. 3 + 4 = 7. Done. Indeed, 4 + 3 = 7 as well."),
    ("Solve x² = 4.", "Factor it: (x - 2)(x + 2) = 0.\n\nHence x = 2. Or x = -2. Both hold."),
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    family: str  # transformers' ``model_type``
    settings: dict[str, Any]  # of its configuration, besides the small ones


@dataclass(frozen=True)
class Results:
    """What is committed."""

    families: pd.DataFrame
    provenance: dict[str, Any]


class FreshCopies:
    """A model that is copied for every pass: no pass finds what an earlier one left."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.device = model.eval(), model.device

    def __call__(self, **inputs: Any) -> Any:
        """One forward pass."""
        return copy.deepcopy(self.model)(**inputs)


# --- small models ---------------------------------------------------------------------------


def list_cases() -> list[Case]:
    """Every family in its default form, then the variants."""
    named = DATA["families"]
    cases = [Case(name, name, named.get(name, {})) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    for variant, by_family in DATA["variants"].items():
        for family, settings in by_family.items():
            changed = _merge(copy.deepcopy(named.get(family, {})), settings)
            cases.append(Case(f"{family}, {variant}", family, changed))
    return sorted(cases, key=lambda case: case.name)


def small_settings(config: PreTrainedConfig) -> dict[str, Any]:
    """Settings that make a default configuration small, and those of the configurations in it."""
    values, small = vars(config), {}
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            small[name] = small_settings(value)
        elif name in _SMALL and (value is not None or name == "head_dim"):
            small[name] = _SMALL[name]
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int):
            small[name] = min(value, _VOCABULARY - 1)
    if "kv_lora_rank" in values and "num_key_value_heads" in small:
        # Latent attention has no groups of heads.
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small | _few_layers(values)


def _few_layers(values: dict[str, Any]) -> dict[str, Any]:
    """The first layer of each kind, and two layers at least, where kinds are listed by layer."""
    depth = next((values[name] for name in _DEPTHS if isinstance(values.get(name), int)), 0)
    lists = {
        name: value
        for name, value in values.items()
        if isinstance(value, list | tuple) and depth and len(value) == depth
    }
    kinds = list(zip(*lists.values(), strict=True))
    chosen = sorted({kinds.index(kind) for kind in kinds})
    if not chosen:
        return {}
    chosen = chosen if len(chosen) > 1 else chosen * 2
    depths = {name: len(chosen) for name in _DEPTHS if name in values}
    return depths | {name: [value[i] for i in chosen] for name, value in lists.items()}


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = _merge(settings[name], value) if both else value
    return settings


def build_model(case: Case) -> PreTrainedModel:
    """A small model with random weights, the same every time."""
    kind = CONFIG_MAPPING[case.family]
    settings = _merge(small_settings(kind()), copy.deepcopy(case.settings))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**settings), dtype=torch.float32)
    # Some families begin with parts at 0, which would hide what those parts do.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(NOISE * torch.randn_like(parameter))
    return model


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few words of the responses."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([text for pair in RESPONSES for text in pair], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@cache
def make_pool() -> Pool:
    """The responses."""
    return load_pool(
        [
            {"prompt_id": prompt, "prompt": prompt, "teacher": "Ada", "response": response}
            for prompt, response in RESPONSES
        ]
    )


# --- verdicts -------------------------------------------------------------------------------


def check_case(case: Case) -> dict[str, Any]:
    """The row of one case."""
    row = {"family": case.name, "class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[case.family]}
    with tempfile.TemporaryDirectory() as work:
        verdict, difference, reason = _judge(case, Path(work))
        reason = reason.replace(f"{work}/", "")
    # One digit: the others are rounding, which differs by machine.
    rounded = float(f"{difference:.0e}")
    return row | {"verdict": verdict, "largest difference in nats": rounded, "reason": reason}


def _judge(case: Case, work: Path) -> tuple[str, float, str]:
    """Verdict, largest difference and reason."""
    try:
        build_model(case).save_pretrained(work / "student")
        make_tokenizer().save_pretrained(work / "student")
        expected, later = _expected_scores(work / "student")
    except Exception as error:  # whatever a family's own code raises
        return "cannot be built", np.nan, _describe(error)
    by_window = expected[["lalp@0", "lalp@all"]]
    try:
        options = {"store": work / "scores", "device": "cpu", "progress": False}
        scores = score(make_pool(), str(work / "student"), WINDOWS, **options)
    except InputError as error:
        wrong = "later tokens" in str(error) and later < SAME
        return "wrong" if wrong else "refused", np.nan, str(error)
    except Exception as error:
        return "traceback", np.nan, _describe(error)
    if not np.isfinite(expected.to_numpy()).all():
        return "cannot be built", np.nan, "its logits are not finite"
    if not (by_window.diff(axis=1).iloc[:, 1].abs() > SENSITIVE).any():
        return "cannot be built", np.nan, "its predictions hardly depend on earlier text"
    scores = scores.set_index("response_id").loc[expected.index]
    difference = (scores[expected.columns] - expected).abs().to_numpy().max()
    verdict = "exact" if difference <= SAME else "wrong"  # NaN is wrong
    return verdict, difference, "; ".join(scores["reason"].dropna().unique())


@torch.inference_mode()
def _expected_scores(folder: Path) -> tuple[pd.DataFrame, float]:
    """Scores by one forward pass per step, and by how much later tokens move a prediction."""
    tokenizer = load_tokenizer(str(folder))  # transformers has one of its own for some families
    model = FreshCopies(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    student = Student("", "", model, tokenizer, body=model, head=take_logits)
    groups = group_responses(make_pool(), tokenizer)
    tasks = {
        response.response_id: task
        for group in groups
        for response, task in zip(
            group.responses, make_tasks(group, tokenizer, sys.maxsize), strict=True
        )
    }
    rows = run_loop(student, list(tasks.values()), parse_windows(WINDOWS), True)
    later = max(_effect_of_later(model, task) for task in tasks.values())
    return pd.DataFrame(rows, index=list(tasks)), later


def _effect_of_later(model: FreshCopies, task: Task) -> float:
    """By how much predictions for the prompt change when the response follows it."""
    prompt = task.encoded.prompt_ids
    whole = torch.tensor([[*prompt, *task.encoded.response_ids]])
    logits = model(input_ids=whole).logits[0, : len(prompt)]
    alone = model(input_ids=whole[:, : len(prompt)]).logits[0]
    return float((logits.log_softmax(-1) - alone.log_softmax(-1)).abs().max())


def _describe(error: Exception) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


# --- the whole table ------------------------------------------------------------------------


def check_all(cases: Sequence[Case]) -> pd.DataFrame:
    """The table, in the order of the cases."""
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores, len(cases)), context, quiet) as executor:
        rows = executor.map(check_case, cases)
        return pd.DataFrame(tqdm(rows, total=len(cases), desc="families"))


def quiet() -> None:
    """Without what the libraries say about unusual settings; with two threads, as users have."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check families, print the table, and commit it if it is whole."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families")
    parser.add_argument("families", nargs="*", help="names of rows; all if not given")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    cases = [c for c in list_cases() if not options.families or c.name in options.families]
    table = check_all(cases)
    with pd.option_context("display.max_colwidth", 90, "display.max_rows", None):
        print(table.to_string(index=False))
    print(table["verdict"].value_counts().to_string())
    if not options.families:
        facts = describe_run((time.monotonic() - started) / 3600, _PACKAGES)
        save_results(Results(table, facts), "families")
    return int(table["verdict"].isin(FAULTS).any())


if __name__ == "__main__":
    sys.exit(main())
