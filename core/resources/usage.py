"""How busy the GPU and how full the RAM is right now, cheaply, from within the training process."""

from typing import Any

import psutil
import pynvml

from core.resources.containers import Ram
from core.resources.nvml import Driver


class Usage:
    """Two figures that can be asked for at any time; what cannot be measured is None, never an error.

    Args:
        nvml: The module ``pynvml``, or one with its functions.
        ram: The RAM to watch.
    """

    def __init__(self, nvml: Any = pynvml, ram: Ram | None = None) -> None:
        self._driver = Driver(nvml)
        self._ram = ram or Ram()

    def gpu_percent(self) -> float | None:
        """Share of time, 0 to 100, in which any kernel ran on the first GPU that this process may use."""
        try:
            # Of a MIG slice there is no such figure, and that of its board is not about this process.
            for device in self._driver.devices()[:1]:
                if device.board is not None:
                    return float(self._driver.nvml.nvmlDeviceGetUtilizationRates(device.handle).gpu)
        except pynvml.NVMLError as error:
            self._driver.failed(error)
        return None

    def ram_percent(self) -> float | None:
        """Share of RAM in use, 0 to 100: of the container's limit where there is one, else of the machine."""
        try:
            total, used = self._ram.measure()
        except (OSError, ValueError, psutil.Error):
            return None
        return 100.0 * used / total
