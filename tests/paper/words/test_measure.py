"""Contrasts of the word problems by hand-derived values and independent oracles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.paper import contrasts as shared
from lalp.paper.words import measure
from lalp.paper.words.settings import ARMS, CONTRASTS, PREDICTIONS
from lalp.paper.words.study import WordResults
from lalp.stats import holm

EFFECTS = dict.fromkeys(ARMS, 0.4) | {"before training": 0.12, "leaping": 0.02, "lalp": 0.62,
    "galp": 0.4, "random like lalp": 0.66, "random like galp": 0.38}  # fmt: skip


def made_results(seeds: int = 6, problems: int = 80) -> WordResults:
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for arm, effect in EFFECTS.items():
            solved = rng.random(problems) < effect + 0.02 * rng.normal()
            digits = "".join(map(str, solved.astype(int)))
            rows.append({"seed": seed, "arm": arm, "solved": digits})
    arms = pd.DataFrame(rows)
    arms["num_solved"], arms["num_problems"] = arms["solved"].str.count("1"), problems
    chosen = arms[arms["arm"] != "before training"][["seed", "arm"]]
    chosen = chosen.assign(chosen="a", num_tokens=90, terse=7).reset_index(drop=True)
    means = pd.DataFrame([(seed, "terse", "galp", -0.5 - seed) for seed in range(seeds)],
                         columns=["seed", "teacher", "score", "mean"])  # fmt: skip
    curves = pd.DataFrame({"seed": [0, 1], "arm": "galp", "tenth": 1, "loss": [2.0, 4.0]})
    far = pd.DataFrame({"seed": range(seeds), "far": "01" * (problems // 2)})
    return WordResults(chosen, means, pd.DataFrame(), far, curves, arms, {})


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "_RESAMPLES", 50)
        yield


@pytest.fixture(scope="module")
def results() -> WordResults:
    return made_results()


@pytest.fixture(scope="module")
def contrasts(results) -> pd.DataFrame:
    return measure.contrast_table(results)


def hand_results(*rows: tuple[int, str, str], far: str) -> WordResults:
    arms = pd.DataFrame(rows, columns=["seed", "arm", "solved"])
    chosen = arms[arms["arm"] != "before training"][["seed", "arm"]].assign(chosen="a")
    seeds = pd.DataFrame({"seed": sorted(set(arms["seed"])), "far": far})
    return WordResults(chosen, pd.DataFrame(), pd.DataFrame(), seeds, pd.DataFrame(), arms, {})


def test_parts_of_the_problems_by_hand():
    made = hand_results((0, "before training", "0000"), (0, "galp", "0011"), (0, "lalp", "0110"),
                        far="0101")  # fmt: skip
    grids = {part: measure.solved_grid(made, part)[0].tolist() for part in measure.PARTS}
    assert grids == {"all": [[[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]],
                     "near": [[[0, 0], [0, 1], [0, 1]]],
                     "far": [[[0, 0], [0, 1], [1, 0]]]}  # fmt: skip
    row = measure.contrast_table(made).set_index("contrast").loc["LALP minus GALP"]
    assert row["difference"] == 0 and math.isnan(row["low"]) and math.isnan(row["p"])
    table = measure.accuracy_by_arm(made).set_index("arm")
    assert table.loc["galp", ["accuracy", "near", "far"]].tolist() == [0.5, 0.5, 0.5]
    assert measure.predictions(measure.contrast_table(made), 4)["LALP minus GALP"] == "not run"


def test_a_begun_seed_does_not_count(results):
    more = pd.DataFrame({"seed": [6], "arm": ["galp"], "solved": ["1" * 80]})
    begun = replace(
        results,
        arms=pd.concat([results.arms, more]),
        selections=pd.concat([results.selections, results.selections.query("seed == 0").assign(
            seed=6)]),
        seeds=pd.concat([results.seeds, results.seeds.iloc[:1].assign(seed=6)]),
    )  # fmt: skip
    assert measure.whole_seeds(begun) == list(range(6))
    pd.testing.assert_frame_equal(
        measure.contrast_table(begun), measure.contrast_table(results), check_exact=True
    )


def test_the_wider_interval_and_the_larger_p_count(results, contrasts):
    share = results.arms.assign(share=results.arms["num_solved"] / 80)
    wide = share.pivot(index="seed", columns="arm", values="share")
    table = contrasts.set_index("contrast")
    for name, one, other in (("LALP minus GALP", "lalp", "galp"),
                             ("filler minus terse", "filler", "terse")):  # fmt: skip
        test, row = stats.ttest_rel(wide[one], wide[other]), table.loc[name]
        ends = test.confidence_interval()
        assert row["difference"] == pytest.approx((wide[one] - wide[other]).mean())
        assert row["p_seeds"] == pytest.approx(test.pvalue)
        assert row["p"] == max(row["p_seeds"], row["p_model"])
        assert row["low"] <= ends.low + 1e-12 and row["high"] >= ends.high - 1e-12
    total = table.loc["composition", "difference"] + table.loc["sample choice", "difference"]
    assert total == pytest.approx(table.loc["LALP minus GALP", "difference"])
    for _, own in contrasts.groupby("family"):
        assert own["p_holm"].to_numpy() == pytest.approx(holm(own["p"].tolist()))
    assert len(contrasts) == sum(map(len, CONTRASTS.values()))


def test_the_model_is_least_squares_with_a_level_for_each_problem():
    """In a complete design the random intercepts of seeds and problems fall out of contrasts."""
    rng = np.random.default_rng(3)
    grid = rng.integers(2, size=(3, 3, 5)).astype(float)
    seeds, arms, problems = grid.shape
    design, values = [], []
    for s in range(seeds):
        for a in range(arms):
            for p in range(problems):
                row = np.zeros(seeds * problems + arms - 1)
                row[s * problems + p] = 1
                if a:
                    row[seeds * problems + a - 1] = 1
                design.append(row)
                values.append(grid[s, a, p])
    matrix, y = np.array(design), np.array(values)
    solution, residual, *_ = np.linalg.lstsq(matrix, y, rcond=None)
    freedom = len(y) - matrix.shape[1]
    covariance = residual[0] / freedom * np.linalg.inv(matrix.T @ matrix)
    weights = np.zeros(matrix.shape[1])
    weights[-2:] = -1, 1
    value, error = solution @ weights, math.sqrt(weights @ covariance @ weights)
    found, p = measure.model_estimate(grid, ["x", "y", "z"], {"z": 1, "y": -1})
    assert found.value == pytest.approx(value)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert p == pytest.approx(2 * stats.t.sf(abs(value) / error, freedom))


@pytest.mark.parametrize(
    ("predicted", "low", "high", "p", "expected"),
    [
        ("above", 0.1, 0.2, 0.01, "borne out"),
        ("above", 0.1, 0.2, 0.06, "undecided"),
        ("above", -0.2, -0.1, 0.01, "contradicted"),
        ("above", -0.1, 0.1, 0.9, "undecided"),
        ("at most", 0.1, 0.2, 0.01, "contradicted"),
        ("at most", 0.1, 0.2, 0.06, "undecided"),
        ("at most", -0.2, 0.0, 0.06, "borne out"),
        ("at most", -0.1, 0.1, 0.9, "undecided"),
        ("above", math.nan, math.nan, math.nan, "undecided"),
    ],
)
def test_what_becomes_of_a_prediction(predicted, low, high, p, expected):
    assert shared.outcome(predicted, pd.Series({"low": low, "high": high, "p_holm": p})) == expected


def test_what_the_tables_were_made_to_hold_is_found(results, contrasts):
    found = measure.predictions(contrasts, 6)
    assert found["LALP minus GALP"] == found["composition"] == "borne out"
    assert set(measure.predictions(contrasts, 8).values()) == {"not run"}
    assert measure.untaught(contrasts) == ["leaping"]
    assert measure.predictions(pd.DataFrame(), 4) == dict.fromkeys(PREDICTIONS, "not run")
    assert measure.windows_table(results)["window"].tolist() == ["0", "1", "2", "4", "all", "GALP"]
    ranks = measure.teacher_ranks(results).iloc[0]
    assert ranks["galp"] == -3.0 and ranks["gain"] == pytest.approx(0.28, abs=0.05)
    assert measure.curve_means(results)["loss"].tolist() == [3.0]
    gap = measure.far_minus_near(results).set_index("contrast")
    (near, arms), (far, _) = (measure.solved_grid(results, part) for part in ("near", "far"))
    lalp, galp = arms.index("lalp"), arms.index("galp")
    expected = (far[:, lalp] - far[:, galp]).mean() - (near[:, lalp] - near[:, galp]).mean()
    assert gap.loc["LALP minus GALP", "difference"] == pytest.approx(expected)
    assert set(measure.variances(results)) == {"seed", "problem", "arm by seed", "residual"}
    assert measure.accuracy_by_arm(results)["num_tokens"].count() == len(ARMS) - 1
