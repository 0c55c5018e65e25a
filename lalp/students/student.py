"""Students: load a causal language model, its tokenizer and its configuration."""

from __future__ import annotations

import copy
import ctypes
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.assets import student_gguf_path
from lalp.errors import InputError, did_you_mean, likeliest, reason
from lalp.files import not_found
from lalp.students.checks import check_causal, check_positions, check_weights
from lalp.students.encoding import tokenizer_notes
from lalp.students.gguf import (
    ADVICE,
    PACKAGED_STUDENT,
    convert_gguf,
    converted_folder,
    read_gguf_header,
)
from lalp.students.heads import leaves_tensors, split_model
from lalp.students.loading import (
    check_num_layers,
    check_safetensors,
    find_folder,
    folder_digest,
    read_tokenizer,
    unreadable,
    warn_once,
)
from lalp.students.rotary import Frequencies, frequencies_for, read_frequencies

log = logging.getLogger("lalp")

# Files that decide a student's behaviour.
_CONTENT = {".json", ".safetensors", ".bin", ".jinja", ".model", ".txt", ".py"}


@dataclass(frozen=True)
class Student:
    """A causal LM before fine-tuning, split into a body and a head (paper: the student ``p``)."""

    name: str  # the user's name for it
    revision: str  # hub commit, or sha256 over the files of a folder
    model: PreTrainedModel  # in eval mode
    tokenizer: PreTrainedTokenizerBase  # a fast one
    # Model inputs to features ``[batch, pos, features]`` and the cache.
    body: Callable[..., tuple[Tensor, Any]]
    # Features ``[n, features]`` to logits ``[n, vocab]``, in their own memory; with a slice or
    # indices of the vocabulary as second argument, only these columns.
    head: Callable[..., Tensor]
    # Whether a pass with a cache leaves tensors in the model itself, as RecurrentGemma's does.
    keeps_state: bool = False
    # Data that a scoring engine keeps for this student, such as rearranged weights.
    laid_out: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """The device of inputs."""
        return self.model.device

    @cached_property
    def head_device(self) -> torch.device:
        """The device of the head, which may differ from the inputs'."""
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        return self.device if weight is None or weight.is_meta else weight.device

    @property
    def max_positions(self) -> int:
        """Longest sequence that the model's positions allow."""
        return max_positions(self.model.config)

    @cached_property
    def vocabulary(self) -> int:
        """Token ids below this are the model's; a tokenizer may give others."""
        return vocabulary_size(self.model)

    @cached_property
    def frequencies(self) -> Frequencies:
        """How its rotary frequencies depend on the length of a pass; most students' do not."""
        return read_frequencies(self.model.config)

    def at_length(self, length: int) -> AbstractContextManager[None]:
        """Meanwhile, every pass is read as part of a pass of ``length`` tokens."""
        return frequencies_for(self.model, length) if self.frequencies else nullcontext()


def vocabulary_size(model: PreTrainedModel) -> int:
    """As `Student.vocabulary`."""
    stated = getattr(model.config.get_text_config(), "vocab_size", None) or 0
    weight = model.get_input_embeddings().weight
    # If processes share a model, a weight is a flat part of itself.
    return max(stated, len(weight) if weight.ndim == 2 else 0) or sys.maxsize


def max_positions(config: Any) -> int:
    """``max_position_embeddings`` of a model config; unlimited if a model has no positions.

    Some configurations say -1 for no limit.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    return positions if positions > 0 else sys.maxsize


@dataclass(frozen=True)
class FoundStudent:
    """A student whose weights are not read yet: enough for plans, keys and checks."""

    name: str  # the user's name for it
    source: str  # folder or hub id of its files
    config: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device  # device for its weights
    dtype: torch.dtype
    trust_remote_code: bool = False
    loaded: Student | None = None  # the student, if its weights are already in memory
    is_spread: bool = False  # whether its layers use all GPUs; ``device`` is the first of them

    @property
    def max_positions(self) -> int:
        """Longest sequence that the model's positions allow."""
        return max_positions(self.config)

    @property
    def device_name(self) -> str:
        """``cpu``, or the name of the card."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            return f"{torch.cuda.device_count()} x {name}" if self.is_spread else name
        return self.device.type

    @property
    def attention(self) -> str:
        """The attention kernel, such as ``sdpa``; transformers chooses it for a new model."""
        if self.loaded is not None:
            return str(self.loaded.model.config._attn_implementation)
        options = {"dtype": self.dtype, "trust_remote_code": self.trust_remote_code}
        advice = _advice(self.name, self.source)
        # On the device "meta", without weights.
        with unreadable("student", self.name, advice), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), **options)
        return str(model.config._attn_implementation)

    @cached_property
    def revision(self) -> str:
        """As in `Student`; it reads every byte of a folder, so it is computed only on request."""
        return self.loaded.revision if self.loaded else revision(self.source, self.config)

    def load(self) -> Student:
        """Read the weights; InputError if they do not belong to a causal language model."""
        if self.loaded is not None:
            return self.loaded
        if self.device.type == "cpu":
            keep_freed_memory()
        spread = {"device_map": "auto"} if self.is_spread else {}
        model = load_model(
            self.name, self.source, self.dtype, trust_remote_code=self.trust_remote_code, **spread
        )
        if self.is_spread:
            check_spread(model, self.name)
        else:
            model = model.to(self.device)
        with unreadable("student", self.name, ADVICE):
            return make_student(model, self.tokenizer, name=self.name, revision=self.revision)


def find_student(
    student: str | Student | FoundStudent,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    convert: bool = True,
) -> FoundStudent:
    """Read a student's configuration and tokenizer; arguments and errors as in `load_student`.

    A loaded or found student is returned as it is. Without ``convert``, a GGUF file that was not
    converted before stays so: only its header is read, and its weights cannot be loaded.
    """
    if isinstance(student, FoundStudent | Student):
        own = student.dtype if isinstance(student, FoundStudent) else student.model.dtype
        if dtype not in (None, own):
            loaded = (
                f"student {student.name!r} is there in {str(own).removeprefix('torch.')} already"
            )
            raise InputError(f"{loaded}: give its name, to read it in another dtype")
    if isinstance(student, FoundStudent):
        return student
    if isinstance(student, Student):
        return FoundStudent(
            name=student.name,
            source=student.name,
            config=student.model.config,
            tokenizer=student.tokenizer,
            device=student.device,
            dtype=student.model.dtype,
            loaded=student,
        )
    # With at most one GPU, one device holds all layers anyway.
    is_spread = device == "auto" and torch.cuda.device_count() > 1
    device = usable_device(None if device == "auto" else device)
    gguf = None if convert else _unconverted(student)
    source = str(gguf or locate_student(student))
    with unreadable("student", student, _advice(student, source)):
        if gguf:
            config, tokenizer = read_gguf_header(gguf)
        else:
            tokenizer = load_tokenizer(student, source, trust_remote_code=trust_remote_code)
            config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        check_num_layers(config)
    return FoundStudent(
        name=student,
        source=source,
        config=config,
        tokenizer=tokenizer,
        device=torch.device(device),
        dtype=dtype or _default_dtype(device),
        trust_remote_code=trust_remote_code,
        is_spread=is_spread,
    )


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
        device: ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` spreads the layers over all GPUs. Defaults
            to a GPU if there is one.
        dtype: Defaults to float32 on the CPU and bfloat16 on a GPU.
        trust_remote_code: Run Python code that comes with the model; off unless asked for.

    Raises:
        InputError: If nothing loads under that name, weights are missing or left over, predictions
            depend on later tokens, the tokenizer gives no offsets, or the device cannot be used.

    Example:
        >>> load_student("./no-such-folder", device="cpu")  # "smollm2-135m" needs no download
        Traceback (most recent call last):
        lalp.errors.InputError: student './no-such-folder': no such folder: check the path...
    """
    options = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    return find_student(name, **options).load()


def check_spread(model: PreTrainedModel, name: str) -> None:
    """InputError if accelerate left some of a model's layers outside the GPUs' memory."""
    devices = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    if outside := sorted(devices & {"cpu", "disk"}):
        raise InputError(
            f"student {name!r}: the GPUs do not hold all of its layers, some would lie on "
            f"{' and '.join(outside)}: take more GPUs, or --dtype bfloat16"
        )


def load_model(
    name: str,
    source: str,
    dtype: torch.dtype,
    *,
    trust_remote_code: bool = False,
    device_map: str | None = None,
) -> PreTrainedModel:
    """Load only a student's weights; with ``device_map``, over several devices by accelerate.

    InputError if weights cannot be read, are missing, or are left over for its layers.
    """
    with unreadable("student", name, _advice(name, source)):
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            device_map=device_map,
        )
    check_weights(model, info, name)
    return model


def _advice(name: str, source: str) -> str:
    """What to do about a student that cannot be loaded from a folder or the hub."""
    if source != str(Path(name).expanduser()) and Path(source).is_dir():
        return f"Delete {source}, which was made from its GGUF file, and run again"
    beside = []
    if not Path(name).expanduser().exists():
        with suppress(OSError):
            beside = sorted(each.name for each in Path().iterdir() if each.is_dir())
    meant = likeliest(name, [PACKAGED_STUDENT, *beside])
    return f"{meant[:1].upper()}{meant[1:]} {ADVICE}" if meant else ADVICE


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks: every layer frees activations and asks for them again.

    By default, each large block goes back to the system and is zeroed page by page at its next use.
    This costs a tenth to a fifth of a forward pass on the CPU. The setting holds for the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8
        mallopt(mmap_threshold, 1 << 25)  # the most that glibc accepts
        mallopt(trim_threshold, 1 << 30)
        # Otherwise threads would use small arenas of their own, which give blocks back. It must be
        # set before weights are loaded, because loading threads leave their arenas behind, and
        # others take them.
        mallopt(arena_max, 1)


def default_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: str | None) -> str:
    """The requested device, else the default one; InputError if it does not exist here."""
    name = device or default_device()
    try:
        torch.zeros(1, device=name).item()  # the device "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used ({reason(error)}): give cpu or cuda"
        ) from error
    return name


DTYPES = ("float32", "bfloat16", "float16")


def parse_dtype(name: str) -> torch.dtype:
    """The precision of a student's weights by its name, as `DTYPES` lists them.

    Example:
        >>> parse_dtype("bfloat16")
        torch.bfloat16
    """
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known: {did_you_mean(name, DTYPES)}")
    return getattr(torch, name)


def _default_dtype(device: str) -> torch.dtype:
    """float32 on the CPU, bfloat16 elsewhere."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def make_student(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, revision: str
) -> Student:
    """Wrap a model that is already in memory; InputError if it cannot be scored as it is."""
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    # transformers accepts it for a number of tokens; code that comes with a model may not.
    if window < 0 and type(model).__module__.startswith("transformers."):
        advice = "set it to null in config.json for a model without a window, else to its tokens"
        raise InputError(f"student {name!r}: its sliding_window is {window}: {advice}")
    model = model.eval()
    check_causal(model, name)
    check_positions(model, name)
    body, head = split_model(model)
    state = leaves_tensors(model, body)
    return Student(name, revision, model, tokenizer, body, head, keeps_state=state)


def load_tokenizer(
    name: str, source: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load only a student's tokenizer; InputError if there is none that gives offsets.

    Notes for the user (`tokenizer_notes`) are logged once per process.
    """
    source = source or locate_student(name)
    with unreadable("student", name, _advice(name, source)):
        tokenizer = read_tokenizer(name, source, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        why = "its tokenizer gives no character offsets, which steps need"
        advice = "use a model with a fast tokenizer (tokenizer.json)"
        raise InputError(f"student {name!r}: {why}: {advice}")
    for note in tokenizer_notes(tokenizer):
        warn_once(f"student {name!r}: {note}")
    return tokenizer


def locate_student(name: str) -> str:
    """Folder or hub id to load ``name`` from; a GGUF file is converted to safetensors once."""
    if gguf := _gguf_file(name):
        return str(convert_gguf(gguf))
    folder = find_folder("student", name)
    if folder and not any(folder.glob("*.json")):  # config.json, or the files of a tokenizer alone
        advice = "give the folder that save_pretrained, or lalp train, wrote"
        raise InputError(f"student {name!r}: the folder holds no config.json: {advice}")
    return str(folder or name)


def _gguf_file(name: str) -> Path | None:
    """The GGUF file that a student's name means, if any."""
    if name == PACKAGED_STUDENT:
        return student_gguf_path()
    path = Path(name).expanduser()
    if path.suffix != ".gguf":
        return None
    if not path.is_file():
        raise InputError(f"student {name!r}: {not_found(path, 'GGUF file')}")
    return path


def _unconverted(name: str) -> Path | None:
    """The GGUF file that a name means, unless it was converted before."""
    gguf = _gguf_file(name)
    return gguf if gguf and not converted_folder(gguf).is_dir() else None


def revision(source: str, config: Any) -> str:
    """Hub commit of a downloaded model, else a sha256 over the folder's files."""
    commit = getattr(config, "_commit_hash", None)
    if commit and not Path(source).is_dir():
        return commit
    for path in sorted(Path(source).glob("*.safetensors")):
        check_safetensors(path)
    return folder_digest(Path(source), _CONTENT)
