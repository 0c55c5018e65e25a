"""Read what a training run wrote."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.scoring.groups import Task
from lalp.training.folder import HELD_OUT_FILE, LOG_FILE

_LOG_COLUMNS = (
    *("step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens"),
    *("global_nll", "local_nll", "seconds"),
)


def load_log(folder: str | os.PathLike) -> pd.DataFrame:
    """The log of a finished run: what `train` returned."""
    return pd.read_csv(Path(folder) / LOG_FILE, float_precision="round_trip")


def log_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Steps, tokens in the loss, and first and last value of each measure (NaN: not measured).

    Example:
        >>> nll = {"global_nll": [3.0, math.nan], "local_nll": [2.0, 1.0]}
        >>> log = pd.DataFrame({"step": [0, 1], "num_tokens": [0, 7], "loss": [3.0, 2.0]} | nll)
        >>> [float(end) for end in log_summary(log)["local_nll"]]
        [2.0, 1.0]
    """

    def ends(name: str) -> list[float]:
        known = table[name].dropna()
        return [known.iloc[0], known.iloc[-1]] if len(known) else [math.nan, math.nan]

    return {
        "num_steps": int(table["step"].max()),
        "num_tokens": int(table["num_tokens"].sum()),
        **{name: ends(name) for name in ("loss", "global_nll", "local_nll")},
    }


def load_held_out(folder: str | os.PathLike) -> pd.DataFrame:
    """The held-out scores of a finished run, response by response.

    Returns:
        ``step``, ``prompt_id``, ``response_id``, ``galp`` and ``lalp`` (nats per token), and
        ``reason``, which says why one is NaN.
    """
    # Ids may look like numbers, or like a missing value.
    return pd.read_csv(
        Path(folder) / HELD_OUT_FILE,
        float_precision="round_trip",
        dtype={"prompt_id": str, "response_id": str, "reason": str},
        keep_default_na=False,
        na_values={"galp": [""], "lalp": [""], "reason": [""]},
    )


def measurements(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of the trainer's history that hold held-out scores."""
    return [entry for entry in history if "held_out" in entry]


def log_table(
    history: Sequence[dict[str, Any]], num_tokens: Callable[[int], int], steps_per_epoch: float
) -> pd.DataFrame:
    """The table that `lalp.training.trainer.train` returns.

    Args:
        history: The trainer's.
        num_tokens: Tokens in the loss of an optimizer step, counted from 1.
        steps_per_epoch: Optimizer steps.
    """
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], {"step": entry["step"], "num_tokens": 0})
        if "loss" in entry:
            row |= {key: entry[key] for key in ("loss", "learning_rate", "grad_norm", "seconds")}
            row["num_tokens"] = num_tokens(entry["step"])
        elif "held_out" in entry:
            scores = np.array([[galp, lalp] for galp, lalp, _ in entry["held_out"]], float)
            # Means over the responses that have a score; NaN where none has.
            row["global_nll"], row["local_nll"] = -pd.DataFrame(scores).mean().to_numpy()
    table = pd.DataFrame([rows[step] for step in sorted(rows)]).reindex(columns=_LOG_COLUMNS)
    table["epoch"] = table["step"] / steps_per_epoch
    return table


def held_out_table(
    history: Sequence[dict[str, Any]], tasks: Mapping[str, tuple[str, Task]]
) -> pd.DataFrame:
    """The table that `load_held_out` reads; ``tasks`` are the job's."""
    rows = [
        (entry["step"], prompt_id, response_id, *scores)
        for entry in measurements(history)
        for (response_id, (prompt_id, _)), scores in zip(
            tasks.items(), entry["held_out"], strict=True
        )
    ]
    columns = ["step", "prompt_id", "response_id", "galp", "lalp", "reason"]
    return pd.DataFrame(rows, columns=columns)
