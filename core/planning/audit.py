"""Looking back: the log as it was at any position, and whether anyone changed it since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.errors import DamagedLogError, EventLogError
from core.events.catalogue import PlanCreated, to_fact
from core.events.event import Event
from core.events.log import EventLog
from core.events.past import Past
from core.events.segments import EMPTY, Head
from settings.errors import SettingsError


def readable(log: EventLog) -> tuple[dict[str, list[Event]], dict[str, EventLogError]]:
    """Read what can be read, so that one damaged plan does not hide the others.

    Returns:
        Events by plan, and by plan why it cannot be read; every plan is in one of them.

    Raises:
        EventLogError: The plans cannot be listed.
    """
    events: dict[str, list[Event]] = {}
    problems: dict[str, EventLogError] = {}
    for plan_id in log.streams():
        try:
            events[plan_id] = log.read(plan_id)
        except EventLogError as error:
            problems[plan_id] = error
    return events, problems


def as_it_was(
    streams: Mapping[str, Sequence[Event]], plan_id: str, position: int
) -> dict[str, Sequence[Event]]:
    """The events there were when one of them was appended.

    Args:
        streams: All events by plan.
        plan_id: The plan whose event it is.
        position: The event's position; it is the last of its plan in what is returned.

    Returns:
        Of that plan everything up to the position; of each other one everything before its first event that
        happened later, in its own order even where a clock was set back. Plans that had not begun are left
        out.

    Raises:
        SettingsError: The plan has no such position.
    """
    events = streams[plan_id]
    if not 0 <= position < len(events):
        raise SettingsError(
            f"plan {plan_id} has no event {position}: its positions are 0 to {len(events) - 1}"
        )
    return Past(streams).streams(plan_id, position)


@dataclass(frozen=True)
class StreamAudit:
    """What the hashes say about one plan's events.

    Attributes:
        plan_id: The plan.
        status: ``unchanged``; ``unhashed`` where every event is of release 0.1.0, so that no hash vouches for
            any; ``changed`` if events were changed or removed; ``unreadable`` if that cannot be told.
        num_events: Events that could be read; None if there are none.
        head: Where the stream stands: keep its sha256 elsewhere, and no change up to there stays unnoticed.
        num_unhashed: Events of release 0.1.0, which carry no hash of their own.
        problem: What is wrong; empty if nothing is.
    """

    plan_id: str
    status: Literal["unchanged", "unhashed", "changed", "unreadable"]
    num_events: int | None = None
    head: Head = EMPTY
    num_unhashed: int = 0
    problem: str = ""


def audit(log: EventLog) -> list[StreamAudit]:
    """Check every stream's hashes, and that every plan that names the end of the one before finds it so.

    Returns:
        One entry per plan, by name; a plan that is gone altogether but is named by another has one too.
    """
    streams, problems = readable(log)
    heads: dict[str, list[Head]] = {}
    audits: dict[str, StreamAudit] = {}
    anchors: list[tuple[str, str, Head]] = []
    for plan_id, events in streams.items():
        try:
            heads[plan_id] = log.heads(plan_id)
            num_unhashed = log.num_unhashed(plan_id)
            named = _named_heads(events[0])
        except EventLogError as error:
            problems[plan_id] = error
            continue
        status: Literal["unhashed", "unchanged"] = "unhashed" if num_unhashed == len(events) else "unchanged"
        audits[plan_id] = StreamAudit(plan_id, status, len(events), heads[plan_id][-1], num_unhashed)
        anchors += [(plan_id, other, head) for other, head in named]
    for plan_id, problem in problems.items():
        damaged = isinstance(problem, DamagedLogError)
        audits[plan_id] = StreamAudit(plan_id, "changed" if damaged else "unreadable", problem=str(problem))
    for witness, plan_id, anchor in anchors:
        if plan_id not in problems and anchor not in heads.get(plan_id, ()):
            found = audits.get(plan_id, StreamAudit(plan_id, "changed"))
            audits[plan_id] = replace(found, status="changed", problem=_missing(anchor, witness))
    return [audits[plan_id] for plan_id in sorted(audits)]


def _named_heads(first: Event) -> list[tuple[str, Head]]:
    """Where other plans stood by a plan's first event."""
    created = to_fact(first)
    previous = created.previous if isinstance(created, PlanCreated) else []
    return [(named["plan"], Head(named["number"], named["position"], named["sha256"])) for named in previous]


def _missing(anchor: Head, witness: str) -> str:
    return (
        f"its first {anchor.position + 1} events are not those that plan {witness} saw "
        f"(sha256 {anchor.sha256[:12]}... at position {anchor.position}): they were changed or removed; "
        "restore them from a backup"
    )


def unnamed_heads(log: EventLog) -> list[dict[str, Any]]:
    """Where every plan stands that has gone on since a plan last named it, for ``PlanCreated.previous``.

    Raises:
        EventLogError: The log cannot be read.
    """
    named: dict[str, list[str]] = {}
    streams = log.streams()
    for plan_id in streams:
        for other, head in _named_heads(log.read(plan_id)[0]):
            named.setdefault(other, []).append(head.sha256)
    heads = {plan_id: log.heads(plan_id)[-1] for plan_id in streams}
    return [
        {"plan": plan_id, **head._asdict()}
        for plan_id, head in heads.items()
        if head.sha256 not in named.get(plan_id, ())
    ]
