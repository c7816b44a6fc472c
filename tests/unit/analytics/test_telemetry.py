"""Resource samples in few points and few numbers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.analytics.telemetry import MAX_BUCKETS, TelemetrySummary, bucket, health_notes, summarize
from core.events.telemetry import TELEMETRY_SCHEMA, read_telemetry
from tests.sample_log import PLAN_ID, sample_events, write_telemetry

NONE = pl.DataFrame(schema=TELEMETRY_SCHEMA)


def samples(num: int, num_gpus: int = 1) -> pl.DataFrame:
    start = datetime(2026, 11, 3, tzinfo=UTC)
    rows = [
        {
            "occurred_at": start + timedelta(seconds=second),
            "cpu_percent": float(second % 100),
            "gpu_index": gpu,
            "vram_used_mib": float(1000 * gpu + second),
        }
        for second in range(num)
        for gpu in range(num_gpus)
    ]
    return pl.DataFrame(rows, schema=TELEMETRY_SCHEMA)


def test_buckets_are_few_and_keep_extremes() -> None:
    points = bucket(samples(20_000), "cpu_percent")
    assert len(points) <= MAX_BUCKETS
    assert (points["min"].min(), points["max"].max()) == (0.0, 99.0)
    assert points["mean"].mean() == pytest.approx(49.5, abs=0.1)


def test_fewer_samples_than_buckets_stay_as_they_are() -> None:
    points = bucket(samples(10), "cpu_percent")
    assert points["mean"].to_list() == [float(number) for number in range(10)]


def test_gpus_are_series_of_their_own_and_the_machine_is_one() -> None:
    assert sorted(set(bucket(samples(50, num_gpus=2), "vram_used_mib")["gpu_index"])) == [0, 1]
    assert set(bucket(samples(50, num_gpus=2), "cpu_percent")["gpu_index"]) == {None}


@pytest.mark.parametrize("metric", ["gpu_power_w", "cpu_percent"])
def test_what_was_not_measured_has_no_buckets(metric: str) -> None:
    assert bucket(NONE, metric).is_empty()
    assert bucket(samples(5).with_columns(pl.lit(None, pl.Float64).alias(metric)), metric).is_empty()


def test_summary_of_a_gpu_machine(tmp_path: Path) -> None:
    write_telemetry(tmp_path, sample_events())
    summary = summarize(read_telemetry(tmp_path, PLAN_ID))
    assert summary.gpu_name == "NVIDIA GeForce RTX 3090"
    assert summary.vram_total_mib == 24_576.0
    assert 0 < (summary.gpu_utilization_percent or 0) < 100
    assert summary.num_samples * 2 == pytest.approx(summary.duration_s, abs=4)


def test_summary_without_gpu_and_without_samples(tmp_path: Path) -> None:
    write_telemetry(tmp_path, sample_events(gpu=False), gpu=False)
    summary = summarize(read_telemetry(tmp_path, PLAN_ID))
    assert (summary.gpu_name, summary.vram_peak_mib) == (None, None)
    assert summary.ram_total_mib == 15_872.0
    assert summarize(NONE) == TelemetrySummary()


def test_a_healthy_machine_gives_no_notes(tmp_path: Path) -> None:
    write_telemetry(tmp_path, sample_events())
    assert health_notes(read_telemetry(tmp_path, PLAN_ID)) == []
    assert health_notes(NONE) == []


def test_notes_tell_of_errors_heat_and_what_is_not_measured_in_the_end() -> None:
    gpus: dict[str, list[Any]] = {
        "gpu_uuid": ["GPU-a"] * 4 + ["GPU-b"] * 4,
        "gpu_name": ["L4"] * 8,
        "gpu_last_xid": [0, 31, 79, 79, 0, 0, 0, 0],
        "gpu_num_uncorrected_errors": [0, 0, 0, 2, None, None, None, None],
        "gpu_throttle_reasons": ["", "power_cap", "idle", "thermal_software"] + [""] * 4,
        "not_measured": [
            '{"gpu_power_w":"needs two samples"}', '{}', None, None,
            '{"gpu_power_w":"Not Supported","vram_used_mib":"Not Supported"}', None, None, None,
        ],
    }  # fmt: skip
    rows = samples(4, num_gpus=2).sort("gpu_index", "occurred_at")
    rows = rows.with_columns(pl.Series(name, values) for name, values in gpus.items())
    assert health_notes(rows.sort("occurred_at", maintain_order=True)) == [
        "GPU 0 (L4) told of a critical error: XID 79; look it up in NVIDIA's list of XIDs.",
        "GPU 0 (L4) has 2 uncorrected memory errors since its driver was loaded.",
        "GPU 0 (L4) was slowed down for its temperature in 25% of the samples.",
        "Not measured: gpu_power_w, vram_used_mib (Not Supported).",
    ]


def test_that_there_is_no_gpu_is_no_note() -> None:
    why = '{"gpu_index":"NVML Shared Library Not Found","training_cpu_percent":"needs two samples"}'
    assert health_notes(samples(1).with_columns(not_measured=pl.lit(why))) == []
