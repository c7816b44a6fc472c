"""State from events: a projection is an initial state and a pure step, nothing else."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.events.event import Event

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
