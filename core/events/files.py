"""Durable parquet files: written aside, fsynced, and only then given their name by the caller."""

import io
import os
import uuid
from pathlib import Path

import polars as pl


def write_temp(folder: Path, frame: pl.DataFrame) -> Path:
    """Write a frame to a new file ``.{random}.tmp``, which no reader takes for a parquet file, and fsync it.

    Args:
        folder: An existing folder.
        frame: What to write.

    Returns:
        The file, to be renamed or linked and followed by ``fsync_folder``.

    Raises:
        OSError: The folder cannot be written; nothing is left behind.
    """
    temp = folder / f".{uuid.uuid4().hex}.tmp"
    parquet = io.BytesIO()  # polars itself would report a full disk as a ComputeError
    frame.write_parquet(parquet)
    try:
        with temp.open("xb") as file:
            file.write(parquet.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Raises:
        OSError: The folder is gone or its disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
