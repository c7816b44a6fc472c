"""What packs take of memory, measured: a forward and a backward pass, and everything as it was before."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from core.resources.memory import keep_vram_peak
from core.training.graph_data import GraphData
from core.training.memory import Shortage, attempt
from core.training.memory_model import MemoryModel
from core.training.packs import Indices, PackLimit
from core.training.precision import Precision
from core.training.seeds import remember_random_states
from core.training.step import Objective

_NUM_GRAPHS = (32, 8, 2)
"""Graphs of the larger probe packs; fewer where memory does not suffice. The smaller ones have a quarter."""
_PASSES = 4
"""Tensors as wide as its output that a layer keeps or makes for a node or an edge, at most, both ways."""
_BYTES_PER_PAIR = 64
"""Of a pair of places in a padded graph: logits, masks and losses, and their gradients, at most."""
_FLOAT_BYTES = 4


def bound_memory(module: nn.Module, max_nodes: int) -> MemoryModel:
    """What packs take at most, without trying: several times what they really do.

    Args:
        module: What is trained.
        max_nodes: Nodes of the largest graph.
    """
    parameters = list(module.parameters())
    width = sum(max(p.shape, default=1) for p in parameters)
    row = float(_PASSES * _FLOAT_BYTES * width)
    gradients = 2.0 * _FLOAT_BYTES * sum(p.numel() for p in parameters)
    return MemoryModel(gradients, float(_BYTES_PER_PAIR * max_nodes**2), row, row)


def probe_memory(
    objective: Objective, data: GraphData, precision: Precision, graphs: Indices
) -> MemoryModel | None:
    """Measure what packs take: of the most nodes, of the most edges, and of one large graph among small ones.

    Weights, buffers, gradients, generators and the mode of the module are what they were.

    Args:
        objective: What is trained.
        data: Where graphs come from.
        precision: Number format.
        graphs: int64 ``[G]`` graphs that it is trained on.

    Returns:
        The model fitted to the measurements; None where not even two graphs fit.
    """
    module = objective.module
    was_training, restore_random = module.training, remember_random_states()
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    gradients = [(p, p.grad) for p in module.parameters()]

    def let_go() -> None:
        for p, _ in gradients:
            p.grad = None

    module.train()
    try:
        for num in _NUM_GRAPHS:
            packs = _probe_packs(data, graphs, num)
            let_go()
            measure = partial(_measure, objective, data, precision)
            taken: list[float] | Shortage = attempt(partial(list, map(measure, packs)), let_go)
            if not isinstance(taken, Shortage):
                sizes = [_size(data, pack) for pack in packs]
                # From the second pack of a step on, the gradients of the ones before are there as well.
                base = sum(p.numel() * p.element_size() for p, _ in gradients)
                return MemoryModel.fit(sizes, [num_bytes + base for num_bytes in taken])
        return None
    finally:
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        module.train(was_training)
        restore_random()


def _probe_packs(data: GraphData, graphs: Indices, num: int) -> list[Indices]:
    """Each at two sizes, the smaller ones first: the very first pass sets up libraries."""
    counts = data.num_nodes(graphs), data.num_edges(graphs)
    by_nodes, by_edges = (graphs[np.argsort(-count, kind="stable")] for count in counts)
    packs = []
    for size in (max(1, num // 4), num):
        mixed = np.concatenate([by_nodes[:1], by_nodes[1:][-(size - 1) :]]) if size > 1 else by_nodes[-1:]
        packs += [by_nodes[:size], by_edges[:size], mixed]
    return packs


def _size(data: GraphData, graphs: Indices) -> PackLimit:
    return PackLimit(len(graphs), int(data.num_nodes(graphs).sum()), int(data.num_edges(graphs).sum()))


def _measure(objective: Objective, data: GraphData, precision: Precision, graphs: Indices) -> float:
    """Peak bytes that a pack takes beyond what is held anyway."""
    noise = data.draw_noise(graphs, objective.num_edge_uniform, objective.num_node_normal, seed=0)
    with _peak(precision.device) as peak:
        batch = noise.give(data.batch(graphs), 0, 0)
        with precision.autocast():
            loss = objective.losses(batch, graphs).sum()
        torch.autograd.backward(loss)
    for p in objective.module.parameters():
        p.grad = None
    return peak.num_bytes


@dataclass
class _Peak:
    num_bytes: float = 0.0


@contextmanager
def _peak(device: torch.device) -> Iterator[_Peak]:
    peak = _Peak()
    if device.type != "cuda":
        with _LiveBytes() as live:
            yield peak
        peak.num_bytes = live.peak
        return
    keep_vram_peak()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak.num_bytes = torch.cuda.max_memory_allocated(device) - before


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made within it and still alive: CPUs have no such statistics."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, made)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages[storage] = _Freed(self, storage.nbytes())
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)


class _Freed:
    """Goes with the storage that it is kept for."""

    def __init__(self, counter: _LiveBytes, num_bytes: int) -> None:
        self._counter, self._num_bytes = counter, num_bytes

    def __del__(self) -> None:
        self._counter.live -= self._num_bytes
