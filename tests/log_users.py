"""Processes that use a log until they are killed: forked from one server, so thousands of them are cheap.

The server reads a job a line, answers with the id of the process that does it, and for ``{"wait": id}`` with
its exit code. What was acknowledged to a process it appends to the job's file of acknowledgements at once.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from core.errors import DamagedLogError
from core.events import telemetry, telemetry_files
from core.events.event import Event, new_event
from core.events.log import EventLog
from core.events.telemetry import ResourceSample, TelemetryWriter, read_telemetry
from tests.file_operations import Operation, watching

_START = datetime(2026, 11, 3, tzinfo=UTC)


def event(name: str) -> Event:
    """An event with an id of its own choice."""
    return new_event("plan", "chain_started", {"dataset": name})._replace(event_id=name)


class LogUsers:
    """Starts, kills and waits for processes.

    Args:
        server: The process that forks them.
    """

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self._server = server

    def start(self, **job: Any) -> int:
        """Start a process; its id."""
        return self._ask(job)

    def wait(self, process: int) -> int:
        """The exit code of a process, when it has ended."""
        return self._ask({"wait": process})

    def kill(self, process: int) -> int:
        """SIGKILL a process; its exit code."""
        os.kill(process, signal.SIGKILL)
        return self.wait(process)

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


@contextmanager
def log_users() -> Iterator[LogUsers]:
    """Run the server."""
    command = [sys.executable, "-m", "tests.log_users"]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        try:
            yield LogUsers(server)
        finally:
            server.kill()


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork()  # nothing has used polars here, so there are no threads to lose
            if answer == 0:
                _work(job)
        print(answer, flush=True)


def _work(job: dict[str, Any]) -> None:
    code = 1
    try:
        _JOBS[job["do"]](job)
        code = 0
    except Exception:  # noqa: BLE001 - the test shows it
        with Path(job["errors"]).open("a") as file:
            file.write(f"{job}\n{traceback.format_exc()}\n")
    finally:
        os._exit(code)


@contextmanager
def _killed_at(left: int) -> Iterator[None]:
    """Be killed at a boundary between file operations, or within a write, after so many of them."""

    def die(operation: Operation | None = None) -> None:
        nonlocal left
        if left == 0:
            if operation is not None:
                with Path(operation.path).open("ab") as file:
                    file.write(operation.content[: len(operation.content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def watch(operation: Operation, do: Callable[[], Any]) -> Any:
        die()
        if operation.kind == "write":
            die(operation)
        result = do()
        die()
        return result

    with watching(watch):
        yield


def _script(job: dict[str, Any]) -> None:
    """Append batches (lists of names) and compact (None), killed at a boundary between file operations."""
    log = EventLog(Path(job["root"]))
    with _killed_at(job["kill_at"]):
        for names in job["steps"]:
            if names is None:
                log.compact("plan")
            else:
                log.append([event(name) for name in names])
                _acknowledge(job, names)


def _write(job: dict[str, Any]) -> None:
    log = EventLog(Path(job["root"]))
    for i in range(1_000_000):
        names = [f"{os.getpid()}-{i}-{j}" for j in range(1 + i % 3)]
        log.append([event(name) for name in names])
        _acknowledge(job, names)


def _read(job: dict[str, Any]) -> None:
    log, ids = EventLog(Path(job["root"])), list[str]()
    while True:
        fresh = log.read("plan", after=len(ids) - 1)
        ids += [e.event_id for e in fresh]
        if [e.event_id for e in log.read("plan")][: len(ids)] != ids:
            raise DamagedLogError("what was read has changed")


def _compact(job: dict[str, Any]) -> None:
    while True:
        EventLog(Path(job["root"])).compact("plan")


def telemetry_writer(root: Path) -> TelemetryWriter:
    """One that merges soon, and into files that are full soon."""
    telemetry.FLUSHES_PER_MERGE, telemetry_files.FULL_BYTES = 3, 30_000
    return TelemetryWriter(root, "plan", "dataset")


def samples(writer: int, numbers: Iterable[int]) -> list[ResourceSample]:
    """Samples that tell who wrote them, and how many that one wrote before."""
    return [
        ResourceSample(
            occurred_at=_START + timedelta(seconds=number), gpu_index=writer, gpu_pcie_width=number
        )
        for number in numbers
    ]


def _flush(job: dict[str, Any]) -> None:
    """Write telemetry, killed at a boundary between file operations."""
    writer = telemetry_writer(Path(job["root"]))
    with _killed_at(job["kill_at"]):
        for number in range(job["num_flushes"]):
            writer.write(samples(job["writer"], [2 * number, 2 * number + 1]))
            _acknowledge(job, [str(number)])
        writer.merge()


def _flush_for_ever(job: dict[str, Any]) -> None:
    writer = telemetry_writer(Path(job["root"]))
    for number in range(1_000_000):
        writer.write(samples(os.getpid(), [number]))
        _acknowledge(job, [f"{os.getpid()} {number}"])


def _watch_telemetry(job: dict[str, Any]) -> None:
    """See that nothing that was there is ever gone, twice there, or there before what came before it."""
    known: dict[int, int] = {}
    while True:
        found = counted(read_telemetry(Path(job["root"])))
        if any(found.get(writer, 0) < num for writer, num in known.items()):
            raise DamagedLogError(f"{known} were there, then {found}")
        known = found


def counted(frame: pl.DataFrame) -> dict[int, int]:
    """Number of samples by writer, if each writer's are there from the first on, once and in order."""
    found = {}
    for (writer,), rows in frame.group_by("gpu_index"):
        if rows.sort("gpu_pcie_width")["gpu_pcie_width"].to_list() != list(range(rows.height)):
            raise DamagedLogError(f"of {writer} there is {rows['gpu_pcie_width'].to_list()}")
        found[int(str(writer))] = rows.height
    return found


_JOBS = {
    "script": _script,
    "write": _write,
    "read": _read,
    "compact": _compact,
    "flush": _flush,
    "flush for ever": _flush_for_ever,
    "watch telemetry": _watch_telemetry,
}


def _acknowledge(job: dict[str, Any], names: list[str]) -> None:
    descriptor = os.open(job["acknowledged"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, "".join(f"{name}\n" for name in names).encode())
    os.close(descriptor)


if __name__ == "__main__":
    _serve()
