"""Epochs reduced to what a chart can show: few points that keep the extremes, and where time went."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TypeVar

from core.analytics.timeline import EpochPoint

MAX_POINTS = 120
"""Of one curve."""
MAX_SLICES = 160
"""Of one dataset, over the time of its chain."""

Point = TypeVar("Point")


@dataclass(frozen=True)
class TimeUse:
    """Where the time of some consecutive epochs of one model went.

    Attributes:
        dataset: Whose.
        phase: The phase that trained it.
        model: Which.
        first_epoch: 0 for the first of all.
        last_epoch: Equal to the first where it is one epoch.
        started_at: Of the first, UTC.
        ended_at: Of the last, UTC.
        waiting_s: Training stood still for its next pack.
        computing_s: The rest; with validation where the log does not tell it.
        validating_s: 0 where the log does not tell it.
        most_waiting: Largest share of waiting of one epoch, 0 to 1.
    """

    dataset: str
    phase: str
    model: str
    first_epoch: int
    last_epoch: int
    started_at: datetime
    ended_at: datetime
    waiting_s: float
    computing_s: float
    validating_s: float
    most_waiting: float

    @property
    def total_s(self) -> float:
        """Time of all epochs."""
        return self.waiting_s + self.computing_s + self.validating_s


def thin(points: Sequence[Point], value: Callable[[Point], float], most: int = MAX_POINTS) -> list[Point]:
    """Leave out points between extremes: of each stretch stay its first, last, lowest and highest one.

    Args:
        points: In order.
        value: What is drawn of a point; a finite number.
        most: About how many may stay.
    """
    if len(points) <= most:
        return list(points)
    width = -(-4 * len(points) // most)
    kept: list[Point] = []
    for start in range(0, len(points), width):
        stretch = range(start, min(start + width, len(points)))
        by_value = sorted(stretch, key=lambda number: value(points[number]))
        kept += [points[number] for number in sorted({stretch[0], stretch[-1], by_value[0], by_value[-1]})]
    return kept


def time_use(epochs: Iterable[EpochPoint], most: int = MAX_SLICES) -> list[TimeUse]:
    """Where the time of each dataset's training went, in order of time.

    Args:
        epochs: Of any datasets and models; those without a duration are left out.
        most: About how many slices a dataset may have; epochs of one model are put together for it.
    """
    timed = sorted((e for e in epochs if e.duration_s > 0), key=lambda e: (e.dataset, e.ended_at, e.epoch))
    slices = []
    for _, group in groupby(timed, lambda epoch: epoch.dataset):
        own = list(group)
        width = -(-len(own) // most)
        for _, of_model in groupby(own, lambda epoch: epoch.model):
            model = list(of_model)
            slices += [_slice(model[start : start + width]) for start in range(0, len(model), width)]
    return slices


def total_use(epochs: Iterable[EpochPoint]) -> list[TimeUse]:
    """Where the time of each model's training went, all its epochs together, in order of the chain."""
    groups: dict[tuple[str, str], list[EpochPoint]] = {}
    for epoch in sorted((e for e in epochs if e.duration_s > 0), key=lambda e: (e.ended_at, e.epoch)):
        groups.setdefault((epoch.dataset, epoch.model), []).append(epoch)
    return [_slice(group) for group in groups.values()]


def _slice(epochs: Sequence[EpochPoint]) -> TimeUse:
    first, last = epochs[0], epochs[-1]
    waiting_s = sum(min(epoch.wait_s, epoch.duration_s) for epoch in epochs)
    validating_s = sum(epoch.validation_s or 0.0 for epoch in epochs)
    return TimeUse(
        first.dataset,
        first.phase,
        first.model,
        min(epoch.epoch for epoch in epochs),
        max(epoch.epoch for epoch in epochs),
        first.started_at,
        max(first.started_at, last.ended_at),
        waiting_s,
        max(0.0, sum(epoch.duration_s for epoch in epochs) - waiting_s - validating_s),
        validating_s,
        max(min(1.0, epoch.wait_s / epoch.duration_s) for epoch in epochs),
    )
