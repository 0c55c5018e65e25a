"""Results of a study of `registers-reach`: contrasts by reach, and the two predictions.

The unit is the student, and each has its own problems. Every arm of a student answers all of them,
so the design is complete. In the linear mixed model ``solved ~ arm + (1 + arm | student) + (1 |
problem)`` a contrast's estimate is then the mean over students of their own contrasts, and its test
is Student's t over students. Neither needs an optimizer. The model without the arm by student takes
300 problems of one student for 300 students; its error is given for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.paper.contrasts import (
    contrast_values,
    intercepts_error,
    outcome,
    spread_columns,
    variance_components,
)
from lalp.paper.world.reach.settings import CONTRASTS, PREREGISTERED, PRIMARY, TABLE
from lalp.paper.world.reach.study import ReachResults
from lalp.stats import Estimate, holm, mean_of_means_interval, p_value, t_interval

PLANNED: float = PREREGISTERED["planned"]
"""The difference for which power is computed."""
_LEVEL, _RESAMPLES = 0.05, 2000
# Names of the table's cells: whose teacher mix, and which samples from it.
MIXES, SAMPLES = ("GALP's mix", "LALP's mix"), ("random", "best by GALP", "best by LALP")


def accuracy_by_arm(results: ReachResults) -> pd.DataFrame:
    """Mean accuracy over students by ``reach`` and ``arm``, with its interval (cut at 0 and 1)."""
    rows = []
    for (reach, arm), own in results.arms.groupby(["reach", "arm"], sort=False):
        mean = t_interval(own["num_solved"] / own["num_problems"])
        ends = np.clip((mean.low, mean.high), 0, 1)
        rows.append((reach, arm, mean.value, *ends, mean.num_units))
    columns = ["reach", "arm", "accuracy", "low", "high", "num_students"]
    return pd.DataFrame(rows, columns=columns)


def mix_table(results: ReachResults) -> pd.DataFrame:
    """Mean accuracy by ``reach`` and ``mix``, a column for each choice of samples."""
    galp, random_galp, lalp_galp, lalp, random_lalp, galp_lalp = TABLE
    cells = {
        MIXES[0]: dict(zip(SAMPLES, (random_galp, galp, lalp_galp), strict=True)),
        MIXES[1]: dict(zip(SAMPLES, (random_lalp, galp_lalp, lalp), strict=True)),
    }
    means = accuracy_by_arm(results).set_index(["reach", "arm"])["accuracy"]
    rows = [
        {"reach": reach, "mix": mix} | {name: means[reach, arm] for name, arm in arms.items()}
        for reach in means.index.unique("reach")
        for mix, arms in cells.items()
    ]
    return pd.DataFrame(rows)


def selection_shares(results: ReachResults) -> pd.DataFrame:
    """Teachers' mean shares of each arm's selection, with its tokens and scores, by ``reach``."""
    trained = results.arms[results.arms["num_examples"].notna()]
    shares = [column for column in trained if column.startswith("share of ")]
    by = trained.groupby(["reach", "arm"], sort=False)
    return by[[*shares, "num_tokens", "galp", "lalp@1", "lalp@4"]].mean().reset_index()


# --- the model -------------------------------------------------------------------------------


def solved_grid(
    results: ReachResults, reach: int
) -> tuple[Float[np.ndarray, "students arms problems"], list[str]]:
    """Whether each arm of each student solved each of its problems (1 or 0), and arms' names."""
    own = results.arms[results.arms["reach"] == reach]
    texts = own.pivot(index="seed", columns="arm", values="solved")
    arms = list(own["arm"].unique())
    digits = [[list(map(int, text)) for text in row] for row in texts[arms].to_numpy()]
    return np.array(digits, dtype=float), arms


# --- contrasts -------------------------------------------------------------------------------


def contrast_table(results: ReachResults) -> pd.DataFrame:
    """Every preregistered contrast, by ``reach`` and ``family``.

    ``difference`` with ``low`` and ``high`` (Student's t over students), ``p``, and ``p_holm`` by
    Holm's correction over its family at its reach; ``num_students``, and how many are above 0
    (``num_above``); ``spread``, the standard deviation over students; ``power`` to find `PLANNED`,
    and the effect ``detectable`` with 80 %, both at the family's strictest level; the ends of the
    two-level bootstrap; ``intercepts_error``, the standard error without the arm by student.
    """
    rows = []
    for reach in results.arms["reach"].unique():
        grid, arms = solved_grid(results, reach)
        for family, contrasts in CONTRASTS.items():
            level = _LEVEL / len(contrasts)
            for name, weights in contrasts.items():
                row = {"reach": reach, "family": family, "contrast": name}
                rows.append(row | _contrast_row(grid, arms, weights, level))
    table = pd.DataFrame(rows)
    if len(table):
        families = table.groupby(["reach", "family"], sort=False)["p"]
        table.insert(table.columns.get_loc("p") + 1, "p_holm", families.transform(holm))
    return table


def _contrast_row(
    grid: Float[np.ndarray, "students arms problems"],
    arms: list[str],
    weights: Mapping[str, float],
    level: float,
) -> dict[str, float]:
    values = contrast_values(grid, arms, weights)
    mean = t_interval(values.mean(axis=1))
    return {
        "difference": mean.value,
        "low": mean.low,
        "high": mean.high,
        "p": p_value(mean),
        "num_students": mean.num_units,
        **spread_columns(values, PLANNED, level),
        "intercepts_error": intercepts_error(grid, arms, weights),
    }


def reach_difference(results: ReachResults, contrast: str = "LALP minus GALP") -> Estimate:
    """A primary contrast at the least reach minus that at the greatest, with Welch's interval."""
    reaches = sorted(results.arms["reach"].unique())
    if len(reaches) < 2:
        return Estimate(np.nan, np.nan, np.nan)
    means = []
    for reach in (reaches[0], reaches[-1]):
        grid, arms = solved_grid(results, reach)
        values = contrast_values(grid, arms, CONTRASTS[PRIMARY][contrast])
        means.append(values.mean(axis=1))
    # The mean of one and the negated other is half their difference.
    ends = mean_of_means_interval([means[0], -means[1]], _RESAMPLES, 0)
    low, high = (2 * end for end in ends)
    difference = float(means[0].mean() - means[1].mean())
    return Estimate(difference, low, high, min(map(len, means)))


def variance_table(results: ReachResults) -> pd.DataFrame:
    """`variance_components` by ``reach``, over the trained arms and the untrained student."""
    rows = [
        {"reach": reach} | variance_components(solved_grid(results, reach)[0])
        for reach in results.arms["reach"].unique()
    ]
    return pd.DataFrame(rows)


def predictions(contrasts: pd.DataFrame) -> dict[int, str]:
    """The outcome of the prediction for each reach: `borne out`, `contradicted` or `undecided`."""
    primary = contrasts[contrasts["contrast"] == "LALP minus GALP"].set_index("reach")
    predicted = {1: "above"}
    return {
        int(reach): outcome(predicted.get(int(reach), "at most"), row)
        for reach, row in primary.iterrows()
    }


def teachers_teach(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Each teacher's gain over the untrained student, and whether the gate of teachers holds."""
    rows = contrasts[contrasts["contrast"].str.endswith("minus untrained")]
    return rows[["reach", "contrast", "difference", "low", "high"]].assign(
        teaches=rows["difference"] > 0
    )


def student_table(results: ReachResults) -> pd.DataFrame:
    """Students tried and accepted by reach, and their skills before fine-tuning."""
    groups = results.students.groupby("reach", sort=False)
    table = groups["accepted"].agg(tried="size", accepted="sum").astype(int)
    return table.join(groups[["short", "whole"]].mean()).reset_index()
