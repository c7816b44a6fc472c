"""Measured quantities over time in few points: the least, the mean and the most of each stretch of it.

Sums are of whole numbers. Those are the same in any order, so neither the number of threads nor the files in
which samples lie change a single digit of a mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

MAX_BUCKETS = 500
MAX_POINTS = 2000
"""Most points of a quantity, those of all GPUs together, where that leaves each at least ``MIN_BUCKETS``."""
MIN_BUCKETS = 200
_PAUSE = timedelta(minutes=1)
_PAUSE_STEPS = 10
"""Nothing was measured for so many times the usual distance of samples, and a minute: that is a pause."""
_UNITS = 10**6
_MOST = 2.0**42
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Clock:
    """When samples were taken.

    Attributes:
        num_moments: Points in time.
        first_us: The first, in microseconds since the epoch.
        last_us: The last.
        step_us: Usual distance of two.
        active_us: From the first to the last without pauses.
    """

    num_moments: int
    first_us: int
    last_us: int
    step_us: int
    active_us: int


def read_clock(samples: pl.LazyFrame) -> Clock | None:
    """When samples were taken; None where there are none."""
    found = samples.select(pl.col("occurred_at").unique()).collect(engine="streaming")
    times = found["occurred_at"].dt.epoch("us").sort()
    if times.is_empty():
        return None
    steps = times.diff().drop_nulls()
    usual = steps.median()
    step_us = int(usual) if isinstance(usual, float) else 0
    pause_us = max(_PAUSE // _MICROSECOND, _PAUSE_STEPS * step_us)
    active_us = int(steps.filter(steps <= pause_us).sum())
    return Clock(len(times), int(times[0]), int(times[-1]), step_us, active_us)


def num_buckets(num_series: int) -> int:
    """How many points a quantity may have for each of so many GPUs."""
    return min(MAX_BUCKETS, max(MIN_BUCKETS, MAX_POINTS // max(1, num_series)))


def fold_buckets(
    samples: pl.LazyFrame, metrics: Sequence[str], clock: Clock, max_buckets: int = MAX_BUCKETS
) -> pl.DataFrame:
    """Reduce measured quantities to few points per GPU, so that a chart of any plan stays small.

    Buckets are equally long, and as short as ``max_buckets`` of them can be that cover the time in which
    samples were taken: a pause takes none away from what was measured before and after it.

    Args:
        samples: Columns ``occurred_at``, ``gpu_index`` and the metrics.
        metrics: Numeric columns.
        clock: When the samples were taken.
        max_buckets: Most buckets, but for one more at each pause.

    Returns:
        Rows in order of ``gpu_index`` and ``bucket``, with ``occurred_at`` and ``ended_at``, the first and
        the last sample, and of each metric ``{metric}_min``, ``_max``, ``_sum`` (of ``whole`` numbers) and
        ``_num`` (how often it was measured). Buckets without samples are left out.
    """
    width_us = max(1, -(-(clock.active_us + 1) // max_buckets))
    bucket = (pl.col("occurred_at").dt.epoch("us") - clock.first_us) // width_us
    values = {metric: pl.when(pl.col(metric).is_finite()).then(metric) for metric in metrics}
    return (
        samples.select(
            "occurred_at",
            "gpu_index",
            bucket.alias("bucket"),
            *(value.alias(metric) for metric, value in values.items()),
            *(whole(metric, value).alias(f"{metric}_whole") for metric, value in values.items()),
        )
        .group_by("bucket", "gpu_index")
        .agg(
            pl.col("occurred_at").min(),
            pl.col("occurred_at").max().alias("ended_at"),
            *(pl.col(metric).min().alias(f"{metric}_min") for metric in metrics),
            *(pl.col(metric).max().alias(f"{metric}_max") for metric in metrics),
            *(pl.col(f"{metric}_whole").sum().alias(f"{metric}_sum") for metric in metrics),
            *(pl.col(metric).count().alias(f"{metric}_num") for metric in metrics),
        )
        .collect(engine="streaming")
        .sort("gpu_index", "bucket")
    )


def curve(buckets: pl.DataFrame, metric: str, *, per_gpu: bool) -> pl.DataFrame:
    """The points of one quantity.

    Args:
        buckets: As of ``fold_buckets``.
        metric: One of its metrics.
        per_gpu: Whether it is one of GPUs; else it is the machine's, and ``gpu_index`` is null.

    Returns:
        Columns ``occurred_at`` (the first sample of the bucket), ``gpu_index``, ``min``, ``mean``, ``max``;
        buckets without a measurement are left out.
    """
    series = pl.col("gpu_index") if per_gpu else pl.lit(None, pl.Int64).alias("gpu_index")
    return (
        buckets.filter(pl.col(f"{metric}_num") > 0)
        .group_by("bucket", series)
        .agg(
            pl.col("occurred_at").min(),
            pl.col(f"{metric}_min").min().alias("min"),
            pl.col(f"{metric}_sum", f"{metric}_num").sum(),
            pl.col(f"{metric}_max").max().alias("max"),
        )
        .sort("gpu_index", "bucket")
        .select(
            "occurred_at",
            "gpu_index",
            "min",
            mean(metric, pl.col(f"{metric}_sum"), pl.col(f"{metric}_num")).alias("mean"),
            "max",
        )
    )


def total_mean(buckets: pl.DataFrame, metric: str) -> float | None:
    """Mean over all samples in which a metric was measured; None if it never was."""
    total = buckets.select(pl.col(f"{metric}_sum").cast(pl.Int128).sum()).item()
    num = int(buckets[f"{metric}_num"].sum())
    return int(total) / num / _units(metric) if num else None


def whole(name: str, value: pl.Expr) -> pl.Expr:
    """A quantity as a whole number of very small units, whose sum no order of summation changes.

    Args:
        name: Its column: a rate in bytes is counted in bytes, all else in millionths.
        value: It; what is not finite counts as not measured.
    """
    scaled = (value.cast(pl.Float64) * _units(name)).round()
    return pl.when(value.is_finite()).then(scaled.clip(-_MOST * _UNITS, _MOST * _UNITS)).cast(pl.Int64)


def mean(name: str, total: pl.Expr, num: pl.Expr) -> pl.Expr:
    """The mean of a quantity from the sum of ``whole`` numbers; null of none."""
    return pl.when(num > 0).then(total / num / _units(name))


def _units(name: str) -> int:
    return 1 if name.endswith("bytes_per_s") else _UNITS
