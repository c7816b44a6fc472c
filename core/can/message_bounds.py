"""Bounds of what python-can decompresses: checked before it is let at a file, as it has none of its own."""

import mmap
import re
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from core.can.blocks import open_regular
from core.can.bounds import Bound
from core.errors import CaptureError

_BLF_HEADER = struct.Struct("<4sL")
_BLF_OBJECT = struct.Struct("<4sHHLL")
_BLF_CONTAINER = struct.Struct("<H14x")
_BLF_SIZES = re.compile(rb"LOBJ.{4}(.{4})", re.DOTALL)
_CONTAINER, _ZLIB = 10, 2
_MF4_COMPRESSED = struct.Struct("<4sI2Q2s2BI2Q")
_DEFLATE = (0, 1)


def require_bounded(path: Path, suffix: str, max_expansion: float) -> None:
    """Refuse a file that would decompress to more than it may hold, or would be computed rather than read.

    Args:
        path: The capture.
        suffix: Its format, as python-can names it.
        max_expansion: The most that it may hold, times its own size.

    Raises:
        CaptureError: It is refused, or cannot be read.
    """
    bound = Bound(path, max_expansion)
    match suffix:
        case ".blf":
            _check_blf(path, bound)
        case ".mf4":
            _check_mf4(path, bound)
        case ".db":
            _check_sqlite(path)
        case _:
            with open_regular(path, max_expansion) as file:
                file.read_through()


def _check_blf(path: Path, bound: Bound) -> None:
    """Decompress each container as far as it may go."""
    total = 0
    with open_regular(path, bound.max_expansion) as file:
        _, header_bytes = _BLF_HEADER.unpack(file.read(_BLF_HEADER.size))
        file.skip(header_bytes - _BLF_HEADER.size)
        while len(head := file.read(_BLF_OBJECT.size)) == _BLF_OBJECT.size:
            signature, _, _, num_bytes, kind = _BLF_OBJECT.unpack(head)
            if signature != b"LOBJ" or num_bytes < _BLF_OBJECT.size:
                return  # python-can says what is wrong with it
            body = file.read(num_bytes - _BLF_OBJECT.size)
            file.skip(num_bytes % 4)
            if kind == _CONTAINER and len(body) > _BLF_CONTAINER.size:
                (method,) = _BLF_CONTAINER.unpack_from(body)
                content = body[_BLF_CONTAINER.size :]
                if method == _ZLIB:
                    content = zlib.decompressobj().decompress(content, bound.num_bytes - total + 1)
                total += len(content)
                bound.require(total)
                _require_end(path, content)


def _require_end(path: Path, content: bytes) -> None:
    """Refuse objects that are said to take no room: python-can would read the first one for ever."""
    sizes = (int.from_bytes(size, "little") for size in _BLF_SIZES.findall(content))
    if any(size < _BLF_OBJECT.size for size in sizes):
        raise CaptureError(f"{path} is damaged: an object in it takes no room; restore the file")


def _check_mf4(path: Path, bound: Bound) -> None:
    """Look at what each compressed block says that it was: so much memory would be taken for it."""
    total = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
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


def _check_sqlite(path: Path) -> None:
    """A view under the name of the table would let the file compute rows without end."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'messages'").fetchone()
    if found is not None and (found[0] != "table" or "VIRTUAL" in str(found[1]).upper()):
        raise CaptureError(f"{path}: messages is no plain table, but something that is computed")
