"""Contents of the notebook on your own pool, with words for what numbers cannot tell.

A pool may be small, by one teacher, or without verdicts. Then a number is unknown, and a note says
why: no table here holds NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import shorten

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.pools.pool import Pool, pool_summary
from lalp.scoring.columns import GALP, lalp_column, score_columns, score_label
from lalp.selection.cautions import ranking_cautions
from lalp.selection.plots import means_by_window
from lalp.selection.ranking import (
    fewest_prompts,
    first_place,
    prompts_enough,
    rank_teachers,
    teacher_differences,
)
from lalp.selection.rules import agreement, select, teacher_mix
from lalp.selection.table import describe_scores

_PREVIEW = 60  # characters of a prompt


@dataclass(frozen=True)
class Ranked:
    """Teachers by each score that can rank them, with cautions."""

    rankings: dict[str, pd.DataFrame]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """The choice of each rule, and what was left out."""

    selections: dict[str, pd.DataFrame]
    notes: tuple[str, ...]


# --- The pool and its scores -------------------------------------------------------------------


def pool_notes(pool: Pool) -> list[str]:
    """Notes on a pool to read before its scores.

    Example:
        >>> from lalp.pools.reading import load_pool
        >>> record = {"prompt_id": "p", "prompt": "2 + 2?", "teacher": "Ada", "response": "4."}
        >>> pool_notes(load_pool([record]))[0]
        'All responses are by one teacher: there is nothing to rank.'
    """
    summary, notes = pool_summary(pool), []
    of_all = f"of {summary['num_responses']:,} responses"
    if len(summary["responses_by_teacher"]) == 1:
        notes.append("All responses are by one teacher: there is nothing to rank.")
    if number := summary["num_unverified"]:
        why = "wrong ones among them are ranked and chosen like right ones"
        notes.append(f"Not verified: {number:,} {of_all}; {why}.")
    if number := summary["num_incorrect"]:
        notes.append(f"Incorrect: {number:,} {of_all}; they are neither ranked nor chosen.")
    if number := summary["num_duplicate_texts"]:
        notes.append(f"Repeat another one to the same prompt: {number:,} {of_all}.")
    per_prompt = Counter(response.prompt_id for response in pool.responses)
    if number := sum(count == 1 for count in per_prompt.values()):
        notes.append(f"Without a choice: {number:,} of {len(per_prompt):,} prompts.")
    return notes + [f"Left out: {count:,} {why}." for why, count in summary["left_out"].items()]


def score_table(scores: pd.DataFrame) -> pd.DataFrame:
    """`describe_scores` for readers: rounded, and in words if a teacher has no score.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> score_table(example_scores())["GALP"].tolist()
        ['-0.700', '-0.550']
    """
    table = describe_scores(scores)
    forms = dict.fromkeys(score_columns(table), ".3f") | {"num_tokens": ".0f", "num_steps": ".1f"}
    for name in [name for name in forms if name in table]:
        known = table[name].notna()
        shown = [format(value, forms[name]) for value in table[name]]
        table[name] = np.where(known, shown, "not scored")
    names = {name: score_label(name) for name in score_columns(table)}
    names |= {"num_tokens": "mean tokens", "num_steps": "mean steps"}
    # The index has its name in the header's corner, not in a separate row.
    return table.rename(columns=names).rename_axis(index=None, columns="teacher")


def score_notes(scores: pd.DataFrame, most: int = 5) -> list[str]:
    """Which responses lack a score, and why; at most ``most`` reasons.

    Example:
        >>> score_notes(pd.DataFrame({"response_id": ["p/Ada/0"], "reason": ["galp: too long"]}))
        ['Without a score: 1 of 1 responses, p/Ada/0 for example (galp: too long).']
    """
    lacking = scores[scores["reason"].notna()]
    if lacking.empty:
        return []
    reasons = lacking.groupby("reason", sort=False)["response_id"].agg(["first", "size"])
    notes = [
        f"Without a score: {row['size']:,} of {len(scores):,} responses, "
        f"{row['first']} for example ({reason})."
        for reason, row in reasons.head(most).iterrows()
    ]
    return notes + ["Others lack one for other reasons."] * (len(reasons) > most)


def fully_scored(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that have every score and so fit into a figure.

    Example:
        >>> fully_scored(pd.DataFrame({"galp": [-1.0, float("nan")]}))["galp"].tolist()
        [-1.0]
    """
    return scores.dropna(subset=score_columns(scores)).reset_index(drop=True)


# --- Teachers ----------------------------------------------------------------------------------


def rank(scores: pd.DataFrame) -> Ranked:
    """Rank teachers by every score of a table, and state how sure each first place is.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> ranked = rank(example_scores())
        >>> list(ranked.rankings), ranked.notes[0][:57]
        (['galp', 'lalp@4'], 'All 2 prompts have a response of every teacher that count')
    """
    rankings: dict[str, pd.DataFrame] = {}
    failed: list[str] = []
    for column in score_columns(scores):
        try:
            rankings[column] = rank_teachers(scores, column)
        except InputError as error:
            failed.append(f"{score_label(column)}: no ranking. Because {error}.")
    notes = [*_shared(scores, rankings), *failed]
    if scores["teacher"].nunique() > 1:
        notes += [_how_sure(scores, column) for column in rankings]
    notes += [f"Note: {text}." for text in ranking_cautions(scores, rankings)]
    return Ranked(rankings, tuple(notes))


def _shared(scores: pd.DataFrame, rankings: Mapping[str, pd.DataFrame]) -> list[str]:
    """The number of prompts behind each ranking."""
    total = scores["prompt_id"].nunique()
    numbers = sorted({table.attrs["num_prompts"] for table in rankings.values()})
    if not numbers:
        return []
    counted = " or ".join(f"{number:,}" for number in numbers)
    shown = f"All {total:,}" if numbers == [total] else f"{counted} of {total:,}"
    return [f"{shown} prompts have a response of every teacher that counts: scored, not incorrect."]


def _how_sure(scores: pd.DataFrame, column: str) -> str:
    place = first_place(scores, column)
    text = f"{score_label(column)}: {place}."
    if place.num_prompts < 2:
        return text
    fewest = fewest_prompts(prompts_enough(scores, column))
    # A number that is not equal to itself is NaN: no size is enough.
    some = f"{fewest:,.0f}" if fewest == fewest else f"No number up to {place.num_prompts:,} of"
    return f"{text} {some} prompts like these name the same first teacher in 95 % of draws."


def ranking_table(rankings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rankings one below the other, for readers.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> ranking_table(rank(example_scores()).rankings).iloc[0].tolist()
        ['GALP', '1', 'Bob', '-0.550', '[-2.456, 1.356]', '100 %']
    """
    rows = []
    for column, table in rankings.items():
        is_known = table.attrs["num_prompts"] > 1
        for row in table.itertuples():
            interval = _interval(row) if is_known else "one prompt: not known"
            first = f"{100 * row.p_top:.0f} %" if is_known else "not known"
            mean = f"{row.mean:.3f}"
            rows.append((score_label(column), str(row.rank), row.teacher, mean, interval, first))
    names = ["score", "rank", "teacher", "mean", "95 % interval", "first in resamples"]
    return pd.DataFrame(rows, columns=names)


def by_window(rankings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rankings in one table for `plot_window_sweep`: windows as given, with GALP at the end.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> by_window(rank(example_scores()).rankings)["window"].unique().tolist()
        ['4', 'GALP']
    """
    last = sorted(rankings, key=lambda column: column == GALP)
    return means_by_window({column: rankings[column] for column in last})


def difference_table(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Pairs of teachers with a clear order under a score: a row for each pair, for readers.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> difference_table(example_scores(), "galp").iloc[0].tolist()
        ['Bob', 'Ada', '0.150', '[-0.485, 0.785]', 'no']
    """
    pairs = teacher_differences(scores, column)
    is_known = pairs.attrs["num_prompts"] > 1
    rows = [
        (
            *(row.higher, row.lower, f"{row.difference:.3f}"),
            *((_interval(row), "yes" if row.resolved else "no") if is_known else _NOT_KNOWN),
        )
        for row in pairs.itertuples()
    ]
    return pd.DataFrame(rows, columns=["higher", "lower", "by", "95 % interval", "resolved"])


_NOT_KNOWN = ("one prompt: not known", "not known")


def _interval(row: tuple) -> str:
    return f"[{row.low:.3f}, {row.high:.3f}]"


# --- Selection ---------------------------------------------------------------------------------


def choose(scores: pd.DataFrame, window: str) -> Chosen:
    """The choices of a random rule, GALP and LALP for each prompt.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> chosen = choose(example_scores(), "4")
        >>> {rule: list(rows["response_id"]) for rule, rows in chosen.selections.items()}["GALP"]
        ['p2', 'q2']
    """
    column = lalp_column(window)
    selections, notes = {}, []
    for name, rule in (("random", "random"), ("GALP", "galp"), (score_label(column), "lalp")):
        try:
            rows = select(scores, rule, window, skip_unscored=True)
        except InputError as error:
            notes.append(f"{name}: no selection. Because {error}.")
            continue
        selections[name] = rows
        counts = {w: n for w, n in rows.attrs["left_out"].items() if w != "incorrect responses"}
        left_out = [f"{count:,} {why}" for why, count in counts.items()]
        notes += [f"{name} leaves out {', '.join(left_out)}."] if left_out else []
    return Chosen(selections, tuple(notes))


def choice_table(selections: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each rule: number of responses, their teachers, and agreement with the last rule.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> choice_table(choose(example_scores(), "4").selections).loc["GALP"].tolist()
        ['2', '15', 'Bob 100 %', '0 %']
    """
    names = list(selections)
    rows = {}
    for name, selected in selections.items():
        mix = teacher_mix(selected)["percent"].sort_values(ascending=False, kind="stable")
        rows[name] = {
            "responses": f"{len(selected):,}",
            "mean tokens": _mean(selected["num_tokens"]),
            "teachers": ", ".join(f"{teacher} {share:.0f} %" for teacher, share in mix.items()),
            f"same choice as {names[-1]}": _agreement(selected, selections[names[-1]]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def choice_list(selected: pd.DataFrame, pool: Pool, column: str, most: int = 10) -> pd.DataFrame:
    """The first responses of a selection, each with its prompt's first words, for readers."""
    rows = selected.head(most)
    prompts = [pool.prompts[name].messages[-1].content for name in rows["prompt_id"]]
    return pd.DataFrame(
        {
            "prompt": [shorten(text, _PREVIEW, placeholder=" ...") for text in prompts],
            "response": rows["response_id"],
            score_label(column): [f"{score:.3f}" for score in rows[column]],
        }
    )


def _mean(values: pd.Series) -> str:
    return "not known" if values.isna().all() else f"{values.mean():,.0f}"


def _agreement(first: pd.DataFrame, second: pd.DataFrame) -> str:
    if set(first["prompt_id"]).isdisjoint(second["prompt_id"]):
        return "no prompt in common"
    return f"{100 * agreement(first, second):.0f} %"


# --- In short ----------------------------------------------------------------------------------


def in_short(scores: pd.DataFrame, ranked: Ranked, chosen: Chosen, window: str) -> str:
    """The findings in three sentences, as an HTML list.

    Example:
        >>> from lalp.selection.table import example_scores
        >>> scores = example_scores()
        >>> print(in_short(scores, rank(scores), choose(scores, "4"), "4"))
        <ul>
        <li><b>Teachers.</b> By GALP, the teacher Bob is first (not settled). By LALP, w = 4, the teacher Ada is first (not settled).</li>
        <li><b>Choice.</b> GALP and LALP, w = 4 choose the same response to 0 % of the prompts.</li>
        <li><b>Mix.</b> GALP takes 100 % of its responses from Bob. LALP, w = 4 takes 100 % of its responses from Ada.</li>
        </ul>
    """  # noqa: E501
    columns = [GALP, lalp_column(window)]
    sentences = {
        "Teachers": _first_places(scores, [c for c in columns if c in ranked.rankings]),
        "Choice": _same_choice(chosen, [score_label(column) for column in columns]),
        "Mix": _most_chosen(chosen, [score_label(column) for column in columns]),
    }
    items = (f"<li><b>{name}.</b> {escape(text)}</li>" for name, text in sentences.items())
    return "\n".join(["<ul>", *items, "</ul>"])


def _first_places(scores: pd.DataFrame, columns: Sequence[str]) -> str:
    if scores["teacher"].nunique() == 1:
        return "All responses are by one teacher, so there is nothing to rank."
    found = []
    for column in columns:
        place = first_place(scores, column)
        sure = "settled" if place.is_settled else "not settled"
        sure = sure if place.num_prompts > 1 else "on one prompt, so nobody can say how sure"
        found.append(f"By {score_label(column)}, the teacher {place.teacher} is first ({sure}).")
    return " ".join(found) or "No score ranks the teachers."


def _same_choice(chosen: Chosen, rules: Sequence[str]) -> str:
    one, other = (chosen.selections.get(rule) for rule in rules)
    if one is None or other is None:
        return "The two rules cannot be compared: one of them chooses nothing."
    if set(one["prompt_id"]).isdisjoint(other["prompt_id"]):
        return f"{rules[0]} and {rules[1]} choose for different prompts."
    return (
        f"{rules[0]} and {rules[1]} choose the same response to {_agreement(one, other)} of the "
        "prompts."
    )


def _most_chosen(chosen: Chosen, rules: Sequence[str]) -> str:
    found = []
    for rule in rules:
        if rule in chosen.selections:
            mix = teacher_mix(chosen.selections[rule])["percent"]
            share = f"{mix.max():.0f} % of its responses"
            found.append(f"{rule} takes {share} from {mix.idxmax()}.")
    return " ".join(found) or "No rule chooses a response."
