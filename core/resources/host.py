"""What the machine does: CPUs, RAM, swap, disks and network, as its kernel tells through psutil."""

import os
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import psutil

from core.resources.containers import Ram, num_cpus
from core.resources.readings import MIB, NEEDS_TWO, Missing, Question, Rates


class Host:
    """Measures the machine.

    Args:
        disk: A folder on the disk to watch; its nearest existing parent is asked.
        ram: The RAM to watch.
        clock: Seconds that only grow.
    """

    def __init__(
        self, disk: Path, ram: Ram | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._disk = disk.absolute()
        self._ram = ram or Ram()
        self._num_cpus = num_cpus()
        self._rates = Rates(clock)
        psutil.cpu_percent()  # the next call by this thread measures since this one
        self.questions: Sequence[Question] = (
            (("cpu_percent",), lambda: [psutil.cpu_percent()]),
            (("num_cpus", "load_average"), lambda: [self._num_cpus, os.getloadavg()[0]]),
            (("ram_total_mib", "ram_used_mib"), lambda: [size / MIB for size in self._ram.measure()]),
            (
                ("swap_used_mib", "swap_total_mib", "swap_in_bytes_per_s", "swap_out_bytes_per_s"),
                self._swap,
            ),
            (("disk_free_mib",), self._disk_free),
            (
                ("disk_read_bytes_per_s", "disk_write_bytes_per_s"),
                lambda: self._io(psutil.disk_io_counters(), "read_bytes", "write_bytes"),
            ),
            (
                ("network_received_bytes_per_s", "network_sent_bytes_per_s"),
                lambda: self._io(psutil.net_io_counters(), "bytes_recv", "bytes_sent"),
            ),
        )

    def _swap(self) -> Sequence[Any]:
        swap = psutil.swap_memory()
        return [swap.used / MIB, swap.total / MIB, *self._io(swap, "sin", "sout")]

    def _io(self, counters: Any, *names: str) -> Sequence[Any]:
        if counters is None:
            return [Missing("the kernel counts none")] * len(names)
        counts: dict[Hashable, Sequence[float]] = {None: [getattr(counters, name) for name in names]}
        return self._rates.per_s(type(counters).__name__, counts) or [NEEDS_TWO] * len(names)

    def _disk_free(self) -> Sequence[Any]:
        folder = next(path for path in (self._disk, *self._disk.parents) if path.exists())
        return [psutil.disk_usage(str(folder)).free / MIB]
