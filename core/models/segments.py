"""Sums over consecutive rows and their transpose, without scattered writes.

Fast on CPUs, deterministic on GPUs.
"""

from typing import Any

import torch
from torch import Tensor


def bag_sum(table: Tensor, rows: Tensor, ptr: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum (weighted) rows of a table per bag; no autograd.

    Args:
        table: ``[R, C]``.
        rows: int64 ``[L]`` rows to add, bag after bag.
        ptr: int64 ``[B + 1]`` bounds of the bags in `rows`.
        weights: ``[L]`` of the table's type, or None.

    Returns:
        ``[B, C]``; an empty bag is 0.
    """
    summed: Tensor = torch.embedding_bag(table, rows, ptr, False, 0, False, weights, True)[0]
    return summed


def _sum(values: Tensor, ptr: Tensor) -> Tensor:
    return bag_sum(values.contiguous(), torch.arange(len(values), device=values.device), ptr)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segment: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(segment)
        return _sum(values, ptr)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (segment,) = ctx.saved_tensors
        return grad.index_select(0, segment), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segment: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(ptr)
        return values.index_select(0, segment)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (ptr,) = ctx.saved_tensors
        return _sum(grad, ptr), None, None


def segment_sum(values: Tensor, segment: Tensor, ptr: Tensor) -> Tensor:
    """Sum consecutive rows per segment.

    Args:
        values: ``[N, C]``, rows of a segment together.
        segment: int64 ``[N]`` segment of each row, rising.
        ptr: int64 ``[S + 1]`` bounds of the segments.

    Returns:
        ``[S, C]``.
    """
    result: Tensor = _SegmentSum.apply(values, segment, ptr)  # type: ignore[no-untyped-call]
    return result


def segment_mean(values: Tensor, segment: Tensor, ptr: Tensor) -> Tensor:
    """Average consecutive rows per segment; arguments and result as in `segment_sum`."""
    return segment_sum(values, segment, ptr) / ptr.diff().clamp(min=1).unsqueeze(1)


def spread(values: Tensor, segment: Tensor, ptr: Tensor) -> Tensor:
    """Give every row of a segment the segment's value, transposing `segment_sum`: ``[S, C] -> [N, C]``."""
    result: Tensor = _Spread.apply(values, segment, ptr)  # type: ignore[no-untyped-call]
    return result


def segment_max(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Largest value per segment and feature: ``[N, C] -> [S, C]``; 0 for an empty segment."""
    index = segment.unsqueeze(1).expand_as(values)
    empty = values.new_zeros(num_segments, values.shape[1])
    return empty.scatter_reduce(0, index, values, "amax", include_self=False)
