"""Everything that people open can be deleted: log, checkpoints and models bring back every byte of it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.events.log import EventLog
from settings.layout import Layout
from tests.commands import config, run
from tests.sample_log import PLAN_ID, sample_events, write_telemetry

pytestmark = pytest.mark.slow
TRUTH = {"events", "checkpoints", "saved_models"}


def projections(layout: Layout) -> dict[str, bytes]:
    """Content of every file of the projections by its place."""
    plans = EventLog(layout.events).streams()
    files = [path for plan_id in plans for path in layout.root.glob(f"{plan_id}_*")]
    files += layout.generated_configs.iterdir() if layout.generated_configs.is_dir() else []
    return {str(path.relative_to(layout.root)): path.read_bytes() for path in files}


def answer(settings: Path, layout: Layout, *arguments: str) -> str:
    shown = run(*arguments, "--config", str(settings), "--output-dir", str(layout.root))
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_log_checkpoints_and_models_bring_everything_back(finished: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    settings = config(tmp_path, tracking={"mlflow": False})
    shutil.copytree(finished, layout.root)
    by_the_run = projections(layout)
    assert {Path(name).suffix for name in by_the_run} == {".json", ".html", ".png", ".yaml"}
    # A later plan: retries, a failure, quarantined rows, another machine.
    events = sample_events(start=datetime.now(UTC) + timedelta(hours=1))
    EventLog(layout.events).append(events)
    write_telemetry(layout.telemetry, events)
    answer(settings, layout, "flows.analyze")
    before = projections(layout)
    assert {name: before[name] for name in by_the_run} == by_the_run
    assert len([name for name in before if name.startswith(PLAN_ID)]) == 4
    ends = {
        name: str(len(EventLog(layout.events).read(name)) - 1) for name in EventLog(layout.events).streams()
    }
    questions = (
        # As they were at their end: what the machine does at this moment is no projection.
        *(("flows.status", "--plan", name, "--at", end) for name, end in ends.items()),
        ("flows.retrain", "--dry-run", "--datasets", "demo"),
        ("flows.retrain", "--dry-run", "--datasets", "demo", "--force-retrain"),
    )
    answers = [answer(settings, layout, *question) for question in questions]
    assert "up to date" in answers[-2]
    log_before = {name: EventLog(layout.events).read(name) for name in EventLog(layout.events).streams()}

    for path in layout.root.iterdir():
        if path.name not in TRUTH:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert projections(layout) == {}
    assert [answer(settings, layout, *question) for question in questions] == answers
    answer(settings, layout, "flows.analyze")
    assert projections(layout) == before
    assert {name: EventLog(layout.events).read(name) for name in log_before} == log_before
