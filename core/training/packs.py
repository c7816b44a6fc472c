"""Packs: what one forward/backward holds. A step is a few of them, an epoch is many steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_UNLIMITED = 2**62


@dataclass(frozen=True)
class PackLimit:
    """Most that a pack may hold, or what one does hold; a single graph is a pack whatever its size.

    Attributes:
        graphs: Graphs.
        nodes: Nodes.
        edges: Edges, added self-loops included.
    """

    graphs: int
    nodes: int = _UNLIMITED
    edges: int = _UNLIMITED

    def __str__(self) -> str:
        """As ``32 graphs, 640 nodes``."""
        return ", ".join(f"{number} {name}" for name, number in self.to_event().items())

    def to_event(self) -> dict[str, int]:
        """Arguments that make it again: what it does not limit is left out."""
        return {name: number for name, number in asdict(self).items() if number != _UNLIMITED}

    def within(self, other: "PackLimit") -> "PackLimit":
        """The smaller of both, field by field."""
        return PackLimit(
            min(self.graphs, other.graphs), min(self.nodes, other.nodes), min(self.edges, other.edges)
        )

    def holds(self, size: "PackLimit") -> bool:
        """Whether a pack of this size is within the limit."""
        return size.within(self) == size

    def halved(self) -> "PackLimit":
        """Half of it, one graph at least."""
        return PackLimit(max(1, self.graphs // 2), (self.nodes + 1) // 2, (self.edges + 1) // 2)

    def doubled(self) -> "PackLimit":
        """Twice as much."""
        return PackLimit(2 * self.graphs, 2 * self.nodes, 2 * self.edges)


@dataclass(frozen=True)
class LimitChange:
    """A pack limit was changed at a step of a training: from it on, that step included, the new one holds.

    Attributes:
        epoch: The epoch.
        step: The step.
        reason: As in ``core.events.resource_facts.PackLimitChanged``.
        after: The new limit.
    """

    epoch: int
    step: int
    reason: str
    after: PackLimit


@dataclass(frozen=True)
class KnownLimit:
    """What the log says of the pack limit of a model.

    Attributes:
        limit: The one chosen at its beginning; of another plan the one that was in force last.
        most: Never more than this.
        memory: What packs took, as measured: see ``core.events.resource_facts.PackLimitChosen``.
        binds: What kept it from being larger.
        changes: What became of it, in order; empty for another plan.
    """

    limit: PackLimit
    most: PackLimit
    memory: Mapping[str, float]
    binds: str
    changes: tuple[LimitChange, ...] = ()


@dataclass(frozen=True)
class KnownLimits:
    """All that the log says of pack limits.

    Attributes:
        own: Those of this phase in this plan by model: an attempt must go by them to get the same bits.
        history: The last ones of other plans by ``PackLimitChosen.key``: good to begin with.
    """

    own: Mapping[str, KnownLimit] = field(default_factory=dict)
    history: Mapping[str, KnownLimit] = field(default_factory=dict)


def largest_step(
    steps: Sequence[Indices], num_nodes: Callable[[Indices], Indices], num_edges: Callable[[Indices], Indices]
) -> PackLimit:
    """The most graphs, nodes and edges of any of some steps.

    Args:
        steps: Graphs of each, one at least.
        num_nodes: Nodes of each of some graphs.
        num_edges: Edges of each of some graphs.
    """
    graphs, counts = np.concatenate(steps), np.array([len(step) for step in steps])
    starts = np.cumsum(counts) - counts
    nodes, edges = (np.add.reduceat(count(graphs), starts).max() for count in (num_nodes, num_edges))
    return PackLimit(int(counts.max()), int(nodes), int(edges))


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
