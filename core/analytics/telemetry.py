"""Resource samples, summarised, and bucketed before anything is drawn."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from core.resources.readings import NEEDS_TWO

MAX_BUCKETS = 500


class Quantity(NamedTuple):
    """A measured quantity that is drawn: what people call it, its unit there, and the column of its most."""

    name: str
    unit: str
    total: str | None = None


MEASURED: Mapping[str, Quantity] = {
    "gpu_utilization_percent": Quantity("GPU utilisation", "%"),
    "vram_used_mib": Quantity("VRAM used", "GiB", "vram_total_mib"),
    "gpu_power_w": Quantity("GPU power", "W"),
    "gpu_temperature_c": Quantity("GPU temperature", "°C"),
    "cpu_percent": Quantity("CPU use", "%"),
    "ram_used_mib": Quantity("RAM used", "GiB", "ram_total_mib"),
}
"""Columns of resource samples that are drawn."""


@dataclass(frozen=True)
class TelemetrySummary:
    """A plan's resource samples in a few numbers; None where nothing was measured.

    Attributes:
        num_samples: Points in time that were sampled.
        duration_s: From the first sample to the last.
        cpu_percent: Mean use of all cores.
        ram_peak_mib: Most RAM in use on the machine.
        ram_total_mib: RAM of the machine.
        gpu_name: Name of the GPU with the lowest index.
        gpu_utilization_percent: Mean share of time in which any kernel ran.
        vram_peak_mib: Most memory in use on one GPU.
        vram_total_mib: Memory of that GPU.
    """

    num_samples: int = 0
    duration_s: float = 0.0
    cpu_percent: float | None = None
    ram_peak_mib: float | None = None
    ram_total_mib: float | None = None
    gpu_name: str | None = None
    gpu_utilization_percent: float | None = None
    vram_peak_mib: float | None = None
    vram_total_mib: float | None = None


@dataclass(frozen=True)
class Telemetry:
    """A plan's resource samples, reduced to what people look at.

    Attributes:
        curves: By column of ``MEASURED``, as of ``bucket``; without those that were not measured.
        totals: What there is of them, in the unit of the column.
        summary: All samples in a few numbers.
        notes: What a user should know of the machine.
    """

    curves: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    summary: TelemetrySummary = TelemetrySummary()
    notes: tuple[str, ...] = ()


def view_telemetry(samples: pl.DataFrame) -> Telemetry:
    """Reduce resource samples to what people look at.

    Args:
        samples: Rows as of ``core.events.telemetry.read_telemetry``.
    """
    curves = {metric: bucket(samples, metric) for metric in MEASURED}
    measured = {metric: curve for metric, curve in curves.items() if not curve.is_empty()}
    totals = {metric: samples[total].max() for metric in measured if (total := MEASURED[metric].total)}
    known = {metric: float(total) for metric, total in totals.items() if total is not None}  # type: ignore[arg-type]
    return Telemetry(measured, known, summarize(samples), tuple(health_notes(samples)))


def bucket(samples: pl.DataFrame, metric: str, max_buckets: int = MAX_BUCKETS) -> pl.DataFrame:
    """Reduce one measured quantity to few points per GPU, so that a chart of any plan stays small.

    Args:
        samples: Rows as of ``core.events.telemetry.read_telemetry``.
        metric: A numeric column.
        max_buckets: Most points in time.

    Returns:
        Columns ``occurred_at`` (start of the bucket), ``gpu_index``, ``min``, ``mean``, ``max``; buckets
        without a measurement are left out.
    """
    measured = samples.filter(pl.col(metric).is_not_null() & pl.col(metric).is_finite())
    series = pl.col("gpu_index") if metric.startswith(("gpu_", "vram_")) else pl.lit(None, pl.Int64)
    if measured.is_empty():
        value = pl.col(metric)
        return measured.select("occurred_at", series.alias("gpu_index"), min=value, mean=value, max=value)
    times = measured["occurred_at"].dt.epoch("us")
    first, last = times[0], times[-1]
    width = max(1, -(-(last - first + 1) // max_buckets))
    return (
        measured.with_columns(
            series.alias("gpu_index"), bucket=(pl.col("occurred_at").dt.epoch("us") - first) // width
        )
        .group_by("bucket", "gpu_index")
        .agg(min=pl.col(metric).min(), mean=pl.col(metric).mean(), max=pl.col(metric).max())
        .sort("gpu_index", "bucket")
        .select(
            (pl.col("bucket") * width + first).cast(pl.Datetime("us", "UTC")).alias("occurred_at"),
            "gpu_index",
            "min",
            "mean",
            "max",
        )
    )


def summarize(samples: pl.DataFrame) -> TelemetrySummary:
    """Reduce a plan's resource samples to the numbers that recommendations rest on."""
    if samples.is_empty():
        return TelemetrySummary()
    duration_s = (samples["occurred_at"][-1] - samples["occurred_at"][0]).total_seconds()
    peaks = samples.select(
        cpu=pl.col("cpu_percent").mean(),
        ram=pl.col("ram_used_mib").max(),
        ram_total=pl.col("ram_total_mib").max(),
        gpu=pl.col("gpu_utilization_percent").mean(),
        vram=pl.col("vram_used_mib").max(),
        vram_total=pl.col("vram_total_mib").max(),
    ).row(0, named=True)
    names = samples.filter(pl.col("gpu_name").is_not_null()).sort("gpu_index")["gpu_name"]
    return TelemetrySummary(
        num_samples=samples["occurred_at"].n_unique(),
        duration_s=duration_s,
        cpu_percent=peaks["cpu"],
        ram_peak_mib=peaks["ram"],
        ram_total_mib=peaks["ram_total"],
        gpu_name=names[0] if len(names) else None,
        gpu_utilization_percent=peaks["gpu"],
        vram_peak_mib=peaks["vram"],
        vram_total_mib=peaks["vram_total"],
    )


def health_notes(samples: pl.DataFrame) -> list[str]:
    """What a user should know of the machine: errors of its GPUs, heat, and what could not be measured.

    Args:
        samples: Rows as of ``core.events.telemetry.read_telemetry``.

    Returns:
        Sentences; none where all is well.
    """
    gpus = (
        samples.filter(pl.col("gpu_uuid").is_not_null())
        .group_by("gpu_index", "gpu_name", "gpu_uuid")
        .agg(
            xid=pl.col("gpu_last_xid").filter(pl.col("gpu_last_xid") > 0).last(),
            errors=pl.col("gpu_num_uncorrected_errors").max(),
            hot=pl.col("gpu_throttle_reasons").str.contains("thermal").mean(),
        )
        .sort("gpu_index", "gpu_uuid")
    )
    notes = []
    for index, name, _, xid, errors, hot in gpus.iter_rows():
        gpu = f"GPU {index} ({name})"
        if xid:
            notes.append(f"{gpu} told of a critical error: XID {xid}; look it up in NVIDIA's list of XIDs.")
        if errors:
            notes.append(f"{gpu} has {errors} uncorrected memory errors since its driver was loaded.")
        if hot:
            notes.append(f"{gpu} was slowed down for its temperature in {hot:.0%} of the samples.")
    return notes + [
        f"Not measured: {', '.join(names)} ({reason})." for reason, names in _gaps(samples).items()
    ]


def _gaps(samples: pl.DataFrame) -> dict[str, list[str]]:
    """Fields that could not be measured in the end, by the reason why; that there is no GPU is none."""
    series = ("plan", "dataset", "gpu_uuid")
    last = samples.drop_nulls("not_measured").group_by(*series, maintain_order=True).last()
    found: dict[str, set[str]] = defaultdict(set)
    for text in last["not_measured"]:
        for name, reason in json.loads(text).items():
            if name != "gpu_index" and reason != NEEDS_TWO.reason:
                found[reason].add(name)
    return {reason: sorted(names) for reason, names in sorted(found.items())}
