"""Decoding with transformers: many samples side by side, each prompt read once.

This module has its own loop, because `model.generate` keeps finished rows in the batch, draws all
rows from one random stream, and sorts the whole vocabulary for top-p at every token.
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

_ROOM = 256  # tokens by which the room in the cache grows
# Rows at once. On a CPU, more rows give no more tokens per second. On a GPU, a step costs about the
# same for few rows as for many.
_CPU_ROWS, _GPU_ROWS = 64, 128
# Share of memory for weights, keys and values; the rest is for logits and activations.
_CPU_SHARE, _GPU_SHARE = 0.5, 0.8
# Top-p first sorts this many candidates. It sorts more only if these hold too little probability.
_FIRST_CANDIDATES = 128


@dataclass(frozen=True)
class Request:
    """One sample to draw: 1 to ``limit`` new tokens, including the end token."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    limit: int
    seed: int


@dataclass(frozen=True)
class Output:
    """The new tokens of one sample; the last one is an end token if ``ended`` is true."""

    token_ids: tuple[int, ...]
    ended: bool


def response_text(tokenizer: PreTrainedTokenizerBase, prompt_text: str, output: Output) -> str:
    """The text of a sample, without its end token and other special tokens.

    Some chat templates begin the reasoning themselves. The text then begins with what they wrote.
    """
    ids = output.token_ids[:-1] if output.ended else output.token_ids
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return opened_thought(prompt_text) + text


@torch.inference_mode()
def default_batch_size(student: Student, longest: int) -> int:
    """How many rows of ``longest`` tokens fit into memory: keys and values beside the weights.

    The machine's total memory counts, not the free memory, so another run gets the same batches.
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
    """Draw all samples side by side; finished samples leave the batch.

    If memory runs out, the batch is drawn again in two halves. After each step, ``on_tokens`` is
    called with the number of new tokens.
    """
    try:
        return _decode_batch(student, requests, stop_ids, on_tokens)
    except RuntimeError as error:
        is_memory = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not is_memory or len(requests) == 1:
            raise
    # This is outside the handler, so that the failed batch's tensors are freed. On a CPU it does
    # nothing.
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
    unread = samples  # samples whose text so far must be read from its first token
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
            # A text that outgrows its reader gets other frequencies, so a new reader must read it.
            fits = [reader.can_hold(sample.length) for sample in rows]
            unread += [s for s, on, fit in zip(rows, going_on, fits, strict=True) if on and not fit]
            stays = [on and fit for on, fit in zip(going_on, fits, strict=True)]
            if not all(stays):
                # The last rows fill the gaps of rows that leave, so that few rows are moved.
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
        """The number of prompt tokens and new tokens together."""
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
    """Group samples whose texts get the same rotary frequencies in a pass."""
    groups: dict[tuple[int, ...], list[_Sample]] = {}
    for sample in samples:
        groups.setdefault(student.frequencies.of(sample.length), []).append(sample)
    return list(groups.values())


def _choose_rows(
    logits: Float[Tensor, "batch vocab"], rows: Sequence[_Sample]
) -> Int[Tensor, "batch"]:
    """The next token of every row, drawn with its own settings and random numbers."""
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

    Prompts are padded on the left, so that the next tokens of all rows are in one column. All texts
    must get the same rotary frequencies in a pass.
    """

    logits: Float[Tensor, "batch vocab"]

    def __init__(self, student: Student, prompts: Sequence[tuple[int, ...]]) -> None:
        parameters = inspect.signature(student.model.forward).parameters
        # In transformers 5.24 the argument is called ``cache`` for all models.
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
        # Equal prompts are read only once. Then each sample gets its own row.
        self._feed(ids, is_first_iteration=True)
        self.keep([distinct[prompt] for prompt in prompts])
        # Only plain layers need room. Layers with sliding windows stay short, and recurrent states
        # do not grow.
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
        """Whether a pass over that many tokens has the same frequencies as the text so far."""
        frequencies = self.student.frequencies
        return frequencies.of(length) == frequencies.of(self.length)

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows, in this order; only the first call may repeat rows."""
        index = torch.tensor(rows, dtype=torch.long, device=self.student.device)
        self.cache.reorder_cache(index)
        self.mask, self.logits = self.mask[index], self.logits[index]
        self.length = int(self.mask.sum(1).max())  # the longest row may have left

    def _feed(self, ids: Int[Tensor, "batch pos"], **options: bool) -> None:
        inputs = self.options | options | {"attention_mask": self.mask}
        if self.has_positions:
            positions = (self.mask.cumsum(1) - 1).clamp_(min=0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        # Model families take different inputs besides tokens and cache, for example in later steps.
        inputs = self.student.model.prepare_inputs_for_generation(ids, **inputs)
        # Phi-3 drops the cache where its frequencies change. In one reader they never change, so
        # the cache is put back.
        inputs |= self.options
        with self.student.at_length(self.length):
            features, _ = self.student.body(**inputs)
        self.logits = self.student.head(features[:, -1])


class _RoomyLayer(DynamicLayer):
    """One layer's keys and values, with room for more tokens.

    The base class concatenates at every token, so it copies all keys and values each time. On a CPU
    this takes a fifth of a step with 40 rows.
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
        """Keep these rows, at most as many as there are; only rows that move are copied."""
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
    if not bool(torch.isfinite(logits.amax(-1)).all()):  # amax treats NaN as the largest number
        why = "its weights are damaged, or do not fit the number format they are loaded in"
        raise InputError(f"its predictions are not numbers (NaN or infinite): {why}")
    if sampling.greedy:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if not sampling.top_k and sampling.top_p == 1:  # no need to sort the vocabulary
        return _invert(logits.softmax(-1), uniforms)
    probs, ids = candidates(logits, sampling.top_k, sampling.top_p)
    return ids.gather(1, _invert(probs, uniforms)[:, None])[:, 0]


def candidates(
    logits: Float[Tensor, "batch vocab"], top_k: int, top_p: float
) -> tuple[Float[Tensor, "batch kept"], Int[Tensor, "batch kept"]]:
    """The tokens that may be drawn, in the order of their ids.

    Top-k keeps all tokens that are at least as likely as the k-th. Top-p keeps a token if the more
    likely tokens together hold less than ``top_p`` of the probability that top-k has kept.

    Returns:
        Probabilities and token ids. The probabilities are not scaled to 1. They are 0 for tokens
        that may not be drawn.
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
    # Tokens are in the order of their ids. So if a rounding error swaps the ranks of two likely
    # tokens, no other boundary moves.
    order = ids.argsort(-1)
    return (top * kept).gather(1, order), ids.gather(1, order)


def _invert(probs: Float[Tensor, "batch kept"], uniforms: Sequence[float]) -> Int[Tensor, "batch"]:
    """Draw by inverting the cumulative probabilities.

    The sums are in float64, because float32 sums over a whole vocabulary are too coarse for rare
    tokens.
    """
    sums = probs.double().cumsum(-1)
    at = torch.tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0].clamp_(max=probs.shape[-1] - 1)
