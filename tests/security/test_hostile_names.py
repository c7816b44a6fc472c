"""Names of datasets and plans that would leave their folder, from wherever names come."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError

from core.errors import EventLogError
from core.events.catalogue import PlanCreated, PlanResumed, to_event
from core.events.log import EventLog
from core.events.telemetry import TelemetryWriter
from core.planning.analysis import analyze_plans
from core.planning.chain import Chain
from flows.analyze import analyze
from flows.dataset_chain import dataset_chain
from flows.retrain import retrain
from settings.app import load_settings
from settings.errors import RetrainError, SettingsError
from settings.layout import Layout
from settings.names import is_dataset_name, is_plan_id
from tests.commands import run
from tests.sample_log import sample_events

HOSTILE = (
    "", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "C:\\x", "a\0b", "a\nb", "a\n", " a", "a b", "-a",
    "_a", ".hidden", "~root", "$(id)", "`id`", "a;id", "a|b", "a*", "a?b", "<b>", "[red]", "é",
    "a" * 200, "%2e%2e",
)  # fmt: skip
DEVICES = ("con", "NUL", "aux", "com1", "LPT9")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_pattern_lets_a_hostile_name_pass(name: str) -> None:
    assert not is_dataset_name(name)
    assert not is_plan_id(name)


@pytest.mark.parametrize("name", ["hcrl_ch", "set_01", "demo", "my-car-2", "A" * 64])
def test_names_of_people_pass(name: str) -> None:
    assert is_dataset_name(name)


@pytest.mark.parametrize("name", [*HOSTILE, *DEVICES, "a.b"])
def test_settings_refuse_a_dataset_of_such_a_name(name: str) -> None:
    with pytest.raises(SettingsError, match="bad settings"):
        load_settings(data={"datasets": {name: {"folder": "x"}}})


@pytest.mark.parametrize("name", [*HOSTILE, *DEVICES])
@pytest.mark.parametrize(
    "parameters",
    [
        lambda name: retrain.validate_parameters({"datasets": [name]}),
        lambda name: retrain.validate_parameters({"priority_datasets": [name]}),
        lambda name: dataset_chain.validate_parameters({"plan_id": "plan", "dataset": name}),
    ],
)
def test_flows_refuse_a_dataset_of_such_a_name(parameters: Callable[[str], object], name: str) -> None:
    with pytest.raises(ParameterTypeError):
        parameters(name)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "parameters",
    [
        lambda name: retrain.validate_parameters({"resume": name}),
        lambda name: analyze.validate_parameters({"plan_id": name}),
        lambda name: dataset_chain.validate_parameters({"plan_id": name, "dataset": "demo"}),
    ],
)
def test_flows_refuse_a_plan_of_such_a_name(parameters: Callable[[str], object], name: str) -> None:
    with pytest.raises(ParameterTypeError):
        parameters(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_log_neither_reads_nor_writes_nor_compacts_a_plan_of_such_a_name(
    name: str, tmp_path: Path
) -> None:
    log = EventLog(tmp_path / "events")
    for use in (log.read, log.heads, log.compact):
        with pytest.raises(EventLogError, match="is no name of a plan"):
            use(name)
    with pytest.raises(EventLogError, match="plain name"):
        log.append([to_event(name, PlanResumed(remaining=[], data_dir=None))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\0b", "con", "a\nb"])
def test_a_foreign_log_cannot_make_a_chain_write_elsewhere(name: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    first = sample_events()[0]
    steps = [{**step, "dataset": name} for step in first.payload["steps"]]
    settings = load_settings().model_dump(mode="json", exclude={"tracking"})
    created = PlanCreated(**{**first.payload, "steps": steps, "settings": settings})
    EventLog(layout.events).append([to_event("plan", created)])
    with pytest.raises(RetrainError, match="has no dataset"):
        Chain(layout.root, "plan", name)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["00000000.parquet"]


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", ".."])
def test_samples_stay_below_their_folder_whatever_they_are_of(name: str, tmp_path: Path) -> None:
    folder = TelemetryWriter(tmp_path / "telemetry", name, name).folder
    assert folder.resolve().is_relative_to(tmp_path / "telemetry")
    assert len(folder.relative_to(tmp_path / "telemetry").parts) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("flows.retrain", "--datasets", "../../x"),
        ("flows.retrain", "--priority-datasets", "/etc"),
        ("flows.retrain", "--resume", "../../x"),
        ("flows.analyze", "--plan", "../../x"),
        ("flows.status", "--plan", "/etc/passwd"),
    ],
)
def test_commands_refuse_them_as_bad_usage_and_touch_nothing(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    shown = run(*arguments, "--output-dir", str(tmp_path / "out"))
    assert shown.returncode == 2, shown.stderr
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_named_with_letters_that_nothing_draws_does_not_end_the_analysis(tmp_path: Path) -> None:
    layout, name = Layout(tmp_path / "out"), "test\x1b[2J\x00\x7f\ufffe<b>"
    told, written = (json.dumps(text)[1:-1] for text in ("test_04_unknown_vehicle_unknown_attack", name))
    events = [
        event._replace(payload=json.loads(json.dumps(dict(event.payload)).replace(told, written)))
        for event in sample_events()
    ]
    assert any(written in json.dumps(dict(event.payload)) for event in events)
    EventLog(layout.events).append(events)
    _, problems = analyze_plans(layout.root, None)
    assert problems == {}
    assert layout.plan_file(events[0].stream, "dashboard.png").stat().st_size > 10_000
