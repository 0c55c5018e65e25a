"""What the rules of the long traces ask for: pairs that turn, distances, choices that move."""

import numpy as np
import pandas as pd
import pytest

from lalp.paper.traces import measure
from lalp.paper.traces.plan import traces_profile
from lalp.paper.traces.pool import MAIN_TEACHERS, SIMILAR_LENGTH
from lalp.stats import Estimate

UP = dict(zip(MAIN_TEACHERS, (-1.0, -2.0, -3.0, -4.0), strict=True))
DOWN = dict(zip(MAIN_TEACHERS, (-4.0, -3.0, -2.0, -1.0), strict=True))
ONE_TURN = dict(zip(MAIN_TEACHERS, (-1.0, -2.0, -4.0, -3.0), strict=True))


def made(
    galp: dict[str, float],
    lalp: dict[str, float],
    problems: int = 12,
    *,
    noise: float = 0.1,
    data: str = "gsm8k",
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of some problems around given means, with noise that is each response's own."""
    generator = np.random.default_rng(seed)
    rows = [(f"{data}/{i}", f"{data}/{i}/{t}", t) for i in range(problems) for t in galp]
    frame = pd.DataFrame(rows, columns=["prompt_id", "response_id", "teacher"])
    scores = {
        name: frame["teacher"].map(means) + noise * generator.normal(size=len(frame))
        for name, means in (("galp", galp), ("lalp@4", lalp))
    }
    return frame.assign(correct=True, num_tokens=10, num_steps=2, reason=None, **scores)


def test_data_sets_come_with_both_together_and_without_the_controls():
    math = made(UP, UP, 2, data="math")
    other = math.iloc[:1].assign(teacher="LIMO-32B", response_id="x")
    frames = dict(measure.by_data({"gsm8k": made(UP, UP, 3), "math": pd.concat([math, other])}))
    assert {name: len(frame) for name, frame in frames.items()} == {
        "gsm8k": 12,
        "math": 8,
        "pooled": 20,
    }
    assert list(dict(measure.by_data({"gsm8k": made(UP, UP, 3)}))) == ["gsm8k"]


def test_a_pair_turns_if_both_scores_resolve_it_in_opposite_directions():
    one = measure.compare_pairs(made(UP, ONE_TURN), "galp", "lalp@4")
    assert one.turned == ("s1.1-32B over R1-Distill-Qwen-32B",)
    assert (one.kept, one.num_pairs, one.all_resolved) == (5, 6, True)
    assert str(one) == "1 of 6 pairs turn, 5 stay (s1.1-32B over R1-Distill-Qwen-32B)"
    all_ = measure.compare_pairs(made(UP, DOWN), "galp", "lalp@4")
    assert (len(all_.turned), all_.kept) == (6, 0)
    unsure = measure.compare_pairs(made(UP, DOWN, noise=20), "galp", "lalp@4")
    assert not unsure.turned and not unsure.all_resolved
    other = measure.compare_pairs(made(UP, UP), "galp", "galp", made(DOWN, UP))
    assert len(other.turned) == 6


@pytest.mark.parametrize(
    ("lalp", "noise", "expected"),
    [(ONE_TURN, 0.1, "holds"), (UP, 0.1, "does not hold"), (ONE_TURN, 20, "not resolved")],
)
def test_orders_differ_if_the_spacing_does_and_a_pair_turns(lalp, noise, expected):
    frames = {name: made(UP, lalp, noise=noise, data=name) for name in ("gsm8k", "math")}
    table = measure.order_table(frames, "lalp@4").set_index("data")
    assert table["verdict"].tolist() == [expected] * 2
    assert (table["p_holm"] >= table["p"]).all()
    assert table.loc["math", "num_problems"] == 12
    if noise < 1:
        assert table.loc["gsm8k", "galp"] == " > ".join(MAIN_TEACHERS)


def test_a_wider_spacing_alone_is_no_other_order():
    wide = {teacher: 2 * mean for teacher, mean in UP.items()}
    table = measure.order_table({"gsm8k": made(UP, wide)}, "lalp@4")
    assert table["p"].item() < 1e-6
    assert table["verdict"].item() == "does not hold"


def test_the_level_is_the_mean_over_problems_of_the_mean_over_responses():
    scores = made(UP, {t: v - 0.5 for t, v in UP.items()}, 4, noise=0)
    level = measure.level_interval(scores, "lalp@4", 100, 0)
    assert (level.value, level.num_units) == (pytest.approx(-0.5), 4)
    assert level.sign == -1


def test_distances_to_galp_by_hand():
    scores = made(UP, UP, 5, noise=0)
    shift = scores["teacher"].map(dict(zip(MAIN_TEACHERS, (2.0, -2.0, 2.0, -2.0), strict=True)))
    # The level of a score does not count, its spacing does.
    columns = {"lalp@5%": 9 + shift, "lalp@50%": shift / 2, "lalp@75%": shift / 4, "lalp@100%": 0.0}
    scores = scores.assign(**{name: scores["galp"] + values for name, values in columns.items()})
    each, shrinks = measure.spacing_distances(scores, list(columns), num_resamples=20)
    assert [one.value for one in each] == pytest.approx([2, 1, 0.5, 0])
    assert shrinks.value == pytest.approx(2 - 0.5)


def test_choices_that_move_by_hand():
    frames = {"gsm8k": made(UP, DOWN), "math": made(UP, UP, data="math")}
    table = measure.moved_table(frames, "lalp@4", 200, 0).set_index("data")
    assert [one.value for one in table["moved"]] == [100, 0]
    assert table["verdict"].tolist() == ["holds", "does not hold"]
    # Choices that differ from problem to problem, but not in taste.
    even = made(UP, UP, 40, noise=30)
    said = measure.moved_table({"gsm8k": even}, "lalp@4", 200, 0)
    assert said["verdict"].item() == "not resolved"
    assert said["moved"].item().low < said["moved"].item().value < said["moved"].item().high


def test_the_first_teacher_must_be_resolved_from_each_other_one():
    assert measure.first_is_resolved(made(UP, UP), "galp")
    # The last two tie, which does not matter.
    tied = UP | {MAIN_TEACHERS[3]: -3.0}
    assert measure.first_is_resolved(made(tied, tied), "galp")
    first = UP | {MAIN_TEACHERS[1]: -1.0}
    assert not measure.first_is_resolved(made(first, first), "galp")
    assert MAIN_TEACHERS[0] in measure.closest_pair(made(first, first), "galp")


def test_other_steps_turn_pairs_or_keep_them():
    frame = made(UP, UP)
    steps = {"s": frame["galp"], "p": frame["lalp@4"], "t": made(ONE_TURN, UP)["galp"]}
    frame = frame.assign(**{f"{name}:lalp@all": values for name, values in steps.items()})
    turns = measure.splitter_turns(frame, ["s", "p", "t"], "all")
    assert {name: len(one.turned) for name, one in turns.items()} == {"p": 0, "t": 1}
    assert measure.steps_verdict(turns) == "does not hold"
    assert measure.steps_verdict({"p": turns["p"]}) == "holds"


def test_what_makes_a_problem_hard_is_taken_out():
    scores = made(UP, UP, 3, noise=0)
    hard = scores["prompt_id"].map({"gsm8k/0": 0.0, "gsm8k/1": -5.0, "gsm8k/2": 3.0})
    centered = measure.around_problems(scores.assign(galp=scores["galp"] + hard), ["galp"])
    assert centered["galp"].tolist() == pytest.approx([1.5, 0.5, -0.5, -1.5] * 3)
    assert centered["lalp@4"].equals(scores["lalp@4"])


def test_other_steps_under_the_main_window_stand_beside_those_under_the_whole_prefix(monkeypatch):
    main, other = made(UP, UP, 3), made(UP, DOWN, 2, seed=1)
    parts = {"gsm8k": main, "splitter_paragraphs": other, "splitter_32t": other}
    monkeypatch.setattr(measure, "committed_scores", parts.get)
    frame = measure.with_main_window(main[["prompt_id", "response_id"]], traces_profile())
    few = main["prompt_id"] != "gsm8k/2"  # the splitters' problems
    assert frame.loc[few, "sentences:lalp@4"].tolist() == main.loc[few, "lalp@4"].tolist()
    assert frame.loc[few, "32t:lalp@4"].tolist() == other["lalp@4"].tolist()
    assert frame.loc[~few, ["sentences:lalp@4", "paragraphs:lalp@4"]].isna().all(axis=None)


def test_slopes_hold_for_every_teacher_or_fail_for_one():
    up, flat, down = Estimate(1, 0.5, 2), Estimate(1, -1, 2), Estimate(-1, -2, -0.5)
    assert measure.slopes_verdict([up, up]) == "holds"
    assert measure.slopes_verdict([up, flat]) == "not resolved"
    assert measure.slopes_verdict([up, down]) == "does not hold"


def test_the_pooled_verdict_counts_unless_the_data_sets_contradict_each_other():
    both = {"gsm8k": "not resolved", "math": "holds"}
    assert measure.of_claim(both | {"pooled": "holds"}) == "holds"
    against = {"gsm8k": "does not hold", "math": "holds", "pooled": "holds"}
    assert measure.of_claim(against) == "not resolved"


@pytest.mark.parametrize(
    ("verdict", "controls", "expected"),
    [
        ("holds", {"similar length": "holds", "cut": "holds", "unmarked": "does not hold"}, ""),
        (
            "holds",
            {"similar length": "holds", "cut": "does not hold"},
            "may be due to length (cut to equal length)",
        ),
        ("holds", {"cut": "not resolved"}, "not shown beyond length (cut to equal length)"),
        ("does not hold", {"cut": "holds"}, "under cut to equal length: holds"),
        ("does not hold", {"cut": "does not hold"}, ""),
        (
            "not resolved",
            {"cut": "holds", "unmarked": "not resolved"},
            "under cut to equal length: holds",
        ),
    ],
)
def test_controls_of_length_take_a_verdict_back(verdict, controls, expected):
    said, remark = measure.with_controls(verdict, controls)
    assert remark == expected
    assert said == ("not resolved" if "may be" in expected else verdict)


def test_teachers_of_similar_length():
    kept = measure.similar_length(made(UP, UP, 2))
    assert set(kept["teacher"]) == set(SIMILAR_LENGTH)


def test_two_students_by_hand():
    second = made(DOWN, UP, 4, noise=0)
    table = measure.student_table(
        made(UP, UP), second, ["galp", "lalp@4"], num_resamples=20, seed=0
    )
    rows = table.set_index("score")
    assert rows.loc["galp", "second: order"] == " > ".join(reversed(MAIN_TEACHERS))
    assert rows.loc["galp", "second: family gap"].value == pytest.approx(-2 + 4)
    assert rows.loc["lalp@4", "second: family gap"].value == pytest.approx(-3 + 1)
    assert rows.loc["galp", "first: family gap"].num_units == 4
    for score in ("galp", "lalp@4"):
        first, second, difference = (
            rows.loc[score, f"{name}: family gap"].value
            for name in ("first", "second", "second minus first")
        )
        assert difference == pytest.approx(second - first)
    assert len(rows.loc["galp", "turns"].turned) == 6
