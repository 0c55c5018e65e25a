"""What is handed to ray.data's processor, and what is made of its rows; no GPU is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from lalp.sampling.decoding import Output, Request
from lalp.sampling.ray_vllm import Replicas, outputs_of, row_of
from lalp.sampling.settings import Sampling

STOP = frozenset({2, 3})
SAMPLING = Sampling(num_samples=2, temperature=0.6, top_p=0.9, top_k=20, max_tokens=50, seed=7)


def test_a_row_holds_all_that_decides_a_sample():
    row = row_of(4, Request((5, 6), SAMPLING, 40, 123), STOP)
    assert (row["number"], row["tokenized_prompt"]) == (4, [5, 6])
    assert row["sampling_params"] == {
        **{"n": 1, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_tokens": 40, "seed": 123},
        **{"stop_token_ids": [2, 3], "detokenize": False},
    }


def test_outputs_are_in_the_order_of_requests_and_end_at_a_stop_token():
    rows = [
        {"number": 1, "generated_tokens": np.array([7, 3])},
        {"number": 0, "generated_tokens": [3, 9]},
        {"number": 2, "generated_tokens": []},
    ]
    assert outputs_of(rows, 3, STOP) == [
        *(Output((3, 9), False), Output((7, 3), True), Output((), False))
    ]
    with pytest.raises(RuntimeError, match="1 samples were not drawn, the first is 3"):
        outputs_of(rows, 4, STOP)


def test_the_processor_takes_these_settings():
    llm = pytest.importorskip("ray.data.llm")
    config = llm.vLLMEngineProcessorConfig(concurrency=(1, 4), **Replicas("a/b", 512, 2).settings())
    assert config.engine_kwargs["max_model_len"] == 512
    assert config.engine_kwargs["tensor_parallel_size"] == 2
    assert config.concurrency == (1, 4)
