"""What the doctor says of facts: a table of surroundings, each with what is wrong there."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from core.resources.doctor import (
    Check,
    DiskFacts,
    GpuFacts,
    Level,
    LimitFacts,
    judge_disk,
    judge_gpu,
    judge_limits,
)
from core.resources.doctor_services import (
    Pool,
    PrefectFacts,
    Wanted,
    judge_clock,
    judge_mlflow,
    judge_prefect,
    judge_production,
    judge_storage,
)
from core.resources.machine import Gpu, Machine

GIB = 2**30
CPU = Machine("cpu", 8, 8, 32_768.0, "Linux", "3.11", "2.13.0+cpu", ())
CARD = Gpu(0, "NVIDIA H100", 80_000.0, "580.65", (9, 0), uuid="GPU-1")
GPU = replace(CPU, torch_version="2.13.0+cu130", gpus=(CARD,))
DISK = DiskFacts("out", free_bytes=100 * GIB, free_inodes=10**6, file_system="ext4")
LIMITS = LimitFacts(
    num_files=65_536, shm_mib=1024.0, machine_ram_mib=65_536.0, num_machine_cpus=16, pids_left=None
)
SERVER = PrefectFacts(
    url="http://127.0.0.1:4200/api",
    version="3.8.8",
    own_version="3.8.9",
    lease_storage="prefect.server.concurrency.lease_storage.filesystem",
    has_scheduler=True,
    pools={"gpu": Pool("process", num_online=1), "cpu": Pool("process", num_online=2)},
    limits={"can-cpu-a": 8},
    deployments=frozenset({"retrain/nightly"}),
)
WANTED = Wanted(("cpu", "gpu"), {"can-cpu-a": 8}, frozenset({"retrain/nightly"}))


def levels(checks: Iterable[Check]) -> dict[str, Level]:
    return {check.name: check.level for check in checks}


def only(checks: Iterable[Check], level: Level) -> Check:
    [found] = [check for check in checks if check.level == level]
    return found


GPUS = {
    "no GPU, torch for CPUs": (
        GpuFacts(CPU),
        {"torch": "ok", "GPU": "not applicable", "driver": "not applicable"},
    ),
    "all is well": (GpuFacts(GPU, "", True, 13, 13), {"torch": "ok", "GPU": "ok", "driver": "ok"}),
    "torch for CPUs on a GPU": (
        GpuFacts(replace(GPU, torch_version="2.13.0+cpu"), "", True, None, 13),
        {"torch": "wrong", "GPU": "ok", "driver": "not applicable"},
    ),
    "driver too old": (GpuFacts(GPU, "", True, 13, 12), {"torch": "ok", "GPU": "ok", "driver": "wrong"}),
    "driver broken": (
        GpuFacts(replace(CPU, torch_version="2.13.0+cu130"), "Driver/library version mismatch", True, 13),
        {"torch": "ok", "GPU": "wrong", "driver": "not applicable"},
    ),
    "GPUs hidden": (
        GpuFacts(replace(CPU, torch_version="2.13.0+cu130"), "", True, 13, 13),
        {"torch": "ok", "GPU": "wrong", "driver": "not applicable"},
    ),
    "no torch": (GpuFacts(replace(CPU, torch_version="")), {"torch": "wrong"}),
}


@pytest.mark.parametrize(("facts", "expected"), GPUS.values(), ids=GPUS)
def test_gpu_driver_and_torch_are_judged_together(facts: GpuFacts, expected: dict[str, Level]) -> None:
    found = levels(judge_gpu(facts))
    assert {name: found[name] for name in expected} == expected


DISKS: dict[str, tuple[DiskFacts, str, Level]] = {
    "not writable": (DiskFacts("out", "Permission denied"), "output directory", "wrong"),
    "writable by everybody": (replace(DISK, mode=0o777), "output directory", "wrong"),
    "nearly full": (replace(DISK, free_bytes=GIB // 2), "disk", "wrong"),
    "filling up": (replace(DISK, free_bytes=4 * GIB), "disk", "warning"),
    "no inodes": (replace(DISK, free_inodes=5), "inodes", "wrong"),
    "inodes without number": (replace(DISK, free_inodes=None), "inodes", "not applicable"),
    "network file system": (replace(DISK, file_system="nfs4"), "file system", "warning"),
    "no locks": (replace(DISK, file_system="cifs", broken={"lock": "not supported"}), "file system", "wrong"),
}


@pytest.mark.parametrize(("facts", "name", "level"), DISKS.values(), ids=DISKS)
def test_a_disk_that_lacks_something_is_named_with_a_remedy(
    facts: DiskFacts, name: str, level: Level
) -> None:
    assert set(levels(judge_disk(DISK, 1.0, 0.0)).values()) == {"ok"}
    [found] = [check for check in judge_disk(facts, 1.0, 0.0) if check.name == name]
    assert found.level == level
    assert found.remedy or level == "not applicable"


LIMITED: dict[str, tuple[LimitFacts, Machine, str, Level]] = {
    "few files": (replace(LIMITS, num_files=256), CPU, "open files", "wrong"),
    "not many files": (replace(LIMITS, num_files=1024), CPU, "open files", "warning"),
    "small files": (replace(LIMITS, file_bytes=GIB), CPU, "ulimits", "warning"),
    "little address space": (replace(LIMITS, address_bytes=GIB), CPU, "ulimits", "warning"),
    "open umask": (replace(LIMITS, umask=0), CPU, "umask", "warning"),
    "small shared memory": (replace(LIMITS, shm_mib=1.0), CPU, "shared memory", "warning"),
    "no shared memory": (replace(LIMITS, shm_mib=None), CPU, "shared memory", "not applicable"),
    "tiny container": (LIMITS, replace(CPU, ram_total_mib=512.0), "memory", "wrong"),
    "small container": (LIMITS, replace(CPU, ram_total_mib=1200.0), "memory", "warning"),
    "no processes": (replace(LIMITS, pids_left=20), CPU, "processes", "wrong"),
}


@pytest.mark.parametrize(("facts", "machine", "name", "level"), LIMITED.values(), ids=LIMITED)
def test_limits_that_are_too_low_are_named_with_a_remedy(
    facts: LimitFacts, machine: Machine, name: str, level: Level
) -> None:
    assert set(levels(judge_limits(LIMITS, CPU)).values()) == {"ok"}
    [found] = [check for check in judge_limits(facts, machine) if check.name == name]
    assert found.level == level


SERVERS: dict[str, tuple[PrefectFacts, str, Level]] = {
    "none": (PrefectFacts(), "Prefect server", "not applicable"),
    "away": (replace(SERVER, problem="Connection refused", remedy="start it"), "Prefect server", "wrong"),
    "another release": (replace(SERVER, version="3.9.0"), "Prefect version", "wrong"),
    "open to all": (
        replace(SERVER, is_loopback=False, asks_for_auth=False), "Prefect password", "wrong",
    ),
    "open to this machine": (replace(SERVER, asks_for_auth=False), "Prefect password", "ok"),
    "leases in memory": (
        replace(SERVER, lease_storage="prefect.server.concurrency.lease_storage.memory"),
        "lease storage", "wrong",
    ),
    "leases not told": (replace(SERVER, lease_storage=""), "lease storage", "not applicable"),
    "no scheduler": (replace(SERVER, has_scheduler=False), "schedules", "wrong"),
    "no pool": (replace(SERVER, pools={}), "work pool gpu", "warning"),
    "no worker": (replace(SERVER, pools={"gpu": Pool("process")}), "work pool gpu", "warning"),
    "paused": (
        replace(SERVER, pools={"gpu": Pool("process", is_paused=True, num_online=1)}),
        "work pool gpu", "warning",
    ),
    "no queue": (
        replace(SERVER, pools={"gpu": Pool("process", queues=("default",), num_online=1)}),
        "work pool gpu", "warning",
    ),
    "no limits": (replace(SERVER, limits={}), "concurrency limits", "warning"),
    "too many slots": (replace(SERVER, limits={"can-cpu-a": 80}), "concurrency limits", "warning"),
    "fewer slots on purpose": (replace(SERVER, limits={"can-cpu-a": 2}), "concurrency limits", "ok"),
    "no deployment": (replace(SERVER, deployments=frozenset()), "deployments", "warning"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "name", "level"), SERVERS.values(), ids=SERVERS)
def test_a_server_that_lacks_something_is_named_with_a_remedy(
    facts: PrefectFacts, name: str, level: Level
) -> None:
    assert set(levels(judge_prefect(SERVER, WANTED)).values()) == {"ok"}
    [found] = [check for check in judge_prefect(facts, WANTED) if check.name == name]
    assert found.level == level
    assert found.remedy or level in ("ok", "not applicable")


@pytest.mark.parametrize(
    ("offsets", "level"),
    [
        ({}, "not applicable"),
        ({"a": -1.0}, "ok"),
        ({"a": 1.0, "b": -20.0}, "warning"),
        ({"a": 600.0}, "wrong"),
    ],
)
def test_clocks_are_compared_with_the_one_that_is_farthest_off(
    offsets: dict[str, float], level: Level
) -> None:
    assert judge_clock(offsets).level == level


def test_services_that_are_not_used_are_not_applicable() -> None:
    assert judge_mlflow(False, "", "").level == judge_storage("", "").level == "not applicable"
    assert judge_mlflow(True, "m", "").level == judge_storage("s", "").level == "ok"
    assert judge_mlflow(True, "m", "away").level == judge_storage("s", "away").level == "wrong"


def test_what_a_fleet_needs_is_asked_of_those_who_have_a_server() -> None:
    assert list(judge_production(False, False, 0.0)) == []
    assert [check.name for check in judge_production(True, False, 0.0)] == ["heartbeats", "disk budget"]
    assert list(judge_production(True, True, 100.0)) == []
