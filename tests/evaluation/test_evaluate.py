"""Grading completions, accuracy with intervals, paired comparison, and the audit of the grader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy import stats

from lalp.errors import InputError
from lalp.evaluation import evaluate
from lalp.evaluation.accuracy import accuracy_table, compare_runs, paper_table
from lalp.evaluation.audit import STATED_FORMS, audit_grader, respellings
from lalp.evaluation.benchmarks import AVERAGED, load_benchmark, load_solutions
from lalp.evaluation.evaluate import COLUMNS, grade, load_results, write_results
from lalp.evaluation.sandbox import check_sandbox
from lalp.pools.pool import Message, Prompt
from lalp.sampling import samples
from lalp.sampling.samples import Completion
from lalp.sampling.settings import Sampling
from lalp.stats import units_needed
from tests.evaluation.test_benchmarks import SHARED, needs_shared
from tests.evaluation.test_livecodebench import cases, record, write

ANSWERS = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))
Z = 1.959963984540054


def make_prompt(answer: str | None, text: str = "What is it?", name: str = "b/0001") -> Prompt:
    return Prompt(name, (Message("user", text),), answer)


def make_completion(text: str, name: str = "b/0001") -> Completion:
    return Completion(name, 0, text, len(text.split()), False)


def results(
    correct: Sequence[Sequence[int]], benchmark: str = "math500", **columns: object
) -> pd.DataFrame:
    """A results table of one benchmark: per problem, which samples are correct."""
    cells = [(i, k, bool(one)) for i, each in enumerate(correct) for k, one in enumerate(each)]
    frame = pd.DataFrame(cells, columns=["problem", "sample", "correct"])
    return frame.assign(
        benchmark=benchmark,
        prompt_id=[f"{benchmark}/{i:04d}" for i in frame["problem"]],
        problem=[f"hash of {benchmark}/{i}" for i in frame["problem"]],
        outcome=np.where(frame["correct"], "correct", "wrong"),
        extracted=np.where(frame["correct"], "1", "2"),
        **{"truncated": False, "num_tokens": 10, "answer": "1", "difficulty": None},
    )[list(COLUMNS)].assign(**columns)


def singles(num_correct: int, count: int, benchmark: str = "math500") -> pd.DataFrame:
    return results([[i < num_correct] for i in range(count)], benchmark)


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def wilson(num_correct: int, count: int) -> tuple[float, float]:
    return tuple(stats.binomtest(num_correct, count).proportion_ci(method="wilson"))


# --- grading -----------------------------------------------------------------------------------


CASES = [*ANSWERS["answers"], *ANSWERS["percentages"]]


@pytest.fixture(scope="module")
def graded() -> pd.DataFrame:
    """Every case of the file, graded by one worker: it takes longer to start than to grade."""
    names = [f"b/{number}" for number in range(len(CASES))]
    prompts = [
        make_prompt(answer, *question, name=name)
        for name, (answer, _, _, *question) in zip(names, CASES, strict=True)
    ]
    texts = [text for _, text, *_ in CASES]
    return grade("b", prompts, list(map(make_completion, texts, names)))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_outcomes(number, graded):
    row, outcome = graded.iloc[number], CASES[number][2]
    assert row["prompt_id"] == f"b/{number}"
    assert (row["outcome"], row["correct"]) == (outcome, outcome == "correct")


def test_rows_keep_the_order_and_name_the_problem():
    prompts = [make_prompt(str(n), f"What is {n}?", f"b/{n}") for n in range(3)]
    cells = [(n, k) for n in (2, 0, 1) for k in (0, 1)]
    completions = [Completion(f"b/{n}", k, rf"\boxed{{{n}}}", n + k, False) for n, k in cells]
    frame = grade("b", prompts, completions)
    assert tuple(frame.columns) == COLUMNS
    found = frame[["prompt_id", "sample", "num_tokens", "extracted"]].itertuples(index=False)
    assert list(map(tuple, found)) == [(f"b/{n}", k, n + k, str(n)) for n, k in cells]
    assert frame["correct"].all()
    assert frame.groupby("prompt_id")["problem"].nunique().eq(1).all()
    assert frame["problem"].nunique() == 3
    nothing = grade("b", prompts, [])
    assert nothing.empty and tuple(nothing.columns) == COLUMNS


def test_a_reference_is_needed_to_grade():
    with pytest.raises(InputError, match="has no reference answer"):
        grade("b", [make_prompt(None)], [make_completion("7")])


def test_programs_are_run(monkeypatch, tmp_path):
    try:
        check_sandbox()
    except InputError as error:
        pytest.skip(str(error))
    tests = [cases(("", f"{value}\n")) for value in (5, 7)]
    records = [
        record(n, difficulty=level, public_test_cases=given, private_test_cases=given)
        for n, (level, given) in enumerate(zip(("easy", "hard"), tests, strict=True))
    ]
    write(tmp_path / "livecodebench.jsonl", *records)

    def answer(prompts, model, sampling, *, system_prompt, store, **options):
        assert system_prompt is None
        assert all(message.role == "user" for prompt in prompts for message in prompt.messages)
        texts = ("```python\nprint(5)\n```", "I would print 7.")
        return [make_completion(t, name=p.prompt_id) for p, t in zip(prompts, texts, strict=True)]

    monkeypatch.setattr(samples, "generate", answer)
    monkeypatch.setattr(evaluate, "_run_record", lambda *args: {})
    options = {"folder": tmp_path, "allow_count": True, "store": tmp_path / "s", "progress": False}
    frame = evaluate.evaluate(["livecodebench"], "m", Sampling(), **options)
    found = frame[["outcome", "difficulty", "correct"]].itertuples(index=False)
    assert list(map(tuple, found)) == [("passed", "easy", True), ("no code", "hard", False)]
    assert frame["problem"].nunique() == 2
    row = accuracy_table(frame).iloc[0]
    assert (row["title"], row["accuracy"], row["no_answer"]) == ("LCB", 0.5, 0.5)
    write_results(frame, tmp_path / "r.parquet")
    assert load_results(tmp_path / "r.parquet")["difficulty"].tolist() == ["easy", "hard"]
    with pytest.raises(InputError, match="2 problems, but LCB has 511"):
        evaluate.evaluate(["livecodebench"], "m", Sampling(), folder=tmp_path)
    with pytest.raises(InputError, match="no benchmark named"):
        evaluate.evaluate([], "m", Sampling())


# --- accuracy ----------------------------------------------------------------------------------


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=30, deadline=None)
def test_one_sample_a_problem_has_wilsons_interval(case):
    num_correct, count = case
    row = accuracy_table(singles(num_correct, count)).iloc[0]
    assert row["accuracy"] == pytest.approx(num_correct / count)
    assert (row["low"], row["high"]) == pytest.approx(wilson(num_correct, count), abs=1e-9)
    assert row["interval"] == "wilson"


@pytest.mark.parametrize(("count", "kind"), [(30, "t"), (60, "bootstrap")])
def test_the_table_says_which_interval_a_mean_over_samples_has(count, kind):
    row = accuracy_table(results([[1, 0], [1, 1]] * (count // 2))).iloc[0]
    assert row["interval"] == kind
    pair = joined(*(results([[1, 0], [1, 1]] * 15, name) for name in ("amc23", "aime25")))
    assert accuracy_table(pair).iloc[-1]["interval"] == "t"


def test_the_mean_over_samples_has_a_bootstrap_interval_over_problems():
    generator = np.random.default_rng(0)
    shares = generator.beta(1, 1, 400)
    correct = generator.random((400, 4)) < shares[:, None]
    row = accuracy_table(results(correct.tolist())).iloc[0]
    assert row["accuracy"] == pytest.approx(correct.mean())
    assert (row["num_problems"], row["num_samples"], row["interval"]) == (400, 4, "bootstrap")
    # The normal approximation, with problems and not samples as units.
    half = Z * correct.mean(axis=1).std(ddof=1) / math.sqrt(400)
    assert row["accuracy"] - row["low"] == pytest.approx(half, rel=0.1)
    assert row["high"] - row["accuracy"] == pytest.approx(half, rel=0.1)
    assert half > 1.2 * Z * correct.std() / math.sqrt(1600)  # of independent samples


@pytest.mark.parametrize("value", [0, 1])
def test_where_all_samples_agree_the_interval_has_a_width(value):
    row = accuracy_table(results([[value] * 4] * 30)).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(wilson(30 * value, 30), abs=1e-9)
    assert row["interval"] == "wilson"


def test_avg_is_the_unweighted_mean_and_leaves_out_gpqa_and_code():
    frame = joined(
        singles(10, 100, "livecodebench"),
        singles(9, 10, "gpqa_diamond"),
        singles(1, 10, "amc23"),
        singles(150, 500, "math500"),
        singles(5, 10, "mine"),
    )
    table = accuracy_table(frame)
    names = ["math500", "amc23", "gpqa_diamond", "livecodebench", "mine", "AVG"]
    assert list(table["benchmark"]) == names
    average = table.iloc[-1]
    assert average["accuracy"] == pytest.approx((0.3 + 0.1 + 0.5) / 3)
    assert average["num_problems"] == 520
    # By hand: the variances p (1 - p) / (n - 1) of the three means, over 3 squared; Welch's degrees
    # of freedom are (420.8 + 10,000 + 27,778)^2 / (420.8^2 / 499 + (10,000^2 + 27,778^2) / 9) = 15.
    half = 2.131 / 3 * math.sqrt(0.21 / 499 + 0.09 / 9 + 0.25 / 9)
    assert average["high"] - average["low"] == pytest.approx(2 * half, rel=1e-3)
    assert average["low"] < average["accuracy"] < average["high"]
    # One benchmark of its own has none.
    alone = accuracy_table(joined(singles(1, 3), singles(1, 3, "gpqa_diamond")))
    assert list(alone["benchmark"]) == ["math500", "gpqa_diamond"]


def test_avg_of_what_never_varies_adds_the_half_widths_squares():
    average = accuracy_table(joined(singles(0, 30, "aime25"), singles(0, 40, "amc23"))).iloc[-1]
    bounds = [wilson(0, 30)[1], wilson(0, 40)[1]]
    assert average["low"] == 0
    assert average["high"] == pytest.approx(math.hypot(*bounds) / 2)


def test_shares_of_truncated_and_unread_answers():
    frame = results([[1, 0], [0, 0]])
    frame.loc[1, "truncated"] = True
    frame.loc[2:3, "outcome"] = "no answer"
    frame["num_tokens"] = [1, 2, 3, 6]
    row = accuracy_table(frame).iloc[0]
    assert (row["truncated"], row["no_answer"], row["mean_tokens"]) == (0.25, 0.5, 3.0)


@given(st.permutations(range(12)), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_changes_nothing(order, seed):
    frame = joined(results([[1, 0], [1, 1], [0, 0]]), results([[1, 0], [0, 0], [0, 1]], "amc23"))
    table = accuracy_table(frame, seed, 200)
    assert_frame_equal(table, accuracy_table(frame.iloc[list(order)], seed, 200))


def test_incomplete_or_doubled_results_are_refused():
    frame = results([[1, 0], [1, 1]])
    with pytest.raises(InputError, match="'math500/0001' has 1 samples and 'math500/0000' 2"):
        accuracy_table(frame.iloc[:3])
    with pytest.raises(InputError, match="the same sample of 'math500/0000' is there twice"):
        accuracy_table(joined(frame, frame.iloc[:1]))
    with pytest.raises(InputError, match="no samples"):
        accuracy_table(frame.iloc[:0])


# --- the paper's layout ------------------------------------------------------------------------


def whole_run(*num_correct: int) -> pd.DataFrame:
    names = (*AVERAGED, "gpqa_diamond")
    return joined(*(singles(n, 10, name) for n, name in zip(num_correct, names, strict=True)))


def test_paper_table():
    runs = {"before": whole_run(7, 1, 5, 2, 2, 4, 1, 6), "after": whole_run(8, 2, 6, 2, 4, 4, 3, 7)}
    table = paper_table(runs)
    assert list(table.columns) == [
        *("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24", "AVG", "GPQA"),
        *("truncated", "mean_tokens"),
    ]
    assert list(table.index) == ["before", "after"]
    before = [0.7, 0.1, 0.5, 0.2, 0.2, 0.4, 0.1, 2.2 / 7, 0.6, 0, 10]
    assert list(table.loc["before"]) == pytest.approx(before)
    assert table.loc["after", "AVG"] == pytest.approx(2.9 / 7)

    # The paper's AVG needs all seven, and no code.
    table = paper_table({"some": singles(1, 2), "code": singles(1, 2, "livecodebench")})
    assert table.loc["some", "MATH"] == 0.5
    assert table.loc[["some", "code"], ["AVG", "AMC", "GPQA"]].isna().all(axis=None)
    assert "LCB" not in table.columns


# --- two runs ----------------------------------------------------------------------------------


def test_a_comparison_by_hand():
    a = results([[1]] * 10 + [[0]] * 10)
    b = results([[1]] * 9 + [[0]] + [[1]] * 7 + [[0]] * 3)
    row = compare_runs(a, b).iloc[0]
    assert (row["accuracy_a"], row["accuracy_b"]) == (0.5, 0.8)
    assert row["difference"] == pytest.approx(0.3)
    assert (row["only_a"], row["only_b"]) == (1, 7)
    # Of 8 problems that one run alone solves, 7 or more on one side: 2 (1 + 8) / 2^8.
    assert row["p_value"] == pytest.approx(18 / 256)
    # Differences: -1 once, 1 seven times, 0 twelve times; mean 0.3, variance (8 - 20 * 0.09) / 19.
    assert row["problems_needed"] == units_needed(0.3 / math.sqrt(6.2 / 19))
    half = 2.0930 * math.sqrt(6.2 / 19 / 20)  # Student's t of 20 problems
    assert (row["low"], row["high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40), st.integers())
@settings(max_examples=20, deadline=None)
def test_swapping_the_runs_changes_the_sign(pairs, seed):
    seed = abs(seed)
    a, b = (results([[pair[k]] for pair in pairs]) for k in (0, 1))
    there, back = (
        compare_runs(*order, seed=seed, num_resamples=300).iloc[0] for order in ((a, b), (b, a))
    )
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p_value"] == pytest.approx(back["p_value"])
    assert (there["only_a"], there["only_b"]) == (back["only_b"], back["only_a"])
    assert there["low"] <= there["difference"] <= there["high"]
    # Percentiles of the same draws, mirrored.
    assert there["low"] == pytest.approx(-back["high"], abs=1e-9)


def test_equal_runs_differ_by_nothing_but_not_for_certain():
    row = compare_runs(singles(4, 30), singles(4, 30)).iloc[0]
    assert (row["difference"], row["p_value"], row["only_a"], row["only_b"]) == (0, 1, 0, 0)
    slack = wilson(0, 30)[1]
    assert (row["low"], row["high"]) == pytest.approx((-slack, slack))
    assert math.isnan(row["problems_needed"])


def test_avg_of_differences():
    a = joined(singles(10, 40, "amc23"), singles(3, 30, "aime25"), singles(9, 10, "gpqa_diamond"))
    b = joined(singles(20, 40, "amc23"), singles(6, 30, "aime25"), singles(1, 10, "gpqa_diamond"))
    table = compare_runs(a, b)
    average = table.iloc[-1]
    assert list(table["benchmark"]) == ["aime25", "amc23", "gpqa_diamond", "AVG"]
    assert average["difference"] == pytest.approx((0.25 + 0.1) / 2)
    half = Z / 2 * math.sqrt(0.25 * 0.75 / 40 + 0.1 * 0.9 / 30)
    assert average["high"] - average["low"] == pytest.approx(2 * half, rel=0.12)
    assert math.isnan(average["p_value"])


def test_several_samples_have_no_test_of_single_answers():
    a, b = results([[1, 0], [0, 0], [1, 1]]), results([[1], [0], [1]])
    row = compare_runs(a, b).iloc[0]
    assert row["difference"] == pytest.approx(0.5 / 3)
    assert row[["p_value", "only_a"]].isna().all()


FOUR = singles(1, 4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (singles(1, 3), "'math500/0003' of math500 is in one run only"),
        (FOUR.assign(problem=["x", *FOUR["problem"][1:]]), "has another text or answer in the"),
        (joined(FOUR, singles(1, 4, "amc23")), "only run B was evaluated on amc23"),
        (singles(1, 4, "amc23"), "only run A was evaluated on math500"),
    ],
)
def test_runs_on_other_problems_are_refused(other, message):
    with pytest.raises(InputError, match=message):
        compare_runs(FOUR, other)


# --- files -------------------------------------------------------------------------------------


def test_results_are_read_back(tmp_path):
    frame = joined(results([[1, 0], [0, 1]]), singles(1, 3, "amc23"))
    frame.loc[0, "extracted"] = None
    frame.attrs = {"run": {"model": "m", "sampling": {"seed": 0}}}
    write_results(frame, tmp_path / "new" / "r.parquet")
    back = load_results(tmp_path / "new" / "r.parquet")
    assert back.attrs == {**frame.attrs, "path": str(tmp_path / "new" / "r.parquet")}
    assert_frame_equal(accuracy_table(back), accuracy_table(frame))
    assert back["extracted"].isna().tolist() == frame["extracted"].isna().tolist()
    assert back["correct"].dtype == bool


def test_results_with_a_column_of_categories_are_the_same(tmp_path):
    frame = joined(results([[1, 0], [0, 1]]), singles(1, 3, "amc23"))
    write_results(frame, tmp_path / "r.parquet")
    table = pd.read_parquet(tmp_path / "r.parquet").astype({"benchmark": "category"})
    table.to_parquet(tmp_path / "other.parquet")
    one, other = (load_results(tmp_path / name) for name in ("r.parquet", "other.parquet"))
    assert_frame_equal(accuracy_table(one), accuracy_table(other))


def test_other_files_are_no_results(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_results(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match="not a readable results table"):
        load_results(tmp_path / "text.parquet")
    pd.DataFrame({"prompt_id": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="column 'benchmark' is missing"):
        load_results(tmp_path / "other.parquet")


# --- the grader's audit ------------------------------------------------------------------------

ODD = ["12", "-12", r"\frac{3}{4}", r"\text{Ada}", r"x \in [1,4)", r"30^\circ", "4, -9", r"7\sqrt2"]


def test_an_audit_lists_every_miss_with_its_reason():
    prompts = [make_prompt(answer, name=f"b/{i}") for i, answer in enumerate(ODD)]
    solutions = {"b/0": r"It is \boxed{12}.", "b/1": "It is minus twelve.", "b/2": "Answer: 3"}
    audit = audit_grader(prompts, solutions)
    misses = audit.groupby("kind")["miss"].agg(["size", "sum"])
    assert misses.loc["solution"].tolist() == [3, 2]
    assert misses.loc["stated", "size"] == len(ODD) * len(STATED_FORMS)
    assert misses.loc[["stated", "respelled", "other", "altered"], "sum"].eq(0).all()
    misses = audit[audit["miss"]].set_index("prompt_id")["reason"]
    assert misses.to_dict() == {
        "b/1": "no final answer is marked in the text",
        "b/2": "what is read is not taken for the reference: 3",
    }


def test_an_audit_needs_references():
    with pytest.raises(InputError, match="there are no prompts"):
        audit_grader([])
    with pytest.raises(InputError, match="prompt 'b/0001' has no reference answer"):
        audit_grader([make_prompt(None)])


def test_an_audit_sees_a_false_correct():
    twins = [make_prompt("0.5", name="b/0"), make_prompt("1/2", name="b/1")]
    audit = audit_grader(twins)
    misses = audit[audit["miss"]]
    assert set(misses["kind"]) == {"other"}
    assert misses["reason"].str.contains("see whether the two are equal").all()


def test_respellings_keep_the_value():
    assert respellings(r"\frac{3}{4}") == [r"\dfrac{3}{4}", "(3)/(4)"]
    assert respellings("1234") == ["1,234", "1234.0", "x = 1234"]
    assert respellings("4, -9") == ["4, - 9", " -9, 4"]
    assert respellings(r"\text{Ada}") == ["Ada"]


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("name", ["math500", "amc23", "cn_math_2024"])
def test_the_graders_bar(name):
    """Right answers at least 98 % correct, wrong ones at most 1 %; each miss is printed."""
    audit = audit_grader(load_benchmark(name, SHARED), load_solutions(name, SHARED))
    misses = audit[audit["miss"]]
    print(misses[["kind", "prompt_id", "answer", "reason"]].to_string())
    shares = audit.groupby("kind")["miss"].mean()
    assert shares[shares.index.isin(["solution", "stated", "respelled"])].max() <= 0.02
    assert shares[["other", "altered"]].max() <= 0.01
    if name == "math500":
        assert shares["solution"] == 0
