"""Every text format is read back as it was written, whatever stands between its lines."""

import gc
import gzip
import tempfile
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.can.message_logs import MAGIC
from core.errors import CaptureError
from tests.capture_text import (
    BAD_LINES,
    FORMATS,
    Row,
    assert_holds,
    assert_same,
    open_any,
    read_all,
    rows_of,
    text_of,
)

NO_FRAME = st.one_of(
    st.sampled_from(
        [b"garbage", b",,,", b"\x00\x00\x00\x00", b"x" * 5000, b"1,2,3,4,5,6,7,8,9,10,11,12,13,14"]
    ),
    st.binary(min_size=1, max_size=40).filter(
        lambda line: (
            b"\n" not in line
            and line.strip(b"\t\r\v\f ")
            and not line.startswith((b"\x1f\x8b", b"\xef\xbb\xbf", *MAGIC))
        )
    ),
)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data(), block_bytes=st.integers(16, 600), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60, deadline=None)
def test_frames_written_are_frames_read(name: str, data: st.DataObject, block_bytes: int, end: str) -> None:
    rows = data.draw(rows_of(FORMATS[name]))
    text = text_of(FORMATS[name], rows).replace("\n", end).encode()
    if data.draw(st.booleans(), "without final newline"):
        text = text.removesuffix(end.encode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "capture" + FORMATS[name].suffix)
        path.write_bytes(text)
        frames, reader = read_all(path, block_bytes)
        zipped = Path(folder, path.name + ".gz")
        zipped.write_bytes(gzip.compress(text))
        assert_same(read_all(zipped)[0], frames)
    assert_holds(frames, rows)
    assert (reader.num_frames, reader.quarantine.num_rows) == (len(rows), 0)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data(), block_bytes=st.integers(16, 600))
@settings(max_examples=60, deadline=None)
def test_garbage_lines_are_put_aside_by_number_and_change_nothing_else(
    name: str, data: st.DataObject, block_bytes: int
) -> None:
    rows = data.draw(rows_of(FORMATS[name], max_size=15))
    lines = text_of(FORMATS[name], rows).encode().split(b"\n")[:-1]
    bad = st.sampled_from([line.encode() for line, _ in BAD_LINES[name] if line != FORMATS[name].header])
    garbage = data.draw(st.lists(st.one_of(NO_FRAME, bad), min_size=1, max_size=10))
    bad_lines = sorted(
        data.draw(
            st.lists(
                st.integers(1, len(lines) + len(garbage)),
                min_size=len(garbage),
                max_size=len(garbage),
                unique=True,
            )
        )
    )
    for line, text in zip(bad_lines, garbage, strict=True):
        lines.insert(line - 1, text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "capture" + FORMATS[name].suffix)
        path.write_bytes(b"\n".join(lines) + b"\n")
        frames, reader = read_all(path, block_bytes)
        whole = read_all(path)[1]
    assert_holds(frames, rows)
    assert [example["line"] for example in reader.quarantine.examples] == bad_lines
    assert reader.quarantine == whole.quarantine
    assert sum(reader.quarantine.reasons.values()) == reader.quarantine.num_rows == len(bad_lines)


@given(
    numbers=st.lists(
        st.one_of(
            st.floats(0, 1e15).map(repr),
            st.decimals(0, 10**11, allow_nan=False, allow_infinity=False).map(str),
            st.integers(0, 10**12).map(lambda n: f"{n / 1000:.3f}"),
            st.integers(0, 10**9).map(str),
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=200, deadline=None)
def test_timestamps_are_the_nearest_doubles(numbers: list[str]) -> None:
    numbers = sorted((n for n in numbers if len(n) <= 64), key=float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "capture.csv")
        path.write_text(
            "timestamp,arbitration_id,data_field\n" + "".join(f"{n},1,\n" for n in [*numbers, "1e300"])
        )
        frames, reader = read_all(path)
    assert frames.timestamp.tolist() == [*map(float, numbers), 1e300]
    assert not reader.quarantine.num_rows


@given(milliseconds=st.lists(st.integers(0, 50), min_size=1, max_size=40), block_bytes=st.integers(16, 200))
@settings(max_examples=100, deadline=None)
def test_a_row_that_runs_ahead_alone_and_rows_that_go_back_are_put_aside(
    milliseconds: list[int], block_bytes: int
) -> None:
    rows = [Row(1000 * ms, 0x123, extended=False, remote=False, payload=b"", attack=0) for ms in milliseconds]
    ahead = [
        now > after >= before
        for before, now, after in zip([0, *milliseconds], milliseconds, milliseconds[1:], strict=False)
    ]
    ahead.append(False)
    newest = list(accumulate((0 if out else ms for ms, out in zip(milliseconds, ahead, strict=True)), max))
    back = [ms < most for ms, most in zip(milliseconds, newest, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "capture.csv")
        path.write_text(text_of(FORMATS["can-train-and-test"], rows))
        frames, reader = read_all(path, block_bytes)
    assert_holds(frames, [row for row, *bad in zip(rows, ahead, back, strict=True) if not any(bad)])
    reasons = {
        "timestamp runs ahead of the next one": sum(ahead),
        "timestamp goes back": sum(b and not a for a, b in zip(ahead, back, strict=True)),
    }
    assert reader.quarantine.reasons == {reason: count for reason, count in reasons.items() if count}


# python-can and asammdf leave a file that they cannot read to the garbage collector, which complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(content=st.binary(max_size=3000))
@settings(max_examples=40, deadline=None)
def test_random_bytes_raise_only_capture_errors(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "capture.csv")
        for start in (
            b"",
            b"timestamp,arbitration_id,data_field,attack\n",
            b"\x1f\x8b",
            b"PAR1",
            b"LOGG",
            b"MDF     ",
        ):
            path.write_bytes(start + content)
            with pytest.raises(CaptureError, match=r"capture\.csv"):
                list(open_any(path))
    gc.collect()
