"""What the machine is: its processor, memory and GPUs, as far as this process may use them."""

import importlib.metadata
import logging
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pynvml

from core.resources.containers import Ram, num_cpus
from core.resources.nvml import Device, Driver
from core.resources.readings import MIB

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, or the MIG slice of one.

    Attributes:
        index: NVML's index of the board (PCI order).
        name: As the driver names it, for example ``NVIDIA GeForce RTX 3090``.
        vram_total_mib: Its memory; the machine's RAM where the two are one.
        driver: Version of the driver.
        compute_capability: Major and minor number.
        uuid: Of the board or slice; empty where an earlier release described it.
    """

    index: int
    name: str
    vram_total_mib: float
    driver: str
    compute_capability: tuple[int, int]
    uuid: str = ""


@dataclass(frozen=True)
class Machine:
    """What a plan runs on; it names no host and no user.

    Attributes:
        cpu_model: Name of the processor.
        num_cpus: CPUs this process may use, by affinity and by its container's limit.
        num_cores: Physical cores, at most `num_cpus`: more threads than that slow training down.
        ram_total_mib: RAM, or what its container allows of it.
        platform: Operating system, kernel and architecture.
        python_version: Version of Python.
        torch_version: Version of torch, with its build (``2.13.0+cpu``); empty if it is not installed.
        gpus: GPUs this process may use.
    """

    cpu_model: str
    num_cpus: int
    num_cores: int
    ram_total_mib: float
    platform: str
    python_version: str
    torch_version: str
    gpus: tuple[Gpu, ...]

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where torch can train: on a GPU only if there is one and torch was built for it."""
        return "cuda" if self.gpus and not self.torch_version.endswith("+cpu") else "cpu"

    @property
    def precision(self) -> Literal["bf16", "fp16", "fp32"]:
        """The best mixed precision the device has: bf16 from compute capability 8.0 on, fp32 on CPUs."""
        if self.device == "cpu":
            return "fp32"
        return "bf16" if self.gpus[0].compute_capability >= (8, 0) else "fp16"

    def with_gpu(self, gpu: Gpu) -> "Machine":
        """What a process sees of it that is given one GPU only."""
        return replace(self, gpus=(gpu,))


def probe_machine(nvml: Any = pynvml, every_slice: bool = False) -> Machine:
    """Describe this machine; loads neither torch nor a CUDA context.

    Args:
        nvml: The module ``pynvml``, or one with its functions.
        every_slice: Whether all MIG slices of a board count; a process by itself would use the first one.
    """
    ram_total_mib = Ram().measure()[0] / MIB
    cpus = num_cpus()
    return Machine(
        cpu_model=_cpu_model(),
        num_cpus=cpus,
        num_cores=min(cpus, psutil.cpu_count(logical=False) or cpus),
        ram_total_mib=ram_total_mib,
        platform=platform.platform(),
        python_version=platform.python_version(),
        torch_version=_torch_version(),
        gpus=_describe_gpus(nvml, ram_total_mib, every_slice),
    )


def _describe_gpus(nvml: Any, ram_total_mib: float, every_slice: bool) -> tuple[Gpu, ...]:
    driver = Driver(nvml, every_slice=every_slice)
    found = []
    for device in driver.devices():
        try:
            found.append(_describe_gpu(nvml, device, ram_total_mib))
        except pynvml.NVMLError as error:
            _LOG.warning("GPU %d is left out: %s", device.index, error)
    if driver.reason:
        _LOG.debug("no NVIDIA GPU: %s", driver.reason)
    driver.close()
    return tuple(found)


def _describe_gpu(nvml: Any, device: Device, ram_total_mib: float) -> Gpu:
    try:
        vram_total_mib = nvml.nvmlDeviceGetMemoryInfo(device.handle).total / MIB
    except pynvml.NVMLError_NotSupported:
        vram_total_mib = ram_total_mib
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device.board)
    return Gpu(
        index=device.index,
        name=nvml.nvmlDeviceGetName(device.handle),
        vram_total_mib=vram_total_mib,
        driver=nvml.nvmlSystemGetDriverVersion(),
        compute_capability=(major, minor),
        uuid=device.uuid,
    )


def _cpu_model() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""  # not Linux
    names = (line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""
