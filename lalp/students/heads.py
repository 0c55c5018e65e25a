"""The language-model head, for some of its columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from transformers import PreTrainedModel

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


def project(
    states: Float[Tensor, "n inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, "outputs"] | None = None,
) -> Float[Tensor, "n outputs"]:
    """``torch.nn.functional.linear``, without a gradient.

    torch leaves float32 products on a CPU to its BLAS library. oneDNN is also part of torch; it
    needs a tenth less time for them on AMD's CPUs, and no more on Intel's.
    """
    if _is_onednns(states):
        return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return linear(states, weight, bias)


def _is_onednns(states: Tensor) -> bool:
    """Whether `project` leaves the product to oneDNN."""
    return _HAS_ONEDNN and states.device.type == "cpu" and states.dtype == torch.float32


# A product's rows and columns are padded to a multiple of this.
_SIDE = 64


def spare_rows(count: int) -> int:
    """Rows to add to a product of ``count`` rows, so that products have few different shapes.

    oneDNN compiles a kernel for each new shape and keeps it: half a megabyte, ten milliseconds. A
    large pool has every number of tokens. More rows change no number, but a single row is
    multiplied in another way, so it stays alone.

    Example:
        >>> [spare_rows(count) for count in (0, 1, 2, 64, 65)]
        [0, 0, 62, 0, 63]
    """
    return -count % _SIDE if count > 1 else 0


def spare_columns(count: int) -> int:
    """Like `spare_rows`, for columns: up to 64, 128, 256 and so on, because the weights are read.

    Example:
        >>> [spare_columns(count) for count in (0, 1, 2, 64, 65, 300)]
        [0, 0, 62, 0, 63, 212]
    """
    return max(_SIDE, 1 << (count - 1).bit_length()) - count if count > 1 else 0


# Columns of the vocabulary.
Columns = slice | Int[Tensor, "columns"]
_ALL = slice(None)


def split_model(
    model: PreTrainedModel,
) -> tuple[Callable[..., tuple[Tensor, Any]], Callable[..., Tensor]]:
    """Body and head whose composition reproduces the model's own logits.

    Some models cap or scale their logits after the head. A few tokens decide which form applies; if
    none fits, the body is the whole model and the head does nothing.
    """

    def run(part: nn.Module, output: str, **inputs: Any) -> tuple[Tensor, Any]:
        outputs = part(**inputs)
        return getattr(outputs, output), getattr(outputs, "past_key_values", None)

    logits = partial(run, model, "logits")
    linear = model.get_output_embeddings()
    if type(linear) is not nn.Linear:
        return logits, take_logits
    # Llama 4 states a wrong name for its body; its base is then the whole model.
    body = model.base_model if model.base_model is not model else getattr(model, "model", model)
    features = partial(run, body, "last_hidden_state")
    probe = torch.arange(4, device=model.device)[None]
    with torch.inference_mode():
        expected = logits(input_ids=probe)[0][0].float()
        try:
            raw = linear(features(input_ids=probe)[0][0]).float()
        except (AttributeError, RuntimeError, TypeError):
            # Something is between body and head, or the body is not one.
            return logits, take_logits
    if raw.shape != expected.shape:
        return logits, take_logits
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    scale = float((raw * expected).sum() / (raw * raw).sum())
    finishers = [lambda x: x, lambda x: x * scale]
    if cap:  # small logits would look like logits without a cap, so no other form is tried
        finishers = [lambda x: cap * torch.tanh(x / cap)]
    # bfloat16 has 8 bits of precision: the order of a product changes it by about a percent.
    tolerance = 1e-5 if model.dtype == torch.float32 else 3e-2
    for finish in finishers:
        if torch.allclose(finish(raw), expected, rtol=tolerance, atol=tolerance):
            return features, partial(_compute_logits, linear, finish)
    return logits, take_logits


def _compute_logits(
    linear: nn.Linear,
    finish: Callable[[Tensor], Tensor],
    features: Float[Tensor, "n features"],
    columns: Columns = _ALL,
) -> Float[Tensor, "n columns"]:
    num_rows = len(features)
    num_columns = None if isinstance(columns, slice) else len(columns)
    if _is_onednns(features):
        features = pad(features, (0, 0, 0, spare_rows(num_rows)))
        if num_columns is not None:
            columns = pad(columns, (0, spare_columns(num_columns)))
    bias = None if linear.bias is None else linear.bias[columns].detach()
    logits = project(features, linear.weight[columns].detach(), bias)
    return finish(logits[:num_rows, :num_columns].float())


def take_logits(
    logits: Float[Tensor, "n vocab"], columns: Columns = _ALL
) -> Float[Tensor, "n columns"]:
    """The head of a student whose body is the whole model: a copy in float32."""
    return logits[:, columns].to(torch.float32, copy=True)


@torch.inference_mode()
def leaves_tensors(model: PreTrainedModel, body: Callable[..., tuple[Tensor, Any]]) -> bool:
    """Whether a pass changes tensors that the model keeps, so that no cache holds its state."""
    seen = []
    for tokens in ([0, 1, 2, 3, 1], [3, 1, 2]):  # of different content and length
        body(input_ids=torch.tensor([tokens], device=model.device), use_cache=True)
        kept = {}
        for place, part in enumerate(model.modules()):
            for name, value in (vars(part) | part._buffers).items():
                if isinstance(value, Tensor):
                    kept[place, name] = value.clone()
        seen.append(kept)
    first, second = seen
    return first.keys() != second.keys() or not all(
        torch.equal(value, second[place]) for place, value in first.items()
    )
