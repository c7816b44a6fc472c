"""Settings that are allowed and yet unwise on the machine at hand."""

from collections.abc import Iterator
from typing import NamedTuple

from core.resources.machine import Gpu, Machine
from core.resources.profiles import profile_of, training_gpu
from settings.app import Settings

PROCESS_MIB = 768
"""Memory that a training process allocates with packs of a few graphs, rounded up from 611 MiB measured with
the small and 656 MiB with the published models on a CPU."""
CUDA_PROCESS_MIB = 3072
"""The same where it loads CUDA's libraries; an estimate."""
VRAM_MIB = 1024
"""VRAM for a CUDA context, the models with their optimizer, and packs of a few graphs; an estimate."""
STARTING_S = 60.0
"""Time that a training process may take to load torch on a busy machine, seconds."""
FULL = 0.95
"""A share of memory beyond which the least miscalculation is a failed allocation."""


class Caution(NamedTuple):
    """A warning about one setting.

    Attributes:
        setting: Its dotted name.
        message: What is unwise, and what to do.
    """

    setting: str
    message: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.setting}: {self.message}"


def warnings_for(settings: Settings, machine: Machine) -> list[Caution]:
    """What is unwise about settings on a machine; pure.

    Args:
        settings: Fitted to the machine or not.
        machine: Where they shall be used.

    Returns:
        Warnings and recommendations, each for one setting; empty where all is well.
    """
    gpu = training_gpu(settings, machine)
    return [
        *_of_device(settings, machine, gpu),
        *_of_cpus(settings, machine),
        *_of_batches(settings, gpu),
        *_of_memory(settings, machine, gpu),
        *_of_times(settings),
        *_of_learning(settings),
    ]


def _of_device(settings: Settings, machine: Machine, gpu: Gpu | None) -> Iterator[Caution]:
    training = settings.training
    if machine.gpus and machine.device == "cpu" and training.device == "auto":
        yield Caution(
            "training.device",
            f"there is a {machine.gpus[0].name}, but torch {machine.torch_version} is not built for CUDA: "
            "training uses the CPU; install a CUDA build of torch",
        )
    if gpu and len(machine.gpus) > 1:
        yield Caution(
            "environment",
            f"settings are fitted to the first of {len(machine.gpus)} GPUs, {gpu.name}: put another one "
            "first with CUDA_VISIBLE_DEVICES",
        )
    if gpu and training.mixed_precision and not profile_of(gpu).mixed_precision:
        yield Caution(
            "training.mixed_precision",
            f"{gpu.name} (compute capability {'.'.join(map(str, gpu.compute_capability))}) computes no "
            "faster in 16 bits, and less exactly: set it to false",
        )
    if not gpu and training.mixed_precision and "mixed_precision" in training.model_fields_set:
        yield Caution("training.mixed_precision", "it has no effect on a CPU, which trains in fp32")
    if settings.models.preset == "published" and profile_of(gpu).preset == "small":
        where = f"{gpu.name} with {gpu.vram_total_mib:.0f} MiB" if gpu else "a CPU"
        yield Caution(
            "models.preset", f"models of the published size train very slowly on {where}: set it to small"
        )


def _of_cpus(settings: Settings, machine: Machine) -> Iterator[Caution]:
    dataset, num_threads = settings.dataset, settings.training.num_threads
    if dataset.num_workers > machine.num_cpus:
        yield Caution(
            "dataset.num_workers",
            f"{dataset.num_workers} threads for {machine.num_cpus} CPUs only take turns: set it to "
            f"{max(0, machine.num_cpus - 1)} or less",
        )
    if dataset.num_workers > dataset.max_workers:
        yield Caution(
            "dataset.max_workers",
            f"{dataset.max_workers} is less than the {dataset.num_workers} of dataset.num_workers to begin "
            "with: raise it, or lower the other",
        )
    if dataset.prefetch_factor > dataset.max_prefetch_factor:
        yield Caution(
            "dataset.max_prefetch_factor",
            f"{dataset.max_prefetch_factor} is less than the {dataset.prefetch_factor} of "
            "dataset.prefetch_factor to begin with: raise it, or lower the other",
        )
    if num_threads > machine.num_cores:
        yield Caution(
            "training.num_threads",
            f"{num_threads} threads on {machine.num_cores} cores slow training down: 0 means all cores",
        )


def _of_batches(settings: Settings, gpu: Gpu | None) -> Iterator[Caution]:
    training, profile = settings.training, profile_of(gpu)
    if training.micro_batch_size > training.batch_size:
        yield Caution(
            "training.micro_batch_size",
            f"{training.micro_batch_size} is more than a whole batch of {training.batch_size}: set it to 0, "
            "which means all of it",
        )
    if gpu and training.batch_size > profile.batch_size:
        yield Caution(
            "training.batch_size",
            f"{training.batch_size} graphs are more than the {profile.batch_size} that a GPU of "
            f"{gpu.vram_total_mib:.0f} MiB starts with: expect each step in several packs, slower and with "
            "the same result",
        )


def _of_memory(settings: Settings, machine: Machine, gpu: Gpu | None) -> Iterator[Caution]:
    resources, training = settings.resources, settings.training
    needed_mib = CUDA_PROCESS_MIB if gpu else PROCESS_MIB
    needs = f"the about {needed_mib} MiB that a training process needs at least"
    if machine.ram_total_mib < needed_mib:
        yield Caution(
            "resources.memory_limit_mib",
            f"this machine's {machine.ram_total_mib:.0f} MiB of RAM are less than {needs}: use a machine, or "
            "a container, with more",
        )
    elif 0 < resources.memory_limit_mib < needed_mib:
        yield Caution(
            "resources.memory_limit_mib", f"{resources.memory_limit_mib} is less than {needs}: raise it"
        )
    if resources.memory_limit_mib > machine.ram_total_mib:
        yield Caution(
            "resources.memory_limit_mib",
            f"{resources.memory_limit_mib} is more than the {machine.ram_total_mib:.0f} MiB of RAM there are "
            "and limits nothing: lower it, or set it to 0",
        )
    if resources.vram_limit_mib and not gpu:
        yield Caution("resources.vram_limit_mib", "it has no effect on a CPU")
    elif gpu and resources.vram_limit_mib > gpu.vram_total_mib:
        yield Caution(
            "resources.vram_limit_mib",
            f"{resources.vram_limit_mib} is more than the {gpu.vram_total_mib:.0f} MiB of {gpu.name} and "
            "limits nothing: lower it, or set it to 0",
        )
    elif gpu and 0 < resources.vram_limit_mib < VRAM_MIB:
        yield Caution(
            "resources.vram_limit_mib",
            f"{resources.vram_limit_mib} is less than the about {VRAM_MIB} MiB that training needs at least: "
            "raise it",
        )
    for name, share in (
        ("training.target_memory_usage", training.target_memory_usage),
        ("training.max_ram_usage", training.max_ram_usage),
    ):
        if share > FULL:
            yield Caution(name, f"{share} leaves no room for what was not foreseen: set it to {FULL} or less")


def _of_times(settings: Settings) -> Iterator[Caution]:
    resources, training = settings.resources, settings.training
    if resources.hang_timeout_s < STARTING_S:
        yield Caution(
            "resources.hang_timeout_s",
            f"{resources.hang_timeout_s:g} s may pass while a training process loads torch, which would "
            f"count as hanging: set it to {STARTING_S:.0f} or more",
        )
    elif resources.hang_timeout_s < training.checkpoint_interval_s:
        yield Caution(
            "resources.hang_timeout_s",
            f"{resources.hang_timeout_s:g} s are less than the {training.checkpoint_interval_s:g} s of "
            "training.checkpoint_interval_s: a process may be taken for hanging before its first checkpoint, "
            "and begin anew each time",
        )
    if resources.flush_interval_s < resources.sample_interval_s:
        yield Caution(
            "resources.flush_interval_s",
            f"{resources.flush_interval_s:g} s are less than the {resources.sample_interval_s:g} s between "
            "samples: every sample becomes a file of its own",
        )


def _of_learning(settings: Settings) -> Iterator[Caution]:
    dqn = settings.training.dqn
    if dqn.replay_capacity < dqn.batch_size:
        yield Caution(
            "training.dqn.replay_capacity",
            f"{dqn.replay_capacity} transitions are fewer than the {dqn.batch_size} of an update: raise it",
        )
    if dqn.epsilon_end > dqn.epsilon_start:
        yield Caution(
            "training.dqn.epsilon_end",
            f"{dqn.epsilon_end:g} is more than epsilon_start {dqn.epsilon_start:g}: exploration would grow "
            "while the agent learns",
        )
