"""Students: load a causal language model and its tokenizer; encode prompt and response once."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.assets import build_dir, student_gguf_path
from lalp.packed import PackedBody, pack_body, project
from lalp.records import InputError, Prompt

PACKAGED_STUDENT = "smollm2-135m"

# Raised when the conversion from GGUF changes, so that older conversions are not read any more.
_CONVERSION_VERSION = 1

# Columns of the vocabulary.
Columns = slice | Int[Tensor, "columns"]
_ALL = slice(None)


@dataclass(frozen=True)
class Student:
    """A causal LM before fine-tuning, split into a body and a head (paper: the student ``p``).

    Attributes:
        name: As the user named it.
        revision: Hub commit, or sha256 over the files of a folder.
        model: The transformers model, in eval mode.
        tokenizer: Its fast tokenizer.
        body: Model inputs to features ``[batch, pos, features]`` and the cache.
        head: Features ``[n, features]`` to logits ``[n, vocab]``, in memory of their own; with a
            slice or indices of the vocabulary as second argument, to these columns.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    body: Callable[..., tuple[Tensor, Any]]
    head: Callable[..., Tensor]

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    @cached_property
    def packed(self) -> PackedBody | None:
        """The body for packed rows, where the model has that form and is on a CPU.

        Made when rows are first read, for it lays the model's weights out anew.
        """
        return None if self.head is take_logits else pack_body(self.model)

    @property
    def max_positions(self) -> int:
        """Longest sequence that the model's positions allow."""
        return max_positions(self.model.config)


@dataclass(frozen=True)
class Encoded:
    """A prompt and one response, tokenized together.

    Attributes:
        prompt_ids: Chat template with the generation prompt added.
        response_ids: The response's own tokens, no end-of-turn token.
        offsets: Character span of each response token in the response text.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


def max_positions(config: Any) -> int:
    """``max_position_embeddings`` of a model config; unlimited where a model has no positions."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def load_student(
    name: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Student:
    """Load a student by name.

    Args:
        name: ``smollm2-135m`` (packaged), a ``.gguf`` file, a local folder, or a hub id.
        device: Defaults to a GPU where there is one.
        dtype: Defaults to float32 on the CPU and bfloat16 on a GPU.
        trust_remote_code: Run Python code that comes with the model; off unless asked for.

    Raises:
        InputError: If nothing loads under that name, weights are missing, the tokenizer gives no
            offsets, or the device cannot be used.
    """
    device = usable_device(device)
    dtype = dtype or default_dtype(device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    source = locate_student(name)
    options = {"trust_remote_code": trust_remote_code}
    tokenizer = load_tokenizer(name, source, **options)
    with _unreadable(name):
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, **options
        )
    if info["missing_keys"]:
        # transformers would only warn, and the scores would be those of random weights.
        raise InputError(
            f"student {name!r} cannot be loaded: its files lack the weights "
            f"{min(info['missing_keys'])}: give the files of a causal language model"
        )
    model = model.to(device)
    return make_student(model, tokenizer, name=name, revision=revision(source, model.config))


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks: activations are freed and asked for again at every layer.

    By default each large block goes back to the system and is zeroed page by page when it is next
    needed, which costs a tenth to a fifth of a forward pass on the CPU. It holds for the process.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_threshold, arena_max = -1, -3, -8
            mallopt(mmap_threshold, 1 << 25)  # the most that glibc takes
            mallopt(trim_threshold, 1 << 30)
            # Threads would otherwise take small arenas of their own, which do give blocks back.
            # Set early, for a thread also takes an arena that another (that loads) has left.
            mallopt(arena_max, 1)


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: str | None) -> str:
    """The device asked for, else the default one.

    Raises:
        InputError: If there is no such device here.
    """
    name = device or default_device()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} cannot be used ({reason}): give cpu or cuda") from error
    return name


def default_dtype(device: str) -> torch.dtype:
    """float32 on the CPU, bfloat16 elsewhere."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def make_student(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, revision: str
) -> Student:
    """Wrap a model that is already in memory."""
    model = model.eval()
    body, head = _split_model(model)
    return Student(name, revision, model, tokenizer, body, head)


def load_tokenizer(
    name: str, source: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a student's tokenizer alone.

    Raises:
        InputError: If there is none, or it is not a fast one (offsets are needed).
    """
    source = source or locate_student(name)
    with _unreadable(name):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise InputError(
            f"student {name!r}: its tokenizer gives no character offsets, which steps need: "
            "use a model with a fast tokenizer (tokenizer.json)"
        )
    return tokenizer


def load_config(name: str, *, trust_remote_code: bool = False) -> Any:
    """Load a student's configuration alone.

    Raises:
        InputError: If there is none.
    """
    source = locate_student(name)
    with _unreadable(name):
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def locate_student(name: str) -> str:
    """Folder or hub id to load ``name`` from; a GGUF file is converted to safetensors once.

    Raises:
        InputError: If a path is given and nothing is there.
    """
    if name == PACKAGED_STUDENT:
        return str(_convert_gguf(student_gguf_path()))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"student {name!r}: no such GGUF file: check the path")
        return str(_convert_gguf(path))
    if path.is_dir():
        return str(path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(f"student {name!r}: no such folder: check the path, or give a hub id")
    return name


def revision(source: str, config: Any) -> str:
    """Hub commit of a downloaded model, else a sha256 over the folder's files."""
    commit = getattr(config, "_commit_hash", None)
    if commit and not Path(source).is_dir():
        return commit
    digest = hashlib.sha256()
    for path in sorted(Path(source).iterdir()):
        if path.suffix in {".json", ".safetensors", ".bin", ".jinja", ".model", ".txt", ".py"}:
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text before the response: chat template, generation prompt added.

    A tokenizer without a chat template (a base model) gets the messages' texts, each followed by
    a blank line, after its beginning-of-sequence token if it uses one.

    Raises:
        InputError: If the chat template refuses the prompt, for example its system message.
    """
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    if tokenizer.chat_template:
        try:
            return tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError) as error:
            raise InputError(
                f"prompt {prompt.prompt_id!r}: the student's chat template refuses it ({error}): "
                "change its messages' roles, or take another student"
            ) from error
    first = tokenizer("a").input_ids[0]
    start = tokenizer.bos_token if first == tokenizer.bos_token_id and tokenizer.bos_token else ""
    return start + "".join(message["content"] + "\n\n" for message in messages)


def encode(tokenizer: PreTrainedTokenizerBase, prompt_text: str, response: str) -> Encoded:
    """Tokenize prompt and response in one go, so that no window sees another tokenization.

    A token belongs to the response if its first non-space character does.
    """
    text = prompt_text + response
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    boundary = len(prompt_text)
    offsets = [tuple(span) for span in tokens["offset_mapping"]]
    first = next(
        (i for i, span in enumerate(offsets) if _first_character(text, span) >= boundary),
        len(offsets),
    )
    return Encoded(
        tuple(tokens["input_ids"][:first]),
        tuple(tokens["input_ids"][first:]),
        tuple((max(0, start - boundary), end - boundary) for start, end in offsets[first:]),
    )


def assign_steps(
    text: str, offsets: Sequence[tuple[int, int]], steps: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Token span of each step: a token belongs to the step of its first non-space character.

    The spans partition the tokens; a step that no token begins in has an empty span.
    """
    spans, token = [], 0
    for _, end in steps:
        first = token
        while token < len(offsets) and _first_character(text, offsets[token]) < end:
            token += 1
        spans.append((first, token))
    return spans


def _first_character(text: str, span: tuple[int, int]) -> int:
    start, end = span
    return next((i for i in range(start, end) if not text[i].isspace()), start)


def _split_model(
    model: PreTrainedModel,
) -> tuple[Callable[..., tuple[Tensor, Any]], Callable[..., Tensor]]:
    """Body and head whose composition reproduces the model's own logits.

    Some models cap or scale their logits after the head. Which form applies is checked on a few
    tokens; where none fits, the body is the whole model and the head does nothing.
    """

    def features(**inputs: Any) -> tuple[Tensor, Any]:
        outputs = model.base_model(**inputs)
        return outputs.last_hidden_state, getattr(outputs, "past_key_values", None)

    def logits(**inputs: Any) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        return outputs.logits, getattr(outputs, "past_key_values", None)

    linear = model.get_output_embeddings()
    if type(linear) is not nn.Linear:
        return logits, take_logits
    probe = torch.arange(4, device=model.device)[None]
    tolerance = 1e-5 if model.dtype == torch.float32 else 3e-2
    with torch.inference_mode():
        expected = model(input_ids=probe).logits[0].float()
        raw = linear(features(input_ids=probe)[0][0]).float()
    for finish in _finishers(model, raw, expected):
        if torch.allclose(finish(raw), expected, rtol=tolerance, atol=tolerance):
            return features, partial(_compute_logits, linear, finish)
    return logits, take_logits


def _compute_logits(
    linear: nn.Linear,
    finish: Callable[[Tensor], Tensor],
    features: Float[Tensor, "n features"],
    columns: Columns = _ALL,
) -> Float[Tensor, "n columns"]:
    bias = None if linear.bias is None else linear.bias[columns].detach()
    return finish(project(features, linear.weight[columns].detach(), bias).float())


def take_logits(
    logits: Float[Tensor, "n vocab"], columns: Columns = _ALL
) -> Float[Tensor, "n columns"]:
    """The head of a student whose body is the whole model: a copy in float32."""
    return logits[:, columns].to(torch.float32, copy=True)


def _finishers(
    model: PreTrainedModel,
    raw: Float[Tensor, "pos vocab"],
    expected: Float[Tensor, "pos vocab"],
) -> list[Callable[[Tensor], Tensor]]:
    """Forms that logits may take after the head, most specific first."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap:
        return [lambda x: cap * torch.tanh(x / cap)]
    scale = float((raw * expected).sum() / (raw * raw).sum())
    return [lambda x: x, lambda x: x * scale]


def _convert_gguf(gguf: Path) -> Path:
    """Folder with the GGUF file's weights as float32 safetensors, written once.

    Reading GGUF takes a quarter of a minute each time, and quantized files are not memory-mapped.
    """
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = build_dir() / "students" / f"{gguf.stem}-{digest[:12]}-v{_CONVERSION_VERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        _write_safetensors(gguf, work)
        work.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster, and wrote the same
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _write_safetensors(gguf: Path, folder: Path) -> None:
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with _unreadable(str(gguf)):
        tokenizer = AutoTokenizer.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantized.config
    # The weights are plain floats by now; transformers refuses to save what still says otherwise.
    del config.quantization_config
    config._name_or_path = gguf.stem
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _unreadable(name: str) -> Iterator[None]:
    """Say which student cannot be loaded; what the libraries raise on damaged files is anything."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".: ")
        raise InputError(
            f"student {name!r} cannot be loaded: {reason}. Give {PACKAGED_STUDENT}, a folder, a "
            "GGUF file, or the id of a causal language model on the hub"
        ) from error
