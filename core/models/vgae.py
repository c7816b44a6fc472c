"""The unsupervised model of benign traffic: a variational graph autoencoder.

Kipf & Welling, arXiv 1611.07308, with the GATv2 encoder and the feature and id decoders of KD-GAT
(arXiv 2507.19686) and its multi-stage successor (arXiv 2508.04845). What it cannot reconstruct is anomalous.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.batch import NUM_EDGE_FEATURES, NUM_NODE_FEATURES, GraphBatch
from core.models.gatv2 import GATv2Layer
from core.models.id_embedding import IdEmbedding, hash_ids
from core.models.segments import segment_mean, spread
from settings.models import IdEmbeddingSettings, VgaeSettings


class GraphNorm(nn.Module):
    """Normalise features over the nodes of each graph (Cai et al., arXiv 2009.03294).

    ``(x - a * mean) / sqrt(var(x - a * mean)) * w + b`` with a learned share `a` of the mean; equals
    ``torch_geometric.nn.GraphNorm`` and sums over segments instead of scattering.

    Args:
        width: Features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.mean_scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, graph: Tensor, ptr: Tensor) -> Tensor:
        """Normalise ``[N, width]`` given each node's graph and the graphs' bounds."""
        centred = x - spread(segment_mean(x, graph, ptr) * self.mean_scale, graph, ptr)
        scale = (segment_mean(centred.square(), graph, ptr) + 1e-5).rsqrt() * self.weight
        return centred * spread(scale, graph, ptr) + self.bias


class Errors(NamedTuple):
    """Reconstruction errors of ``B`` graphs, each ``[B]`` and averaged inside its graph."""

    node: Tensor
    """Squared error of the scaled node features."""
    neighbour: Tensor
    """Cross-entropy of the adjacency, edges and non-edges weighing the same."""
    identity: Tensor
    """Cross-entropy of the ids' hash buckets."""


class VgaeOutput(NamedTuple):
    """`mean` and `log_var` ``[N, latent]``, `errors` and `divergence` ``[B]`` per graph."""

    mean: Tensor
    log_var: Tensor
    errors: Errors
    divergence: Tensor


class Vgae(nn.Module):
    """GATv2 + GraphNorm encoder to a Gaussian latent; MLP, inner-product and id decoders.

    Args:
        settings: Widths, heads and latent.
        ids: The id embedding; its buckets are the classes of the id decoder.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, settings: VgaeSettings, ids: IdEmbeddingSettings, dropout: float) -> None:
        super().__init__()
        self.heads, self.latent = settings.heads, settings.latent
        self.num_buckets = ids.num_buckets
        self.ids = IdEmbedding(ids)
        widths = [NUM_NODE_FEATURES + ids.dim, *settings.hidden]
        self.encoder = nn.ModuleList(
            GATv2Layer(a, b, settings.heads, NUM_EDGE_FEATURES, concat=False, dropout=dropout)
            for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(GraphNorm(width) for width in settings.hidden)
        self.to_mean = nn.Linear(widths[-1], settings.latent)
        self.to_log_var = nn.Linear(widths[-1], settings.latent)
        decoder_widths = [settings.latent, *reversed(settings.hidden[:-1]), NUM_NODE_FEATURES]
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(decoder_widths))
        self.id_decoder = nn.Linear(settings.latent, ids.num_buckets)

    @property
    def num_edge_uniform(self) -> int:
        """Uniform numbers an edge needs in a training step."""
        return len(self.encoder) * self.heads

    @property
    def num_node_normal(self) -> int:
        """Normal numbers a node needs in a training step."""
        return self.latent

    def encode(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the nodes' latents, each float32 ``[N, latent]``."""
        x = torch.cat([batch.x, self.ids(batch.node_id)], 1)
        for i, (layer, norm) in enumerate(zip(self.encoder, self.norms, strict=True)):
            uniform = batch.edge_uniform
            if uniform is not None:
                uniform = uniform[:, i * self.heads : (i + 1) * self.heads]
            x = layer(x, batch.edges, batch.edge_attr, uniform)
            x = functional.elu(norm(x.float(), batch.graph, batch.node_ptr))
        # A bounded log-variance keeps exp() finite on windows unlike any in training.
        return self.to_mean(x).float(), self.to_log_var(x).float().clamp(-10, 10)

    def forward(self, batch: GraphBatch) -> VgaeOutput:
        """Encode and reconstruct; the latent is sampled if the batch brings normal numbers, else its mean."""
        mean, log_var = self.encode(batch)
        latent = mean
        if batch.node_normal is not None:
            latent = mean + (0.5 * log_var).exp() * batch.node_normal
        divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).mean(1)
        per_node = torch.stack(
            [self._node_error(latent, batch), self._id_error(latent, batch), divergence], 1
        )
        node, identity, divergence = segment_mean(per_node, batch.graph, batch.node_ptr).unbind(1)
        return VgaeOutput(mean, log_var, Errors(node, _neighbour_error(latent, batch), identity), divergence)

    def _node_error(self, latent: Tensor, batch: GraphBatch) -> Tensor:
        x = latent
        for linear in self.decoder[:-1]:
            x = functional.elu(linear(x))
        error: Tensor = (self.decoder[-1](x).float() - batch.x).square().mean(1)
        return error

    def _id_error(self, latent: Tensor, batch: GraphBatch) -> Tensor:
        bucket = hash_ids(batch.node_id, 0, self.num_buckets)
        return functional.cross_entropy(self.id_decoder(latent).float(), bucket, reduction="none")


def _neighbour_error(latent: Tensor, batch: GraphBatch) -> Tensor:
    """Balanced cross-entropy of ``sigmoid(z_i . z_j)`` against "i and j follow one another", per graph."""
    place = torch.arange(len(latent), device=latent.device) - batch.node_ptr[batch.graph]
    shape = (batch.num_graphs, batch.max_nodes)
    padded = latent.new_zeros(*shape, latent.shape[1])
    padded[batch.graph, place] = latent
    present = torch.zeros(shape, dtype=torch.bool, device=latent.device)
    present[batch.graph, place] = True

    source, target = batch.edges.source, batch.edges.target
    linked = torch.zeros(*shape, batch.max_nodes, dtype=torch.bool, device=latent.device)
    linked[batch.graph[source], place[source], place[target]] = True
    linked = linked | linked.transpose(1, 2)
    pairs = present.unsqueeze(2) & present.unsqueeze(1)
    pairs = pairs & ~torch.eye(batch.max_nodes, dtype=torch.bool, device=latent.device)

    logits = (padded @ padded.transpose(1, 2)).float()
    errors = []
    for chosen, signed in ((pairs & linked, -logits), (pairs & ~linked, logits)):
        count = chosen.sum((1, 2)).clamp(min=1)
        errors.append((functional.softplus(signed) * chosen).sum((1, 2)) / count)
    return 0.5 * (errors[0] + errors[1])
