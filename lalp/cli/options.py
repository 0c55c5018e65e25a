"""What the commands of `lalp` share: arguments, options, and how a command line is run."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lalp.cli.printing import say
from lalp.errors import InputError

# Files to read
PoolFile = Annotated[
    str, typer.Argument(metavar="POOL", help="JSONL or Parquet, one response a line.")
]
ScoresFile = Annotated[str, typer.Argument(metavar="SCORES", help="Table written by lalp score.")]
PromptsFile = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="JSONL or Parquet of prompt_id, prompt and (to verify) answer; or a pool.",
    ),
]
TrainingFile = Annotated[str, typer.Argument(metavar="DATA", help="JSONL written by lalp select.")]

# Scoring and training
StudentName = Annotated[
    str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m (packaged).")
]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="Steps (4), share (25%), tokens (256t), or all; repeatable."),
]
Splitter = Annotated[
    str,
    typer.Option(
        help="How responses are cut into steps: sentences, paragraphs, semantic, 32t (chunks of "
        "that many student tokens), or a steps file (.jsonl)."
    ),
]
RecipeName = Annotated[
    str, typer.Option(help="paper, paper-32b, terciles, or a .yaml file of the same keys.")
]

# Sampling
ModelName = Annotated[str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m.")]
NumSamples = Annotated[int | None, typer.Option(help="Samples of each prompt.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option(help="1 is off.")]
TopK = Annotated[int | None, typer.Option(help="0 is off.")]
MaxTokens = Annotated[int | None, typer.Option(help="New tokens of a sample at most.")]
System = Annotated[
    str | None, typer.Option(help="System prompt; the paper's if not given, '' for none.")
]
Backend = Annotated[str, typer.Option(help="transformers or vllm.")]
SampleBatch = Annotated[
    int | None, typer.Option(help="Samples drawn at once, and stored together.")
]
TensorParallel = Annotated[int, typer.Option(help="GPUs that share the model (vllm).")]
SampleStore = Annotated[
    Path | None,
    typer.Option(help="Where finished samples are kept (build/samples)."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that grade answers.")]

# Any command
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Quiet = Annotated[bool, typer.Option(help="No progress bar.")]
Seed = Annotated[int, typer.Option(help="For everything random.")]
TrustCode = Annotated[bool, typer.Option(help="Run Python code that comes with the model.")]


def run(app: typer.Typer) -> None:
    """Run a command line: bad input is one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("lalp: %(message)s"))
    logging.getLogger("lalp").addHandler(handler)
    # Bars for reading local weights, and a line for every retry of the hub, say nothing new.
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except InputError as error:
        say(str(error))
        sys.exit(2)
    except OSError as error:
        say(f"{error.filename or 'file'}: {error.strerror or error}")
        sys.exit(2)
