"""What GPUs do, from a driver that answers, one that answers in part, and one that dies."""

from collections.abc import Sequence
from typing import Any

import pynvml
import pytest

from core.resources.gpu import Gpus
from core.resources.nvml import RECONNECT_S
from core.resources.readings import Readings
from tests.fake_nvml import Board, FakeNvml, Slice
from tests.unit.resources.test_nvml import Clock

HOPPER = {
    pynvml.NVML_GPM_METRIC_SM_UTIL: 71.0,
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: 33.0,
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: 12.0,
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: 44.0,
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: 3.0,
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: 2.0,
}
ACTIVITY = (
    "gpu_sm_activity_percent",
    "gpu_sm_occupancy_percent",
    "gpu_tensor_activity_percent",
    "gpu_dram_activity_percent",
)
PCIE = ("gpu_pcie_received_bytes_per_s", "gpu_pcie_sent_bytes_per_s")


def first(gpus: Gpus, *names: str) -> list[Any]:
    return [gpus.measure()[0].values.get(name) for name in names]


def missing(readings: Readings) -> set[str]:
    assert not readings.values.keys() & readings.reasons.keys(), "a field is measured or it is not"
    return set(readings.reasons)


def test_everything_is_measured_on_a_gpu_that_tells_everything() -> None:
    gpus = Gpus(FakeNvml(Board("GPU-a", gpm=HOPPER)))
    gpus.measure()
    (found,) = gpus.measure()
    assert missing(found) == set()
    assert found.values == {
        "cuda_index": 0,
        "gpu_index": 0,
        "gpu_uuid": "GPU-a",
        "gpu_name": "NVIDIA H100",
        "vram_used_mib": 10_000.0,
        "vram_total_mib": 81_559.0,
        "gpu_utilization_percent": 97.0,
        "gpu_memory_utilization_percent": 40.0,
        "gpu_power_w": 350.0,
        "gpu_power_limit_w": 700.0,
        "gpu_temperature_c": 61.0,
        "gpu_sm_clock_mhz": 1980.0,
        "gpu_memory_clock_mhz": 2619.0,
        "gpu_throttle_reasons": "",
        "gpu_pcie_generation": 5,
        "gpu_pcie_width": 16,
        "gpu_num_corrected_errors": 3,
        "gpu_num_uncorrected_errors": 0,
        "gpu_last_xid": 0,
        "gpu_sm_activity_percent": 71.0,
        "gpu_sm_occupancy_percent": 33.0,
        "gpu_tensor_activity_percent": 12.0,
        "gpu_dram_activity_percent": 44.0,
        "gpu_pcie_received_bytes_per_s": 3.0 * 2**20,
        "gpu_pcie_sent_bytes_per_s": 2.0 * 2**20,
    }


def test_activity_needs_two_samples_and_a_gpu_that_counts_it() -> None:
    gpus = Gpus(FakeNvml(Board("GPU-a", gpm=HOPPER)))
    assert missing(gpus.measure()[0]) == {*ACTIVITY, *PCIE}
    older = Gpus(FakeNvml(Board("GPU-a", gpm=None)))
    older.measure()
    assert missing(older.measure()[0]) == set(ACTIVITY)
    assert first(older, *PCIE) == [2000 * 1024, 1000 * 1024]


def test_samples_of_activity_are_freed() -> None:
    nvml = FakeNvml(Board("GPU-a", gpm=HOPPER))
    gpus = Gpus(nvml)
    for _ in range(5):
        gpus.measure()
    assert len(nvml.gpm_samples) == 1
    nvml.unsupported = {"nvmlGpmMetricsGet"}
    for _ in range(5):
        assert {*ACTIVITY} <= missing(gpus.measure()[0])
    assert len(nvml.gpm_samples) == 1


def test_one_metric_that_a_gpu_lacks_leaves_the_others() -> None:
    gpus = Gpus(FakeNvml(Board("GPU-a", gpm={k: v for k, v in HOPPER.items() if k != 3})))
    gpus.measure()
    (found,) = gpus.measure()
    assert found.reasons == {"gpu_sm_occupancy_percent": "Not Supported"}


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetName", ("gpu_name",)),
        ("nvmlDeviceGetMemoryInfo", ("vram_used_mib", "vram_total_mib")),
        (
            "nvmlDeviceGetUtilizationRates",
            ("gpu_utilization_percent", "gpu_memory_utilization_percent"),
        ),
        ("nvmlDeviceGetPowerUsage", ("gpu_power_w",)),
        ("nvmlDeviceGetEnforcedPowerLimit", ("gpu_power_limit_w",)),
        ("nvmlDeviceGetTemperature", ("gpu_temperature_c",)),
        ("nvmlDeviceGetClockInfo", ("gpu_sm_clock_mhz", "gpu_memory_clock_mhz")),
        ("nvmlDeviceGetCurrentClocksEventReasons", ("gpu_throttle_reasons",)),
        ("nvmlDeviceGetCurrPcieLinkWidth", ("gpu_pcie_generation", "gpu_pcie_width")),
        ("nvmlDeviceGetTotalEccErrors", ("gpu_num_corrected_errors", "gpu_num_uncorrected_errors")),
        ("nvmlDeviceRegisterEvents", ("gpu_last_xid",)),
        ("nvmlGpmQueryDeviceSupport", ACTIVITY),
        ("nvmlDeviceGetPcieThroughput", ()),  # not asked where the GPU counts its traffic
    ],
)
def test_what_one_function_would_tell_is_missing_alone(function: str, fields: Sequence[str]) -> None:
    nvml = FakeNvml(Board("GPU-a", gpm=HOPPER))
    nvml.unsupported = {function}
    gpus = Gpus(nvml)
    gpus.measure()
    (found,) = gpus.measure()
    assert found.reasons == dict.fromkeys(fields, "Not Supported")


def test_throttle_reasons_have_names_on_new_and_old_drivers() -> None:
    nvml = FakeNvml(Board("GPU-a"))
    nvml.boards[0].throttle = (
        pynvml.nvmlClocksThrottleReasonSwPowerCap
        | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
        | 0x8000_0000  # one that this software does not know
    )
    assert first(Gpus(nvml), "gpu_throttle_reasons") == ["power_cap,thermal_hardware"]
    nvml.unknown = {"nvmlDeviceGetCurrentClocksEventReasons"}
    assert first(Gpus(nvml), "gpu_throttle_reasons") == ["power_cap,thermal_hardware"]


def test_the_last_critical_error_is_remembered_even_over_a_reconnection() -> None:
    clock, nvml = Clock(), FakeNvml(Board("GPU-a"))
    gpus = Gpus(nvml, clock)
    assert first(gpus, "gpu_last_xid") == [0]
    nvml.boards[0].xids = [31, 79]
    assert first(gpus, "gpu_last_xid") == [79]
    nvml.broken = pynvml.NVMLError_Unknown()
    assert first(gpus, "gpu_last_xid") == [None]
    nvml.broken = None
    clock.now += RECONNECT_S
    assert first(gpus, "gpu_last_xid") == [79]


def test_of_a_slice_its_memory_and_activity_are_known_and_no_utilisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    pieces = [Slice("MIG-1", 5), Slice("MIG-2", 6, vram_total_mib=9856)]
    board = Board("GPU-a", gpm=HOPPER, slices=pieces)
    gpus = Gpus(FakeNvml(board))
    gpus.measure()
    (found,) = gpus.measure()
    assert set(found.reasons) == {"gpu_utilization_percent", "gpu_memory_utilization_percent"}
    assert "MIG" in found.reasons["gpu_utilization_percent"]
    assert found.values["gpu_uuid"] == "MIG-2"
    assert found.values["gpu_name"] == "NVIDIA H100 MIG 1g.5gb"
    assert found.values["vram_total_mib"] == 9856
    assert found.values["gpu_sm_activity_percent"] == 71.0
    assert found.values["gpu_power_w"] == 350.0


def test_several_gpus_come_in_cudas_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    found = Gpus(FakeNvml(*(Board(f"GPU-{n}", utilization=n) for n in range(3)))).measure()
    assert [
        (r.values["cuda_index"], r.values["gpu_index"], r.values["gpu_utilization_percent"]) for r in found
    ] == [
        (0, 2, 2.0),
        (1, 0, 0.0),
    ]


def test_without_a_driver_and_without_a_visible_gpu_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = FakeNvml(Board("GPU-a"))
    nvml.broken = pynvml.NVMLError_LibraryNotFound()
    assert Gpus(nvml).measure() == [Readings(reasons={"gpu_index": "NVML Shared Library Not Found"})]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = Gpus(FakeNvml(Board("GPU-a"))).measure()
    assert found.reasons == {"gpu_index": "CUDA_VISIBLE_DEVICES leaves no GPU"}


def test_a_driver_that_dies_leaves_named_gaps_until_it_is_back() -> None:
    clock, nvml = Clock(), FakeNvml(Board("GPU-a", gpm=HOPPER))
    gpus = Gpus(nvml, clock)
    gpus.measure()
    measured = set(gpus.measure()[0].values)
    nvml.broken = pynvml.NVMLError_DriverNotLoaded()
    for wait_s, reason in ((0.0, "Driver Not Loaded"), (RECONNECT_S, "the GPU is gone: Driver Not Loaded")):
        clock.now += wait_s
        (found,) = gpus.measure()
        assert set(found.values) == {"cuda_index", "gpu_index", "gpu_uuid", "gpu_name"}
        assert missing(found) == measured - set(found.values)
        assert set(found.reasons.values()) == {reason}
    nvml.broken = None
    clock.now += RECONNECT_S
    gpus.measure()
    assert set(gpus.measure()[0].values) == measured


def test_a_lost_gpu_takes_no_other_along_and_comes_back_after_its_reset() -> None:
    clock, nvml = Clock(), FakeNvml(Board("GPU-a"), Board("GPU-b"))
    gpus = Gpus(nvml, clock)
    gpus.measure()
    nvml.boards[0].lost = True
    for wait_s in (0.0, RECONNECT_S, RECONNECT_S):
        clock.now += wait_s
        by_uuid = {r.values["gpu_uuid"]: r for r in gpus.measure()}
        assert "vram_used_mib" not in by_uuid["GPU-a"].values
        assert "lost" in by_uuid["GPU-a"].reasons["gpu_power_w"] or wait_s
        assert by_uuid["GPU-b"].values["vram_used_mib"] == 10_000.0
    nvml.boards[0].lost = False
    clock.now += RECONNECT_S
    assert [r.values.get("vram_used_mib") for r in gpus.measure()] == [10_000.0] * 2
