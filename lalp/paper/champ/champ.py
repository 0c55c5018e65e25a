"""CHAMP as a pool of verified solutions by four teachers.

CHAMP (champ-dataset 1.0.0) holds 270 competition problems and, for each, conversations with
GPT-3.5, GPT-4, GPT-4 Turbo and PaLM 2 Medium under 18 prompt settings. Every conversation ends with
the solution, a request to sum it up, and a one-sentence answer. In the settings "Name C" and
"Example C", other model turns that explain concepts come first.

Only the one-sentence answer is verified: `lalp.paper.champ.sentences.extract_from_sentence` reads
it, and the result is compared with the problem's reference. The solution's own steps are not
checked, but a solution that never mentions the number in its summary is left out. Problems whose
reference is not a mathematical expression ("Yes", "No integer solutions") are left out too, because
a guess is often right.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lalp.assets import Asset, locate
from lalp.errors import InputError
from lalp.files import read_data
from lalp.grading.workers import Answer, grade_answers
from lalp.paper.champ.sentences import extract_from_sentence
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.writing import save_pool
from lalp.stats import check_count, wilson_interval

_ASSET = Asset("champ_dataset", "champ-dataset==1.0.0", "dataset_files/v0.json", 72_586_598)
_FACTS = read_data("paper/champ/champ.yaml")

SETTINGS: tuple[str, ...] = tuple(_FACTS["settings"])
"""Settings that give whole solutions, the one with the least help first."""

PARTIAL_SETTINGS: tuple[str, ...] = tuple(_FACTS["partial_settings"])
"""Settings in which the teacher continues a partial solution."""


def load_champ_attempts(path: Path | None = None) -> pd.DataFrame:
    """All attempts in CHAMP's JSON file, one row per problem, teacher and setting, in file order.

    The default ``path`` is the file of the package `champ_dataset`. ``prompt`` is the problem's
    text, ``answer`` its reference, ``response`` the solution, ``final_answer`` one sentence. The
    last two and ``reason_unusable`` are missing values if there is none. InputError if the package
    is missing, or the file is not CHAMP's.
    """
    path = path or locate(_ASSET)
    try:
        problems = json.loads(path.read_text(encoding="utf-8"))["problems"]
        rows = []
        for name, problem in problems.items():
            facts = (name, problem["_text"], problem["_answer"], problem["category"])
            for key, conversation in problem["conversations"].items():
                teacher, setting = key.split("|")
                found = _final_turns(conversation["messages"], teacher)
                rows.append((*facts, teacher, setting, *found))
        columns = ["prompt_id", "prompt", "answer", "category", "teacher", "setting"]
        columns += ["response", "final_answer", "reason_unusable"]
        attempts = pd.DataFrame(rows, columns=columns)
        if attempts.empty:
            raise ValueError("it holds no attempts")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path}: not CHAMP's v0.json ({type(error).__name__}: {error}); "
            "install champ-dataset==1.0.0 anew or give another file"
        ) from error
    return attempts


def _final_turns(
    messages: Sequence[Mapping[str, Any]], teacher: str
) -> tuple[str | None, str | None, str | None]:
    """The solution, the one-sentence answer after it, and any reason not to use them."""
    turns = [message for message in messages if message["role"].startswith("Model.")][-2:]
    if len(turns) < 2:
        return None, None, "the conversation has no solution and answer"
    solution, final = (turn["text"] if (turn["text"] or "").strip() else None for turn in turns)
    reason = None
    if any(turn.get("error") for turn in turns):
        reason = "the solution was cut off at the teacher's length limit"
    elif solution is None or final is None:
        reason = "the solution or its answer is empty"
    elif teacher in _FACTS["unreported_limit"] and not looks_finished(solution):
        reason = "the solution breaks off"
    return solution, final, reason


def looks_finished(text: str) -> bool:
    """Whether a solution ends like a finished text: with a sentence or a closed formula.

    A text with an open code block, LaTeX environment or drawing is not finished.
    """
    text = text.rstrip()
    pairs = (("\\begin{", "\\end{"), ("[asy]", "[/asy]"))
    if text.count("```") % 2 or any(text.count(a) != text.count(b) for a, b in pairs):
        return False
    if text.endswith((".", "?")):
        return not text.endswith("...")
    closed = re.sub(r"\\\$", "", text).count("$") % 2 == 0
    return closed and text.endswith(("!", "$", ")", "]", "}", "`", '"', "|"))


def reference_expressions(answer: str) -> tuple[str, ...]:
    """The equivalent expressions that may state a CHAMP reference.

    "C(10, 5), or equivalently 252" gives both; "At most 0 roots (i.e., no roots)" and "0 is the
    only possible value" give "0". Empty if the reference is a statement, not an expression.
    """
    if re.match(_FACTS["statement"], answer):
        return ()
    for around, expression in _FACTS["around_reference"].items():
        answer = re.sub(around, expression, answer)
    return tuple(re.split(_FACTS["alternatives"], answer))


def grade_champ(attempts: pd.DataFrame, cache_dir: Path) -> pd.DataFrame:
    """Grade the final answer of every usable attempt of `load_champ_attempts`.

    ``champ_grades.jsonl`` in ``cache_dir`` keeps the grades. Three columns are new: ``extracted``,
    the answer that was read (missing if none); ``outcome``: ``correct``, ``wrong``, ``no answer``,
    ``timeout``, ``error``, ``unusable`` (see ``reason_unusable``) or ``not gradable`` (the
    reference is a statement); and ``correct``.
    """
    golds = attempts["answer"].map(reference_expressions)
    usable, gradable = attempts["reason_unusable"].isna(), golds.map(bool)
    sentences = zip(attempts["final_answer"], attempts["prompt"], usable & gradable, strict=True)
    texts = [extract_from_sentence(*each) if is_read else None for *each, is_read in sentences]
    read = list(zip(attempts["prompt"], golds, texts, strict=True))
    # The grader takes boxed text as it is.
    answers = [
        Answer(gold, rf"\boxed{{{text}}}") for _, each, text in read if text for gold in each
    ]
    grades = grade_answers(answers, cache=cache_dir / "champ_grades.jsonl")
    outcomes = {answer: grade.outcome for answer, grade in zip(answers, grades, strict=True)}
    found = [_outcome(*each, outcomes) for each in read]
    outcome = pd.Series(found, attempts.index, dtype="str")
    outcome = outcome.where(gradable, "not gradable").where(usable, "unusable")
    extracted = pd.Series(texts, attempts.index, dtype="str")
    return attempts.assign(extracted=extracted, outcome=outcome, correct=outcome == "correct")


def _outcome(
    prompt: str, golds: Sequence[str], text: str | None, outcomes: Mapping[Answer, str]
) -> str:
    """The outcome of an attempt that states ``text``: its best under any of the references."""
    each = [outcomes[Answer(gold, rf"\boxed{{{text}}}")] for gold in golds if text]
    if "correct" not in each:
        return next(iter(each), "no answer")
    # x^4-1 equals its factorization, but is not one.
    is_whole = not prompt.startswith("Factorize") or num_factors(text) >= num_factors(golds[0])
    return "correct" if is_whole else "wrong"


def num_factors(product: str) -> int:
    """The number of bracketed factors of a product; 0 if it is not a product of such factors."""
    text = re.sub(r"\\(?:left|right|cdot|times)|[\s*]", "", product.split("=")[-1])
    count = depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth == 0 and character not in ")]":
            return 0
        count += depth == 0
    return count


def teacher_accuracy(graded: pd.DataFrame) -> pd.DataFrame:
    """Verified accuracy of each teacher, over all settings and at 0-Shot.

    An attempt is gradable if its problem's reference is an expression. Gradable attempts that were
    cut off or state no readable answer count as not correct. A row per teacher and ``settings``
    ("all", "0-Shot") holds counts, ``accuracy`` and its 95 % Wilson interval. Over all settings,
    the same problems are attempted many times, so that interval is too narrow.
    """
    table = graded.assign(
        attempts=1,
        usable=graded["reason_unusable"].isna(),
        gradable=graded["answer"].map(reference_expressions).map(bool),
        settings="all",
    )
    table = pd.concat([table, table[table["setting"] == "0-Shot"].assign(settings="0-Shot")])
    grouped = table.groupby(["teacher", "settings"], sort=False)
    found = grouped[["attempts", "usable", "gradable", "correct"]].sum().reset_index()
    found["accuracy"] = found["correct"] / found["gradable"]
    trials = zip(found["accuracy"], found["gradable"], strict=True)
    found[["low", "high"]] = [wilson_interval(*trial) for trial in trials]
    return found


def build_champ_pool(graded: pd.DataFrame) -> Pool:
    """Correct solutions of the problems that at least two teachers solved.

    The prompt is only the problem's text, as one user message, even if the teacher was told more.
    Responses come in the order of problems and teachers in the file, then of ``SETTINGS``. If texts
    by one teacher for one problem are equal, the first in that order is kept. The pool's
    ``left_out`` counts every other attempt of ``graded`` (see `grade_champ`), by reason.
    """
    # The order of the file, which need not be alphabetical.
    teachers, problems = (pd.factorize(graded[name])[0] for name in ("teacher", "prompt_id"))
    ordered = graded.iloc[np.lexsort((graded["setting"].map(_rank), teachers, problems))]
    reasons = pd.Series([_why_left_out(row) for row in ordered.itertuples()], ordered.index, object)
    kept = ordered[reasons.isna()]
    repeats = kept[kept.duplicated(["prompt_id", "teacher", "response"])].index
    reasons[repeats] = "the teacher gave the same text in another setting"
    kept = kept.drop(repeats)
    alone = kept.groupby("prompt_id")["teacher"].transform("nunique") < 2
    left_out = Counter(reasons.dropna())
    left_out["fewer than two teachers solved the problem"] += int(alone.sum())
    kept = kept[~alone]
    prompts = {
        row.prompt_id: Prompt(row.prompt_id, (Message("user", row.prompt),), row.answer)
        for row in kept.drop_duplicates("prompt_id").itertuples()
    }
    responses = []
    for row in kept.itertuples():
        name = f"{row.prompt_id}/{row.teacher}/{row.setting}"
        extra = {"setting": row.setting, "category": row.category}
        responses.append(Response(name, row.prompt_id, row.teacher, row.response, True, extra))
    return Pool(prompts, tuple(responses), {reason: n for reason, n in left_out.items() if n})


def _rank(setting: Any) -> int:
    """A setting's place in `SETTINGS`; others come last."""
    return SETTINGS.index(setting) if setting in SETTINGS else len(SETTINGS)


def _why_left_out(row: Any) -> str | None:
    """Why an attempt cannot be in the pool, whatever the other attempts are."""
    if row.outcome == "unusable":
        return row.reason_unusable
    if row.outcome != "not gradable" and row.setting in PARTIAL_SETTINGS:
        return "the teacher was given a part of the solution"
    if row.outcome == "correct" and not _mentions_answer(row):
        return "the solution never mentions the number that its summary states"
    return _FACTS["left_out"].get(row.outcome)


def _mentions_answer(row: Any) -> bool:
    """Whether the solution holds the answer, if that is a number of two digits or more.

    A teacher sometimes corrects itself in the summary, and then the solution itself is wrong. "All
    100 values" needs no number, and smaller ones may be words.
    """
    number = re.search(r"(?:^|=\s*)(\d[\d,]*\d)$", row.extracted)
    if number is None or "all" in row.answer:
        return True
    digits = number[1].replace(",", "")
    text = row.response.replace("{,}", "").replace(",", "")
    return re.search(rf"(?<!\d){digits}(?!\d)", text) is not None


def champ_pool(cache_dir: Path) -> tuple[Pool, pd.DataFrame]:
    """The packaged CHAMP as a verified pool, and all its graded attempts.

    ``champ_pool.jsonl`` is written to ``cache_dir``, beside the grades, so a later call only
    compares new attempts.
    """
    graded = grade_champ(load_champ_attempts(), cache_dir)
    pool = build_champ_pool(graded)
    saved, fresh = cache_dir / "champ_pool.jsonl", cache_dir / "champ_pool.new.jsonl"
    save_pool(pool, fresh)
    if saved.is_file() and saved.read_bytes() == fresh.read_bytes():
        fresh.unlink()  # a newer file would make `make` work again
    else:
        fresh.replace(saved)
    return pool, graded


def pick_candidates(pool: Pool, num_prompts: int, per_teacher: int = 1, seed: int = 0) -> Pool:
    """A smaller pool that still has every teacher on as many prompts as possible.

    Prompts with the most teachers come first; ties are in an order shuffled by ``seed``. At most
    ``per_teacher`` of each teacher's responses to a prompt are kept: the first ones in the order of
    `SETTINGS` by their extra field ``setting``. Other settings come last, in pool order.
    ``left_out`` also counts the responses that are not picked.
    """
    check_count("num_prompts", num_prompts)
    check_count("per_teacher", per_teacher)
    keys = [(r.prompt_id, r.teacher, _rank(r.extra.get("setting"))) for r in pool.responses]
    rows = pd.DataFrame(keys, columns=["prompt", "teacher", "rank"])
    counts = rows.groupby("prompt", sort=False)["teacher"].nunique()
    shuffled = counts.iloc[np.random.default_rng(seed).permutation(len(counts))]
    picked = shuffled.sort_values(ascending=False, kind="stable").index[:num_prompts]
    of_picked = rows[rows["prompt"].isin(picked)]
    ordered = of_picked.sort_values("rank", kind="stable")
    chosen = ordered.groupby(["prompt", "teacher"]).head(per_teacher).index.sort_values()
    left_out = Counter(pool.left_out)
    left_out["prompt not picked"] += len(rows) - len(of_picked)
    left_out[f"beyond {per_teacher} per teacher and prompt"] += len(of_picked) - len(chosen)
    return replace(
        pool,
        prompts={key: prompt for key, prompt in pool.prompts.items() if key in picked},
        responses=tuple(pool.responses[i] for i in chosen),
        left_out={reason: count for reason, count in left_out.items() if count},
    )
