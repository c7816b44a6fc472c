"""From telemetry to a finished dashboard: ``python -m tests.benchmarks.bench_dashboard``.

A plan on a machine with eight GPUs, sampled once a second: 10 million rows are 14.5 days of it, in the files
that the writer leaves when it has merged them. A fresh process reads the log and the telemetry, checks their
seals, and writes HTML, PNG and JSON. Measured from outside: the whole process, start and imports included,
the best of three by wall time. Making the data is not counted.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from core.events.event import Event
from core.events.files import make_folder, put_if_absent
from core.events.log import EventLog
from core.events.seal import encode_frame
from core.events.telemetry import FLUSHES_PER_MERGE, SAMPLE_SCHEMA, TelemetryWriter
from core.events.telemetry_files import flush_name, merge_files
from settings.layout import Layout
from tests.sample_log import PLAN_ID, START, sample_events

NUM_GPUS, FLUSH_S, DATASET, NUM_TRIES = 8, 10, "hcrl_sa", 3
SIZES = (100_000, 1_000_000, 10_000_000)
MERGES_AT_ONCE = 8
RESULTS = Path(__file__).parent / "results" / "dashboard.json"
REBUILD = """
import sys
from pathlib import Path
from core.analytics.projections import rebuild
from core.events.log import EventLog
from settings.layout import Layout

root = Path(sys.argv[1])
log = EventLog(Layout(root).events)
rebuild(root, sys.argv[2], {sys.argv[2]: log.read(sys.argv[2])})
"""
WRITER = "0123456789abcdef" * 2
TOTALS = {"ram_total_mib": 515_000.0, "vram_total_mib": 81_920.0, "swap_total_mib": 8192.0}


def write_plan(root: Path, num_rows: int) -> None:
    """An output directory with a plan's log and telemetry."""
    num_seconds = num_rows // NUM_GPUS
    EventLog(Layout(root).events).append(stretched(num_seconds))
    folder = TelemetryWriter(Layout(root).telemetry, PLAN_ID, DATASET).folder
    make_folder(folder)
    at_once = FLUSHES_PER_MERGE * FLUSH_S
    for first in range(0, num_seconds, at_once):
        frame = samples(first, min(at_once, num_seconds - first))
        # What the writer makes of its first flushes by merging them.
        name = flush_name(frame["occurred_at"][0], WRITER, first // FLUSH_S)
        last = f"{(first + frame.height // NUM_GPUS - 1) // FLUSH_S:08d}.parquet"
        put_if_absent(folder / f"{name.rpartition('-')[0]}-{last}", encode_frame(frame))
        if first // at_once % MERGES_AT_ONCE == 0:
            merge_files(folder)
    merge_files(folder)


def stretched(num_seconds: int) -> list[Event]:
    """The events of a plan that took so long."""
    events = sample_events(datasets=[DATASET])
    factor = num_seconds / (events[-1].occurred_at - START).total_seconds()
    return [
        event._replace(
            occurred_at=START + factor * (event.occurred_at - START),
            payload={
                name: value * factor if name.endswith("_s") and isinstance(value, float) else value
                for name, value in event.payload.items()
            },
        )
        for event in events
    ]


def samples(first: int, num: int) -> pl.DataFrame:
    """Samples of so many seconds, as uneven as measured ones: waves of load, noise, and rare peaks."""
    rng = np.random.default_rng(first)
    second = np.arange(first, first + num)
    load = 0.6 + 0.3 * np.sin(second / 5000)

    def machine(level: float, decimals: int) -> np.ndarray[Any, Any]:
        noise = (1 + 0.2 * rng.standard_normal(num)).clip(0)
        values: np.ndarray[Any, Any] = np.repeat(np.round(level * load * noise, decimals), NUM_GPUS)
        return values

    def gpu(level: float, decimals: int) -> np.ndarray[Any, Any]:
        noise = (1 + 0.1 * rng.standard_normal(num * NUM_GPUS)).clip(0)
        values: np.ndarray[Any, Any] = np.round(np.repeat(load, NUM_GPUS) * level * noise, decimals)
        return values

    index = np.tile(np.arange(NUM_GPUS), num)
    columns: dict[str, Any] = {name: machine(1e6, 3) for name in SAMPLE_SCHEMA if name.endswith("_per_s")}
    columns |= {
        "occurred_at": pl.Series(np.repeat(second, NUM_GPUS) * 1_000_000).cast(pl.Duration("us")) + START,
        "cpu_percent": machine(50, 1).clip(0, 100),
        "ram_used_mib": machine(200_000, 6),
        "process_rss_mib": machine(30_000, 6),
        "disk_free_mib": machine(2_000_000, 6),
        "num_cpus": 64,
        "load_average": machine(20, 2),
        "swap_used_mib": 0.0,
        "training_num_processes": 5,
        "training_cpu_percent": machine(800, 1),
        "training_rss_mib": machine(28_000, 6),
        "training_num_threads": 80,
        "gpu_index": index,
        "cuda_index": index,
        "gpu_name": "NVIDIA A100-SXM4-80GB",
        "gpu_uuid": pl.Series([f"GPU-{number}" for number in range(NUM_GPUS)] * num),
        "gpu_utilization_percent": gpu(90, 0).clip(0, 100),
        "gpu_memory_utilization_percent": gpu(40, 0).clip(0, 100),
        "vram_used_mib": gpu(60_000, 4).clip(0, 81_920),
        "gpu_power_w": gpu(300, 3),
        "gpu_temperature_c": gpu(60, 0),
        "gpu_sm_clock_mhz": 1410.0,
        "gpu_memory_clock_mhz": 1593.0,
        "gpu_throttle_reasons": pl.Series(np.where(rng.random(num * NUM_GPUS) < 0.01, "power_cap", "")),
        "gpu_power_limit_w": 400.0,
        "gpu_pcie_generation": 4,
        "gpu_pcie_width": 16,
        "gpu_num_corrected_errors": 0,
        "gpu_num_uncorrected_errors": 0,
        "gpu_last_xid": 0,
        "not_measured": pl.Series(["{}" if first == 0 else None] * NUM_GPUS + [None] * (num - 1) * NUM_GPUS),
        **TOTALS,
    }
    columns["gpu_power_w"][rng.random(num * NUM_GPUS) < 1e-5] = 450.0
    series = {name: values for name, values in columns.items() if isinstance(values, pl.Series | np.ndarray)}
    rest = {name: columns.get(name) for name in SAMPLE_SCHEMA if name not in series}
    frame = pl.DataFrame(series).with_columns(pl.lit(value).alias(name) for name, value in rest.items())
    return frame.select(pl.col(name).cast(kind) for name, kind in SAMPLE_SCHEMA.items())


def measure(root: Path) -> Iterator[dict[str, float]]:
    """Fresh processes, one after the other."""
    for _ in range(NUM_TRIES):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", REBUILD, str(root), PLAN_ID])
        _, code, usage = os.wait4(process.pid, 0)
        if code:
            raise SystemExit(f"the dashboard failed: {code}")
        yield {
            "wall_s": round(time.perf_counter() - began, 2),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
            "peak_rss_mib": round(usage.ru_maxrss / 1024),
            "load_average": round(os.getloadavg()[0], 2),
        }


def main() -> None:
    """Measure and write the results."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"platform": platform.platform(), "num_cpus": os.cpu_count()},
        "versions": {name: version(name) for name in ("polars", "altair", "vl-convert-python")},
        "num_gpus": NUM_GPUS,
    }
    for num_rows in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_plan(root, num_rows)
            files = list(Layout(root).telemetry.rglob("*.parquet"))
            tries = sorted(measure(root), key=lambda tried: tried["wall_s"])
            found[f"{num_rows}_rows"] = {
                "days": round(timedelta(seconds=num_rows / NUM_GPUS) / timedelta(days=1), 2),
                "num_files": len(files),
                "telemetry_mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
                **tries[0],
                "all_wall_s": [tried["wall_s"] for tried in tries],
                "html_mib": round(_size(root, "dashboard.html"), 2),
                "png_mib": round(_size(root, "dashboard.png"), 2),
            }
            print(json.dumps(found[f"{num_rows}_rows"]), flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _size(root: Path, name: str) -> float:
    return Layout(root).plan_file(PLAN_ID, name).stat().st_size / 2**20


if __name__ == "__main__":
    main()
