"""One plan at a time writes to an output directory."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from settings.errors import RetrainError

_NAME = ".lock"
_PATIENCE_S = 1.0
"""Whoever only looks (``is_held``) holds the lock for a moment."""


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold an output directory; the lock is the kernel's, so it cannot outlive this process.

    Raises:
        RetrainError: Another process holds it, or the directory cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / _NAME).open("a+", encoding="ascii")
    except OSError as error:
        raise RetrainError(
            f"cannot write to {root} (setting output_dir, flag --output-dir): {error.strerror}"
        ) from error
    with file:
        deadline = time.monotonic() + _PATIENCE_S
        while not _try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                file.seek(0)
                raise RetrainError(
                    f"process {file.read().strip() or '?'} is carrying out a plan in {root}: wait for it, or "
                    "choose another --output-dir"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_held(root: Path) -> bool:
    """Whether some process is carrying out a plan in an output directory."""
    try:
        with (root / _NAME).open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
