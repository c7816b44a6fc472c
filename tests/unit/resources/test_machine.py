"""What is known of this machine, with and without a GPU."""

import os
import subprocess
import sys

import psutil
import pynvml
import pytest

from core.resources.machine import Gpu, Machine, probe_machine
from tests.fake_nvml import Board, FakeNvml, Slice

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
    assert 0 < found.ram_total_mib <= psutil.virtual_memory().total / 2**20
    assert found.torch_version.startswith("2.")
    assert os.uname().nodename not in vars(found).values()


def test_the_same_machine_is_described_the_same_each_time() -> None:
    assert probe_machine() == probe_machine()


def test_probing_loads_no_torch() -> None:
    code = (
        "import sys; from core.resources import machine, probes, profiles, sampler, process, verdict; "
        "machine.probe_machine(); sys.exit('torch' in sys.modules)"
    )
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


def test_gpus_are_described_and_the_driver_is_let_go() -> None:
    nvml = FakeNvml(
        Board("GPU-a", name="NVIDIA H100"), Board("GPU-b", name="NVIDIA L4", vram_total_mib=23_034)
    )
    assert probe_machine(nvml).gpus == (
        Gpu(0, "NVIDIA H100", 81_559.0, "570.1", (9, 0), "GPU-a"),
        Gpu(1, "NVIDIA L4", 23_034.0, "570.1", (9, 0), "GPU-b"),
    )
    assert nvml.num_users == 0


def test_a_slice_counts_with_its_own_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-b")
    nvml = FakeNvml(Board("GPU-a", slices=[Slice("MIG-a", 1), Slice("MIG-b", 2, vram_total_mib=9856)]))
    (gpu,) = probe_machine(nvml).gpus
    assert (gpu.name, gpu.vram_total_mib) == ("NVIDIA H100 MIG 1g.5gb", 9856.0)


def test_a_gpu_that_shares_the_memory_of_the_machine_has_all_of_it() -> None:
    nvml = FakeNvml(Board("GPU-a"))
    nvml.unsupported = {"nvmlDeviceGetMemoryInfo"}
    found = probe_machine(nvml)
    assert found.gpus[0].vram_total_mib == found.ram_total_mib


def test_a_gpu_that_cannot_be_described_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(Board("GPU-a"))
    nvml.unsupported = {"nvmlDeviceGetCudaComputeCapability"}
    assert probe_machine(nvml).gpus == ()
    assert "GPU 0 is left out: Not Supported" in caplog.text
    nvml.broken = pynvml.NVMLError_LibraryNotFound()
    assert probe_machine(nvml).gpus == ()
