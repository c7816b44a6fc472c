"""What the training processes and their descendants do, apart from the process that watches them."""

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from core.resources.readings import MIB, NEEDS_TWO, Missing, Question, Rates

REFRESH_S = 30.0
"""Time between searches for descendants, seconds: each reads the parents of all processes of the machine."""

_MAJOR_FAULTS = 9  # place in /proc/{pid}/stat behind the name, see proc(5)


class TrainingTree:
    """Measures the training processes; sums over none are 0.

    Args:
        pids: Asked at every sample for the process ids of the training processes.
        clock: Seconds that only grow.
    """

    def __init__(
        self, pids: Callable[[], Sequence[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pids = pids
        self._clock = clock
        self._rates = Rates(clock)
        self._roots: Sequence[int] | None = None
        self._tree: list[psutil.Process] = []
        self._refresh_at = 0.0
        self._own = psutil.Process()
        self.questions: Sequence[Question] = (
            (
                (
                    "training_num_processes",
                    "training_rss_mib",
                    "process_rss_mib",
                    "training_num_threads",
                    "training_cpu_percent",
                ),
                self._processes,
            ),
            (("training_read_bytes_per_s", "training_write_bytes_per_s"), self._io),
            (("training_major_faults_per_s",), self._major_faults),
        )

    def _processes(self) -> Sequence[Any]:
        self._find()
        num_threads, rss = 0, 0
        cpu_s: dict[Hashable, Sequence[float]] = {}
        for process in tuple(self._tree):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s[process] = [times.user + times.system]
                    rss += process.memory_info().rss
                    num_threads += process.num_threads()
            except psutil.NoSuchProcess:
                self._tree.remove(process)  # it ended since it was found
        own_rss = self._own.memory_info().rss
        busy = self._per_s("cpu", cpu_s, 1)
        cpu_percent = busy[0] if isinstance(busy[0], Missing) else 100.0 * busy[0]
        return [len(self._tree), rss / MIB, (own_rss + rss) / MIB, num_threads, cpu_percent]

    def _io(self) -> Sequence[Any]:
        counts: dict[Hashable, Sequence[float]] = {}
        for process in self._tree:
            with suppress(psutil.NoSuchProcess):
                io = process.io_counters()
                counts[process] = [io.read_bytes, io.write_bytes]
        return self._per_s("io", counts, 2)

    def _major_faults(self) -> Sequence[Any]:
        counts: dict[Hashable, Sequence[float]] = {}
        for process in self._tree:
            with suppress(ProcessLookupError, FileNotFoundError):
                stat = Path(f"/proc/{process.pid}/stat").read_bytes()
                counts[process] = [int(stat.rpartition(b")")[2].split()[_MAJOR_FAULTS])]
        return self._per_s("faults", counts, 1)

    def _per_s(self, name: str, counts: dict[Hashable, Sequence[float]], width: int) -> Sequence[Any]:
        rates = self._rates.per_s(name, counts)
        return rates or [NEEDS_TWO if counts else 0.0] * width

    def _find(self) -> None:
        roots = list(self._pids())
        if roots == self._roots and self._clock() < self._refresh_at:
            return
        self._roots, self._refresh_at = roots, self._clock() + REFRESH_S
        found: dict[psutil.Process, None] = {}
        for pid in roots:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                found.update(dict.fromkeys([root, *root.children(recursive=True)]))
        self._tree = list(found)
