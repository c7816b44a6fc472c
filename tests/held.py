"""A command that gets no further than a fact: whoever interrupts it before that is never too late.

::

    python -m tests.held FACT_TYPE/PHASE MODULE ARGUMENTS...
"""

import runpy
import sys
import time
from collections.abc import Sequence

from core.events.event import Event
from core.events.log import EventLog


def main() -> None:
    kind, _, phase = sys.argv[1].partition("/")
    append = EventLog.append

    def held(log: EventLog, events: Sequence[Event], expected_position: int | None = None) -> list[Event]:
        appended = append(log, events, expected_position)
        while any(event.type == kind and event.payload["phase"] == phase for event in appended):
            time.sleep(0.1)
        return appended

    EventLog.append = held  # type: ignore[assignment, method-assign]
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
