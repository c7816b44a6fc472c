"""What is known and measured of this machine, with and without a GPU."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from core.resources.probes import Gpu, Machine, Probe, probe_machine

NO_GPU = not probe_machine().gpus
A100 = Gpu(index=0, name="NVIDIA A100", vram_total_mib=40_960, driver="1", compute_capability=(8, 0))
V100 = Gpu(index=0, name="Tesla V100", vram_total_mib=16_384, driver="1", compute_capability=(7, 0))


def machine(torch_version: str, *gpus: Gpu) -> Machine:
    return Machine(
        cpu_model="cpu",
        num_cpus=2,
        num_cores=2,
        ram_total_mib=1024,
        platform="Linux",
        python_version="3.11",
        torch_version=torch_version,
        gpus=gpus,
    )


def test_the_machine_is_described_without_naming_the_host() -> None:
    found = probe_machine()
    assert found.cpu_model
    assert 1 <= found.num_cores <= found.num_cpus <= (os.cpu_count() or 1)
    assert found.ram_total_mib == pytest.approx(psutil.virtual_memory().total / 2**20)
    assert found.torch_version.startswith("2.")
    assert os.uname().nodename not in vars(found).values()


def test_probing_loads_no_torch() -> None:
    code = (
        "import sys; from core.resources import probes, profiles, sampler, process; probes.probe_machine(); "
    )
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("found", "device", "precision"),
    [
        (machine("2.13.0+cu128", A100), "cuda", "bf16"),
        (machine("2.13.0", V100), "cuda", "fp16"),
        (machine("2.13.0+cpu", A100), "cpu", "fp32"),
        (machine("2.13.0+cu128"), "cpu", "fp32"),
    ],
)
def test_device_and_precision_follow_from_gpu_and_torch_build(
    found: Machine, device: str, precision: str
) -> None:
    assert (found.device, found.precision) == (device, precision)


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_without_a_driver_there_is_one_sample_without_gpu_values(tmp_path: Path) -> None:
    (sample,) = Probe(tmp_path).sample()
    assert sample.gpu_index is None
    assert sample.gpu_utilization_percent is None
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
    assert sample.disk_free_mib == pytest.approx(psutil.disk_usage(str(tmp_path)).free / 2**20, rel=0.05)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_measured(tmp_path: Path) -> None:
    assert Probe(tmp_path / "outputs" / "deep").sample()[0].disk_free_mib


def test_training_processes_are_added_to_resident_memory(tmp_path: Path) -> None:
    command = "x = bytearray(150 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        alone = Probe(tmp_path).sample()[0].process_rss_mib
        together = Probe(tmp_path, lambda: [child.pid]).sample()[0].process_rss_mib
        child.communicate(b"\n")
    after = Probe(tmp_path, lambda: [child.pid]).sample()[0].process_rss_mib
    assert alone
    assert together
    assert after
    assert together - alone > 150
    assert after < alone + 100


def test_what_cannot_be_measured_is_none_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[int]:
        raise psutil.AccessDenied(1)

    probe = Probe(tmp_path, fail)
    samples = [probe.sample()[0] for _ in range(3)]
    assert [sample.process_rss_mib for sample in samples] == [None] * 3
    assert all(sample.ram_used_mib for sample in samples)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "no process_rss_mib in the resource samples"
    ]
