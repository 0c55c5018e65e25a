"""The score store: shards of many prompts, in a folder named after everything that decides scores.

Any number of processes may read and write one store without locks, even over a network. A shard
appears whole or not at all, and it is never changed. An intact shard is removed only after a larger
one holds the same scores. Scores that two processes wrote are there twice until shards are merged.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from lalp.errors import InputError, reason
from lalp.files import atomic_path, in_use
from lalp.scoring.gathering import Gathered, group_heads
from lalp.scoring.shards import GROUP, Form, Pile, ScoreKey, Shard, pack_shard

log = logging.getLogger("lalp")
T = TypeVar("T")

FLUSH_SECONDS = 60.0  # a killed run loses at most this much, and the current prompt
_SHARD_BYTES = 64 << 20
# This many shards of similar size are merged. Sizes are similar within this factor.
_FAN = 16
_NAME = re.compile(r"[0-9a-f]{20}\.parquet")


@dataclass(frozen=True)
class _Known:
    """Facts about a shard that are kept, so that it need not be read again."""

    form: Form
    size: int
    heads: tuple[np.ndarray, ...]  # of the groups in each row group


class Store:
    """Scores under one key, in a folder or at a URL that fsspec reads (``s3://bucket/scores``).

    Raises:
        InputError: If fsspec cannot read URLs of that kind.
    """

    def __init__(self, root: str | Path, key: ScoreKey) -> None:
        self._key, self._stack = key, ExitStack()
        self._fs, self._folder = _open_folder(str(root), key.digest)
        self._known: dict[str, _Known] = {}
        self._is_read = self._is_begun = False
        self._own: set[str] = set()  # shards that this process has written
        self._pending: dict[Form, Pile] = {}
        self._flushed = time.monotonic()

    # --- reading

    def fill(self, gathered: Gathered) -> None:
        """Add the lacking scores that are stored, from the best-fitting shards first.

        Shards with exactly the wanted parts come first. So the same command gives the same numbers,
        even if other commands have stored scores since.
        """
        for form, pile in self._pending.items():
            gathered.add(pile.table(), form)
        while True:
            if not self._is_read:
                self._list()
            for name in sorted(self._known, key=lambda name: self._rank(name, gathered.form)):
                self._take(name, gathered)
            if self._is_read:
                return

    def _rank(self, name: str, wanted: Form) -> tuple[bool, bool, str]:
        form = self._known[name].form
        return form != wanted, not set(wanted.parts) <= set(form.parts), name

    def _take(self, name: str, gathered: Gathered) -> None:
        known = self._known[name]
        places = [n for n, heads in enumerate(known.heads) if gathered.lacks(known.form, heads)]

        def hand_over(shard: Shard) -> None:
            for number in places:
                gathered.add(shard.read(number, gathered.form), known.form)

        if places:
            self._read(name, hand_over)

    def _list(self) -> None:
        """Find out which shards the folder holds."""
        self._is_read = True
        sizes = self._sizes()
        self._known = {name: known for name, known in self._known.items() if name in sizes}
        for name in sorted(sizes.keys() - self._known.keys()):
            self._learn(name, sizes[name])

    def _learn(self, name: str, size: int) -> None:
        def look(shard: Shard) -> _Known:
            heads = [group_heads(shard.groups(n)) for n in range(shard.num_row_groups)]
            return _Known(shard.form, size, tuple(heads))

        if known := self._read(name, look):
            self._known[name] = known

    def _sizes(self) -> dict[str, int]:
        """The shards that are there now, with their sizes; other files are ignored."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        # Reading a pipe would wait forever.
        files = [each for each in found if each["type"] == "file"]
        sizes = {each["name"].rsplit("/", 1)[-1]: each["size"] for each in files}
        return {name: size for name, size in sizes.items() if _NAME.fullmatch(name)}

    def _read(self, name: str, use: Callable[[Shard], T]) -> T | None:
        """Apply a function to a shard; None if the shard cannot be read.

        A damaged shard is reported and removed. Its scores are computed again. If another process
        has merged the shard meanwhile, the folder is listed again.
        """
        try:
            with self._fs.open(f"{self._folder}/{name}", "rb") as file:
                return use(Shard(file, name, self._key))
        except (pa.ArrowException, OSError, ValueError) as error:
            self._known.pop(name, None)
            number = getattr(error, "errno", None)  # Arrow's OSErrors have none
            if number in (errno.ENOENT, errno.ESTALE):
                self._is_read = False
                return None
            log.warning("scoring again: shard %s cannot be used (%s)", name, reason(error))
            if number is None:
                self._remove(name)
            return None

    # --- writing

    def begin(self) -> None:
        """Make the folder; InputError if nothing can be written there."""
        if not self._is_begun:
            if isinstance(self._fs, LocalFileSystem):
                self._stack.enter_context(in_use(Path(self._folder)))
            self._put("key.json", json.dumps(asdict(self._key), indent=1).encode())
            self._is_begun = True

    def add(self, table: pa.Table, form: Form) -> None:
        """Keep the scores of a prompt; all are written after a minute, or if there are many."""
        self.begin()
        self._pending.setdefault(form, Pile()).add(table)
        num_bytes = sum(pile.num_bytes for pile in self._pending.values())
        if num_bytes >= _SHARD_BYTES or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the scores that are kept; after that, a kill loses none of them."""
        for form in list(self._pending):
            self._own.add(self._write(self._pending[form].table(), form))
            del self._pending[form]
        self._flushed = time.monotonic()
        # A process merges only its own shards here, so parallel processes do not interfere.
        self._compact(self._own)

    def close(self) -> None:
        """Write the scores that are kept, and merge small shards, also those of other processes."""
        with self._stack:
            if self._pending:
                self.flush()
            if self._own:
                self._list()
                self._compact(set(self._known))

    def _write(self, table: pa.Table, form: Form) -> str:
        name, data = pack_shard(table, form, self._key)
        self._put(name, data)
        self._learn(name, len(data))
        return name

    def _put(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; an object store does that by itself."""
        path = f"{self._folder}/{name}"
        if isinstance(self._fs, LocalFileSystem):
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        else:
            self._fs.pipe_file(path, data)

    def _remove(self, name: str) -> None:
        self._known.pop(name, None)
        self._own.discard(name)
        try:
            self._fs.rm_file(f"{self._folder}/{name}")
        except OSError as error:  # another process was faster, or removal is not allowed
            log.debug("%s stays: %s", name, reason(error))

    # --- merging shards

    def _compact(self, names: set[str]) -> None:
        """Merge small shards while there are many of similar size.

        So a score is written again only a few times, and few files are small.
        """
        while True:
            classes: dict[tuple[Form, int], list[str]] = {}
            names &= self._known.keys()
            for name in sorted(names):
                known = self._known[name]
                if known.size < _SHARD_BYTES // 2:
                    level = known.size.bit_length() // 4
                    classes.setdefault((known.form, level), []).append(name)
            many = [own for own in classes.values() if len(own) >= _FAN]
            if not many:
                return
            self._merge(many[0], names)

    def _merge(self, members: Sequence[str], names: set[str]) -> None:
        """Write one shard with the scores of several, up to a size, and remove those."""
        form, pile, seen, size = self._known[members[0]].form, Pile(), set[bytes](), 0
        taken = []
        for name in members:
            if size >= _SHARD_BYTES:
                break
            size += self._known[name].size
            tables = self._read(name, lambda s: [s.read(n) for n in range(s.num_row_groups)])
            if tables is not None:
                groups = [table[GROUP].to_pylist() for table in tables]
                for table, own in zip(tables, groups, strict=True):
                    pile.add(table.filter(pa.array([group not in seen for group in own])))
                seen.update(*groups)
                taken.append(name)
        if len(taken) > 1:
            made = self._write(pile.table(), form)
            for name in set(taken) - {made}:
                self._remove(name)
            self._own.add(made)
            names.add(made)


def _open_folder(root: str, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a store, and the folder's path there."""
    if "://" not in root:
        return LocalFileSystem(), f"{Path(root).absolute()}/{name}"
    try:
        return fsspec.core.url_to_fs(f"{root}/{name}")
    except (ImportError, ValueError) as error:
        advice = "install what reads it, or give a folder"
        raise InputError(f"store {root}: {reason(error)}: {advice}") from error
