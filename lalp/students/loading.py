"""Resolve names, distinguish versions, and explain why something cannot be loaded."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import cached_file

from lalp.errors import InputError, reason
from lalp.files import check_file, check_regular, file_digest, not_found

warn_once = cache(logging.getLogger("lalp").warning)

# The deepest models have about two hundred.
MOST_LAYERS = 10_000
# Bytes; the limit of the safetensors library.
_LONGEST_HEADER = 100_000_000
# Most tokens of a character; byte tokens make four.
_MOST_TOKENS = 16
# Places where splitting rules differ: digits, spaces, newlines, apostrophes, marks, scripts.
_PROBE = "Then  x² = 3;\n\n\t- É ﬁ e\u0301 我们 🙂 I'LL don't 12345\n\n1.\n  2. of"


def find_folder(what: str, name: str) -> Path | None:
    """The folder that ``name`` means, or None if it can only be a hub id.

    A path without a folder is an `InputError` that begins with ``what``.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        check_folder(path)
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        advice = "check the path, or give a hub id"
        raise InputError(f"{what} {name!r}: {not_found(path, 'folder', advice)}")
    return None


def check_folder(folder: Path) -> None:
    """Refuse a model's folder with a pipe (a library would wait for it) or a file too large."""
    for path in folder.iterdir():
        # Weights in safetensors are mapped, and may be larger than memory.
        check_regular(path) if path.suffix == ".safetensors" else check_file(path)


def check_safetensors(path: Path) -> None:
    """Refuse a file of weights whose header does not fit it, before the whole file is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise InputError(f"{path}: its header would have {length:,} bytes: the file is damaged")
        try:
            tensors = json.loads(file.read(length))
            ends = [tensors[name]["data_offsets"][1] for name in tensors if name[:2] != "__"]
            end = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: its header is damaged ({reason(error)})") from error
    if end != size:
        raise InputError(f"{path}: has {size:,} bytes where its header says {end:,}: it is damaged")


def check_num_layers(config: Any) -> None:
    """Refuse a number of layers that no model has, because building them would never end."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if not isinstance(layers, int) or not 0 <= layers <= MOST_LAYERS:
        raise InputError(f"its configuration says that it has {layers!r} layers")


def read_tokenizer(
    name: str, source: str, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; it reads texts by the rules of its ``tokenizer.json``.

    For some architectures, transformers builds the original model's tokenizer from the file's
    vocabulary and ignores the file's rules. Then the file's rules are used, with a message.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    path = cached_file(source, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if path is None or not type(tokenizer).__module__.startswith("transformers."):
        return tokenizer
    own = _read_probe(Tokenizer.from_file(path))
    if (number := len(own[0])) > _MOST_TOKENS * len(_PROBE):
        raise InputError(f"its tokenizer makes {number:,} tokens of {len(_PROBE)} characters")
    if not tokenizer.is_fast or _read_probe(tokenizer.backend_tokenizer) == own:
        return tokenizer
    plain = PreTrainedTokenizerFast.from_pretrained(source)
    if _read_probe(plain.backend_tokenizer) != own:
        raise InputError("its tokenizer.json and tokenizer_config.json do not read texts alike")
    warn_once(
        f"student {name!r}: transformers would split texts as its {type(tokenizer).__name__} does, "
        "which is not what its tokenizer.json says: the file's rules are taken"
    )
    return plain


def _read_probe(tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and offsets of a text with many kinds of characters."""
    tokenizer.no_padding()  # a file may ask for any
    tokenizer.no_truncation()
    read = tokenizer.encode(_PROBE, add_special_tokens=False)
    return read.ids, read.offsets


def folder_digest(folder: Path, suffixes: Collection[str], *, deep: bool = False) -> str:
    """A sha256 over names and contents of a folder's files that end in one of ``suffixes``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        if path.suffix in suffixes:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(bytes.fromhex(file_digest(path)))
    return digest.hexdigest()


@contextmanager
def unreadable(what: str, name: str, advice: str) -> Iterator[None]:
    """Turn any error that libraries raise on damaged files into one `InputError`.

    It reads ``WHAT 'NAME' cannot be loaded: reason. ADVICE``.
    """
    try:
        yield
    except InputError as error:
        if str(error).startswith(what):
            raise
        raise InputError(f"{what} {name!r} cannot be loaded: {error}. {advice}") from None
    except BaseException as error:
        # A panic in a Rust library is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} {name!r} cannot be loaded: {reason(error)}. {advice}") from error
