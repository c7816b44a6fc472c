"""The loop that turns resource samples into telemetry."""

import logging
import time
from collections.abc import Callable, Sequence

from core.errors import EventLogError
from core.events.telemetry import ResourceSample

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
