"""The sources of records: files of many kinds, packed or not, folders, data sets of the hub."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lalp.errors import InputError, reason
from lalp.extras import require
from lalp.files import check_regular, not_found
from lalp.pools.json_list import json_items
from lalp.pools.layouts import fits_columns, read_chat_json, suggest
from lalp.pools.lines import (
    JSON_LINES,
    ROW_LIMIT,
    OnBad,
    kind_of,
    limited_lines,
    numbered_records,
    open_packed,
    read_errors,
)
from lalp.pools.pool import REQUIRED_FIELDS, show
from lalp.pools.records import is_missing
from lalp.pools.tables import check_columns, parquet_records

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = (*JSON_LINES, ".json", ".csv", ".tsv", ".parquet")
# NAME/NAME:SPLIT or NAME/NAME:CONFIG:SPLIT
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?:([\w.-]+(?:\[[\d:%]+\])?)")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\b")
_TRUTH = {"true": True, "false": False}


@dataclass
class Source:
    """A source's name, its records with their places ("line 3"), and counts of everything else."""

    name: str
    records: Iterable[tuple[str, Any]]
    left_out: Counter[str] = field(default_factory=Counter)


def open_source(source: Any, on_bad: OnBad | None = None, *, any_columns: bool = False) -> Source:
    """The records of a path, a data set of the hub, a data frame, or of records themselves.

    Args:
        source: What to read.
        on_bad: Receives a line that cannot be read; the line is then skipped.
        any_columns: Accept a table with any column names.
    """
    check = check_columns if any_columns else _check_known
    if isinstance(source, pd.DataFrame):
        return Source("DataFrame", _frame_records(source, check))
    if not isinstance(source, str | Path):
        return Source("records", ((f"row {n}", record) for n, record in enumerate(source, 1)))
    name, path = str(source), Path(source)
    try:
        if path.is_dir():
            return _open_folder(path, check)
        if not path.exists():
            if place := _HUB.fullmatch(name):
                return Source(name, _set_records(_from_hub(name, *place.groups()), name, check))
            raise InputError(f"{name}: {not_found(path)}")
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    kind = kind_of(path)
    if kind not in KINDS:
        known = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}, each also .gz or .zst"
        raise InputError(f"{path}: a pool is {known}, not '{kind}'; convert or rename the file")
    if size == 0:
        raise InputError(f"{path}: the file is empty; a pool needs at least one response")
    if kind == ".parquet":
        return Source(name, ((f"row {n}", row) for n, row in parquet_records(path, check)))
    left_out: Counter[str] = Counter()
    if kind == ".json":
        return Source(name, _json_items(path, left_out, on_bad), left_out)
    if kind in (".csv", ".tsv"):
        mark = "\t" if kind == ".tsv" else ","
        return Source(name, _cells(path, mark, left_out, on_bad, check), left_out)
    rows = numbered_records(path, "a pool", left_out, on_bad)
    return Source(name, ((f"line {n}", row) for n, row in rows), left_out)


def _check_known(source: str, names: Sequence[Any]) -> None:
    """Refuse a table that fits no layout, once, before its rows."""
    check_columns(source, names)
    lacking = ", ".join(repr(name) for name in REQUIRED_FIELDS if name not in names)
    is_own = {"prompt_id", "teacher"} & set(names) and {"prompt", "response"} & set(names)
    if lacking and "messages" not in names and (is_own or not fits_columns(names)):
        advice = f"a pool needs {', '.join(REQUIRED_FIELDS)}, or messages"
        likeliest = suggest(dict.fromkeys(names, ""))
        found = f"no column {lacking} among {show(list(names), 120)}"
        raise InputError(f"{source}: {found}; {advice}: {likeliest}")


# --- Files -------------------------------------------------------------------------------------


def _frame_records(frame: pd.DataFrame, check: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    names = list(frame.columns)
    check("DataFrame", names)
    for number, cells in enumerate(frame.itertuples(index=False, name=None), 1):
        row = zip(names, cells, strict=True)
        yield f"row {number}", {name: cell for name, cell in row if not is_missing(cell)}


def _json_items(
    path: Path, left_out: Counter[str], on_bad: OnBad | None
) -> Iterator[tuple[str, Any]]:
    """The items of a JSON list, one at a time, or the lines of a JSON lines file."""
    check_regular(path)
    with read_errors(path), open_packed(path) as file:
        if items := json_items(file, path):
            yield from ((f"item {number}", value) for number, value in items)
            return
    what = "a .json file holds a list of objects, or JSON lines:"
    rows = numbered_records(path, f"{what} then it", left_out, on_bad)
    yield from ((f"line {number}", row) for number, row in rows)


def _cells(
    path: Path, mark: str, left_out: Counter[str], on_bad: OnBad | None, check: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a text table: an empty cell is absent, and a chat may be JSON."""
    check_regular(path)
    csv.field_size_limit(ROW_LIMIT)  # a trace is longer than the module's limit
    with read_errors(path), open_packed(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(limited_lines(text, path), delimiter=mark, strict=True)
        names, line = None, 1
        while True:
            place = f"line {line}"
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as error:
                byte = f"byte 0x{error.object[error.start]:02x}"
                near = f"{path}, near {place}: not UTF-8 text: {byte}"
                raise InputError(f"{near}; save the file as UTF-8") from None
            except csv.Error as error:
                raise InputError(f"{path}, {place}: {error}; mend the file") from None
            line = reader.line_num + 1
            if cells is None:
                return
            if not cells:
                left_out["blank line"] += 1
            elif names is None:
                names = cells
                check(str(path), names)
            elif len(cells) != len(names):
                wrong = InputError(f"has {len(cells)} cells, but there are {len(names)} columns")
                if on_bad is None:
                    raise InputError(f"{path}, {place}: {wrong}")
                on_bad(place, wrong, cells)
            else:
                pairs = zip(names, cells, strict=True)
                yield place, {name: _cell(name, cell) for name, cell in pairs if cell}


def _cell(name: str, text: str) -> Any:
    if name == "correct" and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    return read_chat_json(text) if text.startswith("[") else text


# --- Folders and data sets ---------------------------------------------------------------------


def _open_folder(folder: Path, check: Any) -> Source:
    name = str(folder)
    if (folder / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise InputError(f"{folder}: holds the splits {splits}; give one, as {folder}/SPLIT")
    if (folder / "state.json").is_file():
        return Source(name, _set_records(_from_disk(folder), name, check))
    shards = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    if not shards:
        readable = "Parquet shards, or what save_to_disk of datasets wrote"
        raise InputError(f"{folder}: is a folder; give one that holds {readable}, or a file")
    _check_shards(folder, shards)
    return Source(name, _shard_records(shards, check))


def _check_shards(folder: Path, shards: Sequence[Path]) -> None:
    """Refuse shards of several splits, and sets with missing shards."""
    kinds = sorted({re.sub(r"\d+", "#", path.stem) for path in shards})
    if len(kinds) > 1:
        both = ", ".join(kinds[:4])
        raise InputError(
            f"{folder}: holds Parquet files of several kinds ({both}); give some of them"
        )
    numbers = [match.groups() for path in shards if (match := _SHARD.search(path.name))]
    if numbers and len(shards) != int(numbers[0][1]):
        found = f"{len(shards)} of {int(numbers[0][1])} shards"
        raise InputError(f"{folder}: holds {found}; fetch the others, or give the files by name")


def _shard_records(shards: Sequence[Path], check: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard in shards:
        for number, row in parquet_records(shard, check):
            yield f"{shard.name}, row {number}", row


def _from_disk(folder: Path) -> Dataset:
    require("datasets", str(folder))
    from datasets import load_from_disk

    return _loaded(
        partial(load_from_disk, str(folder)), f"{folder}: is not what save_to_disk writes"
    )


def _from_hub(name: str, hub_id: str, config: str | None, split: str) -> Dataset:
    require("datasets", name)
    from datasets import load_dataset

    load = partial(load_dataset, hub_id, config, split=split)
    return _loaded(load, f"{name}: cannot be loaded from the hub")


def _loaded(load: Any, failure: str) -> Dataset:
    try:
        return load()
    # Hub, cache, network and file formats each raise their own errors.
    except Exception as error:
        advice = "give its files: a folder of Parquet shards, or one file"
        raise InputError(f"{failure} ({reason(error)}); {advice}") from error


def _set_records(data: Dataset, name: str, check: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    check(name, data.column_names)
    for number, row in enumerate(data, 1):
        yield f"row {number}", {key: value for key, value in row.items() if value is not None}
