"""Logs as JSON lines, whoever writes them."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.logs import LogFile, Sentences, headline, identified, logged_to, open_output

LOG = logging.getLogger("core.test_logs")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "logs" / "plan.jsonl"
    with logged_to(file, "core", logging.DEBUG):
        yield file


def test_a_record_says_when_how_serious_where_and_what(path: Path) -> None:
    LOG.warning("%s is full", "the disk", extra={"dataset": "car"})
    (record,) = records(path)
    assert record["level"] == "WARNING"
    assert record["logger"] == "core.test_logs"
    assert record["message"] == "the disk is full"
    assert record["dataset"] == "car"
    assert record["pid"] > 0
    at = datetime.fromisoformat(record["time"])
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)


def test_ids_are_in_every_record_within_and_the_innermost_counts(path: Path) -> None:
    with identified(plan="p", dataset="car", flow_run_id=None):
        with identified(dataset="bus", phase="teacher"):
            LOG.info("within")
        LOG.info("around")
    LOG.info("outside")
    within, around, outside = records(path)
    assert (within["plan"], within["dataset"], within["phase"]) == ("p", "bus", "teacher")
    assert (around["plan"], around["dataset"]) == ("p", "car")
    assert not {"phase", "flow_run_id"} & set(around)
    assert "plan" not in outside


def test_a_traceback_is_in_the_file_and_not_before_people(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        int("too late")
    except ValueError:
        LOG.exception("it could not be done")
    (record,) = records(path)
    assert record["message"] == "it could not be done"
    assert record["traceback"].startswith("Traceback")
    assert record["traceback"].endswith("'too late'")
    shown = Sentences("%(message)s").format(caplog.records[0])
    assert shown == "it could not be done"


def test_passwords_in_addresses_are_written_nowhere(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = "http://someone:s3cret@host:5000/x and sqlite:///a.db"
    try:
        int(address)
    except ValueError:
        LOG.exception("no answer from %s", address, extra={"fact": {"uri": address}})
    assert "s3cret" not in path.read_text()
    assert "http://someone:***@host:5000/x and sqlite:///a.db" in path.read_text()
    assert "s3cret" not in Sentences().format(caplog.records[0])


def test_text_that_is_no_text_is_still_a_line_of_json(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = logging.getLogger("core")  # pytest-xdist cannot send such text as captured output
    monkeypatch.setattr(core, "propagate", False)
    monkeypatch.setattr(core, "handlers", [h for h in core.handlers if isinstance(h, LogFile)])
    LOG.info("file %s\nof two lines", "caf\udce9.csv")
    (record,) = records(path)
    assert record["message"] == "file caf\udce9.csv\nof two lines"


def test_the_logger_is_as_before_afterwards_and_a_second_use_of_the_file_writes_nothing_twice(
    path: Path,
) -> None:
    core = logging.getLogger("core")
    before = core.level, list(core.handlers)
    with logged_to(path, "core"):
        LOG.info("once")
    assert (core.level, core.handlers) == before
    assert len(records(path)) == 1


_WRITER = """
import logging, sys
from pathlib import Path
from core.logs import LogFile
log = logging.getLogger("core")
log.setLevel(logging.INFO)
log.addHandler(LogFile(Path(sys.argv[1]), max_bytes=20_000))
for i in range(200):
    log.info("%s %s", sys.argv[2], i, extra={"filler": "x" * 100})
"""


def test_nothing_is_lost_or_torn_when_processes_write_and_rotate_at_once(tmp_path: Path) -> None:
    file = tmp_path / "shared.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(file), name], stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for writer in writers:
        _, err = writer.communicate()
        assert not err
    files = sorted(tmp_path.glob("shared.jsonl*"))
    assert len(files) > 3
    assert all(part.stat().st_size <= 20_000 for part in files)
    said = [record["message"] for part in files for record in records(part)]
    assert sorted(said) == sorted(f"{name} {i}" for name in ("a", "b") for i in range(200))


def test_older_files_go_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "small.jsonl"
    handler = LogFile(file, max_bytes=500)
    for i in range(100):
        handler.handle(LOG.makeRecord("core", logging.INFO, "", 0, f"{i}", (), None))
    handler.close()
    assert len(list(tmp_path.iterdir())) == 5
    assert records(file)[-1]["message"] == "99"


def test_a_log_that_cannot_be_written_is_told_once_and_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with logged_to(tmp_path / "log.jsonl", "core", logging.INFO):
        LOG.info("one")
        LOG.info("two")
    err = capsys.readouterr().err
    assert err.count("log.jsonl is incomplete") == 1
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full here")
def test_a_log_on_a_full_disk_hides_nothing_that_fails_within(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with logged_to(Path("/dev/full"), "core", logging.INFO):
            LOG.info("one")
            raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        fail()
    assert capsys.readouterr().err.count("/dev/full is incomplete: [Errno 28]") == 1


def test_a_headline_is_the_first_line() -> None:
    assert headline("it failed; see x.log:\nTraceback\n  ...") == "it failed; see x.log"
    assert headline("it failed") == "it failed"


def test_output_that_has_grown_too_long_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.logs.MAX_BYTES", 3)
    file = tmp_path / "deep" / "x.log"
    for _ in range(3):
        with open_output(file) as output:
            output.write(b"ab")
    assert file.read_bytes() == b"ab"
    assert (tmp_path / "deep" / "x.log.1").read_bytes() == b"abab"
