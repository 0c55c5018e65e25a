"""What notebooks share: a profile's pool, candidates and scores, and the verdicts on them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lalp.analysis.attribution import (
    CATEGORIES,
    KINDS,
    REASONING_BEARING,
    compare_settings,
    label_tokens,
    share_table,
    summarize_settings,
    sweep_shares,
    token_table,
)
from lalp.analysis.conditioning import (
    SEEN,
    TOY_FORMS,
    Estimate,
    compare_trends,
    example_pool,
    example_table,
    gap_shares,
    match_controls,
    occurrence_rises,
    occurrence_table,
    position_curves,
    position_trends,
    shuffle_steps,
    spread_estimates,
    token_frame,
    top_agreement,
    toy_table,
)
from lalp.analysis.coverage import (
    ALL,
    ALL_CANDIDATES,
    CHUNKS,
    EQUAL_NUMBERS,
    PAPER_PAIRS,
    PIECES,
    RESPONSES,
    STEPS,
    Contrast,
    Interval,
    Level,
    assign_folds,
    excerpt,
    group_table,
    mean_interval,
    nearness_by_prompt,
    permute_lengths,
    similarity_sweep,
)
from lalp.analysis.splitters import (
    centered_means,
    compare_splitters,
    splitter_column,
    weigh_responses,
)
from lalp.assets import build_dir
from lalp.champ import champ_pool, pick_candidates, teacher_accuracy
from lalp.embeddings import load_embeddings
from lalp.profiles import Profile
from lalp.records import InputError, Pool, atomic_path, load_pool
from lalp.reference import (
    FIGURES,
    STUDENT_7B,
    STUDENT_32B,
    TABLES,
    VERDICTS,
    ReferenceFigure,
    ReferenceTable,
    Verdict,
    cited_items,
    paper_teacher_order,
    verdict_table,
)
from lalp.segmentation import Span
from lalp.selection import (
    agreement,
    prompts_enough,
    rank_teachers,
    select,
    select_random_matched,
    tau_interval,
    teacher_differences,
    teacher_mix,
)
from lalp.steps import chunk_size, split_pool
from lalp.store import group_responses, make_tasks, score
from lalp.students import load_config, load_tokenizer, max_positions
from lalp.variants import (
    LOWER_IS_BETTER,
    VARIANTS,
    add_variants,
    variant_column,
    within_prompt_correlations,
)

PAPER_STUDENTS = (STUDENT_7B, STUDENT_32B)
# The notebook that collects what the others say.
_COLLECTOR = "09_paper_vs_run"
_PAPER_ITEMS: tuple[tuple[str, ReferenceTable | ReferenceFigure], ...] = (
    *(("Table", TABLES[str(number)]) for number in range(1, 20)),
    *(("Fig.", figure) for figure in FIGURES.values()),
)


def profile_pool(profile: Profile) -> tuple[Pool, pd.DataFrame | None]:
    """The profile's pool; for CHAMP also every graded attempt.

    Raises:
        InputError: If a pool file is missing or malformed.
    """
    if profile.pool == "champ":
        return champ_pool(build_dir() / "champ")
    return load_pool(build_dir().parent / profile.pool), None


def profile_accuracy(graded: pd.DataFrame | None) -> pd.DataFrame:
    """Each teacher's own verified accuracy (CHAMP only; empty for other pools)."""
    return pd.DataFrame() if graded is None else teacher_accuracy(graded)


def profile_scores(
    profile: Profile, pool: Pool, *, sweep: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Scores of the profile's candidates, from the store where they are done.

    The main ones hold per-token log-probabilities as well.

    Args:
        profile: The run's profile.
        pool: The profile's pool.
        sweep: The windows and prompts of Fig. 3 instead of the main ones.
        seed: For the choice of prompts; the sweep's prompts are the first of the main ones.
    """
    num_prompts = profile.sweep_prompts if sweep else profile.num_prompts
    candidates = pick_candidates(pool, num_prompts, profile.responses_per_teacher, seed)
    windows = profile.sweep_windows if sweep else profile.windows
    # Token columns for the main windows: other notebooks look at single tokens.
    return score(
        candidates, profile.student, windows, splitter=profile.splitter, with_tokens=not sweep
    )


def measure_lengths(profile: Profile, pool: Pool) -> pd.DataFrame:
    """Tokens and steps of every response, under the profile's tokenizer and splitter."""
    tokenizer = load_tokenizer(profile.student)
    limit = max_positions(load_config(profile.student))
    return pd.DataFrame(
        {
            "prompt_id": response.prompt_id,
            "teacher": response.teacher,
            "num_tokens": task.num_tokens,
            "num_steps": len(task.step_spans),
            "num_characters": len(response.text),
        }
        for group in group_responses(pool, tokenizer, profile.splitter)
        for response, task in zip(
            group.responses, make_tasks(group, tokenizer, profile.splitter, limit), strict=True
        )
    )


def pool_verdicts(lengths: pd.DataFrame) -> list[Verdict]:
    """What this run says on the paper's description of its responses (Secs. 3.2 and 4)."""
    medians = lengths.groupby("teacher")["num_tokens"].median()
    shortest, longest = medians.min(), medians.max()
    return [
        Verdict(
            "Teachers differ in verbosity (Sec. 4)",
            "substantially",
            f"median tokens per response {shortest:.0f} to {longest:.0f}",
            "holds" if longest > 1.5 * shortest else "does not hold",
            "held to hold from a factor of 1.5 on",
            where="Sec. 4",
        ),
        Verdict(
            "Traces are long (Sec. 3.2)",
            "over 12,000 tokens",
            f"{lengths['num_tokens'].max()} tokens at most",
            "holds" if medians.min() > 12_000 else "not testable at this scale",
            "the paper's teachers think aloud at length",
            where="Sec. 3.2",
        ),
    ]


def save_verdicts(verdicts: Sequence[Verdict], notebook: str, profile: str) -> pd.DataFrame:
    """Keep a notebook's verdicts for `09_paper_vs_run`; returns them as a table.

    Args:
        verdicts: In the order to show.
        notebook: Its name without suffix, for example ``01_coverage``.
        profile: The run's profile.
    """
    table = verdict_table(verdicts)
    with atomic_path(build_dir() / profile / "verdicts" / f"{notebook}.json") as temporary:
        table.to_json(temporary, orient="records", indent=1)
    return table.drop(columns="where")


def rank_by_column(
    scores: pd.DataFrame, columns: Sequence[str], profile: Profile, seed: int
) -> dict[str, pd.DataFrame]:
    """`rank_teachers` for several score columns."""
    return {
        column: rank_teachers(scores, column, num_resamples=profile.num_resamples, seed=seed)
        for column in columns
    }


def window_means(sweep: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Teacher means and ranks for each window of Fig. 3, and for GALP at the end."""
    columns = [f"lalp@{window}" for window in profile.sweep_windows] + ["galp"]
    tables = rank_by_column(sweep, columns, profile, seed)
    return pd.concat(
        [
            table.assign(window="GALP" if column == "galp" else column.removeprefix("lalp@"))
            for column, table in tables.items()
        ],
        ignore_index=True,
    )


def order_table(rankings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Teachers from highest to lowest under each score, and the means that order them."""
    return pd.DataFrame(
        [
            {
                "score": column,
                "order": " > ".join(table["teacher"]),
                "means": ", ".join(f"{mean:.3f}" for mean in table["mean"]),
            }
            for column, table in rankings.items()
        ]
    )


def select_all(scores: pd.DataFrame, window: str, seed: int) -> dict[str, pd.DataFrame]:
    """Every rule's selection, and the controls matched on teacher mix (paper, Tables 3 and 8)."""
    chosen = {
        "random": select(scores, "random", seed=seed),
        "lalp-lowest": select(scores, "lalp-lowest", window),
        "galp": select(scores, "galp"),
        "lalp": select(scores, "lalp", window),
    }
    if "lalp@all" in scores:
        chosen["lalp@all"] = select(scores, "lalp", "all")
    for rule in ("galp", "lalp"):
        chosen[f"random, mix of {rule}"] = select_random_matched(scores, chosen[rule], seed=seed)
    return chosen


def mix_table(selections: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Percent of responses per teacher, a row per selection (paper, Table 8)."""
    mixes = {rule: teacher_mix(chosen)["percent"] for rule, chosen in selections.items()}
    return pd.DataFrame(mixes).T.fillna(0.0).sort_index(axis=1)


def agreement_table(selections: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Share of prompts for which two rules choose the same response."""
    return pd.DataFrame(
        [[agreement(a, b) for b in selections.values()] for a in selections.values()],
        index=list(selections),
        columns=list(selections),
    )


def selection_verdicts(
    scores: pd.DataFrame, sweep: pd.DataFrame, profile: Profile, seed: int
) -> list[Verdict]:
    """What this run says on the claims of Secs. 6 and 7.1, and Tables 2, 3 and 8."""
    column = f"lalp@{profile.main_window}"
    return [
        _order_verdict(scores, column, profile, seed),
        _sweep_verdict(sweep, profile, seed),
        _level_verdict(scores, column),
        _enough_verdict(scores, column, profile, seed),
        _mix_verdict(scores, profile, seed),
        Verdict(
            "Data selected by LALP gives a more accurate student than data selected by GALP",
            _paper_gain(),
            "no student was trained here",
            "not run",
            "selection only; training and accuracy are another experiment",
            where="Table 3",
        ),
    ]


def _order_verdict(scores: pd.DataFrame, column: str, profile: Profile, seed: int) -> Verdict:
    tau = tau_interval(scores, "galp", column, num_resamples=profile.num_resamples, seed=seed)
    orders = [" > ".join(rank_teachers(scores, name)["teacher"]) for name in ("galp", column)]
    paper = [" > ".join(paper_teacher_order(STUDENT_7B, name)) for name in ("GALP", "LALP")]
    if orders[0] != orders[1]:
        verdict = "holds" if tau.high < 1 else "not resolved"
    else:
        verdict = "does not hold" if tau.low == 1 else "not resolved"
    return Verdict(
        "LALP and GALP order the teachers differently (Table 2, Fig. 1)",
        f"GALP {paper[0]}; LALP {paper[1]}",
        f"GALP {orders[0]}; LALP {orders[1]}; Kendall tau {tau.tau:.2f} "
        f"[{tau.low:.2f}, {tau.high:.2f}]",
        verdict,
        f"{tau.num_prompts} prompts in common; the interval "
        + ("excludes" if tau.high < 1 else "includes")
        + " the same order (tau 1)",
        where="Table 2, Fig. 1",
    )


def _sweep_verdict(sweep: pd.DataFrame, profile: Profile, seed: int) -> Verdict:
    windows = profile.sweep_windows
    taus = [
        tau_interval(sweep, "galp", f"lalp@{w}", num_resamples=profile.num_resamples, seed=seed)
        for w in windows
    ]
    rising = all(a.tau <= b.tau for a, b in itertools.pairwise(taus))
    if taus[0].tau < taus[-1].tau and rising:
        verdict = "holds" if taus[0].high < 1 else "not resolved"
    else:
        verdict = "not resolved" if taus[0].high == 1 and taus[0].low < 1 else "does not hold"
    return Verdict(
        "As the window grows, the order of teachers under LALP turns into GALP's (Fig. 3)",
        "small windows differ from GALP, large ones agree with it",
        "Kendall tau with GALP: "
        + ", ".join(f"{w} {tau.tau:.2f}" for w, tau in zip(windows, taus, strict=True)),
        verdict,
        f"{taus[0].num_prompts} prompts in common; at {windows[0]} the interval is "
        f"[{taus[0].low:.2f}, {taus[0].high:.2f}]",
        where="Fig. 3",
    )


def _level_verdict(scores: pd.DataFrame, column: str) -> Verdict:
    paper = TABLES["2"].frame.loc[STUDENT_7B]
    above = (scores[column] > scores["galp"]).mean()
    return Verdict(
        "LALP values lie above GALP values (Table 2)",
        f"GALP {paper['GALP'].min():.2f} to {paper['GALP'].max():.2f}, "
        f"LALP {paper['LALP'].min():.2f} to {paper['LALP'].max():.2f}",
        f"GALP {scores['galp'].mean():.2f}, LALP {scores[column].mean():.2f} on average; "
        f"LALP is above GALP for {above:.0%} of responses",
        "holds" if above > 0.5 else "does not hold",
        "less context makes tokens less likely, so Eq. 3 as written puts LALP below GALP; the "
        "paper's Fig. 5 says so as well",
        where="Table 2",
    )


def _enough_verdict(scores: pd.DataFrame, column: str, profile: Profile, seed: int) -> Verdict:
    curve = prompts_enough(scores, column, seed=seed)
    total = int(curve["num_prompts"].max())
    enough = int(curve.query("order_share >= 0.95")["num_prompts"].min())
    pairs = teacher_differences(scores, column, num_resamples=profile.num_resamples, seed=seed)
    resolved = bool(pairs["resolved"].all())
    verdict = "holds" if enough / total <= 200 / 817 else "does not hold"
    return Verdict(
        "A quarter of the prompts gives the order of all (Sec. 7.1)",
        "200 of 817 prompts",
        f"{enough} of {total} prompts give LALP's full order in 95 % of draws",
        verdict if resolved else "not resolved",
        f"{int(pairs['resolved'].sum())} of {len(pairs)} pairs of teachers differ beyond their "
        "intervals; close teachers need many prompts",
        where="Sec. 7.1",
    )


def _mix_verdict(scores: pd.DataFrame, profile: Profile, seed: int) -> Verdict:
    chosen = select_all(scores, profile.main_window, seed)
    mix = mix_table({rule: chosen[rule] for rule in ("galp", "lalp")})
    moved = _moved(mix)
    chance = _chance_of_moving(chosen["galp"], chosen["lalp"], profile.num_resamples, seed)
    same = agreement(chosen["galp"], chosen["lalp"])
    percents = {
        rule: ", ".join(f"{teacher} {value:.0f}" for teacher, value in mix.loc[rule].items())
        for rule in mix.index
    }
    return Verdict(
        "LALP takes its responses from other teachers than GALP (Table 8)",
        f"{_paper_moves()} of 100 responses change their teacher at least (7B, 32B)",
        f"GALP {percents['galp']}; LALP {percents['lalp']} (%); "
        f"the same response for {same:.0%} of prompts",
        "holds" if chance < 0.05 else "not resolved",
        f"{moved:.0f} of 100 responses change their teacher at least; two rules of equal taste "
        f"would differ as much with probability {chance:.2f}",
        where="Table 8",
    )


def _moved(mix: pd.DataFrame) -> float:
    """Percent of responses that change their teacher at least between GALP and LALP."""
    return float((mix.loc["galp"] - mix.loc["lalp"]).abs().sum() / 2)


def _chance_of_moving(
    galp: pd.DataFrame, lalp: pd.DataFrame, num_resamples: int, seed: int
) -> float:
    """How often two rules of equal taste would differ in mix as much as these (permutation test).

    Which rule made which of the two choices for a prompt is drawn anew, prompt by prompt.
    """
    teachers = sorted({*galp["teacher"], *lalp["teacher"]})
    both = galp[["prompt_id", "teacher"]].merge(lalp[["prompt_id", "teacher"]], on="prompt_id")
    codes = [pd.Categorical(both[f"teacher_{s}"], categories=teachers).codes for s in "xy"]
    shift = np.eye(len(teachers))[codes[0]] - np.eye(len(teachers))[codes[1]]
    signs = np.random.default_rng(seed).choice([-1, 1], size=(num_resamples, len(shift), 1))
    by_chance = np.abs((shift * signs).sum(axis=1)).sum(axis=1)
    # Sums of ones are exact, so that a draw as extreme as what was seen counts.
    return float((by_chance >= np.abs(shift.sum(axis=0)).sum()).mean())


def _paper_moves() -> str:
    frame = TABLES["8"].frame
    return " and ".join(f"{_moved(frame.loc[student]):.0f}" for student in PAPER_STUDENTS)


def _paper_gain() -> str:
    averages = TABLES["3"].frame["AVG"]
    return ", ".join(
        f"{student} {averages[student]['lalp'] - averages[student]['galp']:+.3f}"
        for student in PAPER_STUDENTS
    )


# --- scores side by side --------------------------------------------------------------------


def variant_rules(scores: pd.DataFrame, profile: Profile) -> dict[str, str]:
    """Score columns laid side by side, each with the rule that chooses by it."""
    main = f"lalp@{profile.main_window}"
    rules = {"galp": "galp", main: "lalp"}
    if "lalp@all" in scores and main != "lalp@all":
        rules["lalp@all"] = "lalp"
    return rules | {variant_column(v, profile.main_window): v for v in VARIANTS}


def with_variants(scores: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The profile's score table with hybrid, tails and RSR at the main window."""
    return add_variants(scores, VARIANTS, profile.main_window)


def choose_by_each(table: pd.DataFrame, profile: Profile) -> dict[str, pd.DataFrame]:
    """One selection per score; candidates that some score lacks are left out for all."""
    rules = variant_rules(table, profile)
    complete = table.dropna(subset=list(rules))
    return {
        column: select(complete, rule, column.partition("@")[2] or None)
        for column, rule in rules.items()
    }


def step_length_table(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """How each score goes with the mean length of a step, within prompts (ASLEC's objection)."""
    return pd.concat(
        [
            within_prompt_correlations(
                table, [column, "tokens_per_step"], num_resamples=profile.num_resamples, seed=seed
            )
            for column in variant_rules(table, profile)
        ],
        ignore_index=True,
    ).drop(columns="other")


def variant_orders(table: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """Teachers from best to worst under each score, and Kendall tau with LALP's order."""
    main = f"lalp@{profile.main_window}"
    signed = table.assign(**{name: -table[name] for name in LOWER_IS_BETTER if name in table})
    rows = []
    for column in variant_rules(table, profile):
        ranking = rank_teachers(signed, column, num_resamples=profile.num_resamples, seed=seed)
        tau = tau_interval(signed, main, column, num_resamples=profile.num_resamples, seed=seed)
        rows.append(
            {
                "score": column,
                "order": " > ".join(ranking["teacher"]),
                "p_top": ranking["p_top"][0],
                "tau with LALP": tau.tau,
                "low": tau.low,
                "high": tau.high,
            }
        )
    return pd.DataFrame(rows)


def variant_verdicts(table: pd.DataFrame, profile: Profile, seed: int) -> list[Verdict]:
    """What this run says on LALP's two changes and on later objections to it."""
    lengths = step_length_table(table, profile, seed).set_index("score")
    return [
        *_two_changes_verdict(table, profile, seed),
        _step_length_verdict(lengths, "galp", "galp-tail"),
        _step_length_verdict(
            lengths, f"lalp@{profile.main_window}", variant_column("lalp-tail", profile.main_window)
        ),
    ]


def _two_changes_verdict(table: pd.DataFrame, profile: Profile, seed: int) -> list[Verdict]:
    """Whether it is the short context, not the weighting, that sets LALP apart from GALP."""
    if "lalp@all" not in table:
        return []
    main = f"lalp@{profile.main_window}"
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    pairs = within_prompt_correlations(table, ["galp", "lalp@all", main], **options)
    by_pair = {(row.score, row.other): row for row in pairs.itertuples()}
    weighting, context = by_pair["galp", "lalp@all"], by_pair["lalp@all", main]
    if context.high < weighting.low:
        verdict = "holds"
    else:
        verdict = "does not hold" if weighting.high < context.low else "not resolved"
    return [
        Verdict(
            "The short context, not the equal weight of steps, sets LALP apart from GALP",
            "LALP is motivated by its context; the two changes are not told apart",
            f"Kendall tau within prompts: weighting alone {weighting.tau:.2f} "
            f"[{weighting.low:.2f}, {weighting.high:.2f}], context alone {context.tau:.2f} "
            f"[{context.low:.2f}, {context.high:.2f}]",
            verdict,
            "full-prefix LALP stands between GALP (other weights) and LALP (other context); the "
            "change that lowers tau more is the larger one",
            where="Eq. 3",
        )
    ]


def _step_length_verdict(lengths: pd.DataFrame, column: str, tail: str) -> Verdict:
    whole, rest = lengths.loc[column], lengths.loc[tail]
    name = column.partition("@")[0].upper()
    if whole["low"] > 0:
        verdict = "holds"
    else:
        verdict = "does not hold" if whole["high"] < 0 else "not resolved"
    return Verdict(
        f"{name} favours long steps, since they dilute unlikely first tokens (ASLEC, later work)",
        "not in the paper; arXiv 2604.06834 finds it for mean log-probabilities",
        f"Kendall tau with tokens per step {whole['tau']:.2f} [{whole['low']:.2f}, "
        f"{whole['high']:.2f}]; without first tokens {rest['tau']:.2f} [{rest['low']:.2f}, "
        f"{rest['high']:.2f}]",
        verdict,
        f"among the candidates of one prompt, {whole['num_prompts']:.0f} prompts",
        where="Eq. 1-3",
    )


def collect_verdicts(profile: str) -> pd.DataFrame:
    """All notebooks' verdicts under one profile, numbered from 1 in the notebooks' order.

    Returns:
        The columns of `verdict_table`, and ``section`` (the notebook's title), ``notebook``,
        ``profile``.

    Raises:
        InputError: If a file of verdicts cannot be read.
    """
    tables = [
        _read_verdicts(path).assign(section=section, notebook=name, profile=profile)
        for name, (section, path) in _verdict_files(profile).items()
        if path.is_file()
    ]
    empty = verdict_table([]).assign(section="", notebook="", profile="")
    verdicts = pd.concat([empty, *tables], ignore_index=True)
    return verdicts.set_axis(pd.RangeIndex(1, len(verdicts) + 1, name="no."))


def missing_verdicts(profile: str) -> pd.DataFrame:
    """Notebooks that have said nothing under a profile, and the command that makes each speak."""
    missing = [name for name, (_, path) in _verdict_files(profile).items() if not path.is_file()]
    commands = [
        f"make PROFILE={profile} build/{profile}/notebooks/{name}.ipynb" for name in missing
    ]
    return pd.DataFrame({"notebook": missing, "verdicts come from": commands}, dtype=str)


def _verdict_files(profile: str) -> dict[str, tuple[str, Path]]:
    """Title and file of verdicts of every notebook but the one that collects them."""
    notebooks = sorted((build_dir().parent / "notebooks").glob("[0-9]*.ipynb"))
    folder = build_dir() / profile / "verdicts"
    return {
        path.stem: (_notebook_title(path), folder / f"{path.stem}.json")
        for path in notebooks
        if path.stem != _COLLECTOR
    }


def _notebook_title(path: Path) -> str:
    """The notebook's heading without its number."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading = re.match(r"#\s*(?:\d+\s+)?(.+)", "".join(cells[0]["source"])) if cells else None
    return heading[1].strip() if heading else path.stem


def _read_verdicts(path: Path) -> pd.DataFrame:
    try:
        return verdict_table([Verdict(**one) for one in json.loads(path.read_text("utf-8"))])
    except (ValueError, TypeError, InputError) as error:
        raise InputError(
            f"{path.name}: not a file of verdicts ({error}); delete it and run its notebook again"
        ) from error


def count_verdicts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Claims of each section by verdict, and of all sections together."""
    sections = verdicts["section"].unique()
    counts = pd.crosstab(verdicts["section"], verdicts["verdict"])
    counts = counts.reindex(index=sections, columns=list(VERDICTS), fill_value=0).astype(int)
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index=None, columns=None)


def paper_items(verdicts: pd.DataFrame, missing: Collection[str] = ()) -> pd.DataFrame:
    """What this run says on each of the paper's tables and figures.

    A verdict speaks on what its ``where`` names, or its claim where that is empty.

    Args:
        verdicts: As `collect_verdicts` returns them.
        missing: Notebooks that have said nothing, as in `missing_verdicts`.

    Returns:
        One row per table and figure: what it ``shows``, the numbers of the ``claims`` that speak
        on it, ``this run`` (tested, tested in part, or not) and ``why``.

    Raises:
        InputError: If a verdict names a table or figure that the paper does not have.
    """
    cited = [cited_items(v.where or v.claim) for v in verdicts.itertuples()]
    silent = set(missing)
    rows = {
        f"{kind} {item.number}": _item_row(
            item, verdicts.loc[[(kind, item.number) in names for names in cited]], silent
        )
        for kind, item in _PAPER_ITEMS
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def paper_notes() -> pd.DataFrame:
    """Where the paper is silent or contradicts itself, by the tables and figures it shows in."""
    notes: dict[str, list[str]] = {}
    for kind, item in _PAPER_ITEMS:
        for note in item.notes:
            notes.setdefault(note, []).append(f"{kind} {item.number}")
    return pd.DataFrame({"note": list(notes), "shows in": [", ".join(n) for n in notes.values()]})


def _item_row(
    item: ReferenceTable | ReferenceFigure, speaking: pd.DataFrame, missing: Collection[str]
) -> dict[str, str]:
    said = set(speaking["verdict"])
    why = item.not_run
    if said & {"holds", "does not hold", "not resolved"}:
        state = "tested in part" if item.not_run else "tested"
    elif item.notebook in missing:
        state, why = "not run yet", f"{item.notebook} has not run"
    elif "not testable at this scale" in said:
        state = "not testable at this scale"
    else:
        state, why = "not run at this scale", why or f"no claim of {item.notebook} names it"
    claims = {v: speaking.index[speaking["verdict"] == v] for v in VERDICTS if v in said}
    return {
        "shows": item.title,
        "claims": "; ".join(f"{v}: {', '.join(map(str, of))}" for v, of in claims.items()),
        "this run": state,
        "why": why,
    }


# --- theory (07_theory) -------------------------------------------------------------------------

# Largest errors at which a numeric check of the theory passes: of a learner trained on the exact
# risk and on samples (total variation), and of algebra (nats).
EXACT_TOLERANCE, SAMPLED_TOLERANCE, ALGEBRA_TOLERANCE = 1e-3, 0.02, 1e-9
_PREMISES = "the check shows the algebra; whether real responses meet the premises is not measured"


def theory_verdicts(
    *,
    minimizer: pd.DataFrame,
    curves: dict[str, pd.DataFrame],
    weights: pd.DataFrame,
    gaps: dict[str, pd.DataFrame],
    trap: pd.DataFrame,
    fatal: pd.DataFrame,
    dilution: pd.DataFrame,
    profile: Profile,
    seed: int,
) -> list[Verdict]:
    """What this run says on Appendix A.

    Args:
        minimizer: `lalp.analysis.theory.check_minimizer`.
        curves: `lalp.analysis.theory.learning_curves`, ``exact risk`` and ``sampled pairs``.
        weights: `lalp.analysis.theory.learned_weights`.
        gaps: `lalp.analysis.theory.reasoning_gap` with unlimited data, by kind of chain.
        trap: `lalp.analysis.theory.check_fluency_trap`.
        fatal: `lalp.analysis.theory.check_fatal_step`.
        dilution: `lalp.analysis.theory.sample_dilution`.
        profile: For the number of bootstrap resamples.
        seed: For the bootstrap, over chains or responses.
    """
    equal = fatal["premise"] == "equal steps"
    return [
        _minimizer_verdict(minimizer),
        _learner_verdict(curves, weights),
        _gap_verdict(gaps, profile, seed),
        _bound_verdict(
            trap,
            "GALP(y-) - GALP(y+) is at least ((T - |L|) ε - |L| Δ) / T, above 0 iff "
            "|L|/T < ε / (ε + Δ)",
            "App. A, Theorem A.3",
        ),
        _bound_verdict(
            fatal[equal],
            "LALP(y+) - LALP(y-) = γ / K if all steps but one are equal",
            "App. A, Theorem A.4",
            exact=True,
        ),
        _bound_verdict(
            fatal[~equal],
            "LALP(y+) - LALP(y-) is at least (γ - (K - 1) δ) / K, above 0 if γ > (K - 1) δ",
            "App. A, Corollary A.5",
        ),
        _dilution_verdict(dilution, profile, seed),
    ]


def _minimizer_verdict(minimizer: pd.DataFrame) -> Verdict:
    best, error = minimizer["smallest_excess"].min(), minimizer["identity_error"].max()
    holds = best >= -ALGEBRA_TOLERANCE and error <= ALGEBRA_TOLERANCE
    return Verdict(
        "The minimizer of H(p, q) + λ H(u, q) is (p + λ u) / (1 + λ)",
        "proved",
        f"{len(minimizer):,} random problems: no rival has a lower risk, and every rival's is "
        f"higher by (1 + λ) KL, to {_bounded(error)} nats"
        if holds
        else f"the best rival is {-best:.2g} nats better; largest error {error:.2g}",
        "holds" if holds else "does not hold",
        f"tolerance {ALGEBRA_TOLERANCE:g} nats",
        "App. A, Prop. A.1",
    )


def _learner_verdict(curves: dict[str, pd.DataFrame], weights: pd.DataFrame) -> Verdict:
    worst = {}
    for risk, frame in curves.items():
        last = frame[(frame["update"] == frame["update"].max()) & (frame["lam"] > 0)]
        worst |= {(risk, pairs): part["error"].max() for pairs, part in last.groupby("pairs")}
    share = (weights["learned"] - weights["closed"]).abs().max()
    limits = {"exact risk": EXACT_TOLERANCE, "sampled pairs": SAMPLED_TOLERANCE}
    holds = share <= EXACT_TOLERANCE and all(e <= limits[key[0]] for key, e in worst.items())
    return Verdict(
        "Pairs that are shown are learned as (p + λ u) / (1 + λ), pairs never shown as u; with "
        "unequal weights the data's share is μ / (μ + λ ν)",
        "proved",
        "largest distance of a trained learner to the closed form: "
        + ", ".join(f"{_bounded(e)} ({risk}, {pairs})" for (risk, pairs), e in worst.items())
        + f"; share of the data off by {_bounded(share)}",
        "holds" if holds else "does not hold",
        f"total variation, mean over contexts; tolerance {EXACT_TOLERANCE:g} on the exact risk, "
        f"{SAMPLED_TOLERANCE:g} on samples; λ above 0 only",
        "App. A, Theorem A.2",
    )


def _gap_verdict(gaps: dict[str, pd.DataFrame], profile: Profile, seed: int) -> Verdict:
    frame = pd.concat([table.assign(kind=kind) for kind, table in gaps.items()], ignore_index=True)
    frame["gap"] = frame["direct"] - frame["widest_hops"]
    beyond = frame[frame["distance"] > frame["window"]]
    within = frame.loc[frame["distance"] <= frame["window"], "gap"].abs().max()
    cases = beyond.groupby(["kind", "lam", "window", "chain"])["gap"].mean().unstack("chain")
    ends = np.array([_mean_interval(row, profile.num_resamples, seed) for row in cases.to_numpy()])
    smallest, largest = cases.mean(axis=1).min(), cases.mean(axis=1).max()
    if (ends[:, 0] > 0).all() and within <= ALGEBRA_TOLERANCE:
        verdict = "holds"
    else:
        verdict = "does not hold" if (ends[:, 1] < 0).any() else "not resolved"
    return Verdict(
        "A learner that is shown pairs up to distance w has a reasoning gap beyond w",
        "by the same argument as Theorem A.2",
        f"chaining beats asking directly by {smallest:.2g} to {largest:.2g} (total variation, mean "
        f"beyond w) over {len(cases)} combinations of kind of chain, λ and w; "
        f"by {_bounded(within)} up to w",
        verdict,
        f"intervals over {cases.shape[1]} chains exclude 0 in {(ends[:, 0] > 0).mean():.0%} of "
        f"combinations; unlimited data; asking directly is better in "
        f"{(beyond['gap'] < -ALGEBRA_TOLERANCE).mean():.1%} of single chains and distances",
        "App. A, limitation 3",
    )


def _bound_verdict(
    instances: pd.DataFrame, claim: str, where: str, *, exact: bool = False
) -> Verdict:
    excess = instances["margin"] - instances["bound"]
    tight = excess if exact else excess[instances["premise"] == "equality"]
    signs = instances.loc[instances["bound"] > ALGEBRA_TOLERANCE, "margin"] > 0
    holds = (
        excess.min() >= -ALGEBRA_TOLERANCE
        and tight.abs().max() <= ALGEBRA_TOLERANCE
        and bool(signs.all())
    )
    return Verdict(
        claim,
        "proved",
        f"{len(instances):,} random pairs of responses: {int((excess < -ALGEBRA_TOLERANCE).sum())} "
        f"below the bound; where the premises are met with equality, off by "
        f"{_bounded(tight.abs().max())} nats",
        "holds" if holds else "does not hold",
        f"tolerance {ALGEBRA_TOLERANCE:g} nats; {_PREMISES}",
        where,
    )


def _dilution_verdict(dilution: pd.DataFrame, profile: Profile, seed: int) -> Verdict:
    columns = {"any_token": "at any token", "any_step": "in any step, log-normal lengths"}
    means = {name: dilution[name].mean() for name in columns}
    ends = {
        name: _mean_interval(dilution[name].to_numpy(), profile.num_resamples, seed)
        for name in columns
    }
    if all(low > 2 for low, _ in ends.values()):
        verdict = "holds"
    else:
        verdict = "does not hold" if all(high < 2 for _, high in ends.values()) else "not resolved"
    ratio = (dilution["num_tokens"] / dilution["num_steps"]).median()
    return Verdict(
        "GALP's margin is diluted by the number of tokens T, LALP's by the number of steps K, so "
        "LALP's is far less diluted",
        "K much smaller than T",
        "one and the same slip gives LALP, relative to GALP, a margin of "
        + ", ".join(
            f"{means[name]:.2f} [{ends[name][0]:.2f}, {ends[name][1]:.2f}] ({label})"
            for name, label in columns.items()
        )
        + f" on average; the median of T / K is {ratio:.0f}",
        verdict,
        "γ is a mean over the fatal step's tokens and so holds that step's length already; the "
        "factor is T / (K |s|); held to hold from a factor of 2 on, for equal conditionals",
        "App. A, after Theorem A.4",
    )


def _mean_interval(values: np.ndarray, num_resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean."""
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _bounded(value: float) -> str:
    """A small error for people: its last digits are rounding and differ between machines."""
    return "less than 1e-6" if value < 1e-6 else f"{value:.1g}"


# --- self-conditioning ----------------------------------------------------------------------


def gap_by_window(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The self-conditioning gap (Eq. 4) and its growth under each of the profile's windows.

    Returns:
        Per window: ``mean`` and ``last`` (last tenth of the response) of all tokens, and ``slope``
        of those whose window drops something, in nats; each an `Estimate`.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    rows = []
    for window in profile.windows:
        tokens = token_frame(scores, pool, window).assign(group="all")
        dropped = tokens[tokens["dropped"]]
        trend = _gap_trend(tokens, options)
        slope = _gap_trend(dropped, options)["slope"] if len(dropped) else None
        rows.append(
            {
                "window": window,
                "tokens with something dropped (%)": 100 * tokens["dropped"].mean(),
                "mean": trend["mean"],
                "last": trend["last"],
                "slope": slope or Estimate(np.nan, np.nan, np.nan),
            }
        )
    return pd.DataFrame(rows)


def _gap_trend(tokens: pd.DataFrame, options: dict[str, int]) -> pd.Series:
    return position_trends(tokens, "teacher", **options).query("quantity == 'gap'").iloc[0]


def shuffled_tokens(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Tokens of responses as written and with their steps shuffled, scored alike.

    One response per prompt, teachers in turn, so that few texts cover all prompts.

    Returns:
        As `token_frame`, and ``order``: ``as written`` or ``shuffled``.
    """
    by_prompt = scores.sort_values("teacher", kind="stable").groupby("prompt_id", sort=True)
    chosen = pd.DataFrame([rows.iloc[i % len(rows)] for i, (_, rows) in enumerate(by_prompt)])
    kept = set(chosen["response_id"])
    written = replace(pool, responses=tuple(r for r in pool.responses if r.response_id in kept))
    steps = split_pool(
        written,
        profile.splitter,
        tokenizer=load_tokenizer(profile.student),
        embedder=profile.embedder,
    )
    moved, moved_steps = shuffle_steps(written, steps, seed)
    window = profile.main_window
    again = score(moved, profile.student, [window], splitter=moved_steps, with_tokens=True)
    frames = {
        "as written": token_frame(chosen, written, window),
        "shuffled": token_frame(again, moved, window),
    }
    parts = [tokens.assign(order=order) for order, tokens in frames.items()]
    return pd.concat(parts, ignore_index=True)


def occurrence_series(items: pd.DataFrame, profile: Profile, seed: int = 0) -> pd.DataFrame:
    """Log-probability at each occurrence, of repeated items and of their controls, in long form."""
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    parts = []
    for who, frame in (
        ("repeated items", items),
        ("like positions, items that occur once", match_controls(items)),
    ):
        table = spread_estimates(occurrence_table(frame, **options))
        for name in ("global", "local"):
            part = table[["kind", "occurrence", "num_items", "num_prompts"]].assign(
                series=f"{who}: {name}",
                mean=table[name],
                low=table[f"{name}_low"],
                high=table[f"{name}_high"],
            )
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def example_scores(profile: Profile) -> pd.DataFrame:
    """Scores of the paper's examples as text, at window 0 and at the profile's main window."""
    windows = list(dict.fromkeys(["0", profile.main_window]))
    return score(
        example_pool(), profile.student, windows, splitter=profile.splitter, with_tokens=True
    )


def conditioning_verdicts(
    tokens: pd.DataFrame,
    shuffled: pd.DataFrame,
    items: pd.DataFrame,
    examples: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    seed: int,
) -> list[Verdict]:
    """What this run says on self-conditioning (Sec. 7.4.2, Fig. 5, Examples 1-4).

    Args:
        tokens: Of all responses, from `token_frame` at the main window.
        shuffled: From `shuffled_tokens`.
        items: From `item_frame`.
        examples: From `example_scores`.
        scores: The score table.
        profile: The run's profile.
        seed: Of the bootstrap.
    """
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    rises = occurrence_rises(items, match_controls(items), **options)
    return [
        *_gap_growth_verdicts(tokens, profile, options),
        _gap_size_verdict(tokens, scores, options),
        _level_trend_verdict(tokens, options),
        _repeated_gap_verdict(tokens, options),
        _shuffled_verdict(shuffled, options),
        _top_gap_verdict(tokens, scores, options),
        _repetition_verdict(rises),
        _recall_verdict(items, rises),
        *_toy_verdicts(examples, profile, options),
    ]


def _gap_growth_verdicts(
    tokens: pd.DataFrame, profile: Profile, options: dict[str, int]
) -> list[Verdict]:
    """Growth as the paper measures it, and where the definition does not force it."""
    window = profile.main_window
    verdicts = []
    for claim, part, name, why in (
        (
            "The gap between global and local log-probability grows with position for every "
            "teacher",
            tokens,
            "change",
            f"last tenth minus first; w = {window}: the first steps' window drops nothing, so "
            "their gap is 0 by definition and some growth is certain",
        ),
        (
            "The gap also grows among tokens whose window drops something, for every teacher",
            tokens[tokens["dropped"]],
            "slope",
            "the control for that definition: slope over the response, nats per response length, "
            "of tokens with a shortened context",
        ),
    ):
        trends = position_trends(part, "teacher", **options).query("quantity == 'gap'")
        trends = trends.set_index("teacher")[name]
        signs = [trend.sign for teacher, trend in trends.items() if teacher != "all"]
        rising, steps = _rising_bins(part, options)
        verdicts.append(
            Verdict(
                claim,
                "from 0.70-0.85 nats in the first tenth, by 0.1 to almost 0.3 up to the last; "
                "monotonic",
                "; ".join(f"{teacher} {trend}" for teacher, trend in trends.items())
                + f" nats; from tenth to tenth the pooled gap rises in {rising} of {steps} cases",
                _all_signs(signs),
                f"{why}; resolved for {sum(sign == 1 for sign in signs)} of {len(signs)} teachers",
                "Fig. 5, Sec. 7.4.2",
            )
        )
    return verdicts


def _rising_bins(tokens: pd.DataFrame, options: dict[str, int]) -> tuple[int, int]:
    """How many of the pooled curve's steps from bin to bin go up, and how many there are."""
    curve = position_curves(tokens, "teacher", **options).query("teacher == 'all'")
    means = curve.loc[curve["quantity"] == "gap", "mean"].dropna()
    return int((means.diff() > 0).sum()), len(means) - 1


def _all_signs(signs: Sequence[int]) -> str:
    """Verdict on "all are above 0"."""
    if signs and min(signs) == 1:
        return "holds"
    return "does not hold" if -1 in signs else "not resolved"


def _gap_size_verdict(
    tokens: pd.DataFrame, scores: pd.DataFrame, options: dict[str, int]
) -> Verdict:
    last = _gap_trend(tokens, options)["last"]
    median = scores["num_tokens"].median()
    if last.low <= 1.1 and last.high >= 0.8:
        verdict = "holds" if last.low >= 0.8 and last.high <= 1.1 else "not resolved"
    else:
        verdict = "not testable at this scale" if median < 12_000 else "does not hold"
    return Verdict(
        "At the end of a response the gap is about one nat per token",
        "0.8 to 1.1 nats in the last tenth",
        f"{last} nats in the last tenth",
        verdict,
        f"median response {median:.0f} tokens, the paper's traces over 12,000: how much text the "
        "window drops differs with that",
        "Fig. 5, Sec. 7.4.2",
    )


def _level_trend_verdict(tokens: pd.DataFrame, options: dict[str, int]) -> Verdict:
    trends = position_trends(tokens, "teacher", **options).set_index(["teacher", "quantity"])
    rise, local = (trends.loc[("all", name), "slope"] for name in ("global", "local"))
    flat = rise.value / 4
    if rise.sign == 1 and -flat < local.low and local.high < flat:
        verdict = "holds"
    else:
        verdict = "does not hold" if rise.sign == -1 or local.sign else "not resolved"
    return Verdict(
        "Global log-probability rises through the response while local log-probability stays flat",
        "dashed lines rise, solid lines flat",
        f"slope over the response: global {rise}, local {local} nats",
        verdict,
        "flat means: within a quarter of the global slope; all teachers together",
        "Fig. 5, Sec. 7.4.2",
    )


def _repeated_gap_verdict(tokens: pd.DataFrame, options: dict[str, int]) -> Verdict:
    dropped = tokens[tokens["dropped"]]
    difference = compare_trends(dropped, "pair_seen", SEEN[0], SEEN[2], **options)["mean"]
    shares = gap_shares(dropped, "pair_seen", **options).set_index("pair_seen")
    trends = position_trends(dropped, "pair_seen", **options).query("quantity == 'gap'")
    slopes = trends.set_index("pair_seen")["slope"]
    copied = shares.loc[SEEN[2]]
    return Verdict(
        "The gap comes from text that repeats what the window has dropped",
        "later tokens become predictable by being consistent with earlier text",
        f"word pairs last seen before the window: gap {copied['mean_gap']} nats, new pairs "
        f"{shares.loc[SEEN[0], 'mean_gap']}; the former are {copied['tokens_percent'].value:.0f} % "
        f"of the tokens and carry {copied['gap_percent'].value:.0f} % "
        f"[{copied['gap_percent'].low:.0f}, {copied['gap_percent'].high:.0f}] of the gap",
        {1: "holds", 0: "not resolved", -1: "does not hold"}[difference.sign],
        f"difference {difference} nats, tokens with a shortened context; slope of the gap over the "
        f"response: new pairs {slopes[SEEN[0]]}, pairs seen before the window {slopes[SEEN[2]]}",
        "Fig. 5, Sec. 7.4.2",
    )


def _shuffled_verdict(shuffled: pd.DataFrame, options: dict[str, int]) -> Verdict:
    trends = position_trends(shuffled, "order", **options).query("quantity == 'gap'")
    slopes = trends.set_index("order")["slope"]
    difference = compare_trends(shuffled, "order", "as written", "shuffled", **options)["slope"]
    margin = slopes["as written"].value / 2
    if difference.low > -margin and slopes["shuffled"].sign == 1:
        verdict = "holds"
    else:
        verdict = "does not hold" if difference.high < -margin else "not resolved"
    return Verdict(
        "Accumulated text is enough for the growth; it does not need the order of the argument",
        "purely from accumulated context",
        f"slope as written {slopes['as written']}, with shuffled steps {slopes['shuffled']}; "
        f"difference {difference} nats",
        verdict,
        f"the paper has no such control; {shuffled['prompt_id'].nunique()} prompts, one response "
        "each, all tokens; held to hold if shuffling takes away less than half of the slope",
        "Fig. 5, Sec. 7.4.2",
    )


def _top_gap_verdict(
    tokens: pd.DataFrame, scores: pd.DataFrame, options: dict[str, int]
) -> Verdict:
    gaps, galps, share = top_agreement(tokens, scores, **options)
    same = gaps.index[0] == galps.index[0]
    verdict = "holds" if same and share >= 0.95 else "not resolved"
    return Verdict(
        "The teacher with the largest gap has the highest GALP",
        "Qwen3-32B has both",
        f"gap: {_listed(gaps)}; GALP: {_listed(galps)}",
        "does not hold" if share <= 0.05 else verdict,
        f"they are one teacher in {share:.0%} of resamples of the prompts; the mean gap also "
        "depends on how many steps a response has",
        "Fig. 5, Sec. 7.4.2",
    )


def _listed(values: pd.Series) -> str:
    return " > ".join(f"{name} {value:.2f}" for name, value in values.items())


def _repetition_verdict(rises: pd.DataFrame) -> Verdict:
    every = rises[rises["previous"] == "all"].set_index("kind")
    signs = [estimate.sign for name in ("global", "excess") for estimate in every[name]]
    return Verdict(
        "A number or phrase that is repeated is more likely at each later occurrence",
        "177: 16.0 to 99.99 %; 1228: 71 to 99.4 %; come in pairs: 27 to 51 %",
        "; ".join(
            f"{row['num_items']} repeated {kind}s: later minus first {row['global']} nats per "
            f"token, like positions of items that occur once {row['global_control']}"
            for kind, row in every.iterrows()
        )
        or "no repeated items",
        _all_signs(signs),
        "global log-probability; the rise and its excess over the control must both be resolved "
        "for each kind",
        "Examples 1, 3 and 4, Sec. C.3",
    )


def _recall_verdict(items: pd.DataFrame, rises: pd.DataFrame) -> Verdict:
    table = rises.set_index(["previous", "kind"])["local"]
    parts = {name: table[name].to_dict() for name in ("all", "dropped") if name in table}
    later = items[items["occurrence"] > 1]
    near = (later["previous"] == "in the window").mean()
    signs = [estimate.sign for estimate in parts.get("all", {}).values()]
    if signs and max(signs) == 1:
        verdict = "does not hold"
    else:
        small = signs and all(e.high < 0.1 for e in parts["all"].values())
        verdict = "holds" if small else "not resolved"
    return Verdict(
        "Local scoring does not reward the repetition of numbers and phrases",
        "LALP prevents prior commitments from inflating scores",
        "; ".join(
            f"local, later minus first, {label}: "
            + ", ".join(f"{kind}s {estimate}" for kind, estimate in parts.get(name, {}).items())
            for name, label in (("all", "all"), ("dropped", "earlier one out of the window"))
        ),
        verdict,
        f"{near:.0%} of later occurrences still see an earlier one in their window; held to hold "
        "if local rises are below 0.1 nats",
        "Examples 1, 3 and 4, Sec. C.3",
    )


def _toy_verdicts(
    examples: pd.DataFrame, profile: Profile, options: dict[str, int]
) -> list[Verdict]:
    table = toy_table(examples, "0", **options).set_index("form")
    one, two = (table.loc[form] for form in TOY_FORMS)
    printed = example_table(examples).query("example == 'Example 2'")["galp"]
    if abs(one["local_rise"].value - one["global_rise"].value) < 1e-4:
        verdict = "does not hold"
    else:
        verdict = "holds" if two["difference"].sign == 1 else "not resolved"
    return [
        Verdict(
            "A wrong result, once stated, is repeated with confidence",
            "1+1 is 3: 4.9 % at first, then 97.7 %",
            f"1+1 is 3: {printed.iloc[0]:.1f} % at first, then {printed.iloc[1]:.1f} %; "
            f"{one['num_sums']} wrong sums: {one['global_rise']} nats more at the second",
            {1: "holds", 0: "not resolved", -1: "does not hold"}[one["global_rise"].sign],
            "interval over the sums",
            "Example 2, Sec. 7.4.2",
        ),
        Verdict(
            "Local scoring sees that the repeated wrong result lacks support",
            "LALP can detect it by truncating context",
            f"local rise at w = 0: as printed, in one sentence, {one['local_rise']} nats; in two "
            f"sentences {two['local_rise']} (global {two['global_rise']})",
            verdict,
            "two results in one step: every window shows the first to the second; it takes a step "
            "border between them, and a window that drops it",
            "Example 2, Sec. 7.4.2",
        ),
    ]


# --- 02_token_attribution -------------------------------------------------------------------------


def attribution_tokens(profile: Profile, pool: Pool, scores: pd.DataFrame) -> pd.DataFrame:
    """`token_table` of the profile's scores, under GALP and every window."""
    texts = {response.response_id: response.text for response in pool.responses}
    return token_table(texts, scores, ["galp", *(f"lalp@{w}" for w in profile.windows)])


def attribution_example(text: str, profile: Profile) -> pd.DataFrame:
    """The tokens of a text under the profile's tokenizer, with their categories.

    Returns:
        ``token`` (its text), ``start``, ``end``, ``kind``, ``category`` and ``doubt``.
    """
    encoded = load_tokenizer(profile.student)(
        text, add_special_tokens=False, return_offsets_mapping=True
    )
    spans = np.array(encoded["offset_mapping"])
    kinds, doubts = label_tokens(text, spans)
    return pd.DataFrame(
        {
            "token": [text[start:end] for start, end in spans],
            "start": spans[:, 0],
            "end": spans[:, 1],
            "kind": kinds,
            "category": [KINDS[kind] for kind in kinds],
            "doubt": doubts,
        }
    )


def attribution_sweep(
    tokens: pd.DataFrame, measure: str, profile: Profile, seed: int
) -> pd.DataFrame:
    """`sweep_shares` over the profile's windows, in percent and percentage points."""
    columns = [f"lalp@{window}" for window in profile.windows]
    table = sweep_shares(
        tokens, columns, measure=measure, num_resamples=profile.num_resamples, seed=seed
    )
    table["window"] = table.pop("score").str.removeprefix("lalp@")
    numbers = ["share", "shift", "low", "high"]
    table[numbers] = 100 * table[numbers]
    return table


def attribution_table(
    tokens: pd.DataFrame, measure: str, profile: Profile, seed: int
) -> pd.DataFrame:
    """`share_table` under GALP and the main window, in percent; Table 4's values beside mass."""
    columns = ["galp", f"lalp@{profile.main_window}"]
    table = share_table(
        tokens, columns, measure=measure, num_resamples=profile.num_resamples, seed=seed
    )
    shares = ["count", "share", "low", "high"]
    table[shares] = 100 * table[shares]
    if measure == "mass":
        # The paper's rows stand in the order of CATEGORIES.
        paper = TABLES["4"].frame
        table["paper"] = [*paper["GALP"], *paper["LALP"]]
    return table


def attribution_settings(tokens: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`compare_settings` for the main window and for the first one; adds ``window``."""
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    windows = dict.fromkeys((profile.main_window, profile.windows[0]))
    return pd.concat(
        [compare_settings(tokens, f"lalp@{w}", **options).assign(window=w) for w in windows],
        ignore_index=True,
    )


def attribution_verdicts(
    tokens: pd.DataFrame, settings: pd.DataFrame, profile: Profile, seed: int
) -> list[Verdict]:
    """What this run says on Sec. 7.4.1, Table 4 and Fig. 4.

    A claim holds, or does not, only if the interval says so under every reading, weighting and
    choice of tokens in ``settings``.

    Args:
        tokens: From `attribution_tokens`.
        settings: From `attribution_settings`.
        profile: The run's profile.
        seed: For the bootstrap.
    """
    at_main = settings[settings["window"] == profile.main_window]
    at_first = settings[settings["window"] == profile.windows[0]]
    found = summarize_settings(at_main)
    paper = TABLES["4"].frame.set_axis(list(CATEGORIES))
    moved = paper["LALP"] - paper["GALP"]
    mass = attribution_table(tokens, "mass", profile, seed).set_index(["score", "category"])
    return [
        _lead_verdict(found.loc["lead"], mass, paper),
        _ratio_verdict(found.loc["ratio"]),
        _fall_verdict(found.loc["discourse"], paper),
        _gain_verdict(found.loc["bearing"], moved),
        _size_verdict(at_main, moved, tokens, profile, seed),
        _transition_verdict(found.loc["reasoning"], paper),
        _low_verdict(found, profile.main_window),
        _low_verdict(summarize_settings(at_first), profile.windows[0]),
    ]


def _settled(row: pd.Series, claim: str = "above") -> str:
    """A verdict that every setting agrees on: ``claim`` is where the intervals should lie."""
    against = "below" if claim == "above" else "above"
    if row[claim] == row["settings"]:
        return "holds"
    return "does not hold" if row[against] == row["settings"] else "not resolved"


def _points(row: pd.Series, names: Sequence[str] = ("value", "low", "high")) -> str:
    """Percentage points with their interval, from shares."""
    value, low, high = (100 * row[name] for name in names)
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def _over_settings(row: pd.Series) -> str:
    return (
        f"over {row['settings']:.0f} settings {100 * row['smallest']:+.2f} to "
        f"{100 * row['largest']:+.2f} points, resolved above 0 in {row['above']:.0f}, below in "
        f"{row['below']:.0f}"
    )


def _lead_verdict(row: pd.Series, mass: pd.DataFrame, paper: pd.DataFrame) -> Verdict:
    of = {category: mass.loc[("galp", category)] for category in ("discourse", "math")}
    return Verdict(
        "GALP's mass lies on discourse tokens, more than on math (Table 4)",
        f"discourse {paper.loc['discourse', 'GALP']} %, math {paper.loc['math', 'GALP']} %",
        "; ".join(
            f"{category} {share['share']:.1f} % [{share['low']:.1f}, {share['high']:.1f}] of mass, "
            f"{share['count']:.1f} % of tokens"
            for category, share in of.items()
        ),
        _settled(row),
        f"discourse minus math {_points(row)}; {_over_settings(row)}; a category's mass is mostly "
        "its number of tokens, which the paper does not report",
        "Table 4",
    )


def _ratio_verdict(row: pd.Series) -> Verdict:
    return Verdict(
        "Discourse tokens are highly predictable and contribute out of proportion (Sec. 7.4.1)",
        "said, without a number",
        f"mean probability {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] times that of "
        "all tokens, under GALP",
        _settled(row),
        f"over {row['settings']:.0f} settings {row['smallest']:.2f} to {row['largest']:.2f} times, "
        f"resolved above 1 in {row['above']:.0f}, below in {row['below']:.0f}",
        "Table 4",
    )


def _fall_verdict(row: pd.Series, paper: pd.DataFrame) -> Verdict:
    odds = paper.loc["discourse"] / (100 - paper.loc["discourse"])
    shift = paper.loc["discourse", "LALP"] - paper.loc["discourse", "GALP"]
    return Verdict(
        "The mass share of discourse falls from global to local (Table 4)",
        f"{shift:+.1f} points",
        _points(row),
        _settled(row, "below"),
        f"{_over_settings(row)}; both columns count the same tokens, so the paper's fall needs "
        f"discourse to become {odds['GALP'] / odds['LALP']:.1f} times less probable relative to "
        "all else",
        "Table 4",
    )


def _gain_verdict(row: pd.Series, moved: pd.Series) -> Verdict:
    return Verdict(
        "LALP moves mass to math and reasoning transitions (Table 4)",
        f"{moved['math'] + moved['reasoning']:+.1f} points together",
        _points(row),
        _settled(row),
        f"the direction only; {_over_settings(row)}",
        "Table 4",
    )


def _size_verdict(
    settings: pd.DataFrame, moved: pd.Series, tokens: pd.DataFrame, profile: Profile, seed: int
) -> Verdict:
    claimed = moved["math"] + moved["reasoning"]
    row = summarize_settings(settings, {"bearing": claimed / 200}).loc["bearing"]
    sweep = attribution_sweep(tokens, "mass", profile, seed)
    shifts = sweep[(sweep["teacher"] == "all") & (sweep["category"] == REASONING_BEARING)]
    largest = shifts.loc[shifts["shift"].idxmax()]
    length = len(tokens) / tokens["response_id"].nunique()
    return Verdict(
        f"The shift to math and reasoning transitions is of the order of {claimed:.0f} points "
        "(Table 4)",
        f"{claimed:+.1f} points",
        f"{_points(row)} at w = {profile.main_window}; at most, at w = {largest['window']}, "
        f"{largest['shift']:+.2f} [{largest['low']:+.2f}, {largest['high']:+.2f}]",
        _settled(row),
        f"held against half of the paper's figure; responses have {length:.0f} tokens on average, "
        "the paper's are long",
        "Table 4",
    )


def _transition_verdict(row: pd.Series, paper: pd.DataFrame) -> Verdict:
    shift = paper.loc["reasoning", "LALP"] - paper.loc["reasoning", "GALP"]
    return Verdict(
        "The mass share of reasoning transitions rises from global to local (Table 4)",
        f"{shift:+.1f} points",
        _points(row),
        _settled(row),
        _over_settings(row),
        "Table 4",
    )


def _low_verdict(found: pd.DataFrame, window: str) -> Verdict:
    rows = [found.loc[name] for name in ("low math", "low math in pool")]
    verdicts = {_settled(row) for row in rows}
    return Verdict(
        f"Math and symbols are a larger share of the low-probability tokens under LALP, w = "
        f"{window}, than under GALP (Fig. 4)",
        "substantially larger; the window is not stated",
        f"{_points(rows[0])} among each response's least probable tenth",
        verdicts.pop() if len(verdicts) == 1 else "not resolved",
        f"{_over_settings(rows[0])}; among the pool's least probable tenth {_points(rows[1])}, "
        f"{_over_settings(rows[1])}",
        "Fig. 4",
    )


# --- coverage (01_coverage) ---------------------------------------------------------------------

# Every prompt is held out once, a fifth of them at a time.
_NUM_FOLDS = 5
# Rows over the prompts of all categories, and the level of responses that they compare.
_TOGETHER = {"together": RESPONSES, f"together, {PIECES}": PIECES}
# Largest cosines between a held-out problem and those whose texts are candidates.
_SIMILARITIES = (ALL, 0.8, 0.6, 0.5, 0.4)


def coverage_pool(profile: Profile, pool: Pool, seed: int) -> Pool:
    """One response per prompt and teacher, for as many prompts as the profile embeds."""
    return pick_candidates(pool, profile.coverage_prompts, 1, seed)


def coverage_spans(profile: Profile, pool: Pool, seed: int) -> dict[str, dict[str, list[Span]]]:
    """Each response whole, cut into steps, and into random chunks of the steps' lengths.

    Returns:
        Spans by level and response id.
    """
    tokenizer = load_tokenizer(profile.student) if chunk_size(profile.splitter) else None
    steps = split_pool(pool, profile.splitter, tokenizer=tokenizer, embedder=profile.embedder)
    chunks = {
        response.response_id: permute_lengths(
            response.text, steps[response.response_id], [seed, place]
        )
        for place, response in enumerate(pool.responses)
    }
    whole = {response.response_id: [(0, len(response.text))] for response in pool.responses}
    return {RESPONSES: whole, STEPS: steps, CHUNKS: chunks}


def coverage_levels(
    profile: Profile, pool: Pool, spans: Mapping[str, Mapping[str, Sequence[Span]]]
) -> dict[str, Level]:
    """Embed the texts of every level, from disk where they were embedded before.

    Args:
        profile: For its embedder.
        pool: From `coverage_pool`.
        spans: From `coverage_spans`.

    Returns:
        ``responses``, the same as means of pieces that hold all of their text, ``steps`` and
        ``random chunks``. Items have ``num_tokens`` and ``num_read``, of the embedder.
    """
    responses = _embed_level(pool, spans[RESPONSES], profile)
    return {RESPONSES: responses, PIECES: _in_pieces(responses, profile)} | {
        name: _embed_level(pool, spans[name], profile) for name in (STEPS, CHUNKS)
    }


def _embed_level(pool: Pool, spans: Mapping[str, Sequence[Span]], profile: Profile) -> Level:
    items = pd.DataFrame(
        {
            "prompt_id": response.prompt_id,
            "response_id": response.response_id,
            "teacher": response.teacher,
            "place": place,
            "text": response.text[start:end].strip(),
        }
        for response in pool.responses
        for place, (start, end) in enumerate(spans[response.response_id])
    )
    embedded = load_embeddings(profile.embedder, items["text"].tolist())
    read = np.minimum(embedded.num_tokens, embedded.limit)
    return Level(items.assign(num_tokens=embedded.num_tokens, num_read=read), embedded.vectors)


def _in_pieces(level: Level, profile: Profile) -> Level:
    """The same texts; those that exceed the embedder's input as means of their pieces."""
    items, vectors = level.items, level.vectors.copy()
    cut = (items["num_tokens"] > items["num_read"]).to_numpy()
    if cut.any():
        texts = items.loc[cut, "text"].tolist()
        vectors[cut] = load_embeddings(profile.embedder, texts, chunk_mean=True).vectors
    return Level(items.assign(num_read=items["num_tokens"]), vectors)


def coverage_folds(pool: Pool, seed: int) -> dict[str, int]:
    """The fold in which each prompt is held out."""
    return assign_folds(pool.prompts, _NUM_FOLDS, seed)


def coverage_categories(pool: Pool) -> dict[str, str]:
    """The category of each prompt, as its responses name it; empty where one has none."""
    found = {r.prompt_id: r.extra.get("category") for r in pool.responses}
    return found if len(set(found.values()) - {None}) > 1 and None not in found.values() else {}


def coverage_by_category(
    levels: Mapping[str, Level], categories: Mapping[str, str], profile: Profile, seed: int
) -> pd.DataFrame:
    """Steps against responses with each category held out in turn; empty without categories.

    Returns:
        As `lalp.analysis.coverage.group_table` returns it; rows that begin with ``together`` are
        over the prompts of all categories.
    """
    if not categories:
        return pd.DataFrame()
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    compared = {name: levels[name] for name in (RESPONSES, PIECES, STEPS)}
    values = nearness_by_prompt(compared, categories)
    together = [
        group_table(values, dict.fromkeys(categories, label), whole, **options)
        for label, whole in _TOGETHER.items()
    ]
    return pd.concat([group_table(values, categories, **options), *together], ignore_index=True)


def coverage_by_similarity(
    profile: Profile,
    pool: Pool,
    levels: Mapping[str, Level],
    folds: Mapping[str, int],
    seed: int,
) -> pd.DataFrame:
    """`similarity_sweep` over the cosine between problems, under the profile's embedder."""
    texts = ["\n\n".join(m.content for m in p.messages) for p in pool.prompts.values()]
    vectors = load_embeddings(profile.embedder, texts).vectors
    names = list(pool.prompts)
    similarity = pd.DataFrame(vectors @ vectors.T, index=names, columns=names)
    compared = {name: levels[name] for name in (RESPONSES, STEPS, CHUNKS)}
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return similarity_sweep(compared, folds, similarity, _SIMILARITIES, **options)


def nearness_table(values: Mapping[str, pd.DataFrame], profile: Profile, seed: int) -> pd.DataFrame:
    """Mean nearest-neighbour cosine of each level, with its interval over prompts."""
    columns = (ALL_CANDIDATES, EQUAL_NUMBERS)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return pd.DataFrame(
        [[str(mean_interval(table[c], **options)) for c in columns] for table in values.values()],
        index=list(values),
        columns=list(columns),
    )


def paper_pairs_table(profile: Profile) -> pd.DataFrame:
    """Cosines of the paper's example pairs (Table 11) under the profile's embedder."""
    texts = [text for *pair, _ in PAPER_PAIRS for text in pair]
    vectors = load_embeddings(profile.embedder, texts).vectors
    return pd.DataFrame(
        {
            "response": [excerpt(one, 8) for one, _, _ in PAPER_PAIRS],
            "nearest": [excerpt(other, 8) for _, other, _ in PAPER_PAIRS],
            "paper": [cosine for *_, cosine in PAPER_PAIRS],
            "this embedder": (vectors[::2] * vectors[1::2]).sum(axis=1).round(2),
        }
    )


def save_neighbors(
    levels: Mapping[str, Level], neighbors: Mapping[str, pd.DataFrame], profile: str
) -> Path:
    """Write every held-out text with its nearest training text (Sec. C.8).

    Args:
        levels: From `coverage_levels`.
        neighbors: `lalp.analysis.coverage.find_neighbors` of some of them.
        profile: The run's profile.

    Returns:
        ``build/PROFILE/coverage_neighbours.jsonl``: whole texts, one pair a line.
    """
    path = build_dir() / profile / "coverage_neighbours.jsonl"
    fields = ["prompt_id", "response_id", "teacher", "place", "text"]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, found in neighbors.items():
            nearest = levels[name].items.iloc[found["nearest"]][fields].to_dict("records")
            held_out = found[fields].to_dict("records")
            for cosine, one, other in zip(found["cosine"], held_out, nearest, strict=True):
                pair = {"level": name, "cosine": float(cosine), "held_out": one, "nearest": other}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    return path


def neighbor_examples(neighbors: pd.DataFrame, texts: pd.Series, num_examples: int) -> pd.DataFrame:
    """Pairs spread evenly from the farthest to the nearest, as short excerpts (Tables 11, 12).

    They are not chosen by what they say: their ranks among all pairs are.

    Args:
        neighbors: From `lalp.analysis.coverage.find_neighbors`.
        texts: The texts of all items of the level.
        num_examples: Pairs to show.
    """
    ordered = neighbors.sort_values("cosine", kind="stable")
    ranks = np.linspace(0, len(ordered) - 1, 2 * num_examples + 1).round().astype(int)[1::2]
    shown = ordered.iloc[ranks]
    return pd.DataFrame(
        {
            "nearer than": [f"{(rank + 0.5) / len(ordered):.0%}" for rank in ranks],
            "cosine": shown["cosine"].round(2).to_numpy(),
            "held out": [excerpt(text) for text in shown["text"]],
            "nearest in training": [excerpt(text) for text in texts.iloc[shown["nearest"]]],
        }
    )


def coverage_verdicts(
    contrasts: Mapping[tuple[str, str], Contrast],
    categories: pd.DataFrame,
    nearer: Interval,
    levels: Mapping[str, Level],
) -> list[Verdict]:
    """What this run says on coverage (Sec. 5, Fig. 2, 7 and 8, Sec. C.8).

    Args:
        contrasts: `lalp.analysis.coverage.contrast_levels`.
        categories: `lalp.analysis.coverage.group_table` with each category held out; may be empty.
        nearer: Mean over prompts of `lalp.analysis.coverage.nearer_steps`.
        levels: From `coverage_levels`.
    """
    sizes = f"{len(levels[STEPS].items):,} steps, {len(levels[RESPONSES].items):,} responses"
    claim = "Held-out steps are closer to training steps than whole responses to whole responses"
    return [
        _closer_verdict(
            contrasts[_GAP, ALL_CANDIDATES],
            claim,
            "0.935 for steps, 0.760 for responses",
            f"{sizes}; cosines of different embedders differ in level, only the order is compared",
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[_GAP, EQUAL_NUMBERS],
            f"{claim}, also with equal numbers of candidates",
            "no such control",
            "as many training steps as training responses, mean over all draws"
            + _held_out(categories),
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[f"{STEPS} - {PIECES}", ALL_CANDIDATES],
            f"{claim}, also where these are embedded to their end",
            "input length of the embedder not stated",
            _lost_text(levels[RESPONSES].items),
            "Fig. 2",
        ),
        _closer_verdict(
            contrasts[f"{STEPS} - {CHUNKS}", ALL_CANDIDATES],
            "It is the steps that recur: they are closer than random chunks of the same lengths",
            "no such control",
            "as many chunks as steps and as long, on both sides; chunks against responses: "
            f"{contrasts[f'{CHUNKS} - {RESPONSES}', ALL_CANDIDATES].difference}",
            "Fig. 2",
        ),
        *(_consistency_verdict(contrasts, candidates) for candidates in _CANDIDATES),
        *(_categories_verdict(categories, candidates) for candidates in _CANDIDATES),
        _nearly_every_verdict(nearer),
    ]


_GAP = f"{STEPS} - {RESPONSES}"
_CANDIDATES = {ALL_CANDIDATES: "", EQUAL_NUMBERS: ", also with equal numbers of candidates"}
# "Consistent across problems" and "nearly every step" are held to mean this share at least.
_NEARLY_ALL = 0.9


def _beyond(interval: Interval, limit: float = 0.0) -> str:
    if interval.low > limit:
        return "holds"
    return "does not hold" if interval.high < limit else "not resolved"


def _closer_verdict(found: Contrast, claim: str, paper: str, why: str, where: str) -> Verdict:
    return Verdict(
        claim,
        paper,
        f"{found.first.mean:.3f} against {found.second.mean:.3f}; difference {found.difference}",
        _beyond(found.difference),
        f"{found.difference.num_prompts} problems, each held out once; {why}",
        where=where,
    )


def _held_out(categories: pd.DataFrame) -> str:
    """What equal numbers give where nothing of the held-out problem's category is a candidate."""
    if categories.empty:
        return ""
    rows = categories[categories["candidates"] == EQUAL_NUMBERS].set_index("label")
    cut, whole = (
        f"{row.difference:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for row in rows.loc[list(_TOGETHER)].itertuples()
    )
    return (
        f"; with whole categories held out the difference is {cut}, and {whole} where responses "
        "are embedded to their end"
    )


def _lost_text(items: pd.DataFrame) -> str:
    cut = (items["num_tokens"] > items["num_read"]).mean()
    lost = 1 - items["num_read"].sum() / items["num_tokens"].sum()
    return (
        f"the embedder cuts {cut:.0%} of the responses and drops {lost:.0%} of their tokens; the "
        "mean over pieces drops none"
    )


def _consistency_verdict(contrasts: Mapping[tuple[str, str], Contrast], candidates: str) -> Verdict:
    share = contrasts[_GAP, candidates].share_above
    return Verdict(
        f"The gap between steps and responses is consistent across problems"
        f"{_CANDIDATES[candidates]}",
        "consistent" if candidates == ALL_CANDIDATES else "no such control",
        f"steps are closer on a share of {share} of {share.num_prompts} problems",
        _beyond(share, _NEARLY_ALL),
        f"held to mean on {_NEARLY_ALL:.0%} of problems at least; Wilson interval",
        where="Fig. 2",
    )


def _categories_verdict(categories: pd.DataFrame, candidates: str) -> Verdict:
    claim = f"The gap shows on further test sets as well{_CANDIDATES[candidates]}"
    paper = "similar trend on two further benchmarks"
    if categories.empty:
        why = "the pool's responses name no category"
        return Verdict(
            claim, paper, "one test set", "not testable at this scale", why, where="Fig. 7, Fig. 8"
        )
    rows = categories[categories["candidates"] == candidates]
    rows = rows[~rows["label"].isin(_TOGETHER)]
    if (rows["low"] > 0).all():
        verdict = "holds"
    else:
        verdict = "does not hold" if (rows["high"] < 0).any() else "not resolved"
    return Verdict(
        claim,
        paper if candidates == ALL_CANDIDATES else "no such control",
        "steps minus responses: "
        + ", ".join(f"{row.label} {row.difference:+.3f}" for row in rows.itertuples()),
        verdict,
        f"each of {len(rows)} categories held out, training on the others; the interval lies above "
        f"0 in {(rows['low'] > 0).sum()} and below 0 in {(rows['high'] < 0).sum()}",
        where="Fig. 7, Fig. 8",
    )


def _nearly_every_verdict(nearer: Interval) -> Verdict:
    return Verdict(
        "Nearly every held-out step has a closer neighbour than its whole response has",
        "examples: steps 0.94 to 0.98, responses 0.68 and 0.72",
        f"true of a share of {nearer} of steps",
        _beyond(nearer, _NEARLY_ALL),
        f"all candidates; nearly every is held to mean {_NEARLY_ALL:.0%} at least; the examples "
        "show steps at their best and responses at their worst",
        where="Table 11, Table 12",
    )


# --- sensitivity to the step splitter (Sec. B.1) ------------------------------------------------


# Below, a bootstrap over prompts gives intervals that are far too narrow.
_ENOUGH_PROMPTS = 10


def splitter_scores(
    profile: Profile, pool: Pool, scores: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """The candidates' scores under the profile's other splitters, beside the main one's.

    Windows of steps or tokens are scored anew, for the first ``splitter_prompts`` of the
    candidates' prompts. The full prefix follows from GALP's tokens for all of them.

    Args:
        profile: The run's profile.
        pool: The profile's pool.
        scores: From `profile_scores`, with token columns.
        seed: The one of ``scores``.

    Returns:
        One row per response; for each splitter ``NAME:lalp@W`` and ``NAME:num_steps``.
    """
    most, each = profile.num_prompts, profile.responses_per_teacher
    candidates = pick_candidates(pool, most, each, seed)
    few = pick_candidates(pool, min(most, profile.splitter_prompts), each, seed)
    texts = {response.response_id: response.text for response in candidates.responses}
    tokenizer = load_tokenizer(profile.student)
    *windows, full = splitter_windows(profile)
    frame = scores[["prompt_id", "response_id", "teacher", "correct", "num_tokens"]].copy()
    for splitter in (profile.splitter, *profile.splitters):
        steps = split_pool(candidates, splitter, tokenizer=tokenizer, embedder=profile.embedder)
        weighed = weigh_responses(scores, texts, steps)
        frame[splitter_column(splitter, "num_steps")] = weighed["num_steps"]
        frame[splitter_column(splitter, full)] = weighed["score"]
        local = scores[scores["prompt_id"].isin(few.prompts)]
        if splitter != profile.splitter:
            chosen = {name: steps[name] for name in local["response_id"]}
            local = score(few, profile.student, windows, splitter=chosen)
        local = local.set_index("response_id").reindex(scores["response_id"])
        for window in windows:
            frame[splitter_column(splitter, window)] = local[f"lalp@{window}"].to_numpy()
    return frame


def splitter_windows(profile: Profile) -> list[str]:
    """Windows for the comparison of splitters: none, the main one, those in tokens, and all."""
    local = [w for w in profile.windows if w in ("0", profile.main_window) or w.endswith("t")]
    return [*(window for window in local if window != "all"), "all"]


def splitter_sensitivity(frame: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`compare_splitters` for the profile: does the ranking survive other steps?"""
    splitters, windows = [profile.splitter, *profile.splitters], splitter_windows(profile)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return compare_splitters(frame, splitters, windows, **options)


def splitter_means(frame: pd.DataFrame, profile: Profile, seed: int) -> pd.DataFrame:
    """`centered_means` for the profile, for the figure."""
    splitters, windows = [profile.splitter, *profile.splitters], splitter_windows(profile)
    options = {"num_resamples": profile.num_resamples, "seed": seed}
    return centered_means(frame, splitters, windows, **options)


def splitter_verdicts(table: pd.DataFrame, profile: Profile) -> list[Verdict]:
    """Whether the teacher ranking is one of the responses, or one of how they were cut.

    Args:
        table: From `splitter_sensitivity`.
        profile: The run's profile.
    """
    return [
        _splitter_verdict(
            table.query("window == @profile.main_window and splitter != @profile.splitter"),
            f"The teacher ranking under LALP, w = {profile.main_window}, survives another step "
            "splitter",
        ),
        _splitter_verdict(
            table.query("window == 'all' and splitter != @profile.splitter"),
            "The weighting of steps alone (full prefix) ranks teachers alike under another step "
            "splitter",
        ),
    ]


def _splitter_verdict(rows: pd.DataFrame, claim: str) -> Verdict:
    num_prompts = int(rows["prompts"].min())
    verdict = "not resolved"
    if num_prompts >= _ENOUGH_PROMPTS:
        if (rows["tau_high"] < 1).any():
            verdict = "does not hold"
        elif (rows["tau_low"] == 1).all():
            verdict = "holds"
    taus = (
        f"{r.splitter} {r.tau:.2f} [{r.tau_low:.2f}, {r.tau_high:.2f}]" for r in rows.itertuples()
    )
    few = "" if num_prompts >= _ENOUGH_PROMPTS else ", too few for intervals to be trusted"
    return Verdict(
        claim,
        "a language model's steps; sentences were tried; no comparison is shown",
        "Kendall tau with the main splitter's order: " + ", ".join(taus),
        verdict,
        f"{num_prompts} prompts{few}; the intervals hold for the whole table together; the same "
        f"response is selected for {rows['same'].min():.0%} to {rows['same'].max():.0%} of prompts",
        "Sec. B.1",
    )
