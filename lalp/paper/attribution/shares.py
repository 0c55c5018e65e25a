"""Which kinds of token carry a score: probability mass by category (paper, Sec. 7.4.1)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from lalp.errors import InputError
from lalp.paper.attribution.labels import label_spans, label_token_alone, label_tokens
from lalp.paper.attribution.lexicon import CATEGORIES, KINDS, READINGS, SINGLE_TOKENS
from lalp.paper.estimates import leave_one_out, resample, row_estimates
from lalp.paper.tokens import token_rows
from lalp.scoring.columns import lalp_column
from lalp.stats import Estimate, bootstrap_interval, what_resolves_all

REASONING_BEARING = "math + reasoning"
_GROUPS = {**{name: (name,) for name in CATEGORIES}, REASONING_BEARING: ("math", "reasoning")}

Weighting = Literal["token", "response", "step"]
Measure = Literal["mass", "count", "low", "low in pool"]
_LOW_SHARE = 0.1
# Shares summed in another order differ by about 1e-16: a smaller shift does not count.
_ROUNDING = 1e-12
# The threshold of a quantity; 0 if it has none.
_THRESHOLDS = MappingProxyType({"ratio": 1.0})


def token_table(
    texts: Mapping[str, str], scores: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """`token_rows` with the kind of each token, and how sure that is.

    ``doubt`` is that of `label_tokens`, ``alone`` the category by `label_token_alone`. InputError
    if no token is scored.
    """

    def describe(row: Mapping[str, Any], spans: Int[np.ndarray, "tokens 2"]) -> dict[str, Any]:
        text = texts[row["response_id"]]
        kinds, doubts = label_tokens(text, spans)
        alone = [label_token_alone(text[start:end]) for start, end in spans]
        return {"kind": kinds, "doubt": doubts, "alone": alone}

    table = token_rows(scores, texts, columns, describe)
    if table.empty:
        raise InputError("no token has a log-probability under every score: see column 'reason'")
    return table.astype(dict.fromkeys(("kind", "doubt", "alone"), "category"))


def frequent_members(texts: Iterable[str], num_members: int = 12) -> pd.DataFrame:
    """The most frequent spans of each kind in some texts, in lower case, and their number."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for text in texts:
        for span in label_spans(text):
            counts[span.kind][" ".join(text[span.start : span.end].lower().split())] += 1
    rows = []
    for kind, count in counts.items():
        members = "  ".join(member for member, _ in count.most_common(num_members))
        if count:
            rows.append((kind, KINDS[kind], count.total(), members))
    return pd.DataFrame(rows, columns=["kind", "category", "spans", "members"])


# --- Shares ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShareDraws:
    """Category shares under some scores: of all and resampled prompts, and without each prompt.

    Resamples are the same for all scores and categories.
    """

    scores: tuple[str, ...]
    shares: Float[np.ndarray, "scores categories"]
    draws: Float[np.ndarray, "resamples scores categories"]
    without: Float[np.ndarray, "prompts scores categories"]
    num_prompts: int


def draw_shares(
    tokens: pd.DataFrame,
    columns: Sequence[str],
    *,
    measure: Measure = "mass",
    weighting: Weighting = "token",
    reading: str = "narrow",
    num_resamples: int = 2000,
    seed: int = 0,
) -> ShareDraws:
    """Share of each category, with a bootstrap over prompts (paper, Table 4 and Fig. 4).

    With weights :math:`v_t`, the share of category c is ``sum(v[t in c]) / sum(v)``:

    - ``mass``: ``v = exp(log p)``, Table 4; ``count``: ``v = 1``, its baseline.
    - ``low``: ``v = 1`` for the tenth of each response's tokens that is least probable (rounded
      up), 0 for others; ``low in pool``: for the least probable tenth of all tokens together.

    ``tokens`` are from `token_table`. The weighting ``token`` pools all tokens of all responses, as
    Table 4's formula says; ``response`` takes shares within each response and weights all responses
    equally; ``step`` also weights all steps of a response equally, as LALP does (Eq. 3).
    ``reading`` is one of ``READINGS``, or ``SINGLE_TOKENS``.
    """
    for name, value, known in (
        ("measure", measure, get_args(Measure)),
        ("weighting", weighting, get_args(Weighting)),
        ("reading", reading, [*READINGS, SINGLE_TOKENS]),
    ):
        if value not in known:
            raise InputError(f"there is no {name} {value!r}: choose one of {', '.join(known)}")
    if tokens.empty:
        raise InputError("the table of tokens has no rows: choose other teachers or tokens")
    codes = _token_categories(tokens, reading)
    prompts, names = pd.factorize(tokens["prompt_id"], sort=True)
    cells, num_cells = prompts * len(CATEGORIES) + codes, len(names) * len(CATEGORIES)
    weights = [_weights(tokens, column, measure, weighting) for column in columns]
    sums = [np.bincount(cells, one, num_cells).reshape(len(names), -1) for one in weights]

    def to_shares(total: Float[np.ndarray, "... sums"]) -> Float[np.ndarray, "... scores 4"]:
        masses = total.reshape(*total.shape[:-1], len(columns), len(CATEGORIES))
        # A resample may hold only prompts without low tokens; then it has no shares (NaN).
        return masses / masses.sum(axis=-1, keepdims=True)

    # Scores share the draws of prompts, so that differences between them are paired.
    found = resample(np.hstack(sums), to_shares, num_resamples, seed)
    without = leave_one_out(np.hstack(sums), to_shares)
    return ShareDraws(tuple(columns), *found, without, len(names))


def _token_categories(tokens: pd.DataFrame, reading: str) -> Int[np.ndarray, " tokens"]:
    """Place of each token's category in ``CATEGORIES``."""
    alone = reading == SINGLE_TOKENS
    names = tokens["alone"] if alone else tokens["kind"].map(READINGS[reading])
    return pd.Categorical(names, categories=CATEGORIES).codes.astype(np.int64)


def _weights(
    tokens: pd.DataFrame, column: str, measure: str, weighting: str
) -> Float[np.ndarray, " tokens"]:
    if measure == "mass":
        values = np.exp(tokens[column].to_numpy())
    elif measure == "count":
        values = np.ones(len(tokens))
    else:
        values = low_tokens(tokens, column, in_pool=measure == "low in pool").astype(float)
    weights = pd.Series(values, index=tokens.index)
    response = pd.factorize(tokens["response_id"])[0]
    if weighting == "step":
        steps = [response, tokens["step"].to_numpy()]
        weights /= weights.groupby(steps, sort=False).transform("size")
    if weighting != "token":
        # A response without any of the pool's low tokens adds nothing.
        weights = (weights / weights.groupby(response, sort=False).transform("sum")).fillna(0.0)
    return weights.to_numpy()


def low_tokens(
    tokens: pd.DataFrame, column: str, *, in_pool: bool = False
) -> Bool[np.ndarray, " tokens"]:
    """Which tokens are in the least probable tenth of their response, or of all together (Fig. 4).

    The tenth is rounded up; among equal values the first ones count.
    """
    groups = np.zeros(len(tokens)) if in_pool else pd.factorize(tokens["response_id"])[0]
    grouped = tokens[column].groupby(groups, sort=False)
    # A tenth of 10 tokens is 1, although 0.1 * 10 might come out slightly larger.
    limit = np.ceil(_LOW_SHARE * grouped.transform("size").to_numpy() - 1e-9)
    return (grouped.rank(method="first") <= limit).to_numpy()


def share_table(tokens: pd.DataFrame, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Category shares with intervals (percent), beside the categories' shares of all tokens.

    Takes the arguments of `draw_shares`. ``count`` is the share of tokens, the baseline; ``ratio``
    is share over baseline: for ``mass`` the category's mean probability relative to that of all
    tokens. Intervals are those of `bootstrap_interval`: a value that rests on one prompt has none.
    """
    found = draw_shares(tokens, columns, **options)
    base = draw_shares(tokens, columns, **{**options, "measure": "count"})
    low, high = 100 * bootstrap_interval(found.shares, found.draws, found.without)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, ratio_draws = found.shares / base.shares, found.draws / base.draws
        ratios_without = found.without / base.without
    ratio_low, ratio_high = bootstrap_interval(ratios, ratio_draws, ratios_without)
    numbers = {"count": 100 * base.shares, "share": 100 * found.shares, "low": low, "high": high}
    numbers |= {"ratio": ratios, "ratio_low": ratio_low, "ratio_high": ratio_high}
    rows = pd.DataFrame(itertools.product(found.scores, CATEGORIES), columns=["score", "category"])
    return rows.assign(**{name: values.ravel() for name, values in numbers.items()})


def shift_table(tokens: pd.DataFrame, local: str, **options: Any) -> pd.DataFrame:
    """Gain of each category from GALP to ``local``, on the same tokens and resamples (points).

    Takes the options of `draw_shares`. The last row is the paper's reasoning-bearing tokens.
    ``share`` is the share under ``local``; a shift is ``resolved`` if its interval excludes 0.
    """
    found = draw_shares(tokens, ["galp", local], **options)
    rows = []
    for name, members in _GROUPS.items():
        weights = dict.fromkeys(members, 1.0)
        share = share_contrast(found, (0, 1), **weights).value
        shift = share_contrast(found, (-1, 1), **weights)
        resolved = shift.low > _ROUNDING or shift.high < -_ROUNDING
        numbers = (share, shift.value, shift.low, shift.high)
        rows.append((name, *(100 * number for number in numbers), resolved))
    return pd.DataFrame(rows, columns=["category", "share", "shift", "low", "high", "resolved"])


def share_contrast(found: ShareDraws, scores: Sequence[float], **categories: float) -> Estimate:
    """A weighted sum of shares with its 95 % interval, by weights of scores and of categories.

    ``share_contrast(found, (-1, 1), math=1)`` is math's gain from first to second score.
    """
    weights = [categories.get(name, 0.0) for name in CATEGORIES]
    # Scores come first, so a score minus itself is exactly 0.
    value, draws, without = (
        np.asarray(scores) @ shares @ weights
        for shares in (found.shares, found.draws, found.without)
    )
    low, high = bootstrap_interval(value, draws, without)
    return Estimate(float(value), float(low), float(high), found.num_prompts)


def low_overlap(tokens: pd.DataFrame, local: str) -> float:
    """Share of the least probable tokens under GALP that are so under ``local`` too."""
    first, second = low_tokens(tokens, "galp"), low_tokens(tokens, local)
    return float((first & second).sum() / first.sum())


def rule_agreement(tokens: pd.DataFrame) -> tuple[float, float]:
    """Agreement of the span rule with ``label_token_alone``: share of tokens, and Cohen's kappa."""
    rules = [_token_categories(tokens, name) for name in ("narrow", SINGLE_TOKENS)]
    same = float((rules[0] == rules[1]).mean())
    shares = [np.bincount(codes, minlength=len(CATEGORIES)) / len(tokens) for codes in rules]
    # Two rules agree by chance as often as their shares of the categories imply.
    chance = float(np.dot(*shares))
    return same, (same - chance) / (1 - chance) if chance < 1 else 1.0


# --- Robustness -----------------------------------------------------------------------------------


def compare_settings(tokens: pd.DataFrame, local: str, **resampling: int) -> pd.DataFrame:
    """The quantities behind the conclusions, under every reading, weighting and choice of tokens.

    A row per setting and quantity (see ``QUANTITIES``); the first setting is the default one.
    ``tokens`` are all tokens, or those without doubt.
    """
    names = ["tokens", "reading", "weighting", "quantity", "value", "low", "high", "num_prompts"]
    subsets = {"all": tokens, "without doubt": tokens[tokens["doubt"] == ""]}
    rows = []
    for setting in itertools.product(subsets, [*READINGS, SINGLE_TOKENS], get_args(Weighting)):
        subset, reading, weighting = setting
        options = resampling | {"reading": reading, "weighting": weighting}
        if len(subsets[subset]):
            found = _quantities(subsets[subset], local, **options)
            rows += [
                (*setting, name, one.value, one.low, one.high, one.num_units)
                for name, one in found.items()
            ]
    return pd.DataFrame(rows, columns=names)


QUANTITIES = {
    "lead": "discourse minus math, share of mass under GALP",
    "ratio": "mean probability of discourse relative to all tokens under GALP",
    "discourse": "discourse, share of mass, LALP minus GALP",
    "bearing": "math and reasoning, share of mass, LALP minus GALP",
    "reasoning": "reasoning, share of mass, LALP minus GALP",
    "low math": "math among each response's low tokens, LALP minus GALP",
    "low math in pool": "math among the pool's low tokens, LALP minus GALP",
}
"""Names in ``compare_settings``, and what they are."""


def _quantities(tokens: pd.DataFrame, local: str, **options: Any) -> dict[str, Estimate]:
    mass, low, low_in_pool = (
        draw_shares(tokens, ["galp", local], measure=measure, **options)
        for measure in ("mass", "low", "low in pool")
    )
    ratio = share_table(tokens, ["galp"], **options).set_index("category").loc["discourse"]
    return {
        "lead": share_contrast(mass, (1, 0), discourse=1, math=-1),
        "ratio": Estimate(*ratio[["ratio", "ratio_low", "ratio_high"]], mass.num_prompts),
        "discourse": share_contrast(mass, (-1, 1), discourse=1),
        "bearing": share_contrast(mass, (-1, 1), math=1, reasoning=1),
        "reasoning": share_contrast(mass, (-1, 1), reasoning=1),
        "low math": share_contrast(low, (-1, 1), math=1),
        "low math in pool": share_contrast(low_in_pool, (-1, 1), math=1),
    }


def summarize_settings(
    settings: pd.DataFrame, thresholds: Mapping[str, float] = _THRESHOLDS
) -> pd.DataFrame:
    """One row per quantity: its default value, its range, and how many settings resolve it.

    ``smallest`` and ``largest`` are over all settings; ``above`` and ``below`` count the settings
    whose interval lies wholly on that side of the quantity's threshold, 0 if none is given.
    """
    limits = settings["quantity"].map(dict(thresholds)).fillna(0.0)
    above, below = settings["low"] > limits + _ROUNDING, settings["high"] < limits - _ROUNDING
    groups = settings.assign(above=above, below=below).groupby("quantity", sort=False)
    table = groups.head(1).set_index("quantity")[["value", "low", "high"]]
    values, counts = groups["value"], groups[["above", "below"]].sum()
    table = table.assign(smallest=values.min(), largest=values.max())
    return table.join(counts).assign(settings=groups.size())


def what_settles(
    settings: pd.DataFrame, *quantities: str, thresholds: Mapping[str, float] = _THRESHOLDS
) -> str:
    """The number of prompts that would resolve the quantities in every setting, in words.

    If settings lie on both sides of the threshold, no number of prompts would.
    """
    rows = settings[settings["quantity"].isin(quantities)]
    limits = rows["quantity"].map(dict(thresholds)).fillna(0.0)
    gaps = rows[["value", "low", "high"]].sub(limits, axis=0)
    above, below = (gaps["value"] > _ROUNDING).sum(), (gaps["value"] < -_ROUNDING).sum()
    if above and below:
        return f"no number of prompts: {above} settings lie above and {below} below"
    gaps["num_prompts"] = rows["num_prompts"]
    return what_resolves_all(row_estimates(gaps, "value", "num_prompts"))


def in_points(row: pd.Series) -> str:
    """The default value of a row of `summarize_settings`, with its interval, in points."""
    value, low, high = 100 * row["value"], 100 * row["low"], 100 * row["high"]
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def over_settings(row: pd.Series) -> str:
    """The range over all settings of a row of `summarize_settings`, in points."""
    return (
        f"over {row['settings']:.0f} settings {100 * row['smallest']:+.2f} to "
        f"{100 * row['largest']:+.2f} points, resolved above 0 in {row['above']:.0f}, below in "
        f"{row['below']:.0f}"
    )


def sweep_shares(tokens: pd.DataFrame, windows: Sequence[str], **options: Any) -> pd.DataFrame:
    """`shift_table` from GALP to LALP at every ``window``, for each ``teacher``, first ``all``."""
    tables = []
    for teacher in ["all", *sorted(tokens["teacher"].astype(str).unique())]:
        own = tokens if teacher == "all" else tokens[tokens["teacher"] == teacher]
        for window in windows:
            table = shift_table(own, lalp_column(window), **options)
            tables.append(table.assign(teacher=teacher, window=window))
    return pd.concat(tables, ignore_index=True)
