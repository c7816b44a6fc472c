"""GATv2 attention (Brody et al., arXiv 2105.14491) over target-sorted edges, in few passes over memory.

With the same weights the layer computes what ``GATv2Conv(add_self_loops=False)`` of PyG does. It is faster
because both linear maps are one matrix product, every gather and every sum over neighbours is one
``embedding_bag`` (which never builds an edges x features tensor of messages), and the backward pass is
written out so that it sums over sorted segments instead of adding rows one by one. Sums over sorted segments
are also deterministic on every device.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.models.segments import bag_sum

_NEGATIVE_SLOPE = 0.2


@dataclass(frozen=True)
class Edges:
    """Edges of a batch, sorted by target, and the orders in which they are summed.

    Attributes:
        source: int64 ``[E]``.
        target: int64 ``[E]``, rising.
        num_nodes: Nodes ``N`` of the batch.
    """

    source: Tensor
    target: Tensor
    num_nodes: int
    _orders: dict[int, "_HeadOrders"] = field(default_factory=dict, repr=False, compare=False)

    def orders(self, heads: int) -> "_HeadOrders":
        """The summation orders for a number of heads, made once per batch."""
        if heads not in self._orders:
            self._orders[heads] = _head_orders(self, heads)
        return self._orders[heads]


@dataclass(frozen=True)
class _HeadOrders:
    """Index lists of the bags; a *slot* is a flat position in an ``[E, H]`` array of weights."""

    pair_rows: Tensor  # [2E] rows of [N * 2, D]: source's left and target's right half
    pair_ptr: Tensor  # [E + 1]
    in_ptr: Tensor  # [N + 1]
    edge_ids: Tensor  # [E]
    half_edges: Tensor  # [2E] edges out of node i, then into node i: the bags of the [N * 2, D] gradient
    half_ptr: Tensor  # [2N + 1]
    in_rows: Tensor  # [E * H] rows of [N * 2H, C] for the bags (target, head)
    in_slots: Tensor  # [E * H]
    in_head_ptr: Tensor  # [N * H + 1]
    out_rows: Tensor  # [E * H] rows of [N * H, C] for the bags (source, head)
    out_slots: Tensor  # [E * H]
    out_head_ptr: Tensor  # [N * H + 1]


def _segment_ptr(sorted_index: Tensor, num_segments: int) -> Tensor:
    bounds = torch.arange(num_segments + 1, device=sorted_index.device)
    return torch.searchsorted(sorted_index, bounds)


def _head_orders(edges: Edges, heads: int) -> _HeadOrders:
    source, target = edges.source, edges.target
    by_source = torch.argsort(source, stable=True)
    in_ptr = _segment_ptr(target, edges.num_nodes)
    out_ptr = _segment_ptr(source[by_source], edges.num_nodes)
    edge_ids = torch.arange(len(source), device=source.device)

    # Gradient of the two halves of node i: its out-edges (left half), then its in-edges (right half).
    half_edges = torch.empty(2 * len(source), dtype=torch.int64, device=source.device)
    half_edges[edge_ids + in_ptr[source[by_source]]] = by_source
    half_edges[edge_ids + out_ptr[target + 1]] = edge_ids
    half_ptr = torch.stack([out_ptr[:-1] + in_ptr[:-1], out_ptr[1:] + in_ptr[:-1]], 1).flatten()

    in_rows, in_slots, in_head_ptr = _head_bags(in_ptr, target, source * (2 * heads), edge_ids, heads)
    out_rows, out_slots, out_head_ptr = _head_bags(
        out_ptr, source[by_source], target[by_source] * heads, by_source, heads
    )
    return _HeadOrders(
        pair_rows=torch.stack([source * 2, target * 2 + 1], 1).flatten(),
        pair_ptr=torch.arange(0, 2 * len(source) + 1, 2, device=source.device),
        in_ptr=in_ptr,
        edge_ids=edge_ids,
        half_edges=half_edges,
        half_ptr=torch.cat([half_ptr, half_ptr.new_full((1,), 2 * len(source))]),
        in_rows=in_rows,
        in_slots=in_slots,
        in_head_ptr=in_head_ptr,
        out_rows=out_rows,
        out_slots=out_slots,
        out_head_ptr=out_head_ptr,
    )


def _head_bags(ptr: Tensor, node: Tensor, row: Tensor, edge: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Bags (node, head) over edges grouped by node: rows to read, slots of their weights, bag bounds."""
    head = torch.arange(heads, device=ptr.device)
    degree = ptr.diff()
    start = ptr[:-1, None] * heads + head * degree[:, None]
    within = torch.arange(len(node), device=ptr.device) - ptr[node]
    place = (start[node] + within[:, None]).flatten()
    rows, slots = torch.empty_like(place), torch.empty_like(place)
    rows[place] = (row[:, None] + head).flatten()
    slots[place] = (edge[:, None] * heads + head).flatten()
    return rows, slots, torch.cat([start.flatten(), ptr[-1:] * heads])


class _Attention(torch.autograd.Function):
    """softmax over in-edges of att . LeakyReLU(left[source] + right[target] + W edge), times left[source]."""

    @staticmethod
    def forward(
        ctx: Any,
        both: Tensor,
        edge_attr: Tensor,
        w_edge: Tensor,
        att: Tensor,
        keep: Tensor | None,
        edges: Edges,
    ) -> Tensor:
        heads, width = att.shape
        order = edges.orders(heads)
        hidden = bag_sum(both.view(-1, heads * width), order.pair_rows, order.pair_ptr)
        hidden = nn.functional.leaky_relu_(hidden.addmm_(edge_attr, w_edge.t()), _NEGATIVE_SLOPE)
        logits = (hidden.view(-1, heads, width) * att).sum(-1).float()

        index = edges.target[:, None].expand_as(logits)
        top = logits.new_zeros(edges.num_nodes, heads).scatter_reduce_(
            0, index, logits, "amax", include_self=False
        )
        weight = (logits - top.index_select(0, edges.target)).exp_()
        total = bag_sum(weight, order.edge_ids, order.in_ptr)
        alpha = weight / total.index_select(0, edges.target)

        kept = (alpha if keep is None else alpha * keep).to(both.dtype)
        out = bag_sum(
            both.view(-1, width),
            order.in_rows,
            order.in_head_ptr,
            kept.flatten().index_select(0, order.in_slots),
        )
        ctx.edges, ctx.keep = edges, keep
        ctx.save_for_backward(both, edge_attr, att, hidden, alpha, kept)
        return out.view(-1, heads * width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        both, edge_attr, att, hidden, alpha, kept = ctx.saved_tensors
        edges: Edges = ctx.edges
        heads, width = att.shape
        order = edges.orders(heads)
        grad = grad.contiguous()

        d_message = grad.index_select(0, edges.target)
        d_message *= both.view(-1, heads * width).index_select(0, edges.source * 2)
        d_alpha = d_message.view(-1, heads, width).sum(-1).float()
        if ctx.keep is not None:
            d_alpha *= ctx.keep
        flow = d_alpha * alpha
        d_logits = flow - alpha * bag_sum(flow, order.edge_ids, order.in_ptr).index_select(0, edges.target)
        d_logits = d_logits.to(both.dtype)

        # Products with the block-diagonal [D, H] matrix of `att` are faster than broadcasting over heads.
        d_att = (d_logits.t() @ hidden).view(heads, heads, width).diagonal().t()
        blocks: Tensor = torch.block_diag(*att.unsqueeze(1))  # type: ignore[no-untyped-call]
        d_hidden = d_logits @ blocks
        torch.ops.aten.leaky_relu_backward.grad_input(
            d_hidden, hidden, _NEGATIVE_SLOPE, True, grad_input=d_hidden
        )
        d_both = bag_sum(d_hidden, order.half_edges, order.half_ptr).view(edges.num_nodes, 2, -1)
        weights = kept.flatten().index_select(0, order.out_slots)
        d_both[:, 0] += bag_sum(grad.view(-1, width), order.out_rows, order.out_head_ptr, weights).view(
            edges.num_nodes, -1
        )
        return d_both.view_as(both), None, (edge_attr.t() @ d_hidden).t(), d_att, None, None


class GATv2Layer(nn.Module):
    """One GATv2 layer with edge features and several heads.

    Equation (arXiv 2105.14491, eq. 7, with an edge term):
    ``e_ij = a . LeakyReLU(W_r h_i + W_l h_j + W_e e_ji)``, ``out_i = sum_j softmax_j(e_ij) W_l h_j + b``.
    The edges are expected to hold the self-loops.

    Args:
        in_features: Width of the node features.
        out_features: Width per head.
        heads: Attention heads.
        edge_features: Width of the edge features.
        concat: Join heads side by side (``[N, heads * out_features]``), else average them.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        heads: int,
        edge_features: int,
        *,
        concat: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.concat, self.dropout = heads, concat, dropout
        width = heads * out_features
        self.lin = nn.Linear(in_features, 2 * width)
        self.lin_edge = nn.Linear(edge_features, width, bias=False)
        self.att = nn.Parameter(torch.empty(heads, out_features))
        self.bias = nn.Parameter(torch.zeros(width if concat else out_features))
        for half in self.lin.weight.chunk(2):
            nn.init.xavier_uniform_(half)
        nn.init.zeros_(self.lin.bias)
        nn.init.xavier_uniform_(self.lin_edge.weight)
        nn.init.xavier_uniform_(self.att)

    def forward(self, x: Tensor, edges: Edges, edge_attr: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: ``[N, in_features]``.
            edges: Target-sorted edges with self-loops.
            edge_attr: ``[E, edge_features]``.
            uniform: Uniform numbers ``[E, heads]`` that decide what dropout drops; None drops nothing.

        Returns:
            ``[N, heads * out_features]``, or ``[N, out_features]`` when heads are averaged.
        """
        both = self.lin(x)
        keep = None
        if uniform is not None and self.dropout > 0:
            keep = (uniform >= self.dropout).float() / (1 - self.dropout)
        with torch.autocast(x.device.type, enabled=False):
            dtype = both.dtype
            out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
                both, edge_attr.to(dtype), self.lin_edge.weight.to(dtype), self.att.to(dtype), keep, edges
            )
        if not self.concat:
            out = out.view(len(x), self.heads, -1).mean(1)
        return out + self.bias
