"""Captures in the formats that python-can reads, message by message."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.can import quarantine
from core.can.message_bounds import require_bounded
from core.can.quarantine import Candidates, Verdicts
from core.can.tables import Columns, check_columns
from core.errors import CaptureError

if TYPE_CHECKING:
    import can

SUFFIXES = (".asc", ".blf", ".trc", ".db", ".mf4")
MAGIC = {
    b"LOGG": ".blf",
    b"MDF  ": ".mf4",
    b"SQLite format 3\0": ".db",
    b"timestamp,arbitration_id,extended,remote,error,dlc,data": ".csv",
}
MESSAGES_PER_BLOCK = 100_000


def find_suffix(path: Path, head: bytes) -> str | None:
    """Suffix by which python-can knows the format of a file, from its first bytes or its name."""
    named = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    by_name = named if named in SUFFIXES else None
    return next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), by_name)


def read_messages(
    path: Path, suffix: str, max_expansion: float
) -> Iterator[tuple[Candidates, Callable[[int], tuple[int, str]]]]:
    """Read a log with python-can; a bad message's line is its number, from 1.

    Args:
        path: The capture.
        suffix: By which python-can knows its format.
        max_expansion: The most that it may decompress to, times its own size.

    Raises:
        CaptureError: python-can cannot read the file, or it is not let at it.
    """
    import can  # with its MF4 reader it takes longer to load than most captures to read

    num_read = 0
    try:
        require_bounded(path, suffix, max_expansion)
        reader = can.LogReader(path) if path.suffix.lower() == ".gz" else can.io.MESSAGE_READERS[suffix](path)
        with reader as log:
            if isinstance(log, can.BLFReader):  # it would stop at a cut without a word
                _refuse_truncated(path, log.file_size)
            messages = iter(log)
            while block := list(islice(messages, MESSAGES_PER_BLOCK)):
                verdicts = Verdicts(len(block))
                verdicts.reject(quarantine.ERROR, np.array([m.is_error_frame for m in block]))
                yield check_columns(_to_columns(block), verdicts), _describe_message(block, num_read)
                num_read += len(block)
    except CaptureError:
        raise
    # Each of python-can's readers raises errors of its own kinds on a damaged file.
    except Exception as error:
        raise CaptureError(
            f"cannot read {path} as {suffix} after {num_read} messages: {type(error).__name__}: {error}"
        ) from error


def _refuse_truncated(path: Path, num_bytes: int) -> None:
    if path.stat().st_size < num_bytes:
        raise CaptureError(f"{path} is truncated: its header tells of {num_bytes} bytes; restore the file")


def _to_columns(messages: list["can.Message"]) -> Columns:
    size = len(messages)
    return Columns(
        timestamp=np.fromiter((m.timestamp for m in messages), np.float64, size),
        arbitration_id=np.fromiter((m.arbitration_id for m in messages), np.int64, size),
        extended=np.fromiter((m.is_extended_id for m in messages), np.bool_, size),
        remote=np.fromiter((m.is_remote_frame for m in messages), np.bool_, size),
        attack=np.full(size, -1, np.int64),
        length=np.fromiter((len(m.data) for m in messages), np.int64, size),
        payload=np.frombuffer(b"".join(m.data for m in messages), np.uint8),
    )


def _describe_message(messages: list["can.Message"], offset: int) -> Callable[[int], tuple[int, str]]:
    return lambda row: (offset + row + 1, str(messages[row]))
