"""Resource samples: the machine, the training processes and the GPUs, measured at one moment."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pynvml

from core.events.telemetry import ResourceSample
from core.resources.gpu import Gpus
from core.resources.host import Host
from core.resources.readings import NEEDS_TWO, Readings
from core.resources.training_tree import TrainingTree

_LOG = logging.getLogger(__name__)


class Probe:
    """Takes resource samples; what cannot be measured is None, and each sample says why where that changed.

    Used by one thread: the one that made it.

    Args:
        disk: A folder on the disk to watch; its nearest existing parent is asked.
        training_pids: Asked at every sample for the process ids of the training processes.
        nvml: The module ``pynvml``, or one with its functions.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        disk: Path,
        training_pids: Callable[[], Sequence[int]] = lambda: (),
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = Host(disk, clock=clock)
        self._training = TrainingTree(training_pids, clock)
        self._gpus = Gpus(nvml, clock)
        self._reasons: dict[str | None, dict[str, str]] = {}
        self._said: set[str] = set()

    def sample(self) -> list[ResourceSample]:
        """Measure now: one sample per GPU, one in all on a machine without."""
        now = datetime.now(UTC)
        machine = Readings()
        machine.ask((*self._host.questions, *self._training.questions))
        return [self._sample(now, machine, gpu) for gpu in self._gpus.measure()]

    def _sample(self, now: datetime, machine: Readings, gpu: Readings) -> ResourceSample:
        reasons = machine.reasons | gpu.reasons
        uuid = gpu.values.get("gpu_uuid")
        changed = reasons != self._reasons.get(uuid)
        if changed:
            self._reasons[uuid] = reasons
            self._say(reasons)
        return ResourceSample(
            occurred_at=now,
            **machine.values,
            **gpu.values,
            not_measured=json.dumps(reasons, sort_keys=True, separators=(",", ":")) if changed else None,
        )

    def _say(self, reasons: dict[str, str]) -> None:
        """Log what is missing, each field once."""
        fields = defaultdict(list)
        for name, reason in sorted(reasons.items()):
            if reason != NEEDS_TWO.reason and name not in self._said | {"gpu_index"}:  # no GPU is no news
                self._said.add(name)
                fields[reason].append(name)
        for reason, names in fields.items():
            _LOG.warning("resource samples lack %s: %s", ", ".join(names), reason)
