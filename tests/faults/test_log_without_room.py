"""The log on a disk that is full or read-only: a clear error, nothing damaged, and on it goes afterwards."""

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import EventLogError
from core.events.log import EventLog
from tests.file_systems import file_system
from tests.log_users import event

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path, "256k") as disk:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)  # nothing on it is left open


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Let every write beyond a size fail, as one does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def ids(root: Path) -> list[str]:
    return [e.event_id for e in EventLog(root).read("plan")]


def test_a_full_disk_stops_the_log_and_room_lets_it_go_on(small_disk: Path) -> None:
    root, ballast = small_disk / "events", small_disk / "ballast"
    ballast.write_bytes(bytes(64 * 1024))
    log, written = EventLog(root), list[str]()

    def fill() -> None:
        for i in range(1000):
            log.append([event(str(i))])
            written.append(str(i))

    with pytest.raises(EventLogError, match=rf"cannot append to plan in {root}: .*No space left"):
        fill()
    assert len(written) > 3
    names = [f"{i:08d}.parquet" for i in range(len(written))]
    assert sorted(os.listdir(root / "plan")) == names  # noqa: PTH208
    assert ids(root) == written
    with pytest.raises(EventLogError, match=r"cannot append .*No space left"):
        EventLog(root).append([event("while it is full")])

    ballast.unlink()
    log.append([event("after")])
    EventLog(root).append([event("after too")])
    log.compact("plan")
    assert ids(root) == [*written, "after", "after too"]


@pytest.mark.parametrize("num_bytes", [0, 1, 1000])
def test_a_write_cut_short_leaves_nothing_behind(tmp_path: Path, num_bytes: int) -> None:
    log = EventLog(tmp_path)
    log.append([event("a")])
    log.append([event("b")])
    before = sorted((tmp_path / "plan").iterdir())
    with files_of_at_most(num_bytes):
        with pytest.raises(EventLogError, match=rf"cannot append to plan in {tmp_path}: .*File too large"):
            log.append([event("c")])
        with pytest.raises(EventLogError, match=rf"cannot compact plan in {tmp_path}: .*File too large"):
            log.compact("plan")
    assert {*(tmp_path / "plan").iterdir()} - {tmp_path / "plan" / "compacted"} == {*before}
    log.append([event("c")])
    assert ids(tmp_path) == ["a", "b", "c"]


def test_a_read_only_disk_can_be_read_and_says_so_when_it_is_written(small_disk: Path) -> None:
    root = small_disk / "events"
    log = EventLog(root)
    log.append([event("a")])
    log.append([event("b")])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert ids(root) == ["a", "b"]
    for writer in (log, EventLog(root)):
        with pytest.raises(EventLogError, match=rf"cannot append to plan in {root}: .*Read-only"):
            writer.append([event("c")])
    with pytest.raises(EventLogError, match=rf"cannot compact plan in {root}: .*Read-only"):
        log.compact("plan")
    with pytest.raises(EventLogError, match=r"cannot append to plan .*Read-only"):
        EventLog(small_disk / "new").append([event("a")])
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    log.append([event("c")])
    assert ids(root) == ["a", "b", "c"]
    assert sorted(path.name for path in small_disk.iterdir()) == ["events"]
