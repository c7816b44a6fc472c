"""Bad rows: why they are put aside, and the record of those that were."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.can.frames import CLASSIC_PAYLOAD_BYTES, FD_PAYLOAD_BYTES, Frames

GOOD, BLANK, COLUMNS, TOO_LONG, TIMESTAMP, ID, PAYLOAD, PAYLOAD_LENGTH, DLC, LABEL, FLAGS, ERROR = range(12)
AHEAD, BACKWARD = 12, 13
REASONS = {
    COLUMNS: "wrong number of columns",
    TOO_LONG: "line too long",
    TIMESTAMP: "timestamp is not a number of seconds >= 0",
    ID: "arbitration id is not a hex number of at most 29 bits",
    PAYLOAD: "payload is not pairs of hex digits",
    PAYLOAD_LENGTH: "payload is not 0-8, 12, 16, 20, 24, 32, 48 or 64 bytes long",
    DLC: "DLC does not match the payload bytes",
    LABEL: "label is neither attack nor benign",
    FLAGS: "flags are not understood",
    ERROR: "error frame",
    AHEAD: "timestamp runs ahead of the next one",
    BACKWARD: "timestamp goes back",
}
MAX_EXAMPLES = 20
MAX_EXAMPLE_CHARS = 80
PAYLOAD_LENGTHS = (*range(CLASSIC_PAYLOAD_BYTES + 1), 12, 16, 20, 24, 32, 48, FD_PAYLOAD_BYTES)
_IS_PAYLOAD_LENGTH = np.isin(np.arange(FD_PAYLOAD_BYTES + 2), PAYLOAD_LENGTHS)


def are_payload_lengths(num_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a number of bytes is one that a frame of CAN or CAN FD (ISO 11898-1) can carry."""
    carried: NDArray[np.bool_] = _IS_PAYLOAD_LENGTH[np.clip(num_bytes, -1, FD_PAYLOAD_BYTES + 1)]
    return carried


class Verdicts:
    """Why each row of a block is put aside; the first reason found stays.

    Attributes:
        reason: uint8 ``[R]``, a key of ``REASONS``, ``GOOD``, or ``BLANK`` for rows that hold nothing.
    """

    def __init__(self, num_rows: int) -> None:
        self.reason = np.full(num_rows, GOOD, np.uint8)

    def reject(self, reason: int, bad: NDArray[np.bool_], rows: NDArray[np.int64] | None = None) -> None:
        """Put rows aside: ``bad`` marks all rows, or those named by ``rows``."""
        if bad.any():
            at = np.flatnonzero(bad) if rows is None else rows[bad]
            self.reason[at[self.reason[at] == GOOD]] = reason


@dataclass(frozen=True)
class Candidates:
    """What a format module found in a block.

    Attributes:
        frames: Columns of the rows that have the shape of a frame, good or bad, ``S`` rows.
        rows: int64 ``[S]``, which row of the block each comes from, rising.
        verdicts: Of all ``R`` rows of the block.
    """

    frames: Frames
    rows: NDArray[np.int64]
    verdicts: Verdicts


@dataclass
class Quarantine:
    """Rows of one capture that were put aside.

    Attributes:
        num_rows: How many.
        reasons: How many for each reason.
        examples: The first ones: ``line`` (from 1), ``reason`` and ``text`` (shortened).
    """

    num_rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
