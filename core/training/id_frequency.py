"""The simplest detector: how often each id appears in a window. What fusion and GNNs have to beat."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.can.graph_store import GraphStore

_COUNT_FEATURE = 24
_UNSEEN_DEVIATION = 100.0
_HALF_SIGMAS = 3.0
_CHUNK_GRAPHS = 4096


@dataclass(frozen=True)
class IdFrequency:
    """Frames per window of every id of benign training traffic.

    Attributes:
        ids: int64 ``[K]`` known ids, rising.
        mean: float64 ``[K]`` frames per window.
        std: float64 ``[K]``.
    """

    ids: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, store: GraphStore, graphs: NDArray[np.int64]) -> Self:
        """Fit on benign training windows."""
        nodes = np.concatenate([_nodes(store, chunk)[1] for chunk in _chunks(graphs)])
        counts = store.x[nodes, _COUNT_FEATURE].astype(np.float64)
        ids, index = np.unique(store.node_id[nodes].astype(np.int64), return_inverse=True)
        mean = np.bincount(index, counts) / len(graphs)
        square = np.bincount(index, counts**2) / len(graphs)
        return cls(ids, mean, np.sqrt(np.maximum(square - mean**2, 0)))

    def score(self, store: GraphStore, graphs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability that a window is anomalous.

        The deviation of a window is that of its most deviating id, ``|n - mean| / sqrt(std^2 + 1)``, absent
        ids included; an unseen id counts as 100. 3 is a probability of 1/2.

        Returns:
            float64 ``[K]`` in [0, 1).
        """
        deviation = np.concatenate(
            [np.empty(0)] + [self._deviation(store, chunk) for chunk in _chunks(graphs)]
        )
        return deviation / (deviation + _HALF_SIGMAS)

    def _deviation(self, store: GraphStore, graphs: NDArray[np.int64]) -> NDArray[np.float64]:
        graph, nodes = _nodes(store, graphs)
        node_id = store.node_id[nodes].astype(np.int64)
        place = np.minimum(np.searchsorted(self.ids, node_id), len(self.ids) - 1)
        known = self.ids[place] == node_id
        counts = np.zeros((len(graphs), len(self.ids)))
        counts[graph[known], place[known]] = store.x[nodes[known], _COUNT_FEATURE]
        deviation = (np.abs(counts - self.mean) / np.sqrt(self.std**2 + 1)).max(1)
        unseen = np.bincount(graph[~known], minlength=len(graphs)) > 0
        result: NDArray[np.float64] = np.where(unseen, np.maximum(deviation, _UNSEEN_DEVIATION), deviation)
        return result


def _chunks(graphs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [graphs[start : start + _CHUNK_GRAPHS] for start in range(0, len(graphs), _CHUNK_GRAPHS)]


def _nodes(store: GraphStore, graphs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Graph (by place in `graphs`) and store row of every node."""
    counts = store.node_ptr[graphs + 1] - store.node_ptr[graphs]
    graph = np.repeat(np.arange(len(graphs)), counts)
    within = np.arange(len(graph)) - np.repeat(np.cumsum(counts) - counts, counts)
    return graph, store.node_ptr[graphs][graph] + within
