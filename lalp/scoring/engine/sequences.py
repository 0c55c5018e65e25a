"""One forward pass over a packed sequence with transformers' own models, on a GPU.

The model gets the mask of `packing` as its attention mask. FlexAttention gets it by blocks, so a
block that no token sees costs nothing. This serves every model that transformers can run with
FlexAttention and whose layers do nothing else across positions, also with grouped heads, capped
scores, sinks, and sliding windows. The mask counts such windows in positions. `find_packing` reads
a few rows both ways and leaves out models whose results differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from lalp.scoring.engine.packing import (
    BLOCK,
    Job,
    PackedSequence,
    num_packed,
    pack_sequence,
    plan_sequences,
)
from lalp.scoring.engine.rows import Row, TokenScores
from lalp.scoring.engine.vocabulary import read_rows_of_targets
from lalp.students.heads import take_logits
from lalp.students.student import Student

_FULL, _SLIDING = "full_attention", "sliding_attention"
# Memory that a pass may use besides weights and keys.
_ACTIVATION_BYTES = 13 << 26  # 0.8 GiB
_SHORTEST, _LONGEST = 1024, 1 << 15

log = logging.getLogger("lalp")


@dataclass(frozen=True)
class Packing:
    """The form in which a student gets packed sequences."""

    max_tokens: int  # of a sequence
    windows: Mapping[str, int | None]  # by kind of layer: positions that a token sees
    in_blocks: bool = True  # for FlexAttention; else a mask of all pairs, for small tests

    def padded(self, num_tokens: int) -> int:
        """The padded length of a sequence: one of a few, because a kernel is compiled for each."""
        length = max(BLOCK, self.max_tokens)
        while self.in_blocks and length // 4 >= max(num_tokens, _SHORTEST):
            length //= 4
        return -(-max(length if self.in_blocks else 1, num_tokens) // BLOCK) * BLOCK


def find_packing(student: Student) -> Packing | None:
    """How a student on a GPU reads packed sequences; None if it does not."""
    if "packing" not in student.laid_out:
        packing = _choose_packing(student) if student.device.type == "cuda" else None
        student.laid_out["packing"] = packing if packing and agrees(student, packing) else None
    return student.laid_out["packing"]


def _choose_packing(student: Student) -> Packing | None:
    """The packing for a student's configuration; None if it supports none."""
    model = student.model
    one_device = len({weight.device for weight in model.parameters()}) == 1
    known = getattr(model, "_supports_flex_attn", False) and one_device
    windows = layer_windows(model.config.get_text_config())
    if not known or windows is None or student.frequencies or student.head is take_logits:
        return None
    return Packing(_fitting_tokens(model.config.get_text_config(), model.dtype), windows)


def layer_windows(config: Any) -> dict[str, int | None] | None:
    """For each kind of layer, the positions that it sees (None: all); None if one is unknown."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
    if kinds - {_FULL, _SLIDING} or (_SLIDING in kinds and not window):
        return None
    return {kind: window if kind == _SLIDING else None for kind in sorted(kinds)}


def _fitting_tokens(config: Any, dtype: torch.dtype) -> int:
    """The number of tokens whose activations fit `_ACTIVATION_BYTES`, in multiples of 1024."""
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    # Held at once: three results of the gated layer, and some as wide as the hidden states.
    each = (3 * inner + 6 * hidden) * dtype.itemsize
    tokens = _ACTIVATION_BYTES // each // _SHORTEST * _SHORTEST
    return min(max(tokens, _SHORTEST), _LONGEST)


@torch.inference_mode()
def run_packed(
    student: Student,
    packing: Packing,
    prompt_ids: Sequence[tuple[int, ...]],
    jobs: Sequence[Job],
    max_tokens: int,
    *,
    statistics: bool,
    on_tokens: Callable[[int], object],
) -> list[TokenScores | None]:
    """Read the token scores of rows in packed sequences, one sequence after another.

    The device reads one sequence while the CPU lays out the next. When the device's memory runs
    out, a sequence is read in halves. The result of a row that does not fit even alone is None.
    """
    results: list[TokenScores | None] = [
        np.full((3, job.row.num_tokens), np.nan, np.float32) for job in jobs
    ]
    queue = plan_sequences([len(ids) for ids in prompt_ids], jobs, max_tokens)[::-1]
    running: _Running | None = None
    with flex_kernel(student) if packing.in_blocks else nullcontext():
        while queue:
            members = queue.pop()
            some = [jobs[place] for place in members]
            length = packing.padded(num_packed(prompt_ids, some))
            sequence = pack_sequence(prompt_ids, some, length)
            try:
                values = _launch(student, packing, sequence, some, statistics)
            except torch.OutOfMemoryError:
                values = None
            if values is None:  # outside the handler, so that the failed pass's tensors are gone
                torch.cuda.empty_cache()
                half = len(members) // 2
                if half:
                    queue += [members[half:], members[:half]]
                else:
                    results[members[0]] = None
                continue
            if running:
                running.collect(results)
            running = _Running(members, sequence, values)
            on_tokens(num_packed(prompt_ids, some))
    if running:
        running.collect(results)
    return results


@dataclass(frozen=True)
class _Running:
    """A sequence that the device may still be reading."""

    members: list[int]  # places of its jobs
    sequence: PackedSequence
    values: tuple[Float[Tensor, "3 targets"], Int[np.ndarray, " targets"]]  # and their order

    def collect(self, results: list[TokenScores | None]) -> None:
        """Wait for the values, and write them into the results of their jobs."""
        values, order = self.values
        read = np.empty(values.shape, np.float32)
        read[:, order] = values.cpu().numpy()
        ends = np.flatnonzero(np.diff(self.sequence.jobs, append=-1)) + 1
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            place = self.members[self.sequence.jobs[begin]]
            results[place][:, self.sequence.columns[begin:end]] = read[:, begin:end]


def _launch(
    student: Student,
    packing: Packing,
    sequence: PackedSequence,
    jobs: Sequence[Job],
    statistics: bool,
) -> tuple[Float[Tensor, "3 targets"], Int[np.ndarray, " targets"]]:
    """Start reading a sequence on the device; return its targets' values and their order."""
    whole = np.array([statistics and job.row.start == 0 for job in jobs])[sequence.jobs]
    order = np.argsort(~whole, kind="stable")
    features = read_sequence(student, packing, sequence, order)
    targets = send(sequence.targets[order], student.device)
    values = read_rows_of_targets(student.head, features, targets, int(whole.sum()))
    return values, order


def read_sequence(
    student: Student,
    packing: Packing,
    sequence: PackedSequence,
    order: Int[np.ndarray, " targets"] | slice = slice(None),
) -> Float[Tensor, "targets features"]:
    """The features that predict a sequence's targets, in ``order``, on the student's device.

    If ``packing`` is in blocks, the student must use FlexAttention meanwhile (`flex_kernel`).
    """
    device = student.device
    facts = (sequence.ids, sequence.positions)
    seen = (sequence.begin, sequence.prompt_begin, sequence.prompt_end)
    ids, positions, *seen = send(np.stack([*facts, *seen]), device)
    features, _ = student.body(
        input_ids=ids[None],
        position_ids=positions[None],
        attention_mask=_make_masks(packing, sequence, (positions, *seen), student.model.dtype),
        use_cache=False,
    )
    return features[0, send(sequence.places[order], device)]


def send(numbers: np.ndarray, device: torch.device) -> Tensor:
    """Copy numbers to a device without waiting for its current work."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@contextmanager
def flex_kernel(student: Student) -> Iterator[None]:
    """Let the student use FlexAttention in the block, compiled once for each padded length."""
    model, before = student.model, student.model.config._attn_implementation
    # Otherwise, changing lengths would make torch compile a slower kernel for all lengths.
    settings = {"automatic_dynamic_shapes": False, "recompile_limit": 64}
    model.set_attn_implementation("flex_attention")
    try:
        with torch._dynamo.config.patch(settings):
            yield
    finally:
        model.set_attn_implementation(before)


def _make_masks(
    packing: Packing, sequence: PackedSequence, seen: tuple[Tensor, ...], dtype: torch.dtype
) -> Any:
    """The attention mask of a model's layers; one for each kind if there are several."""
    masks = {
        kind: _block_mask(sequence, _mask_function(*seen, window), window is None, seen[0].device)
        if packing.in_blocks
        else _dense_mask(_mask_function(*seen, window), len(sequence.ids), dtype)
        for kind, window in packing.windows.items()
    }
    return masks if len(masks) > 1 else masks.popitem()[1]


def _mask_function(
    positions: Int[Tensor, "pos"],
    begin: Int[Tensor, "pos"],
    prompt_begin: Int[Tensor, "pos"],
    prompt_end: Int[Tensor, "pos"],
    window: int | None,
) -> Callable[..., Tensor]:
    """The function by which FlexAttention asks whether a query sees a key, given their places."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        in_row = key >= begin[query]
        in_prompt = (key >= prompt_begin[query]) & (key < prompt_end[query])
        return (key <= query) & (in_row | in_prompt)

    def sees_near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(batch, head, query, key) & (positions[query] - positions[key] < window)

    return sees if window is None else sees_near


def _block_mask(
    sequence: PackedSequence, sees: Callable[..., Tensor], whole: bool, device: torch.device
) -> BlockMask:
    """The mask by blocks; unless ``whole`` is true, no block counts as seen fully."""
    some, full = sequence.seen_blocks()
    if not whole:  # a window may cut into any block
        some, full = some | full, np.zeros_like(full)
    parts = []
    for blocks in (some, full):
        order = np.argsort(~blocks, axis=1, kind="stable").astype(np.int32)
        parts += [blocks.sum(1, dtype=np.int32)[None, None], order[None, None]]
    length = len(sequence.ids)
    return BlockMask.from_kv_blocks(
        *(send(part, device) for part in parts),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


def _dense_mask(
    sees: Callable[..., Tensor], length: int, dtype: torch.dtype
) -> Float[Tensor, "1 1 pos pos"]:
    """The mask of all pairs, in the form that transformers adds to the scores."""
    places = torch.arange(length)
    seen = sees(places[0], places[0], places[:, None], places[None])
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[
        None, None
    ]


@torch.inference_mode()
def agrees(student: Student, packing: Packing) -> bool:
    """Whether packed rows after two prompts get the same features as in passes of their own."""
    vocabulary = min(student.vocabulary, 1 << 15)
    tokens = torch.arange(97) * 31 % vocabulary
    prompts = [tuple(tokens[3:10].tolist()), tuple(tokens[50:61].tolist())]
    response = tokens[10:50].tolist()
    spans = ((0, 13), (4, 40), (9, 15))
    jobs = [Job(p, response, Row(a, b, ((a, b),))) for p in range(2) for a, b in spans]
    length = packing.padded(num_packed(prompts, jobs))
    expected = []
    for prompt, _, row in jobs:
        ids = [*prompts[prompt], *response[row.start : row.end - 1]]
        features, _ = student.body(
            input_ids=torch.tensor([ids], device=student.device), use_cache=False
        )
        expected.append(features[0, len(prompts[prompt]) - 1 :])
    try:
        with flex_kernel(student) if packing.in_blocks else nullcontext():
            packed = read_sequence(student, packing, pack_sequence(prompts, jobs, length))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        log.info("student %r: packed sequences are not read: %s", student.name, error)
        return False
    # Compare by norm, because single features of some tokens are huge, and inexact in either
    # computation.
    tolerance = 1e-4 if student.model.dtype == torch.float32 else 5e-2
    whole = torch.cat(expected).float()
    return bool((packed.float() - whole).norm() <= tolerance * whole.norm())
