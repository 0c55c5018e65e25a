"""Decoding with vLLM, offline, on one or more GPUs (the extra ``vllm``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lalp.errors import InputError
from lalp.sampling.decoding import Output, Request

if TYPE_CHECKING:
    from vllm import LLM

# Samples that vLLM gets at once. If the run is killed, the batches before are kept.
DEFAULT_BATCH_SIZE = 1024

# The temperatures that vLLM accepts. It would raise smaller ones to the first of these, and refuse
# larger ones.
_TEMPERATURES = (0.01, 2.0)


def load_vllm(source: str, longest: int, tensor_parallel: int, trust_remote_code: bool) -> LLM:
    """Load a model from a folder or hub id into vLLM, with room for rows of ``longest`` tokens."""
    from vllm import LLM

    return LLM(
        model=source,
        dtype="bfloat16",
        tensor_parallel_size=tensor_parallel,
        trust_remote_code=trust_remote_code,
        max_model_len=longest,
        enable_prefix_caching=True,
        seed=0,
    )


def check_temperatures(requests: Sequence[Request]) -> None:
    """InputError if vLLM cannot sample at one of the temperatures."""
    lowest, highest = _TEMPERATURES
    for sampling in {request.sampling for request in requests}:
        if not sampling.greedy and not lowest <= sampling.temperature <= highest:
            allowed = f"0, or {lowest} to {highest:g}"
            raise InputError(f"temperature is {sampling.temperature}: vLLM takes {allowed}")


def decode_with_vllm(
    llm: LLM,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    on_tokens: Callable[[int], Any] = lambda tokens: None,
    *,
    progress: bool = False,
) -> list[Output]:
    """Draw all samples, as `decode` does; ``progress`` shows vLLM's own progress bar."""
    from vllm import SamplingParams, TokensPrompt

    check_temperatures(requests)
    # Each sample is a separate request, because vLLM would choose the seeds of one request with n
    # samples. With prefix caching, vLLM still reads a repeated prompt only once.
    params = [
        SamplingParams(
            n=1,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,
            max_tokens=request.limit,
            seed=request.seed,
            stop_token_ids=sorted(stop_ids),
            detokenize=False,  # lalp turns tokens into text, the same way for all backends
        )
        for request in requests
    ]
    prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in requests]
    outputs = []
    for result in llm.generate(prompts, params, use_tqdm=progress):
        (sample,) = result.outputs
        if sample.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave a sample up: {sample.finish_reason}")
        # The token that stopped a sample is its last one.
        outputs.append(Output(tuple(sample.token_ids), sample.finish_reason == "stop"))
    on_tokens(sum(len(output.token_ids) for output in outputs))
    return outputs
