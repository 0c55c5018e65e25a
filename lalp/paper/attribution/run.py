"""Tokens and verdicts of `02_token_attribution`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lalp.paper.attribution.labels import label_tokens
from lalp.paper.attribution.lexicon import CATEGORIES, KINDS
from lalp.paper.attribution.shares import (
    REASONING_BEARING,
    compare_settings,
    share_table,
    summarize_settings,
    sweep_shares,
    token_table,
)
from lalp.paper.profiles import Profile
from lalp.paper.tables import TABLES
from lalp.paper.verdicts import Verdict
from lalp.pools.pool import Pool
from lalp.scoring.columns import column_window, lalp_column
from lalp.students.student import load_tokenizer


def attribution_tokens(profile: Profile, pool: Pool, scores: pd.DataFrame) -> pd.DataFrame:
    """`token_table` of the profile's scores, under GALP and every window."""
    texts = {response.response_id: response.text for response in pool.responses}
    return token_table(texts, scores, ["galp", *map(lalp_column, profile.windows)])


def attribution_example(text: str, profile: Profile) -> pd.DataFrame:
    """The tokens of a text under the profile's tokenizer, with their categories.

    Returns:
        ``token`` (its text), ``start``, ``end``, ``kind``, ``category`` and ``doubt``.
    """
    encoded = load_tokenizer(profile.student)(
        text, add_special_tokens=False, return_offsets_mapping=True
    )
    spans = np.array(encoded["offset_mapping"])
    kinds, doubts = label_tokens(text, spans)
    return pd.DataFrame(
        {
            "token": [text[start:end] for start, end in spans],
            "start": spans[:, 0],
            "end": spans[:, 1],
            "kind": kinds,
            "category": [KINDS[kind] for kind in kinds],
            "doubt": doubts,
        }
    )


def attribution_sweep(
    tokens: pd.DataFrame, measure: str, profile: Profile, seed: int
) -> pd.DataFrame:
    """`sweep_shares` over the profile's windows, in percent and percentage points."""
    columns = [lalp_column(window) for window in profile.windows]
    table = sweep_shares(
        tokens, columns, measure=measure, num_resamples=profile.num_resamples, seed=seed
    )
    table["window"] = table.pop("score").map(column_window)
    numbers = ["share", "shift", "low", "high"]
    table[numbers] = 100 * table[numbers]
    return table


def attribution_table(
    tokens: pd.DataFrame, measure: str, profile: Profile, seed: int
) -> pd.DataFrame:
    """`share_table` under GALP and the main window, in percent; Table 4's values beside mass."""
    columns = ["galp", lalp_column(profile.main_window)]
    table = share_table(
        tokens, columns, measure=measure, num_resamples=profile.num_resamples, seed=seed
    )
    shares = ["count", "share", "low", "high"]
    table[shares] = 100 * table[shares]
    if measure == "mass":
        # The paper's rows stand in the order of CATEGORIES.
        paper = TABLES["4"].frame
        table["paper"] = [*paper["GALP"], *paper["LALP"]]
    return table


def attribution_settings(tokens: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`compare_settings` for the main window and for the first one; adds ``window``."""
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    windows = dict.fromkeys((profile.main_window, profile.windows[0]))
    return pd.concat(
        [compare_settings(tokens, lalp_column(w), **options).assign(window=w) for w in windows],
        ignore_index=True,
    )


def attribution_verdicts(
    tokens: pd.DataFrame, settings: pd.DataFrame, profile: Profile, seed: int
) -> list[Verdict]:
    """What this run says on Sec. 7.4.1, Table 4 and Fig. 4.

    A claim holds, or does not, only if the interval says so under every reading, weighting and
    choice of tokens in ``settings``.

    Args:
        tokens: From `attribution_tokens`.
        settings: From `attribution_settings`.
        profile: The run's profile.
        seed: For the bootstrap.
    """
    at_main = settings[settings["window"] == profile.main_window]
    at_first = settings[settings["window"] == profile.windows[0]]
    found = summarize_settings(at_main)
    paper = TABLES["4"].frame.set_axis(list(CATEGORIES))
    moved = paper["LALP"] - paper["GALP"]
    mass = attribution_table(tokens, "mass", profile, seed).set_index(["score", "category"])
    return [
        _lead_verdict(found.loc["lead"], mass, paper),
        _ratio_verdict(found.loc["ratio"]),
        _fall_verdict(found.loc["discourse"], paper),
        _gain_verdict(found.loc["bearing"], moved),
        _size_verdict(at_main, moved, tokens, profile, seed),
        _transition_verdict(found.loc["reasoning"], paper),
        _low_verdict(found, profile.main_window),
        _low_verdict(summarize_settings(at_first), profile.windows[0]),
    ]


def _settled(row: pd.Series, claim: str = "above") -> str:
    """A verdict that every setting agrees on: ``claim`` is where the intervals should lie."""
    against = "below" if claim == "above" else "above"
    if row[claim] == row["settings"]:
        return "holds"
    return "does not hold" if row[against] == row["settings"] else "not resolved"


def _points(row: pd.Series, names: Sequence[str] = ("value", "low", "high")) -> str:
    """Percentage points with their interval, from shares."""
    value, low, high = (100 * row[name] for name in names)
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def _over_settings(row: pd.Series) -> str:
    return (
        f"over {row['settings']:.0f} settings {100 * row['smallest']:+.2f} to "
        f"{100 * row['largest']:+.2f} points, resolved above 0 in {row['above']:.0f}, below in "
        f"{row['below']:.0f}"
    )


def _lead_verdict(row: pd.Series, mass: pd.DataFrame, paper: pd.DataFrame) -> Verdict:
    of = {category: mass.loc[("galp", category)] for category in ("discourse", "math")}
    return Verdict(
        "GALP's mass lies on discourse tokens, more than on math (Table 4)",
        f"discourse {paper.loc['discourse', 'GALP']} %, math {paper.loc['math', 'GALP']} %",
        "; ".join(
            f"{category} {share['share']:.1f} % [{share['low']:.1f}, {share['high']:.1f}] of mass, "
            f"{share['count']:.1f} % of tokens"
            for category, share in of.items()
        ),
        _settled(row),
        f"discourse minus math {_points(row)}; {_over_settings(row)}; a category's mass is mostly "
        "its number of tokens, which the paper does not report",
        "Table 4",
    )


def _ratio_verdict(row: pd.Series) -> Verdict:
    return Verdict(
        "Discourse tokens are highly predictable and contribute out of proportion (Sec. 7.4.1)",
        "said, without a number",
        f"mean probability {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] times that of "
        "all tokens, under GALP",
        _settled(row),
        f"over {row['settings']:.0f} settings {row['smallest']:.2f} to {row['largest']:.2f} times, "
        f"resolved above 1 in {row['above']:.0f}, below in {row['below']:.0f}",
        "Table 4",
    )


def _fall_verdict(row: pd.Series, paper: pd.DataFrame) -> Verdict:
    odds = paper.loc["discourse"] / (100 - paper.loc["discourse"])
    shift = paper.loc["discourse", "LALP"] - paper.loc["discourse", "GALP"]
    return Verdict(
        "The mass share of discourse falls from global to local (Table 4)",
        f"{shift:+.1f} points",
        _points(row),
        _settled(row, "below"),
        f"{_over_settings(row)}; both columns count the same tokens, so the paper's fall needs "
        f"discourse to become {odds['GALP'] / odds['LALP']:.1f} times less probable relative to "
        "all else",
        "Table 4",
    )


def _gain_verdict(row: pd.Series, moved: pd.Series) -> Verdict:
    return Verdict(
        "LALP moves mass to math and reasoning transitions (Table 4)",
        f"{moved['math'] + moved['reasoning']:+.1f} points together",
        _points(row),
        _settled(row),
        f"the direction only; {_over_settings(row)}",
        "Table 4",
    )


def _size_verdict(
    settings: pd.DataFrame, moved: pd.Series, tokens: pd.DataFrame, profile: Profile, seed: int
) -> Verdict:
    claimed = moved["math"] + moved["reasoning"]
    row = summarize_settings(settings, {"bearing": claimed / 200}).loc["bearing"]
    sweep = attribution_sweep(tokens, "mass", profile, seed)
    shifts = sweep[(sweep["teacher"] == "all") & (sweep["category"] == REASONING_BEARING)]
    largest = shifts.loc[shifts["shift"].idxmax()]
    length = len(tokens) / tokens["response_id"].nunique()
    return Verdict(
        f"The shift to math and reasoning transitions is of the order of {claimed:.0f} points "
        "(Table 4)",
        f"{claimed:+.1f} points",
        f"{_points(row)} at w = {profile.main_window}; at most, at w = {largest['window']}, "
        f"{largest['shift']:+.2f} [{largest['low']:+.2f}, {largest['high']:+.2f}]",
        _settled(row),
        f"held against half of the paper's figure; responses have {length:.0f} tokens on average, "
        "the paper's are long",
        "Table 4",
    )


def _transition_verdict(row: pd.Series, paper: pd.DataFrame) -> Verdict:
    shift = paper.loc["reasoning", "LALP"] - paper.loc["reasoning", "GALP"]
    return Verdict(
        "The mass share of reasoning transitions rises from global to local (Table 4)",
        f"{shift:+.1f} points",
        _points(row),
        _settled(row),
        _over_settings(row),
        "Table 4",
    )


def _low_verdict(found: pd.DataFrame, window: str) -> Verdict:
    rows = [found.loc[name] for name in ("low math", "low math in pool")]
    verdicts = {_settled(row) for row in rows}
    return Verdict(
        f"Math and symbols are a larger share of the low-probability tokens under LALP, w = "
        f"{window}, than under GALP (Fig. 4)",
        "substantially larger; the window is not stated",
        f"{_points(rows[0])} among each response's least probable tenth",
        verdicts.pop() if len(verdicts) == 1 else "not resolved",
        f"{_over_settings(rows[0])}; among the pool's least probable tenth {_points(rows[1])}, "
        f"{_over_settings(rows[1])}",
        "Fig. 4",
    )
