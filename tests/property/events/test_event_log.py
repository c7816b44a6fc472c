"""The log against a list: whoever appends, repeats, compacts or reopens in whatever order."""

import uuid

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from core.errors import ConcurrencyError
from core.events.event import Event, new_event
from core.events.log import EventLog
from core.events.stores import MemoryStore

NAMES = st.lists(st.text(max_size=3), max_size=3)
FAR_BACK = st.integers(0, 3)


class LogAgainstList(RuleBasedStateMachine):
    """Several writers, each with its own, more or less stale, view of one stream."""

    logs = Bundle("logs")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.events: list[Event] = []

    @initialize(target=logs)
    def first(self) -> EventLog:
        return EventLog(self.store)

    @rule(target=logs)
    def open(self) -> EventLog:
        return EventLog(self.store)

    @rule(log=consumes(logs))
    def close(self, log: EventLog) -> None:
        assert log.read("plan") == self.events

    @rule(log=logs, names=NAMES, repeated=st.data())
    def append(self, log: EventLog, names: list[str], repeated: st.DataObject) -> None:
        fresh = [new_event("plan", "chain_finished", {"dataset": name}) for name in names]
        old = repeated.draw(st.lists(st.sampled_from(self.events), max_size=2)) if self.events else []
        appended = log.append([*old, *fresh, *fresh])
        assert [event.event_id for event in appended] == [event.event_id for event in fresh]
        self.events += appended

    @rule(log=logs, back=FAR_BACK)
    def append_as_if_alone(self, log: EventLog, back: int) -> None:
        event = new_event("plan", "chain_finished", {"dataset": uuid.uuid4().hex})
        expected = len(self.events) - 1 - back
        try:
            appended = log.append([event], expected_position=expected)
        except ConcurrencyError:
            assert back > 0
        else:
            assert back == 0
            self.events += appended

    @rule(log=logs, back=FAR_BACK)
    def read(self, log: EventLog, back: int) -> None:
        after = max(len(self.events) - 1 - back, -1)
        assert log.read("plan", after) == self.events[after + 1 :]

    @rule(log=logs)
    def heads(self, log: EventLog) -> None:
        heads = log.heads("plan")
        assert [head.number for head in heads] == list(range(len(heads)))
        assert (heads[-1].position if heads else -1) == len(self.events) - 1

    @rule(log=logs)
    def compact(self, log: EventLog) -> None:
        log.compact("plan")
        assert len({*self.store.names("plan")} - {"compacted"}) <= 1

    @invariant()
    def positions_have_no_gap(self) -> None:
        assert [event.position for event in self.events] == list(range(len(self.events)))


LogAgainstList.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestLogAgainstList = LogAgainstList.TestCase
