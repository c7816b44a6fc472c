"""Captures and settings files that were made to fill the memory, or to never end."""

import contextlib
import gzip
import io
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import can
import polars as pl
import pytest

from core.can.bounds import FREE_BYTES
from core.can.readers import open_capture
from core.errors import CaptureError
from settings.app import load_settings
from settings.errors import SettingsError
from settings.sources import MOST_LETTERS

HEADER = b"timestamp,arbitration_id,data_field,attack\n"
EXPANDED = FREE_BYTES + 8 * 2**20


def read(path: Path, max_expansion: float = 100.0) -> int:
    reader = open_capture(path, attack_rule=None, max_quarantined_fraction=1.0, max_expansion=max_expansion)
    return sum(len(frames) for frames in reader)


def gzip_of_blank_lines(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEADER + b"0.1,1A0,00,0\n")
        for _ in range(EXPANDED // 2**20):
            file.write(b"\n" * 2**20)


def gzip_of_one_line(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEADER)
        for _ in range(EXPANDED // 2**20):
            file.write(b"0" * 2**20)


def gzip_for_python_can(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"date Mon Nov 23 10:00:00.000 2026\nbase hex timestamps absolute\n")
        for _ in range(EXPANDED // 2**20):
            file.write((b" " * 1023 + b"\n") * 2**10)


def blf_container(path: Path) -> None:
    with can.BLFWriter(path) as writer:
        writer.on_message_received(can.Message(timestamp=1.0, arbitration_id=1, data=b"\1"))
    bomb = zlib.compress(bytes(EXPANDED), 9)
    body = struct.pack("<H6xL4x", 2, EXPANDED) + bomb
    content = path.read_bytes() + struct.pack("<4sHHLL", b"LOBJ", 16, 1, 16 + len(body), 10) + body
    path.write_bytes(content + bytes(len(content) % 4))


def mf4_block(path: Path) -> None:
    with can.MF4Writer(path) as writer:
        writer.on_message_received(can.Message(timestamp=1.0, arbitration_id=1, data=b"\1"))
    block = struct.pack("<4sI2Q2s2BI2Q", b"##DZ", 0, 48 + 9, 0, b"DT", 0, 0, 0, 2**40, 9) + b"x" * 9
    path.write_bytes(path.read_bytes() + block)


def gzip_of_mf4(path: Path) -> None:
    mf4_block(path.with_suffix(""))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(path.with_suffix("").read_bytes())
    path.with_suffix("").unlink()


def gzip_of_one_object(path: Path) -> None:
    """The object says that it takes 4 GiB."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack("<4sL8xQ", b"LOGG", 24, 0))
        file.write(struct.pack("<4sHHLL", b"LOBJ", 16, 1, 2**32 - 1, 99))
        for _ in range(EXPANDED // 2**20):
            file.write(bytes(2**20))


def gzip_of_another_format(path: Path) -> None:
    """It begins as a BLF file does, and its name is that of text."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack("<4sL8xQ", b"LOGG", 2**32 - 1, 0))
        for _ in range(EXPANDED // 2**20):
            file.write(b" " * 2**20)


def database_of_one_page(path: Path) -> None:
    """A tree whose branches, thousands to a page, all lead to the same leaf."""
    size = 65536
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA page_size = {size}")
        database.execute("CREATE TABLE messages (ts REAL, id INTEGER, x, r, e, dlc, data)")
        database.execute("INSERT INTO messages VALUES (1.0, 1, 0, 0, 0, 8, zeroblob(60000))")
    database.close()
    content = bytearray(path.read_bytes())
    leaf = content[size : 2 * size]
    count = 5000
    cells = [size - 5 * (i + 1) for i in range(count)]
    head = struct.pack(">BHHHBI", 5, 0, count, cells[-1], 0, 3) + struct.pack(f">{count}H", *cells)
    branch = head + bytes(cells[-1] - len(head)) + struct.pack(">IB", 3, 1) * count
    content[28:32] = struct.pack(">I", 3)
    path.write_bytes(content[:size] + branch + leaf)


def parquet_of_one_value(path: Path) -> None:
    num_rows = EXPANDED // 16
    pl.select(
        timestamp=pl.repeat(1.0, num_rows),
        arbitration_id=pl.repeat(1, num_rows),
        data_field=pl.repeat("", num_rows),
    ).write_parquet(path)


def parquet_of_one_text(path: Path) -> None:
    """Every row has the same long text, which is written once."""
    num_rows, text = 10_000, "00" * 4096
    pl.select(
        timestamp=pl.repeat(1.0, num_rows),
        arbitration_id=pl.repeat(1, num_rows),
        data_field=pl.repeat(text, num_rows),
    ).write_parquet(path)


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "gzip of blank lines": ("a.csv.gz", gzip_of_blank_lines),
    "gzip of one line without end": ("a.csv.gz", gzip_of_one_line),
    "gzip of a format of python-can": ("a.asc.gz", gzip_for_python_can),
    "container of a BLF file": ("a.blf", blf_container),
    "block of an MF4 file": ("a.mf4", mf4_block),
    "gzip of a block of an MF4 file": ("a.mf4.gz", gzip_of_mf4),
    "gzip of one object of a BLF file": ("a.blf.gz", gzip_of_one_object),
    "gzip whose name is another format's": ("a.asc.gz", gzip_of_another_format),
    "database of one page, read thousands of times": ("a.db", database_of_one_page),
    "parquet of one value, millions of times": ("a.parquet", parquet_of_one_value),
    "parquet of one long text, thousands of times": ("a.parquet", parquet_of_one_text),
}


@pytest.mark.parametrize(("name", "make"), BOMBS.values(), ids=BOMBS)
def test_a_capture_that_decompresses_without_measure_is_refused(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / name
    make(path)
    assert path.stat().st_size < EXPANDED / 100
    with pytest.raises(CaptureError, match=r"decompresses to more than .* \(setting data.max_expansion\)"):
        read(path)


def test_whoever_knows_a_file_may_raise_the_bound(tmp_path: Path) -> None:
    gzip_of_blank_lines(tmp_path / "a.csv.gz")
    assert read(tmp_path / "a.csv.gz", max_expansion=2000.0) == 1


def test_an_mf4_block_of_a_method_without_bound_is_refused(tmp_path: Path) -> None:
    mf4_block(tmp_path / "a.mf4")
    content = bytearray((tmp_path / "a.mf4").read_bytes())
    content[content.rfind(b"##DZ") + 26] = 4
    (tmp_path / "a.mf4").write_bytes(content)
    with pytest.raises(CaptureError, match="save it again with deflate"):
        read(tmp_path / "a.mf4")


def test_an_archive_that_begins_like_an_mf4_file_is_not_unpacked(tmp_path: Path) -> None:
    mf4_block(tmp_path / "a.mf4")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(tmp_path / "a.mf4", "a.mf4")
    (tmp_path / "a.zip").write_bytes(b"MDF     4.10    " + archive.getvalue())
    with pytest.raises(CaptureError, match=r"unpack it, and give the \.mf4 file"):
        read(tmp_path / "a.zip")


ENDLESS = struct.pack("<4sHHLL", b"LOBJ", 16, 1, 0, 99) + bytes(64)


def blf_object(kind: int, body: bytes) -> bytes:
    return struct.pack("<4sHHLL", b"LOBJ", 16, 1, 16 + len(body), kind) + body + bytes(len(body) % 4)


@pytest.mark.parametrize(
    "containers",
    [
        [(0, ENDLESS)],
        [(2, ENDLESS)],
        [(0, ENDLESS[:4]), (2, ENDLESS[4:9]), (0, ENDLESS[9:])],
        [(2, b"LOBJ" + ENDLESS)],
        [(2, blf_object(99, b"LOBJ") + ENDLESS)],
    ],
    ids=["plain", "compressed", "in pieces", "behind a mark", "behind another object"],
)
def test_a_blf_object_that_takes_no_room_is_not_read_for_ever(
    containers: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "a.blf"
    with can.BLFWriter(path) as writer:
        writer.on_message_received(can.Message(timestamp=1.0, arbitration_id=1, data=b"\1"))
    with path.open("ab") as file:
        for method, content in containers:
            packed = zlib.compress(content) if method else content
            file.write(blf_object(10, struct.pack("<H6xL4x", method, len(content)) + packed))
    with pytest.raises(CaptureError, match="takes no room"):
        read(path)


def test_a_message_without_a_time_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE messages (ts, id, x, r, e, dlc, data)")
        rows = [(1.0, 1, 0, 0, 0, 1, b"x"), (None, 1, 0, 0, 0, 1, b"x"), (2.0, 1, 0, 0, 0, 1, b"x")]
        database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    database.close()
    assert read(path) == 2


ROWS_WITHOUT_END = (
    "AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 1, 0, 0, 0, 1, x'00' FROM n"
)


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE VIEW messages {ROWS_WITHOUT_END}",
        f"CREATE VIEW MESSAGES {ROWS_WITHOUT_END}",
        "CREATE TABLE messages (ts, id, x, r, e, dlc, data AS (zeroblob(900000000)))",
        "CREATE VIRTUAL TABLE messages USING fts5(ts, id, x, r, e, dlc, data)",
    ],
    ids=["view", "view in capitals", "computed column", "virtual table"],
)
def test_a_database_that_computes_its_messages_is_refused(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    with pytest.raises(CaptureError, match="no plain table"):
        read(path)


def test_a_line_without_end_of_a_format_of_python_can_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    path.write_bytes(b"date Mon Nov 23 10:00:00.000 2026\nbase hex timestamps absolute\n" + b" " * 4_000_000)
    with pytest.raises(CaptureError, match="holds a line of more than"):
        read(path)


def test_no_damaged_byte_of_a_parquet_file_takes_the_process_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"timestamp": [1.0] * 3, "arbitration_id": [1] * 3, "data_field": [""] * 3}).write_parquet(
        path, compression="uncompressed", statistics=False
    )
    sound = path.read_bytes()
    num_refused = 0
    for at in range(4, 400):
        content = bytearray(sound)
        content[at] ^= 0x7F
        path.write_bytes(content)
        with contextlib.suppress(CaptureError):
            read(path)
            num_refused -= 1
        num_refused += 1
    assert num_refused > 100


def test_a_line_without_end_is_put_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"0.1,1A0,00,0\n" + b"9" * 30_000_000 + b"\n0.2,1A0,00,0\n")
    assert read(path) == 2


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "with all its aliases, it gives more than"),
        ("a: " + "[" * 5000, "nested too deeply|cannot read"),
        ("#" * (MOST_LETTERS + 1), "at most"),
        ("!!python/object/apply:os.system ['touch it-ran']", "cannot read the settings file"),
        ("a: !!python/name:os.system", "cannot read the settings file"),
    ],
    ids=["billion laughs", "deep", "huge", "object", "name"],
)
def test_a_settings_file_that_was_made_to_do_harm_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load_settings(path)
    assert [file.name for file in tmp_path.iterdir()] == ["settings.yaml"]
