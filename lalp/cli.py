"""The `lalp` command: a thin shell over the functions of the package.

Exit codes: 0 done, 2 bad input. Results go to standard output, messages to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalp.records import (
    TRAINING_FORMATS,
    InputError,
    load_pool,
    pool_summary,
    write_training,
)

# Imported where they are needed: torch and transformers take seconds, `lalp check` should not.
if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which reasoning traces teach a student best? Score, rank teachers, select.",
)

PoolFile = Annotated[
    str, typer.Argument(metavar="POOL", help="JSONL or Parquet, one response a line.")
]
ScoresFile = Annotated[str, typer.Argument(metavar="SCORES", help="Table written by lalp score.")]
StudentName = Annotated[
    str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m (packaged).")
]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="Steps (4), share (25%), tokens (256t), or all; repeatable."),
]
Splitter = Annotated[
    str,
    typer.Option(
        help="How responses are cut into steps: sentences, paragraphs, semantic, 32t (chunks of "
        "that many student tokens), or a steps file (.jsonl)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TrustCode = Annotated[bool, typer.Option(help="Run Python code that comes with the model.")]
Seed = Annotated[int, typer.Option(help="For everything random.")]


@app.command()
def check(pool: PoolFile, as_json: AsJson = False) -> None:
    """Read a pool and say what it holds."""
    summary = pool_summary(load_pool(pool))
    _print(summary, as_json, lambda: _print_summary(summary))


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
) -> None:
    """Cut every response into steps, as [start, end) character offsets."""
    if splitter != "llm" and (llm_url or llm_model or llm_instruction):
        raise InputError(f"--llm options go with --splitter llm, not {splitter}: leave them out")
    if splitter == "llm" and not (llm_url and llm_model):
        raise InputError("--splitter llm needs --llm-url and --llm-model: whom to ask")
    loaded = load_pool(pool)
    from lalp.steps import chunk_size, count_reasons, split_pool, write_steps

    fallbacks: dict[str, str] = {}
    if splitter == "llm":
        from lalp.llm_splitter import INSTRUCTION, load_instruction, split_with_llm

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
    _say(f"{len(loaded.responses)} responses cut into steps: {out}")
    for reason, count in count_reasons(fallbacks).items():
        _say(f"{count} of them into sentences: {reason}")


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
    from lalp.costs import plan_scoring

    cost = plan_scoring(
        loaded,
        student,
        windows or ["4"],
        splitter=splitter,
        trust_remote_code=trust_remote_code,
    ).as_dict()
    _print(cost, as_json, lambda: _print_cost(cost))


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
) -> None:
    """Score every response by GALP and by LALP at each window; a killed run goes on."""
    if out.suffix != ".parquet" or out.is_dir():
        raise InputError(
            f"--out {out}: scores are written as Parquet: give a name in .parquet, no folder"
        )
    loaded = load_pool(pool)
    from lalp import store as scores

    frame = scores.score(
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
    scores.write_scores(frame, loaded, out)
    unscored = int(frame["reason"].notna().sum())
    _say(f"{len(frame)} responses scored: {out}")
    if unscored:
        example = frame.loc[frame["reason"].notna()].iloc[0]
        _say(
            f"{unscored} of them lack a score, for example {example['response_id']}: "
            f"{example['reason']}"
        )


@app.command()
def teachers(
    scores: ScoresFile,
    windows: Windows = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Rank teachers by mean score over the same prompts, with intervals."""
    from lalp.selection import compare_rankings, prompts_enough, rank_teachers
    from lalp.store import load_scores

    frame = load_scores(scores)
    columns = _columns(frame, windows)
    rankings = {column: rank_teachers(frame, column, seed=seed) for column in columns}
    several = frame["teacher"].nunique() > 1
    taus = compare_rankings(frame, columns) if several else None
    enough = {c: prompts_enough(frame, c, seed=seed) for c in columns} if several else {}
    result = {
        "rankings": {column: _records(table) for column, table in rankings.items()},
        "num_prompts": {column: table.attrs["num_prompts"] for column, table in rankings.items()},
        "left_out": {column: table.attrs["left_out"] for column, table in rankings.items()},
        "kendall_tau": {} if taus is None else taus.to_dict(),
        "prompts_enough": {column: _records(table) for column, table in enough.items()},
    }
    _print(result, as_json, lambda: _print_teachers(rankings, taus, enough))


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
    from lalp import selection
    from lalp.store import load_scores, scored_pool

    frame = load_scores(scores)
    options: dict[str, Any] = {"seed": seed, "tie": tie, "skip_unscored": skip_unscored}
    if like is not None and rule != "random":
        raise InputError(f"--like goes with --rule random, not with --rule {rule}: leave it out")
    candidates = frame if teacher is None else selection.of_teacher(frame, teacher)
    chosen = selection.select(candidates, like or rule, window, **options)
    left_out = chosen.attrs["left_out"]
    if like is not None:
        chosen = selection.select_random_matched(candidates, chosen, seed=seed)
    write_training(scored_pool(frame, scores), list(chosen["response_id"]), out, fmt)
    mix = selection.teacher_mix(chosen)
    result = {
        "num_selected": len(chosen),
        "teacher_mix": mix.to_dict("index"),
        "left_out": left_out,
        "response_ids": list(chosen["response_id"]),
    }
    _print(result, as_json, lambda: _print_selection(mix, left_out))
    _say(f"{len(chosen)} responses written: {out}")


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
    from lalp.display import write_heat_map
    from lalp.store import load_scores

    write_heat_map(load_scores(scores), response_id, out, window, where=scores)
    _say(f"heat map of {response_id}: {out}")


def main() -> None:
    """Entry point: bad input is one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("lalp: %(message)s"))
    logging.getLogger("lalp").addHandler(handler)
    # Bars for reading local weights, and a line for every retry of the hub, say nothing new.
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except InputError as error:
        _say(str(error))
        sys.exit(2)
    except OSError as error:
        _say(f"{error.filename or 'file'}: {error.strerror or error}")
        sys.exit(2)


def _load_tokenizer(student: str) -> Any:
    from lalp.students import load_tokenizer

    return load_tokenizer(student)


def _columns(frame: pd.DataFrame, windows: list[str] | None) -> list[str]:
    present = [c for c in frame.columns if c.startswith("lalp@") and not c.endswith(":tokens")]
    if not windows:
        return ["galp", *present]
    from lalp.windows import parse_windows

    wanted = [f"lalp@{window}" for window in parse_windows(windows)]
    for column in wanted:
        if column not in present:
            raise InputError(
                f"{column} is not in the table, it holds {', '.join(present)}: score it first"
            )
    return ["galp", *wanted]


def _say(message: str) -> None:
    typer.echo(f"lalp: {message}", err=True)


def _print(value: Any, as_json: bool, for_people: Any) -> None:
    if as_json:
        typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        for_people()


def _plain(value: Any) -> Any:
    """Values that JSON holds: numpy numbers as numbers, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _print_summary(summary: dict[str, Any]) -> None:
    typer.echo(f"{summary['num_prompts']} prompts, {summary['num_responses']} responses")
    for teacher, count in summary["responses_by_teacher"].items():
        typer.echo(f"  {count:>8,}  {teacher}")
    for number, count in summary["prompts_by_num_teachers"].items():
        typer.echo(f"  {count:>8,}  prompts with responses by {number} teacher(s)")
    for mark in ("correct", "incorrect", "unverified"):
        typer.echo(f"  {summary[f'num_{mark}']:>8,}  {mark}")
    typer.echo(f"  {summary['num_prompts_with_answer']:>8,}  prompts with a reference answer")
    if summary["num_duplicate_texts"]:
        typer.echo(f"  {summary['num_duplicate_texts']:>8,}  repeat another response's text")
    for reason, count in summary["left_out"].items():
        typer.echo(f"  {count:>8,}  left out: {reason}")


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


if __name__ == "__main__":
    main()
