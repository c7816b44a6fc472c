"""Where the segments of a log are kept: the port that every store implements, and two stores."""

import errno
import os
import threading
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from core.events.files import fsync_folder, make_folder, put_if_absent, read_regular, too_large

SMALL_BYTES = 2**16
"""More than any mark, sign or name takes."""
MODEL_BYTES = 2**32
"""More than any model or checkpoint takes."""


class SegmentStore(Protocol):
    """Named immutable blobs in streams; the one thing it must do well is ``put_if_absent``.

    Every method raises ``OSError`` where the store cannot be read or written.
    """

    location: str
    """Where it is, for people."""

    def streams(self) -> list[str]:
        """Names of all streams, in any order; some may hold nothing."""

    def names(self, stream: str) -> list[str]:
        """Names of all blobs of a stream, in any order; none for an unknown stream.

        What is listed is durable, whoever put it.
        """

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        """A blob's content; more of it than may be there is not taken into memory.

        Raises:
            FileNotFoundError: There is no such blob.
            OSError: It is larger than ``max_bytes``, or cannot be read.
        """

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        """Put a blob where none is, whole or not at all; of two writers one wins.

        Returns:
            Whether it was put; it is then durable, and seen by every later read, listing and put.
        """

    def delete(self, stream: str, name: str) -> None:
        """Delete a blob; one that is not there is no error."""


class LocalStore:
    """A folder per stream on a local disk.

    Args:
        root: Folder of the streams; made by the first put.

    Attributes:
        root: That folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[str] = set()
        self.location = str(root)

    def streams(self) -> list[str]:
        """See ``SegmentStore``."""
        return [path.name for path in self.root.iterdir()] if self.root.exists() else []

    def names(self, stream: str) -> list[str]:
        """See ``SegmentStore``."""
        folder = self.root / stream
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:  # twice as fast as iterdir, and each append lists
            names = [entry.name for entry in entries]
        try:
            fsync_folder(
                folder
            )  # a writer killed before it could do so left a name that a power cut would take
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS):  # an archive: nobody writes there
                raise
        return names

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        """See ``SegmentStore``."""
        return read_regular(self.root / stream / name, max_bytes)

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        """See ``SegmentStore``."""
        if stream not in self._made:
            make_folder(self.root / stream)
            self._made.add(stream)
        return put_if_absent(self.root / stream / name, content)

    def delete(self, stream: str, name: str) -> None:
        """See ``SegmentStore``."""
        (self.root / stream / name).unlink(missing_ok=True)


class MemoryStore:
    """In this process's memory, for tests and for trying things out."""

    location = "memory"

    def __init__(self) -> None:
        self._blobs: dict[str, dict[str, bytes]] = defaultdict(dict)
        self._putting = threading.Lock()

    def streams(self) -> list[str]:
        """See ``SegmentStore``."""
        return list(self._blobs)

    def names(self, stream: str) -> list[str]:
        """See ``SegmentStore``."""
        return list(self._blobs[stream])

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        """See ``SegmentStore``."""
        try:
            content = self._blobs[stream][name]
        except KeyError:
            raise FileNotFoundError(f"{stream}/{name}") from None
        if len(content) > max_bytes:
            raise too_large(f"{stream}/{name}", max_bytes)
        return content

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        """See ``SegmentStore``."""
        with self._putting:
            absent = name not in self._blobs[stream]
            self._blobs[stream].setdefault(name, content)
            return absent

    def delete(self, stream: str, name: str) -> None:
        """See ``SegmentStore``."""
        self._blobs[stream].pop(name, None)
