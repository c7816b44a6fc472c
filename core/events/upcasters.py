"""Steps that lift an old event's payload to the next version of its type.

A released payload shape is never forgotten: when a type's ``VERSION`` rises from n to n + 1, the function
that turns an n payload into an n + 1 payload is registered here under ``(type, n)``.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from core.events.event import Event

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_INPUT_FIELDS = (
    "data_load_s",
    "num_packs",
    "num_workers",
    "prefetch_factor",
    "num_adjustments",
    "gpu_percent",
    "ram_percent",
)

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {
    # 0.2.0: a plan names the end of the one before it; a resumed one may find its captures elsewhere;
    # checkpoints are written within epochs too.
    ("plan_created", 1): lambda payload: {**payload, "previous": []},
    ("plan_resumed", 1): lambda payload: {**payload, "data_dir": None},
    ("checkpoint_written", 1): lambda payload: {**payload, "num_steps": None},
    # 0.3.0: attempts say what the log chose for them, failures where their stacks are, epochs how their
    # input went, recommendations what each of them rests on.
    ("phase_started", 1): lambda payload: {
        **payload,
        "num_workers": None,
        "prefetch_factor": None,
        "choices": [],
    },
    ("phase_failed", 1): lambda payload: {**payload, "report": None},
    ("epoch_finished", 1): lambda payload: {**payload, **dict.fromkeys(_INPUT_FIELDS)},
    ("config_recommended", 1): lambda payload: {**payload, "advice": []},
    # 0.4.0: epochs say how long validation took.
    ("epoch_finished", 2): lambda payload: {**payload, "validation_s": None},
    # 0.5.0: a plan says which datasets go first.
    ("plan_created", 2): lambda payload: {**payload, "priority": []},
    # 0.5.0: a chain says which process works on it.
    ("chain_started", 1): lambda payload: {**payload, "holder": ""},
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
