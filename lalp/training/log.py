"""The tables of a training run: its log, and its held-out scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lalp.scoring.groups import Task
from lalp.training.folder import HELD_OUT_FILE, LOG_FILE

_LOG_COLUMNS = (
    *("step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens"),
    *("global_nll", "local_nll", "seconds"),
)
_HELD_OUT_COLUMNS = ["step", "prompt_id", "response_id", "galp", "lalp", "reason"]


def load_log(folder: str | os.PathLike) -> pd.DataFrame:
    """The log of a finished run: the result of `train`."""
    return pd.read_csv(Path(folder) / LOG_FILE, float_precision="round_trip")


def log_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Steps, tokens in the loss, and first and last value of each measure (NaN: not measured).

    Example:
        >>> nll = {"global_nll": [3.0, None], "local_nll": [2.0, 1.0]}
        >>> log = pd.DataFrame({"step": [0, 1], "num_tokens": [0, 7], "loss": [3.0, 2.0]} | nll)
        >>> [float(end) for end in log_summary(log)["local_nll"]]
        [2.0, 1.0]
    """
    counts = {"num_steps": int(table["step"].max()), "num_tokens": int(table["num_tokens"].sum())}
    measures = table[["loss", "global_nll", "local_nll"]]
    # After filling from the other side, the first and last row hold the first and last value.
    ends = measures.bfill().iloc[0], measures.ffill().iloc[-1]
    return counts | {name: [end[name] for end in ends] for name in measures}


def load_held_out(folder: str | os.PathLike) -> pd.DataFrame:
    """The held-out scores of a finished run, in nats per token, response by response.

    Columns ``step``, ``prompt_id``, ``response_id``, ``galp``, ``lalp``, and ``reason``, which says
    why one is NaN.
    """
    # Ids may look like numbers, or like a missing value.
    return pd.read_csv(
        Path(folder) / HELD_OUT_FILE,
        float_precision="round_trip",
        dtype=dict.fromkeys(("prompt_id", "response_id", "reason"), str),
        keep_default_na=False,
        na_values={name: [""] for name in ("galp", "lalp", "reason")},
    )


def write_tables(
    folder: Path,
    history: Sequence[dict[str, Any]],
    steps_per_epoch: float,
    tasks: Mapping[str, tuple[str, Task]],
) -> None:
    """Write the files of `load_log` and `load_held_out` from the trainer's history and job."""
    rows, scored = [], []
    keys = [(prompt_id, response_id) for response_id, (prompt_id, _) in tasks.items()]
    for entry in history:
        if "held_out" in entry:
            # Means over the responses that have a score; NaN if none has.
            galp, lalp = pd.DataFrame(entry["held_out"])[[0, 1]].astype(float).mean()
            pairs = zip(keys, entry["held_out"], strict=True)
            scored += [(entry["step"], *key, *scores) for key, scores in pairs]
            entry = {"step": entry["step"], "global_nll": -galp, "local_nll": -lalp}
        rows.append(entry)
    # A step's loss and its held-out scores are separate entries.
    table = pd.DataFrame(rows).groupby("step", as_index=False).first().reindex(columns=_LOG_COLUMNS)
    table["num_tokens"] = table["num_tokens"].fillna(0).astype(int)
    table["epoch"] = table["step"] / steps_per_epoch
    table.to_csv(folder / LOG_FILE, index=False)
    if tasks:
        held_out = pd.DataFrame(scored, columns=_HELD_OUT_COLUMNS)
        held_out.to_csv(folder / HELD_OUT_FILE, index=False)
