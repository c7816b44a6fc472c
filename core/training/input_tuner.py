"""Watches how training is fed, step by step, and says so per epoch."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from core.training.pipeline import Pipeline
from core.training.run import Run
from settings.dataset import DatasetSettings
from settings.training import TrainingSettings

_SAMPLE_S = 0.5
"""Least time between two looks at GPU and RAM, seconds."""


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


@dataclass
class _Sums:
    """Of an epoch; a checkpoint holds them."""

    wait_s: float = 0.0
    load_s: float = 0.0
    num_packs: int = 0
    num_adjustments: int = 0
    gpu_percent: float = 0.0
    num_gpu: int = 0
    ram_percent: float = 0.0
    num_ram: int = 0


class InputTuner:
    """Measures a training's input, step by step.

    Args:
        pipeline: What hands out the packs.
        training: Whether and when to adjust, and the aims.
        dataset: Bounds of workers and prefetch.
        run: Whose training it is.
        usage: How busy the machine is.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        training: TrainingSettings,
        dataset: DatasetSettings,
        run: Run,
        usage: Usage,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline, self._training, self._dataset = pipeline, training, dataset
        self._run, self._usage, self._clock = run, usage, clock
        self._sums = _Sums()
        self._epoch = 0
        self._sampled = -float("inf")

    def begin_epoch(self, epoch: int) -> None:
        """Say which epoch's steps come next."""
        self._epoch = epoch
        self._pipeline.take_times()  # what was read between epochs is no training

    def after_step(self, index: int) -> None:
        """Take note of a step that is done; to be called after every one.

        Args:
            index: Which of the epoch's steps.
        """
        times = self._pipeline.take_times()
        self._sums.wait_s += times.wait_s
        self._sums.load_s += times.load_s
        self._sums.num_packs += times.num_packs
        if self._clock() - self._sampled >= _SAMPLE_S:
            self._sampled = self._clock()
            self._sample()

    def count_adjustment(self) -> None:
        """Take note that the pack limit was changed."""
        self._sums.num_adjustments += 1

    def take_summary(self) -> InputSummary:
        """How the steps since the last call were fed."""
        sums, self._sums = self._sums, _Sums()
        return InputSummary(
            data_wait_s=sums.wait_s,
            data_load_s=sums.load_s,
            num_packs=sums.num_packs,
            num_workers=self._pipeline.num_workers,
            prefetch_factor=self._pipeline.prefetch_factor,
            num_adjustments=sums.num_adjustments,
            gpu_percent=sums.gpu_percent / sums.num_gpu if sums.num_gpu else None,
            ram_percent=sums.ram_percent / sums.num_ram if sums.num_ram else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Sums of the epoch under way; a later attempt begins with the workers that it is given."""
        return asdict(self._sums)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._sums = _Sums(**state)

    def _sample(self) -> None:
        if (gpu := self._usage.gpu_percent()) is not None:
            self._sums.gpu_percent += gpu
            self._sums.num_gpu += 1
        if (ram := self._usage.ram_percent()) is not None:
            self._sums.ram_percent += ram
            self._sums.num_ram += 1
