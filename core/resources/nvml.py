"""The NVIDIA driver's management library: the GPUs this process may use, over a connection that can break."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pynvml

RECONNECT_S = 30.0
"""Least time between attempts to reach a driver, or a GPU, that did not answer, seconds."""

_LOG = logging.getLogger(__name__)

_BROKEN = (
    pynvml.NVMLError_Uninitialized,
    pynvml.NVMLError_DriverNotLoaded,
    pynvml.NVMLError_LibraryNotFound,
    pynvml.NVMLError_LibRmVersionMismatch,
    pynvml.NVMLError_GpuIsLost,
    pynvml.NVMLError_ResetRequired,
    pynvml.NVMLError_Unknown,
)


@dataclass(frozen=True)
class Device:
    """What CUDA takes for one GPU: a board, or a MIG slice of one.

    Attributes:
        index: NVML's index of the board (PCI order).
        uuid: Of the board or of the slice.
        board: NVML's handle of the board; None once the driver no longer knows it.
        slice: NVML's handle of the slice; None for a whole board.
    """

    index: int
    uuid: str
    board: Any
    slice: Any = None

    @property
    def handle(self) -> Any:
        """The slice, or else the board."""
        return self.board if self.slice is None else self.slice


class Driver:
    """A connection to the driver; it is made at the first question and, now and then, again after it broke.

    Args:
        nvml: The module ``pynvml``, or one with its functions.
        clock: Seconds that only grow.
        every_slice: See ``visible_devices``.

    Attributes:
        reason: What broke it, or why there never was one; None as long as all is well.
        num_connections: How often it was made: with each, what was got from the one before is void.
    """

    def __init__(
        self,
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
        every_slice: bool = False,
    ) -> None:
        self.nvml = nvml
        self._every_slice = every_slice
        self.reason: str | None = None
        self.num_connections = 0
        self._clock = clock
        self._connected = False
        self._connect_at: float | None = -float("inf")
        self._devices: tuple[Device, ...] = ()

    def devices(self) -> tuple[Device, ...]:
        """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order; none without a driver.

        A GPU that was there before stays in the list when it falls off the bus or the driver goes away.
        """
        if self._connect_at is not None and self._clock() >= self._connect_at:
            self._connect()
        return self._devices

    def failed(self, error: pynvml.NVMLError) -> None:
        """Take note of an error; one that speaks of a broken connection has it made again after a while."""
        if isinstance(error, _BROKEN) and self._connect_at is None:
            self.reason = str(error)
            self._connect_at = self._clock() + RECONNECT_S

    def close(self) -> None:
        """Let go of the driver."""
        if self._connected:
            self._connected = False
            with suppress(pynvml.NVMLError):
                self.nvml.nvmlShutdown()

    def _connect(self) -> None:
        self.close()
        self._connect_at, self.reason = None, None
        found: dict[str, Device] = {}
        try:
            self.nvml.nvmlInit()
            self._connected = True
            self.num_connections += 1
            found = {device.uuid: device for device in visible_devices(self.nvml, self._every_slice)}
        except pynvml.NVMLError as error:
            self.reason = str(error)
        gone = {known.uuid: replace(known, board=None, slice=None) for known in self._devices}
        if self.reason or gone.keys() - found.keys():
            self._connect_at = self._clock() + RECONNECT_S
        self._devices = tuple((gone | found).values())  # those known before keep their places


def visible_devices(nvml: Any, every_slice: bool = False) -> list[Device]:
    """Find the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, as CUDA reads it.

    Entries are indices, UUIDs (their unique beginning is enough) or UUIDs of MIG slices; what follows the
    first entry that names no GPU is ignored. Of a board in MIG mode CUDA uses one slice: the one named, else
    its first. Indices are taken in PCI order, which is CUDA's with ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` and on
    machines with GPUs of one kind. A board that fell off the bus is left out.

    Args:
        nvml: The initialised library.
        every_slice: Whether all slices of a board count, not only the first.

    Raises:
        NVMLError: The driver does not answer.
    """
    boards = [_board(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    num_slices = None if every_slice else 1
    entries = os.environ.get("CUDA_VISIBLE_DEVICES")
    if entries is None:
        return [piece for board in boards if board for piece in _pieces(nvml, board)[:num_slices]]
    chosen: list[Device] = []
    for entry in (entry.strip() for entry in entries.split(",")):
        if not (named := _named(nvml, entry, boards)):
            break
        chosen += named[:num_slices]
    return list({device.uuid: device for device in chosen}.values())


def _board(nvml: Any, index: int) -> Device | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        return Device(index, nvml.nvmlDeviceGetUUID(handle), handle)
    except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_NoPermission, pynvml.NVMLError_Unknown) as error:
        _LOG.warning("GPU %d cannot be used: %s", index, error)
        return None


def _named(nvml: Any, entry: str, boards: Sequence[Device | None]) -> list[Device]:
    if entry.isdecimal():
        board = boards[int(entry)] if int(entry) < len(boards) else None
        return _pieces(nvml, board) if board else []
    if entry.startswith("MIG-"):
        slices = [piece for board in boards if board for piece in _slices(nvml, board)]
        return [piece for piece in slices if piece.uuid == entry]
    found = [board for board in boards if board and entry and board.uuid.startswith(entry)]
    return _pieces(nvml, found[0]) if len(found) == 1 else []


def _pieces(nvml: Any, board: Device) -> list[Device]:
    """What CUDA takes for one GPU each: a board's slices, or else the board."""
    return _slices(nvml, board) or [board]


def _slices(nvml: Any, board: Device) -> list[Device]:
    """The MIG slices of a board; none if it is not in that mode."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(board.board)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        found = []
        for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board.board)):
            with suppress(pynvml.NVMLError_NotFound):  # a place without a slice
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board.board, place)
                found.append(Device(board.index, nvml.nvmlDeviceGetUUID(handle), board.board, handle))
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return []
    return found
