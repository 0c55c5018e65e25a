"""Damages of files, by kind of file: each takes a sound file and makes it bad, or harmlessly other.

A damage says what must follow: ``refused``; the ``same`` as without it; ``kept``, one of these two;
or ``any``: also another result (where a reader cannot know that something is wrong, such as a text
cut in half).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.hostile import GGUF_DAMAGES, STUDENT_DAMAGES, Damage, damaged_json

Rng = random.Random

# --- Bytes of any file -------------------------------------------------------------------------


def _bytes(change: Callable[[bytes, Rng], bytes]) -> Callable[[Path, Rng], None]:
    return lambda path, rng: path.write_bytes(change(path.read_bytes(), rng)) and None


def _cut_slice(data: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, max(1, len(data) // 3)) :]


def _flip(data: bytes, rng: Rng) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def _insert(data: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice((1, 8, 4096))) + data[start:]


def _replaced(make: Callable[[Path], Any]) -> Callable[[Path, Rng], None]:
    def replace(path: Path, rng: Rng) -> None:
        path.unlink()
        make(path)

    return replace


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ANY_FILE = [
    Damage("cut", "any", _bytes(lambda data, rng: data[: rng.randrange(1, len(data))])),
    Damage("slice lost", "any", _bytes(_cut_slice)),
    Damage("bits flipped", "any", _bytes(_flip)),
    Damage("bytes inserted", "any", _bytes(_insert)),
    Damage("empty", "refused", _bytes(lambda data, rng: b"")),
    Damage("random bytes", "refused", _bytes(lambda data, rng: rng.randbytes(1000))),
    Damage("zeros", "refused", _bytes(lambda data, rng: bytes(len(data)))),
    Damage("missing", "refused", lambda path, rng: path.unlink()),
    Damage("a folder", "refused", _replaced(lambda path: path.mkdir())),
    Damage("a FIFO", "refused", _replaced(os.mkfifo)),
    Damage("a device", "refused", _replaced(lambda path: path.symlink_to("/dev/zero"))),
    Damage("a loop of links", "refused", _replaced(lambda path: path.symlink_to(path.name))),
    Damage("a terabyte of zeros", "refused", _replaced(_sparse)),
]

_MARKS = b"\xff\xfe", b"\xfe\xff"


def _latin(data: bytes, rng: Rng) -> bytes:
    return data.decode().replace("🙂", "").replace("a", "é", 1).encode("latin-1")


_TEXT = [
    Damage("UTF-16", "refused", _bytes(lambda data, rng: data.decode().encode("utf-16"))),
    Damage(
        "UTF-16 without a mark", "refused", _bytes(lambda d, rng: d.decode().encode("utf-16-be"))
    ),
    Damage("UTF-32", "refused", _bytes(lambda data, rng: data.decode().encode("utf-32"))),
    Damage("Latin-1", "refused", _bytes(_latin)),
    Damage("white space only", "refused", _bytes(lambda data, rng: b" \n\t\r\n" * 5)),
    Damage("a NUL", "refused", _bytes(lambda data, rng: data[:5] + b"\0" + data[5:])),
    Damage("gzip", "refused", _bytes(lambda data, rng: __import__("gzip").compress(data))),
]

# --- JSON lines --------------------------------------------------------------------------------


def _records(change: Callable[[list[Any], Rng], list[Any]]) -> Callable[[Path, Rng], None]:
    def apply(path: Path, rng: Rng) -> None:
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        lines = (json.dumps(r, ensure_ascii=False) for r in change(records, rng))
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    return apply


# JSON values, as text, that a field should not have; a reader may take some of them for a text.
_VALUES = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "too large a float": "1e999",
    "a lone surrogate": '"We add.\\ud800 So."',
    "a list 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "an object 900 deep": '{"x":' * 900 + "1" + "}" * 900,
    "5,000 digits": "7" * 5000,
    "30 digits": "7" * 30,
    "true": "true",
    "an object": "{}",
    "a list of lists": '[["x"], 1]',
    "empty": '""',
    "blank": '" \\n"',
    "null": "null",
    "a NUL": '"\\u0000"',
    "300,000 characters": '"' + "We add. So 7. " * 22_000 + '"',  # ten times as many take minutes
    "3 million characters without a space": '"' + "x" * 3_000_000 + '"',
    "control characters": '"\\u202e\\u2028\\u0085\\u001b[31m <|end|>"',
    "a path": '"../../../etc/passwd"',
}
# What no field of text may hold; it is refused wherever it stands.
_NO_JSON = {"NaN", "Infinity", "too large a float", "a lone surrogate", "a list 100,000 deep"}
_NO_TEXT = _NO_JSON | {"an object 900 deep", "an object", "a list of lists", "true", "null"}
# What the responses' reader needs as text.
_NEEDED = {"prompt_id", "teacher", "response"}


def _field(value: str, raw: str, names: set[str] | None) -> Callable[[Path, Rng], None]:
    def apply(path: Path, rng: Rng) -> None:
        lines = path.read_text("utf-8").splitlines()
        number = rng.randrange(len(lines))
        record = json.loads(lines[number])
        name = rng.choice(sorted(names & record.keys()) if names else sorted(record))
        mark = "@value@"
        lines[number] = json.dumps(record | {name: mark}).replace(f'"{mark}"', raw)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


def _swap(records: list[Any], rng: Rng) -> list[Any]:
    record = rng.choice(records)
    one, other = rng.sample(sorted(record), 2)
    record[one], record[other] = record[other], record[one]
    return records


def _drop(records: list[Any], rng: Rng) -> list[Any]:
    record = rng.choice(records)
    del record[rng.choice(sorted(record))]
    return records


def _twice(records: list[Any], rng: Rng) -> list[Any]:
    return [*records, rng.choice(records)]


def _line(make: Callable[[str, Rng], str]) -> Callable[[Path, Rng], None]:
    def apply(path: Path, rng: Rng) -> None:
        lines = path.read_text("utf-8").splitlines()
        number = rng.randrange(len(lines))
        lines[number] = make(lines[number], rng)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


def _nested(change: Callable[[list[Any], Rng], Any]) -> Callable[[Path, Rng], None]:
    """Change one of the lists of one record."""

    def apply(records: list[Any], rng: Rng) -> list[Any]:
        record = rng.choice(records)
        name = rng.choice(sorted(n for n, value in record.items() if isinstance(value, list)))
        record[name] = change(record[name], rng)
        return records

    return _records(apply)


def _shuffled_keys(records: list[Any], rng: Rng) -> list[Any]:
    return [dict(rng.sample(sorted(record.items()), len(record))) for record in records]


_RECORDS = [
    Damage("fields swapped", "any", _records(_swap)),
    Damage("a field lost", "any", _records(_drop)),
    Damage("a record twice", "any", _records(_twice)),
    Damage(
        "one list of records",
        "refused",
        lambda path, rng: path.write_text(
            json.dumps([json.loads(line) for line in path.read_text("utf-8").splitlines()]), "utf-8"
        ),
    ),
    Damage("a record that is a list", "refused", _line(lambda line, rng: f"[{line}]")),
    Damage("a record that is a number", "refused", _line(lambda line, rng: "7")),
    Damage("half a record", "refused", _line(lambda line, rng: line[: len(line) // 2])),
    Damage("two records in a line", "refused", _line(lambda line, rng: line + line)),
    Damage("Python's notation", "refused", _line(lambda line, rng: repr(json.loads(line)))),
    Damage("a field twice", "refused", _line(lambda line, rng: line[:-1] + ", " + line[1:])),
    Damage("a comma too many", "refused", _line(lambda line, rng: line[:-1] + ",}")),
    Damage("other order of keys", "same", _records(_shuffled_keys)),
    Damage("a byte order mark", "same", _bytes(lambda data, rng: b"\xef\xbb\xbf" + data)),
    Damage("CRLF", "same", _bytes(lambda data, rng: data.replace(b"\n", b"\r\n"))),
    Damage("no last line feed", "same", _bytes(lambda data, rng: data.rstrip(b"\n"))),
    Damage(
        "escapes",
        "same",
        lambda path, rng: path.write_text(
            "".join(
                json.dumps(json.loads(line)) + "\n" for line in path.read_text("utf-8").splitlines()
            ),
            "utf-8",
        ),
    ),
    Damage("spaces around", "same", _line(lambda line, rng: f"\t {line}  ")),
    *(Damage(f"somewhere {v}", "any", _field(v, raw, None)) for v, raw in _VALUES.items()),
]
_BLANK = Damage("blank lines", "same", _bytes(lambda data, rng: data.replace(b"\n", b"\n \n\n")))
_EXTRA = Damage(
    "a field more", "same", _records(lambda r, rng: [x | {"note": [1, None]} for x in r])
)
_POOL = [
    *(
        Damage(f"text {v}", "refused" if v in _NO_TEXT else "any", _field(v, raw, _NEEDED))
        for v, raw in _VALUES.items()
    ),
    Damage(
        "a key with a lone surrogate",
        "refused",
        _line(lambda line, rng: line[:-1] + ', "\\udfff": 1}'),
    ),
    Damage(
        "the same id for two prompts",
        "refused",
        _records(
            lambda records, rng: [records[0], *(r | {"prompt_id": "p1"} for r in records[-1:])]
        ),
    ),
    Damage(
        "a chat that ends with the assistant",
        "refused",
        _records(
            lambda records, rng: [
                r | {"prompt": [{"role": "assistant", "content": "Hi"}]} for r in records
            ]
        ),
    ),
    Damage(
        "an unknown role",
        "refused",
        _records(
            lambda records, rng: [
                r
                | {
                    "prompt": [
                        {"role": rng.choice(["tool", "", "User", "developer"]), "content": "Hi"}
                    ]
                }
                for r in records
            ]
        ),
    ),
]

# Of layouts that are not a pool's own: any field may be one that is needed, or not.
_FOREIGN = [
    *(Damage(f"text {v}", "any", _field(v, raw, None)) for v, raw in _VALUES.items()),
    Damage("a turn lost", "any", _nested(lambda values, rng: values[:-1])),
    Damage("a turn twice", "any", _nested(lambda values, rng: [*values, values[-1]])),
    Damage("turns turned round", "any", _nested(lambda values, rng: values[::-1])),
    Damage("no turns", "any", _nested(lambda values, rng: [])),
    Damage("a turn that is null", "any", _nested(lambda values, rng: [None, *values])),
    Damage("turns in an object", "any", _nested(lambda values, rng: {"0": values})),
    Damage("turns as a text", "any", _nested(lambda values, rng: json.dumps(values))),
    Damage("10,000 turns", "any", _nested(lambda values, rng: values * 5000)),
]
_SHEET = [
    Damage("a quote that stays open", "any", _bytes(lambda d, rng: d.replace(b"\n", b'\n"', 1))),
    Damage("a cell more", "any", _line(lambda line, rng: line + ",x")),
    Damage("semicolons", "refused", _bytes(lambda data, rng: data.replace(b",", b";"))),
    Damage("no header", "refused", _bytes(lambda data, rng: data.partition(b"\n")[2])),
    Damage(
        "a header twice", "refused", _bytes(lambda d, rng: d.replace(b"prompt", b"response", 1))
    ),
    Damage(
        "a cell of 3 million characters", "any", _bytes(lambda d, rng: d + b"a," + b"x" * 3_000_000)
    ),
    # Also of the lines within a text.
    Damage("CRLF", "any", _bytes(lambda data, rng: data.replace(b"\n", b"\r\n"))),
    Damage("a byte order mark", "same", _bytes(lambda data, rng: b"\xef\xbb\xbf" + data)),
]
_PACKED = [
    Damage("packed twice", "refused", _bytes(lambda data, rng: gzip.compress(data))),
    Damage("not packed", "refused", _bytes(lambda data, rng: gzip.decompress(data))),
    Damage("two members", "any", _bytes(lambda data, rng: data + gzip.compress(b"{}\n"))),
    Damage("garbage at the end", "any", _bytes(lambda data, rng: data + rng.randbytes(100))),
    Damage(
        "4 GB of zeros packed",
        "refused",
        _bytes(lambda d, rng: gzip.compress(b"\0" * (1 << 24)) * 256),
    ),
]

# --- Tables ------------------------------------------------------------------------------------


def _frame(change: Callable[[pd.DataFrame, Rng], pd.DataFrame]) -> Callable[[Path, Rng], None]:
    def apply(path: Path, rng: Rng) -> None:
        frame = pd.read_parquet(path)
        attrs = frame.attrs
        frame = change(frame, rng)
        frame.attrs = attrs
        frame.to_parquet(path, index=False)

    return apply


def _arrow(change: Callable[[pa.Table, Rng], pa.Table]) -> Callable[[Path, Rng], None]:
    return lambda path, rng: pq.write_table(
        change(pq.read_table(path), rng), path, store_schema=rng.random() < 0.5
    )


_CELLS: dict[str, Callable[[int], Any]] = {
    "texts": lambda n: ["x"] * n,
    "empty texts": lambda n: [""] * n,
    "numbers": lambda n: list(range(n)),
    "NaN": lambda n: [float("nan")] * n,
    "infinity": lambda n: [float("-inf")] * n,
    "nulls": lambda n: [None] * n,
    "lists": lambda n: [[1, 2]] * n,
    "lists of unlike length": lambda n: [[0.5] * (k % 3) for k in range(n)],
    "objects": lambda n: [{"a": 1}] * n,
    "dates": lambda n: pd.date_range("2020-01-01", periods=n),
    "bytes": lambda n: [b"\xff\x00"] * n,
    "booleans": lambda n: [k % 2 == 0 for k in range(n)],
    "negative numbers": lambda n: [-(2**62)] * n,
}


def _column(cells: Callable[[int], Any]) -> Callable[[Path, Rng], None]:
    def apply(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
        name = rng.choice(list(frame.columns))
        return frame.assign(**{name: pd.Series(cells(len(frame)), index=frame.index)})

    return _frame(apply)


def _invalid_utf8(table: pa.Table, rng: Rng) -> pa.Table:
    name = rng.choice(
        [
            f.name
            for f in table.schema
            if pa.types.is_large_string(f.type) or pa.types.is_string(f.type)
        ]
    )
    raw = pa.array([b"\xff\xfe" * 3] * len(table), pa.binary())
    text = pa.StringArray.from_buffers(len(table), *raw.buffers()[1:])
    return table.set_column(table.schema.get_field_index(name), name, text)


def _bomb(table: pa.Table, rng: Rng) -> pa.Table:
    """A few kilobytes on disk that are 40 GB in memory: one long text, repeated by number."""
    rows = 40_000
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * 1_000_000])
    name = "response" if "response" in table.column_names else table.column_names[0]
    table = table.take(pa.array(np.zeros(rows, np.int64)))
    return table.set_column(table.schema.get_field_index(name), name, long)


def _metadata(value: bytes) -> Callable[[Path, Rng], None]:
    return _arrow(lambda table, rng: table.replace_schema_metadata({"pandas": value}))


_TABLE = [
    *(Damage(f"a column of {v}", "any", _column(cells)) for v, cells in _CELLS.items()),
    Damage("no rows", "refused", _frame(lambda frame, rng: frame.iloc[:0])),
    Damage(
        "a column lost",
        "any",
        _frame(lambda frame, rng: frame.drop(columns=rng.choice(list(frame.columns)))),
    ),
    Damage("rows twice", "any", _frame(lambda frame, rng: pd.concat([frame, frame]))),
    Damage(
        "columns swapped",
        "any",
        _frame(
            lambda frame, rng: frame.rename(
                columns=dict(
                    zip(first := frame.columns[:4], rng.sample([*first], len(first)), strict=True)
                )
            )
        ),
    ),
    Damage(
        "other order of columns",
        "same",
        _frame(lambda frame, rng: frame[rng.sample(list(frame.columns), frame.shape[1])]),
    ),
    Damage("another compression", "same", _frame(lambda frame, rng: frame)),
    Damage("text that is not UTF-8", "any", _arrow(_invalid_utf8)),
    Damage("a bomb", "any", _arrow(_bomb)),
    Damage(
        "two columns of one name",
        "any",
        _arrow(lambda table, rng: table.append_column(table.column_names[0], table.column(0))),
    ),
    Damage(
        "3,000 columns",
        "any",
        _arrow(
            lambda table, rng: pa.table(
                dict(zip(table.column_names, table.columns, strict=True))
                | {f"c{n}": pa.nulls(len(table)) for n in range(3000)}
            )
        ),
    ),
    Damage("metadata that are no JSON", "any", _metadata(b"{")),
    Damage("metadata without keys", "any", _metadata(b"{}")),
    Damage("metadata of another form", "any", _metadata(b'{"columns": 3, "index_columns": [{}]}')),
    Damage(
        "metadata with deep attributes",
        "any",
        _metadata(
            b'{"index_columns": [], "columns": [], "attributes": '
            + b"[" * 5000
            + b"]" * 5000
            + b"}"
        ),
    ),
    Damage(
        "the footer's length wrong",
        "refused",
        _bytes(lambda data, rng: data[:-8] + rng.randbytes(4) + b"PAR1"),
    ),
    Damage("the first mark only", "refused", _bytes(lambda data, rng: b"PAR1")),
]

# --- YAML and plain text -----------------------------------------------------------------------


def _appended(text: str) -> Callable[[Path, Rng], None]:
    return _bytes(lambda data, rng: data + text.encode())


def _replaced_value(value: str) -> Callable[[Path, Rng], None]:
    def apply(path: Path, rng: Rng) -> None:
        lines = path.read_text("utf-8").splitlines()
        number = rng.randrange(len(lines))
        lines[number] = lines[number].partition(":")[0] + f": {value}"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


_LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
_YAML_VALUES = {
    "nothing": "",
    "NaN": ".nan",
    "infinity": ".inf",
    "an object of Python": "!!python/object/apply:os.system ['touch PWNED']",
    "an unknown tag": "!mine 3",
    "a list": "[1, 2]",
    "itself": "&x [*x]",
    "a missing anchor": "*y",
    "a date": "2020-01-01",
    "400 digits": "9" * 400,
    "5,000 digits": "9" * 5000,
    "negative": "-3",
    "a long text": "'" + "x" * 100_000 + "'",
    "a binary": "!!binary abc=",
    "an impossible date": "2020-99-99",
    "a set": "!!set {a, b}",
}
_YAML = [
    *(Damage(f"a value {name}", "refused", _replaced_value(v)) for name, v in _YAML_VALUES.items()),
    Damage("unknown key", "refused", _appended("more: 1\n")),
    Damage("a key twice", "refused", _appended("epochs: 1\n")),
    Damage("a key of lists", "refused", _appended("? [a, b]\n: 1\n")),
    Damage("a key of numbers", "refused", _appended("3: 1\n")),
    Damage("two documents", "refused", _appended("---\na: 1\n")),
    Damage("a billion laughs", "refused", _appended(_LAUGHS)),
    Damage(
        "a billion laughs as a value",
        "refused",
        lambda path, rng: path.write_text(
            _LAUGHS + path.read_text("utf-8").replace("epochs: 1", "epochs: *a11"), "utf-8"
        ),
    ),
    Damage("5,000 deep", "refused", _appended("x: " + "[" * 5000 + "]" * 5000 + "\n")),
    Damage("tabs", "refused", _bytes(lambda data, rng: data.replace(b": ", b":\n\t"))),
    Damage("a list of keys", "refused", _bytes(lambda d, rng: b"- " + d.replace(b"\n", b"\n- "))),
    Damage("comments", "same", _bytes(lambda data, rng: b"# mine\n\n" + data + b"# end\n")),
    Damage("CRLF", "same", _bytes(lambda data, rng: data.replace(b"\n", b"\r\n"))),
    Damage("a byte order mark", "same", _bytes(lambda data, rng: b"\xef\xbb\xbf" + data)),
    Damage(
        "other order of keys",
        "same",
        _bytes(lambda data, rng: b"".join(rng.sample(lines := data.splitlines(True), len(lines)))),
    ),
]
_INSTRUCTION = [
    Damage(
        "no place for the solution", "refused", _bytes(lambda d, rng: d.replace(b"{solution}", b""))
    ),
    Damage("other places", "any", _bytes(lambda data, rng: data + b"{0.__class__} {x!r} {{} }")),
]

# --- Stores and caches -------------------------------------------------------------------------


def _in_folder(damage: Callable[[Path, Rng], None], pattern: str) -> Callable[[Path, Rng], None]:
    """Damage one file of a folder."""
    return lambda folder, rng: damage(rng.choice(sorted(folder.rglob(pattern))), rng)


def _foreign(folder: Path, rng: Rng) -> None:
    """Shards that another student's run wrote, under the names of ours."""
    for path in sorted(folder.rglob("*.parquet")):
        others = sorted(Path("foreign").rglob("*.parquet"))
        shutil.copy(rng.choice(others), path)


_STORED = [d for d in ANY_FILE if d.name != "missing"]
# Where a file cannot be written again, that is said.
_UNWRITABLE = {"a folder", "a FIFO", "a device", "a loop of links"}


def _after(damage: Damage) -> str:
    return "kept" if damage.name in _UNWRITABLE else "same"


_SHARDS = [
    *(Damage(f"shard: {d.name}", _after(d), _in_folder(d.apply, "*.parquet")) for d in _STORED),
    *(Damage(f"shard: {d.name}", _after(d), _in_folder(d.apply, "*.parquet")) for d in _TABLE),
    *(Damage(f"key: {d.name}", "same", _in_folder(d.apply, "key.json")) for d in _TEXT),
    Damage("shards of another student", "same", _foreign),
    Damage("shards exchanged", "same", lambda folder, rng: _exchange(folder, "*.parquet")),
]


def _exchange(folder: Path, pattern: str) -> None:
    """Every file of a store under its neighbour's name."""
    paths = sorted(folder.rglob(pattern))
    data = [path.read_bytes() for path in paths]
    for path, content in zip(paths, [*data[1:], *data[:1]], strict=True):
        path.write_bytes(content)


def _shelf(pattern: str) -> list[Damage]:
    files = [d for d in (*_STORED, *_TEXT) if d.name != "a folder"]
    return [
        *(Damage(f"{pattern}: {d.name}", _after(d), _in_folder(d.apply, pattern)) for d in files),
        *(
            Damage(f"{pattern}: {d.name}", _after(d), _in_folder(d.apply, pattern))
            for d in (_records_of_shelf, _line_of_shelf)
        ),
    ]


_records_of_shelf = Damage("records of another form", "same", _line(lambda line, rng: "[1, 2]"))
_line_of_shelf = Damage("a line deep", "same", _line(lambda line, rng: "[" * 100_000))
_ARRAYS = [
    *(Damage(f"arrays: {d.name}", _after(d), _in_folder(d.apply, "*.npz")) for d in _STORED),
    Damage(
        "arrays of other names",
        "same",
        _in_folder(lambda path, rng: np.savez(path, x=np.zeros(3)), "*.npz"),
    ),
    Damage(
        "arrays of other shapes",
        "same",
        _in_folder(
            lambda path, rng: np.savez(
                path, vectors=np.zeros((2, 3)), num_tokens=np.zeros(1), limit=np.zeros(2)
            ),
            "*.npz",
        ),
    ),
    Damage(
        "arrays of objects",
        "same",
        _in_folder(
            lambda path, rng: np.savez(
                path, vectors=np.array([{}], object), num_tokens=np.zeros(1), limit=np.zeros(1)
            ),
            "*.npz",
        ),
    ),
]
_CONVERTED = [
    Damage(f"{name}: {d.name}", "any", _in_folder(d.apply, name))
    for name in ("config.json", "tokenizer.json", "model.safetensors")
    for d in ANY_FILE
    if d.name != "missing"
]


def _may(damage: Damage) -> Damage:
    """What is refused elsewhere, and may be left out here."""
    return Damage(
        damage.name, "any" if damage.expected == "refused" else damage.expected, damage.apply
    )


DAMAGES: dict[str, list[Damage]] = {
    "pool": [*ANY_FILE, *_TEXT, *_RECORDS, *_POOL, _BLANK],
    "prompts": [*ANY_FILE, *_TEXT, *_RECORDS, _BLANK],
    "steps": [*ANY_FILE, *_TEXT, *_RECORDS, _BLANK, _EXTRA],
    "training": [*ANY_FILE, *_TEXT, *_RECORDS, _BLANK, _EXTRA],
    "problems": [*ANY_FILE, *_TEXT, *_RECORDS],
    "table": [*ANY_FILE, *_TABLE],
    "foreign": [*ANY_FILE, *_TEXT, *_RECORDS, *_FOREIGN, _BLANK],
    # Of a file that is read row by row, and whose bad rows are left out.
    "skipped": [*ANY_FILE, *(_may(d) for d in (*_TEXT, *_RECORDS)), *_FOREIGN, _BLANK],
    "sheet": [*ANY_FILE, *_TEXT, *_SHEET],
    "packed": [*ANY_FILE, *_PACKED],
    "list": [*ANY_FILE, *_TEXT],
    "origin": [*ANY_FILE, *_TEXT],
    "recipe": [*ANY_FILE, *_TEXT, *_YAML],
    "instruction": [*ANY_FILE, *_TEXT[:4], *_INSTRUCTION],
    "student": [
        *STUDENT_DAMAGES,
        *(
            Damage(f"{name}: {d.name}", "any", damaged_json(name, d.apply))
            for name in ("config.json", "tokenizer.json", "model.safetensors")
            for d in ANY_FILE
        ),
    ],
    "gguf": [*ANY_FILE, *GGUF_DAMAGES],
    "shards": _SHARDS,
    "samples": _shelf("*.jsonl"),
    "arrays": _ARRAYS,
    "converted": _CONVERTED,
}
