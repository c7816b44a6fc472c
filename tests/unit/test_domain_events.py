"""What Prefect is told of facts: names, labels and details, and nothing that should stay here."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.events.schemas.events import Event as PrefectEvent
from prefect.exceptions import EventTooLarge

import tasks.domain_events as told
from core.events.catalogue import (
    CATALOGUE,
    ModelSaved,
    PhaseFailed,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_fact,
)
from core.events.resource_facts import PackLimitChanged
from core.resources.failures import OOM_KINDS
from tests.sample_log import sample_events

PLAN = "20261103-0915-7f3a"
SECRETS = ("/", "s3cret", "password", "<script>")


def _failed(kind: str, message: str = "") -> PhaseFailed:
    return PhaseFailed(
        dataset="my_car",
        phase="teacher",
        attempt=2,
        kind=kind,
        message=message,
        micro_batch_size=64,
        report="/somewhere/report.txt",
    )


def _shrunk(reason: str) -> PackLimitChanged:
    names = {"dataset": "my_car", "phase": "teacher", "model": "teacher_gat"}
    return PackLimitChanged(
        **names, epoch=0, step=1, stage="forward", reason=reason, before={}, after={}, allocated_mib=None,
        reserved_mib=None,
    )  # fmt: skip


def test_a_plan_is_told_with_its_datasets() -> None:
    steps = [
        {"dataset": name, "phase": phase, "action": "run" if name == "a" else "skip", "reason": ""}
        for name in ("a", "b")
        for phase in ("graphs", "teacher")
    ]
    created = PlanCreated(steps=steps, settings={"secret": "s3cret"}, machine={}, force=True, previous=[])
    (event,) = told.domain_events(PLAN, created)
    assert event.name == "can-retrain.plan.created"
    assert event.resource["prefect.resource.id"] == f"can-retrain.plan.{PLAN}"
    assert [related["prefect.resource.id"] for related in event.related] == [
        "can-retrain.dataset.a",
        "can-retrain.dataset.b",
    ]
    assert event.payload == {"num_phases": 2, "num_datasets": 2, "force": True}


def test_a_plan_with_more_datasets_than_prefect_takes_is_told_all_the_same() -> None:
    steps = [{"dataset": f"d{i}", "phase": "graphs", "action": "run", "reason": ""} for i in range(300)]
    created = PlanCreated(steps=steps, settings={}, machine={}, force=False, previous=[])
    (event,) = told.domain_events(PLAN, created)
    PrefectEvent(event=event.name, resource=event.resource, related=event.related, payload=event.payload)
    assert event.payload["num_datasets"] == 300


def test_how_a_plan_ended_is_a_label_that_automations_can_match() -> None:
    (event,) = told.domain_events(PLAN, PlanFinished(status="failed", duration_s=12.3456))
    assert event.name == "can-retrain.plan.finished"
    assert event.resource["can-retrain.status"] == "failed"


def test_a_resume_is_told_with_the_datasets_that_are_left() -> None:
    resumed = PlanResumed(remaining=["a/teacher", "a/student", "b/graphs"], data_dir="/secret/place")
    (event,) = told.domain_events(PLAN, resumed)
    assert event.payload == {"num_phases": 3}
    assert len(event.related) == 2


@pytest.mark.parametrize("kind", sorted(OOM_KINDS))
def test_a_lack_of_memory_is_told_whether_or_not_it_cost_the_attempt(kind: str) -> None:
    names = [event.name for event in told.domain_events(PLAN, _failed(kind))]
    assert names == ["can-retrain.phase.failed", "can-retrain.phase.out-of-memory"]
    (recovered,) = told.domain_events(PLAN, _shrunk(kind))
    assert recovered.name == "can-retrain.phase.out-of-memory"
    assert recovered.resource["can-retrain.dataset"] == "my_car"


def test_other_failures_and_other_changes_of_packs_are_no_lack_of_memory() -> None:
    assert [event.name for event in told.domain_events(PLAN, _failed("hang"))] == ["can-retrain.phase.failed"]
    assert told.domain_events(PLAN, _shrunk("room")) == []


def test_a_saved_model_is_told_by_the_name_of_its_file() -> None:
    saved = ModelSaved(
        dataset="my_car", phase="fusion", path="/home/someone/out/saved_models/f.pth", sha256="ab" * 32,
        data_digest="d", settings_digest="s", parent_sha256="p", num_parameters={},
    )  # fmt: skip
    (event,) = told.domain_events(PLAN, saved)
    assert event.payload == {"phase": "fusion", "sha256": "ab" * 32, "file": "f.pth"}


def test_no_event_of_a_whole_plan_holds_a_path_a_message_or_a_secret() -> None:
    facts = [to_fact(event) for event in sample_events()]
    facts.append(_failed("bug", "s3cret password in /home/someone/.env"))
    events = [event for fact in facts for event in told.domain_events(PLAN, fact)]
    assert {event.name for event in events} >= {told.PLAN_CREATED, told.PLAN_FINISHED, told.PHASE_FAILED}
    for event in events:
        shown = json.dumps([event.resource, event.related, event.payload])
        assert not any(secret in shown for secret in SECRETS), shown


def test_most_facts_are_told_to_nobody() -> None:
    telling = {fact.TYPE for event in sample_events() if told.domain_events(PLAN, fact := to_fact(event))}
    assert telling < set(CATALOGUE)
    assert "epoch_finished" not in telling


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what would be sent; events on a real server are in the integration tests."""
    names: list[str] = []

    def keep(event: str, resource: dict[str, str], **details: Any) -> None:
        PrefectEvent(event=event, resource=resource, **details)
        names.append(event)

    monkeypatch.setattr(told, "emit_event", keep)
    return names


def test_a_disk_is_told_to_be_nearly_full_once_until_there_is_room_again(
    tmp_path: Path, emitted: list[str]
) -> None:
    watch = told.DiskWatch(tmp_path, least_mib=float("inf"))
    assert [watch.look() for _ in range(3)] == [True, True, True]
    assert emitted == ["can-retrain.disk.low"]
    watch._least_mib = 0.0
    assert not watch.look()
    watch._least_mib = float("inf")
    assert watch.look()
    assert emitted == ["can-retrain.disk.low"] * 2


def test_a_disk_that_is_gone_stops_nothing(tmp_path: Path, emitted: list[str]) -> None:
    assert not told.DiskWatch(tmp_path / "nowhere", least_mib=float("inf")).look()
    assert emitted == []


def test_an_event_that_cannot_be_told_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise EventTooLarge(2, 1)

    monkeypatch.setattr(told, "emit_event", refuse)
    with caplog.at_level("WARNING", logger="core"):
        told.tell(told.captures_changed("my_car", "x", 1))
    assert "Prefect is not told of can-retrain.captures.changed" in caplog.text


def test_a_listener_tells_of_each_fact_once(tmp_path: Path, emitted: list[str]) -> None:
    listen = told.telling(tmp_path, PLAN)
    for kind in ("hang", "cuda_oom"):
        listen(_failed(kind))
    failed = [name for name in emitted if not name.endswith("disk.low")]
    assert failed == [told.PHASE_FAILED, told.PHASE_FAILED, told.OUT_OF_MEMORY]
