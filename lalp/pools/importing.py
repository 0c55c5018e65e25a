"""Read sources of any known layout into one pool, and report what was left out and why."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.errors import InputError, likeliest
from lalp.files import digest
from lalp.pools.converting import read_record
from lalp.pools.layouts import (
    PLAIN,
    Layout,
    find_layout,
    map_layout,
    show_names,
    value_at,
)
from lalp.pools.lines import JSON_LINES, kind_of
from lalp.pools.pool import Pool, located, show
from lalp.pools.records import PoolBuilder, plain_record
from lalp.pools.sources import open_source
from lalp.pools.turns import has_thought

log = logging.getLogger("lalp")

# A small packed file or table may hold endless texts. Traces pack to about a tenth.
_TIMES, _LEAST = 200, 1 << 30


@dataclass(frozen=True)
class Reject:
    """A row that was left out: its source, its place there, the reason, and its content."""

    source: str
    place: str
    reason: str
    record: Any


def import_pool(
    sources: Sequence[Any],
    *,
    mapping: Mapping[str, str] | None = None,
    teacher: str | None = None,
    on_reject: Callable[[Reject], None] | None = None,
    all_turns: bool = False,
) -> Pool:
    """One pool of several sources; the layout of each is logged.

    ``left_out`` counts blank lines, bad rows, and requests of a batch without an output. InputError
    at the first row that cannot be used, or if no record has a mapped field.

    Args:
        sources: Anything that `load_pool` reads; give the requests of a batch with its output.
        mapping: The field of each target that no layout finds.
        teacher: Author of responses that name nobody. With one, a pool's own records may also lack
            ``teacher`` and ``prompt_id``; without one they may not, and others get "unknown".
        on_reject: Receives each row that cannot be used; the row is then left out.
        all_turns: All assistant turns of a chat are its response, not only the last one. That is
            always so if a tool takes part.
    """
    requests, outputs = _requests(sources)
    several = len(sources) > 1
    reader = _Reader(dict(mapping or {}), teacher, on_reject, requests, several, all_turns)
    for source in outputs:
        reader.read(source)
    return reader.finish(", ".join(map(_name, sources)))


@dataclass
class _Told:
    """How a source is read: the layout of its first row, and the amount of its content."""

    layouts: Counter[str] = field(default_factory=Counter)
    num_responses: int = 0
    num_thoughts: int = 0
    num_several: int = 0  # responses of several turns
    num_earlier: int = 0  # chats with an assistant's turn in the prompt
    first: Layout | None = None
    is_known: bool = False

    def log(self, name: str) -> None:
        """Log the layout of the source; nothing if it is a pool's own without thoughts."""
        if self.num_earlier:
            log.warning(
                "%s: of %d chats with several turns of the assistant, only the last is scored and "
                "trained on: lalp import --all-turns takes all",
                *(name, self.num_earlier),
            )
        if self.first is None and not (self.num_thoughts or self.num_several):
            return
        own = "messages with thoughts" if self.num_thoughts else "a pool's own"
        layout = own if self.first is None else self.first.name
        counts = f"{self.layouts.total()} records, {self.num_responses} responses"
        if self.num_several:
            counts += f", {self.num_several} of several turns"
        if self.num_thoughts:
            counts += f", {self.num_thoughts} thoughts joined to their answers in <think> marks"
        log.warning("%s: read as %s: %s", name, layout, counts)


@dataclass
class _Reader:
    mapping: dict[str, str]
    teacher: str | None
    on_reject: Callable[[Reject], None] | None
    requests: Mapping[str, Any]
    several: bool
    all_turns: bool
    builder: PoolBuilder = field(default_factory=PoolBuilder)
    left_out: Counter[str] = field(default_factory=Counter)
    mapped: set[str] = field(default_factory=set)  # targets whose field occurs in some record
    answered: set[str] = field(default_factory=set)  # requests of a batch
    fields: str = ""  # the first record's

    def read(self, given: Any) -> None:
        """Add all records of a source, and log their layout."""
        name, told = _name(given), _Told()

        def on_bad(place: str, error: InputError, record: Any) -> None:
            self.left_out["bad row"] += 1
            self.on_reject(Reject(name, place, str(error), record))

        tell, before = on_bad if self.on_reject else None, self.builder.size
        most = max(_LEAST, _TIMES * _num_bytes(given))
        source = open_source(given, tell, any_columns=bool(self.mapping))
        for place, raw in _grouped(source.records):
            try:
                with located(f"{name}, {place}"):
                    self._add(raw, f"{name}, {place}" if self.several else place, told)
            except InputError as error:
                if tell is None:
                    raise
                tell(place, InputError(str(error).removeprefix(f"{name}, {place}: ")), raw)
            if self.builder.size - before > most:
                why = f"holds more than {_TIMES} times as much as its own size"
                raise InputError(f"{name}: {why}: no traces do; make the file again")
        self.left_out.update(source.left_out)
        told.log(name)

    def _add(self, raw: Any, place: str, told: _Told) -> None:
        record = plain_record(raw)
        self.fields = self.fields or show_names(record)
        layout = self._layout(record, told)
        if layout is None:
            turns = record.get("messages") or record.get("prompt")
            records, thoughts = [self._with_turns(record)], 0
            if isinstance(turns, list):
                thoughts = sum(map(has_thought, turns))
            teacher = self.teacher
        else:
            asked = self._with_request(layout, record)
            records, thoughts = read_record(layout, asked, all_turns=self.all_turns)
            teacher = self.teacher or "unknown"
        pairs = self.builder.add(records, place, teacher)
        if not told.is_known:
            told.first, told.is_known = layout, True
        told.layouts[layout.name if layout else "a pool's own"] += 1
        told.num_responses += len(records)
        told.num_thoughts += thoughts
        told.num_several += sum(bool(response.given) for _, response in pairs)
        if layout.messages if layout else record.get("messages") is not None:
            roles = (message.role for prompt, _ in pairs for message in prompt.messages)
            told.num_earlier += "assistant" in roles

    def _layout(self, record: dict[str, Any], told: _Told) -> Layout | None:
        """The layout of a record: that of its source's first record, or it is refused."""
        if self.mapping:
            for target, path in self.mapping.items():
                if value_at(record, path) is not None:
                    self.mapped.add(target)
            return map_layout(self.mapping, record)
        is_own = told.is_known and told.first is None
        if is_own and record.get("messages") is None:
            return None  # refused for a missing field, if there is one
        found = find_layout(record)
        if found is None and told.first is PLAIN and record.get("messages") is None:
            return PLAIN
        if told.is_known and found is not told.first:
            names = [one.name if one else "a pool's own" for one in (found, told.first)]
            both = f"laid out as {names[0]}, but the first one as {names[1]}"
            raise InputError(f"{both}; put them into files of their own")
        return found

    def _with_request(self, layout: Layout, record: dict[str, Any]) -> dict[str, Any]:
        """A batch's output with the request that it answers, if there are requests."""
        if layout.prompt_as != "batch" or not self.requests:
            return record
        custom_id = record.get("custom_id")
        if custom_id not in self.requests:
            raise InputError(f"no request has the custom_id {show(custom_id)}")
        self.answered.add(custom_id)
        return record | {"request": self.requests[custom_id]}

    def _with_turns(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of messages with the start of its response, if all turns are the response."""
        turns = record.get("messages")
        if not (self.all_turns and isinstance(turns, list)) or "num_prompt_turns" in record:
            return record
        roles = [turn.get("role") if isinstance(turn, Mapping) else None for turn in turns]
        begin = roles.index("assistant") if "assistant" in roles else 0
        return record | {"num_prompt_turns": begin} if begin else record

    def finish(self, names: str) -> Pool:
        """The pool, if every mapped field was found."""
        for target, path in self.mapping.items():
            if target not in self.mapped and self.fields:
                close = likeliest(path, self.fields.split(", "))
                found = f"no record has that field; the first one's are {self.fields}"
                found = f"{found}: {close or 'name one of them'}"
                raise InputError(f"{names}: --map {target}={path}: {found}")
        if missing := len(self.requests.keys() - self.answered):
            self.left_out["request without an output"] += missing
        return self.builder.finish(names, self.left_out)


def _name(source: Any) -> str:
    """The name of a source in messages."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "DataFrame" if isinstance(source, pd.DataFrame) else "records"


def _num_bytes(source: Any) -> int:
    """The size of a source on disk; 0 if it is in memory or comes from the hub."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if path is None or not path.exists():
        return 0
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


# --- Rows that belong together -----------------------------------------------------------------


def _grouped(rows: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The rows; those that say the same under several filters as one (lm-evaluation-harness)."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    rows = chain([first], rows)
    layout = _group_layout(first[1])
    if layout is None:
        yield from rows
        return
    groups: dict[str, list[tuple[str, Any]]] = {}
    for place, row in rows:
        if not isinstance(row, Mapping) or layout.by not in row:
            groups[place] = [(place, row)]
            continue
        key = digest([value_at(row, path) for path in layout.group])
        others = groups.setdefault(key, [])
        if any(row[layout.by] == other[layout.by] for _, other in others):
            groups[place] = [(place, row)]  # a repeated row, not one of two filters
        else:
            others.append((place, row))
    for group in groups.values():
        yield group[0][0], _merged([row for _, row in group], layout.by)


def _group_layout(row: Any) -> Layout | None:
    try:
        layout = find_layout(row) if isinstance(row, Mapping) else None
    except InputError:
        return None
    return layout if layout and layout.group else None


def _merged(rows: Sequence[Any], by: str) -> Any:
    """One row from several: fields that differ hold each row's value, keyed by the field ``by``."""
    if len(rows) == 1:
        return rows[0]
    merged = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        same = all(value == values[0] for value in values)
        merged[name] = values[0] if same else {str(row[by]): row.get(name) for row in rows}
    return merged | {by: [row[by] for row in rows]}


# --- Batches -----------------------------------------------------------------------------------


def _requests(sources: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The requests of batches among some sources, by their ids; and the other sources."""
    requests: dict[str, Any] = {}
    others = []
    for source in sources:
        if len(sources) == 1 or not _holds_requests(source):
            others.append(source)
            continue
        for place, row in open_source(source).records:
            with located(f"{_name(source)}, {place}"):
                row = plain_record(row)
                if not _is_request(row):
                    raise InputError("is no request of a batch, as the first line is")
                if row["custom_id"] in requests:
                    raise InputError(f"the custom_id {show(row['custom_id'])} is given twice")
                requests[row["custom_id"]] = row
    return requests, others


def _holds_requests(source: Any) -> bool:
    is_path = isinstance(source, str | os.PathLike)
    if not is_path or kind_of(Path(source)) not in JSON_LINES or not Path(source).is_file():
        return False
    try:
        first = next(iter(open_source(source).records), None)
    except InputError:
        return False  # and reported when the source is read
    return first is not None and _is_request(first[1])


def _is_request(row: Any) -> bool:
    return isinstance(row, Mapping) and row.keys() >= {"custom_id", "method", "url", "body"}
