"""Contrasts of `registers-reach` by hand-derived values and independent oracles."""

from __future__ import annotations

import math
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.paper.world.reach import measure
from lalp.paper.world.reach.plots import plot_reach
from lalp.paper.world.reach.settings import ARMS, BEFORE, CONTRASTS, TABLE
from lalp.paper.world.reach.study import ReachResults
from lalp.stats import holm

EFFECTS = {BEFORE: 0.1, "steady": 0.7, "half careful": 0.6, "careful": 0.4, "random": 0.5,
           "galp": 0.5, "lalp": 0.7, "lalp@4": 0.6, "random like galp": 0.45,
           "random like lalp": 0.68, "lalp in galp's mix": 0.5,
           "galp in lalp's mix": 0.7}  # fmt: skip


def made_results(students: int = 12, problems: int = 60, seed: int = 0) -> ReachResults:
    """At reach 1 LALP is better, at reach 4 GALP: the two change places."""
    rng, rows, tried = np.random.default_rng(seed), [], []
    for reach, number in product((1, 4), range(students)):
        tried.append({"reach": reach, "seed": number, "short": 1.0, "whole": 0.1, "accepted": True})
        shift = 0.05 * rng.normal(size=len(EFFECTS))
        for place, (arm, effect) in enumerate(EFFECTS.items()):
            if reach == 4:
                effect = {"galp": 0.7, "lalp": 0.5}.get(arm, effect)
            solved = rng.random(problems) < np.clip(effect + shift[place], 0, 1)
            row = {"reach": reach, "seed": number, "arm": arm, "num_solved": int(solved.sum())}
            row |= {"num_problems": problems, "solved": "".join(map(str, solved.astype(int)))}
            if arm != BEFORE:
                row |= {"num_examples": 9, "num_tokens": 90, "galp": -1.0, "lalp@1": -2.0}
                row |= {"lalp@4": -1.5, "share of steady": 0.75, "share of careful": 0.25}
            rows.append(row)
    means = pd.DataFrame({"reach": [1], "seed": [0], "teacher": ["steady"], "score": ["galp"],
                          "mean": [-0.5]})  # fmt: skip
    return ReachResults(pd.DataFrame(tried), pd.DataFrame(rows), means, {})


@pytest.fixture(scope="module")
def results() -> ReachResults:
    return made_results()


@pytest.fixture(scope="module")
def contrasts(results) -> pd.DataFrame:
    return measure.contrast_table(results)


def test_the_grid_holds_every_digit(results):
    grid, arms = measure.solved_grid(results, 4)
    assert grid.shape == (12, 12, 60) and arms == list(EFFECTS)
    row = results.arms.query("reach == 4 and seed == 7 and arm == 'lalp'").iloc[0]
    assert "".join(map(str, grid[7, arms.index("lalp")].astype(int))) == row["solved"]


def test_contrasts_are_paired_t_tests_over_students(results, contrasts):
    share = results.arms.assign(share=results.arms["num_solved"] / results.arms["num_problems"])
    for reach in (1, 4):
        wide = share[share["reach"] == reach].pivot(index="seed", columns="arm", values="share")
        table = contrasts[contrasts["reach"] == reach].set_index("contrast")
        for name, one, other in (("LALP minus GALP", "lalp", "galp"),
                                 ("composition", "random like lalp", "random like galp"),
                                 ("careful minus steady", "careful", "steady")):  # fmt: skip
            test = stats.ttest_rel(wide[one], wide[other])
            interval = test.confidence_interval()
            row = table.loc[name]
            assert row["difference"] == pytest.approx((wide[one] - wide[other]).mean())
            assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
            assert row["p"] == pytest.approx(test.pvalue)
            assert row["num_above"] == (wide[one] > wide[other]).sum()


def test_composition_and_sample_choice_are_the_whole(contrasts):
    wide = contrasts.pivot(index="reach", columns="contrast", values="difference")
    total = wide["composition"] + wide["sample choice"]
    assert wide["LALP minus GALP"].to_numpy() == pytest.approx(total.to_numpy())


def test_holm_is_over_a_family_at_one_reach(contrasts):
    for _, own in contrasts.groupby(["reach", "family"]):
        assert own["p_holm"].to_numpy() == pytest.approx(holm(own["p"].tolist()))
    primary = contrasts[contrasts["family"] == "primary"]
    assert primary.groupby("reach").size().tolist() == [3, 3]


def test_every_contrast_has_its_power(contrasts):
    row = contrasts.iloc[0]
    test = stats.nct(11, measure.PLANNED / row["spread"] * math.sqrt(12))
    critical = stats.t.isf(0.05 / 3 / 2, 11)
    assert row["power"] == pytest.approx(test.sf(critical) + test.cdf(-critical))
    far = stats.nct(11, row["detectable"] / row["spread"] * math.sqrt(12))
    assert far.sf(critical) + far.cdf(-critical) == pytest.approx(0.8)
    assert (contrasts["num_students"] == 12).all()


def test_intervals_that_know_of_students_are_wider_than_those_that_do_not(contrasts):
    half = (contrasts["high"] - contrasts["low"]) / 2 / stats.t.ppf(0.975, 11)
    assert (contrasts["intercepts_error"] < half).mean() > 0.8
    inside = contrasts["bootstrap_low"].lt(contrasts["difference"])
    assert (inside & contrasts["bootstrap_high"].gt(contrasts["difference"])).all()


def test_the_difference_between_reaches_is_welchs(results):
    found = measure.reach_difference(results)
    share = results.arms.assign(share=results.arms["num_solved"] / results.arms["num_problems"])
    gaps = []
    for reach in (1, 4):
        wide = share[share["reach"] == reach].pivot(index="seed", columns="arm", values="share")
        gaps.append(wide["lalp"] - wide["galp"])
    interval = stats.ttest_ind(*gaps, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(gaps[0].mean() - gaps[1].mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    one = ReachResults(results.students, results.arms.query("reach == 1"), results.means, {})
    assert math.isnan(measure.reach_difference(one).value)


def row(low: float, high: float, p: float = 0.01) -> dict[str, object]:
    return {"contrast": "LALP minus GALP", "low": low, "high": high, "p_holm": p}


@pytest.mark.parametrize(
    ("one", "four", "expected"),
    [
        (row(0.1, 0.2), row(-0.2, -0.1), ("borne out", "borne out")),
        (row(0.1, 0.2, 0.06), row(0.1, 0.2, 0.06), ("undecided", "undecided")),
        (row(-0.2, -0.1), row(0.1, 0.2), ("contradicted", "contradicted")),
        (row(-0.1, 0.1, 0.9), row(-0.1, 0.1, 0.9), ("undecided", "undecided")),
        (row(0.0, 0.1, 0.06), row(-0.1, 0.0, 0.06), ("undecided", "borne out")),
    ],
)
def test_what_becomes_of_a_prediction(one, four, expected):
    table = pd.DataFrame([{"reach": 1} | one, {"reach": 4} | four])
    assert measure.predictions(table) == dict(zip((1, 4), expected, strict=True))


def test_what_the_tables_were_made_to_hold_is_found(results, contrasts):
    assert measure.predictions(contrasts) == {1: "borne out", 4: "borne out"}
    assert measure.reach_difference(results).low > 0
    assert measure.teachers_teach(contrasts)["teaches"].all()
    table = measure.mix_table(results).set_index(["reach", "mix"])
    accuracy = measure.accuracy_by_arm(results).set_index(["reach", "arm"])["accuracy"]
    assert table.loc[(1, "GALP's mix"), "best by GALP"] == accuracy[1, "galp"]
    assert table.loc[(1, "LALP's mix"), "best by GALP"] == accuracy[1, "galp in lalp's mix"]
    assert table.loc[(4, "LALP's mix"), "random"] == accuracy[4, "random like lalp"]
    shares = measure.selection_shares(results)
    assert len(shares) == 2 * len(ARMS) and (shares["share of steady"] == 0.75).all()
    assert measure.student_table(results)["accepted"].tolist() == [12, 12]
    assert (measure.variance_table(results)["residual"] > 0).all()
    assert len(TABLE) == 6 and set(TABLE) <= set(ARMS)
    assert set(CONTRASTS) == {"primary", "ground truth", "secondary"}


def test_one_student_has_no_interval():
    table = measure.contrast_table(made_results(1, 10))
    assert table["difference"].notna().all()
    assert table[["low", "high", "p", "power", "bootstrap_low"]].isna().all(axis=None)
    assert measure.predictions(table) == {1: "undecided", 4: "undecided"}


def test_the_figure_shows_both_reaches(results, contrasts):
    figure = plot_reach(contrasts, measure.accuracy_by_arm(results), "made up")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()][1:4] == list(CONTRASTS["primary"])
    lines = {line.get_label(): line for line in left.get_lines()}
    shown = contrasts.query("contrast == 'LALP minus GALP' and reach == 4")["difference"].item()
    assert shown in lines["reach 4"].get_xdata()
    assert len(right.get_lines()[0].get_xdata()) == 8
    plt.close(figure)
