"""What an event log keeps, on whatever store it is: a new store is one more parameter of ``open_store``."""

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from core.errors import ConcurrencyError, DamagedLogError, EventLogError, UnknownEventError
from core.events.catalogue import ChainStarted, to_event, to_fact
from core.events.event import Event, new_event
from core.events.log import EventLog
from core.events.segments import encode_segment
from core.events.stores import MemoryStore, SegmentStore

GOLDEN = Path(__file__).parents[1] / "golden/0.1.0"
OpenStore = Callable[[], SegmentStore]
FIRST, SECOND, THIRD = (f"{number:08d}.parquet" for number in range(3))
COMPACT = "compact-00000002.parquet"
FOURTH = "00000003.parquet"


def started(name: str, stream: str = "plan") -> Event:
    return to_event(stream, ChainStarted(dataset=name))


def datasets(events: Sequence[Event]) -> list[str]:
    return [event.payload["dataset"] for event in events]


def replace(store: SegmentStore, name: str, content: bytes) -> None:
    store.delete("plan", name)
    assert store.put_if_absent("plan", name, content)


@pytest.fixture
def store(open_store: OpenStore) -> SegmentStore:
    return open_store()


@pytest.fixture
def log(store: SegmentStore) -> EventLog:
    return EventLog(store)


@pytest.fixture
def other(open_store: OpenStore) -> EventLog:
    """The same log, opened by somebody else."""
    return EventLog(open_store())


# Appending and reading


def test_what_is_appended_is_read_back_in_order_with_gapless_positions(
    log: EventLog, other: EventLog
) -> None:
    appended = [*log.append([started("a"), started("b")]), *log.append([started("c")])]
    assert log.read("plan") == other.read("plan") == appended
    assert [event.position for event in appended] == [0, 1, 2]


def test_an_unknown_stream_is_empty(log: EventLog) -> None:
    assert log.read("nothing") == []
    assert log.streams() == []


def test_streams_do_not_mix(log: EventLog) -> None:
    log.append([started("a", "one")])
    log.append([started("b", "two")])
    assert log.streams() == ["one", "two"]
    assert datasets(log.read("two")) == ["b"]


@pytest.mark.parametrize("after", range(-1, 6))
def test_reading_after_any_position_leaves_out_what_was_before(
    log: EventLog, other: EventLog, after: int
) -> None:
    for names in ("ab", "c", "de"):
        log.append([started(name) for name in names])
    assert datasets(other.read("plan", after)) == list("abcde")[after + 1 :]
    log.compact("plan")
    assert datasets(other.read("plan", after)) == list("abcde")[after + 1 :]


def test_the_same_event_twice_is_one_event(log: EventLog, other: EventLog) -> None:
    event = started("a")
    log.append([event])
    assert log.append([event, event]) == []
    assert datasets(other.append([event, started("b")])) == ["b"]
    assert datasets(log.read("plan")) == ["a", "b"]


def test_a_writer_that_expects_another_position_is_told_and_nothing_is_written(
    log: EventLog, other: EventLog
) -> None:
    log.append([started("a")], expected_position=-1)
    with pytest.raises(ConcurrencyError, match="position 0, not -1"):
        other.append([started("b")], expected_position=-1)
    assert datasets(log.read("plan")) == ["a"]


def test_of_writers_that_expect_the_same_position_one_wins(open_store: OpenStore) -> None:
    def race(name: str) -> bool:
        try:
            return bool(EventLog(open_store()).append([started(name)], expected_position=-1))
        except ConcurrencyError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(race, "abcd")) == 1
    assert len(EventLog(open_store()).read("plan")) == 1


def test_concurrent_writers_a_compactor_and_a_reader_lose_nothing(open_store: OpenStore) -> None:
    def write(writer: int) -> None:
        log = EventLog(open_store())
        for i in range(5):
            log.append([started(f"{writer}-{i}")])

    def watch(_: int) -> list[list[Event]]:
        log = EventLog(open_store())
        return [log.read("plan") for _ in range(10)]

    def compact(_: int) -> None:
        for _ in range(5):
            EventLog(open_store()).compact("plan")

    with ThreadPoolExecutor(5) as pool:
        writing, seen, compacting = pool.map(write, range(3)), pool.submit(watch, 0), pool.submit(compact, 0)
        assert list(writing) == [None] * 3
        compacting.result()
    events = EventLog(open_store()).read("plan")
    assert sorted(datasets(events)) == [f"{writer}-{i}" for writer in range(3) for i in range(5)]
    assert all(glimpse == events[: len(glimpse)] for glimpse in seen.result())


def test_a_payload_comes_back_equal_to_the_mapping_that_was_appended(log: EventLog, other: EventLog) -> None:
    payload = {"dataset": "ü\n\t'\"\\", "numbers": [1, -2.5, None, True], "nested": {"": {}}}
    log.append([new_event("plan", "chain_finished", payload)])
    (event,) = other.read("plan")
    assert event.payload == payload
    assert dict(event.payload) == payload
    assert json.dumps(dict(event.payload)) == json.dumps(payload)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}])
def test_a_payload_that_json_cannot_hold_is_refused_and_nothing_is_written(
    log: EventLog, value: object
) -> None:
    with pytest.raises(EventLogError, match="chain_started"):
        log.append([new_event("plan", "chain_started", {"dataset": value})])
    assert log.read("plan") == []


@pytest.mark.parametrize("stream", ["", "../evil", "a/b", ".hidden"])
def test_a_stream_name_never_leaves_the_log(log: EventLog, stream: str) -> None:
    with pytest.raises(EventLogError, match="plain name"):
        log.append([started("a", stream)])


def test_an_event_of_a_newer_version_is_refused_with_advice(log: EventLog, other: EventLog) -> None:
    log.append([new_event("plan", "chain_started", {"dataset": "a"}, version=99)])
    with pytest.raises(UnknownEventError, match="newer release"):
        other.read("plan")


# Compaction


def test_compaction_changes_nothing_that_is_read(log: EventLog, store: SegmentStore) -> None:
    for name in "abc":
        log.append([started(name)])
    before = log.read("plan")
    log.compact("plan")
    log.compact("plan")
    assert log.read("plan") == before
    assert sorted(store.names("plan")) == [COMPACT, "compacted"]


def test_writers_go_on_after_compaction_even_those_who_did_not_see_it(
    log: EventLog, other: EventLog, open_store: OpenStore
) -> None:
    other.append([started("a")])
    log.append([started("b")])
    log.append([started("b2")])
    log.compact("plan")
    other.append([started("c")])
    log.append([started("d")])
    log.compact("plan")
    assert datasets(EventLog(open_store()).read("plan")) == ["a", "b", "b2", "c", "d"]


def test_what_a_compaction_cut_short_left_behind_is_ignored_and_then_removed(
    log: EventLog, other: EventLog, store: SegmentStore
) -> None:
    for name in "abc":
        log.append([started(name)])
    second = store.read("plan", SECOND, 2**20)
    log.compact("plan")
    assert store.put_if_absent("plan", SECOND, second)
    assert datasets(other.read("plan")) == ["a", "b", "c"]
    other.compact("plan")
    assert sorted(store.names("plan")) == [COMPACT, "compacted"]


class StaleListing(MemoryStore):
    """Lists once what is given to it, as a listing taken while files come and go may be."""

    stale: list[str] | None = None

    def names(self, stream: str) -> list[str]:
        names, self.stale = self.stale, None
        return super().names(stream) if names is None else names


SOME = [names for n in range(4) for names in itertools.combinations([FIRST, SECOND, THIRD], n)]


@pytest.mark.parametrize("stale", SOME)
@pytest.mark.parametrize("num_seen", range(4))
def test_a_listing_that_misses_files_during_a_compaction_shows_everything_or_nothing_new(
    stale: tuple[str, ...], num_seen: int
) -> None:
    store = StaleListing()
    reader, writer = EventLog(store), EventLog(store)
    for i in range(3):
        if i == num_seen:
            reader.read("plan")
        writer.append([started("abc"[i])])
    writer.compact("plan")
    store.stale = list(stale)
    assert datasets(reader.read("plan", after=num_seen - 1)) in (list("abc")[num_seen:], [])
    assert datasets(reader.read("plan")) == ["a", "b", "c"]


# Damage


@pytest.fixture
def three(log: EventLog) -> list[Event]:
    """What three segments hold."""
    return [event for names in ("ab", "c", "de") for event in log.append([started(name) for name in names])]


def damages(content: bytes) -> Iterator[bytes]:
    """Every kind of cut, and a flipped bit here and there."""
    yield from (
        content[:keep] for keep in (0, 1, 4, 12, len(content) // 2, len(content) - 8, len(content) - 1)
    )
    for at in range(100, len(content), 1500):
        yield content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]


@pytest.mark.parametrize("name", [FIRST, SECOND, THIRD, COMPACT])
def test_a_cut_or_changed_file_is_refused_by_name_and_left_as_it_is(
    store: SegmentStore, log: EventLog, three: list[Event], name: str
) -> None:
    if name == COMPACT:
        log.compact("plan")
    whole = store.read("plan", name, 2**20)
    for damaged in damages(whole):
        replace(store, name, damaged)
        with pytest.raises(DamagedLogError, match=name.removeprefix("compact-")):
            EventLog(store).read("plan")
        with pytest.raises(DamagedLogError, match=name.removeprefix("compact-")):
            EventLog(store).append([started("f")])
        assert store.read("plan", name, 2**20) == damaged
    replace(store, name, whole)
    assert log.read("plan") == three


@pytest.mark.parametrize("compacted", [False, True])
def test_a_flipped_bit_is_refused_wherever_it_is(compacted: bool) -> None:
    store = MemoryStore()
    log = EventLog(store)
    for name in "abc":
        log.append([started(name)])
    if compacted:
        log.compact("plan")
    for name in store.names("plan"):
        whole = store.read("plan", name, 2**20)
        for at in range(0, len(whole), 3):
            replace(store, name, whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            with pytest.raises(DamagedLogError, match=name):
                EventLog(store).read("plan")
        replace(store, name, whole)


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_missing_segment_is_refused_by_name(
    store: SegmentStore, three: list[Event], other: EventLog, name: str
) -> None:
    store.delete("plan", name)
    with pytest.raises(DamagedLogError, match=f"{name} is missing"):
        other.read("plan")


def test_a_missing_last_segment_is_refused_by_those_who_have_seen_it(
    store: SegmentStore, log: EventLog, three: list[Event]
) -> None:
    store.delete("plan", THIRD)
    with pytest.raises(DamagedLogError, match=f"{THIRD} is missing"):
        log.read("plan")
    with pytest.raises(DamagedLogError, match=f"{THIRD} is missing"):
        log.append([started("f")], expected_position=0)


def test_swapped_segments_are_refused(store: SegmentStore, three: list[Event], other: EventLog) -> None:
    second, third = store.read("plan", SECOND, 2**20), store.read("plan", THIRD, 2**20)
    replace(store, SECOND, third)
    replace(store, THIRD, second)
    with pytest.raises(DamagedLogError, match="event 3 of stream plan stands where position 2"):
        other.read("plan")


def test_a_segment_that_is_there_twice_is_refused(
    store: SegmentStore, three: list[Event], other: EventLog
) -> None:
    store.put_if_absent("plan", "00000003.parquet", store.read("plan", FIRST, 2**20))
    with pytest.raises(DamagedLogError, match="event 0 of stream plan stands where position 5"):
        other.read("plan")


def test_a_segment_of_another_stream_is_refused(store: SegmentStore, log: EventLog, other: EventLog) -> None:
    log.append([started("a", "one")])
    store.put_if_absent("plan", FIRST, store.read("one", FIRST, 2**20))
    with pytest.raises(DamagedLogError, match="event 0 of stream one stands where position 0 of plan"):
        other.read("plan")


def test_a_foreign_parquet_file_is_refused_by_name(
    store: SegmentStore, three: list[Event], other: EventLog
) -> None:
    file = io.BytesIO()
    pl.DataFrame({"x": [1]}).write_parquet(file)
    replace(store, SECOND, file.getvalue())
    with pytest.raises(DamagedLogError, match=f"{SECOND} is not a segment"):
        other.read("plan")


@pytest.mark.parametrize("name", [".deadbeef.tmp", "notes.txt", "1.parquet", "compact-x.parquet"])
def test_a_foreign_file_is_ignored(
    store: SegmentStore, three: list[Event], other: EventLog, name: str
) -> None:
    store.put_if_absent("plan", name, b"PAR1 torn")
    assert other.read("plan") == three
    other.append([started("f")])
    other.compact("plan")
    assert name in store.names("plan")


def test_a_replaced_payload_is_found_at_the_next_segment_even_under_a_new_hash_of_its_own(
    store: SegmentStore, log: EventLog, three: list[Event], other: EventLog
) -> None:
    forged, _ = encode_segment([three[2]._replace(payload={"dataset": "forged"})], log.heads("plan")[0])
    replace(store, SECOND, forged)
    for use in (other.read, other.compact, log.read):
        with pytest.raises(DamagedLogError, match=r"segment 2 .* or one before it was changed"):
            use("plan")


# Earlier releases


def test_a_log_of_release_0_1_0_is_appended_to_compacted_and_read(
    store: SegmentStore, log: EventLog, open_store: OpenStore
) -> None:
    (folder,) = GOLDEN.iterdir()
    plan = folder.name
    for path in folder.iterdir():
        store.put_if_absent(plan, path.name, path.read_bytes())
    old = EventLog(GOLDEN).read(plan)
    assert log.read(plan) == old
    new = log.append([started("new", plan)])
    new += EventLog(open_store()).append([started("newer", plan)])
    assert EventLog(open_store()).read(plan) == old + new
    log.compact(plan)
    assert EventLog(open_store()).read(plan) == old + new
    assert EventLog(open_store()).append([started("newest", plan)])[0].position == len(old) + 2


def test_a_changed_segment_of_release_0_1_0_is_found_once_a_later_one_was_appended(
    store: SegmentStore, log: EventLog, other: EventLog
) -> None:
    (folder,) = GOLDEN.iterdir()
    for path in folder.iterdir():
        store.put_if_absent(folder.name, path.name, path.read_bytes())
    log.append([started("new", folder.name)])
    frame = pl.read_parquet(folder / THIRD)
    changed = io.BytesIO()
    frame.with_columns(pl.col("payload").str.replace("demo", "live")).write_parquet(changed)
    store.delete(folder.name, THIRD)
    store.put_if_absent(folder.name, THIRD, changed.getvalue())
    with pytest.raises(DamagedLogError, match=r"segment 3 .* or one before it was changed"):
        other.read(folder.name)


def test_bytes_of_release_0_1_0_that_make_polars_panic_are_refused_by_name() -> None:
    store = MemoryStore()
    (folder,) = GOLDEN.iterdir()
    whole = (folder / "compact-00000001.parquet").read_bytes()
    refused = 0
    for at in range(2400, 2600):
        replace(store, "compact-00000001.parquet", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            EventLog(store).heads("plan")
        except DamagedLogError as error:
            refused += "compact-00000001.parquet" in str(error)
    assert refused > 0


NAMES = [f"{prefix}{number:08d}.parquet" for prefix in ("", "compact-") for number in range(5)]


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_file_under_another_files_name_is_refused_or_changes_nothing(compacted: bool, copied: bool) -> None:
    whole = MemoryStore()
    log = EventLog(whole)
    for name in "abc":
        log.append([started(name)])
    if compacted:
        log.compact("plan")
        log.append([started("d")])
    before, names = log.read("plan"), set(whole.names("plan"))
    for source, target in itertools.product(sorted(names - {"compacted"}), sorted(set(NAMES) - names)):
        if compacted and source == FOURTH and target.removesuffix(".parquet")[-1] in "012" and not copied:
            continue  # the same as if the end were cut off
        store = MemoryStore()
        for name in names:
            if name != source or copied:
                store.put_if_absent("plan", name, whole.read("plan", name, 2**20))
        store.put_if_absent("plan", target, whole.read("plan", source, 2**20))
        for use in (
            lambda store=store: EventLog(store).read("plan"),
            lambda store=store: EventLog(store).compact("plan"),
            lambda store=store: EventLog(store).append([started("new")]),
        ):
            try:
                use()
            except EventLogError:
                assert set(names) - {source} <= set(store.names("plan")), "nothing is deleted"
            else:
                assert EventLog(store).read("plan")[: len(before)] == before, (source, target)


def test_a_stream_that_was_compacted_and_is_empty_is_refused(log: EventLog, store: SegmentStore) -> None:
    for name in "ab":
        log.append([started(name)])
    log.compact("plan")
    for name in store.names("plan"):
        if name != "compacted":
            store.delete("plan", name)
    assert EventLog(store).streams() == ["plan"]
    with pytest.raises(DamagedLogError, match=FIRST):
        EventLog(store).read("plan")
    with pytest.raises(DamagedLogError, match=FIRST):
        EventLog(store).append([started("c")])


def test_a_payload_that_is_no_utf_8_is_refused_and_nothing_is_written(log: EventLog) -> None:
    with pytest.raises(EventLogError, match="chain_started"):
        log.append([started("a\udcff")])
    assert log.read("plan") == []


def test_a_payload_of_other_fields_than_its_type_is_refused(log: EventLog) -> None:
    log.append([new_event("plan", "chain_finished", {"data": "a"})])
    with pytest.raises(DamagedLogError, match="event 0 of plan plan is no chain_finished version 1"):
        to_fact(log.read("plan")[0])
