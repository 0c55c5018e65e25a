"""Results of the study of word problems: contrasts, the predictions, and what is told beside them.

Every arm of a seed answers the same problems. In the linear mixed model ``solved ~ arm + (1 | seed)
+ (1 | problem)`` a contrast's estimate is then the mean over seeds of their own contrasts. It is
tested in that model and by Student's t over seeds; the wider interval and the larger p count. Only
seeds with all their arms finished are used. ``part`` is ``all`` problems, the ``near`` or the
``far`` ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lalp.paper.arms.grid import BEFORE
from lalp.paper.contrasts import (
    contrast_values,
    intercepts_error,
    mean_squares,
    outcome,
    spread_columns,
    variance_components,
)
from lalp.paper.words.settings import CONTRASTS, PREDICTIONS, PREREGISTERED, PRIMARY
from lalp.paper.words.study import WordResults
from lalp.stats import Estimate, holm, p_value, t_interval

PLANNED: float = PREREGISTERED["planned"]
"""The difference for which power is computed."""
PARTS = ("all", "near", "far")
_LEVEL = 0.05


def whole_seeds(results: WordResults) -> list[int]:
    """Seeds whose every planned arm is finished."""
    planned = results.selections.groupby("seed").size() + 1  # and the untrained student
    finished = results.arms.groupby("seed").size().reindex(planned.index, fill_value=0)
    return sorted(planned.index[finished == planned].tolist())


def solved_grid(
    results: WordResults, part: str = "all"
) -> tuple[Float[np.ndarray, "seeds arms problems"], list[str]]:
    """Whether each arm of each whole seed solved each problem of a part (1 or 0), and arms' names.

    Arms that some whole seed lacks are left out.
    """
    seeds = whole_seeds(results)
    wide = results.arms.pivot(index="seed", columns="arm", values="solved").reindex(seeds)
    arms = [arm for arm in results.arms["arm"].unique() if wide[arm].notna().all()]
    far = results.seeds.set_index("seed")["far"]
    rows = []
    for seed in seeds:
        kept = [part == "all" or (flag == "1") == (part == "far") for flag in far[seed]]
        digits = [list(map(int, wide.loc[seed, arm])) for arm in arms]
        rows.append(np.array(digits, dtype=float)[:, kept])
    return np.array(rows).reshape(len(seeds), len(arms), -1), arms


def accuracy_by_arm(results: WordResults) -> pd.DataFrame:
    """Mean accuracy over seeds by arm with its t interval (cut at 0 and 1), and near and far apart.

    With it the means of the selection: examples, tokens, scores and numbers of each teacher.
    """
    grids = {part: solved_grid(results, part) for part in PARTS}
    arms = grids["all"][1]
    rows = []
    for place, arm in enumerate(arms):
        means = {part: grid[:, place].mean(axis=1) for part, (grid, _) in grids.items()}
        found = t_interval(means["all"])
        low, high = np.clip((found.low, found.high), 0, 1)
        row = {"arm": arm, "accuracy": found.value, "low": low, "high": high}
        row |= {part: float(means[part].mean()) for part in PARTS[1:]}
        rows.append(row | {"num_seeds": found.num_units})
    own = results.selections[results.selections["seed"].isin(whole_seeds(results))]
    means = own.drop(columns=["seed", "chosen"]).groupby("arm").mean().reset_index()
    columns = ["arm", "accuracy", "low", "high", "near", "far", "num_seeds"]
    return pd.DataFrame(rows, columns=columns).merge(means, on="arm", how="left")


# --- contrasts -------------------------------------------------------------------------------


def contrast_table(results: WordResults, part: str = "all") -> pd.DataFrame:
    """Every preregistered contrast whose arms are there, by ``family``, on a part of the problems.

    ``difference`` with ``low`` and ``high``, ``p``, and ``p_holm`` by Holm's correction over the
    family; ``p_seeds`` and ``p_model`` of both tests; ``num_seeds``, and how many are above 0
    (``num_above``); ``spread``, the standard deviation over seeds; ``power`` to find `PLANNED`, and
    the effect ``detectable`` with 80 %, by the t test at the family's strictest level; the ends of
    the two-level bootstrap.
    """
    grid, arms = solved_grid(results, part)
    rows = []
    for family, contrasts in CONTRASTS.items():
        for name, weights in contrasts.items():
            if len(grid) and set(weights) <= set(arms):
                row = {"family": family, "contrast": name}
                rows.append(row | contrast_row(grid, arms, weights, _LEVEL / len(contrasts)))
    table = pd.DataFrame(rows)
    if len(table):
        corrected = table.groupby("family", sort=False)["p"].transform(holm)
        table.insert(table.columns.get_loc("p") + 1, "p_holm", corrected)
    return table


def contrast_row(
    grid: Float[np.ndarray, "seeds arms problems"],
    arms: list[str],
    weights: Mapping[str, float],
    level: float,
) -> dict[str, float]:
    """One contrast, as `contrast_table` has it; ``level`` is the strictest of its family."""
    values = contrast_values(grid, arms, weights)
    seeds, (model, p_model) = (
        t_interval(values.mean(axis=1)),
        model_estimate(grid, arms, weights),
    )
    p_seeds = p_value(seeds)
    return {
        "difference": seeds.value,
        # NaN with one seed, whatever the model says: it cannot tell arms from seeds.
        "low": float(np.minimum(seeds.low, model.low)),
        "high": float(np.maximum(seeds.high, model.high)),
        "p": float(np.maximum(p_seeds, p_model)),
        "p_seeds": p_seeds,
        "p_model": p_model,
        "num_seeds": seeds.num_units,
        **spread_columns(values, PLANNED, level),
    }


def model_estimate(
    grid: Float[np.ndarray, "seeds arms problems"], arms: list[str], weights: Mapping[str, float]
) -> tuple[Estimate, float]:
    """A contrast in ``solved ~ arm + (1 | seed) + (1 | problem)`` with its interval, and its p."""
    value = float(contrast_values(grid, arms, weights).mean())
    squares = mean_squares(grid)
    freedom = squares["arm by student"][1] + squares["residual"][1]
    error = intercepts_error(grid, arms, weights)
    half = float(stats.t.ppf(1 - _LEVEL / 2, freedom)) * error
    if not error:
        return Estimate(value, value, value, len(grid)), float(value == 0)
    p = float(2 * stats.t.sf(abs(value) / error, freedom))
    return Estimate(value, value - half, value + half, len(grid)), p


def far_minus_near(results: WordResults) -> pd.DataFrame:
    """Each primary contrast on far problems minus that on near ones, with its t interval."""
    (near, arms), (far, _) = (solved_grid(results, part) for part in PARTS[1:])
    rows = []
    for name, weights in CONTRASTS[PRIMARY].items():
        means = [contrast_values(grid, arms, weights).mean(axis=1) for grid in (far, near)]
        found = t_interval(means[0] - means[1])
        rows.append((name, found.value, found.low, found.high, found.num_units))
    return pd.DataFrame(rows, columns=["contrast", "difference", "low", "high", "num_seeds"])


def variances(results: WordResults) -> dict[str, float]:
    """Variance components of all arms: ``seed``, ``problem``, ``arm by seed``, ``residual``."""
    found = variance_components(solved_grid(results)[0])
    return {name.replace("student", "seed"): value for name, value in found.items()}


def predictions(contrasts: pd.DataFrame, num_seeds: int) -> dict[str, str]:
    """What became of each prediction: `borne out`, `contradicted`, `undecided` or `not run`.

    Before all ``num_seeds`` planned seeds are whole, all of them are `not run`.
    """
    found = dict.fromkeys(PREDICTIONS, "not run")
    if contrasts.empty:
        return found
    primary = contrasts[contrasts["family"] == PRIMARY].set_index("contrast")
    for name, predicted in PREDICTIONS.items():
        if name in primary.index and primary.loc[name, "num_seeds"] >= num_seeds:
            found[name] = outcome(predicted, primary.loc[name])
    return found


def untaught(contrasts: pd.DataFrame) -> list[str]:
    """Teachers whose students do not beat the untrained one, which is said beside all results."""
    ending = " minus untrained"
    rows = contrasts[contrasts["contrast"].str.endswith(ending) & (contrasts["difference"] <= 0)]
    return [name.removesuffix(ending) for name in rows["contrast"]]


def curve_means(results: WordResults) -> pd.DataFrame:
    """Mean loss and held-out NLL over whole seeds, by arm and tenth of training (Fig. 6)."""
    own = results.curves[results.curves["seed"].isin(whole_seeds(results))]
    return own.drop(columns="seed").groupby(["arm", "tenth"], sort=False).mean().reset_index()


def windows_table(results: WordResults) -> pd.DataFrame:
    """Accuracy of LALP's students by ``window``, then GALP's (Fig. 9)."""
    windows = {"lalp@0": "0", "lalp@1": "1", "lalp@2": "2", "lalp": "4", "lalp@all": "all"}
    table = accuracy_by_arm(results).set_index("arm")
    known = [arm for arm in (*windows, "galp") if arm in table.index]
    rows = table.loc[known, ["accuracy", "low", "high", "num_seeds"]].reset_index()
    rows.insert(0, "window", rows["arm"].map(windows).fillna("GALP"))
    return rows.drop(columns="arm")


def teacher_ranks(results: WordResults) -> pd.DataFrame:
    """Teachers' mean scores beside their students' accuracies, over whole seeds (Table 2)."""
    own = results.means[results.means["seed"].isin(whole_seeds(results))]
    scores = own.pivot_table(index="teacher", columns="score", values="mean")
    accuracies = accuracy_by_arm(results).set_index("arm")[["accuracy"]]
    untrained = accuracies.loc[BEFORE, "accuracy"] if BEFORE in accuracies.index else math.nan
    table = scores.join(accuracies)
    return table.assign(gain=table["accuracy"] - untrained).reset_index()
