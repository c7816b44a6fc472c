"""An output directory of every released version goes on with this one, or says why not."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from core.errors import EventLogError, UnknownEventError
from core.events.catalogue import CATALOGUE, PhaseStarted, PlanFinished
from core.events.event import Event, new_event
from core.events.log import EventLog
from core.planning.analysis import analyze_plans
from core.planning.chain import Chain
from core.planning.coordinator import RetrainingCoordinator
from core.planning.upkeep.maintenance import maintain_outputs
from flows.status import status_command
from settings.app import Settings, load_settings
from settings.errors import SettingsError
from settings.layout import Layout
from tests.commands import ROOT

GOLDEN = sorted((ROOT / "tests" / "golden").iterdir())
IDS = [path.name for path in GOLDEN]


@pytest.fixture(params=GOLDEN, ids=IDS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """The output directory of an earlier release, as far as it is truth."""
    layout = Layout(tmp_path / "out")
    shutil.copytree(request.param, layout.events)
    return layout


def settings(layout: Layout) -> Settings:
    demo = {"duration_s": 4.0, "cache_dir": layout.root.parent / "simulated"}
    return load_settings(output_dir=layout.root, environment="ci", data={"demo": demo})


def events_of(layout: Layout) -> list[Event]:
    [plan_id] = EventLog(layout.events).streams()
    return EventLog(layout.events).read(plan_id)


def interrupt(layout: Layout) -> str:
    """Let the plan have stopped in its last phase; its events are as that release wrote them."""
    events = events_of(layout)
    last = max(place for place, event in enumerate(events) if event.type == PhaseStarted.TYPE)
    shutil.rmtree(layout.events / events[0].stream)
    EventLog(layout.events).append([event._replace(position=-1) for event in events[: last + 1]])
    return events[0].stream


def test_it_is_shown_and_analyzed(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    plan_id = events_of(layout)[0].stream
    assert status_command(["--output-dir", str(layout.root)]) == 0
    assert plan_id in capsys.readouterr().out
    written, problems = analyze_plans(layout.root)
    assert problems == {}
    assert layout.plan_file(plan_id, "dashboard.html") in written
    assert json.loads(layout.plan_file(plan_id, "results.json").read_text())["status"] == "completed"


def test_a_new_plan_is_made_after_it_and_says_why_models_are_stale(layout: Layout) -> None:
    coordinator = RetrainingCoordinator(settings(layout))
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    assert {step.action for step in plan.steps} == {"run"}
    assert all(step.reason for step in plan.steps)
    coordinator.begin(plan)
    assert len(EventLog(layout.events).streams()) == 2


def test_a_plan_that_was_interrupted_is_taken_up_or_says_why_not(layout: Layout) -> None:
    plan_id = interrupt(layout)
    coordinator = RetrainingCoordinator(settings(layout))
    coordinator.resume(plan_id)
    state = coordinator.state(plan_id)
    assert state.status == "running"
    assert state.remaining("demo") == ["evaluation"]
    with Chain(layout.root, plan_id, "demo") as chain:
        # Its graphs are no longer there, or are of features that this release computes otherwise.
        assert chain.remaining() == ["graphs", "evaluation"]


def test_maintenance_touches_no_event_of_it(layout: Layout) -> None:
    before = events_of(layout)
    report = maintain_outputs(settings(layout), before[-1].occurred_at + timedelta(days=5000))
    assert report.problems == []
    assert events_of(layout) == before


def test_the_settings_of_its_plan_are_settings_of_this_release(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(dict(events_of(layout)[0].payload["settings"])))
    assert load_settings(file).training.epochs


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("batchsize", 64, "did you mean training.batch_size"), ("workers", 4, "did you mean")],
)
def test_a_setting_that_is_no_more_is_refused_with_what_to_write(
    name: str, value: int, hint: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"training": {name: value}}))
    with pytest.raises(SettingsError, match=f"there is no such setting .*settings.yaml:2.*{hint}"):
        load_settings(file)


@pytest.mark.parametrize(
    ("kind", "version", "known"),
    [
        (PlanFinished.TYPE, CATALOGUE[PlanFinished.TYPE].VERSION + 1, "knows version"),
        ("plan_dreamt", 1, "no such type"),
    ],
)
def test_events_of_a_newer_release_are_refused_with_advice_and_kept(
    kind: str, version: int, known: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "out")
    shutil.copytree(GOLDEN[-1], layout.events)
    plan_id = events_of(layout)[0].stream
    before = {path.name: path.read_bytes() for path in (layout.events / plan_id).iterdir()}
    EventLog(layout.events).append([new_event(plan_id, kind, {}, version)])
    with pytest.raises(UnknownEventError, match=f"{known}.*use a newer release"):
        EventLog(layout.events).read(plan_id)
    with pytest.raises(EventLogError, match="use a newer release"):
        analyze_plans(layout.root, plan_id)
    with pytest.raises(EventLogError, match="use a newer release"):
        RetrainingCoordinator(settings(layout)).create_retraining_plan(datasets=["demo"])
    [problem] = maintain_outputs(settings(layout)).problems
    assert "use a newer release" in problem
    kept = {path.name: path.read_bytes() for path in (layout.events / plan_id).iterdir()}
    assert before.items() <= kept.items()
