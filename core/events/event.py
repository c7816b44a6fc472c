"""The envelope: what every event carries besides its payload."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact, in the past tense, about one plan.

    Attributes:
        stream: The plan's id.
        type: Stable name from the catalogue, never a class path.
        version: Version of the payload's shape.
        payload: Primitives only (JSON).
        event_id: Identity; the same id appended twice is one event.
        occurred_at: When it happened, UTC.
        position: Gapless place in the stream, given by the log; -1 before it is appended.
    """

    stream: str
    type: str
    payload: Mapping[str, Any]
    version: int = 1
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    position: int = -1
