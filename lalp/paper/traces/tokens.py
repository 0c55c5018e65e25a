"""Measures of every token of the long traces: tables that are computed while tokens are there.

A million tokens under six scores are too many to commit, so these tables are. They have the
measures of CHAMP (notebooks 02, 03 and 10) over the main teachers, for each data set and for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from lalp.paper.attribution import shares
from lalp.paper.conditioning import items, tokens
from lalp.paper.estimates import bootstrap, prompt_sums, split_groups
from lalp.paper.profiles import Profile
from lalp.paper.selection.splitters import resplit_scores
from lalp.paper.tokens import token_rows
from lalp.paper.traces.controls import MARK, whole_steps
from lalp.paper.traces.measure import by_data
from lalp.paper.traces.pool import DATA_SETS, MAIN_TEACHERS
from lalp.pools.pool import Pool
from lalp.scoring.columns import GALP, lalp_column, token_column
from lalp.selection.variants import DEBIASED, VARIANTS, add_variants
from lalp.stats import Estimate

WORDS = ("okay", "wait", "hmm", "alternatively", "but", "so", "let", "therefore")
"""Words that reasoning models begin sentences with: the paper's Fig. 4 and Sec. 7.4.1 name some."""
# One interval for each of the four teachers, all of them together at 95 %.
TEACHERS_LEVEL = 1 - 0.05 / len(MAIN_TEACHERS)
_ENDS = ("", "_low", "_high")
Tables = dict[str, pd.DataFrame]


def token_tables(profile: Profile, pool: Pool, scores: Mapping[str, pd.DataFrame]) -> Tables:
    """Every table, by its name; ``scores`` is a frame with tokens for each data set."""
    measures: Sequence[Callable[[Profile, Pool, pd.DataFrame], Tables]]
    measures = (position_tables, repetition_tables, category_tables)
    found: dict[str, list[pd.DataFrame]] = {}
    for name, frame in by_data(scores):
        for measure in measures:
            for table, rows in measure(profile, pool, frame).items():
                rows.insert(0, "data", name)
                found.setdefault(table, []).append(flat(rows))
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    whole = pd.concat([scores[name] for name in DATA_SETS if name in scores], ignore_index=True)
    return tables | response_tables(profile, pool, whole)


# --- Fig. 5 -------------------------------------------------------------------------------------


def position_tables(profile: Profile, pool: Pool, scores: pd.DataFrame) -> Tables:
    """The gap and both log-probabilities against position.

    ``tokens`` says which: ``all``; those whose window drops something (``dropped``); and, among
    these, tokens of responses cut to equal length or without a thought's marks. ``trends`` have a
    second interval, with Bonferroni's correction for the four teachers (``level``).
    """
    frame = tokens.token_frame(scores, pool, profile.main_window)
    dropped = frame[frame["dropped"]]
    how = _resampling(profile)
    curves, trends = [], []
    cut = cut_tokens(frame, scores)
    kinds = {"all": frame, "dropped": dropped, "cut": cut[cut["dropped"]]}
    for name, own in (kinds | {"unmarked": dropped[~is_mark(dropped, pool)]}).items():
        if name in ("all", "dropped"):
            curves.append(tokens.position_curves(own, "teacher", **how).assign(tokens=name))
        for level in (0.95, TEACHERS_LEVEL):
            found = tokens.position_trends(own, "teacher", level=level, **how)
            trends.append(found.assign(tokens=name, level=level))
    contrasts = tokens.compare_trends(dropped, "pair_seen", tokens.SEEN[0], tokens.SEEN[2], **how)
    return {
        "curves": pd.concat(curves, ignore_index=True),
        "trends": pd.concat(trends, ignore_index=True),
        "seen": pd.concat(
            [
                tokens.gap_shares(dropped, f"{what}_seen", **how)
                .rename(columns={f"{what}_seen": "seen"})
                .assign(what=what)
                for what in ("word", "pair")
            ],
            ignore_index=True,
        ),
        "seen_trends": tokens.position_trends(dropped, "pair_seen", **how),
        "seen_contrast": pd.DataFrame([contrasts]),
    }


def cut_tokens(frame: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Tokens of responses cut after a whole step to the length of their problem's shortest.

    ``position`` is relative to the cut response. A problem is left out if a response has no step
    left, as in `lalp.paper.traces.controls.cut_scores`.
    """
    most = scores.groupby("prompt_id")["num_tokens"].min()
    steps = scores.set_index("response_id")["token_steps"]
    kept, left = [], []
    for response_id, own in frame.groupby("response_id", observed=True, sort=False):
        inside = whole_steps(steps[response_id], most[own["prompt_id"].iloc[0]])
        cut = own[inside[own["token"].to_numpy()]]
        kept.append(cut.assign(position=(cut["token"] + 0.5) / max(1, inside.sum())))
        left.append((own["prompt_id"].iloc[0], inside.any()))
    whole = (
        pd.DataFrame(left, columns=["prompt_id", "is_left"]).groupby("prompt_id")["is_left"].all()
    )
    table = pd.concat(kept, ignore_index=True)
    return table[table["prompt_id"].map(whole).astype(bool)].reset_index(drop=True)


def is_mark(frame: pd.DataFrame, pool: Pool) -> Bool[np.ndarray, " tokens"]:
    """Which tokens begin within a thought's mark."""
    texts = {response.response_id: response.text for response in pool.responses}
    found = np.zeros(len(frame), dtype=bool)
    rows = pd.Series(np.arange(len(frame)))
    for response_id, places in rows.groupby(frame["response_id"].to_numpy(), observed=True):
        starts = frame["start"].to_numpy()[places]
        for mark in MARK.finditer(texts[response_id]):
            found[places] |= (starts >= mark.start()) & (starts < mark.end())
    return found


def repetition_tables(profile: Profile, pool: Pool, scores: pd.DataFrame) -> Tables:
    """Numbers and phrases that are repeated: log-probability at each occurrence (Sec. C.3)."""
    frame = tokens.token_frame(scores, pool, profile.main_window)
    found = items.item_frame(frame, pool)
    how = _resampling(profile)
    return {
        "occurrences": items.occurrence_series(found, **how),
        "rises": items.occurrence_rises(found, items.match_controls(found), **how),
    }


# --- Table 4 and Fig. 4 ---------------------------------------------------------------------------


def category_tables(profile: Profile, pool: Pool, scores: pd.DataFrame) -> Tables:
    """Which kinds of token carry a score, which are improbable, and the effect of the settings."""
    texts = {response.response_id: response.text for response in pool.responses}
    columns = [GALP, *map(lalp_column, profile.windows)]
    local, how = lalp_column(profile.main_window), _resampling(profile)
    frame = shares.token_table(texts, scores, columns)
    settings = shares.compare_settings(frame, local, **how)
    kinds = ("mass", "low")
    return {
        "categories": pd.concat(
            [shares.share_table(frame, [GALP, local], measure=m, **how).assign(of=m) for m in kinds]
        ),
        "shifts": pd.concat(
            [
                shares.sweep_shares(frame, profile.windows, measure=m, **how).assign(of=m)
                for m in kinds
            ]
        ),
        "settings": shares.summarize_settings(settings).reset_index(),
        "words": word_shares(word_frame(scores, texts, [GALP, local]), [GALP, local], **how),
    }


def word_frame(
    scores: pd.DataFrame, texts: Mapping[str, str], columns: Sequence[str]
) -> pd.DataFrame:
    """`token_rows` with each token's ``word`` in `WORDS`, if it is one."""

    def describe(row: Mapping[str, Any], spans: Int[np.ndarray, "tokens 2"]) -> dict[str, Any]:
        text = texts[row["response_id"]]
        return {"word": [spoken_word(text, start, end) for start, end in spans.tolist()]}

    return token_rows(scores, texts, columns, describe)


def spoken_word(text: str, start: int, end: int) -> str | None:
    """The word of `WORDS` that a whole token is, in any case; None for all other tokens.

    Example:
        >>> spoken_word("Wait, awaiting", 0, 4), spoken_word("Wait, awaiting", 6, 10)
        ('wait', None)
    """
    word = text[start:end].strip()
    begins = start + len(text[start:end]) - len(text[start:end].lstrip())
    inside = (begins > 0 and text[begins - 1].isalpha()) or text[end : end + 1].isalpha()
    return word.casefold() if word.casefold() in WORDS and not inside else None


def word_shares(frame: pd.DataFrame, columns: Sequence[str], **resampling: int) -> pd.DataFrame:
    """Each word's share of tokens and of probability mass (percent), for each teacher and for all.

    ``frame`` is a `word_frame`. ``ratio`` is its mean probability over that of all tokens. There is
    a row per teacher, word and score.
    """
    prompts, rows = sorted(set(frame["prompt_id"])), []
    names = [*WORDS, "any other"]
    size = len(names)
    for teacher, own in split_groups(frame.fillna({"word": names[-1]}), "teacher"):
        for column in columns:
            weighed = own.assign(mass=np.exp(own[column]))
            sums = prompt_sums(weighed, prompts, "mass", "word", names)
            found = bootstrap(sums, _word_statistics, **resampling)
            counts = sums[:, size:].sum(axis=0).astype(int)
            parts = (found[:size], found[size : 2 * size], found[2 * size :])
            for place, name in enumerate(WORDS):
                numbers = (part[place] for part in parts)
                rows.append((teacher, name, column, counts[place], *numbers))
    return pd.DataFrame(
        rows, columns=["teacher", "word", "score", "num_tokens", "tokens", "mass", "ratio"]
    )


def _word_statistics(
    sums: Float[np.ndarray, "... sums"],
) -> Float[np.ndarray, "... statistics"]:
    """Shares of tokens and of mass in percent, and the ratio of the two."""
    mass, count = (100 * p / p.sum(axis=-1, keepdims=True) for p in np.split(sums, 2, axis=-1))
    return np.concatenate([count, mass, mass / count], axis=-1)


# --- a row per response ---------------------------------------------------------------------------


def response_tables(profile: Profile, pool: Pool, scores: pd.DataFrame) -> Tables:
    """Scores of other kinds and steps, and gaps, a row per response."""
    ids = ["prompt_id", "response_id", "teacher", "correct", "num_tokens", "num_steps"]
    variants = add_variants(scores, (*VARIANTS, *DEBIASED), profile.main_window)
    made = [name for name in variants if name not in scores]
    return {
        "variants": variants[[*ids, GALP, *map(lalp_column, profile.windows), *made]],
        "resplit": resplit_scores(profile, pool, scores),
        "gaps": response_gaps(scores, profile.windows, profile.main_window),
    }


def response_gaps(scores: pd.DataFrame, windows: Sequence[str], main_window: str) -> pd.DataFrame:
    """Mean gap of a response's tokens under each window (Eq. 4), and in its last tenth, in nats.

    The row also has the mean log-probability of its steps' first tokens, and of the others, under
    GALP and the main window.
    """
    ids, rows = ["prompt_id", "response_id", "teacher", "num_tokens", "num_steps"], []
    for row in _rows(scores):
        whole = np.asarray(row[token_column(GALP)], float)
        last = 10 * (np.arange(len(whole)) + 0.5) >= 9 * len(whole)
        first = np.diff(np.asarray(row["token_steps"], int), prepend=-1) != 0
        found = {name: row[name] for name in ids}
        for window in windows:
            gap = whole - np.asarray(row[token_column(lalp_column(window))], float)
            found |= {f"gap@{window}": np.nanmean(gap), f"last@{window}": np.nanmean(gap[last])}
        for name in (GALP, lalp_column(main_window)):
            values = np.asarray(row[token_column(name)], float)
            found |= {f"{name}:first": np.nanmean(values[first])}
            found |= {f"{name}:others": np.nanmean(values[~first])}
        rows.append(found)
    return pd.DataFrame(rows)


# --- files ----------------------------------------------------------------------------------------


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which each estimate is three numbers: ``x``, ``x_low`` and ``x_high``.

    Example:
        >>> flat(pd.DataFrame({"gap": [Estimate(0.5, 0.25, 0.75, 9)]}))
           gap  gap_low  gap_high
        0  0.5     0.25      0.75
    """
    columns: dict[str, Any] = {}
    for name, values in table.items():
        if len(values) and all(isinstance(value, Estimate) for value in values):
            ends = ([e.value, e.low, e.high] for e in values)
            columns |= dict(
                zip((f"{name}{end}" for end in _ENDS), zip(*ends, strict=True), strict=True)
            )
        else:
            columns[str(name)] = values.to_numpy()
    return pd.DataFrame(columns)


def estimate(row: Mapping[str, Any], name: str, num_units: int) -> Estimate:
    """An estimate of a row of a `flat` table."""
    return Estimate(*(float(row[f"{name}{end}"]) for end in _ENDS), num_units)


def _rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    return scores[scores["reason"].isna()].to_dict("records")


def _resampling(profile: Profile) -> dict[str, int]:
    return {"num_resamples": profile.num_resamples, "seed": 0}
