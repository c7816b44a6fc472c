"""A segment: the events of one append as a parquet file, chained by hash to the segment before it.

``sha256 = SHA-256(previous_sha256, rows)`` over the rows' own text, not over the file's bytes, so that the
chain outlives compaction. Whoever changes a row, a segment or their order breaks it. Each file is sealed as
well: its metadata hold the hash of its bytes, so that a flipped bit is found in the file where it happened.
"""

import gc
import hashlib
import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from core.errors import DamagedLogError, EventLogError
from core.events.event import Event, StoredPayload
from core.events.seal import encode_frame, is_changed, is_intact, is_sealed

UNCHAINED_SCHEMA = pl.Schema(
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
"""Segments of release 0.1.0, which carry no hashes; they are hashed as they are read."""
SCHEMA = pl.Schema(
    [
        *UNCHAINED_SCHEMA.items(),
        ("segment", pl.Int64),
        ("previous_sha256", pl.String),
        ("sha256", pl.String),
    ]
)

_LINE = pl.concat_str(
    ["position", "event_id", "stream", "type", "version", pl.col("occurred_at").dt.epoch("us"), "payload"],
    separator="\t",
)
"""What is hashed of each row; JSON and the other columns hold no line break or tab."""

Row = tuple[int, str, str, str, int, datetime, str]


class Head(NamedTuple):
    """The end of a segment: where a stream stands after it.

    Attributes:
        number: The segment's number, -1 before the first.
        position: Position of its last event, -1 before the first.
        sha256: Its hash, empty before the first.
    """

    number: int
    position: int
    sha256: str


EMPTY = Head(-1, -1, "")


def encode_segment(events: Sequence[Event], head: Head) -> tuple[bytes, Head]:
    """Write placed events as the segment that follows a head.

    Args:
        events: Events with their positions.
        head: Where the stream stands.

    Returns:
        The parquet file, and where the stream then stands.

    Raises:
        EventLogError: A payload is not made of finite primitives.
    """
    rows: list[Row] = [
        (e.position, e.event_id, e.stream, e.type, e.version, e.occurred_at, _payload_text(e)) for e in events
    ]
    frame = pl.DataFrame(rows, UNCHAINED_SCHEMA, orient="row")
    number, sha256 = head.number + 1, _digest(head.sha256, "\n".join(frame.select(_LINE).to_series()))
    chained = frame.with_columns(
        pl.lit(number).alias("segment"),
        pl.lit(head.sha256).alias("previous_sha256"),
        pl.lit(sha256).alias("sha256"),
    )
    return encode_frame(chained.cast(SCHEMA)), Head(number, events[-1].position, sha256)


def decode_segments(contents: Sequence[tuple[str, int, bytes]]) -> pl.DataFrame:
    """Rows of many segments.

    Args:
        contents: Name, number and bytes of each file, in order.

    Returns:
        Columns of ``SCHEMA``.

    Raises:
        DamagedLogError: A file cannot be read or is no segment; it is named.
    """
    if not contents:
        return SCHEMA.to_frame()
    try:
        # Polars skips an empty file without a word, and may read a file with a flipped bit.
        if not all(is_intact(content) for _, _, content in contents):
            raise pl.exceptions.ComputeError("a file was changed, or is of release 0.1.0")
        return pl.scan_parquet([content for _, _, content in contents], schema=SCHEMA).collect()
    except (pl.exceptions.PolarsError, OSError):
        return pl.concat([_decode_one(*content) for content in contents])  # which one is it?


def _decode_one(name: str, number: int, content: bytes) -> pl.DataFrame:
    try:
        if is_changed(content):
            raise pl.exceptions.ComputeError("its bytes were changed since it was written")
        frame = pl.read_parquet(io.BytesIO(content))
        if frame.schema == UNCHAINED_SCHEMA:
            frame = _without_hashes(frame, number)
        elif not is_sealed(content):
            frame = frame.clear()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, *_UNREADABLE) as error:
        raise DamagedLogError(
            f"segment {name} cannot be read: {error}; restore it from a backup, nothing was changed"
        ) from error
    if frame.schema != SCHEMA or frame.is_empty():
        raise DamagedLogError(
            f"segment {name} is not a segment of an event log that this release knows: restore it from a "
            "backup, or use a newer release"
        )
    return frame


_UNREADABLE = (ValueError, OverflowError)
"""What JSON and times raise that are none."""


def _without_hashes(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """Rows of release 0.1.0: no hash vouches for them, so they are decoded to see that they can be."""
    for text in frame["payload"]:
        if not isinstance(json.loads(text), dict):
            raise ValueError(f"{text} is no payload")  # noqa: TRY004 - of the file, not of an argument
    frame["occurred_at"].to_list()
    return frame.with_columns(
        pl.lit(number, pl.Int64).alias("segment"),
        pl.lit(None, pl.String).alias("previous_sha256"),
        pl.lit(None, pl.String).alias("sha256"),
    )


def follow_chain(frame: pl.DataFrame, stream: str, before: Head, where: str) -> list[Head]:
    """Check rows of a stream against their place, their hashes and the segments before them.

    Args:
        frame: Rows of whole segments, in order.
        stream: The stream they are read from.
        before: Where the stream stands before the first row.
        where: The stream's place, for errors.

    Returns:
        The head after each segment.

    Raises:
        DamagedLogError: A row or segment is missing, changed, out of order, or of another stream.
    """
    wrong = frame.with_row_index("row", offset=0).filter(
        (pl.col("row") + before.position + 1 != pl.col("position")) | (pl.col("stream") != stream)
    )
    if wrong.height:
        found = wrong.row(0, named=True)
        raise DamagedLogError(
            f"{where}, segment {found['segment']}: event {found['position']} of stream {found['stream']} "
            f"stands where position {found['row'] + before.position + 1} of {stream} belongs: it was changed "
            "or replaced; restore the folder from a backup"
        )
    ends = (
        frame.with_columns(line=_LINE)
        .group_by(pl.col("segment").rle_id().alias("run"), maintain_order=True)
        .agg(
            pl.col("line").str.join("\n"),
            pl.col("segment", "position", "previous_sha256", "sha256").last(),
            pl.col("previous_sha256", "sha256").n_unique().name.prefix("num_"),
        )
    )
    heads, head, any_chained = [], before, False
    for end in ends.iter_rows(named=True):
        sha256 = _digest(head.sha256, end["line"])
        any_chained |= end["sha256"] is not None
        carried = (end["previous_sha256"], end["sha256"], end["num_previous_sha256"], end["num_sha256"])
        fits = carried == (head.sha256, sha256, 1, 1) or not any_chained
        if not fits or end["segment"] <= head.number:
            raise DamagedLogError(
                f"{where}, segment {end['segment']} (events {head.position + 1} to {end['position']}) or "
                "one before it was changed: the hashes do not fit; restore the folder from a backup"
            )
        head = Head(end["segment"], end["position"], sha256)
        heads.append(head)
    return heads


def to_events(frame: pl.DataFrame) -> list[Event]:
    """Events of rows, payloads not yet decoded."""
    columns = (frame[name].to_list() for name in ("stream", "type", "version", "event_id", "occurred_at"))
    streams, kinds, versions, ids, times = columns
    payloads = map(StoredPayload, frame["payload"].to_list())
    rows = zip(streams, kinds, payloads, versions, ids, times, frame["position"].to_list(), strict=True)
    collecting = gc.isenabled()
    gc.disable()  # a million new objects and no garbage: looking for it takes longer than making them
    try:
        return list(map(Event._make, rows))
    finally:
        if collecting:
            gc.enable()


def _digest(previous: str, lines: str) -> str:
    return hashlib.sha256(f"{previous}\n{lines}".encode()).hexdigest()


def _payload_text(event: Event) -> str:
    payload: Any = event.payload
    if isinstance(payload, StoredPayload):
        return payload.text
    try:
        text = json.dumps(dict(payload), allow_nan=False, ensure_ascii=False)
        text.encode()  # file names can hold what UTF-8 cannot
    except (TypeError, ValueError) as error:
        raise EventLogError(f"payload of {event.type} is not made of finite primitives: {error}") from error
    return text
