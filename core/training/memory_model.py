"""What packs take of memory: a linear model of their graphs, nodes and edges, and the limit that fits."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from core.resources.readings import MIB
from core.training.packs import PackLimit

_KIB = 2**10


@dataclass(frozen=True)
class MemoryModel:
    """``bytes = base + graph * graphs + node * nodes + edge * edges``.

    A graph has a price of its own because some models pad every graph of a pack to its largest: what they
    take for it does not depend on its own nodes, but on the most nodes that any graph has.

    Attributes:
        base: Bytes of a pack whatever it holds.
        graph: Bytes of a graph.
        node: Bytes of a node.
        edge: Bytes of an edge.
    """

    base: float
    graph: float
    node: float
    edge: float

    def bytes(self, size: PackLimit) -> float:
        """What a pack takes at most."""
        return self.base + self.graph * size.graphs + self.node * size.nodes + self.edge * size.edges

    def limit(self, num_bytes: float, mean_nodes: float, mean_edges: float) -> PackLimit:
        """The largest limit, in graphs of the usual size, of which every pack takes at most `num_bytes`.

        Args:
            num_bytes: What there is.
            mean_nodes: Nodes of a usual graph.
            mean_edges: Edges of one.

        Returns:
            The limit; of one graph where not even one fits.
        """
        price = self.graph + self.node * mean_nodes + self.edge * mean_edges
        graphs = max(1, math.floor(max(0.0, num_bytes - self.base) / max(price, 1.0)))
        return PackLimit(graphs, math.ceil(graphs * mean_nodes), math.ceil(graphs * mean_edges))

    @classmethod
    def fit(cls, sizes: Sequence[PackLimit], num_bytes: Sequence[float]) -> Self:
        """Fit to measurements, none of which exceeds what the model then says: prices are not negative.

        Args:
            sizes: What the measured packs held.
            num_bytes: What each took.
        """
        held = np.array([[1.0, size.graphs, size.nodes, size.edges] for size in sizes])
        taken = np.asarray(num_bytes, np.float64)
        scale = held.max(axis=0)  # else the equations are as unequal as one graph and a thousand edges
        prices = _solve(held / scale, taken) / scale
        short = float((taken / np.maximum((held * prices).sum(1), 1.0)).max(initial=1.0))
        return cls(*(float(price) for price in prices * max(1.0, short)))

    @classmethod
    def from_event(cls, memory: Mapping[str, float]) -> Self | None:
        """From ``PackLimitChosen.memory``; None where nothing was measured."""
        if "base_mib" not in memory:
            return None
        base, *prices = (memory[name] for name in ("base_mib", "graph_kib", "node_kib", "edge_kib"))
        return cls(base * MIB, *(price * _KIB for price in prices))

    def to_event(self) -> dict[str, float]:
        """The inverse of `from_event`."""
        return {
            "base_mib": self.base / MIB,
            "graph_kib": self.graph / _KIB,
            "node_kib": self.node / _KIB,
            "edge_kib": self.edge / _KIB,
        }


def _solve(matrix: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares without negative unknowns: for so few, every choice of those that are 0 is tried.

    Solved by torch: numpy's OpenBLAS ends the process where it cannot allocate its buffers.
    """
    best, least = np.zeros(matrix.shape[1]), math.inf
    for kept in itertools.product((False, True), repeat=matrix.shape[1]):
        found = np.zeros(matrix.shape[1])
        columns = np.array(kept)
        left, right = torch.from_numpy(matrix[:, columns]), torch.from_numpy(values[:, None])
        if any(kept):
            found[columns] = torch.linalg.lstsq(left, right, driver="gelsd").solution[:, 0].numpy()
        error = float(np.square((matrix * found).sum(1) - values).sum())
        if (found >= 0).all() and error < least:
            best, least = found, error
    return best
