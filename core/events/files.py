"""Durable files: written aside, fsynced, and only then given their name."""

import errno
import os
import stat
import uuid
from pathlib import Path


def keep_others_out() -> None:
    """Let others write to nothing that this process and its children make, whatever the umask was."""
    os.umask(os.umask(0o077) | 0o022)


def write_temp(folder: Path, content: bytes) -> Path:
    """Write a new file ``.{random}.tmp``, which no reader takes for one of its own, and fsync it.

    Args:
        folder: An existing folder.
        content: What to write.

    Returns:
        The file, to be renamed or linked and followed by ``fsync_folder``.

    Raises:
        OSError: The folder cannot be written; nothing is left behind.
    """
    temp = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        with temp.open("xb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a file that others may have put there: a device never ends, and a pipe waits for ever.

    Args:
        path: The file.
        max_bytes: The most that it may hold.

    Raises:
        OSError: It cannot be read, is no regular file, or holds more.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > max_bytes:
            raise too_large(str(path), max_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def too_large(place: str, max_bytes: int) -> OSError:
    """What is raised of a file that holds more than any of its kind."""
    return OSError(
        errno.EFBIG, f"it holds more than {max_bytes} bytes, as none of ours does; remove it", place
    )


def put_if_absent(path: Path, content: bytes) -> bool:
    """Give a name to a new file, durably, unless the name is taken: of two writers one wins.

    Returns:
        Whether it was put there; False leaves what is there as it is.

    Raises:
        OSError: The folder cannot be written; nothing is left behind.
    """
    temp = write_temp(path.parent, content)
    try:
        os.link(temp, path)
    except FileExistsError:
        return False
    finally:
        temp.unlink()
    fsync_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or leave it as it was; its folder is made if need be.

    Raises:
        OSError: The folder cannot be written; nothing is left behind.
    """
    make_folder(path.parent)
    temp = write_temp(path.parent, content)
    try:
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, such that their names survive a power cut.

    A folder that is there may have been made just now by a process that was killed before it could fsync.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.parents:
        if not os.access(parent, os.R_OK):
            break  # it was not made by us
        fsync_folder(parent)
        if parent.is_mount():
            break


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
