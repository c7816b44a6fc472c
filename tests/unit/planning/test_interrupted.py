"""Which plan ``--resume latest`` goes on with, and when it refuses."""

from pathlib import Path

import pytest

from core.events.catalogue import (
    ChainStarted,
    Fact,
    ModelSaved,
    PlanCreated,
    PlanFinished,
    PlanResumed,
    to_event,
)
from core.events.log import EventLog
from core.planning.interrupted import MOST_FRUITLESS_RESUMES, fruitless_resumes, newest_interrupted
from settings.errors import SettingsError

CREATED = PlanCreated(steps=[], settings={}, machine={}, force=False, previous=[])
RESUMED = PlanResumed(remaining=["car/teacher"], data_dir=None)
FINISHED = PlanFinished(status="failed", duration_s=1.0)
SAVED = ModelSaved(
    dataset="car", phase="teacher", path="", sha256="", data_digest="", settings_digest="", parent_sha256="",
    num_parameters={},
)  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


def say(log: EventLog, plan_id: str, *facts: Fact) -> None:
    log.append([to_event(plan_id, fact) for fact in facts])


def test_the_newest_plan_that_has_not_ended_is_gone_on_with(log: EventLog) -> None:
    say(log, "1", CREATED, FINISHED)
    say(log, "2", CREATED)
    say(log, "3", CREATED, SAVED)
    assert newest_interrupted(log) == "3"


def test_a_plan_that_was_taken_up_after_its_end_has_not_ended(log: EventLog) -> None:
    say(log, "1", CREATED, FINISHED, RESUMED, SAVED)
    assert newest_interrupted(log) == "1"


def test_a_plan_before_one_that_has_ended_is_left_to_people(log: EventLog) -> None:
    say(log, "1", CREATED)
    say(log, "2", CREATED, FINISHED)
    with pytest.raises(SettingsError, match="the last plan was not interrupted"):
        newest_interrupted(log)


def test_without_plans_there_is_nothing_to_go_on_with(log: EventLog) -> None:
    with pytest.raises(SettingsError, match="nothing to go on with"):
        newest_interrupted(log)


def test_a_plan_that_gets_no_further_is_not_taken_up_for_ever(log: EventLog) -> None:
    say(log, "1", CREATED, SAVED)
    for _ in range(MOST_FRUITLESS_RESUMES):
        assert newest_interrupted(log) == "1"
        say(log, "1", RESUMED)
    with pytest.raises(SettingsError, match=r"3 times without getting any further.*--resume 1"):
        newest_interrupted(log)
    say(log, "1", SAVED)  # a person went on with it by its name, and it got further
    assert newest_interrupted(log) == "1"


def test_beginning_work_is_no_progress() -> None:
    facts = [CREATED, RESUMED, ChainStarted(dataset="car", holder="h:1:a"), RESUMED]
    assert fruitless_resumes(to_event("1", fact) for fact in facts) == 2
