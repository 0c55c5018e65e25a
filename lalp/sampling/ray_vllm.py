"""Decoding with vLLM on every GPU of a Ray cluster, with ray.data's processor for language models.

``RAY_ADDRESS`` names the cluster; by default it is the cluster of this machine. If a replica dies,
Ray restarts it, and another replica draws its rows. This code has not run on GPUs yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lalp.cluster.workers import connect
from lalp.errors import InputError
from lalp.sampling.decoding import Output, Request
from lalp.sampling.vllm import check_temperatures

# Samples that all replicas draw before any of them is stored. A kill loses at most this many.
DEFAULT_BATCH_SIZE = 65_536
_ROWS = 64  # rows that a replica gets at once


@dataclass(frozen=True)
class Replicas:
    """Copies of a model on the GPUs of a cluster; each copy uses ``tensor_parallel`` GPUs."""

    source: str
    longest: int  # tokens of a row
    tensor_parallel: int = 1
    trust_remote_code: bool = False

    def decode(
        self,
        requests: Sequence[Request],
        stop_ids: frozenset[int],
        on_tokens: Callable[[int], Any] = lambda tokens: None,
    ) -> list[Output]:
        """Draw all samples, as `decode_with_vllm` does on one machine."""
        import ray
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        check_temperatures(requests)
        connect(os.environ.get("RAY_ADDRESS", "auto"))
        number = int(ray.cluster_resources().get("GPU", 0)) // self.tensor_parallel
        if number < 1:
            raise InputError(f"backend ray: the cluster has no {self.tensor_parallel} GPUs for it")
        config = vLLMEngineProcessorConfig(concurrency=(1, number), **self.settings())
        draw = build_processor(config, preprocess=lambda row: row, postprocess=lambda row: row)
        rows = [row_of(n, request, stop_ids) for n, request in enumerate(requests)]
        drawn = draw(ray.data.from_items(rows)).take_all()
        outputs = outputs_of(drawn, len(requests), stop_ids)
        on_tokens(sum(len(output.token_ids) for output in outputs))
        return outputs

    def settings(self) -> dict[str, Any]:
        """The processor's settings; its text stages are off, because lalp tokenizes the text."""
        engine = {
            "dtype": "bfloat16",
            "tensor_parallel_size": self.tensor_parallel,
            "trust_remote_code": self.trust_remote_code,
            "max_model_len": self.longest,
            "enable_prefix_caching": True,
            "seed": 0,
        }
        stages = ("chat_template_stage", "tokenize_stage", "detokenize_stage")
        return {"model_source": self.source, "engine_kwargs": engine, "batch_size": _ROWS} | (
            dict.fromkeys(stages, False)
        )


def row_of(number: int, request: Request, stop_ids: frozenset[int]) -> dict[str, Any]:
    """A sample to draw; it has its own seed, so it does not matter which replica draws it."""
    sampling = request.sampling
    params = {
        "n": 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": request.limit,
        "seed": request.seed,
        "stop_token_ids": sorted(stop_ids),
        "detokenize": False,
    }
    prompt = list(request.prompt_ids)
    return {"number": number, "tokenized_prompt": prompt, "sampling_params": params}


def outputs_of(
    rows: Sequence[Mapping[str, Any]], number: int, stop_ids: frozenset[int]
) -> list[Output]:
    """The drawn samples in the order of the requests; rows arrive in the order they finish.

    Raises:
        RuntimeError: If a sample is missing.
    """
    found = {int(row["number"]): tuple(map(int, row["generated_tokens"])) for row in rows}
    if missing := [n for n in range(number) if n not in found]:
        raise RuntimeError(f"{len(missing)} samples were not drawn, the first is {missing[0]}")
    # The token that stopped a sample is its last one.
    return [Output(found[n], bool(found[n]) and found[n][-1] in stop_ids) for n in range(number)]
