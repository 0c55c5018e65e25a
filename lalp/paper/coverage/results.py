"""The numbers of notebook 01: read where they are committed, measured otherwise.

Embedding every text of CHAMP takes minutes, so `make results NAME=champ PART=coverage` keeps what
follows from the vectors, and the notebook embeds a sample again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.files import digest
from lalp.paper import root_dir
from lalp.paper.committed import made_of, write_table
from lalp.paper.coverage import measure, neighbors, texts
from lalp.paper.coverage.measure import ALL_CANDIDATES, EQUAL_NUMBERS
from lalp.paper.coverage.neighbors import ALL
from lalp.paper.coverage.texts import CHUNKS, PIECES, RESPONSES, STEPS
from lalp.paper.profiles import Profile
from lalp.paper.rechecks import SAME_NATS, compare, require_agreement
from lalp.pools.pool import Pool
from lalp.students.embedder import load_embeddings

log = logging.getLogger("lalp")

NUM_FOLDS = 5
LIMITS = (ALL, 0.8, 0.6, 0.5, 0.4)
"""Largest cosines between a held-out problem and those of its candidates."""

COMMAND = "make results NAME=champ PART=coverage"
# Texts of each level that the notebook embeds again, with their neighbours.
_SAMPLE = 20


@dataclass(frozen=True)
class Coverage:
    """Tables of numbers; they hold nobody's texts.

    ``neighbors`` has a row for each held-out text: its ``level``, its row among the level's items
    (``item``), the ``cosine`` to the ``nearest`` of all candidates (also a row), and ``equal``, the
    cosine to the nearest of an equal number. ``nearness`` holds `measure.nearness_by_prompt` below
    each other. ``truncation`` is that of the texts, the others are tables of `measure`.
    """

    neighbors: pd.DataFrame
    nearness: pd.DataFrame
    categories: pd.DataFrame
    similarity: pd.DataFrame
    teachers: pd.DataFrame
    truncation: pd.DataFrame

    @property
    def values(self) -> dict[str, pd.DataFrame]:
        """Mean cosines of every prompt, by level: a column for each number of candidates."""
        tables = {}
        for level, rows in self.nearness.groupby("level", sort=False):
            table = rows.drop(columns="level").set_index("prompt_id").dropna(axis=1, how="all")
            counts = sorted(int(name) for name in table if name.isdigit())
            table = table.rename(columns={str(count): count for count in counts})
            tables[level] = table[[*counts, EQUAL_NUMBERS, ALL_CANDIDATES]]
        return tables

    def found(self, level: str, items: pd.DataFrame) -> pd.DataFrame:
        """A level's held-out texts with ``cosine`` and ``nearest``, as of `find_neighbors`."""
        own = self.neighbors[self.neighbors["level"] == level].set_index("item")
        return items.loc[own.index].assign(cosine=own["cosine"], nearest=own["nearest"])


def measure_coverage(profile: Profile, chosen: Pool, seed: int) -> Coverage:
    """Embed the texts of all levels, hold out five folds, and measure everything."""
    resampling = {"num_resamples": profile.num_resamples, "seed": seed}
    spans = texts.cut_pool(profile, chosen, seed)
    levels = texts.embed_levels(profile.embedder, texts.level_items(chosen, spans))
    folds = neighbors.assign_folds(chosen.prompts, NUM_FOLDS, seed)
    parts = {name: neighbors.hold_out(level.items, folds) for name, level in levels.items()}
    equal = neighbors.smallest_choice(parts[RESPONSES])
    rows = []
    for name, level in levels.items():
        found = neighbors.find_neighbors(level, parts[name])[["cosine", "nearest"]]
        cosines = neighbors.cosines_by_count(level, parts[name], [equal])[found.index, 0]
        rows.append(found.assign(level=name, equal=cosines).rename_axis("item").reset_index())
    nearness = measure.nearness_by_prompt(levels, folds)
    similarity = texts.prompt_similarity(profile.embedder, chosen)
    compared = {name: levels[name] for name in (RESPONSES, STEPS, CHUNKS)}
    both = {name: levels[name] for name in (RESPONSES, STEPS)}
    return Coverage(
        pd.concat(rows, ignore_index=True),
        pd.concat(
            [table.rename(columns=str).assign(level=name) for name, table in nearness.items()]
        ).reset_index(),
        measure.category_table(levels, texts.prompt_categories(chosen), **resampling),
        measure.similarity_sweep(compared, folds, similarity, LIMITS, **resampling),
        measure.teacher_table(both, folds, **resampling),
        texts.truncation_table(levels),
    )


def coverage_of(profile: Profile, chosen: Pool, seed: int) -> Coverage:
    """The committed tables if they are of the same texts and settings, else measured ones."""
    paths = _paths(profile)
    if not profile.results or not all(path.is_file() for path in paths.values()):
        return measure_coverage(profile, chosen, seed)
    if any(made_of(path) != _settings(profile, chosen, seed) for path in paths.values()):
        log.warning("%s: coverage is of other texts or settings: measured now", profile.results)
        return measure_coverage(profile, chosen, seed)
    return Coverage(**{name: pd.read_parquet(path) for name, path in paths.items()})


def save_coverage(profile: Profile, chosen: Pool, seed: int) -> None:
    """Measure a pool's coverage and write its tables into the profile's folder of results."""
    measured, settings = measure_coverage(profile, chosen, seed), _settings(profile, chosen, seed)
    for name, path in _paths(profile).items():
        write_table(path, getattr(measured, name), settings)


def _paths(profile: Profile) -> dict[str, Path]:
    folder = root_dir() / "figures" / profile.results
    return {one.name: folder / f"coverage_{one.name}.parquet" for one in fields(Coverage)}


def _settings(profile: Profile, chosen: Pool, seed: int) -> str:
    """What decides the tables, except the code."""
    asked = [[m.content for m in prompt.messages] for prompt in chosen.prompts.values()]
    said = [[r.prompt_id, r.response_id, r.teacher, r.text] for r in chosen.responses]
    made_by = [profile.embedder, profile.splitter, profile.num_resamples, seed]
    return digest([made_by, list(chosen.prompts), asked, said], 16)


def recheck_coverage(
    profile: Profile, items: Mapping[str, pd.DataFrame], coverage: Coverage, seed: int
) -> pd.DataFrame:
    """Embed a seeded sample of texts of every level now, and compare with the tables.

    Returns a row per check, as `rechecks.compare` does: each sampled text's cosine to its committed
    neighbour, and each prompt's mean over all texts. InputError if one is beyond `SAME_NATS`.
    """
    checks = []
    for level in items:
        committed = coverage.neighbors[coverage.neighbors["level"] == level]
        drawn = committed.sample(min(_SAMPLE, len(committed)), random_state=seed)
        cosines = pair_cosines(profile.embedder, level, items[level], drawn)
        now = drawn.assign(cosine=cosines)
        what = f"{level}: cosine of a text and its neighbour"
        checks.append(compare(what, committed, now, ["item"], ["cosine"], SAME_NATS))
    for level, table in coverage.values.items():
        own = coverage.neighbors[coverage.neighbors["level"] == level]
        held_out, numbers = items[level].loc[own["item"]], own[["equal", "cosine"]].to_numpy()
        now = measure.prompt_means(held_out, numbers, [EQUAL_NUMBERS, ALL_CANDIDATES])
        known, now = table.reset_index(), now.reset_index()
        columns = [EQUAL_NUMBERS, ALL_CANDIDATES]
        what = f"{level}: means of problems"
        checks.append(compare(what, known, now, ["prompt_id"], columns, SAME_NATS))
    return require_agreement(checks, COMMAND)


def pair_cosines(
    embedder: str, level: str, items: pd.DataFrame, pairs: pd.DataFrame
) -> Float[np.ndarray, "pairs"]:
    """Cosines of a level's texts (rows ``item``) and others of them (rows ``nearest``)."""
    rows = [*pairs["item"], *pairs["nearest"]]
    vectors = load_embeddings(
        embedder, items["text"].loc[rows].tolist(), chunk_mean=level == PIECES
    ).vectors
    one, other = np.split(vectors, 2)
    return (one * other).sum(axis=1)
