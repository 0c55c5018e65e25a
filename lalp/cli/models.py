"""Commands that run or train models: sample, train, eval, compare, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalp.cli import options
from lalp.cli.printing import (
    is_main_process,
    print_accuracy,
    print_comparison,
    print_result,
    print_sampling,
    print_training,
    say,
)
from lalp.errors import InputError
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import save_pool

# What needs torch is imported where it is used: that takes seconds, `lalp check` should not.
app = typer.Typer()


@app.command()
def sample(
    prompts: options.PromptsFile,
    model: options.ModelName,
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
    num_samples: options.NumSamples = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    max_tokens: options.MaxTokens = None,
    system: options.System = None,
    backend: options.Backend = "transformers",
    batch_size: options.SampleBatch = None,
    tensor_parallel: options.TensorParallel = 1,
    store: options.SampleStore = None,
    workers: options.Workers = 2,
    seed: options.Seed = 0,
    device: options.Device = None,
    trust_remote_code: options.TrustCode = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Sample answers to prompts, verify them and write a pool; a killed run goes on."""
    if out.suffix not in (".jsonl", ".parquet") or out.is_dir():
        raise InputError(f"--out {out}: give a name in .jsonl or .parquet, no folder")
    from lalp.sampling.pool import sample_pool
    from lalp.sampling.settings import choose_sampling

    given = {"num_samples": num_samples, "temperature": temperature, "max_tokens": max_tokens}
    sampling = choose_sampling(preset, seed, given | {"top_p": top_p, "top_k": top_k})
    pool, summary = sample_pool(
        load_prompts(prompts),
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
    print_result(summary, as_json, lambda: print_sampling(summary))
    say(f"{len(pool.responses)} responses written: {out}")


@app.command()
def train(
    data: options.TrainingFile,
    out: Annotated[Path, typer.Option(help="Folder to write: weights, tokenizer, log.")],
    student: options.StudentName = "smollm2-135m",
    recipe: options.RecipeName = "paper",
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
    splitter: options.Splitter = "sentences",
    window: Annotated[str, typer.Option(help="Of their local likelihood.")] = "4",
    evaluations: Annotated[
        int, typer.Option(help="How often they are measured, before and after included.")
    ] = 4,
    save_steps: Annotated[
        int | None, typer.Option(help="Steps between checkpoints (one every ten minutes).")
    ] = None,
    seed: options.Seed = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    trust_remote_code: options.TrustCode = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune a student, also under accelerate launch; a killed run goes on."""
    pool = load_pool(held_out) if held_out else None
    from lalp.training import trainer
    from lalp.training.examples import HeldOut
    from lalp.training.log import log_summary
    from lalp.training.recipes import load_recipe

    given = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    given |= {"gradient_accumulation": gradient_accumulation, "max_length": max_length}
    log = trainer.train(
        data,
        student,
        out,
        load_recipe(recipe, **given),
        seed=seed,
        held_out=HeldOut(pool, splitter, window) if pool else None,
        evaluations=evaluations,
        save_steps=save_steps,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=not quiet,
    )
    summary = log_summary(log)
    if is_main_process():
        print_result(summary, as_json, lambda: print_training(summary))
        say(f"trained student: {out}")


@app.command("eval")
def evaluate(
    model: options.ModelName,
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
        str,
        typer.Option(
            help="table7-greedy, table7-sampled, or another of lalp sample; the options below "
            "replace single settings."
        ),
    ] = "table7-greedy",
    num_samples: options.NumSamples = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    max_tokens: options.MaxTokens = None,
    system: options.System = None,
    backend: options.Backend = "transformers",
    batch_size: options.SampleBatch = None,
    tensor_parallel: options.TensorParallel = 1,
    store: options.SampleStore = None,
    workers: options.Workers = 2,
    seed: options.Seed = 0,
    device: options.Device = None,
    trust_remote_code: options.TrustCode = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer benchmarks with a model and grade the answers; a killed run goes on."""
    if out.suffix != ".parquet" or out.is_dir():
        raise InputError(
            f"--out {out}: results are written as Parquet: give a name in .parquet, no folder"
        )
    from lalp.evaluation import evaluate as evaluation
    from lalp.evaluation.accuracy import accuracy_table
    from lalp.sampling.settings import choose_sampling

    given = {"num_samples": num_samples, "temperature": temperature, "max_tokens": max_tokens}
    results = evaluation.evaluate(
        benchmarks,
        model,
        choose_sampling(preset, seed, given | {"top_p": top_p, "top_k": top_k}),
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
    table = accuracy_table(results, seed=seed)
    report = {"run": results.attrs["run"], "accuracy": table}
    print_result(report, as_json, lambda: print_accuracy(table))
    say(f"{len(results)} samples graded: {out}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Results written by lalp eval.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Those of another run.")],
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs on the same problems: B minus A, paired, with intervals."""
    from lalp.evaluation.accuracy import compare_runs
    from lalp.evaluation.evaluate import load_results

    table = compare_runs(load_results(a), load_results(b), seed=seed)
    print_result({"comparison": table}, as_json, lambda: print_comparison(table))


export = typer.Typer(no_args_is_help=True, help="Write what other programs train with.")
app.add_typer(export, name="export")


@export.command("llamafactory")
def export_llamafactory(
    data: options.TrainingFile,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    student: options.StudentName = "smollm2-135m",
    recipe: options.RecipeName = "paper",
    template: Annotated[
        str | None, typer.Option(help="LLaMA-Factory's name of the chat format.")
    ] = None,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustCode = False,
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
