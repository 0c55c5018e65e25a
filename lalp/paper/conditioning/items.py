"""Items that recur in a response: numbers, letters, phrases, and matched controls."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lalp.paper.conditioning.estimates import bootstrap, ratio, spread_estimates
from lalp.pools.pool import Pool, Response
from lalp.stats import Estimate

_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?")
_LONGEST_PHRASE, _SHORTEST_PHRASE = 12, 3
_LEAST_OCCURRENCES = 3
_NUM_CONTROLS = 5


# --- repeated numbers and phrases -----------------------------------------------------------


class Item(NamedTuple):
    """A number or a phrase of one text, with the character spans of its occurrences in order."""

    kind: str
    text: str
    size: int
    spans: tuple[tuple[int, int], ...]


def find_items(text: str) -> list[Item]:
    """Numbers of two digits or more, and phrases of three words or more that repeat.

    A phrase is a run of words with nothing but space between them that occurs three times or more,
    as long as possible (up to twelve words): a phrase within a longer one counts only where the
    longer one does not stand. Phrases of the same lengths that occur once are listed as well, for
    comparison. Letter case and the commas of ``1,228`` do not count.
    """
    numbers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for match in _NUMBER.finditer(text):
        value = match[0].replace(",", "")
        if sum(character.isdigit() for character in value) >= 2:
            numbers[value].append(match.span())
    found = [Item("number", value, 0, tuple(spans)) for value, spans in numbers.items()]
    return found + _find_phrases(text)


def _find_phrases(text: str) -> list[Item]:
    words = list(_LETTERS.finditer(text))
    keys = [match[0].casefold() for match in words]
    # How many words in a row begin here with nothing but space between them.
    run = [1] * len(words)
    for i in range(len(words) - 2, -1, -1):
        between = text[words[i].end() : words[i + 1].start()]
        if not between.strip() and between.count("\n") < 2:
            run[i] += run[i + 1]
    covered = np.zeros(len(words), dtype=bool)
    repeated: list[Item] = []
    single: list[Item] = []
    for size in range(_LONGEST_PHRASE, _SHORTEST_PHRASE - 1, -1):
        places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i in range(len(words) - size + 1):
            if run[i] >= size:
                places[tuple(keys[i : i + size])].append(i)
        again, once = _split_phrases(places, size, covered)
        found = [_phrase(words, begins, size) for begins in again]
        repeated += found
        single += [_phrase(words, [begin], size) for begin in once] if found else []
    return repeated + single


def _split_phrases(
    places: dict[tuple[str, ...], list[int]], size: int, covered: np.ndarray
) -> tuple[list[list[int]], list[int]]:
    """Starts of phrases that repeat, which are then covered, and starts of those that do not."""
    again, once = [], []
    for begins in places.values():
        free: list[int] = []
        for begin in begins:
            overlaps = free and begin < free[-1] + size
            if not overlaps and not covered[begin : begin + size].any():
                free.append(begin)
        if len(free) >= _LEAST_OCCURRENCES:
            again.append(free)
            for begin in free:
                covered[begin : begin + size] = True
        elif len(begins) == 1 and free:
            once.append(begins[0])
    return again, once


def _phrase(words: Sequence[re.Match[str]], begins: Sequence[int], size: int) -> Item:
    first = begins[0]
    text = " ".join(match[0].casefold() for match in words[first : first + size])
    spans = tuple((words[i].start(), words[i + size - 1].end()) for i in begins)
    return Item("phrase", text, size, spans)


def item_frame(tokens: pd.DataFrame, pool: Pool) -> pd.DataFrame:
    """Every occurrence of the numbers and phrases of `find_items`, with its log-probabilities.

    Items that the prompt holds are left out: their first occurrence is none. So are items of two
    occurrences, and those with an occurrence in which no token begins.

    Args:
        tokens: From `token_frame`.
        pool: The texts.

    Returns:
        One row per occurrence: ids, ``kind``, ``item``, ``size`` (words of a phrase), ``count``
        (occurrences in the response), ``occurrence`` (from 1), ``position`` (relative),
        ``previous`` (``none``, ``in the window`` or ``dropped``: where the occurrence before it
        stands for the local score), ``global`` and ``local`` (mean log-probability per token,
        nats), ``p_global`` and ``p_local`` (probability of the whole item).
    """
    texts = {response.response_id: response for response in pool.responses}
    rows: list[dict[str, Any]] = []
    for response_id, own in tokens.groupby("response_id", observed=True, sort=False):
        response = texts[response_id]
        prompt = "\n".join(m.content for m in pool.prompts[response.prompt_id].messages)
        for item in find_items(response.text):
            if len(item.spans) == 2 or _holds(prompt, item):
                continue
            rows += _occurrences(item, own, response)
    return pd.DataFrame(rows, columns=_ITEM_COLUMNS)


_ITEM_VALUES = ["global", "local", "p_global", "p_local"]
_ITEM_IDS = ["prompt_id", "response_id", "teacher", "kind", "item", "size", "count"]
_ITEM_COLUMNS = [*_ITEM_IDS, "occurrence", "position", "previous", *_ITEM_VALUES]


def _holds(prompt: str, item: Item) -> bool:
    if item.kind == "number":
        return item.text in {match[0].replace(",", "") for match in _NUMBER.finditer(prompt)}
    words = " ".join(match[0].casefold() for match in _LETTERS.finditer(prompt))
    return f" {item.text} " in f" {words} "


def _occurrences(item: Item, own: pd.DataFrame, response: Response) -> list[dict[str, Any]]:
    starts = own["start"].to_numpy()
    rows: list[dict[str, Any]] = []
    before = -1
    for occurrence, (start, end) in enumerate(item.spans, 1):
        first, last = np.searchsorted(starts, [start, end])
        if first == last:
            return []
        part = own.iloc[first:last]
        seen = before >= part["window_start"].iloc[0]
        rows.append(
            {
                "prompt_id": response.prompt_id,
                "response_id": response.response_id,
                "teacher": response.teacher,
                "kind": item.kind,
                "item": item.text,
                "size": item.size,
                "count": len(item.spans),
                "occurrence": occurrence,
                "position": part["position"].iloc[0],
                "previous": "none" if before < 0 else "in the window" if seen else "dropped",
                "global": part["global"].mean(),
                "local": part["local"].mean(),
                "p_global": np.exp(part["global"].sum()),
                "p_local": np.exp(part["local"].sum()),
            }
        )
        before = part["token"].iloc[0]
    return rows


def match_controls(items: pd.DataFrame) -> pd.DataFrame:
    """For each occurrence of a repeated item, what items that occur once get at like positions.

    Args:
        items: From `item_frame`.

    Returns:
        The rows of repeated items, their log-probabilities and probabilities replaced by means over
        the five single items of the same kind and size whose relative position is nearest.
    """
    values = _ITEM_VALUES
    controls = items[items["count"] > 1].copy()
    singles = items[items["count"] == 1]
    for group, rows in controls.groupby(["kind", "size"]):
        alike = singles[(singles["kind"] == group[0]) & (singles["size"] == group[1])]
        if alike.empty:
            controls.loc[rows.index, values] = np.nan
            continue
        distances = np.abs(
            rows["position"].to_numpy()[:, None] - alike["position"].to_numpy()[None, :]
        )
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :_NUM_CONTROLS]
        controls.loc[rows.index, values] = alike[values].to_numpy()[nearest].mean(axis=1)
    return controls


def occurrence_table(
    items: pd.DataFrame, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean log-probability and probability at the first, second, third and later occurrences.

    Each item has the same weight, however often it occurs.

    Args:
        items: From `item_frame` or `match_controls`; items that occur once are left out.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per kind and occurrence (``1``, ``2``, ``3``, ``4+``): ``num_items``,
        ``num_prompts``, ``dropped`` (share of occurrences whose predecessor the window drops) and
        ``global``, ``local``, ``p_global``, ``p_local``, each an `Estimate`.
    """
    values = _ITEM_VALUES
    repeated = items[items["count"] > 1]
    label = np.where(repeated["occurrence"] < 4, repeated["occurrence"].astype(str), "4+")
    repeated = repeated.assign(label=label, dropped=repeated["previous"] == "dropped")
    keys = ["kind", "label", "prompt_id", "response_id", "item"]
    means = repeated.groupby(keys, sort=True)[[*values, "dropped"]].mean().reset_index()
    rows = []
    for (kind, occurrence), group in means.groupby(["kind", "label"]):
        estimates = mean_over_items(group, values, num_resamples, seed)
        rows.append(
            {
                "kind": kind,
                "occurrence": occurrence,
                "num_items": len(group),
                "num_prompts": group["prompt_id"].nunique(),
                "dropped": group["dropped"].mean(),
                **dict(zip(values, estimates, strict=True)),
            }
        )
    columns = ["kind", "occurrence", "num_items", "num_prompts", "dropped", *values]
    return pd.DataFrame(rows, columns=columns)


def occurrence_series(items: pd.DataFrame, **options: int) -> pd.DataFrame:
    """Log-probability at each occurrence, of repeated items and of their controls, in long form.

    Args:
        items: From `item_frame`.
        options: As in `occurrence_table`.
    """
    parts = []
    for who, frame in (
        ("repeated items", items),
        ("like positions, items that occur once", match_controls(items)),
    ):
        table = spread_estimates(occurrence_table(frame, **options))
        for name in ("global", "local"):
            part = table[["kind", "occurrence", "num_items", "num_prompts"]].assign(
                series=f"{who}: {name}",
                mean=table[name],
                low=table[f"{name}_low"],
                high=table[f"{name}_high"],
            )
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def occurrence_rises(
    items: pd.DataFrame, controls: pd.DataFrame, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """How much more likely a repeated item is than at its first occurrence, against controls.

    Args:
        items: From `item_frame`.
        controls: From `match_controls`.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per kind and ``previous`` (all later occurrences, or those whose predecessor is in
        the window, or dropped by it): ``num_items``, ``num_prompts``, and in nats per token, each
        an `Estimate`: ``global`` and ``local`` (later minus first), ``difference`` (global minus
        local rise), ``global_control`` and ``local_control`` (the same at single items), and
        ``excess`` (global rise minus its control).
    """
    names = ["global", "local", "difference", "global_control", "local_control", "excess"]
    rises = _item_rises(items, controls)
    rows = []
    for (kind, previous), group in rises.groupby(["kind", "previous"], sort=True):
        estimates = mean_over_items(group, names, num_resamples, seed)
        rows.append(
            {
                "kind": kind,
                "previous": previous,
                "num_items": len(group),
                "num_prompts": group["prompt_id"].nunique(),
                **dict(zip(names, estimates, strict=True)),
            }
        )
    return pd.DataFrame(rows, columns=["kind", "previous", "num_items", "num_prompts", *names])


def _item_rises(items: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Later occurrences minus the first, one row per item and place of the predecessor."""
    keys = ["kind", "prompt_id", "response_id", "item"]
    values = ["global", "local", "global_control", "local_control"]
    both = items[items["count"] > 1].join(controls[["global", "local"]], rsuffix="_control")
    first = both[both["occurrence"] == 1].set_index(keys)[values]
    later = both[both["occurrence"] > 1]
    later = pd.concat([later.assign(previous="all"), later])
    means = later.groupby([*keys, "previous"], sort=True)[values].mean()
    rises = means - first.reindex(means.index.droplevel("previous")).to_numpy()
    return rises.assign(
        difference=rises["global"] - rises["local"],
        excess=rises["global"] - rises["global_control"],
    ).reset_index()


def mean_over_items(
    group: pd.DataFrame, columns: Sequence[str], num_resamples: int, seed: int
) -> list[Estimate]:
    """Means over rows, with intervals over prompts."""
    codes, prompts = pd.factorize(group["prompt_id"], sort=True)
    values = group[list(columns)].to_numpy(dtype=float)
    sums = np.zeros((len(prompts), 2 * len(columns)))
    np.add.at(sums, codes, np.hstack([values, np.ones_like(values)]))
    return bootstrap(sums, ratio, num_resamples, seed)
