"""Numbers in README and docs, computed again from the committed tables with plain numpy.

What takes more than that (bootstraps, the mass of categories) is compared with the tables that the
notebooks commit.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalp.paper.headline import HEADLINES

ROOT = Path(__file__).parents[2]
PAGES = {
    path.name: " ".join(path.read_text(encoding="utf-8").split())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TEXT = "\n".join(PAGES.values())
# Student's t, two-sided 95 %, from a printed table.
T = {5: 2.7764, 10: 2.2622, 12: 2.2010, 20: 2.0930}


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "figures" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's t interval."""
    array = np.array(values)
    half = T[len(array)] * array.std(ddof=1) / math.sqrt(len(array))
    return array.mean(), array.mean() - half, array.mean() + half


def text(values: list[float], sign: str = "", digits: int = 2) -> str:
    return written(interval(values), sign, digits)


def written(ends: tuple[float, ...], sign: str = "", digits: int = 2) -> str:
    """A mean and its interval as README and docs write them."""
    mean, low, high = (round(float(value) + 1e-9, digits) for value in ends)
    shown = f"{mean:{sign}.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return re.sub(r"-(0\.0+)\b(?!\d)", r"\1", shown)


def row(name: str, value: str, **wanted: str) -> tuple[float, ...]:
    """A number and its ends in the one row of a table that has these values."""
    (found,) = [one for one in rows(name) if all(one[key] == v for key, v in wanted.items())]
    return tuple(float(found[column]) for column in (value, "low", "high"))


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    """Shares of problems solved by the students of each arm of step world, one for each seed."""
    solved: dict[str, dict[str, float]] = {}
    for row in rows("world_standard/arms.csv"):
        share = int(row["num_solved"]) / int(row["num_problems"])
        solved.setdefault(f"{row['group']}: {row['arm']}", {})[row["seed"]] = share
    return {arm: np.array([by[seed] for seed in sorted(by)]) for arm, by in solved.items()}


def test_the_table_of_step_world(world):
    found = {
        "rules: lalp": "highest LALP (true steps, window of one step)",
        "rules: random like lalp": "random, with the same number from each teacher as LALP",
        "rules: galp": "highest GALP",
        "rules: random like galp": "random, with the same number from each teacher as GALP",
        "rules: random": "random",
        "rules: lalp-lowest": "lowest LALP",
    }
    for arm, name in found.items():
        mean, low, high = interval(world[arm])
        shown = re.search(rf"\| {re.escape(name)} \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \|", TEXT)
        assert shown, name
        ends = mean, max(0.0, low), min(1.0, high)
        assert [float(x) for x in shown.groups()] == pytest.approx(ends, abs=0.0051), name


def test_composition_and_choice_of_samples(world):
    lalp, galp = world["rules: lalp"], world["rules: galp"]
    of_lalp, of_galp = world["rules: random like lalp"], world["rules: random like galp"]
    assert f"in all five, by {text(lalp - galp)}" in TEXT
    assert f"in GALP's mix by {text(of_lalp - of_galp)}" in TEXT
    assert f"gains {text((galp - of_galp) - (lalp - of_lalp))} less than GALP's does" in TEXT
    assert f"gains nothing ({text(lalp - of_lalp)})" in TEXT


def test_the_window_decides(world):
    galp = world["rules: galp"]
    for window, words in (("0", "w = 0"), ("1", "w = 1"), ("2", "w = 2"), ("4", "w = 4")):
        assert f"{text(world[f'windows: {window}'] - galp, '+')} at {words}" in TEXT
    assert f"{text(world['windows: all'] - galp, '+')} with the full prefix" in TEXT
    assert f"on sentences at w = 4 it is {text(world['rules: lalp sentences'] - galp, '+')}" in TEXT


def test_the_map_over_its_students():
    gains: dict[tuple[str, ...], list[float]] = {}
    for row in rows("world_long/arms.csv"):
        student = row["family"], row["copying"], row["seed"]
        sign = {"lalp": 1, "galp": -1}.get(row["arm"], 0)
        share = int(row["num_solved"]) / int(row["num_problems"])
        gains.setdefault(student, []).append(sign * share)
    # Nine pairs of teachers for each student.
    means = [sum(values) / 9 for values in gains.values()]
    assert f"over the 20 students together it is {text(means)}" in TEXT


def test_the_table_of_headlines_says_what_the_verdicts_say():
    """Verdict, notebook and numbers of each row are those of the headline in its place."""
    table = PAGES["README.md"].partition("| claim of the paper | here | verdict | look |")[2]
    found = re.findall(
        r"\| ([^|]+) \| ([^|]+) \| ([^|]+) \| \[\d+\]\(notebooks/(\w+)\.ipynb\) ", table
    )
    assert len(found) == 10
    for (_, here, verdict, notebook), claim in zip(found, HEADLINES, strict=False):
        said = CLAIMS[claim]
        assert notebook == said["notebook"]
        assert said["verdict"].startswith(verdict)
        known = [abs(float(x)) for x in re.findall(r"\d+(?:\.\d+)?", said["run"] + said["why"])]
        for number in re.findall(r"\d+\.\d+", here):
            half = 0.51 * 10.0 ** -len(number.partition(".")[2])
            assert any(abs(float(number) - x) <= half for x in known), (claim, number)


def test_the_settings_of_the_map_one_by_one():
    said = " ".join(one["why"] for one in CLAIMS.values())
    (found,) = re.findall(r"true steps: (\d+) cells above, (\d+) below, (\d+) not resolved", said)
    better, worse, left = map(int, found)
    assert (worse, better + worse + left) == (0, 36)
    for name in ("README.md", "index.md"):
        page = PAGES[name]
        assert f"LALP leads in {better} and GALP in none; {left} stay open" in page


def test_every_interval_of_readme_stands_in_the_tested_pages():
    pattern = r"[\d.]+(?: %)? \[[-\d.]+, [-\d.]+\]"
    others = "\n".join(text for name, text in PAGES.items() if name != "README.md")
    known = set(re.findall(pattern, others))
    # The shift in points; the loss, which a page gives with its unit.
    known |= {"0.060 [0.044, 0.077]"}
    assert "2 points [1, 6]" in others.replace("\n", " ") and "0.060 nats [0.044, 0.077]" in others
    found = re.findall(pattern, PAGES["README.md"])
    assert len(found) >= 10 and set(found) <= known


def test_readme_is_read_in_ten_minutes_and_counts_all_claims():
    readme = PAGES["README.md"]
    assert len(readme.split()) <= 1300
    said = [one["verdict"] for one in CLAIMS.values()]
    counts = {verdict: said.count(verdict) for verdict in set(said)}
    assert f"Of {len(said)} claims {counts['holds']} hold, " in readme
    assert f"{counts['does not hold']} do not, {counts['not resolved']} are not resolved" in readme
    assert f"{counts['not testable at this scale']} cannot be tested at this scale" in readme


# --- real text ----------------------------------------------------------------------------------


def test_coverage():
    table, steps = "coverage_controls.csv", "steps - responses"
    for label, candidates in (
        (steps, "all candidates"),
        (steps, "equal numbers"),
        ("steps - random chunks", "all candidates"),
    ):
        found = row(table, "difference", label=label, candidates=candidates)
        assert written(found, digits=3) in TEXT
    for limit, words in (("inf", "by"), ("0.5", "it is"), ("0.4", "nearer, by")):
        candidates = {"label": steps, "candidates": "equal numbers"}
        names = next(csv.reader((ROOT / "figures/coverage_similarity.csv").open(encoding="utf-8")))
        mean, *ends = row(
            "coverage_similarity.csv", "difference", **candidates, **{names[-1]: limit}
        )
        ends = [mean, *ends] if limit == "0.4" else [-mean, *(-end for end in reversed(ends))]
        assert f"{words} {written(ends, digits=3)}" in TEXT


def test_attribution():
    mass = {
        (one["score"], one["category"]): [float(one[c]) for c in ("share", "low", "high", "count")]
        for one in rows("category_mass.csv")
    }
    assert f"Not discourse ({mass['galp', 'discourse'][0]:.1f} % [" in TEXT
    share, low, high, count = mass["galp", "math"]
    assert f"{share:.1f} % [{low:.1f}, {high:.1f}] of the mass, and {count:.1f} %" in TEXT
    for category, unit in (("math + reasoning", " points"), ("reasoning", "")):
        here = {"teacher": "all", "window": "4", "of": "mass", "category": category}
        shown = written(row("category_shifts.csv", "shift", **here))
        assert shown.replace(" [", f"{unit} [") in TEXT


CLAIMS = {one["claim"]: one for one in rows("overview.csv")}


@pytest.mark.parametrize(
    ("claim", "column", "said", "in_readme"),
    [
        ("The gap between global", "run", "all 0.07 [0.04, 0.10]", "by 0.07 nats [0.04, 0.10]"),
        ("The gap between global", "why", "resolved for 2 of 4 teachers", "two of four teachers"),
        ("The gap comes from", "run", "carry 52 % [49, 55] of the gap", "52 % [49, 55] of it"),
        ("Accumulated text", "run", "difference 0.11 [0.06, 0.16]", "(by 0.11 [0.06, 0.16])"),
        ("At the end of a response", "run", "0.14 [0.12, 0.16]", "0.14 nats [0.12, 0.16]"),
        ("Local scoring does not", "run", "phrases 0.39 [0.29, 0.49]", "by 0.39 [0.29, 0.49]"),
        ("LALP and GALP order", "run", "p = 0.002", "(interaction, p = 0.002)"),
        ("LALP and GALP order", "run", "0.080 [0.021, 0.139]", "0.08 nats [0.02, 0.14] more"),
        ("LALP and GALP order", "needs", "500 prompts", "some 500 prompts would settle both"),
        ("As the window grows", "run", "5 % 0.81, 10 % 0.64, 25 % 0.40", "from 0.8 standard devia"),
        ("As the window grows", "needs", "45 prompts", "45 prompts would resolve the first"),
        ("A quarter of the prompts", "run", "first in 83 % of draws", "first in 83 % of draws"),
        ("A quarter of the prompts", "needs", "500 prompts", "some 500 prompts would settle it"),
        (
            "LALP takes its responses",
            "why",
            "shares shift by 8.06 [3.23, 19.35] points",
            "shares shift by 8 points [3, 19]",
        ),
        ("LALP takes its responses", "why", "probability 0.54", "0.54 by chance alone"),
        ("LALP takes its responses", "needs", "260 prompts", "260 prompts would resolve it"),
        ("GALP's margin is diluted", "run", "1.00 [0.99, 1.01]", "is 1.00 [0.99, 1.01] of GALP's"),
    ],
)
def test_what_a_verdict_says(claim, column, said, in_readme):
    # Long traces and more prompts have claims of their own, which begin alike.
    others = ("on long traces", "over all prompts")
    short = {name: one for name, one in CLAIMS.items() if not any(o in name for o in others)}
    (found,) = [one for name, one in short.items() if name.startswith(claim)]
    assert said in found[column]
    assert in_readme in TEXT


@pytest.fixture(scope="module")
def champ() -> pd.DataFrame:
    return pd.read_parquet(ROOT / "figures" / "champ" / "scores.parquet")


def test_scores_of_champ(champ):
    by_prompt = champ.groupby("prompt_id")["teacher"].nunique()
    assert by_prompt.value_counts().to_dict() == {4: 61, 3: 1}
    counts = len(champ), champ["num_tokens"].mean(), champ["num_steps"].mean()
    assert "({} in all, {:.0f} tokens and {:.0f} steps on average".format(*counts) in TEXT
    means = champ["lalp@4"].mean(), champ["galp"].mean()
    above = (champ["lalp@4"] > champ["galp"]).mean()
    shown = "LALP {:.2f}, GALP {:.2f} on average; above for {:.0%}".format(*means, above)
    assert shown.replace("4%", "4 %") in TEXT
    assert f"Here LALP is below, for {100 * (1 - above):.0f} % of responses" in TEXT


def test_orders_of_teachers_and_the_pairs_that_holm_keeps(champ):
    shared = champ[champ.groupby("prompt_id")["teacher"].transform("nunique") == 4]
    kept = {}
    for column in ("galp", "lalp@4"):
        table = shared.pivot(index="prompt_id", columns="teacher", values=column)
        order = list(table.mean().sort_values(ascending=False).index)
        shown = " > ".join(order).replace(" Medium", "")
        assert re.search(rf"{column[:4].upper()}(, w = 4)?: {re.escape(shown)}", TEXT)
        pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
        p = np.array([stats.ttest_rel(table[a], table[b]).pvalue for a, b in pairs])
        steps = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)) < 0.05
        kept[column] = {pairs[i] for i, keep in zip(np.argsort(p), steps, strict=True) if keep}
    palm, turbo = "PaLM 2 Medium", "GPT-4 Turbo"
    assert kept["lalp@4"] == {(palm, "GPT-4")}
    assert kept["galp"] == {("GPT-3.5", "GPT-4"), (palm, "GPT-4"), ("GPT-3.5", turbo)}
    places = [
        shared.groupby("teacher")[f"lalp@{w}"].mean().rank(ascending=False)["GPT-4"]
        for w in ("0", "1", "2", "4", "all")
    ]
    assert places == [1, 3, 4, 4, 4]


def test_more_prompts_of_champ():
    scores = pd.read_parquet(ROOT / "figures" / "champ" / "pairs.parquet")
    count, prompts = len(scores), scores["prompt_id"].nunique()
    assert f"All {prompts} prompts that at least two teachers solved give {count} resp" in TEXT
    wide = scores.pivot(index="prompt_id", columns="teacher", values=["galp", "lalp@4"])
    kept = {}
    for column in ("galp", "lalp@4"):
        table = wide[column]
        pairs = list(itertools.combinations(table, 2))
        gaps = [(table[a] - table[b]).dropna() for a, b in pairs]
        p = np.array([stats.ttest_1samp(gap, 0).pvalue for gap in gaps])
        steps = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)) < 0.05
        sure = [pairs[i] for i, keep in zip(np.argsort(p), steps, strict=True) if keep]
        kept[column] = {(a, b) if (table[a] - table[b]).mean() > 0 else (b, a) for a, b in sure}
    low = ("PaLM 2 Medium", "GPT-4")
    assert kept["galp"] == {("GPT-3.5", "GPT-4"), ("GPT-3.5", "GPT-4 Turbo"), low}
    assert kept["lalp@4"] == {low}
    found = {name: one for name, one in CLAIMS.items() if "over all prompts" in name}
    assert [one["verdict"] for one in found.values()] == ["not resolved"] * 2
    (shares,) = [one for name, one in found.items() if "takes its responses" in name]
    assert "shares shift by 7.32 [4.27, 14.63] points" in shares["why"]
    assert "probability 0.12" in shares["why"]
    assert "shift by 7 points [4, 15]; two rules with the same preferences would differ as" in TEXT


def test_first_tokens_and_later_scores(champ):
    starts = [np.diff(np.asarray(s), prepend=-1) != 0 for s in champ["token_steps"]]
    first = np.concatenate(starts)
    tokens = np.concatenate([np.asarray(t, float) for t in champ["galp:tokens"]])
    means = [np.nanmean(tokens[rows_]) for rows_ in (first, ~first)]
    assert "({:.2f} nats against {:.2f})".format(*means) in TEXT
    tails = []
    for steps, local, start in zip(
        champ["token_steps"], champ["lalp@4:tokens"], starts, strict=True
    ):
        own = pd.Series(np.asarray(local, float)[~start]).groupby(np.asarray(steps)[~start])
        tails.append(own.mean().mean())
    table = champ.assign(tail=tails, rsr=-champ["mean_rank_100"] / -champ["galp"])
    chosen = {c: table.groupby("prompt_id")[c].idxmax() for c in ("lalp@4", "tail", "rsr")}
    same = {name: (found == chosen["lalp@4"]).mean() for name, found in chosen.items()}
    assert f"(LALP's: {100 * (1 - same['tail']):.0f} %)" in TEXT
    ends = stats.binomtest(round(62 * same["rsr"]), 62).proportion_ci(method="wilson")
    assert f"{100 * same['rsr']:.0f} % [{100 * ends.low:.0f}, {100 * ends.high:.0f}]" in TEXT


def test_how_often_teachers_are_right_by_themselves():
    cells = json.loads((ROOT / "notebooks/00_pool.ipynb").read_text("utf-8"))["cells"]
    (shown,) = ["".join(c["outputs"][0]["data"]["text/plain"]) for c in cells if c["id"] == "00-09"]
    names, numbers = "(GPT-4|GPT-4 Turbo|PaLM 2 Medium)", r"([\d.]+) \[([\d.]+), ([\d.]+)\]"
    found = re.findall(rf"{names} +0-Shot [^\n]* {numbers}", shown)
    assert len(found) == 3
    for _, *numbers in found:
        share, low, high = (100 * float(number) for number in numbers)
        assert f"{share:.1f} % [{low:.1f}, {high:.1f}]" in TEXT


# --- fine-tuned students --------------------------------------------------------------------------


def test_training_losses():
    log = pd.DataFrame(rows("arms_standard/log.csv")).query("group == 'rules' and loss != ''")
    log = log.astype({"loss": float, "epoch": float})
    log["epoch"] = np.ceil(log["epoch"].round(6)).clip(lower=1)
    epochs = log.groupby(["arm", "seed", "epoch"])["loss"].mean().unstack("epoch")
    first, falls = epochs[1].groupby("arm").mean(), (epochs[1] - epochs[2]).unstack("seed")
    losses = "({galp:.2f} nats, LALP's {lalp:.2f}, random {random:.2f})".format_map(first)
    assert losses in TEXT
    assert (falls.loc["galp"] < falls.loc[["lalp", "random"]].min()).all()
    shown = "(by {galp:.2f}; LALP's {lalp:.2f}, random {random:.2f})"
    assert shown.format_map(falls.mean(axis=1)) in TEXT


def test_held_out_nll_with_holms_correction():
    table = pd.DataFrame(rows("arms_standard/held_out.csv")).query("group == 'rules'")
    table = table.astype({"step": int, "lalp": float})
    last = table["step"] == table.groupby(["arm", "seed"])["step"].transform("max")
    nll = -table[last].groupby(["arm", "prompt_id"])["lalp"].mean().unstack("arm")
    assert (
        f"(local NLL {text(nll['lalp'] - nll['galp'], digits=3)}".replace(" [", " nats [") in TEXT
    )
    assert f"by {text(nll['galp'] - nll['random'], digits=3)} more than GALP's" in TEXT
    assert f"by {text(nll['lalp'] - nll['random'], digits=3)} more than LALP's" in TEXT
    others = nll.columns.drop("random")
    p = [stats.ttest_rel(nll[arm], nll["random"]).pvalue for arm in others]
    assert min(p) * len(p) > 0.05  # by Holm none is resolved


def test_problems_that_small_students_solve():
    answers = rows("arms_standard/answers.csv")
    solved = {one["prompt_id"] for one in answers if one["correct"] == "True"}
    arms = rows("arms_standard/arms.csv")
    students = {tuple(v for k, v in one.items() if k not in ("group", "arm")) for one in arms}
    assert (len(solved), len({one["prompt_id"] for one in answers}), len(students)) == (2, 8, 28)
    assert "two of 8 held-out problems were ever solved, by any of 28 students" in TEXT


# --- more of step world ---------------------------------------------------------------------------


def test_teachers_that_rules_take_and_what_they_teach(world):
    shares: dict[str, list[tuple[float, float]]] = {}
    losses: dict[str, dict[str, float]] = {}
    for one in rows("world_standard/arms.csv"):
        if one["group"] == "rules":
            # Empty where a rule takes none.
            own = tuple(float(one[f"share of {t}"] or 0) for t in ("steady", "careful"))
            shares.setdefault(one["arm"], []).append(own)
            losses.setdefault(one["arm"], {})[one["seed"]] = float(one["last_loss"])
    (steady, restating), (_, galp) = (np.mean(shares[rule], axis=0) for rule in ("lalp", "galp"))
    assert f"LALP takes {100 * steady:.0f} % from the steady teacher" in TEXT
    assert f"GALP takes {100 * galp:.0f} % from the teacher who restates" in TEXT
    assert f"from the teacher who restates, LALP {100 * restating:.0f} %" in TEXT
    gap = world["teachers: steady"] - world["teachers: careful"]
    assert f"the steady teacher's is better by {text(gap)}" in TEXT
    gap = [losses["lalp"][seed] - losses["galp"][seed] for seed in losses["lalp"]]
    assert f"by {text(gap, digits=3)}".replace(" [", " nats [") in TEXT
    before = world[": before training"].mean()
    assert f"and {100 * before:.0f} % of those of 8 to 12 moves" in TEXT


def test_comparisons_of_lalps_selection_by_holm(world):
    lalp = world["rules: lalp"]
    others = ("rules: galp", "rules: random", "rules: random like lalp")
    p = sorted(stats.ttest_rel(lalp, world[name]).pvalue for name in others)
    corrected = np.maximum.accumulate(np.array(p) * [3, 2, 1])
    assert p[0] == stats.ttest_rel(lalp, world["rules: galp"]).pvalue
    assert f"(p = {corrected[0]:.3f} by Holm's" in TEXT


def test_thirds_by_galp(world):
    teachers = ("steady", "careful", "leaper", "fluent leaper")
    gaps = [world[f"thirds: {t}: highest"] - world[f"thirds: {t}: lowest"] for t in teachers]
    assert f"(+{text(np.mean(gaps, axis=0))} from lowest to highest)" in TEXT


def test_the_gap_up_to_the_ninth_tenth():
    gaps = {
        (g["teacher"], g["seed"], g["bin"]): float(g["gap"])
        for g in rows("world_standard/gaps.csv")
    }
    seeds, teachers = (sorted({key[i] for key in gaps}) for i in (1, 0))
    rises = {
        (teacher, last): [gaps[teacher, s, last] - gaps[teacher, s, "0"] for s in seeds]
        for teacher in teachers
        for last in ("8", "9")
    }
    careful, fluent = (text(rises[name, "8"]) for name in ("careful", "fluent leaper"))
    assert f"(by {careful} up to".replace(" [", " nats per token [") in TEXT
    assert f"{fluent} of the fluent leaper's" in TEXT
    steady, leaper = (text(rises[name, "8"]) for name in ("steady", "leaper"))
    assert f"(steady {steady}, leaper {leaper})" in TEXT
    mean = np.mean([rises[name, "9"] for name in teachers], axis=0)
    assert f"growth is not resolved ({text(mean)})" in TEXT


@pytest.fixture(scope="module")
def map_gains() -> pd.DataFrame:
    """LALP's gain over GALP on the map, for each way to split, cell and student."""
    arms = pd.DataFrame(rows("world_long/arms.csv"))
    arms["accuracy"] = arms["num_solved"].astype(int) / arms["num_problems"].astype(int)
    unit = ["family", "copying", "seed", "pool"]
    wide = arms[arms["arm"] != ""].pivot_table(index=unit, columns="arm", values="accuracy")
    rules = ["lalp", "lalp sentences", "lalp paragraphs"]
    gains = wide[rules].sub(wide["galp"], axis=0).reset_index()
    return gains.assign(scaffolding=gains["pool"].str.extract(r"scaffolding (\S+)$"))


def test_the_map_by_scaffolding(map_gains):
    keys = ["scaffolding", "family", "copying", "seed"]
    by_student = map_gains.groupby(keys)[["lalp", "lalp sentences", "lalp paragraphs"]].mean()
    most = by_student.loc["1.0"]
    assert f"before half of them): by {text(most['lalp'])}" in TEXT
    assert f"registers by {text(most['lalp']['registers'])}" in TEXT
    assert f"paths by {text(most['lalp']['paths'])}" in TEXT
    for some in ("0.0", "0.5"):
        assert f"no difference ({text(by_student.loc[some, 'lalp'])} each)" in TEXT
    assert f"sentences gain {text(most['lalp sentences'])}" in TEXT
    assert f"of paragraphs' {text(most['lalp paragraphs'])} nothing stands" in TEXT
    p = [
        stats.ttest_1samp(by_student.loc[some, rule], 0).pvalue
        for some in ("0.0", "0.5", "1.0")
        for rule in by_student
    ]
    kept = np.maximum.accumulate(np.sort(p) * np.arange(9, 0, -1)) < 0.05
    assert kept.sum() == 2  # true steps and sentences, where scaffolding is heaviest


def test_the_map_over_its_cells_and_kinds(map_gains):
    cells = rows("world_map.csv")
    assert len(cells) == 108 and not any(float(cell["high"]) < 0 for cell in cells)
    assert sum(float(cell["low"]) > 0 for cell in cells) == 9
    assert min(float(cell["p_holm"]) for cell in cells) > 0.05
    by_student = map_gains.groupby(["family", "copying", "seed"])["lalp"].mean()
    kinds = [own.to_numpy() for _, own in by_student.groupby(["family", "copying"])]
    means = [own.mean() for own in kinds]
    assert f"gain is {min(means):.2f} to {max(means):.2f} for four kinds" in TEXT
    assert sum(interval(own)[1] > 0 for own in kinds) == 1
    assert 4 * min(stats.ttest_1samp(own, 0).pvalue for own in kinds) > 0.05


def test_slopes_on_copying():
    table = pd.DataFrame(rows("world_copying.csv"))
    table = table.astype({"copying_far": float, "accuracy": float, "share": float})
    for effect, sign in (("share", 1), ("accuracy", -1)):
        for _, own in table.groupby("family"):
            fit = stats.linregress(own["copying_far"], sign * own[effect])
            reach = 2.3060 * fit.stderr  # t of 8 degrees of freedom
            assert written((fit.slope, fit.slope - reach, fit.slope + reach)) in TEXT


# --- the tool -----------------------------------------------------------------------------------


def test_families_of_students():
    verdicts = [one["verdict"] for one in rows("families/families.csv")]
    exact = [one for one in rows("families/families.csv") if one["verdict"] == "exact"]
    largest = max(float(one["largest difference in nats"]) for one in exact)
    counts = {name: verdicts.count(name) for name in ("exact", "refused", "cannot be built")}
    assert f"of {len(verdicts)}, {counts['exact']} agree" in TEXT
    assert f"(largest difference {largest:.0e} nats)".replace("e-0", "e-") in TEXT
    assert f"{counts['refused']} are refused with a reason" in TEXT
    assert f"{counts['cannot be built']} cannot be built so small" in TEXT


# --- what others published ----------------------------------------------------------------------


def test_what_published_scores_foresee():
    found = {
        row["score"]: row
        for row in rows("rsr/published.csv")
        if row["student"] == "mean over students" and row["measure"] == "spearman"
    }

    def shown(row: dict[str, str], *names: str) -> str:
        value, low, high = (float(row[name]) for name in names)
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    ends = "correlation", "low", "high"
    over = "over_galp", "over_galp_low", "over_galp_high"
    assert f"correlation with accuracy over teachers is {shown(found['galp'], *ends)}," in TEXT
    assert (
        f"RSR is {shown(found['rsr'], *ends)}, which is {shown(found['rsr'], *over)} more" in TEXT
    )


TRACED = ["DeepSeek-R1", "QwQ-32B", "s1.1-32B", "R1-Distill-Qwen-32B"]


def traced(name: str) -> dict[str, pd.DataFrame]:
    """Scores of long traces by teacher, a row per problem, under GALP and LALP at w = 4."""
    names = ("gsm8k", "math") if name == "both" else (name,)
    parts = [pd.read_parquet(ROOT / "figures" / "traces" / f"{one}.parquet") for one in names]
    scores = pd.concat(parts)
    scores = scores[scores["teacher"].isin(TRACED)]
    columns = ("galp", "lalp@4", "num_tokens")
    return {c: scores.pivot(index="prompt_id", columns="teacher", values=c) for c in columns}


@pytest.mark.parametrize(("name", "problems"), [("gsm8k", 100), ("math", 30), ("both", 130)])
def test_long_traces_resolve_the_same_pairs_under_both_scores(name, problems):
    grids = traced(name)
    signs = []
    for grid in (grids["galp"], grids["lalp@4"]):
        assert len(grid) == problems
        order = grid.mean().sort_values(ascending=False).index
        assert (order[0], order[-1]) == ("R1-Distill-Qwen-32B", "QwQ-32B")
        found = {}
        for a in TRACED:
            for b in TRACED[TRACED.index(a) + 1 :]:
                t = stats.ttest_rel(grid[a], grid[b])
                found[a, b] = (t.pvalue, np.sign(t.statistic))
        # Holm: the smallest p counts six times, the next one five times.
        ordered = sorted(found, key=lambda pair: found[pair][0])
        kept = [pair for k, pair in enumerate(ordered) if found[pair][0] * (6 - k) < 0.05]
        assert {"DeepSeek-R1", "s1.1-32B"} == set(ordered[5]) and len(kept) == 5
        signs.append({pair: found[pair][1] for pair in kept})
    assert signs[0] == signs[1]


def test_long_traces_and_what_is_chosen():
    lengths = [traced(name)["num_tokens"].to_numpy().mean() for name in ("gsm8k", "math")]
    assert (
        f"(traces of {lengths[0]:,.0f} tokens on average) and 30 of MATH ({lengths[1]:,.0f})"
        in (TEXT.replace("\n", " "))
    )
    grids = traced("both")
    chosen = [grids[name].idxmax(axis=1) for name in ("galp", "lalp@4")]
    first = [(each == "R1-Distill-Qwen-32B").mean() for each in chosen]
    text = TEXT.replace("\n", " ").replace(" %", "%")
    assert f"for {first[0]:.0%} of problems under GALP and for {first[1]:.0%} under LALP" in text
    shares = [each.value_counts(normalize=True).reindex(TRACED, fill_value=0) for each in chosen]
    gaps = (grids["galp"] - grids["lalp@4"]).mean(axis=1).to_numpy()
    draws = np.random.default_rng(0).integers(0, len(gaps), (2000, len(gaps)))
    moved = 50 * (shares[0] - shares[1]).abs().sum()
    assert f"shares shift by {moved:.0f} points [" in text
    ends = (gaps.mean(), *np.quantile(gaps[draws].mean(axis=1), [0.025, 0.975]))
    assert f"LALP lies {ends[0]:.2f} nats [{ends[1]:.2f}, {ends[2]:.2f}] below GALP" in text


@pytest.mark.parametrize(
    ("claim", "column", "said", "in_readme"),
    [
        (
            "LALP takes its responses",
            "run",
            "MATH: shares shift by 2 [1, 6] points",
            "the teachers' shares shift by 2 points [1, 6]",
        ),
        ("LALP takes its responses", "verdict", "does not hold", "The claim does not hold here"),
        (
            "LALP takes its responses",
            "run",
            "for 6 [3, 12] % of",
            "for 6 % of the problems [3, 12]",
        ),
        (
            "LALP takes its responses",
            "why",
            "under similar length: not resolved",
            "of similar length it is not resolved",
        ),
        ("A quarter of the problems finds", "run", "MATH: 100 % of subsets of 32", "in every draw"),
        ("The gap grows with", "verdict", "holds", "grows with position for every teacher"),
        (
            "The gap grows with",
            "run",
            "GSM8K: not resolved",
            "on those of GSM8K alone not resolved",
        ),
    ],
)
def test_what_a_verdict_says_of_long_traces(claim, column, said, in_readme):
    own = {name: one for name, one in CLAIMS.items() if "on long traces" in name}
    (found,) = [one for name, one in own.items() if name.startswith(claim)]
    assert said in found[column]
    assert in_readme in TEXT.replace("\n", " ")


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        (TRACED, "(interaction, p below 0.001)"),
        (TRACED[:3], "of similar length that is not resolved (p = 0.10)"),
    ],
)
def test_how_long_traces_interact(teachers, said):
    """Hotelling's T-squared on LALP minus GALP, less its mean over a problem's teachers."""
    parts = {"gsm8k": traced("gsm8k"), "math": traced("math"), "both": traced("both")}
    p = {}
    for name, grids in parts.items():
        gaps = (grids["lalp@4"] - grids["galp"])[teachers]
        shifts = gaps.sub(gaps.mean(axis=1), axis=0).to_numpy()[:, 1:]
        n, k = shifts.shape
        mean = shifts.mean(axis=0)
        squared = n * mean @ np.linalg.solve(np.cov(shifts, rowvar=False), mean)
        p[name] = stats.f.sf(squared * (n - k) / (k * (n - 1)), k, n - k)
    ordered = sorted(p, key=p.get)
    # Holm over the three, each at least as large as the one before.
    corrected = np.maximum.accumulate([p[name] * (3 - i) for i, name in enumerate(ordered)])
    whole = dict(zip(ordered, corrected, strict=True))["both"]
    assert whole < 0.001 if "below" in said else f"(p = {whole:.2f})" in said
    assert said in TEXT.replace("\n", " ")


def test_the_sweep_of_long_traces():
    (found,) = [one for name, one in CLAIMS.items() if "window grows" in name and "long" in name]
    assert found["verdict"] == "not resolved"
    assert "at 5 %: 0 of 6 pairs turn, 4 stay" in found["run"]
    assert "nats: 5 % 0.07, 10 % 0.04, 25 % 0.01" in found["run"]
    assert "from 0.07 nats at 5 % to 0.01 at 25 %; but at 5 % 0 of 6 pairs turn and 4 stay" in TEXT


def test_long_traces_token_by_token():
    folder = ROOT / "figures" / "traces"
    text = TEXT.replace("\n", " ")
    words = pd.read_csv(folder / "words.csv").set_index(["data", "teacher", "word", "score"])
    wait = words.loc[("pooled", "all", "wait", "galp")]
    assert (
        f"“wait” is {wait['tokens']:.2f} % of the tokens and {wait['mass']:.2f} % of GALP" in text
    )
    seen = pd.read_csv(folder / "seen.csv").set_index(["data", "what", "seen"])
    kept = seen.loc[("pooled", "word", "before the window only")]
    ends = [kept[f"gap_percent{end}"] for end in ("", "_low", "_high")]
    assert f"({ends[0]:.0f} % [{ends[1]:.0f}, {ends[2]:.0f}]) sits on tokens whose word" in text
    trends = pd.read_csv(folder / "trends.csv")
    rows = trends[(trends["data"] == "pooled") & (trends["quantity"] == "gap")]
    rows = rows[(rows["teacher"] == "all") & (rows["level"] == 0.95)].set_index("tokens")
    last = [rows.loc["all", f"last{end}"] for end in ("", "_low", "_high")]
    assert text.count(f"{last[0]:.2f} nats [{last[1]:.2f}, {last[2]:.2f}]") == 2
    slope = [rows.loc["dropped", f"slope{end}"] for end in ("", "_low", "_high")]
    assert f"by {slope[0]:.2f} nats [{slope[1]:.2f}, {slope[2]:.2f}] where the window" in text


def test_coverage_of_long_traces():
    table = pd.read_csv(ROOT / "figures" / "traces" / "coverage.csv")
    rows = table[table["label"] == "steps - responses"].set_index(["data", "candidates"])
    found = {
        key: "{:.3f} [{:.3f}, {:.3f}]".format(*rows.loc[key, ["difference", "low", "high"]])
        for key in rows.index
    }
    many, same = "all candidates", "equal numbers"
    assert f"(GSM8K {found['gsm8k', many]}, MATH {found['math', many]})" in TEXT
    assert f"farther ({found['gsm8k', same]}, {found['math', same]})" in TEXT


def test_bfloat16_beside_float32():
    tables = {}
    for name in ("scores", "bfloat16"):
        path = ROOT / "figures" / "champ" / f"{name}.parquet"
        columns = ["prompt_id", "response_id", "teacher", "lalp@4"]
        tables[name] = pd.read_parquet(path, columns=columns).set_index("response_id")
    exact, near = tables["scores"], tables["bfloat16"].loc[tables["scores"].index]
    moves = (exact["lalp@4"] - near["lalp@4"]).abs()
    said = f"moves by {moves.mean():.3f} nats on average and {moves.max():.3f} at most"
    assert said in TEXT
    chosen = [one.groupby("prompt_id")["lalp@4"].idxmax() for one in (exact, near)]
    assert f"for {(chosen[0] != chosen[1]).sum()} of {len(chosen[0])} prompts another" in TEXT
    # On the prompts that all teachers solved.
    grids = [
        one.reset_index().pivot(index="prompt_id", columns="teacher", values="lalp@4").dropna()
        for one in (exact, near)
    ]
    orders = [list(grid.mean().sort_values().index) for grid in grids]
    assert orders[0] == orders[1]


def test_what_is_said_of_the_second_student_follows_from_its_scores():
    second = pd.read_parquet(ROOT / "figures" / "traces" / "second.parquet")
    first = pd.concat(
        pd.read_parquet(ROOT / "figures" / "traces" / f"{name}.parquet")
        for name in ("gsm8k", "math")
    )
    said = []
    for column in ("galp", "lalp@4"):
        gaps = []
        for scores in (second, first):
            grid = scores.pivot(index="prompt_id", columns="teacher", values=column)
            based = grid[["QwQ-32B", "s1.1-32B", "R1-Distill-Qwen-32B"]].mean(axis=1)
            gaps.append(based - grid["DeepSeek-R1"])
        change = (gaps[0] - gaps[1].loc[gaps[0].index]).to_numpy()
        assert len(change) == 40
        half = stats.t.ppf(0.975, 39) * change.std(ddof=1) / np.sqrt(40)
        said.append(
            f"{change.mean():.2f}_ [{change.mean() - half:.2f}, {change.mean() + half:.2f}]"
        )
    galp, lalp = said
    text = PAGES["results.md"]
    assert f"by {galp.replace('_', ' nats')} under GALP" in text
    assert f"by {lalp.replace('_', '')} under LALP" in text
