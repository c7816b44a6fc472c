"""The loop that turns resource samples into telemetry, and its thread."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context

from core.errors import EventLogError
from core.events.shared_telemetry import open_telemetry
from core.events.telemetry import ResourceSample
from core.resources.probes import Probe
from settings.layout import Layout
from settings.resources import ResourceSettings

PATIENCE_S = 30.0
"""How long the end of sampling is waited for, seconds: a driver may block a call for ever."""

_LOG = logging.getLogger(__name__)


def sample_until(
    stopped: Callable[[float], bool],
    sample: Callable[[], Sequence[ResourceSample]],
    write: Callable[[Sequence[ResourceSample]], None],
    *,
    interval_s: float,
    flush_interval_s: float,
) -> None:
    """Sample at fixed moments until told to stop; the first sample is taken at once.

    Moments are multiples of the interval since the start, so a slow sample delays no later one; moments that
    were missed are left out. Samples that could not be written are kept and tried again at the next flush.

    Args:
        stopped: Waits for up to so many seconds and says whether to stop: ``threading.Event().wait``.
        sample: Takes samples, for example ``Probe.sample``.
        write: Writes samples, for example ``TelemetryWriter.write``.
        interval_s: Seconds between samples.
        flush_interval_s: Seconds between writes: the most that a crash can lose.

    Raises:
        EventLogError: The last samples could not be written.
    """
    pending: list[ResourceSample] = []
    warned = False
    began = flushed = time.monotonic()
    try:
        while True:
            pending += sample()
            now = time.monotonic()
            if now - flushed >= flush_interval_s:
                flushed = now
                try:
                    write(pending)
                    pending = []
                except EventLogError as error:
                    if not warned:
                        _LOG.warning("resource samples are held back: %s", error)
                    warned = True
            now = time.monotonic()
            if stopped(interval_s - (now - began) % interval_s):
                return
    finally:
        write(pending)


def sample_chain(
    layout: Layout,
    plan_id: str,
    dataset: str,
    resources: ResourceSettings,
    training_pids: Callable[[], Sequence[int]],
    ended: threading.Event,
) -> None:
    """Write samples of the machine and of a chain's training processes until the chain has ended.

    Args:
        layout: The plan's output directory.
        plan_id: The plan.
        dataset: The chain's dataset.
        resources: How often to sample and to write.
        training_pids: Asked at every sample for the process ids of the training processes.
        ended: Set when the chain has ended.

    Raises:
        EventLogError: The last samples could not be written.
    """
    writer = open_telemetry(layout, plan_id, dataset)
    try:
        sample_until(
            ended.wait,
            Probe(layout.root, training_pids).sample,
            writer.write,
            interval_s=resources.sample_interval_s,
            flush_interval_s=resources.flush_interval_s,
        )
    finally:
        writer.merge()


def sample_chain_or_warn(
    layout: Layout,
    plan_id: str,
    dataset: str,
    resources: ResourceSettings,
    training_pids: Callable[[], Sequence[int]],
    ended: threading.Event,
) -> None:
    """Do as `sample_chain`; that samples cannot be kept is logged, and training goes on without them."""
    try:
        sample_chain(layout, plan_id, dataset, resources, training_pids, ended)
    except EventLogError as error:
        _LOG.warning("%s: resource samples are lost: %s", dataset, error)


@contextmanager
def beside(
    run: Callable[[], object], ended: threading.Event, name: str, patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Run something in a thread of its own, with the context variables of this one, while the context lasts.

    The thread is a daemon: a process that dies takes it along, and one that does not end holds nobody up.

    Args:
        run: Called once; ends soon after `ended` is set.
        ended: Set when the context ends.
        name: Name of the thread.
        patience_s: How long to wait for its end, seconds.
    """
    thread = threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience_s)
        if thread.is_alive():
            _LOG.warning("%s has not ended after %g s and is left behind", name, patience_s)
