"""Step world's analyses by hand-derived values and independent oracles, and its figures."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lalp.paper.world import measure
from lalp.paper.world.problems import WORLD
from lalp.paper.world.study import WorldResults
from lalp.stats import Estimate, holm, p_value
from tests.paper.verdict_cells import NOTEBOOKS

# Accuracies, mean scores and gaps of made-up studies.
MADE = yaml.safe_load((Path(__file__).parent / "data" / "study.yaml").read_text())
FILLERS = set(WORLD["fillers"])
UNIT = {"pool": "p", "family": "registers", "copying": 0.1, "seed": 0}


PROVENANCE = {"profile": "standard", "date": "2026-11-23", "cores": 2, "machine": "x86_64"}
PROVENANCE |= {"hours_since_last_start": 2.5}


def study_tables(
    seeds: int = 5,
    problems: int = 300,
    groups: tuple[str, ...] = ("teachers", "thirds", "rules", "windows"),
    rules: tuple[str, ...] = tuple(MADE["rules"]),
    noise: float = 0.04,
) -> WorldResults:
    """Made-up tables of a study with plausible numbers."""
    rates = {("teachers", name): rate for name, rate in MADE["teachers"].items()}
    for teacher, third in product(MADE["teachers"], MADE["thirds"]):
        rate = max(0.01, MADE["teachers"][teacher] + MADE["thirds"][third])
        rates[f"thirds: {teacher}", third] = rate
    rates |= {("rules", name): MADE["rules"][name] for name in rules}
    for name in rules:
        if name != "random":
            rates["rules", f"random like {name}"] = 0.8 * MADE["rules"][name] + 0.03
    rates |= {("windows", name): rate for name, rate in MADE["windows"].items()}
    rng = np.random.default_rng(3)
    arms, means, gaps, students = [], [], [], []
    for seed in range(seeds):
        unit = UNIT | {"seed": seed}
        students.append(_student(unit, rng))
        arms.append(unit | {"group": "", "arm": "before training", "num_solved": problems // 20})
        arms += [unit | _arm(group, arm, rate, problems, noise, rng)
                 for (group, arm), rate in rates.items()
                 if group.partition(":")[0] in groups]  # fmt: skip
        for split, by_score in MADE["means"].items():
            for score, values in by_score.items():
                shown = zip(MADE["teachers"], values + rng.normal(0, 0.01, 4), strict=True)
                means += [unit | {"teacher": teacher, "score": score, "mean": value, "split": split}
                          for teacher, value in shown]  # fmt: skip
        for teacher, rise in MADE["rises"].items():
            place = np.arange(10)
            curve = rise * np.maximum(0, place - 1.5) / 8 + rng.normal(0, 0.01, 10) * (place > 1)
            gaps += [unit | {"teacher": teacher, "bin": i, "gap": gap}
                     for i, gap in enumerate(curve)]  # fmt: skip
    arms = pd.DataFrame(arms, columns=[*unit, *_arm("", "", 0, 1, 0, rng)])
    tables = (pd.DataFrame(rows) for rows in (students, arms, means, gaps))
    return WorldResults(*tables, provenance=PROVENANCE)


def _student(unit: dict, rng: np.random.Generator) -> dict:
    far = float(np.clip(0.55 + 1.1 * unit["copying"] + rng.normal(0, 0.03), 0, 1))
    row = {key: unit[key] for key in ("family", "copying", "seed")}
    can = {"short": 0.95, "whole": 0.05, "copying_near": min(1.0, far + 0.05), "copying_far": far}
    return row | can | {"accepted": True}


def _arm(
    group: str, arm: str, rate: float, problems: int, noise: float, rng: np.random.Generator
) -> dict:
    rate = float(np.clip(rate + rng.normal(0, noise), 0, 1))
    solved = rng.random(problems) < rate
    loss = 0.36 - 0.2 * rate + rng.normal(0, 0.005) - 0.03 * (arm == "galp")
    return {
        "group": group, "arm": arm, "num_solved": int(solved.sum()), "num_problems": problems,
        "solved": "".join(map(str, solved.astype(int))), "last_loss": loss,
        "share of careful": 0.4 if "galp" in arm else 0.2, "share of fluent leaper": 0.2,
        "share of steady": 0.3, "share of leaper": 0.1,
    }  # fmt: skip


def map_tables(seeds: int = 5, problems: int = 300) -> WorldResults:
    """Made-up tables of a map: LALP gains with scaffolding where the student copies well."""
    rng = np.random.default_rng(5)
    arms, students = [], []
    for family, copying, seed in product(("registers", "paths"), (0.0, 0.3), range(seeds)):
        unit = {"family": family, "copying": copying, "seed": seed}
        students.append(_student(unit, rng))
        for leap, fill in product((0.1, 0.3, 0.6), (0.0, 0.5, 1.0)):
            gain = (copying - 0.1) * fill * 0.8 - 0.03
            rates = {"random": 0.2, "galp": 0.3, "lalp": 0.3 + gain, "lalp sentences": 0.32 + gain,
                     "lalp paragraphs": 0.3}  # fmt: skip
            for arm, rate in rates.items():
                row = _arm("rules", arm, rate, problems, 0.03, rng)
                row = {k: v for k, v in row.items() if not k.startswith("share")}
                fluent = 0.5 + (copying * fill if arm == "galp" else 0)
                name = {"pool": f"leap {leap}, scaffolding {fill}", "share of fluent": fluent}
                arms.append(unit | row | name)
    empty = pd.DataFrame()  # no verdict on the map needs more
    return WorldResults(pd.DataFrame(students), pd.DataFrame(arms), empty, empty, {})


def test_means_over_seeds_have_students_intervals_within_bounds():
    values = [0.1, 0.2, 0.9]
    frame = pd.DataFrame({"k": "a", "seed": range(4), "x": [*values, np.nan]})
    (row,) = measure.over_seeds(frame, ["k"], "x", (0, 1)).to_dict("records")
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert expected.low < 0 and expected.high > 1
    assert (row["x"], row["low"], row["high"]) == pytest.approx((0.4, 0, 1))
    (row,) = measure.over_seeds(frame, ["k"], "x").to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert row["num_seeds"] == 3


def test_empty_tables_give_empty_tables():
    run = study_tables(1, 10, groups=())
    arms, means = run.arms, run.means
    assert measure.third_differences(arms).empty
    assert measure.teacher_ranking(arms, means).empty and measure.ranking_means(arms, means).empty
    assert measure.tau_differences(arms, means, "lalp@1", "galp").empty


def arms_of(solved: dict[str, list[str]]) -> pd.DataFrame:
    """Arms of the rules' comparison by the digits of each seed."""
    return pd.DataFrame([
        UNIT | {"seed": seed, "group": "rules", "arm": arm, "num_solved": digits.count("1"),
                "num_problems": len(digits), "solved": digits, "last_loss": 0.1 * seed}
        for arm, by_seed in solved.items()
        for seed, digits in enumerate(by_seed)
    ])  # fmt: skip


def test_differences_are_paired_by_seed():
    arms = arms_of({"a": ["1100", "1111", "1000", "1"], "b": ["1000", "1110", "0000"]})
    row = measure.arm_differences(arms, [("rules", "a", "b")]).iloc[0]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.25] * 3)
    assert (row["num_seeds"], row["num_above"]) == (3, 3)
    assert row["problems_low"] < 0.25 < row["problems_high"]
    assert measure.arm_differences(arms, [("rules", "a", "c")]).empty
    blind = measure.arm_differences(arms.assign(solved=np.nan), [("rules", "a", "b")]).iloc[0]
    assert np.isnan(blind["problems_low"]) and blind["difference"] == pytest.approx(0.25)


def test_families_of_comparisons_carry_holms_correction():
    table = measure.rule_differences(study_tables(4, 60).arms)
    for against in ("random", "galp"):
        own = table[table["against"] == against]
        p_values = [
            p_value(Estimate(*one))
            for one in own[["difference", "low", "high", "num_seeds"]].values
        ]
        assert own["p_holm"].tolist() == pytest.approx(list(holm(p_values)))
    cells = measure.map_differences(map_tables(3, 20).arms)
    assert (cells["p_holm"] >= 0).all() and len(cells) == 2 * 2 * 9 * 3
    # The map's cells are corrected for one split at a time.
    one = measure.corrected(cells[cells["split"] == "sentences"])
    assert one["p_holm"].tolist() == cells.loc[one.index, "p_holm"].tolist()
    assert measure.corrected(cells.iloc[:0]).empty


def test_the_bootstrap_over_problems_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2, 200).astype(float) for _ in range(2))
    digits = ["".join(map(str, v.astype(int))) for v in (one, other)]
    arms = arms_of({"a": [digits[0]], "b": [digits[1]]})
    row = measure.arm_differences(arms, [("rules", "a", "b")]).iloc[0]
    oracle = stats.bootstrap(
        (one - other,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert row["problems_low"] == pytest.approx(oracle.low, abs=0.02)
    assert row["problems_high"] == pytest.approx(oracle.high, abs=0.02)


def test_the_untrained_student_takes_its_units_number_of_problems():
    table = measure.with_accuracy(study_tables(2, 40).arms).set_index("arm")
    assert table.loc["before training", "accuracy"].tolist() == pytest.approx([2 / 40, 2 / 40])


def test_highest_minus_lowest_third_by_teacher_and_over_teachers():
    arms = arms_of({"highest": ["1110", "1100"], "middle": ["1100", "1100"],
                    "lowest": ["1000", "1000"]})  # fmt: skip
    one = arms.assign(group="thirds: x")
    other = arms.assign(group="thirds: y").replace({"highest": "lowest", "lowest": "highest"})
    table = measure.third_differences(pd.concat([one, other])).set_index("teacher")["difference"]
    assert table.to_dict() == pytest.approx({"x": 0.375, "y": -0.375, "all teachers": 0.0})


@given(st.permutations(range(5)), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_tau_is_scipys_where_no_scores_are_close(order, accuracies):
    scores, values = np.array(order, dtype=float), np.array(accuracies, dtype=float)
    found = measure.kendall_tau(scores, values)
    expected = stats.kendalltau(scores, values).statistic
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "solved", "tau", "right"),
    [
        ((-0.1, -0.2, -0.3), ("1110", "1100", "1000"), 1, 1),
        ((-0.3, -0.2, -0.1), ("1110", "1100", "1000"), -1, 0),
        # Scores closer than a hundredth of a nat are tied.
        ((-0.2, -0.211, -0.5), ("1110", "1100", "1000"), 1, 1),
        ((-0.2, -0.209, -0.5), ("1110", "1100", "1000"), 2 / np.sqrt(2 * 3), 0.5),
        ((-0.2, -0.205, -0.209), ("1110", "1100", "1000"), np.nan, 1 / 3),
        ((-0.1, -0.4), ("00", "00"), np.nan, np.nan),  # nothing to order
    ],
)
def test_ranking_of_teachers(scores, solved, tau, right):
    arms = arms_of({name: [digits] for name, digits in zip("abc", solved, strict=False)})
    means = [UNIT | {"split": "true", "teacher": teacher, "score": "galp", "mean": mean}
             for teacher, mean in zip("abc", scores, strict=False)]  # fmt: skip
    row = measure.teacher_ranking(arms.assign(group="teachers"), pd.DataFrame(means)).iloc[0]
    assert (row["tau"], row["right"]) == pytest.approx((tau, right), nan_ok=True)


def gaps_of(curves: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame([UNIT | {"teacher": teacher, "bin": place, "gap": gap}
                         for teacher, curve in curves.items()
                         for place, gap in enumerate(curve)])  # fmt: skip


def test_rises_and_late_slope_of_the_gap():
    line = [0.02 * i for i in range(10)]
    curves = {"line": line, "step": [0.0] * 5 + [0.5] * 5, "fallen at last": [*line[:9], -1.0]}
    rises = measure.gap_rises(gaps_of(curves))[list(measure.GAP_MEASURES)]
    expected = [[0.18, 0.16, 0.2], [0.5, 0.5, 0], [-1.0, 0.16, 0.2]]
    np.testing.assert_allclose(rises, expected, atol=1e-12)


def test_restating_teachers_minus_the_others():
    curves = {"careful": [0.0] * 9 + [0.4], "fluent": [0.0] * 9 + [0.2], "c": [0.0] * 9 + [0.1]}
    table = measure.restating_differences(gaps_of(curves))
    assert table["difference"].tolist() == pytest.approx([0.2])
    before = measure.restating_differences(gaps_of(curves), "rise_before_end")
    assert before["difference"].tolist() == [0.0]
    assert measure.restating_differences(gaps_of({"a": [0.0, 0.1]})).empty


def test_loss_against_accuracy():
    arms = arms_of({"galp": ["1000"], "lalp": ["1110"], "random": ["1100"]})
    arms["last_loss"] = [0.1, 0.3, 0.2]
    row = measure.loss_agreement(arms).iloc[0]
    assert row["spearman"] == pytest.approx(1)
    assert (row["lowest_loss"], row["most_accurate"], row["same"]) == ("galp", "lalp", False)
    more = measure.arm_differences(arms, [("rules", "lalp", "galp")], "last_loss")
    assert more["difference"].tolist() == pytest.approx([0.2])


def test_copying_is_averaged_over_cells_where_someone_restates():
    cells = []
    for pool, galp in (("leap 0.1, scaffolding 0.0", "1111"), ("leap 0.1, scaffolding 1.0", "1000"),
                       ("leap 0.3, scaffolding 0.5", "0000")):  # fmt: skip
        arms = arms_of({"galp": [galp], "lalp": ["1100"]}).assign(pool=pool)
        cells.append(arms.assign(**{"share of fluent": [0.75, 0.5]}))
    student = {"family": "registers", "copying": 0.1, "seed": 0, "copying_near": 0.9,
               "copying_far": 0.8}  # fmt: skip
    table = measure.copying_table(pd.concat(cells), pd.DataFrame([student]))
    assert table["accuracy"].tolist() == pytest.approx([(-0.25 - 0.5) / 2])
    assert table["share"].tolist() == pytest.approx([0.25])


def test_slopes_on_copying_are_those_of_statistics():
    rng = np.random.default_rng(1)
    x = rng.random(12)
    table = pd.DataFrame({"family": "paths", "copying_far": x, "accuracy": 2 * x - 1,
                          "share": x + rng.normal(0, 1, 12)})  # fmt: skip
    rows = measure.copying_slopes(table).set_index("effect")
    assert rows.at["accuracy", "slope"] == pytest.approx(2)
    (slope, _), covariance = np.polyfit(x, table["share"], 1, cov=True)
    high = slope + 2.228139 * np.sqrt(covariance[0, 0])
    assert rows.loc["share", ["slope", "high"]].tolist() == pytest.approx([slope, high])
    alike = measure.copying_slopes(table.assign(copying_far=0.9))
    assert alike["low"].isna().all()


def test_cells_of_the_map_are_read_from_their_names():
    arms = map_tables(2, 20).arms
    table = measure.map_differences(arms)
    found = table[["leap", "scaffolding", "split"]].drop_duplicates().itertuples(index=False)
    cells = product((0.1, 0.3, 0.6), (0.0, 0.5, 1.0), measure.SPLITS.values())
    assert (len(table), set(map(tuple, found))) == (2 * 2 * 9 * 3, set(cells))
    counts = measure.map_counts(table)
    assert counts[["above", "below", "not resolved"]].to_numpy().sum() == len(table)
    fewer = measure.map_differences(arms[arms["arm"] != "lalp sentences"])
    assert set(fewer["split"]) == {"true steps", "paragraphs"}
    assert measure.map_differences(arms.iloc[:0]).empty


def test_students_and_values_of_a_study_are_counted_and_listed():
    can = {"family": "registers", "copying": 0.1, "short": [0.9, 0.3, 0.6], "whole": 0.2,
           "copying_near": 0.1, "copying_far": 0.0}  # fmt: skip
    students = pd.DataFrame(can | {"accepted": [True, False, True]})
    row = measure.student_table(students).iloc[0]
    assert row[["tried", "accepted", "rejected", "short"]].tolist() == pytest.approx([3, 2, 1, 0.6])
    made = {"date": "2026-11-23", "commit": "abc", "hours_since_last_start": 2.5, "cores": 2}
    made |= {"profile": "standard", "machine": "x86_64"}
    made["values"] = {"seeds": 5, "families": ["registers", "chain"]}
    values = measure.study_values({"long": SimpleNamespace(provenance=made)})["long"]
    assert values.to_dict() == {
        "date": "2026-11-23", "commit": "abc", "hours_since_last_start": "2.5", "cores": "2",
        "seeds": "5", "families": "registers, chain",
    }  # fmt: skip
    run = SimpleNamespace(arms=study_tables(seeds=2).arms, provenance=made)
    assert measure.describe_scale(run) == (
        "committed run of 2026-11-23 (standard profile, 2.5 hours on 2 cores of x86_64): "
        "2 seeds, 300 held-out problems"
    )


def test_means_over_the_map_weigh_students_alike():
    arms = map_tables(3, 60).arms
    found = measure.map_means(arms).set_index(["family", "copying", "split"])["difference"]
    table = measure.map_differences(arms)
    mean = table.groupby(["family", "copying", "split"])["difference"].mean()
    assert found.sort_index().to_dict() == pytest.approx(mean.to_dict())
    by_knob = measure.map_means(arms, ["scaffolding"]).set_index(["scaffolding", "split"])
    assert len(by_knob) == 3 * 3 and set(by_knob["num_seeds"]) == {2 * 2 * 3}
    cells = table.groupby(["scaffolding", "split"])["difference"].mean()
    assert by_knob["difference"].to_dict() == pytest.approx(cells.to_dict())


@pytest.fixture
def drawn() -> dict[str, dict]:
    """All names in the notebook when it saves each figure, made of made-up tables."""
    found = {}

    def save(figure, name, data, profile):
        found[name.removeprefix("world_")] = dict(space) | {"saved": data}

    cells = [c.source for c in nbformat.read(NOTEBOOKS / "08_step_world.ipynb", 4).cells]
    space = {"PROFILE": "smoke", "SEED": 0, "long_map": map_tables(2, 20)}
    exec(next(source for source in cells if "use_style()" in source), space)
    space["figures"] = SimpleNamespace(save_figure=save)
    space |= {"results": study_tables(3, 60), "run": "a run of 3 seeds"}
    for source in cells:
        if "save_figure(" in source:
            exec(source, space)
    yield found
    plt.close("all")


def test_the_notebook_draws_every_figure(drawn):
    numbers = {name: len(space["figure"].axes) for name, space in drawn.items()}
    assert numbers == {"drawing": 8, "thirds": 2, "teachers": 3, "rules": 2, "windows": 2,
                       "gaps": 4, "losses": 3, "copying": 2, "map": 13}  # fmt: skip
    # The run stands above every claim's figure.
    others = ("drawing", "copying", "map")
    drawn_of = [space["figure"] for name, space in drawn.items() if name not in others]
    titles = {figure.legends[0].get_title().get_text() for figure in drawn_of}
    assert titles == {"a run of 3 seeds"}
    # A star marks cells whose interval excludes 0.
    cells, axes = drawn["map"]["saved"], drawn["map"]["figure"].axes
    stars = sum(text.get_text().endswith("*") for axis in axes for text in axis.texts)
    assert stars == ((cells["low"] > 0) | (cells["high"] < 0)).sum() > 0


def test_the_drawing_holds_every_sentence_in_its_colour_and_the_shares(drawn):
    figure, saved = drawn["drawing"]["figure"], drawn["drawing"]["saved"]
    texts, bars = figure.axes[:4], figure.axes[4:]
    for axis, row in zip(texts, saved.itertuples(), strict=True):
        assert axis.get_title(loc="left") == row.teacher
        steps = [text for text in axis.texts if text.get_text().isdigit()]
        words = [text for text in axis.texts if not text.get_text().isdigit()]
        assert len(steps) == row.steps
        shown = " ".join(text.get_text().replace("\xa0", " ") for text in words)
        assert shown == row.solution
        for text in words:
            if text.get_text().startswith(("so far", "check")) or text.get_text() in FILLERS:
                assert text.get_color() != words[-1].get_color()
    for axis, row in zip(bars, saved.itertuples(), strict=True):
        widths = [bar.get_width() for bar in axis.patches]
        assert widths == pytest.approx([row.galp, row.lalp, row.accuracy])


def test_shares_of_teachers_by_hand():
    share = {"share of a": [1.0, 0.0], "share of b": [np.nan, 1.0]}
    rows = [UNIT | {"seed": seed, "num_problems": 4, "num_solved": solved, "group": group,
                    "arm": arm} | {name: values[seed] for name, values in share.items()}
            for seed in (0, 1)
            for group, arm, solved in (("teachers", "a", 1 + seed), ("teachers", "b", 4),
                                       ("rules", "galp", 2), ("rules", "lalp", 2))]  # fmt: skip
    table = measure.teacher_picks(pd.DataFrame(rows)).set_index("teacher")
    assert table.loc["a"].to_dict() == {"galp": 0.5, "lalp": 0.5, "accuracy": 0.375}
    assert table.loc["b"].to_dict() == {"galp": 0.5, "lalp": 0.5, "accuracy": 1.0}


def test_what_stands_beside_what(drawn):
    table = drawn["rules"]["differences"]
    pairs = set(zip(table["arm"], table["against"], strict=True))
    assert ("lalp", "random") in pairs and ("hybrid", "random like hybrid") in pairs
    assert ("lalp-tail", "galp") in pairs and ("galp", "galp") not in pairs
    assert all(a == b.removeprefix("random like ") for a, b in pairs if b.startswith("random like"))
    # GALP beside all windows, and no scores of other splits.
    assert set(drawn["windows"]["taus"]["window"]) == {"galp", *MADE["windows"]}
    assert set(drawn["windows"]["saved"]["window"]) == {"galp", *MADE["windows"]}


def test_composition_and_sample_choice_of_the_map_by_hand():
    solved = {"galp": 50, "lalp": 80, "random like galp": 40, "random like lalp": 75}
    rows = [
        {"pool": f"leap {leap}, scaffolding 1.0", "family": "registers", "copying": 0.0}
        | {"seed": seed, "group": "rules", "arm": arm, "num_problems": 100}
        | {"num_solved": number + (20 * seed + 10 * (leap == 0.6)) * (arm == "lalp")}
        for leap, seed, (arm, number) in product((0.1, 0.6), (0, 1, 2), solved.items())
    ]
    table = measure.composition_effects(pd.DataFrame(rows)).set_index("contrast")
    assert list(table.index) == list(measure.COMPOSITION)
    # LALP minus GALP is 0.30 and 0.40 for seed 0, and 0.2 more for each seed after it.
    gains = np.array([0.35, 0.55, 0.75])
    interval = stats.ttest_1samp(gains, 0).confidence_interval()
    row = table.loc["LALP minus GALP"]
    assert (row["difference"], row["num_seeds"]) == (pytest.approx(0.55), 3)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert table.loc["composition", "difference"] == pytest.approx(0.35)
    assert table.loc["sample choice", "difference"] == pytest.approx(0.2)
    p_values = [p_value(Estimate(r.difference, r.low, r.high, 3)) for r in table.itertuples()]
    assert table["p_holm"].to_numpy() == pytest.approx(holm(p_values), nan_ok=True)
    by_leap = measure.composition_effects(pd.DataFrame(rows), ["leap"]).set_index(
        ["leap", "contrast"]
    )
    assert by_leap.loc[(0.6, "LALP minus GALP"), "difference"] == pytest.approx(0.6)
