"""Students that someone made to harm: configurations, tokenizers, templates, headers of weights."""

from __future__ import annotations

import json
import pickle
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Apply = Callable[[Path, random.Random], Any]


@dataclass(frozen=True)
class Damage:
    """What is done to a sound file, and what must follow, as `damage` says it."""

    name: str
    expected: str
    apply: Apply


def damaged_json(name: str, apply: Apply) -> Apply:
    """Damage one file of a student's folder."""
    return lambda folder, rng: apply(folder / name, rng)


def _set(name: str, **changes: Any) -> Apply:
    """Give keys of a folder's JSON file other values; ``a__b`` is the key b of the object a."""

    def apply(folder: Path, rng: random.Random) -> None:
        path = folder / name
        values = json.loads(path.read_text("utf-8")) if path.exists() else {}
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = values
            for parent in parents:
                inner = inner[parent]
            if value is _LOST:
                inner.pop(last, None)
            else:
                inner[last] = value
        path.write_text(json.dumps(values), encoding="utf-8")

    return apply


_LOST = object()


# --- Configurations and tokenizers -------------------------------------------------------------

_CODE = {
    "AutoConfig": "evil.Evil",
    "AutoModelForCausalLM": "evil.Evil",
    "AutoTokenizer": ["evil.E", None],
}


def _own_code(folder: Path, rng: random.Random) -> None:
    (folder / "evil.py").write_text("open('PWNED', 'w')\nclass Evil: pass\nE = Evil\n")
    _set("config.json", auto_map=_CODE, model_type="evil")(folder, rng)
    _set("tokenizer_config.json", auto_map=_CODE)(folder, rng)


class _Evil:
    def __reduce__(self):
        return open, ("PWNED", "w")


def _pickle(folder: Path, rng: random.Random) -> None:
    (folder / "model.safetensors").unlink()
    if rng.random() < 0.5:
        torch.save({"x": _Evil()}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": _Evil()}))


_CONFIG = {
    "no model type": ("refused", {"model_type": _LOST, "architectures": _LOST}),
    "an unknown model type": ("refused", {"model_type": "no-such-model"}),
    "an encoder's model type": ("refused", {"model_type": "t5"}),
    "a model type of another kind": ("refused", {"model_type": ["llama"]}),
    "no words": ("refused", {"vocab_size": 0}),
    "fewer words than none": ("refused", {"vocab_size": -5}),
    "a trillion words": ("refused", {"vocab_size": 10**12}),
    "words in text": ("refused", {"vocab_size": "many"}),
    "a billion layers": ("refused", {"num_hidden_layers": 10**9}),
    "a layer less than none": ("any", {"num_hidden_layers": -1}),
    "layers in text": ("refused", {"num_hidden_layers": "2"}),
    "a layer more": ("refused", {"num_hidden_layers": 3}),
    "no heads": ("refused", {"num_attention_heads": 0}),
    "odd heads": ("refused", {"num_attention_heads": 5}),
    "wide": ("refused", {"hidden_size": 10**9}),
    "no width": ("refused", {"hidden_size": 0}),
    "no positions": ("any", {"max_position_embeddings": 0}),
    "fewer positions than none": ("any", {"max_position_embeddings": -1}),
    "positions without end": ("any", {"max_position_embeddings": 2**70}),
    "an unknown activation": ("refused", {"hidden_act": "no-such"}),
    "unknown positions": ("any", {"rope_scaling": {"rope_type": "no-such", "factor": 1e300}}),
    "positions of another form": ("any", {"rope_parameters": [1, 2], "rope_scaling": "x"}),
    "an epsilon of text": ("any", {"rms_norm_eps": "small"}),
    "an epsilon of NaN": ("any", {"rms_norm_eps": float("nan")}),
    "an unknown number type": ("any", {"dtype": "float3", "torch_dtype": "float3"}),
    "an end beyond the words": ("any", {"eos_token_id": 10**6}),
    "an end of another kind": ("any", {"eos_token_id": {"a": 1}}),
    "quantized by nobody": ("any", {"quantization_config": {"quant_method": "no-such"}}),
    "quantized by a lost library": (
        "any",
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ),
    "an unknown attention": (
        "any",
        {"attn_implementation": "no-such", "_attn_implementation": "x"},
    ),
    "attention from the hub": ("any", {"_attn_implementation": "evil/kernel"}),
}
_TOKENIZER = {
    "no model": {"model": _LOST},
    "an unknown model": {"model__type": "NoSuch"},
    "no words": {"model__vocab": {}},
    "words of another kind": {"model__vocab": [["a", 1]]},
    "one number for all words": {"model__vocab": dict.fromkeys("abc", 0)},
    "numbers beyond the words": {"model__vocab": {"a": 2**31}},
    "negative numbers": {"model__vocab": {"a": -1}},
    "merges of words that are not there": {"model__merges": [["zz", "yy"]]},
    "merges of another kind": {"model__merges": 3},
    "a hopeless expression": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "a broken expression": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(((("},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "everything replaced": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 100_000}
    },
    "padding without end": {
        "padding": {
            "strategy": {"Fixed": 10**11},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        }
    },
    "cut to nothing": {
        "truncation": {
            "direction": "Right",
            "max_length": 0,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    },
    "an added token beyond the words": {
        "added_tokens": [
            {
                "id": 2**31,
                "content": "<x>",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ]
    },
    "an empty added token": {
        "added_tokens": [
            {
                "id": 1,
                "content": "",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ]
    },
    "an unknown decoder": {"decoder": {"type": "NoSuch"}},
    "characters dropped": {"pre_tokenizer": None, "normalizer": {"type": "StripAccents"}},
}
_TOKENIZER_CONFIG = {
    "an unknown class": {"tokenizer_class": "NoSuchTokenizer"},
    "a slow class": {"tokenizer_class": "ByT5Tokenizer"},
    "a class of another kind": {"tokenizer_class": 3},
    "an end of another kind": {"eos_token": 3},
    "an end that is no token": {"eos_token": "<no such>"},
    "no end": {"eos_token": None},
    "a length of text": {"model_max_length": "long"},
    "a negative length": {"model_max_length": -1},
    "a template of another kind": {"chat_template": {"a": [1]}},
    "added tokens of another kind": {"added_tokens_decoder": {"x": 1}},
    "extra tokens of another kind": {"extra_special_tokens": [1, None]},
}

# --- Chat templates ----------------------------------------------------------------------------

_LOOP = "{% for x in range(99999) %}"
_TEMPLATES = {
    "loops for ever": ("refused", _LOOP * 4 + "{% endfor %}" * 4),
    "loops and writes": ("refused", _LOOP * 3 + "{{ 'x' * 1000 }}" + "{% endfor %}" * 3),
    "writes 10 GB": ("refused", "{{ 'x' * 10000000000 }}"),
    "fills 10 GB": ("refused", "{{ '%9999999999d' % 1 }}"),
    "doubles": (
        "refused",
        "{% set n = namespace(s='x' * 9999) %}{% for i in range(60) %}"
        "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    ),
    "a power without end": ("refused", "{{ 10 ** 10 ** 10 }}"),
    "centers": ("refused", "{{ 'x'.center(10000000000) }}"),
    "reads a file": ("refused", "{% include '/etc/passwd' %}"),
    "imports a file": ("refused", "{% from '/etc/passwd' import x %}"),
    "asks for classes": ("refused", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "asks for globals": ("refused", "{{ raise_exception.__globals__ }}"),
    "opens a file": ("refused", "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}"),
    "formats": ("refused", "{{ '{0.__class__.__mro__}'.format(messages) }}{{ messages.x.y }}"),
    "is broken": ("refused", "{% for m in messages %}{{ m.content }"),
    "calls a thing that is not there": ("refused", "{{ no_such_function(messages) }}"),
    "divides by nothing": ("refused", "{{ 1 // 0 }}"),
    "raises": ("refused", "{{ raise_exception('no\\nsuch\\u001b[31m' * 500) }}"),
    "calls itself": ("refused", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "is 5,000 deep": ("refused", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"),
    "has 5,000 blocks": ("refused", "{% if true %}" * 5000 + "{% endif %}" * 5000),
    "changes the messages": ("any", "{% set _ = messages.clear() %}{{ messages }}"),
    "pops": ("any", "{{ messages.pop().content }}"),
    "joins kinds": ("refused", "{{ messages[0].content + 1 }}"),
    "wants another role": (
        "refused",
        "{% if messages[0].role != 'x' %}{{ raise_exception('no') }}{% endif %}",
    ),
    "writes nothing": ("any", ""),
    "writes white space": ("any", " \n"),
    "writes a lone surrogate": ("any", "{{ '\\ud800' }}{{ messages[0].content }}"),
    "writes a million letters": ("any", "{{ 'x' * 1000000 }}"),
    "writes the time": ("any", "{{ strftime_now('%Y' * 9) }}{{ messages[0].content }}"),
    "has a wrong date": ("any", "{{ strftime_now(3) }}"),
}


def _template(text: str) -> Apply:
    def apply(folder: Path, rng: random.Random) -> None:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")

    return apply


# --- Headers of safetensors --------------------------------------------------------------------


def _header(change: Callable[[dict[str, Any], random.Random], Any]) -> Apply:
    """Change the header of the weights; the tensors' bytes stay."""

    def apply(folder: Path, rng: random.Random) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header = change(header, rng) or header
        text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def _one(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return header[rng.choice(sorted(name for name in header if name != "__metadata__"))]


def _length(length: int) -> Apply:
    def apply(folder: Path, rng: random.Random) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return apply


def _lost(header: dict[str, Any], rng: random.Random) -> None:
    del header[rng.choice(sorted(header))]


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Apply:
    def apply(folder: Path, rng: random.Random) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return apply


def _index(target: str) -> Apply:
    """Weights in several files, one of which is elsewhere."""

    def apply(folder: Path, rng: random.Random) -> None:
        names = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, target)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


_SAFETENSORS = {
    "a header longer than the file": ("refused", _length(2**20)),
    "a header of 2^60 bytes": ("refused", _length(2**60)),
    "a header of 2^64 - 1 bytes": ("refused", _length(2**64 - 1)),
    "no header": ("refused", _length(0)),
    "offsets beyond the file": (
        "refused",
        _header(lambda h, rng: _one(h, rng).update(data_offsets=[2**50, 2**50 + 8])),
    ),
    "negative offsets": (
        "refused",
        _header(lambda h, rng: _one(h, rng).update(data_offsets=[-8, 0])),
    ),
    "overlapping tensors": (
        "refused",
        _header(
            lambda h, rng: (
                _one(h, rng).update(data_offsets=_one(h, rng)["data_offsets"])
                or h | {"x": _one(h, rng)}
            )
        ),
    ),
    "a shape of 2^60": (
        "refused",
        _header(lambda h, rng: _one(h, rng).update(shape=[2**60, 2**60])),
    ),
    "another shape": ("refused", _header(lambda h, rng: _one(h, rng).update(shape=[3]))),
    "an unknown number type": ("refused", _header(lambda h, rng: _one(h, rng).update(dtype="F3"))),
    "another number type": ("refused", _header(lambda h, rng: _one(h, rng).update(dtype="I64"))),
    "a deep header": ("refused", _header(lambda h, rng: '{"a":' * 50_000 + "1" + "}" * 50_000)),
    "a header that is a list": ("refused", _header(lambda h, rng: "[]")),
    "a tensor lost": ("refused", _header(_lost)),
    "metadata of another kind": (
        "any",
        _header(lambda h, rng: h | {"__metadata__": {"format": 3}}),
    ),
    "another program's weights": (
        "any",
        _header(lambda h, rng: h | {"__metadata__": {"format": "no-such"}}),
    ),
    "weights of NaN": ("any", _weights(lambda t: [x.fill_(float("nan")) for x in t.values()])),
    "infinite weights": ("any", _weights(lambda t: [x.fill_(float("inf")) for x in t.values()])),
    "huge weights": ("any", _weights(lambda t: [x.fill_(3e38) for x in t.values()])),
    "a weight lost": ("refused", _weights(lambda t: t.pop(min(n for n in t if "mlp" in n)))),
    "a weight more": ("any", _weights(lambda t: t.update(more=torch.zeros(3)))),
    "a weight of another shape": (
        "refused",
        _weights(lambda t: t.update({min(t): torch.zeros(3, 3)})),
    ),
    "weights in files elsewhere": ("refused", _index("../../../../etc/passwd")),
    "weights in lost files": ("refused", _index("model-00009-of-00009.safetensors")),
    "an index of another kind": ("refused", _index(3)),  # type: ignore[arg-type]
    "a pickle": ("refused", _pickle),
    "own code": ("refused", _own_code),
}

STUDENT_DAMAGES = [
    *(Damage(f"config: {n}", e, _set("config.json", **c)) for n, (e, c) in _CONFIG.items()),
    *(Damage(f"tokenizer: {n}", "any", _set("tokenizer.json", **c)) for n, c in _TOKENIZER.items()),
    *(
        Damage(f"tokenizer_config: {n}", "any", _set("tokenizer_config.json", **c))
        for n, c in _TOKENIZER_CONFIG.items()
    ),
    *(Damage(f"template {n}", e, _template(t)) for n, (e, t) in _TEMPLATES.items()),
    *(Damage(f"weights: {n}", e, apply) for n, (e, apply) in _SAFETENSORS.items()),
    Damage("generation_config: eos", "any", _set("generation_config.json", eos_token_id="x")),
    Damage("generation_config: list", "any", _set("generation_config.json", eos_token_id=[1, "x"])),
]


# --- GGUF --------------------------------------------------------------------------------------
# magic, version (u32), numbers of tensors and of keys (u64 each); then the keys, then the tensors


def _number(place: int, value: int, form: str) -> Apply:
    def apply(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into(form, data, place, value)
        path.write_bytes(data)

    return apply


def _after(mark: bytes, skip: int, value: int, form: str) -> Apply:
    """Overwrite a number that stands ``skip`` bytes behind a name."""

    def apply(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into(form, data, data.index(mark) + len(mark) + skip, value)
        path.write_bytes(data)

    return apply


def _deep_key(path: Path, rng: random.Random) -> None:
    """One more key: an array in an array in an array, and so on."""
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    name, depth = b"x.deep", 20_000
    key = struct.pack("<Q", len(name)) + name + struct.pack("<I", 9)
    key += struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 4, 0)
    path.write_bytes(data[:16] + struct.pack("<Q", count + 1) + key + data[24:])


def _long_key(path: Path, rng: random.Random) -> None:
    """One more key: an array of 10 million numbers."""
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    name, length = b"x.long", 10_000_000
    key = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", 9, 0, length) + bytes(length)
    path.write_bytes(data[:16] + struct.pack("<Q", count + 1) + key + data[24:])


def _gguf_key(name: bytes, replacement: bytes) -> Apply:
    def apply(path: Path, rng: random.Random) -> None:
        path.write_bytes(path.read_bytes().replace(name, replacement, 1))

    return apply


# A key: its name, its type (u32), its value; an array: the items' type (u32), their number (u64).
# A tensor: its name, the number of its dimensions (u32), the dimensions and its type and offset.
_TENSOR = b"token_embd.weight"
GGUF_DAMAGES = [
    Damage("another mark", "refused", _number(0, 0x12345678, "<I")),
    Damage("version 99", "refused", _number(4, 99, "<I")),
    Damage("version 0", "refused", _number(4, 0, "<I")),
    Damage("big end first", "refused", _number(4, 3, ">I")),
    Damage("2^60 tensors", "refused", _number(8, 2**60, "<Q")),
    Damage("2^60 keys", "refused", _number(16, 2**60, "<Q")),
    Damage("2^64 - 1 keys", "refused", _number(16, 2**64 - 1, "<Q")),
    Damage("no tensors", "refused", _number(8, 0, "<Q")),
    Damage("a name of 2^60 bytes", "refused", _number(24, 2**60, "<Q")),
    Damage("an array of 2^60 words", "refused", _after(b"tokenizer.ggml.tokens", 8, 2**60, "<Q")),
    Damage("an array of 2^31 words", "refused", _after(b"tokenizer.ggml.tokens", 8, 2**31, "<Q")),
    Damage("fewer words", "refused", _after(b"tokenizer.ggml.tokens", 8, 5, "<Q")),
    Damage("words of an unknown type", "refused", _after(b"tokenizer.ggml.tokens", 4, 77, "<I")),
    Damage("words of no array", "refused", _after(b"tokenizer.ggml.tokens", 0, 4, "<I")),
    Damage("2^60 token types", "refused", _after(b"tokenizer.ggml.token_type", 8, 2**60, "<Q")),
    Damage(
        "a template of 2^60 bytes", "refused", _after(b"tokenizer.chat_template", 4, 2**60, "<Q")
    ),
    Damage("a deep array", "refused", _deep_key),
    Damage("a long array", "any", _long_key),
    Damage("a billion layers", "refused", _after(b"llama.block_count", 4, 10**9, "<I")),
    Damage("no layers", "refused", _after(b"llama.block_count", 4, 0, "<I")),
    Damage("wide", "refused", _after(b"llama.embedding_length", 4, 2**31, "<I")),
    Damage("no heads", "refused", _after(b"llama.attention.head_count", 4, 0, "<I")),
    Damage(
        "an end beyond the words", "any", _after(b"tokenizer.ggml.eos_token_id", 4, 2**31, "<I")
    ),
    Damage("a tensor of 2^31 dimensions", "refused", _after(_TENSOR, 0, 2**31, "<I")),
    Damage("a tensor of 2^60", "refused", _after(_TENSOR, 4, 2**60, "<Q")),
    Damage("a tensor of an unknown type", "refused", _after(_TENSOR, 20, 99, "<I")),
    Damage("a tensor of another type", "any", _after(_TENSOR, 20, 2, "<I")),
    Damage("a tensor beyond the file", "refused", _after(_TENSOR, 24, 2**50, "<Q")),
    Damage("a tensor at an odd place", "any", _after(_TENSOR, 24, 3, "<Q")),
    Damage("overlapping tensors", "any", _after(b"blk.0.attn_q.weight", 24, 0, "<Q")),
    Damage(
        "an unknown architecture",
        "refused",
        _gguf_key(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0nosuc"),
    ),
    Damage(
        "no architecture", "refused", _gguf_key(b"general.architecture", b"general.architectura")
    ),
    Damage("a lost tensor", "refused", _gguf_key(b"blk.0.attn_q.weight", b"blk.9.attn_q.weight")),
    Damage("an unknown split", "refused", _gguf_key(b"gpt-2", b"gpt-9")),
    Damage(
        "no kind of tokenizer",
        "refused",
        _gguf_key(b"tokenizer.ggml.model", b"tokenizer.ggml.modem"),
    ),
    Damage(
        "words that are not UTF-8", "any", _gguf_key(b"<|system|>", b"<|\xff\xfe\xff\xfe\xff\xfe|>")
    ),
]
