"""A plan's resource samples under the names of MLflow's own system metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from core.events.telemetry import Samples
from tasks.mlflow_content import Point

SAMPLE_EVERY_MS = 10_000
"""MLflow samples its own system metrics this often, too."""

_MEGABYTES_PER_MIB = 1.048576
_MEASURED = (
    "cpu_percent",
    "ram_used_mib",
    "ram_total_mib",
    "process_rss_mib",
    "disk_free_mib",
    "gpu_index",
    "gpu_utilization_percent",
    "vram_used_mib",
    "vram_total_mib",
    "gpu_power_w",
    "gpu_temperature_c",
)


def thin(samples: Samples, began_ms: int) -> pl.DataFrame:
    """One moment of each ten seconds and dataset.

    The first moment is taken as it was measured: unlike a mean it does not change when more samples follow.

    Args:
        samples: Rows in any order; they may be too many to collect.
        began_ms: When the plan began: the origin of steps, in milliseconds since the epoch.

    Returns:
        ``dataset``, ``at_ms``, ``step`` and what was measured, in order of time and GPU.
    """
    at_ms = pl.col("occurred_at").dt.epoch("ms")
    stepped = samples.lazy().with_columns(at_ms=at_ms, step=(at_ms - began_ms) // SAMPLE_EVERY_MS)
    firsts = stepped.group_by("dataset", "step").agg(pl.col("occurred_at").min()).collect(engine="streaming")
    kept = stepped.select("dataset", "occurred_at", "at_ms", "step", *_MEASURED).join(
        firsts.lazy(), on=["dataset", "occurred_at"], how="semi"
    )
    return kept.collect(engine="streaming").sort("occurred_at", "dataset", "gpu_index")


def system_points(thinned: pl.DataFrame) -> list[tuple[int, list[Point]]]:
    """Resource samples under MLflow's names for system metrics.

    Args:
        thinned: Rows of one dataset, as of ``thin``.

    Returns:
        Moments in milliseconds since the epoch, in order, with what was measured then.
    """
    moments: dict[int, list[Point]] = {}
    for row in thinned.iter_rows(named=True):
        points = (
            Point(f"system/{name}", float(value), row["at_ms"], row["step"])
            for name, value in _system_metrics(row)
            if value is not None and abs(value) < float("inf")
        )
        moments.setdefault(row["at_ms"], []).extend(points)
    return list(moments.items())


def _system_metrics(row: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    def megabytes(mib: float | None) -> float | None:
        return None if mib is None else mib * _MEGABYTES_PER_MIB

    def percentage(used: float | None, total: float | None) -> float | None:
        return None if used is None or not total else 100 * used / total

    yield "cpu_utilization_percentage", row["cpu_percent"]
    yield "system_memory_usage_megabytes", megabytes(row["ram_used_mib"])
    yield "system_memory_usage_percentage", percentage(row["ram_used_mib"], row["ram_total_mib"])
    yield "process_memory_usage_megabytes", megabytes(row["process_rss_mib"])
    yield "disk_available_megabytes", megabytes(row["disk_free_mib"])
    if row["gpu_index"] is not None:
        gpu = f"gpu_{row['gpu_index']}_"
        yield f"{gpu}utilization_percentage", row["gpu_utilization_percent"]
        yield f"{gpu}memory_usage_megabytes", megabytes(row["vram_used_mib"])
        yield f"{gpu}memory_usage_percentage", percentage(row["vram_used_mib"], row["vram_total_mib"])
        yield f"{gpu}power_usage_watts", row["gpu_power_w"]
        yield f"{gpu}temperature_celsius", row["gpu_temperature_c"]
