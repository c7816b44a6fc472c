"""The envelope: what every event carries besides its payload."""

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One fact, in the past tense, about one plan. A tuple, because logs hold a million of them.

    Attributes:
        stream: The plan's id.
        type: Stable name from the catalogue, never a class path.
        payload: Primitives only (JSON).
        version: Version of the payload's shape.
        event_id: Identity; the same id appended twice is one event.
        occurred_at: When it happened, UTC.
        position: Gapless place in the stream, given by the log; -1 before it is appended.
    """

    stream: str
    type: str
    payload: Mapping[str, Any]
    version: int
    event_id: str
    occurred_at: datetime
    position: int = -1


def new_event(stream: str, kind: str, payload: Mapping[str, Any], version: int = 1) -> Event:
    """An event that happens now, with an identity of its own, not yet appended."""
    return Event(stream, kind, payload, version, uuid.uuid4().hex, datetime.now(UTC))


class StoredPayload(Mapping[str, Any]):
    """A payload as it is stored, decoded when it is first looked into: most folds skip most events.

    Args:
        text: A JSON object.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def decoded(self) -> dict[str, Any]:
        """The payload as a dictionary, not to be changed."""
        decoded: dict[str, Any] = json.loads(self.text)
        return decoded

    def __getitem__(self, name: str) -> Any:
        """A field's value."""
        return self.decoded[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the fields."""
        return iter(self.decoded)

    def __len__(self) -> int:
        """Number of fields."""
        return len(self.decoded)

    def __repr__(self) -> str:
        """The decoded payload."""
        return repr(self.decoded)
