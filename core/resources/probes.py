"""What the machine is and what it is doing: NVML for NVIDIA GPUs, psutil for everything else."""

import importlib.metadata
import logging
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
import pynvml

from core.events.telemetry import ResourceSample

_MIB = 2**20
_PROBE_ERRORS = (pynvml.NVMLError, psutil.Error, OSError)
_LOG = logging.getLogger(__name__)

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        index: NVML's index (PCI order).
        name: As the driver names it, for example ``NVIDIA GeForce RTX 3090``.
        vram_total_mib: Its memory; the machine's RAM where the two are one.
        driver: Version of the driver.
        compute_capability: Major and minor number.
    """

    index: int
    name: str
    vram_total_mib: float
    driver: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """What a plan runs on; it names no host and no user.

    Attributes:
        cpu_model: Name of the processor.
        num_cpus: CPUs this process may use.
        num_cores: Physical cores, at most `num_cpus`: more threads than that slow training down.
        ram_total_mib: RAM.
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


def probe_machine() -> Machine:
    """Describe this machine; loads neither torch nor a CUDA context."""
    ram_total_mib = psutil.virtual_memory().total / _MIB
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu_model=_cpu_model(),
        num_cpus=num_cpus,
        num_cores=min(num_cpus, psutil.cpu_count(logical=False) or num_cpus),
        ram_total_mib=ram_total_mib,
        platform=platform.platform(),
        python_version=platform.python_version(),
        torch_version=_torch_version(),
        gpus=tuple(_describe_gpu(index, handle, ram_total_mib) for index, handle in _visible_gpus()),
    )


class Probe:
    """Takes resource samples; what cannot be measured is None, said once in the log.

    Args:
        disk: A folder on the disk to watch; its nearest existing parent is asked.
        training_pids: Asked at every sample for the process ids of the training processes.
    """

    def __init__(self, disk: Path, training_pids: Callable[[], Sequence[int]] = lambda: ()) -> None:
        self._disk = disk.absolute()
        self._training_pids = training_pids
        self._gpus = [(index, handle, pynvml.nvmlDeviceGetName(handle)) for index, handle in _visible_gpus()]
        self._warned: set[str] = set()
        psutil.cpu_percent()  # the next call measures since this one

    def sample(self) -> list[ResourceSample]:
        """Measure now: one sample per GPU, one in all on a machine without."""
        now = datetime.now(UTC)
        memory = self._measure("ram", psutil.virtual_memory)
        machine: dict[str, Any] = {
            "cpu_percent": self._measure("cpu_percent", psutil.cpu_percent),
            "ram_used_mib": memory and (memory.total - memory.available) / _MIB,
            "ram_total_mib": memory and memory.total / _MIB,
            "process_rss_mib": self._measure("process_rss_mib", self._rss_mib),
            "disk_free_mib": self._measure("disk_free_mib", self._disk_free_mib),
        }
        return [
            ResourceSample(occurred_at=now, **machine, **self._sample_gpu(*gpu)) for gpu in self._gpus
        ] or [ResourceSample(occurred_at=now, **machine)]

    def _sample_gpu(self, index: int, handle: Any, name: str) -> dict[str, Any]:
        memory = self._measure("vram", lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
        rates = self._measure("gpu_utilization_percent", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
        power_mw = self._measure("gpu_power_w", lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
        celsius = self._measure(
            "gpu_temperature_c",
            lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        )
        return {
            "gpu_index": index,
            "gpu_name": name,
            "gpu_utilization_percent": rates and float(rates.gpu),
            "vram_used_mib": memory and memory.used / _MIB,
            "vram_total_mib": memory and memory.total / _MIB,
            "gpu_power_w": power_mw if power_mw is None else power_mw / 1000,
            "gpu_temperature_c": celsius if celsius is None else float(celsius),
        }

    def _measure(self, quantity: str, probe: Callable[[], Measured]) -> Measured | None:
        try:
            return probe()
        except _PROBE_ERRORS as error:
            if quantity not in self._warned:
                self._warned.add(quantity)
                _LOG.warning("no %s in the resource samples: %s", quantity, error)
            return None

    def _rss_mib(self) -> float:
        rss = psutil.Process().memory_info().rss
        for pid in self._training_pids():
            try:
                rss += psutil.Process(pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it ended since its id was asked for
        return rss / _MIB

    def _disk_free_mib(self) -> float:
        folder = next(path for path in (self._disk, *self._disk.parents) if path.exists())
        return psutil.disk_usage(str(folder)).free / _MIB


def _visible_gpus() -> list[tuple[int, Any]]:
    """Index and NVML handle of each GPU that ``CUDA_VISIBLE_DEVICES`` leaves; none without a driver."""
    try:
        pynvml.nvmlInit()
        gpus = [(i, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return gpus
        by_name = {name: gpu for gpu in gpus for name in (str(gpu[0]), pynvml.nvmlDeviceGetUUID(gpu[1]))}
        wanted = (entry.strip() for entry in visible.split(","))
        # As CUDA reads it: in the order given, up to the first entry that names no GPU.
        return [by_name[entry] for entry in takewhile(by_name.__contains__, wanted)]
    except pynvml.NVMLError as error:
        _LOG.debug("no NVIDIA GPU: %s", error)
        return []


def _describe_gpu(index: int, handle: Any, ram_total_mib: float) -> Gpu:
    try:
        vram_total_mib = pynvml.nvmlDeviceGetMemoryInfo(handle).total / _MIB
    except pynvml.NVMLError_NotSupported:
        vram_total_mib = ram_total_mib
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        vram_total_mib=vram_total_mib,
        driver=pynvml.nvmlSystemGetDriverVersion(),
        compute_capability=(major, minor),
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
