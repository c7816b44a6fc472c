"""Frames in columns: what every reader yields and every later step takes."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

CLASSIC_PAYLOAD_BYTES = 8
FD_PAYLOAD_BYTES = 64
MAX_STANDARD_ID = 0x7FF
MAX_EXTENDED_ID = 0x1FFF_FFFF
EXTENDED_ID_DIGITS = 8
"""Hex digits by which candump writes a 29-bit id."""


@dataclass(frozen=True)
class Frames:
    """Consecutive frames of one capture, one row per frame, in capture order.

    Attributes:
        timestamp: float64 ``[F]``, seconds as in the capture, never falling.
        arbitration_id: uint32 ``[F]``, 11- or 29-bit id without flag bits.
        extended: bool ``[F]``, true for 29-bit ids.
        remote: bool ``[F]``, true for remote frames (they carry no payload).
        length: uint8 ``[F]``, payload bytes carried.
        payload: uint8 ``[F, 8]``, or ``[F, 64]`` as soon as a frame of the block carries more than 8 bytes;
            bytes that a frame does not carry are 0.
        attack: int8 ``[F]``: 0 benign, 1 attack, -1 unlabelled.
    """

    timestamp: NDArray[np.float64]
    arbitration_id: NDArray[np.uint32]
    extended: NDArray[np.bool_]
    remote: NDArray[np.bool_]
    length: NDArray[np.uint8]
    payload: NDArray[np.uint8]
    attack: NDArray[np.int8]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.timestamp)

    def __getitem__(self, rows: slice) -> Self:
        """A view of some of the rows."""
        return type(self)(**{name: column[rows] for name, column in vars(self).items()})


def concat(blocks: list[Frames]) -> Frames:
    """Join blocks of one capture; classic payloads are widened when any block holds CAN FD ones."""
    width = max(block.payload.shape[1] for block in blocks)
    columns = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in vars(blocks[0])
        if name != "payload"
    }
    payload = np.concatenate([np.pad(b.payload, ((0, 0), (0, width - b.payload.shape[1]))) for b in blocks])
    return Frames(payload=payload, **columns)
