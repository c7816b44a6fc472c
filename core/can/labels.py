"""The label rule for captures that come without labels."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.can.frames import EXTENDED_ID_DIGITS, MAX_STANDARD_ID, Frames
from core.errors import CaptureError


@dataclass(frozen=True)
class AttackRule:
    """Frames that are attacks, each given by id and payload; every other frame is benign.

    Attributes:
        frames: One per rule: arbitration id, whether it is a 29-bit id, payload.
    """

    frames: tuple[tuple[int, bool, bytes], ...]

    @classmethod
    def of(cls, attack_frames: tuple[str, ...]) -> "AttackRule | None":
        """Read rules as in ``DatasetSettings.attack_frames``: ``254#918FFE0603A60FFF``; None for no rules.

        Raises:
            CaptureError: A rule that is not ``ID#HEX``.
        """
        return cls(tuple(_parse(rule) for rule in attack_frames)) if attack_frames else None

    def label(self, frames: Frames) -> Frames:
        """Label frames that have no label yet (``attack`` -1)."""
        attack = np.zeros(len(frames), np.int8)
        for arbitration_id, extended, payload in self.frames:
            rows = np.flatnonzero((frames.arbitration_id == arbitration_id) & (frames.extended == extended))
            attack[rows[_carries(frames, rows, payload)]] = 1
        return replace(frames, attack=np.where(frames.attack == -1, attack, frames.attack))


def _carries(frames: Frames, rows: NDArray[np.int64], payload: bytes) -> NDArray[np.bool_]:
    wanted = np.frombuffer(payload, np.uint8)[: frames.payload.shape[1]]
    carried: NDArray[np.bool_] = (frames.payload[rows, : len(wanted)] == wanted).all(axis=1)
    carried &= (frames.length[rows] == len(payload)) & ~frames.remote[rows]
    return carried


def _parse(rule: str) -> tuple[int, bool, bytes]:
    try:
        digits, payload = rule.split("#")
        arbitration_id = int(digits, 16)
        extended = len(digits) == EXTENDED_ID_DIGITS or arbitration_id > MAX_STANDARD_ID
        return arbitration_id, extended, bytes.fromhex(payload)
    except ValueError as error:
        raise CaptureError(
            f"attack_frames: {rule!r} is not a frame written as ID#HEX, like 254#918FFE0603A60FFF"
        ) from error
