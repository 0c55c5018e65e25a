"""Rotary frequencies that depend on the length of a pass: longrope and dynamic NTK.

Such a student reads the same tokens differently when more tokens follow them. The result for a
length is always that of one forward pass over that many tokens. So rows with different frequencies
share neither a batch nor the prompt's keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from lalp.errors import InputError

# transformers writes the frequencies into the module; a pass must not do so during another one.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Frequencies:
    """The rotary frequencies of a pass, by its number of tokens; most students have one set."""

    switches: frozenset[int] = frozenset()  # longrope: passes longer than this have another set
    grows: frozenset[int] = frozenset()  # dynamic NTK: each length above this has its own set

    def __bool__(self) -> bool:
        return bool(self.switches or self.grows)

    def of(self, length: int) -> tuple[int, ...]:
        """A name for the set that a pass of ``length`` tokens gets: equal names mean equal sets.

        Example:
            >>> longrope = Frequencies(switches=frozenset({4096}))
            >>> longrope.of(12) == longrope.of(4096), longrope.of(4096) == longrope.of(4097)
            (True, False)
        """
        sides = (int(length > limit) for limit in sorted(self.switches))
        return (*sides, *(max(length, limit) for limit in sorted(self.grows)))


def read_frequencies(config: Any) -> Frequencies:
    """Read from a model's configuration how its frequencies depend on the length of a pass."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # Some models have different parameters in each kind of layer.
    parts = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    switches, grows = set(), set()
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        kind = str(part.get("rope_type", part.get("type")))
        if kind == "longrope":
            name = "original_max_position_embeddings"
            limit = part.get(name) or getattr(text, name, None) or text.max_position_embeddings
            switches.add(int(limit))
        elif "dynamic" in kind:
            grows.add(int(text.max_position_embeddings))
    return Frequencies(frozenset(switches), frozenset(grows))


@contextmanager
def frequencies_for(model: PreTrainedModel, length: int) -> Iterator[None]:
    """Give every pass of the model the rotary frequencies of a pass of ``length`` tokens.

    Meanwhile, other threads that ask for this wait; threads started by this one do not.

    Raises:
        InputError: If the frequencies are kept in a form that cannot take a length.
    """
    parts = [part for part in model.modules() if _depends_on_length(part)]
    if not parts:
        why = "its rotary frequencies depend on the length of a pass, in a form of its own"
        raise InputError(f"the student {model.config.model_type} cannot be read exactly: {why}")
    with _LOCK, ExitStack() as after:
        for part in parts:
            _reset(part)
            after.callback(_reset, part)
            forward = part.forward
            part.forward = partial(_at_length, forward, length)  # hides the class's own
            after.callback(delattr, part, "forward")
        yield


def _depends_on_length(part: nn.Module) -> bool:
    kinds = getattr(part, "rope_type", None)
    kinds = kinds.values() if isinstance(kinds, Mapping) else [kinds]
    return any(kind == "longrope" or "dynamic" in str(kind) for kind in kinds)


def _reset(part: nn.Module) -> None:
    """Forget longer passes: dynamic NTK keeps their frequencies for later, shorter passes."""
    kinds = part.rope_type
    buffer = next(part.buffers())
    first = torch.zeros(1, 1, dtype=torch.long, device=buffer.device)
    for layer_type in kinds if isinstance(kinds, Mapping) else [None]:
        options = {} if layer_type is None else {"layer_type": layer_type}
        part(buffer.new_empty(1), position_ids=first, **options)


def _at_length(
    forward: Callable[..., Any], length: int, x: Tensor, position_ids: Int[Tensor, "*batch pos"],
    *args: Any, **options: Any,
) -> Any:  # fmt: skip
    """Rotary embeddings as in a pass of ``length`` tokens, by also asking for its last position."""
    last = position_ids.new_full((*position_ids.shape[:-1], 1), length - 1)
    angles = forward(x, torch.cat([position_ids, last], dim=-1), *args, **options)
    if isinstance(angles, Tensor):  # complex numbers
        return angles[..., :-1, :]
    return tuple(part[..., :-1, :] for part in angles)
