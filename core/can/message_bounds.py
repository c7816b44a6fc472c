"""Bounds of what python-can decompresses: checked before it is let at a file, as it has none of its own."""

import mmap
import re
import sqlite3
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from core.can.blocks import is_zipped, open_regular
from core.can.bounds import CHUNK_BYTES, Bound
from core.errors import CaptureError

_BLF_HEADER = struct.Struct("<4sL8xQ")
_BLF_OBJECT = struct.Struct("<4sHHLL")
_BLF_SIZED = 12
"""Bytes from an object's beginning to the end of its size."""
_BLF_CONTAINER = struct.Struct("<H14x")
_BLF_SIZES = re.compile(rb"(?=LOBJ.{4}(.{4}))", re.DOTALL)
"""Of objects wherever they begin, also within what would be another one's header."""
_CONTAINER, _ZLIB = 10, 2
_MF4_COMPRESSED = struct.Struct("<4sI2Q2s2BI2Q")
_DEFLATE = (0, 1)
_UNPACKED = (".mf4z", ".zip")
"""Names by which asammdf takes a file for an archive, whatever it begins with."""


def require_bounded(path: Path, suffix: str, bound: Bound) -> None:
    """Refuse a file that would decompress to more than it may hold, or would be computed rather than read.

    Args:
        path: The capture.
        suffix: Its format, as python-can names it.
        bound: The most that it may hold.

    Raises:
        CaptureError: It is refused, or cannot be read.
    """
    match suffix:
        case ".blf":
            _check_blf(path, bound)
        case ".mf4":
            _check_mf4(path, bound)
        case ".db":
            _check_sqlite(path)
        case _:
            _check_lines(path, bound)


def _check_blf(path: Path, bound: Bound) -> None:
    """Decompress each container as far as it may go; python-can would stop at a cut without a word."""
    total, before = 0, b""
    with open_regular(path, bound.max_expansion) as file:
        _, header_bytes, file_bytes = _BLF_HEADER.unpack(file.read(_BLF_HEADER.size))
        deque(file.chunks(header_bytes - _BLF_HEADER.size), 0)
        while len(head := file.read(_BLF_OBJECT.size)) == _BLF_OBJECT.size:
            signature, _, _, num_bytes, kind = _BLF_OBJECT.unpack(head)
            if signature != b"LOBJ" or num_bytes < _BLF_OBJECT.size:
                return  # python-can says what is wrong with it
            body = file.read(num_bytes - _BLF_OBJECT.size)
            file.read(num_bytes % 4)
            if kind == _CONTAINER and len(body) > _BLF_CONTAINER.size:
                (method,) = _BLF_CONTAINER.unpack_from(body)
                content = body[_BLF_CONTAINER.size :]
                if method == _ZLIB:
                    content = _inflate(path, content, bound.num_bytes - total + 1)
                total += len(content)
                bound.require(total)
                before += content
                _require_end(path, before)
                before = before[1 - _BLF_SIZED :]  # an object may begin in one container and end in another
        if file.num_read < file_bytes:
            raise CaptureError(
                f"{path} is truncated: its header tells of {file_bytes} bytes; restore the file"
            )


def _inflate(path: Path, content: bytes, max_bytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, max_bytes)
    except zlib.error as error:
        raise CaptureError(f"{path}: a container in it is damaged ({error}); restore the file") from error


def _require_end(path: Path, content: bytes) -> None:
    """Refuse objects that are said to take no room: python-can would read the first one for ever."""
    sizes = (int.from_bytes(size, "little") for size in _BLF_SIZES.findall(content))
    if any(size < _BLF_OBJECT.size for size in sizes):
        raise CaptureError(f"{path} is damaged: an object in it takes no room; restore the file")


def _check_mf4(path: Path, bound: Bound) -> None:
    """Look at what each compressed block says that it was: so much memory would be taken for it."""
    if path.suffix.lower() in _UNPACKED:
        raise CaptureError(f"{path}: it would be unpacked without a bound; unpack it, and give the .mf4 file")
    total = 0
    with _whole(path, bound) as content:
        at = content.find(b"##DZ")
        while 0 <= at <= len(content) - _MF4_COMPRESSED.size:
            fields = _MF4_COMPRESSED.unpack_from(content, at)
            method, num_bytes = fields[5], fields[8]
            if method not in _DEFLATE:
                raise CaptureError(
                    f"{path}: a block is compressed by method {method}, whose result has no bound: save it "
                    "again with deflate, or without compression"
                )
            total += num_bytes
            bound.require(total)
            at = content.find(b"##DZ", at + _MF4_COMPRESSED.size)


@contextmanager
def _whole(path: Path, bound: Bound) -> Iterator[bytes | mmap.mmap]:
    """A file's content; python-can takes that of a compressed one into memory too."""
    if is_zipped(path):
        with open_regular(path, bound.max_expansion) as zipped:
            yield b"".join(zipped.chunks())
    else:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _check_sqlite(path: Path) -> None:
    """A view under the name of the table, or a column of it, would let the file compute without end."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        tables = database.execute(
            "SELECT type, sql FROM sqlite_master WHERE name = 'messages' COLLATE NOCASE"
        ).fetchall()
        columns = database.execute("SELECT hidden FROM pragma_table_xinfo('messages')").fetchall()
    plain = all(kind == "table" and "VIRTUAL" not in str(sql).upper() for kind, sql in tables)
    if not plain or any(hidden for (hidden,) in columns):
        raise CaptureError(f"{path}: messages is no plain table, but something that is computed")


def _check_lines(path: Path, bound: Bound) -> None:
    """python-can holds each line in memory, however long it is."""
    with open_regular(path, bound.max_expansion) as file:
        for chunk in file.chunks():
            if len(chunk) == CHUNK_BYTES and b"\n" not in chunk and b"\r" not in chunk:
                raise CaptureError(
                    f"{path} holds a line of more than {CHUNK_BYTES} bytes: it is no log of a bus"
                )
