"""The verdicts of notebooks 12 and 13 follow the tables that they read."""

import pandas as pd
import pytest

from lalp.paper.traces import measure
from lalp.paper.traces.plan import traces_profile
from lalp.paper.traces.pool import MAIN_TEACHERS
from tests.paper.traces.test_measure import DOWN, ONE_TURN, UP, made
from tests.paper.verdict_cells import run_verdict_cells

FEW = {"num_resamples": 50, "seed": 0}


def sweep_of(scores: pd.DataFrame) -> pd.DataFrame:
    """A sweep from the scores under the main window, at 5 %, to GALP's own, at 100 %."""
    shares = [int(window.removesuffix("%")) for window in traces_profile().sweep_windows]
    far = {share: (100 - share) / 95 for share in shares}
    gap = scores["lalp@4"] - scores["galp"]
    return scores.assign(**{f"lalp@{s}%": scores["galp"] + part * gap for s, part in far.items()})


def said_of(galp: dict[str, float], lalp: dict[str, float], noise: float = 0.1) -> dict[str, str]:
    """What notebook 12 says of scores around given means, by the first words of a claim."""
    parts = {
        n: made(galp, lalp, noise=noise, data=n, seed=i) for i, n in enumerate(["gsm8k", "math"])
    }
    frames = dict(measure.by_data(parts))
    alike = {name: measure.similar_length(own) for name, own in frames.items()}
    cases = {"all four": frames, "similar length": alike, "cut": frames, "unmarked": frames}
    columns = {f"{s}:lalp@{w}": c for s in "sp" for w, c in (("all", "galp"), ("4", "lalp@4"))}
    steps = {
        name: own.assign(**{column: own[score] for column, score in columns.items()})
        for name, own in frames.items()
    }
    sweep = sweep_of(parts["gsm8k"])
    said = run_verdict_cells(
        "12_long_traces",
        options=FEW,
        frames=frames,
        pooled=frames["pooled"].assign(**{"lalp@all": frames["pooled"]["galp"]}),
        orders={case: measure.order_table(own, "lalp@4") for case, own in cases.items()},
        moves={case: measure.moved_table(own, "lalp@4", **FEW) for case, own in cases.items()},
        resplits=steps,
        names=["s", "p"],
        sweep=sweep,
        shares=[name for name in sweep if name.endswith("%")],
    )
    assert all(verdict.needs for verdict in said if verdict.verdict == "not resolved")
    return {verdict.claim.partition(" (")[0]: verdict.verdict for verdict in said}


ORDER = "LALP and GALP order the teachers differently on long traces"
OTHER = "LALP takes its responses from other teachers than GALP, on long traces"
LEVEL = "LALP values lie above GALP values on long traces"
FIRST = "A quarter of the problems finds the best teacher, on long traces"
ENOUGH = "A quarter of the problems gives the order of all, on long traces"
STEPS = "The weighting of steps alone"
GROWING = "As the window grows, the order of teachers under LALP turns into GALP's, on long traces"
MAIN_STEPS = (
    "The teacher ranking under LALP at the main window survives another step splitter, on long "
    "traces"
)


def test_scores_that_turn_every_teacher():
    said = said_of(UP, DOWN)
    kept = (ORDER, OTHER, FIRST, ENOUGH, STEPS, GROWING, MAIN_STEPS)
    assert [said[name] for name in kept] == ["holds"] * 7
    assert said[LEVEL] == "not resolved"


def test_a_pair_of_other_length_that_turns_may_be_due_to_length():
    assert said_of(UP, ONE_TURN)[ORDER] == "not resolved"


def test_scores_that_agree_and_scores_that_say_nothing():
    lower = {teacher: mean - 0.5 for teacher, mean in UP.items()}
    same = said_of(UP, lower, noise=0.01)
    assert [same[name] for name in (ORDER, OTHER, LEVEL, GROWING)] == ["does not hold"] * 4
    assert same[MAIN_STEPS] == "holds"
    noise = said_of(UP, DOWN, noise=50)
    unsure = (ORDER, FIRST, STEPS, GROWING, MAIN_STEPS)
    assert [noise[name] for name in unsure] == ["not resolved"] * 5


def trends_of(slope: float, last: float, rise: float, local: float) -> pd.DataFrame:
    """Trends in which every number has an interval of 0.02."""
    rows = []
    for data in ("gsm8k", "math", "pooled"):
        for tokens in ("all", "dropped", "cut", "unmarked"):
            for teacher in ("all", *MAIN_TEACHERS):
                for quantity, value in (("gap", slope), ("global", rise), ("local", local)):
                    for level in (0.95, 0.9875):
                        row = {"data": data, "tokens": tokens, "teacher": teacher, "level": level}
                        row |= {"quantity": quantity, "num_prompts": 20}
                        for name, number in (("slope", value), ("last", last)):
                            ends = (number - 0.01, number + 0.01)
                            row |= dict(
                                zip(
                                    (name, f"{name}_low", f"{name}_high"),
                                    (number, *ends),
                                    strict=True,
                                )
                            )
                        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("trends", "expected"),
    [
        (trends_of(0.2, 0.9, 0.4, 0.0), ["holds", "holds", "holds"]),
        (
            trends_of(-0.2, 0.3, -0.4, 0.0),
            ["does not hold", "not testable at this scale", "does not hold"],
        ),
        (trends_of(0.0, 0.805, 0.005, 0.0), ["not resolved", "not resolved", "not resolved"]),
    ],
)
def test_slopes_and_sizes_of_the_gap(trends, expected, tmp_path):
    trends.to_csv(tmp_path / "trends.csv", index=False)
    frames = dict(measure.by_data({n: made(UP, UP, data=n) for n in ("gsm8k", "math")}))
    said = run_verdict_cells(
        "13_long_traces_tokens",
        frames=frames,
        pooled=frames["pooled"],
        folder=tmp_path,
        whole_trends=trends[trends["quantity"] == "gap"],
    )
    assert [verdict.verdict for verdict in said] == expected
    assert all(verdict.needs for verdict in said if verdict.verdict == "not resolved")
