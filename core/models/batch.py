"""The batch of graphs that models take."""

from dataclasses import dataclass

from torch import Tensor

from core.models.gatv2 import Edges

NUM_NODE_FEATURES = 35
NUM_EDGE_FEATURES = 11
"""Widths that the models are built for; those of the graph store (a test holds them together)."""


@dataclass(frozen=True)
class GraphBatch:
    """``B`` graphs side by side: ``N`` nodes, ``E`` edges.

    Attributes:
        x: float32 ``[N, 35]`` scaled node features.
        node_id: int64 ``[N]`` arbitration ids (bit 31 set for 29-bit ids).
        graph: int64 ``[N]`` graph of each node, rising.
        node_ptr: int64 ``[B + 1]`` first node of each graph.
        edges: Edges between nodes, every node with a self-loop.
        edge_attr: float32 ``[E, 11]`` scaled edge features; 0 (a benign average) on a self-loop that was not
            in the window.
        max_nodes: Nodes of the largest graph.
        edge_uniform: float32 ``[E, k]`` uniform numbers for dropout, None outside training.
        node_normal: float32 ``[N, k]`` normal numbers for the latent sample, None outside training.
    """

    x: Tensor
    node_id: Tensor
    graph: Tensor
    node_ptr: Tensor
    edges: Edges
    edge_attr: Tensor
    max_nodes: int
    edge_uniform: Tensor | None = None
    node_normal: Tensor | None = None

    @property
    def num_graphs(self) -> int:
        """Number of graphs ``B``."""
        return len(self.node_ptr) - 1

    @property
    def num_bytes(self) -> int:
        """Memory of what was gathered."""
        edges = self.edges
        arrays = (self.x, self.node_id, self.graph, self.node_ptr, edges.source, edges.target, self.edge_attr)
        return sum(array.nbytes for array in arrays)
