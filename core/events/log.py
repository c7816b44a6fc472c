"""The event log: one folder of numbered parquet segments per stream, the only truth.

An append writes a temporary file, fsyncs it, **puts it under the next number if that number is absent** and
fsyncs the folder: two writers cannot both win. A reader sees whole segments only. A finished stream is
compacted into one file that stands for all segments up to its number.

::

    {root}/{stream}/00000000.parquet, 00000001.parquet, ...     one per append
    {root}/{stream}/compact-00000041.parquet                    stands for segments 0..41
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from core.errors import ConcurrencyError, DamagedLogError, EventLogError
from core.events.event import Event
from core.events.files import fsync_folder, write_temp
from core.events.upcasters import upcast

SCHEMA = pl.Schema(
    [
        ("position", pl.Int64),
        ("event_id", pl.String),
        ("stream", pl.String),
        ("type", pl.String),
        ("version", pl.Int32),
        ("occurred_at", pl.Datetime("us", "UTC")),
        ("payload", pl.String),
    ]
)
_SEGMENT = re.compile(r"(compact-)?(\d{8})\.parquet")
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class _Segments:
    """What a stream's folder holds: the newest compact file's number (or -1) and the segments after it."""

    compacted: int
    numbers: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        return self.compacted < 0 and not self.numbers

    @property
    def next_number(self) -> int:
        return (self.numbers[-1] if self.numbers else self.compacted) + 1


class EventLog:
    """Append-only streams of events below one folder.

    Several processes may append to and read from the same log at once.

    Args:
        root: Folder of the log; made on the first append.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen: dict[str, tuple[int, int, set[str]]] = {}

    def streams(self) -> list[str]:
        """Names of all streams that hold events, sorted.

        Raises:
            EventLogError: The folder cannot be read.
        """
        if not self.root.exists():
            return []
        try:
            names = sorted(path.name for path in self.root.iterdir() if _STREAM.fullmatch(path.name))
        except OSError as error:
            raise EventLogError(f"cannot read the event log {self.root}: {error.strerror}") from error
        return [name for name in names if not self._list(name).is_empty]

    def read(self, stream: str, after: int = -1) -> list[Event]:
        """Events of a stream in order.

        Args:
            stream: The stream's name; an unknown one has no events.
            after: Only events at positions above this one.

        Returns:
            Events, upcast to their current versions.

        Raises:
            DamagedLogError: A gap, an unreadable segment or positions out of order; the file is named.
        """
        frame = self._read_frame(stream).filter(pl.col("position") > after)
        return [upcast(_to_event(row)) for row in frame.iter_rows(named=True)]

    def append(self, events: Sequence[Event], expected_position: int | None = None) -> list[Event]:
        """Append events of one stream as one segment: all of them or none.

        Args:
            events: New events of one stream. Those whose ``event_id`` is there already are left out.
            expected_position: Last position the caller has seen (-1 for an empty stream), or None to append
                after whatever is there.

        Returns:
            The appended events with their positions.

        Raises:
            ConcurrencyError: The stream went on past ``expected_position``.
            EventLogError: The folder cannot be written, or a payload is not made of finite primitives.
        """
        if not events:
            return []
        stream = events[0].stream
        if not _STREAM.fullmatch(stream) or any(event.stream != stream for event in events):
            raise EventLogError(f"an append belongs to one stream with a plain name, not {stream!r}")
        try:
            self._folder(stream).mkdir(parents=True, exist_ok=True)
            while True:
                number, position, known = self._head(stream)
                if expected_position is not None and position != expected_position:
                    raise ConcurrencyError(
                        f"stream {stream} is at position {position}, not {expected_position}: "
                        "another writer appended first; read it again"
                    )
                fresh = list({e.event_id: e for e in events if e.event_id not in known}.values())
                placed = [replace(e, position=position + 1 + i) for i, e in enumerate(fresh)]
                if not placed or self._put_if_absent(stream, number, placed):
                    return placed
        except OSError as error:
            raise EventLogError(f"cannot append to {self._folder(stream)}: {error}") from error

    def compact(self, stream: str) -> None:
        """Join a finished stream's segments into one file; readers and writers never notice."""
        segments = self._list(stream)
        if len(segments.numbers) < 2:
            return
        frame = self._read_frame(stream, segments)
        last = segments.numbers[-1]
        folder = self._folder(stream)
        target = folder / f"compact-{last:08d}.parquet"
        temp = write_temp(folder, frame)
        temp.replace(target)
        fsync_folder(folder)
        for number in segments.numbers:
            (folder / f"{number:08d}.parquet").unlink(missing_ok=True)
        if segments.compacted >= 0:
            (folder / f"compact-{segments.compacted:08d}.parquet").unlink(missing_ok=True)

    def _folder(self, stream: str) -> Path:
        return self.root / stream

    def _list(self, stream: str) -> _Segments:
        folder = self._folder(stream)
        try:
            names = (
                [m for p in folder.iterdir() if (m := _SEGMENT.fullmatch(p.name))] if folder.is_dir() else []
            )
        except OSError as error:
            raise EventLogError(f"cannot read the events in {folder}: {error.strerror}") from error
        compacted = max((int(m[2]) for m in names if m[1]), default=-1)
        numbers = tuple(sorted(n for m in names if not m[1] and (n := int(m[2])) > compacted))
        for expected, number in enumerate(numbers, start=compacted + 1):
            if number != expected:
                raise DamagedLogError(
                    f"{folder}: segment {expected:08d}.parquet is missing: restore it from a backup; "
                    "nothing was changed"
                )
        return _Segments(compacted, numbers)

    def _read_frame(self, stream: str, segments: _Segments | None = None) -> pl.DataFrame:
        listed = segments or self._list(stream)
        folder = self._folder(stream)
        paths = [folder / f"{number:08d}.parquet" for number in listed.numbers]
        if listed.compacted >= 0:
            paths.insert(0, folder / f"compact-{listed.compacted:08d}.parquet")
        try:
            frames = [_read_segment(path) for path in paths]
        except FileNotFoundError:
            if segments is None and self._list(stream) != listed:
                return self._read_frame(stream)  # compacted while we read
            raise
        frame = pl.concat([SCHEMA.to_frame(), *frames])
        wrong = frame.with_row_index("row").filter(pl.col("row") != pl.col("position"))
        if wrong.height:
            raise DamagedLogError(
                f"{folder}: position {wrong['position'][0]} stands where {wrong['row'][0]} belongs: "
                "a segment was changed or replaced; restore the folder from a backup"
            )
        return frame

    def _head(self, stream: str) -> tuple[int, int, set[str]]:
        """Next segment number, last position, known event ids; re-read only after another writer."""
        segments = self._list(stream)
        cached = self._seen.get(stream)
        if cached is None or cached[0] != segments.next_number:
            frame = self._read_frame(stream, segments)
            cached = (segments.next_number, frame.height - 1, set(frame["event_id"]))
            self._seen[stream] = cached
        return cached

    def _put_if_absent(self, stream: str, number: int, events: list[Event]) -> bool:
        folder = self._folder(stream)
        temp = write_temp(folder, pl.DataFrame([_to_row(e) for e in events], schema=SCHEMA))
        target = folder / f"{number:08d}.parquet"
        try:
            os.link(temp, target)
        except FileExistsError:
            return False
        finally:
            temp.unlink()
        fsync_folder(folder)
        if self._list(stream).compacted >= number:
            target.unlink()  # the number was compacted away while we wrote: this file would not be read
            return False
        _, position, known = self._seen[stream]
        known.update(e.event_id for e in events)
        self._seen[stream] = (number + 1, position + len(events), known)
        return True


def _to_row(event: Event) -> dict[str, Any]:
    try:
        payload = json.dumps(dict(event.payload), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise EventLogError(f"payload of {event.type} is not made of finite primitives: {error}") from error
    return {name: payload if name == "payload" else getattr(event, name) for name in SCHEMA}


def _to_event(row: dict[str, Any]) -> Event:
    return Event(**{**row, "payload": json.loads(row["payload"])})


def _read_segment(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedLogError(f"segment {path} cannot be read: {error}") from error
    if frame.schema != SCHEMA or frame.is_empty():
        raise DamagedLogError(f"segment {path} is not a segment of an event log: restore it from a backup")
    return frame
