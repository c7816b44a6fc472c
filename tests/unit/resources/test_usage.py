"""GPU and RAM in use, asked from within the training process."""

import pynvml
import pytest

from core.resources.containers import Ram
from core.resources.usage import Usage
from tests.fake_nvml import Board, FakeNvml, Slice


class _NoRam(Ram):
    def measure(self) -> tuple[int, int]:
        raise OSError("the group is gone")


def test_gpu_use_is_that_of_the_first_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(Board("GPU-a", utilization=10), Board("GPU-b", utilization=20))
    assert Usage(nvml).gpu_percent() == 10
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert Usage(nvml).gpu_percent() == 20


def test_what_cannot_be_measured_is_none_and_no_error() -> None:
    absent = FakeNvml()
    absent.broken = pynvml.NVMLError_LibraryNotFound()
    assert Usage(absent).gpu_percent() is None
    assert Usage(FakeNvml(Board("GPU-a", slices=[Slice("MIG-a", 1)]))).gpu_percent() is None
    nvml = FakeNvml(Board("GPU-a"))
    usage = Usage(nvml, _NoRam())
    assert usage.gpu_percent() == 97
    nvml.boards[0].lost = True
    assert usage.gpu_percent() is None
    assert usage.ram_percent() is None


def test_ram_use_is_a_share_of_all_there_is() -> None:
    percent = Usage().ram_percent()
    assert percent is not None
    assert 0 < percent < 100
