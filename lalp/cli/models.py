"""Commands that run or train models: sample, train, eval, compare, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalp.errors import InputError
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool

# Imported where they are needed: torch and transformers take seconds, `lalp check` should not.
if TYPE_CHECKING:
    import pandas as pd
from lalp.cli.options import (
    AsJson,
    Seed,
    Splitter,
    StudentName,
    TrustCode,
    is_main_process,
    print,
    records,
    say,
)

app = typer.Typer()


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
    from lalp.pools import prompts as pools_prompts
    from lalp.sampling import pool as sampling_pool
    from lalp.sampling import samples as sampling_samples

    given = {
        "num_samples": num_samples,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
    }
    sampling = sampling_samples.choose_sampling(preset, seed, given)
    asked = pools_prompts.load_prompts(prompts)
    pool, summary = sampling_pool.sample_pool(
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
    print(summary, as_json, lambda: _print_sampling(summary))
    say(f"{len(pool.responses)} responses written: {out}")


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
    from lalp.training import examples, recipes, trainer
    from lalp.training import log as training_log

    log = trainer.train(
        data,
        student,
        out,
        recipes.load_recipe(
            recipe,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            gradient_accumulation=gradient_accumulation,
            max_length=max_length,
        ),
        seed=seed,
        held_out=examples.HeldOut(pool, splitter, window) if pool else None,
        evaluations=evaluations,
        save_steps=save_steps,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    summary = training_log.log_summary(log)
    if is_main_process():
        print(summary, as_json, lambda: _print_training(summary))
        say(f"trained student: {out}")


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
    from lalp.evaluation import accuracy
    from lalp.evaluation import evaluate as evaluation_evaluate
    from lalp.sampling import samples as sampling_samples

    given = {
        "num_samples": num_samples,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
    }
    results = evaluation_evaluate.evaluate(
        benchmarks,
        model,
        sampling_samples.choose_sampling(preset, seed, given),
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
    evaluation_evaluate.write_results(results, out)
    table = accuracy.accuracy_table(results, seed=seed)
    report = {"run": results.attrs["run"], "accuracy": records(table)}
    print(report, as_json, lambda: _print_accuracy(table))
    say(f"{len(results)} samples graded: {out}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Results written by lalp eval.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Those of another run.")],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs on the same problems: B minus A, paired, with intervals."""
    from lalp.evaluation import accuracy
    from lalp.evaluation import evaluate as evaluation_evaluate

    table = accuracy.compare_runs(
        evaluation_evaluate.load_results(a), evaluation_evaluate.load_results(b), seed=seed
    )
    print({"comparison": records(table)}, as_json, lambda: _print_comparison(table))


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
    from lalp.training import llamafactory
    from lalp.training.recipes import load_recipe

    done = llamafactory.export_llamafactory(
        data,
        student,
        out,
        load_recipe(recipe),
        template=template,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    say(f"{done['num_examples']} examples, template {done['template']}: {out}")
    if done["num_different"] is None:
        say("whether it writes prompts as the student's chat template does is not known")
    elif done["num_different"]:
        say(
            f"{done['num_different']} of their prompts are written in another way than by the "
            "student's chat template, whose text LALP scores"
        )
    say(f"to train: cd {out} && FORCE_TORCHRUN=1 llamafactory-cli train train.yaml")


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
