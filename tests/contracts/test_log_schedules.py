"""Writers, readers and compactors of one stream, run in every order of their store calls.

Each actor is a thread that stops before each of its store calls; a scheduler says who goes on. Every schedule
with at most a few preemptions is played, each on a fresh store: a race that needs three actors at exactly the
wrong places is found every time, not now and then. ``LOG_PREEMPTIONS=2`` plays thousands (minutes).
"""

import os
import threading
from collections.abc import Iterator, Sequence

import pytest

from core.events.catalogue import ChainStarted, to_event
from core.events.event import Event
from core.events.log import EventLog
from core.events.stores import MemoryStore

PREEMPTIONS = int(os.environ.get("LOG_PREEMPTIONS", "1"))
Step = tuple[int, str]
"""Which log does what: append, compact or read."""


class SteppedStore(MemoryStore):
    """Lets an actor stop before each of its calls; everybody else passes."""

    def __init__(self) -> None:
        super().__init__()
        self.actors: dict[int, Actor] = {}

    def _stop(self) -> None:
        if actor := self.actors.get(threading.get_ident()):
            actor.stop()

    def names(self, stream: str) -> list[str]:
        self._stop()
        return super().names(stream)

    def read(self, stream: str, name: str, max_bytes: int) -> bytes:
        self._stop()
        return super().read(stream, name, max_bytes)

    def put_if_absent(self, stream: str, name: str, content: bytes) -> bool:
        self._stop()
        return super().put_if_absent(stream, name, content)

    def delete(self, stream: str, name: str) -> None:
        self._stop()
        super().delete(stream, name)


class Actor(threading.Thread):
    """Acts on a log, one store call at a time."""

    def __init__(self, store: SteppedStore, log: EventLog, action: str) -> None:
        super().__init__(daemon=True)
        self._store, self._log, self._action = store, log, action
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.is_done = False
        self.events: list[Event] = []
        self.error: Exception | None = None

    def run(self) -> None:
        self._store.actors[threading.get_ident()] = self
        self._go.acquire()
        try:
            self.events = act(self._log, self._action)
        except Exception as error:  # noqa: BLE001 - play() looks at it
            self.error = error
        self.is_done = True
        self._stopped.release()

    def step(self) -> None:
        """Go on up to the next store call."""
        self._go.release()
        self._stopped.acquire()

    def stop(self) -> None:
        self._stopped.release()
        self._go.acquire()


def act(log: EventLog, action: str) -> list[Event]:
    if action == "append":
        return log.append([to_event("plan", ChainStarted(dataset="a"))])
    if action == "compact":
        log.compact("plan")
        return []
    return log.read("plan")


def play(past: Sequence[Step], now: Sequence[Step], choices: Sequence[int]) -> list[list[int]]:
    """Act under the first choices, then let whoever runs go on until it is done; check what comes out.

    Returns:
        For each step the choice made, then the others that could have been made.
    """
    store = SteppedStore()
    logs = [EventLog(store) for _ in range(4)]
    acknowledged = [event for log, action in past for event in act(logs[log], action) if action == "append"]
    actors = [Actor(store, logs[log], action) for log, action in now]
    for actor in actors:
        actor.start()
    made: list[list[int]] = []
    while running := [i for i, actor in enumerate(actors) if not actor.is_done]:
        current = made[-1][0] if made and made[-1][0] in running else running[0]
        choice = choices[len(made)] if len(made) < len(choices) else current
        made.append([choice, *(i for i in running if i != choice)])
        actors[choice].step()

    errors = [actor.error for actor in actors if actor.error]
    assert errors == []
    final = EventLog(store).read("plan")
    for actor, (_, action) in zip(actors, now, strict=True):
        if action == "append":
            acknowledged += actor.events
            assert len(actor.events) == 1
        else:
            assert actor.events == final[: len(actor.events)]
    assert len(final) == len(acknowledged)
    assert all(final[event.position] == event for event in acknowledged)
    for i, log in enumerate(logs):
        assert log.read("plan") == final
        final += act(log, "append")
        assert len(final) == len(acknowledged) + i + 1
    assert EventLog(store).read("plan") == final
    return made


def schedules(past: Sequence[Step], now: Sequence[Step], preemptions: int) -> Iterator[list[int]]:
    """Play every schedule with at most so many preemptions."""
    open_ends: list[tuple[list[int], int]] = [([], preemptions)]
    while open_ends:
        choices, left = open_ends.pop()
        made = play(past, now, choices)
        yield [choice for choice, *_ in made]
        for i in range(len(choices), len(made)):
            went_on = i > 0 and made[i - 1][0] == made[i][0]
            if left >= went_on:
                before = [choice for choice, *_ in made[:i]]
                open_ends += [([*before, other], left - went_on) for other in made[i][1:]]


THREE = [(0, "append"), (1, "append"), (2, "append")]
SCENES: dict[str, tuple[list[Step], list[Step]]] = {
    "two stale writers after a compaction": ([*THREE, (2, "compact")], [(0, "append"), (1, "append")]),
    "stale writer, compactor": (THREE, [(0, "append"), (2, "compact")]),
    "stale writer, reader after a compaction": ([*THREE, (2, "compact")], [(0, "append"), (1, "read")]),
    "two compactors": (THREE, [(0, "compact"), (1, "compact")]),
    "new writer, compactor": (THREE, [(3, "append"), (2, "compact")]),
    "first writers": ([], [(0, "append"), (1, "append")]),
    "compactor over a compact file, reader": (
        [*THREE, (2, "compact"), (2, "append")],
        [(2, "compact"), (0, "read")],
    ),
}
CROWDS: dict[str, tuple[list[Step], list[Step]]] = {
    "writer, compactor, reader": (THREE, [(1, "append"), (2, "compact"), (0, "read")]),
    "writer, two compactors": (THREE, [(1, "append"), (2, "compact"), (3, "compact")]),
    "two writers, compactor": (THREE, [(0, "append"), (1, "append"), (2, "compact")]),
}


@pytest.mark.parametrize(("past", "now"), SCENES.values(), ids=SCENES)
def test_two_actors_lose_and_invent_nothing(past: list[Step], now: list[Step]) -> None:
    assert len({tuple(schedule) for schedule in schedules(past, now, PREEMPTIONS)}) > 5


@pytest.mark.slow
@pytest.mark.parametrize(("past", "now"), CROWDS.values(), ids=CROWDS)
def test_three_actors_lose_and_invent_nothing(past: list[Step], now: list[Step]) -> None:
    assert len({tuple(schedule) for schedule in schedules(past, now, PREEMPTIONS)}) > 50
