"""Resource samples of this machine, and of one whose GPUs are written down."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest

from core.events.telemetry import ResourceSample
from core.resources.machine import probe_machine
from core.resources.probes import Probe
from tests.fake_nvml import Board, FakeNvml

NO_GPU = not probe_machine().gpus
ALWAYS = {"occurred_at", "not_measured"}


def unexplained(sample: ResourceSample, reasons: dict[str, str]) -> set[str]:
    """Fields that are None without a word."""
    empty = {name for name, value in asdict(sample).items() if value is None} - ALWAYS
    if "gpu_index" in reasons:  # stands for all of a GPU
        empty = {name for name in empty if not name.startswith(("gpu_", "vram_", "cuda_"))}
    return empty - reasons.keys()


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_without_a_driver_there_is_one_sample_without_gpu_values(tmp_path: Path) -> None:
    (sample,) = Probe(tmp_path).sample()
    assert sample.gpu_index is None
    assert sample.gpu_utilization_percent is None
    assert json.loads(sample.not_measured or "")["gpu_index"] == "NVML Shared Library Not Found"
    assert abs((datetime.now(UTC) - sample.occurred_at).total_seconds()) < 60


def test_a_sample_measures_the_machine(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    probe.sample()
    sum(range(3_000_000))
    sample = probe.sample()[0]
    assert sample.cpu_percent is not None
    assert 0 < sample.cpu_percent <= 100
    assert sample.ram_used_mib is not None
    assert sample.ram_total_mib is not None
    assert 0 < sample.ram_used_mib < sample.ram_total_mib
    assert sample.num_cpus == probe_machine().num_cpus
    assert sample.disk_free_mib == pytest.approx(psutil.disk_usage(str(tmp_path)).free / 2**20, rel=0.05)
    assert unexplained(sample, json.loads(sample.not_measured or "{}")) == set()


def test_the_disk_of_a_folder_that_is_not_there_yet_is_measured(tmp_path: Path) -> None:
    assert Probe(tmp_path / "outputs" / "deep").sample()[0].disk_free_mib


@pytest.mark.parametrize(
    "trouble",
    [
        lambda nvml: None,
        lambda nvml: setattr(nvml, "broken", pynvml.NVMLError_DriverNotLoaded()),
        lambda nvml: setattr(nvml.boards[0], "lost", True),
        lambda nvml: nvml.unsupported.add("nvmlDeviceGetPowerUsage"),
    ],
)
def test_every_gap_has_its_reason_whatever_happens(tmp_path: Path, trouble: Callable[[Any], Any]) -> None:
    nvml = FakeNvml(Board("GPU-a"), Board("GPU-b"))
    probe = Probe(tmp_path, nvml=nvml)
    reasons: dict[str | None, dict[str, str]] = {}
    for moment in range(4):
        if moment == 2:
            trouble(nvml)
        for sample in probe.sample():
            if sample.not_measured is not None:
                reasons[sample.gpu_uuid] = json.loads(sample.not_measured)
            known = reasons[sample.gpu_uuid]
            assert unexplained(sample, known) == set()
            assert all(getattr(sample, name) is None for name in known)


def test_reasons_are_written_where_they_change(tmp_path: Path) -> None:
    nvml = FakeNvml(Board("GPU-a", gpm={}))
    probe = Probe(tmp_path, nvml=nvml)
    written = [probe.sample()[0].not_measured for _ in range(4)]
    assert [text is not None for text in written] == [True, True, False, False]
    nvml.unsupported = {"nvmlDeviceGetPowerUsage"}
    again = [probe.sample()[0].not_measured for _ in range(2)]
    assert json.loads(again[0] or "")["gpu_power_w"] == "Not Supported"
    assert again[1] is None


def test_samples_of_one_moment_share_its_time_and_the_machine(tmp_path: Path) -> None:
    a, b = Probe(tmp_path, nvml=FakeNvml(Board("GPU-a"), Board("GPU-b"))).sample()
    assert (a.occurred_at, a.cpu_percent, a.ram_used_mib) == (b.occurred_at, b.cpu_percent, b.ram_used_mib)
    assert (a.gpu_uuid, b.gpu_uuid) == ("GPU-a", "GPU-b")


def test_what_cannot_be_measured_is_none_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[int]:
        raise psutil.AccessDenied(1)

    probe = Probe(tmp_path, fail, FakeNvml())
    samples = [probe.sample()[0] for _ in range(3)]
    assert [sample.process_rss_mib for sample in samples] == [None] * 3
    assert all(sample.ram_used_mib for sample in samples)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("resource samples lack process_rss_mib, training_cpu")
