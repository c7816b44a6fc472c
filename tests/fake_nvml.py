"""A machine's GPUs as pynvml shows them, without any: what the driver answers is written down here."""

import ctypes
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 2**20


@dataclass
class Slice:
    """A MIG slice; `parent` is set by the fake."""

    uuid: str
    instance_id: int
    vram_total_mib: int = 4864
    parent: Any = None


@dataclass
class Board:
    """A GPU, its figures, and what is wrong with it."""

    uuid: str
    name: str = "NVIDIA H100"
    vram_total_mib: int = 81_559
    vram_used_mib: int = 10_000
    utilization: int = 97
    memory_utilization: int = 40
    power_mw: int = 350_000
    power_limit_mw: int = 700_000
    throttle: int = 0
    gpm: dict[int, float] | None = None
    slices: list[Slice] | None = None
    xids: list[int] = field(default_factory=list)
    lost: bool = False


class FakeNvml:
    """Stands in for the module ``pynvml``: only the functions that are used, with the real errors.

    Args:
        boards: The machine's GPUs.

    Attributes:
        broken: Raised by every call but the first initialisation, as by a driver that died.
        unsupported: Names of functions that this hardware has not.
        unknown: Names of functions that this driver has not.
        gate: Every question about a GPU waits for it: cleared, the driver blocks.
        num_users: Initialisations without a shutdown.
        gpm_samples: Performance samples that were not freed, and the board each was taken of.
    """

    def __init__(self, *boards: Board) -> None:
        self.boards = boards
        self.broken: Exception | None = None
        self.unsupported: set[str] = set()
        self.unknown: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.num_users = 0
        self.gpm_samples: dict[int, Board | None] = {}
        for board in boards:
            for piece in board.slices or ():
                piece.parent = board

    def _ask(self, function: str, handle: Any = None) -> None:
        self.gate.wait()
        if self.broken:
            raise self.broken
        if not self.num_users:
            raise pynvml.NVMLError_Uninitialized
        if function in self.unknown:
            raise pynvml.NVMLError_FunctionNotFound
        if function in self.unsupported:
            raise pynvml.NVMLError_NotSupported
        if getattr(handle, "parent", handle) is not None and getattr(handle, "parent", handle).lost:
            raise pynvml.NVMLError_GpuIsLost

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.broken
        self.num_users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_users -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetCount")
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        self._ask("nvmlDeviceGetHandleByIndex", self.boards[index])
        return self.boards[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        self._ask("nvmlDeviceGetUUID", handle)
        return str(handle.uuid)

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        self._ask("nvmlDeviceGetName", handle)
        return f"{handle.parent.name} MIG 1g.5gb" if isinstance(handle, Slice) else handle.name

    def nvmlDeviceGetCudaComputeCapability(self, handle: Board) -> tuple[int, int]:  # noqa: N802
        self._ask("nvmlDeviceGetCudaComputeCapability", handle)
        return 9, 0

    def nvmlDeviceGetMigMode(self, handle: Board) -> list[int]:  # noqa: N802
        self._ask("nvmlDeviceGetMigMode", handle)
        if handle.slices is None:
            raise pynvml.NVMLError_NotSupported
        return [pynvml.NVML_DEVICE_MIG_ENABLE] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetMaxMigDeviceCount", handle)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Board, index: int) -> Slice:  # noqa: N802
        self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle)
        if index >= len(handle.slices or ()):
            raise pynvml.NVMLError_NotFound
        return (handle.slices or [])[index]

    def nvmlDeviceGetGpuInstanceId(self, handle: Slice) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetGpuInstanceId", handle)
        return handle.instance_id

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        self._ask("nvmlDeviceGetMemoryInfo", handle)
        used = 1000 if isinstance(handle, Slice) else handle.vram_used_mib
        return SimpleNamespace(total=handle.vram_total_mib * MIB, used=used * MIB)

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        self._ask("nvmlDeviceGetUtilizationRates", handle)
        if isinstance(handle, Slice) or handle.slices is not None:
            raise pynvml.NVMLError_NotSupported
        return SimpleNamespace(gpu=handle.utilization, memory=handle.memory_utilization)

    def nvmlDeviceGetPowerUsage(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetPowerUsage", handle)
        return handle.power_mw

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        return handle.power_limit_mw

    def nvmlDeviceGetTemperature(self, handle: Board, sensor: int) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetTemperature", handle)
        return 61

    def nvmlDeviceGetClockInfo(self, handle: Board, clock: int) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetClockInfo", handle)
        return {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[clock]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        return handle.throttle

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return handle.throttle

    def nvmlDeviceGetPcieThroughput(self, handle: Board, counter: int) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetPcieThroughput", handle)
        return {pynvml.NVML_PCIE_UTIL_RX_BYTES: 2000, pynvml.NVML_PCIE_UTIL_TX_BYTES: 1000}[counter]  # KB/s

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetCurrPcieLinkGeneration", handle)
        return 5

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Board) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetCurrPcieLinkWidth", handle)
        return 16

    def nvmlDeviceGetTotalEccErrors(self, handle: Board, kind: int, counter: int) -> int:  # noqa: N802
        self._ask("nvmlDeviceGetTotalEccErrors", handle)
        assert counter == pynvml.NVML_VOLATILE_ECC
        corrected = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        return {corrected: 3, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: 0}[kind]

    def nvmlEventSetCreate(self) -> list[Board]:  # noqa: N802
        self._ask("nvmlEventSetCreate")
        return []

    def nvmlDeviceRegisterEvents(self, handle: Board, types: int, events: list[Board]) -> None:  # noqa: N802
        self._ask("nvmlDeviceRegisterEvents", handle)
        assert types == pynvml.nvmlEventTypeXidCriticalError
        events.append(handle)

    def nvmlEventSetWait_v2(self, events: list[Board], timeout_ms: int) -> Any:  # noqa: N802
        self._ask("nvmlEventSetWait_v2")
        assert timeout_ms == 0
        for board in events:
            if board.xids:
                return SimpleNamespace(eventData=board.xids.pop(0))
        raise pynvml.NVMLError_Timeout

    def nvmlEventSetFree(self, events: list[Board]) -> None:  # noqa: N802
        self._ask("nvmlEventSetFree")

    def nvmlGpmQueryDeviceSupport(self, handle: Board) -> Any:  # noqa: N802
        self._ask("nvmlGpmQueryDeviceSupport", handle)
        return SimpleNamespace(isSupportedDevice=int(handle.gpm is not None))

    def nvmlGpmSampleAlloc(self) -> Any:  # noqa: N802
        self._ask("nvmlGpmSampleAlloc")
        address = max(self.gpm_samples, default=0x1000) + 16
        self.gpm_samples[address] = None
        return _pointer(address)

    def nvmlGpmSampleGet(self, handle: Board, sample: Any) -> None:  # noqa: N802
        self._ask("nvmlGpmSampleGet", handle)
        if handle.slices is not None:
            raise pynvml.NVMLError_NotSupported
        self.gpm_samples[_address(sample)] = handle

    def nvmlGpmMigSampleGet(self, handle: Board, instance_id: int, sample: Any) -> None:  # noqa: N802
        self._ask("nvmlGpmMigSampleGet", handle)
        assert instance_id in {piece.instance_id for piece in handle.slices or ()}
        self.gpm_samples[_address(sample)] = handle

    def nvmlGpmSampleFree(self, sample: Any) -> None:  # noqa: N802
        del self.gpm_samples[_address(sample)]

    def nvmlGpmMetricsGet(self, request: Any) -> Any:  # noqa: N802
        self._ask("nvmlGpmMetricsGet")
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        before, now = (self.gpm_samples[_address(s)] for s in (request.sample1, request.sample2))
        assert now is not None
        assert before is now
        for metric in request.metrics[: request.numMetrics]:
            value = (now.gpm or {}).get(metric.metricId)
            metric.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED if value is None else pynvml.NVML_SUCCESS
            metric.value = value or 0.0
        return request


def _pointer(address: int) -> Any:
    return ctypes.cast(ctypes.c_void_p(address), pynvml.c_nvmlGpmSample_t)


def _address(pointer: Any) -> int:
    return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0)
