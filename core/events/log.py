"""The event log: streams of numbered segments, the only truth.

An append puts a segment **under the next number if that number is absent**: two writers cannot both win.
Readers see whole segments only and check their hashes. A finished stream is compacted into one file that
stands for all segments up to its number.

::

    {location}/{stream}/00000000.parquet, 00000001.parquet, ...     one per append
    {location}/{stream}/compact-00000041.parquet                    stands for segments 0..41
    {location}/{stream}/compacted                                   such a file is or was there
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import polars as pl

from core.errors import ConcurrencyError, DamagedLogError, EventLogError
from core.events.catalogue import check_known
from core.events.event import Event
from core.events.seal import encode_frame
from core.events.segments import (
    EMPTY,
    Head,
    decode_segments,
    encode_segment,
    follow_chain,
    to_events,
)
from core.events.stores import SMALL_BYTES, LocalStore, SegmentStore
from core.events.upcasters import UPCASTERS, upcast

_COMPACTED = "compacted"
"""An empty file, put before the first compaction of a stream."""
_MAX_SEGMENT_BYTES = 2**30
"""More than the joined segments of any plan take: they hold tens of millions of events."""
_NAME = re.compile(r"(compact-)?(\d{8})\.parquet")
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class _Listing:
    """The files that count: the newest compact file's number (or -1) and the segments after it."""

    announced: bool
    """Whether a compaction was begun: then there is a compact file, or what it was to be made of."""
    compacted: int
    numbers: tuple[int, ...]
    superseded: tuple[str, ...]
    """Files that a compact one stands for, oldest first: left by a compaction that was cut short."""

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """Sort out the names in a stream's folder; foreign ones are ignored."""
        found = [match for name in names if (match := _NAME.fullmatch(name))]
        compacted = max((int(match[2]) for match in found if match[1]), default=-1)
        numbers = sorted(int(match[2]) for match in found if not match[1])
        compacts = [number for match in found if match[1] and (number := int(match[2])) < compacted]
        stale = sorted(
            [(number, _compact_name(number)) for number in compacts]
            + [(number, _segment_name(number)) for number in numbers if number <= compacted]
        )
        return cls(
            _COMPACTED in names,
            compacted,
            tuple(number for number in numbers if number > compacted),
            tuple(name for _, name in stale),
        )

    @property
    def last(self) -> int:
        return self.numbers[-1] if self.numbers else self.compacted

    def files(self, since: int) -> list[tuple[str, int]]:
        """Names and numbers of the files with segments after a number."""
        compact = [(_compact_name(self.compacted), self.compacted)] if self.compacted > since else []
        return compact + [(_segment_name(number), number) for number in self.numbers if number > since]


@dataclass
class _Known:
    """What this process has seen of a stream: it only ever grows."""

    heads: list[Head] = field(default_factory=list)
    compacted: bool = False
    num_unhashed: int = 0
    event_ids: set[str] | None = None
    """Every event's id; None until the first append needs them."""

    @property
    def head(self) -> Head:
        return self.heads[-1] if self.heads else EMPTY


class EventLog:
    """Append-only streams of events.

    Several processes may append to, read from and compact the same log at once; one object serves one thread.

    Args:
        store: Where segments are kept; a path stands for a folder on a local disk.
    """

    def __init__(self, store: Path | SegmentStore) -> None:
        self._store: SegmentStore = LocalStore(store) if isinstance(store, Path) else store
        self._streams: dict[str, _Known] = {}

    @property
    def location(self) -> str:
        """Where the log is, for people."""
        return self._store.location

    @property
    def folder(self) -> Path | None:
        """Where it is in this machine's file system; None for what is elsewhere."""
        return self._store.root if isinstance(self._store, LocalStore) else None

    def streams(self) -> list[str]:
        """Names of all streams that hold events, sorted.

        Raises:
            EventLogError: The store cannot be read.
        """
        try:
            names = sorted(name for name in self._store.streams() if _STREAM.fullmatch(name))
        except OSError as error:
            raise EventLogError(f"cannot read the event log {self.location}: {error}") from error
        return [name for name in names if self._holds_events(name)]

    def read(self, stream: str, after: int = -1) -> list[Event]:
        """Events of a stream in order.

        What this object has read before is not read again.

        Args:
            stream: The stream's name; an unknown one has no events.
            after: Only events at positions above this one.

        Returns:
            Events, upcast to their current versions.

        Raises:
            DamagedLogError: A gap, an unreadable or changed segment; it is named.
            UnknownEventError: The stream holds an event that is newer than this software.
            EventLogError: The store cannot be read.
        """
        known = self._known(stream)
        seen = bisect_right(known.heads, after, key=lambda head: head.position)
        rows = self._load(stream, known.heads[seen - 1] if seen else EMPTY)
        wanted = _after(rows, "position", after)
        kinds = wanted.group_by("type", "version").agg(pl.col("position").min()).rows()
        for kind, version, position in kinds:
            check_known(kind, version, f"event {position} of plan {stream}")
        events = to_events(wanted)
        if any((kind, version) in UPCASTERS for kind, version, _ in kinds):
            return [upcast(event) for event in events]
        return events

    def heads(self, stream: str) -> list[Head]:
        """Where a stream stood after each of its segments, in order; errors as in ``read``."""
        self._load(stream, self._known(stream).head)
        return list(self._known(stream).heads)

    def num_unhashed(self, stream: str) -> int:
        """Events of a stream that release 0.1.0 wrote, without hashes; errors as in ``read``."""
        self._load(stream, self._known(stream).head)
        return self._known(stream).num_unhashed

    def append(self, events: Sequence[Event], expected_position: int | None = None) -> list[Event]:
        """Append events of one stream as one segment: all of them or none.

        Args:
            events: New events of one stream. Those whose ``event_id`` is there already are left out.
            expected_position: Last position the caller has seen (-1 for an empty stream), or None to append
                after whatever is there.

        Returns:
            The appended events with their positions; they are durable.

        Raises:
            ConcurrencyError: The stream went on past ``expected_position``.
            EventLogError: The store cannot be written, or a payload is not made of finite primitives.
            DamagedLogError: What is there is damaged; nothing was written.
        """
        if not events:
            return []
        stream = events[0].stream
        if not _STREAM.fullmatch(stream) or any(event.stream != stream for event in events):
            raise EventLogError(f"an append belongs to one stream with a plain name, not {stream!r}")
        for event in events:
            if not event.event_id or not (event.event_id + event.type).isprintable():
                raise EventLogError(f"event_id {event.event_id!r} or type {event.type!r} is no plain name")
        known, event_ids = self._known_for_append(stream)
        if expected_position not in (None, known.head.position):
            self._load(stream, known.head)
        overtaken: set[str] = set()
        while True:
            if expected_position not in (None, known.head.position):
                raise ConcurrencyError(
                    f"stream {stream} is at position {known.head.position}, not {expected_position}: "
                    "another writer appended first; read it again"
                )
            fresh = list({e.event_id: e for e in events if e.event_id not in event_ids}.values())
            first = known.head.position + 1
            placed = [event._replace(position=first + i) for i, event in enumerate(fresh)]
            if not placed and overtaken:  # it was in time after all, and compacted before we looked
                return [event for event in self.read(stream) if event.event_id in overtaken]
            if not placed or (outcome := self._put(stream, known, placed)) == "put":
                return placed
            if outcome == "overtaken":
                overtaken |= {event.event_id for event in placed}
            self._load(stream, known.head)

    def compact(self, stream: str) -> None:
        """Join a finished stream's segments into one file; readers and writers never notice.

        Raises:
            EventLogError: The stream is damaged or the store cannot be written; nothing is lost.
        """
        frame = self._load(stream, EMPTY)  # nothing is deleted that was not read in what replaces it
        listing, last = self._list(stream), self._known(stream).head.number
        try:
            if listing.numbers and (listing.compacted >= 0 or len(listing.numbers) > 1):
                self._store.put_if_absent(stream, _COMPACTED, b"")
                self._store.put_if_absent(stream, _compact_name(last), encode_frame(frame))
                listing = self._list(stream)
            for name in listing.superseded:  # oldest first: a listing without the compact file has a gap
                self._store.delete(stream, name)
        except OSError as error:
            raise EventLogError(f"cannot compact {stream} in {self.location}: {error}") from error

    def _holds_events(self, stream: str) -> bool:
        try:
            names = self._store.names(stream)
        except OSError:
            return True  # whoever reads it will say what is wrong
        return any(_NAME.fullmatch(name) or name == _COMPACTED for name in names)

    def _known(self, stream: str) -> _Known:
        if not _STREAM.fullmatch(stream):
            raise EventLogError(f"{stream!r} is no name of a plan: letters, digits, '_', '-' and '.' only")
        return self._streams.setdefault(stream, _Known())

    def _known_for_append(self, stream: str) -> tuple[_Known, set[str]]:
        known = self._known(stream)
        if known.event_ids is None:
            known.event_ids = set(self._load(stream, EMPTY)["event_id"])
        return known, known.event_ids

    def _list(self, stream: str) -> _Listing:
        """The files that count.

        A listing is no snapshot: it can miss both a new compact file and the segments deleted after it was
        put. What looks damaged is therefore listed again until it looks the same twice.
        """
        problem = None
        while True:
            try:
                names = self._store.names(stream)
            except OSError as error:
                raise EventLogError(f"cannot read {stream} in {self.location}: {error}") from error
            listing = _Listing.of(names)
            found = self._problem(stream, listing)
            if found is None:
                return listing
            if found == problem:
                raise DamagedLogError(f"{self.location}/{stream}: {found}; restore it from a backup")
            problem = found

    def _problem(self, stream: str, listing: _Listing) -> str | None:
        numbers = enumerate(listing.numbers, start=listing.compacted + 1)
        missing = next((expected for expected, number in numbers if number != expected), None)
        if missing is None and listing.last < max(
            self._known(stream).head.number, int(listing.announced) - 1
        ):
            missing = listing.last + 1
        return None if missing is None else f"segment {_segment_name(missing)} is missing"

    def _load(self, stream: str, since: Head) -> pl.DataFrame:
        """Rows of the segments after a head, checked; what is known of the stream grows by them."""
        while True:
            listing = self._list(stream)
            files = listing.files(since.number)
            try:
                contents = [
                    (
                        f"{self.location}/{stream}/{name}",
                        number,
                        self._store.read(stream, name, _MAX_SEGMENT_BYTES),
                    )
                    for name, number in files
                ]
            except FileNotFoundError as error:
                if self._list(stream) == listing:
                    raise DamagedLogError(f"{self.location}/{stream}: {error} vanished") from error
                continue  # Compacted while we read: what we want is in the compact file now.
            except OSError as error:
                raise EventLogError(f"cannot read {stream} in {self.location}: {error}") from error
            # A name that was compacted away while we read can have been taken again: see _put.
            if not files or self._list(stream).compacted == listing.compacted:
                break
        frame = decode_segments(contents)
        if listing.compacted > since.number >= 0:
            # The compact file begins at the beginning; the chain before `since` was checked when it was read.
            frame = _after(frame, "segment", since.number)
        known = self._known(stream)
        known.compacted |= listing.compacted >= 0
        heads = follow_chain(frame, stream, since, f"{self.location}/{stream}")
        self._check_names(stream, listing, since, [head.number for head in heads])
        rows = _after(frame, "segment", known.head.number)
        if known.event_ids is not None:
            known.event_ids.update(rows["event_id"])
        known.num_unhashed += rows["sha256"].null_count()
        known.heads += [head for head in heads if head.number > known.head.number]
        return frame

    def _check_names(self, stream: str, listing: _Listing, since: Head, found: list[int]) -> None:
        """Refuse files that hold other segments than their names say."""
        loose = [number for number in listing.numbers if number > since.number]
        joined, rest = found[: len(found) - len(loose)], found[len(found) - len(loose) :]
        ends = [listing.compacted] if listing.compacted > since.number else []
        if joined[-1:] != ends or rest != loose:
            names = ", ".join(name for name, _ in listing.files(since.number)[-3:])
            raise DamagedLogError(
                f"{self.location}/{stream}: the last files are {names}, but the segments in them end with "
                f"{found[-3:]}: a file was renamed or copied; restore the folder from a backup"
            )

    def _put(self, stream: str, known: _Known, placed: list[Event]) -> Literal["put", "taken", "overtaken"]:
        """Put the next segment, unless another writer took its number or a compaction went past it.

        A number that was compacted away is free again, and a writer that missed the compaction can take it:
        nobody reads it there. The compaction was announced before, so it is seen now.
        """
        content, head = encode_segment(placed, known.head)
        name = _segment_name(head.number)
        try:
            if not self._store.put_if_absent(stream, name, content):
                return "taken"
            if self._is_compacted(stream) and self._list(stream).compacted >= head.number:
                self._store.delete(stream, name)
                return "overtaken"
        except OSError as error:
            raise EventLogError(f"cannot append to {stream} in {self.location}: {error}") from error
        known.heads.append(head)
        if known.event_ids is not None:
            known.event_ids.update(event.event_id for event in placed)
        return "put"

    def _is_compacted(self, stream: str) -> bool:
        """Whether a compaction was ever begun: asked of each append, so without a listing."""
        if not self._known(stream).compacted:
            try:
                self._store.read(stream, _COMPACTED, SMALL_BYTES)
            except FileNotFoundError:
                return False
        return True


def _after(rows: pl.DataFrame, column: str, value: int) -> pl.DataFrame:
    """The rows above a value in a column that never falls."""
    return rows.slice(rows[column].search_sorted(value, side="right"))


def _segment_name(number: int) -> str:
    return f"{number:08d}.parquet"


def _compact_name(number: int) -> str:
    return f"compact-{number:08d}.parquet"
