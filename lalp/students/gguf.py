"""Students in GGUF files, converted once to safetensors."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lalp.errors import InputError
from lalp.files import build_dir

PACKAGED_STUDENT = "smollm2-135m"

# Raised when the conversion from GGUF changes, so that older conversions are not read any more.
_CONVERSION_VERSION = 1


def convert_gguf(gguf: Path) -> Path:
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
    with unreadable(str(gguf)):
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
def unreadable(name: str) -> Iterator[None]:
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
