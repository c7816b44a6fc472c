"""Logs that python-can writes are read back with every field that a frame has."""

import sys
from pathlib import Path

import can
import numpy as np
import pytest

from core.can.readers import open_capture
from core.errors import CaptureError
from tests.capture_text import open_any, read_all

MESSAGES = [
    can.Message(timestamp=1_700_000_000.0, arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02"),
    can.Message(timestamp=1_700_000_000.25, arbitration_id=0x123, is_extended_id=True, data=bytes(range(8))),
    can.Message(timestamp=1_700_000_000.5, arbitration_id=0x1ABCDEFF, is_extended_id=True, data=b""),
    can.Message(timestamp=1_700_000_000.75, arbitration_id=0x7FF, is_extended_id=False, data=b"\xff" * 8),
]
REMOTE = can.Message(
    timestamp=1_700_000_001.0, arbitration_id=0x5, is_extended_id=False, is_remote_frame=True, dlc=4
)
FLEXIBLE = can.Message(
    timestamp=1_700_000_001.25,
    arbitration_id=0x6,
    is_extended_id=False,
    is_fd=True,
    data=bytes(range(64)),
    dlc=64,
)


def write_log(path: Path, messages: list[can.Message]) -> None:
    with can.Logger(path) as log:
        for message in messages:
            message.channel = 1
            log(message)


@pytest.mark.parametrize(
    ("suffix", "more"),
    [
        (".asc", [REMOTE, FLEXIBLE]),
        (".blf", [REMOTE, FLEXIBLE]),
        (".csv", [REMOTE]),
        (".db", [REMOTE]),
        (".log", [REMOTE, FLEXIBLE]),
        (".trc", []),
        (".mf4", [REMOTE, FLEXIBLE]),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_messages_written_are_frames_read(tmp_path: Path, suffix: str, more: list[can.Message]) -> None:
    messages = MESSAGES + more
    path = tmp_path / f"capture{suffix}"
    write_log(path, messages)
    frames, reader = read_all(path)
    assert reader.quarantine.num_rows == 0
    assert frames.arbitration_id.tolist() == [m.arbitration_id for m in messages]
    assert frames.extended.tolist() == [m.is_extended_id for m in messages]
    assert frames.remote.tolist() == [m.is_remote_frame for m in messages]
    assert frames.length.tolist() == [len(m.data) for m in messages]
    width = frames.payload.shape[1]
    assert frames.payload.tobytes() == b"".join(bytes(m.data).ljust(width, b"\0") for m in messages)
    assert frames.attack.tolist() == [-1] * len(messages)
    np.testing.assert_allclose(np.diff(frames.timestamp), 0.25, atol=2e-3)


def test_a_compressed_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "capture.asc.gz"
    write_log(path, MESSAGES)
    assert len(read_all(path)[0]) == len(MESSAGES)


def test_error_frames_are_put_aside_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "capture.blf"
    error = can.Message(timestamp=1_700_000_000.1, is_error_frame=True)
    write_log(path, [MESSAGES[0], error, MESSAGES[1]])
    frames, reader = read_all(path)
    assert len(frames) == 2
    assert reader.quarantine.reasons == {"error frame": 1}
    assert reader.quarantine.examples[0]["line"] == 2


def test_a_truncated_log_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "capture.blf"
    write_log(path, MESSAGES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CaptureError, match=r"capture\.blf is truncated"):
        list(open_any(path))


def test_mf4_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capture.mf4"
    write_log(path, MESSAGES)
    monkeypatch.setattr(sys.modules["can.io.mf4"], "asammdf", None)
    with pytest.raises(CaptureError, match=r"(?s)capture\.mf4.*\[mf4\]"):
        list(open_capture(path, attack_rule=None, max_quarantined_fraction=0.0))
