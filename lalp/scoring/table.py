"""Write and read tables of scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa

from lalp.errors import InputError
from lalp.files import atomic_path
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.columns import GALP


def write_scores(scores: pd.DataFrame, pool: Pool, path: str | Path) -> None:
    """Write a score table as Parquet, with the texts, so that a selection needs nothing else."""
    texts = {response.response_id: response for response in pool.responses}
    responses = [texts[response_id] for response_id in scores["response_id"]]
    prompts = [[asdict(m) for m in pool.prompts[r.prompt_id].messages] for r in responses]
    frame = scores.assign(prompt=prompts, response=[response.text for response in responses])
    # Parquet keeps the attributes: which student, splitter and key the scores belong to.
    frame.attrs = scores.attrs
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def load_scores(path: str | Path) -> pd.DataFrame:
    """Read a score table, for example ``load_scores("scores.parquet")``.

    Raises:
        InputError: If the file is missing, damaged, or not a score table.
    """
    advice = "make one with lalp score"
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable score table ({reason}): {advice}") from error
    missing = {"prompt_id", "response_id", "teacher", GALP} - set(frame.columns)
    if missing:
        name = min(missing)
        raise InputError(f"{path}: not a score table, column {name!r} is missing: {advice}")
    return frame


def scored_pool(scores: pd.DataFrame, where: str | Path) -> Pool:
    """The pool that a score table written by `write_scores` carries.

    Raises:
        InputError: If the table holds no texts; ``where`` begins the message.
    """
    if not {"prompt", "response"} <= set(scores.columns):
        raise InputError(f"{where}: the table holds no texts: write it with lalp score")
    columns = ["prompt_id", "prompt", "teacher", "response", "response_id", "correct"]
    return load_pool(scores[columns])
