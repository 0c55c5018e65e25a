"""Commands that run or train models: sample, train, eval, compare, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from lalp.cli import options, printing
from lalp.cli.printing import print_result, say
from lalp.extras import require
from lalp.origins import ORIGIN, origin
from lalp.pools.pool import located
from lalp.pools.reading import load_pool, load_prompts
from lalp.pools.writing import save_pool

# Modules that need torch are imported where they are used. Importing torch takes seconds, and
# `lalp check` should not wait for it.
app = Typer()

_PRESETS = "table5-greedy, table5-sampled, table7-greedy, table7-sampled, or c9-sampled"
_BENCHMARKS = (
    "math500, aime25, amc23, minerva, kaoyan, olympiadbench, cn_math_2024, gpqa_diamond, "
    "livecodebench, or a file of prompts with answers; repeatable."
)
_BATCH_SIZE = "Examples per device and pass; default: the recipe's."
_ACCUMULATION = "Passes per optimizer step; default: the recipe's."
_HELD_OUT = "Measure the likelihood of these responses during training."
_EVALUATIONS = "How often to measure it, including before and after training."
_SAVE_STEPS = "Steps between checkpoints; default: one every ten minutes."


@app.command()
@options.writes_out
@options.with_sampling_options
def sample(
    prompts: options.PromptsFile,
    model: options.ModelName,
    out: Annotated[Path, Option(help="Pool to write: .jsonl or .parquet.")],
    how: options.SamplingOptions,
    teacher: Annotated[
        str | None, Option(help="Teacher's name in the pool; default: the last part of --model.")
    ] = None,
    preset: Annotated[str | None, Option(help=f"{_PRESETS}; default: one greedy answer.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Sample answers to prompts, verify them, and write a pool.

    A killed run continues where it stopped.
    """
    options.check_out(out, "a pool is JSONL or Parquet", ".jsonl", ".parquet")
    from lalp.sampling.pool import sample_pool

    name = teacher or Path(model).name
    asked, sampling = load_prompts(prompts), how.sampling(preset)
    pool, summary = sample_pool(asked, model, sampling, name, **how.keywords())
    settings = {"model": model, "teacher": name, **asdict(sampling), "system": how.system}
    save_pool(pool, out, origin("sample", {"prompts": prompts}, **settings))
    print_result(summary, as_json, printing.print_sampling)
    say(f"{len(pool.responses)} responses written: {out}")


@app.command()
@options.writes_out
def train(
    data: options.TrainingFile,
    out: Annotated[Path, Option(help="Folder to write: weights, tokenizer, log.")],
    student: options.StudentName = "smollm2-135m",
    recipe: options.RecipeName = "paper",
    learning_rate: Annotated[
        float | None, Option(help="Peak learning rate; default: the recipe's.")
    ] = None,
    epochs: Annotated[int | None, Option(help="Passes over data; default: the recipe's.")] = None,
    batch_size: Annotated[int | None, Option(help=_BATCH_SIZE)] = None,
    gradient_accumulation: Annotated[int | None, Option(help=_ACCUMULATION)] = None,
    max_length: Annotated[
        int | None, Option(help="Tokens per example; default: the recipe's.")
    ] = None,
    held_out: Annotated[str | None, Option(metavar="POOL", help=_HELD_OUT)] = None,
    splitter: options.Splitter = "sentences",
    window: Annotated[str, Option(help="Window of the local likelihood of --held-out.")] = "4",
    evaluations: Annotated[int, Option(help=_EVALUATIONS)] = 4,
    save_steps: Annotated[int | None, Option(help=_SAVE_STEPS)] = None,
    seed: options.Seed = 0,
    device: Annotated[str | None, Option(help="cpu or cuda.")] = None,
    trust_remote_code: options.TrustCode = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune a student, also under accelerate launch.

    A killed run continues where it stopped.
    """
    require("train", "train")
    # The pool is read before torch is imported, so that a wrong file is refused at once.
    pool = load_pool(held_out) if held_out else None
    from lalp.training import trainer
    from lalp.training.examples import HeldOut
    from lalp.training.log import log_summary
    from lalp.training.recipes import load_recipe

    changes = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    changes |= {"gradient_accumulation": gradient_accumulation, "max_length": max_length}
    settings = {"evaluations": evaluations, "save_steps": save_steps, "seed": seed}
    settings |= {"held_out": HeldOut(pool, splitter, window) if pool else None, "device": device}
    settings |= {"trust_remote_code": trust_remote_code, "progress": not quiet}
    log = trainer.train(data, student, out, load_recipe(recipe, **changes), **settings)
    summary = log_summary(log)
    if printing.is_main_process():
        print_result(summary, as_json, printing.print_training)
        say(f"trained student: {out}")


@app.command("eval")
@options.writes_out
@options.with_sampling_options
def evaluate(
    model: options.ModelName,
    benchmarks: Annotated[list[str], Option("--benchmark", help=_BENCHMARKS)],
    out: Annotated[Path, Option(help="Parquet to write: one row per sample.")],
    how: options.SamplingOptions,
    data: Annotated[Path | None, Option(help="Folder of benchmark files (default: hub).")] = None,
    allow_count: Annotated[
        bool, Option("--allow-count", help="Accept a number of problems that is not the paper's.")
    ] = False,
    preset: Annotated[str, Option(help=f"{_PRESETS}; other options change it.")] = "table7-greedy",
    as_json: options.AsJson = False,
) -> None:
    """Answer benchmarks with a model and grade the answers.

    A killed run continues where it stopped.
    """
    options.check_out(out, "results are written as Parquet", ".parquet")
    from lalp.evaluation import evaluate as evaluation
    from lalp.evaluation.accuracy import accuracy_table

    settings = {"folder": data, "allow_count": allow_count} | how.keywords()
    results = evaluation.evaluate(benchmarks, model, how.sampling(preset), **settings)
    files = [benchmark for benchmark in benchmarks if Path(benchmark).is_file()]
    results.attrs[ORIGIN] = origin("eval", {"benchmarks": files, "data": data}, model=model)
    evaluation.write_results(results, out)
    report = {"run": results.attrs["run"], "accuracy": accuracy_table(results, seed=how.seed)}
    print_result(report, as_json, printing.print_accuracy)
    say(f"{len(results)} samples graded: {out}")


@app.command()
def compare(
    a: Annotated[str, Argument(metavar="A", help="Results written by lalp eval.")],
    b: Annotated[str, Argument(metavar="B", help="Results of another run.")],
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs on the same problems by paired differences, B minus A, with intervals."""
    from lalp.evaluation.accuracy import compare_runs
    from lalp.evaluation.evaluate import load_results

    runs = load_results(a), load_results(b)
    with located(f"{a} and {b}"):
        table = compare_runs(*runs, seed=seed)
    print_result({"comparison": table}, as_json, printing.print_comparison)


export = Typer(no_args_is_help=True, help="Write training files for other programs.")
app.add_typer(export, name="export")


@export.command("llamafactory")
@options.writes_out
def export_llamafactory(
    data: options.TrainingFile,
    out: Annotated[Path, Option(help="Folder to write.")],
    student: options.StudentName = "smollm2-135m",
    recipe: options.RecipeName = "paper",
    template: Annotated[str | None, Option(help="LLaMA-Factory's name of the chat format.")] = None,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustCode = False,
) -> None:
    """Write data and settings for LLaMA-Factory, the paper's trainer."""
    options.check_training_out(out, "llamafactory")
    from lalp.training import llamafactory
    from lalp.training.recipes import load_recipe

    settings = {"template": template, "seed": seed, "trust_remote_code": trust_remote_code}
    done = llamafactory.export_llamafactory(data, student, out, load_recipe(recipe), **settings)
    say(f"{done['num_examples']} examples, template {done['template']}: {out}")
    if done["num_different"] is None:
        say("whether it writes prompts as the student's chat template does is not known")
    elif done["num_different"]:
        written = "in another way than by the student's chat template, whose text LALP scores"
        say(f"{done['num_different']} of their prompts are written {written}")
    say(f"to train: cd {out} && FORCE_TORCHRUN=1 llamafactory-cli train train.yaml")
