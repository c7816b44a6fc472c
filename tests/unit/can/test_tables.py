"""Captures in parquet: the published columns and our own."""

from pathlib import Path

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
        ("data_field", "00" * 65, "payload is longer than 64 bytes"),
        ("attack", None, "label is neither attack nor benign"),
        ("attack", "7", "label is neither attack nor benign"),
    ]
    path = tmp_path / "capture.parquet"
    pl.DataFrame([good, *({**good, name: value} for name, value, _ in bad), good]).write_parquet(path)
    frames, reader = read_all(path)
    assert len(frames) == 2
    assert [(e["line"], e["reason"]) for e in reader.quarantine.examples] == [
        (number, reason) for number, (_, _, reason) in enumerate(bad, 2)
    ]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    pl.DataFrame({"time": [1.0]}).write_parquet(path)
    with pytest.raises(CaptureError, match=r"capture\.parquet has the columns time; needed are timestamp"):
        list(open_any(path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CaptureError, match=r"capture\.parquet"):
        list(open_any(path))
