"""Telemetry: resource samples of a plan, in hive-partitioned parquet below the event log.

::

    {root}/plan={plan_id}/dataset={dataset}/{time}-{writer}-{first}-{last}.parquet

One file per flush, merged as they become many: see ``core.events.telemetry_files``. A file appears whole or
not at all; its name is never used twice. Temporary files end in ``.tmp`` and are ignored by readers.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_type_hints
from urllib.parse import quote, unquote

import polars as pl

from core.errors import DamagedLogError, EventLogError
from core.events.files import make_folder, put_if_absent
from core.events.seal import encode_frame
from core.events.telemetry_files import check_files, counting_files, flush_name, merge_files

FLUSHES_PER_MERGE = 64

Samples: TypeAlias = pl.LazyFrame | pl.DataFrame
"""Resource samples: columns of ``TELEMETRY_SCHEMA``."""

_Found = TypeVar("_Found")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """What the machine did at one moment, seen with one of its GPUs; None is what could not be measured.

    Rates are means since the sample before. The machine is what its kernel shows, but RAM and the number of
    CPUs are the container's where it limits them. A GPU is a board, or the MIG slice of one that training
    uses; power, temperature, clocks, errors and the PCIe link are always the board's.

    Attributes:
        occurred_at: When it was measured, UTC; equal for all GPUs of one moment.
        cpu_percent: Mean use of all of the machine's CPUs, 0 to 100.
        ram_used_mib: RAM in use that cannot be had for the asking (total minus available).
        ram_total_mib: RAM there is.
        process_rss_mib: Resident memory of the sampling process and the training processes.
        disk_free_mib: Free space where outputs go.
        gpu_index: NVML's index of the board; None on a machine without a GPU.
        gpu_name: Name of the GPU.
        gpu_utilization_percent: NVML's share of time in which any kernel ran.
        vram_used_mib: VRAM in use by all processes.
        vram_total_mib: VRAM of the GPU.
        gpu_power_w: Power draw of the board.
        gpu_temperature_c: Temperature of the chip.
        num_cpus: CPUs that may be used.
        load_average: Processes that ran or waited to, mean of the last minute.
        swap_used_mib: Swap in use.
        swap_total_mib: Swap there is.
        swap_in_bytes_per_s: Read back from swap.
        swap_out_bytes_per_s: Written to swap.
        disk_read_bytes_per_s: Read from all disks.
        disk_write_bytes_per_s: Written to all disks.
        network_received_bytes_per_s: Over all interfaces.
        network_sent_bytes_per_s: Over all interfaces.
        training_num_processes: Training processes and their descendants.
        training_cpu_percent: Their CPU time; 100 is one CPU busy.
        training_rss_mib: Their resident memory; shared pages count once per process.
        training_num_threads: Their threads.
        training_read_bytes_per_s: What they had read from disks.
        training_write_bytes_per_s: What they had written to disks.
        training_major_faults_per_s: Times they waited for a page of memory from a disk.
        cuda_index: Place among the GPUs that may be used, CUDA's own index; training uses the first.
        gpu_uuid: UUID of the board, or of the MIG slice.
        gpu_memory_utilization_percent: NVML's share of time in which VRAM was read or written.
        gpu_sm_activity_percent: Mean share of multiprocessors that had work (Hopper and later).
        gpu_sm_occupancy_percent: Mean share of possible warps that were resident (Hopper and later).
        gpu_tensor_activity_percent: Mean share of time in tensor instructions (Hopper and later).
        gpu_dram_activity_percent: Share of the memory bandwidth that was used (Hopper and later).
        gpu_sm_clock_mhz: Clock of the multiprocessors.
        gpu_memory_clock_mhz: Clock of the memory.
        gpu_throttle_reasons: Names of what holds the clocks down, joined by commas; empty for nothing.
        gpu_power_limit_w: Power draw at which the clocks are lowered.
        gpu_pcie_received_bytes_per_s: From the host to the GPU.
        gpu_pcie_sent_bytes_per_s: From the GPU to the host.
        gpu_pcie_generation: Of the link as it is now; it is lowered at rest.
        gpu_pcie_width: Lanes of the link as it is now.
        gpu_num_corrected_errors: Memory errors since the driver was loaded that did no harm.
        gpu_num_uncorrected_errors: Memory errors since the driver was loaded that destroyed data.
        gpu_last_xid: Number of the last critical error that the driver told of while this was sampled; 0 for
            none.
        not_measured: JSON object of fields and why they are None, ``{}`` for none; on a machine without a
            GPU ``gpu_index`` stands for all of them. None where it is as in the sample of this GPU before.
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
    num_cpus: int | None = None
    load_average: float | None = None
    swap_used_mib: float | None = None
    swap_total_mib: float | None = None
    swap_in_bytes_per_s: float | None = None
    swap_out_bytes_per_s: float | None = None
    disk_read_bytes_per_s: float | None = None
    disk_write_bytes_per_s: float | None = None
    network_received_bytes_per_s: float | None = None
    network_sent_bytes_per_s: float | None = None
    training_num_processes: int | None = None
    training_cpu_percent: float | None = None
    training_rss_mib: float | None = None
    training_num_threads: int | None = None
    training_read_bytes_per_s: float | None = None
    training_write_bytes_per_s: float | None = None
    training_major_faults_per_s: float | None = None
    cuda_index: int | None = None
    gpu_uuid: str | None = None
    gpu_memory_utilization_percent: float | None = None
    gpu_sm_activity_percent: float | None = None
    gpu_sm_occupancy_percent: float | None = None
    gpu_tensor_activity_percent: float | None = None
    gpu_dram_activity_percent: float | None = None
    gpu_sm_clock_mhz: float | None = None
    gpu_memory_clock_mhz: float | None = None
    gpu_throttle_reasons: str | None = None
    gpu_power_limit_w: float | None = None
    gpu_pcie_received_bytes_per_s: float | None = None
    gpu_pcie_sent_bytes_per_s: float | None = None
    gpu_pcie_generation: int | None = None
    gpu_pcie_width: int | None = None
    gpu_num_corrected_errors: int | None = None
    gpu_num_uncorrected_errors: int | None = None
    gpu_last_xid: int | None = None
    not_measured: str | None = None


_COLUMN_TYPES: dict[Any, pl.DataType] = {
    datetime: pl.Datetime("us", "UTC"),
    float | None: pl.Float64(),
    int | None: pl.Int64(),
    str | None: pl.String(),
}

SAMPLE_SCHEMA = pl.Schema(
    [(name, _COLUMN_TYPES[kind]) for name, kind in get_type_hints(ResourceSample).items()]
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
        share: Has what is in the writer's folder where others find it; told whether nothing more will come.
    """

    def __init__(
        self, root: Path, plan_id: str, dataset: str, share: Callable[[Path, bool], None] | None = None
    ) -> None:
        self.folder = root / partition("plan", plan_id) / partition("dataset", dataset)
        self._id = uuid.uuid4().hex
        self._num_flushes = 0
        self._share, self._is_behind = share, False

    def write(self, samples: Sequence[ResourceSample]) -> None:
        """Write samples as one file, durably; nothing is written for none.

        Raises:
            EventLogError: The folder cannot be written.
        """
        if not samples:
            return
        frame = pl.DataFrame(samples, schema=SAMPLE_SCHEMA)
        path = self.folder / flush_name(samples[0].occurred_at, self._id, self._num_flushes)
        self._num_flushes += 1  # a number that failed is not used again
        try:
            make_folder(self.folder)
            put_if_absent(path, encode_frame(frame))
        except OSError as error:
            with suppress(OSError):  # it may have its name already: the samples will be written again
                path.unlink(missing_ok=True)
            raise EventLogError(f"cannot write telemetry to {self.folder}: {error}") from error
        self._tidy(self._num_flushes % FLUSHES_PER_MERGE == 0, is_over=False)

    def merge(self) -> None:
        """Merge small files of this plan and dataset at the end; where that fails they stay as they are."""
        if self._num_flushes:
            self._tidy(True, is_over=True)

    def _tidy(self, merging: bool, *, is_over: bool) -> None:
        try:
            if merging:
                merge_files(self.folder)
        except (OSError, EventLogError) as error:
            _LOG.warning("telemetry stays in many small files: %s", error)
        try:
            if self._share:
                self._share(self.folder, is_over)
            self._is_behind = False
        except (OSError, EventLogError) as error:  # the next time makes up for it
            if not self._is_behind or is_over:
                _LOG.warning("telemetry is not shared: %s", error)
            self._is_behind = True


def reduce_telemetry(root: Path, plan_id: str | None, reduce: Callable[[pl.LazyFrame], _Found]) -> _Found:
    """Check the seals of resource samples, and reduce them to something small.

    Args:
        root: Folder of all telemetry.
        plan_id: Only this plan's; None for all.
        reduce: Gets the samples with the columns of ``TELEMETRY_SCHEMA``, those of one flush after the other
            and in no order beyond that. A column that a file of an older release lacks is null, one that this
            release does not know is left out. It is called again where files were merged away meanwhile.

    Returns:
        What it returned.

    Raises:
        DamagedLogError: A file is empty, torn, changed or of other columns; it is named.
    """
    while True:
        files = _list(root, plan_id)
        try:
            check_files([path for paths in files.values() for path in paths], SAMPLE_SCHEMA)
            return reduce(_scan(files))
        except FileNotFoundError as error:
            if files == _list(root, plan_id):
                raise DamagedLogError(f"a telemetry file vanished: {error}; restore it") from error


def check_telemetry(root: Path) -> None:
    """Check the seals of all resource samples.

    Args:
        root: Folder of all telemetry.

    Raises:
        DamagedLogError: A file is empty, torn, changed or of other columns; it is named.
    """
    reduce_telemetry(root, None, lambda _: None)


def read_telemetry(root: Path, plan_id: str | None = None) -> pl.DataFrame:
    """Read all resource samples, where there are few.

    Args:
        root: Folder of all telemetry.
        plan_id: Only this plan's; None for all.

    Returns:
        Columns of ``TELEMETRY_SCHEMA`` ordered by time, plan, dataset and GPU. Empty if nothing was sampled.

    Raises:
        DamagedLogError: A file is empty, torn, changed or of other columns; it is named.
    """
    order = ("occurred_at", "plan", "dataset", "gpu_index")
    return reduce_telemetry(
        root, plan_id, lambda samples: samples.sort(*order, maintain_order=True).collect()
    )


def _list(root: Path, plan_id: str | None) -> dict[Path, list[Path]]:
    plan = partition("plan", plan_id) if plan_id is not None else "plan=*"
    folders = sorted(root.glob(f"{plan}/dataset=*"))
    return {folder: files for folder in folders if (files := counting_files(folder))}


def _scan(files: Mapping[Path, list[Path]]) -> pl.LazyFrame:
    frames = [TELEMETRY_SCHEMA.to_frame().lazy()]
    for folder, paths in files.items():
        names = [
            pl.lit(unquote(part.name.partition("=")[2])).alias(column)
            for column, part in (("plan", folder.parent), ("dataset", folder))
        ]
        scanned = pl.scan_parquet(
            paths,
            schema=SAMPLE_SCHEMA,
            hive_partitioning=False,
            glob=False,
            missing_columns="insert",
            extra_columns="ignore",
        )
        frames.append(scanned.select(*names, *SAMPLE_SCHEMA))
    return pl.concat(frames)


def partition(key: str, value: str) -> str:
    """A folder's name that says what all in it have in common."""
    return f"{key}={quote(value, safe='')}"
