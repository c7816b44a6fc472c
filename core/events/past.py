"""The log as it was: all streams, cut at the moment of any event."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from core.events.event import Event


class Past:
    """Streams as they were when one of their events was appended.

    Of that event's stream it is everything up to the event; of each other one everything before its first
    event that happened later, in its own order even where a clock was set back.

    Args:
        streams: Events by stream; one that grows is looked at again.
    """

    def __init__(self, streams: Mapping[str, Sequence[Event]]) -> None:
        self._streams = streams
        self._latest: dict[str, list[datetime]] = {}

    def lengths(self, stream: str, position: int = -1) -> dict[str, int]:
        """How many events of each stream there were; a stream that had not begun is left out.

        Args:
            stream: Whose event it is.
            position: The event's place; -1 for the last.
        """
        events = self._streams[stream]
        moment = events[position].occurred_at
        found = {name: bisect_right(self._latest_of(name), moment) for name in self._streams}
        found[stream] = position % len(events) + 1
        return {name: num for name, num in found.items() if num}

    def streams(self, stream: str, position: int = -1) -> dict[str, Sequence[Event]]:
        """The events there were; arguments as in `lengths`."""
        return {name: self._streams[name][:num] for name, num in self.lengths(stream, position).items()}

    def _latest_of(self, stream: str) -> list[datetime]:
        """Of each event the latest time up to it: in order, whatever clocks said."""
        events, known = self._streams[stream], self._latest.get(stream, [])
        if len(known) != len(events):
            known = list(accumulate((event.occurred_at for event in events), max))
            self._latest[stream] = known
        return known
