"""Captures in the formats that python-can reads, message by message."""

import gzip
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.can import quarantine
from core.can.blocks import is_zipped
from core.can.bounds import Bound
from core.can.message_bounds import require_bounded
from core.can.quarantine import MAX_EXAMPLE_CHARS, Candidates, Verdicts
from core.can.tables import BYTES_PER_ROW, Columns, check_columns
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
    num_read = 0
    try:
        bound = Bound(path, max_expansion)
        require_bounded(path, suffix, bound)
        with _open(path, suffix) as log:
            messages = _within(bound, log)
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


def _open(path: Path, suffix: str) -> "can.io.generic.MessageReader":
    """The reader of a format; python-can itself would let a compressed file's name say which, unchecked."""
    from can.io import MESSAGE_READERS
    from can.io.generic import TextIOMessageReader

    kind = MESSAGE_READERS[suffix]
    if not is_zipped(path):
        return kind(path)
    file: Any = gzip.open(path, "rt" if issubclass(kind, TextIOMessageReader) else "rb")  # noqa: SIM115 - it closes it
    return kind(file)


def _within(bound: Bound, messages: Iterable["can.Message"]) -> Iterator["can.Message"]:
    """Messages as long as they fit the bound: a file may name the same bytes as message after message."""
    num_bytes = 0
    for message in messages:
        num_bytes += BYTES_PER_ROW + len(message.data)
        bound.require(num_bytes)
        yield message


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
    return lambda row: (offset + row + 1, _describe(messages[row]))


def _describe(message: "can.Message") -> str:
    """Its own text fails where a field that a file left empty is a number there."""
    return f"{message.timestamp} {message.arbitration_id:X} {message.data[:MAX_EXAMPLE_CHARS].hex()}"
