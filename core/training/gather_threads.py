"""Threads that gather packs while the training thread computes."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import torch

_PATIENCE_S = 5.0
"""Longest wait for threads that are to end, seconds; one may hang in a read."""

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
_Jobs: TypeAlias = SimpleQueue[tuple[Future[T], Callable[[], T]] | None]


class GatherThreads(Generic[T]):
    """Threads that work through a queue, as many as are asked for at the moment.

    They end on `close`, with the object, or with the process, which they never keep alive. Each uses one
    thread of torch: packs are gathered side by side, not each by a team that waits for its slowest.
    """

    def __init__(self) -> None:
        self._jobs: _Jobs[T] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_asked = self._num_running = 0
        self._stopped = threading.Event()
        self._end = weakref.finalize(self, _end, self._jobs, self._threads, self._stopped)

    def resize(self, num_threads: int) -> None:
        """Start threads, or have some end once what is queued now is done.

        Raises:
            MemoryError: There is no room for a single thread.
        """
        if num_threads == self._num_asked:
            return
        self._num_asked = num_threads
        for _ in range(self._num_running - num_threads):
            self._jobs.put(None)
        self._num_running = min(self._num_running, num_threads)
        self._start(num_threads - self._num_running)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have a thread do some work; its result, or what it raised, is in the future."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future

    def close(self) -> None:
        """End all threads; what none has begun is never done."""
        self._end()

    def _start(self, num_threads: int) -> None:
        self._threads[:] = [thread for thread in self._threads if thread.is_alive()]
        own = torch.get_num_threads()
        for _ in range(num_threads):
            ready = threading.Event()
            thread = threading.Thread(
                target=_work, args=(self._jobs, self._stopped, ready), name="gather", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # what Python says when there is no memory for its stack
                if not self._num_running:
                    self._num_asked = 0
                    raise MemoryError("no memory for a thread that gathers packs") from error
                _LOG.warning("no memory for more than %s threads that gather packs", self._num_running)
                break
            ready.wait()
            self._threads.append(thread)
            self._num_running += 1
        # Theirs became the default of threads that are yet to come, such as those of a backward pass.
        torch.set_num_threads(own)


def _work(jobs: _Jobs[T], stopped: threading.Event, ready: threading.Event) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # makes it final: torch sets a thread's number anew when first it needs it
    ready.set()
    while (job := jobs.get()) and not stopped.is_set():
        _do(*job)
        del job  # with it the pack, which an idle thread must not hold


def _do(future: "Future[T] | None", work: Callable[[], T]) -> None:
    if future and future.set_running_or_notify_cancel():
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised in the training thread, whatever it is
            future.set_exception(error)
            future = None  # else error and frame would hold each other, and the frames below all tensors


def _end(jobs: _Jobs[T], threads: list[threading.Thread], stopped: threading.Event) -> None:
    stopped.set()
    for _ in threads:
        jobs.put(None)
    deadline = time.monotonic() + _PATIENCE_S
    for thread in threads:
        if thread is not threading.current_thread():  # in which garbage may happen to be collected
            thread.join(max(0.0, deadline - time.monotonic()))
