"""Resource samples, reduced in a few passes over them to what is drawn and what is said of them.

However many there are, they are never all in memory at once.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from core.analytics.buckets import Clock, curve, fold_buckets, num_buckets, read_clock, total_mean
from core.events.telemetry import Samples
from core.resources.readings import NEEDS_TWO


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
    "training_rss_mib": Quantity("RAM of training", "GiB"),
    "disk_read_bytes_per_s": Quantity("Disk read", "MiB/s"),
    "disk_write_bytes_per_s": Quantity("Disk written", "MiB/s"),
    "network_received_bytes_per_s": Quantity("Network received", "MiB/s"),
    "network_sent_bytes_per_s": Quantity("Network sent", "MiB/s"),
    "disk_free_mib": Quantity("Disk free", "GiB"),
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
        energy_kwh: What all GPUs drew while they were sampled.
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
    energy_kwh: float | None = None


@dataclass(frozen=True)
class Telemetry:
    """A plan's resource samples, reduced to what people look at.

    Attributes:
        curves: By column of ``MEASURED``, as of ``core.analytics.buckets.curve``; without those that were not
            measured.
        totals: What there is of them, in the unit of the column.
        summary: All samples in a few numbers.
        notes: What a user should know of the machine.
    """

    curves: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    summary: TelemetrySummary = TelemetrySummary()
    notes: tuple[str, ...] = ()


_SUMMARIZED = ("cpu_percent", "ram_used_mib", "gpu_utilization_percent", "vram_used_mib", "gpu_power_w")
_TOTALS = ("ram_total_mib", "vram_total_mib")
_US_W_PER_KWH = 3.6e12
_WORST = ("gpu_index", "gpu_name", "gpu_uuid", "gpu_last_xid")


def view_telemetry(samples: Samples) -> Telemetry:
    """Reduce resource samples to what people look at.

    Args:
        samples: Rows in any order; they may be too many to collect.
    """
    clock = read_clock(samples.lazy())
    if clock is None:
        return Telemetry()
    gpus = _read_gpus(samples)
    totals = [quantity.total for quantity in MEASURED.values() if quantity.total]
    metrics = tuple(dict.fromkeys([*MEASURED, *_SUMMARIZED, *_TOTALS, *totals]))
    buckets = fold_buckets(samples.lazy(), metrics, clock, num_buckets(gpus["gpu_index"].n_unique()))
    curves = {metric: curve(buckets, metric, per_gpu=_is_of_gpu(metric)) for metric in MEASURED}
    measured = {metric: points for metric, points in curves.items() if not points.is_empty()}
    tops = {metric: _most(buckets, total) for metric in measured if (total := MEASURED[metric].total)}
    known = {metric: top for metric, top in tops.items() if top is not None}
    return Telemetry(measured, known, _summary(buckets, clock, gpus), tuple(_notes(samples, gpus)))


def summarize(samples: Samples) -> TelemetrySummary:
    """Reduce a plan's resource samples to the numbers that recommendations rest on.

    Args:
        samples: Rows in any order; they may be too many to collect.
    """
    clock = read_clock(samples.lazy())
    if clock is None:
        return TelemetrySummary()
    return _summary(fold_buckets(samples.lazy(), (*_SUMMARIZED, *_TOTALS), clock), clock, _read_gpus(samples))


def health_notes(samples: Samples) -> list[str]:
    """What a user should know of the machine: errors of its GPUs, heat, and what could not be measured.

    Args:
        samples: Rows in any order; they may be too many to collect.

    Returns:
        Sentences; none where all is well.
    """
    return _notes(samples, _read_gpus(samples))


def _is_of_gpu(metric: str) -> bool:
    return metric.startswith(("gpu_", "vram_"))


def _most(buckets: pl.DataFrame, metric: str) -> float | None:
    most = buckets[f"{metric}_max"].max()
    return None if most is None else float(most)  # type: ignore[arg-type]


def _summary(buckets: pl.DataFrame, clock: Clock, gpus: pl.DataFrame) -> TelemetrySummary:
    names = gpus["gpu_name"].drop_nulls()
    return TelemetrySummary(
        num_samples=clock.num_moments,
        duration_s=(clock.last_us - clock.first_us) / 1e6,
        cpu_percent=total_mean(buckets, "cpu_percent"),
        ram_peak_mib=_most(buckets, "ram_used_mib"),
        ram_total_mib=_most(buckets, "ram_total_mib"),
        gpu_name=names[0] if len(names) else None,
        gpu_utilization_percent=total_mean(buckets, "gpu_utilization_percent"),
        vram_peak_mib=_most(buckets, "vram_used_mib"),
        vram_total_mib=_most(buckets, "vram_total_mib"),
        energy_kwh=_energy_kwh(buckets, clock),
    )


def _energy_kwh(buckets: pl.DataFrame, clock: Clock) -> float | None:
    """Mean power of each bucket and GPU over the time from its first sample to the one after its last."""
    power = curve(buckets, "gpu_power_w", per_gpu=True)["mean"]
    lasted_us = (
        buckets.filter(pl.col("gpu_power_w_num") > 0)
        .select((pl.col("ended_at") - pl.col("occurred_at")).dt.total_microseconds() + clock.step_us)
        .to_series()
    )
    return round(math.fsum(power * lasted_us) / _US_W_PER_KWH, 6) if len(power) else None


def _read_gpus(samples: Samples) -> pl.DataFrame:
    """The GPUs in order, once for each critical error of theirs, and what befell them."""
    hot = pl.col("gpu_throttle_reasons").str.contains("thermal", literal=True)
    return (
        samples.lazy()
        .group_by(_WORST)
        .agg(
            pl.col("occurred_at").max(),
            errors=pl.col("gpu_num_uncorrected_errors").max(),
            num_hot=hot.sum(),
            num_told=hot.count(),
        )
        .collect(engine="streaming")
        .sort("gpu_index", "gpu_name", "gpu_uuid", "occurred_at", nulls_last=True)
    )


def _notes(samples: Samples, gpus: pl.DataFrame) -> list[str]:
    worst = (
        gpus.filter(pl.col("gpu_uuid").is_not_null())
        .group_by("gpu_index", "gpu_name", "gpu_uuid", maintain_order=True)
        .agg(
            xid=pl.col("gpu_last_xid").filter(pl.col("gpu_last_xid") > 0).last(),
            errors=pl.col("errors").max(),
            hot=pl.col("num_hot").sum() / pl.col("num_told").sum(),
        )
        .sort("gpu_index", "gpu_uuid")
    )
    notes = []
    for index, name, _, xid, errors, hot in worst.iter_rows():
        gpu = f"GPU {index} ({name})"
        if xid:
            notes.append(f"{gpu} told of a critical error: XID {xid}; look it up in NVIDIA's list of XIDs.")
        if errors:
            notes.append(f"{gpu} has {errors} uncorrected memory errors since its driver was loaded.")
        if hot > 0:
            notes.append(f"{gpu} was slowed down for its temperature in {hot:.0%} of the samples.")
    return notes + [
        f"Not measured: {', '.join(names)} ({reason})." for reason, names in _gaps(samples).items()
    ]


def _gaps(samples: Samples) -> dict[str, list[str]]:
    """Fields that could not be measured in the end, by the reason why; that there is no GPU is none."""
    series = ("plan", "dataset", "gpu_uuid")
    told = samples.lazy().select("occurred_at", *series, "not_measured").drop_nulls("not_measured")
    last = told.collect(engine="streaming").sort("occurred_at", maintain_order=True).group_by(series).last()
    found: dict[str, set[str]] = defaultdict(set)
    for text in last["not_measured"]:
        for name, reason in json.loads(text).items():
            if name != "gpu_index" and reason != NEEDS_TWO.reason:
                found[reason].add(name)
    return {reason: sorted(names) for reason, names in sorted(found.items())}
