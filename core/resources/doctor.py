"""What is wrong with a machine, and how to mend it: pure judgements of measured facts, a check each."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core.resources.cautions import PROCESS_MIB
from core.resources.machine import Machine

Level = Literal["ok", "warning", "wrong", "not applicable"]

LEAST_FILES = 1024
ENOUGH_FILES = 4096
FEW_INODES = 10_000
ENOUGH_SHM_MIB = 64
LOCAL_FILE_SYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "bcachefs"}
)
"""On which locks, links and fsync are known to hold."""
LEAST_DRIVERS = {11: "450", 12: "525", 13: "580"}
"""Oldest NVIDIA driver for each major version of CUDA."""
_SHM = "shared memory"
_GIB = 2**30


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: What.
        level: How it is.
        found: What was found, in a line.
        remedy: What to do about it, in a line; empty where nothing is to be done.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class GpuFacts:
    """What is known of GPUs.

    Attributes:
        machine: The machine.
        nvml_problem: Why the driver does not answer; empty if it does.
        has_device_files: Whether the kernel has NVIDIA devices at all.
        torch_cuda: Major version of CUDA that torch was built for; None for a build without, or unknown.
        driver_cuda: Major version of CUDA that the driver can do; None without a driver.
    """

    machine: Machine
    nvml_problem: str = ""
    has_device_files: bool = False
    torch_cuda: int | None = None
    driver_cuda: int | None = None


@dataclass(frozen=True)
class DiskFacts:
    """What is known of the disk of the output directory.

    Attributes:
        path: The output directory.
        problem: Why it cannot be used at all; empty if it can.
        free_bytes: What this user may still write; None where that cannot be told.
        free_inodes: Files that may still be made; None where the file system counts none.
        file_system: Its type, as the kernel names it.
        mode: Permission bits of the nearest folder that exists.
        broken: What the file system cannot do, of ``lock``, ``link``, ``fsync``, ``rename``; with the reason.
    """

    path: str
    problem: str = ""
    free_bytes: int | None = None
    free_inodes: int | None = None
    file_system: str = ""
    mode: int = 0o755
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LimitFacts:
    """What this process may use.

    Attributes:
        num_files: Files that it may have open.
        file_bytes: Largest file that it may write; None for any.
        address_bytes: Address space that it may have; None for any.
        umask: Permissions that new files do not get.
        shm_mib: Size of ``/dev/shm``; None where there is none.
        machine_ram_mib: RAM of the machine.
        num_machine_cpus: CPUs of the machine.
        pids_left: Processes that its container may still start; None for any number.
    """

    num_files: int
    file_bytes: int | None = None
    address_bytes: int | None = None
    umask: int = 0o022
    shm_mib: float | None = None
    machine_ram_mib: float = 0.0
    num_machine_cpus: int = 1
    pids_left: int | None = None


def judge_gpu(facts: GpuFacts) -> Iterator[Check]:
    """GPU, driver, and whether torch was built for them."""
    machine, torch_version = facts.machine, facts.machine.torch_version
    names = ", ".join(gpu.name for gpu in machine.gpus)
    if not torch_version:
        yield Check("torch", "wrong", "torch is not installed", "make setup installs it")
    elif machine.gpus and machine.device == "cpu":
        yield Check(
            "torch", "wrong", f"torch {torch_version} is built for CPUs, there is a {machine.gpus[0].name}",
            "install the CUDA build: pip install --force-reinstall torch from the usual package index",
        )  # fmt: skip
    else:
        yield Check("torch", "ok", f"torch {torch_version}")
    if machine.gpus:
        yield Check("GPU", "ok", f"{names}; driver {machine.gpus[0].driver}")
    elif facts.has_device_files and facts.nvml_problem:
        yield Check(
            "GPU", "wrong", f"there is an NVIDIA device, its driver does not answer: {facts.nvml_problem}",
            "see nvidia-smi; after an update of the driver, restart the machine (or the container)",
        )  # fmt: skip
    elif facts.has_device_files:
        yield Check(
            "GPU", "wrong", "there is an NVIDIA device, but this process may use none",
            "unset CUDA_VISIBLE_DEVICES, or name a GPU that nvidia-smi -L lists",
        )  # fmt: skip
    else:
        yield Check("GPU", "not applicable", "no NVIDIA GPU: training uses the CPU")
    if not machine.gpus or facts.torch_cuda is None or facts.driver_cuda is None:
        yield Check("driver", "not applicable", "no GPU with a CUDA build of torch to compare it with")
    elif facts.driver_cuda < facts.torch_cuda:
        least = LEAST_DRIVERS.get(facts.torch_cuda, "a newer one")
        yield Check(
            "driver", "wrong",
            f"the driver does CUDA {facts.driver_cuda}, torch {torch_version} needs CUDA {facts.torch_cuda}",
            f"install driver {least} or newer, or a torch built for CUDA {facts.driver_cuda}",
        )  # fmt: skip
    else:
        yield Check("driver", "ok", f"it does CUDA {facts.driver_cuda}, torch needs CUDA {facts.torch_cuda}")


def judge_disk(facts: DiskFacts, min_free_gib: float, max_disk_gib: float) -> Iterator[Check]:
    """Room, permissions, and what the event log needs of a file system."""
    if facts.problem:
        yield Check(
            "output directory", "wrong", f"{facts.path} cannot be used: {facts.problem}",
            "choose another (setting output_dir, flag --output-dir), or let this user write to it",
        )  # fmt: skip
    elif facts.mode & 0o002:
        yield Check(
            "output directory", "wrong", f"everybody on this machine may write to {facts.path}",
            f"chmod o-w {facts.path}: whoever can write there can change models and settings",
        )  # fmt: skip
    else:
        yield Check("output directory", "ok", f"{facts.path} can be written, and not by everybody")
    if facts.free_bytes is None:
        return
    yield _judge_room(facts.free_bytes / _GIB, min_free_gib, max_disk_gib)
    if facts.free_inodes is None:
        yield Check("inodes", "not applicable", "this file system has no fixed number of files")
    elif facts.free_inodes < FEW_INODES:
        yield Check(
            "inodes", "wrong", f"only {facts.free_inodes} more files may be made",
            "delete small files, or make the file system anew with more inodes",
        )  # fmt: skip
    else:
        yield Check("inodes", "ok", f"{facts.free_inodes} more files may be made")
    if not facts.problem:
        yield _judge_file_system(facts)


def _judge_room(free_gib: float, min_free_gib: float, max_disk_gib: float) -> Check:
    room = f"{free_gib:.1f} GiB are free"
    if free_gib < min_free_gib:
        return Check(
            "disk", "wrong", f"{room}, less than retention.min_free_gib={min_free_gib:g}: no plan begins",
            "python -m flows.maintain --dry-run shows what may go; then without --dry-run",
        )  # fmt: skip
    if free_gib < 5 * min_free_gib:
        return Check(
            "disk", "warning", f"{room}, and at {min_free_gib:g} GiB no plan begins any more",
            "make room, and have python -m flows.maintain run every night",
        )  # fmt: skip
    budget = f"; the outputs may take {max_disk_gib:g} GiB" if max_disk_gib else ""
    return Check("disk", "ok", f"{room}{budget}")


def _judge_file_system(facts: DiskFacts) -> Check:
    name = facts.file_system or "unknown"
    if facts.broken:
        what = "; ".join(f"{operation}: {reason}" for operation, reason in facts.broken.items())
        return Check(
            "file system", "wrong", f"{name} cannot do what the event log needs: {what}",
            "put the output directory on a local disk, and share through storage.url",
        )  # fmt: skip
    if facts.file_system and facts.file_system not in LOCAL_FILE_SYSTEMS:
        return Check(
            "file system", "warning", f"{name}: locks and links work here, but may not hold between machines",
            "keep output_dir on a local disk of each machine, and share through storage.url",
        )  # fmt: skip
    return Check("file system", "ok", f"{name}: locks, links, renames and fsync work")


def judge_limits(facts: LimitFacts, machine: Machine) -> Iterator[Check]:
    """What the shell, the container and the kernel allow."""
    if facts.num_files < LEAST_FILES:
        yield Check(
            "open files", "wrong", f"{facts.num_files} files may be open at once",
            f"ulimit -n {ENOUGH_FILES}, or LimitNOFILE={ENOUGH_FILES} in the systemd unit",
        )  # fmt: skip
    elif facts.num_files < ENOUGH_FILES:
        yield Check(
            "open files", "warning", f"{facts.num_files} files may be open at once: little for long logs",
            f"ulimit -n {ENOUGH_FILES}, or LimitNOFILE={ENOUGH_FILES} in the systemd unit",
        )  # fmt: skip
    else:
        yield Check("open files", "ok", f"{facts.num_files} files may be open at once")
    limited = {"ulimit -f": facts.file_bytes, "ulimit -v": facts.address_bytes}
    if any(value is not None for value in limited.values()):
        named = ", ".join(
            f"{name} is {value / _GIB:.1f} GiB" for name, value in limited.items() if value is not None
        )
        yield Check(
            "ulimits", "warning", named, "unlimited is best; resources.memory_limit_mib limits memory gently"
        )
    else:
        yield Check("ulimits", "ok", "neither file sizes nor memory are limited")
    if facts.umask & 0o002:
        yield Check("umask", "ok", f"{facts.umask:03o}: others may not write to new files")
    else:
        yield Check(
            "umask", "warning", f"{facts.umask:03o}: others might write to what other programs make here",
            "umask 022 or 027, or UMask=0027 in the systemd unit",
        )  # fmt: skip
    yield _judge_shm(facts.shm_mib)
    yield from _judge_container(facts, machine)


def _judge_shm(shm_mib: float | None) -> Check:
    if shm_mib is None:
        return Check(_SHM, "not applicable", "there is none")
    if shm_mib < ENOUGH_SHM_MIB:
        return Check(
            _SHM, "warning", f"{shm_mib:.0f} MiB (/dev/shm)",
            f"docker run --shm-size={ENOUGH_SHM_MIB}m or more; NCCL and CUDA tools need it",
        )  # fmt: skip
    return Check(_SHM, "ok", f"{shm_mib:.0f} MiB (/dev/shm)")


def _judge_container(facts: LimitFacts, machine: Machine) -> Iterator[Check]:
    ram = f"{machine.ram_total_mib / 1024:.1f} of {facts.machine_ram_mib / 1024:.1f} GiB of RAM"
    cpus = f"{machine.num_cpus} of {facts.num_machine_cpus} CPUs"
    if machine.ram_total_mib < PROCESS_MIB:
        yield Check(
            "memory", "wrong", f"{ram}: a training process needs about {PROCESS_MIB} MiB",
            "give the container, or the systemd unit (MemoryMax=), more",
        )  # fmt: skip
    elif machine.ram_total_mib < 2 * PROCESS_MIB:
        yield Check(
            "memory", "warning", f"{ram}: little", "give the container, or the unit (MemoryMax=), more"
        )
    else:
        yield Check("memory", "ok", f"{ram}, {cpus}")
    if facts.pids_left is not None and facts.pids_left < 256:
        yield Check(
            "processes", "wrong", f"the container may start {facts.pids_left} more processes and threads",
            "docker run --pids-limit=4096, or TasksMax=4096 in the systemd unit",
        )  # fmt: skip
