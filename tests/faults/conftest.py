"""What several fault tests need of the machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from core.can.demo import ensure_demo
from settings.data import DemoSettings
from tests.commands import PrefectServer, wait_for
from tests.file_systems import file_system
from tests.places import Place, make_place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server that a test may kill and start again."""
    server = PrefectServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 128 MiB below this process's own, where that may be made."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    mount, limit = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if "memory" in own else (
        "/sys/fs/cgroup", "memory.max",
    )  # fmt: skip
    folder = Path(mount + own.get("memory", own.get("", "/"))) / f"retrain-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory cgroup: {error}")
    try:
        try:
            (folder / limit).write_text(str(128 << 20))
        except OSError as error:
            pytest.skip(f"cannot limit a memory cgroup: {error}")
        yield folder
    finally:
        wait_for(lambda: _removed(folder))


def _removed(cgroup: Path) -> bool:
    """Whether it could be removed: while a process in it is still ending it cannot."""
    with suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of simulated traffic."""
    return ensure_demo(DemoSettings(duration_s=4.0, cache_dir=tmp_path_factory.mktemp("simulated")))


@pytest.fixture
def place(tmp_path: Path, captures: Path) -> Place:
    """Where a plan may be carried out."""
    return make_place(tmp_path, captures)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, captures: Path) -> Place:
    """The same plan, carried out by one process that nobody disturbed."""
    place = make_place(tmp_path_factory.mktemp("uninterrupted"), captures)
    done = place.run()
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path, "64m") as disk:
        yield disk
