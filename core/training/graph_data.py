"""Batches gathered from the flat graph store, on whichever rung of the placement ladder it lies."""

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.models.batch import GraphBatch
from core.models.gatv2 import Edges
from core.training.placement import Rung, Wanted, climb_down, measure_placement


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step, drawn for all of it so that micro-batches do not change them.

    Attributes:
        edge_uniform: ``[E, k]``, edges with added self-loops, in batch order.
        node_normal: ``[N, k]``.
    """

    edge_uniform: Tensor
    node_normal: Tensor

    def give(self, batch: GraphBatch, first_node: int, first_edge: int) -> GraphBatch:
        """The batch with its share, given where it begins in the step."""
        return replace(
            batch,
            edge_uniform=self.edge_uniform[first_edge : first_edge + len(batch.edge_attr)],
            node_normal=self.node_normal[first_node : first_node + len(batch.x)],
        )


class GraphData:
    """A graph store that hands out batches.

    Every node gets a self-loop with scaled features 0 (a benign average), so that it attends to itself;
    self-transitions seen in the window keep an edge of their own.

    Args:
        store: The graphs, raw features.
        scaler: How features are scaled.
        device: Where batches go.
        wanted: Where to read the store from; ``auto`` takes the first place it fits into.

    Attributes:
        placement: Where it is read from.
        home: Device of the arrays that batches are gathered from.
    """

    def __init__(
        self, store: GraphStore, scaler: Scaler, device: torch.device, wanted: Wanted = "auto"
    ) -> None:
        self.device = device
        self.num_graphs = store.num_graphs
        self._node_ptr = np.asarray(store.node_ptr)
        self._edge_ptr = np.asarray(store.edge_ptr)
        arrays = (store.x, store.edge_attr, store.edge_index.T, store.node_id.view(np.int32))
        placement = measure_placement(wanted, sum(a.nbytes for a in arrays), device)

        def read(rung: Rung) -> list[Tensor]:
            return [_read(array, rung, device) for array in arrays]

        self.placement, (self._x, self._edge_attr, self._edge_index, self._node_id) = climb_down(
            placement, read
        )
        self.home = self._x.device
        self._scale_by(scaler)

    def with_scaler(self, scaler: Scaler) -> Self:
        """The same graphs, scaled otherwise; the arrays are shared."""
        twin = copy.copy(self)
        twin._scale_by(scaler)
        return twin

    def _scale_by(self, scaler: Scaler) -> None:
        self._node_scale = _scale_tensors(scaler.node_mean, scaler.node_std, self.home)
        self._edge_scale = _scale_tensors(scaler.edge_mean, scaler.edge_std, self.home)
        self._clip = scaler.clip

    def num_nodes(self, graphs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nodes of each of some graphs."""
        return self._node_ptr[graphs + 1] - self._node_ptr[graphs]

    def num_edges(self, graphs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Edges of each of some graphs, added self-loops included."""
        return self._edge_ptr[graphs + 1] - self._edge_ptr[graphs] + self.num_nodes(graphs)

    def draw_noise(self, graphs: NDArray[np.int64], num_uniform: int, num_normal: int, seed: int) -> Noise:
        """Draw a step's random numbers, a pure function of the seed and the batch."""
        generator = torch.Generator(self.device).manual_seed(seed)
        shapes = (self.num_edges(graphs).sum(), num_uniform), (self.num_nodes(graphs).sum(), num_normal)
        return Noise(
            torch.rand(*map(int, shapes[0]), generator=generator, device=self.device),
            torch.randn(*map(int, shapes[1]), generator=generator, device=self.device),
        )

    def batch(self, graphs: NDArray[np.int64]) -> GraphBatch:
        """Gather graphs side by side.

        Args:
            graphs: int64 ``[B]``.

        Returns:
            The batch, on the device, without noise.
        """
        return self.move(self.gather(graphs))

    def move(self, batch: GraphBatch) -> GraphBatch:
        """Bring what `gather` gave to the device; from pinned memory the copy is queued, not waited for."""
        if self.home.type == self.device.type:
            return batch
        edges = batch.edges
        return replace(
            batch,
            x=self._move(batch.x),
            node_id=self._move(batch.node_id),
            graph=self._move(batch.graph),
            node_ptr=self._move(batch.node_ptr),
            edges=Edges(self._move(edges.source), self._move(edges.target), edges.num_nodes),
            edge_attr=self._move(batch.edge_attr),
        )

    def gather(self, graphs: NDArray[np.int64]) -> GraphBatch:
        """Gather graphs side by side where the store is; any thread may.

        Args:
            graphs: int64 ``[B]``.

        Returns:
            The batch, not yet on the device (but in pinned memory) unless the store is.
        """
        node_counts = self.num_nodes(graphs)
        graph, nodes, node_ptr = self._rows(self._node_ptr, graphs, node_counts)
        edge_graph, rows, _ = self._rows(
            self._edge_ptr, graphs, self._edge_ptr[graphs + 1] - self._edge_ptr[graphs]
        )

        pair = self._edge_index.index_select(0, rows).long() + node_ptr[edge_graph].unsqueeze(1)
        source, target = pair.unbind(1)
        own = torch.arange(len(nodes), device=self.home)
        # A loop goes behind its node's other in-edges: edges stay sorted by target without sorting.
        edge_place = torch.arange(len(rows), device=self.home) + target
        loop_place = torch.searchsorted(target.contiguous(), own, right=True) + own
        edge_attr = torch.zeros(len(rows) + len(own), self._edge_attr.shape[1], device=self.home)
        edge_attr[edge_place] = self._scaled(self._edge_attr.index_select(0, rows), self._edge_scale)
        ends = torch.empty(2, len(edge_attr), dtype=torch.int64, device=self.home)
        ends[:, edge_place] = torch.stack([source, target])
        ends[:, loop_place] = own

        x = self._scaled(self._x.index_select(0, nodes), self._node_scale)
        node_id = self._node_id.index_select(0, nodes).long() & 0xFFFFFFFF
        return GraphBatch(
            x=self._pin(x),
            node_id=self._pin(node_id),
            graph=self._pin(graph),
            node_ptr=self._pin(node_ptr),
            edges=Edges(self._pin(ends[0]), self._pin(ends[1]), len(x)),
            edge_attr=self._pin(edge_attr),
            max_nodes=int(node_counts.max()),
        )

    def _rows(
        self, ptr: NDArray[np.int64], graphs: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Graph of each row, row in the store, and bounds in the batch; sizes come from the host: no sync."""
        bounds = np.concatenate([[0], np.cumsum(counts)])
        total = int(bounds[-1])
        host = torch.from_numpy(np.stack([ptr[graphs] - bounds[:-1], counts]))
        shift, lengths = host.to(self.home, non_blocking=True)
        graph = torch.repeat_interleave(lengths, output_size=total)
        rows = torch.arange(total, device=self.home) + shift.index_select(0, graph)
        return graph, rows, torch.from_numpy(bounds).to(self.home, non_blocking=True)

    def _pin(self, values: Tensor) -> Tensor:
        return values if self.home.type == self.device.type else values.pin_memory()

    def _move(self, values: Tensor) -> Tensor:
        # torch's pool of pinned memory gives a block to nobody before the copies queued from it are done.
        return values.to(self.device, non_blocking=True)

    def _scaled(self, values: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
        return ((values - scale[0]) * scale[1]).clamp_(-self._clip, self._clip)


def _read(array: NDArray[np.generic], rung: Rung, device: torch.device) -> Tensor:
    if rung == "resident" and device.type != "cpu":
        return _tensor(array).to(device)
    # What is in RAM already need not be copied there.
    copied = rung != "mapped" and isinstance(array, np.memmap)
    return _tensor(np.array(array, order="C") if copied else array)


def _tensor(array: NDArray[np.generic]) -> Tensor:
    with warnings.catch_warnings():
        # Read-only memory maps: nothing here writes to the store.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _scale_tensors(
    mean: NDArray[np.float64], std: NDArray[np.float64], device: torch.device
) -> tuple[Tensor, Tensor]:
    mean_and_inverse = (torch.from_numpy(a).float().to(device) for a in (mean, 1 / std))
    first, second = mean_and_inverse
    return first, second
