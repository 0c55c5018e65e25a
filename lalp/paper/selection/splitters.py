"""The effect of the steps on the ranking: the same responses under several step splitters.

Under the full prefix, a token's log-probability does not depend on the steps. So LALP with any
splitter follows from GALP's tokens, exactly and without a forward pass. Under a window, it must be
scored again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.champ.champ import pick_candidates
from lalp.paper.profiles import Profile
from lalp.paper.scores import scores_of
from lalp.pools.pool import Pool
from lalp.scoring.columns import lalp_column
from lalp.scoring.equations import local_average_log_prob
from lalp.scoring.run import score
from lalp.selection.ranking import rank_teachers, tau_interval
from lalp.selection.rules import agreement, select
from lalp.stats import wilson_interval
from lalp.steps.sentences import Span
from lalp.steps.splitters import Steps, split_pool
from lalp.students.encoding import assign_steps
from lalp.students.student import load_tokenizer


def splitter_column(splitter: str, window: str) -> str:
    """Name of the score column of a splitter and a window, or of its ``num_steps``."""
    return f"{splitter}:{window if window == 'num_steps' else lalp_column(window)}"


def weigh_steps(log_probs: Float[np.ndarray, "tokens"], token_steps: Sequence[Span]) -> float:
    """Mean over steps of the mean over the step's tokens (Eq. 3), given the tokens' spans.

    NaN if a step has no token of its own or a token has no log-probability.
    """
    # A step without its own token has no mean: its text is part of another step's token.
    if not token_steps or any(start == end for start, end in token_steps):
        return float("nan")
    return local_average_log_prob([log_probs[start:end] for start, end in token_steps])


def weigh_responses(scores: pd.DataFrame, texts: dict[str, str], steps: Steps) -> pd.DataFrame:
    """LALP under the full prefix for ``steps`` other than those that were scored.

    The scores need token columns; texts and steps are keyed by response id. Returns ``score`` in
    nats and ``num_steps``, a row per row of ``scores``.
    """
    rows = []
    columns = ["response_id", "token_spans", "galp:tokens"]
    for name, offsets, log_probs in scores[columns].to_numpy():
        spans = assign_steps(texts[name], offsets, steps[name])
        rows.append((weigh_steps(np.asarray(log_probs), spans), len(spans)))
    return pd.DataFrame(rows, index=scores.index, columns=["score", "num_steps"])


def resplit_scores(profile: Profile, pool: Pool, scores: pd.DataFrame) -> pd.DataFrame:
    """LALP under the full prefix for every splitter's steps, in the columns of `splitter_scores`.

    It follows from GALP's tokens, so nothing is scored again.
    """
    wanted = set(scores["response_id"])
    some = [response for response in pool.responses if response.response_id in wanted]
    texts = {response.response_id: response.text for response in some}
    kept = Pool(pool.prompts, tuple(some))
    tokenizer = load_tokenizer(profile.student)
    frame = scores[["prompt_id", "response_id", "teacher", "correct", "num_tokens"]].copy()
    for splitter in (profile.splitter, *profile.splitters):
        steps = split_pool(kept, splitter, tokenizer=tokenizer, embedder=profile.embedder)
        weighed = weigh_responses(scores, texts, steps)
        frame[splitter_column(splitter, "num_steps")] = weighed["num_steps"]
        frame[splitter_column(splitter, "all")] = weighed["score"]
    return frame


def splitter_scores(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The candidates' scores under the profile's other splitters, beside the main one's.

    There is one row per response, with ``NAME:lalp@W`` and ``NAME:num_steps`` for each splitter.
    Windows of steps or tokens are scored again, for the first ``splitter_prompts`` of the
    candidates' prompts. The full prefix follows from GALP's tokens for all of them. ``scores`` come
    from `profile_scores`, with token columns and the same ``seed``.
    """
    most, each = profile.num_prompts, profile.responses_per_teacher
    candidates = pick_candidates(pool, most, each, seed)
    few = pick_candidates(pool, min(most, profile.splitter_prompts), each, seed)
    *windows, _ = splitter_windows(profile)
    frame = resplit_scores(profile, candidates, scores)
    tokenizer = load_tokenizer(profile.student)
    for splitter in (profile.splitter, *profile.splitters):
        local = scores[scores["prompt_id"].isin(few.prompts)]
        # The main splitter's windows are scored already.
        if splitter != profile.splitter:
            steps = split_pool(few, splitter, tokenizer=tokenizer, embedder=profile.embedder)
            local = scores_under(profile, few, splitter, steps, windows)
        local = local.set_index("response_id").reindex(scores["response_id"])
        for window in windows:
            frame[splitter_column(splitter, window)] = local[f"lalp@{window}"].to_numpy()
    return frame


def scores_under(
    profile: Profile, few: Pool, splitter: str, steps: Steps, windows: Sequence[str]
) -> pd.DataFrame:
    """Scores of a pool's responses under the steps of another splitter."""

    def compute(some: Pool) -> pd.DataFrame:
        chosen = {response.response_id: steps[response.response_id] for response in some.responses}
        return score(some, profile.student, windows, splitter=chosen)

    return scores_of(profile, f"splitter_{splitter}", few, compute)


def splitter_windows(profile: Profile) -> list[str]:
    """Windows for the comparison of splitters: none, the main one, those in tokens, and all."""
    local = [w for w in profile.windows if w in ("0", profile.main_window) or w.endswith("t")]
    return [*(window for window in local if window != "all"), "all"]


def compare_splitters(
    frame: pd.DataFrame, splitters: Sequence[str], windows: Sequence[str], **resampling: int
) -> pd.DataFrame:
    """The teacher ranking and the selection under each splitter.

    ``frame`` comes from `splitter_scores`. All splitters are compared with the first one, under a
    bootstrap of prompts (``resampling``: see `tau_interval`). One row per window and splitter:
    ``prompts``, ``steps`` per response, ``tokens`` per step (means over responses), ``order`` of
    the teachers, ``tau`` with the first splitter's order, ``tau_low`` to ``tau_high`` (95 % for the
    whole table together, by Bonferroni), ``same``, the share of prompts with the same selected
    response, and its 95 % Wilson interval.
    """
    # Bonferroni: one interval per window and further splitter.
    level = 1 - 0.05 / max(1, len(windows) * (len(splitters) - 1))
    rows = []
    for window, splitter, column, scored in _cases(frame, splitters, windows):
        main = splitter_column(splitters[0], window)
        # Only the order is used, so its interval needs no resamples.
        ranking = rank_teachers(scored, column, num_resamples=1)
        tau = tau_interval(scored, main, column, level=level, **resampling)
        num_steps = scored[splitter_column(splitter, "num_steps")]
        first = _choose(scored, main)
        same = agreement(first, _choose(scored, column))
        same_low, same_high = wilson_interval(same, len(first))
        row = {"window": window, "splitter": splitter, "prompts": tau.num_units}
        row |= {"steps": num_steps.mean(), "tokens": (scored["num_tokens"] / num_steps).mean()}
        row["order"] = " > ".join(ranking["teacher"])
        row |= {"tau": tau.value, "tau_low": tau.low, "tau_high": tau.high}
        rows.append(row | {"same": same, "same_low": same_low, "same_high": same_high})
    return pd.DataFrame(rows)


def _cases(
    frame: pd.DataFrame, splitters: Sequence[str], windows: Sequence[str]
) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Windows and splitters, their columns, and the responses that every splitter has scored."""
    for window in windows:
        columns = [splitter_column(splitter, window) for splitter in splitters]
        # A response that one splitter cannot score would move only the other splitters' means.
        scored = frame.dropna(subset=columns)
        for splitter, column in zip(splitters, columns, strict=True):
            yield window, splitter, column, scored


def _choose(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """The response with the highest score of each prompt."""
    # `select` knows score columns by name, so this one takes the place of LALP's.
    return select(scores.assign(**{"lalp@0": scores[column]}), "lalp", "0")


def centered_means(
    frame: pd.DataFrame, splitters: Sequence[str], windows: Sequence[str], **resampling: int
) -> pd.DataFrame:
    """Each teacher's mean score above or below the mean of all teachers on the same prompt.

    This removes a prompt's common difficulty, so the intervals show what decides the order. The
    order is that of the plain means. The arguments are those of `compare_splitters`. The columns
    ``mean``, ``low`` and ``high`` are in nats per token.
    """
    tables = []
    for window, splitter, column, scored in _cases(frame, splitters, windows):
        means = scored.groupby(["prompt_id", "teacher"])[column].mean()
        level = means.groupby("prompt_id").mean()
        centered = scored.assign(**{column: scored[column] - scored["prompt_id"].map(level)})
        table = rank_teachers(centered, column, **resampling)
        place = {"window": window, "splitter": splitter}
        tables.append(table.assign(**place, prompts=table.attrs["num_prompts"]))
    columns = ["window", "splitter", "prompts", "teacher", "rank", "mean", "low", "high"]
    return pd.concat(tables, ignore_index=True)[columns]
