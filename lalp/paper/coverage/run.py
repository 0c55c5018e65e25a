"""Texts, folds and verdicts of `01_coverage`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lalp.files import atomic_path, build_dir
from lalp.paper.champ.champ import pick_candidates
from lalp.paper.coverage.measure import (
    ALL,
    ALL_CANDIDATES,
    CHUNKS,
    EQUAL_NUMBERS,
    PAPER_PAIRS,
    PIECES,
    RESPONSES,
    STEPS,
    Contrast,
    Interval,
    Level,
    assign_folds,
    excerpt,
    group_table,
    mean_interval,
    nearness_by_prompt,
    permute_lengths,
    similarity_sweep,
)
from lalp.paper.profiles import Profile
from lalp.paper.verdicts import Verdict
from lalp.pools.pool import Pool
from lalp.steps.sentences import Span
from lalp.steps.splitters import chunk_size, split_pool
from lalp.students.embedder import load_embeddings
from lalp.students.student import load_tokenizer

# Every prompt is held out once, a fifth of them at a time.
_NUM_FOLDS = 5
# Rows over the prompts of all categories, and the level of responses that they compare.
_TOGETHER = {"together": RESPONSES, f"together, {PIECES}": PIECES}
# Largest cosines between a held-out problem and those whose texts are candidates.
_SIMILARITIES = (ALL, 0.8, 0.6, 0.5, 0.4)


def coverage_pool(profile: Profile, pool: Pool, seed: int) -> Pool:
    """One response per prompt and teacher, for as many prompts as the profile embeds."""
    return pick_candidates(pool, profile.coverage_prompts, 1, seed)


def coverage_spans(profile: Profile, pool: Pool, seed: int) -> dict[str, dict[str, list[Span]]]:
    """Each response whole, cut into steps, and into random chunks of the steps' lengths.

    Returns:
        Spans by level and response id.
    """
    tokenizer = load_tokenizer(profile.student) if chunk_size(profile.splitter) else None
    steps = split_pool(pool, profile.splitter, tokenizer=tokenizer, embedder=profile.embedder)
    chunks = {
        response.response_id: permute_lengths(
            response.text, steps[response.response_id], [seed, place]
        )
        for place, response in enumerate(pool.responses)
    }
    whole = {response.response_id: [(0, len(response.text))] for response in pool.responses}
    return {RESPONSES: whole, STEPS: steps, CHUNKS: chunks}


def coverage_levels(
    profile: Profile, pool: Pool, spans: Mapping[str, Mapping[str, Sequence[Span]]]
) -> dict[str, Level]:
    """Embed the texts of every level, from disk where they were embedded before.

    Args:
        profile: For its embedder.
        pool: From `coverage_pool`.
        spans: From `coverage_spans`.

    Returns:
        ``responses``, the same as means of pieces that hold all of their text, ``steps`` and
        ``random chunks``. Items have ``num_tokens`` and ``num_read``, of the embedder.
    """
    responses = _embed_level(pool, spans[RESPONSES], profile)
    return {RESPONSES: responses, PIECES: _in_pieces(responses, profile)} | {
        name: _embed_level(pool, spans[name], profile) for name in (STEPS, CHUNKS)
    }


def _embed_level(pool: Pool, spans: Mapping[str, Sequence[Span]], profile: Profile) -> Level:
    items = pd.DataFrame(
        {
            "prompt_id": response.prompt_id,
            "response_id": response.response_id,
            "teacher": response.teacher,
            "place": place,
            "text": response.text[start:end].strip(),
        }
        for response in pool.responses
        for place, (start, end) in enumerate(spans[response.response_id])
    )
    embedded = load_embeddings(profile.embedder, items["text"].tolist())
    read = np.minimum(embedded.num_tokens, embedded.limit)
    return Level(items.assign(num_tokens=embedded.num_tokens, num_read=read), embedded.vectors)


def _in_pieces(level: Level, profile: Profile) -> Level:
    """The same texts; those that exceed the embedder's input as means of their pieces."""
    items, vectors = level.items, level.vectors.copy()
    cut = (items["num_tokens"] > items["num_read"]).to_numpy()
    if cut.any():
        texts = items.loc[cut, "text"].tolist()
        vectors[cut] = load_embeddings(profile.embedder, texts, chunk_mean=True).vectors
    return Level(items.assign(num_read=items["num_tokens"]), vectors)


def coverage_folds(pool: Pool, seed: int) -> dict[str, int]:
    """The fold in which each prompt is held out."""
    return assign_folds(pool.prompts, _NUM_FOLDS, seed)


def coverage_categories(pool: Pool) -> dict[str, str]:
    """The category of each prompt, as its responses name it; empty where one has none."""
    found = {r.prompt_id: r.extra.get("category") for r in pool.responses}
    return found if len(set(found.values()) - {None}) > 1 and None not in found.values() else {}


def coverage_by_category(
    levels: Mapping[str, Level], categories: Mapping[str, str], profile: Profile, seed: int
) -> pd.DataFrame:
    """Steps against responses with each category held out in turn; empty without categories.

    Returns:
        As `lalp.paper.coverage.measure.group_table` returns it; rows that begin with ``together``
        are over the prompts of all categories.
    """
    if not categories:
        return pd.DataFrame()
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    compared = {name: levels[name] for name in (RESPONSES, PIECES, STEPS)}
    values = nearness_by_prompt(compared, categories)
    together = [
        group_table(values, dict.fromkeys(categories, label), whole, **options)
        for label, whole in _TOGETHER.items()
    ]
    return pd.concat([group_table(values, categories, **options), *together], ignore_index=True)


def coverage_by_similarity(
    profile: Profile, pool: Pool, levels: Mapping[str, Level], folds: Mapping[str, int], seed: int
) -> pd.DataFrame:
    """`similarity_sweep` over the cosine between problems, under the profile's embedder."""
    texts = ["\n\n".join(m.content for m in p.messages) for p in pool.prompts.values()]
    vectors = load_embeddings(profile.embedder, texts).vectors
    names = list(pool.prompts)
    similarity = pd.DataFrame(vectors @ vectors.T, index=names, columns=names)
    compared = {name: levels[name] for name in (RESPONSES, STEPS, CHUNKS)}
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return similarity_sweep(compared, folds, similarity, _SIMILARITIES, **options)


def nearness_table(values: Mapping[str, pd.DataFrame], profile: Profile, seed: int) -> pd.DataFrame:
    """Mean nearest-neighbour cosine of each level, with its interval over prompts."""
    columns = (ALL_CANDIDATES, EQUAL_NUMBERS)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return pd.DataFrame(
        [[str(mean_interval(table[c], **options)) for c in columns] for table in values.values()],
        index=list(values),
        columns=list(columns),
    )


def paper_pairs_table(profile: Profile) -> pd.DataFrame:
    """Cosines of the paper's example pairs (Table 11) under the profile's embedder."""
    texts = [text for *pair, _ in PAPER_PAIRS for text in pair]
    vectors = load_embeddings(profile.embedder, texts).vectors
    return pd.DataFrame(
        {
            "response": [excerpt(one, 8) for one, _, _ in PAPER_PAIRS],
            "nearest": [excerpt(other, 8) for _, other, _ in PAPER_PAIRS],
            "paper": [cosine for *_, cosine in PAPER_PAIRS],
            "this embedder": (vectors[::2] * vectors[1::2]).sum(axis=1).round(2),
        }
    )


def save_neighbors(
    levels: Mapping[str, Level], neighbors: Mapping[str, pd.DataFrame], profile: str
) -> Path:
    """Write every held-out text with its nearest training text (Sec. C.8).

    Args:
        levels: From `coverage_levels`.
        neighbors: `lalp.paper.coverage.measure.find_neighbors` of some of them.
        profile: The run's profile.

    Returns:
        ``build/PROFILE/coverage_neighbours.jsonl``: whole texts, one pair a line.
    """
    path = build_dir() / profile / "coverage_neighbours.jsonl"
    fields = ["prompt_id", "response_id", "teacher", "place", "text"]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, found in neighbors.items():
            nearest = levels[name].items.iloc[found["nearest"]][fields].to_dict("records")
            held_out = found[fields].to_dict("records")
            for cosine, one, other in zip(found["cosine"], held_out, nearest, strict=True):
                pair = {"level": name, "cosine": float(cosine), "held_out": one, "nearest": other}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    return path


def neighbor_examples(neighbors: pd.DataFrame, texts: pd.Series, num_examples: int) -> pd.DataFrame:
    """Pairs spread evenly from the farthest to the nearest, as short excerpts (Tables 11, 12).

    They are not chosen by what they say: their ranks among all pairs are.

    Args:
        neighbors: From `lalp.paper.coverage.measure.find_neighbors`.
        texts: The texts of all items of the level.
        num_examples: Pairs to show.
    """
    ordered = neighbors.sort_values("cosine", kind="stable")
    ranks = np.linspace(0, len(ordered) - 1, 2 * num_examples + 1).round().astype(int)[1::2]
    shown = ordered.iloc[ranks]
    return pd.DataFrame(
        {
            "nearer than": [f"{(rank + 0.5) / len(ordered):.0%}" for rank in ranks],
            "cosine": shown["cosine"].round(2).to_numpy(),
            "held out": [excerpt(text) for text in shown["text"]],
            "nearest in training": [excerpt(text) for text in texts.iloc[shown["nearest"]]],
        }
    )


def coverage_verdicts(
    contrasts: Mapping[tuple[str, str], Contrast],
    categories: pd.DataFrame,
    nearer: Interval,
    levels: Mapping[str, Level],
) -> list[Verdict]:
    """What this run says on coverage (Sec. 5, Fig. 2, 7 and 8, Sec. C.8).

    Args:
        contrasts: `lalp.paper.coverage.measure.contrast_levels`.
        categories: `lalp.paper.coverage.measure.group_table` with each category held out; may be
            empty.
        nearer: Mean over prompts of `lalp.paper.coverage.measure.nearer_steps`.
        levels: From `coverage_levels`.
    """
    sizes = f"{len(levels[STEPS].items):,} steps, {len(levels[RESPONSES].items):,} responses"
    claim = "Held-out steps are closer to training steps than whole responses to whole responses"
    return [
        _closer_verdict(
            contrasts[_GAP, ALL_CANDIDATES],
            claim,
            "0.935 for steps, 0.760 for responses",
            f"{sizes}; cosines of different embedders differ in level, only the order is compared",
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[_GAP, EQUAL_NUMBERS],
            f"{claim}, also with equal numbers of candidates",
            "no such control",
            "as many training steps as training responses, mean over all draws"
            + _held_out(categories),
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[f"{STEPS} - {PIECES}", ALL_CANDIDATES],
            f"{claim}, also where these are embedded to their end",
            "input length of the embedder not stated",
            _lost_text(levels[RESPONSES].items),
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[f"{STEPS} - {CHUNKS}", ALL_CANDIDATES],
            "It is the steps that recur: they are closer than random chunks of the same lengths",
            "no such control",
            "as many chunks as steps and as long, on both sides; chunks against responses: "
            f"{contrasts[f'{CHUNKS} - {RESPONSES}', ALL_CANDIDATES].difference}",
            "Fig. 2",
        ),
        *(_consistency_verdict(contrasts, candidates) for candidates in _CANDIDATES),
        *(_categories_verdict(categories, candidates) for candidates in _CANDIDATES),
        _nearly_every_verdict(nearer),
    ]


_GAP = f"{STEPS} - {RESPONSES}"
_CANDIDATES = {ALL_CANDIDATES: "", EQUAL_NUMBERS: ", also with equal numbers of candidates"}
# "Consistent across problems" and "nearly every step" are held to mean this share at least.
_NEARLY_ALL = 0.9


def _beyond(interval: Interval, limit: float = 0.0) -> str:
    if interval.low > limit:
        return "holds"
    return "does not hold" if interval.high < limit else "not resolved"


def _closer_verdict(found: Contrast, claim: str, paper: str, why: str, where: str) -> Verdict:
    return Verdict(
        claim,
        paper,
        f"{found.first.mean:.3f} against {found.second.mean:.3f}; difference {found.difference}",
        _beyond(found.difference),
        f"{found.difference.num_prompts} problems, each held out once; {why}",
        where=where,
    )


def _held_out(categories: pd.DataFrame) -> str:
    """What equal numbers give where nothing of the held-out problem's category is a candidate."""
    if categories.empty:
        return ""
    rows = categories[categories["candidates"] == EQUAL_NUMBERS].set_index("label")
    cut, whole = (
        f"{row.difference:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for row in rows.loc[list(_TOGETHER)].itertuples()
    )
    return (
        f"; with whole categories held out the difference is {cut}, and {whole} where responses "
        "are embedded to their end"
    )


def _lost_text(items: pd.DataFrame) -> str:
    cut = (items["num_tokens"] > items["num_read"]).mean()
    lost = 1 - items["num_read"].sum() / items["num_tokens"].sum()
    return (
        f"the embedder cuts {cut:.0%} of the responses and drops {lost:.0%} of their tokens; the "
        "mean over pieces drops none"
    )


def _consistency_verdict(contrasts: Mapping[tuple[str, str], Contrast], candidates: str) -> Verdict:
    share = contrasts[_GAP, candidates].share_above
    return Verdict(
        f"The gap between steps and responses is consistent across problems"
        f"{_CANDIDATES[candidates]}",
        "consistent" if candidates == ALL_CANDIDATES else "no such control",
        f"steps are closer on a share of {share} of {share.num_prompts} problems",
        _beyond(share, _NEARLY_ALL),
        f"held to mean on {_NEARLY_ALL:.0%} of problems at least; Wilson interval",
        where="Fig. 2",
    )


def _categories_verdict(categories: pd.DataFrame, candidates: str) -> Verdict:
    claim = f"The gap shows on further test sets as well{_CANDIDATES[candidates]}"
    paper = "similar trend on two further benchmarks"
    if categories.empty:
        why = "the pool's responses name no category"
        return Verdict(
            claim, paper, "one test set", "not testable at this scale", why, where="Fig. 7, Fig. 8"
        )
    rows = categories[categories["candidates"] == candidates]
    rows = rows[~rows["label"].isin(_TOGETHER)]
    if (rows["low"] > 0).all():
        verdict = "holds"
    else:
        verdict = "does not hold" if (rows["high"] < 0).any() else "not resolved"
    return Verdict(
        claim,
        paper if candidates == ALL_CANDIDATES else "no such control",
        "steps minus responses: "
        + ", ".join(f"{row.label} {row.difference:+.3f}" for row in rows.itertuples()),
        verdict,
        f"each of {len(rows)} categories held out, training on the others; the interval lies above "
        f"0 in {(rows['low'] > 0).sum()} and below 0 in {(rows['high'] < 0).sum()}",
        where="Fig. 7, Fig. 8",
    )


def _nearly_every_verdict(nearer: Interval) -> Verdict:
    return Verdict(
        "Nearly every held-out step has a closer neighbour than its whole response has",
        "examples: steps 0.94 to 0.98, responses 0.68 and 0.72",
        f"true of a share of {nearer} of steps",
        _beyond(nearer, _NEARLY_ALL),
        f"all candidates; nearly every is held to mean {_NEARLY_ALL:.0%} at least; the examples "
        "show steps at their best and responses at their worst",
        where="Table 11, Table 12",
    )
