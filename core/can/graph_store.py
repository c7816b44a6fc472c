"""The flat graph store: all graphs of a dataset in a few arrays, no object per graph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_NODE_FEATURES = 35
NUM_EDGE_FEATURES = 11


@dataclass(frozen=True)
class GraphStore:
    """Graphs of one dataset: ``N`` nodes, ``E`` edges, ``G`` graphs (windows), in capture and time order.

    Attributes:
        x: float32 ``[N, 35]`` raw (unscaled) node features.
        edge_index: int32 ``[2, E]`` source and target, counted from the graph's first node; the edges of a
            graph are sorted by (target, source).
        edge_attr: float32 ``[E, 11]`` raw edge features.
        node_id: uint32 ``[N]`` arbitration ids (bit 31 set for 29-bit ids), rising inside a graph.
        node_ptr: int64 ``[G + 1]`` first node of each graph.
        edge_ptr: int64 ``[G + 1]`` first edge of each graph.
        y: uint8 ``[G]`` 1 if any frame of the window is an attack.
        capture: int32 ``[G]`` which capture the window comes from (index into the manifest's captures).
        t_start: float64 ``[G]`` timestamp of the window's first frame, seconds.
        t_end: float64 ``[G]`` timestamp of the window's last frame, seconds.
        t_attack: float64 ``[G]`` timestamp of the window's first attack frame, NaN if none.
        split: int8 ``[G]`` one of ``core.can.splits``: TRAIN 0, VAL 1, TEST 2, EMBARGO 3.
    """

    x: NDArray[np.float32]
    edge_index: NDArray[np.int32]
    edge_attr: NDArray[np.float32]
    node_id: NDArray[np.uint32]
    node_ptr: NDArray[np.int64]
    edge_ptr: NDArray[np.int64]
    y: NDArray[np.uint8]
    capture: NDArray[np.int32]
    t_start: NDArray[np.float64]
    t_end: NDArray[np.float64]
    t_attack: NDArray[np.float64]
    split: NDArray[np.int8]

    @property
    def num_graphs(self) -> int:
        """Number of graphs ``G``."""
        return len(self.y)
