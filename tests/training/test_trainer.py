"""Fine-tuning: what is in the loss, what is logged and measured, and what a run leaves behind."""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import math
import re
import runpy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import chain
from pathlib import Path
from unittest.mock import MagicMock, create_autospec

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import build_student
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool, write_training
from lalp.scoring.run import score
from lalp.students import student as students_student
from lalp.students.encoding import encode, end_of_turn, render_prompt
from lalp.students.student import load_student, load_tokenizer
from lalp.training import job as training_job
from lalp.training import trainer
from lalp.training.examples import (
    Example,
    HeldOut,
    cut_lengths,
    load_examples,
    make_example,
    order_examples,
)
from lalp.training.job import trainer_config, training_dtype
from lalp.training.log import load_held_out, load_log
from lalp.training.recipes import RECIPES, Recipe, load_recipe
from lalp.training.trainer import train
from tests.cli.conftest import Outcome
from tests.training.conftest import llamafactory_file, save

RECIPE = replace(
    RECIPES["paper"],
    learning_rate=1e-3,
    epochs=2,
    gradient_accumulation=2,
    warmup_ratio=0.3,
    max_length=256,
    weight_decay=0.1,
    bf16=False,  # some CPUs would
    gradient_checkpointing=False,
)
# Seven examples in steps of four: an epoch's last step is not full.
PAIRS = [
    (
        Prompt(f"p{i}", (Message("user", f"What is {i} + {i}?"),)),
        Response(f"r{i}", f"p{i}", "Ada", f"We add. Then x = {i}. So it is {2 * i}." * (1 + i % 3)),
    )
    for i in range(7)
]
STEPS_OF_RUN = 4
# One response is thirty times as long as another.
UNEQUAL = [
    (
        Prompt(f"u{i}", (Message("user", f"What is {i} + {i}?"),)),
        Response(f"r{i}", f"u{i}", "Ada", f"We add {i}. " * length + f"It is {2 * i}."),
    )
    for i, length in enumerate((30, 1, 1, 7, 2, 1, 15))
]
ROWS = [
    {
        "prompt_id": f"h{i}",
        "prompt": f"What is {i} times {i}?",
        "teacher": "Bob",
        "response": f"We check. Then y = {i}. So {i * i} is it. " * (1 + j) + "Done.",
    }
    for i in range(3)
    for j in range(2)
]
HELD_OUT = HeldOut(load_pool(ROWS), "sentences", "1")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(students_student, "default_device", lambda: "cpu")
    for name in ("RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module", autouse=True)
def faster() -> Iterator[None]:
    """Tiny models gain nothing from several threads; the trainer collects garbage every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def done(student_folder, tmp_path_factory) -> tuple[pd.DataFrame, Path]:
    """A finished run with held-out responses; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("runs") / "done"
    return run(student_folder, out, held_out=HELD_OUT, device="cpu"), out


def write_data(folder: Path) -> None:
    """What the command reads: ``train.jsonl`` and the held-out ``pool.jsonl``."""
    pool = Pool({p.prompt_id: p for p, _ in PAIRS}, tuple(r for _, r in PAIRS))
    write_training(pool, [r.response_id for _, r in PAIRS], folder / "train.jsonl", "messages")
    save_pool(HELD_OUT.pool, folder / "pool.jsonl")


def run(folder: str, out: Path, recipe: Recipe = RECIPE, **options: object) -> pd.DataFrame:
    return train(PAIRS, folder, out, recipe, progress=False, **options)


def assert_same_weights(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def assert_same_run(out: Path, expected: Path) -> None:
    log, other = (load_log(path).drop(columns="seconds") for path in (out, expected))
    assert_frame_equal(log, other, check_exact=True)
    assert_same_weights(out, expected)
    for name in ("held_out.csv", "run.json", "config.json"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert not out.with_name(f"{out.name}.partial").exists()


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


# --- recipes ----------------------------------------------------------------------------------

RECIPE_TEXT = yaml.safe_dump(asdict(RECIPES["paper-32b"]), sort_keys=False)


def test_a_recipe_from_a_file(tmp_path):
    # YAML reads `5e-6`, without a point, as text.
    (tmp_path / "mine.yaml").write_text(RECIPE_TEXT.replace("5.0e-06", "5e-6"))
    assert load_recipe(tmp_path / "mine.yaml") == RECIPES["paper-32b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs: 15", "epochs: 1.5"), "line 2: key 'epochs' should be a valid integer, not 1.5"),
        (("epochs: 15", "epochs: 0"), "key 'epochs' should be greater than or equal to 1, not 0"),
        (("epochs: 15", "epochs: 15\nrounds: 15"), "unknown key 'rounds': there are learning_rate"),
        (("epochs: 15", ""), "key 'epochs' is missing"),
        (("5.0e-06", "fast"), "key 'learning_rate' should be a valid number, not 'fast'"),
        (("5.0e-06", "0"), "key 'learning_rate' should be greater than 0, not 0"),
        (("5.0e-06", ".inf"), "key 'learning_rate' should be a finite number, not inf"),
        (("ratio: 0.0", "ratio: 1"), "key 'warmup_ratio' should be less than 1"),
        (("length: 16384", "length: 1"), "key 'max_length' should be greater than or equal to 2"),
        (("cosine", "bent"), "key 'schedule' should be 'linear', 'cosine'"),
        (("bf16: true", "bf16: [1"), "not valid YAML"),
        ((RECIPE_TEXT, "- 1"), "expected lines of the form"),
    ],
)
def test_a_recipe_that_does_not_fit(change, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE_TEXT.replace(*change))
    with pytest.raises(InputError, match=f"^recipe {re.escape(str(path))}.*{re.escape(message)}"):
        load_recipe(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(
        InputError, match="'papr' is not known: did you mean 'paper' or 'paper-32b'"
    ):
        load_recipe("papr")
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")


def test_a_recipe_is_changed():
    expected = replace(RECIPES["paper"], batch_size=3)
    assert load_recipe("paper", epochs=None, batch_size=3) == expected
    with pytest.raises(InputError, match=r"recipe: key 'batch_size' should be greater .* 1, not 0"):
        load_recipe("paper", batch_size=0)


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["messages", "prompt-completion"])
def test_training_files_are_read(fmt, tmp_path):
    system = Prompt("p0", (Message("system", "Be brief."), Message("user", "1 + 1?")), "2")
    pairs = [PAIRS[1], (system, Response("r0", "p0", "Ada", "It is 2.", True))]
    pool = Pool({p.prompt_id: p for p, _ in pairs}, tuple(r for _, r in pairs))
    write_training(pool, ["r1", "r0"], tmp_path / "train.jsonl", fmt)
    assert load_examples(tmp_path / "train.jsonl") == pairs


def chat(**changes: object) -> str:
    record = {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "completion": [{"role": "assistant", "content": "2"}],
    }
    return json.dumps(record | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (chat() + "\n\n" + chat(completion="2"), "line 3: 'prompt' and 'completion' must be lists"),
        (chat() + "\n" + chat(completion=[]), "line 2: field 'messages' must end with the assist"),
        (chat() + "\n{", "line 2: invalid JSON"),
        ("{", "line 1: invalid JSON"),
        ("", "the file is empty"),
    ],
)
def test_training_files_that_cannot_be_used(text, message, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}.*{re.escape(message)}"):
        load_examples(path)


def test_a_folder_or_nothing_to_train_on(tmp_path, student_folder):
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no", "no such file")):
        with pytest.raises(InputError, match=message):
            load_examples(path)
    with pytest.raises(InputError, match="no responses to train on"):
        train([], student_folder, tmp_path / "out", RECIPE)


def test_an_example_holds_the_scored_tokens_and_the_end(tokenizer):
    prompt, response = PAIRS[4]
    end = end_of_turn(tokenizer)
    example = make_example(tokenizer, prompt, response, 256, end)
    encoded = encode(tokenizer, render_prompt(tokenizer, prompt), response.text)
    asked, answer = encoded.prompt_ids, (*encoded.response_ids, *end)
    assert example == Example((*asked, *answer), len(asked), cut=False)
    assert example.labels == [*[-100] * len(asked), *answer]
    assert example.num_tokens == len(answer)
    assert tokenizer.decode(example.input_ids) == (
        f"<|user|>\nWhat is 4 + 4?<|end|>\n<|assistant|>\n{response.text}<|end|>\n"
    )


@pytest.mark.parametrize(
    ("lengths", "limit", "kept"),
    [
        ((10, 20), 30, (10, 20)),
        ((20, 100), 50, (20, 30)),  # a short prompt stays whole
        ((100, 1), 2, (2, 0)),
        ((100, 1), 3, (2, 1)),
    ],
)
def test_cutting(lengths, limit, kept):
    assert cut_lengths(*lengths, limit) == kept


@cache
def llamafactorys_rule() -> Callable[[int, int, int], tuple[int, int]]:
    """The function in LLaMA-Factory's own file, which needs nothing of its package."""
    path = llamafactory_file("data/processor/processor_utils.py")
    return runpy.run_path(str(path))["infer_seqlen"]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 500))
def test_cutting_is_llamafactorys(prompt, completion, limit):
    expected = llamafactorys_rule()(prompt, completion, limit)
    assert cut_lengths(prompt, completion, limit) == expected


def test_what_is_cut_away_wholly_is_refused(tokenizer):
    short, long = (Prompt("p", (Message("user", "What is it? " * times),)) for times in (50, 500))
    response = Response("r", "p", "Ada", "It is 7. " * 50)
    end = end_of_turn(tokenizer)
    example = make_example(tokenizer, short, response, 100, end)
    assert example.cut
    assert len(example.input_ids) == 100
    for limit in (2, 3):
        with pytest.raises(InputError, match=f"response 'r'.*nothing .* within {limit}: raise max"):
            make_example(tokenizer, long, response, limit, end)


@pytest.mark.parametrize(("num_prompt", "counted"), [(0, 2), (1, 2), (2, 1)])
def test_a_first_token_without_one_before_it_is_not_counted(num_prompt, counted):
    assert Example((1, 2, 3), num_prompt, False).num_tokens == counted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(0, 3),
)
def test_every_epoch_takes_every_example_once(lengths, epochs, per_step, seed):
    steps = order_examples(lengths, epochs, per_step, seed)
    per_epoch = math.ceil(len(lengths) / per_step)
    assert len(steps) == epochs * per_epoch
    everything = [*range(len(lengths)), *[None] * (per_epoch * per_step - len(lengths))]
    for start in range(0, len(steps), per_epoch):
        assert Counter(chain(*steps[start : start + per_epoch])) == Counter(everything)
    for step in steps:
        assert len(step) == per_step
        sizes = [0 if i is None else lengths[i] for i in step]
        assert sizes == sorted(sizes, reverse=True)
    assert steps == order_examples(lengths, epochs, per_step, seed)


def test_orders_differ_between_seeds_and_epochs():
    steps = order_examples([1] * 20, 2, 20, 0)
    assert steps[0] != steps[1]
    assert steps != order_examples([1] * 20, 2, 20, 1)


# --- the log against oracles ------------------------------------------------------------------


def plain_training(folder: str) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """The same run as a loop over transformers' own loss, one example at a time."""
    student = load_student(folder, device="cpu")
    model, end = student.model.train(), end_of_turn(student.tokenizer)
    examples = [make_example(student.tokenizer, p, r, RECIPE.max_length, end) for p, r in PAIRS]
    bare = [p for p in model.parameters() if p.ndim == 1]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decayed}, {"params": bare, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
    warmup = math.ceil(STEPS_OF_RUN * RECIPE.warmup_ratio)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, STEPS_OF_RUN)
    losses, norms = [], []
    for step in order_examples([len(e.input_ids) for e in examples], RECIPE.epochs, 4, 0):
        members = [examples[i] for i in step if i is not None]
        count = torch.tensor(sum(label != -100 for e in members for label in e.labels))
        losses.append(0.0)
        for e in members:
            ids, labels = torch.tensor([e.input_ids]), torch.tensor([e.labels])
            loss = model(input_ids=ids, labels=labels, num_items_in_batch=count).loss
            loss.backward()
            losses[-1] += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return losses, norms, {name: p.detach() for name, p in model.named_parameters()}


def test_losses_and_weights_are_those_of_a_plain_loop(done, student_folder):
    log, out = done
    losses, norms, expected = plain_training(student_folder)
    assert log["loss"][1:].tolist() == pytest.approx(losses, rel=1e-5)
    assert log["grad_norm"][1:].tolist() == pytest.approx(norms, rel=1e-4)
    before = load_student(student_folder, device="cpu").model.state_dict()
    for name, tensor in load_file(out / "model.safetensors").items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
        assert not torch.allclose(tensor, before[name], atol=1e-4), name


def test_the_log(done):
    log, out = done
    assert list(log.columns) == [
        *("step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens"),
        *("global_nll", "local_nll", "seconds"),
    ]
    assert log["step"].tolist() == [0, 1, 2, 3, 4]
    assert log["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    # Two warm-up steps from 0, then a cosine over the two that are left.
    assert log["learning_rate"][1:].tolist() == pytest.approx([0, 5e-4, 1e-3, 5e-4])
    assert log["num_tokens"][1:3].sum() == log["num_tokens"][3:].sum()
    assert log["num_tokens"][0] == 0
    assert log["global_nll"].notna().tolist() == [True, True, False, True, True]
    assert (log["seconds"][1:] > 0).all()
    assert_frame_equal(load_log(out), log, check_exact=True)
    assert_frame_equal(pd.read_csv(out / "training_log.csv"), log)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_held_out_likelihoods_are_the_scores_of_the_student_on_disk(family, tokenizer, tmp_path):
    # Qwen2's biases are copied when its weights are laid out for scoring: a copy that is made once
    # would stay behind the training.
    student = build_student(family, tokenizer)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    folder = save(student, tmp_path / "student")
    log = run(folder, tmp_path / "out", held_out=HELD_OUT).set_index("step")
    table = load_held_out(tmp_path / "out")
    assert table["step"].unique().tolist() == [0, 1, 3, 4]
    for step, model in ((0, folder), (4, tmp_path / "out")):
        # Tests of scoring lay these beside plain forward passes.
        scores = score(HELD_OUT.pool, str(model), ["1"], splitter="sentences", progress=False)
        rows = table[table["step"] == step]
        assert rows["response_id"].tolist() == scores["response_id"].tolist()
        for name, column, mean in (("galp", "galp", "global_nll"), ("lalp", "lalp@1", "local_nll")):
            assert rows[name].tolist() == pytest.approx(scores[column].tolist(), abs=1e-4)
            assert log.loc[step, mean] == pytest.approx(-rows[name].mean())
    assert log.loc[4, "global_nll"] != pytest.approx(log.loc[0, "global_nll"], abs=1e-2)


def test_trls_own_loss_gives_the_same(done, student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "inspect", MagicMock())  # no model selects positions
    log = run(student_folder, tmp_path / "out")
    assert log["loss"].tolist() == pytest.approx(done[0]["loss"][1:].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"batch_size": 4, "gradient_accumulation": 1}, 1e-5),
        ({"batch_size": 1, "gradient_accumulation": 4}, 1e-5),
        ({"gradient_checkpointing": True}, 1e-6),
        ({"packing": True}, 1e-5),
        ({"packing": True, "batch_size": 4, "gradient_accumulation": 1}, 1e-5),
    ],
)
def test_other_passes_over_the_same_examples_give_the_same_steps(
    changes, tolerance, done, student_folder, tmp_path
):
    log = run(student_folder, tmp_path / "out", replace(RECIPE, **changes))
    assert log["loss"].tolist() == pytest.approx(done[0]["loss"][1:].tolist(), rel=tolerance)
    assert log["num_tokens"].tolist() == done[0]["num_tokens"][1:].tolist()
    assert read_json(tmp_path / "out/config.json") == read_json(done[1] / "config.json")


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_packed_examples_of_very_unequal_lengths_train_as_padded_ones(family, tokenizer, tmp_path):
    folder, recipe = save(build_student(family, tokenizer), tmp_path), replace(RECIPE, batch_size=4)
    logs = []
    for packing in (False, True):
        out = tmp_path / f"packing {packing}"
        options = {"progress": False, "device": "cpu"}
        logs.append(train(UNEQUAL, folder, out, replace(recipe, packing=packing), **options))
    assert logs[0]["loss"].tolist() == pytest.approx(logs[1]["loss"].tolist(), rel=2e-5)
    padded, packed = (load_file(tmp_path / f"packing {p}/model.safetensors") for p in (False, True))
    torch.testing.assert_close(packed, padded, atol=2e-5, rtol=1e-4)


def test_a_student_whose_packed_examples_see_each_other_is_refused(tokenizer, tmp_path):
    folder = save(build_student("mamba", tokenizer), tmp_path)
    recipe = replace(RECIPE, packing=True)
    with pytest.raises(InputError, match="packed examples would see each other: set packing to"):
        run(folder, tmp_path / "out", recipe, device="cpu")
    run(folder, tmp_path / "alone", replace(recipe, batch_size=1), device="cpu")


@pytest.mark.parametrize(("evaluations", "measured"), [(50, [0, 1, 2]), (2, [0, 2]), (1, [2])])
def test_at_which_steps_is_measured(evaluations, measured, student_folder, tmp_path):
    recipe = replace(RECIPE, epochs=1)
    log = run(student_folder, tmp_path / "out", recipe, held_out=HELD_OUT, evaluations=evaluations)
    assert log.loc[log["global_nll"].notna(), "step"].tolist() == measured


def test_held_out_responses_without_a_score_or_trained_on(student_folder, tmp_path, caplog):
    long = {"prompt_id": "h9", "prompt": "Long?", "teacher": "Bob", "response": "x y z. " * 200}
    leak = {"prompt_id": "x", "prompt": "What is 3 + 3?", "teacher": "Bob", "response": "It is 6."}
    held_out = HeldOut(load_pool([*ROWS, long, leak]), "sentences", "1")
    caplog.set_level(logging.WARNING, "lalp")
    log = run(student_folder, tmp_path / "out", held_out=held_out, evaluations=2)
    table = load_held_out(tmp_path / "out")
    lacking = table[table["galp"].isna()]
    assert lacking["response_id"].tolist() == ["h9/Bob/0"] * 2
    assert lacking["reason"].str.contains("exceed the student's 512 positions").all()
    # Its steps fit, so it has a local likelihood.
    assert lacking["lalp"].notna().all()
    assert table[table["galp"].notna()]["reason"].isna().all()
    means = table[table["step"] == 0][["galp", "lalp"]].mean()  # over those that have one
    assert log.loc[0, ["global_nll", "local_nll"]].tolist() == pytest.approx((-means).tolist())
    assert caplog.text.count("1 of 8 held-out responses lack a score") == 1
    assert "1 held-out prompts are also trained on" in caplog.text


# --- one result -------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(done, student_folder, tmp_path):
    run(student_folder, tmp_path / "again", held_out=HELD_OUT)
    assert_same_run(tmp_path / "again", done[1])
    other = run(student_folder, tmp_path / "other", seed=1)
    assert other["loss"].tolist() != done[0]["loss"][1:].tolist()


@pytest.fixture(scope="module")
def dropping(tokenizer, tmp_path_factory) -> tuple[pd.DataFrame, str, Path]:
    """The log of a student with dropout, its folder, and what came of it."""
    student = build_student("llama", tokenizer, attention_dropout=0.2)
    folder, out = (tmp_path_factory.mktemp("dropping") / name for name in ("student", "out"))
    return run(save(student, folder), out), str(folder), out


def test_measuring_touches_neither_weights_nor_random_state(dropping, done, tmp_path):
    plain, student, out = dropping
    measured = run(student, tmp_path / "measured", held_out=HELD_OUT, evaluations=9)
    assert measured["loss"][1:].tolist() == plain["loss"].tolist()
    assert_same_weights(tmp_path / "measured", out)
    # Dropout is on in training: the same weights without it lose otherwise.
    assert done[0]["loss"][1:].tolist() != plain["loss"].tolist()


def test_the_folder_is_a_student(done, student_folder):
    _, out = done
    student, before = (load_student(str(f), device="cpu") for f in (out, student_folder))
    assert student.tokenizer.chat_template == before.tokenizer.chat_template
    text = render_prompt(before.tokenizer, PAIRS[0][0])
    response = PAIRS[0][1].text
    assert encode(student.tokenizer, text, response) == encode(before.tokenizer, text, response)
    names = {path.name for path in Path(student_folder).iterdir()}
    own = {"training_log.csv", "held_out.csv", "run.json"}
    assert {path.name for path in out.iterdir()} == names | own
    assert read_json(out / "config.json") == read_json(Path(student_folder) / "config.json")
    assert not out.with_name("done.partial").exists()


def test_provenance(done):
    about = read_json(done[1] / "run.json")
    expected = {"num_examples": 7, "num_cut": 0, "num_held_out": 6, "window": "1"}
    assert about.items() >= expected.items()
    expected = {"recipe": asdict(RECIPE), "seed": 0, "processes": 1, "dtype": "float32"}
    assert about["run"].items() >= expected.items()
    assert about["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("asked", "capabilities", "expected"),
    [
        (True, {"amx_bf16": True}, "bfloat16"),
        (True, {"amx_bf16": False, "avx512_bf16": True}, "float32"),
        (True, {}, "float32"),  # another kind of CPU
        (False, {"amx_bf16": True}, "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_if_it_has_matrix_units_for_it(
    asked, capabilities, expected, monkeypatch, tmp_path
):
    told = lambda: capabilities  # noqa: E731
    monkeypatch.setattr(training_job.torch.cpu, "get_capabilities", told, raising=False)
    recipe = replace(RECIPE, bf16=asked)
    assert training_dtype(recipe, "cpu") == expected
    config = trainer_config(tmp_path / "out", recipe, 0, "cpu")
    is_half = expected == "bfloat16"
    assert (config.bf16, config.mixed_precision) == (is_half, "bf16" if is_half else "no")


def test_a_torch_that_does_not_tell_what_the_cpu_has_means_float32(monkeypatch):
    monkeypatch.delattr(training_job.torch.cpu, "get_capabilities", raising=False)
    assert training_dtype(replace(RECIPE, bf16=True), "cpu") == "float32"


def test_training_in_bfloat16_is_near_float32_and_another_run(
    done, student_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(training_job, "has_bfloat16_units", lambda: True)
    recipe, out = replace(RECIPE, bf16=True), tmp_path / "out"
    how = {"held_out": HELD_OUT, "device": "cpu"}
    found, exact = run(student_folder, out, recipe, **how), done[0]
    losses, expected = (log["loss"].dropna().to_numpy() for log in (found, exact))
    assert 0 < np.abs(losses - expected).max() < 0.02
    # Held-out responses are scored in float32, by weights that are kept in float32.
    first, last = (np.abs((found - exact)[name].dropna()) for name in ("global_nll", "local_nll"))
    assert first.iloc[0] == last.iloc[0] == 0
    assert max(first.max(), last.max()) < 0.02
    weights = load_file(out / "model.safetensors").values()
    assert {each.dtype for each in weights} == {torch.float32}
    assert read_json(out / "run.json")["run"]["dtype"] == "bfloat16"
    monkeypatch.setattr(training_job, "has_bfloat16_units", lambda: False)
    with pytest.raises(InputError, match=r"holds another run \(another dtype\)"):
        run(student_folder, out, recipe, **how)


@pytest.mark.parametrize(("max_length", "n_positions"), [(70, 512), (256, 70)])
def test_examples_are_cut_to_the_recipe_and_to_the_students_positions(
    max_length, n_positions, tokenizer, tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "lalp")
    student = build_student("gpt2", tokenizer, n_positions=n_positions)
    folder = save(student, tmp_path / "student")
    run(folder, tmp_path / "out", replace(RECIPE, max_length=max_length, epochs=1))
    end = end_of_turn(tokenizer)
    lengths = [len(make_example(tokenizer, p, r, 9999, end).input_ids) for p, r in PAIRS]
    expected = sum(length > 70 for length in lengths)
    assert 0 < expected < 7
    assert read_json(tmp_path / "out/run.json")["num_cut"] == expected
    assert f"{expected} of 7 examples are longer than 70 tokens and were cut" in caplog.text


def test_token_ids_that_the_model_has_not_are_refused_and_never_pad(student_folder, tmp_path):
    folder = shutil.copytree(student_folder, tmp_path / "student")
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # without a row in the model, as many do
    tokenizer.save_pretrained(folder)
    assert len(run(str(folder), tmp_path / "padded")) > 0
    tokenizer.add_tokens([*(f"<{i}>" for i in range(999)), "Then x"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"cannot be trained: its tokenizer gives token id \d+, "):
        run(str(folder), tmp_path / "out")


def test_a_loss_that_is_not_finite_stops(student_folder, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e30, warmup_ratio=0.0, max_grad_norm=0.0)
    with pytest.raises(InputError, match=r"training loss is (nan|inf) at step \d: lower the learn"):
        run(student_folder, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


# --- runs that are there already --------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.delattr(trainer, "load_model")


def test_a_finished_run_is_not_done_again(done, student_folder, no_training):
    log, out = done
    leftover = out.with_name("done.partial")
    leftover.mkdir()  # as if killed while cleaning up
    again = run(student_folder, out, held_out=HELD_OUT)
    assert_frame_equal(again, log, check_exact=True)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": PAIRS[1:]}, "data"),
        ({"seed": 1}, "seed"),
        ({"recipe": replace(RECIPE, epochs=1)}, "recipe"),
        ({"held_out": None}, "held_out, evaluations"),
        ({"evaluations": 2}, "evaluations"),
        ({"held_out": replace(HELD_OUT, window="2")}, "held_out"),
        ({"held_out": replace(HELD_OUT, splitter="paragraphs")}, "held_out"),
    ],
)
def test_a_folder_with_another_run_is_left_alone(changes, named, done, student_folder, no_training):
    files = {path: path.read_bytes() for path in done[1].iterdir()}
    same = {"data": PAIRS, "recipe": RECIPE, "held_out": HELD_OUT, "progress": False}
    with pytest.raises(InputError, match=rf"holds another run \(another {named}\)"):
        train(student=student_folder, out=done[1], **(same | changes))
    assert {path: path.read_bytes() for path in done[1].iterdir()} == files


def test_another_student_or_other_code_is_another_run(done, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(training_job, "_CODE", "other")
    other = save(build_student("mistral", tokenizer), tmp_path / "other")
    with pytest.raises(InputError, match=r"another run \(another student, code\)"):
        run(other, done[1], held_out=HELD_OUT)


@pytest.mark.parametrize(
    ("foreign", "out", "message"),
    [
        ("out/thesis.txt", "out", "out: exists and is no folder of lalp train"),
        ("file", "file", "file: exists and is no folder of lalp train"),
        ("new.partial/thesis.txt", "new", "new.partial: is no folder of lalp train"),
        ("file", "file/out", "cannot be written"),
    ],
)
def test_foreign_files_are_left_alone(foreign, out, message, student_folder, tmp_path):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(InputError, match=message):
        run(student_folder, tmp_path / out)
    assert (tmp_path / foreign).read_text() == "mine"


def test_a_second_process_is_refused(student_folder, tmp_path):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    with (partial / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training into it"):
            run(student_folder, tmp_path / "out")
    (tmp_path / "out").mkdir()  # an empty folder is filled
    run(student_folder, tmp_path / "out", replace(RECIPE, epochs=1))
    assert (tmp_path / "out/model.safetensors").exists()


# --- stopped runs -----------------------------------------------------------------------------


class StopError(Exception):
    """Stands for a crash."""


def crash_before(step: int, folder: str, out: Path, **options: object) -> Path:
    """The folder of a run that crashed in its ``step``-th optimizer step."""
    real = trainer._Trainer.compute_loss

    def compute(self, *args, **kwargs):
        if self.state.global_step == step - 1:
            raise StopError
        return real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        patch.setattr(trainer._Trainer, "compute_loss", compute)
        run(folder, out, **options)
    return out.with_name(f"{out.name}.partial")


@pytest.fixture
def stopped(student_folder, tmp_path) -> Path:
    """A run that crashed in its last step, after three checkpoints."""
    return crash_before(4, student_folder, tmp_path / "out", held_out=HELD_OUT, save_steps=1)


@pytest.fixture
def begin_step(monkeypatch) -> Callable:
    """Counts the steps that are really computed."""
    real = trainer._Course.on_step_begin
    spy = create_autospec(real, side_effect=real)
    monkeypatch.setattr(trainer._Course, "on_step_begin", spy)
    return spy


def test_checkpoints_hold_two_states_and_no_pickle(stopped):
    names = {path.name for path in stopped.iterdir()}
    assert names == {"checkpoint-2", "checkpoint-3", "lock", "run.json"}
    numpys = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    for path in stopped.glob("checkpoint-*/*"):
        assert path.suffix in {".safetensors", ".json", ".pt", ".pth"}
        if path.suffix in {".pt", ".pth"}:
            with torch.serialization.safe_globals(numpys):
                torch.load(path, weights_only=True)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("files", "damage", "said", "num_steps"),
    [
        ("checkpoint-3/model.safetensors", flip, "model.safetensors is damaged", 2),
        ("checkpoint-3/trainer_state.json", Path.unlink, "trainer_state.json: No such file", 2),
        ("checkpoint-3/manifest.json", lambda x: x.write_text("{"), "manifest.json is damaged", 2),
        ("checkpoint-*/manifest.json", Path.unlink, "manifest.json: No such file", 4),
        ("none", Path.unlink, None, 1),
    ],
)
def test_a_stopped_run_goes_on_from_its_last_sound_checkpoint(
    files, damage, said, num_steps, stopped, student_folder, done, begin_step, caplog
):
    caplog.set_level(logging.WARNING, "lalp")
    for path in stopped.glob(files):
        damage(path)
    run(student_folder, stopped.with_name("out"), held_out=HELD_OUT)
    assert begin_step.call_count == num_steps
    assert (f"checkpoint-3 cannot be used ({said}" in caplog.text) == (said is not None)
    assert_same_run(stopped.with_name("out"), done[1])


def test_an_unfinished_run_of_another_kind_is_left_alone(stopped, student_folder):
    with pytest.raises(InputError, match=r"holds another run, unfinished \(another seed\)"):
        run(student_folder, stopped.with_name("out"), held_out=HELD_OUT, seed=1)
    assert (stopped / "checkpoint-3/manifest.json").exists()


def test_random_states_are_restored(dropping, tmp_path):
    whole, student, out = dropping
    crash_before(3, student, tmp_path / "out", save_steps=1)
    log = run(student, tmp_path / "out")
    assert log["loss"].tolist() == whole["loss"].tolist()
    assert_same_weights(tmp_path / "out", out)


def test_checkpoints_by_time(student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SECONDS_PER_CHECKPOINT", 0)
    partial = crash_before(3, student_folder, tmp_path / "out")
    assert (partial / "checkpoint-2/manifest.json").exists()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 0}, "evaluations is 0: give at least 1"),
        ({"save_steps": 0}, "save_steps is 0: give at least 1"),
        ({"device": "tpu"}, "device 'tpu' cannot be used"),
        ({"device": "meta"}, r"device 'meta' cannot be used \(.*\): give cpu or cuda"),
        ({"held_out": replace(HELD_OUT, window="x")}, "window 'x' is not understood"),
        ({"held_out": replace(HELD_OUT, splitter="x")}, "unknown step splitter 'x'"),
    ],
)
def test_options_that_cannot_be_used(options, message, student_folder, tmp_path):
    with pytest.raises(InputError, match=message):
        run(student_folder, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def lalp_train(lalp, monkeypatch, tmp_path, student_folder) -> Callable[[str], Outcome]:
    """Run ``lalp train`` beside its data."""
    write_data(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(asdict(RECIPE)))
    monkeypatch.chdir(tmp_path)
    options = ("--student", student_folder, "--out", "out", "--quiet")
    return lambda arguments: lalp("train", *arguments.split(), *options)


def test_the_command_trains(lalp_train, done, tmp_path):
    options = "train.jsonl --recipe mine.yaml --held-out pool.jsonl --window 1"
    said = lalp_train(options)
    assert said.code == 0
    first, last = done[0]["loss"].iloc[[1, -1]]
    assert said.out.splitlines()[0] == f"4 steps over {done[0]['num_tokens'].sum():,} tokens"
    assert f"{first:.4f}   {last:.4f}  training loss, first and last step" in said.out
    assert "held-out local NLL, before and after" in said.out
    assert "lalp: trained student: out" in said.err
    assert_same_weights(tmp_path / "out", done[1])
    # Done already: the same numbers, at once.
    assert json.loads(lalp_train(f"{options} --json").out)["loss"] == [first, last]


def test_options_change_the_recipe(lalp_train, tmp_path):
    said = lalp_train(
        "train.jsonl --recipe mine.yaml --epochs 1 --learning-rate 0.01 --batch-size 1 "
        "--max-length 99 --gradient-accumulation 3 --seed 4 --json"
    )
    assert said.code == 0
    run_of = read_json(tmp_path / "out/run.json")["run"]
    changes = {"epochs": 1, "learning_rate": 0.01, "batch_size": 1, "max_length": 99}
    assert run_of["recipe"] == asdict(RECIPE) | changes | {"gradient_accumulation": 3}
    assert run_of["seed"] == 4
    assert json.loads(said.out).items() >= {"num_steps": 3, "global_nll": [None, None]}.items()


def test_bad_input_is_refused_in_one_line_of_one_process(lalp_train, monkeypatch):
    said = lalp_train("train.jsonl --held-out none.jsonl")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "none.jsonl: no such file" in said.err
    assert not Path("out").exists()
    monkeypatch.setenv("RANK", "1")
    assert lalp_train("none.jsonl") == Outcome(2, "", "")
