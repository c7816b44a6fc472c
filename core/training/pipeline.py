"""The input pipeline: the packs of an epoch, in the planned order, each exactly once."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.models.batch import GraphBatch
from core.training.graph_data import GraphData
from core.training.packs import Indices, PackLimit, split_step


@dataclass(frozen=True)
class Pack:
    """Some graphs of a step, side by side.

    Attributes:
        start: First graph, as a place in the step.
        stop: End.
        batch: The graphs, on the device, without noise.
    """

    start: int
    stop: int
    batch: GraphBatch


@dataclass(frozen=True)
class InputTimes:
    """Where time went since it was last asked for, seconds.

    Attributes:
        wait_s: The training thread stood still for its next pack.
        load_s: Packs were gathered, summed over threads.
        num_packs: Packs handed out.
    """

    wait_s: float = 0.0
    load_s: float = 0.0
    num_packs: int = 0


class Pipeline:
    """Hands out the packs of a sequence of steps.

    Args:
        data: Where graphs come from.
        limit: Most that a pack may hold; may be set at any time.
        num_workers: Threads that gather ahead; may be set at any time.
        prefetch_factor: Packs held ready per thread; may be set at any time.
    """

    def __init__(
        self, data: GraphData, limit: PackLimit, num_workers: int = 0, prefetch_factor: int = 2
    ) -> None:
        self.data, self.limit = data, limit
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self._steps: Sequence[Indices] = ()
        self._times = InputTimes()

    def begin(self, steps: Sequence[Indices]) -> None:
        """Say which steps will be asked for, in order; what was held ready before is let go."""
        self._steps = steps

    def packs(self, step: int) -> Iterator[Pack]:
        """The packs of a step, which may be asked for again from its beginning with another limit."""
        graphs = self._steps[step]
        for start, stop in split_step(self.data.num_nodes(graphs), self.data.num_edges(graphs), self.limit):
            asked = time.perf_counter()
            batch = self.data.batch(graphs[start:stop])
            took = time.perf_counter() - asked
            self._times = InputTimes(
                self._times.wait_s + took, self._times.load_s + took, self._times.num_packs + 1
            )
            yield Pack(start, stop, batch)

    def take_times(self) -> InputTimes:
        """Where time went since the last call."""
        times, self._times = self._times, InputTimes()
        return times

    def close(self) -> None:
        """Stop the threads."""
