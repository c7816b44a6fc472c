"""Starting points per GPU, and settings fitted to the machine at hand."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.resources.machine import Gpu, Machine
from settings.app import Settings
from settings.errors import SettingsError
from settings.sources import Origin
from settings.tree import merge, nested


@dataclass(frozen=True)
class GpuProfile:
    """Settings to start from on one kind of device; what was measured on the machine replaces them.

    Attributes:
        device_name: The device they are for.
        vram_total_mib: Its memory.
        batch_size: Graphs per optimizer step, at most.
        num_workers: Threads that gather packs ahead, where there are CPUs enough.
        mixed_precision: Whether to train in bf16 or fp16.
        replay_capacity: Transitions in the fusion agent's replay buffer.
        preset: Sizes of the models.
        published_samples_per_s: Training speed that was published for it; None where none was.
        basis: Which published profiles they were derived from; empty for a published one.
    """

    device_name: str
    vram_total_mib: float
    batch_size: int
    num_workers: int
    mixed_precision: bool
    replay_capacity: int
    preset: Literal["published", "small"]
    published_samples_per_s: float | None = None
    basis: str = ""

    @property
    def label(self) -> str:
        """For people: ``profile Tesla T4 (interpolated between RTX 3080 and RTX 3090)``."""
        return f"profile {self.device_name}" + (f" ({self.basis})" if self.basis else "")


CPU_PROFILE = GpuProfile("CPU", 0.0, 1024, 2, False, 50_000, "small")
SMALL_GPU = GpuProfile("small GPU", 4096.0, 1024, 8, True, 100_000, "published")
"""Not published: halfway from the smallest published card to a CPU."""
GPU_PROFILES = (
    GpuProfile("A100", 40_960.0, 8192, 24, True, 500_000, "published", 120.0),
    GpuProfile("RTX 4090", 24_576.0, 4096, 16, True, 300_000, "published", 80.0),
    GpuProfile("RTX 3090", 24_576.0, 4096, 16, True, 300_000, "published", 70.0),
    GpuProfile("RTX 3080", 10_240.0, 2048, 12, True, 200_000, "published", 50.0),
)
"""Published, most memory first."""

_NOMINAL = 0.9
"""A driver reports a little less than the nominal memory."""
_SLOWER_KIN = re.compile(r"laptop|mobile|max-q|\bmig\b", re.IGNORECASE)
_OLDEST_FAST_HALF = (7, 0)
"""Compute capability from which 16-bit arithmetic is faster: Volta."""

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "auto": {},
    "gpu": {"training.device": "cuda"},
    "cpu": {"training.device": "cpu"},
    "ci": {
        "data.demo.duration_s": 10.0,
        "dataset.num_workers": 0,
        "models.preset": "small",
        "resources.sample_interval_s": 0.5,
        "tracking.mlflow": False,
        "training.adaptive_optimization": False,
        "training.batch_size": 256,
        "training.deterministic": True,
        "training.device": "cpu",
        "training.dqn.episodes": 2,
        "training.epochs": 2,
        "training.min_steps_per_epoch": 4,
        "training.mixed_precision": False,
        "training.num_threads": 1,
    },
}
"""What each ``environment`` starts from, by dotted name; it wins over the profile and over nothing else."""


@dataclass(frozen=True)
class StartingPoints:
    """Values for settings that nobody gave.

    Attributes:
        profile: The profile most of them come from.
        values: By dotted name.
        origins: Where each comes from, likewise.
    """

    profile: GpuProfile
    values: Mapping[str, Any]
    origins: Mapping[str, Origin]


def profile_for(
    gpu_name: str | None, vram_total_mib: float, compute_capability: Sequence[int] = (8, 0)
) -> GpuProfile:
    """Choose or derive the profile of a device.

    A GPU that is not in the table, or has less memory than its namesake there, gets what lies between its
    neighbours by memory on a logarithmic scale: the batch size as the nearest power of two. Beyond the ends
    of the table nothing is extrapolated.

    Args:
        gpu_name: Name as the driver gives it, None for a machine without a GPU.
        vram_total_mib: Its memory; of a MIG slice, the slice's.
        compute_capability: Major and minor number.

    Returns:
        The profile. Without 16-bit arithmetic that pays, mixed precision is off; cards of less than 4 GiB get
        the small models.
    """
    if gpu_name is None:
        return CPU_PROFILE
    named = [
        profile
        for profile in GPU_PROFILES
        if re.search(rf"\b{profile.device_name}\b", gpu_name, re.IGNORECASE)
        and vram_total_mib >= _NOMINAL * profile.vram_total_mib
        and not _SLOWER_KIN.search(gpu_name)
    ]
    profile = named[0] if named else _interpolate(gpu_name, vram_total_mib)
    return replace(
        profile,
        mixed_precision=tuple(compute_capability) >= _OLDEST_FAST_HALF,
        preset="published" if vram_total_mib >= _NOMINAL * SMALL_GPU.vram_total_mib else "small",
    )


def profile_of(gpu: Gpu | None) -> GpuProfile:
    """The profile of a GPU, or of a machine without one."""
    return profile_for(gpu.name, gpu.vram_total_mib, gpu.compute_capability) if gpu else CPU_PROFILE


def training_gpu(settings: Settings, machine: Machine) -> Gpu | None:
    """The GPU that these settings train on, the first there is; None for the CPU."""
    device = settings.training.device
    if device == "auto":
        device = "cuda" if settings.environment in ("auto", "gpu") else "cpu"
    return machine.gpus[0] if device == "cuda" and machine.device == "cuda" else None


def _interpolate(gpu_name: str, vram_total_mib: float) -> GpuProfile:
    points = (*GPU_PROFILES, SMALL_GPU)
    below = next((p for p in points if p.vram_total_mib <= vram_total_mib), points[-1])
    above = next((p for p in reversed(points) if p.vram_total_mib >= vram_total_mib), points[0])
    if below.vram_total_mib >= above.vram_total_mib:
        share, basis = 0.0, f"as {below.device_name}"
    else:
        share = math.log(vram_total_mib / below.vram_total_mib)
        share /= math.log(above.vram_total_mib / below.vram_total_mib)
        basis = f"interpolated between {below.device_name} and {above.device_name}"

    def between(low: float, high: float) -> float:
        return float(low * (high / low) ** share)

    return GpuProfile(
        device_name=gpu_name,
        vram_total_mib=vram_total_mib,
        batch_size=_nearest_power_of_two(between(below.batch_size, above.batch_size)),
        num_workers=round(between(below.num_workers, above.num_workers)),
        mixed_precision=True,
        replay_capacity=10_000 * round(between(below.replay_capacity, above.replay_capacity) / 10_000),
        preset="published",
        basis=basis,
    )


def _nearest_power_of_two(number: float) -> int:
    lower = 1 << int(math.log2(number))
    return lower if number < 1.5 * lower else 2 * lower


def starting_points(settings: Settings, machine: Machine) -> StartingPoints:
    """Values for what the user did not set, from the profile of the device that shall be used.

    Args:
        settings: Say which device that is (``environment``, ``training.device``), and how far ``num_workers``
            and ``max_workers`` are given.
        machine: The machine at hand; of several GPUs the first one counts.

    Raises:
        SettingsError: ``environment`` is gpu and there is none.
    """
    if settings.environment == "gpu":
        require_gpu(machine, "environment is gpu")
    profile = profile_of(training_gpu(settings, machine))
    chosen = ENVIRONMENTS[settings.environment]
    workers = _workers(settings, machine, chosen.get("dataset.num_workers", profile.num_workers))
    from_profile = {
        "models.preset": profile.preset,
        "training.batch_size": profile.batch_size,
        "training.mixed_precision": profile.mixed_precision,
        "training.dqn.replay_capacity": profile.replay_capacity,
    }
    # A number, not "all": sums are split by threads, and a plan may be resumed on another machine.
    from_cpus = {"training.num_threads": machine.num_cores, **workers}
    cpus = f"{profile.label}, with {machine.num_cores} cores for {machine.num_cpus} CPUs"
    return StartingPoints(
        profile,
        {**from_profile, **from_cpus, **chosen},
        {
            **dict.fromkeys(from_profile, Origin("profile", profile.label)),
            **dict.fromkeys(from_cpus, Origin("profile", cpus)),
            **dict.fromkeys(chosen, Origin("profile", f"environment {settings.environment}")),
        },
    )


def _workers(settings: Settings, machine: Machine, asked: int) -> dict[str, int]:
    """Threads that gather packs: one CPU is left to the training thread, and the two settings agree."""
    given, free = settings.dataset, machine.num_cpus - 1
    num_workers, max_workers = min(asked, free), min(2 * asked, free)
    if "max_workers" in given.model_fields_set:
        num_workers = min(num_workers, given.max_workers)
    if "num_workers" in given.model_fields_set:
        max_workers = max(max_workers, given.num_workers)
    return {"dataset.num_workers": num_workers, "dataset.max_workers": max_workers}


def require_gpu(machine: Machine, asked_by: str) -> None:
    """Refuse a machine on which nothing can be trained on a GPU.

    Args:
        machine: The machine.
        asked_by: The setting that asks for a GPU, with its value.

    Raises:
        SettingsError: There is none, or torch cannot use it.
    """
    if machine.device == "cuda":
        return
    if machine.gpus:
        raise SettingsError(
            f"{asked_by}, but torch {machine.torch_version} is not built for CUDA and cannot use the "
            f"{machine.gpus[0].name}: install a CUDA build of torch, or set it to auto"
        )
    raise SettingsError(
        f"{asked_by}, but this machine has no GPU that torch {machine.torch_version} can use: set it to "
        "auto, or see that nvidia-smi lists one and CUDA_VISIBLE_DEVICES does not hide it"
    )


def fit_to_machine(settings: Settings, machine: Machine) -> Settings:
    """Fill what the user did not set from the profile of the machine's first GPU, or of a CPU.

    Args:
        settings: As loaded; what was given anywhere (file, environment, flag) is kept.
        machine: The machine to fit them to.

    Returns:
        Settings in which every fitted one counts as given: fitting them again changes nothing.

    Raises:
        SettingsError: ``environment`` is gpu and there is none.
    """
    points = starting_points(settings, machine)
    fitted = merge(nested(points.values), settings.model_dump(exclude_unset=True))
    fitted["training"]["num_threads"] = fitted["training"]["num_threads"] or machine.num_cores
    return Settings.model_validate(fitted)
