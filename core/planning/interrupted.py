"""The interrupted plan to go on with, for those that cannot name one: automations, and people in a hurry."""

from collections.abc import Iterable

from core.events.catalogue import (
    CheckpointWritten,
    GraphsBuilt,
    ModelSaved,
    PhaseFinished,
    PlanFinished,
    PlanResumed,
)
from core.events.event import Event
from core.events.log import EventLog
from settings.errors import SettingsError

LATEST = "latest"
"""Stands for the newest interrupted plan."""
MOST_FRUITLESS_RESUMES = 3
"""So often in a row a plan is taken up that does not get any further: what kills it would kill it again."""
_PROGRESS = {fact.TYPE for fact in (CheckpointWritten, GraphsBuilt, ModelSaved, PhaseFinished)}


def newest_interrupted(log: EventLog) -> str:
    """Find the newest plan that has not ended; one after which another plan ended is left to people.

    Args:
        log: The event log.

    Raises:
        SettingsError: There is none, or it was taken up again and again without getting any further.
        EventLogError: The log cannot be read.
    """
    for plan_id in reversed(log.streams()):
        events = log.read(plan_id)
        if _has_ended(events):
            break
        if (num := fruitless_resumes(events)) >= MOST_FRUITLESS_RESUMES:
            raise SettingsError(
                f"plan {plan_id} was taken up {num} times without getting any further: see what stops it "
                f"(python -m flows.status), then go on with --resume {plan_id}"
            )
        return plan_id
    raise SettingsError("the last plan was not interrupted: there is nothing to go on with")


def fruitless_resumes(events: Iterable[Event]) -> int:
    """How often a plan was taken up since it last got any further: a checkpoint, graphs, a model, a phase."""
    num = 0
    for event in events:
        num = 0 if event.type in _PROGRESS else num + (event.type == PlanResumed.TYPE)
    return num


def _has_ended(events: Iterable[Event]) -> bool:
    ended = False
    for event in events:
        ended = event.type == PlanFinished.TYPE or (ended and event.type != PlanResumed.TYPE)
    return ended
