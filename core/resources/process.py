"""The supervised training process: it runs training calls and can be lost without losing the plan."""

import logging
import math
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from core.errors import TrainingProcessError
from core.events.fact import Emit
from core.events.heartbeat import Beat
from core.interrupts import heed_ctrl_c
from core.logs import log_ids, open_output
from core.resources.exits import classify_exit, count_oom_kills, oom_kill_counters
from core.resources.process_report import has_all_stacks, top_frames
from core.resources.process_state import ProcessState
from core.resources.process_watch import Watch
from core.resources.worker import ALLOWED, CALL_MARK, HEARD, STACK_SIGNAL, STOP, STOPPED, Outcome

_WORKER = "import sys; from core.resources.worker import main; main(int(sys.argv[1]), sys.argv[2])"
_LOG = logging.getLogger(__name__)
_SLICE_S = 1.0
"""Silence is counted in slices, so that a machine that was suspended does not make everything look hung."""
_BEATS_PER_TIMEOUT = 4
_STACK_DUMP_S = 20.0
"""Most that stacks may take: a busy machine writes them slowly, and a process that waits for a disk never."""
_LOOK_S = 0.1
_EXIT_S = 10.0
_LOG_LINES = 20
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    keeper: threading.Thread


class TrainingProcess:
    """A child process that runs functions one by one, starts when it is needed and is replaced when it died.

    It is a fresh interpreter (no fork: CUDA and threads survive none), so the cost of importing torch is paid
    once per process. It dies with its parent, ignores Ctrl-C, and is killed when a call does not end well, so
    that memory and CUDA context are truly released; the next call starts another. What it logs goes to
    ``{log_dir}/{name}.jsonl``, with the ids of the caller; all else that it prints to ``{name}.log``, how it
    is to ``{name}.state.json``, and why it failed to a report beside them. POSIX only.

    What interrupts a call (Ctrl-C, an exception that a signal's handler raises) never cuts a fact off: facts
    are handed on in a thread of their own. The child is asked to write a checkpoint and to end, and killed if
    it takes too long; what interrupts that kills it at once.

    Args:
        name: Name of the chain, used for the log file.
        log_dir: Folder of process logs; created if missing.
        stop_grace_s: Time that the child has for its end when a call is interrupted, seconds.

    Attributes:
        peak_memory_mib: Peak of the last call (VRAM allocated if it used CUDA, else resident memory); None
            before the first call and when the process died during it.
        environment: Variables that children started from now on get besides this process's own.
    """

    def __init__(self, name: str, log_dir: Path, stop_grace_s: float = 0.0) -> None:
        self.name = name
        self.log_path = log_dir / f"{name}.log"
        self._stop_grace_s = stop_grace_s
        self._allowed_until_s = math.inf
        self.peak_memory_mib: float | None = None
        self.environment: Mapping[str, str] = {}
        self._watch = Watch(name, log_dir, self.log_path.name)
        self._child: _Child | None = None
        self._calling, self._sending = threading.Lock(), threading.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.keeper.is_alive()

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        child = self._child
        return child.process.pid if child and child.keeper.is_alive() else None

    @property
    def state(self) -> ProcessState:
        """What it does and how it fared; other processes see the same, up to a second later."""
        return self._watch.state

    def run(self, target: str, *args: Any, on_fact: Emit, timeout_s: float | None = None) -> Any:
        """Call a function in the child.

        Args:
            target: ``"package.module:function"``; called as ``function(*args, emit)``.
            args: Picklable arguments.
            on_fact: Called in order with each fact that the function emits, in a thread that this one waits
                for; the function goes on when it has returned.
            timeout_s: Longest time without progress (a fact, or a beat of ``core.events.heartbeat``),
                seconds; then the child counts as hanging and is killed. None waits for ever.

        Returns:
            What the function returned (picklable).

        Raises:
            TrainingProcessError: The function raised, hung, or the child died; ``kind`` says which.
            OSError: The child could not be started.
        """
        heed_ctrl_c()
        with self._calling:
            child = self._child if self._child and self.is_alive else self._start()
            self.peak_memory_mib = None
            call = _Call(target, timeout_s, oom_kill_counters(child.process.pid))
            self._watch.call_began(target, timeout_s)
            try:
                with suppress(BrokenPipeError, ConnectionResetError), self._sending:  # receiving tells why
                    child.connection.send((target, args, call.beat_interval_s, log_ids()))
                value = self._returned(self._outcome(child, call, on_fact), target)
            except TrainingProcessError as error:
                self._watch.failed(error)
                self._kill()
                raise
            except BaseException:
                self.stop()
                raise
            self._watch.call_ended()
            return value

    def allow_until(self, until_s: float) -> None:
        """Let children live until a moment of ``time.monotonic``: then they kill themselves.

        It needs nothing of this process, which may be stopped by then or wait for a disk.
        """
        self._allowed_until_s = until_s
        if (child := self._child) and child.keeper.is_alive():
            self._tell(child, ALLOWED + repr(until_s).encode())

    def stop(self) -> None:
        """Kill the child and its own children now; a call under way in another thread fails as ``killed``."""
        self._kill()
        self._watch.ended()

    def __enter__(self) -> Self:
        """The process itself; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the child."""
        self.stop()

    def _start(self) -> _Child:
        ours, theirs = multiprocessing.Pipe()
        started: Future[subprocess.Popen[bytes]] = Future()
        environment = {**os.environ, **self.environment}
        with theirs, open_output(self.log_path) as log:
            keeper = threading.Thread(
                target=_keep,
                args=(self.log_path.with_suffix(".jsonl"), theirs.fileno(), log, environment, started),
                name=self.name,
                daemon=True,
            )
            keeper.start()
            process = started.result()
        self._child = _Child(process, ours, keeper)
        self.allow_until(self._allowed_until_s)
        self._watch.started(process.pid)
        return self._child

    def _tell(self, child: _Child, message: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError), self._sending:
            child.connection.send_bytes(message)

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child and child.keeper.is_alive():  # else the id may be another process's by now
            _kill_group(child.process.pid)
            child.keeper.join(_EXIT_S)
            if child.keeper.is_alive():
                _LOG.error("process %s cannot be killed: it waits for a disk or driver", child.process.pid)

    def _outcome(self, child: _Child, call: "_Call", on_fact: Emit) -> Outcome:
        """Wait for a call; what interrupts it gives the child a chance to end well."""
        outcome: Future[Outcome] = Future()

        def listen() -> None:
            try:
                outcome.set_result(self._listen(child, call, on_fact))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.set_exception(error)

        threading.Thread(
            target=copy_context().run, args=(listen,), name=f"facts-of-{self.name}", daemon=True
        ).start()
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():  # it is this thread that was interrupted
                self._end(child, call, outcome)
            raise

    def _end(self, child: _Child, call: "_Call", outcome: "Future[Outcome]") -> None:
        call.is_ending = True
        _LOG.info("%s: its training is asked to end within %g s", self.name, self._stop_grace_s)
        try:
            self._tell(child, STOP)
            futures.wait([outcome], self._stop_grace_s)
        finally:
            self._kill()
        futures.wait([outcome], _EXIT_S)  # the last fact is told by then

    def _listen(self, child: _Child, call: "_Call", on_fact: Emit) -> Outcome:
        """Hand on facts until the call ends, the child dies, or there was no progress for too long."""
        silent_s = 0.0
        while True:
            slice_s = min(_SLICE_S, call.timeout_s - silent_s)
            try:
                message = child.connection.recv() if child.connection.poll(slice_s) else None
            except (EOFError, ConnectionResetError):
                if call.is_ending:
                    return Outcome(None, STOPPED, "", 0.0)
                raise self._died(child, call) from None
            if isinstance(message, Outcome):
                return message
            if message is None:
                silent_s += slice_s
                self._watch.tick()
                if silent_s >= call.timeout_s:
                    raise self._hung(child, call)
                continue
            silent_s = 0.0
            self._watch.heard(message)
            if not isinstance(message, Beat):
                on_fact(message)
                self._tell(child, HEARD)

    def _returned(self, outcome: Outcome, target: str) -> Any:
        self.peak_memory_mib = outcome.peak_memory_mib
        if outcome.failure is None:
            return outcome.value
        if outcome.failure == "data_error":
            raise TrainingProcessError(outcome.failure, outcome.message)
        what = f"{target} failed ({outcome.failure}): {outcome.reason}"
        report = self._watch.report(outcome.failure, what, what_it_printed=self._last_output())
        message = f"{what}; see {self.log_path}:\n{outcome.message}"
        raise TrainingProcessError(outcome.failure, message, report)

    def _hung(self, child: _Child, call: "_Call") -> TrainingProcessError:
        stacks = self._stacks(child)
        what = f"{call.target} made no progress for {call.timeout_s:g} s"
        report = self._watch.report("hang", what, stacks=stacks or "it did not answer")
        return self._lost("hang", what, stacks, report)

    def _died(self, child: _Child, call: "_Call") -> TrainingProcessError:
        child.keeper.join(_EXIT_S)
        output = self._last_output()
        oom_killed = count_oom_kills(call.oom_kill_counters) > call.oom_kills
        kind, reason = classify_exit(child.process.returncode, output, oom_killed=oom_killed)
        what = f"the training process ended during {call.target} ({reason})"
        report = self._watch.report("crash" if kind == "bug" else kind, what, what_it_printed=output)
        tail = "\n".join(output.splitlines()[-_LOG_LINES:])
        return self._lost(kind, what, output, report, f":\n{tail}" if tail else "")

    def _lost(
        self, kind: str, what: str, output: str, report: str | None, tail: str = ""
    ) -> TrainingProcessError:
        where = f"; it was in {frames}" if (frames := top_frames(output)) else ""
        last = self.state.doing
        return TrainingProcessError(
            kind, f"{what}, last seen {last}{where}; see {report or self.log_path}{tail}", report
        )

    def _stacks(self, child: _Child) -> str:
        """Have the child write the stacks of its threads to its log, which works while it is in C code."""
        before = self._log_size()
        with suppress(ProcessLookupError):
            child.process.send_signal(STACK_SIGNAL)
            child.process.send_signal(signal.SIGCONT)  # a stopped process heeds no other signal
        deadline = time.monotonic() + _STACK_DUMP_S
        while time.monotonic() < deadline and child.keeper.is_alive():
            time.sleep(_LOOK_S)
            if has_all_stacks(output := self._output_after(before)):
                return output
        return self._output_after(before)

    def _log_size(self) -> int:
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:  # someone removed it
            return 0

    def _output_after(self, start: int) -> str:
        """What the child printed from a place of its log on, or the end of it."""
        with suppress(FileNotFoundError), self.log_path.open("rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace")
        return ""

    def _last_output(self) -> str:
        """The end of what the last call printed."""
        return self._output_after(0).rpartition(f"\n{CALL_MARK}")[2]


class _Call:
    """One call under way.

    Args:
        target: The function.
        timeout_s: Longest time without progress; None for ever.
        oom_kill_counters: Where the kernel counts what it kills.
    """

    def __init__(self, target: str, timeout_s: float | None, oom_kill_counters: list[Path]) -> None:
        self.target = target
        self.is_ending = False
        self.timeout_s = math.inf if timeout_s is None else timeout_s
        self.beat_interval_s = min(_SLICE_S, self.timeout_s / _BEATS_PER_TIMEOUT)
        self.oom_kill_counters = oom_kill_counters
        self.oom_kills = count_oom_kills(oom_kill_counters)


def _keep(
    records: Path,
    fd: int,
    log: IO[bytes],
    environment: Mapping[str, str],
    started: "Future[subprocess.Popen[bytes]]",
) -> None:
    """Start the child, stay for its whole life, and leave none of its own children behind.

    PR_SET_PDEATHSIG fires when the *thread* that started a child ends; this one ends only after the child.
    """
    ended, lifeline = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-X", "faulthandler", "-c", _WORKER, str(fd), str(records)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(fd, lifeline),
            start_new_session=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        started.set_exception(error)
        os.close(ended)
        return
    finally:
        os.close(lifeline)
    started.set_result(process)
    process.wait()
    _kill_group(process.pid)
    # The end of the pipe means that its guardian, the last to hold the other end, is gone too.
    select.select([ended], [], [], _EXIT_S)
    os.close(ended)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
