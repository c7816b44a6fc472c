"""How much a compressed capture may hold: a small file must not fill memory or disk.

A recording of a bus shrinks to a tenth, perhaps to a thirtieth. What claims to hold a hundred times its own
size was made to do harm, or holds nothing worth training on.
"""

import os
from pathlib import Path
from typing import BinaryIO

from core.errors import CaptureError
from settings.data import MAX_EXPANSION

FREE_BYTES = 64 * 2**20
"""So much any file may hold, however small it is."""


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
    """

    def __init__(self, file: BinaryIO, bound: Bound) -> None:
        self._file, self._bound, self._num_read = file, bound, 0

    def read(self, size: int) -> bytes:
        """Read on; errors as of `Bound.require`."""
        content = self._file.read(size)
        self._num_read += len(content)
        self._bound.require(self._num_read)
        return content

    def read_through(self, chunk_bytes: int = 2**20) -> None:
        """Read to the end and keep nothing; errors as of `Bound.require`."""
        while self.read(chunk_bytes):
            pass

    def skip(self, num_bytes: int) -> None:
        """Go on behind the next bytes."""
        self._file.seek(num_bytes, os.SEEK_CUR)
