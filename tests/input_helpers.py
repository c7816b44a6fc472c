"""Graphs that are slow, or impossible, to gather, and what is the same about two batches."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.can.graph_store import GraphStore
from core.can.scaling import Scaler
from core.models.batch import GraphBatch
from core.training.graph_data import GraphData
from core.training.pipeline import Pipeline

Indices = NDArray[np.int64]
PATIENCE_S = 240.0
"""Far longer than anything here takes."""


class HookedData(GraphData):
    """A store on disk; whoever gathers does something first, for example sleep or fail.

    Args:
        store: The graphs.
        hook: Called by the gathering thread with the graphs.
    """

    def __init__(self, store: GraphStore, hook: Callable[[Indices], object]) -> None:
        super().__init__(store, Scaler.fit(store, 10.0), torch.device("cpu"), "mapped")
        self.hook = hook

    def gather(self, graphs: Indices) -> GraphBatch:
        self.hook(graphs)
        return super().gather(graphs)


def tensors(batch: GraphBatch) -> list[Any]:
    edges = batch.edges
    return [
        batch.x,
        batch.node_id,
        batch.graph,
        batch.node_ptr,
        edges.source,
        edges.target,
        batch.edge_attr,
        batch.max_nodes,
    ]


def same_batch(left: GraphBatch, right: GraphBatch) -> bool:
    """Bit by bit; also for numbers that are not."""
    return all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(tensors(left), tensors(right), strict=True)
    )


def gather_threads() -> list[threading.Thread]:
    """Those that live now."""
    return [thread for thread in threading.enumerate() if thread.name == "gather"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def read_all(pipeline: Pipeline, steps: list[Indices]) -> Iterator[tuple[int, int, int, GraphBatch]]:
    """Every pack of an epoch: step, start, stop and batch."""
    pipeline.begin(steps)
    for step in range(len(steps)):
        for pack in pipeline.packs(step):
            yield step, pack.start, pack.stop, pack.batch
