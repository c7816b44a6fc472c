"""What a plan, and each attempt of its phases, says about the machine and the code that it runs on."""

import subprocess
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.resources.machine import Machine
from core.resources.profiles import require_gpu
from settings.training import TrainingSettings

_GIT_LIMIT_S = 5.0


def describe_machine(machine: Machine, training: TrainingSettings) -> dict[str, Any]:
    """Name the machine, and the device and precision that training has on it.

    Args:
        machine: The machine at hand, which may be another than the one that the plan was made on.
        training: Asks for a device and for mixed precision.

    Returns:
        The fields of ``Machine``, ``device``, ``device_name`` and ``precision``, ``code_version`` (release of
        this software) and ``code_commit`` (see `checkout_commit`).

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
        "code_version": _release(),
        "code_commit": checkout_commit(Path(__file__).resolve().parents[2]),
    }


@cache
def checkout_commit(root: Path) -> str:
    """The commit that a git checkout is at, followed by ``-dirty`` if tracked files were changed since.

    Args:
        root: Top of the checkout. A repository that it merely lies in is another's.

    Returns:
        40 hexadecimal digits, and perhaps ``-dirty``; empty where there is no checkout or no git.
    """
    if not (root / ".git").exists():
        return ""
    where = ("--git-dir", str(root / ".git"), "--work-tree", str(root))
    asked = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *where, *asked],
            capture_output=True,
            text=True,
            timeout=_GIT_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _release() -> str:
    try:
        return version("can-ids-retrain")
    except PackageNotFoundError:
        return ""  # run from a copy that was never installed
