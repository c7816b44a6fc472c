"""Probes on a machine with an NVIDIA GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.resources.probes import Probe, probe_machine

pytestmark = pytest.mark.gpu


def test_the_gpu_is_described() -> None:
    machine = probe_machine()
    gpu = machine.gpus[0]
    assert gpu.name
    assert gpu.driver
    assert gpu.vram_total_mib > 1024
    assert gpu.compute_capability >= (5, 0)


def test_every_gpu_is_sampled(tmp_path: Path) -> None:
    samples = Probe(tmp_path).sample()
    assert [sample.gpu_index for sample in samples] == [gpu.index for gpu in probe_machine().gpus]
    assert len({sample.occurred_at for sample in samples}) == 1
    for sample in samples:
        assert sample.vram_used_mib is not None
        assert sample.vram_total_mib is not None
        assert 0 <= sample.vram_used_mib < sample.vram_total_mib
        assert sample.gpu_utilization_percent is None or 0 <= sample.gpu_utilization_percent <= 100
        assert sample.gpu_power_w is None or 0 < sample.gpu_power_w < 3000
        assert sample.gpu_temperature_c is None or 0 < sample.gpu_temperature_c < 120


@pytest.mark.parametrize(("visible", "num_gpus"), [("", 0), ("-1", 0), ("0", 1), ("0,-1,0", 1)])
def test_hidden_gpus_are_not_seen(visible: str, num_gpus: int) -> None:
    code = "from core.resources.probes import probe_machine; print(len(probe_machine().gpus))"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == num_gpus
