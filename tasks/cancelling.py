"""Flow runs that somebody cancels and no worker ends: a command's, and chains within another flow run."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from core.interrupts import interrupted_by
from core.resources.sampler import beside
from tasks.admission import is_on_worker
from tasks.fan_out import CancelledChainsError

_SIGNAL = signal.SIGUSR2
"""Prefect has its own use of SIGTERM, and a process in the background may ignore SIGINT."""
_INTERVAL_S = 3.0
_PATIENCE_S = 5.0
"""How long the end of a run waits for an API that does not answer."""


@contextmanager
def heeding_cancel(plan_id: str) -> Iterator[None]:
    """End what is done within as Ctrl-C would, once somebody cancelled the flow run at hand.

    Prefect leaves that to workers, which end the processes that they started; a flow run of a worker is left
    to it.

    Args:
        plan_id: The plan that is worked on.

    Raises:
        CancelledChainsError: It was cancelled.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or is_on_worker() or threading.current_thread() is not threading.main_thread():
        yield
        return
    ended, cancelled = threading.Event(), threading.Event()
    watch = partial(_watch, run.id, threading.get_ident(), ended, cancelled)
    try:
        with interrupted_by(_SIGNAL), beside(watch, ended, f"cancel-{run.name}", _PATIENCE_S):
            yield
    except KeyboardInterrupt:
        if not cancelled.is_set():
            raise
        raise CancelledChainsError(
            f"{run.name} was cancelled: go on with python -m flows.retrain --resume {plan_id}"
        ) from None


def _watch(flow_run_id: UUID, thread: int, ended: threading.Event, cancelled: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not ended.wait(_INTERVAL_S):
            with suppress(httpx.HTTPError, ObjectNotFound):  # away, or somebody deleted the run
                state = client.read_flow_run(flow_run_id).state
                if state and (state.is_cancelling() or state.is_cancelled()) and not ended.is_set():
                    cancelled.set()
                    signal.pthread_kill(thread, _SIGNAL)
                    return
