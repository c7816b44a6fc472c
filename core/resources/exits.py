"""What the end of a process says about its cause: exit codes, signals, and the kernel's own counters."""

import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}
)
"""What a process does to itself; other signals come from outside."""
_ALLOCATION_FAILURES = (
    "std::bad_alloc",
    "memory allocation of",
    "cannot allocate memory",
    "libgomp: Out of memory",
    "libgomp: Thread creation failed",
)
"""What allocators and thread pools print before they end the process."""


def count_oom_kills(files: Iterable[Path]) -> int:
    """Count the kernel's out-of-memory kills so far; only its growth means something.

    Args:
        files: From `oom_kill_counters`.

    Returns:
        Sum over the files that exist.
    """
    total = 0
    for file in files:
        with suppress(OSError):
            for line in file.read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(" ")
                total += int(value) if key == "oom_kill" else 0
    return total


def oom_kill_counters(
    pid: int, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """Files in which the kernel counts the processes it killed for want of memory.

    They are those of the process's control group, version 1 or 2: it is not the others' memory that was
    lacking. In a container its name may be that on the host: then the mount itself is the group. Only where
    neither counts is it all that the machine killed.

    Args:
        pid: The process.
        proc: Where ``/proc`` is mounted.
        cgroups: Where control groups are mounted.
    """
    own: set[Path] = set()
    with suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:  # version 2; on a machine with both it is mounted in a folder of its own
                own |= {root / name.lstrip("/") / "memory.events" for root in (cgroups, cgroups / "unified")}
            elif "memory" in controllers.split(","):
                own.add(cgroups / "memory" / name.lstrip("/") / "memory.oom_control")
    mounted = {cgroups / "memory.events", cgroups / "memory/memory.oom_control"}
    there = (sorted(filter(Path.exists, files)) for files in (own, mounted))
    return next(filter(None, there), [proc / "vmstat"])


def classify_exit(code: int | None, output: str, *, oom_killed: bool) -> tuple[str, str]:
    """Name the failure class of a process that ended before its call did.

    Args:
        code: Its exit code, negative for a signal; None if it is not known.
        output: The end of what it printed.
        oom_killed: Whether the kernel killed for want of memory meanwhile.

    Returns:
        ``host_oom``, ``killed``, ``data_error`` or ``bug``, and the reason for people.
    """
    number = -code if code is not None and code < 0 else 0
    named = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    out_of_memory = any(text in output for text in _ALLOCATION_FAILURES)
    if number == signal.SIGKILL and oom_killed:
        return "host_oom", "SIGKILL by the kernel: the machine or container ran out of memory"
    if number == signal.SIGBUS:
        return "data_error", (
            "SIGBUS: a file that it had mapped into memory (its graphs, a capture) was cut short, or its "
            "disk failed, while it was read; check the disk, then go on with --resume: graphs found damaged "
            "are built again"
        )
    if out_of_memory and (number in {0, signal.SIGABRT}):
        return "host_oom", f"{named if number else f'exit code {code}'}: an allocation failed"
    if number in _CRASHES:
        return "bug", f"{named}: {signal.strsignal(number)}"
    return ("killed", named) if number else ("bug", f"exit code {code}")
