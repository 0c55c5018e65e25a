"""Write and read tables of scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError
from lalp.files import atomic_path
from lalp.pools.conversation import turns_text
from lalp.pools.lines import parse_json
from lalp.pools.pool import Pool, Response, located, show
from lalp.pools.reading import load_pool
from lalp.pools.records import is_missing
from lalp.pools.spool import response_facts
from lalp.pools.tables import ROWS_PER_BATCH, check_cells, read_frame
from lalp.pools.writing import extra_types
from lalp.scoring.columns import (
    COUNTS,
    GALP,
    STATISTICS,
    column_window,
    score_columns,
    token_column,
)

_IDS = ("prompt_id", "response_id", "teacher")
_TEXTS = ("prompt", "response", "answer", "correct", "turns", "tools")
_EXTRA = "extra"
POOL_ROW = "pool_row"  # in a shard: the place of each row in the whole pool
_OWN = {*_IDS, *_TEXTS, *COUNTS, *STATISTICS, GALP, "reason", "token_spans", "token_steps"}
_OWN |= {_EXTRA, POOL_ROW}
_TOKENS = token_column("")
# Characters of text in a batch of rows. While the batch is written, memory holds them three times:
# as rows, in Arrow and in Parquet.
_BATCH_CHARACTERS = 4 << 20


def write_scores(
    scores: pd.DataFrame, pool: Pool, path: str | Path, whole: Pool | None = None
) -> None:
    """Write a score table as Parquet, with the texts, so that a selection needs nothing else.

    The rows are written in batches, so the texts of a pool larger than memory are never all in
    memory. If the pool is part of another, the columns are those of the ``whole``, so parts can be
    merged.
    """
    places = {facts[0]: place for place, facts in enumerate(response_facts(pool.responses))}
    order = [places[response_id] for response_id in scores["response_id"]]
    types, lacking = extra_types((whole or pool).responses), _lacking(whole or pool)
    schema = None
    with atomic_path(path) as temporary, ExitStack() as stack:
        for start, responses in _batches(pool, order):
            rows = scores.iloc[start : start + len(responses)]
            frame = _with_texts(rows, responses, pool, types)
            frame = frame.drop(columns=lacking)
            if schema is None:
                schema = _schema(scores, frame)
                writer = stack.enter_context(pq.ParquetWriter(temporary, schema))
            if responses:  # a part of a pool may have none
                rows = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
                writer.write_table(rows)


def _lacking(pool: Pool) -> list[str]:
    """The text columns that would be empty."""
    has_answers = has_tools = False
    for prompt in pool.prompts.values():
        has_answers, has_tools = has_answers or prompt.answer is not None, has_tools or prompt.tools
    lacking = [] if has_answers else ["answer"]
    lacking += [] if has_tools else ["tools"]
    return lacking + ([] if any(response.turns for response in pool.responses) else ["turns"])


def _batches(pool: Pool, order: Sequence[int]) -> Iterator[tuple[int, list[Response]]]:
    """Yield the responses at some places in batches of bounded size, with each batch's first row.

    An empty pool has one empty batch, because a file needs a schema.
    """
    start, characters, batch = 0, 0, list[Response]()
    for number, place in enumerate(order):
        response = pool.responses[place]
        batch.append(response)
        characters += len(response.text)
        if characters >= _BATCH_CHARACTERS or len(batch) == ROWS_PER_BATCH:
            yield start, batch
            start, characters, batch = number + 1, 0, []
    if batch or not order:
        yield start, batch


def _with_texts(
    scores: pd.DataFrame,
    responses: Sequence[Response],
    pool: Pool,
    types: Mapping[str, pa.DataType],
) -> pd.DataFrame:
    """Add the texts and fields of their responses to some rows."""
    asked = [pool.prompts[response.prompt_id] for response in responses]
    # If a thought was joined in the student's form, the scored text differs from the pool's.
    scored = scores.get("response", [response.text for response in responses])
    turns = scores.get("turns", [turns_text(response) for response in responses])
    tools = [json.dumps(p.tools, ensure_ascii=False) if p.tools else None for p in asked]
    prompts = [[asdict(message) for message in prompt.messages] for prompt in asked]
    return scores.assign(
        prompt=prompts,
        response=scored,
        answer=[prompt.answer for prompt in asked],
        turns=turns,
        tools=tools,
        **_extra_columns(responses, types),
    )


def _schema(scores: pd.DataFrame, first: pd.DataFrame) -> pa.Schema:
    """The columns and metadata of a table, from its scores and its first rows.

    Arrow infers a column's type from its rows. The types of scores are inferred from all rows,
    because some rows may lack a value.
    """
    texts = {
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "response": pa.large_string(),
        "answer": pa.large_string(),
        "turns": pa.large_string(),
        "tools": pa.large_string(),
    }
    known = pa.Schema.from_pandas(scores, preserve_index=False)
    made = pa.Schema.from_pandas(first, preserve_index=False)
    fields = []
    for field in made:
        kind = texts.get(field.name)
        kind = known.field(field.name).type if field.name in scores and not kind else kind
        kind = kind or (pa.large_string() if pa.types.is_null(field.type) else field.type)
        fields.append(pa.field(field.name, kind))
    # Parquet keeps the attributes: which student, splitter and key the scores belong to.
    attributes = {"PANDAS_ATTRS": json.dumps(scores.attrs)}
    return pa.schema(fields, metadata=made.metadata | attributes)


def _is_own(name: str) -> bool:
    """Whether a column belongs to score tables and is not a field of the pool."""
    return name in _OWN or name.endswith(_TOKENS) or column_window(name) is not None


def _extra_columns(
    responses: Sequence[Response], types: Mapping[str, pa.DataType]
) -> dict[str, Any]:
    """The columns for the pool's own fields.

    A field with one plain type and a free name gets a column of its own. All others share one
    column, as the text of a JSON object, because a plain column cannot hold them.
    """
    dtypes = {pa.string(): "object", pa.bool_(): "boolean", pa.int64(): "Int64"}
    plain = [name for name, kind in types.items() if kind != pa.json_() and not _is_own(name)]
    columns: dict[str, Any] = {
        name: pd.array([r.extra.get(name) for r in responses], dtypes.get(types[name], "float64"))
        for name in plain
    }
    if len(plain) < len(types):
        rest = [{n: v for n, v in r.extra.items() if n not in columns} for r in responses]
        columns[_EXTRA] = [json.dumps(each, ensure_ascii=False) if each else None for each in rest]
    return columns


def load_scores(path: str | Path) -> pd.DataFrame:
    """Read a score table, for example ``load_scores("scores.parquet")``.

    Raises:
        InputError: If the file is missing, damaged, or not a score table.
    """
    advice = "make one with lalp score"
    frame = read_frame(path, "score table", advice)
    missing = {*_IDS, GALP} - set(map(str, frame.columns))
    if missing:
        name = min(missing)
        raise InputError(f"{path}: not a score table, column {name!r} is missing: {advice}")
    if twice := [name for name, count in Counter(frame.columns).items() if count > 1]:
        raise InputError(f"{path}: several columns are named {twice[0]!r}: {advice}")
    if frame.empty:
        raise InputError(f"{path}: the table has no rows: {advice}")
    known = [name for name in (*COUNTS, *STATISTICS) if name in frame]
    check_cells(frame, str(path), texts=_IDS, numbers=[*score_columns(frame), *known])
    if (ids := frame["response_id"]).duplicated().any():
        name = ids[ids.duplicated()].iloc[0]
        raise InputError(f"{path}: response_id {show(name)} stands in several rows: {advice}")
    for name in ("correct", *_token_columns(frame)):
        if name in frame:
            _check_column(frame, name, f"{path}: column {name!r}", advice)
    return frame


def holds_scores(path: str | Path) -> bool:
    """Whether a file is a score table, and not a pool: Parquet with a column for GALP.

    Example:
        >>> holds_scores("pool.jsonl")
        False
    """
    try:
        return GALP in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False


def _token_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that hold a value for each token of a response."""
    columns = [token_column(name) for name in score_columns(frame)]
    return [name for name in ("token_spans", "token_steps", *columns) if name in frame]


def _check_column(frame: pd.DataFrame, name: str, where: str, advice: str) -> None:
    """Refuse marks that are not true, false or missing, and lists without one number per token."""
    lengths = frame.get("num_tokens", pd.Series(index=frame.index, dtype=float))
    for row, (value, length) in enumerate(zip(frame[name], lengths, strict=True), 1):
        if name == "correct":
            is_sound = is_missing(value) or isinstance(value, bool | np.bool_)
        else:
            is_sound = isinstance(value, np.ndarray) and len(value) == length
            # Each span is an array within the array.
            is_sound = is_sound and (name == "token_spans" or value.dtype.kind in "fiu")
        if not is_sound:
            raise InputError(f"{where}, row {row}: holds {show(value)}: {advice}")


def scored_pool(scores: pd.DataFrame, where: str | Path) -> Pool:
    """The pool in a score table that `write_scores` wrote.

    Raises:
        InputError: If the table holds no texts; ``where`` begins the message.
    """
    if not {"prompt", "response"} <= set(scores.columns):
        raise InputError(f"{where}: the table holds no texts: write it with lalp score")
    columns = ["prompt_id", "prompt", "teacher", "response", "response_id", "answer", "correct"]
    columns += ["tools", *(name for name in scores if not _is_own(name))]
    pool = scores[[name for name in columns if name in scores]]
    if "turns" in scores:  # the response's text has them in the student's form
        texts, advice = zip(scores["response"], scores["turns"], strict=True), "write it anew"
        said = [t if is_missing(turns) else parse_json(turns, advice) for t, turns in texts]
        pool = pool.assign(response=said)
    with located(str(where)):
        return load_pool(pool.assign(**_rest_of(scores)))


def _rest_of(scores: pd.DataFrame) -> dict[str, list[Any]]:
    """The fields that share one column, by name; None for a record without the field."""
    texts = scores.get(_EXTRA, pd.Series(None, index=scores.index))
    advice = "write it with lalp score"
    rest = [{} if is_missing(text) else parse_json(text, advice) for text in texts]
    if not all(isinstance(each, dict) for each in rest):
        raise InputError(f"column {_EXTRA!r} must hold JSON objects: {advice}")
    return {name: [each.get(name) for each in rest] for name in dict.fromkeys(chain(*rest))}
