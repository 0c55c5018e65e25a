r"""Which kinds of token carry a score: probability mass by category (paper, Sec. 7.4.1).

The paper sorts tokens into four categories and names one or two members of each. What it does not
say is filled in here by rules on the *text*: a response is cut into spans (words, fixed phrases,
numbers, symbols), each span gets a **kind** (``lexicon.yaml`` lists them), and a token has the kind
of the span that holds its first non-space character. The same character so has the same kind under
every tokenizer.

- **Connectives** are split by the top senses of the Penn Discourse Treebank: contingency and
  comparison are reasoning, expansion and time are discourse. "So" is the exception: the paper names
  it as filler. Words that are mostly neither (when, as, for, while, where) are function words.
- **White space.** A token of spaces only belongs to what follows, as it would if the tokenizer had
  glued it there (many cut " 3" into " " and "3"). White space that holds a line break, or ends the
  text, is layout.
- **Doubt.** A span is marked unsure where a person could choose otherwise ("so", "then", "second",
  the comma in "x, y"); ``token_table`` says for each token what is doubtful about it.
- **Readings.** The paper's examples leave open what else is discourse: its own text puts
  "Therefore" there (Sec. 7.4.1) and its Table 4 among reasoning. ``READINGS`` holds several
  assignments of kinds to categories; a conclusion that hangs on one of them is none.

The lists are English. The work is linear in the length of the text.
"""

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
from lalp.paper.attribution.labels import (
    category_codes,
    label_spans,
    label_token_alone,
    label_tokens,
)
from lalp.paper.attribution.lexicon import CATEGORIES, KIND_NAMES, KINDS, READINGS, SINGLE_TOKENS
from lalp.stats import Estimate, percentile_interval

REASONING_BEARING = "math + reasoning"
_GROUPS = {**{name: (name,) for name in CATEGORIES}, REASONING_BEARING: ("math", "reasoning")}

Weighting = Literal["token", "response", "step"]
Measure = Literal["mass", "count", "low", "low in pool"]
_LOW_SHARE = 0.1
# Shares summed in another order differ by about 1e-16: no smaller shift is one.
_ROUNDING = 1e-12


def token_table(
    texts: Mapping[str, str], scores: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """One row per token: what it is, and its log-probability under each score.

    Only tokens that have a log-probability under every score are kept, so that scores are compared
    on the same tokens.

    Args:
        texts: Response texts by response id.
        scores: One row per response, with the token columns of ``lalp.scoring.run.score``.
        columns: Scores, such as ``["galp", "lalp@4"]``.

    Returns:
        ``prompt_id``, ``response_id``, ``teacher``, ``step`` (place in the response), ``kind``,
        ``doubt`` (see ``label_tokens``), ``alone`` (see ``label_token_alone``) and one column per
        score (nats). ``attrs["left_out"]`` is the number of tokens left out.

    Raises:
        InputError: If a token column or a text is missing, or no token is scored.
    """
    needed = ["token_spans", "token_steps", *(f"{column}:tokens" for column in columns)]
    if missing := [name for name in needed if name not in scores.columns]:
        raise InputError(
            f"the scores have no column {missing[0]!r}: score this window with with_tokens=True"
        )
    if lost := [i for i in scores["response_id"] if i not in texts]:
        raise InputError(
            f"response {lost[0]!r} has scores but no text: give the pool that was scored"
        )
    tables = [
        _response_tokens(texts[row["response_id"]], row, columns)
        for row in scores.to_dict("records")
    ]
    table = pd.concat(tables, ignore_index=True)
    scored = np.isfinite(table[list(columns)]).all(axis=1)
    if not scored.any():
        raise InputError("no token has a log-probability under every score: see column 'reason'")
    table = table[scored].reset_index(drop=True)
    for name in ("prompt_id", "response_id", "teacher", "kind", "doubt", "alone"):
        table[name] = table[name].astype("category")
    table.attrs = {"left_out": int((~scored).sum())}
    return table


def _response_tokens(text: str, row: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    spans = np.array([tuple(span) for span in row["token_spans"]], dtype=np.int64).reshape(-1, 2)
    kinds, doubts = label_tokens(text, spans)
    return pd.DataFrame(
        {
            "prompt_id": row["prompt_id"],
            "response_id": row["response_id"],
            "teacher": row["teacher"],
            "step": np.asarray(row["token_steps"], dtype=np.int64),
            "kind": kinds,
            "doubt": doubts,
            "alone": [label_token_alone(text[start:end]) for start, end in spans],
            **{column: np.asarray(row[f"{column}:tokens"], dtype=float) for column in columns},
        }
    )


def frequent_members(texts: Iterable[str], num_members: int = 12) -> pd.DataFrame:
    """The most frequent spans of each kind in some texts, in lower case.

    Returns:
        One row per kind that occurs: ``kind``, ``category``, ``spans`` (how many) and ``members``.
    """
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for text in texts:
        for span in label_spans(text):
            counts[span.kind][" ".join(text[span.start : span.end].lower().split())] += 1
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "category": KINDS[kind],
                "spans": count.total(),
                "members": "  ".join(member for member, _ in count.most_common(num_members)),
            }
            for kind, count in counts.items()
            if count
        ]
    )


# --- Shares ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShareDraws:
    """Category shares and their bootstrap resamples.

    Attributes:
        scores: Names of the scores.
        shares: Share of each category under each score; sums to 1 over categories.
        draws: The same in each resample of prompts; the same prompts for all scores.
        num_prompts: Prompts that were resampled.
    """

    scores: tuple[str, ...]
    shares: Float[np.ndarray, "scores categories"]
    draws: Float[np.ndarray, "resamples scores categories"]
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
    r"""Share of each category, with a bootstrap over prompts (paper, Table 4 and Fig. 4).

    With weights :math:`v_t`, the share of category c is ``sum(v[t in c]) / sum(v)``:

    - ``mass``: ``v = exp(log p)``, Table 4; ``count``: ``v = 1``, its baseline.
    - ``low``: ``v = 1`` for the tenth of each response's tokens that is least probable (rounded
      up), 0 for others; ``low in pool``: for the least probable tenth of all tokens together.

    Args:
        tokens: From ``token_table``.
        columns: Scores.
        measure: What is shared out.
        weighting: ``token``: all tokens of all responses together, as Table 4's formula reads.
            ``response``: shares within each response, every response equal. ``step``: as
            ``response``, but within it every step equal, as in LALP (Eq. 3).
        reading: One of ``READINGS``, or ``SINGLE_TOKENS``.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Raises:
        InputError: If an option is unknown or there is no token.
    """
    _check_options(tokens, measure, weighting)
    codes = _token_categories(tokens, reading)
    prompts, names = pd.factorize(tokens["prompt_id"], sort=True)
    cells = prompts * len(CATEGORIES) + codes
    sums = np.stack(
        [
            np.bincount(cells, _weights(tokens, column, measure, weighting), len(names) * 4)
            for column in columns
        ]
    ).reshape(len(columns), len(names), len(CATEGORIES))
    counts = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=num_resamples
    )
    draws = np.einsum("rp,spc->rsc", counts, sums, optimize=True)
    total = sums.sum(axis=1)
    # A resample may consist of prompts without low tokens: it has no shares (NaN).
    with np.errstate(invalid="ignore"):
        draws /= draws.sum(axis=2, keepdims=True)
    return ShareDraws(tuple(columns), total / total.sum(axis=1, keepdims=True), draws, len(names))


def _check_options(tokens: pd.DataFrame, measure: str, weighting: str) -> None:
    for name, value, known in (("measure", measure, Measure), ("weighting", weighting, Weighting)):
        if value not in get_args(known):
            raise InputError(
                f"there is no {name} {value!r}: choose one of {', '.join(get_args(known))}"
            )
    if tokens.empty:
        raise InputError("the table of tokens has no rows: choose other teachers or tokens")


def _token_categories(tokens: pd.DataFrame, reading: str) -> Int[np.ndarray, " tokens"]:
    if reading == SINGLE_TOKENS:
        return pd.Categorical(tokens["alone"], categories=CATEGORIES).codes.astype(np.int64)
    places = pd.Categorical(tokens["kind"], categories=KIND_NAMES).codes
    return category_codes(reading)[places]


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
        # A response may have none of the pool's low tokens: it then adds nothing.
        weights = (weights / weights.groupby(response, sort=False).transform("sum")).fillna(0.0)
    return weights.to_numpy()


def low_tokens(
    tokens: pd.DataFrame, column: str, *, share: float = _LOW_SHARE, in_pool: bool = False
) -> Bool[np.ndarray, " tokens"]:
    """Which tokens are among the least probable ones (paper, Fig. 4).

    Args:
        tokens: From ``token_table``.
        column: Score.
        share: Of all tokens, rounded up; of equal values the first ones count.
        in_pool: Of all tokens together, instead of each response's own.
    """
    groups = np.zeros(len(tokens)) if in_pool else pd.factorize(tokens["response_id"])[0]
    grouped = tokens[column].groupby(groups, sort=False)
    # A tenth of 10 tokens is 1, although 0.1 * 10 might come out a little larger.
    limit = np.ceil(share * grouped.transform("size").to_numpy() - 1e-9)
    return (grouped.rank(method="first") <= limit).to_numpy()


def share_table(tokens: pd.DataFrame, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Category shares with intervals, beside the categories' shares of all tokens.

    Args:
        tokens: From ``token_table``.
        columns: Scores.
        **options: As ``draw_shares``.

    Returns:
        One row per score and category: ``score``, ``category``, ``count`` (its share of tokens, the
        baseline), ``share``, ``low``, ``high`` (percent, 95 %; NaN with one prompt), and ``ratio``,
        ``ratio_low``, ``ratio_high``: share over baseline. For ``mass`` the ratio is the
        category's mean probability relative to that of all tokens.
    """
    found = draw_shares(tokens, columns, **options)
    base = draw_shares(tokens, columns, **{**options, "measure": "count"})
    low, high = percentile_interval(found.draws, found.num_prompts)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, ratio_draws = found.shares / base.shares, found.draws / base.draws
    ratio_low, ratio_high = percentile_interval(ratio_draws, found.num_prompts)
    numbers = {
        "count": 100 * base.shares,
        "share": 100 * found.shares,
        "low": 100 * low,
        "high": 100 * high,
        "ratio": ratios,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
    }
    rows = itertools.product(found.scores, CATEGORIES)
    return pd.DataFrame(rows, columns=["score", "category"]).assign(
        **{name: values.ravel() for name, values in numbers.items()}
    )


def shift_table(
    tokens: pd.DataFrame, local: str, base: str = "galp", **options: Any
) -> pd.DataFrame:
    """What a category gains from global to local, on the same tokens and resamples.

    Args:
        tokens: From ``token_table``.
        local: Score.
        base: Score that is subtracted.
        **options: As ``draw_shares``.

    Returns:
        One row per category, and one for math and reasoning together (what the paper calls
        reasoning-bearing): ``category``, ``share`` (under ``local``, percent), ``shift``, ``low``,
        ``high`` (points, 95 %; NaN with one prompt) and ``resolved`` (the interval excludes 0).
    """
    found = draw_shares(tokens, [base, local], **options)
    rows = []
    for name, members in _GROUPS.items():
        share = found.shares[1, [CATEGORIES.index(member) for member in members]].sum()
        shift = share_contrast(found, _shift(members, local, base))
        resolved = shift.low > _ROUNDING or shift.high < -_ROUNDING
        numbers = (share, shift.value, shift.low, shift.high)
        rows.append((name, *(100 * number for number in numbers), resolved))
    return pd.DataFrame(rows, columns=["category", "share", "shift", "low", "high", "resolved"])


def _shift(members: Iterable[str], local: str, base: str) -> dict[str, dict[str, float]]:
    if local == base:
        return {}
    return {local: dict.fromkeys(members, 1.0), base: dict.fromkeys(members, -1.0)}


def share_contrast(found: ShareDraws, weights: Mapping[str, Mapping[str, float]]) -> Estimate:
    """A weighted sum of shares, such as a difference of two, with its 95 % interval.

    Args:
        found: Shares and their resamples.
        weights: By score and category; 0 where absent.
    """
    table = np.array([[weights.get(s, {}).get(c, 0.0) for c in CATEGORIES] for s in found.scores])
    draws = (found.draws * table).sum(axis=(1, 2))
    low, high = percentile_interval(draws, found.num_prompts)
    value = float((found.shares * table).sum())
    return Estimate(value, float(low), float(high), found.num_prompts)


def low_overlap(tokens: pd.DataFrame, local: str, base: str = "galp") -> float:
    """Share of the least probable tokens under one score that are so under another as well."""
    first, second = low_tokens(tokens, base), low_tokens(tokens, local)
    return float((first & second).sum() / first.sum())


def rule_agreement(tokens: pd.DataFrame, reading: str = "narrow") -> tuple[float, float]:
    """Agreement of the span rule with ``label_token_alone``: share of tokens, and Cohen's kappa."""
    first = _token_categories(tokens, reading)
    second = _token_categories(tokens, SINGLE_TOKENS)
    same = float((first == second).mean())
    shares = [
        np.bincount(codes, minlength=len(CATEGORIES)) / len(tokens) for codes in (first, second)
    ]
    chance = float(np.dot(*shares))
    return same, (same - chance) / (1 - chance) if chance < 1 else 1.0


# --- Robustness -----------------------------------------------------------------------------------


def compare_settings(
    tokens: pd.DataFrame, local: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """What the conclusions rest on, under every reading, weighting and choice of tokens.

    Args:
        tokens: From ``token_table``.
        local: The local score; the global one is ``galp``.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Returns:
        One row per setting and quantity: ``tokens`` (all, or those without doubt), ``reading``,
        ``weighting``, ``quantity`` (see ``QUANTITIES``), ``value``, ``low``, ``high`` (95 %). The
        first setting is the default one.
    """
    subsets = {"all": tokens, "without doubt": tokens[tokens["doubt"] == ""]}
    settings = itertools.product(subsets, [*READINGS, SINGLE_TOKENS], get_args(Weighting))
    tables = [
        _quantities(
            subsets[subset],
            local,
            reading=reading,
            weighting=weighting,
            num_resamples=num_resamples,
            seed=seed,
        ).assign(tokens=subset, reading=reading, weighting=weighting)
        for subset, reading, weighting in settings
        if len(subsets[subset])
    ]
    return pd.concat(tables, ignore_index=True)[
        ["tokens", "reading", "weighting", "quantity", "value", "low", "high"]
    ]


QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "lead": "discourse minus math, share of mass under GALP",
        "ratio": "mean probability of discourse relative to all tokens under GALP",
        "discourse": "discourse, share of mass, LALP minus GALP",
        "bearing": "math and reasoning, share of mass, LALP minus GALP",
        "reasoning": "reasoning, share of mass, LALP minus GALP",
        "low math": "math among each response's low tokens, LALP minus GALP",
        "low math in pool": "math among the pool's low tokens, LALP minus GALP",
    }
)
"""Names in ``compare_settings``, and what they are."""


def _quantities(tokens: pd.DataFrame, local: str, **options: Any) -> pd.DataFrame:
    scores = ["galp", local]
    mass = draw_shares(tokens, scores, **options)
    ratio = share_table(tokens, ["galp"], **options).set_index("category").loc["discourse"]
    rows = {
        "lead": share_contrast(mass, {"galp": {"discourse": 1, "math": -1}}),
        "ratio": Estimate(*ratio[["ratio", "ratio_low", "ratio_high"]], mass.num_prompts),
    }
    for name in ("discourse", "bearing", "reasoning"):
        members = ["math", "reasoning"] if name == "bearing" else [name]
        rows[name] = share_contrast(mass, _shift(members, local, "galp"))
    for name, measure in (("low math", "low"), ("low math in pool", "low in pool")):
        low = draw_shares(tokens, scores, measure=measure, **options)
        rows[name] = share_contrast(low, _shift(["math"], local, "galp"))
    numbers = [(name, one.value, one.low, one.high) for name, one in rows.items()]
    return pd.DataFrame(numbers, columns=["quantity", "value", "low", "high"])


def summarize_settings(
    settings: pd.DataFrame, thresholds: Mapping[str, float] = MappingProxyType({"ratio": 1.0})
) -> pd.DataFrame:
    """One row per quantity: its default value, its range, and how many settings resolve it.

    Args:
        settings: From ``compare_settings``.
        thresholds: By quantity, what its interval must exclude to be resolved; 0 where absent.

    Returns:
        Indexed by quantity: ``value``, ``low``, ``high`` (default setting), ``smallest``,
        ``largest`` (values of all settings), ``above``, ``below`` (settings whose interval lies
        wholly there) and ``settings`` (how many there are).
    """
    rows = {}
    for name, group in settings.groupby("quantity", sort=False):
        threshold = thresholds.get(name, 0.0)
        rows[name] = {
            **{column: float(group[column].iloc[0]) for column in ("value", "low", "high")},
            "smallest": group["value"].min(),
            "largest": group["value"].max(),
            "above": int((group["low"] > threshold + _ROUNDING).sum()),
            "below": int((group["high"] < threshold - _ROUNDING).sum()),
            "settings": len(group),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")


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
    """What each category gains under every window, of all teachers together and of each.

    Args:
        tokens: From ``token_table``.
        windows: Of LALP; GALP is subtracted.
        **options: As ``draw_shares``.

    Returns:
        `shift_table` of every ``teacher`` (first ``all``) and ``window``.
    """
    return pd.concat(
        [
            shift_table(
                tokens if teacher == "all" else tokens[tokens["teacher"] == teacher],
                f"lalp@{window}",
                **options,
            ).assign(teacher=teacher, window=window)
            for teacher in ["all", *sorted(tokens["teacher"].astype(str).unique())]
            for window in windows
        ],
        ignore_index=True,
    )
