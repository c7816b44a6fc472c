"""What a plan, and each attempt of its phases, says about the machine it runs on."""

from dataclasses import asdict
from typing import Any

from core.resources.machine import Machine
from core.resources.profiles import require_gpu
from settings.training import TrainingSettings


def describe_machine(machine: Machine, training: TrainingSettings) -> dict[str, Any]:
    """Name the machine, and the device and precision that training has on it.

    Args:
        machine: The machine at hand, which may be another than the one that the plan was made on.
        training: Asks for a device and for mixed precision.

    Returns:
        The fields of ``Machine``, ``device``, ``device_name`` and ``precision``.

    Raises:
        SettingsError: A GPU is asked for and there is none.
    """
    device = machine.device if training.device == "auto" else training.device
    if device == "cuda":
        require_gpu(machine, "training.device is cuda")
    return {
        **asdict(machine),
        "device": device,
        "device_name": machine.gpus[0].name if device == "cuda" else machine.cpu_model,
        "precision": machine.precision if training.mixed_precision and device == "cuda" else "fp32",
    }
