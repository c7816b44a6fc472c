"""What trained models say of windows: anomaly and attack probabilities, and the fusion agent's state."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.events.heartbeat import beat
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.segments import segment_max, segment_mean
from core.models.vgae import Vgae
from core.training.graph_data import GraphData
from core.training.precision import Precision

_LARGEST_BATCH = 1024
_MOST_NODE_PAIRS = 2**24
"""Bounds the adjacency blocks of a batch, nodes x nodes a graph: large windows come in smaller batches."""
_HALF_SIGMAS = 3.0
"""An error this many standard deviations above a benign one is an anomaly probability of 1/2."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reader:
    """How graphs are read for scoring: their data, the number format and the batch."""

    data: GraphData
    precision: Precision
    micro_batch_size: int

    def batches(self, graphs: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], GraphBatch]]:
        """Graphs in order, batch by batch."""
        most_nodes = int(self.data.num_nodes(graphs).max(initial=1))
        size = max(1, min(self.micro_batch_size, _LARGEST_BATCH, _MOST_NODE_PAIRS // most_nodes**2))
        for start in range(0, len(graphs), size):
            chosen = graphs[start : start + size]
            yield chosen, self.data.batch(chosen)
            beat(num_graphs=len(chosen))


@dataclass(frozen=True)
class VgaeScores:
    """Scores of ``K`` graphs.

    `errors` ``[K, 3]`` (node, neighbour, id), `latent` ``[K, 4]`` (mean, std, max, min).
    """

    errors: Floats
    latent: Floats


@dataclass(frozen=True)
class GatScores:
    """Of ``K`` graphs: `logits` float32 ``[K, 2]`` and `embedding` ``[K, 4]`` (mean, std, max, min)."""

    logits: NDArray[np.float32]
    embedding: Floats

    @property
    def attack_probability(self) -> Floats:
        """Softmax of the logits, attack class: float64 ``[K]``."""
        logits = self.logits.astype(np.float64)
        return 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -500, 500)))


@torch.no_grad()
def score_vgae(model: Vgae, reader: Reader, graphs: NDArray[np.int64]) -> VgaeScores:
    """Reconstruction errors and latent statistics of graphs."""
    errors, latent = [np.empty((0, 3))], [np.empty((0, 4))]
    model.eval()
    for _, batch in reader.batches(graphs):
        with reader.precision.autocast():
            output = model(batch)
        errors.append(_numpy(torch.stack(list(output.errors), 1)))
        latent.append(_numpy(_node_statistics(output.mean, batch)))
    return VgaeScores(np.concatenate(errors), np.concatenate(latent))


@torch.no_grad()
def score_gat(model: Gat, reader: Reader, graphs: NDArray[np.int64]) -> GatScores:
    """Logits and embedding statistics of graphs."""
    logits, embedding = [np.empty((0, 2), np.float32)], [np.empty((0, 4))]
    model.eval()
    for _, batch in reader.batches(graphs):
        with reader.precision.autocast():
            output = model(batch)
        logits.append(output.logits.cpu().numpy())
        e = output.embedding
        statistics = torch.stack([e.mean(1), e.std(1, correction=0), e.amax(1), e.amin(1)], 1)
        embedding.append(_numpy(statistics))
    return GatScores(np.concatenate(logits), np.concatenate(embedding))


@torch.no_grad()
def latent_means(model: Vgae, reader: Reader, graphs: NDArray[np.int64]) -> Tensor:
    """Latent means of the graphs' nodes, in order: float16 ``[N, latent]``, kept where the store is."""
    model.eval()
    means = []
    for _, batch in reader.batches(graphs):
        with reader.precision.autocast():
            means.append(model.encode(batch)[0].to(reader.data.home, torch.float16))
    return torch.cat(means)


@dataclass(frozen=True)
class ErrorScale:
    """Mean and standard deviation of the reconstruction error over benign training windows.

    A graph's error is the sum of its three errors, as in the training loss; unlike the largest of three
    standardised errors it does not alarm when one of them, small in itself, drifts from drive to drive.

    Attributes:
        mean: Of the error.
        std: Of the error.
    """

    mean: float
    std: float

    @classmethod
    def fit(cls, errors: Floats) -> "ErrorScale":
        """Fit on the errors ``[K, 3]`` of benign training windows."""
        total = errors.sum(1)
        return cls(float(total.mean()), float(total.std()) + 1e-6)

    def deviation(self, errors: Floats) -> Floats:
        """Standard deviations above a benign error: ``[K, 3]`` -> ``[K]``."""
        deviation: Floats = (errors.sum(1) - self.mean) / self.std
        return deviation

    def anomaly_probability(self, errors: Floats) -> Floats:
        """Deviations mapped to (0, 1), rising and without saturation: 3 sigma is 1/2."""
        softplus: Floats = np.logaddexp(0.0, self.deviation(errors))
        return softplus / (softplus + _HALF_SIGMAS)


def fusion_state(vgae: VgaeScores, anomaly: Floats, gat: GatScores) -> Floats:
    """The raw state of the fusion agent (arXiv 2508.04845), ``[K, 15]``.

    VGAE errors (node, neighbour, id), latent mean, std, max and min, VGAE confidence; GAT class probabilities
    (benign, attack), embedding mean, std, max and min, GAT confidence. A confidence is ``|2 p - 1|``.
    """
    attack = gat.attack_probability
    return np.column_stack(
        [
            vgae.errors,
            vgae.latent,
            np.abs(2 * anomaly - 1),
            1 - attack,
            attack,
            gat.embedding,
            np.abs(2 * attack - 1),
        ]
    )


def _node_statistics(values: Tensor, batch: GraphBatch) -> Tensor:
    """Mean, std, max and min of all values of each graph's nodes: ``[N, C]`` -> ``[B, 4]``."""
    moments = torch.stack([values.mean(1), values.square().mean(1)], 1)
    mean, square = segment_mean(moments, batch.graph, batch.node_ptr).unbind(1)
    ends = torch.stack([values.amax(1), -values.amin(1)], 1)
    top, bottom = segment_max(ends, batch.graph, batch.num_graphs).unbind(1)
    return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt(), top, -bottom], 1)


def _numpy(values: Tensor) -> Floats:
    result: Floats = values.double().cpu().numpy()
    return result
