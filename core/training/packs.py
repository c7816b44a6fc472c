"""Packs: what one forward/backward holds. A step is a few of them, an epoch is many steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PackLimit:
    """Most that a pack may hold; a single graph is a pack whatever its size.

    Attributes:
        graphs: Most graphs.
        nodes: Most nodes.
        edges: Most edges, added self-loops included.
    """

    graphs: int
    nodes: int = 2**62
    edges: int = 2**62


def split_step(num_nodes: Indices, num_edges: Indices, limit: PackLimit) -> list[tuple[int, int]]:
    """Split a step's graphs, in order, into as few packs within the limit as that order allows.

    Args:
        num_nodes: int64 ``[B]`` nodes of each graph.
        num_edges: int64 ``[B]`` edges of each graph.
        limit: Most that a pack may hold.

    Returns:
        Start and end of each pack; together they cover ``0..B`` once.
    """
    nodes, edges = np.cumsum(num_nodes), np.cumsum(num_edges)
    packs: list[tuple[int, int]] = []
    start = 0
    while start < len(nodes):  # once per pack, not per graph
        nodes_before, edges_before = (int(c[start - 1]) if start else 0 for c in (nodes, edges))
        stop = min(
            start + limit.graphs,
            int(np.searchsorted(nodes, nodes_before + limit.nodes, side="right")),
            int(np.searchsorted(edges, edges_before + limit.edges, side="right")),
        )
        packs.append((start, stop := max(stop, start + 1)))
        start = stop
    return packs
