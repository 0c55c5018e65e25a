"""Fine-tuning in several processes and across kills: one result, whatever happens on the way.

One helper process imports everything once and forks what trains; so many runs fit into seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, ParallelismConfig
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from lalp.errors import InputError
from lalp.training.job import Job, plan_job, sequence_processes
from lalp.training.log import load_held_out, load_log
from lalp.training.recipes import RECIPES
from tests.training.test_trainer import RECIPE, assert_same_run, read_json, write_data

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "lalp" / "training" / "accelerate"
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
}
# Sums over two processes are rounded in another order than in one.
TOLERANCE = 2e-5

WORKER = r"""
import json, multiprocessing, os, random, shutil, signal, socket, sys, time
from dataclasses import replace
from pathlib import Path

import accelerate.state
import torch
from accelerate.utils import DistributedType

from tests.training.test_trainer import HELD_OUT, PAIRS, RECIPE, UNEQUAL
from lalp.training import folder as training_folder, trainer as training

student, folder, environments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
HALF = replace(RECIPE, batch_size=1)
torch.set_num_threads(1)


def shard_on_a_cpu():
    # accelerate heeds FSDP on accelerators only, and would go on with plain data parallelism.
    real = accelerate.state.AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        real(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    accelerate.state.AcceleratorState.__init__ = init


def child(out, recipe, change, environment, name, data):
    log = os.open(folder / f"{out}.{name}.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ.update(environment)
    change()
    options = {"save_steps": 1, "device": "cpu", "progress": False}
    training.train(data, student, folder / out, recipe, held_out=HELD_OUT, **options)


def start(out, recipe=RECIPE, change=lambda: None, environment=(), name="0", data=PAIRS):
    process = multiprocessing.get_context("fork").Process(
        target=child, args=(out, recipe, change, environment, name, data)
    )
    process.start()
    return process


def codes(*processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def die_when(owner, name, condition):
    real = getattr(owner, name)
    def patched(*args, **kwargs):
        if condition(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return lambda: setattr(owner, name, patched)


def both(out, recipe, environment, change=lambda: None, data=PAIRS):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    shared = environment | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    shared |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    ranks = [(rank, dict.fromkeys(("RANK", "LOCAL_RANK"), rank)) for rank in ("0", "1")]
    return codes(*[start(out, recipe, change, shared | own, rank, data) for rank, own in ranks])


report = {}
began = time.monotonic()
report["one"] = codes(start("one"))
seconds = time.monotonic() - began

# Killed while it writes its second checkpoint, then at random times.
in_checkpoint = die_when(
    training_folder, "file_digest", lambda path: path.parent.name == "checkpoint-2"
)
report["killed"] = codes(start("killed", change=in_checkpoint))
random.seed(int(sys.argv[4]))
for _ in range(3):
    process = start("killed")
    time.sleep(random.uniform(0, 0.6) * seconds)
    process.kill()
    report["killed"] += codes(process)
report["killed"] += codes(start("killed"))

# Killed before, and after, the result is given its name.
unnamed = die_when(Path, "rename", lambda path, target: path.name == "result")
untidy = die_when(shutil, "rmtree", lambda path, **_: path.name == "named.partial")
report["named"] = codes(start("named", change=unnamed)) + codes(start("named", change=untidy))
report["left"] = (folder / "named").exists() and (folder / "named.partial").exists()
report["named"] += codes(start("named"))


in_third_step = lambda trainer, *_: trainer.state.global_step == 2
stop = die_when(training._Trainer, "compute_loss", in_third_step)
for name, change in (("ddp", lambda: None), ("fsdp", shard_on_a_cpu)):
    report[name] = both(name, HALF, environments[name], change)
    out = f"{name} killed"
    report[out] = both(out, HALF, environments[name], lambda: (change(), stop()))
    report[out] += both(out, HALF, environments[name], change)

# Very unequal lengths: one process pads four examples, two processes pack two each, or pad them.
report["unequal"] = codes(start("unequal", replace(RECIPE, batch_size=4), data=UNEQUAL))
for name, packing in (("unequal padded", False), ("unequal packed", True)):
    half = replace(RECIPE, batch_size=2, packing=packing)
    report[name] = both(name, half, environments["ddp"], data=UNEQUAL)
print(json.dumps(report))
"""


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A fresh process, in which tests may fork and kill."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def launched(name: str, *options: str) -> argparse.Namespace:
    """What accelerate launch makes of a configuration file."""
    arguments = ["--config_file", str(CONFIGS / name), *options, "script.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    return args


def environment(name: str) -> dict[str, str]:
    """What accelerate launch tells the processes it starts."""
    args = launched(name, "--num_processes", "2")
    args.module = False
    known = prepare_multi_gpu_env(args)
    return {key: value for key, value in known.items() if key.startswith(("ACCELERATE", "FSDP"))}


@pytest.fixture(scope="module")
def runs(student_folder, tmp_path_factory) -> tuple[dict, Path]:
    """Every scenario's exit codes, and the folder of all runs."""
    out = tmp_path_factory.mktemp("runs")
    environments = {name: environment(f"{name}.yaml") for name in ("ddp", "fsdp")}
    seed = int.from_bytes(os.urandom(2))
    print(f"kills at times drawn with seed {seed}")
    finished = python("-c", WORKER, student_folder, out, json.dumps(environments), seed)
    logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in out.glob("*.txt"))
    assert finished.returncode == 0, finished.stderr + logs
    print(logs)
    return json.loads(finished.stdout.splitlines()[-1]), out


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_the_same(runs):
    report, folder = runs
    assert report["one"] == [0]
    # A drawn time may lie after the end.
    assert report["killed"][0] == -9
    assert set(report["killed"][1:4]) <= {-9, 0}
    assert report["killed"][4] == 0
    assert_same_run(folder / "killed", folder / "one")
    said = (folder / "killed.0.txt").read_text()
    assert "checkpoint-2 cannot be used (manifest.json: No such file" in said


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_given_its_name(runs):
    report, folder = runs
    assert report["named"] == [-9, -9, 0]
    assert report["left"]
    assert_same_run(folder / "named", folder / "one")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_twice_the_batch(name, runs):
    report, folder = runs
    assert report[name] == [0, 0]
    for load in (load_log, load_held_out):
        found, one = (load(folder / run).drop(columns="seconds", errors="ignore")
                      for run in (name, "one"))  # fmt: skip
        assert_frame_equal(found, one, rtol=TOLERANCE, atol=0)
    weights, expected = (load_file(folder / run / "model.safetensors") for run in (name, "one"))
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    assert read_json(folder / name / "run.json")["run"]["processes"] == 2
    assert read_json(folder / name / "config.json") == read_json(folder / "one/config.json")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["padded", "packed"])
def test_two_processes_log_the_loss_of_one_with_very_unequal_lengths(how, runs):
    report, folder = runs
    assert report["unequal"] + report[f"unequal {how}"] == [0, 0, 0]
    found, one = (load_log(folder / name).drop(columns="seconds")
                  for name in (f"unequal {how}", "unequal"))  # fmt: skip
    assert_frame_equal(found, one, rtol=TOLERANCE, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_killed_processes_go_on(name, runs):
    report, folder = runs
    assert report[f"{name} killed"][:2] != [0, 0]
    assert report[f"{name} killed"][2:] == [0, 0]
    assert_same_run(folder / f"{name} killed", folder / name)


@pytest.mark.slow
def test_the_command_under_accelerate_launch(student_folder, tmp_path):
    write_data(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(vars(RECIPE) | {"batch_size": 1}))
    finished = python(
        *("-m", "accelerate.commands.launch", "--config_file", CONFIGS / "ddp.yaml"),
        *("--num_processes", 2, "--main_process_port", 0, "-m", "lalp.cli", "train"),
        *(tmp_path / "train.jsonl", "--student", student_folder, "--out", tmp_path / "out"),
        *("--recipe", tmp_path / "recipe.yaml", "--held-out", tmp_path / "pool.jsonl"),
        *("--window", 1, "--device", "cpu", "--quiet", "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    # One process speaks.
    assert finished.stderr.count("lalp: ") == 1
    summary = json.loads(finished.stdout)
    log = load_log(tmp_path / "out")
    assert summary["num_steps"] == 4
    assert summary["loss"] == [log["loss"].iloc[1], log["loss"].iloc[-1]]
    assert read_json(tmp_path / "out/run.json")["run"]["processes"] == 2


# --- configuration files ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3", "zero3-sequence"])
def test_configuration_files_are_accelerates(name):
    path = CONFIGS / f"{name}.yaml"
    config = load_config_from_file(str(path))  # refuses unknown keys
    assert config.num_processes == 4  # the paper's GPUs
    options = vars(launch_command_parser().parse_args(["script.py"]))
    # What stands in a group is an option of accelerate launch, or it would do nothing.
    for group in ("fsdp_config", "deepspeed_config", "parallelism_config"):
        assert set(getattr(config, group)) <= set(options)
    assert launched(f"{name}.yaml").num_processes == 4


def test_fsdp_is_told_what_the_file_says():
    expected = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    assert environment("fsdp.yaml").items() >= expected.items()


def test_zero_3_is_told_what_the_file_says(monkeypatch):
    args = launched("zero3.yaml", "--main_process_port", "0")
    args.deepspeed_fields_from_accelerate_config = ""
    _, known = prepare_deepspeed_cmd_env(args)
    for key, value in known.items():
        if key.startswith("ACCELERATE_"):
            monkeypatch.setenv(key, value)
    plugin = DeepSpeedPlugin()
    assert (plugin.zero_stage, plugin.zero3_init_flag, plugin.zero3_save_16bit_model) == (3, 1, 1)
    plugin.set_mixed_precision(known["ACCELERATE_MIXED_PRECISION"])
    check_trainers_config(plugin.deepspeed_config)
    check_trainers_config(json.loads((CONFIGS / "zero3.json").read_text()))  # LLaMA-Factory's


def test_processes_that_share_an_example_take_fewer_of_them(monkeypatch):
    args = launched("zero3-sequence.yaml", "--main_process_port", "0")
    args.deepspeed_fields_from_accelerate_config = ""
    _, known = prepare_deepspeed_cmd_env(args)
    job = Job(*[MagicMock()] * 8)
    job = replace(job, recipe=RECIPES["paper"], config=SimpleNamespace(world_size=8))
    assert job.examples_per_step == 2 * 8 * 8
    for key, value in known.items():
        if key.startswith(("ACCELERATE_USE_PAR", "PARALLELISM")):
            monkeypatch.setenv(key, value)
    found = ParallelismConfig()
    assert (found.sp_size, found.sp_backend, sequence_processes()) == (4, "deepspeed", 4)
    # Eight processes are two groups of four.
    assert job.examples_per_step == 2 * 8 * 2
    with pytest.raises(InputError, match="packing is for whole examples"):
        plan_job("none.jsonl", "none", replace(RECIPE, packing=True), job.config, None, 1, False)


class _TrainersConfig(HfDeepSpeedConfig):
    """transformers' own class, which cannot be made where DeepSpeed is not installed."""

    fill_only, fill_match = HfTrainerDeepSpeedConfig.fill_only, HfTrainerDeepSpeedConfig.fill_match
    trainer_config_process = HfTrainerDeepSpeedConfig.trainer_config_process

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        self.mismatches: list[str] = []


def check_trainers_config(config: dict) -> None:
    """Let transformers fill in the recipe's values; it notes contradictions."""
    processed = _TrainersConfig(config)
    recipe = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    recipe |= {"max_grad_norm": 1.0, "learning_rate": 5e-6, "bf16": True}
    off = {"fp16": False, "fp16_full_eval": False}
    processed.trainer_config_process(MagicMock(world_size=4, **recipe, **off))
    assert processed.mismatches == []
    assert processed.config["zero_optimization"]["stage"] == 3
    expected = {"train_batch_size": 64, "gradient_accumulation_steps": 8, "gradient_clipping": 1.0}
    assert processed.config.items() >= expected.items()
    assert processed.config["bf16"]["enabled"] is True
