"""Decoding with vLLM, offline, on one or more GPUs (the extra ``vllm``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lalp.errors import InputError
from lalp.sampling.decoding import Output, Request

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams


# Samples handed to vLLM at once: what has been finished before is kept when the run is killed.
DEFAULT_BATCH_SIZE = 1024

# What vLLM accepts; it would raise smaller temperatures to the first, and refuse larger ones.
_TEMPERATURES = (0.01, 2.0)


def check_vllm() -> None:
    """Check that vLLM is installed.

    Raises:
        InputError: If it is not.
    """
    if find_spec("vllm") is None:
        raise InputError(
            "backend vllm: vLLM is not installed; run pip install 'lalp[vllm]' on a machine with a "
            "GPU, or take the transformers backend"
        )


def load_vllm(
    source: str, *, longest: int, tensor_parallel: int = 1, trust_remote_code: bool = False
) -> LLM:
    """Load a model into vLLM, in bfloat16.

    Args:
        source: Folder or hub id.
        longest: Tokens of the longest row, prompt and new tokens: room is reserved for no more.
        tensor_parallel: GPUs that share one copy of the model.
        trust_remote_code: Run Python code that comes with the model.

    Raises:
        InputError: If vLLM is not installed.
    """
    check_vllm()
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


def decode_with_vllm(
    llm: LLM, requests: Sequence[Request], stop_ids: frozenset[int], *, progress: bool = False
) -> list[Output]:
    """Draw all samples, each a request of its own: vLLM reads a prompt that repeats only once.

    One request with ``n`` samples would leave their seeds to vLLM.

    Args:
        llm: From `load_vllm`.
        requests: What to draw.
        stop_ids: Tokens that end a sample.
        progress: Show vLLM's own progress bar.

    Returns:
        Outputs in the order of ``requests``.

    Raises:
        InputError: If vLLM does not take the temperature.
        RuntimeError: If vLLM gave a request up.
    """
    from vllm import TokensPrompt

    wanted = [request for request in requests if request.limit > 0]
    results = llm.generate(
        [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in wanted],
        [_params(request, stop_ids) for request in wanted],
        use_tqdm=progress,
    )
    drawn = iter([_output(result.outputs[0]) for result in results])
    return [next(drawn) if request.limit > 0 else Output((), False) for request in requests]


def _params(request: Request, stop_ids: frozenset[int]) -> SamplingParams:
    from vllm import SamplingParams

    sampling = request.sampling
    lowest, highest = _TEMPERATURES
    if not sampling.greedy and not lowest <= sampling.temperature <= highest:
        raise InputError(
            f"temperature is {sampling.temperature}: vLLM takes 0, or {lowest} to {highest:g}"
        )
    return SamplingParams(
        n=1,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=request.limit,
        seed=request.seed,
        stop_token_ids=sorted(stop_ids),
        # Both backends turn tokens into text in the same way.
        detokenize=False,
    )


def _output(completion: object) -> Output:
    """One sample; its tokens end with the token that stopped it."""
    if completion.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM gave a sample up: {completion.finish_reason}")
    return Output(tuple(completion.token_ids), completion.finish_reason == "stop")
