"""Looking back from the command line: ``status --at`` and ``verify``."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.events.catalogue import PhaseStarted, PlanFinished
from core.events.log import EventLog
from core.events.telemetry import ResourceSample, TelemetryWriter
from settings.layout import Layout
from tests.commands import ROOT, config, run
from tests.sample_log import PLAN_ID, sample_events

pytestmark = pytest.mark.slow

GOLDEN = ROOT / "tests" / "golden"
DAMAGED = "plan-20261104-0000-0bad"


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
    assert re.search(rf"^{PLAN_ID} +running", shown.stdout, re.MULTILINE), shown.stdout
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


def test_verify_of_nothing_is_no_success(tmp_path: Path) -> None:
    shown = run("flows.verify", "--output-dir", str(tmp_path / "none"))
    assert (shown.returncode, "nothing to check" in shown.stderr) == (2, True), shown.stderr
    assert not (tmp_path / "none").exists()


def test_verify_says_that_no_hash_vouches_for_a_plan_of_the_first_release(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "0.1.0", Layout(tmp_path).events)
    shown = run("flows.verify", "--output-dir", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert (" unhashed " in shown.stdout, "unchanged" in shown.stdout) == (True, False), shown.stdout


def test_verify_prints_the_end_of_each_plan_unbroken_in_a_narrow_terminal(output_dir: Path) -> None:
    head = EventLog(Layout(output_dir).events).heads(PLAN_ID)[-1]
    shown = run("flows.verify", "--output-dir", str(output_dir), COLUMNS="40")
    assert f"{head.sha256}  {PLAN_ID}" in shown.stdout.splitlines()


@pytest.fixture
def one_damaged(output_dir: Path) -> Path:
    """A second, newer plan, with a flipped bit."""
    EventLog(Layout(output_dir).events).append(sample_events(DAMAGED))
    segment = Layout(output_dir).events / DAMAGED / "00000000.parquet"
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)
    return output_dir


@pytest.mark.parametrize("asked", [(), ("--plan", PLAN_ID)])
def test_status_shows_the_good_plan_beside_a_damaged_one(one_damaged: Path, asked: tuple[str, ...]) -> None:
    shown = run("flows.status", *asked, "--output-dir", str(one_damaged))
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"^{DAMAGED} +damaged", shown.stdout, re.MULTILINE), shown.stdout
    assert re.search(rf"^{PLAN_ID} +failed", shown.stdout, re.MULTILINE), shown.stdout
    assert f"Phases of {PLAN_ID}" in shown.stdout
    problem = shown.stdout.partition("Models")[2]
    assert f"{DAMAGED}/00000000.parquet cannot be read" in problem
    assert "python -m flows.verify" in problem


def test_status_of_the_damaged_plan_says_what_is_wrong(one_damaged: Path) -> None:
    shown = run("flows.status", "--plan", DAMAGED, "--output-dir", str(one_damaged))
    assert (shown.returncode, f"{DAMAGED}/00000000.parquet" in shown.stderr) == (1, True), shown.stderr


@pytest.mark.parametrize(("asked", "code"), [((), 1), (("--plan", PLAN_ID), 0)])
def test_analyze_does_the_good_plan_and_says_what_it_left_out(
    one_damaged: Path, asked: tuple[str, ...], code: int
) -> None:
    shown = run("flows.analyze", *asked, "--config", str(config(one_damaged, tracking={"mlflow": False})),
        "--output-dir", str(one_damaged))  # fmt: skip
    assert shown.returncode == code, shown.stderr
    assert f"{PLAN_ID}_dashboard.html" in shown.stdout
    assert DAMAGED not in shown.stdout
    assert f"plan {DAMAGED} is left out" in shown.stderr
    assert "python -m flows.verify" in shown.stderr


@pytest.mark.parametrize(
    ("command", "flag"),
    [("flows.status", "--plan"), ("flows.analyze", "--plan"), ("flows.retrain", "--resume")],
)
def test_an_empty_plan_name_is_refused(tmp_path: Path, command: str, flag: str) -> None:
    shown = run(command, flag, "", "--output-dir", str(tmp_path / "out"))
    assert (shown.returncode, "an empty name is no plan" in shown.stderr) == (2, True), shown.stderr
    assert not (tmp_path / "out").exists()


def test_a_resume_that_is_refused_shows_no_results_of_the_earlier_run(tmp_path: Path) -> None:
    output_dir, captures = tmp_path / "out", tmp_path / "captures"
    captures.mkdir()
    log = EventLog(Layout(output_dir).events)
    log.append(sample_events(gpu=False))
    shown = run("flows.retrain", "--resume", PLAN_ID, "--data-dir", str(captures), "--output-dir",
        str(output_dir))  # fmt: skip
    assert (shown.returncode, str(captures) in shown.stderr) == (1, True), shown.stderr
    assert "dashboard:" not in shown.stdout
    assert log.read(PLAN_ID)[-1].type == PlanFinished.TYPE


def test_verify_finds_changed_resource_samples(output_dir: Path) -> None:
    layout = Layout(output_dir)
    TelemetryWriter(layout.telemetry, PLAN_ID, "demo").write([ResourceSample(occurred_at=datetime.now(UTC))])
    (file,) = layout.telemetry.rglob("*.parquet")
    content = bytearray(file.read_bytes())
    content[9] ^= 1
    file.write_bytes(content)
    found = run("flows.verify", "--output-dir", str(output_dir))
    assert (found.returncode, str(file) in found.stdout) == (1, True), found.stdout
