"""Self-conditioning: what tokens gain from context outside the window (paper, Sec. 7.4.2, Eq. 4).

``gap_t = log p(y_t | x, y_<t) - log p(y_t | x, window)``, in nats. A token of the first steps has a
gap of exactly 0, because its window drops nothing (``dropped`` is False): part of any growth with
position is this definition. All intervals are percentile bootstraps over prompts.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.records import InputError, Message, Pool, Prompt, Response
from lalp.segmentation import Span
from lalp.windows import parse_window, window_starts

QUANTITIES = ("gap", "global", "local")
# Where a token's word stood last: nowhere, where the window still sees it, or only before that.
SEEN = ("new", "in the window", "before the window only")
_LEVEL = 95.0
_WORD = re.compile(r"\w+|[^\w\s]|\n+")
_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?")
_LONGEST_PHRASE, _SHORTEST_PHRASE = 12, 3
_LEAST_OCCURRENCES = 3
_NUM_CONTROLS = 5


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % bootstrap interval over prompts (NaN ends: there is none)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def spread_estimates(table: pd.DataFrame) -> pd.DataFrame:
    """A table with each `Estimate` as three numbers: ``name``, ``name_low``, ``name_high``."""
    columns: dict[str, Any] = {}
    for name in table:
        if any(isinstance(cell, Estimate) for cell in table[name]):
            columns[name] = [cell.value for cell in table[name]]
            columns[f"{name}_low"] = [cell.low for cell in table[name]]
            columns[f"{name}_high"] = [cell.high for cell in table[name]]
        else:
            columns[name] = table[name]
    return pd.DataFrame(columns, index=table.index)


# --- one row per token ----------------------------------------------------------------------


def token_frame(scores: pd.DataFrame, pool: Pool, window: str) -> pd.DataFrame:
    """One row per scored token, with its gap (Eq. 4).

    Args:
        scores: From `lalp.score` with token columns.
        pool: Holds the texts of all responses in ``scores``.
        window: The local window, for example ``4``.

    Returns:
        ``prompt_id``, ``response_id``, ``teacher``, ``token`` (its index), ``position`` (relative,
        0 to 1), ``step``, ``start`` (first non-space character), ``window_start`` (first response
        token that the window sees), ``dropped`` (whether the window drops anything), ``word_seen``
        and ``pair_seen`` (where its word, and its word together with the one before, stood
        earlier: one of ``SEEN``), ``global``, ``local`` and ``gap`` in nats. Tokens without both
        scores are left out; ``attrs["left_out"]`` counts them.

    Raises:
        InputError: If the scores lack tokens or the window, or the pool lacks a response.
    """
    local_column = f"lalp@{parse_window(window)}:tokens"
    for column in ("galp:tokens", local_column, "token_spans", "token_steps"):
        if column not in scores:
            raise InputError(
                f"the scores lack column {column!r}: score with this window and with_tokens=True"
            )
    texts = {response.response_id: response for response in pool.responses}
    missing = [i for i in scores["response_id"] if i not in texts]
    if missing:
        raise InputError(f"the pool lacks response {missing[0]!r} of the scores: give its own pool")
    parts = [
        _response_tokens(row, texts[row["response_id"]].text, _prompt_text(pool, row), window)
        for row in scores.to_dict("records")
    ]
    frame = pd.concat(parts, ignore_index=True)
    for name in ("prompt_id", "response_id", "teacher"):
        frame[name] = frame[name].astype("category")
    scored = frame["gap"].notna()
    kept = frame[scored].reset_index(drop=True)
    kept.attrs["left_out"] = int((~scored).sum())
    return kept


def _prompt_text(pool: Pool, row: dict[str, Any]) -> str:
    return "\n".join(message.content for message in pool.prompts[row["prompt_id"]].messages)


def _response_tokens(row: dict[str, Any], text: str, prompt: str, window: str) -> pd.DataFrame:
    spans = np.asarray([list(span) for span in row["token_spans"]], dtype=int).reshape(-1, 2)
    steps = np.asarray(row["token_steps"], dtype=int)
    starts = np.array([first_character(text, start, end) for start, end in spans], dtype=int)
    window_start = _window_starts(steps, window)
    global_, local = (
        np.asarray(row[column], dtype=float)
        for column in ("galp:tokens", f"lalp@{parse_window(window)}:tokens")
    )
    count = len(spans)
    return pd.DataFrame(
        {
            "prompt_id": row["prompt_id"],
            "response_id": row["response_id"],
            "teacher": row["teacher"],
            "token": np.arange(count),
            "position": (np.arange(count) + 0.5) / max(count, 1),
            "step": steps,
            "start": starts,
            "window_start": window_start,
            "dropped": window_start > 0,
            **{
                name: pd.Categorical(
                    _seen(text, prompt, starts, window_start, size), categories=SEEN
                )
                for name, size in (("word_seen", 1), ("pair_seen", 2))
            },
            "global": global_,
            "local": local,
            "gap": global_ - local,
        }
    )


def first_character(text: str, start: int, end: int) -> int:
    """Where the token's first character that is no white space stands; its start if all is."""
    piece = text[start:end]
    return start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)


def _window_starts(steps: Int[np.ndarray, "tokens"], window: str) -> Int[np.ndarray, "tokens"]:
    """First response token that each token's window sees."""
    if not len(steps):
        return np.zeros(0, dtype=int)
    numbers = np.arange(steps[-1] + 1)
    spans = list(
        zip(
            np.searchsorted(steps, numbers, "left").tolist(),
            np.searchsorted(steps, numbers, "right").tolist(),
            strict=True,
        )
    )
    return np.array(window_starts(parse_window(window), spans), dtype=int)[steps]


def _seen(
    text: str,
    prompt: str,
    starts: Int[np.ndarray, "tokens"],
    window_start: Int[np.ndarray, "tokens"],
    size: int,
) -> list[str]:
    """Where the run of ``size`` words that ends with each token's word stood before.

    A word is a run of letters, digits and underscores in any case, one other character, or a line
    break. What the prompt holds is seen by every window.
    """
    words = list(_WORD.finditer(text))
    runs, known = _word_runs(words, size), set(_word_runs(list(_WORD.finditer(prompt)), size))
    earlier: list[int] = []
    last: dict[tuple[str, ...], int] = {}
    for match, run in zip(words, runs, strict=True):
        earlier.append(last.get(run, -1))
        last[run] = match.start()
    begins = [match.start() for match in words]
    labels = []
    for start, first in zip(starts, window_start, strict=True):
        place = max(bisect_right(begins, start) - 1, 0)
        if not words or runs[place] in known:
            labels.append(SEEN[1])
        elif earlier[place] < 0:
            labels.append(SEEN[0])
        else:
            labels.append(SEEN[1] if earlier[place] >= starts[first] else SEEN[2])
    return labels


def _word_runs(words: Sequence[re.Match[str]], size: int) -> list[tuple[str, ...]]:
    plain = [match[0].casefold() for match in words]
    return [tuple(plain[max(0, i + 1 - size) : i + 1]) for i in range(len(plain))]


# --- the gap against position (Fig. 5) ------------------------------------------------------


def position_curves(
    tokens: pd.DataFrame, by: str, *, num_bins: int = 10, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean gap, global and local log-probability per bin of relative position (Fig. 5).

    Tokens of a bin are pooled over responses; prompts are resampled.

    Args:
        tokens: From `token_frame`.
        by: Column whose values get a curve each; ``all`` is every token together.
        num_bins: Bins over the response, from 0 to 1.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        Long form: ``by``, ``quantity`` (of ``QUANTITIES``), ``position`` (middle of the bin),
        ``num_tokens``, ``mean``, ``low``, ``high`` (nats per token); NaN where a bin is empty.
    """
    bins = np.minimum((tokens["position"].to_numpy() * num_bins).astype(int), num_bins - 1)
    rows = []
    for group, sums in _groups(tokens, by):
        counts = sums(bins, num_bins)
        for quantity in QUANTITIES:
            totals = sums(bins, num_bins, tokens[quantity].to_numpy())
            mean, low, high = _bootstrap(np.hstack([totals, counts]), _ratio, num_resamples, seed)
            rows.append(
                pd.DataFrame(
                    {
                        by: group,
                        "quantity": quantity,
                        "position": (np.arange(num_bins) + 0.5) / num_bins,
                        "num_tokens": counts.sum(axis=0).astype(int),
                        "mean": mean,
                        "low": low,
                        "high": high,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def position_trends(
    tokens: pd.DataFrame, by: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Does a quantity grow with relative position? Its slope, and the last tenth minus the first.

    Args:
        tokens: From `token_frame`; filter it to look at some tokens only.
        by: Column whose values are judged each; ``all`` is every token together.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per group and quantity: ``num_prompts``, ``num_tokens``, ``mean``, ``slope`` (least
        squares over tokens, nats per response length), ``first`` and ``last`` (means of the tenths,
        nats), ``change`` (last minus first), each but the counts an `Estimate`.
    """
    rows = []
    for group, sums in _groups(tokens, by):
        for quantity in QUANTITIES:
            moments = _moments(tokens, sums, quantity)
            values, lows, highs = _bootstrap(moments, _trend, num_resamples, seed)
            estimates = [_estimate(e) for e in zip(values, lows, highs, strict=True)]
            rows.append(
                {
                    by: group,
                    "quantity": quantity,
                    "num_prompts": int((moments[:, 0] > 0).sum()),
                    "num_tokens": int(moments[:, 0].sum()),
                    **dict(zip(_TREND, estimates, strict=True)),
                }
            )
    return pd.DataFrame(rows)


def compare_trends(
    tokens: pd.DataFrame, by: str, first: str, second: str, *, num_resamples: int, seed: int
) -> dict[str, Estimate]:
    """Gap of the second group minus that of the first, prompts resampled together.

    Args:
        tokens: From `token_frame`.
        by: Column that holds the two groups.
        first: The group to compare with.
        second: The group that is compared.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        Differences by name, as the columns of `position_trends`.
    """
    groups = dict(_groups(tokens, by))
    sums = np.hstack([_moments(tokens, groups[group], "gap") for group in (first, second)])
    values = _bootstrap(sums, _trend_difference, num_resamples, seed)
    estimates = (_estimate(e) for e in zip(*values, strict=True))
    return dict(zip(_TREND, estimates, strict=True))


def gap_shares(
    tokens: pd.DataFrame, by: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Which tokens carry the gap: each group's share of all tokens and of the summed gap.

    Args:
        tokens: From `token_frame`.
        by: Column of the groups.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        One row per group: ``num_tokens``, ``tokens_percent``, ``gap_percent`` and ``mean_gap``
        (nats per token), the last three as `Estimate`. Shares of the gap may be negative.
    """
    named = [(group, sums) for group, sums in _groups(tokens, by) if group != "all"]
    zeros = np.zeros(len(tokens), dtype=int)
    counts = np.hstack([sums(zeros, 1) for _, sums in named])
    gaps = np.hstack([sums(zeros, 1, tokens["gap"].to_numpy()) for _, sums in named])

    def shares(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... shares"]:
        numbers, gap = np.split(total, 2, axis=-1)
        parts = [100 * part / part.sum(axis=-1, keepdims=True) for part in (numbers, gap)]
        return np.concatenate([*parts, gap / numbers], axis=-1)

    estimates = _bootstrap(np.hstack([counts, gaps]), shares, num_resamples, seed)
    rows = [_estimate(e) for e in zip(*estimates, strict=True)]
    size = len(named)
    return pd.DataFrame(
        {
            by: [group for group, _ in named],
            "num_tokens": counts.sum(axis=0).astype(int),
            "tokens_percent": rows[:size],
            "gap_percent": rows[size : 2 * size],
            "mean_gap": rows[2 * size :],
        }
    )


def top_agreement(
    tokens: pd.DataFrame, scores: pd.DataFrame, *, num_resamples: int = 2000, seed: int = 0
) -> tuple[pd.Series, pd.Series, float]:
    """Is the teacher with the largest mean gap the one with the highest mean GALP?

    Args:
        tokens: From `token_frame`.
        scores: The score table; responses without GALP are left out.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        Mean gap per teacher over tokens and mean GALP per teacher over responses, both from the
        highest down (nats), and the share of resamples in which one teacher has both.
    """
    scored = scores.dropna(subset=["galp"])
    prompts, teachers = (sorted(set(tokens[name])) for name in ("prompt_id", "teacher"))
    grids = [
        _pivot(frame, column, prompts, teachers)
        for frame, column in ((tokens, "gap"), (tokens, None), (scored, "galp"), (scored, None))
    ]
    sums, size = np.hstack(grids), len(teachers)

    def both(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... means"]:
        gap, tokens_, galp, responses = np.split(total, 4, axis=-1)
        means = np.concatenate([gap / tokens_, galp / responses], axis=-1)
        highest = [np.nan_to_num(m, nan=-np.inf).argmax(-1) for m in np.split(means, 2, axis=-1)]
        return np.concatenate([means, (highest[0] == highest[1])[..., None]], axis=-1)

    values, draws = _resample(sums, both, num_resamples, seed)
    gaps, galps = (
        pd.Series(part, index=teachers).sort_values(ascending=False)
        for part in (values[:size], values[size:-1])
    )
    return gaps, galps, float("nan") if draws is None else float(draws[:, -1].mean())


def _pivot(
    frame: pd.DataFrame, column: str | None, prompts: Sequence[str], teachers: Sequence[str]
) -> Float[np.ndarray, "prompts teachers"]:
    """Sums of a column, or counts, per prompt and teacher."""
    rows = pd.Index(prompts).get_indexer(frame["prompt_id"].astype(str))
    columns = pd.Index(teachers).get_indexer(frame["teacher"].astype(str))
    grid = np.zeros((len(prompts), len(teachers)))
    known = (rows >= 0) & (columns >= 0)
    values = np.ones(len(frame)) if column is None else frame[column].to_numpy(dtype=float)
    np.add.at(grid, (rows[known], columns[known]), values[known])
    return grid


_TREND = ("mean", "slope", "first", "last", "change")
_NUM_MOMENTS = 9


def _moments(
    tokens: pd.DataFrame, sums: Callable[..., np.ndarray], quantity: str
) -> Float[np.ndarray, "prompts moments"]:
    """Sums per prompt from which mean, slope and the first and last tenth follow."""
    x, y = tokens["position"].to_numpy(), tokens[quantity].to_numpy()
    one_bin = np.zeros(len(tokens), dtype=int)
    tenths = np.minimum((x * 10).astype(int), 9)
    columns = [sums(one_bin, 1, value) for value in (np.ones(len(x)), x, y, x * x, x * y)]
    ends = [sums(tenths, 10, value)[:, [0, 9]] for value in (y, np.ones(len(x)))]
    return np.hstack([*columns, *ends])


def _trend(sums: Float[np.ndarray, "... moments"]) -> Float[np.ndarray, "... 5"]:
    n, x, y, xx, xy, first, last, n_first, n_last = np.moveaxis(sums, -1, 0)
    slope = (n * xy - x * y) / (n * xx - x * x)
    first, last = first / n_first, last / n_last
    return np.stack([y / n, slope, first, last, last - first], axis=-1)


def _trend_difference(sums: Float[np.ndarray, "... moments"]) -> Float[np.ndarray, "... 5"]:
    return _trend(sums[..., _NUM_MOMENTS:]) - _trend(sums[..., :_NUM_MOMENTS])


def _ratio(sums: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... ratios"]:
    """First half of the columns over the second half."""
    numerator, denominator = np.split(sums, 2, axis=-1)
    return numerator / denominator


def _groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    """For ``all`` and each value of a column: a function that sums a value per prompt and bin.

    Prompts are the same for every group, so that all groups see the same resamples.
    """
    codes, prompts = pd.factorize(frame["prompt_id"], sort=True)
    column = frame[by].astype(object)
    ordered = frame[by].cat.categories if frame[by].dtype == "category" else sorted(column.unique())
    for group in ["all", *(g for g in ordered if (column == g).any())]:
        inside = np.ones(len(frame), dtype=bool) if group == "all" else (column == group).to_numpy()

        def sums(
            bins: Int[np.ndarray, "rows"],
            num_bins: int,
            values: Float[np.ndarray, "rows"] | None = None,
            inside: np.ndarray = inside,
        ) -> Float[np.ndarray, "prompts bins"]:
            cells = codes[inside] * num_bins + bins[inside]
            weights = None if values is None else values[inside]
            size = len(prompts) * num_bins
            return np.bincount(cells, weights, size).reshape(len(prompts), num_bins).astype(float)

        yield group, sums


def _bootstrap(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    num_resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A statistic of the sums over prompts, with its interval over resampled prompts.

    One prompt has no interval: its ends are NaN, and so resolve nothing.
    """
    values, resampled = _resample(sums, statistic, num_resamples, seed)
    if resampled is None:
        return values, np.full_like(values, np.nan), np.full_like(values, np.nan)
    tail = (100 - _LEVEL) / 2
    low, high = _percentiles(resampled, [tail, 100 - tail])
    return values, np.where(np.isnan(values), np.nan, low), np.where(np.isnan(values), np.nan, high)


def _resample(
    sums: Float[np.ndarray, "prompts sums"],
    statistic: Callable[[np.ndarray], np.ndarray],
    num_resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A statistic of the sums over prompts, and of those over resampled prompts (None for one)."""
    num_prompts = len(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(sums.sum(axis=0))
        if num_prompts < 2:
            return values, None
        shares = np.full(num_prompts, 1 / num_prompts)
        draws = np.random.default_rng(seed).multinomial(num_prompts, shares, size=num_resamples)
        return values, statistic(draws.astype(float) @ sums)


def _estimate(numbers: Sequence[float]) -> Estimate:
    return Estimate(*(float(number) for number in numbers))


def _percentiles(
    values: Float[np.ndarray, "resamples statistics"], percents: Sequence[float]
) -> Float[np.ndarray, "percents statistics"]:
    """Percentiles over the resamples in which a statistic is defined (NaN if in none)."""
    ends = np.full((len(percents), values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        defined = values[np.isfinite(values[:, column]), column]
        if len(defined):
            ends[:, column] = np.percentile(defined, percents)
    return ends


# --- shuffled steps -------------------------------------------------------------------------


def shuffle_steps(
    pool: Pool, steps: Mapping[str, Sequence[Span]], seed: int = 0
) -> tuple[Pool, dict[str, list[Span]]]:
    """The same responses with their steps in a random order; the white space between them stays.

    Length and words stay, the order goes: a trend that survives is not due to the argument. Each
    response is shuffled by itself, so that adding others changes nothing.

    Args:
        pool: The responses.
        steps: Character spans of each response's steps, as `lalp.steps.split_pool` gives them.
        seed: Of the order.

    Returns:
        The shuffled responses under their old ids, and the spans of their steps.
    """
    shuffled = {
        response.response_id: _shuffle(response, steps[response.response_id], seed)
        for response in pool.responses
    }
    responses = (replace(r, text=shuffled[r.response_id][0]) for r in pool.responses)
    spans = {response_id: spans for response_id, (_, spans) in shuffled.items()}
    return replace(pool, responses=tuple(responses)), spans


def _shuffle(response: Response, steps: Sequence[Span], seed: int) -> tuple[str, list[Span]]:
    pieces = [response.text[start:end] for start, end in steps]
    bodies = [piece.strip() for piece in pieces]
    before = [piece[: len(piece) - len(piece.lstrip())] for piece in pieces]
    after = [piece[len(piece.rstrip()) :] for piece in pieces]
    if len(pieces) < 2 or not all(bodies):
        return response.text, list(steps)
    # Two steps without space between them would run into one word.
    spaces = [a + b or " " for a, b in zip(after[:-1], before[1:], strict=True)] + [after[-1]]
    order = np.random.default_rng([seed, *response.response_id.encode()]).permutation(len(bodies))
    moved = [bodies[k] + space for k, space in zip(order, spaces, strict=True)]
    moved[0] = before[0] + moved[0]
    ends = list(itertools.accumulate(len(piece) for piece in moved))
    return "".join(moved), list(zip([0, *ends[:-1]], ends, strict=True))


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
        estimates = _mean_over_items(group, values, num_resamples, seed)
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
        estimates = _mean_over_items(group, names, num_resamples, seed)
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


def _mean_over_items(
    group: pd.DataFrame, columns: Sequence[str], num_resamples: int, seed: int
) -> list[Estimate]:
    """Means over rows, with intervals over prompts."""
    codes, prompts = pd.factorize(group["prompt_id"], sort=True)
    values = group[list(columns)].to_numpy(dtype=float)
    sums = np.zeros((len(prompts), 2 * len(columns)))
    np.add.at(sums, codes, np.hstack([values, np.ones_like(values)]))
    return [
        _estimate(estimate)
        for estimate in zip(*_bootstrap(sums, _ratio, num_resamples, seed), strict=True)
    ]


# --- the paper's examples as text -----------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A text around one of the paper's examples, in this project's words.

    Attributes:
        name: The paper's name for it.
        prompt: The question before the text.
        text: The response to score.
        item: What repeats.
        offset: Which of its characters is tracked: the token that holds it.
        paper: The probabilities that the paper prints, in percent, one per occurrence.
    """

    name: str
    prompt: str
    text: str
    item: str
    offset: int
    paper: tuple[float, ...]

    @property
    def places(self) -> list[int]:
        """Character offsets of the tracked character, one per occurrence of the item."""
        whole = re.finditer(rf"(?<!\w){re.escape(self.item)}(?!\w)", self.text)
        return [match.start() + self.offset for match in whole]


EXAMPLES = (
    Example(
        "Example 1",
        "A hall has 3 blocks of 59 seats each. How many seats does it have?",
        "One block holds 59 seats. All blocks are alike. "
        "Three of them hold 3 * 59 = 177 seats. "
        "Now I want to verify this another way. Suppose a block had one seat more. "
        "It would then hold 60 seats. Three such blocks hold 3 * 60 = 180 seats. "
        "That is too many, by one seat per block. Taking them away leaves 180 - 3 = 177 seats. "
        "The two ways agree. No row was left out. No seat was counted twice. "
        "The question asks for the whole hall. We have covered every block. "
        "So the final answer is 177.",
        "177",
        2,
        (16.0, 90.4, 99.99),
    ),
    Example(
        "Example 2",
        "What is 1+1?",
        "1+1 is 3, so the answer is 3",
        "3",
        0,
        (4.9, 97.7),
    ),
    Example(
        "Example 3",
        "A number has 4 * 307 divisors. How many of them are not among 639 special ones?",
        "The count is a product of two factors. Multiplying them gives 4 * 307 = 1228. "
        "This is the size of the whole family. The special ones are a part of it. "
        "They have been counted already. We only need the rest. "
        "No divisor is in both parts. Every divisor is in one of them. "
        "To repeat, the number has 1228 divisors. "
        "We remove the special ones. That is a subtraction. Both numbers are known. "
        "Nothing else has to be counted. The order does not matter. "
        "The rest is 1228 - 639 = 589.",
        "1228",
        0,
        (71.0, 99.99, 99.4),
    ),
    Example(
        "Example 4",
        "Why does a number that is no perfect square have an even number of divisors?",
        "Let d divide n. Then n / d divides n as well. "
        "This shows that the divisors of n come in pairs. "
        "A pair is made of d and n / d. The two are different. "
        "Otherwise n would be the square of d. We have excluded this. "
        "Hence every pair has two members. No divisor is left over. "
        "Because the divisors come in pairs, their number is even.",
        "come in pairs",
        0,
        (27.0, 51.0),
    ),
)


TOY_FORMS = ("one sentence", "two sentences")


def example_pool() -> Pool:
    """The texts of `EXAMPLES`, and Example 2 with other sums, to be scored like any other pool.

    The wrong sums ("1+1 is 3, so the answer is 3") come in one sentence and in two: ``teacher`` is
    one of ``TOY_FORMS``.
    """
    records = [(e.name, e.prompt, "example", e.text) for e in EXAMPLES]
    for first, second in itertools.combinations_with_replacement(range(1, 5), 2):
        name, wrong = f"{first}+{second}", first + second + 1
        for form, link in zip(TOY_FORMS, (", so", ". So"), strict=True):
            text = f"{name} is {wrong}{link} the answer is {wrong}"
            records.append((name, f"What is {name}?", form, text))
    return _made_pool(records)


def _made_pool(records: Sequence[tuple[str, str, str, str]]) -> Pool:
    """A pool of (prompt id, question, teacher, response)."""
    return Pool(
        {name: Prompt(name, (Message("user", question),)) for name, question, _, _ in records},
        tuple(Response(f"{name}/{who}", name, who, text) for name, _, who, text in records),
    )


def example_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Probability of each example's tracked token at its occurrences, beside the paper's.

    Args:
        scores: Of `example_pool`, with token columns.

    Returns:
        ``example``, ``item``, ``occurrence``, ``token`` (as the student reads it), and in percent
        ``paper``, ``galp`` (all before it) and each window's column. The paper prints values under
        all before it only.
    """
    columns = [name for name in scores if name.endswith(":tokens")]
    rows = []
    own = scores[scores["teacher"] == "example"]
    for example, row in zip(EXAMPLES, own.to_dict("records"), strict=True):
        for i, (place, paper) in enumerate(zip(example.places, example.paper, strict=True), 1):
            token = _token_at(row, place)
            start, end = row["token_spans"][token]
            rows.append(
                {
                    "example": example.name,
                    "item": example.item,
                    "occurrence": i,
                    "token": example.text[start:end].strip(),
                    "paper": paper,
                    **{c.removesuffix(":tokens"): 100 * np.exp(row[c][token]) for c in columns},
                }
            )
    return pd.DataFrame(rows)


def _token_at(row: dict[str, Any], place: int) -> int:
    """Index of the token that holds a character."""
    return next(t for t, (start, end) in enumerate(row["token_spans"]) if start <= place < end)


def toy_table(
    scores: pd.DataFrame, window: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean log-probability of the wrong result at its two occurrences (Example 2).

    Args:
        scores: Of `example_pool`, with token columns; the window must be one of theirs.
        window: The local window.
        num_resamples: Bootstrap resamples, over the sums.
        seed: Of the bootstrap.

    Returns:
        One row per form: ``num_sums``; in nats, each an `Estimate`: ``global_first``,
        ``global_second``, ``local_second``, the rises ``global_rise`` and ``local_rise``, and
        ``difference`` (global minus local at the second).
    """
    rows = []
    texts = {response.response_id: response.text for response in example_pool().responses}
    for row in scores[scores["teacher"].isin(TOY_FORMS)].to_dict("records"):
        text = texts[row["response_id"]]
        first, second = (_token_at(row, match.end()) for match in re.finditer(r"is (?=\d)", text))
        everything, local = row["galp:tokens"], row[f"lalp@{parse_window(window)}:tokens"]
        rows.append(
            {
                "prompt_id": row["prompt_id"],
                "form": row["teacher"],
                "global_first": everything[first],
                "global_second": everything[second],
                "local_second": local[second],
                "global_rise": everything[second] - everything[first],
                "local_rise": local[second] - local[first],
                "difference": everything[second] - local[second],
            }
        )
    frame = pd.DataFrame(rows)
    names = list(frame.columns[2:])
    return pd.DataFrame(
        {
            "form": form,
            "num_sums": len(group),
            **dict(zip(names, _mean_over_items(group, names, num_resamples, seed), strict=True)),
        }
        for form, group in frame.groupby("form", sort=True)
    )
