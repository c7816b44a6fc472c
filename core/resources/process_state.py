"""What a supervisor says of its training process in a small file, and how another process reads it.

::

    process_logs/{name}.state.json      beside the process's log; replaced whole, at most once a second

The file is no truth: it may be stale, torn or gone. Whoever reads it checks that the processes it names are
still those.
"""

import glob
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import TypeAdapter

from core.resources.readings import MIB

_ENDING = ".state.json"
_DEATH_S = 10.0
_EXEC_S = 1.0
_DOUBTFUL_SHARE = 0.25
_DOUBTFUL_S = 60.0
"""Silence after which a call may be hanging: this long, or this share of what it is granted."""

Activity = Literal["starting", "working", "idle", "failed", "ended"]


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from later ones of the same number.

    Attributes:
        pid: Its number.
        started_s: When it was started, seconds since the machine was.
    """

    pid: int
    started_s: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Name a process.

        Raises:
            psutil.Error: It is gone.
        """
        return cls(pid, psutil.Process(pid).create_time() - psutil.boot_time())

    def find(self) -> psutil.Process | None:
        """The process while it lives; neither a zombie nor another one of its number."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - psutil.boot_time() - self.started_s) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


@dataclass(frozen=True)
class Failure:
    """How the last call that failed did."""

    kind: str
    message: str
    at: str
    report: str | None


@dataclass(frozen=True)
class ProcessState:
    """What a supervisor knows; times are UTC in ISO 8601.

    Attributes:
        name: The training process's name: plan and dataset.
        supervisor: Who supervises it.
        process: The child; None while there is none.
        activity: ``starting`` or ``working`` in a call, ``idle`` between calls, ``failed`` until the next one
            is started, ``ended`` by its supervisor.
        target: The call under way, or the last one.
        doing: The last sign of progress, for people.
        figures: Its figures: model, epoch, step and the like.
        graphs_per_s: Speed between the last two signs; None where no graphs are counted.
        began_at: When the call began.
        progress_at: When the last sign of progress came.
        hang_timeout_s: Silence after which it is killed, seconds; None for never.
        num_starts: Children started so far.
        failure: The last failure; None before the first.
        log: The log's file name, beside the state.
        version: Of the file's shape.
    """

    name: str
    supervisor: ProcessId
    log: str
    process: ProcessId | None = None
    activity: Activity = "ended"
    target: str = ""
    doing: str = ""
    figures: Mapping[str, str | int | float] = field(default_factory=dict)
    graphs_per_s: float | None = None
    began_at: str | None = None
    progress_at: str | None = None
    hang_timeout_s: float | None = None
    num_starts: int = 0
    failure: Failure | None = None
    version: Literal[1] = 1

    def write(self, folder: Path) -> None:
        """Replace the file whole; not forced to disk: after a power cut nothing of it holds.

        Raises:
            OSError: The folder cannot be written.
        """
        path = folder / f"{self.name}{_ENDING}"
        # Of the thread: two that write at once would put the file in place half written.
        temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ProcessState":
        """Read a file.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged, or written by another version of this software.
        """
        return _STATE.validate_json(path.read_bytes())


_STATE = TypeAdapter(ProcessState)


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """How a training process really is, seen from any process.

    Attributes:
        name: Plan and dataset.
        state: ``starting``, ``working``, ``idle``, ``failed`` or ``ended`` as its supervisor says; else what
            was found: ``hanging?`` (no progress for long), ``stopped`` (by a signal), ``gone`` (it died, its
            supervisor has not said so yet), ``abandoned`` (its supervisor died) or ``unreadable``.
        pid: Its number while it lives.
        is_alive: Whether it lives.
        supervisor_pid: Its supervisor's number; None if the state is unreadable.
        doing: The last sign of progress, or what is wrong with the file.
        figures: Model, epoch, step and the like.
        graphs_per_s: Speed.
        since_s: Seconds since the last sign of progress, while it works.
        num_restarts: Times it was replaced.
        rss_mib: Resident memory while it lives.
        num_threads: Threads while it lives.
        failure: Its last failure.
    """

    name: str
    state: str
    pid: int | None = None
    is_alive: bool = False
    supervisor_pid: int | None = None
    doing: str = ""
    figures: Mapping[str, str | int | float] = field(default_factory=dict)
    graphs_per_s: float | None = None
    since_s: float | None = None
    num_restarts: int = 0
    rss_mib: float | None = None
    num_threads: int | None = None
    failure: Failure | None = None


def read_process_statuses(folder: Path, beginning: str = "") -> list[ProcessStatus]:
    """How the training processes are whose supervisors write to a folder, by name.

    Args:
        folder: ``process_logs``; it may be missing.
        beginning: Only those whose name begins so.
    """
    statuses = []
    for path in sorted(folder.glob(f"{glob.escape(beginning)}*{_ENDING}")):
        name = path.name.removesuffix(_ENDING)
        if name.startswith("."):
            continue
        try:
            statuses.append(look_at(ProcessState.read(path)))
        except (OSError, ValueError) as error:
            statuses.append(ProcessStatus(name=name, state="unreadable", doing=str(error)))
    return statuses


def kill_training(folder: Path, name: str) -> None:
    """Kill what is left of a training process whose supervisor on this machine may no longer have one.

    Args:
        folder: ``process_logs``.
        name: The training process's name: plan and dataset.
    """
    with suppress(OSError, ValueError):  # no state, or none that can be read: then nothing is known of it
        state = ProcessState.read(folder / f"{name}{_ENDING}")
        if (told := state.process) and (process := told.find()) and _is_training(process, name):
            os.killpg(told.pid, signal.SIGKILL)
            psutil.wait_procs([process], _DEATH_S)


def _is_training(process: psutil.Process, name: str) -> bool:
    """Whether a process is the training of that name: a file can name any process there is."""
    deadline = time.monotonic() + _EXEC_S
    try:
        while not (command := process.cmdline()) and time.monotonic() < deadline:
            time.sleep(0.01)  # it was started just now: the kernel has not written it down yet
    except psutil.Error:
        return False
    is_worker = any("core.resources.worker" in word for word in command)
    return is_worker and Path(command[-1]).stem == name


def look_at(state: ProcessState) -> ProcessStatus:
    """Compare what a supervisor says with the processes there are."""
    process = state.process.find() if state.process else None
    said = ProcessStatus(
        name=state.name,
        state=_found_activity(state, process),
        supervisor_pid=state.supervisor.pid,
        doing=state.doing,
        figures=state.figures,
        graphs_per_s=state.graphs_per_s,
        num_restarts=max(0, state.num_starts - 1),
        failure=state.failure,
    )
    if process is None:
        return said
    since_s = _seconds_since(state.progress_at) if state.activity in ("starting", "working") else None
    return replace(said, pid=process.pid, is_alive=True, since_s=since_s, **_measured(process))


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _found_activity(state: ProcessState, process: psutil.Process | None) -> str:
    if state.activity == "ended":
        return "ended"
    if state.supervisor.find() is None:
        return "abandoned"
    if process is None:
        return "failed" if state.activity == "failed" else "gone"
    if _is_stopped(process):
        return "stopped"
    if state.activity in ("starting", "working"):
        doubtful_s = min(_DOUBTFUL_S, _DOUBTFUL_SHARE * (state.hang_timeout_s or _DOUBTFUL_S * 4))
        if _seconds_since(state.progress_at) > doubtful_s:
            return "hanging?"
    return state.activity


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _measured(process: psutil.Process) -> dict[str, Any]:
    try:
        with process.oneshot():
            return {"rss_mib": process.memory_info().rss / MIB, "num_threads": process.num_threads()}
    except psutil.Error:
        return {}


def _seconds_since(at: str | None) -> float:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at or "")).total_seconds())
    except (ValueError, TypeError):
        return 0.0
