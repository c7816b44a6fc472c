"""The supervised training process: it runs training calls and can be lost without losing the plan."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from core.errors import TrainingProcessError
from core.events.catalogue import Emit
from core.resources.worker import CALL_MARK, HEARD, STACK_SIGNAL, Outcome

_WORKER = "import sys; from core.resources.worker import main; main(int(sys.argv[1]))"
_STOP_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# What allocators print before they abort the process.
_ALLOCATION_FAILURES = ("std::bad_alloc", "memory allocation of")
_STACK_DUMP_S = 1.0
_EXIT_S = 10.0
_LOG_LINES = 20
_TAIL_BYTES = 16_384


def count_oom_kills(roots: Iterable[Path] = (Path("/sys/fs/cgroup"), Path("/proc"))) -> int:
    """Count the kernel's out-of-memory kills so far; only its growth means something.

    Args:
        roots: Where cgroups (version 1 or 2) and ``/proc`` are mounted.

    Returns:
        Sum over ``memory.events``, ``memory/memory.oom_control`` and ``vmstat``, those that exist.
    """
    total = 0
    for root in roots:
        for name in ("memory.events", "memory/memory.oom_control", "vmstat"):
            with suppress(OSError):
                for line in (root / name).read_text(encoding="ascii").splitlines():
                    key, _, value = line.partition(" ")
                    total += int(value) if key == "oom_kill" else 0
    return total


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    keeper: threading.Thread


class TrainingProcess:
    """A child process that runs functions one by one, starts when it is needed and is replaced when it died.

    It is a fresh interpreter (no fork: CUDA and threads survive none), so the cost of importing torch is paid
    once per process. It dies with its parent, ignores Ctrl-C, and is killed when a call does not end well, so
    that memory and CUDA context are truly released; the next call starts another. Its output and tracebacks
    go to ``{log_dir}/{name}.log``. POSIX only.

    Args:
        name: Name of the chain, used for the log file.
        log_dir: Folder of process logs; created if missing.

    Attributes:
        peak_memory_mib: Peak of the last call (VRAM allocated if it used CUDA, else resident memory); None
            before the first call and when the process died during it.
    """

    def __init__(self, name: str, log_dir: Path) -> None:
        self.name = name
        self.log_path = log_dir / f"{name}.log"
        self.peak_memory_mib: float | None = None
        self._child: _Child | None = None
        self._calling = threading.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.keeper.is_alive()

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        child = self._child
        return child.process.pid if child and child.keeper.is_alive() else None

    def run(self, target: str, *args: Any, on_fact: Emit, timeout_s: float | None = None) -> Any:
        """Call a function in the child.

        Args:
            target: ``"package.module:function"``; called as ``function(*args, emit)``.
            args: Picklable arguments.
            on_fact: Called here, in order, with each fact that the function emits; the function goes on when
                it has returned.
            timeout_s: Longest silence between facts, seconds; then the child counts as hanging, its stacks
                are written to the log and it is killed. None waits for ever.

        Returns:
            What the function returned (picklable).

        Raises:
            TrainingProcessError: The function raised, hung, or the child died; ``kind`` says which.
        """
        with self._calling:
            child = self._child if self._child and self.is_alive else self._start()
            self.peak_memory_mib = None
            oom_kills = count_oom_kills()
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # then receiving tells how it died
                    child.connection.send((target, args))
                while True:
                    try:
                        if not child.connection.poll(timeout_s):
                            raise self._hung(child, target, timeout_s)
                        message = child.connection.recv()
                    except (EOFError, ConnectionResetError):
                        raise self._died(child, target, oom_kills) from None
                    if isinstance(message, Outcome):
                        return self._returned(message, target)
                    on_fact(message)
                    with suppress(BrokenPipeError, ConnectionResetError):
                        child.connection.send_bytes(HEARD)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Kill the child and its own children now; a call under way in another thread fails as ``killed``."""
        child, self._child = self._child, None
        if child and child.keeper.is_alive():  # else the id may be another process's by now
            _kill_group(child.process.pid)
            child.keeper.join()

    def __enter__(self) -> Self:
        """The process itself; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the child."""
        self.stop()

    def _start(self) -> _Child:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = multiprocessing.Pipe()
        started: Future[subprocess.Popen[bytes]] = Future()
        with theirs, self.log_path.open("ab") as log:
            keeper = threading.Thread(
                target=_keep, args=(self.name, theirs.fileno(), log, started), name=self.name, daemon=True
            )
            keeper.start()
            process = started.result()
        self._child = _Child(process, ours, keeper)
        return self._child

    def _returned(self, outcome: Outcome, target: str) -> Any:
        self.peak_memory_mib = outcome.peak_memory_mib
        if outcome.failure is None:
            return outcome.value
        if outcome.failure == "data_error":
            raise TrainingProcessError(outcome.failure, outcome.message)
        raise TrainingProcessError(
            outcome.failure, f"{target} failed ({outcome.failure}), see {self.log_path}:\n{outcome.message}"
        )

    def _hung(self, child: _Child, target: str, timeout_s: float | None) -> TrainingProcessError:
        child.process.send_signal(STACK_SIGNAL)
        child.keeper.join(_STACK_DUMP_S)
        return TrainingProcessError(
            "hang", f"{target} made no progress for {timeout_s:g} s; where it hung is in {self.log_path}"
        )

    def _died(self, child: _Child, target: str, oom_kills: int) -> TrainingProcessError:
        child.keeper.join(_EXIT_S)
        code = child.process.returncode
        log = _last_call_log(self.log_path)
        reason = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        kind = "bug"
        if code == -signal.SIGKILL and count_oom_kills() > oom_kills:
            kind, reason = "host_oom", "SIGKILL by the kernel: the machine or container ran out of memory"
        elif code == -signal.SIGABRT and any(text in log for text in _ALLOCATION_FAILURES):
            kind, reason = "host_oom", "SIGABRT: an allocation failed"
        elif code is not None and -code in _STOP_SIGNALS:
            kind = "killed"
        return TrainingProcessError(
            kind,
            f"the training process ended during {target} ({reason}), see {self.log_path}:\n"
            + "\n".join(log.splitlines()[-_LOG_LINES:]),
        )


def _keep(name: str, fd: int, log: IO[bytes], started: "Future[subprocess.Popen[bytes]]") -> None:
    """Start the child, stay for its whole life, and leave none of its own children behind.

    PR_SET_PDEATHSIG fires when the *thread* that started a child ends; this one ends only after the child.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-X", "faulthandler", "-c", _WORKER, str(fd), name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(fd,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()
    _kill_group(process.pid)


def _last_call_log(path: Path) -> str:
    """The end of what the last call wrote; empty if someone removed the log."""
    with suppress(FileNotFoundError), path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return log.read().decode("utf-8", "replace").rpartition(f"\n{CALL_MARK}")[2]
    return ""


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
