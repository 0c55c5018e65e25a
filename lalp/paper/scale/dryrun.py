"""A small version of the plan: every stage, on toy problems, with tiny models, in minutes.

`shrink` changes only a plan's settings and place: a dry run uses the code and the command lines of
the real run. ``toys.yaml`` holds its data, words and settings. Teachers must solve problems, or
there would be nothing to select from. So each is trained for seconds on answers to the toy prompts,
in its own words, until it gives them. Students have random weights. The first model that is only
evaluated is taught the toy benchmarks and must solve all of them: if it does not, they are read or
graded wrongly.

Starting a process and importing torch takes longer than most toy stages. So the first stage of each
kind runs like the real one, and the others call the same commands inside this process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
import yaml
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from typer import Typer

from lalp.cli.app import app as tool
from lalp.cli.printing import say
from lalp.errors import InputError
from lalp.evaluation.benchmarks import BENCHMARKS, load_benchmark
from lalp.evaluation.evaluate import load_results
from lalp.files import digest, fingerprint, read_data
from lalp.paper.scale.models import find_model
from lalp.paper.scale.plan import EVALUATED_ONLY, Arm, Plan, load_plan
from lalp.paper.scale.run import Report, call_process, is_done, run_stages
from lalp.paper.scale.sources import load_source
from lalp.paper.scale.stages import KINDS, Place, Stage, arm_file, make_stages
from lalp.pools.pool import Prompt
from lalp.sampling.samples import SYSTEM_PROMPT, with_system_prompt
from lalp.students.encoding import encode, render_prompt

_MAX_STEPS, _STEPS_BETWEEN_CHECKS = 900, 50
_TOYS = read_data("paper/scale/toys.yaml")
_PROMPTS, _TOKENIZER = _TOYS["prompts"], _TOYS["tokenizer"]


def dry_run(
    profile: str,
    root: str,
    commands: Typer,
    *,
    plan: Plan | None = None,
    processes: Collection[str] = KINDS,
    on_report: Callable[[Report, bool], object] = lambda report, fresh: None,
) -> list[Report]:
    """Run a small version of every stage of a plan; a second run continues where one stopped.

    The folder ``root`` is emptied when the code has changed. ``commands`` are the replication's
    own. The first stage of each kind in ``processes`` runs in its own process; ``on_report`` learns
    after every stage whether it did. ``plan`` replaces the settings of the profile's file.
    """
    small, place = shrink(plan or load_plan(profile), root)
    stages = make_stages(small, place, profile)
    left = set(processes)
    reports = []
    with _one_thread():
        make_toys(small, stages, root)
        for stage in stages:
            fresh = stage.kind in left and not is_done(stage, root)
            left.discard(stage.kind)
            call = call_process if fresh else partial(call_here, commands)
            (report,) = run_stages([stage], root, call=call)
            on_report(report, fresh)
            reports.append(report)
    name = EVALUATED_ONLY[0]
    path = Path(arm_file(root, "results", Arm(name)))
    wrong = load_results(path).query("not correct") if path.exists() else ()
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"dry run: {name} was taught the answer {row['answer']!r} to {row['prompt_id']}, which "
            f"was graded {row['outcome']} (read: {row['extracted']!r})"
        )
    return reports


@contextmanager
def _one_thread() -> Iterator[None]:
    """For tiny models, waiting threads cost more time than the computation."""
    threads, name = torch.get_num_threads(), "OMP_NUM_THREADS"
    before = os.environ.get(name)
    torch.set_num_threads(1)
    os.environ[name] = "1"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop(name)
        os.environ |= {} if before is None else {name: before}


def call_here(commands: Typer, words: Sequence[str], stdout: Path | None, log: Path) -> int:
    """Run a command line inside this process: ``accelerate launch`` without its processes."""
    words = words[words.index("-m") + 1 :] if "-m" in words else words
    app = commands if words[0] == "lalp.paper.scale" else tool
    logger = logging.getLogger("lalp")
    with log.open("a", encoding="utf-8") as said, redirect_stderr(said):
        handler = logging.StreamHandler(said)
        logger.addHandler(handler)
        out = stdout.open("w", encoding="utf-8") if stdout else nullcontext(said)
        try:
            with out as file, redirect_stdout(file):
                app(list(words[1:]), standalone_mode=False)
        except InputError as error:
            said.write(f"lalp: {error}\n")
            return 2
        except Exception:
            traceback.print_exc(file=said)
            return 1
        finally:
            logger.removeHandler(handler)
    return 0


def shrink(plan: Plan, root: str) -> tuple[Plan, Place]:
    """The same plan with toy data, tiny models and two CPU processes for training."""
    toys = f"{root}/toys"
    recipes = ("recipe", "large_recipe", "short_recipe")
    changes = {"seeds": plan.seeds[:1], "backend": "transformers", "gpus": 2}
    changes |= {f"{pool}_prompts": count for pool, count in _PROMPTS.items()}
    changes |= dict.fromkeys(recipes, f"{toys}/recipe.yaml")
    changes |= dict.fromkeys(("accelerate", "big_accelerate"), f"{toys}/two_processes.yaml")
    small = replace(plan, **changes)
    options = {name: tuple(words) for name, words in _TOYS["options"].items()}
    return small, Place(root, f"{toys}/models", f"{toys}/data", options)


def models_needed(plan: Plan, stages: Sequence[Stage]) -> tuple[list[str], list[str]]:
    """Names of the models that sample, and of all other models that run."""
    kinds: dict[str, set[str]] = {}
    for stage in stages:
        if stage.work.model:
            kinds.setdefault(plan.model(stage.work.model).name, set()).add(stage.kind)
    teachers = [name for name, found in kinds.items() if "sample" in found]
    return teachers, [name for name in kinds if name not in teachers]


def make_toys(plan: Plan, stages: Sequence[Stage], root: str | Path) -> None:
    """Write the toy data and models once; another version of the code starts over.

    Nothing else may be in ``root``. Plan and stages use the place of `shrink`.
    """
    toys = Path(root) / "toys"
    mark, (teachers, students) = toys / "made", models_needed(plan, stages)
    # Over the whole package: after any change of the code, a dry run must try everything again.
    made_by = digest([fingerprint("."), _TOYS, (teachers, students)])
    if mark.is_file() and mark.read_text() == made_by:
        return
    shutil.rmtree(root, ignore_errors=True)
    data = toys / "data"
    data.mkdir(parents=True)
    for name, records in _TOYS["data"].items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (data / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name in ("recipe", "two_processes"):
        (toys / f"{name}.yaml").write_text(yaml.safe_dump(_TOYS[name]), encoding="utf-8")
    lessons = {name: _lessons(number, data) for number, name in enumerate(teachers)}
    if (name := EVALUATED_ONLY[0]) in students:
        students.remove(name)
        lessons[name] = _benchmark_lessons(data)
    tokenizer = make_tokenizer()
    for number, (name, taught) in enumerate(lessons.items()):
        steps = _teach(name, number, taught, tokenizer, toys / "models" / name)
        who, what = ("teacher", "prompts") if name in teachers else ("model", "benchmarks")
        say(f"tiny {who} in the place of {name}: answers the toy {what} after {steps} steps")
    for number, name in enumerate(students):
        for part in (make_model(name, number, 32), tokenizer):
            part.save_pretrained(toys / "models" / name)
    say(f"tiny students with random weights in the place of {', '.join(students)}")
    mark.write_text(made_by)


def _lessons(number: int, data: Path) -> list[tuple[Prompt, str]]:
    """The lessons of a teacher: answers to the toy prompts in its own words.

    The second teacher does not learn the last LIMO prompt, so that one prompt stays unsolved.
    """
    first, second = _TOYS["styles"][number % 3]
    limo = load_source("limo", _PROMPTS["limo"], data)
    limo = limo[:-1] if number == 1 else limo
    lessons = [(prompt, first.format(prompt.answer)) for prompt in limo]
    for prompt in load_source("math", _PROMPTS["math"], data):
        lessons += [(prompt, style.format(prompt.answer)) for style in (first, second)]
    for prompt in load_source("code", _PROMPTS["code"], data):
        value = "".join(c for c in prompt.messages[-1].content if c.isdigit())
        lessons.append((prompt, _TOYS["code_styles"][number % 3].format(value)))
    return lessons


def _benchmark_lessons(data: Path) -> list[tuple[Prompt, str]]:
    """The toy benchmarks with their answers, except for programs."""
    names = [name for name, benchmark in BENCHMARKS.items() if benchmark.grader != "code"]
    prompts = [p for name in names for p in load_benchmark(name, data, allow_count=True)]
    return [(with_system_prompt(p, SYSTEM_PROMPT), f"\\boxed{{{p.answer}}}.") for p in prompts]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all tiny models."""
    bpe = Tokenizer(models.BPE())
    # Digits one by one: a tiny model then need not know each number as a token.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENIZER["vocab"],
        special_tokens=_TOKENIZER["special"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    styles = [*chain(*_TOYS["styles"]), *_TOYS["code_styles"]]
    bpe.train_from_iterator([SYSTEM_PROMPT, *styles, *_TOKENIZER["questions"]], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>")
    tokenizer.chat_template = _TOKENIZER["chat_template"]
    return tokenizer


def make_model(name: str, seed: int, hidden: int) -> PreTrainedModel:
    """A random model of the family that ``name`` belongs to."""
    size = {"hidden_size": hidden, "intermediate_size": 2 * hidden, **_TOYS["model"]}
    family, vocab = find_model(name).family, _TOKENIZER["vocab"]
    config = AutoConfig.for_model(family, vocab_size=vocab, **size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _teach(
    name: str,
    number: int,
    lessons: Sequence[tuple[Prompt, str]],
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> int:
    """Train a tiny model until it repeats its lessons, and save it; returns the number of steps."""
    model = make_model(name, 100 + number, 64)
    ids, labels, certain = _encode(lessons, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, _MAX_STEPS)
    for step in range(1, _MAX_STEPS + 1):
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        right = (logits.argmax(-1) == labels[:, 1:]) | (labels[:, 1:] < 0)
        # The loss must be low too: a token that is barely the likeliest may not be after rounding.
        sure = loss < 0.08 and bool(right[certain].all())
        if step % _STEPS_BETWEEN_CHECKS == 0 and sure:
            for part in (model.eval(), tokenizer):
                part.save_pretrained(folder)
            return step
    raise InputError(f"dry run: the tiny teacher in the place of {name} did not learn its answers")


def _encode(
    lessons: Sequence[tuple[Prompt, str]], tokenizer: PreTrainedTokenizerFast
) -> tuple[Int[torch.Tensor, "rows width"], Int[torch.Tensor, "rows width"], list[int]]:
    """Token ids, labels (-100 outside the answers), and the rows with a single right answer."""
    ids, labels = [], []
    for prompt, answer in lessons:
        one = encode(tokenizer, render_prompt(tokenizer, prompt), answer)
        said = [*one.response_ids, tokenizer.eos_token_id]
        ids.append(torch.tensor([*one.prompt_ids, *said]))
        labels.append(torch.tensor([-100] * len(one.prompt_ids) + said))
    # A MATH prompt has two alternating answers: no model gives both greedily.
    names = [prompt.prompt_id for prompt, _ in lessons]
    certain = [row for row, name in enumerate(names) if names.count(name) == 1]
    padding = {"batch_first": True, "padding_value": tokenizer.eos_token_id}
    padded = pad_sequence(ids, **padding), pad_sequence(labels, **padding | {"padding_value": -100})
    return *padded, certain
