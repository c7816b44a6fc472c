"""System status: the machine's resources and the training processes, seen from any process."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.events.telemetry import ResourceSample
from core.resources.probes import Probe
from core.resources.process_state import ProcessStatus, read_process_statuses
from core.resources.sampler import PATIENCE_S
from settings.layout import Layout

_MOST_SAMPLES = 600
_RATES_S = 0.2
"""Time between two measurements where one alone says nothing of rates."""


class ProcessManager:
    """Watches the machine and the training processes of an output directory; it starts and stops none.

    Args:
        output_dir: The output directory; it may be missing or read-only.
        interval_s: Seconds between samples while it monitors.
    """

    def __init__(self, output_dir: Path, interval_s: float = 1.0) -> None:
        self.layout = Layout(output_dir)
        self.interval_s = interval_s
        self._samples: deque[list[ResourceSample]] = deque(maxlen=_MOST_SAMPLES)
        self._stopped = threading.Event()
        self._sampled = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_monitoring(self) -> bool:
        """Whether resources are being sampled."""
        return self._thread is not None and self._thread.is_alive()

    def start_monitoring(self) -> None:
        """Sample resources from now on, in a thread; the samples of the last minutes are kept."""
        if self.is_monitoring:
            return
        self._stopped.clear()
        self._sampled.clear()
        self._samples.clear()
        self._thread = threading.Thread(target=self._monitor, name="monitoring", daemon=True)
        self._thread.start()

    def stop_monitoring(self) -> None:
        """Sample no more; what was measured is kept until monitoring begins again."""
        self._stopped.set()
        if self._thread:
            self._thread.join(PATIENCE_S)

    def __enter__(self) -> Self:
        """Monitor."""
        self.start_monitoring()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop monitoring."""
        self.stop_monitoring()

    def get_system_status(self) -> dict[str, Any]:
        """How machine and training processes are now.

        Returns:
            ``current_resources``: the fields of ``core.events.telemetry.ResourceSample`` for the first GPU,
            for example ``["current_resources"]["gpu_utilization_percent"]``; None is what cannot be measured.
            ``gpus``: the same for every GPU, empty without one. ``average_resources``: means of the numbers
            over the time monitored last, or what is measured now. ``processes``: the fields of
            ``core.resources.process_state.ProcessStatus`` of every training process. ``num_samples``: moments
            that the means are over.
        """
        if self.is_monitoring:
            self._sampled.wait()
        moments = list(self._samples)
        current = moments[-1] if moments and self.is_monitoring else self._measure_once()
        averaged = moments or [current]
        return {
            "current_resources": asdict(current[0]),
            "gpus": [asdict(sample) for sample in current if sample.gpu_index is not None],
            "average_resources": _means([moment[0] for moment in averaged]),
            "processes": [asdict(process) for process in self.processes()],
            "num_samples": len(averaged),
        }

    def processes(self) -> list[ProcessStatus]:
        """How the training processes of the output directory are, by name."""
        return read_process_statuses(self.layout.process_logs)

    def _monitor(self) -> None:
        try:
            probe = self._probe()
            while not self._stopped.is_set():
                self._samples.append(probe.sample())
                self._sampled.set()
                self._stopped.wait(self.interval_s)
        finally:
            self._sampled.set()

    def _measure_once(self) -> list[ResourceSample]:
        probe = self._probe()
        probe.sample()
        threading.Event().wait(_RATES_S)
        return probe.sample()

    def _probe(self) -> Probe:
        return Probe(
            self.layout.root,
            lambda: [process.pid for process in self.processes() if process.pid is not None],
        )


def _means(samples: Sequence[ResourceSample]) -> dict[str, float]:
    """Mean of each number over the samples that have it."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in asdict(sample).items():
            if isinstance(value, int | float):
                values.setdefault(name, []).append(value)
    return {name: sum(known) / len(known) for name, known in values.items()}
