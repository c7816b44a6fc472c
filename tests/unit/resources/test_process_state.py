"""What a supervisor says of its training process, and what others make of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.resources.process_state import (
    Failure,
    ProcessId,
    ProcessState,
    look_at,
    now,
    read_process_statuses,
)

FAILURE = Failure("hang", "made no progress", now(), "process_logs/p-car-hang.txt")


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def state(child: "subprocess.Popen[bytes]") -> ProcessState:
    return ProcessState(
        name="p-car",
        supervisor=ProcessId.of(os.getpid()),
        log="p-car.log",
        process=ProcessId.of(child.pid),
        activity="working",
        target="core.training.phases:train_teacher",
        doing="training teacher_gat, epoch 3",
        figures={"epoch": 3, "loss": 0.5, "model": "teacher_gat"},
        began_at=now(),
        progress_at=now(),
        hang_timeout_s=600.0,
        num_starts=3,
        failure=FAILURE,
    )


def test_a_state_is_read_back_as_it_was_written(state: ProcessState, tmp_path: Path) -> None:
    state.write(tmp_path)
    assert ProcessState.read(tmp_path / "p-car.state.json") == state
    assert [path.name for path in tmp_path.iterdir()] == ["p-car.state.json"]


def test_threads_that_write_at_once_put_nothing_half_written_in_place(
    state: ProcessState, tmp_path: Path
) -> None:
    state.write(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(state.write, tmp_path) for _ in range(300)]
        while not all(done.done() for done in writing):
            assert ProcessState.read(tmp_path / "p-car.state.json") == state
    assert [done.result() for done in writing] == [None] * 300


def test_a_process_that_works_is_shown_with_its_memory_restarts_and_last_failure(
    state: ProcessState, child: "subprocess.Popen[bytes]"
) -> None:
    found = look_at(state)
    assert (found.state, found.pid, found.is_alive, found.num_restarts) == ("working", child.pid, True, 2)
    assert found.rss_mib
    assert found.num_threads == 1
    assert found.failure == FAILURE
    assert found.since_s is not None


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_long_silence_may_be_a_hang_and_a_process_between_calls_is_never_silent(state: ProcessState) -> None:
    silent = replace(state, progress_at=ago(61))
    assert look_at(silent).state == "hanging?"
    assert look_at(replace(silent, activity="starting")).state == "hanging?"
    assert look_at(replace(silent, activity="idle")).state == "idle"
    assert look_at(replace(state, progress_at=ago(6), hang_timeout_s=20.0)).state == "hanging?"
    assert look_at(replace(state, progress_at=ago(30))).state == "working"


def test_another_process_of_the_same_number_is_not_the_one(state: ProcessState) -> None:
    assert state.process
    earlier = replace(state.process, started_s=state.process.started_s - 100)
    found = look_at(replace(state, process=earlier))
    assert (found.state, found.pid, found.is_alive) == ("gone", None, False)


def test_a_child_that_died_is_gone_even_while_nobody_has_waited_for_it(
    state: ProcessState, child: "subprocess.Popen[bytes]"
) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert look_at(state).state == "gone"


def test_what_a_dead_supervisor_left_is_abandoned(state: ProcessState) -> None:
    left = replace(state, supervisor=replace(state.supervisor, started_s=-1000.0))
    assert look_at(left).state == "abandoned"
    assert look_at(replace(left, activity="ended", process=None)).state == "ended"


def test_between_a_failure_and_the_next_attempt_there_is_no_process(state: ProcessState) -> None:
    found = look_at(replace(state, activity="failed", process=None))
    assert (found.state, found.pid) == ("failed", None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"name": "p-c',
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"version": 2}',
        b'{"name": "a", "supervisor": 5, "log": "x"}',
        b'{"name": "a", "supervisor": {"pid": "x", "started_s": 1}, "log": "x"}',
    ],
)
def test_a_damaged_file_is_shown_as_such_beside_the_others(
    state: ProcessState, tmp_path: Path, content: bytes
) -> None:
    state.write(tmp_path)
    (tmp_path / "p-bike.state.json").write_bytes(content)
    (tmp_path / ".p-car.state.json.77.tmp").write_bytes(b"half")
    bike, car = read_process_statuses(tmp_path)
    assert (bike.name, bike.state, bike.is_alive) == ("p-bike", "unreadable", False)
    assert bike.doing
    assert (car.name, car.state) == ("p-car", "working")


def test_a_state_that_cannot_be_read_or_a_folder_that_is_missing_stops_nobody(tmp_path: Path) -> None:
    assert read_process_statuses(tmp_path / "missing") == []
    (tmp_path / "p-car.state.json").mkdir()
    assert [status.state for status in read_process_statuses(tmp_path)] == ["unreadable"]
