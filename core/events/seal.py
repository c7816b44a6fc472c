"""Sealed parquet files: their metadata hold the hash of their bytes, so that a flipped bit is found."""

import hashlib
import io
import os
from pathlib import Path

import polars as pl

_SEAL = b"file_sha256="
_NO_DIGEST = b"0" * 64
_BLOCK_BYTES = 2**20
_MAGIC = b"PAR1"


def encode_frame(frame: pl.DataFrame) -> bytes:
    """Rows as a sealed parquet file."""
    file = io.BytesIO()
    frame.write_parquet(file, metadata={"seal": (_SEAL + _NO_DIGEST).decode()})
    content = file.getvalue()
    before, _, after = content.rpartition(_NO_DIGEST)  # metadata come last in a parquet file
    return b"".join((before, hashlib.sha256(content).hexdigest().encode(), after))


def is_sealed(content: bytes) -> bool:
    """Whether a file carries a seal; those of release 0.1.0 do not."""
    return _SEAL in content


def is_changed(content: bytes) -> bool:
    """Whether a file is not as it was when it was sealed; one without a seal never was."""
    return is_sealed(content) and not is_intact(content)


def is_intact(content: bytes) -> bool:
    """Whether a file is sealed, and as it was then."""
    start = content.rfind(_SEAL) + len(_SEAL)
    end = start + len(_NO_DIGEST)
    unsealed = b"".join((content[:start], _NO_DIGEST, content[end:]))
    return hashlib.sha256(unsealed).hexdigest().encode() == content[start:end]


def is_file_intact(path: Path) -> bool | None:
    """The same of a file on disk, which is never held in memory as a whole.

    Returns:
        True if it is as it was when it was sealed, False if not or if it is torn, None if it has no seal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 8))
        tail = file.read(8)
        footer_at = size - 8 - int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or footer_at < 0:
            return False
        file.seek(footer_at)
        footer = file.read(size - footer_at)
        at = footer.rfind(_SEAL)
        if at < 0:
            return None
        start = at + len(_SEAL)
        digest = footer[start : start + len(_NO_DIGEST)]
        found = hashlib.sha256()
        file.seek(0)
        left, block = footer_at, bytearray(_BLOCK_BYTES)
        while left and (num := file.readinto(memoryview(block)[: min(left, _BLOCK_BYTES)])):
            found.update(memoryview(block)[:num])
            left -= num
        found.update(b"".join((footer[:start], _NO_DIGEST, footer[start + len(digest) :])))
    return not left and found.hexdigest().encode() == digest
