"""Causal attention whose gradients are added up in a fixed order: the same run gives the same bits.

The tiled algorithm of FlashAttention-2 (Dao 2023, arXiv 2307.08691), with one backward kernel for keys and values and
another for queries, so that no two programs add to one place. The quickest of PyTorch's own backward passes add as they
come. Exponentials are powers of two.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634
FORWARD = {"ROWS": 128, "COLUMNS": 128, "num_warps": 8, "num_stages": 3}
KEYS = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
QUERIES = {"ROWS": 128, "COLUMNS": 64, "num_warps": 8, "num_stages": 3}
"""Tiles of rows (queries) and columns (keys), the quickest of some on an H100 at 128 a head; the larger is a multiple
of the smaller."""


class CausalAttention(torch.autograd.Function):
    """query [batch, heads, time, size], key and value [batch, key heads, time, size] -> as query, but [batch, time,
    heads, size] in memory."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        batch, heads, time, _ = query.shape
        output = _like(query)
        lse = torch.empty(batch, heads, time, device=query.device)
        grid = (triton.cdiv(time, FORWARD["ROWS"]), batch * heads)
        _forward[grid](query, key, value, output, lse, *_shape(query, key, value, output), scale * LOG2_E, **FORWARD)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> Any:  # type: ignore[override]
        query, key, value, output, lse = ctx.saved_tensors
        batch, heads, time, size = query.shape
        of_output = of_output if of_output.stride(-1) == 1 else of_output.contiguous()
        delta = torch.empty_like(lse)
        rows = (triton.cdiv(time, 64), batch * heads)
        _delta[rows](output, of_output, delta, *output.stride()[:3], *of_output.stride()[:3], heads, time, size, 64)
        of_query, of_key, of_value = _like(query), _like(key), _like(value)
        shape = _shape(query, key, value, of_output)
        numbers = ctx.scale * LOG2_E, ctx.scale
        grid = (triton.cdiv(time, KEYS["COLUMNS"]), batch * key.shape[1])
        given = query, key, value, of_output, lse, delta
        _of_keys[grid](*given, of_key, of_value, *of_key.stride()[:3], *shape, *numbers, **KEYS)
        grid = (triton.cdiv(time, QUERIES["ROWS"]), batch * heads)
        _of_queries[grid](*given, of_query, *of_query.stride()[:3], *shape, *numbers, **QUERIES)
        return of_query, of_key, of_value, None


def _like(tensor: Tensor) -> Tensor:
    batch, heads, time, size = tensor.shape
    return torch.empty(batch, time, heads, size, device=tensor.device, dtype=tensor.dtype).transpose(1, 2)


def _shape(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> tuple[int, ...]:
    """Strides of the four by batch, head and time, then heads, query heads of a key head, time and size."""
    strides = [stride for tensor in (query, key, value, output) for stride in tensor.stride()[:3]]
    return (*strides, query.shape[1], query.shape[1] // key.shape[1], query.shape[2], query.shape[3])


@triton.jit
def _tile(start, rows, stride, time, SIZE: tl.constexpr):
    """[rows, size] of a tensor of one head; nought beyond its end."""
    places = start + rows[:, None] * stride + tl.arange(0, SIZE)[None, :]
    return tl.load(places, mask=rows[:, None] < time, other=0.0)


@triton.jit
def _store(start, rows, stride, time, values, SIZE: tl.constexpr):
    places = start + rows[:, None] * stride + tl.arange(0, SIZE)[None, :]
    tl.store(places, values.to(start.dtype.element_ty), mask=rows[:, None] < time)


@triton.jit
def _attend(q, k, v, high, total, mixed, rows, columns, scale, DIAGONAL: tl.constexpr):
    scores = tl.dot(q, tl.trans(k)) * scale
    if DIAGONAL:
        scores = tl.where(rows[:, None] >= columns[None, :], scores, -1e30)
    higher = tl.maximum(high, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    keep = tl.exp2(high - higher)
    total = total * keep + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(v.dtype), v, mixed * keep[:, None])
    return higher, total, mixed


@triton.jit
def _forward(
    query, key, value, output, lse,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time, o_batch, o_head, o_time,
    heads, group, time, SIZE: tl.constexpr, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(1).to(tl.int64)
    batch, head = number // heads, number % heads
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS  # the longest first
    rows = first + tl.arange(0, ROWS)
    keys = key + batch * k_batch + (head // group) * k_head
    values = value + batch * v_batch + (head // group) * v_head
    q = _tile(query + batch * q_batch + head * q_head, rows, q_time, time, SIZE)
    high = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, first, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _tile(keys, columns, k_time, time, SIZE)
        v = _tile(values, columns, v_time, time, SIZE)
        high, total, mixed = _attend(q, k, v, high, total, mixed, rows, columns, scale, False)
    for start in range(first, tl.minimum(first + ROWS, time), COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _tile(keys, columns, k_time, time, SIZE)
        v = _tile(values, columns, v_time, time, SIZE)
        high, total, mixed = _attend(q, k, v, high, total, mixed, rows, columns, scale, True)
    _store(output + batch * o_batch + head * o_head, rows, o_time, time, mixed / total[:, None], SIZE)
    tl.store(lse + number * time + rows, high + tl.log2(total), mask=rows < time)


@triton.jit
def _delta(
    output, of_output, delta, o_batch, o_head, o_time, g_batch, g_head, g_time,
    heads, time, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(1).to(tl.int64)
    batch, head = number // heads, number % heads
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o = _tile(output + batch * o_batch + head * o_head, rows, o_time, time, SIZE).to(tl.float32)
    g = _tile(of_output + batch * g_batch + head * g_head, rows, g_time, time, SIZE).to(tl.float32)
    tl.store(delta + number * time + rows, tl.sum(o * g, 1), mask=rows < time)


@triton.jit
def _add_keys(k, v, q, g, lse, delta, of_k, of_v, rows, columns, scale, DIAGONAL: tl.constexpr):
    weights = tl.exp2(tl.dot(k, tl.trans(q)) * scale - lse[None, :])  # [columns, rows]
    if DIAGONAL:
        weights = tl.where(rows[None, :] >= columns[:, None], weights, 0.0)
    of_v = tl.dot(weights.to(g.dtype), g, of_v)
    of_scores = weights * (tl.dot(v, tl.trans(g)) - delta[None, :])
    of_k = tl.dot(of_scores.to(q.dtype), q, of_k)
    return of_k, of_v


@triton.jit
def _of_keys(
    query, key, value, of_output, lse, delta, of_key, of_value, n_batch, n_head, n_time,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time, g_batch, g_head, g_time,
    heads, group, time, SIZE: tl.constexpr, scale2, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(1).to(tl.int64)
    key_heads = heads // group
    batch, key_head = number // key_heads, number % key_heads
    first = tl.program_id(0) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    k = _tile(key + batch * k_batch + key_head * k_head, columns, k_time, time, SIZE)
    v = _tile(value + batch * v_batch + key_head * v_head, columns, v_time, time, SIZE)
    of_k = tl.zeros([COLUMNS, SIZE], tl.float32)
    of_v = tl.zeros([COLUMNS, SIZE], tl.float32)
    for member in range(0, group):
        head = key_head * group + member
        queries = query + batch * q_batch + head * q_head
        gradients = of_output + batch * g_batch + head * g_head
        sums = (batch * heads + head) * time
        beyond = tl.minimum(first + COLUMNS, time)
        for start in range(first, beyond, ROWS):
            rows = start + tl.arange(0, ROWS)
            q = _tile(queries, rows, q_time, time, SIZE)
            g = _tile(gradients, rows, g_time, time, SIZE)
            of_rows = tl.load(lse + sums + rows, mask=rows < time, other=0.0)
            dots = tl.load(delta + sums + rows, mask=rows < time, other=0.0)
            of_k, of_v = _add_keys(k, v, q, g, of_rows, dots, of_k, of_v, rows, columns, scale2, True)
        for start in range(first + COLUMNS, time, ROWS):
            rows = start + tl.arange(0, ROWS)
            q = _tile(queries, rows, q_time, time, SIZE)
            g = _tile(gradients, rows, g_time, time, SIZE)
            of_rows = tl.load(lse + sums + rows, mask=rows < time, other=0.0)
            dots = tl.load(delta + sums + rows, mask=rows < time, other=0.0)
            of_k, of_v = _add_keys(k, v, q, g, of_rows, dots, of_k, of_v, rows, columns, scale2, False)
    _store(of_key + batch * n_batch + key_head * n_head, columns, n_time, time, of_k * scale, SIZE)
    _store(of_value + batch * n_batch + key_head * n_head, columns, n_time, time, of_v, SIZE)


@triton.jit
def _add_query(q, g, k, v, lse, delta, of_q, rows, columns, scale, DIAGONAL: tl.constexpr):
    weights = tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
    if DIAGONAL:
        weights = tl.where(rows[:, None] >= columns[None, :], weights, 0.0)
    of_scores = weights * (tl.dot(g, tl.trans(v)) - delta[:, None])
    return tl.dot(of_scores.to(k.dtype), k, of_q)


@triton.jit
def _of_queries(
    query, key, value, of_output, lse, delta, of_query, n_batch, n_head, n_time,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time, g_batch, g_head, g_time,
    heads, group, time, SIZE: tl.constexpr, scale2, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(1).to(tl.int64)
    batch, head = number // heads, number % heads
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    rows = first + tl.arange(0, ROWS)
    keys = key + batch * k_batch + (head // group) * k_head
    values = value + batch * v_batch + (head // group) * v_head
    q = _tile(query + batch * q_batch + head * q_head, rows, q_time, time, SIZE)
    g = _tile(of_output + batch * g_batch + head * g_head, rows, g_time, time, SIZE)
    of_rows = tl.load(lse + number * time + rows, mask=rows < time, other=0.0)
    dots = tl.load(delta + number * time + rows, mask=rows < time, other=0.0)
    of_q = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, first, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _tile(keys, columns, k_time, time, SIZE)
        v = _tile(values, columns, v_time, time, SIZE)
        of_q = _add_query(q, g, k, v, of_rows, dots, of_q, rows, columns, scale2, False)
    for start in range(first, tl.minimum(first + ROWS, time), COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _tile(keys, columns, k_time, time, SIZE)
        v = _tile(values, columns, v_time, time, SIZE)
        of_q = _add_query(q, g, k, v, of_rows, dots, of_q, rows, columns, scale2, True)
    _store(of_query + batch * n_batch + head * n_head, rows, n_time, time, of_q * scale, SIZE)
