"""Z-score scaling of node and edge features, fitted on benign training windows only.

What is normal defines the scale: attack windows, validation and test have no say in it. The fitted values are
stored with the graphs and with every model, and replayed.
"""

import mmap
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.can.graph_store import NUM_EDGE_FEATURES, NUM_NODE_FEATURES, GraphStore
from core.can.splits import TRAIN
from core.errors import CaptureError
from core.events.heartbeat import beat

_CHUNK_GRAPHS = 256
_CONSTANT = 1e-6
"""A standard deviation below this share of the mean is rounding: the feature is constant."""


@dataclass(frozen=True)
class Scaler:
    """``clip((value - mean) / std, -clip, clip)`` per feature.

    A feature that is constant over the benign training windows has std 1: it is neither divided by zero nor
    lost, and a change of it under attack shows in its own unit.

    Attributes:
        node_mean: float64 ``[35]``.
        node_std: float64 ``[35]``, population standard deviation, 1 where constant.
        edge_mean: float64 ``[11]``.
        edge_std: float64 ``[11]``.
        clip: Largest scaled magnitude.
    """

    node_mean: NDArray[np.float64]
    node_std: NDArray[np.float64]
    edge_mean: NDArray[np.float64]
    edge_std: NDArray[np.float64]
    clip: float

    @classmethod
    def fit(cls, store: GraphStore, clip: float) -> Self:
        """Fit on the benign training windows of a store, a few hundred graphs at a time.

        Raises:
            CaptureError: The store has no benign training window.
        """
        graphs = np.flatnonzero((store.split == TRAIN) & (store.y == 0))
        if len(graphs) == 0:
            raise CaptureError(
                "no benign training window: scaling and the autoencoder need benign traffic; add attack-free "
                "captures to the training folders or make graph.window smaller"
            )
        nodes, edges = _Moments(NUM_NODE_FEATURES), _Moments(NUM_EDGE_FEATURES)
        for start in range(0, store.num_graphs, _CHUNK_GRAPHS):
            chunk = graphs[np.searchsorted(graphs, start) : np.searchsorted(graphs, start + _CHUNK_GRAPHS)]
            if len(chunk):
                nodes.add(store.x, store.node_ptr, chunk)
                edges.add(store.edge_attr, store.edge_ptr, chunk)
                _let_go(store.x)
                _let_go(store.edge_attr)
            beat("fitting the scale of features", num_graphs=len(chunk))
        return cls(*nodes.mean_and_std(), *edges.mean_and_std(), clip=clip)

    def scale_nodes(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale node features ``[N, 35]``."""
        return _scale(x, self.node_mean, self.node_std, self.clip)

    def scale_edges(self, edge_attr: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale edge features ``[E, 11]``."""
        return _scale(edge_attr, self.edge_mean, self.edge_std, self.clip)

    def to_dict(self) -> dict[str, Any]:
        """As primitives (lists of floats), for JSON and model files."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        arrays = {name: np.array(value, np.float64) for name, value in values.items() if name != "clip"}
        return cls(**arrays, clip=float(values["clip"]))


class _Moments:
    """Mean and squared deviations of rows met chunk by chunk (Chan, Golub & LeVeque, 1979)."""

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self.mean = np.zeros(num_features)
        self.squares = np.zeros(num_features)

    def add(self, rows: NDArray[np.float32], pointers: NDArray[np.int64], graphs: NDArray[np.int64]) -> None:
        """Add the rows of some graphs, which lie close together."""
        low, high = graphs[0], graphs[-1] + 1
        wanted = np.zeros(high - low, dtype=bool)
        wanted[graphs - low] = True
        mask = np.repeat(wanted, np.diff(pointers[low : high + 1]))
        values = rows[pointers[low] : pointers[high]][mask].astype(np.float64)
        count = self.count + len(values)
        mean = values.mean(axis=0)
        shift = mean - self.mean
        self.squares += ((values - mean) ** 2).sum(axis=0) + shift**2 * self.count * len(values) / count
        self.mean += shift * len(values) / count
        self.count = count

    def mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        std = np.sqrt(self.squares / self.count)
        return self.mean, np.where(std <= _CONSTANT * np.abs(self.mean), 1.0, std)


def _let_go(array: NDArray[np.float32]) -> None:
    """Unmap the pages read of a memory-mapped array, so that memory does not grow with the store."""
    owner: object = array.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _scale(
    values: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64], clip: float
) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.clip((values - mean) / std, -clip, clip).astype(np.float32)
    return scaled
