"""What trained models say of windows: anomaly and attack probabilities, and the fusion agent's state."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.events.fact import Emit
from core.events.heartbeat import beat
from core.events.stopping import heed_stop
from core.models.batch import GraphBatch
from core.models.gat import Gat
from core.models.segments import segment_max, segment_mean
from core.models.vgae import Vgae
from core.training.graph_data import GraphData
from core.training.memory import PackGuard, Shortage, attempt
from core.training.packs import PackLimit, split_step
from core.training.pipeline import Pack, Pipeline
from core.training.precision import Precision

_LARGEST_BATCH = 1024
_MOST_NODE_PAIRS = 2**24
"""Bounds the adjacency blocks of a batch, nodes x nodes a graph: large windows come in smaller batches."""
_HALF_SIGMAS = 3.0
"""An error this many standard deviations above a benign one is an anomaly probability of 1/2."""

Floats = NDArray[np.float64]
T = TypeVar("T")
_UNNAMED: Mapping[str, str] = {"dataset": "", "phase": "", "size": ""}


@dataclass(frozen=True)
class Reader:
    """How graphs are read for scoring.

    Attributes:
        data: Where they are.
        precision: Number format of the forward pass.
        micro_batch_size: Most graphs of a pack.
        names: ``dataset`` and ``phase``, as events name them, and the models' ``size``: teacher or student.
        emit: Told when a pack was too large for memory.
        num_workers: Threads that gather ahead; 0 gathers in the scoring thread.
        prefetch_factor: Packs held ready per thread.
    """

    data: GraphData
    precision: Precision
    micro_batch_size: int
    names: Mapping[str, str] = field(default_factory=lambda: _UNNAMED)
    emit: Emit = lambda fact: None
    num_workers: int = 0
    prefetch_factor: int = 2

    def of(self, size: str) -> "Reader":
        """The same for models of another size."""
        return replace(self, names={**self.names, "size": size})

    @cached_property
    def _guard(self) -> PackGuard:
        names = {name: self.names[name] for name in ("dataset", "phase")}
        return PackGuard(names, self.emit, PackLimit(min(self.micro_batch_size, _LARGEST_BATCH)))

    def map(
        self,
        compute: Callable[[NDArray[np.int64], GraphBatch], T],
        graphs: NDArray[np.int64],
        kind: Literal["vgae", "gat"],
    ) -> list[T]:
        """Compute something of graphs, pack by pack.

        A pack that is too large for memory is halved, and reading goes on at its first graph.

        Args:
            compute: Given some of the graphs and the same gathered.
            graphs: int64 ``[K]``.
            kind: What reads them, for events.

        Returns:
            Results in order.

        Raises:
            TrainingProcessError: Memory does not suffice for a single graph.
        """
        guard = self._guard
        nodes, edges = self.data.num_nodes(graphs), self.data.num_edges(graphs)
        block = max(1, _MOST_NODE_PAIRS // int(nodes.max(initial=1)) ** 2)
        model = "_".join(filter(None, (self.names["size"], kind)))
        results: list[T] = []
        start = 0
        packs: Iterator[Pack] | None = None

        def limit() -> PackLimit:
            return PackLimit(block).within(guard.limit)

        def size() -> PackLimit:
            near = slice(start, start + block)
            pack = slice(start, start + split_step(nodes[near], edges[near], limit())[0][1])
            return PackLimit(len(graphs[pack]), int(nodes[pack].sum()), int(edges[pack].sum()))

        def let_go() -> None:
            nonlocal packs
            packs = None
            pipeline.begin(())

        def read() -> tuple[int, T]:
            nonlocal packs
            if packs is None:
                pipeline.limit = limit()
                pipeline.begin([graphs[start:]])
                packs = pipeline.packs(0)
            pack = next(packs)
            num = pack.stop - pack.start
            return num, compute(graphs[start : start + num], pack.batch)

        with closing(Pipeline(self.data, limit(), self.num_workers, self.prefetch_factor)) as pipeline:
            while start < len(graphs):
                num, result = guard.do(read, lambda: ("evaluation", size()), model=model, undo=let_go)
                results.append(result)
                start += num
                beat(num_graphs=num)
                heed_stop()  # of validation
        return results


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
    model.eval()

    def score(_: NDArray[np.int64], batch: GraphBatch) -> VgaeScores:
        with reader.precision.autocast():
            output = model(batch)
        errors = _numpy(torch.stack(list(output.errors), 1))
        return VgaeScores(errors, _numpy(_node_statistics(output.mean, batch)))

    scores = reader.map(score, graphs, "vgae")
    return VgaeScores(
        np.concatenate([np.empty((0, 3)), *(s.errors for s in scores)]),
        np.concatenate([np.empty((0, 4)), *(s.latent for s in scores)]),
    )


@torch.no_grad()
def score_gat(model: Gat, reader: Reader, graphs: NDArray[np.int64]) -> GatScores:
    """Logits and embedding statistics of graphs."""
    model.eval()

    def score(_: NDArray[np.int64], batch: GraphBatch) -> GatScores:
        with reader.precision.autocast():
            output = model(batch)
        e = output.embedding
        statistics = torch.stack([e.mean(1), e.std(1, correction=0), e.amax(1), e.amin(1)], 1)
        return GatScores(output.logits.cpu().numpy(), _numpy(statistics))

    scores = reader.map(score, graphs, "gat")
    return GatScores(
        np.concatenate([np.empty((0, 2), np.float32), *(s.logits for s in scores)]),
        np.concatenate([np.empty((0, 4)), *(s.embedding for s in scores)]),
    )


@torch.no_grad()
def latent_means(model: Vgae, reader: Reader, graphs: NDArray[np.int64]) -> Tensor:
    """Latent means of the graphs' nodes, in order: float16 ``[N, latent]``.

    Kept where the store is, or in RAM if there is no room for them.
    """
    model.eval()

    def encode(_: NDArray[np.int64], batch: GraphBatch) -> Tensor:
        with reader.precision.autocast():
            return model.encode(batch)[0].to("cpu", torch.float16)

    means = torch.cat(reader.map(encode, graphs, "vgae"))
    at_home = attempt(lambda: means.to(reader.data.home))
    return means if isinstance(at_home, Shortage) else at_home


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
