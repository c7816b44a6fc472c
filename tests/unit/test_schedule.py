"""Runs of schedules: how long each waits, and which of several does the work."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun, State, StateType

from tasks.schedule import first_for_cause, newest_due, start_delay_s, wait_for_turn

NIGHT = datetime(2026, 3, 28, 2, tzinfo=UTC)
DEPLOYMENT = UUID(int=7)
AUTOMATION = {"id": UUID(int=11), "type": "AUTOMATION", "display_value": "captures changed"}
SCHEDULE = {"id": UUID(int=8), "type": "SCHEDULE", "display_value": "nightly"}


def _run(night: int, name: str = "Late", kind: StateType = StateType.SCHEDULED, **changed: Any) -> FlowRun:
    given = {
        "id": uuid4(),
        "flow_id": UUID(int=9),
        "deployment_id": DEPLOYMENT,
        "expected_start_time": NIGHT + timedelta(days=night),
        "auto_scheduled": True,
        "created_by": SCHEDULE,
        "state": State(type=kind, name=name),
    }
    return FlowRun.model_validate({**given, **changed})


def test_a_run_waits_the_same_whenever_it_is_asked_and_less_than_the_most() -> None:
    delays = [start_delay_s(DEPLOYMENT, f"host-{i}", NIGHT, 600.0) for i in range(200)]
    assert delays == [start_delay_s(DEPLOYMENT, f"host-{i}", NIGHT, 600.0) for i in range(200)]
    assert all(0 <= delay < 600 for delay in delays)
    assert start_delay_s(DEPLOYMENT, "host", NIGHT, 0.0) == 0


def test_a_fleet_spreads_over_the_whole_time() -> None:
    delays = [start_delay_s(DEPLOYMENT, f"host-{i}", NIGHT, 600.0) for i in range(600)]
    tenths = [int(delay // 60) for delay in delays]
    assert all(30 <= tenths.count(tenth) <= 90 for tenth in range(10))


def test_another_night_or_deployment_waits_otherwise() -> None:
    others = [
        start_delay_s(DEPLOYMENT, "host", NIGHT + timedelta(days=1), 600.0),
        start_delay_s(UUID(int=1), "host", NIGHT, 600.0),
        start_delay_s(DEPLOYMENT, "other", NIGHT, 600.0),
    ]
    assert start_delay_s(DEPLOYMENT, "host", NIGHT, 600.0) not in others
    assert len(set(others)) == 3


def test_the_newest_of_missed_runs_does_the_work() -> None:
    oldest, newest = _run(0, "Running", StateType.RUNNING), _run(3)
    runs = [oldest, _run(1), _run(2, "AwaitingConcurrencySlot"), newest]
    assert newest_due(runs, oldest) is newest
    assert newest_due(runs, newest) is newest


def test_a_run_that_is_not_due_yet_takes_no_work_away() -> None:
    run = _run(0, "Running", StateType.RUNNING)
    assert newest_due([run, _run(1, "Scheduled")], run) is run


def test_a_newer_run_that_has_begun_does_the_work() -> None:
    run, newer = _run(0, "Running", StateType.RUNNING), _run(1, "Pending", StateType.PENDING)
    assert newest_due([run, newer], run) is newer


def test_runs_of_persons_and_of_other_schedules_are_left_alone() -> None:
    run = _run(0, "Running", StateType.RUNNING)
    by_hand = _run(1, auto_scheduled=False)
    weekly = _run(2, created_by={**SCHEDULE, "id": UUID(int=10)})
    assert newest_due([run, by_hand, weekly], run) is run


def test_of_runs_for_the_same_cause_the_first_does_the_work() -> None:
    runs = [_for_cause("a", second) for second in range(3)]
    assert all(first_for_cause(runs[::-1], run) is runs[0] for run in runs)


def test_other_causes_automations_and_persons_have_runs_of_their_own() -> None:
    run = _for_cause("a", 9)
    copied = _for_cause("a", 0, created_by={**AUTOMATION, "type": "USER"})
    other = _for_cause("a", 0, created_by={**AUTOMATION, "id": UUID(int=12)})
    assert first_for_cause([_for_cause("b", 0), copied, other, run], run) is run
    assert first_for_cause([copied, run], copied) is copied


def _for_cause(cause: str, second: int, **changed: Any) -> FlowRun:
    given = {
        "created": NIGHT + timedelta(seconds=second),
        "created_by": AUTOMATION,
        "parameters": {"cause": cause},
    }
    return _run(0, **{**given, **changed})


def test_outside_a_flow_run_nothing_waits() -> None:
    assert wait_for_turn(86_400) is None
