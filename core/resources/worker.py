"""The inside of the training process: runs one call after another until its parent goes away.

Started by ``core.resources.process.TrainingProcess``. The parent sends ``(target, args, beat_interval_s,
ids)``; back come the facts of the call in order, each answered by ``HEARD``, then one ``Outcome``. A call
goes on only when a fact of it was heard: nothing that it writes, such as a checkpoint, is ever ahead of the
log. In between come beats, the latest every so often and only after progress, which nobody waits for.

``STOP`` asks the call to end: one that heeds it (``core.events.stopping``) ends with an ``Outcome`` of its
own, any other with the process. ``ALLOWED`` gives a moment of ``time.monotonic``, which is the same in both
processes: then this one kills itself, unless it was allowed more by then. So it never outlives the right to
do its work, whatever became of its parent.
"""

import ctypes
import faulthandler
import importlib
import logging
import math
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.events import heartbeat
from core.events.stopping import Stopped, ask_to_stop
from core.logs import LogFile, identified
from core.resources.failures import classify
from core.resources.memory import forget_vram_peak, vram_peak_bytes
from core.resources.readings import MIB
from settings.errors import RetrainError

STACK_SIGNAL = signal.SIGUSR1
"""Makes the process write the stacks of all its threads to its log, even while it hangs in C code."""

HEARD = b"heard"
"""What the parent answers to a fact once it has done with it what it does."""

STOP = b"stop"
"""Asks the call under way to end."""

ALLOWED = b"until "
"""Precedes the moment until which the process may live."""

STOPPED = "stopped"
"""Failure class of a call that was asked to end."""

CALL_MARK = "--- "
"""Begins the line of the log that begins a call."""

_LOG = logging.getLogger(__name__)

Send = Callable[[Any], None]

_PR_SET_PDEATHSIG = 1
_LONGEST_SLEEP_S = 1.0
_TRACEBACK_LINES = 12


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: What the target returned; None if it failed.
        failure: Failure class, or None if the call succeeded.
        message: What went wrong; for a ``RetrainError`` its own message.
        peak_memory_mib: Peak of the call: VRAM allocated if the process used CUDA, else resident memory.
        reason: What went wrong, in a line.
    """

    value: Any
    failure: str | None
    message: str
    peak_memory_mib: float
    reason: str = ""


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, RetrainError) else traceback.format_exception_only(error)[-1]
    return text.strip().partition("\n")[0]


def _describe(error: BaseException) -> str:
    if isinstance(error, RetrainError):
        return str(error)
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])


def _reset_peak_memory() -> None:
    with suppress(OSError):  # no such file outside Linux: the peak is then that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM := VmRSS, see proc(5)
    forget_vram_peak()


def _peak_memory_mib() -> float:
    if peak := vram_peak_bytes():
        return peak / MIB
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError):
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
        return peak_bytes / MIB


@contextmanager
def _beating(send: Send, interval_s: float) -> Iterator[None]:
    """Send the latest beat as often as there is a new one, at most once per interval."""
    ended, sent = threading.Event(), heartbeat.latest()

    def send_beats() -> None:
        last = sent
        while not ended.wait(interval_s):
            if (latest := heartbeat.latest()) is not last:
                last = latest
                send(latest)

    thread = threading.Thread(target=send_beats, name="beats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _call(request: bytes, emit: Send, send: Send) -> Outcome:
    _reset_peak_memory()
    ids: dict[str, Any] = {}
    try:
        target, args, beat_interval_s, ids = pickle.loads(request)  # noqa: S301 - from our own parent
        print(f"{CALL_MARK}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {target}", file=sys.stderr)
        module, _, function = target.partition(":")
        with identified(**ids), _beating(send, beat_interval_s):
            _LOG.info("%s begins", target)
            value = getattr(importlib.import_module(module), function)(*args, emit)
        return Outcome(value, None, "", _peak_memory_mib())
    except Stopped:
        return Outcome(None, STOPPED, "it was asked to end", _peak_memory_mib())
    except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever ends a call is told to the parent
        # Frames hold the tensors that filled the memory: let go of them before anything else is allocated.
        traceback.clear_frames(error.__traceback__)
        traceback.print_exception(error)
        reason = _reason(error)
        with identified(**ids):
            _LOG.error("the call failed: %s", reason, exc_info=error)
        return Outcome(None, classify(error), _describe(error), _peak_memory_mib(), reason)


def _die_with_parent(signum: int) -> None:
    """Have the kernel signal this process when the thread that started it is gone (prctl(2), Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def _start_guardian() -> None:
    """Fork a process that kills what this one started when it dies, even by SIGKILL together with its parent.

    It does nothing but wait for that, in a session of its own, so that whoever kills the group spares it.
    """
    trained = os.getpid()
    if os.fork():
        return
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    _die_with_parent(signal.SIGUSR2)
    if os.getppid() == trained:
        signal.sigwait([signal.SIGUSR2])
    with suppress(ProcessLookupError):
        os.killpg(trained, signal.SIGKILL)
    os._exit(0)


def _kill_own_group() -> None:
    os.killpg(0, signal.SIGKILL)


class _Permission:
    """Until when this process may live; for ever at first."""

    def __init__(self) -> None:
        self.until_s = math.inf

    def watch(self) -> None:
        """Kill this process when it may live no longer."""
        while (left_s := self.until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LONGEST_SLEEP_S))
        print("nobody said that this process may go on: it ends", file=sys.stderr, flush=True)
        _kill_own_group()


def _receive(
    connection: "Connection[Any, Any]",
    requests: "queue.SimpleQueue[bytes]",
    heard: "queue.SimpleQueue[bytes]",
    permission: _Permission,
) -> None:
    """Hand on what the parent says; the pipe's end means that it is gone, however it went."""
    try:
        while True:
            message = connection.recv_bytes()
            if message == HEARD:
                heard.put(message)
            elif message.startswith(ALLOWED):
                permission.until_s = float(message.removeprefix(ALLOWED))
            elif message != STOP:
                requests.put(message)
            elif not ask_to_stop():
                _kill_own_group()
    except (EOFError, OSError):
        _kill_own_group()


def main(fd: int, records: str) -> None:
    """Serve calls that arrive on a socket until the parent closes it; what they log goes to a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    logging.basicConfig(handlers=[LogFile(Path(records))])
    logging.getLogger("core").setLevel(logging.INFO)
    if sys.platform == "linux":
        _start_guardian()
        _die_with_parent(signal.SIGKILL)
    faulthandler.register(STACK_SIGNAL, all_threads=True)
    connection: Connection[Any, Any] = Connection(fd)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sending, emitting = threading.Lock(), threading.Lock()

    def send(message: Any) -> None:
        with sending:
            connection.send(message)

    def emit(fact: Any) -> None:
        with emitting:
            send(fact)
            heard.get()

    permission = _Permission()
    threading.Thread(target=_receive, args=(connection, requests, heard, permission), daemon=True).start()
    threading.Thread(target=permission.watch, daemon=True).start()
    while True:
        outcome = _call(requests.get(), emit, send)
        try:
            send(outcome)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            message = f"the returned value cannot be sent to the parent: {error}"
            send(Outcome(None, "bug", message, outcome.peak_memory_mib, message))
