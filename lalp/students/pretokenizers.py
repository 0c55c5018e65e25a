"""How a GGUF file's tokenizer splits a text into words, by the name in the file.

A GGUF file holds a vocabulary and merges, but only the name of the rule that splits a text first.
transformers reads an unknown name as GPT-2's rule, and then the tokens are wrong.
"""

from __future__ import annotations

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from lalp.errors import InputError
from lalp.files import read_data

_DATA = read_data("students/pretokenizers.yaml")
_PATTERNS: dict[str, str] = _DATA["patterns"]
_SPLITS: dict[str, list[str]] = {
    name: split["patterns"] for split in _DATA["splits"] for name in split["names"]
}


def find_pre_tokenizer(name: str | None) -> PreTokenizer | None:
    """The pre-tokenizer of a byte-level GGUF tokenizer; None if transformers builds it itself.

    Raises:
        InputError: If the name is unknown, or the file has none.

    Example:
        >>> splitter = find_pre_tokenizer("smollm")
        >>> [word for word, _ in splitter.pre_tokenize_str("  1. So 25")]
        ['ĠĠ', '1', '.', 'ĠSo', 'Ġ', '2', '5']
    """
    if name in GGUF_PRE_TOKENIZER_SPLITS:
        return None
    if name not in _SPLITS:
        said = f"names a split into words, {name!r}, that is" if name else "names no split that is"
        raise InputError(
            f"the GGUF file {said} known here: give the folder of the model it was made from"
        )
    patterns = _SPLITS[name]
    steps = [
        ByteLevel(add_prefix_space=False)
        if pattern == "bytes"
        else Split(Regex(_PATTERNS[pattern]), behavior="isolated")
        for pattern in patterns
    ]
    if "bytes" not in patterns:
        steps.append(ByteLevel(add_prefix_space=False, use_regex=False))
    return Sequence(steps)
