"""Read and check the score table that rules choose from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from lalp.errors import InputError
from lalp.scoring.columns import COUNTS, score_columns, windows_of
from lalp.stats import stable_hash

# Sums over prompts in another order differ by about 1e-14 nats: smaller gaps than this are ties.
TIE_NATS = 1e-12
_IDS = ["prompt_id", "response_id", "teacher"]


def example_scores() -> pd.DataFrame:
    """Two prompts, two teachers: a table for trying this package's functions.

    Example:
        >>> example_scores()
          prompt_id response_id teacher  correct  num_tokens  galp  lalp@4
        0         p          p1     Ada     True          30  -0.5    -1.0
        1         p          p2     Bob     True          20  -0.4    -1.2
        2         q          q1     Ada     True          40  -0.9    -0.8
        3         q          q2     Bob     True          10  -0.7    -0.9
    """
    rows = [
        ("p", "p1", "Ada", True, 30, -0.5, -1.0),
        ("p", "p2", "Bob", True, 20, -0.4, -1.2),
        ("q", "q1", "Ada", True, 40, -0.9, -0.8),
        ("q", "q2", "Bob", True, 10, -0.7, -0.9),
    ]
    return pd.DataFrame(rows, columns=[*_IDS, "correct", "num_tokens", "galp", "lalp@4"])


def describe_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """A score table in a row for each teacher: counts, and means over its scored responses.

    A score table is a plain DataFrame, which a notebook shows row by row; this is the short form.
    ``unscored`` counts responses that lack a score. A mean is NaN if a teacher has no scores.

    Example:
        >>> describe_scores(example_scores())
                 responses  incorrect  unscored  num_tokens  galp  lalp@4
        teacher
        Ada              2          0         0        35.0 -0.70   -0.90
        Bob              2          0         0        15.0 -0.55   -1.05
    """
    require_columns(scores, ["teacher"])
    columns = score_columns(scores)
    known = [name for name in COUNTS if name in scores] + columns
    values = pd.DataFrame({name: score_values(scores, name) for name in known})
    flags = {
        "responses": np.ones(len(scores), dtype=int),
        "incorrect": _incorrect(scores).astype(int),
        "unscored": values[columns].isna().any(axis=1).astype(int),
    }
    teachers = scores["teacher"].to_numpy()
    counts = pd.DataFrame(flags).groupby(teachers).sum()
    return counts.join(values.groupby(teachers).mean()).rename_axis("teacher")


def require_columns(frame: pd.DataFrame, names: Sequence[str], advice: str = "") -> None:
    """Refuse a table that lacks a column; ``advice`` replaces the list of existing columns."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        advice = advice or f"it has {', '.join(map(str, frame.columns))}"
        raise InputError(f"the table has no column {missing[0]!r}: {advice}")


def _check_table(scores: pd.DataFrame) -> None:
    """Refuse a table without rows or a needed column, or with missing or repeated ids."""
    require_columns(scores, [*_IDS, "correct"])
    if scores.empty:
        raise InputError("the scores table has no rows: score a pool first")
    for name in _IDS:
        if missing := int(scores[name].isna().sum()):
            raise InputError(f"{missing} of {len(scores)} rows have no {name}: fill it in")
    # Response ids need to differ only within a prompt.
    repeated = scores[scores.duplicated(["prompt_id", "response_id"])]
    if len(repeated):
        row = repeated.iloc[0]
        which = f"response {row['response_id']!r} of prompt {row['prompt_id']!r}"
        raise InputError(f"{which} stands in the table more than once: keep one row per response")


def check_selection(selected: pd.DataFrame) -> None:
    """Refuse a table that does not hold one response for each of its prompts."""
    require_columns(selected, _IDS)
    if selected.empty:
        raise InputError("the selection has no rows")
    repeated = selected.loc[selected["prompt_id"].duplicated(), "prompt_id"]
    if len(repeated):
        twice = f"prompt {repeated.iloc[0]!r} stands in the selection more than once"
        raise InputError(f"{twice}: give one row per prompt, as select() does")


def only_window(scores: pd.DataFrame) -> str:
    """The window of the table's only LALP column."""
    windows = windows_of(scores)
    if len(windows) == 1:
        return windows[0]
    found = f"the scores hold {', '.join(windows)}: name one" if windows else "the scores hold none"
    raise InputError(f"a LALP rule needs a window; {found}")


def score_values(scores: pd.DataFrame, column: str) -> Float[np.ndarray, " rows"]:
    """A score column as floats; any value that is not a finite number counts as unscored (NaN)."""
    known = ", ".join(score_columns(scores)) or "no score columns"
    require_columns(scores, [column], f"there are {known}: take one, or score the pool anew")
    try:
        values = pd.to_numeric(scores[column]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {column!r} holds something else than numbers: {error}") from error
    return np.where(np.isfinite(values), values, np.nan)


def num_tokens(scores: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """Response tokens of each row; a row without them is refused."""
    lengths = score_values(scores, "num_tokens")
    if (lacking := np.isnan(lengths)).any():
        row = scores[lacking].iloc[0]
        which = f"response {row['response_id']!r} of prompt {row['prompt_id']!r}"
        raise InputError(f"{which} has no num_tokens, which max_tokens counts: score it again")
    return lengths.astype(np.int64)


def _incorrect(scores: pd.DataFrame) -> Bool[np.ndarray, " rows"]:
    """Which responses are known to be wrong; unverified ones are not."""
    require_columns(scores, ["correct"])
    try:
        correct = scores["correct"].astype("boolean")
    except (TypeError, ValueError) as error:
        raise InputError(f"column 'correct' must hold true, false or null: {error}") from error
    return correct.eq(False).to_numpy(dtype=bool, na_value=False)


def candidates(
    scores: pd.DataFrame, columns: Sequence[str], *, skip_unscored: bool
) -> tuple[Bool[np.ndarray, " rows"], dict[str, int]]:
    """Rows that may be chosen, and the number left out: wrong ones, and ones without a score.

    Unverified rows are not wrong. The table is checked first.
    """
    _check_table(scores)
    wrong = _incorrect(scores)
    unscored = np.zeros(len(scores), dtype=bool)
    for column in columns:
        missing = ~wrong & np.isnan(score_values(scores, column))
        if missing.any() and not skip_unscored:
            row = scores[missing].iloc[0]
            reason = "no reason recorded" if pd.isna(row.get("reason")) else row["reason"]
            raise InputError(
                f"{missing.sum()} of {(~wrong).sum()} candidate responses have no score {column}, "
                f"for example {row['response_id']!r} of prompt {row['prompt_id']!r} ({reason}): "
                "leave them out with skip_unscored=True (--skip-unscored), or choose another window"
            )
        unscored |= missing
    counts = {"incorrect responses": int(wrong.sum()), "unscored responses": int(unscored.sum())}
    return ~wrong & ~unscored, {reason: count for reason, count in counts.items() if count}


def draws(label: str, seed: int, scores: pd.DataFrame) -> np.ndarray:
    """A uniform 64-bit number per response: the smallest of a prompt is a uniform choice.

    Hashing instead of a generator makes a choice independent of row order and of other prompts.
    """
    ids = zip(scores["prompt_id"], scores["response_id"], strict=True)
    return np.array([stable_hash(label, seed, *pair) for pair in ids], dtype=np.uint64)


def id_order(scores: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """Place of each row's response id among all, as text."""
    return pd.factorize(scores["response_id"].astype(str), sort=True)[0]


def take(
    scores: pd.DataFrame,
    keep: Bool[np.ndarray, " rows"],
    keys: Sequence[np.ndarray],
    *,
    count: int = 1,
    middle: bool = False,
) -> Int[np.ndarray, " taken"]:
    """Places of the kept rows that are first, or in the middle, for their prompt.

    Rows of a prompt are ordered by ``keys``, then by id. Up to ``count`` are taken from each, with
    prompts in order of first appearance.
    """
    prompts = pd.factorize(scores["prompt_id"])[0]
    order = np.lexsort([id_order(scores), *reversed(keys), prompts])
    order = order[keep[order]]
    _, start, group, counts = np.unique(
        prompts[order], return_index=True, return_inverse=True, return_counts=True
    )
    skipped = np.maximum(counts - count, 0) // 2 if middle else np.zeros_like(counts)
    place = np.arange(len(order)) - (start + skipped)[group]
    return order[(place >= 0) & (place < count)]


def best_first(
    scores: pd.DataFrame, keys: Sequence[np.ndarray], *, middle: bool = False
) -> Int[np.ndarray, " rows"]:
    """Places of all rows by ``keys``, then by ids; with ``middle``, from the middle outwards."""
    prompts = pd.factorize(scores["prompt_id"].astype(str), sort=True)[0]
    order = np.lexsort([prompts, id_order(scores), *reversed(keys)])
    if not middle:
        return order
    distance = np.abs(np.arange(len(order)) - (len(order) - 1) // 2)
    return order[np.argsort(distance, kind="stable")]


def with_left_out(
    scores: pd.DataFrame, chosen: pd.DataFrame, left_out: dict[str, int], reason: str
) -> pd.DataFrame:
    """Attach the counts; ``reason`` is the reason for prompts without a chosen response."""
    prompts_left = int(scores["prompt_id"].nunique()) - int(chosen["prompt_id"].nunique())
    return with_counts(chosen, left_out | ({reason: prompts_left} if prompts_left else {}))


def with_counts(chosen: pd.DataFrame, counts: dict[str, int]) -> pd.DataFrame:
    """Attach the counts of left-out items by reason; refuse an empty selection."""
    if chosen.empty:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"no candidate is left to select from: {listed}: ask for less")
    chosen.attrs["left_out"] = counts
    return chosen
