"""Looking back at any position, and finding every change to history."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from core.events.catalogue import ChainStarted, Fact, PlanCreated, PlanFinished, to_event
from core.events.event import Event
from core.events.log import EventLog
from core.events.seal import encode_frame
from core.planning.audit import as_it_was, audit
from settings.errors import SettingsError

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def created(log: EventLog | None = None, previous: str = "") -> PlanCreated:
    anchors = [{"plan": previous, **log.heads(previous)[-1]._asdict()}] if log else []
    return PlanCreated(steps=[], settings={}, machine={}, force=False, previous=anchors)


def at(second: int, fact: Fact, plan: str = "one") -> Event:
    return to_event(plan, fact)._replace(occurred_at=BEGAN + timedelta(seconds=second))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = EventLog(tmp_path)
    log.append([at(0, created())])
    log.append([at(1, ChainStarted(dataset="demo")), at(2, ChainStarted(dataset="car"))])
    log.append([at(3, created(log, "one"), "two")])
    log.append([at(4, PlanFinished(status="completed", duration_s=4.0))])
    return log


def test_every_plan_is_as_it_was_when_an_event_was_appended(log: EventLog) -> None:
    streams = {name: log.read(name) for name in log.streams()}
    past = as_it_was(streams, "one", 1)
    assert {name: [event.position for event in events] for name, events in past.items()} == {"one": [0, 1]}
    past = as_it_was(streams, "two", 0)
    assert {name: len(events) for name, events in past.items()} == {"one": 3, "two": 1}


def test_what_follows_a_later_event_is_later_even_where_the_clock_was_set_back(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([at(0, created()), at(9, ChainStarted(dataset="demo")), at(1, ChainStarted(dataset="car"))])
    log.append([at(5, created(), "two")])
    past = as_it_was({name: log.read(name) for name in log.streams()}, "two", 0)
    assert [event.position for event in past["one"]] == [0]


@pytest.mark.parametrize("position", [-1, 4])
def test_a_position_that_is_not_there_is_refused_with_those_that_are(log: EventLog, position: int) -> None:
    with pytest.raises(SettingsError, match="0 to 3"):
        as_it_was({"one": log.read("one")}, "one", position)


def test_an_untouched_log_has_no_problems(log: EventLog) -> None:
    log.compact("one")
    audits = audit(EventLog(Path(log.location)))
    assert [(a.plan_id, a.status, a.num_events, a.problem) for a in audits] == [
        ("one", "unchanged", 4, ""),
        ("two", "unchanged", 1, ""),
    ]


def test_a_changed_payload_is_found_in_its_plan_alone(log: EventLog) -> None:
    segment = Path(log.location) / "one" / "00000001.parquet"
    rows = pl.read_parquet(segment)
    forged = rows.with_columns(payload=pl.col("payload").str.replace("demo", "evil"))
    segment.write_bytes(encode_frame(forged))
    one, two = audit(EventLog(Path(log.location)))
    assert "segment 1" in one.problem
    assert (one.status, one.num_events) == ("changed", None)
    assert not two.problem


def test_a_segment_that_cannot_be_read_is_not_called_changed(log: EventLog) -> None:
    segment = Path(log.location) / "one" / "00000001.parquet"
    segment.unlink()
    segment.mkdir()
    one, two = audit(EventLog(Path(log.location)))
    assert (one.status, two.status) == ("unreadable", "unchanged")
    assert "cannot read one" in one.problem


def rewrite_history(folder: Path, keep: int) -> None:
    """Replace a stream by a shorter one whose own hashes all fit."""
    events = EventLog(folder).read("one")[:keep]
    for segment in (folder / "one").iterdir():
        segment.unlink()
    EventLog(folder).append([event._replace(position=-1) for event in events])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_history_whose_own_hashes_fit_is_found_by_the_plan_that_names_it(log: EventLog, keep: int) -> None:
    rewrite_history(Path(log.location), keep)
    one, two = audit(EventLog(Path(log.location)))
    assert one.status == "changed"
    assert "plan two saw" in one.problem
    assert not two.problem


def test_a_plan_that_is_gone_is_found_by_the_plan_that_names_it(log: EventLog) -> None:
    for segment in (Path(log.location) / "one").iterdir():
        segment.unlink()
    one, _ = audit(EventLog(Path(log.location)))
    assert (one.plan_id, one.status, one.num_events) == ("one", "changed", None)
    assert "plan two saw" in one.problem
