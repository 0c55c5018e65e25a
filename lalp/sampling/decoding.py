"""Decoding with transformers: many samples side by side, each prompt read once.

The loop is written out here, since `model.generate` keeps ended rows in the batch, draws all rows
from one random stream, and sorts the whole vocabulary for top-p at every token.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from lalp.errors import InputError
from lalp.pools.pool import located
from lalp.sampling.settings import Sampling
from lalp.students.encoding import opened_thought
from lalp.students.student import Student

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_ROOM = 256  # tokens for which room is made at once
# Rows at once: on a CPU more give no more tokens per second, on a GPU a step costs about the same.
_CPU_ROWS, _GPU_ROWS = 64, 128
# Share of memory for weights, keys and values; the rest is for logits and activations.
_CPU_SHARE, _GPU_SHARE = 0.5, 0.8
# Candidates for top-p that are sorted first; more only where they hold too little probability.
_FIRST_CANDIDATES = 128


@dataclass(frozen=True)
class Request:
    """One sample to draw: at most ``limit`` new tokens, and at least 1, the end token included."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    limit: int
    seed: int


@dataclass(frozen=True)
class Output:
    """The new tokens of one sample; the last one is an end token if it ``ended``."""

    token_ids: tuple[int, ...]
    ended: bool


def response_text(tokenizer: PreTrainedTokenizerBase, prompt_text: str, output: Output) -> str:
    """The text of a sample, without its end token and other special tokens.

    Some chat templates begin the reasoning themselves. Then the text begins with what they wrote.
    """
    ids = output.token_ids[:-1] if output.ended else output.token_ids
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return opened_thought(prompt_text) + text


@torch.inference_mode()
def default_batch_size(student: Student, longest: int) -> int:
    """Rows of ``longest`` tokens whose keys and values fit into memory beside the weights.

    The machine's whole memory counts, not what is free, so that another run gets the same batches.
    """
    layers = [x for x in _Reader(student, [(0,)]).cache.layers if isinstance(x, _RoomyLayer)]
    per_token = sum(x.keys.nbytes + x.values.nbytes for x in layers)
    if student.device.type == "cuda":
        whole = torch.cuda.get_device_properties(student.device).total_memory
        memory, most = whole * _GPU_SHARE, _GPU_ROWS
    else:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory, most = whole * _CPU_SHARE, _CPU_ROWS
    room = memory - student.model.get_memory_footprint()
    return int(min(max(1, room // max(1, per_token * longest)), most))


def decode(
    student: Student,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    on_tokens: Callable[[int], Any] = lambda tokens: None,
) -> list[Output]:
    """Draw all samples side by side; those that have ended leave the batch.

    When memory runs out, the batch is drawn again in two halves. ``on_tokens`` is called with the
    number of new tokens after each step.
    """
    try:
        return _decode_batch(student, requests, stop_ids, on_tokens)
    except RuntimeError as error:
        is_memory = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not is_memory or len(requests) == 1:
            raise
    # Outside the handler, so that the failed batch's tensors are gone. Does nothing on a CPU.
    torch.cuda.empty_cache()
    half = (len(requests) + 1) // 2
    first = decode(student, requests[:half], stop_ids, on_tokens)
    return first + decode(student, requests[half:], stop_ids, on_tokens)


@torch.inference_mode()
def _decode_batch(
    student: Student,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    on_tokens: Callable[[int], Any],
) -> list[Output]:
    _check_prompts(student, requests)
    samples = [_Sample(request, np.random.default_rng(request.seed)) for request in requests]
    readers: list[tuple[_Reader, list[_Sample]]] = []
    unread = samples  # their texts so far, from the first token
    while readers or unread:
        for part in _alike(student, unread):
            readers.append((_Reader(student, [sample.text for sample in part]), part))
        running, readers, unread = readers, [], []
        for reader, rows in running:
            with located(f"model {student.name!r}"):
                chosen = _choose_rows(reader.logits, rows)
            for sample, token in zip(rows, chosen.tolist(), strict=True):
                sample.tokens.append(token)
            on_tokens(len(rows))
            going_on = [not sample.is_done(stop_ids) for sample in rows]
            # What one pass over a text that outgrows its reader gives is not in the reader's cache.
            fits = [reader.can_hold(sample.length) for sample in rows]
            unread += [s for s, on, fit in zip(rows, going_on, fits, strict=True) if on and not fit]
            stays = [on and fit for on, fit in zip(going_on, fits, strict=True)]
            if not all(stays):
                # The last rows fill the gaps of those that leave, so that few rows are moved.
                last = [place for place in range(sum(stays), len(stays)) if stays[place]]
                kept = [place if stays[place] else last.pop() for place in range(sum(stays))]
                rows, chosen = [rows[place] for place in kept], chosen[kept]
                if rows:
                    reader.keep(kept)
            if rows:
                reader.read(chosen)
                readers.append((reader, rows))
    return [Output(tuple(s.tokens), s.tokens[-1] in stop_ids) for s in samples]


@dataclass(frozen=True)
class _Sample:
    """A sample in progress."""

    request: Request
    numbers: np.random.Generator
    tokens: list[int] = field(default_factory=list)

    @property
    def text(self) -> tuple[int, ...]:
        """The prompt and the new tokens."""
        return (*self.request.prompt_ids, *self.tokens)

    @property
    def length(self) -> int:
        """Tokens of the prompt and new ones."""
        return len(self.request.prompt_ids) + len(self.tokens)

    def is_done(self, stop_ids: frozenset[int]) -> bool:
        return self.tokens[-1] in stop_ids or len(self.tokens) >= self.request.limit


def _check_prompts(student: Student, requests: Sequence[Request]) -> None:
    """InputError if a prompt cannot be read."""
    name = student.name
    for request in requests:
        if not request.prompt_ids:
            why = "a prompt has no tokens, so nothing predicts the first token"
            raise InputError(f"{name} cannot sample: {why}: give the prompt a text")
        if (beyond := max(request.prompt_ids)) >= student.vocabulary:
            why = f"a prompt has token id {beyond}, the model has {student.vocabulary} token ids"
            advice = "give it the tokenizer that it was trained with"
            raise InputError(f"{name} cannot sample: {why}: {advice}")


def _alike(student: Student, samples: Sequence[_Sample]) -> list[list[_Sample]]:
    """Samples in groups: a pass over each text of a group gets the same rotary frequencies."""
    groups: dict[tuple[int, ...], list[_Sample]] = {}
    for sample in samples:
        groups.setdefault(student.frequencies.of(sample.length), []).append(sample)
    return list(groups.values())


def _choose_rows(
    logits: Float[Tensor, "batch vocab"], rows: Sequence[_Sample]
) -> Int[Tensor, "batch"]:
    """The next token of every row, by its own settings and random numbers."""
    settings = [sample.request.sampling for sample in rows]
    chosen = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for sampling in dict.fromkeys(settings):
        places = [place for place, own in enumerate(settings) if own == sampling]
        uniforms = [] if sampling.greedy else [rows[place].numbers.random() for place in places]
        part = logits if len(places) == len(rows) else logits[places]
        chosen[places] = choose_tokens(part, sampling, uniforms)
    return chosen


class _Reader:
    """Rows in progress: the model's cache, and the logits that predict each row's next token.

    Prompts are padded on the left, so that the next token of every row stands at the same place.
    A pass over each text must get the same rotary frequencies.
    """

    logits: Float[Tensor, "batch vocab"]

    def __init__(self, student: Student, prompts: Sequence[tuple[int, ...]]) -> None:
        parameters = inspect.signature(student.model.forward).parameters
        # transformers 5.24 calls it ``cache`` everywhere.
        known = ("cache", "past_key_values", "cache_params")
        names = [name for name in known if name in parameters]
        plain = student.model._supports_default_dynamic_cache() and not student.keeps_state
        if not names or not plain:
            advice = "sample from it with the vllm backend"
            raise InputError(f"{student.name} keeps its state in a form of its own: {advice}")
        self.student = student
        self.cache = DynamicCache(config=student.model.config)
        self.options: dict[str, Any] = {names[0]: self.cache, "use_cache": True}
        self.has_positions = "position_ids" in parameters
        self.length = max(map(len, prompts))  # tokens of the longest text so far
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        rows = [torch.tensor(prompt, device=student.device) for prompt in distinct]
        ids, self.mask = (
            pad_sequence(part, batch_first=True, padding_side="left")
            for part in (rows, [torch.ones_like(row) for row in rows])
        )
        # Equal prompts are read once; then each sample gets a row of its own.
        self._feed(ids, is_first_iteration=True)
        self.keep([distinct[prompt] for prompt in prompts])
        # Only plain layers: those of sliding windows stay short, recurrent states do not grow.
        self.cache.layers = [
            _RoomyLayer(layer) if type(layer) is DynamicLayer and layer.is_initialized else layer
            for layer in self.cache.layers
        ]

    def read(self, tokens: Int[Tensor, "batch"]) -> None:
        """Read one more token of every row."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.length += 1
        self._feed(tokens[:, None])

    def can_hold(self, length: int) -> bool:
        """Whether a pass over that many tokens has the frequencies of what is read already."""
        frequencies = self.student.frequencies
        return frequencies.of(length) == frequencies.of(self.length)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; at first they may repeat."""
        index = torch.tensor(rows, dtype=torch.long, device=self.student.device)
        self.cache.reorder_cache(index)
        self.mask, self.logits = self.mask[index], self.logits[index]
        self.length = int(self.mask.sum(1).max())  # the longest may have left

    def _feed(self, ids: Int[Tensor, "batch pos"], **options: bool) -> None:
        inputs = self.options | options | {"attention_mask": self.mask}
        if self.has_positions:
            positions = (self.mask.cumsum(1) - 1).clamp_(min=0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        # Families differ in what they take besides tokens and cache, for example in later steps.
        inputs = self.student.model.prepare_inputs_for_generation(ids, **inputs)
        # Phi-3 forgets the cache where its frequencies change, which no reader lives to see.
        inputs |= self.options
        with self.student.at_length(self.length):
            features, _ = self.student.body(**inputs)
        self.logits = self.student.head(features[:, -1])


class _RoomyLayer(DynamicLayer):
    """One layer's keys and values, with room for further tokens.

    The base class concatenates at every token, and so copies all keys and values each time. On a
    CPU that takes a fifth of a step with 40 rows.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._buffers = [layer.keys, layer.values]
        self._show(*layer.keys.shape[:3:2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        rows, heads, new, _ = key_states.shape
        begin = self.keys.shape[2]
        for i, states in enumerate((key_states, value_states)):
            if begin + new > self._buffers[i].shape[2]:
                shape = (rows, heads, begin + new + _ROOM, states.shape[3])
                larger = states.new_empty(shape)
                larger[:, :, :begin] = self._buffers[i][:rows, :, :begin]
                self._buffers[i] = larger
            self._buffers[i][:rows, :, begin : begin + new] = states
        self._show(rows, begin + new)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Int[Tensor, "kept"]) -> None:
        """Keep these rows, no more than there are; only those whose place changes are copied."""
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero()[:, 0]
        length = self.keys.shape[2]
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[beam_idx[moved], :, :length]
        self._show(len(beam_idx), length)

    def _show(self, rows: int, length: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)


def choose_tokens(
    logits: Float[Tensor, "batch vocab"], sampling: Sampling, uniforms: Sequence[float]
) -> Int[Tensor, "batch"]:
    """The next token of every row, from logits in float32.

    ``uniforms`` has a number from [0, 1) for each row; greedy sampling reads none.
    """
    if not bool(torch.isfinite(logits.amax(-1)).all()):  # NaN is larger than all numbers here
        why = "its weights are damaged, or do not fit the number format they are loaded in"
        raise InputError(f"its predictions are not numbers (NaN or infinite): {why}")
    if sampling.greedy:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if not sampling.top_k and sampling.top_p == 1:  # spares the sort of the vocabulary
        return _invert(logits.softmax(-1), uniforms)
    probs, ids = candidates(logits, sampling.top_k, sampling.top_p)
    return ids.gather(1, _invert(probs, uniforms)[:, None])[:, 0]


def candidates(
    logits: Float[Tensor, "batch vocab"], top_k: int, top_p: float
) -> tuple[Float[Tensor, "batch kept"], Int[Tensor, "batch kept"]]:
    """The tokens that may be drawn, in the order of their ids.

    Top-k keeps all tokens that are as likely as the k-th. Top-p keeps a token if those more likely
    than it hold less than ``top_p`` of what top-k has kept.

    Returns:
        Probabilities, not scaled to 1, and 0 for tokens that may not be drawn; and token ids.
    """
    most, wanted = logits.shape[-1], _FIRST_CANDIDATES
    if 0 < top_k < most:
        lowest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -math.inf)
        most = wanted = int((logits > -math.inf).sum(-1).max())
    probs = logits.softmax(-1)
    while True:
        top, ids = probs.topk(min(wanted, most))
        before = top.cumsum(-1) - top
        if wanted >= most or bool((before[:, -1] >= top_p).all()):
            break
        wanted *= 8
    kept = before < top_p
    kept[:, 0] = True
    # By id: a rounding error that lets two likely tokens change places moves no other boundary.
    order = ids.argsort(-1)
    return (top * kept).gather(1, order), ids.gather(1, order)


def _invert(probs: Float[Tensor, "batch kept"], uniforms: Sequence[float]) -> Int[Tensor, "batch"]:
    """Draw by the inverse of the cumulated probabilities.

    In float64, because sums over a whole vocabulary in float32 are too coarse for rare tokens.
    """
    sums = probs.double().cumsum(-1)
    at = torch.tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0].clamp_(max=probs.shape[-1] - 1)
