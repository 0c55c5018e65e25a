"""Coverage of long traces by other long traces (paper, Sec. 5, Fig. 2, 7 and 8), as in notebook 01.

Each data set is split into five folds. Then each is held out as a whole, and its neighbours are
found in the other one, as for the paper's further test sets.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lalp.paper.coverage import measure
from lalp.paper.coverage.neighbors import assign_folds
from lalp.paper.coverage.texts import Level, cut_pool, embed_levels, level_items, truncation_table
from lalp.paper.profiles import Profile
from lalp.paper.traces.plan import PLAN
from lalp.paper.traces.pool import DATA_SETS, MAIN_TEACHERS
from lalp.pools.pool import Pool


def coverage_tables(profile: Profile, pool: Pool, num_folds: int = 5) -> dict[str, pd.DataFrame]:
    """Levels of text against each other, by ``data``, and the text that the embedder cuts.

    ``coverage`` is a `contrast_table`: ``gsm8k`` and ``math`` by folds, then each with its
    neighbours in the other. ``coverage_cut`` is a `truncation_table` of each data set. Only the
    main teachers' responses count.
    """
    kept = tuple(r for r in pool.responses if r.teacher in MAIN_TEACHERS)
    chosen, seed = Pool(pool.prompts, kept), PLAN["seed"]
    items = level_items(chosen, cut_pool(profile, chosen, seed))
    levels = embed_levels(profile.embedder, items)
    data_of = {r.prompt_id: r.extra["data_set"] for r in kept}
    resampling = {"num_resamples": profile.num_resamples, "seed": seed}
    tables, cut = {}, []
    for data in DATA_SETS:
        own = {name: _only(level, data_of, data) for name, level in levels.items()}
        prompts = [name for name, found in data_of.items() if found == data]
        values = measure.nearness_by_prompt(own, assign_folds(prompts, num_folds, seed))
        tables[data] = measure.contrast_levels(values, **resampling)
        cut.append(truncation_table(own).assign(data=data))
    across = measure.nearness_by_prompt(levels, data_of)
    for data in DATA_SETS:
        part = {name: table[table.index.map(data_of) == data] for name, table in across.items()}
        tables[f"{data}, from the other"] = measure.contrast_levels(part, **resampling)
    found = [measure.contrast_table(one).assign(data=data) for data, one in tables.items()]
    return {
        "coverage": pd.concat(found, ignore_index=True),
        "coverage_cut": pd.concat(cut, ignore_index=True),
    }


def _only(level: Level, data_of: Mapping[str, str], data: str) -> Level:
    """A level's texts of one data set."""
    kept = (level.items["prompt_id"].map(data_of) == data).to_numpy()
    return Level(level.items[kept].reset_index(drop=True), level.vectors[kept])
