"""Telemetry when its writer is killed or its disk is full."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.events.telemetry import read_telemetry

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
