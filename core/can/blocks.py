"""Text files in blocks of whole lines, plain or gzip-compressed, in bounded memory."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from core.can.bounds import Bound, BoundedFile
from core.can.scan import PAD
from core.errors import CaptureError
from settings.data import MAX_EXPANSION

MAX_LINE_BYTES = 4096
"""No frame needs a longer line; the rest of a longer one is dropped unread."""
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Whole lines of a file.

    Attributes:
        padded: The lines, each ended by a newline, between ``PAD`` zero bytes on both sides.
        first_line: Number of the first line in the file, from 1.
    """

    padded: bytes
    first_line: int


@contextmanager
def open_regular(path: Path, max_expansion: float = MAX_EXPANSION) -> Iterator[BoundedFile]:
    """Open a capture for reading, decompressed if it is gzip; every failure to read becomes CaptureError.

    Args:
        path: The capture.
        max_expansion: The most that it may decompress to, times its own size.

    Raises:
        CaptureError: Not a regular file, not readable, damaged gzip, or more than that.
    """
    try:
        if not path.is_file():
            path.stat()
            raise CaptureError(f"{path} is not a file; a capture must be a regular file")
        with path.open("rb") as raw:
            zipped = _is_zipped(raw)
            with cast("BinaryIO", gzip.open(raw)) if zipped else raw as file:
                yield BoundedFile(file, Bound(path, max_expansion))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaptureError(f"{path}: damaged or truncated gzip ({error}); restore the file") from error
    except (OSError, ValueError) as error:
        raise CaptureError(f"cannot read the capture {path}: {error}") from error


def is_zipped(path: Path) -> bool:
    """Whether a capture is compressed by gzip, whatever its name.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _is_zipped(file)


def _is_zipped(file: BinaryIO) -> bool:
    zipped = file.read(2) == GZIP_MAGIC
    file.seek(0)
    return zipped


def read_blocks(path: Path, block_bytes: int, max_expansion: float = MAX_EXPANSION) -> Iterator[Block]:
    """Cut a text file at line ends into blocks of about ``block_bytes``.

    A line longer than ``MAX_LINE_BYTES`` comes shortened but still longer than that, so that it is put aside.

    Raises:
        CaptureError: The file cannot be read.
    """
    pad = bytes(PAD)
    line = 1
    with open_regular(path, max_expansion) as file:
        carry = b""
        chunk = file.read(block_bytes).removeprefix(BOM)
        while chunk:
            cut = chunk.rfind(b"\n") + 1
            if cut:
                padded = b"".join((pad, carry, memoryview(chunk)[:cut], pad))
                yield Block(padded, line)
                line += padded.count(b"\n")
                carry = b""
            carry = (carry + chunk[cut:])[: MAX_LINE_BYTES + 1]
            chunk = file.read(block_bytes)
        if carry:
            yield Block(b"".join((pad, carry, b"\n", pad)), line)
