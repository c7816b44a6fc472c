"""The input pipeline: the packs of an epoch, in the planned order, each exactly once."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

from core.models.batch import GraphBatch
from core.training.gather_threads import GatherThreads
from core.training.graph_data import GraphData
from core.training.packs import Indices, PackLimit, split_step

_Place: TypeAlias = tuple[int, int, int]
"""Step, first graph and end of a pack."""
_Gathered: TypeAlias = tuple[GraphBatch, float]
"""A pack where it was gathered, and how many seconds that took."""


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
        pack_bytes: Memory that the largest of them took where it was gathered.
    """

    wait_s: float = 0.0
    load_s: float = 0.0
    num_packs: int = 0
    pack_bytes: int = 0


class Pipeline:
    """Hands out the packs of a sequence of steps; threads gather those that come next.

    Packs held ready are looked up by what they hold. One that does not match what is asked for (another
    limit, a step asked for again) is let go and gathered anew, so no change can skip or repeat a graph.

    Args:
        data: Where graphs come from.
        limit: Most that a pack may hold; may be set at any time, from the next step that is asked for.
        num_workers: Threads that gather ahead; may be set at any time; 0 gathers in the training thread.
        prefetch_factor: Packs held ready per thread; may be set at any time.
    """

    def __init__(
        self, data: GraphData, limit: PackLimit, num_workers: int = 0, prefetch_factor: int = 2
    ) -> None:
        self.data = data
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self._limit = limit
        self._steps: Sequence[Indices] = ()
        self._ready: deque[tuple[_Place, Future[_Gathered]]] = deque()
        self._ahead: Iterator[_Place] = iter(())
        self._threads: GatherThreads[_Gathered] | None = None
        self._times = InputTimes()

    @property
    def limit(self) -> PackLimit:
        """Most that a pack may hold; a change lets go of what is held ready, which frees its memory."""
        return self._limit

    @limit.setter
    def limit(self, limit: PackLimit) -> None:
        if limit != self._limit:
            self._limit = limit
            self._let_go()

    def begin(self, steps: Sequence[Indices]) -> None:
        """Say which steps will be asked for, in order; what was held ready before is let go."""
        self._let_go()
        self._steps = steps

    def packs(self, step: int) -> Iterator[Pack]:
        """The packs of a step, which may be asked for again from its beginning with another limit.

        Raises:
            Exception: Whatever gathering the pack raised, in a thread or here, with its class.
        """
        places = self._split(step)
        for i, (_, start, stop) in enumerate(places):
            yield Pack(start, stop, self._take(places, i))

    def take_times(self) -> InputTimes:
        """Where time went since the last call."""
        times, self._times = self._times, InputTimes()
        return times

    def close(self) -> None:
        """End the threads and let go of what is held ready."""
        self._let_go()
        if self._threads:
            self._threads.close()
            self._threads = None

    def _split(self, step: int) -> list[_Place]:
        graphs = self._steps[step]
        data = self.data
        splits = split_step(data.num_nodes(graphs), data.num_edges(graphs), self._limit)
        return [(step, start, stop) for start, stop in splits]

    def _take(self, places: Sequence[_Place], i: int) -> GraphBatch:
        """The pack at one of a step's places."""
        asked = time.perf_counter()
        gathered, took = self._take_ready(places, i) or self._gather(self._graphs(places[i]))
        batch = self.data.move(gathered)
        t = self._times
        waited = time.perf_counter() - asked
        pack_bytes = max(t.pack_bytes, gathered.num_bytes)
        self._times = InputTimes(t.wait_s + waited, t.load_s + took, t.num_packs + 1, pack_bytes)
        return batch

    def _take_ready(self, places: Sequence[_Place], i: int) -> _Gathered | None:
        if self.num_workers and not self._threads:
            self._threads = GatherThreads()
        if self._threads:
            self._threads.resize(self.num_workers)
        if not self._ready or self._ready[0][0] != places[i]:
            self._let_go()
            if not self.num_workers:
                return None
            self._ahead = self._look_ahead(places, i)
        self._hold_ready(1 + self.num_workers * self.prefetch_factor)
        # No name for the future: what it raises would hold this frame, and so itself and all its tensors.
        return self._ready.popleft()[1].result()

    def _hold_ready(self, num_packs: int) -> None:
        while self._threads and len(self._ready) < num_packs and (place := next(self._ahead, None)):
            self._ready.append((place, self._threads.submit(partial(self._gather, self._graphs(place)))))

    def _look_ahead(self, places: Sequence[_Place], i: int) -> Iterator[_Place]:
        yield from islice(places, i, None)
        for step in range(places[i][0] + 1, len(self._steps)):
            yield from self._split(step)

    def _graphs(self, place: _Place) -> Indices:
        step, start, stop = place
        return self._steps[step][start:stop]

    def _gather(self, graphs: Indices) -> _Gathered:
        began = time.perf_counter()
        return self.data.gather(graphs), time.perf_counter() - began

    def _let_go(self) -> None:
        for _, future in self._ready:
            future.cancel()
        self._ready.clear()
        self._ahead = iter(())
