"""Starting points per GPU, and settings fitted to the machine at hand."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from core.resources.probes import Machine
from settings.app import Settings
from settings.group import Group
from settings.models import ModelSettings


@dataclass(frozen=True)
class GpuProfile:
    """Settings to start from on one kind of device; what was measured on the machine replaces them.

    Attributes:
        device_name: The device they were published for.
        vram_total_mib: Its memory.
        batch_size: Graphs per optimizer step, at most.
        mixed_precision: Whether to train in bf16 or fp16.
        replay_capacity: Transitions in the fusion agent's replay buffer.
        preset: Sizes of the models.
    """

    device_name: str
    vram_total_mib: float
    batch_size: int
    mixed_precision: bool
    replay_capacity: int
    preset: Literal["published", "small"]


CPU_PROFILE = GpuProfile("CPU", 0.0, 1024, False, 50_000, "small")
GPU_PROFILES = (
    GpuProfile("A100", 40_960.0, 8192, True, 500_000, "published"),
    GpuProfile("RTX 4090", 24_576.0, 4096, True, 300_000, "published"),
    GpuProfile("RTX 3090", 24_576.0, 4096, True, 300_000, "published"),
    GpuProfile("RTX 3080", 10_240.0, 2048, True, 200_000, "published"),
)
"""Most memory first."""

# A driver reports a little less than the nominal memory; a laptop's chip of the same name has far less.
_NOMINAL = 0.9

SomeGroup = TypeVar("SomeGroup", bound=Group)


def profile_for(gpu_name: str | None, vram_total_mib: float) -> GpuProfile:
    """Choose the profile of a device.

    Args:
        gpu_name: Name as the driver gives it, None for a machine without a GPU.
        vram_total_mib: Its memory.

    Returns:
        The profile of that name if the memory is as nominal, else the largest that fits the memory, else the
        smallest there is.
    """
    if gpu_name is None:
        return CPU_PROFILE
    fitting = [p for p in GPU_PROFILES if vram_total_mib >= _NOMINAL * p.vram_total_mib]
    named = [p for p in fitting if p.device_name.lower() in gpu_name.lower()]
    return [*named, *fitting, GPU_PROFILES[-1]][0]


def fit_to_machine(settings: Settings, machine: Machine) -> Settings:
    """Fill what the user did not set from the profile of the machine's first GPU, or of a CPU.

    Args:
        settings: As loaded; a field that was given anywhere (file, environment, flag) is kept.
        machine: The machine to fit them to.

    Returns:
        Settings in which every fitted field counts as given: fitting them again changes nothing.
    """
    use_gpu = machine.device == "cuda" and settings.training.device != "cpu"
    gpu = machine.gpus[0] if use_gpu else None
    profile = profile_for(gpu.name, gpu.vram_total_mib) if gpu else CPU_PROFILE
    training = _fill(
        settings.training, batch_size=profile.batch_size, mixed_precision=profile.mixed_precision
    )
    fitted = {
        "dqn": _fill(training.dqn, replay_capacity=profile.replay_capacity),
        # A number, not "all": sums are split by threads, and a plan may be resumed on another machine.
        "num_threads": training.num_threads or machine.num_cores,
    }
    return settings.model_copy(
        update={
            "models": _fit_models(settings.models, profile),
            "training": training.model_copy(update=fitted),
        }
    )


def _fill(group: SomeGroup, **values: object) -> SomeGroup:
    return group.model_copy(
        update={name: value for name, value in values.items() if name not in group.model_fields_set}
    )


def _fit_models(models: ModelSettings, profile: GpuProfile) -> ModelSettings:
    if "preset" in models.model_fields_set:
        return models
    default = ModelSettings.model_validate({})
    own = {
        name: sizes
        for name in ("teacher", "student")
        if (sizes := getattr(models, name)) != getattr(default, name)
    }
    return ModelSettings.model_validate({"preset": profile.preset, **own})
