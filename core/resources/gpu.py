"""What the GPUs do, as their driver tells: memory, load, power, clocks, errors and the link to the host."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pynvml

from core.events.telemetry import ResourceSample
from core.resources.nvml import Device, Driver
from core.resources.readings import MIB, NEEDS_TWO, Missing, Question, Readings

_THROTTLE_REASONS = {
    pynvml.nvmlClocksThrottleReasonGpuIdle: "idle",
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "application_clocks",
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "power_cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware_slowdown",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "thermal_software",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "thermal_hardware",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power_brake",
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: "display_clocks",
}
_GPM_METRICS = {
    "gpu_sm_activity_percent": pynvml.NVML_GPM_METRIC_SM_UTIL,
    "gpu_sm_occupancy_percent": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
    "gpu_tensor_activity_percent": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    "gpu_dram_activity_percent": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
}
_GPM_PCIE = (pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC)
_MOST_EVENTS = 32  # that are taken at one sample: errors may come faster than they are read
_NO_GPM = Missing("this GPU has no performance monitoring (Hopper and later have)")
_KNOWN = ("gpu_index", "gpu_uuid")
_MEASURED = tuple(
    name for name in ResourceSample.__slots__ if name.startswith(("gpu_", "vram_")) and name not in _KNOWN
)


class Gpus:
    """Measures the GPUs that this process may use; one that fails is missing and tried again now and then.

    Args:
        nvml: The module ``pynvml``, or one with its functions.
        clock: Seconds that only grow.
    """

    def __init__(self, nvml: Any = pynvml, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = Driver(nvml, clock)
        self._connection = 0
        self._gauges: dict[str, _Gauge] = {}
        self._names: dict[str, str] = {}
        self._xids: dict[str, int] = {}

    def measure(self) -> list[Readings]:
        """One per GPU, in CUDA's order; on a machine without, one that says why there is none."""
        devices = self._driver.devices()
        if self._connection != self._driver.num_connections:
            self._connection = self._driver.num_connections
            self._gauges = {}  # what they hold is of the connection before
        if not devices:
            reason = self._driver.reason or "CUDA_VISIBLE_DEVICES leaves no GPU"
            return [Readings(reasons={"gpu_index": reason})]
        return [self._measure(cuda_index, device) for cuda_index, device in enumerate(devices)]

    def _measure(self, cuda_index: int, device: Device) -> Readings:
        found = Readings({"cuda_index": cuda_index, "gpu_index": device.index, "gpu_uuid": device.uuid})
        if device.board is None:
            reason = f"the GPU is gone: {self._driver.reason or 'the driver no longer knows it'}"
            found.reasons = dict.fromkeys(_MEASURED, reason)
        else:
            if device.uuid not in self._gauges:
                self._gauges[device.uuid] = _Gauge(self._driver.nvml, device, self._xids)
            found.ask(self._gauges[device.uuid].questions, self._failed)
        if name := found.values.get("gpu_name", self._names.get(device.uuid)):
            found.values["gpu_name"] = self._names[device.uuid] = name
            found.reasons.pop("gpu_name", None)
        return found

    def _failed(self, error: Exception) -> None:
        if isinstance(error, pynvml.NVMLError):
            self._driver.failed(error)


class _Gauge:
    """What one GPU is asked, over one connection to the driver."""

    def __init__(self, nvml: Any, device: Device, xids: dict[str, int]) -> None:
        self._nvml = nvml
        self._device = device
        self._xids = xids
        self._events: Any = None
        self._gpm_sample: Any = None
        self._pcie: Sequence[Any] | None = None
        board = device.board
        self.questions: Sequence[Question] = (
            (("gpu_name",), lambda: [nvml.nvmlDeviceGetName(device.handle)]),
            (("vram_used_mib", "vram_total_mib"), self._vram),
            (("gpu_utilization_percent", "gpu_memory_utilization_percent"), self._utilization),
            (("gpu_power_w",), lambda: [nvml.nvmlDeviceGetPowerUsage(board) / 1000]),
            (("gpu_power_limit_w",), lambda: [nvml.nvmlDeviceGetEnforcedPowerLimit(board) / 1000]),
            (
                ("gpu_temperature_c",),
                lambda: [float(nvml.nvmlDeviceGetTemperature(board, pynvml.NVML_TEMPERATURE_GPU))],
            ),
            (
                ("gpu_sm_clock_mhz", "gpu_memory_clock_mhz"),
                lambda: [
                    float(nvml.nvmlDeviceGetClockInfo(board, clock))
                    for clock in (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
                ],
            ),
            (("gpu_throttle_reasons",), self._throttle_reasons),
            (
                ("gpu_pcie_generation", "gpu_pcie_width"),
                lambda: [
                    nvml.nvmlDeviceGetCurrPcieLinkGeneration(board),
                    nvml.nvmlDeviceGetCurrPcieLinkWidth(board),
                ],
            ),
            (
                ("gpu_num_corrected_errors", "gpu_num_uncorrected_errors"),
                lambda: [
                    nvml.nvmlDeviceGetTotalEccErrors(board, kind, pynvml.NVML_VOLATILE_ECC)
                    for kind in (
                        pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
                        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    )
                ],
            ),
            (("gpu_last_xid",), self._last_xid),
            (tuple(_GPM_METRICS), self._gpm),
            (("gpu_pcie_received_bytes_per_s", "gpu_pcie_sent_bytes_per_s"), self._pcie_traffic),
        )

    def _vram(self) -> Sequence[Any]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device.handle)
        return [memory.used / MIB, memory.total / MIB]

    def _utilization(self) -> Sequence[Any]:
        if self._device.slice is not None:
            return [Missing("the driver does not tell it of MIG slices")] * 2
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._device.board)
        return [float(rates.gpu), float(rates.memory)]

    def _throttle_reasons(self) -> Sequence[Any]:
        try:
            bits = self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._device.board)
        except pynvml.NVMLError_FunctionNotFound:  # drivers before 535 have it by its old name
            bits = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._device.board)
        return [",".join(name for bit, name in _THROTTLE_REASONS.items() if bits & bit)]

    def _last_xid(self) -> Sequence[Any]:
        nvml, uuid = self._nvml, self._device.uuid
        if self._events is None:
            events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(self._device.board, pynvml.nvmlEventTypeXidCriticalError, events)
            self._events = events
        with suppress(pynvml.NVMLError_Timeout):  # none that was not taken yet
            for _ in range(_MOST_EVENTS):
                self._xids[uuid] = int(nvml.nvmlEventSetWait_v2(self._events, 0).eventData)
        return [self._xids.get(uuid, 0)]

    def _gpm(self) -> Sequence[Any]:
        nvml, board = self._nvml, self._device.board
        self._pcie = None
        if not nvml.nvmlGpmQueryDeviceSupport(board).isSupportedDevice:
            return [_NO_GPM] * len(_GPM_METRICS)
        sample = nvml.nvmlGpmSampleAlloc()
        try:
            if self._device.slice is None:
                nvml.nvmlGpmSampleGet(board, sample)
            else:
                instance = nvml.nvmlDeviceGetGpuInstanceId(self._device.slice)
                nvml.nvmlGpmMigSampleGet(board, instance, sample)
            values = self._gpm_since_last(sample)
        except pynvml.NVMLError:
            nvml.nvmlGpmSampleFree(sample)
            raise
        if self._gpm_sample is not None:
            nvml.nvmlGpmSampleFree(self._gpm_sample)
        self._gpm_sample = sample
        self._pcie = [v if isinstance(v, Missing) else MIB * v for v in values[len(_GPM_METRICS) :]]
        return values[: len(_GPM_METRICS)]

    def _gpm_since_last(self, sample: Any) -> list[Any]:
        """The metrics, and traffic from the host and to it in MiB/s, between the last sample and this one."""
        ids = (*_GPM_METRICS.values(), *_GPM_PCIE)
        if self._gpm_sample is None:
            return [NEEDS_TWO] * len(ids)
        request = pynvml.c_nvmlGpmMetricsGet_t(
            version=pynvml.NVML_GPM_METRICS_GET_VERSION,
            numMetrics=len(ids),
            sample1=self._gpm_sample,
            sample2=sample,
        )
        for place, metric in enumerate(ids):
            request.metrics[place].metricId = metric
        self._nvml.nvmlGpmMetricsGet(request)
        return [
            answer.value
            if answer.nvmlReturn == pynvml.NVML_SUCCESS
            else Missing(str(pynvml.NVMLError(answer.nvmlReturn)))
            for answer in request.metrics[: len(ids)]
        ]

    def _pcie_traffic(self) -> Sequence[Any]:
        if self._pcie is not None:  # where there is GPM it knows, and this would take 20 ms each way
            return self._pcie
        counters = (pynvml.NVML_PCIE_UTIL_RX_BYTES, pynvml.NVML_PCIE_UTIL_TX_BYTES)
        return [1024.0 * self._nvml.nvmlDeviceGetPcieThroughput(self._device.board, c) for c in counters]
