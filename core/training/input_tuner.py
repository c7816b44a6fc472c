"""Watches how training is fed, adjusts it while it goes on, and says so per epoch."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

from core.events.resource_facts import InputAdjusted
from core.resources.adaptive import AdaptiveOptimizer, Aims, Interval, Level
from core.resources.memory import free_ram_bytes
from core.training.pipeline import InputTimes, Pipeline
from core.training.run import Run
from settings.dataset import DatasetSettings
from settings.training import TrainingSettings

_SAMPLE_S = 0.5
"""Least time between two looks at GPU and RAM, seconds."""
_SHARE = 0.4
"""Largest share of the free RAM that packs added by a raise may take."""


class Usage(Protocol):
    """How busy the machine is; ``core.resources.usage.Usage`` measures it."""

    def gpu_percent(self) -> float | None:
        """GPU utilisation, 0 to 100; None where there is none to measure."""

    def ram_percent(self) -> float | None:
        """RAM in use, 0 to 100; None where it cannot be measured."""


@dataclass(frozen=True)
class InputSummary:
    """How an epoch was fed: fields of ``EpochFinished``, None where nothing is gathered."""

    data_wait_s: float = 0.0
    data_load_s: float | None = None
    num_packs: int | None = None
    num_workers: int | None = None
    prefetch_factor: int | None = None
    num_adjustments: int | None = None
    gpu_percent: float | None = None
    ram_percent: float | None = None


class _Mean:
    """Of what was measured; None is left out."""

    def __init__(self, total: float = 0.0, num: int = 0) -> None:
        self.total, self.num = total, num

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total, self.num = self.total + value, self.num + 1

    @property
    def value(self) -> float | None:
        return self.total / self.num if self.num else None


@dataclass
class _Sums:
    """Over some steps."""

    num_steps: int = 0
    elapsed_s: float = 0.0
    wait_s: float = 0.0
    load_s: float = 0.0
    num_packs: int = 0
    pack_bytes: int = 0
    num_adjustments: int = 0
    gpu: _Mean = field(default_factory=_Mean)
    ram: _Mean = field(default_factory=_Mean)

    def add_step(self, elapsed_s: float, times: InputTimes) -> None:
        self.num_steps += 1
        self.elapsed_s += elapsed_s
        self.wait_s += times.wait_s
        self.load_s += times.load_s
        self.num_packs += times.num_packs
        self.pack_bytes = max(self.pack_bytes, times.pack_bytes)


class InputTuner:
    """Adjusts the workers and the prefetch of a pipeline; no result depends on it.

    Args:
        pipeline: What hands out the packs.
        training: Whether and when to adjust, and the aims.
        dataset: Bounds of workers and prefetch.
        run: Whose training it is.
        usage: How busy the machine is.
        clock: Seconds that only grow.
        free_ram: Bytes that can be allocated still.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        training: TrainingSettings,
        dataset: DatasetSettings,
        run: Run,
        usage: Usage,
        clock: Callable[[], float] = time.perf_counter,
        free_ram: Callable[[], int] = free_ram_bytes,
    ) -> None:
        self._pipeline, self._run, self._usage = pipeline, run, usage
        self._clock, self._free_ram = clock, free_ram
        self._num_steps = training.adaptive_adjustment_interval
        # Of a resident store there is nothing to gather ahead.
        adjustable = training.adaptive_optimization and pipeline.data.placement.rung != "resident"
        level = Level(pipeline.num_workers, pipeline.prefetch_factor)
        self._optimizer = AdaptiveOptimizer(_aims(training, dataset), level) if adjustable else None
        self._epoch, self._interval = _Sums(), _Sums()
        self._epoch_index = 0
        self._done = self._sampled = -float("inf")

    def begin_epoch(self, epoch: int) -> None:
        """Say which epoch's steps come next, and that the first of them begins now."""
        self._epoch_index = epoch
        self._pipeline.take_times()  # what was read between epochs is no training
        self._done = self._clock()

    def after_step(self, index: int) -> None:
        """Take note of a step that is done, and adjust the pipeline when it is time to.

        Args:
            index: Which of the epoch's steps.
        """
        now, times = self._clock(), self._pipeline.take_times()
        for sums in (self._epoch, self._interval):
            sums.add_step(now - self._done, times)
        self._done = now
        is_over = self._interval.num_steps >= self._num_steps
        if is_over or now - self._sampled >= _SAMPLE_S:
            self._sampled = now
            self._sample()
        if is_over:
            if self._optimizer:
                self._adjust(self._optimizer, index + 1)
            self._interval = _Sums()

    def count_adjustment(self) -> None:
        """Take note that the pack limit was changed."""
        self._epoch.num_adjustments += 1

    def take_summary(self) -> InputSummary:
        """How the steps since the last call were fed."""
        sums, self._epoch = self._epoch, _Sums()
        return InputSummary(
            data_wait_s=sums.wait_s,
            data_load_s=sums.load_s,
            num_packs=sums.num_packs,
            num_workers=self._pipeline.num_workers,
            prefetch_factor=self._pipeline.prefetch_factor,
            num_adjustments=sums.num_adjustments,
            gpu_percent=sums.gpu.value,
            ram_percent=sums.ram.value,
        )

    def state_dict(self) -> dict[str, Any]:
        """Sums of the epoch under way; workers and prefetch are those that a later attempt is given."""
        sums = self._epoch
        return vars(sums) | {"gpu": vars(sums.gpu).copy(), "ram": vars(sums.ram).copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._epoch = _Sums(**state | {"gpu": _Mean(**state["gpu"]), "ram": _Mean(**state["ram"])})

    def _sample(self) -> None:
        gpu, ram = self._usage.gpu_percent(), self._usage.ram_percent()
        for sums in (self._epoch, self._interval):
            sums.gpu.add(gpu)
            sums.ram.add(ram)

    def _room_packs(self) -> int | None:
        pack_bytes = self._interval.pack_bytes
        try:
            return int(_SHARE * self._free_ram() / pack_bytes) if pack_bytes else None
        except (OSError, ValueError):
            return None  # not told by the kernel, or the container's limit was lifted just now

    def _adjust(self, optimizer: AdaptiveOptimizer, num_done: int) -> None:
        sums = self._interval
        interval = Interval(
            num_steps=sums.num_steps,
            elapsed_s=sums.elapsed_s,
            wait_s=sums.wait_s,
            load_s=sums.load_s,
            gpu_percent=sums.gpu.value,
            ram_percent=sums.ram.value,
            room_packs=self._room_packs(),
        )
        if adjustment := optimizer.decide(interval):
            before, after = adjustment.before, adjustment.after
            self._pipeline.num_workers, self._pipeline.prefetch_factor = astuple(after)
            self._epoch.num_adjustments += 1
            self._run.emit(
                InputAdjusted(
                    **self._run.names,
                    epoch=self._epoch_index,
                    step=num_done,
                    reason=adjustment.reason,
                    num_workers=after.num_workers,
                    prefetch_factor=after.prefetch_factor,
                    num_workers_before=before.num_workers,
                    prefetch_factor_before=before.prefetch_factor,
                    gpu_percent=interval.gpu_percent,
                    ram_percent=interval.ram_percent,
                    data_wait_s=interval.wait_s,
                    data_load_s=interval.load_s,
                    compute_s=interval.compute_s,
                )
            )


def _aims(training: TrainingSettings, dataset: DatasetSettings) -> Aims:
    return Aims(
        target_percent=100 * training.target_gpu_utilization,
        max_ram_percent=100 * training.max_ram_usage,
        most=Level(dataset.max_workers, dataset.max_prefetch_factor),
    )
