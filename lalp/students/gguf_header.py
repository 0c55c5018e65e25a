"""Whether a GGUF file's header can be trusted: every count and place is within the file.

Library readers trust it, and loop or allocate as much as it says.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

from lalp.errors import InputError

# Bytes of a value, by the number of its type; texts and arrays state their own.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9
_DEEPEST = 4  # arrays in arrays; real files have none
_MOST_DIMENSIONS = 4  # ggml's own
# Lower bounds: a key has a length, a type and a value; a tensor two lengths, a type and a place.
_KEY_BYTES, _TENSOR_BYTES = 13, 24


@dataclass
class _Header:
    """A file's bytes and the next place to read."""

    data: mmap.mmap
    place: int = 0

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.place:
            raise InputError(f"its header promises {size:,} bytes where the file ends")
        self.place += size

    def number(self, form: str) -> int:
        start = self.place
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, start)[0]

    def count(self, what: str, smallest: int) -> int:
        found = self.number("<Q")
        if found * smallest > len(self.data):
            raise InputError(f"its header promises {found:,} {what}, more than the file can hold")
        return found

    def text(self) -> bytes:
        size = self.number("<Q")
        start = self.place
        self.skip(size)
        return self.data[start : start + size]

    def value(self, kind: int, depth: int = 0) -> int | None:
        """Step over a value; a whole number is returned."""
        if kind == _TEXT:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY:
            if depth == _DEEPEST:
                raise InputError("its header nests arrays too deeply")
            inner = self.number("<I")
            count = self.count("values", _SIZES.get(inner, 8))
            if inner in _SIZES:
                self.skip(count * _SIZES[inner])
            else:
                for _ in range(count):
                    self.value(inner, depth + 1)
        elif kind not in _SIZES:
            raise InputError(f"its header has a value of an unknown type ({kind})")
        elif kind in (4, 10):
            return self.number("<I" if kind == 4 else "<Q")
        else:
            self.skip(_SIZES[kind])
        return None


def check_gguf(path: Path, most_layers: int) -> None:
    """Refuse a GGUF file whose header is damaged or malicious; InputError says how.

    It reads the counts, the lengths and the tensors' places, not the weights.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise InputError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(_Header(data), most_layers)


def _check(header: _Header, most_layers: int) -> None:
    if header.data[:4] != b"GGUF":
        raise InputError("it does not begin as a GGUF file does")
    header.skip(4)
    if (version := header.number("<I")) not in (2, 3):
        raise InputError(f"it has version {version} of the format, known are 2 and 3")
    num_tensors = header.count("tensors", _TENSOR_BYTES)
    alignment = GGUF_DEFAULT_ALIGNMENT
    for _ in range(header.count("keys", _KEY_BYTES)):
        name = header.text()
        number = header.value(header.number("<I"))
        if name == b"general.alignment":
            alignment = number or 0
        if name.endswith(b".block_count") and number is not None and not 0 < number <= most_layers:
            raise InputError(f"its header says that it has {number:,} layers")
    if alignment < 1 or alignment & (alignment - 1):
        raise InputError(f"its header aligns tensors to {alignment} bytes, which is no power of 2")
    places = sorted(_tensor(header) for _ in range(num_tensors))
    start = math.ceil(header.place / alignment) * alignment
    for (_, end, name), (begin, _, other) in pairwise(places):
        if begin < end:
            raise InputError(f"its tensors {name} and {other} overlap")
    if places and start + places[-1][1] > len(header.data):
        raise InputError(f"its tensor {places[-1][2]} lies beyond the end of the file")


def _tensor(header: _Header) -> tuple[int, int, str]:
    """Start and end of a tensor's bytes after the header, and its name."""
    name = ascii(header.text().decode("utf-8", "replace"))
    if (dimensions := header.number("<I")) > _MOST_DIMENSIONS:
        raise InputError(f"its tensor {name} has {dimensions:,} dimensions")
    length = math.prod(header.number("<Q") for _ in range(dimensions))
    kind, place = header.number("<I"), header.number("<Q")
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise InputError(f"its tensor {name} has an unknown type ({kind})") from None
    return place, place + length // block * size, name
