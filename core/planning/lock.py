"""One plan at a time writes to an output directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from settings.errors import RetrainError

_NAME = ".lock"


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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RetrainError(
                f"process {file.read().strip() or '?'} is carrying out a plan in {root}: wait for it, or "
                "choose another --output-dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_held(root: Path) -> bool:
    """Whether some process is carrying out a plan in an output directory."""
    try:
        with (root / _NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
