"""Probes on a machine with an NVIDIA GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pynvml
import pytest
import torch

from core.events.telemetry import ResourceSample
from core.resources.machine import probe_machine
from core.resources.probes import Probe
from core.resources.usage import Usage

pytestmark = pytest.mark.gpu

PERCENTAGES = (
    "gpu_utilization_percent",
    "gpu_memory_utilization_percent",
    "gpu_sm_activity_percent",
    "gpu_sm_occupancy_percent",
    "gpu_tensor_activity_percent",
    "gpu_dram_activity_percent",
)


def busy_until(done: Callable[[], bool], num_tries: int = 200) -> bool:
    """Multiply large matrices on the GPU, a few at a time, until something is so."""
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(num_tries):
        for _ in range(20):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        torch.cuda.synchronize()
        if done():
            return True
    return False


def first(probe: Probe) -> ResourceSample:
    """Of the GPU that torch computes on."""
    (found,) = (sample for sample in probe.sample() if sample.cuda_index == 0)
    return found


def test_the_gpu_is_described() -> None:
    machine = probe_machine()
    gpu = machine.gpus[0]
    assert gpu.driver
    assert gpu.vram_total_mib > 1024
    assert gpu.compute_capability == torch.cuda.get_device_capability(0)
    assert gpu.name.startswith(torch.cuda.get_device_name(0).split(" MIG ")[0])
    total_mib = torch.cuda.get_device_properties(0).total_memory / 2**20
    assert gpu.vram_total_mib == pytest.approx(total_mib, rel=0.1)


def test_every_gpu_is_sampled(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    probe.sample()
    samples = probe.sample()
    assert [sample.gpu_index for sample in samples] == [gpu.index for gpu in probe_machine().gpus]
    assert [sample.cuda_index for sample in samples] == list(range(len(samples)))
    assert len({sample.occurred_at for sample in samples}) == 1
    for sample in samples:
        assert sample.vram_used_mib is not None
        assert sample.vram_total_mib is not None
        assert 0 <= sample.vram_used_mib < sample.vram_total_mib
        for name in PERCENTAGES:
            assert getattr(sample, name) is None or 0 <= getattr(sample, name) <= 100, name
        assert sample.gpu_power_w is None or 0 < sample.gpu_power_w < 3000
        assert sample.gpu_power_limit_w is None or 0 < sample.gpu_power_limit_w < 3000
        assert sample.gpu_temperature_c is None or 0 < sample.gpu_temperature_c < 120
        assert sample.gpu_sm_clock_mhz is None or 0 <= sample.gpu_sm_clock_mhz < 10_000
        assert sample.gpu_pcie_width in {None, 1, 2, 4, 8, 16, 32}
        assert sample.gpu_last_xid is None or sample.gpu_last_xid >= 0
        if sample.gpu_uuid and not sample.gpu_uuid.startswith("MIG-"):
            assert sample.gpu_throttle_reasons is not None


def test_every_gap_has_its_reason(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    reasons: dict[str | None, dict[str, str]] = {}
    for _ in range(3):
        for sample in probe.sample():
            if sample.not_measured is not None:
                reasons[sample.gpu_uuid] = json.loads(sample.not_measured)
            gaps = {name for name, value in asdict(sample).items() if value is None} - {"not_measured"}
            assert gaps == reasons[sample.gpu_uuid].keys()


def test_work_is_seen(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    before = first(probe)
    seen: list[ResourceSample] = []

    def watch() -> bool:
        seen.append(first(probe))
        active = seen[-1].gpu_sm_activity_percent
        drawn, limit = seen[-1].gpu_power_w, seen[-1].gpu_power_limit_w
        if active is not None:
            return active > 50
        return bool(drawn and limit and drawn > 0.5 * limit)

    assert busy_until(watch), [(s.gpu_sm_activity_percent, s.gpu_power_w) for s in seen]
    assert (seen[-1].vram_used_mib or 0) > (before.vram_used_mib or 0) + 64


def test_activity_is_measured_exactly_where_the_driver_says_so(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    probe.sample()
    torch.randn(64, 64, device="cuda").sum().item()
    sample = first(probe)
    pynvml.nvmlInit()
    board = pynvml.nvmlDeviceGetHandleByIndex(sample.gpu_index)
    try:
        supported = bool(pynvml.nvmlGpmQueryDeviceSupport(board).isSupportedDevice)
    except pynvml.NVMLError:
        supported = False
    assert (sample.gpu_sm_activity_percent is not None) == supported


def test_usage_is_that_of_this_process_gpu() -> None:
    usage = Usage()
    if probe_machine().gpus[0].name.count("MIG"):
        assert usage.gpu_percent() is None
    else:
        assert busy_until(lambda: (usage.gpu_percent() or 0.0) > 50)
    assert usage.ram_percent()


@pytest.mark.parametrize(
    ("visible", "num_gpus"), [("", 0), ("-1", 0), ("0", 1), ("0,-1,0", 1), ("GPU-nothing", 0)]
)
def test_hidden_gpus_are_not_seen(visible: str, num_gpus: int) -> None:
    assert num_visible(visible) == num_gpus


def test_a_gpu_is_seen_by_its_uuid_as_torch_sees_it() -> None:
    pynvml.nvmlInit()
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0))
    code = "import torch; print(torch.cuda.device_count())"
    for visible in (uuid, uuid[:12]):
        assert num_visible(visible) == int(python(code, visible)) == 1


def num_visible(visible: str) -> int:
    code = "from core.resources.machine import probe_machine; print(len(probe_machine().gpus))"
    return int(python(code, visible))


def python(code: str, visible: str) -> str:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
