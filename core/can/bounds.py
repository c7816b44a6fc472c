"""How much a compressed capture may hold: a small file must not fill memory or disk.

A recording of a bus shrinks to a tenth, perhaps to a thirtieth. What claims to hold a hundred times its own
size was made to do harm, or holds nothing worth training on.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import CaptureError
from settings.data import MAX_EXPANSION

FREE_BYTES = 64 * 2**20
"""So much any file may hold, however small it is."""
CHUNK_BYTES = 2**20


class Bound:
    """The most that a capture may hold.

    Args:
        path: The capture.
        max_expansion: Times its own size.

    Raises:
        OSError: The file is gone.
    """

    def __init__(self, path: Path, max_expansion: float = MAX_EXPANSION) -> None:
        self.path, self.max_expansion = path, max_expansion
        self.num_bytes = max(FREE_BYTES, int(max_expansion * path.stat().st_size))

    def require(self, num_bytes: int) -> None:
        """Refuse a file that holds more.

        Raises:
            CaptureError: It does.
        """
        if num_bytes > self.num_bytes:
            raise CaptureError(
                f"{self.path} decompresses to more than {self.max_expansion:g} times its own size (setting "
                "data.max_expansion): it is no recording of a bus, or was made to fill the memory; raise the "
                "setting if you know that it is sound"
            )


class BoundedFile:
    """A file that is decompressed as it is read, and refused where it goes beyond its bound.

    Args:
        file: What decompresses.
        bound: The most that may be read.

    Attributes:
        num_read: Bytes read so far.
    """

    def __init__(self, file: BinaryIO, bound: Bound) -> None:
        self._file, self._bound, self.num_read = file, bound, 0

    def read(self, size: int) -> bytes:
        """Read on, never much beyond the bound, whatever is asked for; errors as of `Bound.require`."""
        content = self._file.read(min(size, self._bound.num_bytes - self.num_read + 1))
        self.num_read += len(content)
        self._bound.require(self.num_read)
        return content

    def chunks(self, num_bytes: int | None = None) -> Iterator[bytes]:
        """So many of the next bytes, or all of them, in pieces; errors as of `Bound.require`."""
        left = math.inf if num_bytes is None else num_bytes
        while left > 0 and (chunk := self.read(int(min(left, CHUNK_BYTES)))):
            left -= len(chunk)
            yield chunk
