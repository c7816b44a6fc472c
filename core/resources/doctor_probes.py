"""Measuring what ``core.resources.doctor`` judges; nothing here raises for what is merely broken."""

import fcntl
import importlib.metadata
import os
import re
import resource
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pynvml

from core.events.files import fsync_folder
from core.resources.containers import CGROUPS, OWN_CGROUPS
from core.resources.doctor import DiskFacts, GpuFacts, LimitFacts
from core.resources.machine import Machine
from core.resources.readings import MIB


def probe_gpu(machine: Machine, nvml: Any = pynvml, devices: Path = Path("/dev")) -> GpuFacts:
    """GPUs, their driver, and what torch was built for.

    Args:
        machine: As probed.
        nvml: The module ``pynvml``, or one with its functions.
        devices: Where device files are.
    """
    problem, driver_cuda = "", None
    try:
        nvml.nvmlInit()
        try:
            driver_cuda = nvml.nvmlSystemGetCudaDriverVersion_v2() // 1000
        finally:
            nvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        problem = str(error)
    has_device_files = any(devices.glob("nvidia[0-9]*"))
    return GpuFacts(machine, problem, has_device_files, _torch_cuda(machine.torch_version), driver_cuda)


def probe_disk(output_dir: Path) -> DiskFacts:
    """The disk of an output directory; what is tried out on it is taken away again."""
    path = output_dir.absolute()
    facts = DiskFacts(str(output_dir))
    try:
        folder = next(parent for parent in (path, *path.parents) if parent.exists())
        if not folder.is_dir():
            return replace(facts, problem=f"{folder} is a file")
        room = os.statvfs(folder)
        facts = replace(
            facts,
            free_bytes=room.f_bavail * room.f_frsize,
            free_inodes=room.f_favail if room.f_files else None,
            file_system=_file_system(folder),
            mode=folder.stat().st_mode & 0o777,
        )
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
            return replace(facts, broken=_try_out(Path(place)))
    except OSError as error:
        return replace(facts, problem=error.strerror or str(error))


def probe_limits() -> LimitFacts:
    """What this process may use."""
    shm = Path("/dev/shm")  # noqa: S108 - only its size is asked for
    return LimitFacts(
        num_files=_limit(resource.RLIMIT_NOFILE) or 2**31,
        file_bytes=_limit(resource.RLIMIT_FSIZE),
        address_bytes=_limit(resource.RLIMIT_AS),
        umask=_umask(),
        shm_mib=psutil.disk_usage(str(shm)).total / MIB if shm.is_dir() else None,
        machine_ram_mib=psutil.virtual_memory().total / MIB,
        num_machine_cpus=os.cpu_count() or 1,
        pids_left=_pids_left(),
    )


def _torch_cuda(version: str) -> int | None:
    """Major version of CUDA: in torch's version, or of the libraries that were installed with it."""
    if match := re.search(r"\+cu(\d{2,})\d$", version):
        return int(match[1])
    if "+" in version or not version:
        return None
    with suppress(importlib.metadata.PackageNotFoundError):
        return int(importlib.metadata.version("nvidia-cuda-runtime").partition(".")[0])
    return None


def _try_out(place: Path) -> dict[str, str]:
    """What the log does with files, once each."""
    file, other = place / "file", place / "other"
    file.write_bytes(b"x")

    def lock() -> None:
        with file.open("rb") as first, file.open("rb") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise OSError("two hold one lock")

    def link() -> None:
        os.link(file, other)
        with suppress(FileExistsError):
            os.link(file, other)
            raise OSError("a name that is taken is taken over")

    def fsync() -> None:
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
        fsync_folder(place)

    operations: dict[str, Callable[[], object]] = {
        "lock": lock,
        "link": link,
        "fsync": fsync,
        "rename": lambda: file.replace(other),
    }
    broken = {}
    for name, operation in operations.items():
        try:
            operation()
        except OSError as error:
            broken[name] = error.strerror or str(error)
    return broken


def _file_system(folder: Path) -> str:
    """Type of the file system that a folder is on; empty where the kernel does not tell."""
    found = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(found, key=lambda part: len(part.mountpoint)).fstype if found else ""


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _umask() -> int:
    """As the kernel tells it: asking through ``os.umask`` would change it for a moment."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "Umask":
                return int(value, 8)
    before = os.umask(0o022)
    os.umask(before)
    return before


def _pids_left(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> int | None:
    """Processes and threads that the control groups still allow."""
    with suppress(OSError, ValueError):
        own = own_cgroups.read_text(encoding="utf-8").splitlines()
        name = next(line.rpartition(":")[2] for line in own if ":pids:" in line or line.startswith("0::"))
        for folder in (cgroups / name.lstrip("/"), cgroups / "pids" / name.lstrip("/"), cgroups):
            with suppress(OSError, ValueError):
                most, now = ((folder / f"pids.{what}").read_text() for what in ("max", "current"))
                return int(most) - int(now)
    return None
