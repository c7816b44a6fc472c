"""Captures: real ones, every kind of bad row, every kind of bad file."""

import gc
import gzip
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from core.can.frames import concat
from core.can.labels import AttackRule
from core.can.readers import open_capture
from core.errors import CaptureError
from tests.capture_text import BAD_LINES, FORMATS, Row, assert_holds, assert_same, open_any, read_all, text_of

ROWS = [
    Row(1_000_000, 0x1E5, extended=False, remote=False, payload=bytes.fromhex("460196E001FE6701"), attack=-1),
    Row(1_000_250, 0x010, extended=False, remote=False, payload=b"\x12", attack=-1),
    Row(1_000_250, 0x7FF, extended=False, remote=False, payload=b"", attack=-1),
]
HEADER = "timestamp,arbitration_id,data_field,attack\n"


@pytest.mark.parametrize(
    ("name", "num_frames", "num_attacks"),
    [
        ("hcrl_ch/DoS_dataset-9999.csv", 9_999, 3_724),
        ("hcrl_ch/Fuzzy_dataset-9999.csv", 9_999, 1_115),
        ("hcrl_ch/RPM_dataset-9999.csv", 9_999, 2_392),
        ("hcrl_ch/gear_dataset-9999.csv", 9_999, 2_124),
        ("hcrl_ch/normal_run_data-9999.csv", 9_999, 0),
        ("set_01/train_02_with_attacks/DoS-1.csv", 90_169, 9_139),
        ("injection_2018/normal.log", 23_963, 0),
        ("injection_2018/speed.log", 88_492, 8_994),
        ("injection_2018/rpm.log", 30_308, 2_640),
    ],
)
def test_real_captures_are_read_whole_and_labelled(
    shared_data: Path, name: str, num_frames: int, num_attacks: int
) -> None:
    rule = AttackRule.of(("254#918FFE0603A60FFF", "115#4E0002000000FFFF")) if name.endswith(".log") else None
    reader = open_capture(shared_data / name, attack_rule=rule, max_quarantined_fraction=0.0)
    frames = concat(list(reader))
    assert (len(frames), int((frames.attack == 1).sum())) == (num_frames, num_attacks)
    assert reader.quarantine.num_rows == 0
    assert (np.diff(frames.timestamp) >= 0).all()


def test_hex_columns_of_digits_only_are_text(tmp_path: Path) -> None:
    path = tmp_path / "digits.csv"
    path.write_text(HEADER + "1.0,0100,0000000000000012,0\n2.0,123,1234,1\n")
    frames, _ = read_all(path)
    assert frames.arbitration_id.tolist() == [0x100, 0x123]
    assert frames.payload[:, :8].tolist() == [[0] * 7 + [0x12], [0x12, 0x34] + [0] * 6]
    assert frames.length.tolist() == [8, 2]


def test_csv_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "columns.csv"
    path.write_text("note,Attack, data_field,arbitration_id,TIMESTAMP\nx,1,AABB,1ABCDEFF,3.5\n")
    frames, _ = read_all(path)
    assert_holds(
        frames, [Row(3_500_000, 0x1ABCDEFF, extended=True, remote=False, payload=b"\xaa\xbb", attack=1)]
    )


@pytest.mark.parametrize("block_bytes", [40, 1 << 20])
def test_blanks_around_csv_tokens_are_no_part_of_them(tmp_path: Path, block_bytes: int) -> None:
    path = tmp_path / "capture.csv"
    for header, lines, attacks in (
        (HEADER, " 1.0 , 1E5,0011 ,\t1\r\n1.0,1E5,0011,1 \n1.0,1E5, \t,0", [1, 1, 0]),
        ("", "1.0, 01E5 , 2,00, 11 , T\n1.0,01E5,2, 00,11 ,T \r\n 1.0,01E5,0,R", [1, 1, 0]),
    ):
        path.write_text(header + lines, newline="")
        frames, reader = read_all(path, block_bytes)
        assert frames.arbitration_id.tolist() == [0x1E5] * 3
        assert frames.payload[:, :2].tolist() == [[0, 0x11], [0, 0x11], [0, 0]]
        assert frames.length.tolist() == [2, 2, 0]
        assert frames.attack.tolist() == attacks
        assert not reader.quarantine.num_rows


@pytest.mark.parametrize("block_bytes", [16, 60, 1 << 20])
@pytest.mark.parametrize(
    ("seconds", "ahead", "back"),
    [
        ([1, 2, 900, 3, 4, 5], [900], []),
        ([900, 1, 2, 3], [900], []),
        ([1, 900, 1, 800, 2, 3], [900, 800], []),
        ([1, 2, 3, 900], [], []),
        ([4, 5, 3, 6, 7], [], [3]),
        ([1, 900, 901, 2, 3], [], [2, 3]),
    ],
)
def test_one_timestamp_too_late_costs_one_row(
    tmp_path: Path, block_bytes: int, seconds: list[int], ahead: list[int], back: list[int]
) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "".join(f"{second}.0,1,00,0\n" for second in seconds))
    frames, reader = read_all(path, block_bytes)
    assert frames.timestamp.tolist() == [second for second in seconds if second not in ahead + back]
    assert [(e["reason"], float(e["text"].split(",")[0])) for e in reader.quarantine.examples] == [
        *(("timestamp runs ahead of the next one", second) for second in ahead),
        *(("timestamp goes back", second) for second in back),
    ]


@pytest.mark.parametrize(
    "text", [HEADER + "1.0,1,00,0\n2.0,1,00,0\n", "(1.0) can0 123#00\n(2.0) can0 123#00\n"]
)
def test_lines_that_end_with_a_carriage_return_alone_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "capture.log"
    path.write_text(text.replace("\n", "\r"), newline="")
    with pytest.raises(CaptureError, match=r"capture\.log: its lines end with a carriage return alone"):
        open_any(path)


@pytest.mark.parametrize(
    ("line", "payload", "extended", "remote"),
    [
        ("(1.0) can0 123#R", "", False, True),
        ("(1.0) can0 123#R8", "", False, True),
        ("(1.0) vcan12 00000123#1122 R", "1122", True, False),
        ("(1.0) can0 123#", "", False, False),
        ("(1.0) can0 123##0", "", False, False),
        ("(1.0) can0 123##3" + "ab" * 64, "ab" * 64, False, False),
        (" (1.0)  can0       123   [8]  remote request", "", False, True),
        ("\t(1.0)\tcan0  00000123  [02]  11 22", "1122", True, False),
        (" (1.0)  can0  123   [3]  41 00 42                  'A.B'", "410042", False, False),
        (" (1.0)  can0  123   [5]  20 41 20 27 20   ' A ' '", "2041202720", False, False),
        (" (1.0)  can0  123   [2]  27 27   ''''\r", "2727", False, False),
        (" (1.0)  can0  123   [0]   ''", "", False, False),
        ("Timestamp:  1.0   ID: 0123  100  DLC: 2", "", False, True),
        ("Timestamp: 1.0 ID: 0123 000 DLC: 0", "", False, False),
    ],
)
def test_spellings_of_the_log_formats(
    tmp_path: Path, line: str, payload: str, extended: bool, remote: bool
) -> None:
    path = tmp_path / "capture.log"
    path.write_text(line)
    row = Row(1_000_000, 0x123, extended, remote, bytes.fromhex(payload), -1)
    assert_holds(read_all(path)[0], [row])


@pytest.mark.parametrize(
    ("name", "line", "reason"), [(name, *bad) for name, lines in BAD_LINES.items() for bad in lines]
)
def test_a_bad_row_is_put_aside_with_line_and_reason(
    tmp_path: Path, name: str, line: str, reason: str
) -> None:
    text_format = FORMATS[name]
    path = tmp_path / f"capture{text_format.suffix}"
    rows = [Row(**{**vars(row), "attack": 1 if text_format.labels else -1}) for row in ROWS]
    before, after = text_of(text_format, rows[:2]), text_of(text_format, rows[2:])
    after = after.removeprefix(text_format.header + "\n") if text_format.header else after
    path.write_text(f"{before}{line}\n\n{after}", encoding="utf-8")
    frames, reader = read_all(path)
    assert_holds(frames, rows)
    assert reader.quarantine.num_rows == 1
    assert reader.quarantine.reasons == {reason: 1}
    assert reader.quarantine.examples == [
        {"line": before.count("\n") + 1, "reason": reason, "text": line[:80]}
    ]


def test_byte_order_mark_mixed_line_ends_and_a_missing_last_newline_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + HEADER.encode() + b"1.0,1,00,0\r\n2.0,2,,1\n3.0,3,0011,0\r\n\r\n4.0,4,00,0"
    )
    frames, reader = read_all(path)
    assert frames.arbitration_id.tolist() == [1, 2, 3, 4]
    assert reader.quarantine.num_rows == 0


def test_a_cut_last_line_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "1.0,1,00,0\n2.0,2,0")
    frames, reader = read_all(path)
    assert len(frames) == 1
    assert [e["line"] for e in reader.quarantine.examples] == [3]


def test_a_capture_with_too_many_bad_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "1.0,1,00,0\n" * 9 + "bad\n")
    assert sum(map(len, open_any(path, max_quarantined_fraction=0.1))) == 9
    with pytest.raises(
        CaptureError, match=r"capture\.csv: 1 of 10 rows .*max_quarantined_fraction=0.09.*line 11"
    ):
        list(open_any(path, max_quarantined_fraction=0.09))


def test_only_the_first_examples_are_kept_and_every_row_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "1.0,1,00,0\n" + "bad\n" * 1000)
    reader = read_all(path, block_bytes=100)[1]
    assert reader.quarantine.num_rows == 1000
    assert [e["line"] for e in reader.quarantine.examples] == list(range(3, 23))


def test_iterating_again_reads_again(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    path.write_text(HEADER + "2.0,1,00,0\n1.0,1,00,0\n")
    reader = open_any(path)
    first, second = concat(list(reader)), concat(list(reader))
    assert_same(first, second)
    assert (reader.num_frames, reader.quarantine.num_rows) == (1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (HEADER.encode(), "holds no frames"),
        (HEADER.encode() + b"\n\n\n", "holds no frames"),
        (b"time,id,data\n1,2,3\n", "format not known"),
        (b"\x00\xff" * 5000, "format not known"),
        ((HEADER + "1.0,1,00,0\n").encode("utf-16"), "format not known"),
        (gzip.compress(HEADER.encode() * 1000)[:-20], "gzip"),
        (b"\x1f\x8bnot gzip", "gzip"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"PAR1 and no more", "parquet"),
        (b"LOGG and no more", r"\.blf"),
        (b"MDF     4.10", r"\.mf4"),
        (b"SQLite format 3\0", r"\.db"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_without_frames_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "capture.csv"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=rf"(?s)capture\.csv.*({message})"):
        list(open_any(path))
    gc.collect()  # python-can and asammdf leave a file that they cannot read to it, and it complains


def test_a_gzip_cut_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv.gz"
    rows = "".join(f"{i}.0,{i % 2048:03X},{i:016X},0\n" for i in range(100_000))
    whole = gzip.compress((HEADER + rows).encode())
    path.write_bytes(whole)
    assert sum(map(len, open_any(path))) == 100_000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaptureError, match=r"capture\.csv\.gz: damaged or truncated gzip"):
        list(open_any(path))


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    loop, fifo = tmp_path / "loop.csv", tmp_path / "fifo.csv"
    loop.symlink_to(loop)
    os.mkfifo(fifo)
    for path in (tmp_path, loop, fifo, tmp_path / "none.csv", Path("/proc/self/mem"), tmp_path / "nul\0.csv"):
        with pytest.raises(CaptureError):
            open_any(path)


def test_a_line_of_100_mb_takes_no_more_memory_than_a_few_blocks(tmp_path: Path) -> None:
    path = tmp_path / "capture.csv"
    with path.open("wb") as file:
        file.write(HEADER.encode() + b"1.0,1,00,0\n")
        for _ in range(100):
            file.write(b"A" * 1_000_000)
    tracemalloc.start()
    frames, reader = read_all(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(frames) == 1
    assert reader.quarantine.reasons == {"line too long": 1}
    assert peak < 50e6


def test_the_label_rule_labels_only_unlabelled_frames_that_are_equal(tmp_path: Path) -> None:
    rule = AttackRule.of(("123#1122", "00000124#1122", "125#", "126#" + "AB" * 12))
    log, csv = tmp_path / "capture.log", tmp_path / "capture.csv"
    log.write_text(
        "(1.0) can0 123#1122\n(1.0) can0 00000123#1122\n(1.0) can0 123#112200\n(1.0) can0 124#1122\n"
        "(1.0) can0 00000124#1122\n(1.0) can0 125#\n(1.0) can0 125#R\n"
    )
    csv.write_text(HEADER + "1.0,123,1122,0\n1.0,124,1122,1\n")
    for path, labels in ((log, [1, 0, 0, 0, 1, 1, 0]), (csv, [0, 1])):
        (frames,) = open_capture(path, attack_rule=rule, max_quarantined_fraction=0.0)
        assert frames.attack.tolist() == labels
    log.write_text("(1.0) can0 126##1" + "AB" * 12)
    (frames,) = open_capture(log, attack_rule=rule, max_quarantined_fraction=0.0)
    assert frames.attack.tolist() == [1]


def test_a_label_rule_that_is_no_frame_is_refused() -> None:
    assert AttackRule.of(()) is None
    for rule in ("254", "254#1", "XYZ#11", "#"):
        with pytest.raises(CaptureError, match="attack_frames"):
            AttackRule.of((rule,))
