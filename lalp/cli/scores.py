"""Commands on steps and scores: segment, plan, score, teachers, select, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalp.errors import InputError
from lalp.pools.reading import load_pool
from lalp.pools.writing import TRAINING_FORMATS, write_training

# Imported where they are needed: torch and transformers take seconds, `lalp check` should not.
if TYPE_CHECKING:
    import pandas as pd
from lalp.cli.options import (
    AsJson,
    PoolFile,
    ScoresFile,
    Seed,
    Splitter,
    StudentName,
    TrustCode,
    Windows,
    print,
    records,
    say,
)

app = typer.Typer()


@app.command()
def segment(
    pool: PoolFile,
    out: Annotated[Path, typer.Option(help="JSONL to write: one response a line.")],
    splitter: Annotated[
        str,
        typer.Option(
            help="sentences, paragraphs, semantic, llm, 32t (chunks of that many student tokens), "
            "or a steps file to check."
        ),
    ] = "sentences",
    student: Annotated[
        str, typer.Option(help="Whose tokens 32t counts: as for lalp score.")
    ] = "smollm2-135m",
    llm_url: Annotated[
        str | None,
        typer.Option(
            help="Base URL of an OpenAI-compatible server; a key is read from LALP_LLM_API_KEY."
        ),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    llm_instruction: Annotated[
        str | None, typer.Option(help="Text file with {solution} (and {problem}) to send instead.")
    ] = None,
    llm_concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    llm_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Cut every response into steps, as [start, end) character offsets."""
    if splitter != "llm" and (llm_url or llm_model or llm_instruction):
        raise InputError(f"--llm options go with --splitter llm, not {splitter}: leave them out")
    if splitter == "llm" and not (llm_url and llm_model):
        raise InputError("--splitter llm needs --llm-url and --llm-model: whom to ask")
    loaded = load_pool(pool)
    from lalp.steps.splitters import chunk_size, count_reasons, split_pool, write_steps

    fallbacks: dict[str, str] = {}
    if splitter == "llm":
        from lalp.steps.llm import INSTRUCTION, load_instruction, split_with_llm

        result = split_with_llm(
            loaded,
            llm_url,
            llm_model,
            instruction=load_instruction(llm_instruction) if llm_instruction else INSTRUCTION,
            concurrency=llm_concurrency,
            timeout=llm_timeout,
        )
        steps, fallbacks = result.steps, result.fallbacks
    else:
        tokenizer = _load_tokenizer(student) if chunk_size(splitter) else None
        steps = split_pool(loaded, splitter, tokenizer=tokenizer)
    write_steps(out, loaded, steps, fallbacks)
    result = {
        "num_responses": len(loaded.responses),
        "num_steps": sum(len(spans) for spans in steps.values()),
        "fallbacks": fallbacks,
    }
    print(result, as_json, lambda: None)
    say(f"{len(loaded.responses)} responses cut into steps: {out}")
    for reason, count in count_reasons(fallbacks).items():
        say(f"{count} of them into sentences: {reason}")


@app.command()
def plan(
    pool: PoolFile,
    student: StudentName = "smollm2-135m",
    windows: Windows = None,
    splitter: Splitter = "sentences",
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Estimate tokens, FLOPs, time and memory of scoring, before anything runs."""
    loaded = load_pool(pool)
    from lalp.scoring.costs import plan_scoring

    cost = plan_scoring(
        loaded,
        student,
        windows or ["4"],
        splitter=splitter,
        trust_remote_code=trust_remote_code,
    ).as_dict()
    print(cost, as_json, lambda: _print_cost(cost))


@app.command()
def score(
    pool: PoolFile,
    out: Annotated[Path, typer.Option(help="Parquet to write: one row per response.")],
    student: StudentName = "smollm2-135m",
    windows: Windows = None,
    splitter: Splitter = "sentences",
    tokens: Annotated[bool, typer.Option(help="Keep per-token log-probabilities.")] = False,
    store: Annotated[
        Path | None, typer.Option(help="Where finished prompts are kept (build/scores).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    trust_remote_code: TrustCode = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score every response by GALP and by LALP at each window; a killed run goes on."""
    if out.suffix != ".parquet" or out.is_dir():
        raise InputError(
            f"--out {out}: scores are written as Parquet: give a name in .parquet, no folder"
        )
    loaded = load_pool(pool)
    from lalp.scoring import run
    from lalp.scoring import table as scoring_table

    frame = run.score(
        loaded,
        student,
        windows or ["4"],
        splitter=splitter,
        with_tokens=tokens,
        store=store,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    scoring_table.write_scores(frame, loaded, out)
    reasons = frame.set_index("response_id")["reason"].dropna()
    result = {"num_responses": len(frame), "unscored": reasons.to_dict(), **frame.attrs}
    print(result, as_json, lambda: None)
    say(f"{len(frame)} responses scored: {out}")
    if len(reasons):
        say(
            f"{len(reasons)} of them lack a score, for example {reasons.index[0]}: "
            f"{reasons.iloc[0]}"
        )


@app.command()
def teachers(
    scores: ScoresFile,
    windows: Windows = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Rank teachers by mean score over the same prompts, with intervals."""
    from lalp.scoring.table import load_scores
    from lalp.selection.ranking import compare_rankings, prompts_enough, rank_teachers

    frame = load_scores(scores)
    columns = _columns(frame, windows)
    rankings = {column: rank_teachers(frame, column, seed=seed) for column in columns}
    several = frame["teacher"].nunique() > 1
    taus = compare_rankings(frame, columns) if several else None
    enough = {c: prompts_enough(frame, c, seed=seed) for c in columns} if several else {}
    result = {
        "rankings": {column: records(table) for column, table in rankings.items()},
        "num_prompts": {column: table.attrs["num_prompts"] for column, table in rankings.items()},
        "left_out": {column: table.attrs["left_out"] for column, table in rankings.items()},
        "kendall_tau": {} if taus is None else taus.to_dict(),
        "prompts_enough": {column: records(table) for column, table in enough.items()},
    }
    print(result, as_json, lambda: _print_teachers(rankings, taus, enough))


@app.command()
def select(
    scores: ScoresFile,
    rule: Annotated[
        str,
        typer.Option(
            help="random, galp, galp-middle, galp-lowest, lalp, lalp-lowest, hybrid, galp-tail, "
            "lalp-tail, rsr."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write (a folder for llamafactory).")],
    window: Annotated[str | None, typer.Option(help="Window of lalp and hybrid rules.")] = None,
    fmt: Annotated[
        str, typer.Option("--format", help=", ".join(TRAINING_FORMATS) + ".")
    ] = "messages",
    like: Annotated[
        str | None,
        typer.Option(help="With --rule random: take as many responses per teacher as this rule."),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Choose among its responses only.")] = None,
    tie: Annotated[str, typer.Option(help="Of equal scores: first, shortest or random.")] = "first",
    skip_unscored: Annotated[
        bool, typer.Option(help="Leave out responses without a score instead of stopping.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Choose one response per prompt and write a training file."""
    from lalp.scoring.table import load_scores, scored_pool
    from lalp.selection import matched, rules

    frame = load_scores(scores)
    options: dict[str, Any] = {"seed": seed, "tie": tie, "skip_unscored": skip_unscored}
    if like is not None and rule != "random":
        raise InputError(f"--like goes with --rule random, not with --rule {rule}: leave it out")
    candidates = frame if teacher is None else rules.of_teacher(frame, teacher)
    chosen = rules.select(candidates, like or rule, window, **options)
    left_out = chosen.attrs["left_out"]
    if like is not None:
        chosen = matched.select_random_matched(candidates, chosen, seed=seed)
    write_training(scored_pool(frame, scores), list(chosen["response_id"]), out, fmt)
    mix = rules.teacher_mix(chosen)
    result = {
        "num_selected": len(chosen),
        "teacher_mix": mix.to_dict("index"),
        "left_out": left_out,
        "response_ids": list(chosen["response_id"]),
    }
    print(result, as_json, lambda: _print_selection(mix, left_out))
    say(f"{len(chosen)} responses written: {out}")


@app.command()
def show(
    scores: ScoresFile,
    response_id: Annotated[str, typer.Option(help="The response to show.")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")],
    window: Annotated[
        str | None, typer.Option(help="Local window; needed if the table holds several.")
    ] = None,
) -> None:
    """Draw one response as a heat map: what each token gains from context outside the window."""
    from lalp.scoring.heat_map import write_heat_map
    from lalp.scoring.table import load_scores

    write_heat_map(load_scores(scores), response_id, out, window, where=scores)
    say(f"heat map of {response_id}: {out}")


def _load_tokenizer(student: str) -> Any:
    from lalp.students.student import load_tokenizer

    return load_tokenizer(student)


def _columns(frame: pd.DataFrame, windows: list[str] | None) -> list[str]:
    from lalp.scoring.columns import lalp_column, score_columns

    present = [column for column in score_columns(frame) if column != "galp"]
    if not windows:
        return ["galp", *present]
    from lalp.scoring.windows import parse_windows

    wanted = [lalp_column(window) for window in parse_windows(windows)]
    for column in wanted:
        if column not in present:
            raise InputError(
                f"{column} is not in the table, it holds {', '.join(present)}: score it first"
            )
    return ["galp", *wanted]


def _print_cost(cost: dict[str, Any]) -> None:
    gain = cost["flops_per_step_loop"] / max(cost["flops"], 1.0)
    lines = [
        f"{cost['num_responses']:,} responses, {cost['num_steps']:,} steps, "
        f"{cost['response_tokens']:,} response tokens",
        f"{cost['fed_tokens']:,} tokens to feed, {cost['target_tokens']:,} to predict, "
        f"longest row {cost['longest_row']:,}",
        f"{cost['flops'] / 1e12:,.2f} TFLOP ({gain:.1f} times fewer than one pass per step "
        "and window)",
        f"about {_duration(cost['seconds'])} on this machine ({cost['device']}, {cost['dtype']})",
        f"about {cost['memory_bytes'] / 2**30:.1f} GiB of memory at most",
    ]
    if cost["too_long"]:
        lines.append(f"{cost['too_long']} responses exceed the student's positions: no GALP")
    typer.echo("\n".join(lines))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_teachers(
    rankings: dict[str, pd.DataFrame],
    taus: pd.DataFrame | None,
    enough: dict[str, pd.DataFrame],
) -> None:
    for column, table in rankings.items():
        typer.echo(f"{column}, nats per token, {table.attrs['num_prompts']} prompts in common")
        for row in table.itertuples():
            typer.echo(
                f"  {row.rank}. {row.teacher:<24} {row.mean:8.4f}  "
                f"[{row.low:.4f}, {row.high:.4f}]  first in {row.p_top:.0%} of resamples"
            )
        for reason, count in table.attrs["left_out"].items():
            typer.echo(f"  left out: {count} {reason}")
        if column in enough:
            stable = enough[column].query("order_share >= 0.95")["num_prompts"].min()
            typer.echo(f"  {stable} prompts give this order in 95 % of draws")
    if taus is not None:
        typer.echo("Kendall tau with the order under galp")
        for column, tau in taus["galp"].items():
            typer.echo(f"  {tau:6.2f}  {column}")


def _print_selection(mix: pd.DataFrame, left_out: dict[str, int]) -> None:
    for teacher, row in mix.iterrows():
        typer.echo(f"{row['count']:>8,.0f}  {row['percent']:5.1f} %  {teacher}")
    for reason, count in left_out.items():
        typer.echo(f"{count:>8,}  left out: {reason}")
