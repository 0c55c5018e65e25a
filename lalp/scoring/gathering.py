"""Gather the scores of a pool from the store and from the student."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from lalp.pools.pool import Pool
from lalp.pools.spool import response_facts
from lalp.scoring.columns import COUNTS, STATISTICS, token_column
from lalp.scoring.groups import PromptGroup
from lalp.scoring.shards import Form, Pile, group_runs, reason_column


class Gathered:
    """The prompt groups of a pool, each with a number, and the parts of their scores.

    Prompts with the same texts are one group, which is scored once. For each response and group,
    numbers are kept in memory, not objects.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self._numbers: dict[bytes, int] = {}
        self._sizes = array("q")  # responses of each group
        # For each response, in the order of `ask`: its group, its place there, its id.
        self._owners, self._places, self._ids = array("q"), array("q"), list[str]()
        self._piles = {part: Pile() for part in form.parts}
        self._rows: dict[str, np.ndarray] = {}

    def ask(self, group: PromptGroup) -> bool:
        """Request the scores of a group before `begin`, and return whether the group is new."""
        digest = bytes.fromhex(group.digest)
        number = self._numbers.setdefault(digest, len(self._numbers))
        self._owners.extend([number] * len(group.responses))
        self._places.extend(range(len(group.responses)))
        self._ids += [response.response_id for response in group.responses]
        if is_new := number == len(self._sizes):
            self._sizes.append(len(group.responses))
        return is_new

    def begin(self) -> None:
        """End the requests; from now on, rows can be added."""
        # For each part, the first row of each group in the part's pile; -1 if it has none yet.
        self._rows = {part: np.full(len(self._sizes), -1) for part in self.form.parts}
        heads = group_heads(list(self._numbers))
        self._order = np.argsort(heads)
        self._heads = heads[self._order]

    def by_digest(self) -> list[int]:
        """The groups' numbers, in an order that does not depend on the pool's order."""
        return self._order.tolist()

    def lacking(self, number: int) -> tuple[str, ...]:
        """The parts for which a group, given by number, has no scores yet."""
        return tuple(part for part, rows in self._rows.items() if rows[number] < 0)

    def lacks(self, form: Form, heads: np.ndarray | None = None) -> bool:
        """Whether any group, or any with one of these heads, lacks some part of a form."""
        if self.form.with_tokens and not form.with_tokens:
            return False
        numbers = slice(None)
        if heads is not None:
            places = np.searchsorted(self._heads, heads)
            places = places[places < len(self._heads)]
            numbers = self._order[places[np.isin(self._heads[places], heads)]]
        return any((self._rows[part][numbers] < 0).any() for part in self._shared(form))

    def add(self, table: pa.Table, form: Form) -> None:
        """Take the parts that are still lacking from rows of whole groups.

        Raises:
            ValueError: If a group has another number of rows than it has responses.
        """
        found = []
        for digest, begin, length in group_runs(table):
            if (number := self._numbers.get(digest)) is None:
                continue
            if length != self._sizes[number]:
                raise ValueError("it holds the wrong number of rows")
            found.append((number, begin, length))
        for part in self._shared(form):
            rows, pile = self._rows[part], self._piles[part]
            taken = [each for each in found if rows[each[0]] < 0]
            if not taken:
                continue
            own = table.select(self.form.columns(part))
            if sum(length for _, _, length in taken) < table.num_rows:
                own = own.take(np.concatenate([np.arange(b, b + n) for _, b, n in taken]))
            place = pile.num_rows
            for number, _, length in taken:
                rows[number], place = place, place + length
            pile.add(own)

    def _shared(self, form: Form) -> list[str]:
        return [part for part in self.form.parts if part in form.parts]

    def join(self, pool: Pool) -> pd.DataFrame:
        """The table of ids and scores, in the pool's order."""
        ids = pool_ids(pool)
        owners = np.frombuffer(self._owners, np.int64)
        places = np.frombuffer(self._places, np.int64)
        order = pd.Index(self._ids).get_indexer(ids["response_id"])
        columns: dict[str, pa.ChunkedArray] = {}
        for part, pile in self._piles.items():
            rows = (self._rows[part][owners] + places)[order]
            table = pile.table() if len(rows) else _empty(self.form, part)
            taken = table.take(pa.array(rows, pa.int64()))
            columns |= dict(zip(taken.column_names, taken.columns, strict=True))
        columns["reason"] = _reasons([(p, columns.pop(reason_column(p))) for p in self.form.parts])
        scores = pa.table({name: columns[name] for name in self._names()}).to_pandas()
        return pd.concat([ids, scores], axis=1)

    def _names(self) -> list[str]:
        parts = self.form.parts
        names = [*COUNTS, *STATISTICS, *parts, "reason"]
        if self.form.with_tokens:
            names += ["token_spans", "token_steps", *map(token_column, parts)]
        return names


def pool_ids(pool: Pool) -> pd.DataFrame:
    """The first columns of a score table."""
    names = ["response_id", "prompt_id", "teacher", "correct"]
    ids = pd.DataFrame(response_facts(pool.responses), columns=names)
    ids["correct"] = ids["correct"].astype("boolean")
    return ids[["prompt_id", "response_id", "teacher", "correct"]]


def group_heads(digests: Sequence[bytes]) -> np.ndarray:
    """The first eight bytes of each digest as a number, to compare many at once."""
    if not digests:
        return np.empty(0, np.uint64)
    raw = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
    return np.ascontiguousarray(raw[:, :8]).view(np.uint64).ravel()


def _empty(form: Form, part: str) -> pa.Table:
    return form.schema.empty_table().select(form.columns(part))


def _reasons(columns: Sequence[tuple[str, pa.ChunkedArray]]) -> pa.Array:
    """Why scores are NaN, in one text for each row; null if none is NaN."""
    texts: dict[int, list[str]] = {}
    for part, column in columns:
        if column.null_count < len(column):
            for row, why in enumerate(column.to_pylist()):
                if why is not None:
                    texts.setdefault(row, []).append(f"{part}: {why}")
    rows = range(len(columns[0][1]))
    return pa.array(["; ".join(texts[row]) if row in texts else None for row in rows], pa.string())
