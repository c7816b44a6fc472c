"""What ``python -m flows.status`` shows while things fail, and that it never fails itself."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import Fact
from core.resources.process import TrainingProcess
from core.resources.process_state import ProcessState, read_process_statuses
from settings.layout import Layout
from tests.commands import ROOT, is_gone, run, wait_for

pytestmark = pytest.mark.faults
TARGETS = "tests.training_targets:"


def ignore(fact: Fact) -> None:
    """For calls whose facts do not matter."""


def state_of(output_dir: Path) -> tuple[str, object]:
    """How it is, and which epoch it is in by its last beat."""
    (status,) = read_process_statuses(Layout(output_dir).process_logs)
    return status.state, status.figures.get("epoch")


def shown(output_dir: Path) -> str:
    done = run("flows.status", "--output-dir", str(output_dir), COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "Resources" in done.stdout
    return done.stdout


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that supervises one that trains, by all appearances, and makes no progress any more."""
    logs = Layout(tmp_path).process_logs
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training_targets", "beat_then_wait", str(tmp_path / "pid"), str(logs)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), None)
    yield process
    process.kill()
    process.wait()


def test_status_follows_a_training_process_from_work_to_its_supervisors_death(
    supervisor: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: state_of(tmp_path) == ("working", 3))
    text = shown(tmp_path)
    assert "no plans in" in text
    for part in ("child", "working", str(child), "training teacher_gat", "epoch 3, step 12 of 50"):
        assert part in text
    os.kill(child, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(child).status() == psutil.STATUS_STOPPED)
    assert "stopped" in shown(tmp_path)
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: is_gone(child))
    assert "abandoned" in shown(tmp_path)
    (file,) = Layout(tmp_path).process_logs.glob("*.state.json")
    file.write_bytes(file.read_bytes()[:50])
    assert "unreadable" in shown(tmp_path)


def test_status_only_reads(supervisor: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    supervisor.kill()
    supervisor.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    tmp_path.chmod(0o500)
    try:
        shown(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_after_a_failure_the_state_names_it_until_the_process_is_needed_no_more(tmp_path: Path) -> None:
    with TrainingProcess("p-car", tmp_path) as process:
        with pytest.raises(TrainingProcessError) as caught:
            process.run(TARGETS + "end_by", signal.SIGKILL, on_fact=ignore)
        (failed,) = read_process_statuses(tmp_path)
        assert failed.failure
        assert (failed.state, failed.failure.kind) == ("failed", "killed")
        assert failed.failure.report == caught.value.report
        process.run(TARGETS + "echo", 1, on_fact=ignore)
        (idle,) = read_process_statuses(tmp_path)
        assert (idle.state, idle.num_restarts, idle.pid) == ("idle", 1, process.pid)
    (ended,) = read_process_statuses(tmp_path)
    assert (ended.state, ended.failure) == ("ended", failed.failure)


def test_two_supervisors_of_the_same_name_disturb_neither_each_other_nor_the_readers(tmp_path: Path) -> None:
    results: list[int] = []

    def supervise() -> None:
        with TrainingProcess("p-car", tmp_path) as process:
            for _ in range(5):
                done = process.run(TARGETS + "beat_steadily", 5, 0.05, on_fact=ignore, timeout_s=60)
                results.append(done)

    threads = [threading.Thread(target=supervise) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen |= {status.state for status in read_process_statuses(tmp_path)}
    assert results == [5] * 10
    assert "unreadable" not in seen


def test_a_state_file_that_cannot_be_written_stops_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p-car.state.json").mkdir()
    with TrainingProcess("p-car", tmp_path) as process:
        assert process.run(TARGETS + "beat_steadily", 3, 0.01, on_fact=ignore) == 3
        assert isinstance(process.state, ProcessState)
    assert caplog.text.count("flows.status cannot see how p-car is") == 1
