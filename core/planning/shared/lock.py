"""Locks between processes: the kernel's, so none can outlive the process that holds it."""

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


class HeldError(RetrainError):
    """Another process holds a lock.

    Args:
        path: The lock file.
        holder: What the other process wrote into it: its id.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"process {holder} holds {path}")
        self.holder = holder


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold an output directory: one plan at a time writes to it.

    Raises:
        RetrainError: Another process holds it, or the directory cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = acquire(root / _NAME, _PATIENCE_S)
    except HeldError as error:
        raise RetrainError(
            f"process {error.holder} is carrying out a plan in {root}: wait for it, or choose another "
            "--output-dir"
        ) from error
    except OSError as error:
        raise cannot_write(root, error) from error
    with file:
        yield


def cannot_write(root: Path, error: OSError) -> RetrainError:
    """What to say where an output directory cannot be written."""
    return RetrainError(f"cannot write to {root} (setting output_dir, flag --output-dir): {error.strerror}")


def is_held(root: Path) -> bool:
    """Whether some process is carrying out a plan in an output directory."""
    try:
        with (root / _NAME).open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except OSError:
        return False


def acquire(path: Path, patience_s: float) -> IO[str]:
    """Lock a file, made if it is not there, for this process alone.

    Args:
        path: The lock file; its folder exists.
        patience_s: Seconds to wait for whoever holds it.

    Returns:
        The open file: closing it gives the lock back.

    Raises:
        HeldError: Another process held it all the time.
        OSError: The file cannot be written.
    """
    file = path.open("a+", encoding="ascii")
    deadline = time.monotonic() + patience_s
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            with file:
                file.seek(0)
                raise HeldError(path, file.read().strip() or "?")
        time.sleep(0.05)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
