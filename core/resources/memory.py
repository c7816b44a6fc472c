"""How much memory this process may take, and how much of it is left."""

import resource
import sys
from typing import Any

import psutil

from core.resources.containers import Ram
from core.resources.readings import MIB
from settings.resources import ResourceSettings


def limit_memory(resources: ResourceSettings) -> None:
    """Have allocations beyond ``memory_limit_mib`` and ``vram_limit_mib`` fail, in this process.

    A failed allocation can be recovered from; the kernel's OOM killer, which strikes where there is no limit,
    cannot. What counts is private writable memory (``RLIMIT_DATA``), not the mapped graph store or the
    address space that CUDA sets aside. The limit of VRAM is set only where torch is loaded.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = resources.memory_limit_mib * MIB or hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    torch: Any = sys.modules.get("torch")
    if resources.vram_limit_mib and torch and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, resources.vram_limit_mib * MIB / total))


def free_ram_bytes(ram: Ram | None = None) -> int:
    """RAM that this process can still allocate, bytes: of the machine or its container, and of its own limit.

    Args:
        ram: The RAM that is asked; None for that of this process.
    """
    total, used = (ram or Ram()).measure()
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit == resource.RLIM_INFINITY:
        return max(0, total - used)
    return max(0, min(total - used, limit - getattr(psutil.Process().memory_info(), "data", 0)))


_kept_peak_bytes = 0


def forget_vram_peak() -> None:
    """Begin to measure the most VRAM that this process has allocated, from now on."""
    global _kept_peak_bytes  # noqa: PLW0603 - torch's statistics are the process's too
    _kept_peak_bytes = 0
    for device in _cuda_devices():
        sys.modules["torch"].cuda.reset_peak_memory_stats(device)


def keep_vram_peak() -> None:
    """Remember the peak so far: to be called before torch's own statistics of it are reset."""
    global _kept_peak_bytes  # noqa: PLW0603
    _kept_peak_bytes = vram_peak_bytes()


def vram_peak_bytes() -> int:
    """The most VRAM allocated, over all GPUs, since `forget_vram_peak`; 0 in a process without CUDA."""
    now = sum(sys.modules["torch"].cuda.max_memory_allocated(device) for device in _cuda_devices())
    return max(_kept_peak_bytes, int(now))


def _cuda_devices() -> range:
    """GPUs of a process that uses CUDA; torch is never loaded for the question."""
    torch: Any = sys.modules.get("torch")
    in_use = torch and torch.cuda.is_available() and torch.cuda.is_initialized()
    return range(torch.cuda.device_count() if in_use else 0)
