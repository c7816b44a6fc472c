"""State from events: a projection is an initial state and a pure step, nothing else."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.events.event import Event
from core.events.log import EventLog

State = TypeVar("State")


@dataclass(frozen=True)
class Projection(Generic[State]):
    """A view of the log.

    Attributes:
        initial: The state before the first event.
        apply: Pure step ``(state, event) -> state``; it never changes the state it is given.
    """

    initial: State
    apply: Callable[[State, Event], State]

    def fold(self, events: Iterable[Event], snapshot: State | None = None) -> State:
        """Fold events in order, from the beginning or from a snapshot.

        ``fold(all) == fold(rest, snapshot=fold(first))`` for every cut.
        """
        return functools.reduce(self.apply, events, self.initial if snapshot is None else snapshot)


class Following(Generic[State]):
    """The state of one stream: each look reads and folds only what was appended since the last.

    Args:
        log: The log.
        stream: The stream.
        projection: How its events are folded.

    Attributes:
        latest: The state at the last look.
    """

    def __init__(self, log: EventLog, stream: str, projection: Projection[State]) -> None:
        self._log, self._stream, self._projection = log, stream, projection
        self._position = -1
        self.latest = projection.initial

    def state(self) -> State:
        """The state now; errors as in ``EventLog.read``."""
        self._fold(self._log.read(self._stream, after=self._position))
        return self.latest

    def append(self, event: Event) -> None:
        """Append an event right after the last one seen, and fold it.

        Raises:
            ConcurrencyError: Others were appended since: look at the state, and try again.
            EventLogError: As in ``EventLog.append``.
        """
        self._fold(self._log.append([event], self._position))

    def _fold(self, events: Sequence[Event]) -> None:
        if events:
            self.latest = self._projection.fold(events, self.latest)
            self._position = events[-1].position
