"""Captures in parquet: the published columns and our own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

from core.errors import CaptureError
from tests.capture_text import FORMATS, Row, assert_holds, assert_same, open_any, read_all, text_of

ROWS = [
    Row(1_000_000, 0x123, extended=False, remote=False, payload=b"\x11\x22", attack=0),
    Row(1_500_000, 0x1ABCDEFF, extended=True, remote=False, payload=b"", attack=1),
    Row(2_000_000, 0x012, extended=False, remote=False, payload=bytes(range(8)), attack=0),
]


@pytest.mark.parametrize("label", [pl.Int64, pl.String, pl.Float64, pl.Boolean])
def test_the_published_columns_are_read_as_from_csv(tmp_path: Path, label: type[pl.DataType]) -> None:
    csv, parquet = tmp_path / "capture.csv", tmp_path / "capture.parquet"
    csv.write_text(text_of(FORMATS["can-train-and-test"], ROWS))
    table = pl.read_csv(csv, schema_overrides={"arbitration_id": pl.String, "data_field": pl.String})
    table.with_columns(pl.col("attack").cast(label)).write_parquet(parquet)
    assert_same(read_all(parquet)[0], read_all(csv)[0])


@pytest.mark.parametrize("payload", ["binary", "list", "padded"])
def test_our_own_columns_are_read(tmp_path: Path, payload: str) -> None:
    rows = [*ROWS, Row(3_000_000, 0x5, extended=True, remote=True, payload=b"", attack=0)]
    rows.append(Row(3_000_000, 0x6, extended=False, remote=False, payload=bytes(range(64)), attack=0))
    table = pl.DataFrame(
        {
            "timestamp": [float(row.timestamp) for row in rows],
            "arbitration_id": pl.Series([row.arbitration_id for row in rows], dtype=pl.UInt32),
            "extended": [row.extended for row in rows],
            "remote": [row.remote for row in rows],
            "attack": pl.Series([row.attack for row in rows], dtype=pl.Int8),
        }
    )
    if payload == "binary":
        table = table.with_columns(payload=pl.Series([row.payload for row in rows]))
    elif payload == "list":
        table = table.with_columns(
            payload=pl.Series([list(row.payload) for row in rows], dtype=pl.List(pl.UInt8))
        )
    else:
        padded = np.array([list(row.payload.ljust(64, b"\0")) for row in rows], np.uint8)
        lengths = pl.Series([len(row.payload) for row in rows], dtype=pl.UInt8)
        table = table.with_columns(payload=pl.Series(padded), length=lengths)
    path = tmp_path / "capture.parquet"
    table.write_parquet(path)
    assert_holds(read_all(path)[0], rows)


def test_bad_rows_are_put_aside_by_row_number(tmp_path: Path) -> None:
    good = {"timestamp": "1.5", "arbitration_id": "123", "data_field": "1122", "attack": "1"}
    bad = [
        ("timestamp", None, "timestamp is not a number of seconds >= 0"),
        ("timestamp", "nan", "timestamp is not a number of seconds >= 0"),
        ("timestamp", "-1", "timestamp is not a number of seconds >= 0"),
        ("timestamp", "1.0", "timestamp goes back"),
        ("arbitration_id", None, "arbitration id is not a hex number of at most 29 bits"),
        ("arbitration_id", "+12", "arbitration id is not a hex number of at most 29 bits"),
        ("arbitration_id", "FFFFFFFF", "arbitration id is not a hex number of at most 29 bits"),
        ("data_field", "112", "payload is not pairs of hex digits"),
        ("data_field", "1x", "payload is not pairs of hex digits"),
        ("data_field", "00" * 65, "payload is not 0-8, 12, 16, 20, 24, 32, 48 or 64 bytes long"),
        ("data_field", "00" * 9, "payload is not 0-8, 12, 16, 20, 24, 32, 48 or 64 bytes long"),
        ("attack", None, "label is neither attack nor benign"),
        ("attack", "7", "label is neither attack nor benign"),
    ]
    path = tmp_path / "capture.parquet"
    pl.DataFrame([good, good, *({**good, name: value} for name, value, _ in bad), good]).write_parquet(path)
    frames, reader = read_all(path)
    assert len(frames) == 3
    assert [(e["line"], e["reason"]) for e in reader.quarantine.examples] == [
        (number, reason) for number, (_, _, reason) in enumerate(bad, 3)
    ]


def write_table(path: Path, **columns: Any) -> None:
    """Two or more frames with some columns as given."""
    size = max(len(pl.Series(column)) for column in columns.values())
    usual = {"timestamp": [1.0] * size, "arbitration_id": [1] * size, "payload": [[1]] * size}
    pl.DataFrame({**usual, **columns}).write_parquet(path)


@pytest.mark.parametrize(
    ("payload", "length", "good"),
    [
        ([[1, 2, 0], None, [300], [-1]], None, [[1, 2, 0]]),
        ([[1, None], [2, 3]], None, [[2, 3]]),
        ([[], [None], [5]], None, [[], [5]]),
        ([[0] * 9, [7] * 12], None, [[7] * 12]),
        ([[1, 2, None], [1, None, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], [2, 2, -1, 4, None], [[1, 2]]),
    ],
)
def test_a_bad_element_in_a_list_of_bytes_costs_its_row(
    tmp_path: Path,
    payload: list[list[int | None] | None],
    length: list[int | None] | None,
    good: list[list[int]],
) -> None:
    path = tmp_path / "capture.parquet"
    write_table(path, payload=payload, **({"length": length} if length else {}))
    frames, reader = read_all(path)
    carried = [row[:size].tolist() for row, size in zip(frames.payload, frames.length, strict=True)]
    assert carried == good
    assert reader.quarantine.num_rows == len(payload) - len(good)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_dates_and_times_become_seconds_since_1970(
    tmp_path: Path, unit: Literal["ms", "us", "ns"], zone: str | None
) -> None:
    path = tmp_path / "capture.parquet"
    start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    steps = [timedelta(0), timedelta(milliseconds=250), timedelta(seconds=1, microseconds=230)]
    times = pl.Series([(start + step).replace(tzinfo=None) for step in steps], dtype=pl.Datetime(unit))
    if zone:
        times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    write_table(path, timestamp=times)
    last = 1_700_000_001.0 if unit == "ms" else 1_700_000_001.00023
    assert read_all(path)[0].timestamp.tolist() == [1_700_000_000.0, 1_700_000_000.25, last]
    write_table(path, timestamp=pl.Series([*steps, None], dtype=pl.Duration(unit)))
    frames, reader = read_all(path)
    assert frames.timestamp.tolist() == [0.0, 0.25, last - 1.7e9 if unit == "ms" else 1.00023]
    assert reader.quarantine.reasons == {"timestamp is not a number of seconds >= 0": 1}


def test_text_in_categories_is_text(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    write_table(path, arbitration_id=pl.Series(["1A0", "2"], dtype=pl.Categorical))
    assert read_all(path)[0].arbitration_id.tolist() == [0x1A0, 2]


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_times_are_the_nearest_doubles_wherever_they_stand_in_a_block(tmp_path: Path, num_rows: int) -> None:
    path = tmp_path / "capture.parquet"
    times = pl.Series([1_700_000_001_000_230] * num_rows).cast(pl.Datetime("us"))
    write_table(path, timestamp=times)
    assert read_all(path)[0].timestamp.tolist() == [1_700_000_001.00023] * num_rows


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("timestamp", pl.Series([{"s": 1}, {"s": 2}])),
        ("timestamp", pl.Series([datetime(2023, 1, 1, tzinfo=UTC).date()])),
        ("timestamp", pl.Series([True, False])),
        ("arbitration_id", pl.Series([[1], [2]])),
        ("arbitration_id", pl.Series([b"1", b"2"])),
        ("attack", pl.Series([{"a": 1}])),
        ("payload", pl.Series([1, 2])),
        ("payload", pl.Series([[1.5], [2.0]])),
    ],
)
def test_a_column_of_a_type_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, column: pl.Series
) -> None:
    path = tmp_path / "capture.parquet"
    write_table(path, **{name: column})
    with pytest.raises(CaptureError, match=rf"capture\.parquet: the column {name} is of type"):
        list(open_any(path))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    pl.DataFrame({"time": [1.0]}).write_parquet(path)
    with pytest.raises(CaptureError, match=r"capture\.parquet has the columns time; needed are timestamp"):
        list(open_any(path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CaptureError, match=r"capture\.parquet"):
        list(open_any(path))
