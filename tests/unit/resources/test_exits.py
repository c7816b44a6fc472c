"""What the end of a process says about its cause."""

import signal
from pathlib import Path

import pytest

from core.resources.exits import classify_exit, count_oom_kills, oom_kill_counters


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_out_of_memory_kills_are_read_from_both_cgroup_versions_and_vmstat(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "memory.events", "low 0\noom 9\noom_kill 3\noom_group_kill 1\n"),
        write(tmp_path / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 20\n"),
        write(tmp_path / "vmstat", "nr_free_pages 7\noom_kill 100\n"),
        tmp_path / "nothing",
    ]
    assert count_oom_kills(files) == 123


@pytest.mark.parametrize(
    ("line", "counter"),
    [
        ("0::/user/train", "user/train/memory.events"),
        ("0::/user/train", "unified/user/train/memory.events"),
        ("4:memory:/docker/ab", "memory/docker/ab/memory.oom_control"),
        ("7:cpu,memory:/docker/ab", "memory/docker/ab/memory.oom_control"),
    ],
)
def test_the_counters_of_a_process_are_those_of_its_own_control_group(
    tmp_path: Path, line: str, counter: str
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "42" / "cgroup", f"3:cpuset:/\n{line}\n")
    write(cgroups / "memory/memory.oom_control", "oom_kill 7\n")
    assert oom_kill_counters(42, proc, cgroups) == [cgroups / "memory/memory.oom_control"]
    write(cgroups / counter, "oom_kill 0\n")
    assert oom_kill_counters(42, proc, cgroups) == [cgroups / counter]


def test_without_control_groups_that_count_it_is_all_that_the_machine_killed(tmp_path: Path) -> None:
    write(tmp_path / "42" / "cgroup", "0::/\n")
    assert oom_kill_counters(42, tmp_path, tmp_path) == [tmp_path / "vmstat"]


@pytest.mark.parametrize(
    ("code", "output", "oom_killed", "kind"),
    [
        (-signal.SIGKILL, "", True, "host_oom"),
        (-signal.SIGKILL, "", False, "killed"),
        (-signal.SIGTERM, "", True, "killed"),
        (-signal.SIGTERM, "", False, "killed"),
        (-signal.SIGHUP, "", False, "killed"),
        (-signal.SIGXCPU, "", False, "killed"),
        (-signal.SIGRTMIN - 1, "", False, "killed"),
        (-signal.SIGSEGV, "", False, "bug"),
        (-signal.SIGFPE, "", False, "bug"),
        (-signal.SIGABRT, "an assertion failed", False, "bug"),
        (-signal.SIGABRT, "terminate called after throwing 'std::bad_alloc'", False, "host_oom"),
        (-signal.SIGABRT, "memory allocation of 4096 bytes failed", False, "host_oom"),
        (1, "libgomp: Thread creation failed: Resource temporarily unavailable", False, "host_oom"),
        (-signal.SIGBUS, "", False, "data_error"),
        (1, "", False, "bug"),
        (0, "", False, "bug"),
        (None, "", False, "bug"),
    ],
)
def test_exits_are_told_apart(code: int | None, output: str, oom_killed: bool, kind: str) -> None:
    found, reason = classify_exit(code, output, oom_killed=oom_killed)
    assert found == kind
    assert reason
