"""Histograms that forget: what was measured long ago weighs less than what was measured last."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

RATIO = 1.01
"""A bucket ends 1 % above its beginning: the resolution of every percentile."""
HALF_LIFE_DAYS = 7.0
"""Age at which a measurement weighs half of a new one: a plan a week ago, where plans are weekly."""
_DAY_S = 86_400.0
_LN_RATIO = math.log(RATIO)


@dataclass(frozen=True)
class Range:
    """An estimate and how far off it may be, in the unit of what was measured."""

    low: float
    middle: float
    high: float


def decay(age_s: float, half_life_days: float = HALF_LIFE_DAYS) -> float:
    """What a measurement of some age weighs; 1 for a new one, more for one still to come."""
    return float(0.5 ** (age_s / (half_life_days * _DAY_S)))


@dataclass(frozen=True)
class DecayingHistogram:
    """Weights by exponential bucket, as in Kubernetes' Vertical Pod Autoscaler (``decaying_histogram.go``).

    Bucket 0 begins at 0 and bucket ``n > 0`` at ``first * RATIO ** (n - 1)``. Only the ratio of two weights
    means anything: both halve with the same passing of time.

    Attributes:
        first: End of bucket 0: what is smaller is not told apart.
        weights: By bucket, relative to a measurement at ``newest_s``.
        squares: Sum of the squares of all weights that were added, decayed alike.
        num: Measurements, whatever they weigh.
        newest_s: When the newest was taken, seconds since the epoch.
        oldest_s: When the oldest was taken.
    """

    first: float
    weights: Mapping[int, float] = field(default_factory=dict)
    squares: float = 0.0
    num: int = 0
    newest_s: float = -math.inf
    oldest_s: float = math.inf

    def add(self, value: float, at_s: float, weight: float = 1.0) -> Self:
        """One more measurement.

        Args:
            value: What was measured, at least 0.
            at_s: When, seconds since the epoch; the order in which measurements are added is free.
            weight: What it weighs when it is new.
        """
        bucket = 0 if value < self.first else math.floor(math.log(value / self.first) / _LN_RATIO) + 1
        one = {bucket: weight}
        return self._sum(type(self)(self.first, one, weight**2, 1, at_s, at_s))

    def _sum(self, other: Self) -> Self:
        if not self.num:
            return other
        newest_s = max(self.newest_s, other.newest_s)
        mine, theirs = decay(newest_s - self.newest_s), decay(newest_s - other.newest_s)
        weights = {bucket: weight * mine for bucket, weight in self.weights.items()}
        for bucket, weight in other.weights.items():
            weights[bucket] = weights.get(bucket, 0.0) + weight * theirs
        return type(self)(
            self.first,
            weights,
            self.squares * mine**2 + other.squares * theirs**2,
            self.num + other.num,
            newest_s,
            min(self.oldest_s, other.oldest_s),
        )

    @property
    def num_effective(self) -> float:
        """As many measurements of one weight would say as much (Kish): at most ``num``, 0 where empty."""
        return sum(self.weights.values()) ** 2 / self.squares if self.squares else 0.0

    def percentile(self, share: float) -> float:
        """The end of the bucket below which that share of the weight lies; 0 where empty.

        Args:
            share: In [0, 1].
        """
        threshold = share * sum(self.weights.values()) * (1 - 1e-9)  # sums of floats are not exact
        below = 0.0
        for bucket in sorted(self.weights):
            below += self.weights[bucket]
            if below >= threshold:
                return self.first * RATIO**bucket
        return 0.0

    def range(self, low: float = 0.1, middle: float = 0.5, high: float = 0.9, margin: float = 0.0) -> Range:
        """Percentiles with a margin, the outer ones wider the less they rest on.

        As in the Vertical Pod Autoscaler the bounds are multiplied by what shrinks to 1 as measurements
        come in: a single one says half to twice of itself, nine of them a tenth more or less.

        Args:
            low: Share below the lower bound.
            middle: Share below the estimate.
            high: Share below the upper bound.
            margin: Added to the estimate and the upper bound, as a share of them.
        """
        if not self.num:
            return Range(0.0, 0.0, math.inf)
        doubt = 1 + 1 / self.num_effective
        return Range(
            self.percentile(low) / doubt,
            self.percentile(middle) * (1 + margin),
            self.percentile(high) * (1 + margin) * doubt,
        )
