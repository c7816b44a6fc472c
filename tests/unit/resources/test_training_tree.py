"""What the training processes do, measured on real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.resources.readings import Rates, Readings
from core.resources.training_tree import REFRESH_S, TrainingTree
from tests.unit.resources.test_nvml import Clock

# Starts a child of its own that holds memory, then does what it is told line by line.
PARENT = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "x = bytearray(80 << 20); print('ready', flush=True); input()"],
    stdin=subprocess.PIPE,
)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Worker:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def do(self, code: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        while self.process.stdout.readline() != "done\n":
            pass


@contextmanager
def worker() -> Iterator[Worker]:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"  # of the child, which writes to the same pipe
        running = Worker(process)
        try:
            yield running
        finally:
            running.do("child.kill(); child.wait()")
            process.kill()


def measure(tree: TrainingTree) -> Readings:
    found = Readings()
    found.ask(tree.questions)
    return found


def test_the_tree_is_measured_with_the_children_of_training() -> None:
    with worker() as training:
        found = measure(TrainingTree(lambda: [training.pid])).values
        assert found["training_num_processes"] == 2
        assert found["training_num_threads"] >= 2
        assert found["training_rss_mib"] > 80
        own_mib = psutil.Process().memory_info().rss / 2**20
        assert found["process_rss_mib"] == pytest.approx(found["training_rss_mib"] + own_mib, rel=0.1)


def test_rates_are_those_of_training_and_not_of_the_watcher(tmp_path: Path) -> None:
    clock = Clock()
    with worker() as training:
        process = psutil.Process(training.pid)
        tree = TrainingTree(lambda: [training.pid], clock)
        first, written = measure(tree), process.io_counters().write_bytes
        assert set(first.reasons.values()) == {"needs two samples"}
        training.do("import os, time; end = time.process_time() + 0.5")
        training.do("list(iter(lambda: time.process_time() < end, False))")
        training.do(
            f"f = open({str(tmp_path / 'f')!r}, 'wb'); f.write(bytes(1 << 22)); f.flush(); os.fsync(f)"
        )
        own = time.process_time() + 0.3
        while time.process_time() < own:
            pass
        clock.now += 10.0
        found = measure(tree)
        written = process.io_counters().write_bytes - written
    assert found.reasons == {}
    assert found.values.keys() > first.reasons.keys()
    assert found.values["training_cpu_percent"] == pytest.approx(5.0, abs=1.0), "0.5 s of CPU time in 10 s"
    assert found.values["training_write_bytes_per_s"] == pytest.approx(written / 10.0)
    assert found.values["training_major_faults_per_s"] >= 0.0


def test_descendants_are_searched_for_now_and_then() -> None:
    clock = Clock()
    with worker() as training:
        tree = TrainingTree(lambda: [training.pid], clock)
        assert measure(tree).values["training_num_processes"] == 2
        more = "[sys.executable, '-c', 'input()']"
        training.do(f"more = subprocess.Popen({more}, stdin=subprocess.PIPE)")
        assert measure(tree).values["training_num_processes"] == 2
        clock.now += REFRESH_S
        assert measure(tree).values["training_num_processes"] == 3
        training.do("more.kill(); more.wait()")
        assert measure(tree).values["training_num_processes"] == 2, "one that ended is left out at once"


def test_another_training_process_is_found_at_once() -> None:
    pids: list[int] = []
    tree = TrainingTree(lambda: pids, Clock())
    nothing = measure(tree)
    assert nothing.reasons == {}
    assert {value for name, value in nothing.values.items() if name.startswith("training_")} == {0}
    with worker() as training:
        pids.append(training.pid)
        assert measure(tree).values["training_num_processes"] == 2
    assert measure(tree).values["training_num_processes"] == 0


def test_what_the_kernel_refuses_is_missing_with_its_reason() -> None:
    def refuse() -> list[int]:
        raise psutil.AccessDenied(1)

    found = measure(TrainingTree(refuse))
    assert "training_rss_mib" not in found.values
    assert "pid=1" in found.reasons["training_rss_mib"]


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 100.0), st.dictionaries(st.integers(0, 3), st.integers(0, 10**9), max_size=4)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_rates_are_growth_over_time_of_those_seen_twice(steps: list[tuple[float, dict[int, int]]]) -> None:
    clock = Clock()
    rates = Rates(clock)
    before: dict[int, int] | None = None
    for after_s, counts in steps:
        clock.now += after_s
        found = rates.per_s("a", {bearer: [float(count)] for bearer, count in counts.items()})
        both = counts.keys() & (before or {}).keys()
        if both and before is not None:
            grown = sum(max(0, counts[bearer] - before[bearer]) for bearer in both)
            assert found is not None
            assert found[0] == pytest.approx(grown / after_s)
        else:
            assert found is None
        before = counts
