"""Forward passes of Llama-like students on a CPU, over rows packed end to end without padding.

The modelling code of transformers spends a third of such a pass outside matrix products: in norms,
rotary embeddings, masks, copies of keys and padding. Here rows need no padding, oneDNN computes the
products, and all other operations work in place. `pack_body` checks on a few tokens that the result
equals the model's own. Other models are not packed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu
from transformers import PreTrainedModel

from lalp.students.heads import project, spare_rows

# Families whose blocks are RMSNorm, attention with rotary embeddings, RMSNorm and gated SiLU.
_FAMILIES = frozenset({"llama", "mistral", "qwen2"})
# Rotary types whose frequencies do not depend on the length of the sequence.
_STATIC_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
# For each dtype, how far the result may be from the model's own, relative to its norm. Models in
# other dtypes are not packed.
_DTYPES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
# Tokens per pass: a product reads its weights from memory once for all of them.
TILE = 2048
# Queries per call of attention: keys after the last query are left out, and masks stay small.
QUERIES = 256


# Rows that are read in one pass: the tokens of each row, and the wanted positions within it.
_Tile = list[tuple[Int[Tensor, "pos"], Int[Tensor, "wanted"]]]
# Queries, keys and values of the tokens of a pass.
_Heads = tuple[
    Float[Tensor, "kv_heads pos group head_dim"],
    Float[Tensor, "pos kv_heads head_dim"],
    Float[Tensor, "pos kv_heads head_dim"],
]


@dataclass(frozen=True)
class Context:
    """Keys and values of the tokens before the rows, with room for one row."""

    # One tensor, because the memory of a large one goes back to the system as soon as it is freed.
    states: Float[Tensor, "layers 2 kv_heads capacity head_dim"]
    length: int = 0  # filled positions; those after them are scratch


def pack_body(model: PreTrainedModel) -> PreTrainedModel | None:
    """The model's body, laid out for packed rows; None if the model has another form.

    The body still belongs to the model: only the order of its weights in memory changes.
    """
    config = model.config
    if (
        config.model_type not in _FAMILIES
        or config.hidden_act != "silu"
        or model.device.type != "cpu"
        or model.dtype not in _DTYPES
        or getattr(config, "sliding_window", None)
        or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        or model.base_model.rotary_emb.rope_type not in _STATIC_ROTARY
        or not all(_is_plain(layer) for layer in model.base_model.layers)
    ):
        return None
    with torch.inference_mode(False):  # so that the model can still be trained
        _lay_out(model)
    return model.base_model if _agrees(model.base_model) else None


@torch.inference_mode()
def read_prompt(
    body: PreTrainedModel, ids: Int[Tensor, "pos"]
) -> tuple[Context, Float[Tensor, "hidden"]]:
    """Read a prompt: its context for rows, and the features of its last token."""
    layers, heads = len(body.layers), body.config.num_key_value_heads
    head_dim = body.layers[0].self_attn.head_dim
    context = Context(torch.empty(layers, 2, heads, len(ids), head_dim, dtype=body.dtype))
    (last,) = read_packed(body, [ids], context, [torch.tensor([len(ids) - 1])])
    return replace(context, length=len(ids)), last


def make_room(context: Context, capacity: int) -> Context:
    """A copy of the filled positions with room for ``capacity`` more."""
    *shape, _, head_dim = context.states.shape
    room = context.states.new_empty(*shape, context.length + capacity, head_dim)
    room[..., : context.length, :] = context.states[..., : context.length, :]
    return Context(room, context.length)


@torch.inference_mode()
def read_packed(
    body: PreTrainedModel,
    rows: Sequence[Int[Tensor, "pos"]],
    context: Context,
    wanted: Sequence[Int[Tensor, "wanted"]],
) -> Float[Tensor, "wanted hidden"]:
    """Features at the wanted positions of rows that all follow the same context, row after row.

    ``wanted`` are positions within each row, in order. The context needs room for the longest row.
    The keys and values of the last row stay in it.
    """
    # One mask for all tiles. Later tiles of a long row would need larger masks, and freed masks
    # would leave small holes in memory.
    longest = max(map(len, rows), default=0)
    group = body.layers[0].self_attn.num_key_value_groups
    mask = _causal_mask(longest, context.length, group).to(body.dtype)
    parts = [body.embed_tokens.weight[:0]]
    for begin, tile in _cut_tiles(rows, wanted):
        before = replace(context, length=context.length + begin)
        parts.append(_read_tile(body, tile, before, mask))
    return torch.cat(parts)


def _cut_tiles(
    rows: Sequence[Int[Tensor, "pos"]], wanted: Sequence[Int[Tensor, "wanted"]]
) -> Iterator[tuple[int, _Tile]]:
    """Yield each tile and where it begins: consecutive rows that fit, or part of a long row."""
    tile: _Tile = []
    for row, places in zip(rows, wanted, strict=True):
        if tile and sum(len(ids) for ids, _ in tile) + len(row) > TILE:
            yield 0, tile
            tile = []
        if len(row) > TILE:
            for begin in range(0, len(row), TILE):
                here = places[(places >= begin) & (places < begin + TILE)] - begin
                yield begin, [(row[begin : begin + TILE], here)]
        elif len(row):  # an empty row has nothing to read
            tile.append((row, places))
    if tile:
        yield 0, tile


def _read_tile(
    body: PreTrainedModel,
    tile: _Tile,
    context: Context,
    mask: Float[Tensor, "group*queries most+queries"],
) -> Float[Tensor, "wanted hidden"]:
    """Run one forward pass over the tokens of rows that are placed end to end."""
    ends = list(itertools.accumulate(len(ids) for ids, _ in tile))
    rows = list(zip([0, *ends[:-1]], ends, strict=True))
    wanted = torch.cat([start + places for (start, _), (_, places) in zip(rows, tile, strict=True)])
    positions = torch.cat([torch.arange(len(ids)) for ids, _ in tile]) + context.length
    # Padding tokens after the last row, to which no token attends.
    num_tokens, spare = ends[-1], spare_rows(ends[-1])
    hidden = body.embed_tokens.weight[pad(torch.cat([ids for ids, _ in tile]), (0, spare))]
    angles = body.rotary_emb(hidden, positions[None])
    cos, sin = (pad(each[0, :, None], (0, 0, 0, 0, 0, spare)) for each in angles)
    for layer, states in zip(body.layers, context.states, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        normed = _normalize(hidden, layer.input_layernorm)
        heads = _make_heads(attention, normed, cos, sin)
        mixed = hidden.new_empty(heads[0].transpose(0, 1).shape)
        mixed[num_tokens:] = 0
        for row in rows:
            _attend(heads, states, context.length, row, mask, attention.scaling, mixed)
        mixed = mixed.flatten(1)
        if layer is body.layers[-1]:  # the other positions are not read any more
            kept = pad(wanted, (0, spare_rows(len(wanted))))
            hidden, mixed = hidden[kept], mixed[kept]
        hidden += _apply(attention.o_proj, mixed)
        normed = _normalize(hidden, layer.post_attention_layernorm)
        gated = silu(_apply(mlp.gate_proj, normed), inplace=True)
        hidden += _apply(mlp.down_proj, gated.mul_(_apply(mlp.up_proj, normed)))
    return body.norm(hidden[: len(wanted)])


def _normalize(hidden: Float[Tensor, "pos hidden"], norm: nn.Module) -> Float[Tensor, "pos hidden"]:
    norms = torch.linalg.vector_norm(hidden, dim=1, keepdim=True, dtype=torch.float32)
    inverse = norms.square_().div_(hidden.shape[1]).add_(norm.variance_epsilon).rsqrt_()
    # As in the model: scale in float32, and round before the weight is applied.
    return (hidden * inverse).to(hidden.dtype).mul_(norm.weight)


def _apply(part: nn.Linear, states: Float[Tensor, "pos inputs"]) -> Float[Tensor, "pos outputs"]:
    return project(states, part.weight, part.bias)


def _make_heads(
    attention: nn.Module, normed: Float[Tensor, "pos hidden"], cos: Tensor, sin: Tensor
) -> _Heads:
    """Queries and keys with their rotary embedding, and values.

    Queries that share a key head are adjacent, so keys need not be repeated.
    """
    by_group = (-1, attention.num_key_value_groups, attention.head_dim)
    grouped = _apply(attention.q_proj, normed).unflatten(1, by_group).transpose(0, 1)
    queries = torch.empty_like(grouped, memory_format=torch.contiguous_format)
    _rotate(grouped, cos, sin, queries)
    keys, values = (
        _apply(part, normed).unflatten(1, (-1, attention.head_dim))
        for part in (attention.k_proj, attention.v_proj)
    )
    rotated = torch.empty_like(keys)
    _rotate(keys, cos, sin, rotated)
    return queries, rotated, values


def _rotate(states: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Rotary embedding: rotate the point of coordinates ``i`` and ``i + head_dim / 2``."""
    half = states.shape[-1] // 2
    torch.mul(states, cos, out=out)
    out[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(states[..., :half], sin[..., half:])


def _attend(
    heads: _Heads,
    states: Float[Tensor, "2 kv_heads capacity head_dim"],
    before: int,
    row: tuple[int, int],
    mask: Float[Tensor, "group*queries most+queries"],
    scale: float,
    mixed: Float[Tensor, "pos kv_heads group head_dim"],
) -> None:
    """Write into ``mixed`` the attention of one row over the context and itself."""
    queries, *own = heads
    start, end = row
    for room, new in zip(states, own, strict=True):
        room[:, before : before + end - start] = new[start:end].transpose(0, 1)
    group = queries.shape[2]
    most = mask.shape[1] - len(mask) // group
    for first in range(start, end, QUERIES):
        part = slice(first, min(first + QUERIES, end))
        earlier, size = before + first - start, part.stop - first
        attended = scaled_dot_product_attention(
            queries[:, part].flatten(1, 2)[None],
            *states[:, None, :, : earlier + size],
            attn_mask=mask[: size * group, most - earlier : most + size],
            scale=scale,
        )
        mixed[part] = attended[0].unflatten(1, (size, group)).transpose(0, 1)


def _causal_mask(
    longest: int, before: int, group: int
) -> Float[Tensor, "group*queries most+queries"]:
    """Zero where a query may look, else minus infinity; one line per query of a group.

    The mask fits queries with ``most`` positions before the first of them. The last query of the
    longest row has that many before it. Queries with ``earlier`` positions before the first of them
    use the columns from ``most - earlier``.
    """
    queries, most = min(longest, QUERIES), before + max(0, longest - 1)
    mask = torch.zeros(queries, group, most + queries)
    mask[..., most:] = torch.full((queries, queries), -math.inf).triu_(1)[:, None]
    return mask.flatten(0, 1)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer has only plain linear parts, with biases in the expected places.

    The query, key and value projections all have a bias or all have none. The others have none.
    """
    attention, mlp = layer.self_attn, layer.mlp
    inner = (attention.q_proj, attention.k_proj, attention.v_proj)
    outer = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    return (
        all(type(linear) is nn.Linear for linear in (*inner, *outer))
        and all(linear.bias is None for linear in outer)
        and len({linear.bias is None for linear in inner}) == 1
    )


def _lay_out(model: PreTrainedModel) -> None:
    """Store the layers' weights in the order in which matrix products read them.

    Otherwise every product would transpose them first. The other parameters are copied too, so
    nothing keeps the mapped file open that they came from.
    """
    linears = (part for part in model.base_model.layers.modules() if isinstance(part, nn.Linear))
    turned = {id(part.weight) for part in linears}
    for parameter in model.parameters():
        data = parameter.data
        parameter.data = data.t().contiguous().t() if id(parameter) in turned else data.clone()


@torch.inference_mode()
def _agrees(body: PreTrainedModel) -> bool:
    """Whether packed reading gives two rows after a prompt the model's own features."""
    vocab = len(body.embed_tokens.weight)
    prompt, *rows = (torch.arange(a, b) % vocab for a, b in ((3, 10), (10, 22), (40, 45)))
    context = make_room(read_prompt(body, prompt)[0], max(map(len, rows)))
    packed = read_packed(body, rows, context, [torch.arange(len(row)) for row in rows])
    whole = (torch.cat([prompt, row])[None] for row in rows)
    features = (body(input_ids=ids).last_hidden_state[0] for ids in whole)
    expected = torch.cat([row[len(prompt) :] for row in features])
    # Compare by norm, because single features of some tokens are huge, and inexact in either
    # computation.
    return bool((packed - expected).norm() <= _DTYPES[body.dtype] * expected.norm())
