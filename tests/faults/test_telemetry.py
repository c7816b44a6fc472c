"""Telemetry when its writer is killed or its disk is full."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from core.events import telemetry, telemetry_files
from core.events.telemetry import read_telemetry
from tests.commands import wait_for
from tests.log_users import LogUsers, counted, log_users, samples, telemetry_writer

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
WRITE_FOR_EVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from core.events.telemetry import ResourceSample, TelemetryWriter

writer = TelemetryWriter(Path(sys.argv[1]), "p", "a")
while True:
    writer.write([ResourceSample(occurred_at=datetime.now(UTC), gpu_index=i) for i in range(7)])
"""
WRITE_TO_A_FULL_DISK = """
import resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from core.errors import EventLogError
from core.events.telemetry import ResourceSample, TelemetryWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    TelemetryWriter(Path(sys.argv[1]), "p", "a").write([ResourceSample(occurred_at=datetime.now(UTC))])
except EventLogError as error:
    print(error)
"""
ROUNDS = int(os.environ.get("LOG_KILL_ROUNDS", "1"))


@pytest.fixture(autouse=True)
def merging(monkeypatch: pytest.MonkeyPatch) -> None:
    """When files are merged is as it was after each test."""
    monkeypatch.setattr(telemetry, "FLUSHES_PER_MERGE", telemetry.FLUSHES_PER_MERGE)
    monkeypatch.setattr(telemetry_files, "FULL_BYTES", telemetry_files.FULL_BYTES)


@pytest.fixture(scope="module")
def users() -> Iterator[LogUsers]:
    with log_users() as running:
        yield running


def files_of(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


def test_a_writer_killed_at_any_file_operation_loses_nothing_and_no_sample_counts_twice(
    users: LogUsers, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    writer = telemetry_writer(before)  # it is no more: its files are merged by those who come after it
    for number in range(4):
        writer.write(samples(1, [number]))
    assert len(files_of(before)) == 2
    code, kill_at, left_behind = -signal.SIGKILL, 0, 0
    while code == -signal.SIGKILL:
        place = tmp_path / str(kill_at)
        root, acknowledged, errors = place / "telemetry", place / "acknowledged", place / "errors"
        shutil.copytree(before, root)
        job = {"root": str(root), "acknowledged": str(acknowledged), "errors": str(errors)}
        code = users.wait(users.start(do="flush", writer=2, num_flushes=4, kill_at=kill_at, **job))
        kill_at += 1

        known = len(acknowledged.read_text().split()) if acknowledged.exists() else 0
        found = counted(read_telemetry(root))
        assert found.pop(1) == 4
        assert found.get(2, 0) in (2 * known, 2 * known + 2)
        left_behind += len(files_of(root)) > 2 + known
        writer = telemetry_writer(root)
        writer.write(samples(3, [0]))
        writer.merge()
        assert counted(read_telemetry(root)) == {1: 4, 3: 1, **found}
        assert len(files_of(root)) == 2 + bool(found)
        shutil.rmtree(place)
    assert code == 0
    assert kill_at > 40
    assert left_behind, "some were killed between put and delete"


def has_flushed(acknowledged: Path, writer: int) -> bool:
    """Whether a writer was told ten times that its sample is there."""
    lines = acknowledged.read_text().splitlines() if acknowledged.exists() else []
    return sum(line.startswith(f"{writer} ") for line in lines) >= 10


def test_readers_see_every_sample_once_while_files_are_written_merged_and_their_writers_killed(
    users: LogUsers, tmp_path: Path
) -> None:
    chance = random.Random(5)
    root, acknowledged, errors = tmp_path / "telemetry", tmp_path / "acknowledged", tmp_path / "errors"
    job = {"root": str(root), "acknowledged": str(acknowledged), "errors": str(errors)}
    readers = [users.start(do="watch telemetry", **job) for _ in range(2)]
    for _ in range(6 * ROUNDS):
        writers = [users.start(do="flush for ever", **job) for _ in range(2)]
        for writer in writers:
            wait_for(partial(has_flushed, acknowledged, writer))
        time.sleep(0.2 * chance.random())
        assert [users.kill(writer) for writer in writers] == [-signal.SIGKILL] * 2
    assert [users.kill(reader) for reader in readers] == [-signal.SIGKILL] * 2
    assert not errors.exists(), errors.read_text()
    found = counted(read_telemetry(root))
    known = Counter(int(line.split()[0]) for line in acknowledged.read_text().splitlines())
    assert found.keys() >= known.keys()
    assert all(found[writer] in (num, num + 1) for writer, num in known.items())
    assert len(files_of(root)) < sum(found.values()) / 3


@pytest.mark.parametrize("after_s", [0.0, 0.013, 0.05, 0.11])
def test_a_writer_killed_at_any_moment_leaves_only_whole_files(tmp_path: Path, after_s: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], cwd=ROOT)
    while not any(tmp_path.rglob("*.parquet")):
        time.sleep(0.001)
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    frame = read_telemetry(tmp_path)
    assert frame.height > 0
    assert frame["gpu_index"].to_list() == list(range(7)) * (frame.height // 7)


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_TO_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cannot write telemetry" in done.stdout
    assert list((tmp_path / "plan=p" / "dataset=a").iterdir()) == []
    assert read_telemetry(tmp_path).is_empty()
