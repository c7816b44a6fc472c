"""What every event store has to keep; the local one is the first."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from core.errors import ConcurrencyError, DamagedLogError, EventLogError, UnknownEventError
from core.events.catalogue import ChainStarted, to_event, to_fact
from core.events.event import Event, new_event
from core.events.log import EventLog


def started(name: str, stream: str = "plan") -> Event:
    return to_event(stream, ChainStarted(dataset=name))


def names(events: Sequence[Event]) -> list[str]:
    return [event.payload["dataset"] for event in events]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


def test_what_is_appended_is_read_back_in_order_with_gapless_positions(log: EventLog) -> None:
    appended = [*log.append([started("a"), started("b")]), *log.append([started("c")])]
    assert log.read("plan") == appended
    assert [event.position for event in appended] == [0, 1, 2]


def test_an_unknown_stream_is_empty(log: EventLog) -> None:
    assert log.read("nothing") == []
    assert log.streams() == []


def test_streams_do_not_mix(log: EventLog) -> None:
    log.append([started("a", "one")])
    log.append([started("b", "two")])
    assert log.streams() == ["one", "two"]
    assert names(log.read("two")) == ["b"]


def test_reading_after_a_position_leaves_out_what_was_before(log: EventLog) -> None:
    log.append([started(name) for name in "abc"])
    assert names(log.read("plan", after=0)) == ["b", "c"]


def test_the_same_event_twice_is_one_event(log: EventLog) -> None:
    event = started("a")
    log.append([event])
    assert log.append([event, event]) == []
    assert names(EventLog(Path(log.location)).append([event, started("b")])) == ["b"]
    assert names(log.read("plan")) == ["a", "b"]


def test_a_writer_that_expects_another_position_is_told_and_nothing_is_written(log: EventLog) -> None:
    log.append([started("a")], expected_position=-1)
    with pytest.raises(ConcurrencyError, match="position 0, not -1"):
        EventLog(Path(log.location)).append([started("b")], expected_position=-1)
    assert names(log.read("plan")) == ["a"]


def test_two_writers_that_know_nothing_of_each_other_lose_nothing(log: EventLog) -> None:
    other = EventLog(Path(log.location))
    for i in range(5):
        log.append([started(f"a{i}")])
        other.append([started(f"b{i}")])
    assert sorted(names(log.read("plan"))) == [f"{w}{i}" for w in "ab" for i in range(5)]


def _append_many(root: Path, writer: int) -> None:
    log = EventLog(root)
    for i in range(20):
        log.append([started(f"{writer}-{i}")])


@pytest.mark.slow
def test_concurrent_processes_lose_nothing(log: EventLog) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(Path(log.location), n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = log.read("plan")
    assert [event.position for event in events] == list(range(80))
    assert set(names(events)) == {f"{w}-{i}" for w in range(4) for i in range(20)}


def test_compaction_changes_nothing_that_is_read(log: EventLog) -> None:
    for name in "abc":
        log.append([started(name)])
    before = log.read("plan")
    log.compact("plan")
    assert log.read("plan") == before
    assert len(list((Path(log.location) / "plan").iterdir())) == 1


def test_writers_go_on_after_compaction_even_those_who_did_not_see_it(log: EventLog) -> None:
    stale = EventLog(Path(log.location))
    stale.append([started("a")])
    log.append([started("b")])
    log.compact("plan")
    stale.append([started("c")])
    log.append([started("d")])
    log.compact("plan")
    assert names(EventLog(Path(log.location)).read("plan")) == ["a", "b", "c", "d"]


def test_a_torn_temporary_file_is_ignored(log: EventLog) -> None:
    log.append([started("a")])
    (Path(log.location) / "plan" / ".deadbeef.tmp").write_bytes(b"PAR1 torn")
    (Path(log.location) / "plan" / "notes.txt").write_text("foreign")
    assert names(log.read("plan")) == ["a"]
    log.append([started("b")])
    assert names(log.read("plan")) == ["a", "b"]


def test_a_missing_segment_is_refused_by_name(log: EventLog) -> None:
    for name in "abc":
        log.append([started(name)])
    (Path(log.location) / "plan" / "00000001.parquet").unlink()
    with pytest.raises(DamagedLogError, match=r"00000001\.parquet is missing"):
        log.read("plan")


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_segment_is_refused_by_name_and_not_overwritten(log: EventLog, keep: int) -> None:
    for name in "ab":
        log.append([started(name)])
    segment = Path(log.location) / "plan" / "00000001.parquet"
    damaged = segment.read_bytes()[:keep]
    segment.write_bytes(damaged)
    fresh = EventLog(Path(log.location))
    with pytest.raises(DamagedLogError, match=r"00000001\.parquet"):
        fresh.append([started("c")])
    assert segment.read_bytes() == damaged


def test_a_foreign_parquet_file_is_refused_by_name(log: EventLog) -> None:
    log.append([started("a")])
    pl.DataFrame({"x": [1]}).write_parquet(Path(log.location) / "plan" / "00000001.parquet")
    with pytest.raises(DamagedLogError, match=r"00000001\.parquet is not a segment"):
        log.read("plan")


def test_a_segment_copied_to_another_place_is_refused(log: EventLog) -> None:
    for name in "ab":
        log.append([started(name)])
    folder = Path(log.location) / "plan"
    (folder / "00000002.parquet").write_bytes((folder / "00000000.parquet").read_bytes())
    with pytest.raises(DamagedLogError, match="event 0 of stream plan stands where position 2"):
        log.read("plan")


def test_a_payload_that_json_cannot_hold_is_refused_and_nothing_is_written(log: EventLog) -> None:
    event = new_event("plan", "chain_started", {"dataset": float("nan")})
    with pytest.raises(EventLogError, match="chain_started"):
        log.append([event])
    assert log.read("plan") == []


@pytest.mark.parametrize("stream", ["", "../evil", "a/b", ".hidden"])
def test_a_stream_name_never_leaves_the_folder(log: EventLog, stream: str) -> None:
    with pytest.raises(EventLogError, match="plain name"):
        log.append([started("a", stream)])


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file in its place")
    with pytest.raises(EventLogError, match="cannot append"):
        EventLog(tmp_path / "events").append([started("a")])


def test_an_event_of_a_newer_version_is_refused_with_advice(log: EventLog) -> None:
    log.append([new_event("plan", "chain_started", {"dataset": "a"}, version=99)])
    with pytest.raises(UnknownEventError, match="newer release"):
        to_fact(log.read("plan")[0])
