"""Scores that take hours: committed as numbers, read by notebooks, checked live on a sample.

A profile whose ``results`` name a folder of ``figures/`` reads what `make results` wrote there, if
it belongs to the same texts, student and steps; all else is scored. No text of anybody's is
in these tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError
from lalp.files import atomic_path, digest
from lalp.paper import root_dir
from lalp.paper.profiles import Profile
from lalp.paper.rechecks import SAME_NATS
from lalp.pools.pool import Pool
from lalp.scoring.columns import score_columns
from lalp.scoring.run import score
from lalp.scoring.table import load_scores
from lalp.steps.splitters import Steps

log = logging.getLogger("lalp")

_TEXTS = b"lalp texts"
_keeping: ContextVar[str] = ContextVar("keeping", default="")


def scores_of(
    profile: Profile, part: str, pool: Pool, compute: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """The committed scores of a pool, ``figures/RESULTS/PART.parquet``, or else computed ones."""
    path = root_dir() / "figures" / profile.results / f"{part}.parquet" if profile.results else None
    kept = _keeping.get()
    made_for = _digest(profile, pool)
    if path and kept and (part == kept or part.startswith(f"{kept}_")):
        _write(path, made_for, compute())
    elif path is None or not path.is_file():
        return compute()
    elif (pq.read_schema(path).metadata or {}).get(_TEXTS) != made_for:
        log.warning("%s: of other texts, another student or steps: scored now", path.name)
        return compute()
    return load_scores(path)


@contextmanager
def keeping(part: str) -> Iterator[None]:
    """Meanwhile `scores_of` computes a part (with what its name begins), and writes it."""
    token = _keeping.set(part)
    try:
        yield
    finally:
        _keeping.reset(token)


def _write(path: Path, made_for: bytes, frame: pd.DataFrame) -> None:
    own = frame.drop(columns=["response", "turns"], errors="ignore")
    table = pa.Table.from_pandas(own, preserve_index=False)
    table = table.replace_schema_metadata((table.schema.metadata or {}) | {_TEXTS: made_for})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as made:
        pq.write_table(table, made, compression="zstd", compression_level=19)


def recheck(
    profile: Profile,
    pool: Pool,
    frame: pd.DataFrame,
    windows: Sequence[str],
    *,
    splitter: str | Steps | None = None,
    num_responses: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a seeded sample of responses now, and compare it with a table.

    Returns a row per response: ``response_id``, ``num_tokens``, and ``largest``, the largest
    difference of any score or token in nats. InputError if one exceeds `SAME_NATS`.
    """
    drawn = frame.sample(num_responses, random_state=seed).set_index("response_id")
    kept = tuple(r for r in pool.responses if r.response_id in drawn.index)
    few = replace(
        pool, responses=kept, prompts={r.prompt_id: pool.prompts[r.prompt_id] for r in kept}
    )
    with_tokens = "galp:tokens" in frame
    how = {"splitter": splitter or profile.splitter, "with_tokens": with_tokens}
    now = score(few, profile.student, windows, **how).set_index("response_id")
    columns = score_columns(now)
    columns += [f"{name}:tokens" for name in columns] if with_tokens else []
    rows = [
        (name, now["num_tokens"][name], max(_gap(now[c][name], drawn[c][name]) for c in columns))
        for name in drawn.index
    ]
    checked = pd.DataFrame(rows, columns=["response_id", "num_tokens", "largest"])
    if (far := checked["largest"].max()) > SAME_NATS:
        raise InputError(f"committed scores are off by {far:.2g} nats: run make results again")
    return checked


def _gap(now: np.ndarray | float, before: np.ndarray | float) -> float:
    """The largest difference of two scores or lists of them; missing ones must agree."""
    one, other = np.atleast_1d(now).astype(float), np.atleast_1d(before).astype(float)
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nan_to_num(np.abs(one - other)).max(initial=0.0))


def _digest(profile: Profile, pool: Pool) -> bytes:
    """What decides a table, but the windows, whose columns a reader would miss, and the code."""
    texts = [(r.response_id, r.prompt_id, r.text) for r in pool.responses]
    asked = [(name, [m.content for m in p.messages]) for name, p in pool.prompts.items()]
    return digest([profile.student, profile.splitter, asked, texts]).encode()
