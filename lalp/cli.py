"""The `lalp` command: a thin shell over the functions of the package.

Exit codes: 0 done, 2 bad input. Results go to standard output, messages to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalp.records import (
    TRAINING_FORMATS,
    InputError,
    load_pool,
    pool_summary,
    save_pool,
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
    as_json: AsJson = False,
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
    result = {
        "num_responses": len(loaded.responses),
        "num_steps": sum(len(spans) for spans in steps.values()),
        "fallbacks": fallbacks,
    }
    _print(result, as_json, lambda: None)
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
    as_json: AsJson = False,
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
    reasons = frame.set_index("response_id")["reason"].dropna()
    result = {"num_responses": len(frame), "unscored": reasons.to_dict(), **frame.attrs}
    _print(result, as_json, lambda: None)
    _say(f"{len(frame)} responses scored: {out}")
    if len(reasons):
        _say(
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


@app.command()
def sample(
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS",
            help="JSONL or Parquet of prompt_id, prompt and (to verify) answer; or a pool.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m.")],
    out: Annotated[Path, typer.Option(help="Pool to write: .jsonl or .parquet.")],
    teacher: Annotated[
        str | None, typer.Option(help="Its name in the pool; the end of the model's if not given.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="table5-greedy, table5-sampled, table7-greedy, table7-sampled, c9-sampled; one "
            "greedy answer of 1,024 tokens if not given."
        ),
    ] = None,
    num_samples: Annotated[int | None, typer.Option(help="Samples of each prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="New tokens of a sample at most.")] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt; the paper's if not given, '' for none.")
    ] = None,
    backend: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    batch_size: Annotated[
        int | None, typer.Option(help="Samples drawn at once, and stored together.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs that share the model (vllm).")] = 1,
    store: Annotated[
        Path | None, typer.Option(help="Where finished samples are kept (build/samples).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that verify answers.")] = 2,
    seed: Seed = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    trust_remote_code: TrustCode = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sample answers to prompts, verify them and write a pool; a killed run goes on."""
    if out.suffix not in (".jsonl", ".parquet") or out.is_dir():
        raise InputError(f"--out {out}: give a name in .jsonl or .parquet, no folder")
    from lalp import generation

    given = {
        "num_samples": num_samples,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
    }
    sampling = generation.choose_sampling(preset, seed, given)
    asked = generation.load_prompts(prompts)
    pool, summary = generation.sample_pool(
        asked,
        model,
        sampling,
        teacher or Path(model).name,
        system_prompt=system,
        store=store,
        num_workers=workers,
        backend=backend,
        batch_size=batch_size,
        tensor_parallel=tensor_parallel,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    save_pool(pool, out)
    _print(summary, as_json, lambda: _print_sampling(summary))
    _say(f"{len(pool.responses)} responses written: {out}")


@app.command()
def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL written by lalp select.")],
    out: Annotated[Path, typer.Option(help="Folder to write: weights, tokenizer, log.")],
    student: StudentName = "smollm2-135m",
    recipe: Annotated[
        str, typer.Option(help="paper, paper-32b, terciles, or a .yaml file of the same keys.")
    ] = "paper",
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples per device and pass, instead of the recipe's.")
    ] = None,
    gradient_accumulation: Annotated[
        int | None, typer.Option(help="Passes per optimizer step, instead of the recipe's.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per example, instead of the recipe's.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(metavar="POOL", help="Measure the likelihood of these responses.")
    ] = None,
    splitter: Splitter = "sentences",
    window: Annotated[str, typer.Option(help="Of their local likelihood.")] = "4",
    evaluations: Annotated[
        int, typer.Option(help="How often they are measured, before and after included.")
    ] = 4,
    save_steps: Annotated[
        int | None, typer.Option(help="Steps between checkpoints (one every ten minutes).")
    ] = None,
    seed: Seed = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    trust_remote_code: TrustCode = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a student, also under accelerate launch; a killed run goes on."""
    pool = load_pool(held_out) if held_out else None
    from lalp import training

    given = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "max_length": max_length,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    log = training.train(
        data,
        student,
        out,
        replace(training.load_recipe(recipe), **changes),
        seed=seed,
        held_out=training.HeldOut(pool, splitter, window) if pool else None,
        evaluations=evaluations,
        save_steps=save_steps,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    summary = training.log_summary(log)
    if _is_main_process():
        _print(summary, as_json, lambda: _print_training(summary))
        _say(f"trained student: {out}")


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Option(help="Hub id, folder, GGUF file, or smollm2-135m.")],
    benchmarks: Annotated[
        list[str],
        typer.Option(
            "--benchmark",
            help="math500, aime25, amc23, minerva, kaoyan, olympiadbench, cn_math_2024, "
            "gpqa_diamond, livecodebench, or a file of prompts with answers; repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet to write: one row per sample.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files, instead of the hub.")
    ] = None,
    allow_count: Annotated[
        bool, typer.Option("--allow-count", help="Accept files without all of its problems.")
    ] = False,
    preset: Annotated[
        str, typer.Option(help="table7-greedy, table7-sampled, or another of lalp sample.")
    ] = "table7-greedy",
    num_samples: Annotated[int | None, typer.Option(help="Instead of the preset's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Instead of the preset's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Instead of the preset's.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Instead of the preset's; 0 is off.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Instead of the preset's.")] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt; the paper's if not given, '' for none.")
    ] = None,
    backend: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    batch_size: Annotated[int | None, typer.Option(help="Samples drawn at once.")] = None,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs that share the model (vllm).")] = 1,
    store: Annotated[
        Path | None, typer.Option(help="Where finished samples are kept (build/samples).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = 2,
    seed: Seed = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    trust_remote_code: TrustCode = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer benchmarks with a model and grade the answers; a killed run goes on."""
    if out.suffix != ".parquet" or out.is_dir():
        raise InputError(
            f"--out {out}: results are written as Parquet: give a name in .parquet, no folder"
        )
    from lalp import evaluation, generation

    given = {
        "num_samples": num_samples,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
    }
    results = evaluation.evaluate(
        benchmarks,
        model,
        generation.choose_sampling(preset, seed, given),
        folder=data,
        allow_count=allow_count,
        system_prompt=system,
        store=store,
        num_workers=workers,
        backend=backend,
        batch_size=batch_size,
        tensor_parallel=tensor_parallel,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    evaluation.write_results(results, out)
    table = evaluation.accuracy_table(results, seed=seed)
    report = {"run": results.attrs["run"], "accuracy": _records(table)}
    _print(report, as_json, lambda: _print_accuracy(table))
    _say(f"{len(results)} samples graded: {out}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Results written by lalp eval.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Those of another run.")],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs on the same problems: B minus A, paired, with intervals."""
    from lalp import evaluation

    table = evaluation.compare_runs(
        evaluation.load_results(a), evaluation.load_results(b), seed=seed
    )
    _print({"comparison": _records(table)}, as_json, lambda: _print_comparison(table))


@app.command()
def prompts(
    name: Annotated[str, typer.Argument(help="limo, math (levels 3-5) or code.")],
    out: Annotated[Path, typer.Option(help="JSONL to write, for lalp sample.")],
    limit: Annotated[int, typer.Option(min=1, help="Prompts at most.")] = 1_000_000,
    responses_by: Annotated[
        str | None,
        typer.Option(help="Write the data set's own solutions as a pool of this teacher (limo)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets' records, instead of the hub.")
    ] = None,
) -> None:
    """Fetch the paper's training prompts from the hub."""
    from lalp import sources

    if responses_by is not None:
        if name != "limo":
            raise InputError("--responses-by goes with limo: leave it out")
        pool = sources.published_pool(responses_by, limit, data)
        save_pool(pool, out)
        _say(f"{len(pool.responses)} responses by {responses_by}: {out}")
        return
    found = sources.load_source(name, limit, data)
    sources.write_prompts(found, out)
    _say(f"{len(found)} prompts: {out}")


@app.command()
def unsolved(
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help="As for lalp sample.")],
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="Responses to them.")],
    out: Annotated[Path, typer.Option(help="JSONL to write; an empty file if all are solved.")],
) -> None:
    """Write the prompts that no response of the pools is known to solve, to sample them again."""
    from lalp import sources
    from lalp.generation import load_prompts

    asked = load_prompts(prompts)
    rest = sources.unsolved_prompts(asked, [load_pool(pool) for pool in pools])
    sources.write_prompts(rest, out)
    _say(f"{len(rest)} of {len(asked)} prompts are not solved: {out}")


@app.command()
def merge(
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="JSONL or Parquet.")],
    out: Annotated[Path, typer.Option(help="File to write (a folder for llamafactory).")],
    only_correct: Annotated[
        bool, typer.Option("--only-correct", help="Keep responses known to be correct.")
    ] = False,
    per_teacher: Annotated[
        int | None, typer.Option(min=1, help="Keep the first N of each teacher to a prompt.")
    ] = None,
    min_teachers: Annotated[
        int, typer.Option(min=1, help="Keep prompts with kept responses of so many teachers.")
    ] = 1,
    fmt: Annotated[
        str, typer.Option("--format", help="pool, " + ", ".join(TRAINING_FORMATS) + ".")
    ] = "pool",
    as_json: AsJson = False,
) -> None:
    """Put several pools together into one, or into one training file."""
    from lalp.sources import merge_pools

    pool = merge_pools(
        pools, only_correct=only_correct, per_teacher=per_teacher, min_teachers=min_teachers
    )
    if fmt == "pool":
        save_pool(pool, out)
    else:
        write_training(pool, [response.response_id for response in pool.responses], out, fmt)
    summary = pool_summary(pool)
    _print(summary, as_json, lambda: _print_summary(summary))
    _say(f"{len(pool.responses)} responses written: {out}")


pipeline_app = typer.Typer(
    no_args_is_help=True,
    help="The paper's experiment from sampling to its tables: what it costs, in small, for real.",
)
app.add_typer(pipeline_app, name="pipeline")
PipelineName = Annotated[str, typer.Option("--profile", help="paper or gpu.")]
StagePatterns = Annotated[
    list[str] | None,
    typer.Option("--stage", help="A name, a pattern like 'train-*', or a kind; repeatable."),
]


@pipeline_app.command("plan")
def pipeline_plan(
    profile: PipelineName = "paper", stage: StagePatterns = None, as_json: AsJson = False
) -> None:
    """Say of every stage what it computes, needs and runs, before anything runs."""
    from lalp import pipeline_costs, pipeline_run, pipeline_stages
    from lalp.pipeline import load_pipeline, run_folder

    settings = load_pipeline(profile)
    root = run_folder("pipeline", profile)
    stages = pipeline_stages.make_stages(settings, pipeline_stages.Place(root), profile)
    stages = pipeline_run.choose_stages(stages, stage or [])
    costs = pipeline_costs.plan_costs(settings, stages)
    records = [pipeline_costs.as_record(*pair) for pair in zip(stages, costs, strict=True)]
    result = {"stages": records, "totals": pipeline_costs.add_up(costs)}
    _print(result, as_json, lambda: typer.echo(pipeline_costs.plan_text(stages, costs)))


@pipeline_app.command("run")
def pipeline_run_(
    profile: PipelineName = "paper",
    stage: StagePatterns = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take outputs made elsewhere; needs --stage.")
    ] = False,
) -> None:
    """Run the stages that are not done yet; a second run goes on where one stopped."""
    from lalp import pipeline_run, pipeline_stages
    from lalp.pipeline import load_pipeline, run_folder

    root = run_folder("pipeline", profile)
    place = pipeline_stages.Place(root)
    stages = pipeline_stages.make_stages(load_pipeline(profile), place, profile)
    stages = pipeline_run.choose_stages(stages, stage or [])
    if adopt and not stage:
        raise InputError("--adopt takes the outputs of named stages: add --stage")
    for each in stages if adopt else []:
        _print_report(pipeline_run.adopt_stage(each, root))
    if not adopt:
        pipeline_run.run_stages(stages, root, on_report=_print_report)


@pipeline_app.command("dryrun")
def pipeline_dryrun_(profile: PipelineName = "paper") -> None:
    """Run every stage in small, with tiny models and toy problems, on the CPU."""
    from lalp.pipeline import run_folder
    from lalp.pipeline_dryrun import dry_run

    began = time.monotonic()
    typer.echo(f"{'stage':<68} {'seconds':>8} {'run as':<7}  outputs checked")
    reports = dry_run(
        profile,
        run_folder("dryrun", profile),
        say=_say,
        on_report=lambda report, fresh: _print_report(report, "process" if fresh else ""),
    )
    typer.echo(f"{len(reports)} stages passed in {time.monotonic() - began:.0f} s")
    typer.echo(
        "Unlike the real run: toy problems, tiny models, transformers instead of vLLM, two CPU "
        "processes over gloo, and one process for all but the first stage of each kind."
    )


@pipeline_app.command("tables")
def pipeline_tables_(
    profile: PipelineName = "paper",
    root: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of LiveCodeBench's file.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lay the paper's tables and the run's numbers side by side."""
    from lalp import pipeline_tables
    from lalp.pipeline import load_pipeline, run_folder

    folder = root or run_folder("pipeline", profile)
    tables = pipeline_tables.collect_tables(load_pipeline(profile), folder, data)
    if out is not None:
        pipeline_tables.write_tables(tables, out)
        _say(f"{len(tables)} tables: {out}")
    result = {table.number: table.as_dict() for table in tables}
    _print(result, as_json, lambda: typer.echo(pipeline_tables.tables_text(tables)))


export = typer.Typer(no_args_is_help=True, help="Write what other programs train with.")
app.add_typer(export, name="export")


@export.command("llamafactory")
def export_llamafactory(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL written by lalp select.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    student: StudentName = "smollm2-135m",
    recipe: Annotated[
        str, typer.Option(help="paper, paper-32b, terciles, or a .yaml file of the same keys.")
    ] = "paper",
    template: Annotated[
        str | None, typer.Option(help="LLaMA-Factory's name of the chat format.")
    ] = None,
    seed: Seed = 0,
    trust_remote_code: TrustCode = False,
) -> None:
    """Write data and settings for LLaMA-Factory, the paper's trainer."""
    from lalp import llamafactory
    from lalp.training import load_recipe

    done = llamafactory.export_llamafactory(
        data,
        student,
        out,
        load_recipe(recipe),
        template=template,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    _say(f"{done['num_examples']} examples, template {done['template']}: {out}")
    if done["num_different"] is None:
        _say("whether it writes prompts as the student's chat template does is not known")
    elif done["num_different"]:
        _say(
            f"{done['num_different']} of their prompts are written in another way than by the "
            "student's chat template, whose text LALP scores"
        )
    _say(f"to train: cd {out} && FORCE_TORCHRUN=1 llamafactory-cli train train.yaml")


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


def _is_main_process() -> bool:
    """Whether this process speaks; accelerate launch numbers them."""
    return os.environ.get("RANK", "0") == "0"


def _say(message: str) -> None:
    if _is_main_process():
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


def _print_sampling(summary: dict[str, Any]) -> None:
    typer.echo(
        f"{summary['num_samples']} samples of {summary['num_prompts']} prompts, "
        f"{summary['num_tokens']:,} tokens ({summary['mean_tokens']:,.0f} on average), "
        f"{summary['truncated']:.1%} truncated"
    )
    if summary["accuracy"] is not None:
        typer.echo(
            f"{summary['accuracy']:.1%} correct; {summary['solved']} prompts solved at least once"
        )
    for outcome, count in summary["outcomes"].items():
        typer.echo(f"  {count:>8,}  {outcome}")
    for reason, count in summary["left_out"].items():
        typer.echo(f"  {count:>8,}  left out: {reason}")


def _print_accuracy(table: pd.DataFrame) -> None:
    for row in table.itertuples():
        samples = f" x {row.num_samples} samples" if row.num_samples > 1 else ""
        typer.echo(
            f"{row.accuracy:6.3f} [{row.low:.3f}, {row.high:.3f}]  {row.title}: "
            f"{row.num_problems} problems{samples}, {row.truncated:.1%} truncated, "
            f"{row.no_answer:.1%} without an answer, {row.mean_tokens:,.0f} tokens on average"
        )


def _print_comparison(table: pd.DataFrame) -> None:
    for row in table.itertuples():
        text = (
            f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]  {row.title}: "
            f"{row.accuracy_a:.3f} -> {row.accuracy_b:.3f}, {row.num_problems} problems"
        )
        if row.p_value == row.p_value:
            text += f", {row.only_a:.0f} lost and {row.only_b:.0f} won, p = {row.p_value:.3g}"
        if row.low <= 0 <= row.high and row.problems_needed == row.problems_needed:
            text += f"; about {row.problems_needed:,.0f} such problems would show a difference"
        typer.echo(text)


def _print_report(report: Any, how: str = "") -> None:
    seconds = "before" if report.state == "done before" else f"{report.seconds:.1f}"
    outputs = "; ".join(report.outputs) + ("  (nothing to do)" if "nothing" in report.state else "")
    typer.echo(f"{report.stage.name:<68} {seconds:>8} {how:<7}  {outputs}")


def _print_training(summary: dict[str, Any]) -> None:
    typer.echo(f"{summary['num_steps']} steps over {summary['num_tokens']:,} tokens")
    names = {
        "loss": "training loss, first and last step",
        "global_nll": "held-out global NLL, before and after",
        "local_nll": "held-out local NLL, before and after",
    }
    for key, title in names.items():
        first, last = summary[key]
        if first == first:
            typer.echo(f"  {first:8.4f} {last:8.4f}  {title}")


if __name__ == "__main__":
    main()
