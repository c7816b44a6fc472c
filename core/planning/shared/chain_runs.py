"""Chains that other processes carry out: what the log and their leases tell of them, and what to do next."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from core.events.catalogue import (
    ChainFinished,
    ChainStarted,
    CheckpointWritten,
    EpochFinished,
    GraphsBuilt,
    ModelEvaluated,
    PhaseFinished,
)
from core.events.event import Event
from core.events.leases import Sign, last_sign
from core.events.stores import SegmentStore

Run = Literal["going", "ended", "cancelled"]
"""What Prefect says of a flow run: it waits or goes on; it ended, however it did; it was cancelled."""

Step = Literal["wait", "over", "again", "give_up", "cancelled"]

_START_S = 300.0
"""A run that shows no sign of its chain for so long is lost: its worker took it and was gone."""
_FREED_S = 15.0
"""A run whose chain nobody holds any more has so long to say how it ended."""
_PROGRESS = {
    fact.TYPE for fact in (CheckpointWritten, EpochFinished, GraphsBuilt, ModelEvaluated, PhaseFinished)
}


@dataclass(frozen=True)
class Heard:
    """What the log told of a chain since it was last submitted.

    Attributes:
        has_started: Whether some process said that it works on it.
        has_progressed: Whether anything came of that.
        finished: How the chain ended, ``completed`` or ``failed``; empty as long as it has not.
    """

    has_started: bool = False
    has_progressed: bool = False
    finished: str = ""


def hear(heard: Heard, dataset: str, events: Iterable[Event]) -> Heard:
    """Take note of what happened since."""
    for event in events:
        if event.payload.get("dataset") != dataset:
            continue
        if event.type == ChainStarted.TYPE:
            heard = replace(heard, has_started=True, finished="")
        elif event.type == ChainFinished.TYPE:
            heard = replace(heard, finished=event.payload["status"])
        elif event.type in _PROGRESS:
            heard = replace(heard, has_progressed=True)
    return heard


def next_step(run: Run, heard: Heard, is_lost: bool, num_fruitless: int, max_fruitless: int) -> Step:
    """What to do about a chain that was submitted.

    The log has the last word on whether it is over; a run that ended or was lost before that is followed by
    another, unless that would only repeat itself.

    Args:
        run: What Prefect says of its flow run.
        heard: What the log says.
        is_lost: Whether nobody works on it though Prefect thinks so.
        num_fruitless: Runs before this one, in a row, of which nothing came.
        max_fruitless: Most such runs after the first.
    """
    if heard.finished == "completed" or (heard.finished and (run != "going" or is_lost)):
        return "over"
    if run == "cancelled":
        return "cancelled"
    if run == "going" and not is_lost:
        return "wait"
    return "again" if heard.has_progressed or num_fruitless < max_fruitless else "give_up"


class LeaseWatch:
    """Whether a chain's holder was lost, by the observer's own clock.

    Args:
        store: Where leases are.
        dataset: The chain's dataset.
        clock: Seconds that never go back.
    """

    def __init__(
        self, store: SegmentStore, dataset: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._dataset, self._clock = store, dataset, clock
        self._seen: tuple[int, Sign] | None = None
        self._since = clock()

    def is_lost(self, heard: Heard, is_waiting: bool = False) -> bool:
        """Whether nobody works on the chain any more, or nobody ever began to.

        Args:
            heard: What the log says.
            is_waiting: Whether no worker has taken its run yet: it may do so for ever.

        Raises:
            OSError: The store cannot be read.
            EventLogError: A lease is damaged.
        """
        last = last_sign(self._store, self._dataset)
        if last != self._seen or is_waiting:
            self._seen, self._since = last, self._clock()
        silent_s = self._clock() - self._since
        if not heard.has_started or last is None:
            return silent_s >= _START_S
        return silent_s >= (_FREED_S if last[1].is_free else last[1].lease_s)
