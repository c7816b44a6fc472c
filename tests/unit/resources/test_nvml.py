"""Which GPUs there are, as CUDA sees them, and what becomes of them when the driver does not answer."""

from collections.abc import Sequence

import pynvml
import pytest

from core.resources.nvml import RECONNECT_S, Driver, visible_devices
from tests.fake_nvml import Board, FakeNvml, Slice


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def boards(num: int = 3) -> list[Board]:
    return [Board(f"GPU-{letter}{letter}-1") for letter in "abcdefgh"[:num]]


def with_slices() -> FakeNvml:
    return FakeNvml(
        Board("GPU-aa-1", slices=[Slice("MIG-1", 5), Slice("MIG-2", 6)]),
        Board("GPU-bb-1", slices=[]),
        Board("GPU-cc-1"),
    )


def seen(nvml: FakeNvml, visible: str | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml.nvmlInit()
    return [device.uuid for device in visible_devices(nvml)]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["aa", "bb", "cc"]),
        ("", []),
        ("-1", []),
        ("2,0", ["cc", "aa"]),
        (" 1 , 0 ", ["bb", "aa"]),
        ("0,-1,1", ["aa"]),
        ("0,7,1", ["aa"]),
        ("GPU-bb-1", ["bb"]),
        ("GPU-bb", ["bb"]),
        ("GPU-", []),  # names more than one
        ("GPU-zz,0", []),
        ("GPU-cc-1,GPU-aa-1", ["cc", "aa"]),
    ],
)
def test_gpus_are_chosen_by_index_and_by_uuid_up_to_the_first_that_is_none(
    visible: str | None, expected: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(FakeNvml(*boards()), visible, monkeypatch) == [f"GPU-{name}-1" for name in expected]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-1", "GPU-bb-1", "GPU-cc-1"]),
        ("MIG-2", ["MIG-2"]),
        ("MIG-3", []),
        ("0", ["MIG-1"]),
        ("GPU-aa-1", ["MIG-1"]),
        ("2", ["GPU-cc-1"]),
    ],
)
def test_of_a_board_in_slices_one_slice_is_used(
    visible: str | None, expected: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(with_slices(), visible, monkeypatch) == expected


def test_a_gpu_that_is_lost_from_the_start_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = FakeNvml(*boards())
    nvml.boards[1].lost = True
    assert seen(nvml, None, monkeypatch) == ["GPU-aa-1", "GPU-cc-1"]
    assert "GPU 1 cannot be used: GPU is lost" in caplog.text


def test_a_driver_that_is_absent_is_asked_again_after_a_while() -> None:
    clock, nvml = Clock(), FakeNvml(*boards(1))
    nvml.broken = pynvml.NVMLError_LibraryNotFound()
    driver = Driver(nvml, clock)
    assert (driver.devices(), driver.reason) == ((), "NVML Shared Library Not Found")
    nvml.broken = None
    assert driver.devices() == ()
    clock.now += RECONNECT_S
    assert [device.uuid for device in driver.devices()] == ["GPU-aa-1"]
    assert driver.reason is None


@pytest.mark.parametrize(
    "error",
    [pynvml.NVMLError_DriverNotLoaded(), pynvml.NVMLError_Unknown(), pynvml.NVMLError_LibRmVersionMismatch()],
)
def test_a_driver_that_dies_is_connected_to_again_and_its_gpus_are_kept(error: pynvml.NVMLError) -> None:
    clock, nvml = Clock(), FakeNvml(*boards(2))
    driver = Driver(nvml, clock)
    uuids = [device.uuid for device in driver.devices()]
    nvml.broken = error
    driver.failed(error)
    assert [device.uuid for device in driver.devices()] == uuids
    clock.now += RECONNECT_S
    assert [(device.uuid, device.board) for device in driver.devices()] == [(uuid, None) for uuid in uuids]
    assert driver.reason == str(error)
    nvml.broken = None
    clock.now += RECONNECT_S
    assert [device.board for device in driver.devices()] == list(nvml.boards)
    assert (driver.num_connections, nvml.num_users) == (2, 1)


def test_a_gpu_that_falls_off_the_bus_keeps_its_place_among_the_others() -> None:
    clock, nvml = Clock(), FakeNvml(*boards(2))
    driver = Driver(nvml, clock)
    driver.devices()
    nvml.boards[0].lost = True
    driver.failed(pynvml.NVMLError_GpuIsLost())
    clock.now += RECONNECT_S
    assert [(device.uuid, device.board) for device in driver.devices()] == [
        ("GPU-aa-1", None),
        ("GPU-bb-1", nvml.boards[1]),
    ]


def test_what_a_gpu_cannot_tell_breaks_no_connection() -> None:
    clock, nvml = Clock(), FakeNvml(*boards(1))
    driver = Driver(nvml, clock)
    driver.devices()
    driver.failed(pynvml.NVMLError_NotSupported())
    clock.now += 10 * RECONNECT_S
    driver.devices()
    assert driver.num_connections == 1


def test_the_driver_is_let_go_once() -> None:
    nvml = FakeNvml(*boards(1))
    driver = Driver(nvml)
    driver.devices()
    driver.close()
    driver.close()
    assert nvml.num_users == 0
