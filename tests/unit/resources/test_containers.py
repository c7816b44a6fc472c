"""What a container leaves of a machine, read from trees of files as the kernel lays them out."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from core.resources.containers import Ram, num_cpus

GIB = 2**30
V2_STAT = "anon 100\nfile 300\ninactive_anon 5\ninactive_file {cache}\nactive_file 9\n"
V1_STAT = "cache 1\nrss 2\ninactive_file 77\ntotal_cache 3\ntotal_inactive_file {cache}\ntotal_rss 4\n"


def lay_out(folder: Path, files: Mapping[str, str], own: str) -> tuple[Path, Path]:
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text, encoding="ascii")
    (folder / "own").write_text(own, encoding="ascii")
    return folder / "cgroup", folder / "own"


def version_2(limit: object, usage: int, cache: int, at: str = "") -> dict[str, str]:
    return {
        f"{at}memory.max": f"{limit}\n",
        f"{at}memory.current": f"{usage}\n",
        f"{at}memory.stat": V2_STAT.format(cache=cache),
    }


def version_1(limit: object, usage: int, cache: int, at: str = "memory/") -> dict[str, str]:
    return {
        f"{at}memory.limit_in_bytes": f"{limit}\n",
        f"{at}memory.usage_in_bytes": f"{usage}\n",
        f"{at}memory.stat": V1_STAT.format(cache=cache),
    }


@pytest.mark.parametrize(
    ("files", "own"),
    [
        (version_2(GIB, 600, 200), "0::/\n"),
        (version_2(GIB, 600, 200, "system.slice/job/"), "0::/system.slice/job\n"),
        # A container that sees its name on the host: the mount is its group.
        (version_2(GIB, 600, 200), "0::/docker/abc\n"),
        # The limit of a group above holds, with the use of that group.
        (version_2(GIB, 600, 200, "a/") | version_2("max", 1, 0, "a/b/"), "0::/a/b\n"),
        (version_2(GIB, 600, 200, "a/") | version_2(2 * GIB, 1, 0, "a/b/"), "0::/a/b\n"),
        (version_1(GIB, 600, 200), "4:memory:/\n1:cpu:/\n0::/\n"),
        (version_1(GIB, 600, 200, "memory/job/"), "4:memory:/job\n"),
        (version_1(GIB, 600, 200), "4:memory:/docker/abc\n"),
        (version_1(GIB, 600, 200) | version_2("max", 1, 0, "unified/"), "4:memory:/\n0::/\n"),
    ],
)
def test_ram_is_that_of_the_tightest_memory_group(tmp_path: Path, files: dict[str, str], own: str) -> None:
    assert Ram(*lay_out(tmp_path, files, own)).measure() == (GIB, 400)


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({}, "0::/\n"),
        (version_2("max", 600, 200), "0::/\n"),
        (version_1(9223372036854771712, 600, 200), "4:memory:/\n"),
        (version_2("nonsense", 600, 200), "0::/\n"),
    ],
)
def test_without_a_limit_ram_is_that_of_the_machine(tmp_path: Path, files: dict[str, str], own: str) -> None:
    total, used = Ram(*lay_out(tmp_path, files, own)).measure()
    assert total == psutil.virtual_memory().total
    assert 0 < used < total


def test_a_limit_follows_what_the_kernel_says_now(tmp_path: Path) -> None:
    ram = Ram(*lay_out(tmp_path, version_2(GIB, 600, 200), "0::/\n"))
    lay_out(tmp_path, version_2(2 * GIB, 900, 100), "0::/\n")
    assert ram.measure() == (2 * GIB, 800)
    (tmp_path / "cgroup" / "memory.current").unlink()
    with pytest.raises(OSError, match=r"memory\.current"):
        ram.measure()


@pytest.mark.parametrize(
    ("files", "own", "most"),
    [
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "100000 100000\n"}, "0::/docker/abc\n", 1),
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu:/\n", None),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "100000000 100000\n"}, "0::/\n", None),
        ({}, "0::/\n", None),
    ],
)
def test_cpus_are_as_many_as_the_container_is_granted(
    tmp_path: Path, files: dict[str, str], own: str, most: int | None
) -> None:
    assert num_cpus(*lay_out(tmp_path, files, own)) == (most or len(os.sched_getaffinity(0)))


def test_where_there_are_no_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert Ram(tmp_path / "a", tmp_path / "b").measure()[0] == psutil.virtual_memory().total
    assert num_cpus(tmp_path / "a", tmp_path / "b") == len(os.sched_getaffinity(0))
