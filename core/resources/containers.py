"""What a container leaves of the machine: the memory and CPU limits of control groups, version 2 and 1."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

# Names of a memory group's limit, of its use, and in memory.stat of the page cache that the kernel takes back
# at once, in version 2 and in version 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class _MemoryGroup:
    limit: Path
    usage: Path
    stat: Path
    cache_key: str

    def read(self) -> tuple[int, int]:
        """Limit and use in bytes.

        Raises:
            OSError: A file cannot be read.
            ValueError: There is no limit, or a file says something else than a number.
        """
        limit, usage = (int(path.read_bytes()) for path in (self.limit, self.usage))
        cache = self.stat.read_bytes().partition(b"\n%b " % self.cache_key.encode())[2]
        return limit, max(0, usage - int(cache.split(maxsplit=1)[0] if cache else 0))


class Ram:
    """The RAM that this process may use: that of its container where one is limited, else the machine's.

    Args:
        cgroups: Where control groups are mounted.
        own_cgroups: File that names the groups of this process.
    """

    def __init__(self, cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> None:
        self._group: _MemoryGroup | None = None
        least = psutil.virtual_memory().total  # a version 1 group without a limit has one beyond all memory
        for folder in _own_folders("memory", cgroups, own_cgroups):
            for limit, usage, cache_key in _MEMORY_FILES:
                group = _MemoryGroup(folder / limit, folder / usage, folder / "memory.stat", cache_key)
                with suppress(OSError, ValueError):
                    total, _ = group.read()
                    if total < least:
                        self._group, least = group, total

    def measure(self) -> tuple[int, int]:
        """Total, and what of it cannot be had for the asking, in bytes.

        Raises:
            OSError: The kernel does not tell.
            ValueError: The container's limit was lifted while this ran.
        """
        if self._group:
            return self._group.read()
        memory = psutil.virtual_memory()
        return memory.total, memory.total - memory.available


def num_cpus(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> int:
    """Count the CPUs this process may use: by affinity, and by the CPU time its container is granted.

    A grant of part of a CPU counts as a whole one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = (_cpu_quota(folder) for folder in _own_folders("cpu", cgroups, own_cgroups))
    return min([allowed, *(max(1, math.ceil(quota)) for quota in granted if quota)])


def _cpu_quota(folder: Path) -> float | None:
    """CPU seconds per second that a group may use; None for as many as there are."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        us, period_us = (int((folder / name).read_bytes()) for name in names)
        return us / period_us if us > 0 else None
    return None


def _own_folders(controller: str, cgroups: Path, own_cgroups: Path) -> Iterator[Path]:
    """Folders of the groups this process is in, and of those above: the limits of all of them hold.

    In a container the mount may begin at its own group while the name is still that on the host; such a
    folder does not exist and the mount itself is the group.
    """
    try:
        lines = own_cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = cgroups / controller if controllers else cgroups
        own = mount / name.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))
