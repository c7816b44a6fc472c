"""Resource samples in few points and few numbers."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.analytics.telemetry import Telemetry, TelemetrySummary, health_notes, summarize, view_telemetry
from core.events.telemetry import TELEMETRY_SCHEMA, ResourceSample, TelemetryWriter, read_telemetry
from tests.sample_log import PLAN_ID, sample_events, write_telemetry

ROOT = Path(__file__).resolve().parents[3]
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


def test_view_of_nothing_is_empty() -> None:
    assert view_telemetry(NONE) == Telemetry()


def test_view_holds_what_was_measured_and_what_there_is_of_it() -> None:
    view = view_telemetry(samples(50, num_gpus=2).with_columns(vram_total_mib=pl.lit(8192.0)))
    assert set(view.curves) == {"cpu_percent", "vram_used_mib"}
    assert view.totals == {"vram_used_mib": 8192.0}
    assert view.summary == summarize(samples(50, num_gpus=2).with_columns(vram_total_mib=pl.lit(8192.0)))


def test_energy_is_power_over_the_time_that_was_sampled_and_none_for_a_pause() -> None:
    rows = samples(3600, num_gpus=2).with_columns(gpu_power_w=100.0 + 100 * pl.col("gpu_index"))
    later = rows.with_columns(pl.col("occurred_at") + timedelta(days=3))
    assert summarize(rows).energy_kwh == pytest.approx(0.3)
    assert summarize(pl.concat([rows, later])).energy_kwh == pytest.approx(0.6)
    assert summarize(samples(5)).energy_kwh is None


def test_rows_in_any_order_give_the_same_numbers() -> None:
    rows = samples(3000, num_gpus=2).with_columns(gpu_power_w=pl.col("vram_used_mib") / 7)
    for seed in range(3):
        mixed = rows.sample(fraction=1.0, shuffle=True, seed=seed)
        assert summarize(mixed) == summarize(rows)
        view = view_telemetry(mixed)
        assert all(curve.equals(view_telemetry(rows).curves[name]) for name, curve in view.curves.items())


REDUCE = """
import sys
from pathlib import Path
from core.analytics.bottlenecks import fold_bottlenecks
from core.analytics.telemetry import view_telemetry
from core.events.telemetry import reduce_telemetry
from tests.sample_log import sample_events

events = sample_events()
view, verdicts = reduce_telemetry(
    Path(sys.argv[1]), None, lambda samples: (view_telemetry(samples), fold_bottlenecks(events, samples))
)
print({name: curve.rows() for name, curve in view.curves.items()}, view.summary, view.notes, verdicts)
"""


def test_neither_the_number_of_threads_nor_the_files_change_a_digit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_telemetry(whole, sample_events())
    for (dataset,), rows in read_telemetry(whole).group_by("dataset"):
        for part in rows.drop("plan", "dataset").sort("occurred_at").iter_slices(97):
            found = [ResourceSample(**row) for row in part.iter_rows(named=True)]
            TelemetryWriter(parts, PLAN_ID, str(dataset)).write(found)

    def reduced(root: Path, num_threads: int) -> str:
        command = [sys.executable, "-c", REDUCE, str(root)]
        environment = {**os.environ, "POLARS_MAX_THREADS": str(num_threads)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert reduced(whole, 1) == reduced(parts, 4)
