"""Self-conditioning: the gain of tokens from context outside the window (paper, Sec. 7.4.2, Eq. 4).

``gap_t = log p(y_t | x, y_<t) - log p(y_t | x, window)``, in nats. A token of the first steps has a
gap of exactly 0, because its window drops nothing (``dropped`` is False). So part of any growth
with position comes from this definition. All intervals are over prompts; ``resampling`` stands for
the options of `estimates.bootstrap`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.paper.conditioning.items import prompt_text
from lalp.paper.estimates import bootstrap, prompt_sums, ratio, resample, split_groups
from lalp.paper.profiles import Profile
from lalp.paper.scores import scores_of
from lalp.paper.tokens import token_rows
from lalp.pools.pool import Pool, Response
from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.equations import self_conditioning_gap, window_starts
from lalp.scoring.run import score
from lalp.scoring.windows import parse_window
from lalp.selection.ranking import first_place
from lalp.stats import Estimate, needed_text
from lalp.steps.sentences import Span
from lalp.steps.splitters import split_pool
from lalp.students.encoding import first_character
from lalp.students.student import load_tokenizer

Places = Int[np.ndarray, "tokens"]
QUANTITIES = ("gap", "global", "local")
# Where a token's word occurred last: nowhere, inside the window, or only before it.
SEEN = ("new", "in the window", "before the window only")
_WORD = re.compile(r"\w+|[^\w\s]|\n+")


# --- one row per token ----------------------------------------------------------------------


def token_frame(scores: pd.DataFrame, pool: Pool, window: str) -> pd.DataFrame:
    """`token_rows` with the gap (Eq. 4) of each token under a local window, in nats.

    ``position`` is relative, 0 to 1; ``start`` is the first non-space character; ``window_start``
    the first response token that the window sees; ``word_seen`` and ``pair_seen`` say where the
    token's word, alone and with the word before it, occurred earlier: one of ``SEEN``.
    """
    texts = {response.response_id: response.text for response in pool.responses}
    prompts = {name: prompt_text(pool, name) for name in pool.prompts}

    def describe(row: Mapping[str, Any], spans: Int[np.ndarray, "tokens 2"]) -> dict[str, Any]:
        text, prompt = texts[row["response_id"]], prompts[row["prompt_id"]]
        count = np.arange(len(spans))
        starts = np.array([first_character(text, start, end) for start, end in spans], dtype=int)
        steps = np.asarray(row["token_steps"], dtype=int)
        # Each step's first token and end, from which its window's first token follows.
        bounds = np.searchsorted(steps, np.arange(steps.max(initial=-1) + 2)).tolist()
        step_starts = window_starts(parse_window(window), list(itertools.pairwise(bounds)))
        window_start = np.array(step_starts, dtype=int)[steps]
        return {
            "token": count,
            "position": (count + 0.5) / max(len(spans), 1),
            "start": starts,
            "window_start": window_start,
            "dropped": window_start > 0,
            "word_seen": _seen(text, prompt, starts, window_start, 1),
            "pair_seen": _seen(text, prompt, starts, window_start, 2),
        }

    columns = {GALP: "global", lalp_column(window): "local"}
    frame = token_rows(scores, texts, list(columns), describe).rename(columns=columns)
    return frame.assign(gap=self_conditioning_gap(frame["global"], frame["local"]))


def _seen(
    text: str, prompt: str, starts: Places, window_start: Places, size: int
) -> pd.Categorical:
    """Where the run of ``size`` words that ends with each token's word occurred before.

    A word is a run of letters, digits and underscores in any case, one other character, or a line
    break. Every window sees the prompt.
    """
    begins, runs = _word_runs(text, size)
    if runs.empty:
        return pd.Categorical([SEEN[1]] * len(starts), categories=SEEN)
    place = np.maximum(np.searchsorted(begins, starts, side="right") - 1, 0)
    known = runs.isin(_word_runs(prompt, size)[1])[place]
    # Where the same run occurred last; -1: nowhere.
    earlier = begins.groupby(runs).shift(fill_value=-1)[place]
    shown = known | (earlier >= starts[window_start])
    return pd.Categorical.from_codes(np.select([shown, earlier < 0], [1, 0], 2), SEEN)


def _word_runs(text: str, size: int) -> tuple[pd.Series, pd.Series]:
    """Where each word begins, and the run of words that ends with it."""
    words = list(_WORD.finditer(text))
    plain = [match[0].casefold() for match in words]
    runs = [" ".join(plain[max(0, i + 1 - size) : i + 1]) for i in range(len(plain))]
    return pd.Series([match.start() for match in words], dtype=int), pd.Series(runs, dtype=str)


# --- the gap against position (Fig. 5) ------------------------------------------------------


def position_curves(
    tokens: pd.DataFrame, by: str, *, num_bins: int = 10, **resampling: int
) -> pd.DataFrame:
    """Mean gap, global and local log-probability per bin of relative position (Fig. 5).

    Each value of the column ``by`` gets a curve, and so do ``all`` tokens together. Tokens of a bin
    are pooled over responses. Nats per token, at the middle of the bin; NaN if a bin is empty.
    """
    bins = np.minimum((tokens["position"] * num_bins).astype(int), num_bins - 1)
    prompts = sorted(set(tokens["prompt_id"]))
    rows = []
    for group, own in split_groups(tokens.assign(bin=bins), by):
        for quantity in QUANTITIES:
            sums = prompt_sums(own, prompts, quantity, "bin", range(num_bins))
            counts = sums[:, num_bins:].sum(axis=0)
            means = bootstrap(sums, ratio, **resampling)
            for i, (count, mean) in enumerate(zip(counts, means, strict=True)):
                place = (group, quantity, (i + 0.5) / num_bins, int(count))
                rows.append((*place, mean.value, mean.low, mean.high))
    columns = [by, "quantity", "position", "num_tokens", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def position_trends(
    tokens: pd.DataFrame, by: str, *, level: float = 0.95, **resampling: int
) -> pd.DataFrame:
    """Does a quantity grow with relative position? Its slope, and the last tenth minus the first.

    A row per quantity and value of ``by``, first ``all`` together: ``slope`` (least squares over
    tokens, nats per response length), ``first`` and ``last`` (means of the tenths, nats),
    ``change`` (last minus first), each an `Estimate`.
    """
    prompts = sorted(set(tokens["prompt_id"]))
    rows = []
    for group, own in split_groups(tokens, by):
        for quantity in QUANTITIES:
            moments = _moments(own, prompts, quantity)
            estimates = bootstrap(moments, _trend, level=level, **resampling)
            counts = (int((moments[:, 0] > 0).sum()), int(moments[:, 0].sum()))
            rows.append((group, quantity, *counts, *estimates))
    return pd.DataFrame(rows, columns=[by, "quantity", "num_prompts", "num_tokens", *_TREND])


def compare_trends(
    tokens: pd.DataFrame, by: str, first: str, second: str, **resampling: int
) -> dict[str, Estimate]:
    """Gap of the second group minus that of the first, prompts resampled together.

    The differences have the names of the columns of `position_trends`.
    """
    groups, prompts = dict(split_groups(tokens, by)), sorted(set(tokens["prompt_id"]))
    sums = np.hstack([_moments(groups[group], prompts, "gap") for group in (first, second)])

    def difference(total: Float[np.ndarray, "... moments"]) -> Float[np.ndarray, "... 5"]:
        of_first, of_second = np.split(total, 2, axis=-1)
        return _trend(of_second) - _trend(of_first)

    return dict(zip(_TREND, bootstrap(sums, difference, **resampling), strict=True))


def gap_shares(tokens: pd.DataFrame, by: str, **resampling: int) -> pd.DataFrame:
    """Which tokens carry the gap: each group's share of all tokens and of the summed gap.

    Each an `Estimate`: ``tokens_percent``, ``gap_percent`` (may be negative), ``mean_gap`` (nats).
    """
    names = [group for group, _ in split_groups(tokens, by) if group != "all"]
    size, prompts = len(names), sorted(set(tokens["prompt_id"]))
    sums = prompt_sums(tokens, prompts, "gap", by, names)

    def shares(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... shares"]:
        gap, numbers = np.split(total, 2, axis=-1)
        parts = [100 * part / part.sum(axis=-1, keepdims=True) for part in (numbers, gap)]
        return np.concatenate([*parts, gap / numbers], axis=-1)

    found = bootstrap(sums, shares, **resampling)
    columns = {
        by: names,
        "num_tokens": sums[:, size:].sum(axis=0).astype(int),
        "tokens_percent": found[:size],
        "gap_percent": found[size : 2 * size],
        "mean_gap": found[2 * size :],
    }
    return pd.DataFrame(columns)


def top_agreement(
    tokens: pd.DataFrame, scores: pd.DataFrame, **resampling: int
) -> tuple[pd.Series, pd.Series, float]:
    """Is the teacher with the largest mean gap the one with the highest mean GALP?

    Mean gap per teacher over tokens and mean GALP per teacher over scored responses (nats, both
    from the highest down), and the share of resamples in which one teacher leads both.
    """
    prompts, teachers = (sorted(set(tokens[name])) for name in ("prompt_id", "teacher"))
    frames = ((tokens, "gap"), (scores, "galp"))
    grids = [prompt_sums(one, prompts, name, "teacher", teachers) for one, name in frames]
    sums, size = np.hstack(grids), len(teachers)

    def both(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... means"]:
        gap, tokens_, galp, responses = np.split(total, 4, axis=-1)
        means = np.concatenate([gap / tokens_, galp / responses], axis=-1)
        # A teacher without tokens in a resample has no mean, and is not the highest.
        highest = [np.nan_to_num(m, nan=-np.inf).argmax(-1) for m in np.split(means, 2, axis=-1)]
        return np.concatenate([means, (highest[0] == highest[1])[..., None]], axis=-1)

    values, draws = resample(sums, both, **resampling)
    means = (pd.Series(values[start : start + size], index=teachers) for start in (0, size))
    gaps, galps = (mean.sort_values(ascending=False) for mean in means)
    return gaps, galps, float("nan") if len(sums) < 2 else float(draws[:, -1].mean())


def top_needs(tokens: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Prompts needed to settle which teacher has the largest gap and which the highest GALP."""
    keys = ["prompt_id", "response_id", "teacher"]
    gaps = tokens.groupby(keys, observed=True)["gap"].mean().reset_index()
    gaps[keys] = gaps[keys].astype(str)
    tables = {"gap": gaps, GALP: scores}
    places = [first_place(table.assign(correct=True), name) for name, table in tables.items()]
    return f"{needed_text(max(place.prompts_needed for place in places))}, for both first places"


def rising_bins(curves: pd.DataFrame) -> tuple[int, int]:
    """How many changes of the pooled gap from bin to bin go up, and how many there are."""
    pooled = curves.query("teacher == 'all' and quantity == 'gap'")["mean"].dropna()
    return int((pooled.diff() > 0).sum()), len(pooled) - 1


def gap_by_window(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The gap (Eq. 4) and its growth under each of the profile's windows, in nats.

    ``mean`` and ``last`` (last tenth of the response) are over all tokens, ``slope`` over those
    whose window drops something.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    rows = []
    for window in profile.windows:
        tokens = token_frame(scores, pool, window)
        dropped = tokens[tokens["dropped"]]
        # The first row is the gap of all teachers together. Without tokens, its numbers are NaN.
        trend = position_trends(tokens, "teacher", **options).iloc[0]
        slope = position_trends(dropped, "teacher", **options)["slope"].iloc[0]
        percent = 100 * tokens["dropped"].mean()
        rows.append((window, percent, trend["mean"], trend["last"], slope))
    columns = ["window", "tokens with something dropped (%)", "mean", "last", "slope"]
    return pd.DataFrame(rows, columns=columns)


_TREND = ("mean", "slope", "first", "last", "change")


def _moments(
    rows: pd.DataFrame, prompts: Sequence[str], quantity: str
) -> Float[np.ndarray, "prompts moments"]:
    """Sums per prompt from which mean, slope and the first and last tenth follow."""
    x, y = rows["position"], rows[quantity]
    first, last = x * 10 < 1, x * 10 >= 9
    # Sums, not means: prompts are resampled, and their moments add up.
    columns = [x**0, x, y, x * x, x * y, y * first, y * last, first, last]
    moments = pd.concat(columns, axis=1, keys=range(len(columns))).astype(float)
    sums = moments.groupby(rows["prompt_id"], observed=True).sum()
    return sums.reindex(prompts).fillna(0.0).to_numpy()


def _trend(sums: Float[np.ndarray, "... moments"]) -> Float[np.ndarray, "... 5"]:
    n, x, y, xx, xy, first, last, n_first, n_last = np.moveaxis(sums, -1, 0)
    slope = (n * xy - x * y) / (n * xx - x * x)
    first, last = first / n_first, last / n_last
    return np.stack([y / n, slope, first, last, last - first], axis=-1)


# --- shuffled steps -------------------------------------------------------------------------


def shuffle_steps(
    pool: Pool, steps: Mapping[str, Sequence[Span]], seed: int = 0
) -> tuple[Pool, dict[str, list[Span]]]:
    """The same responses with their steps in a random order; the white space between them stays.

    Length and words stay but the order is lost, so a trend that remains is not due to the argument.
    Each response is shuffled by itself, so adding others changes nothing. ``steps`` has the
    character spans of each response's steps, also in the result.
    """
    responses, spans = [], {}
    for response in pool.responses:
        name = response.response_id
        text, spans[name] = _shuffle(response, steps[name], seed)
        responses.append(replace(response, text=text))
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
    # The id seeds the order as well, so responses are independent of each other.
    order = np.random.default_rng([seed, *response.response_id.encode()]).permutation(len(bodies))
    moved = [bodies[k] + space for k, space in zip(order, spaces, strict=True)]
    moved[0] = before[0] + moved[0]
    ends = list(itertools.accumulate(len(piece) for piece in moved))
    return "".join(moved), list(zip([0, *ends[:-1]], ends, strict=True))


def shuffled_tokens(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Tokens of responses as written and with their steps shuffled (``order``), scored alike.

    One response per prompt, teachers in turn, so that few texts cover all prompts.
    """
    by_prompt = scores.sort_values("teacher", kind="stable").groupby("prompt_id", sort=True)
    chosen = pd.DataFrame([rows.iloc[i % len(rows)] for i, (_, rows) in enumerate(by_prompt)])
    kept = set(chosen["response_id"])
    written = replace(pool, responses=tuple(r for r in pool.responses if r.response_id in kept))
    models = {"tokenizer": load_tokenizer(profile.student), "embedder": profile.embedder}
    steps = split_pool(written, profile.splitter, **models)
    moved, moved_steps = shuffle_steps(written, steps, seed)
    window = profile.main_window

    def compute(some: Pool) -> pd.DataFrame:
        cut = {
            response.response_id: moved_steps[response.response_id] for response in some.responses
        }
        return score(some, profile.student, [window], splitter=cut, with_tokens=True)

    again = scores_of(profile, "shuffled", moved, compute)
    parts = [
        token_frame(chosen, written, window).assign(order="as written"),
        token_frame(again, moved, window).assign(order="shuffled"),
    ]
    return pd.concat(parts, ignore_index=True)
