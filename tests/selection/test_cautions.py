"""What a ranking warns of, and how sure its first place is."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from lalp.scoring.equations import window_starts
from lalp.scoring.windows import parse_window
from lalp.selection.cautions import ranking_cautions, window_share
from lalp.selection.families import family, relatives
from lalp.selection.ranking import first_place, rank_teachers
from lalp.stats import units_needed
from tests.selection.score_tables import means_table


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-32B-Instruct", "Qwen2.5"),
        ("/models/Qwen2.5-Math-7B", "Qwen2.5"),
        ("qwq_32b", "Qwen2.5"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Qwen2.5"),
        ("simplescaling/s1.1-32B", "Qwen2.5"),
        ("GAIR/LIMO", "Qwen2.5"),
        ("open-thoughts/OpenThinker3-7B", "Qwen2.5"),
        ("Qwen3-32B", "Qwen3"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "Qwen3"),
        ("Qwen3.5-27B", None),
        ("DeepSeek-R1-Distill-Llama-70B", "Llama 3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3"),
        ("DeepSeek-R1", "DeepSeek-V3"),
        ("DeepSeek-V3-0324", "DeepSeek-V3"),
        ("smollm2-135m", "SmolLM2"),
        ("gpt-oss-120b", "gpt-oss"),
        ("Phi-4-mini-instruct", None),
        ("GPT-4", None),
        ("PaLM 2 Medium", None),
        ("Ada", None),
    ],
)
def test_families_by_name(name, expected):
    assert family(name) == expected


def test_models_of_no_known_family_are_no_relatives():
    assert relatives("Ada", ["Ada", "Bob"]) == []
    assert relatives("Qwen2.5-7B", ["QwQ-32B", "Qwen3-32B", "s1-32B"]) == ["QwQ-32B", "s1-32B"]


@pytest.mark.parametrize("window", ["0", "1", "3", "25%", "80%", "100%", "15t", "all"])
def test_the_share_that_a_window_keeps_is_that_of_the_windows_scored(window):
    # Steps of ten tokens each, so that equal lengths are no approximation.
    kept = before = 0
    for number in (1, 2, 5, 9):
        spans = [(10 * k, 10 * k + 10) for k in range(number)]
        starts = window_starts(parse_window(window), spans)
        kept += sum(span[0] - start for start, span in zip(starts, spans, strict=True))
        before += sum(span[0] for span in spans)
    frame = pd.DataFrame({"num_steps": [1, 2, 5, 9]}).assign(num_tokens=lambda f: 10 * f.num_steps)
    assert window_share(frame, f"lalp@{window}") == pytest.approx(kept / before)


def test_galp_and_single_steps_have_no_share():
    frame = pd.DataFrame({"num_steps": [1], "num_tokens": [5]})
    assert math.isnan(window_share(frame, "lalp@4")) and math.isnan(window_share(frame, "galp"))
    assert math.isnan(window_share(frame[["num_tokens"]], "lalp@4"))


def cautions(table: pd.DataFrame, *columns: str) -> list[str]:
    return ranking_cautions(table, {name: rank_teachers(table, name) for name in columns})


def test_a_table_without_a_reason_to_worry_has_no_warning():
    table = means_table({"QwQ-32B": [-1.0] * 30, "GPT-4": [-2.0] * 30})
    table = table.assign(**{"lalp@1": table["galp"], "num_steps": 9})
    table.attrs["student"] = "smollm2-135m"
    assert cautions(table, "galp", "lalp@1") == []
    table.attrs["student"] = "Qwen2.5-7B"
    assert ["QwQ-32B and the student Qwen2.5-7B" in one for one in cautions(table, "galp")] == [
        True
    ]
    # Nobody is put before others where there is one teacher.
    alone = table[table["teacher"] == "QwQ-32B"]
    assert cautions(alone, "galp") == []


def test_few_prompts_and_wide_windows_are_told():
    table = means_table({"A": [-1.0, -2.0], "B": [-1.5, -2.5]})
    table = table.assign(**{"lalp@9": table["galp"] - 1, "lalp@0": table["galp"], "num_steps": 4})
    few, wide = cautions(table, "galp", "lalp@9", "lalp@0")
    assert few.startswith("only 2 prompts in common under galp, lalp@9, lalp@0, fewer than 30")
    assert wide.startswith("window 9 keeps about 100% of the preceding tokens: lalp@9 sees nearly")
    assert wide.endswith("(Kendall tau with GALP within prompts 1.00)")


def test_the_first_place_by_hand():
    # A leads B by 0.1 on average; standard deviation of the gaps 0.2.
    gaps = [0.3, -0.1, 0.3, -0.1] * 5
    table = means_table({"A": [-1.0] * 20, "B": [-1.0 - gap for gap in gaps], "C": [-9.0] * 20})
    place = first_place(table, "galp")
    assert (place.teacher, place.rival, place.num_prompts) == ("A", "B", 20)
    assert place.gap == pytest.approx(0.1)
    expected = stats.ttest_1samp(gaps, 0, alternative="greater").pvalue
    assert place.probability == pytest.approx(1 - expected)
    assert place.is_settled == (expected < 0.025)
    assert place.prompts_needed == units_needed(gaps)
    assert str(place).endswith("a probability of 0.979: settled")
    less = first_place(table[table["prompt_id"].isin([f"p{i}" for i in range(8)])], "galp")
    assert str(less).endswith("about 38 prompts would settle it, if the gap to B stays 0.1000")


def test_a_first_place_that_nothing_can_be_said_of():
    one = first_place(means_table({"A": [-1.0], "B": [-2.0]}), "galp")
    assert (one.teacher, one.is_settled) == ("A", False)
    assert math.isnan(one.probability) and math.isnan(one.prompts_needed)
    tie = first_place(means_table({"A": [-1.0, -2.0], "B": [-2.0, -1.0]}), "galp")
    assert tie.probability == 0.5 and not tie.is_settled and math.isnan(tie.prompts_needed)
    same = first_place(means_table({"A": [-1.0] * 3, "B": [-1.0] * 3}), "galp")
    assert same.probability == 0.5 and not same.is_settled and math.isnan(same.prompts_needed)
    near = [-1.0 + gap for gap in (0.01, -0.3, 0.3, 0.0)]
    alike = first_place(means_table({"A": near, "B": [-1.0] * 4}), "galp")
    assert str(alike).endswith("about 76,000 prompts would settle it, if the gap to B stays 0.0025"
                               ": alike at this precision")  # fmt: skip
    sure = first_place(means_table({"A": [-1.0] * 3, "B": [-2.0] * 3}), "galp")
    assert (sure.probability, sure.is_settled, sure.prompts_needed) == (1.0, True, 2.0)
