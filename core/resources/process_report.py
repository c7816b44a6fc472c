"""Reports on training processes that hung or died: stacks, last signs of progress, figures."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from core.resources.containers import Ram
from core.resources.readings import MIB

_LOG = logging.getLogger(__name__)
_NUM_TOP_FRAMES = 3
_THREAD = re.compile(
    r"^(?:Current thread|Thread) 0x[0-9a-f]+[^\n]*\(most recent call first\):\n", re.MULTILINE
)
_FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)
_OUTERMOST = re.compile(r'^  File "<string>", line \d+ in <module>$', re.MULTILINE)
"""Frame of the main thread where the training process begins: what ``python -c`` runs."""


@dataclass(frozen=True)
class Figures:
    """What a process used at one moment.

    Attributes:
        status: As the kernel sees it: running, sleeping, disk-sleep, stopped.
        rss_mib: Resident memory.
        cpu_s: CPU time so far, seconds.
        num_threads: Threads.
        ram_available_mib: RAM that this process could still allocate: of the machine, or its container's.
    """

    status: str
    rss_mib: float
    cpu_s: float
    num_threads: int
    ram_available_mib: float

    def __str__(self) -> str:
        """As a phrase."""
        return (
            f"{self.status}, {self.rss_mib:.0f} MiB resident, {self.cpu_s:.1f} s of CPU, "
            f"{self.num_threads} threads, {self.ram_available_mib:.0f} MiB of RAM available"
        )


def measure_process(pid: int) -> Figures | None:
    """Measure a process; None if it is gone, or the kernel does not tell."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            total, used = Ram().measure()
            return Figures(
                status=process.status(),
                rss_mib=process.memory_info().rss / MIB,
                cpu_s=cpu.user + cpu.system,
                num_threads=process.num_threads(),
                ram_available_mib=max(0, total - used) / MIB,
            )
    except (psutil.Error, OSError, ValueError):
        return None


def top_frames(dump: str) -> str:
    """The innermost frames of the thread that matters in what ``faulthandler`` wrote.

    That is the thread that crashed, or the main one where all were asked; innermost first.

    Returns:
        ``function (file.py:12) < function (file.py:34)``; empty if there are none.
    """
    heads = list(_THREAD.finditer(dump))
    if not heads:
        return ""
    crashed = "Fatal Python error" in dump
    chosen = next((head for head in heads if crashed and head[0].startswith("Current")), heads[-1])
    stack = dump[chosen.end() :].partition("\n\n")[0]
    frames = [
        f"{frame['function']} ({Path(frame['file']).name}:{frame['line']})"
        for frame in _FRAME.finditer(stack)
    ]
    return " < ".join(frames[:_NUM_TOP_FRAMES])


def has_all_stacks(dump: str) -> bool:
    """Whether ``faulthandler`` has written all that it was asked for: the main thread's stack comes last."""
    return bool(_OUTERMOST.search(dump))


def write_report(
    folder: Path, name: str, title: str, sections: Iterable[tuple[str, Iterable[str]]]
) -> Path | None:
    """Write a report of headed sections.

    Args:
        folder: Where reports go.
        name: Begins the file's name: ``{name}-{time}.txt``; names never clash.
        title: What happened.
        sections: Heading and lines of each.

    Returns:
        The file; None where it could not be written: what happened is told without it.
    """
    lines = [title]
    for heading, content in sections:
        lines += ["", heading, *(f"  {line}" for line in content)]
    path = folder / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.txt"
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        _LOG.warning("no report of %s: %s", title, error)
        return None
    return path
