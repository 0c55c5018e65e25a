"""What to keep in mind about a ranking: few prompts, the student's relatives, wide windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lalp.scoring.columns import COUNTS, GALP, column_window
from lalp.scoring.windows import parse_window
from lalp.selection.families import family, relatives
from lalp.selection.table import score_values
from lalp.selection.variants import within_prompt_correlations

# Below this, means are uncertain, and their Student's t intervals need evenly spread scores.
FEW_PROMPTS = 30
# Above this, LALP sees nearly the same text as GALP.
WIDE_SHARE = 0.75
_MOST_STEPS = 10_000


def ranking_cautions(scores: pd.DataFrame, rankings: dict[str, pd.DataFrame]) -> list[str]:
    """Warnings on rankings by score column, from `rank_teachers`; none of them changes a number.

    Example:
        >>> from lalp.selection.ranking import rank_teachers
        >>> from lalp.selection.table import example_scores
        >>> scores = example_scores()
        >>> ranking_cautions(scores, {"galp": rank_teachers(scores, "galp")})[0][:44]
        'only 2 prompts in common under galp, fewer t'
    """
    found = _few_prompts({name: table.attrs["num_prompts"] for name, table in rankings.items()})
    return [*found, *_related(scores), *_wide_windows(scores, list(rankings))]


def _few_prompts(numbers: dict[str, int]) -> list[str]:
    few = {name: number for name, number in numbers.items() if number < FEW_PROMPTS}
    if not few:
        return []
    counted = " or ".join(map(str, sorted(set(few.values()))))
    return [
        f"only {counted} prompts in common under {', '.join(few)}, fewer than {FEW_PROMPTS}: "
        "other prompts may give another order"
    ]


def _related(scores: pd.DataFrame) -> list[str]:
    student = str(scores.attrs.get("student", ""))
    teachers = sorted(map(str, scores["teacher"].unique()))
    own = relatives(student, teachers)
    if not own or len(teachers) < 2:
        return []
    return [
        f"{', '.join(own)} and the student {student} come from one base model ({family(student)}): "
        "in published results likelihood scores put such a teacher first, whatever it teaches"
    ]


def _wide_windows(scores: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    found = []
    for column in columns:
        share = window_share(scores, column)
        if share > WIDE_SHARE:
            seen = f"window {column_window(column)} keeps about {share:.0%} of the preceding tokens"
            tau = _agreement(scores, column)
            how = "" if np.isnan(tau) else f" (Kendall tau with GALP within prompts {tau:.2f})"
            found.append(f"{seen}: {column} sees nearly what GALP sees{how}")
    return found


def window_share(scores: pd.DataFrame, column: str) -> float:
    """Share of the tokens before a step that a LALP column's window keeps, over all responses.

    Steps of a response count as equally long. NaN if no step has any text before it, or if the
    table does not count steps and tokens.

    Example:
        >>> frame = pd.DataFrame({"num_tokens": [30], "num_steps": [3]})
        >>> window_share(frame, "lalp@1")  # of 10 tokens 10, of 20 tokens 10
        0.6666666666666666
    """
    window = column_window(column)
    if window is None or not {*COUNTS} <= set(scores.columns):
        return float("nan")
    parsed = parse_window(window)
    kept = before = 0.0
    counts = zip(*(score_values(scores, name).tolist() for name in COUNTS), strict=True)
    for tokens, steps in counts:
        if not (steps >= 2 and tokens > 0):  # or unknown
            continue
        # Each number of preceding steps, or evenly spaced numbers if there are very many.
        preceding = np.linspace(1, steps - 1, min(int(steps) - 1, _MOST_STEPS))
        if parsed.kind == "tokens":
            seen = np.minimum(float(parsed.size) * steps / tokens, preceding)
        elif parsed.kind == "steps":
            seen = np.minimum(float(parsed.size), preceding)
        else:
            share = 1.0 if parsed.kind == "all" else float(parsed.size)
            seen = np.ceil(np.round(share * preceding, 9))
        kept += float(seen.mean()) * (steps - 1) * tokens / steps
        before += float(preceding.mean()) * (steps - 1) * tokens / steps
    return kept / before if before else float("nan")


def _agreement(scores: pd.DataFrame, column: str) -> float:
    """Agreement of a column's order of a prompt's candidates with GALP's, over the prompts."""
    table = scores.assign(**{name: score_values(scores, name) for name in (GALP, column)})
    # The interval is not used; scipy warns of fewer resamples.
    correlations = within_prompt_correlations(table, [GALP, column], num_resamples=2)
    return float(correlations["tau"].iloc[0])
