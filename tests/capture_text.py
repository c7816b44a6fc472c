"""Frames as plain Python values, and every text format written the slow and obvious way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from core.can.frames import Frames, concat
from core.can.quarantine import PAYLOAD_LENGTHS
from core.can.readers import CaptureReader, open_capture


@dataclass(frozen=True)
class Row:
    microseconds: int
    arbitration_id: int
    extended: bool
    remote: bool
    payload: bytes
    attack: int

    @property
    def timestamp(self) -> str:
        return f"{self.microseconds // 1_000_000}.{self.microseconds % 1_000_000:06d}"

    @property
    def candump_id(self) -> str:
        return f"{self.arbitration_id:08X}" if self.extended else f"{self.arbitration_id:03X}"

    @property
    def hex_bytes(self) -> list[str]:
        return [f"{byte:02x}" for byte in self.payload]


@dataclass(frozen=True)
class TextFormat:
    suffix: str
    header: str
    line: Callable[[Row], str]
    remote: bool
    labels: bool
    extended_below_0x800: bool = False


def _candump(row: Row) -> str:
    if row.remote:
        data = "#R"
    elif len(row.payload) > 8:
        data = f"##1{row.payload.hex().upper()}"
    else:
        data = f"#{row.payload.hex().upper()}"
    return f"({row.timestamp}) can0 {row.candump_id}{data}"


def _console(row: Row) -> str:
    data = "remote request" if row.remote else " ".join(row.hex_bytes).upper()
    return f" ({row.timestamp})  can0  {row.candump_id:>8}   [{len(row.payload)}]  {data}"


def _txt(row: Row) -> str:
    flags = "100" if row.remote else "000"
    return (
        f"Timestamp: {row.timestamp}        ID: {row.arbitration_id:04x}    {flags}    "
        f"DLC: {len(row.payload)}    {' '.join(row.hex_bytes)}"
    )


FORMATS = {
    "can-train-and-test": TextFormat(
        ".csv",
        "timestamp,arbitration_id,data_field,attack",
        lambda row: f"{row.timestamp},{row.arbitration_id:03X},{row.payload.hex().upper()},{row.attack}",
        remote=False,
        labels=True,
    ),
    "hcrl-csv": TextFormat(
        ".csv",
        "",
        lambda row: ",".join(
            [
                row.timestamp,
                f"{row.arbitration_id:04x}",
                str(len(row.payload)),
                *row.hex_bytes,
                "T" if row.attack else "R",
            ]
        ),
        remote=False,
        labels=True,
    ),
    "hcrl-txt": TextFormat(".txt", "", _txt, remote=True, labels=False),
    "candump-log": TextFormat(".log", "", _candump, remote=True, labels=False, extended_below_0x800=True),
    "candump-console": TextFormat(".log", "", _console, remote=True, labels=False, extended_below_0x800=True),
}


ID = "arbitration id is not a hex number of at most 29 bits"
TIMESTAMP = "timestamp is not a number of seconds >= 0"
PAYLOAD = "payload is not pairs of hex digits"
LENGTH = "payload is not 0-8, 12, 16, 20, 24, 32, 48 or 64 bytes long"
COLUMNS = "wrong number of columns"
DLC = "DLC does not match the payload bytes"
LABEL = "label is neither attack nor benign"
FLAGS = "flags are not understood"
BAD_LINES = {
    "can-train-and-test": [
        ("1.0,1G5,00,0", ID),
        ("1.0,,00,0", ID),
        ("1.0,+1E,00,0", ID),
        ("1.0,20000000,00,0", ID),
        ("1.0,0000001E5,00,0", ID),
        ("1.0,1E5,0,0", PAYLOAD),
        ("1.0,1E5,00112233445566778,0", PAYLOAD),
        ("1.0,1E5,0x11,0", PAYLOAD),
        ("1.0,1E5,ÿ,0", PAYLOAD),
        (f"1.0,1E5,{'00' * 65},0", LENGTH),
        (f"1.0,1E5,{'00' * 9},0", LENGTH),
        (f"1.0,1E5,{'00' * 63},0", LENGTH),
        ("1.0,1E5,00 11,0", PAYLOAD),
        ("1.0, ,00,0", ID),
        ("1.0,1E5,00,2", LABEL),
        ("1.0,1E5,00,", LABEL),
        ("1.0,1E5,00,01", LABEL),
        ("1.0,1E5,00,0.0", LABEL),
        ("nan,1E5,00,0", TIMESTAMP),
        ("inf,1E5,00,0", TIMESTAMP),
        ("-1.0,1E5,00,0", TIMESTAMP),
        (",1E5,00,0", TIMESTAMP),
        ("1.0.0,1E5,00,0", TIMESTAMP),
        ("1_0.0,1E5,00,0", TIMESTAMP),
        ("1e999,1E5,00,0", TIMESTAMP),
        ("1.0,1E5,00", COLUMNS),
        ("1.0,1E5,00,0,0", COLUMNS),
        ("timestamp,arbitration_id,data_field,attack", TIMESTAMP),
        ("1.0,1E5,00,0" + " " * 5000, "line too long"),
    ],
    "hcrl-csv": [
        ("1.0,0329,2,d7,R", DLC),
        ("1.0,0329,0,d7,R", DLC),
        ("1.0,0329,x,d7,R", DLC),
        ("1.0,0329,1,d,R", PAYLOAD),
        ("1.0,0329,1,dx,R", PAYLOAD),
        ("1.0,0329,1,d7,X", LABEL),
        ("1.0,0329,1,d7,", LABEL),
        ("1.0,3G29,1,d7,R", ID),
        ("x,0329,1,d7,R", TIMESTAMP),
        ("1.0,0329,R", COLUMNS),
        (f"1.0,0329,10{',d7' * 10},R", LENGTH),
    ],
    "hcrl-txt": [
        ("Timestamp: 1.0        ID: 0329    000    DLC: 8    d7 a7", DLC),
        ("Timestamp: 1.0        ID: 0329    000    DLC: 1    d7 a7", DLC),
        ("Timestamp: 1.0        ID: 0329    020    DLC: 1    d7", FLAGS),
        ("Timestamp: 1.0        ID: 0329    000    DLC: 1    g7", PAYLOAD),
        ("Timestamp: 1.0        ID: 0329x    000    DLC: 1    d7", ID),
        (f"Timestamp: 1.0        ID: 0329    000    DLC: 11    {'d7 ' * 10}d7", LENGTH),
        ("Timestamp: x        ID: 0329    000    DLC: 1    d7", TIMESTAMP),
        ("Timestamp: 1.0        ID: 0329    000    DLC:", COLUMNS),
        ("Timestamp: 1.0        XX: 0329    000    DLC: 1    d7", COLUMNS),
    ],
    "candump-log": [
        ("(1.0) can0 1E5#0", PAYLOAD),
        ("(1.0) can0 1E5#0G", PAYLOAD),
        (f"(1.0) can0 1E5##0{'00' * 65}", LENGTH),
        (f"(1.0) can0 1E5##0{'00' * 13}", LENGTH),
        ("(1.0) can0 1E5##", FLAGS),
        ("(1.0) can0 1E5##G00", FLAGS),
        ("(1.0) can0 1E5#R88", FLAGS),
        ("(1.0) can0 1E500", ID),
        ("(1.0) can0 #00", ID),
        ("(1.0) can0 20000004#0000000000000000", ID),
        ("(1.0) can0 XYZ#00", ID),
        ("1.0 can0 1E5#00", TIMESTAMP),
        ("(abc) can0 1E5#00", TIMESTAMP),
        ("(1.0) can0", COLUMNS),
        ("(1.0) can0 1E5#00 11", COLUMNS),
    ],
    "candump-console": [
        (" (1.0)  can0  1E5   [2]  00", DLC),
        (" (1.0)  can0  1E5   [1]", DLC),
        (" (1.0)  can0  1E5   2  00 00", DLC),
        (" (1.0)  can0  1E5   [1]  0G", PAYLOAD),
        (" (1.0)  can0  XYZ   [1]  00", ID),
        (f" (1.0)  can0  1E5   [9]  {'00 ' * 8}00", LENGTH),
        (" (1.0)  can0  1E5   [2]  00 00   '.'", DLC),
        (" (1.0)  can0  1E5   [2]  00 00   ..", DLC),
        (" (1.0)  can0  1E5", COLUMNS),
        (" 1.0)  can0  1E5   [1]  00", TIMESTAMP),
    ],
}
"""Lines of each format that are put aside, and why."""


def rows_of(text_format: TextFormat, max_size: int = 30) -> st.SearchStrategy[list[Row]]:
    """Frames that a format can carry, in time order."""

    def make(
        microseconds: int, arbitration_id: int, wide: bool, remote: bool, payload: bytes, attack: bool
    ) -> Row:
        remote = remote and text_format.remote
        extended = arbitration_id > 0x7FF or (wide and text_format.extended_below_0x800)
        label = int(attack) if text_format.labels else -1
        return Row(microseconds, arbitration_id, extended, remote, b"" if remote else payload, label)

    row = st.builds(
        make,
        st.integers(0, 9_999_999_999 * 1_000_000),
        st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF)),
        st.booleans(),
        st.booleans(),
        st.sampled_from(PAYLOAD_LENGTHS).flatmap(lambda length: st.binary(min_size=length, max_size=length)),
        st.booleans(),
    )
    return st.lists(row, min_size=1, max_size=max_size).map(
        lambda rows: sorted(rows, key=lambda r: r.microseconds)
    )


def text_of(text_format: TextFormat, rows: Iterable[Row]) -> str:
    header = [text_format.header] if text_format.header else []
    return "".join(f"{line}\n" for line in [*header, *map(text_format.line, rows)])


def open_any(path: Path, max_quarantined_fraction: float = 1.0, block_bytes: int = 1 << 20) -> CaptureReader:
    return open_capture(
        path, attack_rule=None, max_quarantined_fraction=max_quarantined_fraction, block_bytes=block_bytes
    )


def read_all(path: Path, block_bytes: int = 1 << 20) -> tuple[Frames, CaptureReader]:
    reader = open_any(path, block_bytes=block_bytes)
    return concat(list(reader)), reader


def assert_holds(frames: Frames, rows: list[Row]) -> None:
    width = frames.payload.shape[1]
    assert frames.timestamp.tolist() == [float(row.timestamp) for row in rows]
    assert frames.arbitration_id.tolist() == [row.arbitration_id for row in rows]
    assert frames.extended.tolist() == [row.extended for row in rows]
    assert frames.remote.tolist() == [row.remote for row in rows]
    assert frames.length.tolist() == [len(row.payload) for row in rows]
    assert frames.attack.tolist() == [row.attack for row in rows]
    assert frames.payload.tobytes() == b"".join(row.payload.ljust(width, b"\0") for row in rows)
    assert width == (64 if any(len(row.payload) > 8 for row in rows) else 8)
    assert frames.payload.flags.c_contiguous


def assert_same(left: Frames, right: Frames) -> None:
    for name, column in vars(left).items():
        np.testing.assert_array_equal(column, getattr(right, name), err_msg=name)
