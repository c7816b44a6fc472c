"""Steps that lift an old event's payload to the next version of its type.

A released payload shape is never forgotten: when a type's ``VERSION`` rises from n to n + 1, the function
that turns an n payload into an n + 1 payload is registered here under ``(type, n)``.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from core.events.event import Event

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {
    # 0.2.0: a plan names the end of the one before it; a resumed one may find its captures elsewhere;
    # checkpoints are written within epochs too.
    ("plan_created", 1): lambda payload: {**payload, "previous": []},
    ("plan_resumed", 1): lambda payload: {**payload, "data_dir": None},
    ("checkpoint_written", 1): lambda payload: {**payload, "num_steps": None},
}


def upcast(event: Event, steps: Mapping[tuple[str, int], Upcaster] = UPCASTERS) -> Event:
    """Lift an event to the newest version its type has steps for.

    Args:
        event: An event of any known version.
        steps: Functions by (type, version they start from).

    Returns:
        The same event when it is current, else one with the lifted payload and version.
    """
    while step := steps.get((event.type, event.version)):
        event = event._replace(version=event.version + 1, payload=step(dict(event.payload)))
    return event
