"""The adaptive optimizer: how many workers gather input, and how far ahead, decided from what was measured.

=====================================  ==================================  ================
what an interval showed                what is done                        reason
=====================================  ==================================  ================
RAM above its limit                    lower workers and prefetch          ``ram_pressure``
a raise before it did not pay          take it back                        ``no_gain``
training waits, low utilisation        raise workers and prefetch          ``starved``
training waits                         raise prefetch                      ``slow_input``
utilisation above 95 %, workers busy   raise prefetch, once                ``stay_fed``
=====================================  ==================================  ================

Every raise is judged by the next interval. After one that was wrong none is tried for a while, and after each
further one for twice as long: whatever the machine does, adjustments become ever rarer.
"""

import math
from dataclasses import astuple, dataclass, replace
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["ram_pressure", "no_gain", "starved", "slow_input", "stay_fed"]

_WORTH = 0.05
"""Least share of time spent waiting that is worth a raise."""
_GAIN = 0.03
"""Share of a step's time that a raise must save to be kept; one to keep training fed may not cost it."""
_FULL_PERCENT = 95.0
_BUSY = 0.7
"""Share of the workers' time beyond which they may soon fall behind."""
_RAM_MARGIN_PERCENT = 5.0
"""RAM that must be free below its limit for a raise."""


@dataclass(frozen=True)
class Level:
    """How input is gathered.

    Attributes:
        num_workers: Threads that gather ahead; 0 for the training thread itself.
        prefetch_factor: Packs held ready per thread.
    """

    num_workers: int
    prefetch_factor: int

    @property
    def num_packs(self) -> int:
        """Most packs held ready."""
        return self.num_workers * self.prefetch_factor


@dataclass(frozen=True)
class Aims:
    """What is aimed at, and the bounds.

    Attributes:
        target_percent: Utilisation below which training counts as starved.
        max_ram_percent: RAM in use above which input is slowed down.
        most: Most workers and prefetch.
    """

    target_percent: float
    max_ram_percent: float
    most: Level


@dataclass(frozen=True)
class Interval:
    """What was measured over some steps.

    Attributes:
        num_steps: Steps.
        elapsed_s: Time they took.
        wait_s: Part of it in which training stood still for its next pack.
        load_s: Time spent gathering, summed over threads.
        gpu_percent: Mean GPU utilisation; None without a GPU.
        ram_percent: Mean RAM in use; None where it is not known.
        room_packs: Packs that there is RAM for besides those held ready; None where it is not known.
    """

    num_steps: int
    elapsed_s: float
    wait_s: float
    load_s: float
    gpu_percent: float | None
    ram_percent: float | None
    room_packs: int | None = None

    @property
    def compute_s(self) -> float:
        """Time in which packs were processed."""
        return max(0.0, self.elapsed_s - self.wait_s)

    @property
    def utilization_percent(self) -> float:
        """Of the GPU; without one the share of time in which packs were processed."""
        return 100 * self.compute_s / self.elapsed_s if self.gpu_percent is None else self.gpu_percent


@dataclass(frozen=True)
class Adjustment:
    """A change of level, and why."""

    reason: Reason
    before: Level
    after: Level


class AdaptiveOptimizer:
    """Decides after every interval.

    Args:
        aims: What is aimed at.
        level: Where to begin.

    Attributes:
        level: How input is gathered now.
    """

    def __init__(self, aims: Aims, level: Level) -> None:
        self.level = level
        self._aims = aims
        self._raised: tuple[Adjustment, float] | None = None
        """The raise to be judged next, and the seconds a step took before it."""
        self._has_raised = False
        """Whether a raise is in force that may turn out to be wrong."""
        self._fed: set[int] = set()
        """Numbers of workers at which prefetch was raised as a precaution: nothing shows if it helped."""
        self._num_wrong = 0
        self._pause = 0
        """Intervals in which nothing is raised."""

    def decide(self, interval: Interval) -> Adjustment | None:
        """Choose the level of the next interval; None to leave it as it is."""
        step_s = interval.elapsed_s / interval.num_steps
        raised, self._raised = self._raised, None
        self._pause = max(0, self._pause - 1)
        if _ram_percent(interval) > self._aims.max_ram_percent:
            self._pause_raises()
            return self._change("ram_pressure", _lowered(self.level))
        if raised and not _pays(raised[0].reason, raised[1], step_s):
            self._pause_raises()
            return self._change("no_gain", raised[0].before)
        if self._pause or _ram_percent(interval) > self._aims.max_ram_percent - _RAM_MARGIN_PERCENT:
            return None
        reason, level = self._raised_level(interval)
        adjustment = self._change(reason, self._affordable(level, interval))
        if adjustment:
            self._raised, self._has_raised = (adjustment, step_s), True
        return adjustment

    def _raised_level(self, interval: Interval) -> tuple[Reason, Level]:
        """What is worth a try; the present level where nothing is."""
        (workers, prefetch), most = astuple(self.level), self._aims.most
        deeper = Level(workers, max(prefetch, min(prefetch + 1, most.prefetch_factor)))
        if interval.wait_s < _WORTH * interval.elapsed_s:
            busy = interval.load_s > _BUSY * workers * interval.elapsed_s
            full = interval.utilization_percent > _FULL_PERCENT
            if not (busy and full) or workers in self._fed | {0}:
                return "stay_fed", self.level
            self._fed.add(workers)
            return "stay_fed", deeper
        if interval.utilization_percent < self._aims.target_percent and workers < most.num_workers:
            # To keep up, as many must gather as gathering a pack takes longer than processing it.
            needed = math.ceil(interval.load_s / max(interval.compute_s, 1e-9))
            more = min(max(workers + 1, min(needed, 2 * workers)), most.num_workers)
            return "starved", replace(deeper, num_workers=more)
        # The next pack's gathering outlasted the processing of those held ready: hold more of them.
        return "slow_input", deeper if workers else self.level

    def _affordable(self, wanted: Level, interval: Interval) -> Level:
        """As much of a raise as there is RAM for: first without its prefetch, then with fewer workers."""
        if interval.room_packs is None:
            return wanted
        most = self.level.num_packs + interval.room_packs
        if wanted.num_packs <= most:
            return wanted
        prefetch = self.level.prefetch_factor
        workers = min(wanted.num_workers, most // prefetch)
        return Level(max(workers, self.level.num_workers), prefetch)

    def _change(self, reason: Reason, level: Level) -> Adjustment | None:
        before, self.level = self.level, level
        return Adjustment(reason, before, level) if level != before else None

    def _pause_raises(self) -> None:
        self._num_wrong += self._has_raised
        self._has_raised = False
        self._pause = 2 ** max(1, self._num_wrong)


def _pays(reason: Reason, step_s_before: float, step_s: float) -> bool:
    least = -_GAIN if reason == "stay_fed" else _GAIN
    return step_s <= (1 - least) * step_s_before


def _lowered(level: Level) -> Level:
    """A quarter fewer workers and one pack less per worker, but one of each at least."""
    workers = min(level.num_workers, max(1, level.num_workers - max(1, level.num_workers // 4)))
    return Level(workers, max(1, level.prefetch_factor - 1))


def _ram_percent(interval: Interval) -> float:
    return 0.0 if interval.ram_percent is None else interval.ram_percent
