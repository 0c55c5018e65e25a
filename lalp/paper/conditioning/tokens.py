"""Self-conditioning: what tokens gain from context outside the window (paper, Sec. 7.4.2, Eq. 4).

``gap_t = log p(y_t | x, y_<t) - log p(y_t | x, window)``, in nats. A token of the first steps has a
gap of exactly 0, because its window drops nothing (``dropped`` is False): part of any growth with
position is this definition. All intervals are percentile bootstraps over prompts.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lalp.errors import InputError
from lalp.paper.conditioning.estimates import bootstrap, group_sums, pivot, ratio, resample
from lalp.paper.profiles import Profile
from lalp.pools.pool import Pool, Response
from lalp.scoring.columns import lalp_column, token_column
from lalp.scoring.equations import self_conditioning_gap, window_starts
from lalp.scoring.run import score
from lalp.scoring.windows import parse_window
from lalp.stats import Estimate
from lalp.steps.sentences import Span
from lalp.steps.splitters import split_pool
from lalp.students.encoding import first_character
from lalp.students.student import load_tokenizer

QUANTITIES = ("gap", "global", "local")
# Where a token's word stood last: nowhere, where the window still sees it, or only before that.
SEEN = ("new", "in the window", "before the window only")
_WORD = re.compile(r"\w+|[^\w\s]|\n+")


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
    local_column = token_column(lalp_column(window))
    for column in ("galp:tokens", local_column, "token_spans", "token_steps"):
        if column not in scores:
            raise InputError(
                f"the scores lack column {column!r}: score with this window and with_tokens=True"
            )
    texts = {response.response_id: response for response in pool.responses}
    missing = [i for i in scores["response_id"] if i not in texts]
    if missing:
        raise InputError(f"the pool lacks response {missing[0]!r} of the scores: give its own pool")
    prompts = {
        name: "\n".join(message.content for message in prompt.messages)
        for name, prompt in pool.prompts.items()
    }
    parts = [
        _response_tokens(row, texts[row["response_id"]].text, prompts[row["prompt_id"]], window)
        for row in scores.to_dict("records")
    ]
    frame = pd.concat(parts, ignore_index=True)
    for name in ("prompt_id", "response_id", "teacher"):
        frame[name] = frame[name].astype("category")
    scored = frame["gap"].notna()
    kept = frame[scored].reset_index(drop=True)
    kept.attrs["left_out"] = int((~scored).sum())
    return kept


def _response_tokens(row: dict[str, Any], text: str, prompt: str, window: str) -> pd.DataFrame:
    spans = np.asarray([list(span) for span in row["token_spans"]], dtype=int).reshape(-1, 2)
    steps = np.asarray(row["token_steps"], dtype=int)
    starts = np.array([first_character(text, start, end) for start, end in spans], dtype=int)
    window_start = _window_starts(steps, window)
    global_, local = (
        np.asarray(row[column], dtype=float)
        for column in ("galp:tokens", token_column(lalp_column(window)))
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
            "gap": self_conditioning_gap(global_, local),
        }
    )


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
    for group, sums in group_sums(tokens, by):
        counts = sums(bins, num_bins)
        for quantity in QUANTITIES:
            totals = sums(bins, num_bins, tokens[quantity].to_numpy())
            means = bootstrap(np.hstack([totals, counts]), ratio, num_resamples, seed)
            rows.append(
                pd.DataFrame(
                    {
                        by: group,
                        "quantity": quantity,
                        "position": (np.arange(num_bins) + 0.5) / num_bins,
                        "num_tokens": counts.sum(axis=0).astype(int),
                        "mean": [mean.value for mean in means],
                        "low": [mean.low for mean in means],
                        "high": [mean.high for mean in means],
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
    for group, sums in group_sums(tokens, by):
        for quantity in QUANTITIES:
            moments = _moments(tokens, sums, quantity)
            estimates = bootstrap(moments, _trend, num_resamples, seed)
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
    groups = dict(group_sums(tokens, by))
    sums = np.hstack([_moments(tokens, groups[group], "gap") for group in (first, second)])
    return dict(zip(_TREND, bootstrap(sums, _trend_difference, num_resamples, seed), strict=True))


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
    named = [(group, sums) for group, sums in group_sums(tokens, by) if group != "all"]
    zeros = np.zeros(len(tokens), dtype=int)
    counts = np.hstack([sums(zeros, 1) for _, sums in named])
    gaps = np.hstack([sums(zeros, 1, tokens["gap"].to_numpy()) for _, sums in named])

    def shares(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... shares"]:
        numbers, gap = np.split(total, 2, axis=-1)
        parts = [100 * part / part.sum(axis=-1, keepdims=True) for part in (numbers, gap)]
        return np.concatenate([*parts, gap / numbers], axis=-1)

    rows = bootstrap(np.hstack([counts, gaps]), shares, num_resamples, seed)
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
        pivot(frame, column, prompts, teachers)
        for frame, column in ((tokens, "gap"), (tokens, None), (scored, "galp"), (scored, None))
    ]
    sums, size = np.hstack(grids), len(teachers)

    def both(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... means"]:
        gap, tokens_, galp, responses = np.split(total, 4, axis=-1)
        means = np.concatenate([gap / tokens_, galp / responses], axis=-1)
        highest = [np.nan_to_num(m, nan=-np.inf).argmax(-1) for m in np.split(means, 2, axis=-1)]
        return np.concatenate([means, (highest[0] == highest[1])[..., None]], axis=-1)

    values, draws = resample(sums, both, num_resamples, seed)
    gaps, galps = (
        pd.Series(part, index=teachers).sort_values(ascending=False)
        for part in (values[:size], values[size:-1])
    )
    return gaps, galps, float("nan") if len(sums) < 2 else float(draws[:, -1].mean())


def rising_bins(curves: pd.DataFrame) -> tuple[int, int]:
    """How many steps from bin to bin of the pooled gap go up, and how many there are.

    Args:
        curves: From `position_curves` by teacher.
    """
    pooled = curves.query("teacher == 'all' and quantity == 'gap'")["mean"].dropna()
    return int((pooled.diff() > 0).sum()), len(pooled) - 1


def gap_by_window(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The gap (Eq. 4) and its growth under each of the profile's windows.

    Returns:
        Per window: ``mean`` and ``last`` (last tenth of the response) of all tokens, and ``slope``
        of those whose window drops something, in nats; each an `Estimate`.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    rows = []
    for window in profile.windows:
        tokens = token_frame(scores, pool, window).assign(group="all")
        dropped = tokens[tokens["dropped"]]
        trend = _gap_trend(tokens, **options)
        slope = _gap_trend(dropped, **options)["slope"] if len(dropped) else None
        rows.append(
            {
                "window": window,
                "tokens with something dropped (%)": 100 * tokens["dropped"].mean(),
                "mean": trend["mean"],
                "last": trend["last"],
                "slope": slope or Estimate(np.nan, np.nan, np.nan),
            }
        )
    return pd.DataFrame(rows)


def _gap_trend(tokens: pd.DataFrame, **options: int) -> pd.Series:
    return position_trends(tokens, "teacher", **options).query("quantity == 'gap'").iloc[0]


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


# --- shuffled steps -------------------------------------------------------------------------


def shuffle_steps(
    pool: Pool, steps: Mapping[str, Sequence[Span]], seed: int = 0
) -> tuple[Pool, dict[str, list[Span]]]:
    """The same responses with their steps in a random order; the white space between them stays.

    Length and words stay, the order goes: a trend that survives is not due to the argument. Each
    response is shuffled by itself, so that adding others changes nothing.

    Args:
        pool: The responses.
        steps: Character spans of each response's steps, as `lalp.steps.splitters.split_pool` gives
            them.
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


def shuffled_tokens(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Tokens of responses as written and with their steps shuffled, scored alike.

    One response per prompt, teachers in turn, so that few texts cover all prompts.

    Returns:
        As `token_frame`, and ``order``: ``as written`` or ``shuffled``.
    """
    by_prompt = scores.sort_values("teacher", kind="stable").groupby("prompt_id", sort=True)
    chosen = pd.DataFrame([rows.iloc[i % len(rows)] for i, (_, rows) in enumerate(by_prompt)])
    kept = set(chosen["response_id"])
    written = replace(pool, responses=tuple(r for r in pool.responses if r.response_id in kept))
    steps = split_pool(
        written,
        profile.splitter,
        tokenizer=load_tokenizer(profile.student),
        embedder=profile.embedder,
    )
    moved, moved_steps = shuffle_steps(written, steps, seed)
    window = profile.main_window
    again = score(moved, profile.student, [window], splitter=moved_steps, with_tokens=True)
    frames = {
        "as written": token_frame(chosen, written, window),
        "shuffled": token_frame(again, moved, window),
    }
    parts = [tokens.assign(order=order) for order, tokens in frames.items()]
    return pd.concat(parts, ignore_index=True)
