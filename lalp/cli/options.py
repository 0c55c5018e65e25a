"""Code that the commands of `lalp` share: arguments, options, and how to run a command line."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from lalp.cli.printing import is_main_process, say
from lalp.errors import InputError, one_line
from lalp.origins import SUFFIX, write_beside
from lalp.pools.writing import FOLDER_FILES, JSON_LINES, TRAINING_FORMATS

if TYPE_CHECKING:
    from lalp.sampling.settings import Sampling

# Files to read
PoolFile = Annotated[
    str, Argument(metavar="POOL", help="Responses, in any layout that lalp import reads.")
]
ScoresFile = Annotated[str, Argument(metavar="SCORES", help="Table written by lalp score.")]
_PROMPTS = (
    "Records with prompt and (to verify) answer, or a pool, in any file that lalp import reads."
)
PromptsFile = Annotated[str, Argument(metavar="PROMPTS", help=_PROMPTS)]
TrainingFile = Annotated[str, Argument(metavar="DATA", help="JSONL written by lalp select.")]

# Scoring and training
StudentName = Annotated[str, Option(help="Hub id, folder, GGUF file, or smollm2-135m (packaged).")]
WINDOWS_HELP = "Window: steps (4), a share (25%), tokens (256t), or all; repeatable."
Windows = Annotated[list[str] | None, Option("--window", help=WINDOWS_HELP)]
SPLITTERS = (
    "sentences, paragraphs, semantic, turns, 32t (that many student tokens), or a file of steps"
)
Splitter = Annotated[str, Option(help=f"How responses are cut into steps: {SPLITTERS}.")]
_THINKING = "join: as the student's template does; only: the thought alone; drop: no thought."
Thinking = Annotated[str, Option(help=_THINKING)]
_RECIPES = "paper, paper-32b, terciles, or a .yaml file with the same keys."
RecipeName = Annotated[str, Option(help=_RECIPES)]
FORMATS = ", ".join(TRAINING_FORMATS)
ModelName = Annotated[str, Option(help="Hub id, folder, GGUF file, or smollm2-135m.")]

# Any command
AsJson = Annotated[bool, Option("--json", help="Print JSON for programs.")]
_DTYPE = "float32 (default on a CPU), bfloat16 (default on a GPU) or float16."
DType = Annotated[str | None, Option("--dtype", help=_DTYPE)]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1, or auto (layers over all GPUs).")]
Quiet = Annotated[bool, Option(help="Show no progress bar.")]
# The range of seeds that both numpy and torch accept.
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="Seed for everything random.")]
TrustCode = Annotated[bool, Option(help="Run Python code that comes with the model.")]

_Parents = Annotated[bool, Option("--parents", help="Create the missing folders of --out.")]

# Sampling
_SYSTEM = "System prompt; default: the paper's; '' for none."
_STORE = "Folder where finished samples are kept (see lalp cache)."


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How a model answers prompts: options that `lalp sample` and `lalp eval` share."""

    num_samples: Annotated[int | None, Option(help="Samples per prompt.")] = None
    temperature: Annotated[float | None, Option(help="0 is greedy.")] = None
    top_p: Annotated[float | None, Option(help="1 is off.")] = None
    top_k: Annotated[int | None, Option(help="0 is off.")] = None
    max_tokens: Annotated[int | None, Option(help="Maximum new tokens per sample.")] = None
    system: Annotated[str | None, Option(help=_SYSTEM)] = None
    backend: Annotated[str, Option(help="transformers, vllm, or ray (vLLM on a cluster).")] = (
        "transformers"
    )
    batch_size: Annotated[int | None, Option(help="Samples drawn and stored at once.")] = None
    tensor_parallel: Annotated[int, Option(help="GPUs per copy of the model (vllm, ray).")] = 1
    store: Annotated[Path | None, Option(help=_STORE)] = None
    workers: Annotated[int, Option(min=1, help="Processes that grade answers.")] = 2
    seed: Seed = 0
    device: Device = None
    trust_remote_code: TrustCode = False
    quiet: Quiet = False

    def sampling(self, preset: str | None) -> Sampling:
        """The preset's settings; options that are given replace single values."""
        from lalp.sampling.settings import choose_sampling

        names = ("num_samples", "temperature", "top_p", "top_k", "max_tokens")
        return choose_sampling(preset, self.seed, {name: getattr(self, name) for name in names})

    def keywords(self) -> dict[str, Any]:
        """All other options, as keyword arguments of `sample_pool` and `evaluate`."""
        same = ("store", "backend", "batch_size", "tensor_parallel", "device", "trust_remote_code")
        renamed = {"system_prompt": self.system, "num_workers": self.workers}
        return {name: getattr(self, name) for name in same} | renamed | {"progress": not self.quiet}


def with_sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command's parameter ``how``, a `SamplingOptions`, into one option for each field."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(SamplingOptions, eval_str=True).parameters

    @wraps(command)
    def run_command(**given: Any) -> None:
        how = SamplingOptions(**{name: given.pop(name) for name in shared})
        command(**given, how=how)

    # Typer reads a command's options from its signature.
    parameters = [*(own[name] for name in own if name != "how"), *shared.values()]
    keyword_only = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters]
    run_command.__signature__ = inspect.Signature(keyword_only)
    return run_command


def writes_out(command: Callable[..., None]) -> Callable[..., None]:
    """Check ``--out`` before the command reads anything, and say how to continue if it is stopped.

    An output that is also an input is refused, because the input would be lost. An output in a
    missing folder is refused too, because its name is probably misspelt. ``--parents`` allows it.
    """
    own = inspect.signature(command, eval_str=True).parameters

    @wraps(command)
    def run_command(*, parents: bool, **given: Any) -> None:
        others = (value for name, value in given.items() if name != "out")
        _check_place(given["out"], others, parents)
        try:
            command(**given)
        except KeyboardInterrupt:
            say("stopped: the same command goes on from what is finished")
            sys.exit(128 + signal.SIGINT)

    extra = Parameter("parents", Parameter.KEYWORD_ONLY, default=False, annotation=_Parents)
    parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own.values()] + [extra]
    run_command.__signature__ = inspect.Signature(parameters)
    run_command.writes_out = True
    return run_command


def _check_place(out: Path | None, others: Iterable[Any], parents: bool) -> None:
    """Refuse an output that would overwrite an input, or whose folder is missing."""
    if out is None:
        return
    parent = out.absolute().parent
    if not (parents or parent.exists()):
        raise InputError(f"--out {out}: there is no folder {parent}: make it, or add --parents")
    written = [out, Path(f"{out}{SUFFIX}"), *(out / name for name in FOLDER_FILES)]
    for value in others:
        for other in value if isinstance(value, list) else [value]:
            if isinstance(other, str | Path) and any(_is_same(path, other) for path in written):
                raise InputError(f"--out {out}: is read too, and would be lost: give another name")


def _is_same(path: Path, other: str | Path) -> bool:
    """Whether both are the same file or folder; not if one of them does not exist."""
    with suppress(OSError, ValueError):
        return path.samefile(other)
    return False


def check_out(out: Path, what: str, *suffixes: str) -> None:
    """Refuse an output that is a folder or has a wrong suffix, before anything is computed."""
    if out.suffix not in suffixes or out.is_dir():
        names = " or ".join(suffixes)
        raise InputError(f"--out {out}: {what}: give a name in {names}, no folder")


def say_origin(out: Path, fmt: str, facts: Mapping[str, Any]) -> None:
    """Write a file beside a training file that says where it comes from."""
    write_beside(out / "train.json" if fmt == "llamafactory" else out, facts)


def check_training_out(out: Path, fmt: str) -> None:
    """`check_out` for a training file: a folder for LLaMA-Factory, else JSONL."""
    if fmt != "llamafactory":
        check_out(out, f"training data as {fmt} is JSONL", *JSON_LINES)
    elif out.is_file():
        raise InputError(f"--out {out}: is a file; LLaMA-Factory's data need a folder")


def run(app: Typer) -> None:
    """Run a command line; bad input gives one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("lalp: %(message)s"))
    # If several processes read the same input, each of them would log the same messages.
    handler.addFilter(lambda _: is_main_process())
    logging.getLogger("lalp").addHandler(handler)
    # Progress bars for local weights, and a line for every retry of the hub, tell the user nothing.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # torch warns about a file of weights, and then refuses the file anyway.
    warnings.filterwarnings("ignore", module=r"torch\._weights_only_unpickler")
    warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
    try:
        app()
    except InputError as error:
        say(one_line(str(error)))
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        # torch reports a lack of memory in different ways for a CPU and for a GPU.
        if str(error).startswith(("Symlink loop", "Could not determine home")):  # by pathlib
            say(one_line(str(error)))
            sys.exit(2)
        is_memory = "allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError"
        if not (is_memory or isinstance(error, MemoryError)):
            raise
        say("not enough memory: give a smaller file or model, or a machine with more")
        sys.exit(2)
    except OSError as error:  # such as a full disk or a missing permission, not a bug
        say(one_line(f"{error.filename or 'file'}: {error.strerror or error}"))
        sys.exit(2)


def run_main(command: Callable[..., None]) -> None:
    """Run a program that consists of one command."""
    app = Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run(app)
