"""Looking back from the command line: ``status --at`` and ``verify``."""

import re
from pathlib import Path

import pytest

from core.events.catalogue import PhaseStarted
from core.events.log import EventLog
from settings.layout import Layout
from tests.commands import run
from tests.sample_log import PLAN_ID, sample_events

pytestmark = pytest.mark.slow


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    log = EventLog(Layout(tmp_path).events)
    for event in sample_events():
        log.append([event])
    return tmp_path


def test_status_shows_a_plan_as_it_was_at_any_position(output_dir: Path) -> None:
    events = sample_events()
    position = next(e.position for e in events if e.type == PhaseStarted.TYPE)
    shown = run("flows.status", "--plan", PLAN_ID, "--at", str(position), "--output-dir", str(output_dir))
    assert shown.returncode == 0, shown.stderr
    assert f"after event {position} of {PLAN_ID}: phase_started" in " ".join(shown.stdout.split())
    phases = shown.stdout.partition("Phases of")[2]
    statuses = re.findall(r"^\w+ +(?:graphs|teacher|student|fusion|evaluation) +(\w+)", phases, re.MULTILINE)
    assert statuses.count("running") == 1
    assert set(statuses) == {"running", "pending"}
    assert "saved_models" not in shown.stdout


def test_status_at_a_position_that_is_not_there_names_those_that_are(output_dir: Path) -> None:
    last = len(sample_events()) - 1
    shown = run("flows.status", "--at", "100000", "--output-dir", str(output_dir))
    assert (shown.returncode, f"0 to {last}" in shown.stderr) == (2, True), shown.stderr


def test_verify_finds_a_changed_byte_and_names_the_segment(output_dir: Path) -> None:
    untouched = run("flows.verify", "--output-dir", str(output_dir))
    assert (untouched.returncode, "unchanged" in untouched.stdout) == (0, True), untouched.stderr
    segment = Layout(output_dir).events / PLAN_ID / "00000007.parquet"
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)
    changed = run("flows.verify", "--output-dir", str(output_dir))
    assert changed.returncode == 1
    assert re.search(r"segment (\d*7|\S*00000007\.parquet)", changed.stdout.replace("\n", " ")), (
        changed.stdout
    )


def test_verify_of_nothing_is_no_error(tmp_path: Path) -> None:
    shown = run("flows.verify", "--output-dir", str(tmp_path / "none"))
    assert (shown.returncode, shown.stdout.startswith("no plans")) == (0, True)
    assert not (tmp_path / "none").exists()
