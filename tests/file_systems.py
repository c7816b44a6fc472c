"""File systems of their own for tests: to fill up, and to make read-only."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[Path]:
    """An empty one of a size in a folder; the test is skipped where none may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    mounting = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounting.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounting.stderr.strip()}")
    try:
        yield disk
    finally:  # one that was mounted over itself is there twice
        while subprocess.run(["umount", "-l", disk], capture_output=True, check=False).returncode == 0:
            pass
