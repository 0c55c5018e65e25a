"""Students in GGUF files, converted once to safetensors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import get_gguf_tokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.files import atomic_folder, cache_dir, check_file, file_digest, use_until_exit
from lalp.students.checks import check_weights
from lalp.students.gguf_header import check_gguf
from lalp.students.loading import MOST_LAYERS, check_folder, unreadable
from lalp.students.pretokenizers import find_pre_tokenizer

log = logging.getLogger("lalp")

PACKAGED_STUDENT = "smollm2-135m"
# What to do about a student that cannot be loaded.
ADVICE = (
    f"Give {PACKAGED_STUDENT}, a folder, a GGUF file, or the id of a causal language model on the "
    "hub"
)

# Increase it when the conversion from GGUF changes, so that older conversions are ignored.
_CONVERSION_VERSION = 2


def convert_gguf(gguf: Path) -> Path:
    """Folder with the GGUF file's weights as float32 safetensors, written once.

    Reading GGUF takes a quarter of a minute each time, and quantized files are not memory-mapped.
    """
    target = converted_folder(gguf)
    if target.is_dir():
        check_folder(target)
    else:
        with atomic_folder(target) as folder:
            _write_safetensors(gguf, folder)
        size = sum(path.stat().st_size for path in target.iterdir()) / 2**20
        log.warning("%s is kept as %.0f MiB in %s (see lalp cache)", gguf.name, size, target)
    use_until_exit(target)
    return target


def converted_folder(gguf: Path) -> Path:
    """Where `convert_gguf` keeps its result for a GGUF file; the file's header is checked."""
    with unreadable("student", str(gguf), ADVICE):
        check_file(gguf)  # before the whole file is read
        check_gguf(gguf, MOST_LAYERS)
    name = f"{gguf.stem}-{file_digest(gguf)[:12]}-v{_CONVERSION_VERSION}"
    return cache_dir() / "students" / name


def read_gguf_header(gguf: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Configuration and tokenizer of a GGUF file, for plans: no weights are read."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers parses the header again, for ten seconds, to find facts that are already known.
    is_known = TOKENIZER_MAPPING_NAMES.get(config.model_type) is not None
    return config, _read_tokenizer(gguf, config.model_type if is_known else None)


def _read_tokenizer(gguf: Path, model_type: str | None = None) -> PreTrainedTokenizerBase:
    source = {"gguf_file": gguf.name, "tokenizer_type": model_type}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    _, described, _ = get_gguf_tokenizer(str(gguf))
    if described["tokenizer_type"] == "gpt2":
        splitter = find_pre_tokenizer(described.get("pre_tokenizer_type"))
        if splitter is not None:
            tokenizer.backend_tokenizer.pre_tokenizer = splitter
    return tokenizer


def _write_safetensors(gguf: Path, folder: Path) -> None:
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with unreadable("student", str(gguf), ADVICE):
        tokenizer = _read_tokenizer(gguf)
        options = {"dtype": torch.float32, "output_loading_info": True}
        quantized, found = AutoModelForCausalLM.from_pretrained(**source, **options)
    check_weights(quantized, found, str(gguf))
    config = quantized.config
    # The weights are plain floats now; transformers refuses to save a model that says otherwise.
    del config.quantization_config
    config._name_or_path = gguf.stem
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
