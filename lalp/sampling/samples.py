"""Sample responses from a model, grade them, and make a pool of them (paper, Sec. 3.1 and B.4).

Finished samples are kept in shards of JSON lines, one for each batch. The folder's name is a hash
of the model, the backend and the code. In the folder, a sample is identified by its settings, its
prompt's id and rendered text, and its number. So a killed run continues where it stopped, and more
samples of a prompt can be added later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from lalp.errors import InputError, did_you_mean
from lalp.extras import require
from lalp.files import cache_dir, digest, fingerprint, in_use, write_json
from lalp.pools.pool import Message, Prompt
from lalp.sampling import ray_vllm
from lalp.sampling.decoding import Output, Request, decode, default_batch_size, response_text
from lalp.sampling.settings import SYSTEM_PROMPT, Sampling, sample_seed
from lalp.sampling.vllm import DEFAULT_BATCH_SIZE, decode_with_vllm, load_vllm
from lalp.shelf import read_records, write_records
from lalp.stats import check_count
from lalp.students.encoding import encode, render_prompt, stop_token_ids
from lalp.students.student import FoundStudent, Student, find_student

log = logging.getLogger("lalp")

BACKENDS = ("transformers", "vllm", "ray")
_LOADED_ELSEWHERE = ("vllm", "ray")

# A change to this code may change a sample, so the code is part of the key. It is read on import,
# because a later edit on disk does not change what this process runs.
_CODE = fingerprint("sampling", "students")


@dataclass(frozen=True)
class Completion:
    """One sampled response to a prompt; ``sample`` counts from 0.

    ``text`` begins with ``<think>`` if the prompt ends with it. The end token is not in ``text``,
    but ``num_tokens`` counts it. A response is ``truncated`` if it stopped at the token limit or
    the model's last position, without an end token.
    """

    prompt_id: str
    sample: int
    text: str
    num_tokens: int
    truncated: bool


def generate(
    prompts: Sequence[Prompt],
    model: str | Student,
    sampling: Sampling | Sequence[Sampling],
    *,
    backend: str = "transformers",
    system_prompt: str | None = None,
    store: str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
    tensor_parallel: int = 1,
) -> list[Completion] | list[list[Completion]]:
    """Sample responses to prompts; a killed run continues where it stopped.

    A sample depends only on its prompt, the settings and the seed. It does not depend on the number
    of samples or on the other samples in its batch, except that sums are rounded differently in
    different batches.

    Args:
        prompts: What to answer.
        model: As in `load_student`, or a loaded student.
        sampling: Number of samples, temperature, top-p, top-k, token limit and seed. Several
            settings, such as greedy and sampled, are drawn together, which takes less time than one
            after another.
        backend: ``transformers`` (CPU or GPU), ``vllm`` (GPU; the extra ``vllm``), or ``ray``: vLLM
            on all GPUs of the cluster at ``RAY_ADDRESS`` (the extras ``vllm`` and ``cluster``). No
            backend reads the model's own sampling settings, such as a repetition penalty.
        system_prompt: Put in front of every prompt; `SYSTEM_PROMPT` is the paper's.
        store: Folder of finished samples; by default ``samples`` of `cache_dir`.
        batch_size: Number of samples that are drawn at once and stored together. By default, as
            many as fit into memory: at most 64 on a CPU and 128 on a GPU. It is 1,024 for ``vllm``
            and 65,536 for ``ray``.
        device: As in `load_student`; not for vLLM.
        trust_remote_code: As in `load_student`.
        progress: Show tokens per second.
        tensor_parallel: GPUs that share one copy of the model, with vLLM.

    Returns:
        Completions by prompt, in the given order, and then by sample. If ``sampling`` is a
        sequence, one such list for each of its settings.
    """
    samplings = [sampling] if isinstance(sampling, Sampling) else list(sampling)
    _check(prompts, backend, batch_size, tensor_parallel)
    source = _find_model(model, backend, device, trust_remote_code)
    jobs = _plan(prompts, source, samplings, system_prompt)
    folder = Path(store or cache_dir() / "samples") / digest(source.key)
    wanted = {job.digest for job in jobs}
    done = {
        mark: Completion(**fields)
        for path in sorted(folder.glob("*.jsonl"))
        for mark, fields in read_records(path, folder.name, "sampling again")
        if mark in wanted
    }
    nothing = Output((), ended=False)  # if the prompt leaves no room
    done |= {x.digest: _completion(source, x, nothing) for x in jobs if x.request.limit == 0}
    if missing := [job for job in jobs if job.digest not in done]:
        # Over all jobs, so that a run that continues has the same batches as an unbroken run.
        longest = max(len(job.request.prompt_ids) + job.request.limit for job in jobs)
        if backend == "vllm":
            llm = load_vllm(source.model.source, longest, tensor_parallel, trust_remote_code)
            draw, size = partial(decode_with_vllm, llm, progress=progress), DEFAULT_BATCH_SIZE
        elif backend == "ray":
            replicas = (source.model.source, longest, tensor_parallel, trust_remote_code)
            draw, size = ray_vllm.Replicas(*replicas).decode, ray_vllm.DEFAULT_BATCH_SIZE
        else:
            student = source.model.load()
            draw, size = partial(decode, student), default_batch_size(student, longest)
        with in_use(folder):
            write_json(folder / "key.json", source.key)
            done |= _draw_jobs(missing, batch_size or size, draw, source, folder, progress)
    by_sampling = [
        [done[job.digest] for job in jobs if job.request.sampling == own] for own in samplings
    ]
    return by_sampling[0] if isinstance(sampling, Sampling) else by_sampling


@dataclass(frozen=True)
class _Source:
    """A model, and everything that decides a sample except prompt and settings."""

    model: FoundStudent
    stop_ids: frozenset[int]
    key: dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """One sample of a prompt: how it is drawn, and its digest in the store."""

    prompt_id: str
    prompt_text: str
    sample: int
    request: Request
    digest: str


def _check(
    prompts: Sequence[Prompt], backend: str, batch_size: int | None, tensor_parallel: int
) -> None:
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}: {did_you_mean(backend, BACKENDS)}")
    if backend in _LOADED_ELSEWHERE:
        require("vllm", f"backend {backend}")
        if backend == "ray":
            require("cluster", "backend ray")
    elif tensor_parallel != 1:
        raise InputError("tensor_parallel goes with the vllm and ray backends: leave it out")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    for prompt_id, count in Counter(prompt.prompt_id for prompt in prompts).items():
        if count > 1:
            advice = "give each prompt its own id"
            raise InputError(f"prompt_id {prompt_id!r} is given {count} times: {advice}")


def _find_model(
    model: str | Student, backend: str, device: str | None, trust_remote_code: bool
) -> _Source:
    # Only the configuration and the tokenizer are read. The weights may not be needed, because all
    # samples may be in the store already.
    is_vllm = backend in _LOADED_ELSEWHERE
    if is_vllm and isinstance(model, Student):
        raise InputError(
            f"backend {backend} loads {model.name} itself: give the model's name or folder"
        )
    options = {"dtype": torch.bfloat16} if is_vllm else {"device": device}
    found = find_student(model, trust_remote_code=trust_remote_code, **options)
    generation = found.loaded and found.loaded.model.generation_config
    if found.loaded is None:
        with suppress(OSError):  # many models have none
            generation = GenerationConfig.from_pretrained(found.source)
    stop_ids = stop_token_ids(found.tokenizer, found.config, generation)
    key = {
        "model": found.revision,
        "tokenizer": digest(found.tokenizer.backend_tokenizer.to_str()),
        "stop_ids": sorted(stop_ids),
        "positions": found.max_positions,
        "backend": "vllm" if is_vllm else backend,  # the same samples on one machine or many
        "device": "vllm" if is_vllm else found.device.type,
        "dtype": str(found.dtype),
        "code": _CODE,
    }
    return _Source(found, stop_ids, key)


def paper_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts with the paper's system prompt in front, unless they have a system message."""
    return [
        prompt if _system_messages(prompt) else with_system_prompt(prompt, SYSTEM_PROMPT)
        for prompt in prompts
    ]


def with_system_prompt(prompt: Prompt, system_prompt: str | None) -> Prompt:
    """The prompt with a system message in front; InputError if it has another one."""
    own = _system_messages(prompt)
    if system_prompt is None or own == [system_prompt]:
        return prompt
    if own:
        advice = "leave the system prompt out, or remove the message"
        raise InputError(f"prompt {prompt.prompt_id!r} has a system message of its own: {advice}")
    return replace(prompt, messages=(Message("system", system_prompt), *prompt.messages))


def _system_messages(prompt: Prompt) -> list[str]:
    return [message.content for message in prompt.messages if message.role == "system"]


def _plan(
    prompts: Sequence[Prompt],
    source: _Source,
    samplings: Sequence[Sampling],
    system_prompt: str | None,
) -> list[_Job]:
    """All samples, ordered by prompt, then by settings, then by number."""
    tokenizer, positions = source.model.tokenizer, source.model.max_positions
    jobs, lowered = [], {}
    for prompt in prompts:
        text = render_prompt(tokenizer, with_system_prompt(prompt, system_prompt))
        ids = encode(tokenizer, text, "").prompt_ids
        room = max(0, positions - len(ids))
        for sampling in dict.fromkeys(samplings):
            limit = min(sampling.max_tokens, room)
            if limit < sampling.max_tokens:
                lowered[prompt.prompt_id] = limit
            for sample in range(sampling.num_samples):
                seed = sample_seed(sampling.seed, prompt.prompt_id, sample)
                # The sample's number stands in for the number of samples, so that a later run with
                # more samples finds these.
                settings = asdict(sampling) | {"num_samples": sample}
                mark = digest([settings, prompt.prompt_id, text])
                request = Request(ids, sampling, limit, seed)
                jobs.append(_Job(prompt.prompt_id, text, sample, request, mark))
    if lowered:
        log.warning(
            "%s has %d positions: the limit of new tokens is lowered to what fits for %d prompts, "
            "to %d at the least (%r)",
            *(source.model.name, positions, len(lowered), min(lowered.values())),
            min(lowered, key=lowered.get),
        )
    return jobs


def _draw_jobs(
    jobs: Sequence[_Job],
    batch_size: int,
    draw: Callable[..., list[Output]],
    source: _Source,
    folder: Path,
    progress: bool,
) -> dict[str, Completion]:
    """Draw one batch after another; each is on disk before the next begins, in case of a kill."""
    drawn = {}
    # Long prompts come first, so that a batch holds prompts of similar length. The samples of a
    # prompt stay together.
    jobs = sorted(jobs, key=lambda job: -len(job.request.prompt_ids))
    # If not silenced here, tqdm still obeys TQDM_DISABLE.
    with tqdm(unit="tok", unit_scale=True, **({} if progress else {"disable": True})) as bar:
        for first in range(0, len(jobs), batch_size):
            batch = jobs[first : first + batch_size]
            outputs = draw([job.request for job in batch], source.stop_ids, bar.update)
            found = {
                job.digest: _completion(source, job, output)
                for job, output in zip(batch, outputs, strict=True)
            }
            records = [[mark, asdict(completion)] for mark, completion in found.items()]
            write_records(folder / f"{digest(list(found))}.jsonl", folder.name, records)
            drawn |= found
            bar.set_postfix_str(f"{first + len(batch)} of {len(jobs)} samples")
    return drawn


def _completion(source: _Source, job: _Job, output: Output) -> Completion:
    text = response_text(source.model.tokenizer, job.prompt_text, output)
    return Completion(job.prompt_id, job.sample, text, len(output.token_ids), not output.ended)
