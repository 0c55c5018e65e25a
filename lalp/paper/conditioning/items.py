"""Items that recur in a response: numbers, letters, phrases, and matched controls."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.paper.estimates import group_means
from lalp.pools.pool import Pool, Response

_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?")
_LONGEST_PHRASE, _SHORTEST_PHRASE = 12, 3
_LEAST_OCCURRENCES = 3
_NUM_CONTROLS = 5


class Item(NamedTuple):
    """A number or a phrase of one text, with the character spans of its occurrences in order."""

    kind: str
    text: str
    size: int
    spans: tuple[tuple[int, int], ...]


def find_items(text: str) -> list[Item]:
    """Numbers of two digits or more, and phrases of three words or more that repeat.

    A phrase is a run of words with only space between them. It occurs three times or more and is as
    long as possible (up to twelve words): a phrase counts only outside longer phrases that repeat.
    Phrases of the same lengths that occur once are listed too, for comparison. Letter case and the
    commas of ``1,228`` do not count.
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
    # Words of the same run have nothing but space between them.
    gaps = [text[a.end() : b.start()] for a, b in pairwise(words)]
    runs = np.cumsum([0, *(bool(gap.strip()) or gap.count("\n") > 1 for gap in gaps)])
    covered = np.zeros(len(words), dtype=bool)
    repeated, single = [], []
    # From long to short: words in a long repeated phrase are not part of a shorter one.
    for size in range(_LONGEST_PHRASE, _SHORTEST_PHRASE - 1, -1):
        places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i in range(len(words) - size + 1):
            if runs[i] == runs[i + size - 1]:
                places[tuple(keys[i : i + size])].append(i)
        again, once = [], []
        for key, begins in places.items():
            free: list[int] = []
            for begin in begins:
                overlaps = free and begin < free[-1] + size
                if not overlaps and not covered[begin : begin + size].any():
                    free.append(begin)
            spans = tuple((words[i].start(), words[i + size - 1].end()) for i in free)
            item = Item("phrase", " ".join(key), size, spans)
            if len(free) >= _LEAST_OCCURRENCES:
                again.append(item)
                for begin in free:
                    covered[begin : begin + size] = True
            elif free and len(begins) == 1:
                once.append(item)
        repeated += again
        single += once if again else []
    return repeated + single


def item_frame(tokens: pd.DataFrame, pool: Pool) -> pd.DataFrame:
    """Every occurrence of the numbers and phrases of `find_items`, with its log-probabilities.

    Items in the prompt are left out, because they occur there first. Items with two occurrences, or
    with an occurrence in which no token begins, are left out too. ``previous`` says where the
    previous occurrence is: ``none``, ``in the window`` or ``dropped``; ``global`` and ``local`` are
    means per token (nats), ``p_global`` and ``p_local`` are for the whole item.
    """
    texts = {response.response_id: response for response in pool.responses}
    rows: list[tuple[Any, ...]] = []
    for response_id, frame in tokens.groupby("response_id", observed=True, sort=False):
        response = texts[response_id]
        # Arrays: a response has a thousand items, and reading rows of a table is slow.
        own = {name: frame[name].to_numpy() for name in _TOKEN_VALUES}
        prompt = prompt_text(pool, response.prompt_id)
        numbers = {number.replace(",", "") for number in _NUMBER.findall(prompt)}
        words = f" {' '.join(_LETTERS.findall(prompt)).casefold()} "
        for item in find_items(response.text):
            in_prompt = item.text in numbers if item.kind == "number" else f" {item.text} " in words
            # Items of two occurrences are neither repeated (three or more) nor single.
            if len(item.spans) != 2 and not in_prompt:
                rows += _occurrences(item, own, response)
    about = "prompt_id response_id teacher kind item size count occurrence position previous"
    return pd.DataFrame(rows, columns=[*about.split(), *_ITEM_VALUES])


_ITEM_VALUES = ["global", "local", "p_global", "p_local"]
_TOKEN_VALUES = ("start", "window_start", "token", "position", "global", "local")


def prompt_text(pool: Pool, prompt_id: str) -> str:
    """All that a response's window may read of its prompt."""
    return "\n".join(message.content for message in pool.prompts[prompt_id].messages)


def _occurrences(
    item: Item, own: Mapping[str, np.ndarray], response: Response
) -> list[tuple[Any, ...]]:
    about = (item.kind, item.text, item.size, len(item.spans))
    ids = (response.prompt_id, response.response_id, response.teacher, *about)
    rows: list[tuple[Any, ...]] = []
    before = -1
    for occurrence, (start, end) in enumerate(item.spans, 1):
        first, last = np.searchsorted(own["start"], [start, end])
        if first == last:
            return []
        previous = "in the window" if before >= own["window_start"][first] else "dropped"
        place = (occurrence, own["position"][first], "none" if before < 0 else previous)
        scores = np.stack([own["global"][first:last], own["local"][first:last]])
        rows.append((*ids, *place, *scores.mean(axis=1), *np.exp(scores.sum(axis=1))))
        before = own["token"][first]
    return rows


def match_controls(items: pd.DataFrame) -> pd.DataFrame:
    """For each occurrence of a repeated item, the scores of single items at similar positions.

    Log-probabilities and probabilities are means over the five single items of the same kind and
    size whose relative position is nearest.
    """
    controls = items[items["count"] > 1].copy()
    singles = items[items["count"] == 1]
    for (kind, size), rows in controls.groupby(["kind", "size"]):
        alike = singles[(singles["kind"] == kind) & (singles["size"] == size)]
        means = np.nan
        if len(alike):
            # Text gets likelier with position, so a control must be at a similar place.
            alike = alike.sort_values("position", kind="stable")
            nearest = _nearest(rows["position"].to_numpy(), alike["position"].to_numpy())
            means = alike[_ITEM_VALUES].to_numpy()[nearest].mean(axis=1)
        controls.loc[rows.index, _ITEM_VALUES] = means
    return controls


def _nearest(
    positions: Float[np.ndarray, " items"], sorted_: Float[np.ndarray, " singles"]
) -> Int[np.ndarray, "items controls"]:
    """Places of the nearest few of sorted positions; of two equally near ones, the earlier."""
    number = min(_NUM_CONTROLS, len(sorted_))
    # They are neighbours: only as many before and after a position can be among them.
    begins = np.searchsorted(sorted_, positions)[:, None] + np.arange(-number, number)
    inside = (begins >= 0) & (begins < len(sorted_))
    places = begins.clip(0, len(sorted_) - 1)
    distances = np.where(inside, np.abs(sorted_[places] - positions[:, None]), np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :number]
    return np.take_along_axis(places, order, axis=1)


def occurrence_table(items: pd.DataFrame, **resampling: int) -> pd.DataFrame:
    """Mean log-probability and probability at the first, second, third and later occurrences.

    Each repeated item of `item_frame` or `match_controls` has the same weight. ``dropped`` is the
    share of occurrences whose predecessor is outside the window.
    """
    repeated = items[items["count"] > 1]
    label = np.where(repeated["occurrence"] < 4, repeated["occurrence"].astype(str), "4+")
    repeated = repeated.assign(occurrence=label, dropped=repeated["previous"] == "dropped")
    keys = ["kind", "occurrence", "prompt_id", "response_id", "item"]
    means = repeated.groupby(keys, sort=True)[[*_ITEM_VALUES, "dropped"]].mean().reset_index()
    table = group_means(means, ["kind", "occurrence"], _ITEM_VALUES, **resampling)
    dropped = means.groupby(["kind", "occurrence"])["dropped"].mean()
    table.insert(4, "dropped", dropped.to_numpy())
    return table


def occurrence_series(items: pd.DataFrame, **resampling: int) -> pd.DataFrame:
    """Log-probability at each occurrence, of repeated items and of their controls, in long form."""
    controls = match_controls(items)
    frames = {"repeated items": items, "like positions, items that occur once": controls}
    parts = []
    for who, frame in frames.items():
        table = occurrence_table(frame, **resampling)
        for name in ("global", "local"):
            part = table[["kind", "occurrence", "num_items", "num_prompts"]]
            ends = {"mean": "value", "low": "low", "high": "high"}
            ends = {column: table[name].map(attrgetter(end)) for column, end in ends.items()}
            parts.append(part.assign(series=f"{who}: {name}", **ends))
    return pd.concat(parts, ignore_index=True)


def occurrence_rises(
    items: pd.DataFrame, controls: pd.DataFrame, **resampling: int
) -> pd.DataFrame:
    """Rise in likelihood of a repeated item over its first occurrence, against controls.

    A row per kind and ``previous``: all later occurrences, or those whose predecessor is inside or
    outside the window. In nats per token: ``global`` and ``local`` (later minus first),
    ``difference`` (global minus local rise), ``global_control`` and ``local_control`` (the same at
    single items), and ``excess`` (global rise minus its control).
    """
    keys = ["kind", "prompt_id", "response_id", "item"]
    values = ["global", "local", "global_control", "local_control"]
    both = items[items["count"] > 1].join(controls[["global", "local"]], rsuffix="_control")
    first = both[both["occurrence"] == 1].set_index(keys)[values]
    later = both[both["occurrence"] > 1]
    later = pd.concat([later.assign(previous="all"), later])
    # Per item first: each has the same weight, however often it occurs.
    means = later.groupby([*keys, "previous"], sort=True)[values].mean()
    rises = means - first.reindex(means.index.droplevel("previous")).to_numpy()
    rises["difference"] = rises["global"] - rises["local"]
    rises["excess"] = rises["global"] - rises["global_control"]
    names = ["global", "local", "difference", "global_control", "local_control", "excess"]
    return group_means(rises.reset_index(), ["kind", "previous"], names, **resampling)
