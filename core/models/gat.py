"""The supervised classifier of windows: GATv2 with jumping knowledge (KD-GAT, arXiv 2507.19686)."""

import itertools
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.batch import NUM_EDGE_FEATURES, NUM_NODE_FEATURES, GraphBatch
from core.models.gatv2 import GATv2Layer
from core.models.id_embedding import IdEmbedding
from core.models.segments import segment_max
from settings.models import GatSettings, IdEmbeddingSettings

NUM_CLASSES = 2


class GatOutput(NamedTuple):
    """Of ``B`` graphs: `logits` ``[B, 2]`` (benign, attack) and `embedding` ``[B, D]``."""

    logits: Tensor
    embedding: Tensor


class _Largest(torch.autograd.Function):
    """Elementwise maximum; every input that attains it gets the gradient, in one pass over each."""

    @staticmethod
    def forward(ctx: Any, *values: Tensor) -> Tensor:
        largest = reduce(torch.maximum, values)
        ctx.save_for_backward(largest, *values)
        return largest

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        largest, *values = ctx.saved_tensors
        return tuple(grad * (value == largest) for value in values)


class MaxJump(nn.Module):
    """The largest output of all layers, per feature."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Join layer outputs, each ``[N, D]`` -> ``[N, D]``."""
        joined: Tensor = _Largest.apply(*outputs)  # type: ignore[no-untyped-call]
        return joined


class CatJump(nn.Module):
    """All layers' outputs side by side."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Join layer outputs, each ``[N, D]`` -> ``[N, layers * D]``."""
        return torch.cat(outputs, 1)


def _jumping_knowledge(settings: GatSettings, width: int) -> nn.Module:
    if settings.jumping_knowledge == "lstm":
        # Imported where it is used: torch_geometric takes seconds to load.
        from torch_geometric.nn import JumpingKnowledge

        lstm: nn.Module = JumpingKnowledge("lstm", width, settings.num_layers)
        return lstm
    return MaxJump() if settings.jumping_knowledge == "max" else CatJump()


class Gat(nn.Module):
    """GATv2 layers (arXiv 2105.14491), jumping knowledge (arXiv 1806.03536), max readout, MLP head.

    The readout is the maximum over nodes: an attack shows in few of a window's nodes, their mean drowns it.

    Args:
        settings: Widths and depths.
        ids: The id embedding.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, settings: GatSettings, ids: IdEmbeddingSettings, dropout: float) -> None:
        super().__init__()
        self.heads = settings.heads
        self.ids = IdEmbedding(ids)
        width = settings.hidden * settings.heads
        widths = [NUM_NODE_FEATURES + ids.dim] + [width] * settings.num_layers
        self.layers = nn.ModuleList(
            GATv2Layer(
                num_in, settings.hidden, settings.heads, NUM_EDGE_FEATURES, concat=True, dropout=dropout
            )
            for num_in in widths[:-1]
        )
        self.jump = _jumping_knowledge(settings, width)
        joined = width * settings.num_layers if settings.jumping_knowledge == "cat" else width
        head_widths = [joined] + [width] * (settings.head_layers - 1) + [NUM_CLASSES]
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(head_widths))

    @property
    def num_edge_uniform(self) -> int:
        """Uniform numbers an edge needs in a training step."""
        return len(self.layers) * self.heads

    def forward(self, batch: GraphBatch) -> GatOutput:
        """Classify graphs."""
        x = torch.cat([batch.x, self.ids(batch.node_id)], 1)
        outputs = []
        for i, layer in enumerate(self.layers):
            uniform = batch.edge_uniform
            if uniform is not None:
                uniform = uniform[:, i * self.heads : (i + 1) * self.heads]
            x = functional.elu(layer(x, batch.edges, batch.edge_attr, uniform))
            outputs.append(x)
        embedding = segment_max(self.jump(outputs).float(), batch.graph, batch.num_graphs)
        hidden = embedding
        for linear in self.head[:-1]:
            hidden = functional.relu(linear(hidden))
        return GatOutput(self.head[-1](hidden).float(), embedding)
