"""How much of some work is done and how long the rest may take: the arithmetic of the live view."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.analytics.histograms import Range

_PUBLISHED_MIN = {"graphs": 5.0, "teacher": 45.0, "student": 35.0, "fusion": 60.0, "evaluation": 5.0}
"""Shares of phases that never ran on this device: published practice, minutes."""
_LEAST_SPREAD, _FIRST_SPREAD = 0.1, 0.3
"""Relative doubt of a pace: at least, and where it rests on one measurement."""
_LEAST_FRACTION = 0.05
"""Nothing is extrapolated from less than this."""


@dataclass(frozen=True)
class Remaining:
    """Time that is still needed, seconds.

    Attributes:
        low_s: At least so long.
        middle_s: Most likely; None where it is unknown.
        high_s: At most so long; None where it is unknown.
    """

    low_s: float = 0.0
    middle_s: float | None = None
    high_s: float | None = None


UNKNOWN, NOTHING = Remaining(), Remaining(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class EpochsLeft:
    """Epochs that a model still needs: it may stop early, never late."""

    low: float
    high: float


def epochs_left(done: float, num_epochs: int, patience: int, num_worse: int) -> EpochsLeft:
    """Epochs until training ends.

    Args:
        done: Epochs done; steps of the one under way are its fraction.
        num_epochs: Most epochs.
        patience: Epochs without a better validation loss that end it.
        num_worse: Such epochs in a row so far; -1 before the first epoch ended, which is always better.
    """
    high = max(0.0, num_epochs - done)
    return EpochsLeft(min(high, max(0.0, patience - num_worse - done % 1)), high)


def num_worse(val_losses: Sequence[float]) -> int:
    """Epochs since the best one; -1 where there is none yet."""
    if not val_losses:
        return -1
    return len(val_losses) - 1 - min(range(len(val_losses)), key=val_losses.__getitem__)


def at_pace(left: EpochsLeft, durations_s: Sequence[float]) -> Remaining:
    """Time that epochs take, going by the last ones.

    Args:
        left: The epochs.
        durations_s: What the last epochs took, seconds; empty where nothing is known.
    """
    if not left.high:
        return NOTHING
    if not durations_s:
        return UNKNOWN
    pace_s = statistics.fmean(durations_s)
    spread = statistics.pstdev(durations_s) / pace_s if len(durations_s) > 1 and pace_s else _FIRST_SPREAD
    doubt = 1 + max(spread, _LEAST_SPREAD)
    return Remaining(left.low * pace_s / doubt, left.high * pace_s, left.high * pace_s * doubt)


def after(elapsed_s: float, whole: Range | None) -> Remaining:
    """What is left of work that took so long in past plans; nothing is known beyond its upper bound."""
    if whole is None or (elapsed_s and elapsed_s > whole.high):
        return UNKNOWN
    high_s = whole.high - elapsed_s
    return Remaining(
        max(0.0, whole.low - elapsed_s),
        max(0.0, whole.middle - elapsed_s),
        high_s if math.isfinite(high_s) else None,
    )


def extrapolated(elapsed_s: float, fraction: float) -> Remaining:
    """What is left of work of which a fraction took so long."""
    if fraction < _LEAST_FRACTION:
        return UNKNOWN
    middle_s = elapsed_s * (1 - fraction) / fraction
    return Remaining(middle_s / 2, middle_s, middle_s * 2)


def at_least(low_s: float, rest: Remaining) -> Remaining:
    """A time that is known not to be shorter, seconds."""
    known = (None if bound is None else max(low_s, bound) for bound in (rest.middle_s, rest.high_s))
    return Remaining(max(low_s, rest.low_s), *known)


def one_after_the_other(parts: Iterable[Remaining]) -> Remaining:
    """The time of several pieces of work: unknown as soon as one of them is, but for the lower bound.

    Middles add up; what each may differ from its own adds up as independent errors do.
    """
    parts = list(parts)
    low_s = sum(part.low_s for part in parts)
    known = [part for part in parts if part.middle_s is not None]
    if len(known) < len(parts):
        return Remaining(low_s)
    middle_s = sum(part.middle_s or 0.0 for part in known)
    below_s = math.sqrt(sum(((part.middle_s or 0.0) - part.low_s) ** 2 for part in known))
    highs = [part.high_s for part in known]
    above_s = [
        (high - (part.middle_s or 0.0)) ** 2
        for high, part in zip(highs, known, strict=True)
        if high is not None
    ]
    high_s = middle_s + math.sqrt(sum(above_s)) if len(above_s) == len(known) else None
    return Remaining(max(0.0, middle_s - below_s), middle_s, high_s)


def weights(
    steps: Sequence[tuple[str, str]], durations_s: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """What share of a plan each phase is, so that the fraction of the whole moves evenly.

    What phases took before decides; one without a past weighs what that phase took with other datasets.
    Where a phase has no past at all, published practice decides for all of them.

    Args:
        steps: Dataset and phase of each.
        durations_s: What phases took in past plans, by dataset and phase.
    """
    of_phase: dict[str, list[float]] = {}
    for (_, phase), duration_s in durations_s.items():
        of_phase.setdefault(phase, []).append(duration_s)
    if all(phase in of_phase for _, phase in steps):
        return {step: max(durations_s.get(step, statistics.fmean(of_phase[step[1]])), 1e-3) for step in steps}
    return {step: _PUBLISHED_MIN.get(step[1], 1.0) for step in steps}


def share_done(fractions: Mapping[tuple[str, str], float], of: Mapping[tuple[str, str], float]) -> float:
    """The fraction of the whole, in [0, 1]; 1 of nothing.

    Args:
        fractions: Fraction of each part.
        of: Weight of each part.
    """
    total = sum(of.values())
    if not total:
        return 1.0
    return min(1.0, sum(weight * fractions.get(part, 0.0) for part, weight in of.items()) / total)
