"""Machines that tests do not run on."""

from typing import Any

from core.resources.machine import Gpu, Machine


def gpu(name: str, vram_total_mib: float, compute_capability: tuple[int, int] = (8, 6)) -> Gpu:
    return Gpu(0, name, vram_total_mib, "570.1", compute_capability)


def machine(*gpus: Gpu, **fields: Any) -> Machine:
    """A machine of 8 CPUs on 4 cores with torch for CUDA."""
    described: dict[str, Any] = {
        "cpu_model": "cpu",
        "num_cpus": 8,
        "num_cores": 4,
        "ram_total_mib": 16_384.0,
        "platform": "Linux",
        "python_version": "3.11",
        "torch_version": "2.13.0+cu128",
        "gpus": gpus,
    }
    return Machine(**described | fields)


RTX_3080 = machine(gpu("NVIDIA GeForce RTX 3080", 10_240.0))
CPU_MACHINE = machine()
