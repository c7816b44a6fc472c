"""Telemetry: resource samples of a plan, in hive-partitioned parquet below the event log.

::

    {root}/plan={plan_id}/dataset={dataset}/{time}-{random}.parquet     one per flush

A file appears whole or not at all; its name is never used twice. Temporary files end in ``.tmp`` and are
ignored by readers.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote

import polars as pl

from core.errors import DamagedLogError, EventLogError
from core.events.files import make_folder, put_if_absent
from core.events.segments import encode_frame, is_changed


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """What the machine did at one moment, seen with one of its GPUs; None is what could not be measured.

    Attributes:
        occurred_at: When it was measured, UTC; equal for all GPUs of one moment.
        cpu_percent: Mean use of all CPUs since the sample before, 0 to 100.
        ram_used_mib: RAM in use that cannot be had for the asking (total minus available).
        ram_total_mib: RAM of the machine.
        process_rss_mib: Resident memory of the sampling process and the training processes.
        disk_free_mib: Free space where outputs go.
        gpu_index: NVML's index; None on a machine without a GPU.
        gpu_name: Name of the GPU.
        gpu_utilization_percent: NVML's share of time in which any kernel ran.
        vram_used_mib: VRAM in use by all processes.
        vram_total_mib: VRAM of the GPU.
        gpu_power_w: Power draw of the board.
        gpu_temperature_c: Temperature of the chip.
    """

    occurred_at: datetime
    cpu_percent: float | None = None
    ram_used_mib: float | None = None
    ram_total_mib: float | None = None
    process_rss_mib: float | None = None
    disk_free_mib: float | None = None
    gpu_index: int | None = None
    gpu_name: str | None = None
    gpu_utilization_percent: float | None = None
    vram_used_mib: float | None = None
    vram_total_mib: float | None = None
    gpu_power_w: float | None = None
    gpu_temperature_c: float | None = None


SAMPLE_SCHEMA = pl.Schema(
    [
        ("occurred_at", pl.Datetime("us", "UTC")),
        ("cpu_percent", pl.Float64),
        ("ram_used_mib", pl.Float64),
        ("ram_total_mib", pl.Float64),
        ("process_rss_mib", pl.Float64),
        ("disk_free_mib", pl.Float64),
        ("gpu_index", pl.Int64),
        ("gpu_name", pl.String),
        ("gpu_utilization_percent", pl.Float64),
        ("vram_used_mib", pl.Float64),
        ("vram_total_mib", pl.Float64),
        ("gpu_power_w", pl.Float64),
        ("gpu_temperature_c", pl.Float64),
    ]
)
"""Columns of a file: the fields of ``ResourceSample``."""

TELEMETRY_SCHEMA = pl.Schema([("plan", pl.String), ("dataset", pl.String), *SAMPLE_SCHEMA.items()])
"""Columns of what is read: plan and dataset, then those of a file."""


class TelemetryWriter:
    """Writes the resource samples taken while one dataset of one plan is worked on.

    Any number of writers may write for the same plan and dataset at once.

    Args:
        root: Folder of all telemetry.
        plan_id: The plan.
        dataset: The dataset.
    """

    def __init__(self, root: Path, plan_id: str, dataset: str) -> None:
        self.folder = root / _partition("plan", plan_id) / _partition("dataset", dataset)

    def write(self, samples: Sequence[ResourceSample]) -> None:
        """Write samples as one file, durably; nothing is written for none.

        Raises:
            EventLogError: The folder cannot be written.
        """
        if not samples:
            return
        frame = pl.DataFrame(samples, schema=SAMPLE_SCHEMA)
        name = f"{samples[0].occurred_at:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex}.parquet"
        try:
            make_folder(self.folder)
            put_if_absent(self.folder / name, encode_frame(frame))
        except OSError as error:
            raise EventLogError(f"cannot write telemetry to {self.folder}: {error}") from error


def read_telemetry(root: Path, plan_id: str | None = None) -> pl.DataFrame:
    """Read resource samples.

    Args:
        root: Folder of all telemetry.
        plan_id: Only this plan's; None for all.

    Returns:
        Columns of ``TELEMETRY_SCHEMA`` ordered by time, plan, dataset and GPU. A column that a file of an
        older release lacks is null, one that this release does not know is left out. Empty if nothing was
        sampled.

    Raises:
        DamagedLogError: A file is empty, torn or of other columns; it is named.
    """
    plan = _partition("plan", plan_id) if plan_id is not None else "plan=*"
    frames = [TELEMETRY_SCHEMA.to_frame()]
    for folder in sorted(root.glob(f"{plan}/dataset=*")):
        if files := sorted(folder.glob("*.parquet")):
            names = [
                pl.lit(unquote(part.name.partition("=")[2])).alias(column)
                for column, part in (("plan", folder.parent), ("dataset", folder))
            ]
            frames.append(_read_files(files).select(*names, *SAMPLE_SCHEMA))
    return pl.concat(frames).sort("occurred_at", "plan", "dataset", "gpu_index", maintain_order=True)


def _read_files(files: list[Path]) -> pl.DataFrame:
    try:
        for path in files:  # polars skips an empty file without a word
            if not (content := path.read_bytes()) or is_changed(content):
                raise pl.exceptions.ComputeError(f"{path} is not as it was written")
        return pl.scan_parquet(
            files,
            schema=SAMPLE_SCHEMA,
            hive_partitioning=False,
            missing_columns="insert",
            extra_columns="ignore",
        ).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if len(files) == 1:
            raise DamagedLogError(
                f"telemetry file {files[0]} cannot be read: {error}; restore or remove it"
            ) from error
        for path in files:  # which one is it?
            _read_files([path])
        raise


def _partition(key: str, value: str) -> str:
    return f"{key}={quote(value, safe='')}"
